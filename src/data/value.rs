//! A value as what is stored of it, and back.

use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use siphasher::sip::SipHasher13;

use super::serializer::Chosen;
use super::words::{Wanted, Words};
use super::{DataCache, DataError};
use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::codec;
use crate::error::BoxError;
use crate::expiry::Expiry;
use crate::form::Form;
use crate::key::CacheKey;
use crate::regime::Regime;
use crate::response::{Origin, StoredResponse};
use crate::rfc9111::freshness::LifetimeSource;
use crate::rfc9111::reuse::Terms;
use crate::stats::{add, count};
use crate::tags::{Names, Tags};
use crate::upkeep::Upkeep;
use crate::used::UsedTags;
use crate::variance::Variance;

/// Content up to this size is coded where it is stored; more would keep others waiting. Decoding is several times faster, and done in place.
const AT_ONCE: usize = 64 << 10;

/// A value that is serialised, and the number of the newest purge before that: none that came since touches it unnoticed. An instance that hasn't heard of any yet
/// has no such number.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    content: Bytes,
    number: Option<u64>,
}

/// What is to be stored of a value, but for when and under which number.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    status: StatusCode,
    content: Bytes,
    form: Form,
    words: Words,
    pub(super) tags: Option<Arc<Tags>>,
    regime: Regime,
    /// Of the newest purge before the value was given; `None` where none was known that means anything.
    pub(super) number: Option<u64>,
}

/// Under which serialiser a value was stored, and how it may be kept. In the records of stores that instances share, so this never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Regimes {
    serializer: u64,
}

/// How a value may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Kind {
    /// As responses are.
    Value = 1,
    /// In the far store alone, where there is one: others change it there, and tell nobody.
    Counter = crate::regime::ATOMIC,
}

/// What is stored can't be read as what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

impl Regimes {
    pub(super) fn of(serializer: &Chosen) -> Self {
        let name = serializer.content_type();
        assert!(HeaderValue::from_str(name).is_ok(), "{name:?} is no content type");
        let mut hasher = SipHasher13::new();
        hasher.write(b"data\0");
        hasher.write(name.as_bytes());
        Self { serializer: hasher.finish() }
    }

    pub(crate) fn regime(self, kind: Kind) -> Regime {
        Regime { whole: self.serializer, audience: kind as u64 }
    }

    /// Whether it is of this serialiser.
    pub(super) fn reads(self, stored: &StoredResponse) -> bool {
        stored.regime.whole == self.serializer
    }
}

/// Whether it may be kept near, where there is a far store as well.
pub(super) fn may_be_near(stored: &StoredResponse) -> bool {
    stored.regime.audience == Kind::Value as u64
}

/// Whether it says that there is no value.
pub(super) fn is_none(stored: &StoredResponse) -> bool {
    stored.status == StatusCode::NO_CONTENT
}

impl Made {
    /// The same as another kind.
    pub(crate) fn of_kind(mut self, kind: Kind) -> Self {
        self.regime.audience = kind as u64;
        self
    }
}

impl DataCache {
    /// The bytes of a value.
    pub(crate) fn draft<T: Serialize + ?Sized>(&self, value: &T) -> Result<Draft, DataError> {
        let core = self.live.load();
        let number = core.coherence.is_trusted(core.now()).then(|| core.purges.current());
        let content = self.shape.serializer.encode(value).map_err(|source| DataError::Serialize { source })?;
        let most = self.shape.max_value_size.unwrap_or(core.settings.max_body_size);
        if content.len() > most {
            return Err(DataError::TooLarge { size: content.len(), most });
        }
        Ok(Draft { content, number })
    }

    /// What is to be stored of it.
    pub(crate) async fn make(&self, wanted: &Wanted, Draft { content, number }: Draft) -> Made {
        let core = self.core();
        let number = match number {
            Some(number) => Some(number),
            // To store nothing until then would lose the first values of each process. What is purged in this moment may so be set behind it; where nothing is heard in it either, a number that means
            // anything is found by who tells the others of the write.
            None => {
                self.begun(&core).await;
                core.coherence.is_trusted(core.now()).then(|| core.purges.current())
            }
        };
        let (content, form) = self.compressed(&core, content).await;
        self.made(&core, wanted, StatusCode::OK, content, form, number)
    }

    /// What is to be stored where there is no value, if that is to be remembered.
    pub(super) fn make_none(&self, wanted: &Wanted, number: u64) -> Option<Made> {
        let ttl = wanted.words.none_ttl?;
        let mut made = self.made(&self.core(), wanted, StatusCode::NO_CONTENT, Bytes::new(), Form::Fixed, Some(number));
        // What isn't there stands in for nothing.
        let (stale_while_revalidate, stale_if_error) = (Duration::ZERO, Duration::ZERO);
        made.words = Words { ttl: Some(ttl), sliding: None, stale_while_revalidate, stale_if_error, ..made.words };
        Some(made)
    }

