//! Ten thousand at once for one key: how often the handler is called, whether everybody gets all of it, and how much later the last one has it
//! than from the bare handler. And fifty at once for what turns out not to be storable.
//!
//! Server and clients are two processes, with real sockets between them. The server has each route twice: `/bare/…` and, with the layer around it,
//! `/larder/…`.
//!
//! ```text
//! cargo bench --bench crowd                          # all of it
//! cargo bench --bench crowd -- page h2 download declined   # only what is named
//! ```

mod server;
#[path = "../support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use support::client::{Check, Client, raise_open_files};
use support::report::Report;
use support::{content, median, median_ratio};

/// How many ask at once.
const CROWD: usize = 10_000;
/// How long the handler takes before it answers.
const HANDLER: u64 = 300;
/// The same where everybody has to be waiting before the first answer comes, however long the asking takes.
const PATIENT_HANDLER: u64 = 3_000;
/// How many ask at once for what isn't stored.
const BURST: usize = 50;
/// Connections of HTTP/2, which share the crowd.
const CONNECTIONS: usize = 100;

fn main() -> ExitCode {
    raise_open_files(CROWD as u64 + 1_000);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
    let names: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if names == ["serve"] {
        runtime.block_on(server::serve());
        return ExitCode::SUCCESS;
    }
    let server = Server::start();
    let mut report = Report::default();
    runtime.block_on(async {
        let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
        let mut bench = Bench { control: Client::http1(server.address).await, clients: Vec::new(), next: 0 };
        if wanted("page") || wanted("download") || wanted("declined") {
            for _ in 0..CROWD {
                bench.clients.push(Client::http1_of_many(server.address).await);
            }
        }
        if wanted("declined") {
            bench.declined(&mut report).await;
        }
        if wanted("page") {
            bench.crowds(&mut report, "h1, 10 KiB", "page", server::PAGE, 5).await;
        }
        if wanted("download") {
            bench.crowds(&mut report, "h1, 1 MiB streamed", "download", server::DOWNLOAD, 3).await;
        }
        if wanted("h2") {
            bench.clients.clear();
            for _ in 0..CONNECTIONS {
                bench.clients.extend(Client::http2(server.address, CROWD / CONNECTIONS).await);
            }
            bench.crowds(&mut report, "h2, 10 KiB", "page", server::PAGE, 5).await;
        }
    });
    drop(server);
    report.finish()
}

