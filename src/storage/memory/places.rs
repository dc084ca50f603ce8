//! Where an entry stands, in the window or with moka, and how it comes from the one to the other.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::index::Slot;
use super::window::Newcomer;
use super::{Inner, Token};
use crate::fates::Became;
use crate::storage::policy_key::Sought;

/// Where a slot is known that is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Window,
    /// With moka, which is to hear that it was asked for in vain so many times.
    Policy {
        times: u32,
    },
}

impl Inner {
    /// Where what is to be put under a key belongs; `old` is what it takes the place of.
    pub(super) fn place(&self, key: &Sought<'_>, token: &Token, old: Option<&Slot>) -> Place {
        match old {
            Some(old) if !old.is_new.load(Ordering::Relaxed) => Place::Policy { times: 0 },
            Some(old) if old.reads() > 0 => Place::Policy { times: 1 },
            None if self.window.was_unread(key) => Place::Policy { times: 1 },
            _ if self.window.admits(token) => Place::Window,
            _ => Place::Policy { times: 1 },
        }
    }

    /// Gives a slot to moka, which has to know that it was asked for in vain: it lets nobody in who was never asked for, once there is no room.
    pub(super) fn hand_over(&self, key: &Sought<'_>, token: Token, times: u32) {
        (0..times).for_each(|_| _ = self.policy.get(key));
        self.policy.insert(key.to_key(), token);
    }

    /// Lets those leave for whom there is no room. To be called when nobody's turn is held.
    pub(super) fn keep_bounds(&self, capacity: u64, now: Instant) {
        while let Some(newcomer) = self.window.leaver(now) {
            self.leave_window(&newcomer, now);
            self.window.left(&newcomer);
        }
        // moka evicts now and then; large bodies must not pile up until it does.
        if self.index.bytes.load(Ordering::Relaxed) > capacity {
            self.policy.run_pending_tasks();
        }
    }

    /// To moka, if it was read or there is room; else it goes.
    fn leave_window(&self, newcomer: &Newcomer, now: Instant) {
        let sought = newcomer.key.sought();
        let _turn = self.turn(&sought);
        // Else it was replaced or removed, or somebody else has seen it off.
        let is_meant = |slot: &Slot| slot.number == newcomer.token.number && slot.is_new.load(Ordering::Relaxed);
        let Some(keep) = newcomer.keep(now) else {
            self.index.remove(&sought, Became::Expired, is_meant);
            return;
        };
        let there_is_room = self.policy.weighted_size() + u64::from(newcomer.token.weight) <= self.policy_room;
        // Mostly: so this is asked first, of what has to be found to be removed.
        let goes = |slot: &Slot| is_meant(slot) && slot.reads() == 0;
        if !there_is_room && self.index.remove(&sought, Became::Evicted, goes) {
            self.window.remember_unread(sought.hash);
            let evictions = self.index.evictions.fetch_add(1, Ordering::Relaxed);
            // moka looks after itself when it is told of something, which it may not be for long.
            if evictions.is_multiple_of(64) {
                self.policy.run_pending_tasks();
            }
            return;
        }
        let slots = self.index.slots.pin();
        if let Some(slot) = slots.get(&sought).filter(|slot| is_meant(slot)) {
            slot.is_new.store(false, Ordering::Relaxed);
            self.hand_over(&sought, Token { keep, ..newcomer.token }, 1);
        }
    }

    /// Lets what has expired leave while it stands in the window.
    pub(super) fn tidy_window(&self) {
        for newcomer in self.window.expired() {
            let sought = newcomer.key.sought();
            let _turn = self.turn(&sought);
            let is_meant = |slot: &Slot| slot.number == newcomer.token.number;
            self.index.remove(&sought, Became::Expired, is_meant);
        }
    }
}
