//! The client's side of one exchange: who may speak, how an answer is framed, how one waits for its end.
//!
//! ```text
//!                 reply, start                 finish (reply does both)
//!      Unsent ------------------> Streaming ------------------------> Finished
//!         |                           |
//!         +------- abort, or a write that fails or is not through in time -----> Broken
//! ```
//!
//! *Who may change what.* The answer's lock (`floor`) is the right to speak. The two upper edges are taken
//! under it alone; [`Exchange::abort`] may take the lower one at any moment, without the lock. Each edge is one
//! compare-and-swap, so each is taken once, and `Finished` and `Broken` are final.
//!
//! *Why the lock is held during a write.* That is its whole purpose: two writers on one socket would mix their
//! bytes. The wait is bounded by `write_timeout`; and nobody who must not wait takes it, because
//! [`Exchange::seize`] only tries, and `abort` needs no lock: it shuts the socket, which ends the write of
//! whoever holds the lock.
//!
//! *Why a late word can't hurt the next exchange.* The handler's clones outlive the exchange. They hold the
//! socket weakly (a forgotten clone keeps no connection open), and the connection reads its next request only
//! from `Finished`, where every write and `abort` is refused. An abort that wins against the last write leaves
//! `Broken`, and then there is no next request.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam::utils::Backoff;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags};
use tiny_http::StatusCode;

use super::bell::Bell;
use super::encode::Framing;
use super::floor::Floor;
use super::message::{Headers, Response};
use super::shared::{Shared, Turn};
use super::socket::{Socket, poll_for};
use crate::clock::Time;

/// How far the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing was sent.
    Unsent,
    /// The answer has begun.
    Streaming,
    /// All of it was given to the kernel.
    Finished,
    /// The client got part of it or nothing, and will get no more.
    Broken,
}

impl Progress {
    /// Whether the last word was said.
    pub fn is_over(self) -> bool {
        matches!(self, Progress::Finished | Progress::Broken)
    }

    fn from_u8(value: u8) -> Self {
        [
            Progress::Unsent,
            Progress::Streaming,
            Progress::Finished,
            Progress::Broken,
        ][usize::from(value)]
    }
}

/// Why [`Exchange::wait`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Somebody called [`Exchange::notify`], or the answer is over.
    Notified,
    /// The client closed its connection, or at least said that it sends nothing more.
    ClientLeft,
    /// The time is up.
    TimedOut,
}

/// What the request said about its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manners {
    /// An HTTP/1.0 client: no chunks, and staying must be said.
    pub(super) old: bool,
    /// HEAD: the answer's head only.
    pub(super) head_only: bool,
    /// The connection may serve another request.
    pub(super) keep_alive: bool,
}

/// The client's side of one request. Clones are the same exchange; any thread may speak, one at a time. An
/// answer is either one [`reply`](Exchange::reply), or a [`start`](Exchange::start), any number of
/// [`write`](Exchange::write)s and a [`finish`](Exchange::finish).
#[derive(Debug, Clone)]
pub struct Exchange {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) door: Arc<Shared>,
    /// The connection's; gone when the connection is.
    socket: Weak<Socket>,
    /// Of the connection's thread. An old exchange may ring it for nothing: `wait` looks at `notified`.
    bell: Arc<Bell>,
    /// Counts the exchange as open until the answer is over.
    pub(super) turn: Turn,
    pub(super) manners: Manners,
    /// A [`Progress`]; see the drawing above.
    progress: AtomicU8,
    notified: AtomicBool,
    /// What the client was told of the connection's future; written before `Finished`.
    pub(super) stays: AtomicBool,
    /// The thread won't see the end by itself: more requests are at hand, which no poll will show.
    ring: AtomicBool,
    /// The right to speak, and how the body under way is framed.
    floor: Mutex<Framing>,
}

impl Exchange {
    pub(super) fn new(
        door: Arc<Shared>,
        socket: &Arc<Socket>,
        bell: Arc<Bell>,
        turn: Turn,
        manners: Manners,
    ) -> Self {
        let inner = Inner {
            door,
            socket: Arc::downgrade(socket),
            bell,
            turn,
            manners,
            progress: AtomicU8::new(Progress::Unsent as u8),
            notified: AtomicBool::new(false),
            ring: AtomicBool::new(false),
            stays: AtomicBool::new(false),
            floor: Mutex::new(Framing::Nothing),
        };
        Exchange {
            inner: Arc::new(inner),
        }
    }

