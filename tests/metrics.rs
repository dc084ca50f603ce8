//! What is counted reaches the recorder of the application, under names and labels that stay the same, in bounded number; and dashboard, alerts and
//! documents speak of what there is.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use larder::metrics::{DURATION_BUCKETS, Publisher, describe};
use larder::storage::testing::{Fault, Faulty, Operation};
use larder::storage::{Guard, MemoryStore, Query, Storage, StorageUsage, Variants};
use larder::{
    CacheKey, CacheLayer, Compression, DataCache, ManualClock, ObjectCache, Policy, Selector, StorageError,
    StoredResponse, UsedTags,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};
use support::depot::Depot;
use support::exchange::*;
use support::shared_log::{Line, Server};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

fn recorder() -> PrometheusRecorder {
    let seconds = Matcher::Suffix("_seconds".into());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(seconds, &DURATION_BUCKETS);
    builder.expect("there are classes").build_recorder()
}

/// What is rendered, as series (name and labels) and value.
fn series(recorder: &PrometheusRecorder) -> BTreeMap<String, f64> {
    let text = recorder.handle().render();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let parsed = lines.map(|line| line.rsplit_once(' ').expect("a value"));
    parsed.map(|(series, value)| (series.to_owned(), value.parse().expect("a number"))).collect()
}

