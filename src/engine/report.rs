//! What the engine tells the lifecycle log, and the log line at the end.
//!
//! A step is recorded before anyone outside can see its effect: *received* before the core knows the job, *dequeued*
//! before a worker has it, the end before the sink is told.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::job::{JobEnd, Verdict};
use super::live::LiveJob;
use super::shell::Shell;
use crate::clock::Time;
use crate::telemetry::{Event, RequestLine, Step};

/// The job's request was received.
pub(super) fn received(shell: &Shell, job: &LiveJob) {
    push(shell, job, 0, Step::Received, job.received, None);
}

/// The core decided that the job waits, or starts, as decision number `seq`.
pub(super) fn decided(shell: &Shell, job: &LiveJob, seq: u64, step: Step, now: Time) {
    job.moments.decision.fetch_max(seq, Ordering::AcqRel);
    let waited = (step == Step::Dequeued).then(|| now.since(job.received));
    push(shell, job, seq, step, now, waited);
}

/// The job's worker has come to this step.
pub(super) fn step(shell: &Shell, job: &LiveJob, step: Step, took: Option<Duration>) {
    push(
        shell,
        job,
        job.moments.decision.load(Ordering::Acquire),
        step,
        shell.clock.now(),
        took,
    );
}

/// The core decided that the job has ended, as decision number `seq`.
pub(super) fn ended(shell: &Shell, job: &LiveJob, seq: u64, end: &JobEnd, now: Time) {
    let step = last_step(&end.verdict);
    push(shell, job, seq, step, now, Some(end.phases.total));
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

fn last_step(verdict: &Verdict) -> Step {
    match verdict {
        Verdict::Completed => Step::Completed,
        Verdict::Failed(_) | Verdict::Erred(_) | Verdict::Panicked(_) => Step::Error,
        Verdict::QueueTimeout | Verdict::Expired(_) => Step::Timeout,
        Verdict::Cancelled(_) => Step::Cancelled,
        Verdict::Refused(_) => Step::Refused,
    }
}

fn push(shell: &Shell, job: &LiveJob, seq: u64, step: Step, at: Time, took: Option<Duration>) {
    let leg = job.leg();
    shell.lifecycle.push(Event {
        seq,
        at,
        step,
        request: Arc::clone(&job.request_id),
        thread: std::thread::current().name().unwrap_or("unnamed").into(),
        key: job.owner.key().cloned(),
        session: job.owner.session().cloned(),
        provider: leg.provider.clone(),
        model: leg.model.clone(),
        took,
    });
}
