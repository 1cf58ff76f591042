//! A client's request, read.

use serde_json::Value;

use crate::chat::{ChatRequest, Extra, ResponseFormat, Tool, ToolChoice};

use super::error::WireError;
use super::fields::{Place, boolean, describe, list, object, optional, positive, string};
use super::message::read_messages;

/// The deepest nesting that can be allowed: `serde_json`'s own bound.
pub const MAX_DEPTH: usize = 127;

/// A request and what the client told us about it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ParsedRequest {
    /// What is asked. `web_search` and `thinking` of the options are in it already.
    pub chat: ChatRequest,
    /// The object `pointsman` of the body, which is never sent on.
    pub options: Options,
}

/// The object `pointsman` of a request's body: what may also be said in headers, in the words in which it was said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Whose request it is.
    pub session_id: Option<String>,
    /// `high`, `medium`, `low`, `1`, `2` or `3`: not looked at here.
    pub priority: Option<String>,
    /// A duration, as `30s`; a bare number is taken as seconds. Not looked at here.
    pub timeout: Option<String>,
    /// Whether to search the web; `use_websearch` is another name of it.
    pub web_search: Option<bool>,
    /// Whether to think.
    pub thinking: Option<bool>,
    /// Which conversation it continues.
    pub continuation_id: Option<String>,
}

/// Reads a client's body. Fields that we don't know go into `extra`; of a key that stands twice the last one counts.
///
/// `max_depth` bounds the nesting of arrays and objects; more than [`MAX_DEPTH`] is taken as that.
///
/// ```
/// use pointsman::wire::parse_request;
///
/// let body = br#"{"model": "auto", "messages": [{"role": "user", "content": "Hi"}], "pointsman": {"priority": 1}}"#;
/// let parsed = parse_request(body, 128)?;
/// assert_eq!(parsed.chat.messages[0].text(), "Hi");
/// assert_eq!(parsed.options.priority.as_deref(), Some("1"));
/// # Ok::<(), pointsman::wire::WireError>(())
/// ```
///
/// # Errors
/// The first thing that is wrong with it: see [`WireError`].
pub fn parse_request(body: &[u8], max_depth: usize) -> Result<ParsedRequest, WireError> {
    parse_request_within(body, max_depth, |_| Ok(()))
}

/// As [`parse_request`], once `admit` agrees to the bytes of memory that the body's values will take, about. A body of
/// nothing but brackets takes fifty times its own length, so whoever bounds bodies should bound that too.
///
/// # Errors
/// What `admit` says, and as [`parse_request`].
pub fn parse_request_within<E: From<WireError>>(
    body: &[u8],
    max_depth: usize,
    admit: impl FnOnce(usize) -> Result<(), E>,
) -> Result<ParsedRequest, E> {
    let text = std::str::from_utf8(body).map_err(|error| WireError::NotUtf8 {
        at: error.valid_up_to(),
    })?;
    let values = survey(body, max_depth.min(MAX_DEPTH))?;
    admit(values.saturating_mul(VALUE_BYTES))?;
    let root = serde_json::from_str(text).map_err(|error| WireError::Syntax(error.to_string()))?;
    let Value::Object(fields) = root else {
        let found = describe(&root);
        return Err(WireError::NotAnObject { found }.into());
    };
    let mut reader = Reader::default();
    for (key, value) in fields {
        reader.field(key, value)?;
    }
    Ok(reader.finish()?)
}

/// What a bracket, colon or comma costs, about, in memory: a value of 32 bytes, in a list that has room for twice as
/// many or an object with its table. Measured over bodies of one kind of value only: 70 to 150.
const VALUE_BYTES: usize = 160;

/// Counts brackets outside of strings, and with colons and commas the values that they make. It need not know more of
/// JSON: where the brackets don't match, the parser says so.
fn survey(body: &[u8], max: usize) -> Result<usize, WireError> {
    let mut values = 0;
    let mut depth = 0usize;
    let mut in_string = false;
    let mut bytes = body.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                bytes.next();
            }
            b'{' | b'[' if !in_string => {
                values += 1;
                depth += 1;
                if depth > max {
                    return Err(WireError::TooDeep { max, at });
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            b',' | b':' if !in_string => values += 1,
            _ => {}
        }
    }
    Ok(values)
}

/// Takes the fields as they come; what depends on two of them waits for the end.
#[derive(Default)]
struct Reader {
    chat: ChatRequest,
    options: Options,
    has_model: bool,
    has_messages: bool,
    max_tokens: Option<u64>,
}

