//! A second opinion: thousands of exchanges, judged by larder and by the crate `http-cache-semantics` (a shared cache by RFC 7234). May the response be
//! stored, may it answer the next request, how old is it then, and for how long is it fresh? Where the two disagree, a row of
//! `classes.rs` has to say why, by section, and who is right; a disagreement that no row explains fails.
//!
//! `cargo test --test oracle -- --nocapture` shows how often each row was needed.

#[path = "../support/mod.rs"]
mod support;

mod cases;
mod classes;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cases::{Case, case};
use classes::{CLASSES, Class};
use http::{Request, Response};
use http_cache_semantics::{BeforeRequest, CacheOptions, CachePolicy};
use larder::{CacheLayer, DeclineReason, Outcome, StaleReason};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use support::exchange::*;

/// When each story begins: where a `ManualClock` starts.
const START: u64 = 1_767_225_600;

/// Some thirty thousand years: beyond, lifetimes are the same.
const EVER: u64 = 1 << 40;

/// Which larder is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// As it comes.
    Default,
    /// `CacheLayer::strict_rfc`.
    Letter,
}

/// What one of the two says about a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opinion {
    pub stores: bool,
    /// Age and remaining lifetime in seconds, where the second request is answered without asking the origin.
    pub reuses: Option<(u64, u64)>,
    /// Why larder doesn't store.
    pub reason: Option<DeclineReason>,
    /// Why larder sends what is stale.
    pub stale: Option<StaleReason>,
}

/// In what two opinions differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    OnlyLarderStores,
    OnlyOracleStores,
    OnlyLarderReuses,
    OnlyOracleReuses,
    Age,
    Lifetime,
}

/// A case with both opinions.
#[derive(Clone, Debug)]
pub struct Compared {
    pub case: Case,
    pub profile: Profile,
    pub larder: Opinion,
    pub oracle: Opinion,
    pub difference: Option<Difference>,
}

