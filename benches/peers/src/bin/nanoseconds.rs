//! How long a hit, and a miss, take without a network: `nanoseconds ROUNDS CALLS`. All subjects in interleaved rounds, with one and with two threads. Prints a line
//! of JSON for each.

use std::sync::Barrier;
use std::thread::scope;
use std::time::{Duration, Instant};

use larder_peers::in_process::{Call, Case, Outcome, Requests, comparisons};
use tokio::runtime::Handle;

fn main() {
    let number = |place: usize| std::env::args().nth(place).and_then(|text| text.parse().ok());
    let (rounds, calls): (usize, usize) = (number(1).unwrap_or(41), number(2).unwrap_or(5_000));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime can be built");
    let _in_runtime = runtime.enter();
    for cases in comparisons() {
        for threads in [1, 2] {
            for outcome in compare(cases.clone(), threads, rounds, calls) {
                println!("{}", serde_json::to_string(&outcome).expect("it is JSON"));
            }
        }
    }
}

struct Running {
    case: Case,
    threads: Vec<(Call, Requests)>,
    nanoseconds: Vec<f64>,
}

fn compare(cases: Vec<Case>, threads: usize, rounds: usize, calls: usize) -> Vec<Outcome> {
    let ready = |case: Case| {
        let numbered = case.calls(threads).into_iter().enumerate();
        let threads = numbered.map(|(n, call)| (call, case.requests(n as u64))).collect();
        Running { case, threads, nanoseconds: Vec::new() }
    };
    let mut running: Vec<Running> = cases.into_iter().map(ready).collect();
    for round in 0..rounds {
        let count = running.len();
        for place in 0..count {
            let subject = &mut running[(place + round) % count];
            let nanoseconds = round_of(&mut subject.threads, calls);
            subject.nanoseconds.push(nanoseconds);
        }
    }
    let outcome =
        |running: Running| Outcome { case: running.case, threads, nanoseconds: running.nanoseconds, allocations: None };
    running.into_iter().map(outcome).collect()
}

/// Nanoseconds of a call, on the average of all threads.
fn round_of(threads: &mut [(Call, Requests)], calls: usize) -> f64 {
    let (count, start) = (threads.len() as f64, Barrier::new(threads.len()));
    scope(|scope| {
        let start = &start;
        let running = threads.iter_mut().map(|(call, requests)| {
            let runtime = Handle::current();
            scope.spawn(move || {
                // Some store behind the answer.
                let _in_runtime = runtime.enter();
                start.wait();
                time(call, requests, calls)
            })
        });
        let running: Vec<_> = running.collect();
        running.into_iter().map(|thread| thread.join().expect("no call panics")).sum::<f64>() / count
    })
}

/// How long a subject may have for its calls of a round: one takes a thousand times as long as another.
const MOST: Duration = Duration::from_millis(50);

/// Requests are made in small batches, outside of what is timed: a server has parsed a request just before it is answered.
fn time(call: &mut Call, requests: &mut Requests, calls: usize) -> f64 {
    let (mut done, mut spent) = (0, Duration::ZERO);
    while done < calls && spent < MOST {
        let batch: Vec<_> = requests.take(50).collect();
        done += batch.len();
        let start = Instant::now();
        for request in batch {
            call(request);
        }
        spent += start.elapsed();
    }
    spent.as_nanos() as f64 / done as f64
}
