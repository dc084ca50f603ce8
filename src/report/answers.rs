//! [`Answers`]: a few answers that were given under one key, to hold the next one against; and [`Names`], under which the parts of requests are known.

use super::explanation::{NAMES, Parts};
use super::findings::RequestPart;

/// How many answers of a key are kept.
const KEPT: usize = 4;

/// The longest name that is told apart.
const LONGEST: usize = 64;

/// The parts of a request, as the bit of its name and a keyed hash of what it says; sorted, each bit once.
pub(crate) type Said = Box<[(u8, u32)]>;

/// An answer under a key.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Which variant of the resource it is, by what it nominates itself.
    pub(crate) variant: u64,
    pub(crate) content: u64,
    pub(crate) said: Said,
    /// From when on it wouldn't be served any more.
    pub(crate) ends: u64,
}

/// Answers under one key; the first of each variant is the one that a cache would serve.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    kept: Vec<Answered>,
    /// Which of the others is replaced next.
    next: usize,
}

impl Answers {
    /// They aren't good any more, since they were purged or written to.
    pub(crate) fn clear(&mut self) {
        self.kept.clear();
    }

    /// Compares an answer with those that are kept of the same variant; `pair` is told of each in what the requests differ and whether the content is
    /// the same. Returns whether a cache would have served the same content; `None` where it would have served none.
    pub(crate) fn compare(&mut self, new: Answered, now: u64, mut pair: impl FnMut(Parts, bool)) -> Option<bool> {
        self.kept.retain(|answered| now < answered.ends);
        let mut served = None;
        for before in self.kept.iter().filter(|before| before.variant == new.variant) {
            let same = before.content == new.content;
            served = served.or(Some(same));
            pair(differing(&before.said, &new.said), same);
        }
        if served.is_none() || self.kept.len() < KEPT {
            if self.kept.len() < KEPT { self.kept.push(new) } else { self.replace(0, new) }
        } else {
            self.next = self.next % (KEPT - 1) + 1;
            self.replace(self.next, new);
        }
        served
    }

    fn replace(&mut self, place: usize, new: Answered) {
        if let Some(place) = self.kept.get_mut(place) {
            *place = new;
        }
    }
}

/// The parts in which two requests differ; one that only one of them has is among these.
fn differing(one: &[(u8, u32)], other: &[(u8, u32)]) -> Parts {
    let only = |these: &[(u8, u32)], those: &[(u8, u32)]| {
        let missing = these.iter().filter(|part| those.binary_search(part).is_err());
        missing.fold(0, |set: Parts, (bit, _)| set | 1 << bit)
    };
    only(one, other) | only(other, one)
}

/// The parts of requests that are told apart by name, for one route.
#[derive(Debug, Default)]
pub(crate) struct Names(Vec<RequestPart>);

impl Names {
    /// The bit of a part. All that find no place have one together.
    pub(crate) fn bit(&mut self, kind: fn(String) -> RequestPart, name: &str) -> u8 {
        let known = self.0.iter().position(|part| part.name() == name && *part == kind(name.to_owned()));
        let place = known.unwrap_or_else(|| {
            if self.0.len() >= NAMES || name.len() > LONGEST {
                return NAMES;
            }
            self.0.push(kind(name.to_owned()));
            self.0.len() - 1
        });
        place as u8
    }

    /// The bit of a part without a name.
    pub(crate) fn nameless() -> u8 {
        NAMES as u8
    }

    /// What a set consists of.
    pub(crate) fn of(&self, parts: Parts) -> Vec<RequestPart> {
        let known = (0..NAMES).filter(|bit| parts & 1 << bit != 0);
        let mut all: Vec<_> = known.filter_map(|bit| self.0.get(bit).cloned()).collect();
        if parts & 1 << NAMES != 0 {
            all.push(RequestPart::Other);
        }
        all
    }

    /// All for which `is` holds.
    pub(crate) fn which(&self, is: impl Fn(&RequestPart) -> bool) -> Parts {
        self.0.iter().enumerate().filter(|(_, part)| is(part)).fold(0, |set, (bit, _)| set | 1 << bit)
    }
}

/// The name of a parameter or cookie, where it has one. What has no value is one itself (`?8f3a...`, which may end in the `=` of Base64), and of values only
/// hashes are kept.
pub(crate) fn name_of(pair: &[u8]) -> Option<&[u8]> {
    let end = pair.iter().position(|byte| *byte == b'=')?;
    let (name, value) = pair.split_at(end);
    value.iter().any(|byte| *byte != b'=').then(|| name.trim_ascii()).filter(|name| !name.is_empty())
}

