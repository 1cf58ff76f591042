//! The callers: their threads, and the one that waits for them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rayon::prelude::*;

use super::exchange::{Caller, Seen};
use super::outcome::{Outcome, Trouble};
use super::plan::Plan;
use super::recorder::Recorder;
use super::report::Report;
use super::schedule::{Schedule, Ticket};
use crate::cancel::{CancelReason, CancelToken};
use crate::client::{Client, ClientError};
use crate::clock::{SharedClock, Time};

/// Between two looks at the progress.
const PROGRESS: Duration = Duration::from_millis(100);
/// How long a caller waits after it found nobody there: a server that is down is not to be hammered.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest that the first question, whether anybody is there, may take.
const GREETING: Duration = Duration::from_secs(5);
/// Recorders are added up in parallel from this many on: one takes about a tenth of a millisecond.
const PARALLEL: usize = 64;

/// Why a load test did not begin.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nobody answers at the address, or it is none.
    #[error(transparent)]
    Unreachable(#[from] ClientError),
    /// The system gave no thread.
    #[error("no thread can be started: {0}")]
    Threads(#[source] io::Error),
}

/// How far a load test is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Requests that have ended.
    pub ended: u64,
    /// Those among them that were answered.
    pub answered: u64,
    /// How many there will be, where the plan says.
    pub planned: Option<u64>,
    /// Since the test began.
    pub elapsed: Duration,
}

/// Runs a load test to its end, or until `cancel` is said; then with what is known. Tells `on_progress` ten times a
/// second how far it is. Blocks.
///
/// # Errors
/// [`LoadError`]: only before anything was measured.
pub fn run(
    plan: Plan,
    clock: &SharedClock,
    cancel: &CancelToken,
    on_progress: &mut dyn FnMut(&Progress),
) -> Result<Report, LoadError> {
    greet(&plan, cancel)?;
    let shared = Arc::new(Shared {
        schedule: Schedule::new(&plan, clock.now()),
        name: fastrand::u64(..),
        clock: Arc::clone(clock),
        cancel: cancel.clone(),
        ended: AtomicU64::new(0),
        answered: AtomicU64::new(0),
        plan,
    });
    let start = clock.now();
    let callers = Callers::start(&shared)?;
    callers.attend(|| on_progress(&shared.progress(start)));
    let recorders = callers.join();
    on_progress(&shared.progress(start));
    let lasted = clock.now().since(start);
    let totals = merge(recorders).map_err(LoadError::Threads)?;
    let planned = shared.schedule.planned();
    let plan = shared.plan.clone();
    Ok(Report::new(
        plan,
        totals,
        lasted,
        planned,
        cancel.is_cancelled(),
    ))
}

/// Finds out whether anybody is there: any answer will do.
fn greet(plan: &Plan, cancel: &CancelToken) -> Result<(), ClientError> {
    let client = Client::new(plan.base(), cancel)?;
    client.get("/v1/models", &[], GREETING).map(drop)
}

/// What the callers share.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    schedule: Schedule,
    /// Of this test: its ids are no other's.
    name: u64,
    clock: SharedClock,
    cancel: CancelToken,
    // For the progress alone: the report is made of what the callers recorded.
    ended: AtomicU64,
    answered: AtomicU64,
}

impl Shared {
    fn progress(&self, start: Time) -> Progress {
        // In this order: an end is counted before its answer, so never more answers than ends are seen.
        let answered = self.answered.load(Ordering::Acquire);
        Progress {
            ended: self.ended.load(Ordering::Acquire),
            answered,
            planned: self.schedule.planned(),
            elapsed: self.clock.now().since(start),
        }
    }

    /// Sends one request after the other until there are no more.
    fn call(&self, caller: usize) -> Result<Recorder, ClientError> {
        let client = Client::new(self.plan.base(), &self.cancel)?;
        let session = self.plan.session(caller);
        let caller = Caller {
            plan: &self.plan,
            client: &client,
            clock: &self.clock,
            session: session.as_deref(),
        };
        let mut recorder = Recorder::default();
        while let Some(ticket) = self.schedule.ticket(self.clock.now()) {
            let early = ticket.due.until(self.clock.now());
            if self.cancel.is_cancelled() || !early.is_zero() && self.cancel.wait(early).is_some() {
                break;
            }
            let is_down = self.send(&caller, ticket, &mut recorder);
            if is_down && self.cancel.wait(PAUSE).is_some() {
                break;
            }
        }
        Ok(recorder)
    }

