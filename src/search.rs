//! What was learned from `No-Vary-Search`: by which rule the queries of a path are made equal, and under which key that puts a request.
//!
//! The key of a request holds its query as it was sent, until a response to its path was stored that says otherwise. From then on requests for that path
//! have the key of what the rule leaves of their query. Three things keep this safe:
//!
//! - **A response is stored under the key that its own field gives.** A rule only says where to look, and the key holds the rule: what was
//!   stored under one rule, or under none, answers nobody who is looked up under another. The newest response stored makes the rule, as with `Vary`.
//!   A rule that is learned again is another one: what was stored before it was forgotten may be older than what was stored since.
//! - **A rule holds for the path it came from, on the authority and with all that rules and forwarding fields add to the key.** What a forged
//!   field provokes changes nothing for others.
//! - **A purge or a write reaches every spelling.** What is stored with the field has the path as a [tag](crate::response::Stamp::tags), and who purges any
//!   URI of such a path purges the tag. That is more than the one response, and never less.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::HeaderMap;
use sha2::{Digest, Sha256};

use crate::key::{CacheKey, LONGEST};
use crate::naming::{Named, Naming};
use crate::rfc9111::search::SearchVariance;

/// The memory for rules, in bytes.
const RULES: u64 = 4 << 20;

/// In how many places it is remembered that a path had a rule at any time. Paths that share a place are purged by number, which costs a look and no more.
const PLACES: u64 = 1 << 16;

/// The rules that were learned.
pub(crate) struct Searches {
    /// Whether any rule was ever learned: all that a request pays where none was.
    any: AtomicBool,
    rules: moka::sync::Cache<CacheKey, Arc<Rule>>,
    /// One bit for each place.
    known: Box<[AtomicU64]>,
    /// How many URIs were purged or written to.
    changes: AtomicU64,
    /// Numbers the rules in the order in which they are learned.
    next: AtomicU64,
    naming: Naming,
}

#[derive(Debug)]
struct Rule {
    variance: SearchVariance,
    /// A digest of the variance, for keys.
    id: [u8; 32],
    /// Tells it from the same rule learned at another time, likewise.
    number: u64,
}

/// Where a response belongs.
pub(crate) struct Place {
    /// Its key, if not the one that its request was looked up under.
    pub(crate) key: Option<CacheKey>,
    /// By which a purge of any spelling finds it; on its authority, and on any. None for most.
    pub(crate) tags: Option<[u64; 2]>,
}

impl Default for Searches {
    fn default() -> Self {
        Self::new(Naming::default())
    }
}

impl Searches {
    pub(crate) fn new(naming: Naming) -> Self {
        let size = |key: &CacheKey, rule: &Arc<Rule>| {
            u32::try_from(256 + key.as_bytes().len() + rule.variance.to_bytes().len()).unwrap_or(u32::MAX)
        };
        Self {
            any: AtomicBool::new(false),
            rules: moka::sync::Cache::builder().weigher(size).max_capacity(RULES).build(),
            known: (0..PLACES / 64).map(|_| AtomicU64::new(0)).collect(),
            changes: AtomicU64::new(0),
            // Other instances, and those before this process, number theirs: no two rules may seem to be one.
            next: AtomicU64::new(ahash::RandomState::new().hash_one(0)),
            naming,
        }
    }

