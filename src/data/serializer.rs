//! [`Serializer`]: how values become bytes. [`Json`] does without being asked; [`MessagePack`] is smaller; any other can be brought along.

use std::any::TypeId;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::{DeserializeOwned, Deserializer};

use crate::error::BoxError;

/// How values become bytes, and values again.
///
/// What is stored says which serialiser made it; another one doesn't read it, so that the application may change its mind. The bytes should say by themselves what
/// they are of, or at least fail to be read as another type: values outlive a deployment, and a struct that has got another field must be read right or not at all.
///
/// ```
/// use larder::data::{Place, Serializer, Value};
///
/// /// JSON for people who read what is stored.
/// struct Pretty;
///
/// impl Serializer for Pretty {
///     fn content_type(&self) -> &str {
///         "application/vnd.pretty+json"
///     }
///     fn serialize(&self, value: Value<'_>) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
///         Ok(serde_json::to_vec_pretty(&value)?)
///     }
///     fn deserialize(&self, bytes: &[u8], place: Place<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///         let mut json = serde_json::Deserializer::from_slice(bytes);
///         place.fill(&mut json)?;
///         Ok(json.end()?)
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let numbers = larder::DataCache::in_memory(1 << 20).serializer(Pretty);
/// numbers.set("primes", &[2, 3, 5]).await?;
/// assert_eq!(numbers.get::<Vec<u32>>("primes").await, Some(vec![2, 3, 5]));
/// # Ok::<(), larder::DataError>(()) }).unwrap();
/// ```
pub trait Serializer: Send + Sync + 'static {
    /// The media type of what it makes. It stands with each value, and tells serialisers apart: give another one to what can't be read by the same.
    fn content_type(&self) -> &str;

    /// The bytes of a value.
    ///
    /// # Errors
    /// What is wrong with the value.
    fn serialize(&self, value: Value<'_>) -> Result<Vec<u8>, BoxError>;

    /// Reads a value from bytes that it made, into its place.
    ///
    /// # Errors
    /// If they are of another type. That is a miss, and counted.
    fn deserialize(&self, bytes: &[u8], place: Place<'_>) -> Result<(), BoxError>;
}

/// A value to be serialised. It is [`serde::Serialize`], whatever it is.
pub struct Value<'a>(&'a dyn erased_serde::Serialize);

impl Serialize for Value<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        erased_serde::serialize(self.0, serializer)
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value").finish_non_exhaustive()
    }
}

type Fill<'a> = dyn FnMut(&mut dyn erased_serde::Deserializer<'_>) -> Result<(), erased_serde::Error> + 'a;

/// Where a value goes that is read from bytes.
pub struct Place<'a>(&'a mut Fill<'a>);

impl Place<'_> {
    /// Reads the value from where `deserializer` is.
    ///
    /// # Errors
    /// If there is no such value.
    pub fn fill<'de>(self, deserializer: impl Deserializer<'de>) -> Result<(), BoxError> {
        (self.0)(&mut <dyn erased_serde::Deserializer<'_>>::erase(deserializer)).map_err(BoxError::from)
    }
}

impl fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

/// `application/json`: what is stored can be read by people and by anything else. The default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json;

impl Serializer for Json {
    fn content_type(&self) -> &str {
        "application/json"
    }

    fn serialize(&self, value: Value<'_>) -> Result<Vec<u8>, BoxError> {
        json::encode(&value)
    }

    fn deserialize(&self, bytes: &[u8], place: Place<'_>) -> Result<(), BoxError> {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        place.fill(&mut json)?;
        Ok(json.end()?)
    }
}

mod json {
    use super::{BoxError, DeserializeOwned, Serialize};

    pub(super) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, BoxError> {
        Ok(serde_json::to_vec(value)?)
    }

    pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BoxError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// `application/msgpack`: binary, with the names of fields, so that a struct that has changed since is read as what it was or not at all. Mostly two thirds to nine tenths of the
/// JSON, and much less where there are bytes or numbers.
#[cfg(feature = "msgpack")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessagePack;

#[cfg(feature = "msgpack")]
impl Serializer for MessagePack {
    fn content_type(&self) -> &str {
        "application/msgpack"
    }

    fn serialize(&self, value: Value<'_>) -> Result<Vec<u8>, BoxError> {
        msgpack::encode(&value)
    }

    fn deserialize(&self, bytes: &[u8], place: Place<'_>) -> Result<(), BoxError> {
        place.fill(&mut rmp_serde::Deserializer::from_read_ref(bytes))
    }
}

#[cfg(feature = "msgpack")]
mod msgpack {
    use super::{BoxError, DeserializeOwned, Serialize};

    pub(super) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, BoxError> {
        Ok(rmp_serde::to_vec_named(value)?)
    }

    pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BoxError> {
        Ok(rmp_serde::from_slice(bytes)?)
    }
}

/// The serialiser of a cache. Those that come with it are called by their type, and others through a pointer.
#[derive(Clone)]
pub(crate) enum Chosen {
    Json,
    #[cfg(feature = "msgpack")]
    MessagePack,
    Own(Arc<dyn Serializer>),
}

impl Chosen {
    pub(super) fn new<S: Serializer>(serializer: S) -> Self {
        #[cfg(feature = "msgpack")]
        if TypeId::of::<S>() == TypeId::of::<MessagePack>() {
            return Self::MessagePack;
        }
        if TypeId::of::<S>() == TypeId::of::<Json>() {
            return Self::Json;
        }
        Self::Own(Arc::new(serializer))
    }

    pub(super) fn content_type(&self) -> &str {
        match self {
            Self::Json => Json.content_type(),
            #[cfg(feature = "msgpack")]
            Self::MessagePack => MessagePack.content_type(),
            Self::Own(own) => own.content_type(),
        }
    }

    /// The bytes of a value, in memory of exactly their size.
    pub(super) fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Bytes, BoxError> {
        let bytes = match self {
            Self::Json => json::encode(value),
            #[cfg(feature = "msgpack")]
            Self::MessagePack => msgpack::encode(value),
            Self::Own(own) => own.serialize(Value(&value)),
        };
        bytes.map(|bytes| Bytes::from(bytes.into_boxed_slice()))
    }

    pub(super) fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, BoxError> {
        match self {
            Self::Json => json::decode(bytes),
            #[cfg(feature = "msgpack")]
            Self::MessagePack => msgpack::decode(bytes),
            Self::Own(own) => {
                let mut value = None;
                let mut fill = |deserializer: &mut dyn erased_serde::Deserializer<'_>| {
                    value = Some(erased_serde::deserialize(deserializer)?);
                    Ok(())
                };
                own.deserialize(bytes, Place(&mut fill))?;
                value.ok_or_else(|| "the serialiser has read nothing".into())
            }
        }
    }
}
