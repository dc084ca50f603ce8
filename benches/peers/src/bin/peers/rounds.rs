//! Interleaved rounds: all subjects run at once, and one after another is loaded, so that what the machine does meanwhile meets all of them.

use std::thread::sleep;
use std::time::{Duration, Instant};

use larder_peers::setup::Setup;

use crate::arguments::Arguments;
use crate::check::{Asking, Checker, Found, Keys};
use crate::results::{Better, Figure, Row, Table};
use crate::servers::Server;
use crate::storm::Storm;
use crate::workloads::{Order, Rate, Workload};
use crate::wrk::{Load, Run, Wrk};

const FIGURES: [Figure; 4] = [
    Figure { name: "requests/s", better: Better::High, compared: true },
    Figure { name: "CPU µs/request", better: Better::Low, compared: true },
    Figure { name: "p99 ms", better: Better::Neither, compared: false },
    Figure { name: "server busy", better: Better::Neither, compared: false },
];
const PURGES: Figure = Figure { name: "purges/s", better: Better::Neither, compared: false };

/// How long filling a cache may take.
const FILLING: Duration = Duration::from_secs(180);

pub fn measure(workload: &Workload, rate: &Rate, arguments: &Arguments) -> Table {
    let mut figures = FIGURES.to_vec();
    if rate.purging {
        figures.push(PURGES);
    }
    let mut subjects: Vec<Measured> = Vec::new();
    for subject in arguments.subjects.iter().copied().filter(|subject| rate.takes(*subject)) {
        eprint!("  {}", subject.id());
        let mut row = Row::new(subject, figures.len());
        let server = prepare(&mut row, rate, arguments);
        row.missing = server.as_ref().err().cloned();
        eprintln!("{}", row.missing.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default());
        subjects.push(Measured { row, server: server.ok() });
    }
    for round in 0..arguments.rounds {
        eprintln!("  round {} of {}", round + 1, arguments.rounds);
        // Nobody is always the first, or always behind the same one.
        let count = subjects.len();
        for place in 0..count {
            subjects[(place + round) % count].sample(rate, round, arguments);
        }
    }
    let rows = subjects.into_iter().map(|subject| subject.row).collect();
    Table { id: workload.id.clone(), title: workload.title.clone(), figures, rows }
}

struct Measured {
    row: Row,
    server: Option<Server>,
}

/// Starts the server, and fills it.
fn prepare(row: &mut Row, rate: &Rate, arguments: &Arguments) -> Result<Server, String> {
    let subject = row.subject;
    let setup = rate.setup(subject);
    let server = Server::start(&setup, arguments.server_core)?;
    let first = Found::once(&server, 0, rate.asking);
    row.wrong.extend(first.err());
    if !subject.is_bare() && matches!(rate.order, Order::Many | Order::Zipf) {
        let filled = fill(&server, rate.keys, &rate.asking.fields(0, &setup), arguments)?;
        if filled < rate.keys {
            row.note(format!("had {filled} keys after {FILLING:?}"));
        }
    }
    // Some store, and compress, behind the answer.
    sleep(Duration::from_millis(300));
    Ok(server)
}

