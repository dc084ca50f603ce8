//! A picture of the results over HTTP: requests per second, and what a request costs, both as parts of what the bare server does.

use std::fmt::Write as _;

use larder_peers::setup::Subject;

use crate::results::{Better, Figure, Row, Spread, Table};

const WIDTH: f64 = 900.0;
const LABEL: f64 = 190.0;
const PANEL: f64 = (WIDTH - LABEL - 60.0) / 2.0;
const BAR: f64 = 15.0;
const ROW: f64 = 20.0;

/// The two figures of each table that are compared; a ratio over 1 is as long as 1, for bars say what part of bare something is.
pub fn picture(tables: &[Table]) -> String {
    let drawn: Vec<_> =
        tables.iter().filter(|table| table.figures.first().is_some_and(|f| f.name == "requests/s")).collect();
    let mut body = String::new();
    let mut y = 20.0;
    for table in drawn {
        y = panel(&mut body, table, y) + 26.0;
    }
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0}" font-family="system-ui, sans-serif" font-size="12">
<title>Requests per second and processor time per request, beside a server without a cache</title>
<rect width="100%" height="100%" fill="#ffffff"/>"##
    );
    svg.push_str(&body);
    svg.push_str("</svg>\n");
    svg
}

/// Where the next one may begin.
fn panel(body: &mut String, table: &Table, top: f64) -> f64 {
    let _ = writeln!(
        body,
        r##"<text x="8" y="{:.0}" font-size="14" font-weight="600" fill="#222222">{}</text>"##,
        top + 4.0,
        escaped(&table.title)
    );
    let rows: Vec<&Row> = table.rows.iter().filter(|row| row.is_measured() && row.subject != Subject::Bare).collect();
    let head = top + 22.0;
    for (place, caption) in
        ["requests/s, bare = 1 (longer is better)", "bare's CPU time for a request / own (longer is better)"]
            .iter()
            .enumerate()
    {
        let _ = writeln!(
            body,
            r##"<text x="{:.0}" y="{head:.0}" fill="#666666" font-size="11">{caption}</text>"##,
            left(place)
        );
    }
    let bottom = head + 6.0 + rows.len() as f64 * ROW;
    for (line, row) in rows.iter().enumerate() {
        let y = head + 6.0 + line as f64 * ROW;
        let _ = writeln!(
            body,
            r##"<text x="{:.0}" y="{:.0}" text-anchor="end" fill="#222222">{}</text>"##,
            LABEL - 8.0,
            y + BAR - 3.0,
            escaped(row.subject.name())
        );
        for (place, figure) in table.figures.iter().enumerate().take(2) {
            if let Some(part) = part_of_bare(table, row, place, figure) {
                bar(body, row, left(place), y, part);
            }
        }
    }
    for place in 0..2 {
        let x = left(place) + PANEL * SCALE;
        let _ = writeln!(
            body,
            r##"<line x1="{x:.1}" x2="{x:.1}" y1="{:.0}" y2="{bottom:.0}" stroke="#999999" stroke-dasharray="3 3"/>"##,
            head + 4.0
        );
    }
    bottom
}

/// Bare's place in a panel; what is beyond is better than bare, as 304s are.
const SCALE: f64 = 0.72;

fn left(place: usize) -> f64 {
    LABEL + place as f64 * (PANEL + 40.0)
}

/// Of time, the inverse: so both are longer if they are better.
fn part_of_bare(table: &Table, row: &Row, place: usize, figure: &Figure) -> Option<Spread> {
    let Spread { median, low, high } = table.ratio(row, place)?;
    Some(match figure.better {
        Better::Low => Spread { median: 1.0 / median, low: 1.0 / high, high: 1.0 / low },
        _ => Spread { median, low, high },
    })
}

fn bar(body: &mut String, row: &Row, x: f64, y: f64, Spread { median, low, high }: Spread) {
    let length = |part: f64| (part * SCALE).clamp(0.0, 0.88) * PANEL;
    let colour = if row.subject.is_larder() {
        "#c2570c"
    } else if row.subject.is_bare() {
        "#c7c7c7"
    } else {
        "#7f9bb3"
    };
    let middle = y + BAR / 2.0;
    let _ = writeln!(
        body,
        r##"<rect x="{x:.1}" y="{y:.1}" width="{:.1}" height="{BAR}" rx="2" fill="{colour}"/>"##,
        length(median)
    );
    let _ = writeln!(
        body,
        r##"<line x1="{:.1}" x2="{:.1}" y1="{middle:.1}" y2="{middle:.1}" stroke="#222222" stroke-width="1.5"/>"##,
        x + length(low),
        x + length(high)
    );
    let end = x + length(high.max(median)) + 5.0;
    let _ = writeln!(
        body,
        r##"<text x="{end:.1}" y="{:.1}" fill="#222222" font-size="11" stroke="#ffffff" stroke-width="3" paint-order="stroke">{median:.2}</text>"##,
        y + BAR - 3.5
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
