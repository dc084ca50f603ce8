//! Measures larder beside other HTTP caches, and all of them beside the same server without one. docs/peers.md says how.

mod arguments;
mod check;
mod client;
mod herd;
mod in_process;
mod machine;
mod markdown;
mod memory;
mod picture;
mod process;
mod reasons;
mod results;
mod rounds;
mod servers;
mod storm;
mod workloads;
mod wrk;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use larder_peers::setup::Subject;
use serde::Serialize;

use crate::arguments::{Arguments, USAGE};
use crate::machine::Machine;
use crate::results::{Figure, Row, Spread, Table};
use crate::workloads::{Kind, Workload};

fn main() -> ExitCode {
    if std::env::args().any(|word| word == "--help" || word == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match Arguments::parse(std::env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("larder or the bare server was wrong, or wasn't measured: see the remarks");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Whether larder was measured everywhere, and every answer of it was right. What peers do wrong stands in the table.
fn run(arguments: &Arguments) -> Result<bool, String> {
    let workloads = workloads::all(arguments);
    if arguments.list {
        workloads.iter().for_each(|workload| println!("{:<16} {}", workload.id, workload.title));
        Subject::ALL.iter().for_each(|subject| println!("{:<24} {}", subject.id(), subject.name()));
        return Ok(true);
    }
    // As many connections as a crowd has, and its server's.
    rlimit::increase_nofile_limit(u64::MAX).map_err(|error| error.to_string())?;
    let machine = Machine::look();
    let mut tables = Vec::new();
    for workload in workloads.iter().filter(|workload| arguments.wants(&workload.id)) {
        eprintln!("== {}", workload.title);
        tables.extend(measure(workload, arguments)?);
        // What was measured isn't lost if what comes after fails.
        write(&machine, &tables, arguments)?;
    }
    println!("{}", markdown::document(&machine, &tables, &how(arguments)));
    // What everything is held against has to be right as well.
    let own = |row: &&Row| row.subject.is_larder() || row.subject.is_bare();
    let mut rows = tables.iter().flat_map(|table| &table.rows).filter(own);
    Ok(rows.all(|row| row.wrong.is_empty() && row.missing.is_none()))
}

fn measure(workload: &Workload, arguments: &Arguments) -> Result<Vec<Table>, String> {
    Ok(match &workload.kind {
        Kind::Rate(rate) => vec![rounds::measure(workload, rate, arguments)],
        Kind::Herd { clients, delay_ms } => vec![herd::measure(workload, *clients, *delay_ms, arguments)],
        Kind::Memory { entries, size } => vec![memory::measure(workload, *entries, *size, arguments)],
        Kind::InProcess => in_process::measure(arguments)?,
    })
}

fn how(arguments: &Arguments) -> String {
    let Arguments { rounds, seconds, connections, .. } = arguments;
    let quick = if arguments.quick { ", quick: these figures say nothing" } else { "" };
    format!("{rounds} interleaved rounds of {seconds} s, {connections} connections{quick}")
}

#[derive(Serialize)]
struct Results<'a> {
    machine: &'a Machine,
    how: String,
    /// What the tables say, reckoned from the samples of the rounds.
    summary: Vec<Summary<'a>>,
    tables: &'a [Table],
}

#[derive(Serialize)]
struct Summary<'a> {
    workload: &'a str,
    subject: Subject,
    figure: &'static str,
    median: f64,
    to_bare: Option<Spread>,
}

fn summary(table: &Table) -> impl Iterator<Item = Summary<'_>> {
    let of = move |row, place: usize, figure: &Figure| {
        let to_bare = if figure.compared { table.ratio(row, place) } else { None };
        let median = table.median(row, place)?;
        Some(Summary { workload: &table.id, subject: row.subject, figure: figure.name, median, to_bare })
    };
    let rows = table.rows.iter();
    rows.flat_map(move |row| table.figures.iter().enumerate().filter_map(move |(place, figure)| of(row, place, figure)))
}

fn write(machine: &Machine, tables: &[Table], arguments: &Arguments) -> Result<(), String> {
    let how = how(arguments);
    let text = markdown::document(machine, tables, &how);
    let json = serde_json::to_string_pretty(&Results {
        machine,
        how,
        summary: tables.iter().flat_map(summary).collect(),
        tables,
    })
    .map_err(|error| error.to_string())?;
    let picture = picture::picture(tables);
    let save = |directory: &Path, name: &str, content: &str| {
        fs::write(directory.join(name), content).map_err(|error| format!("{}: {error}", directory.display()))
    };
    for directory in [&arguments.out, &arguments.docs].into_iter().flatten() {
        fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        save(directory, "peers.json", &json)?;
        save(directory, "peers.svg", &picture)?;
    }
    if let Some(directory) = &arguments.out {
        save(directory, "peers.md", &text)?;
    }
    arguments.docs.iter().try_for_each(|directory| markdown::insert(&directory.join("peers.md"), &text))
}
