//! A stream towards a client, chunk by chunk as OpenAI sends it.
//!
//! The chunk that ends an answer, and the usage, are held back until the next piece or the end. That costs no time,
//! since the end follows at once, and buys two things: late values can stand in the last chunk's `pointsman` object,
//! and a stream that fails after its finish reason but before its end never shows that reason.

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde_json::Value;

use crate::chat::{Delta, Head, Piece, ToolCallDelta, Usage};

use super::answer::finish_name;
use super::encode::{UsageOut, write};
use super::error::{ErrorBody, error_json};
use super::message::{FunctionOut, write_extra};

/// Writes the events of one stream.
///
/// ```
/// use pointsman::chat::{Delta, Head, Piece};
/// use pointsman::wire::StreamEncoder;
///
/// let mut encoder = StreamEncoder::new(false);
/// let mut out = Vec::new();
/// encoder.piece(&Piece::Head(Head::default()), &mut out);
/// assert!(out.is_empty(), "a head alone is no chunk");
/// encoder.piece(&Piece::Delta(Delta::text("Hi")), &mut out);
/// encoder.end(None, &mut out);
/// assert!(out.ends_with(b"data: [DONE]\n\n"));
/// ```
#[derive(Debug)]
pub struct StreamEncoder {
    include_usage: bool,
    /// `data: {"id":...`: what each chunk begins with.
    prefix: Vec<u8>,
    /// Fields for the next chunk alone, each with its comma.
    once: Vec<u8>,
    /// Answers that have begun, and thus had their role.
    begun: Vec<u32>,
    /// A chunk that waits, without its closing brace; empty if none does.
    held: Vec<u8>,
}

impl StreamEncoder {
    /// An encoder; `include_usage` as the client asked in `stream_options`.
    pub fn new(include_usage: bool) -> Self {
        let mut encoder = StreamEncoder {
            include_usage,
            prefix: Vec::new(),
            once: Vec::new(),
            begun: Vec::new(),
            held: Vec::new(),
        };
        encoder.head(&Head::default());
        encoder
    }

    /// Appends what the client is told of `piece`: nothing for a head, nothing yet for an end.
    pub fn piece(&mut self, piece: &Piece, out: &mut Vec<u8>) {
        match piece {
            Piece::Head(head) => self.head(head),
            Piece::Delta(delta) => {
                self.release(None, out);
                if delta.finish.is_some() {
                    self.held = self.chunk(delta);
                } else {
                    out.extend(self.chunk(delta));
                    close(out);
                }
            }
            Piece::Usage(usage) if self.include_usage => {
                self.release(None, out);
                self.held = self.usage_chunk(usage);
            }
            Piece::Usage(_) => {}
        }
    }

    /// Appends the proper end: what was held back, with our own object, and `[DONE]`.
    pub fn end(&mut self, pointsman: Option<&Value>, out: &mut Vec<u8>) {
        if self.held.is_empty() && pointsman.is_some() {
            self.held = self.chunk(&Delta::default());
        }
        self.release(pointsman, out);
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    /// Appends an error event: the end of a stream that failed. What was held back is dropped.
    pub fn fail(&mut self, error: &ErrorBody, pointsman: Option<&Value>, out: &mut Vec<u8>) {
        self.held.clear();
        out.extend_from_slice(b"data: ");
        out.extend(error_json(error, pointsman));
        out.extend_from_slice(b"\n\n");
    }

    /// Fields that are words or numbers (`system_fingerprint`) stand in each chunk, larger ones in the next alone.
    fn head(&mut self, head: &Head) {
        let mut prefix = b"data: {\"id\":".to_vec();
        write(&head.id, &mut prefix);
        prefix.extend_from_slice(b",\"object\":\"chat.completion.chunk\",\"created\":");
        write(&head.created, &mut prefix);
        prefix.extend_from_slice(b",\"model\":");
        write(&head.model, &mut prefix);
        for (key, value) in &head.extra {
            let large = value.is_array() || value.is_object();
            field(key, value, if large { &mut self.once } else { &mut prefix });
        }
        self.prefix = prefix;
    }

    fn open(&mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.prefix.len() + self.once.len() + 128);
        out.extend_from_slice(&self.prefix);
        out.append(&mut self.once);
        out
    }

