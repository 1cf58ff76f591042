//! One question, asked in this process.
//!
//! The worker hands each piece to the asker's thread through a channel of a few places. An asker that does not take them holds
//! its own call back, for at most as long as its deadline allows, and nobody else's.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, select_biased};

use super::Gateway;
use crate::cancel::{CancelReason, CancelToken};
use crate::chat::{ChatRequest, Piece};
use crate::clock::{SharedClock, Time};
use crate::config::Priority;
use crate::engine::{
    Ask, CallInfo, ChatTask, JobEnd, JobSpec, Owner, Phases, Sink, SinkGone, Speaker, Verdict,
};

/// Pieces that wait for the asker.
const PLACES: usize = 64;

/// A question, and how it is to be treated.
#[derive(Debug, Clone)]
pub struct Question {
    /// What is asked.
    pub request: ChatRequest,
    /// How urgent it is.
    pub priority: Priority,
    /// The deadline, if the table of timeouts is not to decide.
    pub timeout: Option<Duration>,
    /// Said when the answer is not wanted any more.
    pub cancel: CancelToken,
}

/// Who answered, why it was asked, and where the time went.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// The provider's name.
    pub provider: String,
    /// The model's name at the provider.
    pub model: String,
    /// Why the question went there.
    pub reason: String,
    /// Where the time went.
    pub phases: Phases,
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It was cancelled.
    #[error("{0}")]
    Cancelled(CancelReason),
    /// Anything else, in words.
    #[error("{0}")]
    Failed(String),
}

impl Gateway {
    /// Asks, and gives each piece of the answer to `on_piece` as it comes, on this thread. Blocks until the answer has
    /// ended or `on_piece` breaks off, which cancels the question.
    ///
    /// # Errors
    /// [`AskError`]: nobody to ask, or no whole answer, however much of it came.
    pub fn ask(
        &self,
        question: Question,
        on_piece: &mut dyn FnMut(Piece) -> ControlFlow<()>,
    ) -> Result<Answered, AskError> {
        let received = self.clock.now();
        let timeout = question.timeout;
        let ask = Ask {
            timeout,
            continues: false,
        };
        let plan = self.engine.plan(question.request, &ask);
        let plan = plan.map_err(|error| AskError::Failed(error.to_string()))?;
        let deadline = received + plan.timeout;
        let (sink, pieces, ended) = channel(&self.clock, deadline);
        let job = self.engine.submit(JobSpec {
            task: Box::new(ChatTask::new(Arc::clone(&plan.request))),
            provider: plan.provider.to_string(),
            model: plan.model.to_string(),
            request_id: uuid::Uuid::now_v7().to_string().into(),
            owner: Owner::Anonymous("".into()),
            priority: question.priority,
            received,
            deadline,
            deadline_reason: Arc::clone(&plan.timeout_text),
            cancel: question.cancel,
            sink: Arc::new(sink),
            bytes: 0,
        });
        let job = job.map_err(|error| AskError::Failed(error.to_string()))?;
        if listen(pieces, &ended, on_piece).is_break() {
            job.cancel(CancelReason::ClientLeft);
        }
        let end = job.wait();
        match failure(&end.verdict) {
            Some(error) => Err(error),
            None => Ok(Answered {
                provider: plan.provider.to_string(),
                model: plan.model.to_string(),
                reason: plan.route_reason.to_string(),
                phases: end.phases,
            }),
        }
    }
}

/// Takes pieces until there are no more. Those of a job that completed were all sent before its end was told.
fn listen(
    pieces: Receiver<Piece>,
    ended: &Receiver<()>,
    on_piece: &mut dyn FnMut(Piece) -> ControlFlow<()>,
) -> ControlFlow<()> {
    loop {
        select_biased! {
            recv(pieces) -> piece => match piece {
                Ok(piece) => on_piece(piece)?,
                Err(_) => return ControlFlow::Continue(()),
            },
            recv(ended) -> _ => return pieces.try_iter().try_for_each(on_piece),
        }
    }
}

fn channel(clock: &SharedClock, deadline: Time) -> (PieceSink, Receiver<Piece>, Receiver<()>) {
    let (pieces, taken) = bounded(PLACES);
    let (end, ended) = bounded(1);
    let sink = PieceSink {
        clock: Arc::clone(clock),
        deadline,
        pieces,
        end,
    };
    (sink, taken, ended)
}

/// The way of pieces to the asker.
struct PieceSink {
    clock: SharedClock,
    deadline: Time,
    pieces: Sender<Piece>,
    end: Sender<()>,
}

impl Sink for PieceSink {
    fn call(&self, _call: &CallInfo) {}

    fn piece(&self, piece: Piece) -> Result<(), SinkGone> {
        let left = self.deadline.until(self.clock.now());
        self.pieces.send_timeout(piece, left).map_err(|_| SinkGone)
    }

    fn end(&self, _end: &JobEnd, _speaker: Speaker) {
        // There is room for one word, and one is sent.
        let _ = self.end.try_send(());
    }
}

impl fmt::Debug for PieceSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PieceSink")
    }
}

/// In words, with what else the log would say: whoever asks in this process may read it.
fn failure(verdict: &Verdict) -> Option<AskError> {
    match verdict {
        Verdict::Completed => None,
        Verdict::Cancelled(reason) => Some(AskError::Cancelled(*reason)),
        Verdict::Failed(_)
        | Verdict::Panicked(_)
        | Verdict::QueueTimeout
        | Verdict::Expired(_)
        | Verdict::Refused(_) => Some(AskError::Failed(verdict.reason())),
    }
}
