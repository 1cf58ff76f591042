//! One call over the OpenAI wire, whoever the provider is.
//!
//! ```text
//!  request -> Draft -> dialect.adapt -> body -> transport -> events or body -> pieces -> dialect.finish -> client
//!                                        ^                                       |
//!                                        +----------- a search to echo ----------+
//! ```
//!
//! What is true of every call:
//!
//! * An answer is whole only with its proper end; a stream that merely ends is [`ErrorClass::Incomplete`].
//! * An error is an error, whatever its status and wherever it stands: beside status 200, or in the middle of a stream.
//! * What kind of body came is seen from its first byte, not from its headers, which lie more often.
//! * Comments and empty chunks show that the provider lives, and no more: once content came, `timeouts.idle` runs
//!   from piece to piece. Before that the deadline alone bounds a model that thinks in silence.
//! * The token has the last word: a call that was cancelled ends as cancelled, however its socket put it.
//! * A connection from the pool that dies before it answers is replaced once, at once: it had died of age.

use std::io::{self, BufRead, Read};
use std::ops::ControlFlow;

use crate::cancel::CancelToken;
use crate::chat::{
    ChatReply, Delta, FinishReason, Head, Message, Piece, ToolCall, ToolCallDelta, Usage,
};
use crate::clock::{SharedClock, Time};
use crate::config::{self, Timeouts};
use crate::wire::sse::{Event, Reader};
use crate::wire::{AnswerError, ListedModel, Outgoing, StreamDecoder, parse_models, parse_reply};

use super::dialect::{Dialect, Draft};
use super::models::Models;
use super::search::{MAX_ROUNDS, Sieve};
use super::transport::{Answer, Get, Post, Transport, TransportError};
use super::trouble::{Refusal, Trouble};
use super::{
    Call, CallWatch, ErrorClass, OnPiece, PoolStats, Probe, Provider, ProviderError, model_name,
};

/// Bytes of one event: a whole tool call may come in one.
const MAX_EVENT_BYTES: usize = 16 << 20;
/// Bytes of a list of models that are read. The longest ones, of some hundred models with all about them, have 1 MiB.
const MAX_LIST_BYTES: u64 = 16 << 20;
/// Bytes of an error body that are read.
const MAX_ERROR_BYTES: u64 = 64 << 10;

/// A provider that speaks OpenAI's wire in some dialect.
#[derive(Debug)]
pub(super) struct OpenAi {
    config: config::Provider,
    models: Models,
    timeouts: Timeouts,
    clock: SharedClock,
    transport: Transport,
    dialect: Box<dyn Dialect>,
}

impl OpenAi {
    pub(super) fn new(
        config: &config::Provider,
        models: Models,
        timeouts: &Timeouts,
        clock: SharedClock,
        dialect: Box<dyn Dialect>,
    ) -> Self {
        OpenAi {
            transport: Transport::new(config, timeouts, SharedClock::clone(&clock)),
            config: config.clone(),
            models,
            timeouts: timeouts.clone(),
            clock,
            dialect,
        }
    }
}

impl Provider for OpenAi {
    fn chat(&self, call: &Call<'_>, on_piece: &mut OnPiece<'_>) -> Result<(), ProviderError> {
        let end = self.call(call, on_piece);
        end.map_err(|error| match call.cancel.reason() {
            Some(reason) => ProviderError::cancelled(reason),
            None => error,
        })
    }

    fn probe(&self, cancel: &CancelToken, deadline: Time) -> Result<Probe, ProviderError> {
        let get = Get {
            path: "/models",
            headers: self.dialect.headers(),
            accept: "application/json",
            cancel,
            deadline,
            watch: &Unwatched,
        };
        let answer = self.transport.get(&get);
        let answer = answer.map_err(|error| self.trouble().transport(error))?;
        match answer.status {
            200..300 => Ok(Probe::Accepted(self.list(answer)?)),
            // Servers of one's own often have no list of models.
            404 | 405 | 501 => Ok(Probe::Reached),
            _ => Err(self.refusal(answer)),
        }
    }

    fn pool_stats(&self) -> Option<PoolStats> {
        Some(self.transport.pool_stats())
    }

