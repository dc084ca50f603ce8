//! The proxy's command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub struct Arguments {
    pub listen: SocketAddr,
    pub origin: String,
    pub strict_rfc: bool,
    pub bare: bool,
    pub default_ttl: Option<Duration>,
    pub capacity: Option<u64>,
    pub store: String,
    pub config: Option<PathBuf>,
    pub admin: Option<SocketAddr>,
}

pub const USAGE: &str =
    "usage: proxy --listen ADDR:PORT --origin http://HOST:PORT [--strict-rfc] [--default-ttl SECONDS]
             [--capacity BYTES] [--store memory|redis://HOST:PORT/..] [--config FILE] [--bare]
             [--admin ADDR:PORT]

  --listen       where to listen
  --origin       what to answer for; HTTP/1.1 without TLS
  --strict-rfc   follow RFC 9111 to the letter where a safe default is stricter
  --default-ttl  cache what states no lifetime of its own for so long, for requests without credentials
  --capacity     the size of the store in memory in bytes; 268435456 by default
  --config       rules, limits and header switches from a TOML file (docs/configuration.md); SIGHUP reads it anew, and a file
                 with a mistake leaves everything as it is. The other options win over the file: --strict-rfc over its
                 switches, --default-ttl over [otherwise], --capacity over [store]
  --bare         leave the cache out, so that everything is asked from the origin: what the cache costs is measured against this
  --store        memory (the default), or a Redis or Valkey server that several proxies share, with memory before it:
                 redis://USER:PASSWORD@HOST:PORT/DATABASE?ns=NAME, rediss:// for TLS (docs/redis.md). The namespace is
                 proxy if none is named; with near=0 in the URL there is no memory before it. Answers for one user are
                 shared where the environment variable LARDER_PARTITION_SECRET has the same 64 hexadecimal digits for all
  --admin        where the admin API listens, under /api/cache (docs/admin.md); open to who has the token of the environment
                 variable LARDER_ADMIN_TOKEN: a secret of at least 16 characters, or two with a comma between. Without the
                 variable it answers 403";

impl Arguments {
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut listen, mut origin, mut strict_rfc, mut default_ttl) = (None, None, false, None);
        let (mut capacity, mut config, mut bare, mut admin) = (None, None, false, None);
        let mut store = "memory".to_owned();
        while let Some(name) = arguments.next() {
            if name == "--strict-rfc" {
                strict_rfc = true;
                continue;
            }
            if name == "--bare" {
                bare = true;
                continue;
            }
            let value = arguments.next().ok_or_else(|| format!("{name}: a value is missing\n{USAGE}"))?;
            let wrong = |what: &str| format!("{name} {value}: {what}\n{USAGE}");
            match name.as_str() {
                "--listen" => {
                    listen = Some(value.parse().map_err(|_| wrong("not an address with port, such as 127.0.0.1:8080"))?)
                }
                "--origin" => origin = Some(value),
                "--default-ttl" => {
                    let seconds = value.parse().map_err(|_| wrong("not a number of seconds"))?;
                    default_ttl = Some(Duration::from_secs(seconds));
                }
                "--capacity" => capacity = Some(value.parse().map_err(|_| wrong("not a number of bytes"))?),
                "--config" => config = Some(PathBuf::from(value)),
                "--store" => store = value,
                "--admin" => {
                    admin = Some(value.parse().map_err(|_| wrong("not an address with port, such as 127.0.0.1:8081"))?)
                }
                _ => return Err(format!("{name}: no such option\n{USAGE}")),
            }
        }
        let listen = listen.ok_or_else(|| format!("--listen is missing\n{USAGE}"))?;
        let origin = origin.ok_or_else(|| format!("--origin is missing\n{USAGE}"))?;
        Ok(Self { listen, origin, strict_rfc, bare, default_ttl, capacity, store, config, admin })
    }
}
