//! wrk, and what it says of a run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::process::on_core;

/// In which order keys are asked for.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// One key.
    One,
    /// Keys at random, all as likely.
    Many { keys: u64, seed: u64 },
    /// Keys at random by Zipf's law.
    Zipf { keys: u64, seed: u64 },
    /// One key after another.
    Fresh { first: u64, count: u64 },
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Run {
    pub requests: u64,
    pub seconds: f64,
    pub bytes: f64,
    /// Answers of a status over 399.
    pub statuses: u64,
    /// Connections that failed, broke or took too long.
    pub sockets: u64,
    /// Microseconds.
    pub p99: f64,
}

pub struct Wrk<'a> {
    pub core: usize,
    pub connections: usize,
    pub seconds: u64,
    pub headers: &'a [(&'static str, String)],
}

impl Wrk<'_> {
    pub fn run(&self, address: SocketAddr, load: Load) -> Result<Run, String> {
        let (script, numbers) = match load {
            Load::One => ("one.lua", vec![]),
            Load::Many { keys, seed } => ("many.lua", vec![keys, seed]),
            Load::Zipf { keys, seed } => ("zipf.lua", vec![keys, seed]),
            Load::Fresh { first, count } => ("fresh.lua", vec![first, count]),
        };
        let mut command = on_core(self.core, "wrk");
        command.args(["-t1", "-c", &self.connections.to_string(), "-d", &self.seconds.to_string(), "--timeout", "10"]);
        for (name, value) in self.headers {
            command.arg("-H").arg(format!("{name}: {value}"));
        }
        command.arg("-s").arg(scripts().join(script)).arg(format!("http://{address}/item/0"));
        command.arg("--").args(numbers.iter().map(u64::to_string));
        let output = command.output().map_err(|error| format!("wrk: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().rev().find(|line| line.starts_with('{'));
        let line = line.ok_or_else(|| format!("wrk said {text}{}", String::from_utf8_lossy(&output.stderr)))?;
        serde_json::from_str(line).map_err(|error| format!("wrk said {line}: {error}"))
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("load")
}