    fn reset_pool_stats(&self) {
        self.transport.reset_pool_stats();
    }
}

/// For calls whose phases are nobody's business.
#[derive(Debug)]
struct Unwatched;

impl CallWatch for Unwatched {
    fn connected(&self, _reused: bool) {}
    fn first_byte(&self) {}
}

impl OpenAi {
    fn call(&self, call: &Call<'_>, on_piece: &mut OnPiece<'_>) -> Result<(), ProviderError> {
        let name = model_name(&call.request.model, &self.config);
        let known = self.models.known();
        let model = known.find(name).map(|offered| &offered.model);
        let mut draft = Draft::new(call.request, name, model)?;
        self.dialect.adapt(&mut draft)?;
        let mut delivery = Delivery {
            call,
            on_piece,
            dialect: &*self.dialect,
            dropped: draft.dropped,
            usage: None,
            sieve: None,
            is_first: true,
        };
        self.rounds(&draft.outgoing, &mut delivery)?;
        delivery.give_usage()
    }

    /// Asks, and asks again as long as the model wants searches echoed.
    fn rounds(
        &self,
        outgoing: &Outgoing<'_>,
        delivery: &mut Delivery<'_, '_, '_>,
    ) -> Result<(), ProviderError> {
        let mut turns = Vec::new();
        for _ in 0..MAX_ROUNDS {
            delivery.begin_round();
            // Further rounds go on with an answer that has begun.
            let first_byte_by = if delivery.is_first {
                delivery.call.first_byte_by
            } else {
                Time::NEVER
            };
            let body = outgoing.to_bytes(&turns);
            let answer = self.send(delivery.call, &body, first_byte_by)?;
            self.receive(answer, delivery)?;
            match delivery.end_round() {
                Some(echo) => turns.extend(echo),
                None => return Ok(()),
            }
        }
        let message = format!("the model still searched after {MAX_ROUNDS} rounds");
        Err(ProviderError::new(ErrorClass::Incomplete, message))
    }

    /// The models in an answer; `None` where it has none to say, as the front page of a site hasn't.
    fn list(&self, mut answer: Answer) -> Result<Option<Vec<ListedModel>>, ProviderError> {
        answer.content_began();
        let mut body = Vec::new();
        let read = answer.by_ref().take(MAX_LIST_BYTES).read_to_end(&mut body);
        read.map_err(|error| self.trouble().transport(error.into()))?;
        match parse_models(&body) {
            Ok(models) => Ok(Some(models)),
            Err(AnswerError::Malformed(_)) => Ok(None),
            Err(error @ (AnswerError::Refused(_) | AnswerError::Truncated)) => {
                Err(self.trouble().answer(error))
            }
        }
    }

