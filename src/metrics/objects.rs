//! What caches of objects count, under their names.

use ::metrics::Label;

use super::Sheet;
use super::names as name;
use crate::objects::ObjectStats;

/// The label `objects` is the name, which code gave: there are few.
pub(super) fn publish(labels: &[Label], cache: String, stats: &ObjectStats) {
    let sheet = Sheet { labels: [labels, &[Label::new("objects", cache)]].concat() };
    for (result, count) in [("hit", stats.hits), ("stale", stats.stale), ("miss", stats.misses)] {
        sheet.counter(&name::OBJECT_REQUESTS, &[("result", result)], count);
    }
    let done = stats.loads.saturating_sub(stats.failures);
    for (result, count) in [("done", done), ("failed", stats.failures)] {
        sheet.counter(&name::OBJECT_LOADS, &[("result", result)], count);
    }
    sheet.counter(&name::OBJECT_INSERTS, &[], stats.inserted);
    sheet.counter(&name::OBJECTS_DECLINED, &[], stats.declined);
    sheet.gauge(&name::OBJECTS, stats.entries);
    sheet.gauge(&name::OBJECTS_WEIGHT, stats.weight);
}
