//! How flights begin, are joined, sealed and end.

use super::*;
use crate::regime::Regime;

fn stamp(resource: u64) -> Stamp {
    Stamp::new(0, resource, 7)
}

fn call(path: &str) -> Call {
    let began = Moment { wall: std::time::UNIX_EPOCH, monotonic: Duration::ZERO };
    let key = CacheKey::new(b"h", path, None);
    Call { key, regime: Regime::default(), authorization: false, began, expected: None }
}

fn later(path: &str, seconds: u64) -> Call {
    let mut call = call(path);
    call.began.monotonic = Duration::from_secs(seconds);
    call
}

const BOUNDS: Bounds = Bounds { waiting: 3, age: Duration::from_secs(10), joinable: true };

fn board(flights: &Arc<Flights<u8>>, call: Call) -> Seat<u8> {
    flights.board(&stamp(1), 0, call, BOUNDS, |_, given| given.is_none_or(|given| *given < 100))
}

fn now(follower: &Follower<u8>) -> Option<Landed<u8>> {
    match follower.poll_landed(&Context::from_waker(Waker::noop())) {
        Poll::Ready(landed) => Some(landed),
        Poll::Pending => None,
    }
}

#[test]
fn sealed_flights_dont_commit_and_others_do() {
    let flights = Arc::new(Flights::<()>::default());
    let (one, other) = (stamp(1), stamp(2));
    let (first, second) = (flights.begin(&one, 0, None), flights.begin(&other, 0, None));
    flights.seal_resource(&one);
    assert!(!first.commit(|| panic!("sealed")));
    assert!(second.commit(|| {}));
    flights.seal_path(7);
    assert!(second.is_sealed());
    let third = flights.begin(&one, 0, None);
    assert!(!third.is_sealed(), "a flight that begins after the purge is not sealed");
    let mine = flights.begin(&Stamp::new(0, 1, 7).in_partition(Some(5)), 0, None);
    flights.seal_partition(5);
    assert!(mine.is_sealed() && !third.is_sealed(), "the flights of one principal, and no other");
    flights.seal_all();
    assert!(third.is_sealed());
    drop((first, second, third, mine));
    assert_eq!(flights.len(), 0, "nothing is left behind");
}

#[test]
fn a_purge_by_tag_seals_what_has_it_or_may_have_it() {
    let flights = Arc::new(Flights::<()>::default());
    let begin = |authority| flights.begin(&stamp(1), authority, None);
    let (tagged, otherwise, untagged, unknown, elsewhere) = (begin(1), begin(1), begin(1), begin(1), begin(2));
    tagged.know_tags(Tags::nameless(&[11, 22]));
    otherwise.know_tags(Tags::nameless(&[33]));
    untagged.know_tags(None);
    flights.seal_tags(Some(1), &[22]);
    assert!(tagged.is_sealed() && unknown.is_sealed());
    assert!(!otherwise.is_sealed() && !untagged.is_sealed() && !elsewhere.is_sealed());
    flights.seal_tags(None, &[22]);
    assert!(elsewhere.is_sealed() && !untagged.is_sealed());
}

#[test]
fn those_who_come_later_follow_until_the_flight_is_sealed() {
    let flights = Arc::new(Flights::default());
    let Seat::Lead(leader) = board(&flights, call("/a")) else { panic!("the first leads") };
    let Seat::Follow(follower) = board(&flights, call("/a")) else { panic!("the second follows") };
    assert!(matches!(board(&flights, call("/b")), Seat::Lead(_)), "another key");
    assert!(matches!(board(&flights, Call { authorization: true, ..call("/a") }), Seat::Lead(_)));
    assert!(now(&follower).is_none());
    leader.give(1);
    assert!(matches!(now(&follower), Some(Landed::Given(1))));
    assert!(matches!(board(&flights, call("/a")), Seat::Follow(_)), "also when the answer is there");
    flights.seal_resource(&stamp(1));
    assert!(matches!(board(&flights, call("/a")), Seat::Lead(_)), "nobody joins what was purged");
    assert!(matches!(now(&follower), Some(Landed::Given(1))), "who came before the purge has what was asked before it");
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
