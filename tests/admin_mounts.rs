//! The example server and the example proxy mount the admin API under `/api/cache`: over real sockets, with the token from the environment.
#![cfg(all(feature = "admin", unix))]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use support::desk::TOKEN;
use support::program::example;
use support::sockets::{origin, talk};

struct Program {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Program {
    fn start(name: &str, arguments: &[&str], token: Option<&str>) -> Self {
        let mut command = Command::new(example(name));
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).env_remove("LARDER_ADMIN_TOKEN");
        if let Some(token) = token {
            command.env("LARDER_ADMIN_TOKEN", token);
        }
        let mut child = command.spawn().expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, output }
    }

    /// Reads on until a line has `words`; returns the line.
    fn hear(&mut self, words: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).expect("text"), 0, "{words:?} was never said");
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Stops it as a service manager does, and returns its exit code.
    fn stop(&mut self) -> Option<i32> {
        let kill = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(kill.expect("kill runs").success());
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it didn't stop");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn address(line: &str) -> SocketAddr {
    let rest = line.split("http://").nth(1).unwrap_or_else(|| panic!("{line:?}"));
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':')).unwrap_or(rest.len());
    rest[..end].trim_end_matches('.').parse().unwrap_or_else(|_| panic!("{line:?}"))
}

async fn ask(address: SocketAddr, line: &str, token: Option<&str>) -> String {
    let field = token.map_or(String::new(), |token| format!("authorization: Bearer {token}\r\n"));
    talk(address, &format!("{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{field}\r\n")).await
}

/// A folder that is gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = Self(std::env::temp_dir().join(format!("larder-{}-{name}", std::process::id())));
        std::fs::create_dir_all(&folder.0).expect("a folder can be made");
        folder
    }

    fn shop(&self) -> String {
        self.0.join("shop.db").to_str().expect("a text").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_open_to_its_token_and_closed_without_one() {
    let folder = Folder::new("admin-server");
    let arguments = ["--listen", "127.0.0.1:0", "--data", &folder.shop()];
    let mut server = Program::start("server", &arguments, Some(TOKEN));
    let open = address(&server.hear("The shop is open at"));
    server.hear("The admin API is open");
    assert!(ask(open, "GET /products/1", None).await.starts_with("HTTP/1.1 200"));
    let stats = ask(open, "GET /api/cache/stats", Some(TOKEN)).await;
    assert!(stats.starts_with("HTTP/1.1 200") && stats.contains("\"total_entries\":1,"), "{stats}");
    assert!(!stats.contains("x-cache"), "it is outside of the cache: {stats}");
    assert!(ask(open, "GET /api/cache/stats", None).await.starts_with("HTTP/1.1 401"));
    assert!(ask(open, "POST /api/cache/invalidate/key/%2Fproducts%2F1", Some(TOKEN)).await.starts_with("HTTP/1.1 200"));
    assert!(ask(open, "GET /products/1", None).await.contains("x-cache: MISS"));
    let refreshed = ask(open, "POST /api/cache/invalidate/tag/product%3A1?mode=refresh", Some(TOKEN)).await;
    assert!(refreshed.contains("\"refreshing\":{\"responses\":1,\"skipped\":0}"), "{refreshed}");
    assert_eq!(server.stop(), Some(0));

    let mut server = Program::start("server", &arguments, None);
    let closed = address(&server.hear("The shop is open at"));
    server.hear("is closed: start the server with LARDER_ADMIN_TOKEN");
    for token in [None, Some(TOKEN)] {
        let refused = ask(closed, "GET /api/cache/stats", token).await;
        assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("LARDER_ADMIN_TOKEN"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_has_it_on_a_listener_of_its_own() {
    let (origin, _) = origin(|_| {
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncache-control: max-age=60\r\ncontent-length: 2\r\n\r\nok".to_vec()
    })
    .await;
    let origin = format!("http://{origin}");
    let arguments = ["--listen", "127.0.0.1:0", "--origin", &origin, "--admin", "127.0.0.1:0"];
    let both = format!("{TOKEN},a1b2c3d4e5f60718");
    let mut proxy = Program::start("proxy", &arguments, Some(&both));
    let clients = address(&proxy.hear("larder proxy listens on"));
    let admin = address(&proxy.hear("larder admin API listens on"));
    for expected in ["MISS", "HIT"] {
        assert!(ask(clients, "GET /a", None).await.contains(&format!("x-cache: {expected}")));
    }
    for token in both.split(',') {
        let stats = ask(admin, "GET /api/cache/stats", Some(token)).await;
        assert!(stats.starts_with("HTTP/1.1 200") && stats.contains("\"hit_rate\":0.5,"), "{stats}");
    }
    // To clients, it is a path of the origin as any other.
    assert!(ask(clients, "GET /api/cache/stats", Some(TOKEN)).await.ends_with("ok"));
    assert_eq!(proxy.stop(), Some(0));

    let mut proxy = Program::start("proxy", &arguments, None);
    let admin = address(&proxy.hear("it is closed, since LARDER_ADMIN_TOKEN is not set"));
    assert!(ask(admin, "GET /api/cache/stats", Some(TOKEN)).await.starts_with("HTTP/1.1 403"));
    assert_eq!(proxy.stop(), Some(0));
}

#[test]
fn a_token_that_is_none_is_refused_at_the_start_and_not_shown() {
    let folder = Folder::new("admin-token");
    for (name, arguments) in [
        ("server", vec!["--listen", "127.0.0.1:0", "--data", &folder.shop()]),
        ("proxy", vec!["--listen", "127.0.0.1:0", "--origin", "http://127.0.0.1:9", "--admin", "127.0.0.1:0"]),
    ] {
        let mut child = Command::new(example(name))
            .args(arguments)
            .env("LARDER_ADMIN_TOKEN", "hunter2")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut said = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
        assert!(!child.wait().expect("it ends").success(), "{name}");
        assert!(said.contains("LARDER_ADMIN_TOKEN: the token must have 16") && !said.contains("hunter2"), "{said}");
    }
}
