//! Purges as instances tell each other, and as the index takes them.

use crate::clock::Moment;
use crate::pattern::{Malformed, Pattern};
use crate::purge_message::{PurgeMessage, PurgedThings};
use crate::purged::Force;
use crate::target::{Hashes, Target};

impl PurgeMessage {
    pub(crate) fn of(target: &Target, force: Force) -> Self {
        let what = match target {
            Target::Hashes(Hashes { places, tags, authority }) => {
                PurgedThings::Hashes { places: places.to_vec(), tags: tags.to_vec(), authority: *authority }
            }
            Target::Pattern(pattern) if pattern.is_glob() => PurgedThings::Glob(pattern.text().into()),
            Target::Pattern(pattern) => PurgedThings::Regex(pattern.text().into()),
            Target::Everything => PurgedThings::Everything,
        };
        let soft = match force {
            Force::Hard => None,
            Force::Soft(at) => Some(at.wall),
        };
        Self { what, soft }
    }

    /// What it touches, and how hard it is. A pattern that can't be read here, where another version could, is everything.
    pub(crate) fn heard(&self, now: Moment) -> (Target, Force) {
        let pattern = |read: Result<Pattern, Malformed>| read.map_or(Target::Everything, Target::Pattern);
        let target = match &self.what {
            PurgedThings::Hashes { places, tags, authority } => Target::Hashes(Hashes {
                places: places.iter().copied().collect(),
                tags: tags.iter().copied().collect(),
                authority: *authority,
            }),
            PurgedThings::Glob(text) => pattern(Pattern::glob(text)),
            PurgedThings::Regex(text) => pattern(Pattern::regex(text)),
            PurgedThings::Everything => Target::Everything,
        };
        let Some(at) = self.soft else { return (target, Force::Hard) };
        // Whatever the other one's clock says: it was made before it was heard.
        let wall = at.min(now.wall);
        let ago = now.wall.duration_since(wall).unwrap_or_default();
        (target, Force::Soft(Moment { wall, monotonic: now.monotonic.saturating_sub(ago) }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment { wall: UNIX_EPOCH + Duration::from_secs(1000 + seconds), monotonic: Duration::from_secs(seconds) }
    }

    #[test]
    fn what_is_told_is_what_is_heard() {
        let hashes =
            Hashes { places: [1, 2].into_iter().collect(), tags: [3].into_iter().collect(), authority: Some(4) };
        let targets = [
            Target::Hashes(hashes),
            Target::Pattern(Pattern::glob("/a/*[").unwrap()),
            Target::Pattern(Pattern::regex("^/a").unwrap()),
            Target::Everything,
        ];
        for target in targets {
            for force in [Force::Hard, Force::Soft(at(50))] {
                let told = PurgeMessage::of(&target, force);
                let (heard, how) = told.heard(at(60));
                assert_eq!(format!("{heard:?} {how:?}"), format!("{target:?} {force:?}"));
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_everything() {
        for what in [PurgedThings::Glob("\\".into()), PurgedThings::Regex("(".into())] {
            let (target, _) = PurgeMessage { what, soft: None }.heard(at(0));
            assert!(matches!(target, Target::Everything));
        }
    }

    #[test]
    fn a_clock_that_is_ahead_makes_nothing_stale_later_than_now() {
        // (when it was made by the other's clock, what counts here)
        for (made, expected) in [(40, at(40)), (60, at(60)), (360, at(60))] {
            let message = PurgeMessage { what: PurgedThings::Everything, soft: Some(at(made).wall) };
            let (_, force) = message.heard(at(60));
            assert!(matches!(force, Force::Soft(at) if at == expected), "{made}: {force:?}");
        }
        let before_the_process = PurgeMessage { what: PurgedThings::Everything, soft: Some(UNIX_EPOCH) };
        let (_, force) = before_the_process.heard(at(60));
        assert!(matches!(force, Force::Soft(Moment { monotonic: Duration::ZERO, .. })), "{force:?}");
    }
}
