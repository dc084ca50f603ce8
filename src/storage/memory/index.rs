//! [`Index`]: what is stored, as reads find it, without a lock; and the [`Slot`] of each key.

use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use moka::notification::RemovalCause;
use seize::Guard as _;
use smallvec::SmallVec;

use super::Token;
use crate::fates::{Became, Fates};
use crate::nearby::Nearby;
use crate::response::StoredResponse;
use crate::storage::policy_key::{IndexKey, Known, Sought};
use crate::tally::RouteCounters;

/// Larger ones don't wait.
const LARGE: u64 = 8 << 10;

pub(in crate::storage) struct Index {
    pub(in crate::storage) slots: papaya::HashMap<IndexKey, Slot, BuildHasherDefault<Known>>,
    /// As large as a key and its slot, which papaya puts into one piece.
    pub(super) room: Nearby<(IndexKey, Slot)>,
    pub(super) bytes: AtomicU64,
    pub(super) evictions: AtomicU64,
    pub(super) fates: Option<Arc<Fates>>,
}

/// In this order in memory: what a hit reads lies together.
#[repr(C)]
pub(in crate::storage) struct Slot {
    pub(super) reads: AtomicU32,
    /// By value: the newest variant, which mostly is the only one, lies next to the key, and a read goes through memory once less.
    pub(in crate::storage) variants: SmallVec<[StoredResponse; 1]>,
    /// The same number as the policy's token: an eviction takes the slot that it was decided for, and no newer one.
    pub(super) number: u64,
    pub(super) bytes: u64,
    /// It stands in the window, and moka hasn't heard of it.
    pub(super) is_new: AtomicBool,
}

impl Slot {
    /// The counters of the route whose responses these are: by the newest of them.
    fn route(&self) -> Option<&RouteCounters> {
        self.variants.first().map(|newest| &*newest.route)
    }

    pub(super) fn entered(&self) {
        self.route().iter().for_each(|route| route.entered(self.bytes));
    }

    pub(super) fn left(&self) {
        self.route().iter().for_each(|route| route.left(self.bytes));
    }

    fn became(&self, became: Became) {
        self.route().iter().for_each(|route| route.became(became));
    }

    /// How often it was read since it was filled. Reads that happen at the same time may count as one.
    pub(in crate::storage) fn reads(&self) -> u32 {
        self.reads.load(Ordering::Relaxed)
    }
}

impl Index {
    /// Removes a slot, if it is one that is meant, and tells what became of its key.
    pub(super) fn remove(&self, key: &Sought<'_>, became: Became, which: impl Fn(&Slot) -> bool) -> bool {
        match self.slots.pin().remove_if(key, |_, slot| which(slot)) {
            Ok(Some((_, slot))) => {
                self.bytes.fetch_sub(slot.bytes, Ordering::Relaxed);
                slot.left();
                slot.became(became);
                self.settle(slot);
                self.fates.iter().for_each(|fates| match became {
                    Became::Purged { number: None } => fates.note_swept(key.bytes),
                    _ => fates.note(key.bytes, became),
                });
                true
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// A slot was retired. What is large must not wait for others before its memory is given back; nor what is in the account of a principal, which is charged for it until then.
    pub(super) fn settle(&self, slot: &Slot) {
        if slot.bytes > LARGE || slot.variants.iter().any(|variant| variant.charge.is_some()) {
            self.slots.guard().flush();
        }
    }

    /// moka let go of a token: its slot goes as well, unless a newer one has taken the place.
    pub(super) fn evict(&self, key: &Sought<'_>, token: Token, cause: RemovalCause) {
        let became = match cause {
            RemovalCause::Expired => Became::Expired,
            RemovalCause::Size => Became::Evicted,
            RemovalCause::Explicit | RemovalCause::Replaced => Became::Dropped,
        };
        if self.remove(key, became, |slot| slot.number == token.number) && cause.was_evicted() {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
    }
}
