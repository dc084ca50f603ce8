//! What was measured, and what is reckoned from it: medians, and ratios to the bare server within the same round.

use larder_peers::setup::Subject;
use serde::Serialize;

#[derive(Serialize)]
pub struct Table {
    pub id: String,
    pub title: String,
    pub figures: Vec<Figure>,
    /// The first is what the others are held against.
    pub rows: Vec<Row>,
}

#[derive(Clone, Copy, Serialize)]
pub struct Figure {
    pub name: &'static str,
    pub better: Better,
    /// Whether it is also given as a ratio to the first row.
    pub compared: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    High,
    Low,
    /// It only explains the others.
    Neither,
}

#[derive(Serialize)]
pub struct Row {
    pub subject: Subject,
    /// For each figure, a number of each round.
    pub samples: Vec<Vec<f64>>,
    /// How many answers were looked at.
    pub checked: u64,
    /// What was wrong with answers.
    pub wrong: Vec<String>,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// Why it wasn't measured.
    pub missing: Option<String>,
}

impl Row {
    pub fn new(subject: Subject, figures: usize) -> Self {
        Self {
            subject,
            samples: vec![Vec::new(); figures],
            checked: 0,
            wrong: Vec::new(),
            notes: Vec::new(),
            missing: None,
        }
    }

    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub fn is_measured(&self) -> bool {
        self.missing.is_none() && self.samples.iter().any(|samples| !samples.is_empty())
    }
}

/// A median with its quartiles.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Spread {
    pub fn of(mut samples: Vec<f64>) -> Option<Self> {
        samples.retain(|sample| sample.is_finite());
        samples.sort_by(f64::total_cmp);
        let last = samples.len().checked_sub(1)?;
        let at = |part: f64| samples[(last as f64 * part).round() as usize];
        Some(Self { median: at(0.5), low: at(0.25), high: at(0.75) })
    }
}

impl Table {
    pub fn median(&self, row: &Row, figure: usize) -> Option<f64> {
        Spread::of(row.samples.get(figure)?.clone()).map(|spread| spread.median)
    }

    /// To the first row, round by round: what a round shared cancels out.
    pub fn ratio(&self, row: &Row, figure: usize) -> Option<Spread> {
        let (base, own) = (self.rows.first()?.samples.get(figure)?, row.samples.get(figure)?);
        Spread::of(own.iter().zip(base).map(|(own, base)| own / base).collect())
    }

    /// What larder is behind in: the peers that are better in a figure, by more than either's spread.
    pub fn ahead_of_larder(&self) -> Vec<(Subject, &'static str)> {
        let larders = self.rows.iter().filter(|row| row.subject == Subject::Larder && row.is_measured());
        let peers = self.rows.iter().filter(|row| !row.subject.is_bare() && row.subject != Subject::Larder);
        let pairs = larders.flat_map(|larder| peers.clone().map(move |peer| (larder, peer)));
        pairs.flat_map(|(larder, peer)| self.better_figures(larder, peer)).collect()
    }

    fn better_figures(&self, larder: &Row, peer: &Row) -> Vec<(Subject, &'static str)> {
        let figures = self.figures.iter().enumerate().filter(|(place, figure)| {
            let spread = |row: &Row| Spread::of(row.samples.get(*place)?.clone());
            let (Some(own), Some(other)) = (spread(larder), spread(peer)) else { return false };
            match figure.better {
                Better::High => other.low > own.high,
                Better::Low => other.high < own.low,
                Better::Neither => false,
            }
        });
        figures.map(|(_, figure)| (peer.subject, figure.name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(bare: &[f64], larder: &[f64], peer: &[f64]) -> Table {
        let row = |subject, samples: &[f64]| Row { samples: vec![samples.into()], ..Row::new(subject, 1) };
        Table {
            id: String::new(),
            title: String::new(),
            figures: vec![Figure { name: "requests/s", better: Better::High, compared: true }],
            rows: vec![row(Subject::Bare, bare), row(Subject::Larder, larder), row(Subject::Nginx, peer)],
        }
    }

    #[test]
    fn ratios_are_those_of_each_round() {
        // The second round was slow for everybody.
        let table = table(&[100.0, 50.0, 100.0], &[90.0, 45.0, 90.0], &[10.0, 5.0, 30.0]);
        let ratio = table.ratio(&table.rows[1], 0).expect("three rounds");
        assert_eq!((ratio.low, ratio.median, ratio.high), (0.9, 0.9, 0.9));
        assert_eq!(table.median(&table.rows[2], 0), Some(10.0));
    }

    #[test]
    fn who_is_ahead_is_so_by_more_than_the_spread() {
        let bare = [100.0; 4];
        assert!(table(&bare, &[80.0, 82.0, 84.0, 86.0], &[83.0, 84.0, 85.0, 90.0]).ahead_of_larder().is_empty());
        let ahead = table(&bare, &[80.0, 82.0, 84.0, 86.0], &[88.0, 89.0, 90.0, 91.0]).ahead_of_larder();
        assert_eq!(ahead, [(Subject::Nginx, "requests/s")]);
    }
}
