//! What a job runs: one call at a time, under a permit.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::job::{CallInfo, Sink};
use super::plan::Plan;
use crate::cancel::CancelToken;
use crate::chat::{ChatRequest, Piece};
use crate::clock::Time;
use crate::providers::{Call, CallWatch, ErrorClass, Lesson, OnPiece, Provider, ProviderError};

/// What a job runs.
pub trait Task: fmt::Debug + Send {
    /// Makes one call. Blocks until the call is over, was cancelled, or its deadline has passed.
    ///
    /// # Errors
    /// What went wrong; a call that was cancelled says so.
    fn call(&mut self, context: &TaskContext<'_>) -> Result<(), TaskError>;
}

/// Why a call did not come to its proper end.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TaskError {
    /// The provider failed it, or it was cancelled.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The task's own code failed; why, for the log. It counts against no provider.
    #[error("{0}")]
    Own(String),
}

/// What a task may use while it holds its permit.
#[derive(Debug)]
pub struct TaskContext<'a> {
    /// Whom to call; in a job that needs no provider somebody who answers nothing.
    pub provider: &'a dyn Provider,
    /// Which call of which job it is.
    pub info: &'a CallInfo,
    /// Said when the call has to end.
    pub cancel: &'a CancelToken,
    /// The job's deadline.
    pub deadline: Time,
    /// Told when something happens.
    pub watch: &'a dyn CallWatch,
    /// Where pieces go.
    pub(super) sink: &'a dyn Sink,
}

impl TaskContext<'_> {
    /// Gives a piece of the answer to whoever waits for it. `Break` when nobody wants any more.
    pub fn piece(&self, piece: Piece) -> ControlFlow<()> {
        if self.cancel.is_cancelled() || self.sink.piece(piece).is_err() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

/// A chat: asks the provider and hands on the pieces.
#[derive(Debug)]
pub struct ChatTask {
    request: Arc<ChatRequest>,
    first_byte: Option<Duration>,
    lesson: Option<Lesson>,
}

impl ChatTask {
    /// A task that asks `request`, whose model is the provider's own name of it.
    pub fn new(request: Arc<ChatRequest>) -> Self {
        ChatTask {
            request,
            first_byte: None,
            lesson: None,
        }
    }

    /// A task that asks what was planned, as patiently as was planned, and keeps what its calls took.
    pub(super) fn of(plan: &Plan) -> Self {
        ChatTask {
            request: Arc::clone(&plan.request),
            first_byte: plan.first_byte,
            lesson: plan.lesson.clone(),
        }
    }
}

impl Task for ChatTask {
    fn call(&mut self, context: &TaskContext<'_>) -> Result<(), TaskError> {
        let call = Call {
            request: &self.request,
            cancel: context.cancel,
            deadline: context.deadline,
            first_byte: self.first_byte,
            watch: context.watch,
        };
        let mut timed = self.lesson.as_ref().map(Lesson::begin);
        let result = context.provider.chat(&call, &mut |piece| {
            if let Some(timed) = &mut timed {
                timed.hear(&piece);
            }
            context.piece(piece)
        });
        if let Some(timed) = timed {
            timed.end(&result);
        }
        Ok(result?)
    }
}

/// A task that is a function.
pub struct FnTask<F>(pub F);

impl<F> fmt::Debug for FnTask<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FnTask")
    }
}

impl<F> Task for FnTask<F>
where
    F: FnMut(&TaskContext<'_>) -> Result<(), ProviderError> + Send,
{
    fn call(&mut self, context: &TaskContext<'_>) -> Result<(), TaskError> {
        Ok((self.0)(context)?)
    }
}

/// The provider of jobs that need none.
#[derive(Debug)]
pub(super) struct Nobody;

impl Provider for Nobody {
    fn chat(&self, _call: &Call<'_>, _on_piece: &mut OnPiece<'_>) -> Result<(), ProviderError> {
        let message = "this job was submitted without a provider";
        Err(ProviderError::new(ErrorClass::InvalidRequest, message))
    }
}
