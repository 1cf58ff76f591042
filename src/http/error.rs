//! What a client is told when it gets no answer: the only place of our status codes.
//!
//! An error says who is at fault (`type`), what it is (`code`), and whether sending the same request again can help:
//! the OpenAI clients retry by themselves unless `x-should-retry: false` says not to, and their retries on top of a
//! spent deadline were half of the old cascade.

use std::time::Duration;

use serde_json::Value;

use super::reload::NotReloaded;
use crate::cancel::CancelReason;
use crate::door::Response;
use crate::engine::{ErrorClass, PlanError, ProviderError, Refusal, RefusalReason, Shut, Verdict};
use crate::wire::{ErrorBody, WireError, error_json};

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Caller,
    Gateway,
    Provider,
}

impl Fault {
    const fn word(self) -> &'static str {
        match self {
            Fault::Caller => "caller_error",
            Fault::Gateway => "gateway_error",
            Fault::Provider => "provider_error",
        }
    }
}

/// Advice where nobody knows better.
const SOON: Duration = Duration::from_secs(5);
/// An error with a longer advice than this is final for clients that retry by themselves.
const LONG_WAIT: Duration = Duration::from_secs(16);

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ApiError {
    pub(super) status: u16,
    fault: Fault,
    pub(super) code: String,
    pub(super) message: String,
    param: Option<String>,
    /// When the same request may come again.
    retry_after: Option<Duration>,
    /// Sending the same request again can't help.
    is_final: bool,
    /// A key would help.
    wants_key: bool,
    /// What may be done instead, as the `Allow` header has it.
    allow: Option<String>,
}

impl ApiError {
    fn new(status: u16, fault: Fault, code: &str, message: impl Into<String>) -> Self {
        let (code, message) = (code.to_owned(), message.into());
        ApiError {
            status,
            fault,
            code,
            message,
            param: None,
            retry_after: None,
            is_final: false,
            wants_key: false,
            allow: None,
        }
    }

    /// The request is wrong.
    pub(super) fn invalid(message: impl Into<String>, param: Option<&str>) -> Self {
        let param = param.map(str::to_owned);
        ApiError {
            param,
            ..ApiError::new(400, Fault::Caller, "invalid_request", message)
        }
    }

