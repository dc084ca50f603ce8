//! Tables to read: each figure as a median, and as its ratio to the bare server with the quartiles of the rounds.

use std::fmt::Write as _;
use std::path::Path;

use crate::machine::Machine;
use crate::reasons::reason;
use crate::results::{Row, Spread, Table};

/// Between these lines of a document the results stand.
const BEGIN: &str = "<!-- results: written by scripts/peers -->";
const END: &str = "<!-- end of the results -->";

pub fn document(machine: &Machine, tables: &[Table], how: &str) -> String {
    let mut text =
        "![Requests per second and processor time per request, beside a server without a cache](peers.svg)\n\n".to_owned();
    let versions: Vec<_> = machine.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let Machine { date, processor, cores, gibibytes, kernel, .. } = machine;
    let _ = writeln!(text, "{date}, {processor}, {cores} cores, {gibibytes} GiB, Linux {kernel}; {how}.");
    let _ = writeln!(text, "{}.\n", versions.join(", "));
    tables.iter().for_each(|table| write_table(&mut text, table));
    text
}

/// Puts the results where a document has room for them.
pub fn insert(document: &Path, results: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", document.display());
    let text = std::fs::read_to_string(document).map_err(failed)?;
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.ok_or_else(|| format!("{} has no markers", document.display()))?;
    std::fs::write(document, format!("{before}{BEGIN}\n\n{results}\n{END}{after}")).map_err(failed)
}

fn write_table(text: &mut String, table: &Table) {
    let _ = writeln!(text, "### {}\n", table.title);
    let mut heads = vec!["".to_owned()];
    for figure in &table.figures {
        heads.push(figure.name.to_owned());
        if figure.compared {
            heads.push("to bare".to_owned());
        }
    }
    heads.push("remarks".to_owned());
    let _ = writeln!(text, "| {} |\n|{}", heads.join(" | "), "---|".repeat(heads.len()));
    for row in &table.rows {
        let _ = writeln!(text, "| {} |", cells(table, row).join(" | "));
    }
    text.push('\n');
    write_losses(text, table);
}

fn cells(table: &Table, row: &Row) -> Vec<String> {
    let mut cells = vec![row.subject.name().to_owned()];
    for (place, figure) in table.figures.iter().enumerate() {
        cells.push(table.median(row, place).map(|median| number(figure.name, median)).unwrap_or_default());
        if figure.compared {
            cells.push(table.ratio(row, place).map(ratio).unwrap_or_default());
        }
    }
    let mut remarks: Vec<String> = row.missing.iter().map(|reason| format!("not measured: {}", line(reason))).collect();
    remarks.extend(row.notes.iter().map(|note| line(note)));
    if !row.wrong.is_empty() {
        remarks.push(format!("**{} wrong**, such as: {}", row.wrong.len(), line(&row.wrong[0])));
    }
    cells.push(remarks.join("; "));
    cells
}

/// Where larder is behind, and why.
fn write_losses(text: &mut String, table: &Table) {
    let ahead = table.ahead_of_larder();
    if ahead.is_empty() {
        return;
    }
    let ahead: Vec<_> = ahead.iter().map(|(peer, figure)| format!("{} ({figure})", peer.name())).collect();
    let reason = reason(&table.id).unwrap_or("why isn't known");
    let _ = writeln!(text, "Ahead of larder: {}: {reason}.\n", ahead.join(", "));
}

fn ratio(Spread { median, low, high }: Spread) -> String {
    format!("{median:.2} ({low:.2} to {high:.2})")
}

fn number(figure: &str, number: f64) -> String {
    match figure {
        "server busy" => format!("{:.0} %", 100.0 * number),
        _ if number >= 1_000.0 => crate::workloads::grouped(number.round() as u64),
        _ if number >= 100.0 || number.fract() == 0.0 => format!("{number:.0}"),
        _ => format!("{number:.2}"),
    }
}

/// What fits into a cell.
fn line(text: &str) -> String {
    let text: String = text.chars().take(300).collect();
    text.replace('|', "/").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() {
        let file = std::env::temp_dir().join(format!("peers-markers-{}.md", std::process::id()));
        std::fs::write(&file, format!("before\n{BEGIN}\nold\n{END}\nafter\n")).expect("a file");
        insert(&file, "new").expect("it has markers");
        insert(&file, "newer").expect("it still has markers");
        let text = std::fs::read_to_string(&file).expect("the file");
        assert_eq!(text, format!("before\n{BEGIN}\n\nnewer\n{END}\nafter\n"));
        std::fs::write(&file, "no markers").expect("a file");
        assert!(insert(&file, "new").is_err());
        drop(std::fs::remove_file(&file));
    }
}
