//! Functions of the embedding program, run as jobs.
//!
//! # Who has the function, and who its result
//!
//! Caller and worker share a [`Desk`]. The function lies on it until whoever comes first takes it: the worker, to run
//! it, or the caller, once its job has ended. So the caller knows for certain whether the function ever began, one that
//! had not begun when its caller was answered never does, and what it owns is dropped on the caller's thread, not on
//! the watchdog's.
//!
//! The worker lays the result on the desk before its permit goes back, and the core ends the job only after that: a
//! caller that is told of a job's proper end finds its result. If another end was faster (deadline, cancel), nobody looks
//! for the result any more, and it is dropped on the worker, where a panic costs nobody anything.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Gateway;
use super::call::{Call, CallContext};
use super::error::ExecuteError;
use crate::clock::{SharedClock, Time};
use crate::engine::{
    JobHandle, JobSpec, NullSink, ProviderError, Sink, Task, TaskContext, TaskError, Verdict,
};
use crate::providers::ChosenTimeout;

impl Gateway {
    /// Runs a blocking function under the slots that `call` names, with a deadline, a cancel token, lifecycle events
    /// and the watchdog; waits for its result, at most until the deadline.
    ///
    /// The function runs on one of the gateway's workers, at most once: it is never retried. Its own error comes back
    /// as [`ExecuteError::Function`]. A panic ends the call, not the worker.
    ///
    /// At the deadline, or when it is cancelled, the caller gets its answer at once and the function's
    /// [token](CallContext::cancel_token) is cancelled. A thread can't be stopped from outside: a function that does
    /// not heed its token goes on, and **its slots stay taken until it returns**, since what it does still is in
    /// flight. Functions that can last hang a hook on the token, or use [`CallContext::time_left`] as their timeout.
    ///
    /// ```
    /// # use pointsman::{Call, Config, ExecuteError, Gateway, Priority, Profile};
    /// # use std::time::Duration;
    /// # let gateway = Gateway::start(Config::builtin(Profile::Test))?;
    /// fn look_up(id: u32, timeout: Duration) -> Result<String, std::io::Error> {
    ///     // ... blocks for at most `timeout` ...
    /// #   let _ = timeout;
    ///     Ok(format!("entry {id}"))
    /// }
    ///
    /// let call = Call::on("embedded").session("agent-1").timeout(Duration::from_secs(30));
    /// let entry = gateway.execute(call, |ctx| look_up(7, ctx.time_left()));
    /// match entry {
    ///     Ok(entry) => assert_eq!(entry, "entry 7"),
    ///     Err(ExecuteError::Function(error)) => println!("it failed: {error}"),
    ///     Err(error) => println!("it has no result: {error}"),
    /// }
    /// # Ok::<(), pointsman::StartError>(())
    /// ```
    ///
    /// # Errors
    /// [`ExecuteError`]
    pub fn execute<T, E, F>(&self, call: Call, function: F) -> Result<T, ExecuteError<E>>
    where
        F: FnOnce(&CallContext) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        if self.engine.is_on_worker() {
            return Err(ExecuteError::WouldDeadlock);
        }
        let now = self.clock.now();
        self.begin(call, function, now, Arc::new(NullSink))?.wait()
    }

    /// Submits a function.
    pub(super) fn begin<T, E, F>(
        &self,
        call: Call,
        function: F,
        received: Time,
        sink: Arc<dyn Sink>,
    ) -> Result<Running<F, T, E>, ExecuteError<E>>
    where
        F: FnOnce(&CallContext) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let load = call.unless_load.map(|level| (level, self.load()));
        if let Some((_, load)) = load.filter(|(level, load)| load >= level) {
            return Err(ExecuteError::Loaded(load));
        }
        let desk = Arc::new(Desk::new(function));
        let task = FunctionTask {
            desk: Arc::clone(&desk),
            request_id: call.options.id(),
            session: call.options.session.clone(),
            provider: call.provider.clone(),
            clock: Arc::clone(&self.clock),
        };
        let timeout = self.timeout(call.options.timeout);
        let deadline = received + timeout.value;
        let spec = call.options.fill(JobSpec {
            provider: call.provider,
            deadline_reason: timeout.to_string().into(),
            reclaim: self.config().watchdog.reclaim_execute,
            sink,
            ..JobSpec::new(Arc::clone(&task.request_id), task, received, deadline)
        });
        match self.engine.submit(spec) {
            Ok(job) => Ok(Running { job, desk }),
            Err(unknown) => Err(ExecuteError::UnknownProvider(unknown.0)),
        }
    }

    fn timeout(&self, wished: Option<Duration>) -> ChosenTimeout {
        let config = self.config();
        let timeouts = &config.timeouts;
        let (value, reason) = match wished {
            None => (timeouts.normal, "function"),
            Some(wished) if wished > timeouts.max => {
                (wished, "asked for more, bounded by timeouts.max")
            }
            Some(wished) => (wished, "asked for"),
        };
        ChosenTimeout {
            value: value.min(timeouts.max),
            reason: reason.into(),
            first_byte: None,
        }
    }
}

