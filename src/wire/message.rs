//! Messages and tool calls, which look the same in a question and in an answer.

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde_json::{Map, Value};

use crate::chat::{Content, Extra, Message, Role, ToolCall};

use super::error::WireError;
use super::fields::{Place, array, list, object, optional, string};
use super::outgoing::Style;

pub(super) fn role_of(name: String) -> Role {
    match name.as_str() {
        "system" => Role::System,
        "developer" => Role::Developer,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        _ => Role::Other(name),
    }
}

pub(super) fn role_name(role: &Role) -> &str {
    match role {
        Role::System => "system",
        Role::Developer => "developer",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
        Role::Other(name) => name,
    }
}

/// Reads one message; `role` is what an absent role means (a question's must be there).
pub(super) fn read_message(
    value: Value,
    at: &Place<'_>,
    role: Option<Role>,
) -> Result<Message, WireError> {
    let mut message = Message::default();
    let mut named = role;
    for (key, value) in object(value, at)? {
        let place = at.key(&key);
        match key.as_str() {
            "role" => named = optional(value, &place, string)?.map(role_of).or(named),
            "content" => message.content = optional(value, &place, content)?,
            "reasoning_content" => message.reasoning = optional(value, &place, string)?,
            "tool_calls" => {
                message.tool_calls = optional(value, &place, read_calls)?.unwrap_or_default();
            }
            "tool_call_id" => message.tool_call_id = optional(value, &place, string)?,
            "name" => message.name = optional(value, &place, string)?,
            _ => {
                message.extra.insert(key, value);
            }
        }
    }
    const ROLES: &str = "system, developer, user, assistant or tool";
    message.role = named.ok_or_else(|| at.key("role").missing(ROLES))?;
    Ok(message)
}

fn content(value: Value, at: &Place<'_>) -> Result<Content, WireError> {
    match value {
        Value::String(text) => Ok(Content::Text(text)),
        Value::Array(parts) => {
            if let Some(strange) = parts.iter().position(|part| !part.is_object()) {
                let at = at.index(strange);
                return Err(at.wrong(&parts[strange], "a content part (an object)"));
            }
            Ok(Content::Parts(parts))
        }
        other => Err(at.wrong(&other, "a string or an array of content parts")),
    }
}

fn read_calls(value: Value, at: &Place<'_>) -> Result<Vec<ToolCall>, WireError> {
    list(value, at, read_call)
}

fn read_call(value: Value, at: &Place<'_>) -> Result<ToolCall, WireError> {
    let mut call = ToolCall {
        kind: "function".into(),
        ..ToolCall::default()
    };
    for (key, value) in object(value, at)? {
        let place = at.key(&key);
        match key.as_str() {
            "id" => call.id = optional(value, &place, string)?.unwrap_or_default(),
            "type" => call.kind = optional(value, &place, string)?.unwrap_or(call.kind),
            "function" => {
                let function = read_function(value, &place, &mut call.extra)?;
                call.name = function.name.unwrap_or_default();
                call.arguments = function.arguments;
            }
            _ => {
                call.extra.insert(key, value);
            }
        }
    }
    Ok(call)
}

/// The object under `function` of a call, or of a bit of one.
#[derive(Debug, Default)]
pub(super) struct CalledFunction {
    pub(super) name: Option<String>,
    pub(super) arguments: String,
}

/// Reads `function`; what else stands in it goes under `function` of `extra`, to be put back by [`FunctionOut`].
pub(super) fn read_function(
    value: Value,
    at: &Place<'_>,
    extra: &mut Extra,
) -> Result<CalledFunction, WireError> {
    let mut function = CalledFunction::default();
    let mut rest = Map::new();
    for (key, value) in optional(value, at, object)?.unwrap_or_default() {
        let place = at.key(&key);
        match key.as_str() {
            "name" => function.name = optional(value, &place, string)?,
            "arguments" => function.arguments = arguments(value),
            _ => {
                rest.insert(key, value);
            }
        }
    }
    if !rest.is_empty() {
        extra.insert("function".into(), Value::Object(rest));
    }
    Ok(function)
}

