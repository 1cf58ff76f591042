//! `/metrics`: what Prometheus reads, and what is counted of requests that never became a job.

use super::error::ApiError;
use super::{Api, Visit, send};
use crate::door::Response;
use crate::telemetry::{CONTENT_TYPE, Rejection};

impl Api {
    /// `GET /metrics`: Prometheus' text format.
    pub(super) fn metrics(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let page = self.engine.metrics_page();
        let page = page
            .ok_or_else(|| ApiError::not_found("nothing is counted: telemetry.metrics is false"))?;
        let response = Response::new(200).with_body(CONTENT_TYPE, page.text());
        let response = response.with_header("X-Request-Id", visit.request_id);
        send(visit.exchange, visit.request_id, response);
        Ok(())
    }

    /// A request was turned away with this status before it was read. Paths that are not there are nobody's refusal.
    pub(super) fn count_refusal(&self, status: u16) {
        let why = match status {
            503 => Rejection::Door,
            401 => Rejection::NoKey,
            403 => Rejection::NotAllowed,
            400 | 408 | 413 | 417 | 431 | 505 => Rejection::Malformed,
            _ => return,
        };
        self.engine.metrics().record_rejection(None, why);
    }

    /// A chat was turned away before it became a job.
    pub(super) fn count_chat_refusal(&self, error: &ApiError) {
        let why = match &*error.code {
            "model_not_found" | "provider_unavailable" | "context_length_exceeded" => {
                Rejection::NoModel
            }
            _ => return self.count_refusal(error.status),
        };
        self.engine.metrics().record_rejection(None, why);
    }
}
