//! The client's ear: turns what a chat's job says into an answer on the client's connection.
//!
//! Two threads may speak to the client. The worker that runs the job writes pieces, and the end that it brings about
//! itself, straight to the socket: no hop. The connection's own thread writes the verdicts of others (deadline, cancel,
//! refusal) and the comments that keep a silent stream alive; it waits in [`ChatSink::attend`].
//!
//! `speech` is the right to speak. Whoever brings another's verdict must not wait for a worker that is stuck in a
//! write to a client that does not read: the connection's thread tries for a moment ([`PATIENCE`]), and then breaks the
//! exchange off, which ends that write. The client then sees a broken stream, never a clean end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::error::ApiError;
use super::meta::Meta;
use crate::cancel::CancelReason;
use crate::chat::{Piece, ReplyBuilder};
use crate::clock::{SharedClock, Time};
use crate::door::{Exchange, Headers, Progress, Wake};
use crate::engine::{CallInfo, JobEnd, JobHandle, Sink, SinkGone, Speaker, Verdict, Whereabouts};
use crate::wire::{StreamEncoder, comment};

/// How long a verdict of another waits for a worker that is in the middle of a piece.
const PATIENCE: Duration = Duration::from_millis(10);

/// Writes one chat's answer.
#[derive(Debug)]
pub(super) struct ChatSink {
    exchange: Exchange,
    clock: SharedClock,
    meta: Meta,
    keepalive: Duration,
    form: AnswerForm,
    speech: Mutex<Speech>,
    /// A verdict that the connection's thread has to tell.
    verdict: Mutex<Option<JobEnd>>,
    /// Set with the end: no piece is taken afterwards.
    over: AtomicBool,
}

#[derive(Debug)]
struct Speech {
    form: Form,
    /// When the client last heard something of us.
    last: Time,
}

/// The form of the answer.
#[derive(Debug)]
enum Form {
    Whole(ReplyBuilder),
    Stream(StreamEncoder),
}

impl ChatSink {
    pub(super) fn new(
        exchange: Exchange,
        clock: SharedClock,
        meta: Meta,
        form: AnswerForm,
        keepalive: Duration,
    ) -> Arc<Self> {
        let speech = Mutex::new(Speech {
            form: form.begin(),
            last: clock.now(),
        });
        let (verdict, over) = (Mutex::new(None), AtomicBool::new(false));
        Arc::new(ChatSink {
            exchange,
            clock,
            meta,
            keepalive,
            form,
            speech,
            verdict,
            over,
        })
    }

    /// Stays with the client until its answer is over: tells it verdicts, keeps its stream alive, and ends the job
    /// when it leaves. For the connection's own thread.
    pub(super) fn attend(&self, job: &JobHandle, write_timeout: Duration) {
        loop {
            match self.exchange.wait(self.next_comment()) {
                Wake::Notified => self.tell_verdict(),
                Wake::TimedOut => self.keep_alive(job),
                Wake::ClientLeft => {
                    job.cancel(CancelReason::ClientLeft);
                    // If the worker was faster, it may be writing the answer: a client that only shut its side reads it.
                    job.wait_timeout(write_timeout);
                    return self.exchange.abort();
                }
            }
            if self.exchange.progress().is_over() {
                return;
            }
        }
    }

    fn next_comment(&self) -> Time {
        match self.speech.try_lock() {
            Some(speech) if matches!(speech.form, Form::Stream(_)) => speech.last + self.keepalive,
            // Somebody speaks: look again later.
            None => self.clock.now() + self.keepalive,
            Some(_) => Time::NEVER,
        }
    }

    fn tell_verdict(&self) {
        let Some(end) = self.verdict.lock().take() else {
            return;
        };
        match self.speech.try_lock_for(PATIENCE) {
            Some(mut speech) => self.finish(&mut speech, &end),
            None => self.exchange.abort(),
        }
    }

    /// Tells a client that waits for its stream that it still does, and what for.
    fn keep_alive(&self, job: &JobHandle) {
        let word = waiting_word(job.whereabouts());
        let Some(mut speech) = self.speech.try_lock() else {
            return;
        };
        if self.over.load(Ordering::Acquire) || self.clock.now() < speech.last + self.keepalive {
            return;
        }
        // A failed write has broken the exchange, and the next wait says so.
        let mut text = Vec::new();
        comment(&word, &mut text);
        let _ = self.say(&mut speech, &text);
    }

    /// Says the last word. A failed write has broken the exchange; there is nobody left to tell.
    fn finish(&self, speech: &mut Speech, end: &JobEnd) {
        let spoken = match ApiError::of_verdict(&end.verdict) {
            None => self.finish_well(speech, end),
            Some(error) if self.exchange.progress() == Progress::Unsent => {
                self.exchange.reply(self.meta.refusal(end, &error))
            }
            Some(error) => self.break_off(&error, end),
        };
        if let Err(error) = spoken {
            log::debug!(
                "request {}: the answer could not be sent: {error}",
                self.meta.request_id
            );
        }
    }

