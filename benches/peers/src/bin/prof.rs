//! What a hit costs the one thread of an application that keeps its responses in Redis: `far`. Beside it, memory alone, memory before Redis, and tower-http-cache over the same Redis; all of them
//! in this process, each behind a server on a thread of its own, asked in turns.
//!
//! The figure is the processor time of that thread, as Linux counts it (`schedstat`), divided by the requests: what Redis and the clients take isn't in it. Prints lines as the benches
//! of larder do, and fails if a figure isn't what is asked.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use axum::serve::ListenerExt;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use larder_peers::handler::Handler;
use larder_peers::setup::{Setup, Subject};
use larder_peers::subjects::{App, app};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

const SUBJECTS: [Subject; 5] =
    [Subject::Bare, Subject::Larder, Subject::LarderTiered, Subject::LarderRedis, Subject::TowerHttpCacheRedis];
const KEYS: u64 = 1_000;
const CLIENTS: u64 = 16;
const ROUNDS: usize = 15;
const SAMPLE: Duration = Duration::from_millis(400);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.len() > 3 {
        let subject: Subject = serde_json::from_value(serde_json::Value::String(args[1].clone())).unwrap();
        let (size, rounds): (usize, usize) = (args[2].parse().unwrap(), args[3].parse().unwrap());
        let redis = Redis::start();
        let runtime = runtime();
        let mut running = runtime.block_on(Running::start(subject, size, &redis));
        println!("TID {}", running.schedstat.split("/task/").nth(1).unwrap().split("/").next().unwrap());
        let mut costs = Vec::new();
        for _ in 0..rounds { costs.push(runtime.block_on(running.sample())); }
        println!("{:.2} us", median(&costs) / 1e3);
        return ExitCode::SUCCESS;
    }
    let mut failed = false;
    for size in [1 << 10, 10 << 10] {
        failed |= !compare(size);
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// All subjects with content of a size; whether each figure is what is asked.
fn compare(size: usize) -> bool {
    let redis = Redis::start();
    let runtime = runtime();
    let mut running: Vec<Running> =
        SUBJECTS.map(|subject| runtime.block_on(Running::start(subject, size, &redis))).into();
    let mut costs: Vec<Vec<f64>> = vec![Vec::new(); SUBJECTS.len()];
    for round in 0..ROUNDS {
        for place in 0..SUBJECTS.len() {
            let place = (place + round) % SUBJECTS.len();
            costs[place].push(runtime.block_on(running[place].sample()));
        }
    }
    let [_, memory, tiered, far, peer] = [0, 1, 2, 3, 4].map(|place| &costs[place]);
    for (subject, costs) in SUBJECTS.iter().zip(&costs) {
        println!("INFO | {} B: processor time of a hit, {} | | {:.1} us", size, subject.name(), median(costs) / 1e3);
    }
    let to_memory = line(size, "memory before Redis, to memory alone", 1.05, ratio(tiered, memory));
    let to_peer = line(size, "Redis alone, to tower-http-cache over Redis", 2.0 / 3.0, ratio(far, peer));
    to_memory && to_peer
}

fn line(size: usize, what: &str, asked: f64, measured: f64) -> bool {
    let passed = measured <= asked;
    let verdict = if passed { "PASS" } else { "FAIL" };
    println!("{verdict} | {size} B: processor time of a hit, {what} | <= {asked:.2} x | {measured:.2} x");
    passed
}

fn median(samples: &[f64]) -> f64 {
    let mut samples = samples.to_vec();
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn ratio(first: &[f64], second: &[f64]) -> f64 {
    median(&first.iter().zip(second).map(|(first, second)| first / second).collect::<Vec<_>>())
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime can be built")
}

/// A server on a thread of its own, with clients that have connected.
struct Running {
    subject: Subject,
    schedstat: String,
    handler: Handler,
    clients: Vec<SendRequest<Empty<Bytes>>>,
}

impl Running {
    /// Every key is stored.
    async fn start(subject: Subject, size: usize, redis: &Redis) -> Self {
        let setup =
            Setup { store: Some(redis.url()).filter(|_| subject.needs_redis()), ..Setup::of(subject, size, KEYS) };
        let (say, said) = mpsc::channel();
        std::thread::spawn(move || {
            runtime().block_on(async move {
                let App { router, handler, .. } = app(&setup).await.expect("it can be set up");
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
                let address = listener.local_addr().expect("it is bound");
                let thread = fs::read_link("/proc/thread-self").expect("this is Linux");
                say.send((address, format!("/proc/{}/schedstat", thread.display()), handler)).expect("it waits");
                axum::serve(listener.tap_io(|stream| drop(stream.set_nodelay(true))), router).await
            })
        });
        let (address, schedstat, handler) = said.recv().expect("the server starts");
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(connect(address).await);
        }
        let mut running = Self { subject, schedstat, handler, clients };
        // Until nothing is a miss: some store behind the answer, and trust their store only once they have heard of it.
        for _ in 0..20 {
            let before = running.handler.calls();
            for key in 0..KEYS {
                get(&mut running.clients[0], key).await;
            }
            if running.handler.calls() == before || subject.is_bare() {
                return running;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{} isn't warm: {} calls", subject.name(), running.handler.calls());
    }

    /// Nanoseconds for each of the requests that clients can make in that time.
    async fn sample(&mut self) -> f64 {
        let (calls, began, until) = (self.handler.calls(), self.spent(), Instant::now() + SAMPLE);
        let mut asking = JoinSet::new();
        for (n, mut client) in (0..).zip(self.clients.drain(..)) {
            asking.spawn(async move {
                let mut done = 0;
                while Instant::now() < until {
                    get(&mut client, (n * 61 + done * 7) % KEYS).await;
                    done += 1;
                }
                (client, done)
            });
        }
        let mut requests = 0;
        for (client, done) in asking.join_all().await {
            requests += done;
            self.clients.push(client);
        }
        assert!(self.subject.is_bare() || self.handler.calls() == calls, "{}: all are hits", self.subject.name());
        (self.spent() - began) as f64 / requests as f64
    }

    /// Nanoseconds that the thread has been running.
    fn spent(&self) -> u64 {
        let text = fs::read_to_string(&self.schedstat).expect("the thread lives");
        text.split(' ').next().and_then(|number| number.parse().ok()).expect("the kernel says it")
    }
}

async fn connect(address: SocketAddr) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(address).await.expect("the server listens");
    stream.set_nodelay(true).expect("TCP can do without delay");
    let (client, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    client
}

async fn get(client: &mut SendRequest<Empty<Bytes>>, key: u64) {
    let request = Request::get(format!("/item/{key}")).header("host", "bench").body(Empty::new()).expect("a request");
    client.ready().await.expect("the connection stands");
    let response = client.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.expect("the whole content");
}

/// A server of its own, which ends with this.
struct Redis(Child, u16);

impl Redis {
    fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.expect("there is a port").port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        let child = command.stdout(Stdio::null()).spawn().expect("redis-server is installed");
        let redis = Self(child, port);
        for _ in 0..100 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return redis;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("redis-server doesn't start");
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.1)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
