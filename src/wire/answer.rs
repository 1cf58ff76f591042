//! A provider's whole answer, read.

use serde_json::{Map, Value};

use crate::chat::{ChatReply, Choice, Extra, FinishReason, Role, Usage};

use super::error::{ErrorBody, WireError, error_of};
use super::fields::{Place, array, object};
use super::message::read_message;

/// What a provider sent instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// An error, said in the form of an answer (status 200, or in the middle of a stream).
    #[error("the provider answers with an error: {}", .0.message)]
    Refused(ErrorBody),
    /// JSON that breaks off.
    #[error("the answer breaks off")]
    Truncated,
    /// No JSON, or JSON that is no answer.
    #[error("the answer is not of the OpenAI wire: {0}")]
    Malformed(String),
}

impl From<serde_json::Error> for AnswerError {
    fn from(error: serde_json::Error) -> Self {
        if error.is_eof() {
            AnswerError::Truncated
        } else {
            AnswerError::Malformed(error.to_string())
        }
    }
}

impl From<WireError> for AnswerError {
    fn from(error: WireError) -> Self {
        AnswerError::Malformed(error.to_string())
    }
}

/// Reads a whole answer.
///
/// # Errors
/// [`AnswerError::Refused`] for an error body, whatever its status was; else what is wrong with it.
pub fn parse_reply(body: &[u8]) -> Result<ChatReply, AnswerError> {
    let fields = answer_fields(serde_json::from_slice(body)?)?;
    let mut reply = ChatReply::default();
    let mut choices = None;
    for (key, value) in fields {
        match key.as_str() {
            "id" => reply.id = text(value),
            "object" => {}
            "created" => reply.created = value.as_u64().unwrap_or_default(),
            "model" => reply.model = text(value),
            "choices" => choices = Some(value),
            "usage" => reply.usage = read_usage(value),
            _ => {
                reply.extra.insert(key, value);
            }
        }
    }
    let at = Place::Root.key("choices");
    let choices = choices.ok_or_else(|| at.missing("an array of answers"))?;
    let choices = array(choices, &at)?;
    reply.choices.reserve_exact(choices.len());
    for (i, value) in choices.into_iter().enumerate() {
        let choice = read_choice(value, &at.index(i), i, &mut reply.usage)?;
        reply.choices.push(choice);
    }
    if reply.choices.is_empty() {
        return Err(AnswerError::Malformed("`choices` is empty".into()));
    }
    Ok(reply)
}

/// The fields of an answer or a chunk that is no error.
pub(super) fn answer_fields(root: Value) -> Result<Map<String, Value>, AnswerError> {
    let fields = object(root, &Place::Root)
        .map_err(|_| AnswerError::Malformed("it is not a JSON object".into()))?;
    match error_of(&fields) {
        Some(error) => Err(AnswerError::Refused(error)),
        None => Ok(fields),
    }
}

fn read_choice(
    value: Value,
    at: &Place<'_>,
    position: usize,
    usage: &mut Option<Usage>,
) -> Result<Choice, WireError> {
    let mut choice = Choice {
        index: u32::try_from(position).unwrap_or(u32::MAX),
        ..Choice::default()
    };
    choice.message.role = Role::Assistant;
    for (key, value) in object(value, at)? {
        let place = at.key(&key);
        match key.as_str() {
            "index" => choice.index = small(&value).unwrap_or(choice.index),
            "message" => {
                choice.message = read_message(value, &place, Some(Role::Assistant))?;
                adopt_reasoning(&mut choice.message.reasoning, &mut choice.message.extra);
            }
            "finish_reason" => choice.finish = value.as_str().map(finish_of),
            "usage" => *usage = usage.take().or_else(|| read_usage(value)),
            _ => {
                choice.extra.insert(key, value);
            }
        }
    }
    Ok(choice)
}

/// Some servers say `reasoning` instead of `reasoning_content`.
pub(super) fn adopt_reasoning(reasoning: &mut Option<String>, extra: &mut Extra) {
    if reasoning.is_none() && extra.get("reasoning").is_some_and(Value::is_string) {
        *reasoning = extra.shift_remove("reasoning").map(text);
    }
}

pub(super) fn finish_of(word: &str) -> FinishReason {
    match word {
        "stop" => FinishReason::Stop,
        "length" => FinishReason::Length,
        "tool_calls" => FinishReason::ToolCalls,
        "content_filter" => FinishReason::ContentFilter,
        _ => FinishReason::Other(word.into()),
    }
}

