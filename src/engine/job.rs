//! What a job is, how it ends, and who is told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::cancel::{CancelReason, CancelToken};
use crate::chat::{ChatRequest, Piece};
use crate::clock::Time;
use crate::config::Priority;
use crate::providers::ProviderError;

/// A run to submit.
#[derive(Debug)]
pub struct JobSpec {
    /// What is asked.
    pub request: Arc<ChatRequest>,
    /// The id that the caller and the log know it by.
    pub request_id: String,
    /// The named session that it belongs to, if any.
    pub session: Option<String>,
    /// How urgent it is.
    pub priority: Priority,
    /// When its request was received: its phases count from here.
    pub received: Time,
    /// When its answer is due.
    pub deadline: Time,
    /// Said when the answer is not wanted any more.
    pub cancel: CancelToken,
    /// Who is told.
    pub sink: Arc<dyn Sink>,
    /// How many bytes it holds while it waits.
    pub bytes: usize,
}

/// Who is told of a job's progress. Exactly one `end`, and no `piece` after it.
pub trait Sink: fmt::Debug + Send + Sync {
    /// Where the call is made: told before the first piece.
    fn call(&self, call: &Call);

    /// A piece of the answer, on the worker's thread; it may block, for a bounded time.
    ///
    /// # Errors
    /// [`SinkGone`] when nobody takes pieces any more: the call is then ended.
    fn piece(&self, piece: Piece) -> Result<(), SinkGone>;

    /// The end. With [`Speaker::Worker`] it is told on the worker's thread and may block, for a bounded time; with
    /// [`Speaker::Other`] it must not block.
    fn end(&self, end: JobEnd, speaker: Speaker);
}

/// Whose thread speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The worker that ran the job.
    Worker,
    /// The watchdog, a submitter, whoever cancelled, another job's worker.
    Other,
}

/// Nobody takes pieces any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkGone;

/// One try at a provider, for those who are told.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The provider's name.
    pub provider: String,
    /// The model's name at the provider.
    pub model: String,
    /// Which try it is, from 1.
    pub attempt: u32,
}

/// How a job ended.
#[derive(Debug, Clone)]
pub struct JobEnd {
    /// How.
    pub verdict: Verdict,
    /// The last call made, if any.
    pub call: Option<Call>,
    /// Where the time went.
    pub phases: Phases,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// All pieces were delivered.
    Completed,
    /// The provider failed it.
    Failed(ProviderError),
    /// The job's own code panicked; the message of the panic, for the log.
    Panicked(String),
    /// It waited in line for longer than the queue timeout.
    QueueTimeout,
    /// Its deadline passed.
    Expired,
    /// Somebody cancelled it.
    Cancelled(CancelReason),
    /// It was not taken in.
    Refused(Refusal),
}

/// Why a job was not taken in.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// In words that a client may read.
    pub message: String,
    /// When to come again; `None` where that can't help.
    pub retry_after: Option<Duration>,
}

/// Where the time went. Zero where a phase was not reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// In line.
    pub queue: Duration,
    /// From the start of the call until its connection stood.
    pub connect: Duration,
    /// From then until the first byte of the answer.
    pub first_byte: Duration,
    /// The whole call, connect and first byte included.
    pub upstream: Duration,
    /// From the receipt of the request to the end.
    pub total: Duration,
}
