//! Where a route is known well, the report looks closely at few of its answers, and counts all of them.

mod support;

use larder::Policy;
use support::exchange::*;

#[tokio::test]
async fn contents_on_a_route_that_is_known_are_looked_into_less_often_and_all_values_count() {
    let house = House::with(Handler::new(|_, _| answer(200, &[], "the same")), |layer| {
        layer.rule("^/", Policy::shared(secs(7200)))
    });
    for n in 0..12_000 {
        house.get(&format!("/{}?page={}", n % 100, n / 100)).await;
    }
    let report = house.handle.report();
    let [route] = &report.routes[..] else { panic!("{report}") };
    assert_eq!(route.fetches, 12_000);
    let [space] = &route.key_space[..] else { panic!("{report}") };
    assert!((108..=132).contains(&space.values), "{report}");
    // Of 64 paths that have a place each, until the route was known, and then for one path in 16.
    assert!(space.different == 0 && (1000..6000).contains(&space.same), "{report}");
}
