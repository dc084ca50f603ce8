//! The protocol engine: RFC 9111 as pure functions over heads. It reads no clock, does no I/O and never waits;
//! `now` and ages are parameters, and every answer is a value that says why.
//!
//! | module | answers |
//! |---|---|
//! | [`directives`] | what do `Cache-Control` and the targeted fields say? |
//! | [`date`] | when is that? |
//! | [`storability`] | may this response be stored (§3)? |
//! | [`freshness`] | for how long is it fresh, and how old is it (§4.2)? |
//! | [`reuse`] | may this stored response answer that request (§4)? |
//! | [`vary`] | is it the variant that was asked for (§4.1)? |
//! | [`validation`] | which condition goes upstream, and what does the client's condition say (§4.3)? |
//! | [`coding`] | which content codings does the client accept (RFC 9110 §12.5.3)? |
//! | [`range`] | which part was asked for (RFC 9110 §14)? |
//! | [`invalidation`] | what does a write make invalid (§4.4)? |
//! | [`groups`] | which responses does a write make invalid by a name they share (RFC 9875)? |
//! | [`search`] | which queries does a response call the same (`No-Vary-Search`)? |
//! | [`authority`] | are these two hosts the same (RFC 9110 §4.2.3)? |
//! | [`list`], [`targeted`] | how are lists and Dictionaries read? |
//! | [`fields`] | which fields are never stored, and which Age goes out? |

pub mod authority;
pub mod coding;
pub mod date;
pub mod directives;
pub mod fields;
pub mod freshness;
pub mod groups;
pub mod invalidation;
pub mod list;
pub mod range;
pub mod reuse;
pub mod search;
pub mod storability;
mod structured;
pub mod targeted;
pub mod validation;
pub mod vary;