/// Puts what a request says into the order in which it is compared. Two parts under one bit are one.
pub(crate) fn said(mut parts: Vec<(u8, u32)>) -> Said {
    parts.sort_unstable();
    let mut merged: Vec<(u8, u32)> = Vec::with_capacity(parts.len());
    for (bit, hash) in parts {
        match merged.last_mut() {
            Some(last) if last.0 == bit => last.1 = last.1.rotate_left(5) ^ hash,
            _ => merged.push((bit, hash)),
        }
    }
    merged.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(variant: u64, content: u64, parts: &[(u8, u32)], ends: u64) -> Answered {
        Answered { variant, content, said: said(parts.to_vec()), ends }
    }

    #[test]
    fn an_answer_is_held_against_those_that_a_cache_could_have_served() {
        let mut answers = Answers::default();
        let mut pairs = Vec::new();
        let mut compare = |new, now| {
            let served = answers.compare(new, now, |parts, same| pairs.push((parts, same)));
            (served, std::mem::take(&mut pairs))
        };
        assert_eq!(compare(answered(0, 1, &[(0, 1), (2, 2)], 10), 0), (None, vec![]));
        assert_eq!(compare(answered(0, 1, &[(2, 2), (0, 1)], 11), 1), (Some(true), vec![(0, true)]));
        assert_eq!(compare(answered(0, 2, &[(0, 1), (2, 9)], 12), 2), (Some(false), vec![(4, false); 2]));
        assert_eq!(compare(answered(7, 3, &[], 99), 3), (None, vec![]), "another variant");
        // The first two have ended.
        assert_eq!(compare(answered(0, 2, &[(0, 1)], 20), 11), (Some(true), vec![(4, true)]), "a part that is missing");
        assert_eq!(compare(answered(7, 3, &[(3, 1)], 99), 98), (Some(true), vec![(8, true)]));
        assert_eq!(compare(answered(7, 3, &[], 200), 99), (None, vec![]));
    }

    #[test]
    fn few_are_kept_and_the_one_that_is_served_stays() {
        let mut answers = Answers::default();
        for n in 0..100 {
            let served = answers.compare(answered(0, n, &[(0, n as u32)], 1000), n, |_, _| ());
            assert_eq!(served, (n > 0).then_some(false));
            assert!(answers.kept.len() <= KEPT && answers.kept[0].content == 0);
        }
        // Others are of use for some time, and then make room.
        let contents: Vec<u64> = answers.kept.iter().map(|answered| answered.content).collect();
        assert!(contents[1..].iter().all(|content| *content >= 97), "{contents:?}");
        answers.clear();
        assert_eq!(answers.compare(answered(0, 5, &[], 1000), 1, |_, _| ()), None);
    }

    #[test]
    fn what_has_no_value_is_no_name() {
        let rows: [(&str, Option<&str>); 8] = [
            ("a=1", Some("a")),
            (" a =1", Some("a")),
            ("a==b", Some("a")),
            ("8f3a", None),
            ("8f3a=", None),
            ("8f3a==", None),
            ("=a", None),
            ("", None),
        ];
        for (pair, name) in rows {
            assert_eq!(name_of(pair.as_bytes()), name.map(str::as_bytes), "{pair:?}");
        }
    }

    #[test]
    fn names_are_bounded_and_two_values_of_one_part_count_together() {
        let mut names = Names::default();
        assert_eq!((names.bit(RequestPart::Field, "a"), names.bit(RequestPart::Cookie, "a")), (0, 1));
        assert_eq!(names.bit(RequestPart::Field, "a"), 0);
        let others = (0..100).map(|n| names.bit(RequestPart::Field, &n.to_string())).max();
        assert_eq!(others, Some(NAMES as u8));
        assert_eq!(names.bit(RequestPart::Cookie, &"x".repeat(65)), NAMES as u8);
        assert_eq!(names.of(0b10 | 1 << NAMES), [RequestPart::Cookie("a".into()), RequestPart::Other]);
        assert_eq!(names.which(|part| matches!(part, RequestPart::Cookie(_))), 0b10);
        assert_ne!(said(vec![(1, 1), (1, 2)]), said(vec![(1, 1), (1, 3)]));
        assert_eq!(said(vec![(1, 2), (0, 9), (1, 1)]), said(vec![(1, 1), (1, 2), (0, 9)]));
    }
}
