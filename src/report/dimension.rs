//! [`Dimensions`]: what makes the keys of a route many: query parameters, and fields that variants are told apart by; how many values each has, and whether
//! the content ever depended on them.

use super::sketch::Sketch;

/// The most that are told apart for a route.
const MOST: usize = 12;

/// The longest name.
const LONGEST: usize = 64;

/// Of so many answers the content is remembered, to be compared with that of another one that differs in this dimension alone.
const REMEMBERED: usize = 64;

/// What kind of thing makes keys many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DimensionKind {
    /// A parameter of the query.
    Query,
    /// A request field that responses nominate in `Vary`.
    Vary,
    /// A request field that the rule adds to the key (`Policy::key_header`).
    KeyHeader,
}

/// An answer, as one dimension sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Hash of this dimension's value.
    pub(crate) value: u64,
    /// Hash of all else of the key.
    pub(crate) rest: u64,
    /// `None` where nobody looked: then it is a value more, and nothing is compared.
    pub(crate) content: Option<u64>,
    /// When it came, and from when on it is no surprise if the content is another one.
    pub(crate) at: u64,
    pub(crate) ends: u64,
}

/// One of them.
pub(crate) struct Dimension {
    pub(crate) kind: DimensionKind,
    pub(crate) name: Box<str>,
    values: Sketch,
    remembered: Box<[Option<Seen>]>,
    /// Answers that were noted, and those of them whose content was looked at.
    noted: u64,
    looked_at: u64,
    /// Comparisons of answers that differed in this alone.
    pub(crate) same: u64,
    pub(crate) different: u64,
}

/// All of a route.
#[derive(Default)]
pub(crate) struct Dimensions(Vec<Dimension>);

impl Dimensions {
    /// Notes an answer.
    pub(crate) fn note(&mut self, kind: DimensionKind, name: &str, seen: Seen) {
        let known = self.0.iter().position(|known| known.kind == kind && *known.name == *name);
        let place = known.unwrap_or(self.0.len());
        if known.is_none() {
            if place >= MOST || name.len() > LONGEST {
                return;
            }
            self.0.push(Dimension::new(kind, name));
        }
        if let Some(dimension) = self.0.get_mut(place) {
            dimension.note(seen);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Dimension> {
        self.0.iter()
    }
}

impl Dimension {
    fn new(kind: DimensionKind, name: &str) -> Self {
        let remembered = vec![None; REMEMBERED].into();
        Self {
            kind,
            name: name.into(),
            values: Sketch::default(),
            remembered,
            noted: 0,
            looked_at: 0,
            same: 0,
            different: 0,
        }
    }

    /// About how many values it had.
    pub(crate) fn values(&self) -> u64 {
        self.values.estimate()
    }

    /// How many would have been the same if all had been looked at like some.
    pub(crate) fn same_of_all(&self) -> f64 {
        self.same as f64 * self.noted as f64 / self.looked_at.max(1) as f64
    }

    fn note(&mut self, seen: Seen) {
        self.values.add(seen.value);
        self.noted += 1;
        if seen.content.is_none() {
            return;
        }
        self.looked_at += 1;
        let Some(place) = self.remembered.get_mut(seen.rest as usize % REMEMBERED) else { return };
        match place {
            Some(before) if seen.at < before.ends && before.rest == seen.rest => {
                if before.value != seen.value {
                    let counter = if before.content == seen.content { &mut self.same } else { &mut self.different };
                    *counter += 1;
                }
            }
            // Another one has the place, and it is still of use.
            Some(before) if seen.at < before.ends => {}
            _ => *place = Some(seen),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(value: u64, rest: u64, content: u64, at: u64) -> Seen {
        Seen { value, rest, content: Some(content), at, ends: at + 10 }
    }

    #[test]
    fn answers_that_differ_in_one_thing_are_compared_while_the_first_is_fresh() {
        let rows: [(&[Seen], u64, u64); 6] = [
            (&[seen(1, 0, 1, 0), seen(2, 0, 1, 1), seen(3, 0, 1, 9)], 2, 0),
            (&[seen(1, 0, 1, 0), seen(2, 0, 2, 1)], 0, 1),
            (&[seen(1, 0, 1, 0), seen(1, 0, 2, 1)], 0, 0),
            (&[seen(1, 0, 1, 0), seen(2, 0, 2, 10)], 0, 0),
            (&[seen(1, 0, 1, 0), seen(2, 7, 2, 1), seen(3, 7, 2, 2)], 1, 0),
            (&[seen(1, 0, 1, 0), seen(2, 64, 1, 1), seen(3, 64, 1, 2)], 0, 0),
        ];
        for (answers, same, different) in rows {
            let mut dimensions = Dimensions::default();
            answers.iter().for_each(|seen| dimensions.note(DimensionKind::Query, "a", *seen));
            let dimension = dimensions.iter().next().unwrap();
            assert_eq!((dimension.same, dimension.different), (same, different), "{answers:?}");
        }
    }

    #[test]
    fn a_value_whose_content_nobody_looked_at_counts_and_is_not_compared() {
        let mut dimensions = Dimensions::default();
        let unseen = |value, at| Seen { content: None, ..seen(value, 0, 0, at) };
        for seen in [unseen(1, 0), seen(2, 0, 1, 1), unseen(3, 2), seen(4, 0, 1, 3)] {
            dimensions.note(DimensionKind::Query, "a", seen);
        }
        let dimension = dimensions.iter().next().unwrap();
        assert_eq!((dimension.values(), dimension.same, dimension.different), (4, 1, 0));
        assert_eq!(dimension.same_of_all(), 2.0, "half of them were looked at");
    }

    #[test]
    fn names_are_told_apart_by_kind_and_bounded_in_length_and_number() {
        let mut dimensions = Dimensions::default();
        for kind in [DimensionKind::Query, DimensionKind::Vary] {
            dimensions.note(kind, "a", seen(1, 0, 1, 0));
        }
        dimensions.note(DimensionKind::Query, &"x".repeat(LONGEST + 1), seen(1, 0, 1, 0));
        assert_eq!(dimensions.iter().count(), 2);
        (0..100).for_each(|n| dimensions.note(DimensionKind::Query, &n.to_string(), seen(1, 0, 1, 0)));
        assert_eq!(dimensions.iter().count(), MOST);
        assert_eq!(dimensions.iter().map(|dimension| dimension.values()).max(), Some(1));
    }
}
