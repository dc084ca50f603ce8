//! The examples as processes: started with their options, heard, asked over their sockets, and ended in more than one way.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The longest that anybody waits for a process to do something.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running example; it is killed with this.
pub struct Program {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Program {
    /// Starts an example with the words of its command line, and with these variables in its environment beside those of the test that aren't larder's.
    pub fn start(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(example(name));
        for variable in ["LARDER_ADMIN_TOKEN", "LARDER_PARTITION_SECRET"] {
            command.env_remove(variable);
        }
        command.args(arguments).envs(environment.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let said = Arc::new(Mutex::new(String::new()));
        keep(child.stdout.take().expect("a pipe"), said.clone());
        keep(child.stderr.take().expect("a pipe"), said.clone());
        Self { child, said }
    }

    /// All that it has said so far, on both outputs.
    pub fn said(&self) -> String {
        self.said.lock().expect("nobody panics").clone()
    }

    /// The address at the end of these words, as soon as they are said.
    pub fn address(&mut self, words: &str) -> SocketAddr {
        let end = Instant::now() + PATIENCE;
        loop {
            let said = self.said();
            let rest = said.lines().find_map(|line| line.split_once(words)).map(|(_, rest)| rest.to_owned());
            if let Some(rest) = rest {
                let rest = rest.trim_start().trim_start_matches("http://");
                let length = rest.find(|c: char| !c.is_ascii_digit() && !".:".contains(c)).unwrap_or(rest.len());
                return rest[..length].trim_end_matches('.').parse().unwrap_or_else(|_| panic!("no address: {said}"));
            }
            assert!(Instant::now() < end, "{words:?} was never said: {said}");
            assert!(self.child.try_wait().expect("it can be waited for").is_none(), "it has ended: {said}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until it has said these words.
    pub fn says(&self, words: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.said().contains(words) {
            assert!(Instant::now() < end, "{words:?} was never said: {}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks it to stop, as a service manager does.
    pub fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Ends it at once: `SIGKILL`.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it can be waited for");
    }

    /// Waits until it has ended; its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status.code();
            }
            assert!(Instant::now() < end, "it doesn't end: {}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits until nobody listens there any more.
pub fn wait_until_closed(address: SocketAddr) {
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < end, "somebody still listens on {address}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads all of an output, so that it never fills up.
fn keep(output: impl Read + Send + 'static, said: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let mut said = said.lock().expect("nobody panics");
            said.push_str(&line);
            said.push('\n');
        }
    });
}

/// An example beside this test, made now if it isn't there or not as it should be; once for each process.
pub fn example(name: &str) -> PathBuf {
    static MADE: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    let mut made = MADE.lock().expect("the examples can be built");
    made.get_or_insert_default().entry(name.to_owned()).or_insert_with(|| build(name)).clone()
}

fn build(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    let profile = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--all-features", "--example", name, "--target-dir"]);
    build.arg(profile.parent().expect("target/PROFILE")).current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    // What the test has of its own cargo would be news to build scripts, and half of everything be built anew.
    let of_this_test = |name: &str| ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|start| name.starts_with(start));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_this_test)) {
        build.env_remove(name);
    }
    assert!(build.status().expect("cargo runs").success(), "{name} was built");
    profile.join("examples").join(name)
}
