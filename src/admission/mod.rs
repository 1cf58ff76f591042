//! Admission: which job may run now, which waits, which is refused.
//!
//! # The core is a plain struct
//!
//! [`Core`] is a state machine: an [`Event`] and the present time go in, [`Action`]s come out. There is no clock, no
//! thread, no lock, no channel and no I/O in it. The engine puts one lock around it and carries out what it says
//! after the lock is released; a simulator plays days of trouble through it in seconds; a model checker runs it
//! under every interleaving. Everything that decides admission is in this one struct, so there is no second lock
//! to wait for while holding the first.
//!
//! # Rules
//!
//! 1. A job takes worker, global slot, provider slot and session slot together, at the moment of its start, or
//!    waits and holds nothing.
//! 2. Jobs wait in *lines*, one per stage (a set of interchangeable targets); see `queue.rs` for the order in it.
//!    Among lines the one whose next job is oldest goes first.
//! 3. After every event there is no job left that could start: an idle worker and an eligible job never meet. (Only a
//!    tick so late that more than a slice of jobs expired unnoticed puts that off, to the tick that is then due.)
//! 4. A job ends exactly once: the first event that ends it wins, and later ones find nothing to end.
//! 5. Nothing starts after its deadline, which is looked at again when it starts and when it [begins](Core::begin), nor
//!    after the end of the drain.
//! 6. No step grows with how many wait: ends that fall due together are worked off in slices of [`SLICE`].
//! 7. A call is tried again only if nothing of its answer went to the client, its failure means that it was not
//!    processed, its target's budget allows it, and there is time left for it: see [`Cause`] and `backoff.rs`. Until then
//!    the job is only data, and it always has its place in line.
//! 8. Nothing starts at a target that is full, whose gate is shut or whose breaker is open: see `limit.rs`, `gate.rs` and
//!    `breaker.rs`. Whoever could only wait in vain for such a target goes on to the next stage, or is refused at once.
//!
//! # Between the decision and the act
//!
//! Actions are carried out after the lock is released, by different threads, so two of them may be carried out in
//! another order than they were decided. Each carries a sequence number, by which the lifecycle log is ordered. A
//! worker that has been handed a permit asks [`Core::begin`] before its first I/O: a job that ended meanwhile
//! answers *no*.

mod admit;
mod audit;
mod backoff;
mod breaker;
mod dispatch;
mod estimate;
mod fair;
mod gate;
mod limit;
mod onward;
mod outcome;
mod planted;
mod queue;
mod relimit;
mod sessions;
mod settings;
mod shut;
mod slots;
mod state;
mod target;
#[cfg(test)]
mod tests;
mod view;

use std::fmt;
use std::time::Duration;

use crate::cancel::CancelReason;
use crate::clock::Time;
use crate::config::Priority;

pub use outcome::{Cause, Outcome, Report};
#[cfg(test)]
pub use planted::Fault;
pub use settings::{
    BreakerSettings, GateSettings, Learning, LimitSettings, ProviderSettings, QueueSettings,
    RetrySettings, Settings,
};
pub use shut::Shut;
pub use slots::PermitKey;
pub use state::Core;
pub use view::{BreakerChanges, ClassView, CoreView, ProviderView, TargetView};

/// How many due ends one step works off.
pub const SLICE: usize = 64;

const CLASSES: usize = Priority::ALL.len();

/// A [`Priority`] by its index.
type ClassId = usize;

/// Names a job; given by whoever submits it, never twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Names those who share one line: a named session, or all requests without a name under one API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u64);

/// A provider, by its index in [`Settings::providers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProviderId(pub u32);

/// One endpoint and key of a provider, by its index in [`Settings::targets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(pub u32);

/// Names a model, wherever it is asked: equal for equal models, and nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId(pub u64);

/// A set of interchangeable targets, as [`Core::stage`] named it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageId(pub u32);

impl ProviderId {
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

impl TargetId {
    /// Its index in [`Settings::targets`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl StageId {
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// All that can happen.
#[derive(Debug, Clone)]
pub enum Event {
    /// A job arrives.
    Submit(Submission),
    /// A permit comes back, with what became of its call. Comes from the permit's drop and from nowhere else.
    GiveBack(PermitKey, Report),
    /// A call's answer has begun. Asked for only of a [probe](Step::Start::probe), and harmless otherwise.
    Answer(PermitKey),
    /// Somebody wants the job to end.
    Cancel(JobId, CancelReason),
    /// Time has passed: see [`Core::next_due`].
    Tick,
    /// Other limits are in force from now on. What is in flight above a lowered one drains; nobody is interrupted for it.
    Limits(Limits),
    /// Take nothing new; what has not ended by then is ended.
    Stop {
        /// The end of the drain.
        until: Time,
    },
}

/// The limits that may change while jobs wait and run. 0 counts as 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// See [`Settings::workers`].
    pub workers: usize,
    /// See [`Settings::global`].
    pub global: usize,
    /// See [`Settings::session`].
    pub session: usize,
    /// See [`Settings::sessions`].
    pub sessions: usize,
    /// See [`ProviderSettings::limit`], in the order of the settings; who is not named here keeps what it has.
    pub providers: Vec<usize>,
}

/// A job as admission sees it.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Its name.
    pub job: JobId,
    /// Where it may run: one stage after the other, a later one only where an earlier one failed or is shut. Never empty.
    pub route: Vec<Leg>,
    /// Whose line it stands in.
    pub flow: FlowId,
    /// Whether the flow is a named session: these have a limit of their own, and places of their own.
    pub session: bool,
    /// Calls in flight of that session, where this is less than [`Settings::session`]; 0 counts as 1. Jobs of one session
    /// say the same; where they don't, the one counts that last went into line or started.
    pub session_limit: Option<usize>,
    /// Its class.
    pub class: Priority,
    /// It ends by then.
    pub deadline: Time,
    /// What it holds in memory while it waits.
    pub bytes: usize,
}

