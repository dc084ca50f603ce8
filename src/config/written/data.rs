//! `[data.NAME]`, as the text that would set it.

use super::{Written, list, quoted, set, store};
use crate::data::{Defaults, Serialized};

impl Written {
    pub(super) fn data(&mut self, name: &str, defaults: &Defaults) {
        let Defaults {
            ttl,
            sliding,
            stale_while_revalidate,
            stale_if_error,
            none_ttl,
            error_ttl,
            tags,
            serializer,
            max_value_size,
            memory,
        } = defaults;
        let mut lines = Vec::new();
        let windows = [("stale_while_revalidate", stale_while_revalidate), ("stale_if_error", stale_if_error)];
        let windows = windows.map(|(name, window)| (name, Some(*window).filter(|window| !window.is_zero())));
        let times = [("ttl", *ttl), ("sliding", *sliding), ("none_ttl", *none_ttl), ("error_ttl", *error_ttl)];
        for (name, value) in times.into_iter().chain(windows) {
            if let Some(value) = value {
                let value = self.duration(name, value);
                set(&mut lines, name, value);
            }
        }
        if !tags.is_empty() {
            set(&mut lines, "tags", list(tags));
        }
        if let Some((word, _)) = Serialized::ALL.iter().find(|(_, known)| known == serializer) {
            set(&mut lines, "serializer", quoted(word));
        }
        max_value_size.iter().for_each(|size| set(&mut lines, "max_value_size", size));
        memory.iter().for_each(|memory| lines.extend(store(memory.described())));
        self.section(&format!("[data.{name}]"), lines);
    }
}