    fn chunk(&mut self, delta: &Delta) -> Vec<u8> {
        let first = !self.begun.contains(&delta.choice);
        if first {
            self.begun.push(delta.choice);
        }
        let mut out = self.open();
        out.extend_from_slice(b",\"choices\":[");
        write(&ChoiceOut { delta, first }, &mut out);
        out.push(b']');
        if self.include_usage {
            out.extend_from_slice(b",\"usage\":null");
        }
        out
    }

    fn usage_chunk(&mut self, usage: &Usage) -> Vec<u8> {
        let mut out = self.open();
        out.extend_from_slice(b",\"choices\":[],\"usage\":");
        write(&UsageOut(usage), &mut out);
        out
    }

    fn release(&mut self, pointsman: Option<&Value>, out: &mut Vec<u8>) {
        if self.held.is_empty() {
            return;
        }
        out.append(&mut self.held);
        if let Some(ours) = pointsman {
            field("pointsman", ours, out);
        }
        close(out);
    }
}

/// Appends a comment line, which keeps a client's timer quiet and is no content. `text` has no line end in it.
pub fn comment(text: &str, out: &mut Vec<u8>) {
    debug_assert!(!text.contains(['\r', '\n']), "a comment is one line");
    out.extend_from_slice(b": ");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\n\n");
}

fn close(out: &mut Vec<u8>) {
    out.extend_from_slice(b"}\n\n");
}

fn field(key: &str, value: &Value, out: &mut Vec<u8>) {
    out.push(b',');
    write(key, out);
    out.push(b':');
    write(value, out);
}

struct ChoiceOut<'a> {
    delta: &'a Delta,
    first: bool,
}

impl Serialize for ChoiceOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("index", &self.delta.choice)?;
        map.serialize_entry("delta", &DeltaOut(self))?;
        for (key, value) in &self.delta.choice_extra {
            map.serialize_entry(key, value)?;
        }
        let finish = self.delta.finish.as_ref().map(finish_name);
        map.serialize_entry("finish_reason", &finish)?;
        map.end()
    }
}

struct DeltaOut<'a>(&'a ChoiceOut<'a>);

impl Serialize for DeltaOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ChoiceOut { delta, first } = *self.0;
        let mut map = serializer.serialize_map(None)?;
        if first {
            map.serialize_entry("role", "assistant")?;
        }
        match &delta.content {
            Some(text) => map.serialize_entry("content", text)?,
            None if first && !delta.tool_calls.is_empty() => map.serialize_entry("content", &())?,
            None if first => map.serialize_entry("content", "")?,
            None => {}
        }
        if let Some(reasoning) = &delta.reasoning {
            map.serialize_entry("reasoning_content", reasoning)?;
        }
        if !delta.tool_calls.is_empty() {
            map.serialize_entry("tool_calls", &BitsOut(&delta.tool_calls))?;
        }
        for (key, value) in &delta.extra {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

struct BitsOut<'a>(&'a [ToolCallDelta]);

impl Serialize for BitsOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for bit in self.0 {
            seq.serialize_element(&BitOut(bit))?;
        }
        seq.end()
    }
}

struct BitOut<'a>(&'a ToolCallDelta);

impl Serialize for BitOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bit = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("index", &bit.index)?;
        if let Some(id) = &bit.id {
            map.serialize_entry("id", id)?;
        }
        if let Some(kind) = &bit.kind {
            map.serialize_entry("type", kind)?;
        }
        let function = FunctionOut {
            name: bit.name.as_deref(),
            arguments: &bit.arguments,
            extra: &bit.extra,
        };
        map.serialize_entry("function", &function)?;
        write_extra(&mut map, &bit.extra)?;
        map.end()
    }
}

#[cfg(test)]
#[path = "stream_encoder_tests.rs"]
mod tests;
