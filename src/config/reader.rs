//! Reads the tables of a TOML text field by field. All that is wrong is collected, each with its place, so that one look at the messages
//! is enough.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Found;
use super::values::{self, DURATIONS, SIZES};
use crate::expiry::NOT_ZERO;
use crate::rfc9111::storability::is_provoked_error;

/// What was found wrong so far.
#[derive(Default)]
pub(super) struct Findings(RefCell<Vec<Found>>);

impl Findings {
    pub(super) fn add(&self, span: Range<usize>, field: impl Into<String>, message: impl Into<String>) {
        self.0.borrow_mut().push(Found { span, field: field.into(), message: message.into() });
    }

    /// All of it, in the order of the text.
    pub(super) fn into_sorted(self) -> Vec<Found> {
        let mut all = self.0.into_inner();
        all.sort_by(|one, other| (one.span.start, &one.message).cmp(&(other.span.start, &other.message)));
        // A field may be looked at more than once.
        all.dedup_by(|one, other| one.span == other.span && one.message == other.message);
        all
    }
}

/// A table, and which of its fields were asked for: what nobody asks for is unknown.
pub(super) struct Section<'d> {
    table: &'d DeTable<'d>,
    path: String,
    span: Range<usize>,
    known: RefCell<Vec<&'static str>>,
    findings: &'d Findings,
}

/// A field's value.
pub(super) struct Field<'d> {
    value: &'d Spanned<DeValue<'d>>,
    pub(super) path: String,
    findings: &'d Findings,
}

impl<'d> Section<'d> {
    pub(super) fn root(table: &'d Spanned<DeTable<'d>>, findings: &'d Findings) -> Self {
        Self::new(table.get_ref(), String::new(), table.span(), findings)
    }

    fn new(table: &'d DeTable<'d>, path: String, span: Range<usize>, findings: &'d Findings) -> Self {
        Self { table, path, span, known: RefCell::default(), findings }
    }

    /// The field of this name, if it is there.
    pub(super) fn field(&self, name: &'static str) -> Option<Field<'d>> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&name) {
            known.push(name);
        }
        let value = self.table.get(name)?;
        Some(Field { value, path: self.path_of(name), findings: self.findings })
    }

    /// All fields of a table whose names are free to choose, with where the names stand.
    pub(super) fn free(&self) -> Vec<(&'d Spanned<Cow<'d, str>>, Field<'d>)> {
        let field = |(name, value): (&'d Spanned<Cow<'d, str>>, &'d Spanned<DeValue<'d>>)| {
            (name, Field { value, path: self.path_of(name.get_ref()), findings: self.findings })
        };
        self.table.iter().map(field).collect()
    }

    pub(super) fn boolean(&self, name: &'static str) -> Option<bool> {
        self.field(name)?.boolean()
    }

    pub(super) fn duration(&self, name: &'static str) -> Option<Duration> {
        self.field(name)?.duration()
    }

    pub(super) fn size(&self, name: &'static str) -> Option<u64> {
        self.field(name)?.size()
    }

    /// The texts of a list; empty where the field is missing.
    pub(super) fn texts(&self, name: &'static str) -> Vec<String> {
        let list = self.field(name).map(|field| field.list(|each| each.name_pattern()));
        list.unwrap_or_default()
    }

    pub(super) fn header_names(&self, name: &'static str) -> Option<Vec<HeaderName>> {
        Some(self.field(name)?.list(|each| each.header_name()))
    }

    /// Something is wrong with the table as a whole.
    pub(super) fn wrong(&self, message: impl Into<String>) {
        self.findings.add(self.span.clone(), self.path.clone(), message);
    }

    /// Says of all fields that nobody asked for that they are unknown.
    pub(super) fn finish(&self) {
        let known = self.known.borrow();
        for (name, _) in self.table.iter().filter(|(name, _)| !known.contains(&name.get_ref().as_ref())) {
            let field = name.get_ref();
            let message = match nearest(field, &known) {
                Some(near) => format!("unknown field; did you mean `{near}`?"),
                None => format!("unknown field; known here are {}", listed(&known)),
            };
            self.findings.add(name.span(), self.path_of(field), message);
        }
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.into() } else { format!("{}.{name}", self.path) }
    }
}

impl<'d> Field<'d> {
    pub(super) fn wrong(&self, message: impl Into<String>) {
        self.findings.add(self.value.span(), self.path.clone(), message);
    }

    pub(super) fn span(&self) -> Range<usize> {
        self.value.span()
    }

    /// Says that the value is of another type than `wanted`.
    fn unlike<T>(&self, wanted: &str) -> Option<T> {
        let found = match self.value.get_ref() {
            DeValue::Integer(_) => "an integer",
            DeValue::Array(_) => "an array",
            DeValue::String(_) => "a string",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Table(_) => "a table",
        };
        self.wrong(format!("expected {wanted}, found {found}"));
        None
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        self.value.get_ref().as_bool().or_else(|| self.unlike("true or false"))
    }

