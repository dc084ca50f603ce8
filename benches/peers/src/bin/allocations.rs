//! How often a hit, and a miss, ask the allocator for memory. A program of its own, for counting costs time.

use larder_peers::in_process::{Outcome, comparisons};

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime can be built");
    let _in_runtime = runtime.enter();
    // With many keys it is what it is with one.
    for case in comparisons().into_iter().flatten().filter(|case| case.keys == 1) {
        let (mut calls, mut requests) = (case.calls(1), case.requests(0));
        let call = &mut calls[0];
        requests.by_ref().take(100).for_each(&mut *call);
        let counted = requests.take(COUNTED).map(|request| allocation_counter::measure(|| call(request)).count_total);
        let mut counted: Vec<_> = counted.collect();
        // Now and then a table grows.
        counted.sort_unstable();
        let allocations = Some(counted[COUNTED / 2]);
        let outcome = Outcome { case, threads: 1, nanoseconds: Vec::new(), allocations };
        println!("{}", serde_json::to_string(&outcome).expect("it is JSON"));
    }
}

const COUNTED: usize = 101;
