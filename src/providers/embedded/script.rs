//! What an embedded model says to a question.

use crate::chat::{
    ChatRequest, Delta, FinishReason, Message, ResponseFormat, Role, Tool, ToolCallDelta,
    ToolChoice,
};
use serde_json::{Value, json};

use super::sample::sample;

/// Characters of somebody's text that are repeated.
const ECHO_CHARS: usize = 200;

/// A whole answer, word for word.
pub(super) struct Script {
    pub(super) deltas: Vec<Delta>,
    pub(super) finish: FinishReason,
}

impl Script {
    /// What `model` answers; `None` if there is no such model.
    pub(super) fn of(model: &str, request: &ChatRequest) -> Option<Script> {
        match model {
            "embedded" => Some(answer(model, request)),
            "embedded-reasoning" => Some(reasoned(model, request)),
            "embedded-tools" => Some(called(request).unwrap_or_else(|| answer(model, request))),
            _ => None,
        }
    }

    /// A number for the question: equal questions have equal ones.
    pub(super) fn fingerprint(&self, request: &ChatRequest) -> u64 {
        let texts = request.messages.iter().map(Message::text);
        let bytes = texts.flat_map(String::into_bytes);
        // FNV-1a: it only has to be the same tomorrow.
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

fn answer(model: &str, request: &ChatRequest) -> Script {
    Script {
        deltas: words(&answer_text(model, request))
            .map(Delta::text)
            .collect(),
        finish: FinishReason::Stop,
    }
}

fn answer_text(model: &str, request: &ChatRequest) -> String {
    let question = echo(&last(request, &Role::User));
    match &request.response_format {
        Some(ResponseFormat::JsonObject) => {
            return json!({"model": model, "echo": question}).to_string();
        }
        Some(ResponseFormat::JsonSchema(format)) => {
            let schema = format.get("schema").unwrap_or(&Value::Null);
            return sample(schema, &question).to_string();
        }
        Some(ResponseFormat::Text | ResponseFormat::Other(_)) | None => {}
    }
    match request.messages.last() {
        Some(message) if message.role == Role::Tool => {
            let result = echo(&message.text());
            format!("The tool answered: {result}. That is what {model} found for: {question}")
        }
        _ => format!(
            "This is {model}, a model without a mind that pointsman carries along. You said: {question}"
        ),
    }
}

fn reasoned(model: &str, request: &ChatRequest) -> Script {
    let mut script = answer(model, request);
    if request.thinking != Some(false) {
        let count = last(request, &Role::User).split_whitespace().count();
        let thought =
            format!("The question has {count} words. I have no opinion, so I shall repeat it.");
        let thoughts = words(&thought).map(|word| Delta {
            reasoning: Some(word),
            ..Delta::default()
        });
        script.deltas.splice(0..0, thoughts.collect::<Vec<_>>());
    }
    script
}

/// A call of the tool that was named, or of the first; `None` where nothing is to be called, or a call was answered.
fn called(request: &ChatRequest) -> Option<Script> {
    if request.messages.last()?.role == Role::Tool {
        return None;
    }
    let wanted = match &request.tool_choice {
        Some(ToolChoice::None) => return None,
        Some(ToolChoice::Function(name)) => Some(name),
        Some(ToolChoice::Auto | ToolChoice::Required | ToolChoice::Other(_)) | None => None,
    };
    let functions = request.tools.iter().filter_map(|tool| match tool {
        Tool::Function {
            name, parameters, ..
        } => Some((name, parameters)),
        Tool::Other(_) => None,
    });
    let mut fitting = functions.filter(|(name, _)| wanted.is_none_or(|wanted| wanted == *name));
    let (name, parameters) = fitting.next()?;
    let question = echo(&last(request, &Role::User));
    let arguments = match parameters {
        Some(schema) => sample(schema, &question).to_string(),
        None => "{}".into(),
    };
    let first = ToolCallDelta {
        id: Some(format!("call_{name}_0")),
        kind: Some("function".into()),
        name: Some(name.clone()),
        ..ToolCallDelta::default()
    };
    let rest = words(&arguments).map(|arguments| ToolCallDelta {
        arguments,
        ..ToolCallDelta::default()
    });
    let bits = std::iter::once(first).chain(rest);
    Some(Script {
        deltas: bits.map(call_delta).collect(),
        finish: FinishReason::ToolCalls,
    })
}

fn call_delta(bit: ToolCallDelta) -> Delta {
    Delta {
        tool_calls: vec![bit],
        ..Delta::default()
    }
}

/// Each word with the space after it, so that they join to the text again.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split_inclusive(' ').map(String::from)
}

fn last(request: &ChatRequest, role: &Role) -> String {
    let mut backwards = request.messages.iter().rev();
    let message = backwards.find(|message| message.role == *role);
    message.map(Message::text).unwrap_or_default()
}

fn echo(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(ECHO_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into(),
    }
}
