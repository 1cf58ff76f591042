//! What the engine tells the metrics: each fact once, by whoever carries it out. Nothing here takes a lock but where a
//! job got no slot, which is rare.

use std::any::Any;

use super::job::{JobEnd, Phase, Phases, Verdict};
use super::live::{Leg, LiveJob};
use super::report::last_step;
use super::shell::{NOBODY, Shell};
use super::task::TaskError;
use crate::admission::{CoreView, Obstacle, RefusalReason, SlotView, Slots};
use crate::cancel::CancelReason;
use crate::chat::Usage;
use crate::clock::Time;
use crate::providers::ErrorClass;
use crate::telemetry::{
    CallTimes, Ended, Recovery, Rejection, SemaphoreType, Step, TimeUp, TokensUsed, WaitEnd,
};

/// The job starts, for the `attempt`th time; where it was called before is still its place.
pub(super) fn starts(shell: &Shell, job: &LiveJob, attempt: u32, now: Time) {
    let metrics = &shell.metrics;
    let target = job.leg().target;
    if attempt > 1 {
        metrics.record_retry(target, job.failed_for().map_or("other", trouble));
        return;
    }
    let waited = now.since(job.received);
    metrics.record_queue_wait(job.priority, target, WaitEnd::Started, waited);
    for kind in semaphores(job) {
        metrics.record_semaphore_wait(kind, waited);
    }
}

/// The kinds of slots that the job needs.
fn semaphores(job: &LiveJob) -> impl Iterator<Item = SemaphoreType> {
    let of_provider = job.leg().target != NOBODY;
    let of_session = job.owner.session().is_some();
    let kinds = SemaphoreType::ALL.iter().copied();
    kinds.filter(move |kind| match kind {
        SemaphoreType::Global => true,
        SemaphoreType::Provider => of_provider,
        SemaphoreType::Session => of_session,
    })
}

/// A call is over, and its time went as `phases` say. `answered`: it gave pieces, so it was a chat.
pub(super) fn call_is_over(
    shell: &Shell,
    job: &LiveJob,
    called: &Result<Result<(), TaskError>, Box<dyn Any + Send>>,
    phases: &Phases,
    answered: bool,
) {
    let metrics = &shell.metrics;
    let provider = job.leg().target;
    let (connected, began) = job.moments.reached();
    metrics.record_call(&CallTimes {
        provider,
        connect: connected.then_some(phases.connect),
        first_byte: began.then_some(phases.first_byte),
    });
    match called {
        Ok(Ok(())) if answered => metrics.record_response(provider, Some(200)),
        // Whoever gave up on the call does not know what it would have been answered.
        Ok(Err(TaskError::Provider(error))) => match error.class {
            // It had all the time there was.
            ErrorClass::Cancelled(CancelReason::Deadline) => {
                metrics.record_response(provider, None)
            }
            // Whoever gave up on the call does not know what it would have been answered.
            ErrorClass::Cancelled(_) => {}
            _ => metrics.record_response(provider, error.status),
        },
        Ok(_) | Err(_) => {}
    }
}

/// A check found `leaks` without a holder among the slots that are held, and freed some of them.
pub(super) fn leaked(shell: &Shell, held: &[SlotView], leaks: &[SlotView], freed: &[&SlotView]) {
    for &kind in SemaphoreType::ALL {
        let is_of = |slot: &SlotView| match kind {
            SemaphoreType::Global => true,
            SemaphoreType::Provider => slot.provider.0 as usize != NOBODY,
            SemaphoreType::Session => slot.session.is_some(),
        };
        let held = held.iter().filter(|slot| is_of(slot)).count();
        let lost = leaks.iter().filter(|slot| is_of(slot)).count();
        let freed = freed.iter().filter(|slot| is_of(slot)).count();
        if lost == 0 {
            continue;
        }
        let end = match freed {
            0 => Recovery::Failed,
            _ if freed == lost => Recovery::Success,
            _ => Recovery::Partial,
        };
        let metrics = &shell.metrics;
        metrics.record_semaphore_leak(kind, held, held.saturating_sub(lost));
        metrics.record_semaphore_recovery(kind, end, freed);
    }
}

