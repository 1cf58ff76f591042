//! GLM by Zhipu: numbered errors, a search of its own, and parameters that it takes and then ignores.
//!
//! Where it would answer 200 and do something else than asked (`tool_choice: required`, a JSON schema) we refuse, since
//! nobody would notice otherwise; `tool_choice: none` is kept by sending no tools.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::chat::{FinishReason, ResponseFormat, ToolChoice};
use crate::wire::{ErrorBody, Style};

use super::dialect::{Dialect, Draft, refused};
use super::{ErrorClass, ProviderError, trouble};

/// OpenAI's parameters that it doesn't know.
const UNKNOWN: [&str; 8] = [
    "n",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "seed",
    "parallel_tool_calls",
];

/// Its plan's times are said in China's.
const CHINA: Duration = Duration::from_secs(8 * 3600);

/// GLM's way.
#[derive(Debug)]
pub(super) struct Glm {
    /// The search that the endpoint offers.
    engine: &'static str,
}

impl Glm {
    /// For the endpoint at `base_url`: the Chinese one has other searches than the international one.
    pub(super) fn at(base_url: &str) -> Self {
        let chinese = base_url.contains("bigmodel.cn");
        Glm {
            engine: if chinese {
                "search_pro"
            } else {
                "search_pro_jina"
            },
        }
    }
}

impl Dialect for Glm {
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[("accept-language", "en-US,en")]
    }

    fn adapt(&self, draft: &mut Draft<'_>) -> Result<(), ProviderError> {
        draft.stream();
        choose_tools(draft)?;
        check_format(draft)?;
        // It sends its usage unasked, and has no other option for a stream.
        draft.take("stream_options");
        for parameter in UNKNOWN {
            draft.drop(parameter);
        }
        draft.rename("max_completion_tokens", "max_tokens");
        bound_sampling(draft);
        list_stop_words(draft);
        name_user(draft);
        draft.outgoing.style = Style {
            developer_is_system: true,
            flat_text: true,
            whole_functions: true,
            ..Style::default()
        };
        if draft.request.web_search {
            let search =
                json!({"enable": true, "search_engine": self.engine, "search_result": true});
            let tool = json!({"type": "web_search", "web_search": search});
            draft.outgoing.more_tools.push(tool);
        }
        Ok(())
    }

    fn classify(&self, status: u16, error: &ErrorBody) -> ErrorClass {
        let code = error.code.as_deref().unwrap_or_default();
        match code.parse().unwrap_or(0u32) {
            401 | 1000 | 1001 | 1003 | 1004 | 1005 | 1110..=1112 | 1120 | 1121 => ErrorClass::Auth,
            1113 | 1309 | 1311 | 1313..=1315 => ErrorClass::Quota,
            1200 | 1230 | 1234 => ErrorClass::ServerError,
            1211 => ErrorClass::ModelNotFound,
            1214 if error.message.contains("modelCode") => ErrorClass::ModelNotFound,
            1210 | 1212..=1215 | 1221 | 1222 => ErrorClass::InvalidRequest,
            1220 => ErrorClass::Forbidden,
            1261 => ErrorClass::ContextLength,
            1301 => ErrorClass::ContentFilter,
            1302 | 1303 => ErrorClass::RateLimited,
            1305 | 1312 => ErrorClass::Overloaded,
            1304 | 1308 | 1310 | 1316..=1321 => ErrorClass::PlanWindow,
            _ => trouble::class_of_status(status),
        }
    }

    fn wait_in_words(&self, class: ErrorClass, message: &str, now: SystemTime) -> Option<Duration> {
        if class != ErrorClass::PlanWindow {
            return None;
        }
        reset_time(message)?.duration_since(now).ok()
    }

    fn finish(&self, reason: FinishReason) -> Result<FinishReason, ProviderError> {
        match reason {
            FinishReason::Other(word) => match word.as_str() {
                "sensitive" => Ok(FinishReason::ContentFilter),
                "model_context_window_exceeded" => Ok(FinishReason::Length),
                "network_error" => {
                    let message = "the provider broke its answer off (network_error)";
                    Err(ProviderError {
                        code: Some(word),
                        ..ProviderError::new(ErrorClass::ServerError, message)
                    })
                }
                _ => Ok(FinishReason::Other(word)),
            },
            FinishReason::Stop
            | FinishReason::Length
            | FinishReason::ToolCalls
            | FinishReason::ContentFilter => Ok(reason),
        }
    }
}

