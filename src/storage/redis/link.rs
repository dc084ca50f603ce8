//! [`Link`]: the way to the server. It connects on first use and again after a connection ended; who asks meanwhile waits for the same attempt.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::connection::Connection;
use super::failure::Failure;
use super::server::Server;

pub(super) struct Link {
    server: Arc<Server>,
    state: Mutex<State>,
}

enum State {
    Closed,
    /// Since when.
    Opening(Attempt, Instant),
    Open(Arc<Connection>),
}

type Outcome = Result<Arc<Connection>, Failure>;
type Attempt = watch::Receiver<Option<Outcome>>;

impl Link {
    pub(super) fn new(server: Arc<Server>) -> Arc<Self> {
        Arc::new(Self { server, state: Mutex::new(State::Closed) })
    }

    /// Does something on the connection. If that turns out to have ended, or ends meanwhile, once more on a new one: every operation may happen twice
    /// without harm.
    pub(super) async fn run<T, F>(self: &Arc<Self>, operation: impl Fn(Arc<Connection>) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        match self.run_on(self.opened().await?, &operation).await {
            Err(failure) if failure.is_final && !failure.was_late => {}
            done => return done,
        }
        // In memory of its own, so that what everybody waits in has room for one attempt only.
        Box::pin(async { self.run_on(self.opened().await?, &operation).await }).await
    }

    async fn run_on<T, F>(
        &self,
        connection: Arc<Connection>,
        operation: &impl Fn(Arc<Connection>) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let done = operation(connection.clone()).await;
        match &done {
            Ok(_) if !connection.is_current() => {
                Err(Failure::of_connection("another server has taken over at its address"))
            }
            // It may only be seen in what an answer means that it belongs to another question; so would all the next.
            Err(failure) if failure.is_final => {
                connection.give_up();
                done
            }
            _ => done,
        }
    }

    /// A connection, if need be a new one. It is made by a task of its own, so that an attempt which takes longer than anybody waits comes to its end.
    async fn opened(self: &Arc<Self>) -> Outcome {
        let mut attempt = match self.attempt()? {
            Ok(connection) => return Ok(connection),
            Err(attempt) => attempt,
        };
        let outcome = attempt.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or_else(|| Err(Failure::of_connection("the runtime that was connecting has ended")))
    }

    /// What there is: a connection, or an attempt.
    fn attempt(self: &Arc<Self>) -> Result<Result<Arc<Connection>, Attempt>, Failure> {
        let mut state = self.state();
        match &*state {
            State::Open(connection) if connection.is_usable() => return Ok(Ok(connection.clone())),
            // One whose task is gone with its runtime tells nothing any more, and perhaps never one in a runtime that nobody drives.
            State::Opening(attempt, since)
                if attempt.has_changed().is_ok() && since.elapsed() < 2 * self.server.settings.longest_connecting =>
            {
                return Ok(Err(attempt.clone()));
            }
            _ => {}
        }
        let runtime =
            Handle::try_current().map_err(|_| Failure::new("it is only reached from within a tokio runtime"))?;
        let (tell, attempt) = watch::channel(None);
        *state = State::Opening(attempt.clone(), Instant::now());
        runtime.spawn(open(Arc::downgrade(self), self.server.clone(), tell));
        Ok(Err(attempt))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn open(link: Weak<Link>, server: Arc<Server>, tell: watch::Sender<Option<Outcome>>) {
    let outcome = Connection::open(&server).await.map(Arc::new);
    let Some(link) = link.upgrade() else { return };
    match &outcome {
        Ok(_) => tracing::debug!(address = server.settings.address(), "connected to Redis"),
        Err(failure) => tracing::debug!(address = server.settings.address(), %failure, "no connection to Redis"),
    }
    let mut state = link.state();
    // A late one leaves the next one alone.
    if matches!(&*state, State::Opening(attempt, _) if attempt.same_channel(&tell.subscribe())) {
        *state = outcome.clone().map_or(State::Closed, State::Open);
    }
    drop(state);
    tell.send_replace(Some(outcome));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::settings::Settings;
    use super::*;
    use crate::clock::SystemClock;

    /// What the first script answers.
    const HELLO: &[u8] = b"*8\r\n:1\r\n:0\r\n:0\r\n:0\r\n:1700000000\r\n:0\r\n$3\r\nrun\r\n$-1\r\n";

    /// A link to somebody who only says hello.
    async fn link(longest_connecting: Duration) -> Arc<Link> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(1..) = stream.read(&mut buffer).await {
                        let is_name = buffer.windows(7).any(|word| word == b"SETNAME");
                        let answer = if is_name { b"+OK\r\n" } else { HELLO };
                        buffer.fill(0);
                        stream.write_all(answer).await.expect("it is read");
                    }
                });
            }
        });
        let mut settings = Settings::of(&format!("redis://{address}?ns=a"), None).expect("a URL");
        settings.longest_connecting = longest_connecting;
        Link::new(Arc::new(Server::new(settings, Arc::new(SystemClock::default()))))
    }

    #[tokio::test]
    async fn whoever_finds_nonsense_in_an_answer_has_the_connection_replaced() {
        let link = link(Duration::from_secs(2)).await;
        let asked = AtomicUsize::new(0);
        let found = link.run(|_| async {
            let is_first = asked.fetch_add(1, Ordering::Relaxed) == 0;
            if is_first { Err(Failure::nonsense("no list")) } else { Ok(()) }
        });
        assert!(found.await.is_ok());
        assert_eq!(link.server.connections(), 2);
    }

    #[tokio::test]
    async fn a_runtime_that_nobody_drives_keeps_nobody_from_connecting() {
        let link = link(Duration::from_millis(500)).await;
        let idle = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        {
            let _inside = idle.enter();
            assert!(link.attempt().is_ok_and(|is_there| is_there.is_err()));
        }
        std::thread::sleep(Duration::from_millis(1001));
        assert!(link.run(|_| async { Ok(()) }).await.is_ok());
        let State::Open(newer) = &*link.state() else { panic!("it is connected") };
        assert!(newer.is_usable());
        idle.shutdown_background();
    }
}
