//! Reads the command line; whatever it cannot read, it refuses by the flag's name.

use std::env;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::PathBuf;

pub const HELP: &str = "\
A shop over SQLite with larder in front of it.

Usage: cargo run --example server -- [--listen ADDR:PORT] [--data PATH] [--store memory|redis://HOST:PORT/..]

  --listen ADDR:PORT  where to serve; port 0 takes any that is free (default: 127.0.0.1:3000)
  --data PATH         the SQLite file, made and filled if there is none
                      (default: larder-shop/shop.db in the system's temporary folder)
  --store STORE       memory (the default), or a Redis or Valkey server that several servers of the same shop share, with
                      memory before it: redis://USER:PASSWORD@HOST:PORT/DATABASE?ns=NAME, rediss:// for TLS (docs/redis.md).
                      The namespace is server if none is named; with near=0 in the URL there is no memory before it
  --help              show this text

The environment variable LARDER_ADMIN_TOKEN opens the admin API under /api/cache: a secret of at least 16 characters,
or two with a comma between, both of which are good. Without it the API answers 403.

LARDER_PARTITION_SECRET, 64 hexadecimal digits that are the same for all servers, has what is cached for one customer
shared as well. Without it that stays in the memory of each.";

pub enum Wish {
    Serve(Arguments),
    Help,
}

pub struct Arguments {
    pub listen: SocketAddr,
    pub data: PathBuf,
    pub store: String,
}

/// The error is a sentence for the person at the terminal.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Wish, String> {
    let mut arguments = Arguments {
        listen: SocketAddr::from(([127, 0, 0, 1], 3000)),
        data: env::temp_dir().join("larder-shop").join("shop.db"),
        store: "memory".into(),
    };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let (flag, attached) = split(&word);
        match flag.as_str() {
            "--help" | "-h" => return Ok(Wish::Help),
            "--listen" => arguments.listen = address(value(&flag, attached, &mut words)?)?,
            "--store" => arguments.store = text(value(&flag, attached, &mut words)?)?,
            "--data" => arguments.data = value(&flag, attached, &mut words)?.into(),
            _ => return Err(format!("{flag} is not a flag of this program")),
        }
    }
    Ok(Wish::Serve(arguments))
}

/// Both `--flag value` and `--flag=value` are understood.
fn split(word: &OsStr) -> (String, Option<OsString>) {
    match word.to_str().and_then(|word| word.split_once('=')) {
        Some((flag, value)) if flag.starts_with("--") => (flag.to_owned(), Some(value.into())),
        _ => (word.to_string_lossy().into_owned(), None),
    }
}

fn value(
    flag: &str,
    attached: Option<OsString>,
    words: &mut impl Iterator<Item = OsString>,
) -> Result<OsString, String> {
    let value = attached.or_else(|| words.next()).filter(|value| !value.is_empty());
    value.ok_or_else(|| format!("{flag} needs a value after it"))
}

/// It isn't repeated, for it may have a password in it.
fn text(value: OsString) -> Result<String, String> {
    value.into_string().map_err(|_| "--store: this is not UTF-8".to_owned())
}

fn address(value: OsString) -> Result<SocketAddr, String> {
    let text = value.to_string_lossy();
    text.parse().map_err(|_| format!("--listen {text}: this is not an address and a port, such as 127.0.0.1:3000"))
}
