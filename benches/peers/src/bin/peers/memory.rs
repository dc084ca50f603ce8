//! What an entry takes: by how much a server grows, with all that belongs to it.

use std::thread::sleep;
use std::time::Duration;

use larder_peers::content;
use larder_peers::setup::{Setup, Subject};

use crate::arguments::Arguments;
use crate::check::{Asking, Found};
use crate::client::Client;
use crate::results::{Better, Figure, Row, Table};
use crate::rounds::fill;
use crate::servers::Server;
use crate::workloads::Workload;

const FIGURE: Figure = Figure { name: "bytes/entry", better: Better::Low, compared: false };
/// Asked for before, so that connections, threads and buffers are there.
const BEFORE: u64 = 1_000;

pub fn measure(workload: &Workload, entries: u64, size: usize, arguments: &Arguments) -> Table {
    let subjects = arguments.subjects.iter().copied().filter(|subject| !subject.is_bare());
    let rows = subjects.map(|subject| {
        eprintln!("  {}", subject.id());
        let mut row = Row::new(subject, 1);
        match growth(&mut row, entries, size, arguments) {
            Ok(bytes) => row.samples[0].push(bytes / entries as f64),
            Err(error) => row.missing = Some(error),
        }
        row
    });
    let rows = rows.collect();
    Table { id: workload.id.clone(), title: workload.title.clone(), figures: vec![FIGURE], rows }
}

fn growth(row: &mut Row, entries: u64, size: usize, arguments: &Arguments) -> Result<f64, String> {
    let setup = Setup::of(row.subject, size, entries + BEFORE);
    let server = Server::start(&setup, arguments.server_core)?;
    fill(&server, BEFORE, &[], arguments)?;
    sleep(SETTLING);
    let before = server.memory();
    fill(&server, BEFORE + entries, &[], arguments)?;
    sleep(SETTLING);
    let after = server.memory();
    look(row, &server, entries)?;
    if row.subject == Subject::Nginx {
        row.note("in files of whole blocks, which are counted");
    }
    Ok(after as f64 - before as f64)
}

const SETTLING: Duration = Duration::from_millis(1500);

/// Some of them are asked for once more, and have to be there.
fn look(row: &mut Row, server: &Server, entries: u64) -> Result<(), String> {
    const LOOKS: u64 = 300;
    let calls = server.calls()?;
    let mut client = Client::new(server.address);
    for look in 0..LOOKS {
        let key = content::mixed(look) % (entries + BEFORE);
        client.get(&format!("/item/{key}"), &[])?;
    }
    row.wrong.extend(Found::once(server, entries / 2, Asking::Plainly).err());
    row.checked += 1;
    let missed = server.calls()?.saturating_sub(calls);
    if missed > 0 {
        row.note(format!("{missed} of {LOOKS} were not there"));
    }
    Ok(())
}