/// Asks for every key once; how many it were when the time was over.
pub fn fill(
    server: &Server,
    keys: u64,
    headers: &[(&'static str, String)],
    arguments: &Arguments,
) -> Result<u64, String> {
    let wrk = Wrk { core: arguments.client_core, connections: arguments.connections, seconds: 1, headers };
    let (start, mut asked) = (Instant::now(), 0);
    while asked < keys && start.elapsed() < FILLING {
        // Around and around, for what was on its way at the end of a run was not answered.
        let first = asked.saturating_sub(arguments.connections as u64);
        let run = wrk.run(server.address, Load::Fresh { first, count: keys - first })?;
        if run.requests == 0 {
            return Err("it answered nothing while it was filled".into());
        }
        asked = first + run.requests;
    }
    Ok(asked.min(keys))
}

impl Measured {
    fn sample(&mut self, rate: &Rate, round: usize, arguments: &Arguments) {
        let Some(server) = &self.server else { return };
        let sampled = Sample::take(server, rate, round, arguments);
        match sampled {
            Ok(sample) => sample.enter(&mut self.row, &server.setup, rate),
            Err(error) => self.row.wrong.push(error),
        }
    }
}

struct Sample {
    run: Run,
    cpu: Duration,
    calls: u64,
    found: Found,
    purges: Option<crate::storm::Purged>,
}

impl Sample {
    fn take(server: &Server, rate: &Rate, round: usize, arguments: &Arguments) -> Result<Self, String> {
        let headers = rate.asking.fields(0, &server.setup);
        let wrk = Wrk {
            core: arguments.client_core,
            connections: arguments.connections,
            seconds: arguments.seconds,
            headers: &headers,
        };
        let keys = match rate.order {
            Order::Fresh => Keys::From((round as u64 + 1) << 50),
            _ => Keys::Of(rate.keys),
        };
        let (calls, cpu) = (server.calls()?, server.cpu());
        let checker = Checker::start(server, keys, rate.asking);
        let storm = (rate.purging && !server.setup.subject.is_bare()).then(|| Storm::start(server, rate.keys));
        let run = wrk.run(server.address, rate.load(round));
        let purges = storm.map(Storm::stop);
        let found = checker.stop();
        let cpu = server.cpu().saturating_sub(cpu);
        let calls = server.calls()?.saturating_sub(calls);
        Ok(Self { run: run?, cpu, calls, found, purges })
    }

    fn enter(self, row: &mut Row, setup: &Setup, rate: &Rate) {
        let Self { run, cpu, calls, found, purges } = self;
        let purged = purges.as_ref().map_or(0, |purged| purged.purges);
        let answers = (run.requests + found.checked + purged).max(1) as f64;
        let cpu = cpu.as_secs_f64();
        let mut figures =
            vec![run.requests as f64 / run.seconds, cpu * 1e6 / answers, run.p99 / 1e3, cpu / run.seconds];
        if rate.purging {
            figures.push(purged as f64 / run.seconds);
        }
        row.samples.iter_mut().zip(figures).for_each(|(samples, figure)| samples.push(figure));
        row.checked += found.checked + purged;
        notes(row, setup, rate, &found, calls as f64 / answers);
        row.wrong.extend(found.wrong);
        row.wrong.extend(purges.into_iter().flat_map(|purged| purged.wrong));
        if run.statuses + run.sockets > 0 {
            row.wrong.push(format!("wrk had {} errors by status and {} of sockets", run.statuses, run.sockets));
        }
        // On the average, every answer has a content and a head.
        let bytes = run.bytes / run.requests.max(1) as f64;
        let (least, most) = (setup.size as f64, setup.size as f64 + 2048.0);
        if rate.asking == Asking::Plainly && !(least..most).contains(&bytes) {
            row.wrong.push(format!("answers had {bytes:.0} bytes on the average"));
        }
    }
}

fn notes(row: &mut Row, setup: &Setup, rate: &Rate, found: &Found, handled: f64) {
    let is_cache = !row.subject.is_bare();
    if rate.asking == Asking::Conditionally && found.not_modified == 0 && is_cache {
        row.note("answers 200");
    }
    if rate.asking == Asking::Gzip && found.coded == 0 {
        row.note("doesn't compress");
    }
    if is_cache && setup.swr > 0 {
        row.note(format!("{:.0} % from the handler", 100.0 * handled));
    }
    let only_hits = rate.order != Order::Fresh && setup.swr == 0 && !rate.purging;
    if is_cache && only_hits && handled > 0.001 {
        row.note(format!("{:.1} % were misses", 100.0 * handled));
    }
    if is_cache && rate.order == Order::Fresh && handled < 0.99 {
        row.wrong.push(format!("only {:.1} % were misses", 100.0 * handled));
    }
}
