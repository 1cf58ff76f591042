//! A worker: takes the most urgent job that may run, makes its one call, gives the permit back.
//!
//! A worker never waits for a slot: what is ready already has its slots, and there are as many workers
//! as can be in flight at once. It waits only for work. A panic in a job ends that job: the permit goes back by its
//! drop, and the worker goes on.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::crew::Hand;
use super::job::{CallInfo, Phase, Verdict};
use super::learn::{self, Ear};
use super::measure;
use super::parking::Parker;
use super::report;
use super::shell::{Ready, Shell};
use super::task::{Task, TaskContext, TaskError};
use crate::admission::{Cause, Outcome, Report, WorkerId};

/// The life of a worker. `false`: it came back so late that another has its place.
pub(super) fn run(shell: &Arc<Shell>, id: WorkerId, hand: &Hand) -> bool {
    let _enlisted = shell.enlist();
    let parker = Parker::new();
    while let Some(ready) = shell.ready.next(id.0, &parker) {
        // Before the core is asked, and until the permit has gone back.
        hand.take(ready.permit.key(), &ready.job);
        work(shell, id, ready);
        if !hand.let_go() {
            return false;
        }
    }
    true
}

fn work(shell: &Arc<Shell>, id: WorkerId, mut ready: Ready) {
    let job = Arc::clone(&ready.job);
    let Some(begun) = shell.begin(ready.permit.key(), id, job.id) else {
        return;
    };
    job.moments.begin(ready.attempt, begun);
    report::call_begins(shell, &job, begun);
    let (verdict, report) = call(shell, &ready);
    ready.permit.report(report);
    *job.word.lock() = Some(verdict);
    #[cfg(test)]
    let ready = match super::orphan_tests::slip(shell, ready) {
        Some(ready) => ready,
        None => return,
    };
    drop(ready);
    if job.has_ended() {
        job.discard_task();
    }
}

/// Makes the call and says how it went. The task is left with the job where the call may be tried again.
fn call(shell: &Arc<Shell>, ready: &Ready) -> (Verdict, Report) {
    let job = &*ready.job;
    let Some(mut task) = job.task.lock().take() else {
        let verdict = Verdict::Panicked("its task is gone".into());
        return (verdict, Outcome::Failed(Cause::Own).into());
    };
    let leg = job.leg();
    let info = CallInfo {
        provider: leg.provider.clone(),
        model: leg.model.clone(),
        attempt: ready.attempt,
    };
    // Kept for as long as the call lasts, whatever is reloaded meanwhile.
    let provider = Arc::clone(&shell.targets()[leg.target].provider);
    let ear = Ear::new(shell, leg, ready.permit.key(), ready.probe);
    let context = TaskContext {
        provider: &*provider,
        info: &info,
        cancel: &job.call_cancel,
        deadline: job.deadline,
        first_byte_by: ready.first_byte_by,
        watch: &job.moments,
        sink: &*job.sink,
        ear: &ear,
    };
    let called = catch_unwind(AssertUnwindSafe(|| {
        job.sink.call(&info);
        task.call(&context)
    }));
    let called = match called {
        Ok(Err(TaskError::Provider(error))) => {
            *job.task.lock() = Some(task);
            Ok(Err(TaskError::Provider(error)))
        }
        over => discard(task).and(over),
    };
    let now = shell.clock.now();
    job.moments.end_call(now);
    let phases = job.moments.last_call(now);
    report::call_is_over(shell, job, now, &phases);
    measure::call_is_over(shell, job, &called, &phases, ear.has_pieces());
    match called {
        Ok(result) => {
            let mut report = learn::report(&result, &ear);
            // Only whoever gives pieces says when its answer really began.
            report.first_byte = ear.has_pieces().then_some(phases.first_byte);
            (verdict(result, job.moments.phase()), report)
        }
        Err(panic) => {
            let verdict = Verdict::Panicked(message(&*panic));
            (verdict, Outcome::Failed(Cause::Own).into())
        }
    }
}

/// A task's drop is its author's code as well. `Err`: it panicked.
pub(super) fn discard(task: Box<dyn Task>) -> Result<(), Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(|| drop(task)))
}

fn verdict(result: Result<(), TaskError>, phase: Phase) -> Verdict {
    match result {
        Ok(()) => Verdict::Completed,
        Err(TaskError::Own(why) | TaskError::Reported { why, .. }) => Verdict::Erred(why),
        Err(TaskError::Provider(error)) => Verdict::of_failure(error, phase),
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}
