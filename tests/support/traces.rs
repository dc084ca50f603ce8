//! The spans and events of a test, as values.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{Layer, Registry};

pub type Fields = BTreeMap<String, String>;

/// A span of larder's.
#[derive(Clone, Debug, Default)]
pub struct Span {
    pub id: u64,
    pub name: &'static str,
    pub fields: Fields,
    /// The spans that it said to follow.
    pub follows: Vec<u64>,
    pub closed: bool,
}

#[derive(Default)]
struct Seen {
    spans: Vec<Span>,
    events: Vec<Fields>,
}

/// Everything that this thread traces under the target `larder` from now on, until it is dropped.
pub struct Traces {
    seen: Collector,
    _guard: DefaultGuard,
}

/// Has somebody listen in the whole process, whether or not a test wants to know: what is traced for the first time while nobody does is taken for what nobody wants, and may stay so. Each
/// test of a file that traces begins with it, or with [`Traces::new`].
pub fn listen() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Registry::default()).expect("nobody else does"));
}

impl Traces {
    pub fn new() -> Self {
        listen();
        let seen = Collector::default();
        let subscriber = Registry::default().with(seen.clone());
        Self { seen, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// The spans with this name, in the order in which they began.
    pub fn spans(&self, name: &str) -> Vec<Span> {
        self.seen.lock().spans.iter().filter(|span| span.name == name).cloned().collect()
    }

    /// The fields of all events.
    pub fn events(&self) -> Vec<Fields> {
        self.seen.lock().events.clone()
    }

    /// Whether a span or an event has this value in this field.
    pub fn say(&self, field: &str, value: &str) -> bool {
        let seen = self.seen.lock();
        let mut all = seen.spans.iter().map(|span| &span.fields).chain(&seen.events);
        all.any(|fields| fields.get(field).is_some_and(|said| said == value))
    }
}

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Seen>>);

impl Collector {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("no holder panics")
    }

    /// An id is given anew when its span is closed, so the last one is meant.
    fn with(&self, id: &Id, change: impl FnOnce(&mut Span)) {
        if let Some(span) = self.lock().spans.iter_mut().rev().find(|span| span.id == id.into_u64()) {
            change(span);
        }
    }
}

impl<S: Subscriber> Layer<S> for Collector {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        if attributes.metadata().target() != "larder" {
            return;
        }
        let mut span = Span { id: id.into_u64(), name: attributes.metadata().name(), ..Span::default() };
        attributes.record(&mut Values(&mut span.fields));
        self.lock().spans.push(span);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        self.with(id, |span| values.record(&mut Values(&mut span.fields)));
    }

    fn on_follows_from(&self, id: &Id, followed: &Id, _: Context<'_, S>) {
        self.with(id, |span| span.follows.push(followed.into_u64()));
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::new();
        event.record(&mut Values(&mut fields));
        self.lock().events.push(fields);
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        self.with(&id, |span| span.closed = true);
    }
}

struct Values<'a>(&'a mut Fields);

impl Visit for Values<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().into(), format!("{value:?}"));
    }
}
