//! What is wrong with a client's body, and error bodies in both directions.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value};

/// What is wrong with a client's body. Its text is for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The body holds bytes that are no text.
    #[error("the body is not UTF-8: byte {at} is invalid")]
    NotUtf8 {
        /// Offset of the first such byte.
        at: usize,
    },
    /// The body nests deeper than allowed.
    #[error("the body nests deeper than {max} levels, at byte {at}")]
    TooDeep {
        /// What is allowed.
        max: usize,
        /// Offset of the bracket that goes too deep.
        at: usize,
    },
    /// The body is no JSON, or something follows it.
    #[error("the body is not valid JSON: {0}")]
    Syntax(String),
    /// The body is JSON, but no object.
    #[error("the body must be a JSON object, but is {found}")]
    NotAnObject {
        /// What it is.
        found: String,
    },
    /// A field that must be there isn't.
    #[error("`{param}` is missing: expected {accepted}")]
    Missing {
        /// The field, as in `messages[2].content`.
        param: String,
        /// What belongs there.
        accepted: &'static str,
    },
    /// A field holds something else than it may.
    #[error("`{param}` is {found}: expected {accepted}")]
    Wrong {
        /// The field, as in `messages[2].content`.
        param: String,
        /// What was found.
        found: String,
        /// What belongs there.
        accepted: &'static str,
    },
}

impl WireError {
    /// The field at fault, as in `messages[2].content`; `None` where it is the body as a whole.
    pub fn param(&self) -> Option<&str> {
        match self {
            WireError::Missing { param, .. } | WireError::Wrong { param, .. } => Some(param),
            WireError::NotUtf8 { .. }
            | WireError::TooDeep { .. }
            | WireError::Syntax(_)
            | WireError::NotAnObject { .. } => None,
        }
    }
}

/// The object under `error`, in both directions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorBody {
    /// In words.
    pub message: String,
    /// `type`: who is at fault, or which family of errors it is.
    pub kind: Option<String>,
    /// Which error it is; providers send words or digits.
    pub code: Option<String>,
    /// The field at fault.
    pub param: Option<String>,
}

impl Serialize for ErrorBody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("message", &self.message)?;
        map.serialize_entry("type", &self.kind)?;
        map.serialize_entry("param", &self.param)?;
        map.serialize_entry("code", &self.code)?;
        map.end()
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: &'a ErrorBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    pointsman: Option<&'a Value>,
}

/// An error as a body, with our own object beside it.
pub fn error_json(error: &ErrorBody, pointsman: Option<&Value>) -> Vec<u8> {
    super::encode::to_vec(&Envelope { error, pointsman })
}

/// Finds the error in a provider's body, in the shapes that are about: `{"error": {...}}`, `{"error": "..."}`, a list
/// of one such, and bare `{"message": ...}` or `{"detail": ...}`. `None` where there is none, or no JSON.
pub fn parse_error(body: &[u8]) -> Option<ErrorBody> {
    match serde_json::from_slice(body).ok()? {
        Value::Object(fields) => error_of(&fields),
        Value::Array(list) => list.first()?.as_object().and_then(error_of),
        _ => None,
    }
}

/// The error in a provider's object. `error: null` and the like are none.
pub(super) fn error_of(fields: &Map<String, Value>) -> Option<ErrorBody> {
    match fields.get("error") {
        Some(Value::Object(error)) => Some(flat(error)),
        Some(Value::String(message)) if !message.is_empty() => Some(ErrorBody {
            message: message.clone(),
            ..flat(fields)
        }),
        _ if fields.contains_key("choices") => None,
        _ => Some(flat(fields)).filter(|error| !error.message.is_empty()),
    }
}

fn flat(fields: &Map<String, Value>) -> ErrorBody {
    let message = text(fields, "message")
        .or_else(|| text(fields, "msg"))
        .or_else(|| text(fields, "detail"));
    ErrorBody {
        message: message.unwrap_or_default(),
        kind: text(fields, "type"),
        code: text(fields, "code"),
        param: text(fields, "param"),
    }
}

/// A word; numbers are written out, since `code` is either.
fn text(fields: &Map<String, Value>, key: &str) -> Option<String> {
    match fields.get(key)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Array(_) | Value::Object(_) => Some(fields[key].to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(body: &Value) -> Option<ErrorBody> {
        parse_error(body.to_string().as_bytes())
    }

    #[test]
    fn an_error_body_has_all_four_fields_and_ours_beside_it() {
        let error = ErrorBody {
            message: "no".into(),
            kind: Some("caller_error".into()),
            ..ErrorBody::default()
        };
        let body = error_json(&error, Some(&json!({"request_id": "r1"})));
        assert_eq!(
            String::from_utf8(body).expect("text"),
            r#"{"error":{"message":"no","type":"caller_error","param":null,"code":null},"pointsman":{"request_id":"r1"}}"#
        );
    }

    #[test]
    fn every_shape_of_error_that_providers_send_is_understood() {
        let kimi = parsed(&json!({"error": {"message": "m", "type": "t"}})).expect("an error");
        assert_eq!(
            (kimi.message.as_str(), kimi.kind.as_deref()),
            ("m", Some("t"))
        );
        let number = parsed(&json!({"error": {"code": 1305, "message": "busy"}}));
        assert_eq!(number.expect("an error").code.as_deref(), Some("1305"));
        assert_eq!(
            parsed(&json!({"error": "plain"})).expect("one").message,
            "plain"
        );
        assert_eq!(parsed(&json!({"detail": "d"})).expect("one").message, "d");
        let list = parsed(&json!([{"error": {"message": "first"}}]));
        assert_eq!(list.expect("one").message, "first");
    }

    #[test]
    fn an_answer_and_a_page_are_no_errors() {
        assert_eq!(parsed(&json!({"choices": [], "error": null})), None);
        assert_eq!(parse_error(b"<html>504</html>"), None);
    }
}
