//! A miss streams to its client while the cache takes its copy, whatever part of it the client asked for; and what the cache says about
//! the content is true and stays the same as long as the content does.

mod support;

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use larder::Policy;
use support::bodies::*;

const WHOLE: &[u8; 40] = b"0123456789abcdefghijklmnopqrstuvwxyzABCD";
const TEN: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);

/// A handler that answers once, with this.
fn once(answer: http::Response<Content>) -> Handler {
    let answer = Mutex::new(Some(answer));
    Handler::new(move |_, _| answer.lock().expect("no holder panics").take().expect("the handler is asked once"))
}

fn shared(handler: Handler) -> Setup {
    set_up(handler, |layer| layer.otherwise(Policy::shared(TEN)))
}

#[tokio::test]
async fn the_first_chunk_arrives_while_the_handler_makes_the_second() {
    for announced in [false, true] {
        let (feed, content) = fed();
        let mut response = fresh(content);
        if announced {
            response.headers_mut().insert("content-length", 40.into());
        }
        let setup = around(once(response));
        let mut response = setup.begin("/").await;
        assert_eq!(x_cache(&response), "MISS");
        for part in WHOLE.chunks(10) {
            feed.send(data(part)).unwrap();
            assert_eq!(chunk(response.body_mut()).await, part);
            assert_eq!(setup.stats().stored, 0, "announced {announced}: nothing is stored before the end");
        }
        drop(feed);
        assert_eq!(read(response).await.content, b"");
        let next = setup.get("/").await;
        assert_eq!((next.x_cache.as_str(), next.content.as_slice()), ("HIT", &WHOLE[..]), "announced {announced}");
    }
}

/// A runtime polls what was woken while it ran once more, and wakes another thread for that: more than it costs to pass a frame on.
#[tokio::test]
async fn whoever_takes_a_frame_from_the_handler_is_not_woken_for_it() {
    struct Woken(AtomicUsize);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let (feed, content) = fed();
    let setup = around(once(fresh(content)));
    let mut response = setup.begin("/").await;
    let mut body = Pin::new(response.body_mut());
    let woken = Arc::new(Woken(AtomicUsize::new(0)));
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    for n in 1..=4 {
        assert!(body.as_mut().poll_frame(&mut cx).is_pending());
        feed.send(data(&WHOLE[..10])).unwrap();
        assert_eq!(woken.0.load(Ordering::Relaxed), n, "there is something to take");
        assert!(matches!(body.as_mut().poll_frame(&mut cx), Poll::Ready(Some(Ok(_)))));
        assert_eq!(woken.0.load(Ordering::Relaxed), n, "it has it");
    }
    drop(feed);
    assert!(matches!(body.as_mut().poll_frame(&mut cx), Poll::Ready(None)));
    assert_eq!(woken.0.load(Ordering::Relaxed), 4, "nothing is waited for");
}

/// What is ready when the head is may be read ahead, but then nothing more is waited for.
#[tokio::test]
async fn a_small_body_that_is_not_ready_is_not_waited_for() {
    let steps = WHOLE.chunks(10).take(2).map(data);
    let script = Script::new(steps).claiming(40).endless(true);
    let setup = around(once(fresh(script.boxed_unsync())));
    let mut response = setup.begin("/").await;
    assert_eq!(chunk(response.body_mut()).await, WHOLE[..10]);
    assert_eq!(chunk(response.body_mut()).await, WHOLE[10..20]);
}

struct Range {
    asked: &'static str,
    status: u16,
    content_range: Option<&'static str>,
    content: &'static [u8],
}

const RANGES: [Range; 7] = [
    Range { asked: "bytes=0-3", status: 206, content_range: Some("bytes 0-3/40"), content: b"0123" },
    Range { asked: "bytes=8-11", status: 206, content_range: Some("bytes 8-11/40"), content: b"89ab" },
    Range { asked: "bytes=36-", status: 206, content_range: Some("bytes 36-39/40"), content: b"ABCD" },
    Range { asked: "bytes=-1", status: 206, content_range: Some("bytes 39-39/40"), content: b"D" },
    Range { asked: "bytes=0-99", status: 206, content_range: Some("bytes 0-39/40"), content: WHOLE },
    Range { asked: "bytes=40-", status: 416, content_range: Some("bytes */40"), content: b"" },
    Range { asked: "bytes=0-1,4-5", status: 206, content_range: Some("bytes 0-5/40"), content: b"012345" },
];

