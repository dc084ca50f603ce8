//! [`Tags`]: what a stored response can be purged by beside its URI and its principal. Mostly these are names that the application gave it;
//! what the cache alone knows (groups, spellings of a query) is a hash without a name.
//!
//! A name is hierarchical: `user:123:profile` is borne as `user`, `user:123` and `user:123:profile`, so that a purge of any of them is one look. The
//! prefixes are hashed when the response is stored, and the names are kept only to be looked at.

use std::ops::Deref;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};

/// `Cache-Tag`: tags with commas between them.
pub(crate) const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");

/// `Surrogate-Key`: tags with spaces between them.
pub(crate) const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");

/// The fields that name tags.
pub(crate) const TAG_FIELDS: [HeaderName; 2] = [CACHE_TAG, SURROGATE_KEY];

/// The most tags that a response bears by name.
const MOST: usize = 128;

/// The most tags with all their prefixes.
const MOST_PREFIXES: usize = 512;

/// Stands among the names of what was used for what couldn't be named, so that it stays with the content as those do. No application can add it, and nobody is shown it.
const UNNAMED: &str = "\u{1a}";

/// The longest tag, in bytes.
const LONGEST: usize = 256;

/// The hashes by which a response is held against purges, and the names behind them. It dereferences to the hashes.
#[derive(Debug)]
pub(crate) struct Tags {
    hashes: Box<[u64]>,
    /// One in a line. Behind an empty line are those that what it was made from brought.
    names: Box<str>,
    /// What it was to bear was too much: a purge of any tag touches it.
    bears_every: bool,
}

/// Why a text is no tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoTag {
    #[error("it is empty")]
    Empty,
    #[error("it is longer than {LONGEST} bytes")]
    Long,
    #[error("it has control characters")]
    Control,
}

/// A tag as it is compared: a colon at its end adds nothing.
pub(crate) fn tag(text: &str) -> Result<&str, NoTag> {
    let name = text.trim_end_matches(':');
    if name.is_empty() {
        Err(NoTag::Empty)
    } else if name.len() > LONGEST {
        Err(NoTag::Long)
    } else if name.chars().any(char::is_control) {
        Err(NoTag::Control)
    } else {
        Ok(name)
    }
}

/// The names that are collected for a response. What is too much, too long or no text makes it bear every tag: a miss too many, and never a
/// stale answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    names: Vec<String>,
    /// Those that what the response was made from brought. They stay when another head takes the place of the one that named the others.
    used: Vec<String>,
    bears_every: bool,
}

impl Names {
    pub(crate) fn add(&mut self, text: &str) {
        if let Some(name) = self.room_for(text).filter(|name| !self.has(name)) {
            self.names.push(name.into());
        }
    }

    /// The same of what the response was made from.
    pub(crate) fn add_used(&mut self, text: &str) {
        let Some(name) = self.room_for(text) else {
            return if tag(text) != Err(NoTag::Empty) {
                self.add_unnamed()
            };
        };
        if !self.used.iter().any(|known| known == name) {
            self.names.retain(|named| named != name);
            self.used.push(name.into());
        }
    }

    /// Something that it was made from bears every tag.
    fn add_unnamed(&mut self) {
        self.bears_every = true;
        if !self.used.iter().any(|known| known == UNNAMED) {
            self.used.push(UNNAMED.into());
        }
    }

    /// All that something bears that the response was made from.
    pub(crate) fn add_all(&mut self, tags: &Tags) {
        tags.names().for_each(|name| self.add_used(name));
        if tags.bears_every() {
            self.add_unnamed();
        }
    }

    /// All that was gathered of what the response was made from.
    pub(crate) fn add_gathered(&mut self, gathered: &Self) {
        gathered.used.iter().for_each(|name| self.add_used(name));
        if gathered.bears_every {
            self.add_unnamed();
        }
    }

