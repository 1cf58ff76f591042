//! One request of a load test and its answer, over OpenAI's wire.

use std::time::Duration;

use super::outcome::{Outcome, Trouble};
use super::plan::{Form, Plan};
use crate::chat::{ChatRequest, Extra, Piece};
use crate::client::{Answer, Client};
use crate::clock::{SharedClock, Time};
use crate::wire::sse::{Event, Reader, SseError};
use crate::wire::{AnswerError, ErrorBody, Outgoing, StreamDecoder, parse_error, parse_reply};

const PATH: &str = "/v1/chat/completions";
/// Bytes of an answer, or of one event of a stream, that are taken.
const MAX_BYTES: usize = 16 << 20;
/// Bytes of an error that are looked at.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// Who asks.
#[derive(Debug)]
pub(super) struct Caller<'a> {
    pub(super) plan: &'a Plan,
    pub(super) client: &'a Client,
    pub(super) clock: &'a SharedClock,
    pub(super) session: Option<&'a str>,
}

/// What was seen of an answer that is whole, or of the part of it that came.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// From the sending to the first piece with content; streams only.
    pub(super) first_piece: Option<Duration>,
    /// Between two pieces with content; streams only.
    pub(super) gaps: Vec<Duration>,
    /// How long the server says that the request waited in line.
    pub(super) queue: Option<Duration>,
    /// The text of the answer.
    text: String,
}

impl Caller<'_> {
    /// Asks for `id`, and takes in what comes. Whatever the end, `seen` has what came before it.
    pub(super) fn ask(&self, number: u64, id: &str, seen: &mut Seen) -> Result<(), Trouble> {
        let sent = self.clock.now();
        let answer = self.send(number, id)?;
        if !(200..300).contains(&answer.status) {
            return Err(refusal(answer));
        }
        match self.plan.form {
            Form::Whole => whole(answer, seen)?,
            Form::Stream => self.stream(answer, sent, seen)?,
        }
        if seen.text.contains(id) {
            return Ok(());
        }
        Err(Trouble::new(
            Outcome::Unproven,
            "the answer lacks its request's id",
        ))
    }

    fn send(&self, number: u64, id: &str) -> Result<Answer, Trouble> {
        let plan = self.plan;
        let mut request = ChatRequest::new(plan.model.as_str())
            .user(format!("Repeat this and say nothing else: {id}"));
        request.stream = plan.form == Form::Stream;
        let body = Outgoing::new(&request).to_bytes(&[]);
        let authorization = plan.key.as_ref().map(|key| format!("Bearer {key}"));
        let priority = plan.priority(number).map(|priority| priority.to_string());
        let headers = [
            ("X-Request-Id", Some(id)),
            ("X-Session-Id", self.session),
            ("X-Priority", priority.as_deref()),
            ("Authorization", authorization.as_deref()),
        ];
        let said = headers
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        let said: Vec<_> = said.collect();
        Ok(self.client.post(PATH, &said, &body, plan.timeout)?)
    }

    fn stream(&self, answer: Answer, sent: Time, seen: &mut Seen) -> Result<(), Trouble> {
        let status = answer.status;
        let mut events = Reader::new(answer, MAX_BYTES);
        let mut decoder = StreamDecoder::default();
        let mut pieces = Vec::new();
        let mut last = None;
        while let Some(event) = events.next_event().map_err(of_events)? {
            if let Event::Data { data, .. } = event {
                let pushed = decoder.push(data, &mut pieces);
                pushed.map_err(|error| of_answer(status, error))?;
            }
            for piece in pieces.drain(..) {
                if piece.is_content() {
                    let now = self.clock.now();
                    seen.content_at(now, sent, &mut last);
                }
                seen.hear(piece);
            }
        }
        if decoder.is_complete() {
            return Ok(());
        }
        Err(Trouble::new(
            Outcome::Failed,
            "the stream broke off before its end",
        ))
    }
}

impl Seen {
    fn content_at(&mut self, now: Time, sent: Time, last: &mut Option<Time>) {
        match last.replace(now) {
            None => self.first_piece = Some(now.since(sent)),
            Some(before) => self.gaps.push(now.since(before)),
        }
    }

    fn hear(&mut self, piece: Piece) {
        match piece {
            Piece::Head(head) => self.queue = queue_of(&head.extra).or(self.queue),
            Piece::Delta(delta) => self.text += &delta.content.unwrap_or_default(),
            Piece::Usage(_) => {}
        }
    }
}

fn whole(answer: Answer, seen: &mut Seen) -> Result<(), Trouble> {
    let status = answer.status;
    let body = answer.text(MAX_BYTES)?;
    let reply = parse_reply(&body).map_err(|error| of_answer(status, error))?;
    seen.queue = queue_of(&reply.extra);
    seen.text = reply.text();
    Ok(())
}

/// How long the request waited in line, from the gateway's own object beside the answer.
fn queue_of(extra: &Extra) -> Option<Duration> {
    let seconds = extra
        .get("pointsman")?
        .get("phases")?
        .get("queue_s")?
        .as_f64()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// An answer with a status that is none of success. A body that breaks off takes nothing from its status.
fn refusal(answer: Answer) -> Trouble {
    let status = answer.status;
    let body = answer.text(MAX_ERROR_BYTES).unwrap_or_default();
    of_body(status, parse_error(&body).unwrap_or_default())
}

/// The code says what it is; some servers have only a type.
fn of_body(status: u16, body: ErrorBody) -> Trouble {
    let code = body.code.or(body.kind);
    Trouble::of_error(status, code.as_deref())
}

fn of_answer(status: u16, error: AnswerError) -> Trouble {
    match error {
        AnswerError::Refused(body) => of_body(status, body),
        AnswerError::Truncated | AnswerError::Malformed(_) => {
            Trouble::new(Outcome::Failed, "the answer is not of the OpenAI wire")
        }
    }
}

fn of_events(error: SseError) -> Trouble {
    match error {
        SseError::Io(error) => error.into(),
        SseError::TooLong { .. } | SseError::NotUtf8 => {
            Trouble::new(Outcome::Failed, "the answer is no event stream")
        }
    }
}
