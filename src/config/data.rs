//! `[data.NAME]`: the defaults of named data caches.

use std::collections::BTreeMap;

use super::Store;
use super::reader::Section;
use crate::data::{Defaults, OwnMemory, Serialized, is_name};
use crate::tags::tag;

/// All of them, by name.
pub(super) fn read(section: &Section<'_>) -> BTreeMap<String, Defaults> {
    let mut all = BTreeMap::new();
    for (name, field) in section.free() {
        if !is_name(name.get_ref()) {
            field.wrong("the name of a data cache has 1 to 64 of the letters a to z, digits, `_` and `-`");
        }
        let Some(section) = field.section() else { continue };
        all.insert(name.get_ref().to_string(), defaults(&section));
        section.finish();
    }
    all
}

fn defaults(section: &Section<'_>) -> Defaults {
    let above_zero = |name| section.field(name).and_then(|field| field.duration_above_zero());
    Defaults {
        ttl: section.duration("ttl"),
        sliding: above_zero("sliding"),
        stale_while_revalidate: section.duration("stale_while_revalidate").unwrap_or_default(),
        stale_if_error: section.duration("stale_if_error").unwrap_or_default(),
        none_ttl: section.duration("none_ttl"),
        error_ttl: section.duration("error_ttl"),
        tags: tags(section),
        serializer: section.field("serializer").and_then(|field| field.word(Serialized::ALL)).unwrap_or_default(),
        max_value_size: section.size("max_value_size").map(|size| usize::try_from(size).unwrap_or(usize::MAX)),
        memory: memory(section),
    }
}

/// The memory that its values have for themselves: there is one where it has a size.
fn memory(section: &Section<'_>) -> Option<OwnMemory> {
    let Store { capacity, max_entries, eviction } = Store::read(section);
    if section.field("capacity").is_none() {
        for name in ["max_entries", "eviction"] {
            if let Some(field) = section.field(name) {
                field.wrong("it is of the memory that these values have for themselves, which `capacity` gives them");
            }
        }
    }
    capacity.map(|capacity| OwnMemory { capacity, max_entries, eviction })
}

fn tags(section: &Section<'_>) -> Vec<String> {
    let read = |field: &super::reader::Field<'_>| {
        let text = field.text()?;
        if let Err(reason) = tag(text) {
            field.wrong(format!("this is no tag: {reason}"));
        }
        Some(text.to_owned())
    };
    section.field("tags").map(|field| field.list(read)).unwrap_or_default()
}
