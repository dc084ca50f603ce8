//! What would a cache do for this site, and what would a larger one, a longer lifetime, or a store that its instances share? Replays an access log, or a trace
//! by a formula, against a configuration.
//!
//! ```text
//! cargo run --release --example simulate -- --log access.log --config larder.toml
//! cargo run --release --example simulate -- --log access.log --ttl 60s --sweep capacity=16MiB,64MiB,256MiB
//! cargo run --release --example simulate -- --zipf keys=100000,exponent=0.9 --instances 3 --sweep far=off,on
//! cargo run --release --example simulate -- --evidence     # the table of docs/simulate.md
//! ```

mod arguments;
mod evidence;

use std::io::{self, Write};
use std::process::ExitCode;

use larder::simulate::{AccessLog, Client, Outcome, Simulation};
use larder::{CacheLayer, Config, Policy, RequestHead};

use crate::arguments::{Arguments, HELP, Trace, Wish};

fn main() -> ExitCode {
    let done = match arguments::parse(std::env::args().skip(1)) {
        Ok(Wish::Help) => writeln!(io::stdout(), "{HELP}").map_err(|error| error.to_string()),
        Ok(Wish::Evidence { requests }) => evidence::print(requests).map_err(|error| error.to_string()),
        Ok(Wish::Simulate(arguments)) => simulate(&arguments),
        Err(error) => Err(format!("{error}\n\n{HELP}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn simulate(arguments: &Arguments) -> Result<(), String> {
    let layer = layer(arguments)?;
    let simulation = arguments
        .settings
        .iter()
        .try_fold(Simulation::new(&layer), |simulation, (name, value)| arguments::set(simulation, name, value))?;
    let Some((swept, values)) = &arguments.sweep else {
        println!("{}", replay(&simulation, &arguments.trace)?);
        return Ok(());
    };
    println!(
        "{swept:>12}  hit rate  byte hit rate  origin requests    at most  origin bytes   memory bytes  evictions"
    );
    for value in values {
        let outcome = replay(&arguments::set(simulation.clone(), swept, value)?, &arguments.trace)?;
        println!(
            "{value:>12}  {:>8.4}  {:>13.4}  {:>15}  {:>7}/s  {:>12}  {:>13}  {:>9}",
            outcome.hit_rate(),
            outcome.byte_hit_rate(),
            outcome.origin_requests,
            outcome.origin_peak,
            outcome.origin_bytes,
            outcome.peak_stored_bytes,
            outcome.evictions,
        );
    }
    Ok(())
}

/// The rules of the file; without one, everything is for everybody, and for so long.
fn layer(arguments: &Arguments) -> Result<CacheLayer, String> {
    let Some(file) = &arguments.config else {
        let mut policy = Policy::shared(arguments.ttl);
        if let Some(window) = arguments.stale_while_revalidate {
            policy = policy.stale_while_revalidate(window);
        }
        return Ok(CacheLayer::in_memory(256 << 20).otherwise(policy));
    };
    let mut config = Config::from_file(file).map_err(|error| error.to_string())?;
    // The users of the log stand for whomever the application names; who isn't known by name is known by address.
    let names: Vec<String> = config.principals().map(str::to_owned).collect();
    for name in names {
        config = config.principal(&name, |request: &RequestHead<'_>| {
            let client = request.extensions.get::<Client>()?;
            Some(client.user.clone().unwrap_or_else(|| client.address.clone()))
        });
    }
    CacheLayer::from_config(&config).map_err(|error| error.to_string())
}

fn replay(simulation: &Simulation, trace: &Trace) -> Result<Outcome, String> {
    match trace {
        Trace::Synthetic(trace) => simulation.run(trace.clone()).map_err(|error| error.to_string()),
        Trace::Log(path) => {
            let named = |error: io::Error| format!("{}: {error}", path.display());
            let mut log = AccessLog::open(path).map_err(named)?;
            let outcome = simulation.run(&mut log).map_err(named)?;
            if let Some(bad) = log.bad_lines() {
                eprintln!("{}: {} lines are no accesses, the first is line {}", path.display(), bad.count, bad.first);
            }
            Ok(outcome)
        }
    }
}