fn choose_tools(draft: &mut Draft<'_>) -> Result<(), ProviderError> {
    match &draft.request.tool_choice {
        None | Some(ToolChoice::Auto) => Ok(()),
        Some(ToolChoice::None) => {
            draft.take("tool_choice");
            draft.outgoing.tools = &[];
            Ok(())
        }
        Some(ToolChoice::Required | ToolChoice::Function(_) | ToolChoice::Other(_)) => {
            let message =
                "`tool_choice`: GLM knows auto and none, and would silently ignore anything else";
            Err(refused("tool_choice", message.into()))
        }
    }
}

fn check_format(draft: &Draft<'_>) -> Result<(), ProviderError> {
    if matches!(
        draft.request.response_format,
        Some(ResponseFormat::JsonSchema(_))
    ) {
        let message =
            "`response_format`: GLM knows text and json_object, and would silently ignore a schema";
        return Err(refused("response_format", message.into()));
    }
    Ok(())
}

/// Temperature is 0 to 1, and 0 is said in another way; `top_p` is 0.01 to 1.
fn bound_sampling(draft: &mut Draft<'_>) {
    let number = |draft: &Draft<'_>, key: &str| draft.outgoing.fields.get(key)?.as_f64();
    if let Some(temperature) = number(draft, "temperature") {
        if temperature <= 0.0 {
            draft.take("temperature");
            draft.set("do_sample", false);
        } else if temperature > 1.0 {
            draft.set("temperature", 1.0);
            draft.say_dropped("temperature");
        }
    }
    if let Some(top_p) = number(draft, "top_p")
        && !(0.01..=1.0).contains(&top_p)
    {
        draft.set("top_p", top_p.clamp(0.01, 1.0));
        draft.say_dropped("top_p");
    }
}

/// An array, of which one word is honoured.
fn list_stop_words(draft: &mut Draft<'_>) {
    match draft.take("stop") {
        Some(Value::String(word)) => draft.set("stop", vec![word]),
        Some(Value::Array(mut words)) => {
            if words.len() > 1 {
                words.truncate(1);
                draft.say_dropped("stop");
            }
            draft.set("stop", words);
        }
        Some(_) | None => {}
    }
}

/// Names of 6 to 128 characters, under a name of its own.
fn name_user(draft: &mut Draft<'_>) {
    match draft.take("user") {
        Some(Value::String(user)) if (6..=128).contains(&user.chars().count()) => {
            draft.set("user_id", user);
        }
        Some(_) => draft.say_dropped("user"),
        None => {}
    }
}

/// The first time of the form `2026-09-03 05:35:16` in a text.
fn reset_time(message: &str) -> Option<SystemTime> {
    const LENGTH: usize = "2026-09-03 05:35:16".len();
    let starts = 0..message.len().saturating_sub(LENGTH - 1);
    let texts = starts.filter_map(|start| message.get(start..start + LENGTH));
    let mut times = texts.filter_map(|text| humantime::parse_rfc3339_weak(text).ok());
    times.next()?.checked_sub(CHINA)
}

#[cfg(test)]
mod tests {
    use super::super::dialect::tests::sent;
    use super::*;

    fn glm() -> Glm {
        Glm::at("https://api.z.ai/api/paas/v4")
    }

    fn body(fields: Value) -> (Value, Vec<String>) {
        sent(&glm(), None, fields).expect("a body")
    }

    fn check(status: u16, code: &str, expected: ErrorClass) {
        let error = ErrorBody {
            code: Some(code.into()),
            ..ErrorBody::default()
        };
        assert_eq!(glm().classify(status, &error), expected, "{status} {code}");
    }

    #[test]
    fn a_request_is_put_into_glms_words() {
        let (body, dropped) = body(json!({
            "max_completion_tokens": 5, "user": "ann-of-ulm", "temperature": 0, "top_p": 1.0, "n": 1,
            "stop": "END", "tools": [{"type": "function", "function": {"name": "f"}}],
        }));
        assert_eq!(dropped, Vec::<String>::new());
        assert_eq!(
            (&body["max_tokens"], &body["user_id"]),
            (&json!(5), &json!("ann-of-ulm"))
        );
        assert_eq!(
            (&body["do_sample"], body.get("temperature")),
            (&json!(false), None)
        );
        assert_eq!(
            (&body["stop"], &body["stream"]),
            (&json!(["END"]), &json!(true))
        );
        assert_eq!(body["tools"][0]["function"]["description"], "");
        assert_eq!(
            (body.get("n"), body.get("max_completion_tokens")),
            (None, None)
        );
    }