    fn made(
        &self,
        core: &CacheCore,
        wanted: &Wanted,
        status: StatusCode,
        content: Bytes,
        form: Form,
        number: Option<u64>,
    ) -> Made {
        let regime = self.shape.regimes.regime(Kind::Value);
        Made { status, content, form, words: wanted.words, tags: self.tags(core, wanted), regime, number }
    }

    /// The tags that a value bears.
    pub(crate) fn tags(&self, core: &CacheCore, wanted: &Wanted) -> Option<Arc<Tags>> {
        let mut names = Names::default();
        self.shape.tags.iter().chain(&wanted.tags).for_each(|tag| names.add(tag));
        names.with(|name| core.groups.anywhere(name), &[])
    }

    /// What is stored: it was `received` then, and is held against purges above `number`.
    pub(crate) fn stored(
        &self,
        core: &CacheCore,
        key: &CacheKey,
        made: Made,
        number: u64,
        received: Moment,
    ) -> StoredResponse {
        let Made { status, content, form, words, tags, regime, number: _ } = made;
        let (head, body) = core.heads.store(&self.head(form), &[], content);
        let mut stamp = core.purges.stamp(key, number);
        stamp.tags = tags;
        let expiry = Expiry { sliding: words.idle(), ..Expiry::default() };
        let terms = Terms {
            lifetime: words.lifetime(),
            source: Some(LifetimeSource::Handler),
            stale_while_revalidate: words.stale_while_revalidate,
            stale_if_error: words.stale_if_error,
            ..Terms::default()
        };
        StoredResponse {
            regime,
            variance: core.variances.share(Variance::default()),
            upkeep: Upkeep::of(&expiry, true, std::time::Duration::ZERO, core.spread(key, received)),
            received,
            terms,
            body,
            head,
            downstream: None,
            form,
            status,
            origin: Origin::default(),
            stamp,
            keep: words.lifetime().saturating_add(words.window()),
            charge: None,
            route: self.counters().route.clone(),
        }
    }

    fn head(&self, form: Form) -> HeaderMap {
        let mut head = HeaderMap::with_capacity(2);
        if let Ok(name) = HeaderValue::from_str(self.shape.serializer.content_type()) {
            head.insert(header::CONTENT_TYPE, name);
        }
        form.dress(&mut head);
        head
    }

    /// The content as it is stored: compressed where that is wanted and worth it. What is large is left to those who may block.
    async fn compressed(&self, core: &CacheCore, content: Bytes) -> (Bytes, Form) {
        let compression = self.shape.compression.unwrap_or(core.settings.compression);
        let (Some(by), Ok(length)) = (compression.coder(), u32::try_from(content.len())) else {
            return (content, Form::Fixed);
        };
        if content.len() < compression.min_size {
            return (content, Form::Fixed);
        }
        let coded = if content.len() <= AT_ONCE || tokio::runtime::Handle::try_current().is_err() {
            codec::encode(&content, &compression)
        } else {
            let content = content.clone();
            // A coder that panics, as none should, leaves the content as it is.
            core.tasks.spawn_blocking(move || codec::encode(&content, &compression)).await.unwrap_or_default()
        };
        let counters = &core.counters.compression;
        let Some(coded) = coded else {
            count(&counters.not_worth);
            return (content, Form::Fixed);
        };
        count(&counters.done);
        add(&counters.plain_bytes, content.len() as u64);
        add(&counters.coded_bytes, coded.len() as u64);
        (coded, Form::Coded { by, length })
    }

    /// The value that is stored, or that there is none. One that can't be read is counted.
    pub(crate) fn value<T: DeserializeOwned>(&self, stored: &StoredResponse) -> Result<Option<T>, Unreadable> {
        self.read_as(stored, &UsedTags::current()).map_err(|error| {
            count(&self.counters().mismatched);
            tracing::debug!(target: "larder", cache = self.name(), %error, "a value isn't of the type that it is asked for as, and counts as missing");
            Unreadable
        })
    }

    /// Whatever is made from it bears its tags.
    #[inline]
    pub(super) fn read_as<T: DeserializeOwned>(
        &self,
        stored: &StoredResponse,
        used: &UsedTags,
    ) -> Result<Option<T>, BoxError> {
        used.add_stored(stored);
        if is_none(stored) {
            return Ok(None);
        }
        let value = match stored.form {
            Form::Coded { by, length } => {
                let content = codec::decode(by.coding, stored.body.clone(), length.into());
                content.map_err(BoxError::from).and_then(|content| self.shape.serializer.decode(&content))
            }
            _ => self.shape.serializer.decode(&stored.body),
        };
        value.map(Some)
    }
}
