//! What an answer says of itself: the headers, and the body's `pointsman` object with the same.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tiny_http::Header;

use super::status::phases;
use crate::chat::Piece;
use crate::door::header;
use crate::engine::{CallInfo, JobEnd, Phases, Plan};

/// What is known of a request from its plan, and of its call once there is one.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) request_id: Arc<str>,
    session_id: String,
    plan: Plan,
    told: Mutex<Told>,
}

/// What the call told so far.
#[derive(Debug, Default)]
struct Told {
    attempts: u32,
    /// Who was called last.
    provider: Option<Arc<str>>,
    model: Option<Arc<str>>,
    /// Parameters that the provider would refuse or ignore, and that were not sent to it.
    dropped: Vec<String>,
}

impl Meta {
    pub(super) fn new(request_id: Arc<str>, session_id: String, plan: Plan) -> Self {
        Meta {
            request_id,
            session_id,
            plan,
            told: Mutex::default(),
        }
    }

    /// A call begins.
    pub(super) fn begin(&self, call: &CallInfo) {
        let mut told = self.told.lock();
        *told = Told {
            attempts: call.attempt,
            provider: call.provider.clone(),
            model: call.model.clone(),
            dropped: Vec::new(),
        };
    }

    /// The call's first piece says what was not sent.
    pub(super) fn hear(&self, piece: &Piece) {
        if let Piece::Head(head) = piece {
            self.told.lock().dropped.clone_from(&head.dropped);
        }
    }

    /// The headers; with `Server-Timing` once the request has ended.
    pub(super) fn headers(&self, end: Option<&JobEnd>) -> Vec<Header> {
        let told = self.told.lock();
        let mut headers = vec![
            header("X-Request-Id", &self.request_id),
            header("X-Session-Id", &self.session_id),
            header("X-Provider", self.provider(&told)),
            header("X-Model", self.model(&told)),
            header("X-Attempts", &told.attempts.to_string()),
            header("X-Timeout", &self.plan.timeout_text),
        ];
        if !told.dropped.is_empty() {
            headers.push(header("X-Dropped-Params", &told.dropped.join(", ")));
        }
        if let Some(end) = end {
            headers.push(header("Server-Timing", &server_timing(&end.phases)));
        }
        headers
    }

    /// Who was called last, or will be first.
    fn provider<'a>(&'a self, told: &'a Told) -> &'a str {
        told.provider.as_ref().unwrap_or(&self.plan.provider)
    }

    fn model<'a>(&'a self, told: &'a Told) -> &'a str {
        told.model.as_ref().unwrap_or(&self.plan.model)
    }

    /// The `pointsman` object.
    pub(super) fn object(&self, end: Option<&JobEnd>) -> Value {
        let told = self.told.lock();
        let mut object = json!({
            "request_id": &*self.request_id,
            "session_id": self.session_id,
            "provider": self.provider(&told),
            "model": self.model(&told),
            "route": &*self.plan.route_reason,
            "attempts": told.attempts,
            "timeout": &*self.plan.timeout_text,
        });
        let plan = &self.plan;
        if (self.provider(&told), self.model(&told)) != (&*plan.provider, &*plan.model) {
            object["fallback_from"] = json!(format!("{}/{}", plan.provider, plan.model));
        }
        if !told.dropped.is_empty() {
            object["dropped_params"] = json!(told.dropped);
        }
        if let Some(end) = end {
            object["phases"] = phases(&end.phases);
        }
        object
    }
}

/// The `Server-Timing` header: milliseconds.
fn server_timing(phases: &Phases) -> String {
    let parts = [
        ("queue", phases.queue),
        ("connect", phases.connect),
        ("first_byte", phases.first_byte),
        ("upstream", phases.upstream),
        ("total", phases.total),
    ];
    let part = |(name, length): (&str, std::time::Duration)| {
        format!("{name};dur={:.1}", length.as_secs_f64() * 1000.0)
    };
    parts.map(part).join(", ")
}
