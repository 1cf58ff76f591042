//! What each provider of the OpenAI wire does its own way, and the plain dialect of those that do nothing their own way.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::chat::{ChatRequest, FinishReason};
use crate::config::{Model, Thinking};
use crate::wire::{ErrorBody, Outgoing};

use super::{ErrorClass, ProviderError, trouble};

/// A provider's own way. One value per provider; it holds no state of a call.
pub(super) trait Dialect: fmt::Debug + Send + Sync {
    /// Headers of each request.
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Puts a request into the provider's words.
    ///
    /// # Errors
    /// A request that the provider would silently answer otherwise than asked.
    fn adapt(&self, draft: &mut Draft<'_>) -> Result<(), ProviderError>;

    /// What kind of failure an error is; `status` is 200 for one that came in the form of an answer.
    fn classify(&self, status: u16, error: &ErrorBody) -> ErrorClass;

    /// How long the words of an error of `class` ask us to wait, seen at `now`.
    fn wait_in_words(
        &self,
        _class: ErrorClass,
        _message: &str,
        _now: SystemTime,
    ) -> Option<Duration> {
        None
    }

    /// Why an answer ended, in OpenAI's words.
    ///
    /// # Errors
    /// An end that is none.
    fn finish(&self, reason: FinishReason) -> Result<FinishReason, ProviderError> {
        Ok(reason)
    }

    /// Whether a tool of that name is the provider's own, whose calls are to be echoed (see [`super::search`]).
    fn is_echoed(&self, _tool: &str) -> bool {
        false
    }
}

/// A request on its way into a provider's words.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    /// As the client asked.
    pub(super) request: &'a ChatRequest,
    /// What the configuration knows of the model.
    pub(super) model: Option<&'a Model>,
    /// As it will be sent.
    pub(super) outgoing: Outgoing<'a>,
    /// Parameters that are not sent as asked, by their OpenAI names.
    pub(super) dropped: Vec<String>,
}

impl<'a> Draft<'a> {
    /// The request in OpenAI's words, for the model that the provider knows as `name`, without what the configuration says the model refuses.
    ///
    /// # Errors
    /// A `reasoning_effort` that the model has no word for.
    pub(super) fn new(
        request: &'a ChatRequest,
        name: &str,
        model: Option<&'a Model>,
    ) -> Result<Self, ProviderError> {
        let mut draft = Draft {
            request,
            model,
            outgoing: Outgoing::new(request),
            dropped: Vec::new(),
        };
        draft.set("model", name);
        for parameter in model.iter().flat_map(|model| &model.drop) {
            draft.drop(parameter);
        }
        draft.check_effort()?;
        draft.switch_thinking();
        Ok(draft)
    }

    /// Sets a field.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.outgoing.fields.insert(key.into(), value.into());
    }

    /// Takes a field out.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.outgoing.fields.shift_remove(key)
    }

    /// Gives a field another name.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        if let Some(value) = self.take(from) {
            self.set(to, value);
        }
    }

    /// Takes a field out, and says so if it asked for anything but what happens anyway.
    pub(super) fn drop(&mut self, key: &str) {
        if self.take(key).is_some_and(|value| !is_neutral(key, &value)) {
            self.say_dropped(key);
        }
    }

    /// Says that `parameter` is not sent as asked.
    pub(super) fn say_dropped(&mut self, parameter: &str) {
        if !self.dropped.iter().any(|name| name == parameter) {
            self.dropped.push(parameter.into());
        }
    }

    /// Always in pieces, with the usage at the end.
    pub(super) fn stream(&mut self) {
        self.set("stream", true);
    }

    fn check_effort(&mut self) -> Result<(), ProviderError> {
        let (Some(effort), Some(model)) = (&self.request.reasoning_effort, self.model) else {
            return Ok(());
        };
        let sent = self.outgoing.fields.contains_key("reasoning_effort");
        if !sent || model.efforts.is_empty() || model.efforts.contains(effort) {
            return Ok(());
        }
        let accepted = model.efforts.join(", ");
        let message = format!(
            "`reasoning_effort` is {effort:?}: {} accepts {accepted}",
            model.name
        );
        Err(refused("reasoning_effort", message))
    }

    /// Sends no switch to a model that has none, and says so where that is not what was asked.
    fn switch_thinking(&mut self) {
        let bare = self.request.thinking_options.is_empty();
        match (
            self.model.map(|model| model.thinking),
            self.request.thinking,
        ) {
            (Some(Thinking::Always), Some(false)) | (Some(Thinking::Never), Some(true)) => {
                self.drop("thinking");
            }
            (Some(Thinking::Always), Some(true)) if bare => {
                self.take("thinking");
            }
            (Some(Thinking::Never), Some(false)) => {
                self.take("thinking");
            }
            (Some(_) | None, _) => {}
        }
    }
}

