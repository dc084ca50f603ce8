//! [`Model`]: results that are read from one model, perhaps together with others.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::data::{DataCache, Entry};
use crate::tags::tag;

/// What all tags of models begin with: a purge of it means every model.
const MODELS: &str = "model";

/// The results of one model; from [`Queries::of`](super::Queries::of).
#[derive(Clone, Debug)]
#[must_use = "nothing is done with a model before it is asked for something"]
pub struct Model<'a> {
    data: &'a DataCache,
    name: String,
    also: Vec<String>,
}

impl<'a> Model<'a> {
    pub(super) fn new(data: &'a DataCache, name: &str) -> Self {
        Self { data, name: name.into(), also: Vec::new() }
    }

    /// The results are read from this model as well, as by a join: a write to either drops them.
    pub fn also(mut self, model: &str) -> Self {
        self.also.push(tag_of(model));
        self
    }

    /// One result, by what tells it from others of the model: the query and its arguments, such as `list:page=2`. What is stored under it can be given other words
    /// for this call, such as another [`ttl`](Entry::ttl), or a [`tag`](Entry::tag) for its row.
    pub fn query(&self, suffix: impl AsRef<str>) -> Entry<'a> {
        // In front of the first colon is the model, whatever is in its name; so no two models have a key in common.
        let model = self.name.replace('%', "%25").replace(':', "%3A");
        let entry = self.data.entry(format!("{model}:{}", suffix.as_ref())).tag(tag_of(&self.name));
        self.also.iter().fold(entry, |entry, tag| entry.tag(tag.as_str()))
    }

    /// The result, as [`Entry::get_or_load`] has it: of those who ask at the same time, one asks the database.
    ///
    /// # Errors
    /// That of `load`, shared by all who waited for it.
    pub async fn get_or_load<T, E, F, L>(&self, suffix: impl AsRef<str>, load: F) -> Result<T, Arc<E>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.query(suffix).get_or_load(load).await
    }

    /// The same for a query that may find nothing, as with `fetch_optional`; see [`Entry::get_or_load_option`].
    ///
    /// # Errors
    /// That of `load`, shared by all who waited for it.
    pub async fn get_or_load_option<T, E, F, L>(&self, suffix: impl AsRef<str>, load: F) -> Result<Option<T>, Arc<E>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<Option<T>, E>> + Send + 'static,
    {
        self.query(suffix).get_or_load_option(load).await
    }
}

/// The tag of a model. A name that can't be in a tag means all models: rather too much is dropped than too little.
pub(super) fn tag_of(model: &str) -> String {
    let whole = format!("{MODELS}:{model}");
    if tag(&whole).is_ok() { whole } else { MODELS.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_tags_and_keys_of_their_own() {
        assert_eq!(tag_of("products"), "model:products");
        assert_eq!(tag_of(&"a".repeat(300)), "model");
        let data = DataCache::in_memory(1 << 20);
        let key = |model: &str, suffix: &str| Model::new(&data, model).query(suffix).wanted.key;
        assert_eq!(key("a", "b:c"), data.key(b"a:b:c"));
        for (one, other) in [(("a:b", "c"), ("a", "b:c")), (("a%3A", "b"), ("a:", "b")), (("a", "b"), ("a", "c"))] {
            assert_ne!(key(one.0, one.1), key(other.0, other.1));
        }
    }
}
