//! The lock around the core, and the hands that carry out what it says.
//!
//! [`Shell::step`] is the only way in: it takes the core's lock, hands over one event, lets go of the lock, and then
//! carries out the actions on the calling thread. So a worker that gives a permit back starts the next job itself,
//! and a submitter hands its own job to a worker: one hand-off on the way in, none on the way out.
//!
//! Two threads may carry out actions of one job in another order than they were decided. Each such race is closed by
//! the core, not by luck:
//!
//! * *Start after end.* A cancelled job's `End` may be carried out before its `Start`. `End` takes the job off the list;
//!   `Start` then finds no job and drops the permit, which gives the slot back. If `Start` came first, the worker asks
//!   [`Core::begin`](crate::admission::Core::begin) and is told *no*.
//! * *End against a piece.* The job's sink hears `end` from this thread while the worker may be inside `piece`: that is
//!   the sink's contract.
//! * *Cancel before submit.* The submitter's token is hooked after the submission, so its word never comes too early to
//!   find the job.
//!
//! Order of carrying out: the job of the worker that speaks is told last, because telling it may block on a slow
//! client, and others' starts must not wait for that.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ThreadId};

use parking_lot::{Condvar, Mutex, RwLock};

use super::job::Speaker;
use super::live::{Leg, LiveJob};
use super::measure;
use super::permit::Permit;
use super::ready::ReadyQueue;
use super::report;
use super::sessions::SessionTable;
use super::watchdog::Alarm;
use crate::admission::{
    self, Action, Core, Ending, Event, JobId, ModelId, PermitKey, StageId, Step, Submission,
};
use crate::clock::{SharedClock, Time};
use crate::providers::Provider;
use crate::telemetry::{LifecycleLog, Metrics, Step as LifecycleStep};

/// A job that may run, with the leave to.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) job: Arc<LiveJob>,
    pub(super) permit: Permit,
    pub(super) attempt: u32,
    /// The first byte of the answer has to be in by then.
    pub(super) first_byte_by: Time,
    /// Whether the core wants to know when the answer begins.
    pub(super) probe: bool,
}

/// Somebody to call, with the line of those who wait for it.
#[derive(Debug)]
pub(super) struct Target {
    /// `None` for the last one, which stands for nobody: the target of jobs that need no provider.
    pub(super) name: Option<Arc<str>>,
    pub(super) provider: Arc<dyn Provider>,
    pub(super) stage: StageId,
}

/// The core under its lock, and all that its actions need.
#[derive(Debug)]
pub(super) struct Shell {
    pub(super) clock: SharedClock,
    core: Mutex<Core>,
    /// Jobs that have not ended. Never locked while the core is.
    jobs: Mutex<HashMap<JobId, Arc<LiveJob>>>,
    /// Signalled when the last job has ended.
    empty: Condvar,
    /// For the workers. There is always room: what is ready has its slots, and those are as many as workers.
    pub(super) ready: ReadyQueue<Ready>,
    /// The workers' threads: whoever waits for a job on one of them may wait for itself.
    workers: RwLock<HashSet<ThreadId>>,
    pub(super) targets: Vec<Target>,
    pub(super) alarm: Alarm,
    pub(super) lifecycle: Arc<LifecycleLog>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) sessions: Arc<SessionTable>,
    next_job: AtomicU64,
}

impl Shell {
    pub(super) fn new(
        clock: SharedClock,
        core: Core,
        ready: ReadyQueue<Ready>,
        targets: Vec<Target>,
        sessions: Arc<SessionTable>,
        lifecycle: Arc<LifecycleLog>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Shell {
            clock,
            core: Mutex::new(core),
            jobs: Mutex::new(HashMap::new()),
            empty: Condvar::new(),
            ready,
            workers: RwLock::default(),
            targets,
            alarm: Alarm::new(),
            lifecycle,
            metrics,
            sessions,
            next_job: AtomicU64::new(1),
        }
    }

    /// A stage of a job's route, in the core's words.
    pub(super) fn leg(&self, leg: &Leg) -> admission::Leg {
        let model = leg.model.as_ref().map(|model| {
            let mut hasher = DefaultHasher::new();
            model.hash(&mut hasher);
            ModelId(hasher.finish())
        });
        admission::Leg {
            stage: self.targets[leg.target].stage,
            model,
        }
    }

