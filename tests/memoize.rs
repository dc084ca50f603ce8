//! What a memoized function promises: called once for the same arguments, whoever asks and however many; never given for other arguments; dropped by its tags.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use larder::{CacheLayer, DataCache, ManualClock, Memoized, ObjectCache, Selector};
use proptest::prelude::*;
use serde::Serialize;
use support::bodies::settle;
use tokio::sync::Semaphore;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[derive(Debug, PartialEq)]
struct Broken;

/// Counts its calls, each of which needs leave; answers with the argument and the number of the call, and fails while it is told to.
#[derive(Clone)]
struct Slow {
    calls: Arc<AtomicU32>,
    fails: Arc<AtomicU32>,
    gate: Arc<Semaphore>,
}

impl Default for Slow {
    fn default() -> Self {
        Self { calls: Arc::default(), fails: Arc::default(), gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)) }
    }
}

impl Slow {
    fn function(&self) -> impl Fn(u32) -> BoxFuture<'static, Result<String, Broken>> + Send + Sync + 'static {
        let slow = self.clone();
        move |n| {
            let slow = slow.clone();
            Box::pin(async move {
                let call = slow.calls.fetch_add(1, Ordering::SeqCst) + 1;
                slow.gate.acquire().await.expect("never closed").forget();
                if slow.fails.load(Ordering::SeqCst) > 0 { Err(Broken) } else { Ok(format!("{n} by {call}")) }
            })
        }
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }
}

type Asked = Box<dyn Fn(u32) -> BoxFuture<'static, Result<String, Arc<Broken>>> + Send + Sync>;

/// A function over each kind of cache, beside responses and on a clock of its own, as `setup` says.
macro_rules! both {
    (|$memoize:ident| $setup:expr) => {{
        let make = |over_data: bool| {
            let (slow, clock) = (Slow::default(), Arc::new(ManualClock::default()));
            let cache = CacheLayer::in_memory(1 << 20).clock(clock.clone());
            let ask: Asked = if over_data {
                let $memoize = cache.data("shop").memoize::<u32, String>("slow");
                let wrapped = $setup.wrap(slow.function());
                Box::new(move |n| {
                    let wrapped = wrapped.clone();
                    Box::pin(async move { wrapped.call(n).await })
                })
            } else {
                let objects: ObjectCache<u32, String> = cache.objects("shop");
                let $memoize = objects.memoize::<u32>();
                let wrapped = $setup.wrap(slow.function());
                Box::new(move |n| {
                    let wrapped = wrapped.clone();
                    Box::pin(async move { wrapped.call(n).await.map(|text| (*text).clone()) })
                })
            };
            (ask, slow, cache.handle(), clock)
        };
        [make(true), make(false)]
    }};
}

fn said(n: u32, call: u32) -> Result<String, Arc<Broken>> {
    Ok(format!("{n} by {call}"))
}

#[tokio::test]
async fn it_is_called_once_for_the_same_arguments() {
    for (ask, slow, _, clock) in both!(|memoize| memoize.ttl(secs(5))) {
        assert_eq!(
            (ask(1).await, ask(1).await, ask(2).await, ask(1).await),
            (said(1, 1), said(1, 1), said(2, 2), said(1, 1))
        );
        clock.advance(secs(5));
        assert_eq!((ask(1).await, slow.calls()), (said(1, 3), 3));
    }
}

#[tokio::test]
async fn many_who_call_at_a_time_are_one_call() {
    for (ask, slow, ..) in both!(|memoize| memoize) {
        slow.gate.forget_permits(usize::MAX);
        let all: Vec<_> = (0..1000).map(|_| tokio::spawn(ask(1))).collect();
        settle().await;
        slow.gate.add_permits(1000);
        assert!(join_all(all).await.into_iter().all(|got| got.unwrap() == said(1, 1)));
        assert_eq!(slow.calls(), 1);
        slow.fails.store(1, Ordering::SeqCst);
        slow.gate.forget_permits(usize::MAX);
        let all: Vec<_> = (0..10).map(|_| tokio::spawn(ask(2))).collect();
        settle().await;
        slow.gate.add_permits(1000);
        let errors = join_all(all).await.into_iter().map(|got| got.unwrap().unwrap_err());
        assert!(errors.count() == 10 && slow.calls() == 2, "they share its error");
        assert_eq!((ask(2).await, slow.calls()), (Err(Arc::new(Broken)), 3), "which isn't kept");
    }
}

