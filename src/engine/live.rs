//! A job that lives in the engine: what it is, and the word about its end.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam::utils::Backoff;
use parking_lot::{Condvar, Mutex};

use super::job::{CallInfo, Expiry, JobEnd, JobSpec, Owner, Sink, Verdict};
use super::moments::{Moments, What};
use super::sessions::Seat;
use super::task::Task;
use super::worker::discard;
use crate::admission::{Ending, JobId, Outcome, StageId};
use crate::cancel::{CancelReason, CancelToken, Hook};
use crate::clock::{SharedClock, Time};
use crate::config::Priority;
use crate::providers::ErrorClass;
use crate::telemetry::Subject;

/// Where a job is called at one stage of its route.
#[derive(Debug)]
pub(super) struct Leg {
    /// Whom to call, by index in the shell's targets.
    pub(super) target: usize,
    /// The line of those who wait for it.
    pub(super) stage: StageId,
    pub(super) provider: Option<Arc<str>>,
    pub(super) model: Option<Arc<str>>,
    /// The job as the lifecycle log knows it there.
    pub(super) subject: Arc<Subject>,
}

/// A job from its submission until nobody looks at it any more.
#[derive(Debug)]
pub(super) struct LiveJob {
    pub(super) id: JobId,
    /// By stage of its route: where it is called there.
    legs: Vec<Leg>,
    /// Which of them it is at.
    at: AtomicUsize,
    pub(super) request_id: Arc<str>,
    pub(super) owner: Owner,
    pub(super) priority: Priority,
    pub(super) received: Time,
    pub(super) deadline: Time,
    pub(super) deadline_reason: Arc<str>,
    pub(super) sink: Arc<dyn Sink>,
    /// Ends the call that is under way. Cancelled by the core's word alone, never by the submitter directly: else the
    /// worker's failure could win over the reason that it failed for.
    pub(super) call_cancel: CancelToken,
    /// Taken by the worker for the call, and dropped with it unless the call may be tried again.
    pub(super) task: Mutex<Option<Box<dyn Task>>>,
    /// What the worker has to say of the call, left here before its permit goes back.
    pub(super) word: Mutex<Option<Verdict>>,
    pub(super) moments: Moments,
    /// Whether what was decided at its arrival is on record.
    on_record: AtomicBool,
    /// Carries the submitter's cancel to the core.
    hook: Mutex<Option<Hook>>,
    /// Keeps the session's line for as long as anything of the job lives: a call that was interrupted still counts
    /// against its session.
    _seat: Seat,
    end: OnceLock<JobEnd>,
    /// For those who wait for `end`; the end itself is not under it.
    waiting: Mutex<()>,
    ended: Condvar,
}

impl LiveJob {
    pub(super) fn new(
        id: JobId,
        spec: JobSpec,
        legs: Vec<Leg>,
        seat: Seat,
        clock: SharedClock,
    ) -> Self {
        LiveJob {
            id,
            legs,
            at: AtomicUsize::new(0),
            request_id: spec.request_id,
            owner: spec.owner,
            priority: spec.priority,
            received: spec.received,
            deadline: spec.deadline,
            deadline_reason: spec.deadline_reason,
            sink: spec.sink,
            call_cancel: CancelToken::new(),
            task: Mutex::new(Some(spec.task)),
            word: Mutex::new(None),
            moments: Moments::new(clock),
            on_record: AtomicBool::new(false),
            hook: Mutex::new(None),
            _seat: seat,
            end: OnceLock::new(),
            waiting: Mutex::new(()),
            ended: Condvar::new(),
        }
    }

    /// What was decided at its arrival is on record.
    pub(super) fn put_on_record(&self) {
        self.on_record.store(true, Ordering::Release);
    }

    /// Waits for the moment between the core's decision about its arrival and the record of it: else somebody who ends
    /// the job in between could be told of an end without a beginning.
    pub(super) fn wait_until_on_record(&self) {
        let backoff = Backoff::new();
        while !self.on_record.load(Ordering::Acquire) {
            backoff.snooze();
        }
    }

