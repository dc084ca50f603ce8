//! [`Pipe`]: many ask over one connection, and each gets the answer to its own question. It ends for good with its connection: to make another one, and to ask that first which
//! server it leads to, is up to its user.
//!
//! Questions are put into a box. One task empties it, writes all that is in it at once, and hands out the answers, which come in the order of the questions. Whoever stops waiting leaves a
//! question that isn't sent any more, or an answer that is read and dropped.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep};

use super::failure::Failure;
use super::settings::LONGEST_ANSWER;
use super::socket::Socket;
use super::wire::{self, Begun};

/// As it came over the wire. Who asked takes it apart, so that the one who reads for all has little to do.
type Answer = Result<Bytes, Failure>;

pub(super) struct Pipe {
    outbox: Arc<Outbox>,
    driver: JoinHandle<()>,
}

/// Bytes that are put together for one write; beyond, questions wait in the box, where they can still be taken back.
const MOST_AT_ONCE: usize = 64 << 10;

/// The room for what is read.
const ROOM: usize = 64 << 10;

/// There is a new one where less of it is left.
const LEAST_ROOM: usize = 16 << 10;

/// A shorter answer is copied, and the room is used again: whoever keeps it would keep all of that. A longer one is a slice.
const COPIED: usize = 4 << 10;

/// Shorter ones are copied into pieces of this size, which is what who keeps one of them may keep. To find memory for each would cost more than to copy it.
const PIECE: usize = 8 << 10;

/// A buffer that has grown larger than this isn't kept.
const KEPT: usize = 1 << 20;

/// The largest answer: with all its parts twice what the largest of them may have.
const MOST: usize = 1 << 30;

/// Time is told in steps of this length, so that no question costs a look at the clock.
const STEP: Duration = Duration::from_secs(1);

impl Pipe {
    /// Over a connection, driven by the runtime that this is called in.
    pub(super) fn new(socket: Socket) -> Self {
        let outbox = Arc::new(Outbox::default());
        let driver = Driver::new(socket, outbox.clone());
        Self { outbox, driver: tokio::spawn(driver.run()) }
    }

    /// Sends a command, as it goes over the wire, and waits for its answer, which may be that there was an error.
    pub(super) fn ask(&self, command: Vec<u8>) -> Asked {
        let (answer, answered) = oneshot::channel();
        self.outbox.put(Question { command, answer });
        Asked(answered)
    }

    /// How many answers have come, whether anybody still waited for them or not.
    pub(super) fn heard(&self) -> u64 {
        self.outbox.heard.load(Ordering::Relaxed)
    }
}

/// The answer to a question, for who waits. Small, since everything that waits for it is made of this.
pub(super) struct Asked(oneshot::Receiver<Answer>);

impl Future for Asked {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        // The driver answers everybody, unless its runtime has ended.
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or_else(|_| Err(gone())))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn gone() -> Failure {
    Failure::of_connection("the runtime that it was connected in has ended")
}

/// Where questions wait to be sent.
#[derive(Default)]
struct Outbox {
    waiting: Mutex<Waiting>,
    /// How many answers have come, whether anybody still waited for them or not.
    heard: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    questions: Vec<Question>,
    /// Who empties it, while it sleeps.
    driver: Option<Waker>,
    /// From so many on it is looked through for those that nobody waits for any more.
    crowded: usize,
    /// Why nothing is taken any more.
    ended: Option<Failure>,
}

struct Question {
    command: Vec<u8>,
    answer: oneshot::Sender<Answer>,
}

/// So many may lie in the box without anybody looking at them.
const FEW: usize = 1024;