/// Whether a parameter says what its absence says: many clients send OpenAI's defaults with each request.
pub(super) fn is_neutral(parameter: &str, value: &Value) -> bool {
    const NEUTRAL: [(&str, f64); 4] = [
        ("temperature", 1.0),
        ("n", 1.0),
        ("presence_penalty", 0.0),
        ("frequency_penalty", 0.0),
    ];
    match value {
        Value::Null => true,
        Value::Bool(wanted) => match parameter {
            "logprobs" => !wanted,
            "parallel_tool_calls" => *wanted,
            _ => false,
        },
        Value::Number(number) => NEUTRAL
            .iter()
            .any(|(name, neutral)| *name == parameter && number.as_f64() == Some(*neutral)),
        Value::String(_) | Value::Array(_) | Value::Object(_) => false,
    }
}

/// A request that we don't send.
pub(super) fn refused(param: &str, message: String) -> ProviderError {
    ProviderError {
        param: Some(param.into()),
        ..ProviderError::new(ErrorClass::InvalidRequest, message)
    }
}

/// Any endpoint that speaks OpenAI's wire.
#[derive(Debug)]
pub(super) struct Plain;

impl Dialect for Plain {
    fn adapt(&self, draft: &mut Draft<'_>) -> Result<(), ProviderError> {
        // Servers that are older than the newer name say so in their models' `drop` list.
        if draft.take_from_dropped("max_completion_tokens")
            && let Some(max) = draft.request.max_output_tokens
        {
            draft.set("max_tokens", max);
        }
        if draft.request.web_search {
            draft.say_dropped("web_search");
        }
        if draft.request.stream {
            draft.outgoing.ask_for_usage();
        }
        Ok(())
    }

    fn classify(&self, status: u16, error: &ErrorBody) -> ErrorClass {
        let words = [&error.code, &error.kind].into_iter().flatten();
        let known = words.filter_map(|word| match word.as_str() {
            "context_length_exceeded" => Some(ErrorClass::ContextLength),
            "content_filter" | "content_policy_violation" => Some(ErrorClass::ContentFilter),
            "insufficient_quota" | "billing_hard_limit_reached" => Some(ErrorClass::Quota),
            "invalid_api_key" => Some(ErrorClass::Auth),
            "model_not_found" => Some(ErrorClass::ModelNotFound),
            "rate_limit_exceeded" => Some(ErrorClass::RateLimited),
            "overloaded_error" => Some(ErrorClass::Overloaded),
            _ => None,
        });
        let class = known.into_iter().next();
        class.unwrap_or_else(|| trouble::class_of_status(status))
    }
}

