//! One exchange: a request, its answer, and how long each step of it may take.
//!
//! ```text
//!  Connecting --stands--> Waiting --received--> Receiving --head--> Thinking --content--> Receiving --finish--> Finishing
//! ```
//!
//! All edges are the calling thread's. Each phase has one bound of its own, and the deadline bounds them all:
//!
//! | phase | bound | when it is over |
//! |---|---|---|
//! | `Connecting`: lookup, TCP, TLS | `timeouts.connect`, in all | `Connect { timed_out: true }` |
//! | `Waiting`: sending, and nothing back yet | `timeouts.first_byte` or the call's own, in all | `FirstByteTimeout` |
//! | `Thinking`: the head is in, and no content yet: a model may think for minutes | `timeouts.first_byte`, in all, until the body's first byte; then none | `FirstByteTimeout` |
//! | `Receiving`: head and content | `timeouts.idle`, anew for every wait | `IdleTimeout` |
//! | `Finishing`: the answer's end, for the pool's sake | what [`Exchange::finish_by`] says | `IdleTimeout` |
//!
//! Every wait on the socket is in [`Exchange::wait`], and every read and write asks [`Exchange::admit`] first. So
//! a peer that trickles can't outlive the deadline, and none of the HTTP client's own timeouts is needed.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::cancel::CancelToken;
use crate::clock::{SharedClock, Time};
use crate::config::Timeouts;

use super::error::TransportError;
use super::grip::Grip;

/// The longest single poll; longer waits are several of them.
const LONGEST_POLL: Duration = Duration::from_secs(3600);

/// A request and its answer, seen from the socket.
#[derive(Debug)]
pub(super) struct Exchange {
    clock: SharedClock,
    token: CancelToken,
    deadline: Time,
    connect_by: Time,
    first_byte: Option<Duration>,
    /// Until when the first byte may take, whatever `first_byte` says.
    first_byte_by: Time,
    idle: Duration,
    /// Shared with the cancel hook.
    grip: Arc<Grip>,
    /// Locked by the calling thread alone; a lock because the HTTP client wants its transports `Sync`.
    progress: Mutex<Progress>,
}

#[derive(Debug, Clone, Copy)]
struct Progress {
    phase: Phase,
    /// Whether the connection came from the pool.
    reused: bool,
    /// Until when the body has to begin.
    begin_by: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Waiting { until: Time },
    Receiving,
    Thinking { until: Time },
    Finishing { until: Time },
}

/// Whose time is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Connect,
    FirstByte,
    Idle,
    Deadline,
}

impl Bound {
    fn into_error(self) -> TransportError {
        match self {
            Bound::Connect => TransportError::Connect {
                detail: "timed out".into(),
                timed_out: true,
            },
            Bound::FirstByte => TransportError::FirstByteTimeout,
            Bound::Idle => TransportError::IdleTimeout,
            Bound::Deadline => TransportError::Deadline,
        }
    }
}

impl Exchange {
    /// An exchange that begins now.
    pub(super) fn new(
        clock: &SharedClock,
        timeouts: &Timeouts,
        token: &CancelToken,
        deadline: Time,
    ) -> Self {
        Exchange {
            clock: Arc::clone(clock),
            token: token.clone(),
            deadline,
            connect_by: clock.now() + timeouts.connect,
            first_byte: timeouts.first_byte,
            first_byte_by: Time::NEVER,
            idle: timeouts.idle,
            grip: Arc::default(),
            progress: Mutex::new(Progress {
                phase: Phase::Connecting,
                reused: false,
                begin_by: Time::NEVER,
            }),
        }
    }

    /// The same, of which the first byte has to be in by then.
    pub(super) fn first_byte_by(self, until: Time) -> Self {
        Exchange {
            connect_by: self.connect_by.min(until),
            first_byte_by: until,
            ..self
        }
    }

    /// The same, whose first byte must come within `first_byte`, if that is the shorter bound.
    pub(super) fn within(mut self, first_byte: Option<Duration>) -> Self {
        self.first_byte = shorter(self.first_byte, first_byte);
        self
    }

    /// The exchange's hold on its socket.
    pub(super) fn grip(&self) -> &Arc<Grip> {
        &self.grip
    }

    /// What cancels it.
    pub(super) fn token(&self) -> &CancelToken {
        &self.token
    }

    /// What time it is.
    pub(super) fn now(&self) -> Time {
        self.clock.now()
    }

    /// Puts `socket` under the cancel hook.
    ///
    /// # Errors
    /// [`TransportError::Cancelled`] if the word was said already.
    pub(super) fn hold(&self, socket: &Arc<TcpStream>) -> Result<(), TransportError> {
        // The hook runs after the reason is set, so whoever finds the grip cut finds a reason too.
        self.grip.hold(socket).or_else(|_| self.check())
    }

