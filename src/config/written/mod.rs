//! Settings as the text that would set them, to be read, changed and sent back. It names what isn't as it comes.
//!
//! What a text can't say has to be told in words: a new field of the settings or of a policy has to be written here, or it doesn't compile.

#[cfg(feature = "data")]
mod data;
mod policy;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::time::Duration;

use crate::compression::Compression;
use crate::outcome::HeaderSwitches;
use crate::rfc9111::coding::Coding;
use crate::rules::Rule;
use crate::settings::Settings;
use crate::storage::MemoryStore;
use crate::storage::backend::Backend;

/// A text, and what it doesn't say.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) text: String,
    /// What of the settings only code can say, in words.
    pub(crate) notes: Vec<String>,
}

/// The settings as a text.
pub(crate) fn written(settings: &Settings) -> Written {
    let usual = Settings::new(Backend::memory(MemoryStore::new(0)));
    let mut out = Written::default();
    let top = top(settings, &usual);
    out.section("", top);
    let mut switches = switches(&settings.switches, &usual.switches);
    if settings.forward_tags != usual.forward_tags {
        set(&mut switches, "forward_tags", settings.forward_tags);
    }
    out.section("[headers]", switches);
    let limits = out.limits(settings, &usual);
    out.section("[limits]", limits);
    out.section("[compression]", compression(&settings.compression));
    if let Some(memory) = &settings.backend.near {
        out.section("[store]", store(memory.described()));
    }
    #[cfg(feature = "data")]
    settings.data.iter().for_each(|(name, defaults)| out.data(name, defaults));
    if settings.backend.far.is_some() {
        out.notes.push("the store is one of code's own, and stays".into());
    }
    let mut seen: Vec<&str> = Vec::new();
    for Rule { pattern, policy } in &settings.rules {
        // A second rule with the same pattern never counts, so a text mustn't have one.
        if seen.contains(&pattern.as_str()) {
            continue;
        }
        seen.push(pattern);
        let mut lines = vec![format!("path = {}", quoted(pattern))];
        lines.extend(out.policy(pattern, policy));
        out.section("[[rule]]", lines);
    }
    let otherwise = out.policy("otherwise", &settings.otherwise);
    if otherwise != ["audience = \"from_origin\""] {
        out.section("[otherwise]", otherwise);
    }
    out
}

type Lines = Vec<String>;

fn set(lines: &mut Lines, name: &str, value: impl std::fmt::Display) {
    lines.push(format!("{name} = {value}"));
}

/// What stands before the first table.
fn top(settings: &Settings, usual: &Settings) -> Lines {
    let Settings {
        backend: _,
        clock: _,
        rules: _,
        otherwise: _,
        switches: _,
        forward_tags: _,
        max_head_size: _,
        max_body_size: _,
        max_fill_bytes: _,
        max_variants: _,
        max_refreshes: _,
        max_waiting: _,
        max_wait: _,
        max_fill_age: _,
        max_lease_wait: _,
        near_ttl: _,
        partition_secret: _,
        staleness_bound: _,
        eager_etag_size: _,
        max_query_content: _,
        compression: _,
        // Only code sets these, and a text leaves them as they are.
        outcome_extension: _,
        observe_answers: _,
        query: _,
        #[cfg(feature = "data")]
            data: _,
        targets,
        heuristics,
        no_vary_search,
        propagate_tags,
        never_stored,
        replayed,
        // `strict_rfc` sets all of them, and nothing sets one alone.
        leniency: _,
        matching: _,
        stale_when_disconnected: _,
        authorized_may_share: _,
        store_post: _,
        trust_any_304: strict_rfc,
    } = settings;
    let mut lines = Lines::new();
    if *strict_rfc {
        set(&mut lines, "strict_rfc", true);
    }
    if heuristics != strict_rfc {
        set(&mut lines, "heuristics", heuristics);
    }
    if *no_vary_search != usual.no_vary_search {
        set(&mut lines, "no_vary_search", no_vary_search);
    }
    if *propagate_tags != usual.propagate_tags {
        set(&mut lines, "propagate_tags", propagate_tags);
    }
    for (name, names, usual) in [
        ("targeted_fields", targets, &usual.targets),
        ("never_store", never_stored, &usual.never_stored),
        ("replay", replayed, &usual.replayed),
    ] {
        if names != usual {
            set(&mut lines, name, list(names));
        }
    }
    lines
}

