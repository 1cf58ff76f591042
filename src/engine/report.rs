//! What the engine tells the lifecycle log, and the log line at the end.
//!
//! A step is recorded before anyone outside can see its effect: *received* before the core knows the job, *dequeued*
//! before a worker has it, the end before the sink is told.

use std::sync::Arc;

use super::job::{JobEnd, Phases, Verdict};
use super::live::LiveJob;
use super::measure;
use super::moments::What;
use super::shell::Shell;
use crate::admission::{JobId, PermitKey, WorkerId};
use crate::clock::Time;
use crate::telemetry::{Event, RequestLine, Step};

/// The job's request was received.
pub(super) fn received(shell: &Shell, job: &LiveJob) {
    let received = event(job, 0, Step::Received, job.received, None);
    shell.lifecycle.push([received]);
}

/// The core decided that the job waits, as decision number `seq`.
pub(super) fn waits(shell: &Shell, job: &LiveJob, seq: u64, now: Time) {
    job.moments.decided(seq, What::Waits, now);
    let queued = event(job, seq, Step::Queued, now, None);
    shell.lifecycle.push([queued]);
}

/// The core decided that the job's call will be tried again, as decision number `seq`.
pub(super) fn backs_off(shell: &Shell, job: &LiveJob, seq: u64, now: Time) {
    job.moments.decided(seq, What::BacksOff, now);
    let backing_off = event(job, seq, Step::BackingOff, now, None);
    shell.lifecycle.push([backing_off]);
}

/// The core decided that the job starts, as decision number `seq`.
pub(super) fn starts(shell: &Shell, job: &LiveJob, seq: u64, now: Time) {
    job.moments.decided(seq, What::Starts, now);
    let waited = job.moments.waited(seq, now);
    let dequeued = event(job, seq, Step::Dequeued, now, None);
    shell.lifecycle.push([Event {
        took: Some(waited),
        ..dequeued
    }]);
}

/// The job's worker, which has its session's slot, begins the call.
pub(super) fn call_begins(shell: &Shell, job: &LiveJob, now: Time) {
    let seq = job.moments.last_start();
    let steps = [Step::SessionAllocated, Step::ProviderCallStart];
    shell
        .lifecycle
        .push(steps.map(|step| event(job, seq, step, now, None)));
}

/// The call, whose time went as `phases` say, is over, and its session's slot is about to go back with the others.
pub(super) fn call_is_over(shell: &Shell, job: &LiveJob, now: Time, phases: &Phases) {
    let seq = job.moments.last_start();
    shell.lifecycle.push([
        event(job, seq, Step::ProviderCallEnd, now, Some(phases)),
        event(job, seq, Step::SessionReleased, now, None),
    ]);
}

/// The core decided that the job has ended, as decision number `seq`.
pub(super) fn ended(shell: &Shell, job: &LiveJob, seq: u64, end: &JobEnd, now: Time) {
    let step = last_step(&end.verdict);
    let last = event(job, seq, step, now, Some(&end.phases));
    shell.lifecycle.push([last]);
    measure::ended(shell, job, end, now);
    if !RequestLine::is_wanted() {
        return;
    }
    let reason = match &end.verdict {
        Verdict::Completed => job.deadline_reason.to_string(),
        other => other.reason(),
    };
    let leg = job.leg();
    let line = RequestLine {
        end: step,
        provider: leg.provider.as_deref(),
        model: leg.model.as_deref(),
        key: job.owner.key().map(|name| &**name),
        session: job.owner.session().map(|name| &**name),
        priority: job.priority,
        status: end.verdict.word(),
        phases: end.phases,
        attempts: end.call.as_ref().map_or(0, |call| call.attempt),
        reason: &reason,
        ..RequestLine::new(&job.request_id)
    };
    line.log();
}

/// A slot was taken from a worker that did not come back.
pub(super) fn reclaimed(shell: &Shell, job: JobId, permit: PermitKey, worker: Option<WorkerId>) {
    let Some(worker) = worker else {
        measure::reclaimed(shell, shell.live_job(job).as_deref());
        return log::warn!(
            "semaphore recovery: success, slot {} of job {} is free again: no worker had begun it",
            permit.slot(),
            job.0
        );
    };
    let job = shell.crew.job_in_hand(worker, permit);
    measure::reclaimed(shell, job.as_deref());
    let request = job.as_ref().map(|job| &*job.request_id);
    let provider = job.as_ref().and_then(|job| job.leg().provider.clone());
    log::warn!(
        "semaphore recovery: success, slot {} of request {} (provider {}) was taken from worker {}, which does not come back from its call",
        permit.slot(),
        request.unwrap_or("-"),
        provider.as_deref().unwrap_or("none"),
        worker.0,
    );
}

/// The step that says how a request ended.
pub fn last_step(verdict: &Verdict) -> Step {
    match verdict {
        Verdict::Completed => Step::Completed,
        Verdict::Failed(_) | Verdict::Erred(_) | Verdict::Panicked(_) => Step::Error,
        Verdict::QueueTimeout(_) | Verdict::Expired(_) => Step::Timeout,
        Verdict::Cancelled(_) => Step::Cancelled,
        Verdict::Refused(_) => Step::Refused,
    }
}

fn event(job: &LiveJob, seq: u64, step: Step, at: Time, phases: Option<&Phases>) -> Event {
    Event {
        seq,
        at,
        step,
        subject: Arc::clone(&job.leg().subject),
        thread: std::thread::current(),
        took: phases.map(|phases| phases.total),
        phases: phases.map(|phases| Box::new(*phases)),
    }
}