/// A slot of this job was taken back. Where the job is not known any more, neither is what else than a global slot it was.
pub(super) fn reclaimed(shell: &Shell, job: Option<&LiveJob>) {
    let record = |kind| {
        shell
            .metrics
            .record_semaphore_recovery(kind, Recovery::Success, 1);
    };
    match job {
        Some(job) => semaphores(job).for_each(record),
        None => record(SemaphoreType::Global),
    }
}

/// The provider said what an answer took.
pub(super) fn tokens(shell: &Shell, leg: &Leg, usage: &Usage) {
    let used = TokensUsed {
        prompt: usage.prompt,
        completion: usage.completion,
        cached: usage.cached.unwrap_or_default(),
        reasoning: usage.reasoning.unwrap_or_default(),
    };
    let model = leg.model.as_deref().unwrap_or_default();
    shell.metrics.record_tokens(leg.target, model, used);
}

/// The job ended.
pub(super) fn ended(shell: &Shell, job: &LiveJob, end: &JobEnd, now: Time) {
    let metrics = &shell.metrics;
    let (class, provider, total) = (job.priority, job.leg().target, end.phases.total);
    metrics.record_end(&Ended {
        class,
        provider,
        end: last_step(&end.verdict),
        phases: end.phases,
    });
    if let Verdict::Refused(refusal) = &end.verdict {
        metrics.record_rejection(Some(class), rejection(refusal.reason));
    }
    if let Some(which) = time_up(&end.verdict) {
        let by_deadline = matches!(end.verdict, Verdict::Expired(_));
        metrics.record_time_up(which, by_deadline.then(|| now.since(job.deadline)));
    }
    if job.has_started() || !metrics.is_on() {
        return;
    }
    // Whoever is refused at once has not waited.
    if let Some(result) = wait_end(last_step(&end.verdict))
        && (job.has_waited() || result == WaitEnd::TimedOut)
    {
        metrics.record_queue_wait(class, provider, result, total);
    }
    if let Some(kind) = missing_slot(shell, job, &end.verdict) {
        metrics.record_semaphore_acquisition_failure(kind, provider);
    }
}

fn wait_end(end: Step) -> Option<WaitEnd> {
    match end {
        Step::Timeout => Some(WaitEnd::TimedOut),
        Step::Cancelled => Some(WaitEnd::Cancelled),
        Step::Refused => Some(WaitEnd::Refused),
        // It has not started: it can neither have completed nor failed.
        _ => None,
    }
}

/// Which slot the job did not get.
fn missing_slot(shell: &Shell, job: &LiveJob, verdict: &Verdict) -> Option<SemaphoreType> {
    match verdict {
        Verdict::Refused(refusal) => match refusal.reason {
            RefusalReason::SessionQueueFull => Some(SemaphoreType::Session),
            RefusalReason::ProviderQueueFull | RefusalReason::Shut(_) => {
                Some(SemaphoreType::Provider)
            }
            RefusalReason::WaitTooLong { .. } => Some(full(shell, job)),
            RefusalReason::QueueFull
            | RefusalReason::QueueBytes
            | RefusalReason::Displaced
            | RefusalReason::WorkersLost { .. }
            | RefusalReason::BoxLoaded => Some(SemaphoreType::Global),
            RefusalReason::Stopping => None,
        },
        Verdict::QueueTimeout(obstacle) => Some(of_obstacle(obstacle)),
        Verdict::Expired(expiry) => expiry.waited_for.as_ref().map(of_obstacle),
        Verdict::Completed
        | Verdict::Failed(_)
        | Verdict::Erred(_)
        | Verdict::Panicked(_)
        | Verdict::Cancelled(_) => None,
    }
}

