//! What a request says about itself beside its question: in headers, or in the body's `pointsman` object.
//!
//! A header wins over the body: whoever stands between client and gateway can set it.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::error::ApiError;
use crate::config::Priority;
use crate::door::Headers;
use crate::wire::Options as BodyOptions;

/// Characters of an id that a client may give.
const MAX_ID: usize = 128;

/// Who asks, how urgently, and until when.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Options {
    pub(super) session: Option<Arc<str>>,
    pub(super) priority: Priority,
    pub(super) timeout: Option<Duration>,
}

impl Options {
    /// Reads headers and body; `default` is the priority of a request that does not say.
    ///
    /// # Errors
    /// 400 that names the header or key, and what is accepted.
    pub(super) fn read(
        headers: &Headers,
        body: &BodyOptions,
        default: Priority,
    ) -> Result<Options, ApiError> {
        let session = given(
            headers,
            "X-Session-Id",
            body.session_id.as_deref(),
            "session_id",
        );
        let priority = given(headers, "X-Priority", body.priority.as_deref(), "priority");
        let timeout = given(
            headers,
            "X-Request-Timeout",
            body.timeout.as_deref(),
            "timeout",
        );
        Ok(Options {
            session: session.map(Given::session).transpose()?,
            priority: priority
                .map(Given::priority)
                .transpose()?
                .unwrap_or(default),
            timeout: timeout.map(Given::duration).transpose()?,
        })
    }

    /// The session as the answer names it: a request without one still has an id of its own.
    pub(super) fn session_id(&self, request_id: &str) -> String {
        match &self.session {
            Some(name) => name.to_string(),
            None => format!("anon-{request_id}"),
        }
    }
}

/// The client's own id if it is sane, else a new one.
pub(super) fn request_id(headers: &Headers) -> Arc<str> {
    let sane = |id: &&str| {
        (1..=MAX_ID).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    };
    match headers.get("X-Request-Id").filter(sane) {
        Some(id) => id.into(),
        None => new_id(),
    }
}

/// An id for a request that brought none.
pub(super) fn new_id() -> Arc<str> {
    Uuid::now_v7().to_string().into()
}

/// A value, and where it was found.
struct Given<'a> {
    text: &'a str,
    place: &'static str,
    param: Option<&'static str>,
}

fn given<'a>(
    headers: &'a Headers,
    header: &'static str,
    body: Option<&'a str>,
    key: &'static str,
) -> Option<Given<'a>> {
    match headers.get(header) {
        Some(text) => Some(Given {
            text: text.trim(),
            place: header,
            param: None,
        }),
        None => body.map(|text| Given {
            text: text.trim(),
            place: key,
            param: Some(key),
        }),
    }
}

impl Given<'_> {
    fn session(self) -> Result<Arc<str>, ApiError> {
        let sane = (1..=MAX_ID).contains(&self.text.chars().count())
            && !self.text.chars().any(char::is_control);
        if sane {
            Ok(self.text.into())
        } else {
            Err(self.error("1 to 128 characters without control characters"))
        }
    }

    fn priority(self) -> Result<Priority, ApiError> {
        self.text
            .parse()
            .map_err(|_| self.error("high, medium or low (or 1, 2, 3)"))
    }

    fn duration(self) -> Result<Duration, ApiError> {
        let parsed = match self.text.parse() {
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => humantime::parse_duration(self.text).ok(),
        };
        let parsed = parsed.filter(|length| !length.is_zero());
        parsed.ok_or_else(|| {
            self.error("a duration such as 30s, 500ms or 4m, or whole seconds such as 30")
        })
    }

    fn error(&self, accepted: &str) -> ApiError {
        let place = match self.param {
            Some(key) => format!("pointsman.{key}"),
            None => format!("the header {}", self.place),
        };
        let shown: String = self.text.chars().take(60).collect();
        let param = self.param.map(|key| format!("pointsman.{key}"));
        ApiError::invalid(
            format!("{place} is {shown:?}; accepted: {accepted}"),
            param.as_deref(),
        )
    }
}