    /// Sends a whole answer in one write. Waits for its turn to speak.
    ///
    /// # Errors
    /// `InvalidInput` when the answer has begun already; `BrokenPipe` when the exchange was aborted or the
    /// connection is gone; `TimedOut` when the client did not take it within `write_timeout`; else the socket's
    /// error. After all but the first the exchange is [`Progress::Broken`].
    pub fn reply(&self, response: Response) -> io::Result<()> {
        self.floor().reply(response)
    }

    /// Sends the head of a streamed answer at once. The body is chunked, or ended by the connection's end for
    /// HTTP/1.0.
    ///
    /// # Errors
    /// As [`Exchange::reply`].
    pub fn start(&self, status: StatusCode, headers: &Headers) -> io::Result<()> {
        self.floor().start(status, headers)
    }

    /// Sends a piece of a streamed body; the client has it at once. An empty piece is no piece.
    ///
    /// # Errors
    /// As [`Exchange::reply`]; `InvalidInput` when the stream was not started or is finished.
    pub fn write(&self, piece: &[u8]) -> io::Result<()> {
        self.floor().write(piece)
    }

    /// Ends a streamed answer cleanly.
    ///
    /// # Errors
    /// As [`Exchange::write`].
    pub fn finish(&self) -> io::Result<()> {
        self.floor().finish()
    }

    /// Breaks the answer off: the client sees a broken stream, never a clean end. Nothing happens when it is
    /// over. Never waits, not even for a thread that is blocked in a write: that write fails.
    ///
    /// An HTTP/1.0 stream on a Unix socket is the exception: nothing there tells a broken end from a clean one.
    pub fn abort(&self) {
        self.inner.break_off();
    }

    /// How far the answer is. Unless you have the floor, it may be further when you read this.
    pub fn progress(&self) -> Progress {
        self.inner.progress()
    }

    /// Takes the right to speak if nobody is in the middle of a write; otherwise `None`, and whoever must have
    /// the last word can only [`abort`](Exchange::abort). While the floor is held the others wait.
    pub fn seize(&self) -> Option<Floor<'_>> {
        let framing = self.inner.floor.try_lock()?;
        Some(Floor {
            inner: &self.inner,
            framing,
        })
    }

    fn floor(&self) -> Floor<'_> {
        Floor {
            inner: &self.inner,
            framing: self.inner.floor.lock(),
        }
    }

    /// Wakes the thread in [`Exchange::wait`]; if none is there, the next call returns at once.
    pub fn notify(&self) {
        self.inner.notified.store(true, Ordering::Release);
        self.inner.bell.ring();
    }

    /// Waits until somebody notifies, the answer is over, the client leaves or the time comes. For the
    /// connection's own thread: the one in [`Handler::handle`](super::Handler::handle), when it has handed the request on to
    /// whoever answers: [`Door::hand_over`](super::Door::hand_over) goes by that.
    ///
    /// *An end needs no `notify`.* The thread sees it when the client's next request arrives, else when it
    /// looks up by itself: after `park_after` and then at doubling distances. So whoever answers need not pay
    /// for waking it, and the thread is kept at most as long again as the answer took. Where the client would
    /// notice that delay, because the connection is to close or its next request is here already, the end
    /// rings.
    ///
    /// *Who has left.* A client that shuts only its sending side after the request can't be told from one that
    /// closed: to this side both are a FIN, until a write is answered by a reset. Both count as left, because
    /// waiting on would keep calls running for nobody, and the clients of this door close wholly. (A closed one
    /// would answer an interim `100 Continue` with a reset; but some clients stumble over one that they did not ask
    /// for.) An answer can still be sent; a half-closed client reads it. Once a client has left, every further `wait`
    /// says so at once.
    pub fn wait(&self, until: Time) -> Wake {
        let inner = &*self.inner;
        inner.turn.taken_up();
        let mut distance = inner.door.config.park_after.max(Duration::from_millis(1));
        let mut interest = PollFlags::RDHUP | PollFlags::IN;
        loop {
            if inner.notified.swap(false, Ordering::Acquire) || inner.progress().is_over() {
                return Wake::Notified;
            }
            let now = inner.door.clock.now();
            if now >= until {
                return Wake::TimedOut;
            }
            let seen = inner.look(interest, distance.min(until.until(now)));
            if seen.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR) {
                return inner.parting_word();
            }
            if seen.contains(PollFlags::IN) && !inner.is_soon_over() {
                // Pipelined bytes: they stay readable, and would make this loop spin.
                interest = PollFlags::RDHUP;
                self.ring_when_over();
            }
            distance = distance.saturating_mul(2);
        }
    }

    /// Has the connection's thread rung when the answer is over. The flag is set before the loop of `wait`
    /// looks at the progress, and the end is marked before the flag is read: one of the two sees the other.
    pub(super) fn ring_when_over(&self) {
        self.inner.ring.store(true, Ordering::SeqCst);
    }

    /// Whether the connection may serve another request.
    pub(super) fn stays(&self) -> bool {
        self.progress() == Progress::Finished && self.inner.stays.load(Ordering::Relaxed)
    }
}