#[tokio::test]
async fn only_what_is_wanted_is_kept() {
    for (ask, slow, ..) in both!(|memoize| memoize.cache_if(|text: &String| !text.starts_with('1'))) {
        assert_eq!((ask(1).await, ask(1).await), (said(1, 1), said(1, 2)));
        assert_eq!((ask(2).await, ask(2).await), (said(2, 3), said(2, 3)));
        slow.gate.forget_permits(usize::MAX);
        let all: Vec<_> = (0..10).map(|_| tokio::spawn(ask(1))).collect();
        settle().await;
        slow.gate.add_permits(1000);
        assert!(join_all(all).await.into_iter().all(|got| got.unwrap() == said(1, 4)), "those who wait have it");
    }
}

#[tokio::test]
async fn a_purge_of_its_tags_drops_a_result() {
    let tag = |name: &str| Selector::Tag(name.into());
    let rows = [
        (tag("number:1"), [true, false]),
        (tag("number"), [true, true]),
        (tag("all"), [true, true]),
        (tag("another"), [false, false]),
        (Selector::Glob("shop:*".into()), [true, true]),
        (Selector::Glob("/shop*".into()), [false, false]),
        (Selector::Everything, [true, true]),
    ];
    for (selector, drops) in rows {
        for (ask, slow, cache, _) in both!(|memoize| memoize.tag("all").tag_by(|n: &u32| [format!("number:{n}")])) {
            assert_eq!((ask(1).await, ask(2).await), (said(1, 1), said(2, 2)));
            cache.purge(selector.clone()).await.unwrap();
            let before = slow.calls();
            ask(1).await.unwrap();
            let first = slow.calls() > before;
            let before = slow.calls();
            ask(2).await.unwrap();
            assert_eq!([first, slow.calls() > before], drops, "{selector}");
        }
    }
}

#[tokio::test]
async fn a_pattern_means_the_results_of_one_function() {
    let data = DataCache::in_memory(1 << 20);
    let slow = Slow::default();
    let functions = ["one", "two"].map(|name| data.memoize(name).wrap(slow.function()));
    for function in &functions {
        function.call(1).await.unwrap();
    }
    assert_eq!(slow.calls(), 2, "functions of different names have nothing in common");
    let cache = CacheLayer::in_memory(1 << 20);
    let functions = ["one", "two"].map(|name| cache.data("shop").memoize(name).wrap(slow.function()));
    for (round, calls) in [(0, 4), (1, 4), (2, 5)] {
        if round == 2 {
            cache.handle().purge(Selector::Glob("shop:one:*".into())).await.unwrap();
        }
        for function in &functions {
            function.call(1).await.unwrap();
        }
        assert_eq!(slow.calls(), calls, "round {round}");
    }
}

#[tokio::test]
async fn a_call_that_began_before_a_purge_is_not_given_after_it() {
    for (ask, slow, cache, _) in both!(|memoize| memoize.tag("all")) {
        slow.gate.forget_permits(usize::MAX);
        let before = tokio::spawn(ask(1));
        settle().await;
        cache.purge(Selector::Tag("all".into())).await.unwrap();
        slow.gate.add_permits(1000);
        assert_eq!((before.await.unwrap(), ask(1).await), (said(1, 1), said(1, 2)));
    }
}

