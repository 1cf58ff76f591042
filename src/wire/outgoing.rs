//! A request on its way to a provider.
//!
//! The small top-level fields are a map, for a dialect to rename, drop and add to. The large parts, messages and tools,
//! are borrowed and written from where they lie, in one of a few styles; a prompt of a megabyte is copied once, into the body.

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde_json::{Map, Value, json};

use crate::chat::{ChatRequest, Extra, Message, ResponseFormat, Tool, ToolChoice};

use super::encode;
use super::message::MessageOut;

/// How messages and tools are written. The default is OpenAI's own way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// `system` for `developer`.
    pub developer_is_system: bool,
    /// A message of text parts alone as one string.
    pub flat_text: bool,
    /// A description and a schema for each function, empty ones where the client gave none.
    pub whole_functions: bool,
    /// What to write as reasoning of a message with tool calls that has none.
    pub reasoning_of_calls: Option<&'static str>,
}

/// A request, ready to be altered and written.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// All fields but `messages` and `tools`, by their OpenAI names.
    pub fields: Map<String, Value>,
    /// The conversation.
    pub messages: &'a [Message],
    /// What the model may call.
    pub tools: &'a [Tool],
    /// Tools of the provider's own, as it wants them.
    pub more_tools: Vec<Value>,
    /// How it is written.
    pub style: Style,
}

impl<'a> Outgoing<'a> {
    /// What `request` says, in OpenAI's words. `web_search` has none: that is for the dialects.
    pub fn new(request: &'a ChatRequest) -> Self {
        Outgoing {
            fields: top_level(request),
            messages: &request.messages,
            tools: &request.tools,
            more_tools: Vec::new(),
            style: Style::default(),
        }
    }

    /// The body; the turns of `more` follow those of the conversation.
    pub fn to_bytes(&self, more: &[Message]) -> Vec<u8> {
        encode::to_vec(&BodyOut {
            outgoing: self,
            more,
        })
    }

    /// Asks for the usage at the end of the stream, beside the stream options that are there.
    pub fn ask_for_usage(&mut self) {
        ask_for_usage(&mut self.fields);
    }
}

fn top_level(request: &ChatRequest) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            fields.insert(key.into(), value);
        }
    };
    set("model", Some(request.model.as_str().into()));
    set("stream", request.stream.then_some(true.into()));
    let max = request.max_output_tokens.map(Value::from);
    set("max_completion_tokens", max);
    set(
        "response_format",
        request.response_format.as_ref().map(format_value),
    );
    set(
        "tool_choice",
        request.tool_choice.as_ref().map(choice_value),
    );
    set("thinking", thinking_value(request));
    set(
        "reasoning_effort",
        request.reasoning_effort.clone().map(Value::from),
    );
    set("user", request.user.clone().map(Value::from));
    fields.extend(request.extra.clone());
    if request.stream && request.include_usage {
        ask_for_usage(&mut fields);
    }
    fields
}

fn ask_for_usage(fields: &mut Map<String, Value>) {
    let options = fields
        .entry("stream_options")
        .or_insert_with(|| Value::Object(Extra::new()));
    if let Value::Object(options) = options {
        options.insert("include_usage".into(), true.into());
    }
}

fn format_value(format: &ResponseFormat) -> Value {
    match format {
        ResponseFormat::Text => json!({"type": "text"}),
        ResponseFormat::JsonObject => json!({"type": "json_object"}),
        ResponseFormat::JsonSchema(schema) => {
            json!({"type": "json_schema", "json_schema": schema})
        }
        ResponseFormat::Other(value) => value.clone(),
    }
}

fn choice_value(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => "auto".into(),
        ToolChoice::None => "none".into(),
        ToolChoice::Required => "required".into(),
        ToolChoice::Function(name) => json!({"type": "function", "function": {"name": name}}),
        ToolChoice::Other(value) => value.clone(),
    }
}

fn thinking_value(request: &ChatRequest) -> Option<Value> {
    let mut fields = Extra::new();
    if let Some(wanted) = request.thinking {
        let word = if wanted { "enabled" } else { "disabled" };
        fields.insert("type".into(), word.into());
    }
    fields.extend(request.thinking_options.clone());
    (!fields.is_empty()).then_some(Value::Object(fields))
}

struct BodyOut<'a> {
    outgoing: &'a Outgoing<'a>,
    more: &'a [Message],
}

impl Serialize for BodyOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let outgoing = self.outgoing;
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in &outgoing.fields {
            map.serialize_entry(key, value)?;
        }
        map.serialize_entry("messages", &MessagesOut(self))?;
        if !outgoing.tools.is_empty() || !outgoing.more_tools.is_empty() {
            map.serialize_entry("tools", &ToolsOut(outgoing))?;
        }
        map.end()
    }
}

