//! A worker: takes the most urgent job that may run, makes its one call, gives the permit back.
//!
//! A worker never waits for a slot: what is in the ready channels already has its slots, and there are as many workers
//! as can be in flight at once. It waits only for work. A panic in a job ends that job: the permit goes back by its
//! drop, and the worker goes on.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam::channel::Receiver;

use super::job::{CallInfo, Phase, Verdict};
use super::live::LiveJob;
use super::report;
use super::shell::{Ready, Shell};
use super::task::{TaskContext, TaskError};
use crate::admission::{Cause, Outcome};
use crate::providers::Provider;
use crate::telemetry::Step;

/// Where the workers take their jobs from.
///
/// Each job in one of the class channels has a token in `tokens`, sent after it: a worker waits for a token on one channel,
/// which wakes it sooner than waiting on three would, and then takes the most urgent job that is there. There are never
/// more tokens taken than jobs left, so it finds one; it may have to look twice, when others took what it was about to
/// take while their own came in where it had looked already.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) classes: [Receiver<Ready>; 3],
    pub(super) tokens: Receiver<()>,
}

/// The thread of one worker.
pub(super) fn run(shell: &Arc<Shell>, source: &Source) {
    let _enlisted = shell.enlist();
    while source.tokens.recv().is_ok() {
        match next(shell, source) {
            Some(ready) => work(shell, ready),
            None => return,
        }
    }
}

/// The most urgent job; `None`: go home.
fn next(shell: &Shell, source: &Source) -> Option<Ready> {
    loop {
        let ready = source
            .classes
            .iter()
            .find_map(|class| class.try_recv().ok());
        if ready.is_some() || shell.is_closing() {
            return ready;
        }
        std::thread::yield_now();
    }
}

fn work(shell: &Arc<Shell>, ready: Ready) {
    let Ready {
        job,
        mut permit,
        attempt,
    } = ready;
    if !shell.begin(permit.key(), job.id) {
        return;
    }
    job.moments.begin(attempt);
    report::step(shell, &job, Step::SessionAllocated, None);
    let verdict = call(shell, &job, attempt);
    let outcome = match verdict {
        Verdict::Completed => Outcome::Completed,
        _ => Outcome::Failed(Cause::Own),
    };
    permit.report(outcome.into());
    *job.word.lock() = Some(verdict);
    report::step(shell, &job, Step::SessionReleased, None);
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
    report::step(shell, job, Step::ProviderCallStart, None);
    let called = catch_unwind(AssertUnwindSafe(|| {
        job.sink.call(&info);
        task.call(&context(job, &info, provider))
    }));
    // The task's drop is its author's code as well.
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(task)));
    job.moments.end_call();
    let took = job.moments.phases(job.received, shell.clock.now()).upstream;
    report::step(shell, job, Step::ProviderCallEnd, Some(took));
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
