//! What an answer says of itself: the headers, and the body's `pointsman` object with the same.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tiny_http::Header;

use super::status::phases;
use crate::door::header;
use crate::engine::{CallInfo, JobEnd, Phases, Plan};

/// What is known of a request from its plan, and of its call once there is one.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) request_id: Arc<str>,
    session_id: String,
    plan: Plan,
    call: Mutex<Option<CallInfo>>,
}

impl Meta {
    pub(super) fn new(request_id: Arc<str>, session_id: String, plan: Plan) -> Self {
        Meta { request_id, session_id, plan, call: Mutex::new(None) }
    }

    /// The call that is under way.
    pub(super) fn set_call(&self, call: &CallInfo) {
        *self.call.lock() = Some(call.clone());
    }

    /// The headers; with `Server-Timing` once the request has ended.
    pub(super) fn headers(&self, end: Option<&JobEnd>) -> Vec<Header> {
        let mut headers = vec![
            header("X-Request-Id", &self.request_id),
            header("X-Session-Id", &self.session_id),
            header("X-Provider", &self.plan.provider),
            header("X-Model", &self.plan.model),
            header("X-Attempts", &self.attempts().to_string()),
            header("X-Timeout", &self.plan.timeout_text()),
        ];
        if !self.plan.dropped.is_empty() {
            headers.push(header("X-Dropped-Params", &self.plan.dropped.join(", ")));
        }
        if let Some(end) = end {
            headers.push(header("Server-Timing", &server_timing(&end.phases)));
        }
        headers
    }

    /// The `pointsman` object.
    pub(super) fn object(&self, end: Option<&JobEnd>) -> Value {
        let mut object = json!({
            "request_id": &*self.request_id,
            "session_id": self.session_id,
            "provider": &*self.plan.provider,
            "model": &*self.plan.model,
            "route": &*self.plan.route_reason,
            "attempts": self.attempts(),
            "timeout_s": self.plan.timeout.as_secs_f64(),
            "timeout_reason": &*self.plan.timeout_reason,
        });
        if !self.plan.dropped.is_empty() {
            object["dropped_params"] = json!(self.plan.dropped);
        }
        if let Some(end) = end {
            object["phases"] = phases(&end.phases);
        }
        object
    }

    fn attempts(&self) -> u32 {
        self.call.lock().as_ref().map_or(0, |call| call.attempt)
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
    let part = |(name, length): (&str, std::time::Duration)| format!("{name};dur={:.1}", length.as_secs_f64() * 1000.0);
    parts.map(part).join(", ")
}
