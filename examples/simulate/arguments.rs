//! Reads the command line; whatever it cannot read, it refuses by the flag's name.

use std::path::PathBuf;
use std::time::Duration;

use larder::simulate::{Eviction, Simulation, Sizes, Synthetic};

pub const HELP: &str = "\
Replays a trace against a cache that is only thought of.

Usage: cargo run --release --example simulate -- TRACE [SETTING..] [--sweep SETTING=VALUE,VALUE..]

Traces:
  --log FILE               an access log in the Common or Combined Log Format; - is no file: use /dev/stdin
  --zipf NAME=VALUE,..     keys=100000, exponent=0.9, requests=1000000, seed=0, rate=1000 (a second), size=512..65536 (or one),
                           scan=0 (the part of a crawler), shift=0 (others are popular after so many requests)
  --loop NAME=VALUE,..     the same without an exponent: all keys in turn

Settings:
  --config FILE            rules, limits and the store from a TOML file (docs/configuration.md)
  --ttl TIME               without --config: how long everything is fresh (1h by default); with it: of every rule that has a TTL
  --swr TIME               without --config: for how long stale answers are served while they are refreshed
  --capacity SIZE          of each instance's memory (256MiB, or what the file says)
  --eviction NAME          tinylfu, lru, fifo, s3fifo, tinylfu-every-read
  --instances NUMBER       behind a balancer that chooses any of them
  --far off|on|SIZE        a store behind them that they share, without bound or of a size
  --origin-max-age TIME    the max-age of the origin's answers, which a log doesn't know
  --origin-validates on    the origin confirms what hasn't changed, by ETag
  --seed NUMBER            of all chances
  --sweep NAME=A,B,..      a line for each of these values of a setting: capacity=16MiB,64MiB,256MiB

  --evidence [REQUESTS]    the comparison of eviction policies in docs/simulate.md
  --help                   this text

Sizes are bytes, or with KiB, MiB, GiB behind; times have ms, s, m, h or d behind.";

pub enum Wish {
    Simulate(Box<Arguments>),
    Evidence { requests: u64 },
    Help,
}

pub struct Arguments {
    pub trace: Trace,
    pub config: Option<PathBuf>,
    pub ttl: Duration,
    pub stale_while_revalidate: Option<Duration>,
    /// In the order given.
    pub settings: Vec<(String, String)>,
    pub sweep: Option<(String, Vec<String>)>,
}

pub enum Trace {
    Log(PathBuf),
    Synthetic(Synthetic),
}

/// The error is a sentence for the person at the terminal.
pub fn parse(words: impl Iterator<Item = String>) -> Result<Wish, String> {
    let mut words = words;
    let (mut trace, mut config, mut ttl, mut stale_while_revalidate, mut sweep) = (None, None, None, None, None);
    let mut settings = Vec::new();
    while let Some(flag) = words.next() {
        match flag.as_str() {
            "--help" | "-h" => return Ok(Wish::Help),
            "--evidence" => {
                let requests = words.next().map_or(Ok(300_000), |requests| number(&flag, &requests))?;
                return Ok(Wish::Evidence { requests });
            }
            _ => {}
        }
        let value = words.next().ok_or_else(|| format!("{flag} needs a value after it"))?;
        match flag.as_str() {
            "--log" => trace = Some(Trace::Log(value.into())),
            "--zipf" | "--loop" => trace = Some(Trace::Synthetic(synthetic(&flag, &value)?)),
            "--config" => config = Some(PathBuf::from(value)),
            "--swr" => stale_while_revalidate = Some(time(&flag, &value)?),
            "--sweep" => {
                let (name, values) = value.split_once('=').ok_or("--sweep: such as capacity=16MiB,64MiB")?;
                sweep = Some((name.to_owned(), values.split(',').map(str::to_owned).collect()));
            }
            _ => {
                let name = flag.strip_prefix("--").ok_or_else(|| format!("{flag} is no flag"))?;
                if name == "ttl" {
                    ttl = Some(time(&flag, &value)?);
                }
                settings.push((name.to_owned(), value));
            }
        }
    }
    if config.is_some() && stale_while_revalidate.is_some() {
        return Err("--swr: the rules of --config say it".into());
    }
    let trace = trace.ok_or("--log, --zipf or --loop is missing: there is nothing to replay")?;
    let ttl = ttl.unwrap_or(Duration::from_secs(3600));
    Ok(Wish::Simulate(Box::new(Arguments { trace, config, ttl, stale_while_revalidate, settings, sweep })))
}

