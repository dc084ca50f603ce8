//! Several instances share what they cache, and tell each other what isn't good any more: the examples as processes of their own over one Redis, with real signals, and clocks that are
//! minutes apart.
#![cfg(all(feature = "admin", feature = "config", feature = "redis", unix))]

mod support;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use support::desk::TOKEN;
use support::exchange::{Content, Exchange, Handler, answer, full};
use support::program::{Program, wait_until_closed};
use support::redis::{RedisServer, Reply};
use support::sockets::serve;
use tokio::sync::watch;

/// What another instance may be behind.
const BOUND: Duration = Duration::from_secs(1);

/// Longer than anybody waits for another instance, with all that a busy machine may add.
const HANGS: Duration = Duration::from_secs(5);

/// What all instances are known by: the host is a part of the key.
const HOST: &str = "shop.test";

/// The keys of what says who asks the origin.
const LEASES: &str = "larder:proxy:l:*";

/// The content of what takes long.
const LARGE: usize = 256 << 10;

/// What is asked by the instances. Each answer tells how many writes there were; the first to each path below `/slow` stops in its middle.
struct Origin {
    address: SocketAddr,
    handler: Handler,
    goes_on: watch::Sender<bool>,
}

impl Origin {
    async fn start() -> Self {
        let (writes, begun) = (AtomicUsize::new(0), Mutex::new(HashSet::new()));
        let (goes_on, seen) = watch::channel(false);
        let handler = Handler::waiting(move |head, _| {
            let path = head.uri.path();
            let user = head.headers.get("user").map_or("nobody", |user| user.to_str().expect("a name"));
            let version = match head.method {
                Method::POST => writes.fetch_add(1, Ordering::SeqCst) + 1,
                _ => writes.load(Ordering::SeqCst),
            };
            // The age that it comes with can't be taken for the time between two clocks.
            let fields = [("cache-control", "max-age=3600"), ("age", "100")];
            let response = if path.starts_with("/slow") {
                let is_first = begun.lock().expect("nobody panics").insert(path.to_owned());
                slow(is_first.then(|| seen.clone()))
            } else {
                answer(200, &fields, format!("{path} {version} for {user}"))
            };
            std::future::ready(Ok(response))
        });
        Self { address: serve(handler.clone()).await, handler, goes_on }
    }
}

fn slow(stops: Option<watch::Receiver<bool>>) -> Response<Content> {
    let half = || Bytes::from(vec![b'x'; LARGE / 2]);
    let body = match stops {
        None => full([half(), half()].concat()),
        Some(mut goes_on) => {
            let rest = stream::once(async move {
                let _ = goes_on.wait_for(|goes_on| *goes_on).await;
                Ok(Frame::data(half()))
            });
            BodyExt::boxed(StreamBody::new(stream::iter([Ok(Frame::data(half()))]).chain(rest)))
        }
    };
    let mut response = Response::new(body);
    let fields = response.headers_mut();
    fields.insert("cache-control", "max-age=3600".parse().expect("a value"));
    fields.insert("content-length", LARGE.into());
    response
}

