//! What an embedded model says to a question.

use serde_json::{Value, json};

use crate::chat::{
    ChatRequest, Delta, FinishReason, Message, ResponseFormat, Role, Tool, ToolCallDelta,
    ToolChoice,
};
use crate::providers::ProviderError;
use crate::providers::dialect::refused;

use super::sample::sample;

/// Characters of somebody's text that are repeated.
const ECHO_CHARS: usize = 200;
/// Tools that are called at once, at most.
const MAX_CALLS: usize = 8;

/// A whole answer, word for word.
pub(super) struct Script {
    pub(super) deltas: Vec<Delta>,
    pub(super) finish: FinishReason,
}

/// When a model calls a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Calls {
    /// Whenever it was offered one.
    Eager,
    /// Where it has to.
    Obliged,
}

impl Script {
    /// What `model` answers; `None` if there is no such model.
    ///
    /// # Errors
    /// What nobody could answer as asked: a call of a tool that isn't there.
    pub(super) fn of(model: &str, request: &ChatRequest) -> Result<Option<Script>, ProviderError> {
        let calls = match model {
            "embedded" | "embedded-reasoning" => Calls::Obliged,
            "embedded-tools" => Calls::Eager,
            _ => return Ok(None),
        };
        let script = called(request, calls)?.unwrap_or_else(|| answer(model, request));
        Ok(Some(match model {
            "embedded-reasoning" if request.thinking != Some(false) => thought(request, script),
            _ => script,
        }))
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
    let text = answer_text(model, request);
    Script {
        deltas: words(before_stop(&text, request))
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
    match results(request).as_slice() {
        [] => format!(
            "This is {model}, a model without a mind that pointsman carries along. You said: {question}"
        ),
        results => format!(
            "The tool answered: {}. That is what {model} found for: {question}",
            results.join("; ")
        ),
    }
}

/// What the tools answered, where nobody has spoken since.
fn results(request: &ChatRequest) -> Vec<String> {
    let backwards = request.messages.iter().rev();
    let tools = backwards.take_while(|message| message.role == Role::Tool);
    let mut results: Vec<String> = tools.map(|message| echo(&message.text())).collect();
    results.reverse();
    results
}

/// The text up to the first of the words that the client wants it to end before.
fn before_stop<'a>(text: &'a str, request: &ChatRequest) -> &'a str {
    let stop = match request.extra.get("stop") {
        Some(Value::Array(words)) => words.as_slice(),
        Some(word) => std::slice::from_ref(word),
        None => &[],
    };
    let words = stop.iter().filter_map(Value::as_str);
    let ends = words
        .filter(|word| !word.is_empty())
        .filter_map(|word| text.find(word));
    &text[..ends.min().unwrap_or(text.len())]
}

/// The script after a thought.
fn thought(request: &ChatRequest, mut script: Script) -> Script {
    let count = last(request, &Role::User).split_whitespace().count();
    let thought =
        format!("The question has {count} words. I have no opinion, so I shall repeat it.");
    let thoughts = words(&thought).map(|word| Delta {
        reasoning: Some(word),
        ..Delta::default()
    });
    script.deltas.splice(0..0, thoughts.collect::<Vec<_>>());
    script
}

/// Calls of tools: of the one that was named, else of the first, else, where several at once are asked for
/// (`parallel_tool_calls`), of all. `None` where nothing is to be called, or calls were answered.
fn called(request: &ChatRequest, calls: Calls) -> Result<Option<Script>, ProviderError> {
    let functions = request.tools.iter().filter_map(|tool| match tool {
        Tool::Function {
            name, parameters, ..
        } => Some((name.as_str(), parameters.as_ref())),
        Tool::Other(_) => None,
    });
    let mut functions: Vec<_> = functions.collect();
    let parallel = request.extra.get("parallel_tool_calls") == Some(&Value::Bool(true));
    let most = if parallel { MAX_CALLS } else { 1 };
    let is_obliged = match &request.tool_choice {
        Some(ToolChoice::None) => return Ok(None),
        Some(ToolChoice::Function(wanted)) => {
            functions.retain(|(name, _)| name == wanted);
            true
        }
        Some(ToolChoice::Required) => true,
        Some(ToolChoice::Other(_)) => {
            let message =
                "`tool_choice`: the embedded models know auto, none, required and a function";
            return Err(refused("tool_choice", message.into()));
        }
        Some(ToolChoice::Auto) | None => false,
    };
    if is_obliged && functions.is_empty() {
        let message = "`tool_choice` asks for a call of a function that is not among `tools`";
        return Err(refused("tool_choice", message.into()));
    }
    let wants = is_obliged || calls == Calls::Eager && results(request).is_empty();
    if !wants || functions.is_empty() {
        return Ok(None);
    }
    let question = echo(&last(request, &Role::User));
    let bits = (0u32..)
        .zip(functions.into_iter().take(most))
        .flat_map(|(index, (name, schema))| call(index, name, schema, &question));
    Ok(Some(Script {
        deltas: bits.map(call_delta).collect(),
        finish: FinishReason::ToolCalls,
    }))
}

/// One call, in bits.
fn call(index: u32, name: &str, schema: Option<&Value>, question: &str) -> Vec<ToolCallDelta> {
    let arguments = match schema {
        Some(schema) => sample(schema, question).to_string(),
        None => "{}".into(),
    };
    let first = ToolCallDelta {
        index,
        id: Some(format!("call_{name}_{index}")),
        kind: Some("function".into()),
        name: Some(name.to_owned()),
        ..ToolCallDelta::default()
    };
    let rest = words(&arguments).map(|arguments| ToolCallDelta {
        index,
        arguments,
        ..ToolCallDelta::default()
    });
    std::iter::once(first).chain(rest).collect()
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