    /// The name, unless it is none or too much.
    fn room_for<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        match tag(text) {
            Ok(name) if self.names.len() + self.used.len() < MOST || self.has(name) => return Some(name),
            Ok(_) | Err(NoTag::Long | NoTag::Control) => self.bears_every = true,
            Err(NoTag::Empty) => {}
        }
        None
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().chain(&self.used).any(|known| known == name)
    }

    /// Those that what the response was made from brought.
    #[cfg(test)]
    pub(crate) fn used(&self) -> impl Iterator<Item = &str> {
        self.used.iter().map(String::as_str)
    }

    /// Adds those that a head names.
    pub(crate) fn add_fields(&mut self, head: &HeaderMap) {
        for (name, ends) in [(CACHE_TAG, &b","[..]), (SURROGATE_KEY, b" \t")] {
            let lines = head.get_all(name).into_iter();
            for member in lines.flat_map(|line| line.as_bytes().split(|b| ends.contains(b))) {
                match std::str::from_utf8(member) {
                    Ok(text) => self.add(text.trim()),
                    Err(_) => self.bears_every = true,
                }
            }
        }
    }

    /// The tags with these names, with the hashes of what has no name beside them. `hash` is given a name, or none for what bears every tag.
    pub(crate) fn with(self, hash: impl Fn(Option<&str>) -> u64, nameless: &[u64]) -> Option<Arc<Tags>> {
        let Self { names, used, mut bears_every } = self;
        if names.is_empty() && used.is_empty() && !bears_every && nameless.is_empty() {
            return None;
        }
        let all = names.iter().chain(&used).filter(|name| *name != UNNAMED);
        let mut hashes: Vec<u64> = all.flat_map(|name| prefixes(name)).map(|name| hash(Some(name))).collect();
        hashes.sort_unstable();
        hashes.dedup();
        bears_every |= hashes.len() > MOST_PREFIXES;
        if bears_every {
            // A purge of any tag looks for it.
            hashes = vec![hash(None)];
        }
        hashes.extend_from_slice(nameless);
        Some(Arc::new(Tags { hashes: hashes.into(), names: in_lines(&names, &used), bears_every }))
    }
}

/// An empty line begins what was used: no tag is empty.
fn in_lines(names: &[impl AsRef<str>], used: &[impl AsRef<str>]) -> Box<str> {
    let names = names.iter().map(AsRef::as_ref);
    let border = (!used.is_empty()).then_some("");
    names.chain(border).chain(used.iter().map(AsRef::as_ref)).collect::<Vec<_>>().join("\n").into()
}

impl Tags {
    /// What has no names.
    #[cfg(test)]
    pub(crate) fn nameless(hashes: &[u64]) -> Option<Arc<Self>> {
        Names::default().with(|_| 0, hashes)
    }

    /// The names, without their prefixes.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.lines().filter(|name| !name.is_empty() && *name != UNNAMED)
    }

    /// Those that what it was made from brought.
    fn used(&self) -> impl Iterator<Item = &str> {
        self.names.lines().skip_while(|name| !name.is_empty()).skip(1)
    }

    /// Whether it bears these as what it was made from.
    pub(crate) fn has_used(&self, names: &Names) -> bool {
        (self.bears_every || !names.bears_every) && names.used.iter().all(|name| self.used().any(|known| known == name))
    }

    /// What of it stays whatever head the content gets: the tags of what the content was made from. Where that was too much, it stays so.
    pub(crate) fn of_content(&self) -> Names {
        let mut names = Names::default();
        self.used().for_each(|name| names.add_used(name));
        names.bears_every = self.bears_every && !names.used.is_empty();
        names
    }

    pub(crate) fn bears_every(&self) -> bool {
        self.bears_every
    }

    /// The names, one in a line.
    #[cfg(feature = "record")]
    pub(crate) fn lines(&self) -> &str {
        &self.names
    }

    /// The tags that a [record](crate::record) is of.
    #[cfg(feature = "record")]
    pub(crate) fn of_parts(hashes: Box<[u64]>, lines: &str, bears_every: bool) -> Self {
        Self { hashes, names: lines.into(), bears_every }
    }

    /// What is borne by either of both.
    pub(crate) fn joined(&self, other: &Self) -> Self {
        let mut used: Vec<&str> = self.used().chain(other.used()).collect();
        let mut names: Vec<&str> = self.names().chain(other.names()).filter(|name| !used.contains(name)).collect();
        let mut hashes = [&self.hashes[..], &other.hashes[..]].concat();
        for names in [&mut names, &mut used] {
            names.sort_unstable();
            names.dedup();
        }
        hashes.sort_unstable();
        hashes.dedup();
        let bears_every = self.bears_every || other.bears_every;
        Self { hashes: hashes.into(), names: in_lines(&names, &used), bears_every }
    }

    /// The bytes it takes.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.hashes) + self.names.len()
    }
}