/// A JSON text; some providers document an object instead, and some send one.
fn arguments(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// All extra fields but `function`, whose place is elsewhere.
pub(super) fn write_extra<M: SerializeMap>(map: &mut M, extra: &Extra) -> Result<(), M::Error> {
    let fields = extra.iter().filter(|(key, _)| key.as_str() != "function");
    fields
        .into_iter()
        .try_for_each(|(key, value)| map.serialize_entry(key, value))
}

/// A message, written as `style` has it.
pub(super) struct MessageOut<'a> {
    pub(super) message: &'a Message,
    pub(super) style: Style,
}

impl Serialize for MessageOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = self.message;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("role", self.role())?;
        if let Some(name) = &message.name {
            map.serialize_entry("name", name)?;
        }
        match &message.content {
            None => map.serialize_entry("content", &())?,
            Some(Content::Text(text)) => map.serialize_entry("content", text)?,
            Some(Content::Parts(parts)) if self.style.flat_text && is_text(parts) => {
                map.serialize_entry("content", &message.text())?;
            }
            Some(Content::Parts(parts)) => map.serialize_entry("content", parts)?,
        }
        if let Some(reasoning) = self.reasoning() {
            map.serialize_entry("reasoning_content", reasoning)?;
        }
        if !message.tool_calls.is_empty() {
            map.serialize_entry("tool_calls", &CallsOut(&message.tool_calls))?;
        }
        if let Some(id) = &message.tool_call_id {
            map.serialize_entry("tool_call_id", id)?;
        }
        for (key, value) in &message.extra {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl MessageOut<'_> {
    fn role(&self) -> &str {
        match &self.message.role {
            Role::Developer if self.style.developer_is_system => "system",
            role => role_name(role),
        }
    }

    fn reasoning(&self) -> Option<&str> {
        let fill = || self.style.reasoning_of_calls;
        let calls = !self.message.tool_calls.is_empty();
        self.message
            .reasoning
            .as_deref()
            .or_else(|| calls.then(fill).flatten())
    }
}

fn is_text(parts: &[Value]) -> bool {
    let text = |part: &Value| part.get("type").and_then(Value::as_str) == Some("text");
    parts.iter().all(text)
}

struct CallsOut<'a>(&'a [ToolCall]);

impl Serialize for CallsOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for call in self.0 {
            seq.serialize_element(&CallOut(call))?;
        }
        seq.end()
    }
}

struct CallOut<'a>(&'a ToolCall);

impl Serialize for CallOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let call = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &call.id)?;
        map.serialize_entry("type", &call.kind)?;
        // A kind that we don't know keeps its body in `extra`, and has no function unless it came with one.
        if call.kind == "function"
            || !call.name.is_empty()
            || !call.arguments.is_empty()
            || call.extra.contains_key("function")
        {
            let function = FunctionOut {
                name: Some(&call.name),
                arguments: &call.arguments,
                extra: &call.extra,
            };
            map.serialize_entry("function", &function)?;
        }
        write_extra(&mut map, &call.extra)?;
        map.end()
    }
}

/// The object under `function` of a call, or of a bit of one.
pub(super) struct FunctionOut<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) arguments: &'a str,
    pub(super) extra: &'a Extra,
}

impl Serialize for FunctionOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(name) = self.name {
            map.serialize_entry("name", name)?;
        }
        map.serialize_entry("arguments", self.arguments)?;
        if let Some(Value::Object(rest)) = self.extra.get("function") {
            for (key, value) in rest {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

/// Reads a question's messages.
pub(super) fn read_messages(value: Value, at: &Place<'_>) -> Result<Vec<Message>, WireError> {
    const ACCEPTED: &str = "an array of at least one message";
    if value.as_array().is_none_or(Vec::is_empty) {
        return Err(at.wrong(&value, ACCEPTED));
    }
    let messages = array(value, at)?.into_iter().enumerate();
    messages
        .map(|(i, value)| {
            let at = at.index(i);
            let message = read_message(value, &at, None)?;
            complete(&message, &at).map(|()| message)
        })
        .collect()
}

/// Everybody but the model has to say something.
fn complete(message: &Message, at: &Place<'_>) -> Result<(), WireError> {
    let silent = message.content.is_none();
    match message.role {
        Role::System | Role::Developer | Role::User | Role::Tool if silent => {
            Err(at.key("content").missing("a string or an array"))
        }
        Role::Tool if message.tool_call_id.is_none() => Err(at
            .key("tool_call_id")
            .missing("the id of the call that it answers")),
        _ => Ok(()),
    }
}
