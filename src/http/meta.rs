//! What an answer says of itself: the headers, and the body's `pointsman` object with the same.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::chat::{ChatReply, Piece};
use crate::door::{Headers, Response};
use crate::engine::{CallInfo, JobEnd, Phases, Plan};
use crate::wire::reply_json;

/// What is known of a request from its plan, and of its call once there is one.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) request_id: Arc<str>,
    session_id: String,
    plan: Plan,
    /// The request whose call it shares.
    joined: Option<Arc<str>>,
    /// Shared by all who share the call.
    told: Arc<Mutex<Told>>,
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
            joined: None,
            told: Arc::default(),
        }
    }

    /// What is known of another request that shares this one's call: the call is the same, its deadline is its own.
    pub(super) fn shared_by(
        &self,
        request_id: Arc<str>,
        session_id: String,
        timeout_text: Arc<str>,
    ) -> Self {
        Meta {
            request_id,
            session_id,
            plan: Plan {
                timeout_text,
                ..self.plan.clone()
            },
            joined: Some(Arc::clone(&self.request_id)),
            told: Arc::clone(&self.told),
        }
    }

    /// Where its call goes, and until when.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A whole answer.
    pub(super) fn whole(&self, end: &JobEnd, reply: &ChatReply) -> Response {
        let body = self.describe(Some(end), |ours| reply_json(reply, Some(ours)));
        let mut response = Response::new(200).with_body("application/json", body);
        self.add_headers(Some(end), &mut response.headers);
        response
    }

    /// An error in place of an answer.
    pub(super) fn refusal(&self, end: &JobEnd, error: &ApiError) -> Response {
        let mut response = error.response(Some(&self.object(Some(end))));
        self.add_headers(Some(end), &mut response.headers);
        response
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

    /// Adds the headers; with `Server-Timing` once the request has ended.
    pub(super) fn add_headers(&self, end: Option<&JobEnd>, headers: &mut Headers) {
        let told = self.told.lock();
        headers.add("X-Request-Id", &self.request_id);
        headers.add("X-Session-Id", &self.session_id);
        headers.add("X-Provider", self.provider(&told));
        headers.add("X-Model", self.model(&told));
        headers.add("X-Attempts", told.attempts);
        headers.add("X-Timeout", &self.plan.timeout_text);
        if let Some(joined) = &self.joined {
            headers.add("X-Joined", joined);
        }
        if !told.dropped.is_empty() {
            headers.add("X-Dropped-Params", told.dropped.join(", "));
        }
        if let Some(end) = end {
            headers.add("Server-Timing", ServerTiming(&end.phases));
        }
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
        self.describe(end, |object| json!(object))
    }

    /// The same for whoever only writes it down.
    pub(super) fn describe<T>(
        &self,
        end: Option<&JobEnd>,
        write: impl FnOnce(&Object<'_>) -> T,
    ) -> T {
        let told = self.told.lock();
        let plan = &self.plan;
        let (provider, model) = (self.provider(&told), self.model(&told));
        let stepped_in = (provider, model) != (&*plan.provider, &*plan.model);
        write(&Object {
            request_id: &self.request_id,
            session_id: &self.session_id,
            provider,
            model,
            route: &plan.route_reason,
            attempts: told.attempts,
            timeout: &plan.timeout_text,
            fallback_from: stepped_in.then(|| format!("{}/{}", plan.provider, plan.model)),
            joined: self.joined.as_deref(),
            dropped_params: &told.dropped,
            phases: end.map(|end| end.phases),
        })
    }
}

/// The `pointsman` object of a body.
#[derive(Debug, Serialize)]
pub(super) struct Object<'a> {
    request_id: &'a str,
    session_id: &'a str,
    provider: &'a str,
    model: &'a str,
    route: &'a str,
    attempts: u32,
    timeout: &'a str,
    /// Who was meant, where somebody else stepped in.
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback_from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    joined: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    dropped_params: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    phases: Option<Phases>,
}

/// The `Server-Timing` header: milliseconds.
struct ServerTiming<'a>(&'a Phases);

impl fmt::Display for ServerTiming<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, figure)) in self.0.figures().into_iter().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            write!(f, "{separator}{name};dur={}", figure.milliseconds())?;
        }
        Ok(())
    }
}