impl Deref for Tags {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.hashes
    }
}

/// The tag, and what it is a part of.
fn prefixes(name: &str) -> impl Iterator<Item = &str> {
    let ends = name.match_indices(':').map(|(end, _)| end).chain([name.len()]);
    ends.map(|end| &name[..end]).filter(|prefix| !prefix.is_empty() && !prefix.ends_with(':'))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// Hashes that can be told apart; 0 for every tag.
    fn hash(name: Option<&str>) -> u64 {
        name.map_or(0, |name| ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(name) | 1)
    }

    fn tags(names: &[&str]) -> Option<Arc<Tags>> {
        let mut all = Names::default();
        names.iter().for_each(|name| all.add(name));
        all.with(hash, &[])
    }

    #[test]
    fn a_tag_is_borne_with_all_that_it_is_a_part_of() {
        let rows: [(&str, &[&str]); 7] = [
            ("a", &["a"]),
            ("a:b:c", &["a", "a:b", "a:b:c"]),
            ("a:", &["a"]),
            ("a::b", &["a", "a::b"]),
            (":a", &[":a"]),
            ("a b,c", &["a b,c"]),
            ("ü:1", &["ü", "ü:1"]),
        ];
        for (name, expected) in rows {
            let borne = tags(&[name]).unwrap();
            let mut expected: Vec<u64> = expected.iter().map(|name| hash(Some(name))).collect();
            expected.sort_unstable();
            assert_eq!(**borne, expected, "{name}");
            assert_eq!(borne.names().collect::<Vec<_>>(), [name.trim_end_matches(':')], "{name}");
        }
        assert!(tags(&[]).is_none() && tags(&["", ":", "::"]).is_none());
    }

    #[test]
    fn too_many_too_long_or_no_text_is_every_tag() {
        let numbered = |most: usize| (0..most).map(|n| n.to_string()).collect::<Vec<_>>();
        let of = |names: &[String]| tags(&names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        assert!(!of(&numbered(MOST)).bears_every());
        let beyond = of(&numbered(MOST + 1));
        assert_eq!((beyond.bears_every(), &**beyond, beyond.names().count()), (true, &[0][..], MOST));
        let twice: Vec<String> = numbered(MOST).into_iter().chain(numbered(MOST)).collect();
        assert!(!of(&twice).bears_every());
        for (name, expected) in [
            ("a".repeat(LONGEST), false),
            ("a".repeat(LONGEST + 1), true),
            ("a\n".into(), true),
            ("a\u{85}b".into(), true),
            (":a".repeat(100), false),
        ] {
            assert_eq!(of(&[name.clone(), "good".into()]).bears_every(), expected, "{name:?}");
        }
        let deep: Vec<String> = (0..6).map(|n| format!("{n}{}", ":a".repeat(99))).collect();
        assert!(!of(&deep[..5]).bears_every() && of(&deep).bears_every(), "600 prefixes");
    }

    /// Fields, the names in them, and whether they are every tag.
    type Row = (&'static [(&'static str, &'static [u8])], &'static [&'static str], bool);

    #[test]
    fn fields_name_tags() {
        let rows: &[Row] = &[
            (&[], &[], false),
            (&[("cache-tag", b"a, b c,,a"), ("cache-tag", b" d ")], &["a", "b c", "d"], false),
            (&[("surrogate-key", b"a b,c  a"), ("surrogate-key", b"d")], &["a", "b,c", "d"], false),
            (&[("cache-tag", b"a"), ("surrogate-key", b"a b")], &["a", "b"], false),
            (&[("cache-tag", b"\xc3\xbc")], &["ü"], false),
            (&[("cache-tag", b"a, \xff")], &["a"], true),
        ];
        for (fields, expected, bears_every) in rows {
            let mut head = HeaderMap::new();
            for (name, value) in *fields {
                head.append(*name, HeaderValue::from_bytes(value).unwrap());
            }
            let mut names = Names::default();
            names.add_fields(&head);
            assert_eq!(
                (names.names, names.bears_every),
                (expected.iter().map(|name| (*name).into()).collect(), *bears_every)
            );
        }
    }

    #[test]
    fn what_was_used_is_told_from_what_the_head_names() {
        let of = |own: &[&str], used: &[&str]| {
            let mut names = Names::default();
            own.iter().for_each(|name| names.add(name));
            used.iter().for_each(|name| names.add_used(name));
            names.with(hash, &[]).unwrap()
        };
        // Of its own, used, all of its names, those that stay.
        type Row = (&'static [&'static str], &'static [&'static str], &'static [&'static str], &'static [&'static str]);
        let rows: [Row; 4] = [
            (&["a"], &[], &["a"], &[]),
            (&[], &["b", "c", "b"], &["b", "c"], &["b", "c"]),
            (&["a", "b"], &["b:1"], &["a", "b", "b:1"], &["b:1"]),
            // What is both stays as well.
            (&["a", "b"], &["a"], &["b", "a"], &["a"]),
        ];
        for (own, used, all, stay) in rows {
            let tags = of(own, used);
            assert_eq!(tags.names().collect::<Vec<_>>(), all, "{own:?} {used:?}");
            assert_eq!(tags.of_content().used, stay, "{own:?} {used:?}");
            assert!(all.iter().all(|name| tags.contains(&hash(Some(name)))));
            let joined = tags.joined(&of(&["z"], &["y"]));
            assert_eq!(joined.of_content().used.len(), stay.len() + 1, "{own:?} {used:?}");
            assert!(joined.has_used(&tags.of_content()) && !tags.has_used(&joined.of_content()));
        }
        let numbered: Vec<String> = (0..=MOST).map(|n| n.to_string()).collect();
        let numbered: Vec<&str> = numbered.iter().map(String::as_str).collect();
        assert!(of(&[], &numbered).of_content().bears_every && of(&numbered[1..], &["used"]).bears_every());
        assert!(!of(&numbered, &[]).of_content().bears_every, "another head may name fewer");
        let long = "a".repeat(LONGEST + 1);
        for (own, used) in [(&[][..], &[long.as_str()][..]), (&numbered[1..], &["used"])] {
            let tags = of(own, used);
            let stays = tags.of_content();
            assert!(stays.bears_every && tags.has_used(&stays) && tags.names().eq(own.iter().copied()));
            let again = stays.with(hash, &[]).unwrap();
            assert!(again.of_content().bears_every && again.names().next().is_none(), "however often");
            let mut made = Names::default();
            made.add_all(&again);
            assert!(made.with(hash, &[]).unwrap().of_content().bears_every, "what is made from it as well");
        }
    }

    #[test]
    fn what_is_joined_bears_what_either_does() {
        let (one, other) = (tags(&["a", "b:c"]).unwrap(), tags(&["b", "d"]).unwrap());
        let both = one.joined(&other);
        assert_eq!(both.names().collect::<Vec<_>>(), ["a", "b", "b:c", "d"]);
        assert!(one.iter().chain(other.iter()).all(|hash| both.contains(hash)));
        assert_eq!(both.len(), 4, "`b` once");
        let every = tags(&["a\n"]).unwrap().joined(&one);
        assert!(every.bears_every() && every.contains(&0));
    }

    #[test]
    fn what_has_no_name_is_there_beside_names() {
        let mut names = Names::default();
        names.add("a");
        let borne = names.with(hash, &[7, 9]).unwrap();
        assert_eq!((&borne[1..], borne.names().count()), (&[7, 9][..], 1));
        assert!(Tags::nameless(&[]).is_none());
        assert_eq!(**Tags::nameless(&[7]).unwrap(), [7]);
    }
}
