//! Answers and lists of models, written as OpenAI writes them.

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde_json::{Map, Value, json};

use crate::chat::{ChatReply, Choice, Extra, Usage};

use super::answer::finish_name;
use super::message::MessageOut;
use super::outgoing::Style;

/// Writes a value of ours.
pub(super) fn to_vec(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write(value, &mut out);
    out
}

/// Appends a value of ours.
pub(super) fn write(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("a Vec takes every write and our keys are strings");
}

/// A whole answer as a body, with our own object beside it.
pub fn reply_json(reply: &ChatReply, pointsman: Option<&impl Serialize>) -> Vec<u8> {
    to_vec(&ReplyOut { reply, pointsman })
}

struct ReplyOut<'a, P> {
    reply: &'a ChatReply,
    pointsman: Option<&'a P>,
}

impl<P: Serialize> Serialize for ReplyOut<'_, P> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let reply = self.reply;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &reply.id)?;
        map.serialize_entry("object", "chat.completion")?;
        map.serialize_entry("created", &reply.created)?;
        map.serialize_entry("model", &reply.model)?;
        map.serialize_entry("choices", &ChoicesOut(&reply.choices))?;
        if let Some(usage) = &reply.usage {
            map.serialize_entry("usage", &UsageOut(usage))?;
        }
        for (key, value) in &reply.extra {
            map.serialize_entry(key, value)?;
        }
        if let Some(ours) = self.pointsman {
            map.serialize_entry("pointsman", ours)?;
        }
        map.end()
    }
}

struct ChoicesOut<'a>(&'a [Choice]);

impl Serialize for ChoicesOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for choice in self.0 {
            seq.serialize_element(&ChoiceOut(choice))?;
        }
        seq.end()
    }
}

struct ChoiceOut<'a>(&'a Choice);

impl Serialize for ChoiceOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let choice = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("index", &choice.index)?;
        let message = MessageOut {
            message: &choice.message,
            style: Style::default(),
        };
        map.serialize_entry("message", &message)?;
        for (key, value) in &choice.extra {
            map.serialize_entry(key, value)?;
        }
        map.serialize_entry("finish_reason", &choice.finish.as_ref().map(finish_name))?;
        map.end()
    }
}

pub(super) struct UsageOut<'a>(pub(super) &'a Usage);

impl Serialize for UsageOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const DETAILS: [&str; 2] = ["prompt_tokens_details", "completion_tokens_details"];
        let usage = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("prompt_tokens", &usage.prompt)?;
        map.serialize_entry("completion_tokens", &usage.completion)?;
        map.serialize_entry("total_tokens", &usage.total)?;
        let counts = [
            ("cached_tokens", usage.cached),
            ("reasoning_tokens", usage.reasoning),
        ];
        for (details, (key, count)) in DETAILS.into_iter().zip(counts) {
            match (usage.extra.get(details), count) {
                (None, None) => {}
                (Some(other), _) if !other.is_object() => map.serialize_entry(details, other)?,
                (rest, count) => map.serialize_entry(details, &with_count(rest, key, count))?,
            }
        }
        let others = |(key, _): &(&String, &Value)| !DETAILS.contains(&key.as_str());
        for (key, value) in usage.extra.iter().filter(others) {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// An object of counts: what the provider had in it, and ours.
fn with_count(rest: Option<&Value>, key: &str, count: Option<u64>) -> Extra {
    let mut fields = Map::new();
    if let Some(count) = count {
        fields.insert(key.into(), count.into());
    }
    if let Some(Value::Object(rest)) = rest {
        fields.extend(rest.clone());
    }
    fields
}

/// An entry of a list of models.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelEntry {
    /// The name that a request may give.
    pub id: String,
    /// Who offers it.
    pub owned_by: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Further fields.
    pub extra: Extra,
}

impl ModelEntry {
    fn to_value(&self) -> Value {
        let mut value = json!({
            "id": self.id,
            "object": "model",
            "created": self.created,
            "owned_by": self.owned_by,
        });
        if let Value::Object(fields) = &mut value {
            fields.extend(self.extra.clone());
        }
        value
    }
}

/// One model as a body (`GET /v1/models/{id}`).
pub fn model_json(model: &ModelEntry) -> Vec<u8> {
    to_vec(&model.to_value())
}

/// A list of models as a body (`GET /v1/models`).
pub fn models_json(models: &[ModelEntry]) -> Vec<u8> {
    let data: Vec<Value> = models.iter().map(ModelEntry::to_value).collect();
    to_vec(&json!({"object": "list", "data": data}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{FinishReason, Message, Role, ToolCall};

    #[test]
    fn a_whole_answer_is_written_as_openai_writes_it() {
        let mut message = Message::new(Role::Assistant, "Hi");
        message.tool_calls.push(ToolCall {
            id: "call_1".into(),
            kind: "function".into(),
            name: "look".into(),
            arguments: "{}".into(),
            ..ToolCall::default()
        });
        let reply = ChatReply {
            id: "c1".into(),
            created: 7,
            model: "m".into(),
            choices: vec![Choice {
                message,
                finish: Some(FinishReason::ToolCalls),
                ..Choice::default()
            }],
            usage: Some(Usage {
                prompt: 1,
                completion: 2,
                total: 3,
                cached: Some(1),
                ..Usage::default()
            }),
            ..ChatReply::default()
        };
        let body = reply_json(&reply, Some(&json!({"request_id": "r"})));
        let expected = concat!(
            r#"{"id":"c1","object":"chat.completion","created":7,"model":"m","choices":[{"index":0,"message":"#,
            r#"{"role":"assistant","content":"Hi","tool_calls":[{"id":"call_1","type":"function","function":"#,
            r#"{"name":"look","arguments":"{}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"#,
            r#""completion_tokens":2,"total_tokens":3,"prompt_tokens_details":{"cached_tokens":1}},"#,
            r#""pointsman":{"request_id":"r"}}"#
        );
        assert_eq!(String::from_utf8(body).expect("text"), expected);
    }

    #[test]
    fn models_are_a_list_of_objects() {
        let model = ModelEntry {
            id: "kimi-k3".into(),
            owned_by: "kimi".into(),
            ..ModelEntry::default()
        };
        let one = r#"{"id":"kimi-k3","object":"model","created":0,"owned_by":"kimi"}"#;
        assert_eq!(model_json(&model), one.as_bytes());
        let list = format!(r#"{{"object":"list","data":[{one}]}}"#);
        assert_eq!(models_json(&[model]), list.into_bytes());
    }
}