struct MessagesOut<'a>(&'a BodyOut<'a>);

impl Serialize for MessagesOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let BodyOut { outgoing, more } = *self.0;
        let style = outgoing.style;
        let length = outgoing.messages.len() + more.len();
        let mut seq = serializer.serialize_seq(Some(length))?;
        for message in outgoing.messages.iter().chain(more) {
            seq.serialize_element(&MessageOut { message, style })?;
        }
        seq.end()
    }
}

struct ToolsOut<'a>(&'a Outgoing<'a>);

impl Serialize for ToolsOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let whole = self.0.style.whole_functions;
        let mut seq = serializer.serialize_seq(None)?;
        for tool in self.0.tools {
            seq.serialize_element(&ToolOut { tool, whole })?;
        }
        for tool in &self.0.more_tools {
            seq.serialize_element(tool)?;
        }
        seq.end()
    }
}

struct ToolOut<'a> {
    tool: &'a Tool,
    whole: bool,
}

impl Serialize for ToolOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Tool::Other(value) = self.tool {
            return value.serialize(serializer);
        }
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("type", "function")?;
        map.serialize_entry("function", &DeclaredOut(self))?;
        map.end()
    }
}

/// The object under `function` of a tool.
struct DeclaredOut<'a>(&'a ToolOut<'a>);

impl Serialize for DeclaredOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Tool::Function {
            name,
            description,
            parameters,
            extra,
        } = self.0.tool
        {
            map.serialize_entry("name", name)?;
            if description.is_some() || self.0.whole {
                map.serialize_entry("description", description.as_deref().unwrap_or_default())?;
            }
            match parameters {
                Some(schema) => map.serialize_entry("parameters", schema)?,
                None if self.0.whole => {
                    let nothing = json!({"type": "object", "properties": {}});
                    map.serialize_entry("parameters", &nothing)?;
                }
                None => {}
            }
            for (key, value) in extra {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::parse_request;

    fn round_trip(body: &Value) -> Value {
        let parsed = parse_request(body.to_string().as_bytes(), 64).expect("a request");
        let bytes = Outgoing::new(&parsed.chat).to_bytes(&[]);
        serde_json::from_slice(&bytes).expect("JSON")
    }

    #[test]
    fn all_that_a_client_says_reaches_the_provider_and_our_own_object_does_not() {
        let mut body = json!({
            "model": "m",
            "stream": true,
            "max_completion_tokens": 9,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
            "tool_choice": {"type": "function", "function": {"name": "look"}},
            "thinking": {"type": "enabled", "keep": "all"},
            "reasoning_effort": "high",
            "user": "u",
            "temperature": 0.5,
            "stream_options": {"include_usage": true, "include_obfuscation": false},
            "prediction": {"type": "content"},
            "messages": [
                {"role": "developer", "content": "rules"},
                {"role": "user", "name": "ann", "content": [{"type": "text", "text": "a"}]},
                {"role": "assistant", "content": null, "reasoning_content": "r", "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}", "x": 1}, "y": 2},
                    {"id": "2", "type": "custom", "custom": {"name": "c", "input": "i"}},
                    {"id": "3", "type": "custom", "function": {"name": "", "arguments": "{}", "x": 1}},
                ]},
                {"role": "tool", "content": "seen", "tool_call_id": "1"},
                {"role": "assistant", "content": "so", "partial": true},
            ],
            "tools": [
                {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}, "strict": true}},
                {"type": "web_search", "web_search": {"enable": true}},
            ],
        });
        let expected = body.clone();
        body["pointsman"] = json!({"session_id": "s"});
        assert_eq!(round_trip(&body), expected);
    }

    #[test]
    fn a_style_changes_roles_text_functions_and_missing_reasoning() {
        let body = json!({"model": "m", "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}]},
        ], "tools": [{"type": "function", "function": {"name": "f"}}]});
        let parsed = parse_request(body.to_string().as_bytes(), 64).expect("a request");
        let mut outgoing = Outgoing::new(&parsed.chat);
        outgoing.style = Style {
            developer_is_system: true,
            flat_text: true,
            whole_functions: true,
            reasoning_of_calls: Some(" "),
        };
        let sent: Value = serde_json::from_slice(&outgoing.to_bytes(&[])).expect("JSON");
        assert_eq!(
            sent["messages"][0],
            json!({"role": "system", "content": "ab"})
        );
        assert_eq!(sent["messages"][1]["reasoning_content"], " ");
        assert_eq!(sent["tools"][0]["function"]["description"], "");
        assert_eq!(sent["tools"][0]["function"]["parameters"]["type"], "object");
    }
}