/// A status and fields.
type Said = (u16, Vec<(&'static str, String)>);

/// A cache of each profile, in which each case has a path of its own.
struct Larders {
    runtime: tokio::runtime::Runtime,
    houses: [House; 2],
    /// What the handler answers now.
    response: Arc<Mutex<Said>>,
    cases: usize,
}

impl Larders {
    fn new() -> Self {
        let response = Arc::new(Mutex::new(Said::default()));
        let house = |layer: CacheLayer| {
            let response = response.clone();
            let handler = Handler::new(move |_, _| {
                let (status, fields) = response.lock().expect("nobody panics while holding it").clone();
                let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
                answer(status, &fields, "answer")
            });
            House::around(handler, layer)
        };
        let layer = || CacheLayer::in_memory(1 << 30);
        let houses = [house(layer()), house(layer().strict_rfc())];
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be made");
        Self { runtime, houses, response, cases: 0 }
    }

    fn opinion(&mut self, case: &Case, profile: Profile) -> Opinion {
        *self.response.lock().expect("nobody panics while holding it") = (case.status, case.response.clone());
        self.cases += 1;
        let (path, house) = (format!("/{}", self.cases), &self.houses[profile as usize]);
        // Each story begins at the same time on the wall, for it is full of dates.
        house.clock.set_wall(UNIX_EPOCH + Duration::from_secs(START));
        let exchange = async |method, fields| house.exchange(request(method, &path, fields)).await.outcome;
        let (first, second) = self.runtime.block_on(async {
            let first = exchange(case.first_method, &case.first).await;
            house.advance(case.resident);
            (first, exchange(case.second_method, &case.second).await)
        });
        let (stored, outcome) = (first.and_then(|outcome| outcome.stored), second.expect("every response has one"));
        let stale = match outcome.outcome {
            Outcome::Stale(reason @ (StaleReason::MaxStale | StaleReason::WhileRevalidate)) => Some(reason),
            _ => None,
        };
        let reused = outcome.outcome == Outcome::Hit || stale.is_some();
        let age = outcome.age.map_or(0, |age| age.as_secs());
        let ttl = outcome.ttl.and_then(|ttl| u64::try_from(ttl).ok()).unwrap_or(0);
        Opinion {
            stores: stored == Some(Ok(())),
            reuses: reused.then_some((age, ttl.min(EVER))),
            reason: stored.and_then(Result::err),
            stale,
        }
    }
}

fn oracle(case: &Case) -> Opinion {
    let head = |method: &str, fields: &[(&'static str, &'static str)]| {
        let mut request = Request::new(());
        *request.method_mut() = method.parse().expect("a method");
        *request.uri_mut() = "http://example.com/".parse().expect("a target");
        *request.headers_mut() = support::exchange::request(method, "/", fields).headers().clone();
        request
    };
    let fields: Vec<_> = case.response.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut response = Response::new(());
    *response.status_mut() = case.status.try_into().expect("a status");
    *response.headers_mut() = answer(case.status, &fields, "").headers().clone();
    let received = UNIX_EPOCH + Duration::from_secs(START);
    let options = CacheOptions { shared: true, ..CacheOptions::default() };
    let policy = CachePolicy::new_options(&head(case.first_method, &case.first), &response, received, options);
    let now: SystemTime = received + Duration::from_secs(case.resident);
    let stores = policy.is_storable();
    let fresh = matches!(policy.before_request(&head(case.second_method, &case.second), now), BeforeRequest::Fresh(_));
    let figures = || (policy.age(now).as_secs(), policy.time_to_live(now).as_secs().min(EVER));
    Opinion { stores, reuses: (stores && fresh).then(figures), reason: None, stale: None }
}

fn difference(larder: Opinion, oracle: Opinion) -> Option<Difference> {
    use Difference::*;
    match (larder.stores, oracle.stores) {
        (true, false) => return Some(OnlyLarderStores),
        (false, true) => return Some(OnlyOracleStores),
        _ => {}
    }
    match (larder.reuses, oracle.reuses) {
        (Some(_), None) => Some(OnlyLarderReuses),
        (None, Some(_)) => Some(OnlyOracleReuses),
        (Some((age, _)), Some((other, _))) if age != other => Some(Age),
        (Some((_, ttl)), Some((_, other))) if ttl != other => Some(Lifetime),
        _ => None,
    }
}

fn compare(larders: &mut Larders, case: &Case, profile: Profile) -> Compared {
    let (larder, oracle) = (larders.opinion(case, profile), oracle(case));
    Compared { case: case.clone(), profile, larder, oracle, difference: difference(larder, oracle) }
}

/// The row that explains a difference; `Err` if none does.
fn explain(compared: &Compared) -> Result<Option<&'static Class>, String> {
    let Some(difference) = compared.difference else { return Ok(None) };
    let class = CLASSES.iter().find(|class| class.differences.contains(&difference) && (class.explains)(compared));
    class.map(Some).ok_or_else(|| format!("unexplained: {compared:?}"))
}

/// Always the same cases, so that the counts mean something: each row is needed, and most exchanges need none.
#[test]
fn every_disagreement_has_its_reason_and_every_reason_its_disagreement() {
    const CASES: usize = 16_000;
    let (mut larders, mut runner) = (Larders::new(), TestRunner::deterministic());
    let strategy = case();
    let mut counts: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    let (mut agreed, mut unexplained) = ([0, 0], Vec::new());
    for _ in 0..CASES {
        let case = strategy.new_tree(&mut runner).expect("a case can be made").current();
        for (n, profile) in [Profile::Default, Profile::Letter].into_iter().enumerate() {
            match explain(&compare(&mut larders, &case, profile)) {
                Ok(None) => agreed[n] += 1,
                Ok(Some(class)) => counts.entry(class.name).or_default()[n] += 1,
                Err(why) => unexplained.push(why),
            }
        }
    }
    unexplained.sort_by_key(String::len);
    assert!(unexplained.is_empty(), "{}: {:#?}", unexplained.len(), &unexplained[..unexplained.len().min(8)]);
    println!("of {CASES} exchanges, larder and the oracle agree in {agreed:?} (by default, to the letter)");
    for class in CLASSES {
        let [default, letter] = counts.get(class.name).copied().unwrap_or_default();
        println!("{default:>5} {letter:>5}  {} ({}): {:?}", class.name, class.section, class.right);
    }
    for class in CLASSES {
        assert!(counts.contains_key(class.name), "{} explains nothing: a row too many", class.name);
    }
    assert!(agreed.iter().all(|n| n * 5 > CASES * 2), "rows that explain everything explain nothing: {agreed:?}");
}

/// Other cases in each run.
#[test]
fn no_exchange_is_judged_otherwise_without_a_reason() {
    let larders = RefCell::new(Larders::new());
    let config = Config { cases: 1000, failure_persistence: None, ..Config::default() };
    let run = TestRunner::new(config).run(&(case(), prop::bool::ANY), |(case, letter)| {
        let profile = if letter { Profile::Letter } else { Profile::Default };
        explain(&compare(&mut larders.borrow_mut(), &case, profile)).map_err(TestCaseError::fail)?;
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{error}"));
}