impl Inner {
    pub(super) fn progress(&self) -> Progress {
        Progress::from_u8(self.progress.load(Ordering::SeqCst))
    }

    /// Whether the answer is over, or is in a moment: a client that has the whole answer may send its next request before
    /// whoever answered has come to mark the end.
    fn is_soon_over(&self) -> bool {
        let backoff = Backoff::new();
        while !self.progress().is_over() && !backoff.is_completed() {
            backoff.snooze();
        }
        self.progress().is_over()
    }

    pub(super) fn socket(&self) -> io::Result<Arc<Socket>> {
        self.socket
            .upgrade()
            .ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// Takes one edge of the drawing, or says why it can't be taken.
    pub(super) fn advance(&self, from: Progress, to: Progress) -> io::Result<()> {
        let swap = self.progress.compare_exchange(
            from as u8,
            to as u8,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        match swap.map_err(Progress::from_u8) {
            Ok(_) => Ok(()),
            Err(Progress::Broken) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(Progress::Unsent) => Err(out_of_turn("the answer was not started")),
            Err(Progress::Streaming) => Err(out_of_turn("the answer has begun")),
            Err(Progress::Finished) => Err(out_of_turn("the answer is finished")),
        }
    }

    /// After the upper right edge was taken: nothing is left to be sent.
    pub(super) fn after_finish(&self) {
        let stays = self.stays.load(Ordering::Relaxed);
        self.turn.end(stays);
        if self.ring.load(Ordering::SeqCst) || !stays {
            self.bell.ring();
        }
    }

    /// The lower edge of the drawing. The winner ends the socket; nobody can be using it for another exchange.
    pub(super) fn break_off(&self) {
        let unsent = self.advance(Progress::Unsent, Progress::Broken).is_ok();
        if !unsent && self.advance(Progress::Streaming, Progress::Broken).is_err() {
            // No edge leads back to `Unsent`, so what is in neither state now is over.
            return;
        }
        if let Ok(socket) = self.socket() {
            match self.manners.old {
                true => socket.reset(),
                false => socket.shut(),
            }
        }
        self.turn.end(false);
    }

    fn look(&self, interest: PollFlags, timeout: Duration) -> PollFlags {
        let Ok(socket) = self.socket() else {
            return PollFlags::HUP;
        };
        let mut fds = [
            PollFd::new(&*socket, interest),
            PollFd::new(&*self.bell, PollFlags::IN),
        ];
        if let Err(error) = poll_for(&mut fds, timeout) {
            log::error!("watching a client: {error}");
            return PollFlags::ERR;
        }
        if !fds[1].revents().is_empty() {
            self.bell.clear();
        }
        fds[0].revents()
    }

    /// After the socket's end was seen: our own doing (an answer over, an abort), or the client's.
    fn parting_word(&self) -> Wake {
        match self.progress().is_over() {
            true => Wake::Notified,
            false => Wake::ClientLeft,
        }
    }
}

fn out_of_turn(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}