impl Draft<'_> {
    /// Takes `parameter` off the list of what was dropped, because it is sent in another way.
    fn take_from_dropped(&mut self, parameter: &str) -> bool {
        let before = self.dropped.len();
        self.dropped.retain(|name| name != parameter);
        self.dropped.len() < before
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::providers::testing::model;
    use crate::wire::parse_request;

    /// What `dialect` sends for a request with `fields`, and what it says it dropped.
    pub(in crate::providers) fn sent(
        dialect: &dyn Dialect,
        model: Option<&Model>,
        fields: Value,
    ) -> Result<(Value, Vec<String>), ProviderError> {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
        for (key, value) in fields.as_object().expect("fields") {
            body[key] = value.clone();
        }
        let request = parse_request(body.to_string().as_bytes(), 64).expect("a request");
        let mut draft = Draft::new(&request.chat, "m", model)?;
        dialect.adapt(&mut draft)?;
        let bytes = draft.outgoing.to_bytes(&[]);
        Ok((serde_json::from_slice(&bytes).expect("JSON"), draft.dropped))
    }

    #[test]
    fn what_the_configuration_says_a_model_refuses_is_dropped_and_named() {
        let mut model = model("m", Thinking::Optional);
        model.drop = vec!["temperature".into(), "seed".into()];
        let fields = json!({"temperature": 0.3, "top_p": 0.5});
        assert!(
            sent(
                &Plain,
                Some(&model),
                json!({"temperature": 1, "seed": null})
            )
            .is_ok_and(|(body, dropped)| dropped.is_empty() && body.get("temperature").is_none())
        );
        let (body, dropped) = sent(&Plain, Some(&model), fields).expect("a body");
        assert_eq!(dropped, ["temperature"]);
        assert_eq!(
            (body.get("temperature"), &body["top_p"]),
            (None, &json!(0.5))
        );
    }

    #[test]
    fn an_effort_that_the_model_has_no_word_for_is_refused_with_those_it_has() {
        let mut model = model("m", Thinking::Always);
        model.efforts = vec!["low".into(), "high".into()];
        let error = sent(&Plain, Some(&model), json!({"reasoning_effort": "medium"}));
        let error = error.expect_err("refused");
        assert_eq!(error.param.as_deref(), Some("reasoning_effort"));
        let message = "`reasoning_effort` is \"medium\": m accepts low, high";
        assert_eq!(
            (error.class, error.message.as_str()),
            (ErrorClass::InvalidRequest, message)
        );
    }

    #[test]
    fn a_switch_is_sent_only_to_a_model_that_has_one() {
        let switch = |thinking, wanted: &str| {
            let model = model("m", thinking);
            let fields = json!({"thinking": {"type": wanted}});
            let (body, dropped) = sent(&Plain, Some(&model), fields).expect("a body");
            (body.get("thinking").is_some(), dropped.len())
        };
        assert_eq!(switch(Thinking::Default, "disabled"), (true, 0));
        assert_eq!(switch(Thinking::Optional, "enabled"), (true, 0));
        assert_eq!(switch(Thinking::Always, "disabled"), (false, 1));
        assert_eq!(switch(Thinking::Always, "enabled"), (false, 0));
        assert_eq!(switch(Thinking::Never, "enabled"), (false, 1));
        assert_eq!(switch(Thinking::Never, "disabled"), (false, 0));
    }

    #[test]
    fn an_older_server_is_told_the_bound_by_its_older_name() {
        let mut model = model("m", Thinking::Never);
        let fields = json!({"max_tokens": 9});
        let (body, _) = sent(&Plain, Some(&model), fields.clone()).expect("a body");
        assert_eq!(body["max_completion_tokens"], 9);
        model.drop = vec!["max_completion_tokens".into()];
        let (body, dropped) = sent(&Plain, Some(&model), fields).expect("a body");
        assert_eq!((body["max_tokens"].as_u64(), dropped.len()), (Some(9), 0));
    }

    #[test]
    fn a_plain_endpoint_is_asked_as_the_client_asked() {
        let (body, _) = sent(&Plain, None, json!({})).expect("a body");
        assert_eq!(body.get("stream"), None);
        let (body, _) = sent(&Plain, None, json!({"stream": true})).expect("a body");
        assert_eq!(body["stream_options"], json!({"include_usage": true}));
    }
}
