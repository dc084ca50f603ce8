//! A proxy before any TCP server, which does to its clients what networks and servers do: it refuses, says nothing, is late, gives byte by byte, or cuts
//! connections. It runs on a thread of its own in real time, whatever the test's runtime does.
#![allow(dead_code, reason = "each test file uses a part")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::ports::{free_port, local};

/// What happens to connections, those that there are and new ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: all passes.
    #[default]
    Pass,
    /// As if the server weren't running: connections break, and new ones are refused.
    Refuse,
    /// As if the server stood still: connections are taken, and nothing passes either way. It passes once the fault is over.
    Blackhole,
    /// As if the network were cut: nothing passes, and attempts to connect hang.
    Partition,
    /// Each answer comes so much later.
    Latency(Duration),
    /// Answers come byte by byte, with so long between two.
    Trickle(Duration),
}

/// A running proxy; it ends with this, and its connections with it.
pub struct FaultProxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    accepted: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    fault: Fault,
    /// Connections of an earlier number are closed.
    cuts: usize,
    is_over: bool,
    /// Another server than the one that it began with.
    moved: Option<SocketAddr>,
}

/// How many connections the system takes for a listener that doesn't ask for them: few, since in a [`Fault::Partition`] that many are made to fill the place.
const BACKLOG: u32 = 64;

impl FaultProxy {
    /// A proxy before the server at `server`, which need not run yet.
    pub fn before(server: SocketAddr) -> Self {
        let (state, seen) = watch::channel(State::default());
        let accepted = Arc::new(AtomicUsize::new(0));
        let (tell, told) = std::sync::mpsc::channel();
        let counter = accepted.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let (listener, address) = first_listener();
                tell.send(address).expect("the test waits for it");
                Proxy { address, server, state: seen, accepted: counter }.run(listener).await;
            });
        });
        let address = told.recv().expect("the proxy listens");
        Self { address, state, accepted, thread: Some(thread) }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on.
    pub fn set(&self, fault: Fault) {
        self.state.send_modify(|state| {
            state.fault = fault;
            state.cuts += usize::from(fault == Fault::Refuse);
        });
        self.wait_until_in_effect(fault);
    }

    /// Breaks the connections that there are; new ones are welcome.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Another server stands there from now on, as after a failover; the connections that there are break.
    pub fn move_to(&self, server: SocketAddr) {
        self.state.send_modify(|state| {
            state.moved = Some(server);
            state.cuts += 1;
        });
    }

    /// How many connections were taken so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Acquire)
    }

    /// Whether one can connect is up to another thread: the test goes on when it is as wanted.
    fn wait_until_in_effect(&self, fault: Fault) {
        let wanted = |tried: &io::Result<std::net::TcpStream>| match (fault, tried) {
            (Fault::Refuse, Err(error)) => error.kind() == io::ErrorKind::ConnectionRefused,
            (Fault::Partition, Err(error)) => error.kind() == io::ErrorKind::TimedOut,
            (Fault::Refuse | Fault::Partition, Ok(_)) => false,
            (_, tried) => tried.is_ok(),
        };
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while !wanted(&std::net::TcpStream::connect_timeout(&self.address, Duration::from_millis(20))) {
            assert!(std::time::Instant::now() < end, "the proxy doesn't do {fault:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.state.send_modify(|state| state.is_over = true);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn first_listener() -> (TcpListener, SocketAddr) {
    for _ in 0..20 {
        let address = local(free_port());
        // Between the choice and this another test may have been faster.
        if let Ok(listener) = listen(address) {
            return (listener, address);
        }
    }
    panic!("no port for a proxy");
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

struct Proxy {
    address: SocketAddr,
    server: SocketAddr,
    state: watch::Receiver<State>,
    accepted: Arc<AtomicUsize>,
}

impl Proxy {
    async fn run(mut self, listener: TcpListener) {
        let mut listener = Some(listener);
        let mut crowd = Vec::new();
        loop {
            let State { fault, is_over, .. } = *self.state.borrow_and_update();
            if is_over {
                return;
            }
            match fault {
                Fault::Refuse => {
                    listener = None;
                    crowd.clear();
                    drop(self.state.changed().await);
                }
                Fault::Partition => {
                    listener.get_or_insert_with(|| listen(self.address).expect("the port is ours"));
                    crowd_out(self.address, &mut crowd).await;
                    drop(self.state.changed().await);
                }
                _ => {
                    crowd.clear();
                    let listener = listener.get_or_insert_with(|| listen(self.address).expect("the port is ours"));
                    tokio::select! {
                        taken = listener.accept() => if let Ok((client, _)) = taken { self.take(client) },
                        changed = self.state.changed() => drop(changed),
                    }
                }
            }
        }
    }

    fn take(&self, client: TcpStream) {
        self.accepted.fetch_add(1, Ordering::AcqRel);
        let state = self.state.clone();
        let server = state.borrow().moved.unwrap_or(self.server);
        tokio::spawn(async move {
            let taken_in = state.borrow().cuts;
            let mut cut = state.clone();
            tokio::select! {
                _ = connect(client, server, state) => {}
                _ = cut.wait_for(|state| state.cuts != taken_in || state.is_over) => {}
            }
        });
    }
}

/// Fills the listener's place for those who wait, so that more of them hang.
async fn crowd_out(address: SocketAddr, crowd: &mut Vec<TcpStream>) {
    for _ in 0..2 * BACKLOG {
        match timeout(Duration::from_millis(50), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => crowd.push(stream),
            _ => return,
        }
    }
}

async fn connect(client: TcpStream, server: SocketAddr, state: watch::Receiver<State>) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        asked = carry(from_client, to_server, state.clone(), false) => asked,
        answered = carry(from_server, to_client, state, true) => answered,
    }
}

/// Carries one direction, until its end.
async fn carry(
    mut from: OwnedReadHalf,
    to: OwnedWriteHalf,
    state: watch::Receiver<State>,
    is_answer: bool,
) -> io::Result<()> {
    // What is late doesn't hold up what comes after it: it is read at once, and has the time of its arrival.
    let (queue, queued) = mpsc::channel::<(Instant, Bytes)>(256);
    let reading = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let length = from.read(&mut buffer).await?;
            let is_taken =
                length > 0 && queue.send((Instant::now(), Bytes::copy_from_slice(&buffer[..length]))).await.is_ok();
            if !is_taken {
                break;
            }
        }
        drop(queue);
        Ok(())
    };
    let (read, written) = tokio::join!(reading, deliver(queued, to, state, is_answer));
    read.and(written)
}

async fn deliver(
    mut queued: mpsc::Receiver<(Instant, Bytes)>,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    is_answer: bool,
) -> io::Result<()> {
    while let Some((arrived, mut rest)) = queued.recv().await {
        while !rest.is_empty() {
            let fault = state.borrow_and_update().fault;
            match fault {
                Fault::Blackhole | Fault::Partition | Fault::Refuse => drop(state.changed().await),
                Fault::Latency(late) if is_answer && arrived.elapsed() < late => tokio::select! {
                    () = sleep_until(arrived + late) => {}
                    changed = state.changed() => drop(changed),
                },
                Fault::Trickle(pause) if is_answer => {
                    to.write_all(&rest.split_to(1)).await?;
                    tokio::select! {
                        () = sleep(pause) => {}
                        changed = state.changed() => drop(changed),
                    }
                }
                _ => to.write_all(&std::mem::take(&mut rest)).await?,
            }
        }
    }
    to.shutdown().await
}