    /// The key of a request by the rule of its path, if that has one. `plain` is its key with the query as it is.
    pub(crate) fn find(&self, plain: &CacheKey) -> Option<CacheKey> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        self.look_up(plain)
    }

    #[cold]
    fn look_up(&self, plain: &CacheKey) -> Option<CacheKey> {
        if !self.is_known(self.tags(plain)[0]) {
            return None;
        }
        self.rules.get(&plain.without_query())?.key(plain)
    }

    /// The same without being a look-up, and the rule as well.
    pub(crate) fn peek(&self, plain: &CacheKey) -> Option<(CacheKey, SearchVariance)> {
        if !self.any.load(Ordering::Relaxed) || !self.is_known(self.tags(plain)[0]) {
            return None;
        }
        let path = plain.without_query();
        // To get it would count as use of the rule.
        let rule = self.rules.iter().find(|(of, _)| **of == path).map(|(_, rule)| rule)?;
        Some((rule.key(plain)?, rule.variance.clone()))
    }

    /// How many URIs were purged or written to so far; to be read before the handler is called.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Learns from the head of a response that is about to be stored, and says where it belongs.
    ///
    /// `head` is `None` where the field isn't listened to. `plain` is the key of its request with the query as it is, `ruled` whether it was looked up by a rule, and `changes` how many
    /// [changes](Self::changes) there had been when the handler was asked.
    pub(crate) fn place(&self, plain: &CacheKey, ruled: bool, changes: u64, head: Option<&HeaderMap>) -> Place {
        let variance = head.and_then(SearchVariance::of);
        if variance.is_none() && !ruled {
            return Place { key: None, tags: None };
        }
        let (path, tags) = (plain.without_query(), self.tags(plain));
        let Some(variance) = variance else {
            // The newest word: the query counts as it is.
            self.rules.invalidate(&path);
            return Place { key: Some(plain.clone()), tags: Some(tags) };
        };
        // First it is known that the path has a rule, and then looked whether a purge came that didn't know; `touch` does it the other way round.
        tags.iter().for_each(|tag| self.note(*tag));
        self.any.store(true, Ordering::Release);
        let id = Sha256::digest(variance.to_bytes()).into();
        let learned = || Arc::new(Rule { id, number: self.next.fetch_add(1, Ordering::Relaxed), variance });
        let key = self.rules.entry(path).or_insert_with_if(learned, |old| old.id != id).value().key(plain);
        // A purge of another spelling, made before this path was known to have a rule, would not find the response under the rule's key.
        let undisturbed = ruled || self.changes() == changes;
        Place { key: Some(key.filter(|_| undisturbed).unwrap_or_else(|| plain.clone())), tags: Some(tags) }
    }

    /// A URI is purged or written to: the tag to purge with it, if its path ever had a rule. Without an authority the path is meant on any.
    pub(crate) fn touch(&self, key: &CacheKey, any_authority: bool) -> Option<u64> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.known_tag(key, any_authority)
    }

    /// The tag to purge with a URI, if its path ever had a rule; where there are other instances, one of them may have learned it.
    pub(crate) fn known_tag(&self, key: &CacheKey, any_authority: bool) -> Option<u64> {
        let tag = self.tags(key)[usize::from(any_authority)];
        (self.naming.is_shared() || self.is_known(tag)).then_some(tag)
    }

    fn tags(&self, key: &CacheKey) -> [u64; 2] {
        let path = key.path();
        [key.origin().authority, None].map(|authority| self.naming.hash(Named::Spellings, &[authority, Some(path)]))
    }

    fn is_known(&self, tag: u64) -> bool {
        self.known[(tag % PLACES / 64) as usize].load(Ordering::SeqCst) & 1 << (tag % 64) != 0
    }

    fn note(&self, tag: u64) {
        self.known[(tag % PLACES / 64) as usize].fetch_or(1 << (tag % 64), Ordering::SeqCst);
    }
}

impl Rule {
    /// The key of a request by this rule, unless it would be too long.
    fn key(&self, plain: &CacheKey) -> Option<CacheKey> {
        let mut search = self.id.to_vec();
        search.extend_from_slice(&self.number.to_le_bytes());
        search.extend_from_slice(&self.variance.canonical(plain.query()));
        let key = plain.with_search(&search);
        (key.as_bytes().len() <= LONGEST).then_some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(query: &str) -> CacheKey {
        CacheKey::new(b"h", "/a", Some(query))
    }

    fn said(line: &'static str) -> HeaderMap {
        let mut head = HeaderMap::new();
        if !line.is_empty() {
            head.insert("no-vary-search", http::HeaderValue::from_static(line));
        }
        head
    }

    #[test]
    fn a_purge_that_came_before_the_rule_was_known_keeps_a_response_at_its_own_uri() {
        let searches = Searches::default();
        let changes = searches.changes();
        assert_eq!(searches.touch(&plain("x=2"), false), None, "nobody knows yet that it is the same");
        let place = searches.place(&plain("x=1"), false, changes, Some(&said("params")));
        assert_eq!(place.key, Some(plain("x=1")));
        assert_eq!(searches.touch(&plain("x=3"), false), place.tags.map(|tags| tags[0]));
        assert_eq!(searches.touch(&plain("x=3"), true), place.tags.map(|tags| tags[1]));
    }

    #[test]
    fn keys_of_different_rules_are_different() {
        let searches = Searches::default();
        let place = |line| searches.place(&plain("x=1"), true, 0, Some(&said(line))).key;
        let keys = [place("params"), place("key-order, params"), place(""), place("key-order")];
        for (n, key) in keys.iter().enumerate() {
            assert!(key.is_some() && keys.iter().filter(|other| *other == key).count() == 1, "{n}");
        }
        assert_eq!(searches.find(&plain("x=1")), keys[3], "the newest word");
        place("");
        assert_eq!(searches.find(&plain("x=1")), None);
    }

    #[test]
    fn what_is_learned_has_a_bound() {
        let searches = Searches::default();
        for n in 0..10_000 {
            let path = CacheKey::new(b"h", &format!("/{n}/{}", "a".repeat(1000)), None);
            searches.place(&path, false, 0, Some(&said("key-order")));
        }
        searches.rules.run_pending_tasks();
        assert!((1..=RULES).contains(&searches.rules.weighted_size()));
    }

    #[test]
    fn a_key_that_would_be_too_long_stays_as_it_is() {
        let searches = Searches::default();
        let long = plain(&"a&".repeat(3000));
        assert_eq!(searches.place(&long, false, 0, Some(&said("key-order"))).key, Some(long.clone()));
        assert_eq!(searches.find(&long), None);
        assert!(searches.find(&plain("a")).is_some());
    }
}
