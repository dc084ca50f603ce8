//! What a policy makes of a request: whether it keeps it out of the cache, what it adds to its key, and what it hides from the handler.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Request, Uri, header};

use super::{Audience, Policy};
use crate::key::{CacheKey, Part};
use crate::outcome::BypassReason;
use crate::partition::PartitionId;
use crate::query_rule::matches_name;
use crate::request::{RequestFacts, RequestHead};
use crate::rfc9111::list;
use crate::strategy::Strategy;

impl Policy {
    /// Why this request may not be answered from the cache at all, if so.
    pub(crate) fn bypasses(&self, head: &RequestHead<'_>, facts: &RequestFacts<'_>) -> Option<BypassReason> {
        match self.audience {
            Audience::Bypass => Some(BypassReason::Rule),
            _ if self.strategy == Strategy::NetworkOnly => Some(BypassReason::NetworkOnly),
            Audience::Guarded if facts.authorization || (facts.cookie && self.has_telling_cookie(head)) => {
                Some(BypassReason::Credentials)
            }
            _ => None,
        }
    }

    fn has_telling_cookie(&self, head: &RequestHead<'_>) -> bool {
        cookies(head.headers).any(|(name, _)| !self.ignored_cookies.iter().any(|pattern| matches_bytes(pattern, name)))
    }

    /// The query as it is keyed; under a rule for queries, one of which nothing is left is none.
    pub(crate) fn query<'q>(&self, query: Option<&'q str>) -> Option<Cow<'q, str>> {
        self.query.keyed(query)
    }

    /// Adds to the key what this rule wants in it. `secret` keys the digest of a principal.
    pub(crate) fn extend_key(
        &self,
        key: &mut CacheKey,
        head: &RequestHead<'_>,
        secret: &[u8; 32],
    ) -> Result<(), BypassReason> {
        for name in &self.key_headers {
            key.push(Part::FieldName, name.as_str().as_bytes());
            head.headers.get_all(name).iter().for_each(|line| key.push(Part::FieldLine, line.as_bytes()));
        }
        for wanted in &self.key_cookies {
            key.push(Part::CookieName, wanted.as_bytes());
            let values = cookies(head.headers).filter(|(name, _)| matches_bytes(wanted, name));
            values.for_each(|(_, pair)| key.push(Part::Cookie, pair));
        }
        if let Audience::Per(principal) = &self.audience {
            let name = principal.name(head).ok_or(BypassReason::NoPrincipal)?;
            key.push(Part::Partition, &digest(secret, &name));
        }
        Ok(())
    }

    /// Takes from a request that may fill the cache what its key ignores, so that an answer can't depend on it.
    pub(crate) fn prepare_fill<B>(&self, request: &mut Request<B>) {
        if self.strip_credentials {
            request.headers_mut().remove(header::COOKIE);
            request.headers_mut().remove(header::AUTHORIZATION);
        } else if !self.key_cookies.is_empty() {
            self.keep_key_cookies(request);
        }
        let canonical = self.query(request.uri().query()).map(Cow::into_owned);
        if canonical.as_deref() == request.uri().query() {
            return;
        }
        let canonical = canonical.unwrap_or_default();
        if let Some(uri) = with_query(request.uri(), &canonical) {
            *request.uri_mut() = uri;
        }
        #[cfg(feature = "axum")]
        if let Some(original) = request.extensions_mut().get_mut::<axum::extract::OriginalUri>()
            && let Some(uri) = with_query(&original.0, &canonical)
        {
            original.0 = uri;
        }
    }

    fn keep_key_cookies<B>(&self, request: &mut Request<B>) {
        let head = RequestHead::of(request);
        let place = |name: &[u8]| self.key_cookies.iter().position(|pattern| matches_bytes(pattern, name));
        let mut kept: Vec<_> = cookies(head.headers).filter_map(|(name, pair)| Some((place(name)?, pair))).collect();
        // In the order in which the key has them: a handler that takes the first must not tell apart what the key doesn't.
        kept.sort_by_key(|(place, _)| *place);
        let kept: Vec<&[u8]> = kept.into_iter().map(|(_, pair)| pair).collect();
        let kept = HeaderValue::from_bytes(&kept.join(&b"; "[..])).ok().filter(|value| !value.is_empty());
        match kept {
            Some(kept) => drop(request.headers_mut().insert(header::COOKIE, kept)),
            None => drop(request.headers_mut().remove(header::COOKIE)),
        }
    }
}

/// The cookies of a request as (name, whole pair) (RFC 6265 §4.2).
pub(crate) fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = headers.get_all(header::COOKIE).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|b| *b == b';')).map(list::trim).filter(|pair| !pair.is_empty()).map(
        |pair| {
            let end = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
            (list::trim(&pair[..end]), pair)
        },
    )
}

pub(crate) fn matches_bytes(pattern: &str, name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|name| matches_name(pattern, name))
}

fn with_query(uri: &Uri, query: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    let target = if query.is_empty() { uri.path().to_owned() } else { format!("{}?{query}", uri.path()) };
    parts.path_and_query = Some(target.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// A keyed digest of a principal's name, so that a key tells nobody who it is for.
pub(crate) fn digest(secret: &[u8; 32], name: &[u8]) -> PartitionId {
    use sha2::Digest;
    let whole = sha2::Sha256::new().chain_update(secret).chain_update(name).finalize();
    let mut half = [0; 16];
    half.copy_from_slice(&whole[..16]);
    half
}