impl Reader {
    fn field(&mut self, key: String, value: Value) -> Result<(), WireError> {
        let at = Place::Root.key(&key);
        let chat = &mut self.chat;
        match key.as_str() {
            "model" => {
                chat.model = model(value, &at)?;
                self.has_model = true;
            }
            "messages" => {
                chat.messages = read_messages(value, &at)?;
                self.has_messages = true;
            }
            "tools" => chat.tools = optional(value, &at, tools)?.unwrap_or_default(),
            "tool_choice" => chat.tool_choice = optional(value, &at, tool_choice)?,
            "max_completion_tokens" => chat.max_output_tokens = optional(value, &at, positive)?,
            "max_tokens" => self.max_tokens = optional(value, &at, positive)?,
            "response_format" => chat.response_format = optional(value, &at, response_format)?,
            "stream" => chat.stream = optional(value, &at, boolean)?.unwrap_or_default(),
            "stream_options" => self.stream_options(value, &at)?,
            "thinking" => self.thinking(value, &at)?,
            "reasoning_effort" => chat.reasoning_effort = optional(value, &at, string)?,
            "user" => chat.user = optional(value, &at, string)?,
            "pointsman" => self.options = optional(value, &at, options)?.unwrap_or_default(),
            _ => {
                check_sampling(&key, &value, &at)?;
                chat.extra.insert(key, value);
            }
        }
        Ok(())
    }

    fn stream_options(&mut self, value: Value, at: &Place<'_>) -> Result<(), WireError> {
        let mut fields = optional(value, at, object)?.unwrap_or_default();
        if let Some(usage) = fields.shift_remove("include_usage") {
            let wanted = optional(usage, &at.key("include_usage"), boolean)?;
            self.chat.include_usage = wanted.unwrap_or_default();
        }
        if !fields.is_empty() {
            self.chat
                .extra
                .insert("stream_options".into(), Value::Object(fields));
        }
        Ok(())
    }

    /// `{"type": "enabled" | "disabled", ...}`, as Kimi and GLM have it, or a plain truth value. Other types are passed on.
    fn thinking(&mut self, value: Value, at: &Place<'_>) -> Result<(), WireError> {
        self.chat.thinking = None;
        self.chat.thinking_options = match value {
            Value::Null => Extra::new(),
            Value::Bool(wanted) => {
                self.chat.thinking = Some(wanted);
                Extra::new()
            }
            Value::Object(mut fields) => {
                self.chat.thinking = match fields.get("type").and_then(Value::as_str) {
                    Some("enabled") => Some(true),
                    Some("disabled") => Some(false),
                    _ => None,
                };
                if self.chat.thinking.is_some() {
                    fields.shift_remove("type");
                }
                fields
            }
            other => return Err(at.wrong(&other, "{\"type\": \"enabled\" or \"disabled\"}")),
        };
        Ok(())
    }

    fn finish(self) -> Result<ParsedRequest, WireError> {
        const MODEL: &str = "the name of a model, or \"auto\"";
        let Reader {
            mut chat, options, ..
        } = self;
        if !self.has_model {
            return Err(Place::Root.key("model").missing(MODEL));
        }
        if !self.has_messages {
            let at = Place::Root.key("messages");
            return Err(at.missing("an array of at least one message"));
        }
        chat.max_output_tokens = chat.max_output_tokens.or(self.max_tokens);
        chat.web_search = options.web_search.unwrap_or_default();
        if options.thinking.is_some() {
            chat.thinking = options.thinking;
            // A type that we don't know would be sent on in its place.
            chat.thinking_options.shift_remove("type");
        }
        Ok(ParsedRequest { chat, options })
    }
}

fn model(value: Value, at: &Place<'_>) -> Result<String, WireError> {
    match string(value, at)? {
        name if name.trim().is_empty() => {
            let empty = Value::String(name);
            Err(at.wrong(&empty, "the name of a model, or \"auto\""))
        }
        name => Ok(name),
    }
}

/// Parameters that we pass on, but whose type is beyond doubt.
fn check_sampling(key: &str, value: &Value, at: &Place<'_>) -> Result<(), WireError> {
    const NUMBERS: [&str; 4] = [
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
    ];
    if value.is_null() {
        return Ok(());
    }
    if NUMBERS.contains(&key) && !value.is_number() {
        return Err(at.wrong(value, "a number"));
    }
    if key == "n" && value.as_u64().is_none_or(|n| n == 0) {
        return Err(at.wrong(value, "a whole number of at least 1"));
    }
    Ok(())
}

