//! What a process has in memory, as Linux counts it.

/// Bytes that a process (a number, or `self`) has in memory now.
pub fn resident(process: &str) -> u64 {
    status(process, "VmRSS:")
}

/// The most bytes that a process ever had in memory.
pub fn peak(process: &str) -> u64 {
    status(process, "VmHWM:")
}

fn status(process: &str, name: &str) -> u64 {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}; this needs Linux"));
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel says it");
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kibibytes << 10
}

pub const MIB: f64 = (1 << 20) as f64;