/// One stage of a job's route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    /// Where.
    pub stage: StageId,
    /// Which model is asked for there, if any is.
    pub model: Option<ModelId>,
}

impl From<StageId> for Leg {
    fn from(stage: StageId) -> Self {
        Leg { stage, model: None }
    }
}

/// What the engine has to do, in the order of decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// The place of this decision among all decisions.
    pub seq: u64,
    /// About which job.
    pub job: JobId,
    /// What to do.
    pub step: Step,
}

/// What the engine has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Tell that it waits; `waiting` jobs stand in its line, itself included.
    Wait {
        /// For which stage of its route, from 0.
        stage: usize,
        /// Jobs in its line.
        waiting: usize,
    },
    /// Hand it to a worker.
    Start {
        /// To be given back exactly once.
        permit: PermitKey,
        /// Where to call.
        target: TargetId,
        /// Which call of the job it is, from 1.
        attempt: u32,
        /// Which stage of its route it is at, from 0.
        stage: usize,
        /// When the first byte of the answer has to be in: the attempt's share of the deadline while stages remain.
        first_byte_by: Time,
        /// Whether [`Event::Answer`] is asked for when the answer begins: much hangs on it, and the answer may take long.
        probe: bool,
    },
    /// Tell that its call failed and will be tried again. It holds nothing until then.
    BackOff {
        /// When it goes back into line.
        until: Time,
    },
    /// Tell how it ended.
    End(Ending),
    /// End the call that is under way; its permit has yet to come back.
    Interrupt(CancelReason),
}

/// How a job ended, as far as admission knows.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// Its call came back: the worker knows the rest.
    Finished(Outcome),
    /// It waited for longer than the queue timeout.
    QueueTimeout,
    /// Its deadline passed, in line or in its call.
    Expired,
    /// Somebody wanted it to end.
    Cancelled(CancelReason),
    /// It was not taken in, or had to give way.
    Refused(Refusal),
}

/// Why a job was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What was full.
    pub reason: RefusalReason,
    /// When to come again: 1 s at first, doubled every second in which jobs are refused, at most 32 s; one second less for
    /// every second without (the rule of Kubernetes' API priority and fairness). Where targets are shut, the time until
    /// the first of them opens.
    pub retry_after: Duration,
}

/// What was full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// `queue.capacity` jobs wait.
    QueueFull,
    /// `queue.per_session` jobs of this session wait for this target.
    SessionQueueFull,
    /// Waiting requests hold `queue.max_bytes`.
    QueueBytes,
    /// The jobs that wait for this provider fill its share of the places.
    ProviderQueueFull,
    /// By what calls took lately, its turn would come after the queue timeout.
    WaitTooLong {
        /// The wait to expect.
        expected: Duration,
    },
    /// It gave its place to a session that had less than its share.
    Displaced,
    /// Nobody whom it may be sent to takes calls before its time in line is over; why the first to open doesn't.
    Shut(Shut),
    /// The gateway is stopping.
    Stopping,
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RefusalReason::QueueFull => f.write_str("the queue is full (queue.capacity)"),
            RefusalReason::SessionQueueFull => {
                f.write_str("too many requests of this session, or of callers without one, are waiting for this provider (queue.per_session)")
            }
            RefusalReason::QueueBytes => f.write_str("the waiting requests hold too many bytes (queue.max_bytes)"),
            RefusalReason::ProviderQueueFull => {
                f.write_str("too many requests are waiting for this provider (queue.provider_share)")
            }
            RefusalReason::WaitTooLong { expected } => write!(
                f,
                "the expected wait of {} s is longer than the queue timeout (queue.timeout)",
                expected.as_secs()
            ),
            RefusalReason::Displaced => {
                f.write_str("the queue is full, and the place went to a session that had less than its share")
            }
            RefusalReason::Shut(why) => write!(f, "its provider takes no calls for now: {why}"),
            RefusalReason::Stopping => f.write_str("the gateway is stopping"),
        }
    }
}
