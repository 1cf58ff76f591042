//! The neutral vocabulary of a chat: what a client asks, what a model answers, and the pieces in between.
//!
//! No JSON is spelled here: [`crate::wire`] alone knows how OpenAI's wire writes these, and another wire could
//! write them otherwise. What the gateway acts on has a field of its own; everything else that a client or a
//! provider sent travels along in the `extra` maps under the name that it came with, so that fields we don't know
//! pass through, both ways.

use serde_json::{Map, Value};

/// Fields that we don't know, by the name that they came with.
pub type Extra = Map<String, Value>;

/// One question to a model: the whole conversation so far, and how to answer it.
///
/// ```
/// use pointsman::chat::ChatRequest;
///
/// let request = ChatRequest::new("auto").system("Be brief.").user("Say hello");
/// assert_eq!(request.messages.len(), 2);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatRequest {
    /// The model's name, `provider/name`, or `auto`.
    pub model: String,
    /// The conversation, oldest first.
    pub messages: Vec<Message>,
    /// What the model may call.
    pub tools: Vec<Tool>,
    /// Which of the tools it may, or has to, call.
    pub tool_choice: Option<ToolChoice>,
    /// Upper bound on the answer, in tokens, reasoning included.
    pub max_output_tokens: Option<u64>,
    /// The form of the answer.
    pub response_format: Option<ResponseFormat>,
    /// Whether the client wants the answer in pieces.
    pub stream: bool,
    /// Whether the client wants the usage as a last piece of a stream.
    pub include_usage: bool,
    /// Thinking asked for (`true`), switched off (`false`), or left to the model.
    pub thinking: Option<bool>,
    /// What else the client said about thinking (`keep`, `clear_thinking`), by its name.
    pub thinking_options: Extra,
    /// How hard to think: `low`, `medium`, `high`, or another word of the model's.
    pub reasoning_effort: Option<String>,
    /// Whether the model shall search the web.
    pub web_search: bool,
    /// Who asks, as the client names its end user.
    pub user: Option<String>,
    /// Sampling parameters and all other fields (`temperature`, `top_p`, `seed`, `stop`, ...), by their OpenAI names.
    pub extra: Extra,
}

impl ChatRequest {
    /// An empty conversation with `model`.
    pub fn new(model: impl Into<String>) -> Self {
        ChatRequest {
            model: model.into(),
            ..ChatRequest::default()
        }
    }

    /// Adds a system message.
    #[must_use]
    pub fn system(self, text: impl Into<String>) -> Self {
        self.message(Message::new(Role::System, text))
    }

    /// Adds a user message.
    #[must_use]
    pub fn user(self, text: impl Into<String>) -> Self {
        self.message(Message::new(Role::User, text))
    }

    /// Adds any message.
    #[must_use]
    pub fn message(mut self, message: Message) -> Self {
        self.messages.push(message);
        self
    }
}

/// One turn of the conversation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; `None` where a turn is only tool calls.
    pub content: Option<Content>,
    /// What the model thought before it spoke.
    pub reasoning: Option<String>,
    /// What the model wants called.
    pub tool_calls: Vec<ToolCall>,
    /// For [`Role::Tool`]: which call this answers.
    pub tool_call_id: Option<String>,
    /// The speaker's name.
    pub name: Option<String>,
    /// Fields that we don't know.
    pub extra: Extra,
}

impl Message {
    /// A message of plain text.
    pub fn new(role: Role, text: impl Into<String>) -> Self {
        Message {
            role,
            content: Some(Content::Text(text.into())),
            ..Message::default()
        }
    }

    /// The text of the message, its parts joined; empty where it has none.
    pub fn text(&self) -> String {
        match &self.content {
            None => String::new(),
            Some(Content::Text(text)) => text.clone(),
            Some(Content::Parts(parts)) => parts
                .iter()
                .filter_map(|part| part.get("text").and_then(Value::as_str))
                .collect(),
        }
    }
}

/// Who speaks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Role {
    /// The one who sets the rules.
    System,
    /// OpenAI's newer word for [`Role::System`]; other providers don't know it.
    Developer,
    /// The one who asks.
    #[default]
    User,
    /// The model.
    Assistant,
    /// The answer of a tool.
    Tool,
    /// A role that we don't know; the provider may.
    Other(String),
}

/// What is said.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Text, images and the like, each as it came.
    Parts(Vec<Value>),
}

/// Something that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub enum Tool {
    /// A function with a JSON schema of its arguments.
    Function {
        /// Its name.
        name: String,
        /// What it does.
        description: Option<String>,
        /// JSON schema of the arguments.
        parameters: Option<Value>,
        /// Fields that we don't know (`strict`, ...).
        extra: Extra,
    },
    /// A tool of a kind that we don't know, as it came.
    Other(Value),
}

/// Which of the tools the model may, or has to, call.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolChoice {
    /// As the model likes.
    Auto,
    /// None.
    None,
    /// At least one.
    Required,
    /// This function.
    Function(String),
    /// A choice that we don't know, as it came.
    Other(Value),
}

