//! Scripts: how a request is answered, as data; and which one is whose.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::Request;

/// How a request is answered.
#[derive(Debug, Clone)]
pub(crate) enum Script {
    /// As it should be: a stream if one was asked for, else one body.
    Answer(Answer),
    /// As the script inside, but only when the test opens the gate.
    Gate(Gate, Box<Script>),
    /// Not at all; the connection stays open.
    Silent,
    /// With a status line, and then nothing.
    NoHeaders,
    /// With a head that never ends, a byte at a time.
    TrickleHeaders,
    /// With a body that never ends and means nothing: comments in a stream, else blanks.
    TrickleBody,
    /// With the first piece of a stream (else half a body), and then nothing.
    StallAfterFirst,
    /// With the first piece of a stream (else half a body), and then comments (else blanks) for ever.
    KeepAliveCommentsAfterFirst,
    /// With a status, a body, and headers.
    Status(u16, Value, Vec<(String, String)>),
    /// With something that isn't HTTP.
    Garbage,
    /// With a reset.
    Reset,
    /// With the end of the connection instead of an answer.
    HalfClose,
    /// With the first piece of a stream (else half a body), and then the end of the connection.
    WrongLength,
    /// As a proxy between does: 504 and a page.
    HtmlGateway504,
    /// With status 200, and an error for a body, or as an event of the stream.
    ErrorBodyWith200,
    /// With these events, each the data of one, as they are.
    Events(Vec<String>),
    /// With these bytes and the end of the connection.
    Raw(Vec<u8>),
    /// With these bytes, and what follows on them.
    RawThen(Vec<u8>, Then),
}

/// What follows on bytes.
#[derive(Debug, Clone)]
pub(crate) enum Then {
    /// The next request on the same connection.
    Next,
    /// Nothing, and the connection stays open.
    Silence,
    /// A reset, which may overtake them.
    Reset,
    /// These bytes, again and again, as long as the client takes them.
    Again(Vec<u8>),
    /// This text, again and again, with pauses.
    Trickle(String),
}

/// A proper answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// `{id}` and `{prompt}` are the request's.
    pub(crate) text: String,
    /// Reasoning before it; none if empty.
    pub(crate) reasoning: String,
    /// In how many pieces a stream brings the text, at least 1.
    pub(crate) pieces: usize,
    /// Silence before the first byte.
    pub(crate) delay: Duration,
    /// Silence between what says nothing (a stream's role, else a blank line) and the first content.
    pub(crate) think: Duration,
    /// Silence before each further piece of a stream.
    pub(crate) pace: Duration,
}

impl Default for Answer {
    fn default() -> Self {
        Answer {
            text: "hello from {id}".into(),
            reasoning: String::new(),
            pieces: 3,
            delay: Duration::ZERO,
            think: Duration::ZERO,
            pace: Duration::ZERO,
        }
    }
}

impl Answer {
    /// The text for `request`.
    pub(super) fn text_for(&self, request: &Request) -> String {
        self.text
            .replace("{id}", &request.id)
            .replace("{prompt}", request.prompt())
    }

    /// The text for `request` in pieces, none of them empty unless all is.
    pub(super) fn pieces_for(&self, request: &Request) -> Vec<String> {
        let text: Vec<char> = self.text_for(request).chars().collect();
        let size = text.len().div_ceil(self.pieces.max(1)).max(1);
        text.chunks(size)
            .map(|piece| piece.iter().collect())
            .collect()
    }
}

impl Script {
    /// A proper answer of this text.
    pub(crate) fn text(text: &str) -> Script {
        Script::Answer(Answer {
            text: text.into(),
            ..Answer::default()
        })
    }

    /// A proper answer behind a gate.
    pub(crate) fn gated(gate: &Gate) -> Script {
        Script::Gate(gate.clone(), Box::new(Script::Answer(Answer::default())))
    }

    /// A list of models, each of at least an `id`.
    pub(crate) fn models(models: impl IntoIterator<Item = Value>) -> Script {
        let models = models.into_iter().map(|mut model| {
            model["object"] = "model".into();
            model["owned_by"] = "upstream".into();
            model
        });
        let list = json!({"object": "list", "data": models.collect::<Vec<_>>()});
        Script::Status(200, list, vec![])
    }

    /// An OpenAI-shaped error.
    pub(crate) fn error(status: u16, kind: &str, message: &str) -> Script {
        Script::Status(status, error_body(kind, message), vec![])
    }

    /// 429 with `Retry-After`.
    pub(crate) fn rate_limited(retry_after: &str) -> Script {
        let body = error_body("rate_limit_reached_error", "slow down");
        let header = ("Retry-After".to_owned(), retry_after.to_owned());
        Script::Status(429, body, vec![header])
    }
}

pub(super) fn error_body(kind: &str, message: &str) -> Value {
    json!({"error": {"message": message, "type": kind}})
}

/// What holds answers back until the test says so.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<AtomicBool>);

impl Gate {
    /// A gate that is shut.
    pub(crate) fn new() -> Gate {
        Gate::default()
    }

    /// Opens it, for good.
    pub(crate) fn release(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Which script is whose.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) next: VecDeque<Script>,
    pub(super) headers: BTreeMap<(String, String), Script>,
    pub(super) models: BTreeMap<String, Script>,
    pub(super) list: Option<Script>,
    otherwise: Script,
}

impl Rules {
    pub(super) fn new(otherwise: Script) -> Rules {
        Rules {
            next: VecDeque::new(),
            headers: BTreeMap::new(),
            models: BTreeMap::new(),
            list: None,
            otherwise,
        }
    }

    pub(super) fn choose(&mut self, request: &Request) -> Script {
        if let Some(script) = self.next.pop_front() {
            return script;
        }
        let headers = &request.head.headers;
        let of_header = headers.iter().find_map(|header| self.headers.get(header));
        let of_model = || self.models.get(request.model());
        of_header
            .or_else(of_model)
            .unwrap_or(&self.otherwise)
            .clone()
    }

    /// How `GET /v1/models` is answered.
    pub(super) fn list(&self) -> Script {
        let known = || Script::models(self.models.keys().map(|id| json!({"id": id})));
        self.list.clone().unwrap_or_else(known)
    }
}