#[tokio::test]
async fn counters_and_gauges_are_those_of_the_statistics() {
    let house = House::with(Handler::saying(&[FRESH]), |layer| {
        layer.rule("^/a", Policy::from_origin()).rule("^/b\"\\d", Policy::bypass())
    });
    let recorder = recorder();
    let publisher = Publisher::new(&house.handle);
    for target in ["/a", "/a", "/a", "/x", "/b\"1"] {
        house.get(target).await;
    }
    metrics::with_local_recorder(&recorder, || publisher.publish());
    let all = series(&recorder);
    let of = |series: &str| all.get(series).copied();
    let requests = |labels: &str| of(&format!("larder_requests_total{{cache=\"larder\",route={labels}}}"));
    assert_eq!(requests(r#""^/a",outcome="hit",reason="""#), Some(2.0));
    assert_eq!(requests(r#""^/a",outcome="miss",reason="uri-miss""#), Some(1.0));
    assert_eq!(requests(r#""otherwise",outcome="miss",reason="uri-miss""#), Some(1.0));
    assert_eq!(requests(r#""otherwise",outcome="hit",reason="""#), None, "it never occurred");
    assert_eq!(of(r#"larder_stored_total{cache="larder",route="^/a"}"#), Some(1.0));
    assert_eq!(of(r#"larder_missed_total{cache="larder",route="^/a",cause="first-seen"}"#), Some(1.0));
    assert_eq!(of(r#"larder_content_bytes_total{cache="larder",route="^/a",source="store"}"#), Some(16.0));
    assert_eq!(of(r#"larder_content_bytes_total{cache="larder",route="^/a",source="handler"}"#), Some(8.0));
    assert_eq!(of(r#"larder_entries{cache="larder",route="^/a"}"#), Some(1.0));
    let bytes = house.handle.stats().storage.bytes as f64;
    assert_eq!(of(r#"larder_store_bytes{cache="larder"}"#), Some(bytes));
    house.handle.purge(Selector::Everything).await.unwrap();
    metrics::with_local_recorder(&recorder, || publisher.publish());
    let all = series(&recorder);
    assert_eq!(all[r#"larder_entries{cache="larder",route="^/a"}"#], 0.0);
    assert_eq!(all[r#"larder_purged_total{cache="larder",route="^/a"}"#], 1.0);
    assert_eq!(all[r#"larder_purges_total{cache="larder"}"#], 1.0);
}

#[tokio::test]
async fn latencies_are_recorded_as_they_are_measured() {
    let clock = Arc::new(ManualClock::default());
    let slow = {
        let clock = clock.clone();
        Handler::new(move |_, _| {
            clock.advance(Duration::from_millis(30));
            answer(200, &[FRESH], "a")
        })
    };
    let house = House::on(clock, slow, CacheLayer::in_memory(1 << 20));
    let recorder = recorder();
    metrics::with_local_recorder(&recorder, || Publisher::new(&house.handle).publish());
    for n in 0..70 {
        house.get(&format!("/{}", n.min(3))).await;
    }
    let all = series(&recorder);
    let miss = |rest: &str| all[&format!("larder_miss_duration_seconds_{rest}")];
    assert_eq!(miss(r#"bucket{cache="larder",route="otherwise",le="0.025"}"#), 0.0);
    assert_eq!(miss(r#"bucket{cache="larder",route="otherwise",le="0.05"}"#), 4.0);
    assert_eq!(miss(r#"count{cache="larder",route="otherwise"}"#), 4.0);
    assert!((miss(r#"sum{cache="larder",route="otherwise"}"#) - 0.12).abs() < 1e-9);
    assert_eq!(all[r#"larder_handler_duration_seconds_count{cache="larder",route="otherwise"}"#], 4.0);
    assert_eq!(all[r#"larder_hit_duration_seconds_count{cache="larder",route="otherwise"}"#], 2.0, "one of 64");
}

#[tokio::test]
async fn caches_are_told_apart_by_their_names() {
    let recorder = recorder();
    let houses = ["pages", "sessions"].map(|name| (name, House::new(Handler::saying(&[FRESH]))));
    for (n, (name, house)) in houses.iter().enumerate() {
        for target in 0..=n {
            house.get(&format!("/{target}")).await;
        }
        metrics::with_local_recorder(&recorder, || Publisher::new(&house.handle).named(*name).publish());
    }
    let all = series(&recorder);
    for (name, count) in [("pages", 1.0), ("sessions", 2.0)] {
        assert_eq!(all[&format!("larder_stored_total{{cache=\"{name}\",route=\"otherwise\"}}")], count);
    }
}

/// The values of a label.
fn values(all: &BTreeMap<String, f64>, label: &str) -> BTreeSet<String> {
    let start = format!("{label}=\"");
    let value = |series: &String| Some(series.split_once(&start)?.1.split('"').next()?.to_owned());
    all.keys().filter_map(value).collect()
}

#[tokio::test]
async fn the_number_of_series_is_bounded_and_none_counts_backwards() {
    const MOST: usize = 5;
    let rules = |patterns: std::ops::Range<usize>| {
        let layer = CacheLayer::in_memory(1 << 20);
        patterns.fold(layer, |layer, n| layer.rule(&format!("^/{n}/"), Policy::from_origin()))
    };
    let house = House::around(Handler::saying(&[FRESH]), rules(0..20));
    let recorder = recorder();
    let publisher = Publisher::new(&house.handle).max_routes(MOST);
    let mut before = BTreeMap::new();
    let mut asked = 0.0;
    for round in 0..30 {
        for n in 0..20 {
            // Whatever a client sends, it makes no series.
            house.ask(&format!("/{}/{round}?{n}", n + round), &[("x-cache", "a"), ("host", &format!("h{n}"))]).await;
            asked += 1.0;
        }
        metrics::with_local_recorder(&recorder, || publisher.publish());
        let all = series(&recorder);
        for (series, value) in all.iter().filter(|(series, _)| series.contains("_total{")) {
            assert!(*value >= before.get(series).copied().unwrap_or_default(), "{series}");
        }
        let requests: f64 =
            all.iter().filter(|(series, _)| series.starts_with("larder_requests_total")).map(|(_, n)| n).sum();
        assert_eq!(requests, asked, "each request is in one series");
        before = all;
        house.handle.reconfigure(&rules(round..round + 20)).unwrap();
    }
    let routes = values(&before, "route");
    let first: BTreeSet<String> = (0..MOST).map(|n| format!("^/{n}/")).collect();
    let expected: BTreeSet<String> = first.into_iter().chain(["other", "otherwise"].map(str::to_owned)).collect();
    assert_eq!(routes, expected);
}

fn publish(recorder: &PrometheusRecorder, house: &House) {
    metrics::with_local_recorder(recorder, || {
        describe();
        Publisher::new(&house.handle).publish();
    });
}

/// Everything that can be counted is counted by one of these: for the names, and no matter how much.
async fn workload(recorder: &PrometheusRecorder) {
    ordinary(recorder).await;
    crowds(recorder).await;
    clients_that_leave(recorder).await;
    store_that_fails(recorder).await;
    instances_that_share_a_store(recorder).await;
    instances_that_share_a_log(recorder).await;
}

async fn ordinary(recorder: &PrometheusRecorder) {
    let content = "content ".repeat(400);
    let handler = Handler::new(move |head, _| match head.uri.path() {
        "/private" => answer(200, &[("cache-control", "private")], "a"),
        "/swr" => answer(200, &[("cache-control", "max-age=1, stale-while-revalidate=600")], "a"),
        _ => answer(200, &[FRESH, ("content-type", "text/plain")], content.clone()),
    });
    let memory = MemoryStore::new(1 << 20).max_entries(20);
    let layer = CacheLayer::with_memory(memory)
        .compress(Compression::gzip())
        .rule("^/me/", Policy::per(|_: &_| Some("me"), MINUTE).quota(1 << 20, 2))
        .rule("^/bypass", Policy::bypass());
    let house = House::around(handler, layer);
    publish(recorder, &house);
    for n in 0..100 {
        house.get(&format!("/{n}")).await;
        house.get(&format!("/me/{n}")).await;
    }
    for target in ["/private", "/bypass", "/swr", "/again", "/again", "/again"] {
        house.get(target).await;
    }
    until(|| house.handle.stats().compression.done > 0).await;
    house.advance(30);
    house.get("/swr").await;
    quiet().await;
    house.get("/again").await;
    house.handle.purge(Selector::Uri("http://example.com/again".into())).await.expect("a URI");
    until(|| house.handle.stats().swept > 0).await;
    house.exchange(request("POST", "/0", &[])).await;
    house.get("/over").await;
    UsedTags::of(&house.handler.last().extensions).add("late");
    use_values(&house.handle.data("values").max_value_size(100)).await;
    let objects = house.handle.objects("objects");
    use_objects(&objects).await;
    publish(recorder, &house);
}

/// What becomes of values.
async fn use_values(data: &DataCache) {
    let load = || async { Ok::<_, std::io::Error>("loaded".to_owned()) };
    for _ in 0..2 {
        data.get_or_load("a", load).await.expect("a value");
    }
    let failing = || async { Err::<String, _>(std::io::Error::other("no database")) };
    data.get_or_load("b", failing).await.expect_err("it can't be loaded");
    data.get_or_load("c", || async { Ok::<_, std::io::Error>("large".repeat(100)) }).await.expect("a value");
    assert_eq!(data.get::<u64>("a").await, None, "it is a text");
    data.set("d", "set").await.expect("it can be serialised");
    data.delete("d").await;
}

/// What becomes of objects.
async fn use_objects(objects: &ObjectCache<u8, u8>) {
    objects.insert(1, 1);
    assert!(objects.get(&1).is_some() && objects.get(&2).is_none());
    objects.get_or_load(&3, || async { Err::<u8, _>(()) }).await.expect_err("it can't be loaded");
    objects.entry(4).keep_if(|_| false).get_or_load(|| async { Ok::<_, ()>(4) }).await.expect("an object");
}

/// A handler that answers when it is given leave.
fn gated(fields: &'static [(&'static str, &'static str)]) -> (Arc<Semaphore>, Handler) {
    let gate = Arc::new(Semaphore::new(0));
    let leave = gate.clone();
    let handler = Handler::waiting(move |_, _| {
        let leave = leave.clone();
        async move {
            leave.acquire().await.expect("never closed").forget();
            Ok(answer(200, fields, "content"))
        }
    });
    (gate, handler)
}

/// Asks in a task of its own, and lets it come as far as it can.
async fn begin(house: &House) -> JoinHandle<Exchange> {
    let house = house.clone();
    let asking = tokio::spawn(async move { house.get("/").await });
    quiet().await;
    asking
}

/// Of those who wait some wait in vain, some too long, and some mustn't.
async fn crowds(recorder: &PrometheusRecorder) {
    type Row = (&'static [(&'static str, &'static str)], usize, u64);
    let rows: [Row; 3] = [(&[("cache-control", "private")], 9, 0), (&[FRESH], 0, 0), (&[FRESH], 9, 60)];
    for (fields, most, seconds) in rows {
        let (gate, handler) = gated(fields);
        let house = House::with(handler, |layer| layer.max_waiting(most));
        tokio::time::pause();
        let both = [begin(&house).await, begin(&house).await];
        tokio::time::advance(secs(seconds)).await;
        quiet().await;
        gate.add_permits(2);
        for asked in both {
            asked.await.expect("no panic");
        }
        tokio::time::resume();
        publish(recorder, &house);
    }
}

async fn clients_that_leave(recorder: &PrometheusRecorder) {
    for most in [0, 9] {
        let (gate, handler) = gated(&[("cache-control", "max-age=60, stale-while-revalidate=60")]);
        let house = House::with(handler, |layer| layer.max_refreshes(most));
        begin(&house).await.abort();
        quiet().await;
        gate.add_permits(9);
        house.get("/").await;
        house.advance(61);
        house.get("/").await;
        publish(recorder, &house);
    }
}

/// One asks for both; a herd before an empty near store reads once; and somebody waits for an instance that died.
async fn instances_that_share_a_store(recorder: &PrometheusRecorder) {
    tokio::time::pause();
    let (depot, (gate, handler)) = (Depot::default(), gated(&[FRESH]));
    let layer = || CacheLayer::tiered(MemoryStore::new(1 << 20), depot.clone());
    let house = || House::around(handler.clone(), layer());
    let (first, second, third) = (house(), house(), house());
    let asking = [begin(&first).await, begin(&second).await];
    gate.add_permits(9);
    for asked in asking {
        asked.await.expect("no panic");
    }
    quiet().await;
    futures_util::future::join(third.get("/"), third.get("/")).await;
    let key = depot.keys().pop().expect("one is stored");
    depot.lose_all();
    depot.lend_to_the_dead(&key, secs(9));
    let fourth = house();
    fourth.get("/").await;
    tokio::time::resume();
    for house in [&first, &second, &third, &fourth] {
        publish(recorder, house);
    }
}

async fn store_that_fails(recorder: &PrometheusRecorder) {
    let house = House::around(Handler::saying(&[FRESH]), CacheLayer::with_storage(Broken));
    publish(recorder, &house);
    house.get("/").await;
    publish(recorder, &house);
    // (what goes wrong with look-ups, with writes)
    for (get, put) in [(Fault::Unreachable, Fault::Lie), (Fault::Hang, Fault::Lie), (Fault::Lie, Fault::Hang)] {
        let store = Faulty::new(MemoryStore::new(1 << 20));
        store.set(Operation::Get, get);
        store.set(Operation::Put, put);
        let layer = CacheLayer::with_storage(store).store_guard(Guard::default().max_writes(1));
        let house = House::around(Handler::saying(&[FRESH]), layer);
        for path in ["/1", "/2"] {
            house.get(path).await;
            quiet().await;
        }
        publish(recorder, &house);
    }
}

/// An instance that hears of purges, and one that can't write its own.
async fn instances_that_share_a_log(recorder: &PrometheusRecorder) {
    let store = || CacheLayer::with_storage(Server::default().store(Line::Open));
    let house = House::around(Handler::saying(&[FRESH]), store());
    publish(recorder, &house);
    house.handle.purge(Selector::Everything).await.expect("the log can be written");
    publish(recorder, &house);
    let cut_off = CacheLayer::with_storage(Server::default().store(Line::Broken));
    let house = House::around(Handler::saying(&[FRESH]), cut_off);
    house.get("/").await;
    house.handle.purge(Selector::Everything).await.expect_err("the log can't be written");
    quiet().await;
    publish(recorder, &house);
}

/// A store that is out of order.
struct Broken;

impl Storage for Broken {
    async fn get(&self, _: Query<'_>) -> Result<Variants, StorageError> {
        Err(StorageError::new("out of order"))
    }
    async fn put(&self, _: &CacheKey, _: Arc<StoredResponse>, _: usize) -> Result<(), StorageError> {
        Err(StorageError::new("out of order"))
    }
    async fn remove(&self, _: &CacheKey) -> Result<bool, StorageError> {
        Err(StorageError::new("out of order"))
    }
    async fn clear(&self) -> Result<(), StorageError> {
        Err(StorageError::new("out of order"))
    }
    fn usage(&self) -> StorageUsage {
        StorageUsage::default()
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A name as `docs/metrics.md` has it: without what Prometheus makes of a histogram.
fn family(name: &str) -> &str {
    let of_histogram = ["_bucket", "_sum", "_count"].into_iter().find_map(|end| name.strip_suffix(end));
    of_histogram.filter(|family| family.ends_with("_seconds")).unwrap_or(name)
}

/// The rows of the table in `docs/metrics.md`: name, type, labels.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = read("docs/metrics.md");
    let rows = text.lines().filter(|line| line.starts_with("| `larder_"));
    let cells =
        rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>());
    cells
        .map(|cells| {
            let labels = cells[2].split(',').map(|label| label.trim().to_owned()).filter(|label| !label.is_empty());
            (cells[0].clone(), (cells[1].clone(), labels.collect()))
        })
        .collect()
}

/// The labels of a series.
fn labels(series: &str) -> BTreeSet<String> {
    let inside = series.split_once('{').map_or("", |(_, inside)| inside);
    let parts: Vec<&str> = inside.split("=\"").collect();
    let name = |part: &&str| part.rsplit([',', '{']).next().unwrap_or_default().to_owned();
    parts[..parts.len().saturating_sub(1)].iter().map(name).filter(|label| label != "le").collect()
}

#[tokio::test]
async fn the_documents_name_what_is_emitted_with_type_and_labels() {
    let recorder = recorder();
    workload(&recorder).await;
    let documented = documented();
    let described: BTreeMap<String, String> = recorder
        .handle()
        .render()
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect();
    let emitted = series(&recorder);
    assert!(emitted.len() > 40, "the workload does something: {}", emitted.len());
    for series in emitted.keys() {
        let name = family(series.split('{').next().unwrap_or_default());
        let (kind, known) = documented.get(name).unwrap_or_else(|| panic!("docs/metrics.md has no {name}"));
        assert_eq!(Some(kind), described.get(name), "{name}");
        assert_eq!(&labels(series), known, "{series}");
    }
    for name in documented.keys() {
        assert!(described.contains_key(name), "{name} is documented, and not emitted");
    }
}

/// Names of metrics in an expression of PromQL, with the labels that are used with them.
fn used(expression: &str) -> Vec<(String, BTreeSet<String>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = expression.match_indices("larder_").map(|(start, _)| start);
    starts
        .map(|start| {
            let rest = &expression[start..];
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            let (name, rest) = rest.split_at(end);
            let selector =
                rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inside, _)| inside);
            let matchers =
                selector.split(',').filter_map(|matcher| Some(matcher.split(['=', '!']).next()?.trim().to_owned()));
            (name.to_owned(), matchers.filter(|label| !label.is_empty()).collect())
        })
        .collect()
}

/// The labels by which an expression groups.
fn grouped(expression: &str) -> BTreeSet<String> {
    let lists = expression.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    lists.flat_map(|list| list.split(',').map(|label| label.trim().to_owned())).collect()
}

fn check(place: &str, expression: &str) {
    let documented = documented();
    let mut all = BTreeSet::from(["le".to_owned()]);
    for (name, labels) in used(expression) {
        let (kind, known) =
            documented.get(family(&name)).unwrap_or_else(|| panic!("{place}: there is no {name}: {expression}"));
        assert_eq!(kind == "histogram", name != family(&name), "{place}: {name} is a {kind}");
        let unknown: Vec<_> = labels.difference(known).collect();
        assert!(unknown.is_empty(), "{place}: {name} has no {unknown:?}");
        all.extend(known.iter().cloned());
    }
    let unknown: Vec<_> = grouped(expression).difference(&all).cloned().collect();
    assert!(unknown.is_empty(), "{place}: {unknown:?} in {expression}");
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("docs/grafana.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut count = 0;
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}: its id is another one's");
        assert!(places.insert(panel["gridPos"].to_string()), "{title}: its place is another one's");
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().expect("an expression");
            assert!(!used(expression).is_empty(), "{title}: {expression}");
            check(title, expression);
            count += 1;
        }
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        if let Some(query) = variable["query"]["query"].as_str() {
            check("a variable", query);
        }
    }
    assert!(count >= 12, "{count} expressions");
}

#[test]
fn the_alerts_ask_for_what_there_is() {
    let text = read("docs/alerts.yml");
    let rules: Vec<&str> = text.split("- alert: ").skip(1).collect();
    for rule in &rules {
        let name = rule.lines().next().unwrap_or_default();
        let expression = rule.split("expr: |").nth(1).and_then(|rest| rest.split("for: ").next());
        let expression = expression.unwrap_or_else(|| panic!("{name} has no expression"));
        assert!(!used(expression).is_empty(), "{name}");
        check(name, expression);
        for part in ["severity:", "summary:", "description:"] {
            assert!(rule.contains(part), "{name} has no {part}");
        }
    }
    assert!(rules.len() >= 6, "{} rules", rules.len());
}

#[test]
fn expressions_are_read_as_they_are_meant() {
    let expression =
        r#"sum by (cache, le) (rate(larder_hit_duration_seconds_bucket{cache=~"a",route!="x"}[5m])) / larder_entries"#;
    let labels = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<BTreeSet<_>>();
    let names = [("larder_hit_duration_seconds_bucket", labels(&["cache", "route"])), ("larder_entries", labels(&[]))];
    assert_eq!(used(expression), names.map(|(name, labels)| (name.to_owned(), labels)));
    assert_eq!(grouped(expression), labels(&["cache", "le"]));
    let series = r#"larder_requests_total{cache="a,b",route="^/a{2}",outcome="hit",reason=""}"#;
    assert_eq!(self::labels(series), labels(&["cache", "route", "outcome", "reason"]));
}