    pub(super) fn text(&self) -> Option<&'d str> {
        self.value.get_ref().as_str().or_else(|| self.unlike("a string"))
    }

    /// One of these words.
    pub(super) fn word<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let hint = match nearest(text, &words) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("it is one of {}", listed(&words)),
            };
            self.wrong(format!("\"{}\" is not known here; {hint}", text.escape_debug()));
        }
        found
    }

    fn integer(&self) -> Option<u64> {
        let number = self.value.get_ref().as_integer()?;
        u64::from_str_radix(number.as_str(), number.radix()).ok()
    }

    /// A number of at least `least`.
    pub(super) fn number(&self, least: u64) -> Option<u64> {
        if !self.value.get_ref().is_integer() {
            return self.unlike("a number");
        }
        let number = self.integer().filter(|number| *number >= least);
        if number.is_none() {
            self.wrong(format!("it is a whole number of at least {least}"));
        }
        number
    }

    /// A number with or without a fraction, for which `is_right`.
    pub(super) fn decimal(&self, is_right: impl Fn(f64) -> bool, wanted: &str) -> Option<f64> {
        let number = match self.value.get_ref() {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(_) => self.integer().map(|number| number as f64),
            _ => return self.unlike(wanted),
        };
        let number = number.filter(|number| is_right(*number));
        if number.is_none() {
            self.wrong(format!("it is {wanted}"));
        }
        number
    }

    /// A duration of which zero would mean always.
    pub(super) fn duration_above_zero(&self) -> Option<Duration> {
        let duration = self.duration()?;
        if duration.is_zero() {
            self.wrong(format!("it has to be {NOT_ZERO}"));
        }
        (!duration.is_zero()).then_some(duration)
    }

    pub(super) fn duration(&self) -> Option<Duration> {
        let Some(text) = self.value.get_ref().as_str() else {
            let hint = self.integer().map_or(String::new(), |number| format!("; did you mean \"{number}s\"?"));
            self.wrong(format!("a duration is a string such as {DURATIONS}{hint}"));
            return None;
        };
        let duration = values::duration(text);
        if duration.is_none() {
            self.wrong(format!("\"{}\" is not a duration; write it like {DURATIONS}", text.escape_debug()));
        }
        duration
    }

    pub(super) fn size(&self) -> Option<u64> {
        let size = match self.value.get_ref() {
            DeValue::String(text) => values::size(text),
            DeValue::Integer(_) => self.integer(),
            _ => return self.unlike(&format!("a size such as {SIZES}")),
        };
        if size.is_none() {
            self.wrong(format!("this is not a size; write it like {SIZES}"));
        }
        size
    }

    pub(super) fn header_name(&self) -> Option<HeaderName> {
        let text = self.text()?;
        let name = text.parse().ok();
        if name.is_none() {
            self.wrong(format!("\"{}\" is not the name of a header field", text.escape_debug()));
        }
        name
    }

    /// The name of a cookie or of a parameter, or the beginning of one and `*`.
    fn name_pattern(&self) -> Option<String> {
        let text = self.text()?;
        let inner = text.find('*').is_some_and(|at| at + 1 < text.len());
        if text.is_empty() || inner {
            self.wrong("it is a name, or the beginning of one with `*` at the end");
            return None;
        }
        Some(text.into())
    }

    fn status(&self) -> Option<StatusCode> {
        let number = self.number(100)?;
        let status = u16::try_from(number).ok().filter(|number| *number < 600);
        if status.is_none() {
            self.wrong(format!("{number} is not a status; they go from 100 to 599"));
        }
        StatusCode::from_u16(status?).ok()
    }

    /// A status that may be stored.
    pub(super) fn storable_status(&self) -> Option<StatusCode> {
        let status = self.status()?;
        self.check_storable(self.value.span(), status)
    }

    /// The status that is the name of this field.
    pub(super) fn storable_status_named(&self, name: &Spanned<Cow<'_, str>>) -> Option<StatusCode> {
        let text = name.get_ref();
        let status = StatusCode::from_bytes(text.as_bytes()).ok().filter(|status| status.as_u16() < 600);
        if status.is_none() {
            let message = format!("\"{}\" is not a status; they go from 100 to 599", text.escape_debug());
            self.findings.add(name.span(), self.path.clone(), message);
        }
        self.check_storable(name.span(), status?)
    }

    fn check_storable(&self, span: Range<usize>, status: StatusCode) -> Option<StatusCode> {
        if is_provoked_error(status) {
            let message = format!("{} is never stored, since a hostile request may provoke it", status.as_u16());
            self.findings.add(span, self.path.clone(), message);
            return None;
        }
        Some(status)
    }

    /// The items of an array; those that are wrong are left out.
    pub(super) fn list<T>(&self, each: impl Fn(&Field<'d>) -> Option<T>) -> Vec<T> {
        let Some(array) = self.value.get_ref().as_array() else { return self.unlike("an array").unwrap_or_default() };
        let item = |(n, value)| Field { value, path: format!("{}[{n}]", self.path), findings: self.findings };
        array.iter().enumerate().map(item).filter_map(|field| each(&field)).collect()
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    pub(super) fn section(&self) -> Option<Section<'d>> {
        let table = self.value.get_ref().as_table().or_else(|| self.unlike("a table"))?;
        Some(Section::new(table, self.path.clone(), self.value.span(), self.findings))
    }
}

/// The word that `written` was meant to be, most likely.
pub(super) fn nearest<'w>(written: &str, words: &[&'w str]) -> Option<&'w str> {
    let lower = written.to_lowercase().replace('-', "_");
    let near = words.iter().map(|word| (strsim::damerau_levenshtein(&lower, word), *word)).min()?;
    // A third of the letters may be wrong; of short words one.
    (near.0 <= (near.1.len() / 3).max(1)).then_some(near.1)
}

fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
