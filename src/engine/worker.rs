//! A worker: takes the most urgent job that may run, makes its one call, gives the permit back.
//!
//! A worker never waits for a slot: what is ready already has its slots, and there are as many workers
//! as can be in flight at once. It waits only for work. A panic in a job ends that job: the permit goes back by its
//! drop, and the worker goes on.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam::sync::Parker;

use super::job::{CallInfo, Phase, Verdict};
use super::live::LiveJob;
use super::report;
use super::shell::{Ready, Shell};
use super::task::{TaskContext, TaskError};
use crate::admission::Outcome;
use crate::providers::Provider;

/// The thread of worker number `index`.
pub(super) fn run(shell: &Arc<Shell>, index: usize) {
    let _enlisted = shell.enlist();
    let parker = Parker::new();
    while let Some(ready) = shell.ready.next(index, &parker) {
        work(shell, ready);
    }
}

fn work(shell: &Arc<Shell>, ready: Ready) {
    let Ready {
        job,
        mut permit,
        attempt,
    } = ready;
    let Some(begun) = shell.begin(permit.key(), job.id) else {
        return;
    };
    job.moments.begin(attempt, begun);
    report::call_begins(shell, &job, begun);
    let verdict = call(shell, &job, attempt);
    permit.report(if verdict == Verdict::Completed {
        Outcome::Completed
    } else {
        Outcome::Failed
    });
    *job.word.lock() = Some(verdict);
    drop(permit);
}

/// Makes the call and says how it went.
fn call(shell: &Shell, job: &LiveJob, attempt: u32) -> Verdict {
    let Some(mut task) = job.task.lock().take() else {
        return Verdict::Panicked("its task has run before".into());
    };
    let info = CallInfo {
        provider: job.provider.clone(),
        model: job.model.clone(),
        attempt,
    };
    let provider = &*shell.targets[job.target].provider;
    let called = catch_unwind(AssertUnwindSafe(|| {
        job.sink.call(&info);
        task.call(&context(job, &info, provider))
    }));
    // The task's drop is its author's code as well.
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(task)));
    let now = shell.clock.now();
    job.moments.end_call(now);
    let took = job.moments.phases(job.received, now).upstream;
    report::call_is_over(shell, job, now, took);
    match called.and_then(|result| dropped.map(|()| result)) {
        Ok(result) => verdict(result, job.moments.phase()),
        Err(panic) => Verdict::Panicked(message(&*panic)),
    }
}

fn context<'a>(
    job: &'a LiveJob,
    info: &'a CallInfo,
    provider: &'a dyn Provider,
) -> TaskContext<'a> {
    TaskContext {
        provider,
        info,
        cancel: &job.call_cancel,
        deadline: job.deadline,
        watch: &job.moments,
        sink: &*job.sink,
    }
}

fn verdict(result: Result<(), TaskError>, phase: Phase) -> Verdict {
    match result {
        Ok(()) => Verdict::Completed,
        Err(TaskError::Own(why)) => Verdict::Erred(why),
        Err(TaskError::Provider(error)) => Verdict::of_failure(error, phase),
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}
