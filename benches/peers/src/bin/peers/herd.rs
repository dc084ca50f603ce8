//! Very many at once for a key that nobody has asked for: how often the handler is called, and when the last has the answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1::SendRequest;
use larder_peers::content;
use larder_peers::setup::{Setup, Subject};
use tokio::runtime::Runtime;

use crate::arguments::Arguments;
use crate::client::{connect, send};
use crate::results::{Better, Figure, Row, Table};
use crate::servers::Server;
use crate::workloads::Workload;

const FIGURES: [Figure; 2] = [
    Figure { name: "last answer ms", better: Better::Low, compared: true },
    Figure { name: "handler calls", better: Better::Low, compared: false },
];
const SIZE: usize = 10 << 10;

pub fn measure(workload: &Workload, clients: usize, delay_ms: u64, arguments: &Arguments) -> Table {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime of one thread can be built");
    let mut crowds = Vec::new();
    for subject in arguments.subjects.iter().copied().filter(|subject| *subject != Subject::BareOneBody) {
        eprintln!("  {}", subject.id());
        let mut row = Row::new(subject, FIGURES.len());
        let crowd = Crowd::gather(subject, clients, delay_ms, arguments, &runtime);
        row.missing = crowd.as_ref().err().cloned();
        crowds.push((row, crowd.ok()));
    }
    for round in 0..arguments.rounds {
        eprintln!("  round {} of {}", round + 1, arguments.rounds);
        let count = crowds.len();
        for place in 0..count {
            let (row, crowd) = &mut crowds[(place + round) % count];
            let Some(crowd) = crowd else { continue };
            match crowd.ask(round as u64 + 1, &runtime) {
                Ok((last, calls)) => {
                    row.samples[0].push(last.as_secs_f64() * 1e3);
                    row.samples[1].push(calls as f64);
                    row.checked += clients as u64;
                }
                Err(error) => row.wrong.push(error),
            }
        }
    }
    let rows = crowds.into_iter().map(|(row, _)| row).collect();
    Table { id: workload.id.clone(), title: workload.title.clone(), figures: FIGURES.into(), rows }
}

type Connection = SendRequest<Empty<Bytes>>;

struct Crowd {
    server: Server,
    connections: Vec<Connection>,
}

impl Crowd {
    fn gather(
        subject: Subject,
        clients: usize,
        delay_ms: u64,
        arguments: &Arguments,
        runtime: &Runtime,
    ) -> Result<Self, String> {
        // The bare server waits as well.
        let setup = Setup { delay_ms, working: true, ..Setup::of(subject, SIZE, 1) };
        let server = Server::start(&setup, arguments.server_core)?;
        let mut connections = Vec::new();
        for _ in 0..clients {
            connections.push(runtime.block_on(connect(server.address))?);
        }
        Ok(Self { server, connections })
    }

    /// How long it took until the last had the answer, and how often the handler was called.
    fn ask(&mut self, key: u64, runtime: &Runtime) -> Result<(Duration, u64), String> {
        let calls = self.server.calls()?;
        let address = self.server.address;
        let connections = std::mem::take(&mut self.connections);
        let last = runtime.block_on(async {
            let start = Instant::now();
            let asking = connections.into_iter().map(|connection| tokio::spawn(one(connection, address, key)));
            let asking: Vec<_> = asking.collect();
            for task in asking {
                self.connections.push(task.await.map_err(|error| error.to_string())??);
            }
            Ok::<_, String>(start.elapsed())
        })?;
        Ok((last, self.server.calls()?.saturating_sub(calls)))
    }
}

async fn one(mut connection: Connection, address: SocketAddr, key: u64) -> Result<Connection, String> {
    let answer = send(&mut connection, Method::GET, address, &format!("/item/{key}"), &[]).await?;
    if answer.status != StatusCode::OK || answer.body != content::body(key, SIZE) {
        return Err(format!("/item/{key}: another content: {}", answer.status));
    }
    Ok(connection)
}
