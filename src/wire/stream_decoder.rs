//! A provider's stream, read chunk by chunk.
//!
//! The providers disagree about a chunk's details (a role in each delta or in the first, `finish_reason: null` or none,
//! usage in the choice, beside the choices or in a chunk of its own); the pieces that come out agree: one
//! [`Piece::Head`], deltas without empty ones, and the usage last, once, at `[DONE]`.

use serde_json::Value;

use crate::chat::{Delta, Extra, Head, Piece, ToolCallDelta, Usage};

use super::answer::{
    AnswerError, adopt_reasoning, answer_fields, finish_of, read_usage, small, text,
};
use super::error::WireError;
use super::fields::{Place, list, object, optional, string};
use super::message::read_function;

/// Answers at once that we take; OpenAI's own bound on `n`.
const MAX_CHOICES: usize = 128;

/// Turns the events of one stream into pieces.
///
/// ```
/// use pointsman::wire::StreamDecoder;
///
/// let mut decoder = StreamDecoder::default();
/// let mut pieces = Vec::new();
/// decoder.push(r#"{"id":"c1","model":"m","choices":[{"index":0,"delta":{"content":"Hi"}}]}"#, &mut pieces)?;
/// assert_eq!(pieces.len(), 2, "a head and a delta");
/// assert!(!decoder.is_complete(), "neither finished nor done");
/// # Ok::<(), pointsman::wire::AnswerError>(())
/// ```
#[derive(Debug, Default)]
pub struct StreamDecoder {
    /// The head that was given out, to know what a later one adds.
    head: Option<Head>,
    /// Answers that have begun, and whether they have ended.
    choices: Vec<(u32, bool)>,
    usage: Option<Usage>,
    done: bool,
}

impl StreamDecoder {
    /// Reads the data of one event, and adds its pieces to `pieces`.
    ///
    /// # Errors
    /// [`AnswerError::Refused`] if the event is an error; else what is wrong with it. Nothing can be read after that.
    pub fn push(&mut self, data: &str, pieces: &mut Vec<Piece>) -> Result<(), AnswerError> {
        if self.done {
            return Ok(());
        }
        if data.trim_start().starts_with("[DONE]") {
            self.done = true;
            pieces.extend(self.usage.take().map(Piece::Usage));
            return Ok(());
        }
        let mut head = Head::default();
        let mut choices = Value::Null;
        for (key, value) in answer_fields(serde_json::from_str(data)?)? {
            match key.as_str() {
                "id" => head.id = text(value),
                "object" => {}
                "created" => head.created = value.as_u64().unwrap_or_default(),
                "model" => head.model = text(value),
                "choices" => choices = value,
                "usage" => self.usage = read_usage(value).or(self.usage.take()),
                _ => {
                    head.extra.insert(key, value);
                }
            }
        }
        pieces.extend(self.news(head).map(Piece::Head));
        let deltas = optional(choices, &Place::Root.key("choices"), |value, at| {
            list(value, at, read_choice)
        })?;
        for (delta, usage) in deltas.unwrap_or_default() {
            self.choice(delta, usage, pieces)?;
        }
        Ok(())
    }

    /// Whether `[DONE]` came.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Whether the stream had its proper end: each answer its finish reason, and `[DONE]`.
    pub fn is_complete(&self) -> bool {
        self.done && !self.choices.is_empty() && self.choices.iter().all(|(_, ended)| *ended)
    }

    /// The first head; of a later one only fields that no head had.
    fn news(&mut self, mut head: Head) -> Option<Head> {
        let Some(known) = &mut self.head else {
            self.head = Some(head.clone());
            return Some(head);
        };
        if head.extra.is_empty() {
            return None;
        }
        head.extra.retain(|key, _| !known.extra.contains_key(key));
        known.extra.extend(head.extra.clone());
        let news = Head {
            extra: head.extra,
            ..known.clone()
        };
        (!news.extra.is_empty()).then_some(news)
    }

    fn choice(
        &mut self,
        delta: Delta,
        usage: Option<Usage>,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), AnswerError> {
        let known = |(index, _): &(u32, bool)| *index == delta.choice;
        let at = self.choices.iter().position(known).unwrap_or_else(|| {
            self.choices.push((delta.choice, false));
            self.choices.len() - 1
        });
        if at >= MAX_CHOICES {
            return Err(AnswerError::Malformed("too many answers at once".into()));
        }
        self.choices[at].1 |= delta.finish.is_some();
        self.usage = usage.or(self.usage.take());
        if !delta.is_empty() {
            pieces.push(Piece::Delta(delta));
        }
        Ok(())
    }
}

fn read_choice(value: Value, at: &Place<'_>) -> Result<(Delta, Option<Usage>), WireError> {
    let mut delta = Delta::default();
    let mut usage = None;
    for (key, value) in object(value, at)? {
        let place = at.key(&key);
        match key.as_str() {
            "index" => delta.choice = small(&value).unwrap_or_default(),
            "finish_reason" => delta.finish = value.as_str().map(finish_of),
            "usage" => usage = read_usage(value),
            "delta" => {
                let bit = optional(value, &place, read_delta)?.unwrap_or_default();
                delta = Delta {
                    choice: delta.choice,
                    finish: delta.finish,
                    choice_extra: delta.choice_extra,
                    ..bit
                };
            }
            // `logprobs: null` in each chunk says nothing.
            _ if value.is_null() => {}
            _ => {
                delta.choice_extra.insert(key, value);
            }
        }
    }
    Ok((delta, usage))
}

fn read_delta(value: Value, at: &Place<'_>) -> Result<Delta, WireError> {
    let mut delta = Delta::default();
    for (key, value) in object(value, at)? {
        let place = at.key(&key);
        match key.as_str() {
            "role" => {}
            "content" => delta.content = optional(value, &place, string)?,
            "reasoning_content" => delta.reasoning = optional(value, &place, string)?,
            "tool_calls" => {
                let bits = optional(value, &place, |value, at| list(value, at, read_call))?;
                delta.tool_calls = number(bits.unwrap_or_default());
            }
            _ if value.is_null() => {}
            _ => {
                delta.extra.insert(key, value);
            }
        }
    }
    adopt_reasoning(&mut delta.reasoning, &mut delta.extra);
    Ok(delta)
}

/// A bit of a call, and its number where it has one.
type Bit = (Option<u32>, ToolCallDelta);

fn read_call(value: Value, at: &Place<'_>) -> Result<Bit, WireError> {
    let mut index = None;
    let mut bit = ToolCallDelta::default();
    let mut extra = Extra::new();
    for (key, value) in object(value, at)? {
        let place = at.key(&key);
        match key.as_str() {
            "index" => index = small(&value),
            "id" => bit.id = optional(value, &place, string)?,
            "type" => bit.kind = optional(value, &place, string)?,
            "function" => {
                let function = read_function(value, &place, &mut extra)?;
                bit.name = function.name;
                bit.arguments = function.arguments;
            }
            _ => {
                extra.insert(key, value);
            }
        }
    }
    bit.extra = extra;
    Ok((index, bit))
}

/// Some servers leave the number out; then the position is meant.
fn number(bits: Vec<Bit>) -> Vec<ToolCallDelta> {
    let numbered = (0u32..).zip(bits);
    numbered
        .map(|(position, (index, bit))| ToolCallDelta {
            index: index.unwrap_or(position),
            ..bit
        })
        .collect()
}

#[cfg(test)]
#[path = "stream_decoder_tests.rs"]
mod tests;