    /// Sends one request and takes down what became of it. Returns whether nobody was there.
    fn send(&self, caller: &Caller<'_>, ticket: Ticket, recorder: &mut Recorder) -> bool {
        // As long for every number: none is the beginning of another.
        let id = format!("pm-{:016x}-{:010}", self.name, ticket.number);
        if self.plan.rate.is_some() {
            recorder.late.record(self.clock.now().since(ticket.due));
        }
        let mut seen = Seen::default();
        let end = caller.ask(ticket.number, &id, &mut seen);
        let took = self.clock.now().since(ticket.due);
        let is_down = matches!(&end, Err(Trouble { is_down: true, .. }));
        self.ended.fetch_add(1, Ordering::AcqRel);
        self.answered
            .fetch_add(u64::from(end.is_ok()), Ordering::AcqRel);
        recorder.record(took, self.plan.priority(ticket.number), &seen, end);
        is_down
    }
}

/// The callers' threads.
struct Callers {
    threads: Vec<JoinHandle<Result<Recorder, ClientError>>>,
    /// Closed when the last caller has gone.
    gone: Receiver<()>,
}

impl Callers {
    fn start(shared: &Arc<Shared>) -> Result<Callers, LoadError> {
        let (alive, gone) = bounded(0);
        let mut callers = Callers {
            threads: Vec::new(),
            gone,
        };
        for index in 0..shared.plan.callers.max(1) {
            match start(shared, index, &alive) {
                Ok(thread) => callers.threads.push(thread),
                Err(error) => {
                    // Those that have begun go home at once.
                    shared.cancel.cancel(CancelReason::Requested);
                    callers.join();
                    return Err(LoadError::Threads(error));
                }
            }
        }
        Ok(callers)
    }

    /// Waits for the last caller to go; meanwhile runs `look` now and then.
    fn attend(&self, mut look: impl FnMut()) {
        while self.gone.recv_timeout(PROGRESS) == Err(RecvTimeoutError::Timeout) {
            look();
        }
    }

    /// What they recorded. One that could not begin, or panicked, counts as a failed request.
    fn join(self) -> Vec<Recorder> {
        let recorders = self.threads.into_iter().map(|thread| {
            let reason = match thread.join() {
                Ok(Ok(recorder)) => return recorder,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "a caller of the load test panicked".into(),
            };
            let mut recorder = Recorder::default();
            let trouble = Trouble::new(Outcome::Failed, reason);
            recorder.record(Duration::ZERO, None, &Seen::default(), Err(trouble));
            recorder
        });
        recorders.collect()
    }
}

fn start(
    shared: &Arc<Shared>,
    index: usize,
    alive: &Sender<()>,
) -> io::Result<JoinHandle<Result<Recorder, ClientError>>> {
    let (shared, alive) = (Arc::clone(shared), alive.clone());
    Builder::new()
        .name(format!("pointsman-load-{index}"))
        .spawn(move || {
            let recorder = shared.call(index);
            drop(alive);
            recorder
        })
}

/// Adds them up.
fn merge(recorders: Vec<Recorder>) -> io::Result<Recorder> {
    if recorders.len() < PARALLEL {
        let sum = |sum: Recorder, recorder: &Recorder| sum.merge(recorder);
        return Ok(recorders.iter().fold(Recorder::default(), sum));
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .thread_name(|index| format!("pointsman-merge-{index}"))
        .build()
        .map_err(io::Error::other)?;
    Ok(pool.install(|| {
        let recorders = recorders.into_par_iter();
        recorders.reduce(Recorder::default, |a, b| a.merge(&b))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_recorders_add_up_to_what_few_do() {
        let mut one = Recorder::default();
        one.record(Duration::from_millis(3), None, &Seen::default(), Ok(()));
        for count in [1, PARALLEL - 1, PARALLEL, 3 * PARALLEL] {
            let sum = merge(vec![one.clone(); count]).expect("threads");
            assert_eq!(sum.count(Outcome::Answered), count as u64);
        }
    }
}
