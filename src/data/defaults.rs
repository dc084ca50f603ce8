//! [`Defaults`]: what the settings say about the data cache of one name. Those that are made under it begin with that.

use std::time::Duration;

use super::own::OwnMemory;
use super::serializer::Chosen;
use super::words::Words;

/// `[data.NAME]` of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Defaults {
    pub(crate) ttl: Option<Duration>,
    pub(crate) sliding: Option<Duration>,
    pub(crate) stale_while_revalidate: Duration,
    pub(crate) stale_if_error: Duration,
    pub(crate) none_ttl: Option<Duration>,
    pub(crate) error_ttl: Option<Duration>,
    pub(crate) tags: Vec<String>,
    pub(crate) serializer: Serialized,
    pub(crate) max_value_size: Option<usize>,
    pub(crate) memory: Option<OwnMemory>,
}

/// A serialiser that comes with the crate, by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Serialized {
    #[default]
    Json,
    #[cfg(feature = "msgpack")]
    #[cfg_attr(not(feature = "config"), allow(dead_code, reason = "only a file says it by name"))]
    MessagePack,
}

impl Serialized {
    /// All there are.
    #[cfg(feature = "config")]
    pub(crate) const ALL: &'static [(&'static str, Self)] = &[
        ("json", Self::Json),
        #[cfg(feature = "msgpack")]
        ("msgpack", Self::MessagePack),
    ];

    pub(super) fn chosen(self) -> Chosen {
        match self {
            Self::Json => Chosen::Json,
            #[cfg(feature = "msgpack")]
            Self::MessagePack => Chosen::MessagePack,
        }
    }
}

impl Defaults {
    pub(super) fn words(&self) -> Words {
        Words {
            ttl: self.ttl,
            sliding: self.sliding,
            stale_while_revalidate: self.stale_while_revalidate,
            stale_if_error: self.stale_if_error,
            none_ttl: self.none_ttl,
            error_ttl: self.error_ttl,
        }
    }
}