fn of_obstacle(obstacle: &Obstacle) -> SemaphoreType {
    match obstacle {
        Obstacle::Full { slots, .. } => match slots {
            Slots::Session | Slots::Sessions => SemaphoreType::Session,
            Slots::Provider | Slots::Learned => SemaphoreType::Provider,
            Slots::Shared | Slots::Global => SemaphoreType::Global,
        },
        Obstacle::Shut(..) | Obstacle::Probing => SemaphoreType::Provider,
        Obstacle::Turn => SemaphoreType::Global,
    }
}

/// Which slots are full, as it is now.
fn full(shell: &Shell, job: &LiveJob) -> SemaphoreType {
    let view: CoreView = shell.look(|core, now| core.view(now));
    let target = view.targets.get(job.leg().target);
    if view.in_use >= view.limit_now {
        SemaphoreType::Global
    } else if target.is_none_or(|target| target.in_use >= target.limit || target.shut.is_some()) {
        SemaphoreType::Provider
    } else {
        SemaphoreType::Session
    }
}

fn time_up(verdict: &Verdict) -> Option<TimeUp> {
    match verdict {
        Verdict::QueueTimeout(_) => Some(TimeUp::QueueTimeout),
        Verdict::Expired(expiry) => Some(match expiry.phase {
            Phase::Queue => TimeUp::Queue,
            Phase::BackOff => TimeUp::BackOff,
            Phase::Connect => TimeUp::Connect,
            Phase::FirstByte => TimeUp::FirstByte,
            Phase::Body => TimeUp::Body,
        }),
        Verdict::Failed(error) => match error.class {
            ErrorClass::ConnectTimeout => Some(TimeUp::ConnectTimeout),
            ErrorClass::FirstByteTimeout => Some(TimeUp::FirstByteTimeout),
            ErrorClass::IdleTimeout => Some(TimeUp::IdleTimeout),
            _ => None,
        },
        Verdict::Completed
        | Verdict::Erred(_)
        | Verdict::Panicked(_)
        | Verdict::Cancelled(_)
        | Verdict::Refused(_) => None,
    }
}

const fn rejection(reason: RefusalReason) -> Rejection {
    match reason {
        RefusalReason::QueueFull => Rejection::QueueFull,
        RefusalReason::SessionQueueFull => Rejection::SessionQueueFull,
        RefusalReason::QueueBytes => Rejection::QueueBytes,
        RefusalReason::ProviderQueueFull => Rejection::ProviderQueueFull,
        RefusalReason::WaitTooLong { .. } => Rejection::WaitTooLong,
        RefusalReason::Displaced => Rejection::Displaced,
        RefusalReason::Shut(_) => Rejection::ProviderShut,
        RefusalReason::WorkersLost { .. } => Rejection::WorkersLost,
        RefusalReason::BoxLoaded => Rejection::BoxLoaded,
        RefusalReason::Stopping => Rejection::Stopping,
    }
}

/// Why a call was made again, as the metrics have it.
const fn trouble(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Connect => "connect",
        ErrorClass::ConnectTimeout => "connect_timeout",
        ErrorClass::FirstByteTimeout => "first_byte_timeout",
        ErrorClass::IdleTimeout => "idle_timeout",
        ErrorClass::RateLimited => "rate_limited",
        ErrorClass::Overloaded => "overloaded",
        ErrorClass::PlanWindow => "plan_window",
        ErrorClass::ServerError => "server_error",
        ErrorClass::Incomplete => "incomplete",
        ErrorClass::Malformed => "malformed",
        ErrorClass::Quota
        | ErrorClass::Auth
        | ErrorClass::Forbidden
        | ErrorClass::ModelNotFound
        | ErrorClass::ContextLength
        | ErrorClass::ContentFilter
        | ErrorClass::InvalidRequest
        | ErrorClass::Cancelled(_) => "other",
    }
}