fn tools(value: Value, at: &Place<'_>) -> Result<Vec<Tool>, WireError> {
    list(value, at, tool)
}

fn tool(value: Value, at: &Place<'_>) -> Result<Tool, WireError> {
    let Some(fields) = value.as_object() else {
        return Err(at.wrong(&value, "an object"));
    };
    let is_function = fields.get("type").and_then(Value::as_str) == Some("function");
    // Beside `type` and `function` nothing is known; a tool with more than these is passed on whole.
    if !is_function || fields.len() != 2 || !fields.contains_key("function") {
        return Ok(Tool::Other(value));
    }
    let function = object(value, at)?.swap_remove("function");
    function_tool(function.unwrap_or_default(), &at.key("function"))
}

fn function_tool(value: Value, at: &Place<'_>) -> Result<Tool, WireError> {
    let (mut name, mut description, mut parameters) = (None, None, None);
    let mut extra = Extra::new();
    for (key, value) in object(value, at)? {
        let place = at.key(&key);
        match key.as_str() {
            "name" => name = Some(string(value, &place)?),
            "description" => description = optional(value, &place, string)?,
            "parameters" => parameters = optional(value, &place, object)?.map(Value::Object),
            _ => {
                extra.insert(key, value);
            }
        }
    }
    Ok(Tool::Function {
        name: name.ok_or_else(|| at.key("name").missing("a string"))?,
        description,
        parameters,
        extra,
    })
}

fn tool_choice(value: Value, at: &Place<'_>) -> Result<ToolChoice, WireError> {
    let function = |value: &Value| value.pointer("/function/name")?.as_str().map(String::from);
    match &value {
        Value::String(word) => Ok(match word.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" => ToolChoice::Required,
            _ => ToolChoice::Other(value),
        }),
        Value::Object(_) => Ok(match function(&value) {
            Some(name) => ToolChoice::Function(name),
            None => ToolChoice::Other(value),
        }),
        other => Err(at.wrong(other, "auto, none, required or a function")),
    }
}

fn response_format(value: Value, at: &Place<'_>) -> Result<ResponseFormat, WireError> {
    let mut fields = object(value, at)?;
    let kind = fields
        .get("type")
        .ok_or_else(|| at.key("type").missing("text, json_object or json_schema"))?;
    let kind = string(kind.clone(), &at.key("type"))?;
    Ok(match kind.as_str() {
        "text" => ResponseFormat::Text,
        "json_object" => ResponseFormat::JsonObject,
        "json_schema" => {
            let schema = fields.shift_remove("json_schema");
            let at = at.key("json_schema");
            let schema = schema.ok_or_else(|| at.missing("an object with a schema"))?;
            ResponseFormat::JsonSchema(object(schema, &at).map(Value::Object)?)
        }
        _ => ResponseFormat::Other(Value::Object(fields)),
    })
}

fn options(value: Value, at: &Place<'_>) -> Result<Options, WireError> {
    let mut options = Options::default();
    for (key, value) in object(value, at)? {
        let at = at.key(&key);
        match key.as_str() {
            "session_id" => options.session_id = optional(value, &at, string)?,
            "priority" => options.priority = optional(value, &at, word)?,
            "timeout" => options.timeout = optional(value, &at, duration)?,
            "web_search" | "use_websearch" => options.web_search = optional(value, &at, boolean)?,
            "thinking" => options.thinking = optional(value, &at, boolean)?,
            "continuation_id" => options.continuation_id = optional(value, &at, string)?,
            // The object is ours alone: a slip of the pen in it would otherwise go unnoticed for good.
            _ => return Err(unknown_option(value, &at)),
        }
    }
    Ok(options)
}

fn unknown_option(value: Value, at: &Place<'_>) -> WireError {
    let found = format!("unknown (with {})", describe(&value));
    WireError::Wrong {
        param: at.to_string(),
        found,
        accepted: "session_id, priority, timeout, web_search, thinking or continuation_id",
    }
}

fn word(value: Value, at: &Place<'_>) -> Result<String, WireError> {
    match value {
        Value::Number(number) => Ok(number.to_string()),
        Value::String(text) => Ok(text),
        other => Err(at.wrong(&other, "high, medium, low, 1, 2 or 3")),
    }
}

fn duration(value: Value, at: &Place<'_>) -> Result<String, WireError> {
    match value {
        Value::Number(seconds) if seconds.is_u64() => Ok(format!("{seconds}s")),
        Value::String(text) => Ok(text),
        other => Err(at.wrong(&other, "a duration (\"30s\") or whole seconds")),
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
