//! Which tags a policy gives to its responses, and what its writes purge beside their URI.

use super::Policy;

impl Policy {
    /// A tag by which the responses of these routes can be purged ([`Selector::Tag`](crate::Selector::Tag)), beside those that handlers and fields give them
    /// ([`Cached::tag`](crate::Cached::tag) has their bounds). Several calls give several tags.
    ///
    /// `$1` and `${name}` stand for what the rule's pattern captured of the path, as the client sent it and, where parts of it are percent-encoded, decoded as
    /// well; `$$` is a dollar. A rule whose pattern doesn't capture that is refused, and so is a reference in `otherwise`, which has no pattern.
    ///
    /// ```
    /// use std::time::Duration;
    /// use larder::{CacheLayer, Policy};
    /// let minute = Duration::from_secs(60);
    /// let cache = CacheLayer::in_memory(256 << 20)
    ///     .rule("^/products/([0-9]+)", Policy::shared(minute).tag("product:$1"))
    ///     .rule("^/products", Policy::shared(minute).tag("products"));
    /// # drop(cache);
    /// ```
    pub fn tag(mut self, template: impl Into<String>) -> Self {
        self.tags.push(template.into());
        self
    }

    /// A tag that is purged when an unsafe method (POST, PUT, DELETE ...) to one of these paths succeeds, beside the URI that it was for: before the client hears of
    /// it, and also where there will never be an answer. `$1` and `${name}` are as for [`tag`](Self::tag). Several calls purge several tags.
    ///
    /// The rule is the one that matches the path, whatever it says about GET; so [`bypass`](Self::bypass) may purge as well.
    ///
    /// ```
    /// use larder::{CacheLayer, Policy};
    /// let writes = Policy::bypass().purges_tag("product:$1").purges_tag("products").purges_glob("/search*");
    /// let cache = CacheLayer::in_memory(256 << 20).rule("^/admin/products/([0-9]+)", writes);
    /// # drop(cache);
    /// ```
    pub fn purges_tag(mut self, template: impl Into<String>) -> Self {
        self.purged_tags.push(template.into());
        self
    }

    /// The same for a pattern over paths ([`Selector::Glob`](crate::Selector::Glob)): `*` is any run of characters, `?` any one. What was captured stands for itself.
    ///
    /// Each pattern that was purged a short while ago costs every look at the store a little, so tags are the better word for what is written to often.
    pub fn purges_glob(mut self, template: impl Into<String>) -> Self {
        self.purged_globs.push(template.into());
        self
    }
}
