//! The workloads, each as what its setup, its load and its clients are.

use larder_peers::setup::{Setup, Subject};

use crate::arguments::Arguments;
use crate::check::Asking;
use crate::wrk::Load;

pub struct Workload {
    pub id: String,
    pub title: String,
    pub kind: Kind,
}

pub enum Kind {
    /// As many requests as the server can take.
    Rate(Rate),
    /// Very many at once for a key that nobody has asked for.
    Herd { clients: usize, delay_ms: u64 },
    /// What an entry takes.
    Memory { entries: u64, size: usize },
    /// Calls of the service, without a network.
    InProcess,
}

#[derive(Clone)]
pub struct Rate {
    pub size: usize,
    pub keys: u64,
    pub order: Order,
    pub asking: Asking,
    pub purging: bool,
    /// What differs from hits of a long lifetime, for all but the bare server's constants.
    pub change: fn(&mut Setup),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    One,
    Many,
    Zipf,
    Fresh,
}

impl Rate {
    fn hits(size: usize, keys: u64) -> Self {
        let order = if keys == 1 { Order::One } else { Order::Many };
        Self { size, keys, order, asking: Asking::Plainly, purging: false, change: |_| {} }
    }

    pub fn setup(&self, subject: Subject) -> Setup {
        let mut setup = Setup::of(subject, self.size, self.keys);
        (self.change)(&mut setup);
        setup
    }

    pub fn load(&self, round: usize) -> Load {
        let seed = round as u64 + 1;
        match self.order {
            Order::One => Load::One,
            Order::Many => Load::Many { keys: self.keys, seed },
            Order::Zipf => Load::Zipf { keys: self.keys, seed },
            Order::Fresh => Load::Fresh { first: seed * 1_000_000_000, count: 1_000_000_000 },
        }
    }

    pub fn takes(&self, subject: Subject) -> bool {
        // It says what many keys cost alone, and is no server that anybody would run.
        subject != Subject::BareOneBody || matches!(self.order, Order::Many | Order::Zipf)
    }
}

/// All of them; quick ones have fewer keys.
pub fn all(arguments: &Arguments) -> Vec<Workload> {
    let scaled = |number: u64, quick: u64| if arguments.quick { quick } else { number };
    let many = scaled(10_000, 2_000);
    let mut all = Vec::new();
    let mut add = |id: &str, title: String, kind: Kind| all.push(Workload { id: id.into(), title, kind });
    for (name, size, bytes) in [("200", 200, "200 B"), ("10k", 10 << 10, "10 KiB"), ("100k", 100 << 10, "100 KiB")] {
        let id = |keys: &str| format!("hits-{name}-{keys}");
        add(&id("one"), format!("Hits, {bytes}, one key"), Kind::Rate(Rate::hits(size, 1)));
        add(&id("many"), format!("Hits, {bytes}, {} keys", grouped(many)), Kind::Rate(Rate::hits(size, many)));
    }
    let keys = scaled(1_000_000, 20_000);
    let zipf = Rate { order: Order::Zipf, ..Rate::hits(200, keys) };
    add("zipf", format!("Hits, 200 B, {} keys by Zipf's law", grouped(keys)), Kind::Rate(zipf));

    let ten = 10 << 10;
    let conditional = Rate { asking: Asking::Conditionally, ..Rate::hits(ten, 1) };
    add("conditional", "Clients that have it already, 10 KiB; bare answers 200".into(), Kind::Rate(conditional));
    let gzip = Rate { asking: Asking::Gzip, change: |setup| setup.gzip = true, ..Rate::hits(ten, 1) };
    add("gzip", "Clients that accept gzip, 10 KiB; bare has it compressed".into(), Kind::Rate(gzip));
    let misses = Rate { order: Order::Fresh, change: missing, ..Rate::hits(ten, 1) };
    add("misses", "Misses, 10 KiB with an ETag; bare does the handler's work".into(), Kind::Rate(misses));

    let churn = Rate { change: churning, ..Rate::hits(ten, many) };
    let title = format!("Stale while revalidated: {} keys that live a second, 10 KiB, handler 5 ms", grouped(many));
    add("stale", title, Kind::Rate(churn));
    let storm = Rate { purging: true, change: |setup| setup.stamped = true, ..Rate::hits(ten, many) };
    add(
        "purges",
        format!("Hits among {} keys beside purges, 10 KiB; bare has no purges", grouped(many)),
        Kind::Rate(storm),
    );

    let clients = scaled(1_000, 200) as usize;
    add(
        "herd",
        format!("{} at once for a new key, 10 KiB, handler 100 ms", grouped(clients as u64)),
        Kind::Herd { clients, delay_ms: 100 },
    );
    let entries = scaled(100_000, 5_000);
    add(
        "memory",
        format!("Memory of each of {} entries of 1 KiB", grouped(entries)),
        Kind::Memory { entries, size: 1 << 10 },
    );
    add("in-process", "In process".into(), Kind::InProcess);
    all
}

/// The handler works for the bare server as well, but has its contents ready; stores are full before long.
fn missing(setup: &mut Setup) {
    setup.working = true;
    setup.rendered = false;
    setup.capacity = 256 << 20;
    setup.entries = 20_000;
}

fn churning(setup: &mut Setup) {
    setup.ttl = 1;
    setup.swr = 60;
    setup.delay_ms = 5;
    setup.stamped = true;
}

pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