/// The form of the answer.
#[derive(Debug, Clone, PartialEq)]
pub enum ResponseFormat {
    /// Plain text.
    Text,
    /// Some JSON object.
    JsonObject,
    /// JSON of this schema (the object under `json_schema`, as it came).
    JsonSchema(Value),
    /// A form that we don't know, as it came.
    Other(Value),
}

/// A call that the model wants made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolCall {
    /// The call's id; unique only within its message with some providers.
    pub id: String,
    /// `function`, or a kind of the provider's own.
    pub kind: String,
    /// The function's name.
    pub name: String,
    /// The arguments, a JSON text.
    pub arguments: String,
    /// Fields that we don't know.
    pub extra: Extra,
}

/// Why the model stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// It was done.
    Stop,
    /// A bound on tokens was reached.
    Length,
    /// It wants tools called.
    ToolCalls,
    /// Its answer was filtered.
    ContentFilter,
    /// A reason that we don't know.
    Other(String),
}

/// Tokens, as the provider counted them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// Tokens of the question.
    pub prompt: u64,
    /// Tokens of the answer, reasoning included.
    pub completion: u64,
    /// Both.
    pub total: u64,
    /// Tokens of the question that came from the provider's cache.
    pub cached: Option<u64>,
    /// Tokens of the answer that were reasoning.
    pub reasoning: Option<u64>,
    /// Fields that we don't know.
    pub extra: Extra,
}

/// A whole answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatReply {
    /// The provider's id of the answer.
    pub id: String,
    /// Seconds since 1970, as the provider says.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// The answers; one unless more were asked for.
    pub choices: Vec<Choice>,
    /// Tokens used.
    pub usage: Option<Usage>,
    /// Fields that we don't know (`system_fingerprint`, `web_search`, ...).
    pub extra: Extra,
}

impl ChatReply {
    /// The text of the first answer.
    pub fn text(&self) -> String {
        self.choices
            .first()
            .map(|choice| choice.message.text())
            .unwrap_or_default()
    }
}

/// One of the answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choice {
    /// Its number, from 0.
    pub index: u32,
    /// What was answered.
    pub message: Message,
    /// Why it ended; `None` only while it hasn't.
    pub finish: Option<FinishReason>,
    /// Fields that we don't know (`logprobs`, ...).
    pub extra: Extra,
}

/// One piece of an answer on its way, in the order of arrival.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Who answers: always first. A later one only brings `extra` fields that came late.
    Head(Head),
    /// A bit of an answer.
    Delta(Delta),
    /// Tokens used: at most once, last.
    Usage(Usage),
}

impl Piece {
    /// Whether the client sees text, reasoning or a tool call in this piece: after the first of these nothing may be
    /// tried again.
    pub fn is_content(&self) -> bool {
        match self {
            Piece::Head(_) | Piece::Usage(_) => false,
            Piece::Delta(delta) => !delta.is_empty(),
        }
    }
}

/// Who answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Head {
    /// The provider's id of the answer.
    pub id: String,
    /// Seconds since 1970, as the provider says.
    pub created: u64,
    /// The model that answers.
    pub model: String,
    /// Parameters of the request that this provider was not sent as asked, by their OpenAI names.
    pub dropped: Vec<String>,
    /// Fields that we don't know.
    pub extra: Extra,
}

/// A bit of one of the answers. Fields left empty say nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delta {
    /// Which answer, from 0.
    pub choice: u32,
    /// More text.
    pub content: Option<String>,
    /// More reasoning.
    pub reasoning: Option<String>,
    /// More of tool calls.
    pub tool_calls: Vec<ToolCallDelta>,
    /// The end of this answer.
    pub finish: Option<FinishReason>,
    /// Fields of the delta that we don't know (`refusal`, `annotations`, ...).
    pub extra: Extra,
    /// Fields of the choice that we don't know (`logprobs`, ...).
    pub choice_extra: Extra,
}

impl Delta {
    /// A bit of text of the first answer.
    pub fn text(text: impl Into<String>) -> Self {
        Delta {
            content: Some(text.into()),
            ..Delta::default()
        }
    }

    /// Whether it says nothing at all.
    pub fn is_empty(&self) -> bool {
        self.content.as_deref().unwrap_or_default().is_empty()
            && self.reasoning.as_deref().unwrap_or_default().is_empty()
            && self.tool_calls.is_empty()
            && self.finish.is_none()
            && self.extra.is_empty()
            && self.choice_extra.is_empty()
    }
}

/// A bit of a tool call. The first bit of an index carries `id`, `kind` and `name`; later ones only arguments.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolCallDelta {
    /// Which call of the message, from 0.
    pub index: u32,
    /// The call's id.
    pub id: Option<String>,
    /// `function`, or a kind of the provider's own.
    pub kind: Option<String>,
    /// The function's name.
    pub name: Option<String>,
    /// More of the arguments' JSON text.
    pub arguments: String,
    /// Fields that we don't know.
    pub extra: Extra,
}