    fn trouble(&self) -> Trouble<'_> {
        Trouble {
            provider: &self.config,
            dialect: &*self.dialect,
            now: self.clock.wall(),
        }
    }

    fn send(
        &self,
        call: &Call<'_>,
        body: &[u8],
        first_byte_by: Time,
    ) -> Result<Answer, ProviderError> {
        let post = Post {
            path: "/chat/completions",
            headers: self.dialect.headers(),
            body,
            accept: "text/event-stream, application/json",
            cancel: call.cancel,
            deadline: call.deadline,
            first_byte_by,
            first_byte: call.first_byte,
            watch: call.watch,
        };
        let sent = match self.transport.post(&post) {
            Err(TransportError::Closed {
                reused: true,
                before_answer: true,
                ..
            }) => self.transport.post(&post),
            first => first,
        };
        sent.map_err(|error| self.trouble().transport(error))
    }

    fn receive(
        &self,
        mut answer: Answer,
        delivery: &mut Delivery<'_, '_, '_>,
    ) -> Result<(), ProviderError> {
        if !(200..300).contains(&answer.status) {
            return Err(self.refusal(answer));
        }
        let first = first_byte(&mut answer);
        match first.map_err(|error| self.trouble().transport(error.into()))? {
            None => Err(self.trouble().incomplete()),
            // What the fields of events begin with (data, event, id, retry, a comment), and a byte order mark.
            Some(b'd' | b'e' | b'i' | b'r' | b':' | 0xef) => self.receive_events(answer, delivery),
            Some(_) => self.receive_body(answer, delivery),
        }
    }

    fn refusal(&self, mut answer: Answer) -> ProviderError {
        answer.content_began();
        let mut body = Vec::new();
        let read = answer.by_ref().take(MAX_ERROR_BYTES).read_to_end(&mut body);
        let header = |name: &str| answer.header(name);
        let refusal = Refusal {
            status: answer.status,
            // A body that breaks off takes nothing from its status.
            body: if read.is_ok() { &body } else { &[] },
            retry_after_ms: header("retry-after-ms"),
            retry_after: header("retry-after"),
            request_id: header("msh-request-id")
                .or(header("x-log-id"))
                .or(header("x-request-id")),
        };
        self.trouble().refusal(&refusal)
    }

    fn receive_body(
        &self,
        mut answer: Answer,
        delivery: &mut Delivery<'_, '_, '_>,
    ) -> Result<(), ProviderError> {
        answer.content_began();
        let mut body = Vec::new();
        let read = answer.read_to_end(&mut body);
        read.map_err(|error| self.trouble().transport(error.into()))?;
        let reply = parse_reply(&body).map_err(|error| self.trouble().answer(error))?;
        let mut pieces = pieces_of(reply).into_iter();
        pieces.try_for_each(|piece| delivery.piece(piece))
    }

    fn receive_events(
        &self,
        answer: Answer,
        delivery: &mut Delivery<'_, '_, '_>,
    ) -> Result<(), ProviderError> {
        let mut events = Reader::new(answer, MAX_EVENT_BYTES);
        let mut decoder = StreamDecoder::default();
        let mut pieces = Vec::new();
        let mut quiet = Quiet::new(&self.clock, &self.timeouts);
        let fail = |error: AnswerError| self.trouble().answer(error);
        while !decoder.is_done() {
            let event = events.next_event();
            match event.map_err(|error| self.trouble().events(error))? {
                None => break,
                Some(Event::Comment(_)) => {}
                Some(Event::Data { data, .. }) => decoder.push(data, &mut pieces).map_err(fail)?,
            }
            if quiet.is_too_long(&pieces) {
                return Err(self.trouble().idle());
            }
            if quiet.has_spoken() {
                events.source().content_began();
            }
            pieces
                .drain(..)
                .try_for_each(|piece| delivery.piece(piece))?;
        }
        // Some servers leave out the line ends after their last event.
        if !decoder.is_done()
            && let Some(data) = events.unfinished().filter(|data| data.trim() == "[DONE]")
        {
            decoder.push(data, &mut pieces).map_err(fail)?;
            pieces
                .drain(..)
                .try_for_each(|piece| delivery.piece(piece))?;
        }
        if !decoder.is_complete() {
            return Err(self.trouble().incomplete());
        }
        events.into_inner().finish();
        Ok(())
    }
}

/// The first byte that says something, left unread; `None` if there is none. Some servers send blank lines while their
/// model thinks.
fn first_byte(answer: &mut Answer) -> io::Result<Option<u8>> {
    loop {
        let bytes = answer.fill_buf()?;
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        if first.is_some() || bytes.is_empty() {
            return Ok(first.copied());
        }
        let blank = bytes.len();
        answer.consume(blank);
    }
}

/// How long a stream has said nothing, where it has begun to say something.
struct Quiet<'a> {
    clock: &'a SharedClock,
    timeouts: &'a Timeouts,
    /// When the last piece came, from the first content on.
    since: Option<Time>,
}

impl<'a> Quiet<'a> {
    fn new(clock: &'a SharedClock, timeouts: &'a Timeouts) -> Self {
        Quiet {
            clock,
            timeouts,
            since: None,
        }
    }

    /// Whether content came.
    fn has_spoken(&self) -> bool {
        self.since.is_some()
    }

    /// Hears of an event and its pieces, which may be none.
    fn is_too_long(&mut self, pieces: &[Piece]) -> bool {
        if pieces.is_empty() {
            let silence = |since| self.clock.now().since(since);
            return self.since.map(silence) > Some(self.timeouts.idle);
        }
        if self.since.is_some() || pieces.iter().any(Piece::is_content) {
            self.since = Some(self.clock.now());
        }
        false
    }
}

