//! The example proxy as a process of its own, with the cache and without.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running proxy, which ends with this.
pub struct Proxy {
    process: Child,
    pub address: SocketAddr,
}

/// The program: that of `PROXY_BIN`, or the example, built so that it is that of the sources as they are.
pub fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("PROXY_BIN") {
        return program.into();
    }
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let built = Command::new(cargo).args(["build", "--release", "--quiet", "--example", "proxy"]).status();
    assert!(built.is_ok_and(|status| status.success()), "`cargo build --release --example proxy` failed");
    let bench = std::env::current_exe().expect("a bench has a program");
    let profile = bench.ancestors().nth(2).expect("it lies in target/release/deps");
    profile.join("examples").join(format!("proxy{}", std::env::consts::EXE_SUFFIX))
}

impl Proxy {
    /// Starts it, and waits until it says where it listens.
    pub fn start(program: &Path, origin: SocketAddr, options: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(["--listen", "127.0.0.1:0", "--origin", &format!("http://{origin}")]).args(options);
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the proxy was built");
        let mut line = String::new();
        let output = process.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("the proxy says where it listens");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(' ').next());
        let address = address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("it said {line:?}"));
        Self { process, address }
    }

    /// Bytes in memory now.
    pub fn resident(&self) -> u64 {
        super::memory::resident(&self.process.id().to_string())
    }

    /// The most bytes that there ever were.
    pub fn peak(&self) -> u64 {
        super::memory::peak(&self.process.id().to_string())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
