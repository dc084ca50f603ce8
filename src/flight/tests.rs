//! How flights begin, are joined, sealed and end.

use super::*;
use crate::regime::Regime;

fn stamp(resource: u64) -> Stamp {
    Stamp::new(0, resource, 7)
}

fn key(path: &str) -> CacheKey {
    CacheKey::new(b"h", path, None)
}

fn call(path: &str) -> (CacheKey, Call) {
    let began = Moment { wall: std::time::UNIX_EPOCH, monotonic: Duration::ZERO };
    (key(path), Call { regime: Regime::default(), authorization: false, began, expected: None })
}

fn later(path: &str, seconds: u64) -> (CacheKey, Call) {
    let mut call = call(path);
    call.1.began.monotonic = Duration::from_secs(seconds);
    call
}

const BOUNDS: Bounds = Bounds { waiting: 3, age: Duration::from_secs(10), oldest: Duration::MAX, joinable: true };

fn board(flights: &Arc<Flights<u8>>, (key, call): (CacheKey, Call)) -> Seat<u8> {
    flights.board(&stamp(1), &key, 0, call, BOUNDS, |_, given| given.is_none_or(|given| *given < 100))
}

fn now(follower: &Follower<u8>) -> Option<Landed<u8>> {
    match follower.poll_landed(&Context::from_waker(Waker::noop())) {
        Poll::Ready(landed) => Some(landed),
        Poll::Pending => None,
    }
}

#[test]
fn sealed_flights_dont_commit_and_others_do_if_what_they_bring_is_valid() {
    let flights = Arc::new(Flights::<()>::default());
    let (one, other) = (stamp(1), stamp(2));
    let begin = |stamp| flights.begin(stamp, &key("/a"), 0, None);
    let (first, second) = (begin(&one), begin(&other));
    flights.seal_resource(&one);
    assert!(!first.commit(|| panic!("sealed"), || panic!("sealed")));
    assert!(!second.commit(|| false, || panic!("purged")));
    assert!(second.commit(|| true, || {}) && !second.is_closed());
    assert!(!begin(&one).is_sealed(), "a flight that begins after the write is not sealed");
    drop((first, second));
    assert_eq!(flights.len(), 0, "nothing is left behind");
}

#[test]
fn who_lands_ends_in_that_step_and_makes_something_for_those_only_who_wait() {
    let flights = Arc::new(Flights::default());
    let lead = |flights| {
        let Seat::Lead(leader) = board(flights, call("/a")) else { panic!("nobody else leads") };
        leader
    };
    let given = |brought: u8, is_followed: bool| {
        assert_eq!(flights.shards.iter().filter(|shard| shard.try_lock().is_err()).count(), 1, "nobody boards");
        is_followed.then_some(brought)
    };
    assert!(lead(&flights).land(
        1,
        |_| true,
        |brought, is_followed| {
            assert!(!is_followed);
            given(brought, is_followed)
        }
    ));
    assert_eq!(flights.len(), 0);
    let leader = lead(&flights);
    let Seat::Follow(follower) = board(&flights, call("/a")) else { panic!("the second follows") };
    assert!(leader.land(2, |brought| *brought == 2, given));
    assert!(matches!(now(&follower), Some(Landed::Given(2))), "it was there before the landing");
    let leader = lead(&flights);
    let Seat::Follow(follower) = board(&flights, call("/a")) else { panic!("the second follows") };
    assert!(!leader.land(3, |_| false, |_, _| panic!("purged")));
    assert!(matches!(now(&follower), Some(Landed::Failed)), "one of those who wait asks anew");
    let leader = lead(&flights);
    flights.seal_resource(&stamp(1));
    assert!(!leader.land(4, |_| panic!("sealed"), |_, _| panic!("sealed")));
    assert_eq!(flights.len(), 0, "nothing is left behind");
}

#[test]
fn a_purge_closes_what_it_touches_or_may_touch() {
    let place = Target::place;
    let tags = |authority| Target::tags(&[22, 44], authority);
    let glob = |text| Target::Pattern(crate::pattern::Pattern::glob(text).unwrap());
    // Resource 1 of path 7, on authority 3 in partition 5, with the tags 11 and 22.
    let rows = [
        (place(1), true, true),
        (place(7), true, true),
        (place(5), true, true),
        (place(2), false, false),
        (place(3), false, false),
        (tags(None), true, true),
        (tags(Some(3)), true, true),
        (tags(Some(4)), true, false),
        (Target::tags(&[33], None), false, true),
        (Target::tags(&[33], Some(4)), false, false),
        (glob("/a"), true, true),
        (glob("/a?b=*"), true, true),
        (glob("/b*"), false, false),
        (Target::Everything, true, true),
    ];
    for (target, touches_tagged, touches_unknown) in rows {
        let flights = Arc::new(Flights::<()>::default());
        let stamp = stamp(1).in_partition(Some(5));
        let key = CacheKey::new(b"h", "/a", Some("b=1"));
        let [tagged, unknown] = [(); 2].map(|()| flights.begin(&stamp, &key, 3, None));
        tagged.know_tags(Tags::nameless(&[11, 22]));
        flights.close(&target);
        assert_eq!((tagged.is_closed(), unknown.is_closed()), (touches_tagged, touches_unknown), "{target:?}");
        assert!(!tagged.is_sealed() && !unknown.is_sealed(), "the index says what is stored");
    }
}

