//! Responses of any kind, whatever a cache would make of them.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use proptest::prelude::*;
use smallvec::SmallVec;

use super::moment;
use crate::cached::{Cached, Storing};
use crate::compression::Coder;
use crate::downstream::Downstream;
use crate::form::Form;
use crate::head::SharedHeads;
use crate::outcome::OWN_FIELDS;
use crate::regime::Regime;
use crate::response::{Origin, Stamp, StoredResponse};
use crate::rfc9111::coding::Coding;
use crate::rfc9111::freshness::LifetimeSource;
use crate::rfc9111::reuse::Terms;
use crate::rfc9111::vary::Matching;
use crate::tags::Tags;
use crate::upkeep::{Upkeep, Wanted};
use crate::variance::Variance;

pub(super) fn responses() -> impl Strategy<Value = StoredResponse> {
    let parts = (
        100..1000_u16,
        (maps(), 0..16_usize, prop::collection::vec(any::<u8>(), 0..300)),
        forms(),
        all_terms(),
        0..1_000_000_000_000_u64,
        (variances(), any::<[u64; 2]>()),
        origins(),
        prop::option::of(downstreams()),
        stamps(),
        durations(),
        upkeeps(),
    );
    parts.prop_map(|parts| {
        let (
            status,
            (map, own, body),
            form,
            terms,
            received,
            (variance, regime),
            origin,
            downstream,
            stamp,
            keep,
            upkeep,
        ) = parts;
        let reserved = OWN_FIELDS.into_iter().enumerate().filter(|(n, _)| own & (1 << n) != 0);
        let reserved: Vec<HeaderName> = reserved.map(|(_, name)| name).collect();
        let (head, body) = SharedHeads::default().store(&map, &reserved, body.into());
        StoredResponse {
            status: StatusCode::from_u16(status).expect("from 100 to 999"),
            head,
            body,
            form,
            terms,
            received: moment(received),
            variance: Arc::new(variance),
            origin,
            downstream: downstream.map(Arc::new),
            stamp,
            regime: Regime { whole: regime[0], audience: regime[1] },
            keep,
            charge: None,
            upkeep,
            route: Arc::default(),
        }
    })
}

prop_compose! {
    fn durations()(seconds in prop_oneof![0..100_000_u64, any::<u64>()], nanoseconds in 0..1_000_000_000_u32) -> Duration {
        Duration::new(seconds, nanoseconds)
    }
}

fn values() -> impl Strategy<Value = HeaderValue> {
    let bytes = prop::collection::vec(prop_oneof![32..127_u8, 128..=255_u8, Just(9)], 0..24);
    (bytes, any::<bool>()).prop_map(|(bytes, is_sensitive)| {
        let mut value = HeaderValue::from_bytes(&bytes).expect("these can be in a value");
        value.set_sensitive(is_sensitive);
        value
    })
}

fn names() -> impl Strategy<Value = HeaderName> {
    let usual =
        [header::CONTENT_TYPE, header::DATE, header::ETAG, header::VARY, header::LOCATION, header::CACHE_CONTROL];
    prop_oneof![
        prop::sample::select(usual.to_vec()),
        "[a-z][a-z0-9_-]{0,90}".prop_map(|name| HeaderName::try_from(name).expect("these can be a name")),
    ]
    .prop_filter("the cache's own are never stored", |name| !OWN_FIELDS.contains(name))
}

fn maps() -> impl Strategy<Value = HeaderMap> {
    let dates = Just(HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
    prop::collection::vec((names(), prop_oneof![3 => values(), 1 => dates]), 0..12).prop_map(|fields| {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(name, value);
        }
        map
    })
}

fn forms() -> impl Strategy<Value = Form> {
    let coder = (prop::sample::select(Coding::ALL.to_vec()), any::<Option<u8>>());
    let coded =
        (coder, any::<u32>()).prop_map(|((coding, level), length)| Form::Coded { by: Coder { coding, level }, length });
    prop_oneof![Just(Form::Fixed), Just(Form::Plain), Just(Form::Settled), coded]
}

fn all_terms() -> impl Strategy<Value = Terms> {
    use LifetimeSource::{Expires, Handler, Heuristic, MaxAge, Override, Rule, SMaxage, Targeted};
    let sources = [Handler, Override, Targeted, SMaxage, MaxAge, Expires, Rule, Heuristic];
    let source = prop::option::of(prop::sample::select(sources.to_vec()));
    (source, [durations(), durations(), durations(), durations()], any::<[bool; 4]>()).prop_map(
        |(source, [lifetime, initial_age, stale_while_revalidate, stale_if_error], flags)| {
            let [no_cache, no_stale, immutable, for_authorized] = flags;
            Terms {
                lifetime,
                source,
                initial_age,
                no_cache,
                no_stale,
                immutable,
                stale_while_revalidate,
                stale_if_error,
                for_authorized,
            }
        },
    )
}

fn variances() -> impl Strategy<Value = Variance> {
    (prop::collection::vec(names(), 0..4), maps()).prop_map(|(mut names, asked)| {
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        Variance::of(SmallVec::from_vec(names), &asked, Matching::Careful)
    })
}

fn handlers() -> impl Strategy<Value = Cached> {
    let storing = prop_oneof![Just(Storing::ByRule), Just(Storing::Never), durations().prop_map(Storing::Shared)];
    let window = || prop::option::of(durations());
    (storing, window(), window(), window(), prop::collection::vec(".{0,20}", 0..4)).prop_map(
        |(storing, downstream, stale_while_revalidate, stale_if_error, tags)| Cached {
            storing,
            downstream,
            stale_while_revalidate,
            stale_if_error,
            tags,
        },
    )
}

fn origins() -> impl Strategy<Value = Origin> {
    (prop::option::of(maps()), any::<[bool; 3]>(), prop::option::of(handlers())).prop_map(
        |(replaced, [own_etag, own_last_modified, own_vary], handler)| Origin {
            replaced: replaced.map(Arc::new),
            own_etag,
            own_last_modified,
            own_vary,
            handler: handler.map(Arc::new),
        },
    )
}

fn downstreams() -> impl Strategy<Value = Downstream> {
    (durations(), any::<[bool; 2]>(), prop::option::of(durations()), "(, [a-z-]{1,9}){0,3}").prop_map(
        |(lifetime, [from_each_answer, private], sliding, kept)| Downstream {
            lifetime,
            from_each_answer,
            sliding,
            private,
            kept,
        },
    )
}

fn stamps() -> impl Strategy<Value = Stamp> {
    let tags = (prop::collection::vec(any::<u64>(), 0..9), "([a-z:]{1,9}\n){0,4}[a-zü]{0,3}", any::<bool>())
        .prop_map(|(hashes, lines, bears_every)| Arc::new(Tags::of_parts(hashes.into(), &lines, bears_every)));
    (any::<[u64; 3]>(), any::<Option<u64>>(), prop::option::of(tags)).prop_map(
        |([number, resource, path], partition, tags)| {
            let mut stamp = Stamp::new(number, resource, path).in_partition(partition);
            stamp.tags = tags;
            stamp
        },
    )
}

fn upkeeps() -> impl Strategy<Value = Option<Arc<Upkeep>>> {
    let duration = || prop::option::of(durations());
    (duration(), prop::option::of(0.001..1000.0), duration(), any::<u32>())
        .prop_map(|(sliding, beta, within, cost)| Upkeep::begun(Wanted { sliding, beta, within, cost }, 7))
}
