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
//! 8. A slot whose job has ended and whose holder does not come back is taken from it: see `orphans.rs`. A slot whose job
//!    lives is never touched.
//! 9. Nothing starts at a target that is full, whose gate is shut or whose breaker is open: see `limit.rs`, `gate.rs` and
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
mod change;
mod dispatch;
mod estimate;
mod fair;
mod gate;
mod limit;
mod onward;
mod orphans;
mod outcome;
mod planted;
mod queue;
mod sessions;
mod settings;
mod shut;
mod slots;
mod state;
mod target;
#[cfg(test)]
mod tests;
mod throttle;
mod view;
mod whereabouts;

use std::fmt;
use std::time::Duration;

use crate::cancel::CancelReason;
use crate::clock::Time;
use crate::config::Priority;

pub use change::Change;
pub use orphans::SlotView;
pub use outcome::{Cause, Outcome, Report};
#[cfg(test)]
pub use planted::Fault;
pub use settings::{
    BreakerSettings, GateSettings, Learning, LimitSettings, OrphanSettings, ProviderSettings,
    QueueSettings, RetrySettings, Settings,
};
pub use shut::Shut;
pub use slots::{PermitKey, SlotState, Turnover};
pub use state::Core;
pub use view::{BreakerChanges, ClassView, CoreView, ProviderView, TargetView};
pub use whereabouts::{Obstacle, Slots, Whereabouts};

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

/// A worker, by the number that the engine gave it; none was given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u32);

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
    /// The box is as loaded as this from now on. Stays in force whatever [`Event::Change`] says later.
    Throttle(Throttle),
    /// Other settings are in force from now on. What is in flight above a lowered limit drains; nobody is interrupted for it.
    Change(Box<Change>),
    /// Take nothing new; what has not ended by then is ended.
    Stop {
        /// The end of the drain.
        until: Time,
    },
}

/// What the load of the box leaves of the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// Calls in flight in all, where that is less than [`Settings::global`]. 0 counts as 1.
    pub most: usize,
    /// Whether jobs of the lowest class are refused when they come; those that are in already stay.
    pub refuses_low: bool,
}

impl Throttle {
    /// The box is not loaded.
    pub const NONE: Throttle = Throttle {
        most: usize::MAX,
        refuses_low: false,
    };
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
    /// Whether its slot may be taken from a holder that does not come back.
    pub reclaim: bool,
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
    /// The job has ended, its call was interrupted, and its permit has not come back: the worker is lost, if the call had
    /// begun, and another is wanted in its place.
    Quarantine {
        /// Whose holder is given up on.
        permit: PermitKey,
        /// Who makes the call.
        worker: Option<WorkerId>,
    },
    /// The slot was taken from a holder that did not come back, and is free.
    Reclaim {
        /// What it was; its return will change nothing.
        permit: PermitKey,
        /// Who makes the call.
        worker: Option<WorkerId>,
    },
}

/// How a job ended, as far as admission knows.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// Its call came back: the worker knows the rest.
    Finished(Outcome),
    /// It waited for longer than the queue timeout, at last for this.
    QueueTimeout(Obstacle),
    /// Its deadline passed, in line, where it waited for this, or in its call.
    Expired(Option<Obstacle>),
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
    /// The global limit then, where the load of the box held it down.
    pub throttled: Option<Throttled>,
}

/// A global limit that the load of the box holds down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttled {
    /// Calls that may be in flight in all.
    pub to: usize,
    /// How many may be when the box is not loaded.
    pub of: usize,
}

impl fmt::Display for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Throttled { to, of } = self;
        write!(
            f,
            "the throttle holds the global limit at {to} of {of} (/api/throttling/status says why)"
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.throttled {
            None => write!(f, "{}", self.reason),
            Some(throttled) => write!(f, "{}; {throttled}", self.reason),
        }
    }
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
    /// More workers are lost than may be (`watchdog.max_lost_workers`).
    WorkersLost {
        /// How many.
        lost: usize,
    },
    /// It is of the lowest class, and the box is so loaded that none of that is taken in.
    BoxLoaded,
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
            RefusalReason::Shut(Shut::Removed) => {
                f.write_str("its provider was taken out of the configuration")
            }
            RefusalReason::Shut(why) => write!(f, "its provider takes no calls for now: {why}"),
            RefusalReason::WorkersLost { lost } => write!(
                f,
                "{lost} workers don't come back from calls that were interrupted (watchdog.max_lost_workers)"
            ),
            RefusalReason::BoxLoaded => {
                f.write_str("the box is so loaded that no requests of low priority are taken (throttle.refuse_low)")
            }
            RefusalReason::Stopping => f.write_str("the gateway is stopping"),
        }
    }
}
