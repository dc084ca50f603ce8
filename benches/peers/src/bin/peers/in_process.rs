//! Runs the measurements without a network, which are programs of their own, and makes tables of what they print.

use std::process::Command;

use larder_peers::in_process::{Case, Outcome, comparisons};

use crate::arguments::Arguments;
use crate::results::{Better, Figure, Row, Table};

const FIGURES: [Figure; 4] = [
    Figure { name: "ns", better: Better::Low, compared: true },
    Figure { name: "ns, two threads", better: Better::Low, compared: true },
    Figure { name: "scaling", better: Better::Neither, compared: false },
    Figure { name: "allocations", better: Better::Low, compared: false },
];

pub fn measure(arguments: &Arguments) -> Result<Vec<Table>, String> {
    let (rounds, calls) = if arguments.quick { ("5", "1000") } else { ("41", "5000") };
    let mut outcomes = run("nanoseconds", &[rounds, calls], arguments)?;
    outcomes.extend(run("allocations", &[], arguments)?);
    Ok(comparisons().iter().enumerate().map(|(n, cases)| table(n, cases, &outcomes)).collect())
}

/// On both cores, whatever this program is bound to.
fn run(program: &str, words: &[&str], arguments: &Arguments) -> Result<Vec<Outcome>, String> {
    eprintln!("  {program}");
    let path = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name(program);
    let mut command = Command::new("taskset");
    command.args(["-c", &format!("{},{}", arguments.server_core, arguments.client_core)]).arg(path).args(words);
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).map_err(|error| format!("{line}: {error}"))).collect()
}

fn table(number: usize, cases: &[Case], outcomes: &[Outcome]) -> Table {
    let title = cases.first().map(Case::title).unwrap_or_default();
    let rows = cases.iter().map(|case| row(case, outcomes)).collect();
    Table { id: format!("in-process-{}", number + 1), title, figures: FIGURES.into(), rows }
}

fn row(case: &Case, outcomes: &[Outcome]) -> Row {
    let nanoseconds = |threads: usize| {
        let outcome = outcomes.iter().find(|outcome| outcome.threads == threads && outcome.case == *case);
        outcome.map(|outcome| outcome.nanoseconds.clone()).unwrap_or_default()
    };
    let (one, two) = (nanoseconds(1), nanoseconds(2));
    let scaling = one.iter().zip(&two).map(|(one, two)| 2.0 * one / two).collect();
    let of_one_key = Case { keys: 1, ..case.clone() };
    let counted = outcomes.iter().filter(|outcome| outcome.case == of_one_key);
    let allocations = counted.filter_map(|outcome| outcome.allocations).map(|count| count as f64).collect();
    let mut row = Row::new(case.subject, FIGURES.len());
    row.samples = vec![one, two, scaling, allocations];
    row
}
