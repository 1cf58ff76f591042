//! What the engine tells the lifecycle log, and the log line at the end.
//!
//! A step is recorded before anyone outside can see its effect: *received* before the core knows the job, *dequeued*
//! before a worker has it, the end before the sink is told.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::job::{JobEnd, Verdict};
use super::live::LiveJob;
use super::measure;
use super::shell::Shell;
use crate::clock::Time;
use crate::telemetry::{Event, RequestLine, Step};

/// The job's request was received.
pub(super) fn received(shell: &Shell, job: &LiveJob) {
    let received = event(job, 0, Step::Received, job.received, None);
    shell.lifecycle.push([received]);
}

/// The core decided that the job waits, or starts, as decision number `seq`.
pub(super) fn decided(shell: &Shell, job: &LiveJob, seq: u64, step: Step, now: Time) {
    job.moments.decision.fetch_max(seq, Ordering::AcqRel);
    let waited = (step == Step::Dequeued).then(|| now.since(job.received));
    shell.lifecycle.push([event(job, seq, step, now, waited)]);
}

/// The job's worker, which has its session's slot, begins the call.
pub(super) fn call_begins(shell: &Shell, job: &LiveJob, now: Time) {
    let seq = job.moments.decision.load(Ordering::Acquire);
    let steps = [Step::SessionAllocated, Step::ProviderCallStart];
    shell
        .lifecycle
        .push(steps.map(|step| event(job, seq, step, now, None)));
}

/// The call is over, and its session's slot is about to go back with the others.
pub(super) fn call_is_over(shell: &Shell, job: &LiveJob, now: Time, took: Duration) {
    let seq = job.moments.decision.load(Ordering::Acquire);
    shell.lifecycle.push([
        event(job, seq, Step::ProviderCallEnd, now, Some(took)),
        event(job, seq, Step::SessionReleased, now, None),
    ]);
}

/// The core decided that the job has ended, as decision number `seq`.
pub(super) fn ended(shell: &Shell, job: &LiveJob, seq: u64, end: &JobEnd, now: Time) {
    let step = last_step(&end.verdict);
    let last = event(job, seq, step, now, Some(end.phases.total));
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
        queue: end.phases.queue,
        connect: end.phases.connect,
        first_byte: end.phases.first_byte,
        upstream: end.phases.upstream,
        total: end.phases.total,
        attempts: end.call.as_ref().map_or(0, |call| call.attempt),
        reason: &reason,
        ..RequestLine::new(&job.request_id)
    };
    line.log();
}

/// The step that says how a request ended.
pub fn last_step(verdict: &Verdict) -> Step {
    match verdict {
        Verdict::Completed => Step::Completed,
        Verdict::Failed(_) | Verdict::Erred(_) | Verdict::Panicked(_) => Step::Error,
        Verdict::QueueTimeout | Verdict::Expired(_) => Step::Timeout,
        Verdict::Cancelled(_) => Step::Cancelled,
        Verdict::Refused(_) => Step::Refused,
    }
}

fn event(job: &LiveJob, seq: u64, step: Step, at: Time, took: Option<Duration>) -> Event {
    Event {
        seq,
        at,
        step,
        subject: Arc::clone(&job.leg().subject),
        thread: std::thread::current(),
        took,
    }
}