    #[test]
    fn what_is_not_sent_as_asked_is_named() {
        let (body, dropped) = body(json!({
            "temperature": 1.5, "top_p": 0.0, "seed": 1, "logit_bias": {}, "stop": ["a", "b"], "user": "ann",
        }));
        assert_eq!(
            dropped,
            ["logit_bias", "seed", "temperature", "top_p", "stop", "user"]
        );
        assert_eq!(
            (&body["temperature"], &body["top_p"]),
            (&json!(1.0), &json!(0.01))
        );
        assert_eq!(body["stop"], json!(["a"]));
    }

    #[test]
    fn what_would_silently_be_ignored_is_refused() {
        let schema = json!({"response_format": {"type": "json_schema", "json_schema": {}}});
        for fields in [json!({"tool_choice": "required"}), schema] {
            let error = sent(&glm(), None, fields.clone()).expect_err("refused");
            assert_eq!(error.class, ErrorClass::InvalidRequest);
            assert!(fields.get(error.param.expect("a field")).is_some());
        }
        let tools = json!({"tool_choice": "none", "tools": [{"type": "function", "function": {"name": "f"}}]});
        let (body, _) = body(tools);
        assert_eq!((body.get("tools"), body.get("tool_choice")), (None, None));
    }

    #[test]
    fn a_search_is_a_tool_of_its_own_with_the_endpoints_engine() {
        let fields = json!({"pointsman": {"web_search": true}});
        let (international, _) = body(fields.clone());
        let search = &international["tools"][0]["web_search"];
        assert_eq!(search["search_engine"], "search_pro_jina");
        let chinese = Glm::at("https://open.bigmodel.cn/api/paas/v4");
        let (chinese, _) = sent(&chinese, None, fields).expect("a body");
        assert_eq!(
            chinese["tools"][0]["web_search"]["search_engine"],
            "search_pro"
        );
    }

    #[test]
    fn errors_are_told_apart_by_their_number() {
        check(429, "1113", ErrorClass::Quota);
        check(429, "1302", ErrorClass::RateLimited);
        check(429, "1305", ErrorClass::Overloaded);
        check(200, "1305", ErrorClass::Overloaded);
        check(429, "1308", ErrorClass::PlanWindow);
        check(429, "1315", ErrorClass::Quota);
        check(401, "401", ErrorClass::Auth);
        check(400, "1210", ErrorClass::InvalidRequest);
        check(400, "1211", ErrorClass::ModelNotFound);
        check(400, "1261", ErrorClass::ContextLength);
        check(400, "1301", ErrorClass::ContentFilter);
        check(403, "1220", ErrorClass::Forbidden);
        check(500, "1234", ErrorClass::ServerError);
        check(500, "", ErrorClass::ServerError);
        check(429, "9999", ErrorClass::RateLimited);
    }

    #[test]
    fn a_plans_window_ends_when_its_text_says_so() {
        let now = humantime::parse_rfc3339("2027-01-01T00:00:00Z").expect("a time");
        let wait = |words: &str| glm().wait_in_words(ErrorClass::PlanWindow, words, now);
        let words = "已达到上限。Your limit will reset at 2027-01-01 08:00:30";
        assert_eq!(wait(words), Some(Duration::from_secs(30)));
        assert_eq!(wait("will reset at 2026-12-31 08:00:30"), None, "long ago");
        assert_eq!(wait("will reset some day"), None);
    }

    #[test]
    fn its_own_ends_are_said_in_openais_words_and_a_failure_is_none() {
        let finish = |word: &str| glm().finish(FinishReason::Other(word.into()));
        assert_eq!(finish("sensitive"), Ok(FinishReason::ContentFilter));
        assert_eq!(
            finish("model_context_window_exceeded"),
            Ok(FinishReason::Length)
        );
        assert_eq!(
            finish("network_error").expect_err("none").class,
            ErrorClass::ServerError
        );
    }
}