#[tokio::test]
async fn a_range_that_misses_gets_its_part_and_the_whole_is_stored_behind_it() {
    for Range { asked, status, content_range, content } in RANGES {
        // Of a size where it is read before the answer, and handed over in chunks that don't fit the ranges.
        for (claimed, paced) in [(true, false), (true, true), (false, false), (false, true)] {
            let row = format!("{asked}, claimed {claimed}, paced {paced}");
            let script = Script::new(in_chunks(WHOLE, 7)).paced(paced);
            let script = if claimed { script.claiming(40) } else { script };
            let body = script.boxed_unsync();
            let setup = shared(once(answer(&[("content-length", "40"), ("etag", "\"a\"")], body)));
            let got = read(setup.send(get_with("/", &[("range", asked)])).await).await;
            assert_eq!((got.status.as_u16(), got.x_cache.as_str()), (status, "MISS"), "{row}");
            assert_eq!(field(&got.headers, "content-range"), content_range, "{row}");
            assert_eq!((got.content.as_slice(), got.end), (content, Ok(())), "{row}");
            // The handler knows no ranges: what it answers is the whole all the same.
            assert_eq!(field(&setup.handler.heads()[0], "range"), Some(asked), "{row}");
            settle().await;
            let next = setup.get("/").await;
            assert_eq!((next.x_cache.as_str(), next.content.as_slice()), ("HIT", &WHOLE[..]), "{row}");
            let part = read(setup.send(get_with("/", &[("range", asked)])).await).await;
            assert_eq!((part.status.as_u16(), part.x_cache.as_str()), (status, "HIT"), "{row}");
            assert_eq!(field(&part.headers, "content-range"), content_range, "{row}");
            assert_eq!(part.content, content, "{row}");
        }
    }
}

#[tokio::test]
async fn a_part_streams_and_ends_before_the_handler_has_made_the_rest() {
    let (feed, content) = fed();
    let setup = shared(once(answer(&[("content-length", "40")], content)));
    let mut response = setup.send(get_with("/", &[("range", "bytes=5-14")])).await;
    assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
    feed.send(data(&WHOLE[..10])).unwrap();
    assert_eq!(chunk(response.body_mut()).await, WHOLE[5..10]);
    feed.send(data(&WHOLE[10..20])).unwrap();
    assert_eq!(chunk(response.body_mut()).await, WHOLE[10..15]);
    assert_eq!(read(response).await.content, b"", "the client has its part and is gone");
    feed.send(data(&WHOLE[20..])).unwrap();
    drop(feed);
    settle().await;
    assert_eq!(setup.get("/").await.content, WHOLE);
    assert_eq!(setup.handler.calls(), 1);
}

/// Without a length nobody can say which bytes of how many these are (RFC 9110 §14.2 allows the whole).
#[tokio::test]
async fn a_range_of_unknown_length_gets_the_whole() {
    let setup = shared(once(answer(&[], stream(in_chunks(WHOLE, 7)))));
    let got = read(setup.send(get_with("/", &[("range", "bytes=0-3")])).await).await;
    assert_eq!((got.status, got.content.as_slice()), (StatusCode::OK, &WHOLE[..]));
    assert_eq!(setup.get("/").await.x_cache, "HIT");
}

const DATE: &str = "Tue, 02 Dec 2025 00:00:00 GMT";

