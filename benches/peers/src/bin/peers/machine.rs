//! When, on what, and of which versions.

use std::fs;
use std::process::Command;

use serde::Serialize;

#[derive(Serialize)]
pub struct Machine {
    pub date: String,
    pub processor: String,
    pub cores: usize,
    pub gibibytes: u64,
    pub kernel: String,
    /// Each program and crate with its version.
    pub versions: Vec<(String, String)>,
}

impl Machine {
    pub fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let processor = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let memory = read("/proc/meminfo");
        let kibibytes = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
        Self {
            date: first_line("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            processor: processor.map_or("unknown", |(_, name)| name.trim()).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from).max(cpu.matches("processor\t").count()),
            gibibytes: kibibytes.unwrap_or(0).div_ceil(1 << 20),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            versions: versions(),
        }
    }
}

fn versions() -> Vec<(String, String)> {
    let programs = [
        ("rustc", first_line("rustc", &["--version"])),
        ("wrk", first_line("wrk", &["-v"])),
        ("Varnish", first_line("varnishd", &["-V"])),
        ("nginx", first_line("nginx", &["-v"])),
        ("Redis", first_line("redis-server", &["--version"])),
    ];
    let crates = [
        "larder",
        "axum",
        "hyper",
        "tokio",
        "axum-response-cache",
        "tower-http-cache",
        "http-cache-tower-server",
        "http-cache",
    ];
    let crates = crates.map(|name| (name, locked(name)));
    programs.into_iter().chain(crates).map(|(name, version)| (name.to_owned(), version)).collect()
}

/// The first version-like word of the first line that a program prints, or the line.
fn first_line(program: &str, words: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(words).output() else { return "not installed".into() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    if program == "date" {
        return line.to_owned();
    }
    let number = |word: &&str| word.trim_start_matches(|c: char| !c.is_ascii_digit()).contains('.');
    let word = line.split([' ', '(']).find(number).unwrap_or(line);
    word.trim_start_matches(|c: char| !c.is_ascii_digit()).trim_end_matches([')', ',']).to_owned()
}

/// As the lock file has it.
fn locked(name: &str) -> String {
    let lock = include_str!("../../../Cargo.lock");
    let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("\nname = \"{name}\"\n")));
    let version = entry.and_then(|entry| entry.lines().find_map(|line| line.strip_prefix("version = ")));
    version.unwrap_or("unknown").trim_matches('"').to_owned()
}
