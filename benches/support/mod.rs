//! What the measurements share.
#![allow(dead_code)] // Each bench uses a part of it.

pub mod client;
pub mod content;
pub mod memory;
pub mod proxy;
pub mod report;

/// The middle one.
pub fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// The medians of `first / second`, sample by sample: what both rounds shared cancels out.
pub fn median_ratio(first: &[f64], second: &[f64]) -> f64 {
    median(first.iter().zip(second).map(|(first, second)| first / second).collect())
}