#[tokio::test]
async fn what_is_stale_goes_out_while_it_is_called_behind_or_where_it_fails() {
    for (ask, slow, _, clock) in
        both!(|memoize| memoize.ttl(secs(5)).stale_while_revalidate(secs(5)).stale_if_error(secs(60)))
    {
        ask(1).await.unwrap();
        clock.advance(secs(6));
        assert_eq!(ask(1).await, said(1, 1));
        settle().await;
        assert_eq!((ask(1).await, slow.calls()), (said(1, 2), 2));
        clock.advance(secs(20));
        slow.fails.store(1, Ordering::SeqCst);
        assert_eq!((ask(1).await, slow.calls()), (said(1, 2), 3));
        clock.advance(secs(60));
        assert_eq!(ask(1).await, Err(Arc::new(Broken)));
    }
    for (ask, slow, _, clock) in both!(|memoize| memoize.error_ttl(secs(5))) {
        slow.fails.store(1, Ordering::SeqCst);
        assert_eq!((ask(1).await, ask(1).await, slow.calls()), (Err(Arc::new(Broken)), Err(Arc::new(Broken)), 1));
        clock.advance(secs(5));
        assert_eq!((ask(1).await.is_err(), slow.calls()), (true, 2));
    }
}

#[tokio::test]
async fn what_slides_lives_by_being_called() {
    for (ask, slow, _, clock) in both!(|memoize| memoize.sliding(secs(5)).ttl(secs(20))) {
        for _ in 0..4 {
            ask(1).await.unwrap();
            clock.advance(secs(4));
        }
        assert_eq!(slow.calls(), 1);
        clock.advance(secs(2));
        ask(1).await.unwrap();
        assert_eq!(slow.calls(), 2);
    }
}

