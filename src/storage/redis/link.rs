//! [`Link`]: the way to the server. It connects on first use and again after a connection ended; who asks meanwhile waits for the same attempt.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

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
    Opening(Attempt),
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
        self.run_on(self.opened().await?, &operation).await
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
        if done.is_ok() && !connection.is_current() {
            return Err(Failure::of_connection("another server has taken over at its address"));
        }
        done
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
            // One whose task is gone with its runtime tells nothing any more.
            State::Opening(attempt) if attempt.has_changed().is_ok() => return Ok(Err(attempt.clone())),
            _ => {}
        }
        let runtime =
            Handle::try_current().map_err(|_| Failure::new("it is only reached from within a tokio runtime"))?;
        let (tell, attempt) = watch::channel(None);
        *state = State::Opening(attempt.clone());
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
    *link.state() = outcome.clone().map_or(State::Closed, State::Open);
    tell.send_replace(Some(outcome));
}
