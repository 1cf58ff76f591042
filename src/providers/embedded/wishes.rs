//! What a request wishes of an embedded model besides an answer: how many, and what it can't have.

use serde_json::Value;

use crate::chat::{ChatRequest, ResponseFormat};
use crate::providers::ProviderError;
use crate::providers::dialect::{is_neutral, refused};

/// Answers to one question, at most.
const MAX_ANSWERS: u64 = 8;

/// Parameters that change nothing where nothing is left to chance.
const WITHOUT_EFFECT: [&str; 5] = [
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
];

/// How many answers are wanted (`n`).
///
/// # Errors
/// What is wished for and can't be had, where an answer without it would be another one than asked for.
pub(super) fn answers(request: &ChatRequest) -> Result<u32, ProviderError> {
    let wish = |key: &str| request.extra.get(key).filter(|value| !value.is_null());
    if wish("logprobs").is_some_and(|wish| *wish != Value::Bool(false))
        || wish("top_logprobs").is_some()
    {
        let message = "`logprobs`: the embedded models leave nothing to chance, so there are none";
        return Err(refused("logprobs", message.into()));
    }
    if let Some(ResponseFormat::Other(_)) = &request.response_format {
        let message =
            "`response_format`: the embedded models know text, json_object and json_schema";
        return Err(refused("response_format", message.into()));
    }
    match wish("n").map(Value::as_u64) {
        None => Ok(1),
        Some(Some(count @ 1..=MAX_ANSWERS)) => Ok(count as u32),
        Some(_) => {
            let message = format!("`n`: the embedded models give 1 to {MAX_ANSWERS} answers");
            Err(refused("n", message))
        }
    }
}

/// What has no effect on the answer of `model`, by its OpenAI name.
pub(super) fn without_effect(model: &str, request: &ChatRequest) -> Vec<String> {
    let meant = |key: &&str| {
        let value = request.extra.get(*key);
        value.is_some_and(|value| !is_neutral(key, value))
    };
    let thinks = model == "embedded-reasoning";
    let mut dropped: Vec<&str> = WITHOUT_EFFECT.into_iter().filter(meant).collect();
    dropped.extend((request.thinking == Some(true) && !thinks).then_some("thinking"));
    dropped.extend(
        request
            .reasoning_effort
            .is_some()
            .then_some("reasoning_effort"),
    );
    dropped.extend(request.web_search.then_some("web_search"));
    dropped.into_iter().map(String::from).collect()
}