#[tokio::test]
async fn a_condition_that_misses_is_answered_and_the_whole_is_stored() {
    let rows: [(&str, &str, u16); 8] = [
        ("if-none-match", "\"a\"", 304),
        ("if-none-match", "W/\"a\", \"b\"", 304),
        ("if-none-match", "*", 304),
        ("if-none-match", "\"b\"", 200),
        ("if-modified-since", DATE, 304),
        ("if-modified-since", "Mon, 01 Dec 2025 00:00:00 GMT", 200),
        ("if-match", "\"b\"", 412),
        ("if-unmodified-since", "Mon, 01 Dec 2025 00:00:00 GMT", 412),
    ];
    for (name, value, status) in rows {
        for (claimed, paced) in [(true, false), (true, true), (false, false), (false, true)] {
            let row = format!("{name}: {value}, claimed {claimed}, paced {paced}");
            let script = Script::new(in_chunks(WHOLE, 7)).paced(paced);
            let script = if claimed { script.claiming(40) } else { script };
            let fields = [("etag", "\"a\""), ("last-modified", DATE), ("content-type", "text/plain")];
            let setup = shared(once(answer(&fields, script.boxed_unsync())));
            for expected in ["MISS", "HIT"] {
                let got = read(setup.send(get_with("/", &[(name, value)])).await).await;
                assert_eq!((got.status.as_u16(), got.x_cache.as_str()), (status, expected), "{row}");
                let content = if status == 200 { &WHOLE[..] } else { b"" };
                assert_eq!((got.content.as_slice(), got.end), (content, Ok(())), "{row}");
                if status == 304 {
                    assert_eq!(field(&got.headers, "etag"), Some("\"a\""), "{row}");
                    assert_eq!(field(&got.headers, "content-type"), None, "{row}");
                }
                settle().await;
            }
            assert!(!setup.handler.heads()[0].contains_key(name), "{row}: the handler's answer must be the whole");
            assert_eq!(setup.get("/").await.content, WHOLE, "{row}");
        }
    }
}

#[tokio::test]
async fn a_small_body_has_its_tag_on_the_first_answer_and_a_larger_one_on_the_first_hit() {
    // (the body, how it comes, whether the MISS has a tag already)
    let limit = 64;
    let paced = |size: usize| {
        let script = Script::new([data(vec![b'x'; size])]).paced(true).claiming(size as u64);
        script.boxed_unsync()
    };
    let rows = [
        ("empty", whole(""), true),
        ("small", whole(vec![b'x'; 10]), true),
        ("just small enough", whole(vec![b'x'; limit]), true),
        ("just too large", whole(vec![b'x'; limit + 1]), false),
        ("of unknown size", stream([data("content")]), false),
        ("small, but not ready", paced(10), false),
    ];
    for (row, content, eager) in rows {
        let handler = once(answer(&[], content));
        let setup = set_up(handler, |layer| layer.otherwise(Policy::shared(TEN)).eager_etag_size(limit));
        let (miss, hit, again) = (setup.get("/").await, setup.get("/").await, setup.get("/").await);
        assert_eq!((miss.x_cache.as_str(), hit.x_cache.as_str()), ("MISS", "HIT"), "{row}");
        let tag = field(&hit.headers, "etag").unwrap();
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2, "{row}: {tag} is a strong tag");
        assert_eq!(field(&miss.headers, "etag"), eager.then_some(tag), "{row}");
        assert_eq!(field(&again.headers, "etag"), Some(tag), "{row}");
        let asked = setup.send(get_with("/", &[("if-none-match", tag)])).await;
        assert_eq!(asked.status(), StatusCode::NOT_MODIFIED, "{row}");
    }
}

#[tokio::test]
async fn a_handlers_own_tag_stays() {
    for content in [whole("content"), stream([data("content")])] {
        let setup = shared(once(answer(&[("etag", "W/\"own\"")], content)));
        for _ in 0..2 {
            assert_eq!(field(&setup.get("/").await.headers, "etag"), Some("W/\"own\""));
        }
    }
}

/// Bodies in order; the last one stays.
fn contents(contents: &'static [&'static str], eager: bool) -> Handler {
    Handler::new(move |number, _| {
        let content = contents[number.min(contents.len()) - 1];
        answer(&[], if eager { whole(content) } else { stream([data(content)]) })
    })
}