#[tokio::test]
async fn a_closure_says_which_arguments_count() {
    let slow = Slow::default();
    let data = DataCache::in_memory(1 << 20);
    let over = |function: Slow| move |(n, _): (u32, &'static str)| function.function()(n);
    let by_data = data.memoize("slow").key_by(|(n, _): &(u32, &str)| n.to_string()).wrap(over(slow.clone()));
    let objects = ObjectCache::<u32, String>::new("slow", 10);
    let by_object = objects.memoize().key_by(|(n, _): &(u32, &str)| *n).wrap(over(slow.clone()));
    assert_eq!((by_data.call((1, "a")).await, by_data.call((1, "b")).await), (said(1, 1), said(1, 1)));
    assert_eq!(*by_object.call((1, "a")).await.unwrap(), "1 by 2");
    assert_eq!(*by_object.call((1, "b")).await.unwrap(), "1 by 2");
}

#[tokio::test]
async fn a_result_can_be_forgotten() {
    let slow = Slow::default();
    let by_data = DataCache::in_memory(1 << 20).memoize("slow").wrap(slow.function());
    let by_object = ObjectCache::new("slow", 10).memoize().wrap(slow.function());
    assert!(!by_data.forget(&1).await && !by_object.forget(&1).await);
    by_data.call(1).await.unwrap();
    by_object.call(1).await.unwrap();
    assert!(by_data.forget(&1).await && by_object.forget(&1).await);
    by_data.call(1).await.unwrap();
    by_object.call(1).await.unwrap();
    assert_eq!(slow.calls(), 4);
}

async fn none() -> Result<u32, Broken> {
    Ok(0)
}

async fn two(a: u32, b: String) -> Result<String, Broken> {
    Ok(format!("{a}{b}"))
}

async fn six(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8) -> Result<Vec<u8>, Broken> {
    Ok(vec![a, b, c, d, e, f])
}

/// Plain async functions are wrapped as they are, and what comes of it can be named.
#[tokio::test]
async fn functions_of_any_number_of_arguments() {
    let data = DataCache::in_memory(1 << 20);
    let none: Memoized<(), u32, Broken> = data.memoize("none").wrap(none);
    let two: Memoized<(u32, String), String, Broken> = data.memoize("two").wrap(two);
    let one = data.memoize("one").wrap(async |a: u32| Ok::<_, Broken>(a + 1));
    let six: Memoized<_, Arc<Vec<u8>>, _> = ObjectCache::new("six", 10).memoize().wrap(six);
    assert_eq!(none.call(()).await.unwrap(), 0);
    assert_eq!(one.call(1).await.unwrap(), 2);
    assert_eq!(two.call((1, "a".into())).await.unwrap(), "1a");
    assert_eq!(*six.call((1, 2, 3, 4, 5, 6)).await.unwrap(), [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn a_number_that_is_not_finite_has_no_key() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let function = DataCache::in_memory(1 << 20).memoize("floats").wrap(move |x: f64, _: f32| {
        let counted = counted.clone();
        async move {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Broken>(format!("{x}"))
        }
    });
    let rows = [
        (f64::NAN, 0.0, 2),
        (f64::INFINITY, 0.0, 2),
        (0.0, f32::NEG_INFINITY, 2),
        (1.0, 0.0, 1),
        (-0.0, 0.0, 1),
        (0.0, 0.0, 1),
    ];
    for (x, y, expected) in rows {
        let before = calls.load(Ordering::SeqCst);
        for _ in 0..2 {
            assert_eq!(function.call((x, y)).await.unwrap(), format!("{x}"), "{x} {y}");
        }
        assert_eq!(calls.load(Ordering::SeqCst) - before, expected, "{x} {y}");
    }
    assert!(!function.forget(&(f64::NAN, 0.0)).await);
}

/// All that arguments can be made of.
#[derive(Clone, Debug, PartialEq, Serialize)]
enum Any {
    Unit,
    Empty(),
    Some(Box<Any>),
    Pair(Box<Any>, Box<Any>),
    Named {
        a: Box<Any>,
        b: Option<Box<Any>>,
    },
    Option(Option<Option<()>>),
    Flag(bool),
    Number(i64),
    Float(f32),
    Sign(char),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Any>),
    Map(BTreeMap<String, Any>),
    #[serde(rename = "Text\",(")]
    Renamed(String),
}

fn any() -> impl Strategy<Value = Any> {
    let text = "[a\",:;?!(){}<>\\\\\\[\\]=]{0,4}";
    let leaf = prop_oneof![
        Just(Any::Unit),
        Just(Any::Empty()),
        proptest::option::of(proptest::option::of(Just(()))).prop_map(Any::Option),
        proptest::bool::ANY.prop_map(Any::Flag),
        (-2_i64..2).prop_map(Any::Number),
        (-2_i8..2).prop_map(|n| Any::Float(f32::from(n))),
        proptest::char::range('"', '0').prop_map(Any::Sign),
        text.prop_map(Any::Text),
        text.prop_map(Any::Renamed),
        proptest::collection::vec(0_u8..3, 0..3).prop_map(Any::Bytes),
    ];
    leaf.prop_recursive(3, 12, 3, move |inner| {
        let boxed = inner.clone().prop_map(Box::new);
        prop_oneof![
            boxed.clone().prop_map(Any::Some),
            (boxed.clone(), boxed.clone()).prop_map(|(a, b)| Any::Pair(a, b)),
            (boxed.clone(), proptest::option::of(boxed)).prop_map(|(a, b)| Any::Named { a, b }),
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Any::List),
            proptest::collection::btree_map(text, inner, 0..3).prop_map(Any::Map),
        ]
    })
}

/// What a function says of its arguments is said of no others. Each is asked twice, so that a wrong one would be noticed whichever came first.
fn each_has_its_own<A>(all: Vec<A>) -> Result<(), TestCaseError>
where
    A: Clone + std::fmt::Debug + Serialize + Send + Sync + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime of one thread can be built");
    runtime.block_on(async {
        let shown = DataCache::in_memory(1 << 20).memoize("shown");
        let shown = shown.wrap(|arguments: A| async move { Ok::<_, Broken>(format!("{arguments:?}")) });
        for arguments in all.iter().chain(&all) {
            prop_assert_eq!(shown.call(arguments.clone()).await.ok(), Some(format!("{arguments:?}")));
        }
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn different_arguments_never_share_a_key(all in proptest::collection::vec(any(), 2..40)) {
        each_has_its_own(all)?;
    }

    #[test]
    fn texts_do_not_run_into_each_other(all in proptest::collection::vec(("[\",\\\\a]{0,3}", "[\",\\\\a]{0,3}", proptest::option::of("[\",\\\\a]{0,2}")), 2..40)) {
        each_has_its_own(all)?;
    }
}
