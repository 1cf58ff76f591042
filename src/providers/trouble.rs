//! From what went wrong to a [`ProviderError`]: what the client may read, what the log says, and how long to wait.
//!
//! A provider's own words reach the client, without our key should they repeat it, and cut to a sane length.

use std::time::{Duration, SystemTime};

use crate::cancel::CancelReason;
use crate::config;
use crate::wire::{AnswerError, ErrorBody, parse_error, sse::SseError};

use super::dialect::Dialect;
use super::transport::TransportError;
use super::{ErrorClass, ProviderError};

/// Characters of a provider's words that are passed on.
const MAX_WORDS: usize = 2_000;
/// Characters of a body that is no error of the wire that the log may show.
const MAX_SHOWN: usize = 200;

/// What a status says where the body says nothing.
pub(super) fn class_of_status(status: u16) -> ErrorClass {
    match status {
        401 => ErrorClass::Auth,
        402 => ErrorClass::Quota,
        403 => ErrorClass::Forbidden,
        404 => ErrorClass::ModelNotFound,
        429 => ErrorClass::RateLimited,
        503 | 529 => ErrorClass::Overloaded,
        // Redirects are not followed: a provider has one address.
        300..=399 => ErrorClass::Malformed,
        // It gave up waiting for our request, which says nothing about the request.
        408 => ErrorClass::ServerError,
        400..=499 => ErrorClass::InvalidRequest,
        _ => ErrorClass::ServerError,
    }
}

/// An answer with a status that is none of success, with the headers that matter.
#[derive(Debug, Default)]
pub(super) struct Refusal<'a> {
    pub(super) status: u16,
    pub(super) body: &'a [u8],
    pub(super) retry_after_ms: Option<&'a str>,
    pub(super) retry_after: Option<&'a str>,
    /// The provider's own id of the request, for its support.
    pub(super) request_id: Option<&'a str>,
}

/// Who failed, for whom the error is to be told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trouble<'a> {
    pub(super) provider: &'a config::Provider,
    pub(super) dialect: &'a dyn Dialect,
    /// What the wall's clock says.
    pub(super) now: SystemTime,
}

