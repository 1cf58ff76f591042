//! How long a prompt is, without a tokenizer.

use std::io;

use serde_json::Value;

use crate::chat::{ChatRequest, Content, Message, Tool, ToolCall};

/// Bytes of a token: OpenAI's rule of thumb for English text. Other scripts have fewer, but then more bytes a character.
const BYTES_PER_TOKEN: u64 = 4;
/// Tokens of a part that isn't text (a picture): its bytes say nothing, since it may be a link or the picture itself.
const TOKENS_PER_PART: u64 = 1024;

/// About how many tokens the prompt has: what is said, thought, called and offered as tools. The bound on the answer is not
/// counted: it is a bound, not a need.
pub(super) fn prompt_tokens(request: &ChatRequest) -> u64 {
    let messages = request.messages.iter().map(message_bytes);
    let tools = request.tools.iter().map(tool_bytes);
    let bytes: u64 = messages.chain(tools).sum();
    bytes.div_ceil(BYTES_PER_TOKEN)
}

fn message_bytes(message: &Message) -> u64 {
    let content = message.content.as_ref().map_or(0, content_bytes);
    let calls: u64 = message.tool_calls.iter().map(call_bytes).sum();
    content + length(message.reasoning.as_deref().unwrap_or_default()) + calls
}

fn content_bytes(content: &Content) -> u64 {
    match content {
        Content::Text(text) => length(text),
        Content::Parts(parts) => parts.iter().map(part_bytes).sum(),
    }
}

fn part_bytes(part: &Value) -> u64 {
    let text = part.get("text").and_then(Value::as_str);
    text.map_or(TOKENS_PER_PART * BYTES_PER_TOKEN, length)
}

fn call_bytes(call: &ToolCall) -> u64 {
    length(&call.name) + length(&call.arguments)
}

fn tool_bytes(tool: &Tool) -> u64 {
    match tool {
        Tool::Function {
            name,
            description,
            parameters,
            extra: _,
        } => {
            let description = description.as_deref().unwrap_or_default();
            length(name) + length(description) + parameters.as_ref().map_or(0, json_bytes)
        }
        Tool::Other(tool) => json_bytes(tool),
    }
}

fn length(text: &str) -> u64 {
    text.len() as u64
}

/// The length of a JSON text that is not kept.
fn json_bytes(value: &Value) -> u64 {
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).expect("a value writes to a counter");
    count.0
}

struct Count(u64);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Role;
    use serde_json::json;

    fn tokens(message: Message) -> u64 {
        prompt_tokens(&ChatRequest::new("auto").message(message))
    }

    #[test]
    fn four_bytes_are_a_token_rounded_up() {
        for (text, expected) in [
            ("", 0),
            ("a", 1),
            ("abcd", 1),
            ("abcde", 2),
            ("\u{4f60}\u{597d}", 2),
        ] {
            assert_eq!(tokens(Message::new(Role::User, text)), expected, "{text}");
        }
    }

    #[test]
    fn thoughts_calls_and_tools_count() {
        let message = Message {
            reasoning: Some("abcd".into()),
            tool_calls: vec![ToolCall {
                name: "abcd".into(),
                arguments: "{\"a\":1}1".into(),
                ..ToolCall::default()
            }],
            ..Message::default()
        };
        assert_eq!(tokens(message), 4);
        let mut request = ChatRequest::new("auto");
        request.tools = vec![
            Tool::Function {
                name: "abcd".into(),
                description: Some("efgh".into()),
                parameters: Some(json!({"a": 12})),
                extra: Default::default(),
            },
            Tool::Other(json!("ab")),
        ];
        assert_eq!(prompt_tokens(&request), 5);
    }

    #[test]
    fn a_picture_counts_the_same_however_many_bytes_it_has() {
        for url in [
            "https://example.com/x.png".to_string(),
            "x".repeat(1_000_000),
        ] {
            let picture = json!({"type": "image_url", "image_url": {"url": url}});
            let text = json!({"type": "text", "text": "abcd"});
            let message = Message {
                content: Some(Content::Parts(vec![text, picture])),
                ..Message::default()
            };
            assert_eq!(tokens(message), TOKENS_PER_PART + 1);
        }
    }
}