/// The way of pieces from the wire to whoever takes them.
struct Delivery<'a, 'b, 'c> {
    call: &'a Call<'b>,
    on_piece: &'a mut OnPiece<'c>,
    dialect: &'a dyn Dialect,
    /// To be said with the head.
    dropped: Vec<String>,
    /// Of all rounds.
    usage: Option<Usage>,
    /// Where searches are echoed.
    sieve: Option<Sieve<'a>>,
    /// Whether this is the first round: the only one whose heads count.
    is_first: bool,
}

impl Delivery<'_, '_, '_> {
    fn begin_round(&mut self) {
        self.sieve = self
            .call
            .request
            .web_search
            .then(|| Sieve::new(self.dialect));
    }

    fn end_round(&mut self) -> Option<Vec<Message>> {
        self.is_first = false;
        self.sieve.take()?.echo()
    }

    fn piece(&mut self, piece: Piece) -> Result<(), ProviderError> {
        match piece {
            Piece::Head(_) if !self.is_first => Ok(()),
            Piece::Head(mut head) => {
                head.dropped = std::mem::take(&mut self.dropped);
                self.give(Piece::Head(head))
            }
            Piece::Delta(delta) => self.delta(delta),
            Piece::Usage(usage) => {
                self.usage = Some(match self.usage.take() {
                    Some(before) => sum(before, usage),
                    None => usage,
                });
                Ok(())
            }
        }
    }

    fn delta(&mut self, mut delta: Delta) -> Result<(), ProviderError> {
        let finish = delta
            .finish
            .take()
            .map(|reason| self.dialect.finish(reason));
        delta.finish = finish.transpose()?;
        if let Some(sieve) = &mut self.sieve {
            delta = sieve.pass(delta);
        }
        if delta.is_empty() {
            return Ok(());
        }
        self.give(Piece::Delta(delta))
    }

    fn give_usage(&mut self) -> Result<(), ProviderError> {
        match self.usage.take() {
            Some(usage) => self.give(Piece::Usage(usage)),
            None => Ok(()),
        }
    }

    fn give(&mut self, piece: Piece) -> Result<(), ProviderError> {
        match (self.on_piece)(piece) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ProviderError::unwanted(self.call.cancel)),
        }
    }
}

/// The usage of two rounds; what we don't know of is the later one's.
fn sum(first: Usage, second: Usage) -> Usage {
    let both = |a: Option<u64>, b: Option<u64>| a.map_or(b, |a| Some(a + b.unwrap_or_default()));
    Usage {
        prompt: first.prompt + second.prompt,
        completion: first.completion + second.completion,
        total: first.total + second.total,
        cached: both(first.cached, second.cached),
        reasoning: both(first.reasoning, second.reasoning),
        extra: second.extra,
    }
}

/// A whole answer in pieces, one for each of its choices.
fn pieces_of(reply: ChatReply) -> Vec<Piece> {
    let head = Head {
        id: reply.id,
        created: reply.created,
        model: reply.model,
        extra: reply.extra,
        ..Head::default()
    };
    let mut pieces = vec![Piece::Head(head)];
    for choice in reply.choices {
        let message = choice.message;
        let text = message.text();
        let content = message.content.is_some().then_some(text);
        let calls = (0u32..).zip(message.tool_calls).map(whole_call);
        pieces.push(Piece::Delta(Delta {
            choice: choice.index,
            content,
            reasoning: message.reasoning,
            tool_calls: calls.collect(),
            // A body that is whole has ended, whether or not its server says why.
            finish: choice.finish.or(Some(FinishReason::Stop)),
            extra: message.extra,
            choice_extra: choice.extra,
        }));
    }
    pieces.extend(reply.usage.map(Piece::Usage));
    pieces
}

fn whole_call((index, call): (u32, ToolCall)) -> ToolCallDelta {
    ToolCallDelta {
        index,
        id: Some(call.id),
        kind: Some(call.kind),
        name: Some(call.name),
        arguments: call.arguments,
        extra: call.extra,
    }
}

#[cfg(test)]
#[path = "openai_tests.rs"]
mod tests;