impl Outbox {
    fn put(&self, question: Question) {
        let mut waiting = self.lock();
        if let Some(failure) = &waiting.ended {
            drop(question.answer.send(Err(failure.clone())));
            return;
        }
        if waiting.questions.len() > waiting.crowded.max(FEW) {
            waiting.questions.retain(|question| !question.answer.is_closed());
            waiting.crowded = 2 * waiting.questions.len();
        }
        waiting.questions.push(question);
        let driver = waiting.driver.take();
        drop(waiting);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Moves all that is in it behind `questions`. If that is nothing, the driver is woken when there is something.
    fn empty_into(&self, questions: &mut VecDeque<Question>, context: &Context<'_>) {
        let mut waiting = self.lock();
        questions.extend(waiting.questions.drain(..));
        if !waiting.driver.as_ref().is_some_and(|driver| driver.will_wake(context.waker())) {
            waiting.driver = Some(context.waker().clone());
        }
    }

    /// Takes nothing any more. Returns what is still in it.
    fn end(&self, why: &Failure) -> Vec<Question> {
        let mut waiting = self.lock();
        waiting.ended.get_or_insert_with(|| why.clone());
        std::mem::take(&mut waiting.questions)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one who writes and reads.
struct Driver {
    socket: Socket,
    outbox: Arc<Outbox>,
    /// Taken from the box, in order, and not written yet.
    unsent: VecDeque<Question>,
    /// What is being written.
    writing: BytesMut,
    is_flushed: bool,
    /// Those who wait for their answers, in the order of their questions, and in which step they were sent.
    asked: VecDeque<(oneshot::Sender<Answer>, u64)>,
    /// What was read, and isn't an answer yet.
    read: BytesMut,
    /// Where shorter answers are copied to, one behind another.
    piece: BytesMut,
    /// Fewer bytes than this aren't a whole answer.
    needed: usize,
    /// No answer has more bytes.
    most: usize,
    step: u64,
    /// Only while somebody waits.
    next_step: Option<Pin<Box<Sleep>>>,
    is_timed: bool,
}

impl Driver {
    fn new(socket: Socket, outbox: Arc<Outbox>) -> Self {
        Self {
            socket,
            outbox,
            unsent: VecDeque::new(),
            writing: BytesMut::new(),
            is_flushed: true,
            asked: VecDeque::new(),
            read: BytesMut::new(),
            piece: BytesMut::new(),
            needed: 0,
            most: MOST,
            step: 0,
            next_step: None,
            is_timed: false,
        }
    }

    async fn run(mut self) {
        let why = std::future::poll_fn(|context| self.drive(context)).await;
        self.end(&why);
    }

    /// Goes on until there is nothing to write and nothing to read. Ready when the connection has ended, with the reason.
    fn drive(&mut self, context: &mut Context<'_>) -> Poll<Failure> {
        loop {
            if let Err(why) = self.write(context) {
                return Poll::Ready(why);
            }
            // Before what there is to read, which may have no end.
            if let Poll::Ready(why) = self.look_at_the_time(context) {
                return Poll::Ready(why);
            }
            // Also where writing can't go on, since the server may be waiting for that.
            if let Err(why) = ready!(self.read(context)) {
                return Poll::Ready(why);
            }
        }
    }

    /// Writes what can be written.
    fn write(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        loop {
            self.gather(context);
            if self.writing.is_empty() {
                break;
            }
            match Pin::new(&mut self.socket).poll_write(context, &self.writing) {
                Poll::Ready(Ok(0)) => return Err(broken(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.writing.advance(written),
                Poll::Ready(Err(error)) => return Err(broken(error)),
                Poll::Pending => return Ok(()),
            }
            self.is_flushed = false;
        }
        if !self.is_flushed {
            match Pin::new(&mut self.socket).poll_flush(context) {
                Poll::Ready(Ok(())) => self.is_flushed = true,
                Poll::Ready(Err(error)) => return Err(broken(error)),
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    /// Puts questions together, and leaves out those that nobody waits for any more.
    fn gather(&mut self, context: &Context<'_>) {
        if self.writing.is_empty() && self.writing.capacity() > KEPT {
            self.writing = BytesMut::new();
        }
        while self.writing.len() < MOST_AT_ONCE {
            if self.unsent.is_empty() {
                self.outbox.empty_into(&mut self.unsent, context);
            }
            let Some(Question { command, answer }) = self.unsent.pop_front() else { break };
            if !answer.is_closed() {
                self.writing.extend_from_slice(&command);
                self.asked.push_back((answer, self.step));
            }
        }
    }

    /// Reads what is there, and hands out the answers in it.
    fn read(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.read.is_empty() && self.read.capacity() > KEPT {
            self.read = BytesMut::new();
        }
        let room = self.read.capacity() - self.read.len();
        if room < LEAST_ROOM {
            // What an answer says of its length is only said: there is no more room for it than has come of it, or than costs little.
            let missing = self.needed.min(self.most).saturating_sub(self.read.len());
            self.read.reserve(missing.min(self.read.len().max(KEPT)).max(ROOM));
        }
        let received = ready!(pin!(self.socket.read_buf(&mut self.read)).poll(context));
        Poll::Ready(match received {
            Ok(0) => Err(broken(io::ErrorKind::ConnectionReset.into())),
            Ok(_) => self.hand_out(),
            Err(error) => Err(broken(error)),
        })
    }

    fn hand_out(&mut self) -> Result<(), Failure> {
        // Mostly nobody has any of those before by now.
        let _ = self.piece.try_reclaim(PIECE);
        while self.read.len() >= self.needed.max(1) {
            match wire::begun(&self.read)? {
                Begun::Part(needed) if needed > self.most => {
                    return Err(Failure::nonsense("an answer larger than any that is asked for"));
                }
                Begun::Part(needed) => self.needed = needed,
                Begun::Whole(length) => {
                    let answer = self.take(length);
                    self.needed = 0;
                    self.outbox.heard.fetch_add(1, Ordering::Relaxed);
                    let Some((asker, _)) = self.asked.pop_front() else {
                        return Err(Failure::nonsense("an answer that nobody asked for"));
                    };
                    // Whoever has left needs none.
                    drop(asker.send(Ok(answer)));
                }
            }
        }
        Ok(())
    }

    /// The first bytes of what was read: in their place, unless they would keep much more memory than they have.
    fn take(&mut self, length: usize) -> Bytes {
        let fills_it = length >= self.read.capacity() / 8 * 7;
        if length >= COPIED && (length <= ROOM || fills_it) {
            return self.read.split_to(length).freeze();
        }
        if length >= COPIED {
            let copy = Bytes::copy_from_slice(&self.read[..length]);
            self.read.advance(length);
            return copy;
        }
        if self.piece.capacity() < length {
            self.piece = BytesMut::with_capacity(PIECE);
        }
        self.piece.extend_from_slice(&self.read[..length]);
        self.read.advance(length);
        self.piece.split().freeze()
    }

    /// Ready when the oldest question has waited for too long.
    fn look_at_the_time(&mut self, context: &mut Context<'_>) -> Poll<Failure> {
        loop {
            if !self.is_timed {
                if self.asked.is_empty() {
                    return Poll::Pending;
                }
                let next = Instant::now() + STEP;
                match &mut self.next_step {
                    Some(timer) => timer.as_mut().reset(next),
                    timer => *timer = Some(Box::pin(sleep(STEP))),
                }
                self.is_timed = true;
            }
            let Some(timer) = &mut self.next_step else { return Poll::Pending };
            ready!(timer.as_mut().poll(context));
            self.is_timed = false;
            self.step += 1;
            let longest = LONGEST_ANSWER.as_secs().div_ceil(STEP.as_secs());
            if self.asked.front().is_some_and(|(_, sent)| self.step - sent > longest) {
                return Poll::Ready(Failure::unanswered(format!("no answer in {LONGEST_ANSWER:?}")));
            }
        }
    }

    fn end(&mut self, why: &Failure) {
        let in_the_box = self.outbox.end(why);
        let waiting = self.asked.drain(..).map(|(answer, _)| answer);
        let unsent = self.unsent.drain(..).chain(in_the_box).map(|question| question.answer);
        for answer in waiting.chain(unsent) {
            drop(answer.send(Err(why.clone())));
        }
    }
}

impl Drop for Driver {
    /// The runtime has ended, if it wasn't the connection before.
    fn drop(&mut self) {
        self.end(&gone());
    }
}

fn broken(error: io::Error) -> Failure {
    Failure::of(error.into()).for_good()
}

#[cfg(test)]
mod tests;