    /// Where it is called, or will be as far as is known.
    pub(super) fn leg(&self) -> &Leg {
        &self.legs[self.at.load(Ordering::Acquire)]
    }

    /// It starts at this stage of its route.
    pub(super) fn go_to(&self, stage: usize) {
        self.at.store(stage, Ordering::Release);
    }

    /// Drops what it would run; a panic in that is nobody's business any more.
    pub(super) fn discard_task(&self) {
        let task = self.task.lock().take();
        if let Some(Err(_)) = task.map(discard) {
            log::error!(
                "request {}: its task panicked as it was dropped",
                self.request_id
            );
        }
    }

    /// Whether its end was told.
    pub(super) fn has_ended(&self) -> bool {
        self.end.get().is_some()
    }

    /// Whether it was ever started.
    pub(super) fn has_started(&self) -> bool {
        self.moments.has(What::Starts)
    }

    /// Whether it was ever in line.
    pub(super) fn has_waited(&self) -> bool {
        self.moments.has(What::Waits)
    }

    /// Why its last call failed, while that is not yet forgotten for the next.
    pub(super) fn failed_for(&self) -> Option<ErrorClass> {
        match &*self.word.lock() {
            Some(Verdict::Failed(error)) => Some(error.class),
            _ => None,
        }
    }

    /// The call that is, or was last, under way.
    pub(super) fn call(&self) -> Option<CallInfo> {
        let attempt = self.moments.attempt();
        let leg = self.leg();
        (attempt > 0).then(|| CallInfo {
            provider: leg.provider.clone(),
            model: leg.model.clone(),
            attempt,
        })
    }

    /// How the job ended, put together from the core's word and the worker's.
    pub(super) fn close(&self, ending: Ending, now: Time) -> JobEnd {
        let phase = self.moments.phase();
        let verdict = match ending {
            Ending::Finished(Outcome::Completed) => Verdict::Completed,
            Ending::Finished(Outcome::Failed(_)) => self
                .word
                .lock()
                .take()
                .unwrap_or_else(|| Verdict::Panicked("the worker left no word".into())),
            Ending::QueueTimeout(obstacle) => Verdict::QueueTimeout(obstacle),
            Ending::Expired(waited_for) => Verdict::Expired(Expiry { phase, waited_for }),
            Ending::Cancelled(reason) => Verdict::Cancelled(reason),
            Ending::Refused(refusal) => Verdict::Refused(refusal),
        };
        JobEnd {
            verdict,
            call: self.call(),
            phases: self.moments.phases(self.received, now),
        }
    }

    /// Calls `heard` when the submitter says the word; no longer than the job lives.
    pub(super) fn listen(
        &self,
        cancel: &CancelToken,
        heard: impl FnOnce(CancelReason) + Send + 'static,
    ) {
        let hook = cancel.on_cancel(heard);
        let mut kept = self.hook.lock();
        // A job that has ended meanwhile took the hook that was not there yet; it must not keep this one.
        if self.end.get().is_none() {
            *kept = Some(hook);
        }
    }

    /// Keeps the end for those who wait for it, and wakes them. The first end stays.
    pub(super) fn keep(&self, end: JobEnd) {
        let _ = self.end.set(end);
        // Under the lock, so that the word can't fall between a waiter's look and its sleep.
        drop(self.waiting.lock());
        self.ended.notify_all();
        let hook = self.hook.lock().take();
        drop(hook);
    }

    /// The end, if it has come; waits for it until `until`.
    ///
    /// A job that does next to nothing ends sooner than a thread falls asleep and wakes up again: so the waiter looks
    /// a few times, as the channels of crossbeam do, before it lies down.
    pub(super) fn wait(&self, clock: &SharedClock, until: Time) -> Option<JobEnd> {
        let backoff = Backoff::new();
        while self.end.get().is_none() && !backoff.is_completed() {
            backoff.snooze();
        }
        let mut waiting = self.waiting.lock();
        while self.end.get().is_none() {
            let left = until.since(clock.now());
            if left.is_zero() {
                return None;
            }
            self.ended.wait_for(&mut waiting, left);
        }
        self.end.get().cloned()
    }
}