fn switches(switches: &HeaderSwitches, usual: &HeaderSwitches) -> Lines {
    let HeaderSwitches { name, age, x_cache, x_cache_age, cache_status, warning } = switches;
    let mut lines = Lines::new();
    if *name != usual.name {
        set(&mut lines, "name", quoted(name));
    }
    for (name, on, usual) in [
        ("age", age, usual.age),
        ("x_cache", x_cache, usual.x_cache),
        ("x_cache_age", x_cache_age, usual.x_cache_age),
        ("cache_status", cache_status, usual.cache_status),
        ("warning", warning, usual.warning),
    ] {
        if *on != usual {
            set(&mut lines, name, on);
        }
    }
    lines
}

fn compression(compression: &Compression) -> Lines {
    let Compression { coding, level, min_size, min_saving } = compression;
    let usual = Compression::off();
    let mut lines = Lines::new();
    if *compression == usual {
        return lines;
    }
    set(&mut lines, "coding", quoted(coding.map_or("none", Coding::name)));
    if let Some(level) = level {
        set(&mut lines, "level", level);
    }
    if *min_size != usual.min_size {
        set(&mut lines, "min_size", min_size);
    }
    if *min_saving != usual.min_saving {
        set(&mut lines, "min_saving", min_saving);
    }
    lines
}

/// What describes a store in memory.
fn store(said: [(&'static str, String); 3]) -> Lines {
    // TOML's numbers end at 2^63; without the section the store stays as well.
    if said.iter().any(|(_, value)| value.parse::<u64>().is_ok_and(|number| i64::try_from(number).is_err())) {
        return Lines::new();
    }
    said.into_iter()
        .filter(|(_, value)| value != "none")
        .map(|(name, value)| match value.as_str() {
            "TinyLfu" => format!("{name} = \"tiny_lfu\""),
            "Lru" => format!("{name} = \"lru\""),
            number => format!("{name} = {number}"),
        })
        .collect()
}

impl Written {
    fn section(&mut self, head: &str, lines: Lines) {
        if lines.is_empty() {
            return;
        }
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        for line in Some(head.to_owned()).filter(|head| !head.is_empty()).into_iter().chain(lines) {
            self.text.push_str(&line);
            self.text.push('\n');
        }
    }

    fn limits(&mut self, settings: &Settings, usual: &Settings) -> Lines {
        let mut lines = Lines::new();
        for (name, limit, usual) in [
            ("max_body_size", settings.max_body_size, usual.max_body_size),
            ("max_head_size", settings.max_head_size, usual.max_head_size),
            ("max_fill_bytes", settings.max_fill_bytes, usual.max_fill_bytes),
            ("max_variants", settings.max_variants, usual.max_variants),
            ("max_refreshes", settings.max_refreshes, usual.max_refreshes),
            ("max_waiting", settings.max_waiting, usual.max_waiting),
            ("eager_etag_size", settings.eager_etag_size, usual.eager_etag_size),
            ("max_query_content", settings.max_query_content, usual.max_query_content),
        ] {
            if limit != usual {
                // TOML's numbers end there, and nothing in memory is as large.
                set(&mut lines, name, limit.min(i64::MAX as usize));
            }
        }
        for (name, limit, usual) in [
            ("max_wait", settings.max_wait, usual.max_wait),
            ("max_fill_age", settings.max_fill_age, usual.max_fill_age),
            ("max_lease_wait", settings.max_lease_wait, usual.max_lease_wait),
            ("staleness_bound", settings.staleness_bound, usual.staleness_bound),
        ] {
            if limit != usual {
                let limit = self.duration(name, limit);
                set(&mut lines, name, limit);
            }
        }
        if let Some(ttl) = settings.near_ttl {
            let ttl = self.duration("near_ttl", ttl);
            set(&mut lines, "near_ttl", ttl);
        }
        lines
    }

    /// As near as a text can say it.
    fn duration(&mut self, of: &str, value: Duration) -> String {
        let millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
        if Duration::from_millis(millis) != value {
            self.notes.push(format!("{of}: {value:?}, which a text can't say exactly"));
        }
        if millis % 1000 == 0 { format!("\"{}s\"", millis / 1000) } else { format!("\"{millis}ms\"") }
    }
}

fn list(texts: &[impl AsRef<str>]) -> String {
    let quoted: Vec<_> = texts.iter().map(|text| quoted(text.as_ref())).collect();
    format!("[{}]", quoted.join(", "))
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => drop(write!(quoted, "\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