/// A proxy or a server, and where it listens.
struct Instance {
    program: Program,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Instance {
    fn proxy(origin: &Origin, store: &str) -> Self {
        Self::proxy_with(origin, store, &[], &[])
    }

    fn proxy_with(origin: &Origin, store: &str, options: &[&str], environment: &[(&str, &str)]) -> Self {
        let origin = format!("http://{}", origin.address);
        let mut arguments = vec!["--listen", "127.0.0.1:0", "--origin", &origin, "--admin", "127.0.0.1:0"];
        arguments.extend(["--store", store]);
        arguments.extend(options);
        let mut variables = vec![("LARDER_ADMIN_TOKEN", TOKEN)];
        variables.extend(environment);
        let mut program = Program::start("proxy", &arguments, &variables);
        let address = program.address("larder proxy listens on");
        let admin = program.address("larder admin API listens on");
        Self { program, address, admin }
    }

    /// A shop; its admin API is where the shop is.
    fn server(store: &str, data: &str) -> Self {
        let arguments = ["--listen", "127.0.0.1:0", "--data", data, "--store", store];
        let mut program = Program::start("server", &arguments, &[("LARDER_ADMIN_TOKEN", TOKEN)]);
        let address = program.address("The shop is open at");
        Self { program, address, admin: address }
    }

    async fn get(&self, path: &str) -> Exchange {
        self.send("GET", path, &[], "").await
    }

    /// Sends a request and reads the answer, neither of which takes long.
    async fn send(&self, method: &str, path: &str, fields: &[(&str, &str)], content: &'static str) -> Exchange {
        let fields: Vec<_> = fields.iter().copied().chain([("host", HOST)]).collect();
        let sent = send(self.address, method, path, &fields, content);
        let read = async { Exchange::read(sent.await).await.expect("a clean end") };
        tokio::time::timeout(HANGS, read).await.unwrap_or_else(|_| panic!("{method} {path} hangs"))
    }

    /// Asks the admin API.
    async fn operate(&self, method: &str, path: &str) -> Exchange {
        let bearer = format!("Bearer {TOKEN}");
        let path = format!("/api/cache{path}");
        let answer = send(self.admin, method, &path, &[("authorization", &bearer)], "").await;
        Exchange::read(answer).await.expect("a clean end")
    }

    /// Asks until the answer isn't `before` any more, which has to be so for whoever asks later than the bound after `since`.
    async fn sees_a_change(&self, path: &str, before: &str, since: Instant) -> Exchange {
        loop {
            let begun = since.elapsed();
            let got = self.get(path).await;
            assert_eq!(got.status, 200);
            if got.body != before {
                return got;
            }
            assert!(begun <= BOUND, "{path} is as it was after {begun:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until its store can be reached.
    async fn is_well(&self) {
        let end = Instant::now() + HANGS;
        loop {
            let health = self.operate("GET", "/health").await;
            if health.status == 200 && health.body.contains("\"guard\":\"closed\"") {
                return;
            }
            assert!(Instant::now() < end, "{health:?} {}", self.program.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks until the store answers: writes run behind the answers.
    async fn has(&self, path: &str) -> Exchange {
        let end = Instant::now() + HANGS;
        loop {
            let got = self.get(path).await;
            if got.x_cache == "HIT" {
                return got;
            }
            assert!(Instant::now() < end, "{path} is never a hit: {got:?} {}", self.program.said());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    content: &'static str,
) -> Response<Incoming> {
    let mut request = Request::builder().method(method).uri(format!("http://{address}{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::<Bytes>::from(content)).expect("a request");
    // No connection is used twice, so none keeps an instance that is to stop.
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    client.request(request).await.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"))
}

/// Asks for what takes long, and returns the rest of the content when its first part is there.
async fn begin(instance: &Instance, path: &str) -> Incoming {
    let mut body = send(instance.address, "GET", path, &[("host", HOST)], "").await.into_body();
    body.frame().await.expect("a first part").expect("it comes");
    body
}

/// How many responses Redis holds that are large, each of them whole.
fn large(redis: &RedisServer) -> usize {
    let lengths = keys(redis, "larder:proxy:r:*").into_iter().map(|key| redis.command(&["STRLEN", &key]).number());
    let large: Vec<_> = lengths.filter(|length| *length > LARGE as i64 / 4).collect();
    assert!(large.iter().all(|length| *length > LARGE as i64), "{large:?}");
    large.len()
}

fn keys(redis: &RedisServer, pattern: &str) -> Vec<String> {
    let Reply::List(keys) = redis.command(&["KEYS", pattern]) else { panic!("not a list") };
    keys.iter().map(Reply::text).collect()
}

/// What one has stored the other finds; and when its record is gone, what the other has of it. On a machine that is very busy the store may be too late for any request, so it may take several pages.
async fn shares(redis: &RedisServer, origin: &Origin, [one, other]: [&Instance; 2], after_deletion: &str) {
    let mut seen = Vec::new();
    for number in 0..10 {
        let path = format!("/shared/{number}");
        redis.command(&[
            "EVAL",
            "for _, key in ipairs(redis.call('KEYS', 'larder:proxy:r:*')) do redis.call('DEL', key) end",
            "0",
        ]);
        let before = origin.handler.calls();
        let stored = one.has(&path).await;
        let end = Instant::now() + HANGS;
        while keys(redis, "larder:proxy:r:*").is_empty() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let found = other.get(&path).await;
        let calls = origin.handler.calls() - before;
        keys(redis, "larder:proxy:r:*").iter().for_each(|key| drop(redis.command(&["DEL", key])));
        let again = other.get(&path).await;
        assert_eq!(found.body, stored.body);
        seen.push((calls, found.x_cache, again.x_cache));
        if *seen.last().expect("just now") == (1, "HIT".into(), after_deletion.into()) {
            return;
        }
    }
    panic!("they don't share: {seen:?} {}", other.program.said());
}

macro_rules! redis {
    () => {
        match RedisServer::start() {
            Some(redis) => redis,
            None => return,
        }
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_has_stored_another_has_and_what_one_purges_or_writes_both_forget() {
    let redis = redis!();
    let origin = Origin::start().await;
    for near in ["", "?near=0"] {
        let store = format!("{}/{near}", redis.url());
        let (one, other) = (Instance::proxy(&origin, &store), Instance::proxy(&origin, &store));
        let after_deletion = if near.is_empty() { "HIT" } else { "MISS" };
        shares(&redis, &origin, [&one, &other], after_deletion).await;
        for (by, of) in [(&one, &other), (&other, &one)] {
            let stale = of.has("/a").await;
            // The page is another one from now on, and nobody has told the caches.
            assert_eq!(by.send("POST", "/b", &[], "").await.status, 200);
            let purged = by.operate("POST", "/invalidate/key/%2Fa").await;
            let acknowledged = Instant::now();
            assert!(purged.status == 200 && purged.body.contains("\"reach\":\"all-instances\""), "{purged:?}");
            assert_ne!(by.get("/a").await.body, stale.body, "at once where it was made");
            of.sees_a_change("/a", &stale.body, acknowledged).await;

            let (here, there) = (by.has("/a").await, of.has("/a").await);
            assert_eq!(here.body, there.body);
            assert_eq!(by.send("POST", "/a", &[], "").await.status, 200);
            let acknowledged = Instant::now();
            assert_ne!(by.get("/a").await.body, here.body, "at once where it was written");
            of.sees_a_change("/a", &there.body, acknowledged).await;
        }
        for instance in [one, other] {
            instance.is_well().await;
        }
    }
}

/// The store is away when they start: they answer, and say of a purge that it failed. Then it is there.
#[tokio::test(flavor = "multi_thread")]
async fn instances_start_without_their_store_and_never_call_a_purge_done_that_is_not() {
    let mut redis = redis!();
    redis.kill();
    let origin = Origin::start().await;
    let instances = [0, 1].map(|_| Instance::proxy(&origin, &redis.url()));
    for one in &instances {
        assert_eq!(one.get("/a").await.status, 200);
        let health = one.operate("GET", "/health").await;
        assert!(health.status == 503 && health.body.contains("store_unreachable"), "{health:?}");
    }
    let purged = instances[0].operate("POST", "/invalidate/key/%2Fa").await;
    assert!(purged.status >= 500, "{purged:?}");
    redis.revive();
    for one in &instances {
        one.is_well().await;
    }
    let [one, other] = &instances;
    shares(&redis, &origin, [one, other], "HIT").await;
}

/// `SIGTERM` while the origin is in the middle of its answer.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_told_to_stop_ends_what_it_has_begun() {
    let redis = redis!();
    let origin = Origin::start().await;
    let store = redis.url();
    let [mut one, other, third] = [(); 3].map(|()| Instance::proxy(&origin, &store));
    one.has("/a").await;
    let rest = begin(&one, "/slow").await;
    one.program.terminate();
    wait_until_closed(one.address);
    assert_eq!(large(&redis), 0, "nothing that isn't whole");
    origin.goes_on.send_replace(true);
    let rest = rest.collect().await.expect("the client gets it all").to_bytes();
    assert!(rest.len() >= LARGE / 2 && rest.len() < LARGE, "{}", rest.len());
    assert_eq!(one.program.ended(), Some(0), "{}", one.program.said());
    assert_eq!(large(&redis), 1, "it was stored before the end");
    let calls = origin.handler.calls();
    for instance in [&other, &third] {
        let found = instance.get("/slow").await;
        assert_eq!((found.x_cache.as_str(), found.body.len()), ("HIT", LARGE));
    }
    assert_eq!(origin.handler.calls(), calls);
}

/// `SIGKILL` while the origin is in the middle of its answer, once with two other instances that wait for it and once before anybody else asks.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_dies_keeps_nobody_waiting_and_leaves_nothing_that_is_not_whole() {
    let redis = redis!();
    let origin = Origin::start().await;
    for is_waited_for in [true, false] {
        let mut number = 0;
        while !dies_in_a_fill(&redis, &origin, is_waited_for, &format!("/slow/{is_waited_for}/{number}")).await {
            number += 1;
            assert!(number < 10, "it never gets the lease");
        }
    }
}

/// Whether it had the lease when it died, as on a machine that isn't too busy.
async fn dies_in_a_fill(redis: &RedisServer, origin: &Origin, is_waited_for: bool, path: &str) -> bool {
    let store = redis.url();
    let [mut one, other, third] = [(); 3].map(|()| Instance::proxy(origin, &store));
    for instance in [&one, &other, &third] {
        instance.has("/a").await;
    }
    let (calls, stored, leases) = (origin.handler.calls(), large(redis), keys(redis, LEASES));
    let rest = begin(&one, path).await;
    if keys(redis, LEASES).iter().all(|lease| leases.contains(lease)) {
        return false;
    }
    let asked = async {
        let begun = Instant::now();
        let got = tokio::join!(other.get(path), third.get(path));
        ([got.0, got.1], begun.elapsed())
    };
    let dies = async {
        if is_waited_for {
            // So that it waits by then.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        one.program.kill();
        rest.collect().await.expect_err("its client notices");
    };
    let (got, took) = if is_waited_for {
        tokio::join!(asked, dies).0
    } else {
        dies.await;
        assert_eq!(large(redis), stored, "nothing that isn't whole");
        asked.await
    };
    assert_eq!(got.each_ref().map(|got| (got.status, got.body.len())), [(200, LARGE); 2]);
    assert!(got.iter().any(|got| got.x_cache == "MISS"), "nobody else had it");
    assert!(took < Duration::from_secs(3), "{took:?}, and a second is what one waits for another");
    let calls = origin.handler.calls() - calls;
    assert!((2..=3).contains(&calls), "one call of each who doesn't wait any longer: {calls}");
    let again = Instance::proxy(origin, &store);
    for instance in [&other, &third, &again] {
        assert_eq!(instance.has(path).await.body.len(), LARGE);
    }
    assert!(large(redis) <= stored + 1);
    true
}

/// Five minutes lie between the clocks of two instances, and the third one has the right time.
#[tokio::test(flavor = "multi_thread")]
async fn instances_whose_clocks_are_minutes_apart_agree_on_ages() {
    let (redis, Some(library)) = (redis!(), faketime()) else { return };
    let origin = Origin::start().await;
    let [slow, right, fast] = ["-150", "+0", "+150"].map(|by| {
        let environment = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME", by),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        Instance::proxy_with(&origin, &redis.url(), &[], &environment)
    });
    let orders = [
        ("/a", 100, &slow, [&right, &fast]),
        ("/b", 100, &right, [&fast, &slow]),
        // Whose clock is fast takes what the origin's `Date` lies behind for a delay.
        ("/c", 149, &fast, [&slow, &right]),
    ];
    for (path, age, by, others) in orders {
        let began = Instant::now();
        let ages = [by.has(path).await, others[0].has(path).await, others[1].has(path).await];
        let most = began.elapsed().as_secs() + 1;
        for seconds in ages.map(|got| got.field("age").parse::<u64>().expect("a number")) {
            assert!((age..=age + 1 + most).contains(&seconds), "{path}: {seconds} seconds");
        }
        let stale = by.get(path).await;
        by.send("POST", path, &[], "").await;
        for other in others {
            other.sees_a_change(path, &stale.body, Instant::now()).await;
        }
    }
}

/// What is for one user is shared by those who have the same key, and by nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_shared_by_instances_that_have_the_same_secret() {
    let redis = redis!();
    let origin = Origin::start().await;
    let file = File::new("[otherwise]\naudience = 'per'\nprincipal = { header = 'user' }\nttl = '1h'\n");
    let start = |secret: Option<&str>| {
        let environment: Vec<_> = secret.into_iter().map(|secret| ("LARDER_PARTITION_SECRET", secret)).collect();
        Instance::proxy_with(&origin, &redis.url(), &["--config", file.path()], &environment)
    };
    let (secret, another) = ("0f".repeat(32), "F0".repeat(32));
    for (number, (one, other, is_shared)) in
        [(Some(&secret), Some(&secret), true), (Some(&secret), Some(&another), false), (None, None, false)]
            .into_iter()
            .enumerate()
    {
        let (one, other) = (start(one.map(String::as_str)), start(other.map(String::as_str)));
        let path = format!("/{number}");
        for (instance, user, expected) in [(&one, "ann", "MISS"), (&one, "ann", "HIT"), (&one, "bob", "MISS")] {
            assert_eq!(instance.send("GET", &path, &[("user", user)], "").await.x_cache, expected, "{number} {user}");
        }
        let end = Instant::now() + if is_shared { HANGS } else { Duration::ZERO };
        loop {
            let got = other.send("GET", &path, &[("user", "ann")], "").await;
            assert_eq!(got.body, format!("{path} 0 for ann"));
            if is_shared == (got.x_cache == "HIT") {
                break;
            }
            assert!(Instant::now() < end, "{number}: {got:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_one_shop_share_what_they_cache() {
    let redis = redis!();
    let folder = Folder::new();
    let store = format!("{}/?ns=shop", redis.url());
    let (one, other) = (Instance::server(&store, &folder.data()), Instance::server(&store, &folder.data()));
    let page = "/products/1";
    let json = ("content-type", "application/json");
    for (method, target, content) in [
        ("PUT", page, r#"{"price_cents": 1234}"#),
        ("POST", "/orders", r#"{"customer_id": 17, "product_id": 1, "quantity": 1}"#),
    ] {
        let before = one.has(page).await.body;
        assert_eq!(other.has(page).await.body, before);
        let written = one.send(method, target, &[json], content).await;
        assert!(written.status < 300, "{written:?}");
        let acknowledged = Instant::now();
        assert_ne!(one.get(page).await.body, before);
        other.sees_a_change(page, &before, acknowledged).await;
    }
    assert!(!keys(&redis, "larder:shop:r:*").is_empty() && keys(&redis, "larder:server:*").is_empty());
}

#[test]
fn a_store_that_can_not_be_meant_is_refused_at_the_start() {
    let folder = Folder::new();
    for (store, message) in [
        ("memroy", "neither `memory` nor the URL"),
        ("http://hunter2@localhost/", "not the URL of a Redis or Valkey server"),
        ("redis://u:hunter2@localhost/?near=1", "`near` is 0 or left out"),
        ("redis://u:hunter2@localhost/?near=0&ttl=1", "the parameter \"ttl\" isn't known"),
        ("redis://u:hunter2@localhost/?ns=a%20b", "has to be 1 to 64 letters"),
        ("rediss://u:hunter2@localhost:port/", "not the URL of a Redis or Valkey server"),
    ] {
        for (name, options) in
            [("proxy", ["--origin".into(), "http://127.0.0.1:9".into()]), ("server", ["--data".into(), folder.data()])]
        {
            let arguments = ["--listen", "127.0.0.1:0", "--store", store, &options[0], &options[1]];
            let mut program = Program::start(name, &arguments, &[]);
            assert_eq!(program.ended(), Some(1), "{name} {store}");
            program.says(message);
            assert!(!program.said().contains("hunter2"), "{}", program.said());
        }
    }
    let wrong = "0f".repeat(31) + "0g";
    for (name, options) in [("proxy", ["--origin", "http://127.0.0.1:9"]), ("server", ["--data", "unused"])] {
        let arguments = ["--listen", "127.0.0.1:0", options[0], options[1]];
        let mut program = Program::start(name, &arguments, &[("LARDER_PARTITION_SECRET", &wrong)]);
        assert_eq!(program.ended(), Some(1), "{name}");
        program.says("LARDER_PARTITION_SECRET has to be 64 hexadecimal digits");
        assert!(!program.said().contains(&wrong), "{}", program.said());
    }
}

/// The library by which `faketime` gives a program another clock. Where it isn't installed, a message that can't be missed; with `LARDER_REQUIRE_FAKETIME` set that is a panic.
fn faketime() -> Option<String> {
    let told = Command::new("faketime").args(["-f", "+0", "sh", "-c", "echo \"$LD_PRELOAD\""]).output().ok();
    let library = told.map(|told| String::from_utf8_lossy(&told.stdout).trim().to_owned()).unwrap_or_default();
    if library.is_empty() {
        assert!(std::env::var_os("LARDER_REQUIRE_FAKETIME").is_none(), "this test needs faketime");
        let told = "\n*** SKIPPED, NOT PASSED: a test needs faketime (`apt-get install faketime`) ***\n\n";
        drop(std::io::Write::write_all(&mut std::io::stderr(), told.as_bytes()));
        return None;
    }
    Some(library)
}

/// Goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("larder-instances-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        Self(folder)
    }

    fn data(&self) -> String {
        self.0.join("shop.db").to_str().expect("a text").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

struct File {
    path: String,
    _folder: Folder,
}

impl File {
    fn new(text: &str) -> Self {
        let folder = Folder::new();
        let path = folder.0.join("larder.toml").to_str().expect("a text").to_owned();
        std::fs::write(&path, text).expect("the file can be written");
        Self { path, _folder: folder }
    }

    fn path(&self) -> &str {
        &self.path
    }
}
