//! What each data cache counts, under its name.

use ::metrics::Label;

use super::Sheet;
use super::names as name;
use crate::data::Counters;

/// The label `data` is the name, which code or a file gave: there are few.
pub(super) fn publish(labels: &[Label], cache: &Counters) {
    let labels = [labels, &[Label::new("data", cache.name.to_string())]].concat();
    let sheet = Sheet { labels: labels.clone() };
    let stats = cache.snapshot();
    let errors = stats.errors_remembered;
    let requests = [("hit", stats.hits), ("stale", stats.stale), ("miss", stats.misses), ("error", errors)];
    for (result, count) in requests {
        sheet.counter(&name::DATA_REQUESTS, &[("result", result)], count);
    }
    let done = stats.loads.saturating_sub(stats.load_errors);
    for (result, count) in [("done", done), ("failed", stats.load_errors)] {
        sheet.counter(&name::DATA_LOADS, &[("result", result)], count);
    }
    for (operation, count) in [("set", stats.written), ("delete", stats.deleted)] {
        sheet.counter(&name::DATA_WRITES, &[("operation", operation)], count);
    }
    sheet.counter(&name::DATA_DECLINED, &[], stats.declined);
    sheet.counter(&name::DATA_MISMATCHED, &[], stats.mismatched);
    sheet.gauge(&name::DATA_ENTRIES, stats.entries);
    sheet.gauge(&name::DATA_BYTES, stats.bytes);
    cache.load_latency.also_in(|| ::metrics::histogram!(name::DATA_LOAD_DURATION.name, labels.clone()));
}