    /// Nothing is there.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        ApiError::new(404, Fault::Caller, "not_found", message)
    }

    /// Something is there, but not for this method; `allow` lists those that it takes.
    pub(super) fn method_not_allowed(message: impl Into<String>, allow: String) -> Self {
        ApiError {
            allow: Some(allow),
            ..ApiError::new(405, Fault::Caller, "method_not_allowed", message)
        }
    }

    /// A key that stands for another request of the same session.
    pub(super) fn idempotency_key_reused(key: &str, request_id: &str) -> Self {
        let message = format!(
            "the header Idempotency-Key is {key:?}, and another body came under it: that of the request {request_id}, whose \
             call is not over; accepted: the same body, to join that call, or another key"
        );
        ApiError::new(422, Fault::Caller, "idempotency_key_reused", message).never()
    }

    /// The host or the origin is not ours.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        ApiError::new(403, Fault::Caller, "forbidden", message)
    }

    /// No key of ours came with the request.
    pub(super) fn invalid_api_key(message: impl Into<String>) -> Self {
        let error = ApiError::new(401, Fault::Caller, "invalid_api_key", message);
        ApiError {
            wants_key: true,
            ..error.never()
        }
    }

    /// The key is one of ours, but not one that may do this.
    pub(super) fn admin_only() -> Self {
        let message = "this is for an API key with admin = true";
        ApiError::new(403, Fault::Caller, "forbidden", message).never()
    }

    /// As many dashboards are open as may be.
    pub(super) fn too_many_watchers(max: usize) -> Self {
        let message = format!("{max} dashboards are open, as many as may be (telemetry.live_max)");
        ApiError::new(503, Fault::Gateway, "over_capacity", message).after(SOON)
    }

    /// The configuration was not reloaded, and nothing has changed.
    pub(super) fn not_reloaded(why: NotReloaded) -> Self {
        let message = why.to_string();
        match why {
            NotReloaded::Refused(_) => {
                ApiError::new(422, Fault::Caller, "configuration_refused", message).never()
            }
            NotReloaded::Nothing(_) => {
                ApiError::new(409, Fault::Caller, "nothing_to_reload", message).never()
            }
            NotReloaded::Stopping => {
                ApiError::new(503, Fault::Gateway, "stopping", message).after(SOON)
            }
            NotReloaded::Failed(_) => ApiError::internal(message),
        }
    }

    /// We did something wrong.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        ApiError::new(500, Fault::Gateway, "internal_error", message)
    }

    /// What the door itself decided about a request's framing.
    pub(super) fn framing(status: u16, message: &str) -> Self {
        match status {
            500 => ApiError::internal(message),
            503 => ApiError::new(503, Fault::Gateway, "over_capacity", message)
                .after(Duration::from_secs(1)),
            408 => ApiError::new(408, Fault::Caller, "request_timeout", message),
            413 | 431 => ApiError::new(status, Fault::Caller, "request_too_large", message).never(),
            _ => ApiError::new(status, Fault::Caller, "invalid_request", message).never(),
        }
    }

    /// How a job ended; `None` for one that completed.
    pub(super) fn of_verdict(verdict: &Verdict) -> Option<Self> {
        Some(match verdict {
            Verdict::Completed => return None,
            Verdict::Failed(error) => of_provider(error),
            Verdict::Erred(_) | Verdict::Panicked(_) => {
                ApiError::internal("the request failed inside the gateway; its log says why")
            }
            Verdict::QueueTimeout(obstacle) => {
                let message = format!(
                    "the request waited in line for longer than the queue timeout (queue.timeout): {obstacle}"
                );
                let error = ApiError::new(503, Fault::Gateway, "queue_timeout", message);
                error.after(SOON).never()
            }
            Verdict::Expired(expiry) => {
                let message = format!("the deadline passed; {expiry}");
                ApiError::new(504, Fault::Gateway, "deadline_exceeded", message).never()
            }
            Verdict::Cancelled(reason) => of_cancel(*reason),
            Verdict::Refused(refusal) => of_refusal(refusal),
        })
    }

    /// The body, with our own object beside the error.
    pub(super) fn json(&self, pointsman: Option<&Value>) -> Vec<u8> {
        let body = ErrorBody {
            message: self.message.clone(),
            kind: Some(self.fault.word().into()),
            code: Some(self.code.clone()),
            param: self.param.clone(),
        };
        error_json(&body, pointsman)
    }

    /// The answer.
    pub(super) fn response(&self, pointsman: Option<&Value>) -> Response {
        let mut response =
            Response::new(self.status).with_body("application/json", self.json(pointsman));
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            response = response.with_header("Retry-After", seconds);
        }
        if let Some(allow) = &self.allow {
            response = response.with_header("Allow", allow);
        }
        if self.is_final {
            response = response.with_header("x-should-retry", "false");
        }
        if self.wants_key {
            response = response.with_header("WWW-Authenticate", "Bearer");
        }
        response
    }

    fn after(self, wait: Duration) -> Self {
        let is_final = self.is_final || wait > LONG_WAIT;
        ApiError {
            retry_after: Some(wait),
            is_final,
            ..self
        }
    }

    fn never(self) -> Self {
        ApiError {
            is_final: true,
            ..self
        }
    }
}

impl From<WireError> for ApiError {
    fn from(error: WireError) -> Self {
        ApiError::invalid(error.to_string(), error.param())
    }
}

impl From<PlanError> for ApiError {
    fn from(error: PlanError) -> Self {
        let message = error.to_string();
        match error {
            PlanError::UnknownModel { awaited, .. } => {
                let error = ApiError::new(404, Fault::Caller, "model_not_found", message);
                let error = match awaited.as_slice() {
                    [] => error.never(),
                    // One of those who have not said yet may have it.
                    _ => error.after(SOON),
                };
                ApiError {
                    param: Some("model".into()),
                    ..error
                }
            }
            PlanError::Unavailable { .. } => {
                ApiError::new(503, Fault::Gateway, "provider_unavailable", message).never()
            }
            PlanError::TooLong { .. } => {
                let error = ApiError::new(400, Fault::Caller, "context_length_exceeded", message);
                ApiError {
                    param: Some("messages".into()),
                    ..error.never()
                }
            }
        }
    }
}