/// This program once more, as the server.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start() -> Self {
        let program = std::env::current_exe().expect("a bench has a program");
        let process = Command::new(program).arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = process.expect("the server starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("it is piped")).read_line(&mut line).expect("the server's address");
        let address = line.trim().parse().unwrap_or_else(|_| panic!("the server said {line:?}"));
        Self { process, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// What became of many requests that were sent at once.
struct Outcome {
    /// When the last answer was there as a whole.
    last: Duration,
    /// When the last request was begun, and when the first head was there.
    asked: Duration,
    first: Duration,
    /// What was wrong with answers.
    wrong: Vec<String>,
}

struct Bench {
    control: Client,
    clients: Vec<Client>,
    /// No key is used twice.
    next: u64,
}

impl Bench {
    fn path(&mut self, subject: &str, route: &str, handler: u64) -> (String, u64) {
        self.next += 1;
        (format!("/{subject}/{route}/{handler}/{}", self.next), self.next)
    }

    /// How often handlers were called since this was asked last.
    async fn calls(&mut self) -> u64 {
        self.control.text("/control/calls").await.and_then(|text| text.parse().map_err(|_| text)).expect("a number")
    }

    /// Asks for a path with the first `count` clients at once.
    async fn ask(&mut self, path: &str, count: usize, check: Check) -> Outcome {
        let clients: Vec<_> = self.clients.drain(..count).collect();
        let start = Instant::now();
        let asking = clients.into_iter().map(|mut client| {
            let (path, check) = (path.to_owned(), check.clone());
            tokio::spawn(async move {
                let asked = start.elapsed();
                let response = client.get(&path, &[]).await;
                let first = start.elapsed();
                let read = match response {
                    Ok(response) => check.read(response).await,
                    Err(error) => Err(error),
                };
                (client, asked, first, start.elapsed(), read)
            })
        });
        let asking: Vec<_> = asking.collect();
        let mut outcome =
            Outcome { last: Duration::ZERO, asked: Duration::ZERO, first: Duration::MAX, wrong: Vec::new() };
        for task in asking {
            let (client, asked, first, last, read) = task.await.expect("no client panics");
            self.clients.push(client);
            outcome.asked = outcome.asked.max(asked);
            outcome.first = outcome.first.min(first);
            outcome.last = outcome.last.max(last);
            outcome.wrong.extend(read.err());
        }
        outcome
    }

    /// Makes a key that is stored, and whose lifetime is over.
    async fn expired(&mut self, path: &str) {
        self.control.text(path).await.expect("an answer");
        // A large content is stored behind the answer.
        let start = Instant::now();
        while !self.control.is_stored(path).await {
            assert!(start.elapsed() < Duration::from_secs(10), "{path} is stored");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.control.text("/control/later").await.expect("the clock moves");
        assert!(!self.control.is_stored(path).await, "{path} is expired");
        self.calls().await;
    }

    async fn crowds(&mut self, report: &mut Report, what: &str, route: &str, size: usize, rounds: usize) {
        for state in ["cold", "expired"] {
            let (path, key) = self.path("larder", route, PATIENT_HANDLER);
            if state == "expired" {
                self.expired(&path).await;
            }
            self.calls().await;
            let outcome = self.ask(&path, CROWD, Check::Hash(content::hash(key, size))).await;
            let name = format!("{what}: {CROWD} for one {state} key");
            report.exactly(&format!("{name}: handler calls"), 1, self.calls().await, "");
            report.exactly(
                &format!("{name}: whole by SHA-256"),
                CROWD as u64,
                (CROWD - outcome.wrong.len()) as u64,
                "",
            );
            if let Some(wrong) = outcome.wrong.first() {
                println!("  the first of what is wrong: {wrong}");
            }
            if outcome.asked >= outcome.first {
                println!("  NOTE: the last was asked after {:?}, when an answer had come", outcome.asked);
            }
        }
        let mut last: [Vec<f64>; 3] = Default::default();
        for _ in 0..rounds {
            for (place, subject) in ["bare", "cold", "expired"].iter().enumerate() {
                let (path, key) = self.path(if place == 0 { "bare" } else { "larder" }, route, HANDLER);
                if *subject == "expired" {
                    self.expired(&path).await;
                }
                let outcome = self.ask(&path, CROWD, Check::Bytes(content::whole(key, size))).await;
                assert!(outcome.wrong.is_empty(), "{subject}: {} wrong: {}", outcome.wrong.len(), outcome.wrong[0]);
                last[place].push(outcome.last.as_secs_f64() * 1e3);
            }
            // The bare handler has done the work that the others are spared.
            assert!(self.calls().await >= 1, "handlers were called");
        }
        for (place, state) in [(1, "cold"), (2, "expired")] {
            let ratio = median_ratio(&last[place], &last[0]);
            report.at_most(&format!("{what}: {CROWD} for one {state} key: last answer, to bare"), 1.2, ratio, " x");
        }
        let [bare, cold, expired] = last.map(median);
        let medians = format!("bare {bare:.0} ms, cold {cold:.0} ms, expired {expired:.0} ms");
        report.for_information(&format!("{what}: last of {CROWD}, medians of {rounds} rounds"), &medians);
    }

    async fn declined(&mut self, report: &mut Report) {
        const ROUNDS: usize = 7;
        let mut longest: [Vec<f64>; 3] = Default::default();
        for _ in 0..ROUNDS {
            let (bare, key) = self.path("bare", "declined", HANDLER);
            let (larder, other) = self.path("larder", "declined", HANDLER);
            for (place, (path, key)) in [(&bare, key), (&larder, other), (&larder, other)].into_iter().enumerate() {
                self.calls().await;
                let outcome = self.ask(path, BURST, Check::Bytes(content::whole(key, server::PAGE))).await;
                assert!(outcome.wrong.is_empty(), "{path}: {}", outcome.wrong[0]);
                // Everybody has an answer of their own, as `no-store` demands.
                assert_eq!(self.calls().await, BURST as u64, "{path}");
                longest[place].push(outcome.last.as_secs_f64() * 1e3);
            }
        }
        let name = format!("{BURST} for a route that says no-store");
        let (first, second) = (median_ratio(&longest[1], &longest[0]), median_ratio(&longest[2], &longest[0]));
        // A handler's time is what it takes the bare one. Timers have a grain of a millisecond: hence the hundredths.
        report.at_most(&format!("{name}: first burst, in handler times"), 2.02, first, " x");
        report.at_most(&format!("{name}: second burst, in handler times"), 1.1, second, " x");
        let [bare, first, second] = longest.map(median);
        let medians = format!("bare {bare:.0} ms, first burst {first:.0} ms, second {second:.0} ms");
        report.for_information(&format!("{name}: last answer, medians of {ROUNDS} rounds"), &medians);
    }
}