    /// The connection stands; from here on the first byte is waited for.
    pub(super) fn stands(&self, reused: bool) {
        let until = self
            .first_byte
            .map_or(Time::NEVER, |timeout| self.now() + timeout);
        let until = until.min(self.first_byte_by);
        let mut progress = self.progress.lock();
        if progress.phase == Phase::Connecting {
            *progress = Progress {
                phase: Phase::Waiting { until },
                reused,
                begin_by: until,
            };
        }
    }

    /// Bytes of the answer came in.
    pub(super) fn received(&self) {
        let mut progress = self.progress.lock();
        if let Phase::Waiting { .. } = progress.phase {
            progress.phase = Phase::Receiving;
        }
    }

    /// The head of the answer is in; the body may be long in coming.
    pub(super) fn head_is_in(&self) {
        let mut progress = self.progress.lock();
        let until = progress.begin_by;
        progress.phase = Phase::Thinking { until };
    }

    /// Bytes of the body came in, maybe with the head. They need not say anything: a stream begins with a role or a
    /// comment long before a model that thinks has its first word.
    pub(super) fn body_began(&self) {
        let mut progress = self.progress.lock();
        if let Phase::Thinking { .. } = progress.phase {
            let until = Time::NEVER;
            progress.phase = Phase::Thinking { until };
        }
    }

    /// The body has begun to say something, as only its reader knows.
    pub(super) fn content_began(&self) {
        let mut progress = self.progress.lock();
        if let Phase::Thinking { .. } = progress.phase {
            progress.phase = Phase::Receiving;
        }
    }

    /// What is still to come is worth waiting for until `until`, and no longer.
    pub(super) fn finish_by(&self, until: Time) {
        self.progress.lock().phase = Phase::Finishing { until };
    }

    /// Whether the connection was reused, once it stands.
    pub(super) fn stood(&self) -> Option<bool> {
        let progress = *self.progress.lock();
        (progress.phase != Phase::Connecting).then_some(progress.reused)
    }

    /// The peer closed the connection, as `detail` says.
    pub(super) fn closed(&self, detail: impl ToString) -> TransportError {
        let progress = *self.progress.lock();
        match progress.phase {
            Phase::Connecting => TransportError::connect(detail),
            Phase::Waiting { .. }
            | Phase::Receiving
            | Phase::Thinking { .. }
            | Phase::Finishing { .. } => TransportError::Closed {
                reused: progress.reused,
                before_answer: matches!(progress.phase, Phase::Waiting { .. }),
                detail: detail.to_string(),
            },
        }
    }

    /// Whether the exchange may go on, as far as its token is concerned.
    pub(super) fn check(&self) -> Result<(), TransportError> {
        match self.token.reason() {
            Some(reason) => Err(TransportError::Cancelled(reason)),
            None => Ok(()),
        }
    }

    /// Whether the next read or write may be tried.
    pub(super) fn admit(&self) -> Result<(), TransportError> {
        self.check()?;
        let now = self.now();
        let (until, bound) = self.bound(now);
        if now < until {
            Ok(())
        } else {
            Err(bound.into_error())
        }
    }

    /// Until when a wait that begins now may last.
    pub(super) fn until(&self) -> Time {
        self.bound(self.now()).0
    }

    fn bound(&self, now: Time) -> (Time, Bound) {
        let phase = self.progress.lock().phase;
        let (until, bound) = match phase {
            Phase::Connecting => (self.connect_by, Bound::Connect),
            Phase::Waiting { until } | Phase::Thinking { until } => (until, Bound::FirstByte),
            Phase::Receiving => (now + self.idle, Bound::Idle),
            Phase::Finishing { until } => (until, Bound::Idle),
        };
        if self.deadline <= until {
            (self.deadline, Bound::Deadline)
        } else {
            (until, bound)
        }
    }

    /// Waits until `socket` is ready for `events`, the exchange is cancelled or its time is up.
    pub(super) fn wait(&self, socket: &TcpStream, events: PollFlags) -> Result<(), TransportError> {
        let (until, bound) = self.bound(self.now());
        if self.wait_until(socket, events, until)? {
            Ok(())
        } else {
            Err(bound.into_error())
        }
    }

    /// Waits until `socket` is ready for `events` (true) or `until` has come (false).
    pub(super) fn wait_until(
        &self,
        socket: &TcpStream,
        events: PollFlags,
        until: Time,
    ) -> Result<bool, TransportError> {
        loop {
            self.check()?;
            let left = until.until(self.now());
            if left.is_zero() {
                return Ok(false);
            }
            match poll(&mut [PollFd::new(socket, events)], Some(&timespec(left))) {
                Ok(0) | Err(Errno::INTR) => {}
                // The hook may have woken us: what the socket says then is of no interest.
                Ok(_) => return self.check().map(|()| true),
                Err(error) => return Err(self.closed(error)),
            }
        }
    }
}