impl Trouble<'_> {
    /// The error of a refused call.
    pub(super) fn refusal(&self, refusal: &Refusal<'_>) -> ProviderError {
        let status = refusal.status;
        let mut error = match parse_error(refusal.body) {
            Some(body) => self.error_body(status, body),
            None => self.page(status, refusal.body),
        };
        error.status = Some(status);
        let by_header = wait_of_headers(refusal, self.now);
        error.retry_after = by_header.or(error.retry_after);
        if let Some(id) = refusal.request_id {
            let detail = error.detail.get_or_insert_default();
            *detail = self.clean(&format!("{detail} (request id {id})"), MAX_WORDS);
        }
        error
    }

    /// The error that an error body tells of.
    fn error_body(&self, status: u16, body: ErrorBody) -> ProviderError {
        let class = self.dialect.classify(status, &body);
        let name = &self.provider.name;
        let message = match body.message.as_str() {
            "" => format!("{name} refused the call with status {status}"),
            words => self.clean(words, MAX_WORDS),
        };
        let kind = body.kind.as_deref().unwrap_or("none");
        let code = body.code.as_deref().unwrap_or("none");
        ProviderError {
            detail: Some(self.clean(
                &format!("{name}: status {status}, type {kind}, code {code}"),
                MAX_WORDS,
            )),
            code: body
                .code
                .as_deref()
                .or(body.kind.as_deref())
                .map(|code| self.clean(code, MAX_SHOWN)),
            param: body.param.map(|param| self.clean(&param, MAX_SHOWN)),
            retry_after: self.dialect.wait_in_words(class, &body.message, self.now),
            ..ProviderError::new(class, message)
        }
    }

    /// The error of a body that is none of the wire's: a gateway's page, or nothing.
    fn page(&self, status: u16, body: &[u8]) -> ProviderError {
        let name = &self.provider.name;
        let mut message =
            format!("{name} answered with status {status} and no error of the OpenAI wire");
        let mut class = class_of_status(status);
        if status == 404 {
            // Whoever speaks the wire says in its words that there is no such model: here the path is wrong.
            class = ErrorClass::Malformed;
            message += &format!("; does providers.{name}.base_url lead to its API?");
        }
        if (300..400).contains(&status) {
            message = format!(
                "{name} answered with a redirect (status {status}), and those are not followed; \
                 providers.{name}.base_url is to be the address that it leads to"
            );
        }
        let shown = self.clean(&String::from_utf8_lossy(body), MAX_SHOWN);
        ProviderError {
            detail: Some(format!("{name}: status {status}, body {shown:?}")),
            ..ProviderError::new(class, message)
        }
    }

    /// The error of an answer that is none.
    pub(super) fn answer(&self, error: AnswerError) -> ProviderError {
        match error {
            AnswerError::Refused(body) => ProviderError {
                status: Some(200),
                ..self.error_body(200, body)
            },
            AnswerError::Truncated => self.incomplete(),
            AnswerError::Malformed(what) => self.malformed(&what),
        }
    }

    /// The error of an event stream that can't be read.
    pub(super) fn events(&self, error: SseError) -> ProviderError {
        match error {
            SseError::Io(error) => self.transport(error.into()),
            SseError::TooLong { .. } | SseError::NotUtf8 => self.malformed(&error.to_string()),
        }
    }

    /// The error of a call that the transport ended.
    pub(super) fn transport(&self, error: TransportError) -> ProviderError {
        let name = &self.provider.name;
        let of = |class, message: String, detail: Option<String>| ProviderError {
            detail: detail.map(|detail| self.clean(&format!("{name}: {detail}"), MAX_WORDS)),
            ..ProviderError::new(class, message)
        };
        match error {
            TransportError::Connect {
                detail,
                timed_out: true,
            } => {
                let message = format!("{name} can't be reached: connecting timed out");
                of(ErrorClass::ConnectTimeout, message, Some(detail))
            }
            TransportError::Connect { detail, .. } => {
                let message = format!("{name} can't be reached");
                of(ErrorClass::Connect, message, Some(detail))
            }
            TransportError::Tls { fault, detail } => {
                let why = fault.words(name);
                let message = format!("{name} can't be reached: {why}");
                of(
                    ErrorClass::Connect,
                    message,
                    Some(format!("{why} ({detail})")),
                )
            }
            TransportError::FirstByteTimeout => {
                let message = format!("{name} sent nothing within the first-byte timeout");
                of(ErrorClass::FirstByteTimeout, message, None)
            }
            TransportError::IdleTimeout => self.idle(),
            TransportError::Deadline => ProviderError::cancelled(CancelReason::Deadline),
            TransportError::Cancelled(reason) => ProviderError::cancelled(reason),
            TransportError::Closed {
                detail,
                before_answer: true,
                ..
            } => {
                let message = format!("{name} closed the connection without an answer");
                of(ErrorClass::Incomplete, message, Some(detail))
            }
            TransportError::Closed { detail, .. } => ProviderError {
                detail: Some(self.clean(&format!("{name}: {detail}"), MAX_WORDS)),
                ..self.incomplete()
            },
            TransportError::Malformed(what) => self.malformed(&what),
        }
    }

    /// The error of an answer that fell silent.
    pub(super) fn idle(&self) -> ProviderError {
        let name = &self.provider.name;
        let message = format!("{name} fell silent in the middle of its answer");
        ProviderError::new(ErrorClass::IdleTimeout, message)
    }

    /// The error of an answer without its proper end.
    pub(super) fn incomplete(&self) -> ProviderError {
        let name = &self.provider.name;
        let message = format!("{name} broke its answer off before the end");
        ProviderError::new(ErrorClass::Incomplete, message)
    }

    /// The error of an answer that is not of the wire.
    pub(super) fn malformed(&self, what: &str) -> ProviderError {
        let name = &self.provider.name;
        let message = format!("{name} sent an answer that is not of the OpenAI wire");
        ProviderError {
            detail: Some(self.clean(&format!("{name}: {what}"), MAX_WORDS)),
            ..ProviderError::new(ErrorClass::Malformed, message)
        }
    }

    /// Without our key, and at most `max` characters.
    fn clean(&self, words: &str, max: usize) -> String {
        let key = self.provider.api_key.as_deref().map(str::trim);
        let words = match key.filter(|key| !key.is_empty()) {
            Some(key) => words.replace(key, "[key]"),
            None => words.into(),
        };
        match words.char_indices().nth(max) {
            Some((end, _)) => format!("{}...", &words[..end]),
            None => words,
        }
    }
}