#[test]
fn the_oldest_flight_is_known() {
    let flights = Arc::new(Flights::<()>::default());
    assert_eq!(flights.oldest(), None);
    let begin = |number, path| flights.begin(&Stamp::new(number, 1, path), &key("/a"), 0, None);
    let (newer, older, newest) = (begin(5, 1), begin(4, 2), begin(9, 3));
    flights.close(&Target::Everything);
    assert_eq!(flights.oldest(), Some(4), "what was found before it began may still stand in for its answer");
    drop((older, newest));
    assert_eq!(flights.oldest(), Some(5));
    drop(newer);
}

#[test]
fn those_who_come_later_follow_until_the_flight_is_sealed_or_closed() {
    let flights = Arc::new(Flights::default());
    let Seat::Lead(leader) = board(&flights, call("/a")) else { panic!("the first leads") };
    let Seat::Follow(follower) = board(&flights, call("/a")) else { panic!("the second follows") };
    assert!(matches!(board(&flights, call("/b")), Seat::Lead(_)), "another key");
    assert!(matches!(board(&flights, (key("/a"), Call { authorization: true, ..call("/a").1 })), Seat::Lead(_)));
    assert!(now(&follower).is_none());
    leader.give(1);
    assert!(matches!(now(&follower), Some(Landed::Given(1))));
    assert!(matches!(board(&flights, call("/a")), Seat::Follow(_)), "also when the answer is there");
    flights.seal_resource(&stamp(1));
    assert!(matches!(board(&flights, call("/a")), Seat::Lead(_)), "nobody joins what was purged");
    assert!(matches!(now(&follower), Some(Landed::Given(1))), "who came before the purge has what was asked before it");
    let Seat::Lead(_leader) = board(&flights, call("/c")) else { panic!("the first leads") };
    flights.close(&Target::place(7));
    assert!(matches!(board(&flights, call("/c")), Seat::Lead(_)));
}

#[test]
fn what_ends_a_flight_tells_the_followers() {
    type Row = (fn(Flight<u8>), fn(&Landed<u8>) -> bool);
    let rows: [Row; 5] = [
        (drop, |landed| matches!(landed, Landed::Failed)),
        (|flight| flight.decline(), |landed| matches!(landed, Landed::Alone)),
        (|flight| flight.give(3), |landed| matches!(landed, Landed::Given(3))),
        (|flight| (flight.give(3), flight.give(4), drop(flight)).2, |landed| matches!(landed, Landed::Given(4))),
        (|flight| (flight.give(3), flight.decline(), drop(flight)).2, |landed| matches!(landed, Landed::Alone)),
    ];
    for (row, (end, expected)) in rows.into_iter().enumerate() {
        let flights = Arc::new(Flights::default());
        let Seat::Lead(leader) = board(&flights, call("/a")) else { panic!("the first leads") };
        let Seat::Follow(follower) = board(&flights, call("/a")) else { panic!("the second follows") };
        end(leader);
        assert!(expected(&now(&follower).expect("it has landed")), "row {row}");
        drop(follower);
        assert_eq!((flights.len(), flights.waiting()), (0, 0));
    }
}

#[test]
fn joining_is_bounded() {
    let flights = Arc::new(Flights::default());
    let Seat::Lead(leader) = board(&flights, call("/a")) else { panic!("the first leads") };
    assert!(matches!(board(&flights, later("/a", 10)), Seat::Follow(_)));
    let Seat::Lead(second) = board(&flights, later("/a", 11)) else { panic!("too old to be joined") };
    leader.give(1);
    assert!(matches!(board(&flights, later("/a", 30)), Seat::Follow(_)), "not when the answer is there");
    leader.give(100);
    drop(second);
    assert!(matches!(board(&flights, call("/a")), Seat::Lead(_)), "an answer that doesn't fit");
    let Seat::Lead(asked) = board(&flights, call("/b")) else { panic!("the first leads") };
    let all: Vec<_> = (0..3).map(|_| board(&flights, call("/b"))).collect();
    assert!(matches!(board(&flights, call("/b")), Seat::Full));
    leader.give(1);
    assert!(matches!(board(&flights, call("/a")), Seat::Follow(_)), "who has its answer doesn't wait");
    drop(all);
    assert!(matches!(board(&flights, call("/b")), Seat::Follow(_)));
    drop(asked);
}