/// The shorter of two bounds that may not be there.
fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

fn timespec(length: Duration) -> Timespec {
    let length = length.min(LONGEST_POLL);
    Timespec {
        tv_sec: i64::try_from(length.as_secs()).expect("an hour fits"),
        tv_nsec: length.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn check(deadline_ms: u64, step: impl Fn(&Exchange), wait_ms: u64, expected: TransportError) {
        let manual = Arc::new(ManualClock::new());
        let clock: SharedClock = manual.clone();
        let timeouts = super::super::tests::timeouts();
        let deadline = Time::ZERO + Duration::from_millis(deadline_ms);
        let exchange = Exchange::new(&clock, &timeouts, &CancelToken::new(), deadline);
        step(&exchange);
        assert_eq!(
            exchange.until(),
            Time::ZERO + Duration::from_millis(wait_ms)
        );
        assert_eq!(exchange.admit(), Ok(()));
        manual.advance(Duration::from_millis(deadline_ms));
        assert!(exchange.admit().is_err());
        assert_eq!(exchange.bound(Time::ZERO).1.into_error(), expected);
    }

    #[test]
    fn each_phase_has_a_bound_of_its_own_and_the_deadline_is_above_all() {
        let connect = Bound::Connect.into_error();
        check(60_000, |_| (), 10_000, connect);
        check(5_000, |_| (), 5_000, TransportError::Deadline);
        let stands = |e: &Exchange| e.stands(false);
        check(60_000, stands, 20_000, TransportError::FirstByteTimeout);
        check(5_000, stands, 5_000, TransportError::Deadline);
        let receives = |e: &Exchange| {
            e.stands(true);
            e.received();
            assert_eq!(e.stood(), Some(true));
        };
        check(5_000, receives, 5_000, TransportError::Deadline);
        let clock: SharedClock = Arc::new(ManualClock::new());
        let timeouts = super::super::tests::timeouts();
        let exchange = Exchange::new(&clock, &timeouts, &CancelToken::new(), Time::NEVER);
        receives(&exchange);
        assert_eq!(exchange.until(), Time::ZERO + timeouts.idle);
    }

    #[test]
    fn an_attempts_share_of_the_deadline_bounds_its_connect_and_its_first_byte_and_no_more() {
        let share = Time::ZERO + Duration::from_secs(3);
        let begin = |deadline| {
            let clock: SharedClock = Arc::new(ManualClock::new());
            let timeouts = super::super::tests::timeouts();
            let exchange = Exchange::new(&clock, &timeouts, &CancelToken::new(), deadline);
            exchange.first_byte_by(share)
        };
        let exchange = begin(Time::NEVER);
        assert_eq!(exchange.until(), share);
        exchange.stands(false);
        assert_eq!(exchange.bound(Time::ZERO), (share, Bound::FirstByte));
        exchange.received();
        exchange.head_is_in();
        exchange.body_began();
        assert_eq!(exchange.until(), Time::NEVER);
        let last = begin(share);
        last.stands(false);
        assert_eq!(
            last.bound(Time::ZERO),
            (share, Bound::Deadline),
            "of the last attempt"
        );
    }

    #[test]
    fn a_call_may_bound_its_first_byte_more_tightly_and_never_more_loosely() {
        let until = |configured: Option<u64>, own: Option<u64>| {
            let clock: SharedClock = Arc::new(ManualClock::new());
            let timeouts = Timeouts {
                first_byte: configured.map(Duration::from_secs),
                ..super::super::tests::timeouts()
            };
            let exchange = Exchange::new(&clock, &timeouts, &CancelToken::new(), Time::NEVER)
                .within(own.map(Duration::from_secs));
            exchange.stands(false);
            exchange.until()
        };
        let secs = |secs| Time::ZERO + Duration::from_secs(secs);
        assert_eq!(until(Some(20), Some(5)), secs(5));
        assert_eq!(until(Some(20), Some(50)), secs(20));
        assert_eq!(until(Some(20), None), secs(20));
        assert_eq!(until(None, Some(5)), secs(5));
        assert_eq!(until(None, None), Time::NEVER);
    }

    #[test]
    fn silence_before_the_content_is_not_bounded_like_a_pause_in_it() {
        let clock: SharedClock = Arc::new(ManualClock::new());
        let timeouts = super::super::tests::timeouts();
        let exchange = Exchange::new(&clock, &timeouts, &CancelToken::new(), Time::NEVER);
        exchange.stands(false);
        exchange.received();
        exchange.head_is_in();
        let first_byte = timeouts.first_byte.expect("the test's timeouts have one");
        assert_eq!(exchange.until(), Time::ZERO + first_byte);
        exchange.body_began();
        assert_eq!(exchange.until(), Time::NEVER, "the deadline alone");
        exchange.content_began();
        assert_eq!(exchange.until(), Time::ZERO + timeouts.idle);
    }
}