/// The simulation with one setting more.
pub fn set(simulation: Simulation, name: &str, value: &str) -> Result<Simulation, String> {
    Ok(match name {
        "capacity" => simulation.capacity(size(name, value)?),
        "ttl" => simulation.ttl(time(name, value)?),
        "eviction" => simulation.eviction(eviction(value)?),
        "instances" => simulation.instances(number(name, value)?),
        "far" => match value {
            "off" => simulation.far(false),
            "on" => simulation.far(true),
            bytes => simulation.far(true).far_capacity(size(name, bytes)?),
        },
        "origin-max-age" => simulation.origin_max_age(time(name, value)?),
        "origin-validates" => simulation.origin_validates(value == "on"),
        "seed" => simulation.seed(number(name, value)?),
        _ => return Err(format!("{name} is no setting of this program")),
    })
}

fn eviction(name: &str) -> Result<Eviction, String> {
    Ok(match name {
        "tinylfu" => Eviction::TinyLfu,
        "tinylfu-every-read" => Eviction::TinyLfuEveryRead,
        "lru" => Eviction::Lru,
        "fifo" => Eviction::Fifo,
        "s3fifo" => Eviction::S3Fifo,
        _ => return Err(format!("eviction {name}: there are tinylfu, lru, fifo, s3fifo and tinylfu-every-read")),
    })
}

fn synthetic(flag: &str, text: &str) -> Result<Synthetic, String> {
    let pairs: Vec<_> = text.split(',').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=')).collect();
    let named = |name: &str| pairs.iter().flatten().find(|(known, _)| *known == name).map(|(_, value)| *value);
    const KNOWN: [&str; 8] = ["keys", "exponent", "requests", "seed", "rate", "size", "scan", "shift"];
    if let Some(wrong) = pairs.iter().find(|pair| pair.is_none_or(|(name, _)| !KNOWN.contains(&name))) {
        return Err(format!(
            "{flag}: {} isn't one of {}",
            wrong.map_or("a word without =", |(name, _)| name),
            KNOWN.join(", ")
        ));
    }
    let keys = named("keys").map_or(Ok(100_000), |keys| number(flag, keys))?;
    let mut trace = match flag {
        "--loop" => Synthetic::cyclic(keys),
        _ => Synthetic::zipf(keys, named("exponent").map_or(Ok(0.9), |exponent| number(flag, exponent))?),
    };
    for (name, value) in pairs.iter().flatten().copied() {
        trace = match name {
            "requests" => trace.requests(number(flag, value)?),
            "seed" => trace.seed(number(flag, value)?),
            "rate" => trace.rate(number(flag, value)?),
            "scan" => trace.scan(number(flag, value)?),
            "shift" => trace.shift(number(flag, value)?),
            "size" => trace.sizes(match value.split_once("..") {
                Some((least, most)) => Sizes::Between(size(flag, least)?, size(flag, most)?),
                None => Sizes::Fixed(size(flag, value)?),
            }),
            _ => trace,
        };
    }
    Ok(trace)
}

fn number<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{what} {text}: this is no number that fits"))
}

fn size(what: &str, text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => return Err(format!("{what} {text}: this is no size, such as 64MiB")),
    };
    number::<u64>(what, digits)?.checked_mul(1 << shift).ok_or_else(|| format!("{what} {text}: this is too large"))
}

fn time(what: &str, text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let milliseconds = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("{what} {text}: this is no time, such as 30s")),
    };
    let all = number::<u64>(what, digits)?.checked_mul(milliseconds);
    all.map(Duration::from_millis).ok_or_else(|| format!("{what} {text}: this is too long"))
}