/// `ETag` and `Last-Modified` of a hit.
async fn validators(setup: &Setup) -> (String, SystemTime) {
    let hit = setup.get("/").await;
    assert_eq!(hit.x_cache, "HIT");
    let date = field(&hit.headers, "last-modified").expect("a date that is settled");
    (
        field(&hit.headers, "etag").expect("a tag").to_owned(),
        larder::rfc9111::date::parse(date.as_bytes()).expect("a date"),
    )
}

#[tokio::test]
async fn validators_stay_while_the_content_does_and_change_with_it() {
    for eager in [true, false] {
        let handler = contents(&["one", "one", "one", "two"], eager);
        let policy = Policy::shared(TEN).stale_while_revalidate(HOUR);
        let setup = set_up(handler, |layer| layer.otherwise(policy));
        setup.get("/").await;
        // A date is sent only when nothing more can happen in its second.
        setup.clock.advance(Duration::from_secs(2));
        let first = validators(&setup).await;
        for refreshes in 1..=3 {
            setup.clock.advance(TEN);
            assert_eq!(setup.get("/").await.x_cache, "STALE", "eager {eager}");
            settle().await;
            assert_eq!(setup.stats().refreshes, refreshes);
            setup.clock.advance(Duration::from_secs(2));
            let now = validators(&setup).await;
            if refreshes < 3 {
                assert_eq!(now, first, "eager {eager}, refresh {refreshes}: the content is the same");
            } else {
                assert_ne!(now.0, first.0, "eager {eager}: the content has changed");
                // Three times ten seconds and two more each.
                assert_eq!(now.1.duration_since(first.1).unwrap(), Duration::from_secs(36), "eager {eager}");
            }
        }
    }
}

/// What is behind its lifetime is fetched, not confirmed: the handler never hears of a validator that it didn't make.
#[tokio::test]
async fn validators_of_the_cache_are_never_sent_to_the_handler() {
    let window = |policy: Policy, on: bool| if on { policy.stale_while_revalidate(HOUR) } else { policy };
    for (own, refresh) in [(true, true), (true, false), (false, true), (false, false)] {
        let policy = window(Policy::shared(TEN).stale_if_error(HOUR), refresh);
        let handler =
            Handler::new(move |_, _| answer(if own { &[] } else { &[("etag", "\"theirs\"")] }, whole("content")));
        let setup = set_up(handler, |layer| layer.otherwise(policy));
        for _ in 0..3 {
            setup.get("/").await;
            settle().await;
            setup.clock.advance(TEN + TEN);
        }
        let heads = setup.handler.heads();
        assert!(heads.len() >= 3, "own {own}, refresh {refresh}: the handler was asked again");
        let asked = |head: &HeaderMap| field(head, "if-none-match").map(str::to_owned);
        let expected = (!own).then(|| "\"theirs\"".to_owned());
        for head in &heads[1..] {
            assert_eq!(asked(head), expected, "own {own}, refresh {refresh}");
            assert!(!head.contains_key("if-modified-since"), "own {own}, refresh {refresh}");
        }
    }
}

/// A client may hold a tag of the cache's; what comes of asking with it is the cache's business alone.
#[tokio::test]
async fn a_clients_condition_with_a_tag_of_the_cache_is_evaluated_on_the_handlers_new_answer() {
    let setup = shared(contents(&["one", "one", "two"], true));
    let tag = field(&setup.get("/").await.headers, "etag").unwrap().to_owned();
    for expected in [StatusCode::NOT_MODIFIED, StatusCode::OK] {
        setup.clock.advance(TEN + TEN);
        let response = setup.send(get_with("/", &[("if-none-match", &tag)])).await;
        assert_eq!((response.status(), x_cache(&response)), (expected, "MISS"));
    }
    assert_eq!(setup.handler.calls(), 3);
    assert!(setup.handler.heads().iter().all(|head| !head.contains_key("if-none-match")));
}
