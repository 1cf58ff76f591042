//! A whole answer: put together as it comes, and kept for whoever waits for it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::Gateway;
use super::error::ChatError;
use super::job::Job;
use crate::cancel::CancelReason;
use crate::chat::{ChatReply, Piece, ReplyBuilder};
use crate::engine::{CallInfo, JobEnd, JobHandle, Sink, SinkGone, Speaker, Verdict};

/// An answer that is on its way: see [`Gateway::submit`]. Dropping it leaves the job alone.
#[derive(Debug, Clone)]
pub struct ChatHandle {
    job: JobHandle,
    reply: Arc<Collector>,
}

pub(super) fn submit(gateway: &Gateway, job: Job) -> Result<ChatHandle, ChatError> {
    let reply = Arc::new(Collector::default());
    let sink: Arc<dyn Sink> = reply.clone();
    let job = job.submit(gateway, false, sink)?;
    Ok(ChatHandle { job, reply })
}

impl ChatHandle {
    /// The id that the log and `/api/requests` know the job by.
    pub fn request_id(&self) -> &Arc<str> {
        self.job.request_id()
    }

    /// Waits for the answer. Every job ends by its deadline, so this does too.
    ///
    /// # Errors
    /// [`ChatError`]
    pub fn wait(&self) -> Result<ChatReply, ChatError> {
        if self.job.is_on_worker() {
            return Err(ChatError::WouldDeadlock);
        }
        self.take(&self.job.wait())
    }

    /// Waits for the answer, at most `timeout`; `None` if it has not come by then, and the job goes on.
    ///
    /// # Errors
    /// [`ChatError`]
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<ChatReply>, ChatError> {
        if self.job.is_on_worker() {
            return Err(ChatError::WouldDeadlock);
        }
        let end = self.job.wait_timeout(timeout);
        end.map(|end| self.take(&end)).transpose()
    }

    /// Ends the job, in line or in its call. Returns at once; a job that has ended is left as it is.
    pub fn cancel(&self) {
        self.job.cancel(CancelReason::Requested);
    }

    fn take(&self, end: &JobEnd) -> Result<ChatReply, ChatError> {
        ChatError::of(&end.verdict)?;
        let reply = self.reply.whole.get();
        Ok(reply.expect("a completed job has its answer").clone())
    }
}

/// Puts the pieces together.
#[derive(Debug, Default)]
struct Collector {
    pieces: Mutex<ReplyBuilder>,
    /// The answer; only of a job that completed. Set before anyone who waits is told of the end.
    whole: OnceLock<ChatReply>,
}

impl Sink for Collector {
    fn call(&self, _call: &CallInfo) {
        *self.pieces.lock() = ReplyBuilder::default();
    }

    fn piece(&self, piece: Piece) -> Result<(), SinkGone> {
        self.pieces.lock().push(piece);
        Ok(())
    }

    fn end(&self, end: &JobEnd, _speaker: Speaker) {
        let pieces = std::mem::take(&mut *self.pieces.lock());
        if end.verdict == Verdict::Completed {
            let _ = self.whole.set(pieces.finish());
        }
    }
}
