//! What a job runs: one call at a time, under a permit.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::job::{CallInfo, Sink};
use crate::cancel::CancelToken;
use crate::chat::{ChatRequest, Piece};
use crate::clock::Time;
use crate::providers::{Call, CallWatch, Provider, ProviderError};

/// What a job runs.
pub trait Task: fmt::Debug + Send {
    /// Makes one call. Blocks until the call is over, was cancelled, or its deadline has passed.
    ///
    /// # Errors
    /// What went wrong; a call that was cancelled says so.
    fn call(&mut self, context: &TaskContext<'_>) -> Result<(), ProviderError>;
}

/// What a task may use while it holds its permit.
#[derive(Debug)]
pub struct TaskContext<'a> {
    /// Whom to call.
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
}

impl ChatTask {
    /// A task that asks `request`, whose model is the provider's own name of it.
    pub fn new(request: Arc<ChatRequest>) -> Self {
        ChatTask { request }
    }
}

impl Task for ChatTask {
    fn call(&mut self, context: &TaskContext<'_>) -> Result<(), ProviderError> {
        let call = Call {
            request: &self.request,
            cancel: context.cancel,
            deadline: context.deadline,
            watch: context.watch,
        };
        context
            .provider
            .chat(&call, &mut |piece| context.piece(piece))
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
    fn call(&mut self, context: &TaskContext<'_>) -> Result<(), ProviderError> {
        (self.0)(context)
    }
}
