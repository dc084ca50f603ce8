//! Why larder is behind in a workload, where it is and that is known. Printed only beside a table in which it is behind.

pub fn reason(workload: &str) -> Option<&'static str> {
    REASONS.iter().find(|(beginning, _)| workload.starts_with(beginning)).map(|(_, reason)| *reason)
}

/// By the beginning of the workload's name.
const REASONS: [(&str, &str); 2] = [
    (
        "misses",
        "larder copies content into memory of its own, so that no buffer of the handler's stays, and hashes it where there is no `ETag`; a layer \
         that keeps what it was handed, here a piece of a constant, spares that",
    ),
    ("memory", "what lies in Redis stands in one table; in memory larder has an index for reads beside the table of the policy"),
];