    fn finish_well(&self, speech: &mut Speech, end: &JobEnd) -> std::io::Result<()> {
        match &mut speech.form {
            Form::Whole(builder) => {
                let reply = std::mem::take(builder).finish();
                self.exchange.reply(self.meta.whole(end, &reply))
            }
            Form::Stream(encoder) => {
                let mut text = Vec::new();
                encoder.end(Some(&self.meta.object(Some(end))), &mut text);
                self.say(speech, &text)?;
                self.exchange.finish()
            }
        }
    }

    /// An error after the answer began: an error event, and then no proper end.
    fn break_off(&self, error: &ApiError, end: &JobEnd) -> std::io::Result<()> {
        let body = error.json(Some(&self.meta.object(Some(end))));
        let event = [b"data: ".as_slice(), &body, b"\n\n"].concat();
        let written = self.exchange.write(&event);
        self.exchange.abort();
        written
    }

    /// Sends a bit of a stream, its head first.
    fn say(&self, speech: &mut Speech, text: &[u8]) -> std::io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        if self.exchange.progress() == Progress::Unsent {
            let mut headers = Headers::default();
            self.meta.add_headers(None, &mut headers);
            headers.add("Content-Type", "text/event-stream");
            headers.add("Cache-Control", "no-cache");
            self.exchange.start(200.into(), &headers)?;
        }
        speech.last = self.clock.now();
        self.exchange.write(text)
    }
}

/// What a comment in a stream says, of which nothing has come for a while.
fn waiting_word(whereabouts: Option<Whereabouts>) -> String {
    let seconds = |length: Duration| length.as_nanos().div_ceil(1_000_000_000).max(1);
    match whereabouts {
        None => "keep-alive".into(),
        Some(Whereabouts::BackingOff(left)) => {
            format!("waiting to try again, in {}s", seconds(left))
        }
        Some(Whereabouts::InLine {
            position, expected, ..
        }) => {
            let expected = expected.map(|wait| format!(", expected {}s", seconds(wait)));
            let expected = expected.unwrap_or_default();
            format!("waiting, position {position}{expected}")
        }
    }
}

/// The form in which the client wants its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerForm {
    Whole,
    Stream { include_usage: bool },
}

impl AnswerForm {
    /// An answer of which nothing is there yet.
    fn begin(self) -> Form {
        match self {
            AnswerForm::Whole => Form::Whole(ReplyBuilder::default()),
            AnswerForm::Stream { include_usage } => Form::Stream(StreamEncoder::new(include_usage)),
        }
    }
}

impl Sink for ChatSink {
    fn call(&self, call: &CallInfo) {
        self.meta.begin(call);
        self.speech.lock().form = self.form.begin();
    }

    fn piece(&self, piece: Piece) -> Result<(), SinkGone> {
        if self.over.load(Ordering::Acquire) {
            return Err(SinkGone);
        }
        self.meta.hear(&piece);
        let mut speech = self.speech.lock();
        let mut text = Vec::new();
        match &mut speech.form {
            Form::Whole(builder) => builder.push(piece),
            Form::Stream(encoder) => encoder.piece(&piece, &mut text),
        }
        self.say(&mut speech, &text).map_err(|_| SinkGone)
    }

    fn end(&self, end: &JobEnd, speaker: Speaker) {
        self.over.store(true, Ordering::Release);
        match speaker {
            Speaker::Worker => self.finish(&mut self.speech.lock(), end),
            Speaker::Other => {
                *self.verdict.lock() = Some(end.clone());
                self.exchange.notify();
            }
        }
        debug_assert!(
            end.verdict != Verdict::Completed || speaker == Speaker::Worker,
            "only the worker completes"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Obstacle;

    #[test]
    fn a_comment_says_what_is_waited_for() {
        let in_line = |expected| Whereabouts::InLine {
            position: 3,
            expected,
            obstacle: Obstacle::Turn,
        };
        let (wait, short) = (Duration::from_millis(11_001), Duration::from_micros(1));
        for (whereabouts, word) in [
            (None, "keep-alive"),
            (
                Some(Whereabouts::BackingOff(short)),
                "waiting to try again, in 1s",
            ),
            (Some(in_line(None)), "waiting, position 3"),
            (
                Some(in_line(Some(wait))),
                "waiting, position 3, expected 12s",
            ),
            (
                Some(Whereabouts::BackingOff(wait)),
                "waiting to try again, in 12s",
            ),
        ] {
            assert_eq!(waiting_word(whereabouts), word);
        }
    }
}
