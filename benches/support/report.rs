//! One line for each figure: what is asked, what was measured, and whether that is enough. `scripts/figures` collects these lines.

use std::process::ExitCode;

/// The lines of one bench.
#[derive(Default)]
pub struct Report {
    failed: bool,
}

impl Report {
    /// `measured` may be `asked` and no more.
    pub fn at_most(&mut self, what: &str, asked: f64, measured: f64, unit: &str) {
        self.line(
            measured <= asked,
            what,
            &format!("<= {}{unit}", short(asked)),
            &format!("{}{unit}", short(measured)),
        );
    }

    /// `measured` may be `asked` and no less.
    pub fn at_least(&mut self, what: &str, asked: f64, measured: f64, unit: &str) {
        self.line(
            measured >= asked,
            what,
            &format!(">= {}{unit}", short(asked)),
            &format!("{}{unit}", short(measured)),
        );
    }

    /// `measured` may be `asked` and nothing else.
    pub fn exactly(&mut self, what: &str, asked: u64, measured: u64, unit: &str) {
        self.line(measured == asked, what, &format!("{asked}{unit}"), &format!("{measured}{unit}"));
    }

    /// A figure of which nothing is asked.
    pub fn for_information(&mut self, what: &str, measured: &str) {
        println!("INFO | {what} | | {measured}");
    }

    fn line(&mut self, passed: bool, what: &str, asked: &str, measured: &str) {
        println!("{} | {what} | {asked} | {measured}", if passed { "PASS" } else { "FAIL" });
        self.failed |= !passed;
    }

    /// Fails if a figure did.
    pub fn finish(self) -> ExitCode {
        if self.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// Large numbers are whole, small ones have two decimals.
fn short(number: f64) -> String {
    if number.abs() >= 100.0 || number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.2}") }
}
