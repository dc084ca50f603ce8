//! [`Config`]: what a cache is to do, from a TOML text; read as a whole or refused as a whole. It refuses what it doesn't know, and what
//! can't be meant.

mod compression;
#[cfg(feature = "data")]
mod data;
mod error;
#[cfg(feature = "admin")]
mod lent;
mod policy;
mod reader;
mod values;
#[cfg(feature = "admin")]
mod written;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderName;
use regex::Regex;
use toml::Spanned;
use toml::de::DeTable;

use self::error::Found;
pub use self::error::{ConfigError, Problem};
#[cfg(feature = "admin")]
pub(crate) use self::lent::{Lent, lent};
use self::policy::{Draft, KeySets};
use self::reader::{Field, Findings, Section};
#[cfg(feature = "admin")]
pub(crate) use self::written::{Written, written};
use crate::error::RuleError;
use crate::handle::CacheHandle;
use crate::layer::{CacheLayer, is_cache_name};
use crate::policy::Policy;
use crate::principal::Principal;
use crate::reload::Reload;
use crate::request::RequestHead;
use crate::rules::Rule;
use crate::settings::Settings;
use crate::storage::backend::Backend;
use crate::storage::{Eviction, MemoryStore};

/// Settings from a TOML text: rules, limits, compression, header switches, the size of the store. `docs/configuration.md` describes every field.
///
/// ```
/// use larder::{CacheLayer, Config, RequestHead};
/// struct UserId(String);
///
/// # fn main() -> Result<(), larder::ConfigError> {
/// let config: Config = r#"
///     [[rule]]
///     path = "^/products"
///     audience = "shared"
///     ttl = "5m"
///
///     [[rule]]
///     path = "^/api/me/"
///     audience = "per"
///     principal = "user" # whom the closure below names
///     ttl = "30s"
/// "#.parse()?;
/// let user = |request: &RequestHead<'_>| request.extensions.get::<UserId>().map(|id| id.0.clone());
/// let cache = CacheLayer::from_config(&config.principal("user", user))?;
/// # drop(cache); Ok(()) }
/// ```
#[derive(Clone)]
pub struct Config {
    source: Arc<Source>,
    principals: HashMap<String, Principal>,
    rules: Vec<(String, Draft)>,
    otherwise: Option<Draft>,
    store: Option<Store>,
    /// All else, over a store that nobody uses.
    settings: Settings,
}

struct Source {
    name: String,
    text: String,
}

#[derive(Clone, Copy, Default)]
struct Store {
    capacity: Option<u64>,
    max_entries: Option<u64>,
    eviction: Eviction,
}