/// `retry-after-ms` in milliseconds, else `retry-after` in seconds or as a date.
fn wait_of_headers(refusal: &Refusal<'_>, now: SystemTime) -> Option<Duration> {
    let seconds = |text: &str, unit: f64| {
        let figure: f64 = text.trim().parse().ok()?;
        Duration::try_from_secs_f64(figure * unit).ok()
    };
    let date = |text: &str| {
        let date = httpdate::parse_http_date(text.trim()).ok()?;
        Some(date.duration_since(now).unwrap_or_default())
    };
    let by_ms = refusal.retry_after_ms.and_then(|text| seconds(text, 1e-3));
    let wait = refusal.retry_after;
    by_ms.or_else(|| wait.and_then(|text| seconds(text, 1.0).or_else(|| date(text))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProviderKind;
    use crate::providers::kimi::Kimi;
    use crate::providers::testing::provider;

    fn told(refusal: &Refusal<'_>) -> ProviderError {
        let mut kimi = provider("kimi", ProviderKind::Kimi);
        kimi.api_key = Some("sk-secret".into());
        let now = httpdate::parse_http_date("Fri, 01 Jan 2027 00:00:00 GMT").expect("a date");
        let trouble = Trouble {
            provider: &kimi,
            dialect: &Kimi,
            now,
        };
        trouble.refusal(refusal)
    }

    #[test]
    fn our_key_is_in_no_error() {
        let body = br#"{"error":{"message":"bad key sk-secret","type":"incorrect_api_key_error","code":"sk-secret?"}}"#;
        let error = told(&Refusal {
            status: 401,
            body,
            request_id: Some("for sk-secret"),
            ..Refusal::default()
        });
        assert_eq!(
            (error.class, error.message.as_str()),
            (ErrorClass::Auth, "bad key [key]")
        );
        assert!(!format!("{error:?}").contains("secret"));
        let page = told(&Refusal {
            status: 502,
            body: b"<html>sk-secret</html>",
            ..Refusal::default()
        });
        assert!(!format!("{page:?}").contains("secret"));
    }

    #[test]
    fn a_page_is_an_error_of_its_status() {
        let error = told(&Refusal {
            status: 504,
            body: b"<html><h1>504 Gateway Time-out</h1></html>",
            ..Refusal::default()
        });
        assert_eq!(
            (error.class, error.status),
            (ErrorClass::ServerError, Some(504))
        );
        assert!(error.detail.expect("detail").contains("Gateway Time-out"));
        let error = told(&Refusal {
            status: 404,
            body: b"404 page not found",
            ..Refusal::default()
        });
        assert_eq!(error.class, ErrorClass::Malformed);
        assert!(error.message.contains("base_url"), "{}", error.message);
    }

    #[test]
    fn the_wait_is_read_from_headers_first_and_then_from_words() {
        let body = br#"{"error":{"message":"max RPM: 3, please try again after 4 seconds","type":"rate_limit_reached_error"}}"#;
        let wait = |ms: Option<&str>, after: Option<&str>| {
            let refusal = Refusal {
                status: 429,
                body,
                retry_after_ms: ms,
                retry_after: after,
                request_id: None,
            };
            told(&refusal).retry_after
        };
        assert_eq!(wait(None, None), Some(Duration::from_secs(4)));
        assert_eq!(wait(None, Some("7")), Some(Duration::from_secs(7)));
        assert_eq!(
            wait(Some("1500"), Some("7")),
            Some(Duration::from_millis(1500))
        );
        let date = "Fri, 01 Jan 2027 00:00:09 GMT";
        assert_eq!(wait(None, Some(date)), Some(Duration::from_secs(9)));
        let past = "Thu, 31 Dec 2026 00:00:00 GMT";
        assert_eq!(wait(None, Some(past)), Some(Duration::ZERO));
        for nonsense in ["-1", "soon", "NaN", "1e300"] {
            assert_eq!(
                wait(None, Some(nonsense)),
                Some(Duration::from_secs(4)),
                "{nonsense}"
            );
        }
    }

    #[test]
    fn endless_words_are_cut() {
        let body = format!("{{\"error\":{{\"message\":\"{}\"}}}}", "é".repeat(10_000));
        let error = told(&Refusal {
            status: 400,
            body: body.as_bytes(),
            ..Refusal::default()
        });
        assert_eq!(error.message.chars().count(), MAX_WORDS + 3);
    }
}
