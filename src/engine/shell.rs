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
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ThreadId};

use parking_lot::{Condvar, Mutex, RwLock};

use super::crew::Crew;
use super::health::Health;
use super::job::Speaker;
use super::live::{Leg, LiveJob};
use super::measure;
use super::moments::What;
use super::permit::Permit;
use super::ready::ReadyQueue;
use super::report;
use super::sessions::SessionTable;
use super::watchdog::Alarm;
use crate::admission::{
    self, Action, Change, Core, Ending, Event, JobId, ModelId, PermitKey, ProviderId, StageId,
    Step, Submission, TargetId, WorkerId,
};
use crate::clock::{SharedClock, Time};
use crate::providers::Provider;
use crate::telemetry::{LifecycleLog, Metrics};

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

/// The row of jobs that need no provider.
pub(super) const NOBODY: usize = 0;

/// Somebody to call, with the line of those who wait for it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// `None` for the first one, which stands for nobody: the target of jobs that need no provider.
    pub(super) name: Option<Arc<str>>,
    pub(super) provider: Arc<dyn Provider>,
    pub(super) stage: StageId,
    /// Whether it was taken out of the configuration.
    pub(super) is_gone: bool,
}

impl Target {
    /// Its line is told by the core, once the core knows its row.
    pub(super) fn new(name: Option<Arc<str>>, provider: Arc<dyn Provider>) -> Self {
        Target {
            name,
            provider,
            stage: StageId(u32::MAX),
            is_gone: false,
        }
    }
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
    /// For the workers.
    pub(super) ready: ReadyQueue<Ready>,
    pub(super) crew: Crew,
    pub(super) health: Health,
    /// The workers' threads: whoever waits for a job on one of them may wait for itself.
    workers: RwLock<HashSet<ThreadId>>,
    /// By row, as the core numbers them. Exchanged as a whole; rows are never given to another name.
    targets: RwLock<Arc<Vec<Target>>>,
    pub(super) alarm: Alarm,
    pub(super) lifecycle: Arc<LifecycleLog>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) sessions: Arc<SessionTable>,
    next_job: AtomicU64,
    /// What the next worker is to do wrong, on purpose.
    #[cfg(test)]
    pub(super) slip: Mutex<Option<super::orphan_tests::Slip>>,
}

impl Shell {
    /// `crew`: how many workers there are, and how many may be lost.
    pub(super) fn new(
        clock: SharedClock,
        core: Core,
        crew: (usize, usize),
        targets: Vec<Target>,
        sessions: Arc<SessionTable>,
        lifecycle: Arc<LifecycleLog>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (workers, max_lost) = crew;
        Shell {
            clock,
            core: Mutex::new(core),
            jobs: Mutex::new(HashMap::new()),
            empty: Condvar::new(),
            ready: ReadyQueue::new(workers),
            crew: Crew::new(workers, max_lost),
            health: Health::default(),
            workers: RwLock::default(),
            targets: RwLock::new(Arc::new(targets)),
            alarm: Alarm::new(),
            lifecycle,
            metrics,
            sessions,
            next_job: AtomicU64::new(1),
            #[cfg(test)]
            slip: Mutex::default(),
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
            stage: leg.stage,
            model,
        }
    }

    /// Who may be called now.
    pub(super) fn targets(&self) -> Arc<Vec<Target>> {
        Arc::clone(&self.targets.read())
    }

    /// Puts other settings in force, and with them the table that they go with; its new rows get their lines.
    pub(super) fn change(self: &Arc<Self>, change: Change, mut targets: Vec<Target>) {
        let mut actions = Vec::new();
        let (now, due) = {
            let mut core = self.core.lock();
            let now = self.clock.now();
            core.on(Event::Change(Box::new(change)), now, &mut actions);
            for (index, target) in targets.iter_mut().enumerate() {
                target.stage = core.stage(&[TargetId(index as u32)]);
            }
            *self.targets.write() = Arc::new(targets);
            (now, core.next_due())
        };
        self.alarm.set(due);
        self.carry_out(actions, now, None, None);
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
    pub(super) fn begin(
        self: &Arc<Self>,
        permit: PermitKey,
        worker: WorkerId,
        own: JobId,
    ) -> Option<Time> {
        let mut actions = Vec::new();
        let (now, go) = {
            let mut core = self.core.lock();
            let now = self.clock.now();
            (now, core.begin(permit, worker, now, &mut actions))
        };
        self.carry_out(actions, now, None, Some(own));
        go.then_some(now)
    }

    /// Frees a slot that nobody holds; `false` if somebody has given it back meanwhile.
    pub(super) fn recover(self: &Arc<Self>, permit: PermitKey) -> bool {
        let mut actions = Vec::new();
        let (now, due, recovered) = {
            let mut core = self.core.lock();
            let now = self.clock.now();
            let recovered = core.recover(permit, now, &mut actions);
            (now, core.next_due(), recovered)
        };
        self.alarm.set(due);
        self.carry_out(actions, now, None, None);
        recovered
    }

    /// Counts the slots anew from the ledger, and audits the books again.
    pub(super) fn recount(&self) -> Result<(), String> {
        let mut core = self.core.lock();
        core.recount();
        core.audit()
    }

    /// Makes the books wrong, on purpose.
    #[cfg(test)]
    pub(super) fn spoil_books(&self) {
        self.core.lock().spoil();
    }

    /// A job that has not ended.
    pub(super) fn live_job(&self, id: JobId) -> Option<Arc<LiveJob>> {
        self.jobs.lock().get(&id).cloned()
    }

    /// What a provider is called; `None`: it stands for nobody.
    pub(super) fn name_of(&self, provider: ProviderId) -> Option<Arc<str>> {
        self.targets().get(provider.0 as usize)?.name.clone()
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
                Step::Quarantine { permit, worker } => {
                    if let Some(worker) = worker {
                        self.crew.lose(self, worker, permit);
                    }
                }
                Step::Reclaim { permit, worker } => report::reclaimed(self, job, permit, worker),
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
        let job = arrival.cloned().or_else(|| self.live_job(id));
        if let Some(job) = job {
            report::waits(self, &job, seq, now);
        }
    }

    /// Its call failed and will be tried again.
    fn back_off(&self, seq: u64, id: JobId, now: Time) {
        if let Some(job) = self.live_job(id) {
            report::backs_off(self, &job, seq, now);
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
        let Some(job) = self.live_job(id) else {
            return;
        };
        measure::starts(self, &job, attempt, now);
        job.go_to(stage);
        report::starts(self, &job, seq, now);
        let class = job.priority.index();
        let ready = Ready {
            job,
            permit,
            attempt,
            first_byte_by,
            probe,
        };
        self.ready.push(class, ready);
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
        job.moments.decided(seq, What::Ended, now);
        let end = job.close(ending, now);
        report::ended(self, &job, seq, &end, now);
        // A sink may be anybody's: its panic is no reason to lose a thread, or to leave others waiting.
        let told = catch_unwind(AssertUnwindSafe(|| job.sink.end(&end, speaker)));
        if told.is_err() {
            log::error!("request {}: its sink panicked at its end", job.request_id);
        }
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
