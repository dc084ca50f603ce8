//! What is set up: which subject, and for which workload. The runner hands it to the server as JSON.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// The same server without a cache, and with as many contents in memory as there are keys.
    Bare,
    /// The same with one content, whatever is asked for.
    BareOneBody,
    Larder,
    LarderTiered,
    LarderRedis,
    AxumResponseCache,
    TowerHttpCache,
    TowerHttpCacheRedis,
    HttpCacheTowerServer,
    Varnish,
    Nginx,
}

impl Subject {
    pub const ALL: [Self; 11] = [
        Self::Bare,
        Self::BareOneBody,
        Self::Larder,
        Self::LarderTiered,
        Self::LarderRedis,
        Self::AxumResponseCache,
        Self::TowerHttpCache,
        Self::TowerHttpCacheRedis,
        Self::HttpCacheTowerServer,
        Self::Varnish,
        Self::Nginx,
    ];

    /// As on the command line.
    pub fn id(self) -> String {
        serde_json::to_value(self).ok().and_then(|id| id.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// As in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare axum",
            Self::BareOneBody => "bare axum, one body",
            Self::Larder => "larder",
            Self::LarderTiered => "larder, tiered",
            Self::LarderRedis => "larder, Redis",
            Self::AxumResponseCache => "axum-response-cache",
            Self::TowerHttpCache => "tower-http-cache",
            Self::TowerHttpCacheRedis => "tower-http-cache, Redis",
            Self::HttpCacheTowerServer => "http-cache-tower-server",
            Self::Varnish => "Varnish",
            Self::Nginx => "nginx",
        }
    }

    pub fn is_bare(self) -> bool {
        matches!(self, Self::Bare | Self::BareOneBody)
    }

    pub fn is_larder(self) -> bool {
        matches!(self, Self::Larder | Self::LarderTiered | Self::LarderRedis)
    }

    pub fn needs_redis(self) -> bool {
        matches!(self, Self::LarderTiered | Self::LarderRedis | Self::TowerHttpCacheRedis)
    }

    /// A program of its own in front of an origin, which is the bare server.
    pub fn is_proxy(self) -> bool {
        matches!(self, Self::Varnish | Self::Nginx)
    }
}

/// What the values of the handler's fields are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Values {
    /// Memory with a counter of references, as values have that were made while running.
    Owned,
    /// Constants of the program, which cost nothing to clone.
    Static,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    pub subject: Subject,
    /// Of a content, in bytes.
    pub size: usize,
    pub keys: u64,
    /// Of a response, in seconds.
    pub ttl: u64,
    /// For how many seconds more a response may be sent while it is refreshed.
    pub swr: u64,
    /// How long the handler takes.
    pub delay_ms: u64,
    /// Whether the handler says when it made a response.
    pub stamped: bool,
    /// Whether the handler makes each content in memory of its own, as one that renders something does; otherwise it hands out what it has.
    pub rendered: bool,
    /// Whether clients may be given compressed content.
    pub gzip: bool,
    /// Whether the bare server does the work that a cache has it do, in place of answering from constants.
    pub working: bool,
    /// Bytes that a store may hold, and entries, whichever it counts.
    pub capacity: u64,
    pub entries: u64,
    pub values: Values,
    /// Where responses are kept, if not in memory: `redis://…`.
    pub store: Option<String>,
}

impl Setup {
    /// Hits of a lifetime of an hour, with room for all.
    pub fn of(subject: Subject, size: usize, keys: u64) -> Self {
        Self {
            subject,
            size,
            keys,
            ttl: 3600,
            swr: 0,
            delay_ms: 0,
            stamped: false,
            rendered: true,
            gzip: false,
            working: false,
            capacity: (2 << 30).max(keys * (size as u64 + 2048) * 2),
            entries: 2_000_000,
            values: Values::Owned,
            store: None,
        }
    }

    pub fn cache_control(&self) -> String {
        match self.swr {
            0 => format!("public, max-age={}", self.ttl),
            swr => format!("public, max-age={}, stale-while-revalidate={swr}", self.ttl),
        }
    }
}