    /// A name for a new job.
    pub(super) fn next_job(&self) -> JobId {
        JobId(self.next_job.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes a job in: from here on it ends exactly once.
    pub(super) fn submit(self: &Arc<Self>, job: &Arc<LiveJob>, submission: Submission) {
        self.jobs.lock().insert(job.id, Arc::clone(job));
        self.on(Event::Submit(submission), Some(job), None);
        job.put_on_record();
    }

    /// Hands the core one event and carries out what it says. `own` is the job of the worker whose thread this is.
    pub(super) fn step(self: &Arc<Self>, event: Event, own: Option<JobId>) {
        self.on(event, None, own);
    }

    fn on(self: &Arc<Self>, event: Event, arrival: Option<&Arc<LiveJob>>, own: Option<JobId>) {
        let mut actions = Vec::new();
        let (now, due) = {
            let mut core = self.core.lock();
            let now = self.clock.now();
            core.on(event, now, &mut actions);
            (now, core.next_due())
        };
        self.alarm.set(due);
        self.carry_out(actions, now, arrival, own);
    }

    /// Whether the worker may make its call, and since when; `None` if not.
    pub(super) fn begin(self: &Arc<Self>, permit: PermitKey, own: JobId) -> Option<Time> {
        let mut actions = Vec::new();
        let (now, go) = {
            let mut core = self.core.lock();
            let now = self.clock.now();
            (now, core.begin(permit, now, &mut actions))
        };
        self.carry_out(actions, now, None, Some(own));
        go.then_some(now)
    }

    /// Counts this thread among the workers while the returned value lives.
    pub(super) fn enlist(&self) -> Enlisted<'_> {
        let id = thread::current().id();
        self.workers.write().insert(id);
        Enlisted { shell: self, id }
    }

    /// Whether this thread is one of the workers.
    pub(super) fn is_worker(&self) -> bool {
        self.workers.read().contains(&thread::current().id())
    }

    /// Looks at the core under its lock; `look` must be short and call nobody.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Core, Time) -> T) -> T {
        let core = self.core.lock();
        look(&core, self.clock.now())
    }

    /// The jobs that have not ended. What was decided at their arrival is on record when this returns.
    pub(super) fn live(&self) -> Vec<Arc<LiveJob>> {
        let jobs: Vec<_> = self.jobs.lock().values().cloned().collect();
        jobs.iter().for_each(|job| job.wait_until_on_record());
        jobs
    }

    /// Waits until no job lives; `false` when `until` came first.
    pub(super) fn wait_until_empty(&self, until: Time) -> bool {
        let mut jobs = self.jobs.lock();
        while !jobs.is_empty() {
            let left = until.since(self.clock.now());
            if left.is_zero() {
                return false;
            }
            self.empty.wait_for(&mut jobs, left);
        }
        true
    }

    fn carry_out(
        self: &Arc<Self>,
        actions: Vec<Action>,
        now: Time,
        arrival: Option<&Arc<LiveJob>>,
        own: Option<JobId>,
    ) {
        let mut last = None;
        let mut own_end = None;
        for Action { seq, job, step } in actions {
            match step {
                Step::Wait { .. } => self.wait(seq, job, arrival, now),
                Step::BackOff { .. } => self.back_off(seq, job, now),
                step @ Step::Start { .. } => self.start(seq, job, &step, now),
                Step::End(ending) if own == Some(job) => own_end = Some((seq, job, ending)),
                Step::End(ending) => last = self.end(seq, job, ending, now, Speaker::Other),
                // An interrupt follows the end of its job.
                Step::Interrupt(reason) => {
                    if let Some(job) = last.take() {
                        job.call_cancel.cancel(reason);
                    }
                }
            }
        }
        if let Some((seq, job, ending)) = own_end {
            self.end(seq, job, ending, now, Speaker::Worker);
        }
    }

    /// An arrival waits, even if others have ended it meanwhile and taken it off the list.
    fn wait(&self, seq: u64, id: JobId, arrival: Option<&Arc<LiveJob>>, now: Time) {
        let job = arrival
            .cloned()
            .or_else(|| self.jobs.lock().get(&id).cloned());
        if let Some(job) = job {
            report::decided(self, &job, seq, LifecycleStep::Queued, now);
        }
    }

    /// Its call failed and will be tried again.
    fn back_off(&self, seq: u64, id: JobId, now: Time) {
        let job = self.jobs.lock().get(&id).cloned();
        if let Some(job) = job {
            job.moments.back_off(seq);
            report::decided(self, &job, seq, LifecycleStep::BackingOff, now);
        }
    }

    fn start(self: &Arc<Self>, seq: u64, id: JobId, step: &Step, now: Time) {
        let &Step::Start {
            permit,
            attempt,
            stage,
            first_byte_by,
            probe,
            ..
        } = step
        else {
            return;
        };
        let permit = Permit::new(Arc::clone(self), permit, id);
        let job = self.jobs.lock().get(&id).cloned();
        let Some(job) = job else { return };
        measure::starts(self, &job, attempt, now);
        job.go_to(stage);
        job.moments.start(seq);
        report::decided(self, &job, seq, LifecycleStep::Dequeued, now);
        let class = job.priority.index();
        let ready = Ready {
            job,
            permit,
            attempt,
            first_byte_by,
            probe,
        };
        // A permit that found no room would go back by its drop.
        drop(self.ready.push(class, ready));
    }

    fn end(
        &self,
        seq: u64,
        id: JobId,
        ending: Ending,
        now: Time,
        speaker: Speaker,
    ) -> Option<Arc<LiveJob>> {
        let (job, is_last) = {
            let mut jobs = self.jobs.lock();
            (jobs.remove(&id)?, jobs.is_empty())
        };
        let end = job.close(ending, now);
        report::ended(self, &job, seq, &end, now);
        job.sink.end(&end, speaker);
        job.keep(end);
        job.discard_task();
        if is_last {
            self.empty.notify_all();
        }
        Some(job)
    }
}

/// A thread that is counted among the workers.
#[derive(Debug)]
pub(super) struct Enlisted<'a> {
    shell: &'a Shell,
    id: ThreadId,
}

impl Drop for Enlisted<'_> {
    fn drop(&mut self) {
        self.shell.workers.write().remove(&self.id);
    }
}