/// Puts pieces together into a whole answer.
///
/// ```
/// use pointsman::chat::{Delta, Piece, ReplyBuilder};
///
/// let mut builder = ReplyBuilder::default();
/// builder.push(Piece::Delta(Delta::text("Hel")));
/// builder.push(Piece::Delta(Delta::text("lo")));
/// assert_eq!(builder.finish().text(), "Hello");
/// ```
#[derive(Debug, Default)]
pub struct ReplyBuilder {
    reply: ChatReply,
}

impl ReplyBuilder {
    /// Adds the next piece.
    pub fn push(&mut self, piece: Piece) {
        match piece {
            Piece::Head(head) => {
                self.reply.id = head.id;
                self.reply.created = head.created;
                self.reply.model = head.model;
                self.reply.extra.extend(head.extra);
            }
            Piece::Delta(delta) => self.push_delta(delta),
            Piece::Usage(usage) => self.reply.usage = Some(usage),
        }
    }

    /// The whole answer.
    pub fn finish(mut self) -> ChatReply {
        self.reply.choices.sort_by_key(|choice| choice.index);
        self.reply
    }

    fn push_delta(&mut self, delta: Delta) {
        let choice = self.choice(delta.choice);
        if let Some(text) = delta.content {
            match &mut choice.message.content {
                Some(Content::Text(whole)) => whole.push_str(&text),
                other => *other = Some(Content::Text(text)),
            }
        }
        if let Some(text) = delta.reasoning {
            choice
                .message
                .reasoning
                .get_or_insert_default()
                .push_str(&text);
        }
        for bit in delta.tool_calls {
            push_tool_call(&mut choice.message.tool_calls, bit);
        }
        choice.finish = delta.finish.or_else(|| choice.finish.take());
        choice.message.extra.extend(delta.extra);
        choice.extra.extend(delta.choice_extra);
    }

    fn choice(&mut self, index: u32) -> &mut Choice {
        let choices = &mut self.reply.choices;
        let at = choices
            .iter()
            .position(|choice| choice.index == index)
            .unwrap_or_else(|| {
                let message = Message {
                    role: Role::Assistant,
                    ..Message::default()
                };
                choices.push(Choice {
                    index,
                    message,
                    ..Choice::default()
                });
                choices.len() - 1
            });
        &mut choices[at]
    }
}

/// An upper bound on how many tool calls one message may have: a provider that numbers a call 4,000,000,000 must not
/// make us allocate that many. OpenAI's own bound on tools is 128.
const MAX_TOOL_CALLS: usize = 1024;

fn push_tool_call(calls: &mut Vec<ToolCall>, bit: ToolCallDelta) {
    let at = bit.index as usize;
    if at >= MAX_TOOL_CALLS {
        return;
    }
    while calls.len() <= at {
        calls.push(ToolCall {
            kind: "function".into(),
            ..ToolCall::default()
        });
    }
    let call = &mut calls[at];
    if let Some(id) = bit.id {
        call.id = id;
    }
    if let Some(kind) = bit.kind {
        call.kind = kind;
    }
    if let Some(name) = bit.name {
        call.name = name;
    }
    call.arguments.push_str(&bit.arguments);
    call.extra.extend(bit.extra);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_of_a_tool_call_become_one_call() {
        let mut builder = ReplyBuilder::default();
        let first = ToolCallDelta {
            id: Some("weather_0".into()),
            name: Some("weather".into()),
            ..Default::default()
        };
        let rest = |text: &str| ToolCallDelta {
            arguments: text.into(),
            ..Default::default()
        };
        for bit in [first, rest("{\"city\":"), rest("\"Paris\"}")] {
            builder.push(Piece::Delta(Delta {
                tool_calls: vec![bit],
                ..Delta::default()
            }));
        }
        builder.push(Piece::Delta(Delta {
            finish: Some(FinishReason::ToolCalls),
            ..Delta::default()
        }));
        let reply = builder.finish();
        let call = &reply.choices[0].message.tool_calls[0];
        assert_eq!(
            (call.id.as_str(), call.name.as_str()),
            ("weather_0", "weather")
        );
        assert_eq!(call.arguments, "{\"city\":\"Paris\"}");
        assert_eq!(reply.choices[0].finish, Some(FinishReason::ToolCalls));
    }

    #[test]
    fn an_absurd_tool_call_index_allocates_nothing() {
        let mut builder = ReplyBuilder::default();
        let bit = ToolCallDelta {
            index: u32::MAX,
            ..Default::default()
        };
        builder.push(Piece::Delta(Delta {
            tool_calls: vec![bit],
            ..Delta::default()
        }));
        assert!(builder.finish().choices[0].message.tool_calls.is_empty());
    }

    #[test]
    fn a_head_and_a_usage_are_not_content_and_an_empty_delta_is_not_either() {
        assert!(!Piece::Head(Head::default()).is_content());
        assert!(!Piece::Delta(Delta::text("")).is_content());
        assert!(Piece::Delta(Delta::text("x")).is_content());
    }
}