/// What caller and worker share of a function.
struct Desk<F, T, E> {
    /// Until somebody takes it.
    function: Mutex<Option<F>>,
    result: Mutex<Option<Result<T, E>>>,
}

impl<F, T, E> Desk<F, T, E> {
    fn new(function: F) -> Self {
        Desk {
            function: Mutex::new(Some(function)),
            result: Mutex::new(None),
        }
    }
}

/// A function that was submitted, for its caller.
pub(super) struct Running<F, T, E> {
    job: JobHandle,
    desk: Arc<Desk<F, T, E>>,
}

impl<F, T, E> Running<F, T, E> {
    pub(super) fn wait(self) -> Result<T, ExecuteError<E>> {
        let verdict = self.job.wait().verdict;
        let left = self.desk.function.lock().take();
        let started = left.is_none();
        Err(match verdict {
            Verdict::Completed | Verdict::Erred(_) | Verdict::Failed(_) => {
                let result = self.desk.result.lock().take();
                let result = result.expect("a function that came to its end left its result");
                return result.map_err(ExecuteError::Function);
            }
            Verdict::Panicked(detail) => ExecuteError::Panicked { detail },
            Verdict::QueueTimeout(obstacle) => ExecuteError::QueueTimeout(obstacle),
            Verdict::Expired(_) => ExecuteError::DeadlineExceeded { started },
            Verdict::Cancelled(reason) => ExecuteError::Cancelled { reason, started },
            Verdict::Refused(refusal) => ExecuteError::Refused(refusal),
        })
    }
}

/// A function as a job's task.
struct FunctionTask<F, T, E> {
    desk: Arc<Desk<F, T, E>>,
    request_id: Arc<str>,
    session: Option<Arc<str>>,
    provider: Option<Arc<str>>,
    clock: SharedClock,
}

impl<F, T, E> FunctionTask<F, T, E> {
    fn context(&self, task: &TaskContext<'_>) -> CallContext {
        CallContext {
            request_id: Arc::clone(&self.request_id),
            session: self.session.clone(),
            provider: self.provider.clone(),
            cancel: task.cancel.clone(),
            deadline: task.deadline,
            clock: Arc::clone(&self.clock),
            reported: Mutex::new(None),
        }
    }
}

impl<F, T, E> Task for FunctionTask<F, T, E>
where
    F: FnOnce(&CallContext) -> Result<T, E> + Send,
    T: Send,
    E: Send,
{
    fn call(&mut self, task: &TaskContext<'_>) -> Result<(), TaskError> {
        let function = self.desk.function.lock().take();
        let Some(function) = function else {
            return Err(TaskError::Own("nobody wants the function any more".into()));
        };
        // What a function connects to is not seen from here: from its start it counts as answering.
        task.watch.connected(true);
        task.watch.first_byte();
        let context = self.context(task);
        let result = function(&context);
        let told = match &result {
            Ok(_) => Ok(()),
            Err(_) => Err(failure(context.reported.into_inner())),
        };
        *self.desk.result.lock() = Some(result);
        told
    }
}

/// What the log says of a function's own error, whose words are its caller's alone.
fn failure(reported: Option<ProviderError>) -> TaskError {
    match reported {
        None => TaskError::Own("the function returned an error".into()),
        Some(error) => {
            let reason = Verdict::Failed(error.clone()).reason();
            let why = format!("the function returned an error, and reported: {reason}");
            let error = Box::new(error);
            TaskError::Reported { why, error }
        }
    }
}

impl<F, T, E> fmt::Debug for FunctionTask<F, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionTask")
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ErrorClass;

    #[test]
    fn the_log_has_what_a_failing_function_reported_and_not_what_it_returned() {
        let said = |reported| failure(reported).to_string();
        assert_eq!(said(None), "the function returned an error");
        let mut error = ProviderError::new(ErrorClass::RateLimited, "slow down");
        error.detail = Some("tier 0".into());
        assert_eq!(
            said(Some(error)),
            "the function returned an error, and reported: slow down (tier 0)"
        );
    }
}