pub(super) fn finish_name(reason: &FinishReason) -> &str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::ContentFilter => "content_filter",
        FinishReason::Other(word) => word,
    }
}

/// Reads `usage`; `None` for anything but an object.
pub(super) fn read_usage(value: Value) -> Option<Usage> {
    let Value::Object(mut extra) = value else {
        return None;
    };
    let cached = take_detail(&mut extra, "prompt_tokens_details", "cached_tokens");
    let reasoning = take_detail(&mut extra, "completion_tokens_details", "reasoning_tokens");
    let mut count = |key| extra.shift_remove(key)?.as_u64();
    let prompt = count("prompt_tokens").unwrap_or_default();
    let completion = count("completion_tokens").unwrap_or_default();
    let total = count("total_tokens").unwrap_or(prompt.saturating_add(completion));
    Some(Usage {
        prompt,
        completion,
        total,
        // Kimi says it here too; the field itself passes through.
        cached: cached.or_else(|| extra.get("cached_tokens")?.as_u64()),
        reasoning,
        extra,
    })
}

/// Takes one count out of an object of counts; what else is in there stays. `null` for the object says nothing.
fn take_detail(extra: &mut Extra, details: &str, key: &str) -> Option<u64> {
    if extra.get(details).is_some_and(Value::is_null) {
        extra.shift_remove(details);
    }
    let fields = extra.get_mut(details)?.as_object_mut()?;
    let count = fields.shift_remove(key).and_then(|value| value.as_u64());
    if fields.is_empty() {
        extra.shift_remove(details);
    }
    count
}

pub(super) fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        _ => String::new(),
    }
}

pub(super) fn small(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::reply_json;

    const KIMI: &[u8] = include_bytes!("../../tests/fixtures/wire/kimi.json");
    const GLM: &[u8] = include_bytes!("../../tests/fixtures/wire/glm.json");

    #[test]
    fn the_answers_of_both_providers_are_read_whole() {
        let kimi = parse_reply(KIMI).expect("an answer");
        assert_eq!(kimi.text(), "Points are set.");
        assert_eq!(kimi.choices[0].finish, Some(FinishReason::Stop));
        let usage = kimi.usage.expect("usage");
        assert_eq!((usage.prompt, usage.completion, usage.total), (61, 40, 101));
        assert_eq!((usage.cached, usage.reasoning), (Some(32), Some(33)));
        let glm = parse_reply(GLM).expect("an answer");
        let reasoning = glm.choices[0].message.reasoning.as_deref();
        assert_eq!(reasoning, Some("They want a short word."));
        assert_eq!(glm.extra["request_id"], "20270101000000aa");
    }

    #[test]
    fn an_answer_survives_being_read_and_written() {
        for body in [KIMI, GLM] {
            let once = parse_reply(body).expect("an answer");
            let again = parse_reply(&reply_json(&once, None::<&Value>)).expect("an answer");
            assert_eq!(once, again);
        }
    }

    #[test]
    fn details_of_the_usage_that_are_no_object_stay_what_they_are() {
        let check = |details: &str, expected: Value| {
            let body = format!(
                r#"{{"choices":[{{}}],"usage":{{"cached_tokens":3,"prompt_tokens_details":{details}}}}}"#
            );
            let reply = parse_reply(body.as_bytes()).expect("an answer");
            let written = reply_json(&reply, None::<&Value>);
            let written: Value = serde_json::from_slice(&written).expect("JSON");
            assert_eq!(written["usage"]["prompt_tokens_details"], expected);
        };
        check("\"none\"", "none".into());
        check("null", serde_json::json!({"cached_tokens": 3}));
        check("{\"x\":1}", serde_json::json!({"cached_tokens": 3, "x": 1}));
    }

    #[test]
    fn an_error_with_status_200_is_an_error() {
        let body = br#"{"error":{"code":"1305","message":"busy"}}"#;
        let AnswerError::Refused(error) = parse_reply(body).expect_err("an error") else {
            panic!("not taken for a refusal");
        };
        assert_eq!(error.code.as_deref(), Some("1305"));
    }

    #[test]
    fn what_breaks_off_is_told_from_what_is_garbage() {
        let cut = &KIMI[..KIMI.len() / 2];
        assert_eq!(parse_reply(cut), Err(AnswerError::Truncated));
        let garbage: [&[u8]; 4] = [b"<html>", b"[]", b"{\"choices\":[]}", b"{\"ok\":true}"];
        for body in garbage {
            let error = parse_reply(body).expect_err("no answer");
            assert!(matches!(error, AnswerError::Malformed(_)), "{error:?}");
        }
    }
}
