//! A value to be cached, of a size that is known.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Product {
    id: u64,
    name: String,
    prices: Vec<f64>,
    tags: Vec<String>,
    description: String,
}

impl Product {
    /// What takes 1 KiB as JSON.
    pub fn of_1_kib() -> Self {
        let mut product = Self {
            id: 17,
            name: "a jar with a lid".into(),
            prices: vec![3.5, 7.25, 12.125, 19.99],
            tags: ["kitchen", "glass", "storage"].map(String::from).to_vec(),
            description: String::new(),
        };
        let rest = 1024 - serde_json::to_vec(&product).expect("it is serialised").len();
        product.description = "of clear glass, with ".chars().cycle().take(rest).collect();
        product
    }
}
