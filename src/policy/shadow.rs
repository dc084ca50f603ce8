//! Whether a policy only watches.

use super::Policy;

impl Policy {
    /// Try this policy out: every request goes to the handler as it is, nothing is stored and nothing is served from the store; but each answer that
    /// would have been stored is compared, by a hash, with what would have been served in its place.
    /// [`CacheHandle::report`](crate::CacheHandle::report) then says after how many comparisons the policy is safe, or which field, cookie or query
    /// parameter, that the key doesn't have, makes answers differ. No values are kept.
    ///
    /// Requests that the policy would not look up bypass as ever; the others do so with
    /// [`BypassReason::Shadow`](crate::BypassReason::Shadow). HEAD and QUERY pass without being compared.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use larder::Policy;
    /// let policy = Policy::shared(Duration::from_secs(60)).shadow();
    /// ```
    pub fn shadow(mut self) -> Self {
        self.shadow = true;
        self
    }
}