/// The size of a store in memory where nobody says it.
const CAPACITY: u64 = 256 << 20;

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`] if it can't be read, or says anything that is unknown, malformed or contradictory.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| ConfigError::Read { file: path.into(), source })?;
        Self::read(path.display().to_string(), text)
    }

    /// Gives the closure for the principal that rules with `audience = "per"` name so. As for [`Policy::per`], it names whom an answer is for; a
    /// request without a principal bypasses.
    ///
    /// At a reload, entries go on to answer where the closure under a name is the same as before and captures nothing; where it captures
    /// something, it may be another one, and the entries of its rules aren't used any more.
    #[must_use]
    pub fn principal<P: AsRef<[u8]>>(
        mut self,
        name: &str,
        principal: impl Fn(&RequestHead<'_>) -> Option<P> + Send + Sync + 'static,
    ) -> Self {
        self.principals.insert(name.into(), Principal::new(principal));
        self
    }

    /// The principals that rules of this text name, each once: those that [`principal`](Self::principal) has to give.
    pub fn principals(&self) -> impl Iterator<Item = &str> {
        let drafts = self.rules.iter().map(|(_, draft)| draft).chain(&self.otherwise);
        let names: std::collections::BTreeSet<_> =
            drafts.filter_map(|draft| Some(draft.principal.as_ref()?.name.as_str())).collect();
        names.into_iter()
    }

    /// The bytes that the store in memory may hold, whatever the text says: for a program with a word of its own about its memory.
    #[must_use]
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.store.get_or_insert_default().capacity = Some(bytes);
        self
    }

    fn read(name: String, text: String) -> Result<Self, ConfigError> {
        let source = Source { name, text };
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        let findings = Findings::default();
        for error in &errors {
            findings.add(error.span().unwrap_or_default(), "", format!("this is no TOML: {}", error.message()));
        }
        // What follows a mistake in the syntax may only seem to be wrong.
        let read = errors.is_empty().then(|| Contents::read(&table, &findings));
        let found = findings.into_sorted();
        match read {
            Some(Contents { rules, otherwise, store, settings }) if found.is_empty() => {
                let source = Arc::new(source);
                Ok(Self { source, principals: HashMap::new(), rules, otherwise, store, settings })
            }
            _ => Err(source.invalid(found)),
        }
    }

    /// The settings of this text over the store, the clock and the switches of code that `base` has.
    pub(crate) fn settings_over(&self, base: &Settings) -> Result<Settings, ConfigError> {
        let mut missing = Vec::new();
        let mut policy = |draft: &Draft| {
            self.complete(draft).unwrap_or_else(|found| {
                missing.push(found);
                Policy::bypass()
            })
        };
        let rules: Vec<_> = self.rules.iter().map(|(pattern, draft)| (pattern, policy(draft))).collect();
        let otherwise = self.otherwise.as_ref().map_or_else(Policy::from_origin, policy);
        if !missing.is_empty() {
            return Err(self.source.invalid(missing));
        }
        let mut settings = self.settings.clone();
        settings.rules = rules.into_iter().filter_map(|(pattern, policy)| Rule::new(pattern, policy).ok()).collect();
        settings.otherwise = otherwise;
        settings.clock = base.clock.clone();
        settings.outcome_extension = base.outcome_extension;
        settings.observe_answers = base.observe_answers;
        settings.query = base.query.clone();
        settings.partition_secret = base.partition_secret;
        settings.backend = match self.store {
            Some(store) => Backend { near: Some(Arc::new(store.build())), far: base.backend.far.clone() },
            None => base.backend.clone(),
        };
        Ok(settings)
    }

    /// The policy with the principal that code gave.
    fn complete(&self, draft: &Draft) -> Result<Policy, Found> {
        let Some(named) = &draft.principal else { return Ok(draft.policy.clone()) };
        match self.principals.get(&named.name) {
            Some(principal) => {
                let principal = principal.clone().known_as(&named.name);
                Ok(draft.policy.clone().with_principal(principal, named.ttl))
            }
            None => {
                let message = format!("the application gives no principal \"{}\"", named.name.escape_debug());
                let names: Vec<_> = self.principals.keys().map(String::as_str).collect();
                let hint = match reader::nearest(&named.name, &names) {
                    Some(near) => format!("; did you mean \"{near}\"?"),
                    None => "; in code: `Config::principal`".into(),
                };
                Err(Found { span: named.span.clone(), field: named.field.clone(), message: message + &hint })
            }
        }
    }
}

impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Self::read("configuration".into(), text.into())
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("source", &self.source.name).finish_non_exhaustive()
    }
}

impl Source {
    fn invalid(&self, found: Vec<Found>) -> ConfigError {
        let locate = |found| Problem::locate(&self.name, &self.text, found);
        ConfigError::Invalid(found.into_iter().map(locate).collect())
    }
}

impl Store {
    fn read(section: &Section<'_>) -> Self {
        let eviction = section.field("eviction");
        Self {
            capacity: section.size("capacity"),
            max_entries: section.field("max_entries").and_then(|field| field.number(1)),
            eviction: eviction
                .and_then(|field| field.word(&[("tiny_lfu", Eviction::TinyLfu), ("lru", Eviction::Lru)]))
                .unwrap_or_default(),
        }
    }

    fn build(self) -> MemoryStore {
        let store = MemoryStore::new(self.capacity.unwrap_or(CAPACITY)).eviction(self.eviction);
        match self.max_entries {
            Some(most) => store.max_entries(most),
            None => store,
        }
    }
}

impl CacheLayer {
    /// A cache as a file says: in memory, of 256 MiB where the file doesn't say another size.
    ///
    /// # Errors
    /// [`ConfigError`] if a rule names a principal that wasn't [given](Config::principal).
    pub fn from_config(config: &Config) -> Result<Self, ConfigError> {
        Self::in_memory(CAPACITY).configured(config)
    }

    /// Sets this layer up as a file says: its rules and all other settings take the place of those given so far. The clock and
    /// [`outcome_extension`](Self::outcome_extension) stay, and so does the store unless the file has a `[store]`, which is one in memory.
    ///
    /// # Errors
    /// [`ConfigError`] if a rule names a principal that wasn't [given](Config::principal), or if the file sets up a store and this layer has one that
    /// isn't in memory.
    pub fn configured(self, config: &Config) -> Result<Self, ConfigError> {
        let settings = config.settings_over(self.settings())?;
        // A store of one's own gets no memory before it by a file.
        if self.settings().backend.near.is_none() && settings.backend.near.is_some() {
            let differs = self.settings().backend.differs(&settings.backend);
            let error =
                differs.map(|(field, running, wanted)| crate::reload::ReloadError::Store { field, running, wanted });
            return error.map_or(Ok(self), |error| Err(error.into()));
        }
        Ok(self.with_settings(settings))
    }
}

impl CacheHandle {
    /// Sets the running cache up as a file says, which may have changed; with all that [`reconfigure`](Self::reconfigure) says about it. What only code
    /// can set (the clock, [`outcome_extension`](CacheLayer::outcome_extension), a store of one's own) stays.
    ///
    /// A file with a mistake doesn't come so far: [`Config::from_file`] refuses it, and the cache goes on as it was.
    ///
    /// ```no_run
    /// # fn reload(handle: &larder::CacheHandle) -> Result<(), larder::ConfigError> {
    /// let reload = handle.reload(&larder::Config::from_file("larder.toml")?)?;
    /// println!("{reload}"); // rule "^/news/": ttl 60s -> 30s
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ConfigError`] if a rule names a principal that wasn't given, or the store would have to change. Nothing is changed then.
    pub fn reload(&self, config: &Config) -> Result<Reload, ConfigError> {
        self.live.reload(|running| config.settings_over(running))
    }
}

/// What a text says.
struct Contents {
    rules: Vec<(String, Draft)>,
    otherwise: Option<Draft>,
    store: Option<Store>,
    settings: Settings,
}

impl Contents {
    fn read<'d>(table: &'d Spanned<DeTable<'d>>, findings: &'d Findings) -> Self {
        let root = Section::root(table, findings);
        let section = |name| root.field(name).and_then(|field| field.section());
        let mut settings = Settings::new(Backend::memory(MemoryStore::new(0)));
        read_general(&root, &mut settings);
        let sections = [
            section("headers").map(|section| read_headers(section, &mut settings)),
            section("limits").map(|section| read_limits(section, &mut settings)),
        ];
        sections.into_iter().flatten().for_each(|section| section.finish());
        if let Some(section) = section("compression") {
            settings.compression = compression::read(&section);
            section.finish();
        }
        #[cfg(feature = "data")]
        if let Some(section) = section("data") {
            settings.data = data::read(&section);
        }
        let store = section("store").map(read_store);
        let sets = section("keys").map(read_key_sets).unwrap_or_default();
        let rules = root.field("rule").map(|field| read_rules(&field, &sets)).unwrap_or_default();
        let otherwise = section("otherwise").and_then(|section| {
            let draft = policy::read(&section, &sets, None);
            section.finish();
            draft
        });
        root.finish();
        Self { rules, otherwise, store, settings }
    }
}

fn read_general(root: &Section<'_>, settings: &mut Settings) {
    if root.boolean("strict_rfc") == Some(true) {
        settings.follow_the_letter();
    }
    if let Some(on) = root.boolean("heuristics") {
        settings.heuristics = on;
    }
    if let Some(on) = root.boolean("no_vary_search") {
        settings.no_vary_search = on;
    }
    if let Some(on) = root.boolean("propagate_tags") {
        settings.propagate_tags = on;
    }
    let set = |names: &mut Vec<HeaderName>, field| {
        if let Some(read) = root.header_names(field) {
            *names = read;
        }
    };
    set(&mut settings.targets, "targeted_fields");
    set(&mut settings.never_stored, "never_store");
    set(&mut settings.replayed, "replay");
}

fn read_headers<'d>(section: Section<'d>, settings: &mut Settings) -> Section<'d> {
    let switches = &mut settings.switches;
    for (name, switch) in [
        ("age", &mut switches.age),
        ("x_cache", &mut switches.x_cache),
        ("x_cache_age", &mut switches.x_cache_age),
        ("cache_status", &mut switches.cache_status),
        ("warning", &mut switches.warning),
    ] {
        *switch = section.boolean(name).unwrap_or(*switch);
    }
    settings.forward_tags = section.boolean("forward_tags").unwrap_or_default();
    if let Some(field) = section.field("name")
        && let Some(name) = field.text()
    {
        if !is_cache_name(name) {
            field.wrong("it is a token that begins with a letter, such as \"larder\" (RFC 9110 §5.6.2)");
        }
        switches.name = name.into();
    }
    section
}

fn read_limits<'d>(section: Section<'d>, settings: &mut Settings) -> Section<'d> {
    for (name, limit) in [
        ("max_body_size", &mut settings.max_body_size),
        ("max_head_size", &mut settings.max_head_size),
        ("max_fill_bytes", &mut settings.max_fill_bytes),
        ("eager_etag_size", &mut settings.eager_etag_size),
        ("max_query_content", &mut settings.max_query_content),
    ] {
        *limit = section.size(name).map_or(*limit, |size| usize::try_from(size).unwrap_or(usize::MAX));
    }
    for (name, limit) in [
        ("max_wait", &mut settings.max_wait),
        ("max_fill_age", &mut settings.max_fill_age),
        ("max_lease_wait", &mut settings.max_lease_wait),
        ("staleness_bound", &mut settings.staleness_bound),
    ] {
        *limit = section.duration(name).unwrap_or(*limit);
    }
    settings.near_ttl = section.duration("near_ttl");
    for (name, limit, least) in [
        ("max_variants", &mut settings.max_variants, 1),
        ("max_refreshes", &mut settings.max_refreshes, 0),
        ("max_waiting", &mut settings.max_waiting, 0),
    ] {
        let read = section.field(name).and_then(|field| field.number(least));
        *limit = read.map_or(*limit, |number| usize::try_from(number).unwrap_or(usize::MAX));
    }
    section
}

fn read_store(section: Section<'_>) -> Store {
    if let Some(field) = section.field("kind") {
        field.word(&[("memory", ())]);
    }
    let store = Store::read(&section);
    section.finish();
    store
}

fn read_key_sets(section: Section<'_>) -> KeySets<'_> {
    let mut sets = KeySets::new();
    for (name, field) in section.free() {
        let Some(set) = field.section() else { continue };
        // Once by itself, so that a set that no rule names is checked too.
        drop(policy::own_keys(Policy::from_origin(), &set));
        set.finish();
        sets.insert(name.get_ref().to_string(), set);
    }
    sets
}

fn read_rules(field: &Field<'_>, sets: &KeySets<'_>) -> Vec<(String, Draft)> {
    let seen = RefCell::new(Vec::new());
    field.list(|each| {
        let section = each.section()?;
        let pattern = read_pattern(&section, &each.path, &mut seen.borrow_mut());
        let regex = pattern.as_deref().and_then(|pattern| Regex::new(pattern).ok());
        let draft = policy::read(&section, sets, regex.as_ref());
        section.finish();
        pattern.zip(draft)
    })
}

/// The pattern of a rule. A second rule with one that was `seen` would never be asked.
fn read_pattern(section: &Section<'_>, rule: &str, seen: &mut Vec<(String, String)>) -> Option<String> {
    let Some(field) = section.field("path") else {
        section.wrong("`path` is missing: a regular expression over the path, such as \"^/products/\"");
        return None;
    };
    let pattern = field.text()?;
    if let Err(RuleError::Pattern { source, .. }) = Rule::new(pattern, Policy::from_origin()) {
        let text = source.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        field.wrong(format!("this is not a regular expression: {reason}"));
    } else if let Some((_, first)) = seen.iter().find(|(known, _)| known == pattern) {
        field.wrong(format!("{first} has the same pattern and comes first, so this one would never count"));
    }
    seen.push((pattern.into(), rule.into()));
    Some(pattern.into())
}
