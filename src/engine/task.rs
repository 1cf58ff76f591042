//! What a job runs: one call at a time, under a permit.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::job::{CallInfo, Sink};
use super::learn::Ear;
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
    /// The task's own code failed, and says what its provider did wrong: that counts, and is not tried again.
    #[error("{why}")]
    Reported {
        /// Why it failed, for the log.
        why: String,
        /// What the provider did wrong.
        error: Box<ProviderError>,
    },
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
    /// The first byte of the answer has to be in by then.
    pub first_byte_by: Time,
    /// Told when something happens.
    pub watch: &'a dyn CallWatch,
    /// Where pieces go.
    pub(super) sink: &'a dyn Sink,
    /// Who hears them go by.
    pub(super) ear: &'a Ear<'a>,
}

impl TaskContext<'_> {
    /// Gives a piece of the answer to whoever waits for it. `Break` when nobody wants any more.
    pub fn piece(&self, piece: Piece) -> ControlFlow<()> {
        self.ear.hear(&piece);
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
    /// The provider and the model that it was planned for.
    planned: Option<(Arc<str>, Arc<str>)>,
    first_byte: Option<Duration>,
    lesson: Option<Lesson>,
}

impl ChatTask {
    /// A task that asks `request`, under whatever name of the model the call is made.
    pub fn new(request: Arc<ChatRequest>) -> Self {
        ChatTask {
            request,
            planned: None,
            first_byte: None,
            lesson: None,
        }
    }

    /// A task that asks what was planned, as patiently as was planned, and keeps what its calls took.
    pub(super) fn of(plan: &Plan) -> Self {
        ChatTask {
            request: Arc::clone(&plan.request),
            planned: Some((Arc::clone(&plan.provider), Arc::clone(&plan.model))),
            first_byte: plan.first_byte,
            lesson: plan.lesson.clone(),
        }
    }
}

impl ChatTask {
    /// Whether the call goes where it was planned to: what was learned is of that model, and of no other that steps in.
    fn is_as_planned(&self, call: &CallInfo) -> bool {
        self.planned.as_ref().is_some_and(|(provider, model)| {
            call.provider.as_ref() == Some(provider) && call.model.as_ref() == Some(model)
        })
    }
}

impl Task for ChatTask {
    fn call(&mut self, context: &TaskContext<'_>) -> Result<(), TaskError> {
        // Another stage may know the model by another name, or be another model.
        if let Some(model) = &context.info.model
            && **model != *self.request.model
        {
            Arc::make_mut(&mut self.request).model = model.to_string();
        }
        let as_planned = self.is_as_planned(context.info);
        let call = Call {
            request: &self.request,
            cancel: context.cancel,
            deadline: context.deadline,
            first_byte_by: context.first_byte_by,
            first_byte: self.first_byte.filter(|_| as_planned),
            watch: context.watch,
        };
        let lesson = self.lesson.as_ref().filter(|_| as_planned);
        let mut timed = lesson.map(Lesson::begin);
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

/// Stands where a provider was that was taken out of the configuration, for a call that was about to begin.
#[derive(Debug)]
pub(super) struct Removed;

impl Provider for Removed {
    fn chat(&self, _call: &Call<'_>, _on_piece: &mut OnPiece<'_>) -> Result<(), ProviderError> {
        let message = "the provider was taken out of the configuration";
        Err(ProviderError::new(ErrorClass::Connect, message))
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