/// What a provider said, as what it is.
fn of_provider(error: &ProviderError) -> ApiError {
    let status = |default: u16| {
        error
            .status
            .filter(|status| (400..600).contains(status))
            .unwrap_or(default)
    };
    let provider =
        |status: u16, code: &str| ApiError::new(status, Fault::Provider, code, &*error.message);
    let told = match error.class {
        ErrorClass::Connect | ErrorClass::ConnectTimeout => provider(502, "provider_unavailable"),
        ErrorClass::FirstByteTimeout | ErrorClass::IdleTimeout => provider(504, "provider_timeout"),
        ErrorClass::RateLimited => provider(429, "provider_rate_limited").after(SOON),
        ErrorClass::Overloaded => provider(503, "provider_overloaded").after(SOON),
        // Hours away, or never: a time to come again is told only where the provider names one.
        ErrorClass::PlanWindow => provider(429, "provider_rate_limited").never(),
        ErrorClass::Quota => provider(429, "insufficient_quota").never(),
        ErrorClass::Auth => provider(401, "provider_auth").never(),
        ErrorClass::Forbidden => provider(403, "provider_auth").never(),
        ErrorClass::ModelNotFound => provider(404, "model_not_found").never(),
        ErrorClass::ContextLength => caller(provider(400, "context_length_exceeded")),
        ErrorClass::ContentFilter => caller(provider(400, "content_filter")),
        ErrorClass::InvalidRequest => caller(provider(status(400).min(499), "invalid_request")),
        ErrorClass::ServerError => provider(502, "provider_failed"),
        ErrorClass::Incomplete => provider(502, "provider_incomplete"),
        ErrorClass::Malformed => provider(502, "provider_malformed"),
        ErrorClass::Cancelled(reason) => return of_cancel(reason),
    };
    let told = ApiError {
        param: error.param.clone(),
        ..told
    };
    match error.retry_after {
        // Time fills no account: whoever heeds the header only would knock for nothing.
        _ if error.class == ErrorClass::Quota => told,
        Some(wait) => told.after(wait),
        None => told,
    }
}

/// The provider refused what the caller sent: the same again will be refused again.
fn caller(error: ApiError) -> ApiError {
    ApiError {
        fault: Fault::Caller,
        ..error.never()
    }
}

fn of_cancel(reason: CancelReason) -> ApiError {
    let message = reason.to_string();
    match reason {
        CancelReason::Stopping => {
            ApiError::new(503, Fault::Gateway, "stopping", message).after(SOON)
        }
        CancelReason::Deadline => {
            ApiError::new(504, Fault::Gateway, "deadline_exceeded", message).never()
        }
        // The status that nginx made known for a request whose client is gone or wants it no more.
        CancelReason::Requested | CancelReason::ClientLeft => {
            ApiError::new(499, Fault::Caller, "cancelled", message).never()
        }
    }
}

/// Nobody was called, since everybody would have said what they said before: so it is told as it was then.
fn of_shut(why: Shut, message: String) -> ApiError {
    let provider =
        |status: u16, code: &str| ApiError::new(status, Fault::Provider, code, &*message);
    match why {
        Shut::RateLimited => provider(429, "provider_rate_limited"),
        Shut::PlanWindow => provider(429, "provider_rate_limited").never(),
        Shut::Failing | Shut::Unreachable => provider(503, "provider_unavailable"),
        Shut::Credentials => provider(401, "provider_auth").never(),
        Shut::Quota => provider(429, "insufficient_quota").never(),
        Shut::ModelUnavailable => provider(404, "model_not_found").never(),
        Shut::Removed => ApiError::new(503, Fault::Gateway, "provider_unavailable", message),
    }
}

fn of_refusal(refusal: &Refusal) -> ApiError {
    let message = format!("the request was not taken in: {refusal}");
    if let RefusalReason::Shut(why) = refusal.reason {
        let error = of_shut(why, message);
        return match why {
            // No time helps: somebody has to pay, or to set another key.
            Shut::Credentials | Shut::Quota => error,
            _ => error.after(refusal.retry_after),
        };
    }
    let (status, fault, code) = match refusal.reason {
        RefusalReason::SessionQueueFull => (429, Fault::Caller, "over_capacity"),
        RefusalReason::Stopping => (503, Fault::Gateway, "stopping"),
        RefusalReason::WorkersLost { .. } => (503, Fault::Gateway, "unhealthy"),
        RefusalReason::QueueFull
        | RefusalReason::QueueBytes
        | RefusalReason::ProviderQueueFull
        | RefusalReason::WaitTooLong { .. }
        | RefusalReason::Displaced
        | RefusalReason::BoxLoaded
        | RefusalReason::Shut(_) => (503, Fault::Gateway, "over_capacity"),
    };
    ApiError::new(status, fault, code, message).after(refusal.retry_after)
}
