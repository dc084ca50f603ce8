//! The example proxy takes its rules from a file, and takes them anew on SIGHUP: over real sockets, with real signals.
#![cfg(all(feature = "config", unix))]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::program::example;
use support::sockets::{origin, talk};

struct Proxy {
    child: Child,
    address: SocketAddr,
    said: Arc<Mutex<String>>,
}

impl Proxy {
    fn start(origin: SocketAddr, options: &[&str]) -> Self {
        let mut child = Command::new(example("proxy"))
            .args(["--listen", "127.0.0.1:0", "--origin", &format!("http://{origin}")])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the proxy starts");
        let said = Arc::new(Mutex::new(String::new()));
        let (mut stderr, heard) = (child.stderr.take().expect("a pipe"), said.clone());
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut part) {
                heard.lock().expect("nobody panics").push_str(&String::from_utf8_lossy(&part[..length]));
            }
        });
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(' ').next());
        let address = address.unwrap_or_else(|| panic!("{line:?} {said:?}")).parse().expect("an address");
        Self { child, address, said }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Sends SIGHUP and waits until `words` have been said on standard error once more.
    fn hang_up(&self, words: &str) {
        let count = || self.said.lock().expect("nobody panics").matches(words).count();
        let before = count();
        self.signal("-HUP");
        let start = Instant::now();
        while count() == before {
            assert!(start.elapsed() < Duration::from_secs(20), "{words:?} was never said: {:?}", self.said);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    async fn get(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: larder.test\r\nconnection: close\r\n\r\n");
        talk(self.address, &request).await
    }

    async fn x_cache(&self, path: &str) -> String {
        let response = self.get(path).await;
        let line = response.lines().find_map(|line| line.strip_prefix("x-cache: "));
        line.unwrap_or_else(|| panic!("{response}")).to_owned()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A file that is gone when the test is over.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let file = Self(std::env::temp_dir().join(format!("larder-{}-{name}.toml", std::process::id())));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).expect("the file can be written");
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a text")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

fn saying(number: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 8\r\n\r\n{number:8}").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_takes_its_rules_anew_on_hangup() {
    let (origin, _) = origin(saying).await;
    let rule = "[[rule]]\npath = '^/a'\naudience = 'shared'\nttl = '1h'\n";
    let file = File::new("reload", rule);
    let proxy = Proxy::start(origin, &["--config", file.path()]);
    assert_eq!(proxy.x_cache("/a").await, "MISS");
    assert_eq!(proxy.x_cache("/a").await, "HIT");
    assert_eq!(proxy.x_cache("/b").await, "MISS");
    assert_eq!(proxy.x_cache("/b").await, "MISS", "no rule, and no freshness");

    file.write("[[rule]]\npath = '^/a'\naudience = 'bypas'\n");
    proxy.hang_up(&format!(
        "{}:3:12: rule[0].audience: \"bypas\" is not known here; did you mean \"bypass\"?",
        file.path()
    ));
    assert_eq!(proxy.x_cache("/a").await, "HIT", "all is as it was");

    file.write(&format!("{rule}[store]\ncapacity = '1MiB'\n"));
    proxy.hang_up("store.capacity can't change while the cache runs");
    assert_eq!(proxy.x_cache("/a").await, "HIT", "all is as it was");

    file.write(
        "[[rule]]\npath = '^/a'\naudience = 'bypass'\n[[rule]]\npath = '^/b'\naudience = 'shared'\nttl = '1h'\n",
    );
    proxy.hang_up("settings were reloaded: rule \"^/b\" is new: audience shared, ttl 3600s");
    assert_eq!(proxy.x_cache("/a").await, "BYPASS");
    assert_eq!(proxy.x_cache("/b").await, "MISS");
    assert_eq!(proxy.x_cache("/b").await, "HIT");

    file.write(rule);
    proxy.hang_up("rule \"^/b\" is gone");
    assert_eq!(proxy.x_cache("/a").await, "HIT", "what was stored first is still good");

    proxy.hang_up("settings were reloaded: nothing changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn options_win_over_the_file() {
    let (origin, _) = origin(saying).await;
    let text = "[store]\ncapacity = '1MiB'\n[otherwise]\naudience = 'bypass'\n";
    let file = File::new("options", text);
    let proxy = Proxy::start(origin, &["--config", file.path(), "--default-ttl", "60", "--capacity", "2000000"]);
    assert_eq!(proxy.x_cache("/").await, "MISS");
    assert_eq!(proxy.x_cache("/").await, "HIT", "--default-ttl, and not `bypass`");
    file.write(&text.replace("1MiB", "3MiB").replace("'bypass'", "'from_origin'"));
    proxy.hang_up("settings were reloaded: nothing changed");
    assert_eq!(proxy.x_cache("/").await, "HIT");
}

/// What the cache costs is measured against it.
#[tokio::test(flavor = "multi_thread")]
async fn a_bare_proxy_has_no_cache_whatever_the_other_options_say() {
    let (origin, _) = origin(saying).await;
    let proxy = Proxy::start(origin, &["--bare", "--default-ttl", "60"]);
    let (first, second) = (proxy.get("/").await, proxy.get("/").await);
    let content = |response: &str| response.split("\r\n\r\n").nth(1).map(str::to_owned);
    assert!(content(&first).is_some() && content(&first) != content(&second), "{first:?} {second:?}");
    assert!(!first.contains("x-cache") && !first.contains("cache-status"), "{first}");
}

#[test]
fn a_bad_file_is_reported_at_the_start() {
    let file = File::new("bad", "[limit]\n");
    let output = Command::new(example("proxy"))
        .args(["--listen", "127.0.0.1:0", "--origin", "http://127.0.0.1:9", "--config", file.path()])
        .output()
        .expect("the proxy runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("unknown field; did you mean `limits`?"), "{said}");
}
