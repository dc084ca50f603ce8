//! When the responses of a policy end, beside how long they live: spread, by disuse, or refreshed before.

use std::time::Duration;

use super::Policy;

impl Policy {
    /// Cuts a part off each lifetime, so that what was stored together doesn't expire together: up to `fraction` of it, evenly distributed by
    /// chance. With 0.1, a TTL of 300 s gives lifetimes between 270 and 300 s. None by default.
    ///
    /// It shortens what the application gives: the TTL of a rule, and that of [`Cached`](crate::Cached). What the response's own fields say
    /// (`max-age`, `Expires` …) stays as it is. Clients are told the shortened lifetime.
    ///
    /// `fraction` is from 0 to less than 1; a rule with another one is refused ([`RuleError::OutOfRange`](crate::RuleError::OutOfRange)).
    ///
    /// ```
    /// use std::time::Duration;
    /// use larder::Policy;
    /// let policy = Policy::shared(Duration::from_secs(300)).jitter(0.1);
    /// ```
    pub fn jitter(mut self, fraction: f64) -> Self {
        self.expiry.jitter = Some(fraction);
        self
    }

    /// A response that nobody asks for during `idle` is stale, before its lifetime is over; each hit begins that time anew. Never by default.
    ///
    /// The TTL is the absolute end: however often a response is asked for, it is stale when that is over, counted from its making (RFC 9111 §4.2). So
    /// this can only shorten a lifetime, and only one that the application gave: the TTL of a rule, and that of [`Cached`](crate::Cached). What the
    /// response's own fields say counts as it is.
    ///
    /// - Stale windows count from the end that came first. `Age` is the true age.
    /// - Clients are told no more than `idle` from each answer, since what they use of their own doesn't ask here;
    ///   [`downstream`](Self::downstream) tells them otherwise.
    /// - What nobody asks for any more stays in memory until its absolute end, or until the place is needed.
    /// - A response that is confirmed or fetched anew begins anew. A purge takes it, however recently it was used.
    /// - The time of the last use is known to this process only.
    ///
    /// ```
    /// use std::time::Duration;
    /// use larder::Policy;
    /// let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
    /// // For as long as it is asked for every five minutes, but an hour at most.
    /// let policy = Policy::shared(hour).sliding(5 * minute);
    /// ```
    pub fn sliding(mut self, idle: Duration) -> Self {
        self.expiry.sliding = Some(idle);
        self
    }

    /// Refreshes a response behind a hit shortly before its lifetime is over, by chance, weighed with what the handler took for it ("XFetch"). The
    /// client gets the stored response at once, and a response that is asked for often never expires: nobody waits for it. Off by
    /// default; `beta` is 1 as a rule. More is earlier, less is later.
    ///
    /// A hit refreshes if `took * beta * -ln(chance)` is at least the remaining lifetime, where `took` is the time from the call of the handler to the
    /// head of its answer, and `chance` is evenly distributed between 0 and 1. So with a handler that takes 200 ms, each hit in
    /// the last 200 ms has a chance of more than 37 %, and one 2 s before the end of 1 in 22,000. What takes no time isn't refreshed, and neither is what
    /// nobody asks for.
    ///
    /// A refresh is one of those behind stale answers: one for each variant, [`max_refreshes`](crate::CacheLayer::max_refreshes) in all, counted in
    /// [`Stats::refreshes`](crate::Stats::refreshes). One that fails leaves what is stored as it was, and is tried again a second later at the earliest.
    /// It applies to every lifetime, also to what the response's own fields say, and with the strategies that ask the store first and may ask the
    /// handler ([`CacheFirst`](crate::Strategy::CacheFirst), [`StaleWhileRevalidate`](crate::Strategy::StaleWhileRevalidate)).
    ///
    /// `beta` is above 0 and at most 1000; a rule with another one is refused ([`RuleError::OutOfRange`](crate::RuleError::OutOfRange)).
    ///
    /// ```
    /// use std::time::Duration;
    /// use larder::Policy;
    /// let policy = Policy::shared(Duration::from_secs(60)).refresh_ahead(1.0);
    /// ```
    pub fn refresh_ahead(mut self, beta: f64) -> Self {
        self.expiry.refresh_ahead = Some(beta);
        self
    }

    /// Refreshes a response behind the first hit for which less than `remaining` of its lifetime is left, and not before half of it is over; else like
    /// [`refresh_ahead`](Self::refresh_ahead), with which it may be combined. Off by default.
    ///
    /// ```
    /// use std::time::Duration;
    /// use larder::Policy;
    /// let policy = Policy::shared(Duration::from_secs(60)).refresh_within(Duration::from_secs(10));
    /// ```
    pub fn refresh_within(mut self, remaining: Duration) -> Self {
        self.expiry.refresh_within = Some(remaining);
        self
    }
}
