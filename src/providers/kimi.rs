//! Kimi by Moonshot: sampling is frozen, thinking mostly can't be switched off, web searches are echoed.
//!
//! Its error bodies have a `type` and usually no `code`. Four kinds of failure share status 429, and only the type tells
//! a rate from an overload from an empty account.

use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::wire::{ErrorBody, Style};

use super::dialect::{Dialect, Draft};
use super::{ErrorClass, ProviderError, trouble};

/// Parameters that each live model takes one value of, and answers 400 to any other.
const FROZEN: [&str; 5] = [
    "temperature",
    "top_p",
    "n",
    "presence_penalty",
    "frequency_penalty",
];

/// Kimi's way.
#[derive(Debug)]
pub(super) struct Kimi;

impl Dialect for Kimi {
    fn adapt(&self, draft: &mut Draft<'_>) -> Result<(), ProviderError> {
        // Without a stream it sends no header until all is generated, and is cut off at 900 s.
        draft.stream();
        draft.outgoing.ask_for_usage();
        for parameter in FROZEN {
            draft.drop(parameter);
        }
        draft.rename("user", "safety_identifier");
        draft.outgoing.style = Style {
            developer_is_system: true,
            flat_text: true,
            // A thinking model wants its thoughts back with its calls; most clients throw them away.
            reasoning_of_calls: (draft.request.thinking != Some(false)).then_some(" "),
            ..Style::default()
        };
        if draft.request.web_search {
            let search = json!({"type": "builtin_function", "function": {"name": "$web_search"}});
            draft.outgoing.more_tools.push(search);
        }
        Ok(())
    }

    fn classify(&self, status: u16, error: &ErrorBody) -> ErrorClass {
        let says = |words: &str| error.message.contains(words);
        match error.kind.as_deref().unwrap_or_default() {
            "content_filter" => ErrorClass::ContentFilter,
            "invalid_request_error"
                if says("Input token length too long") || says("exceeded model token limit") =>
            {
                ErrorClass::ContextLength
            }
            "invalid_request_error" => ErrorClass::InvalidRequest,
            "invalid_authentication_error" | "incorrect_api_key_error" => ErrorClass::Auth,
            "exceeded_current_quota_error" => ErrorClass::Quota,
            // What a subscription says at the end of its billing cycle.
            _ if status == 403 && says("usage limit") => ErrorClass::Quota,
            "permission_denied_error" => ErrorClass::Forbidden,
            "resource_not_found_error" => ErrorClass::ModelNotFound,
            // Tokens per day: nothing more today.
            "rate_limit_reached_error" if says("TPD") => ErrorClass::PlanWindow,
            "rate_limit_reached_error" | "rate_limit_error" => ErrorClass::RateLimited,
            "engine_overloaded_error" | "server_unavailable" => ErrorClass::Overloaded,
            "server_error" | "unexpected_output" => ErrorClass::ServerError,
            _ => trouble::class_of_status(status),
        }
    }

    fn wait_in_words(&self, class: ErrorClass, message: &str, _: SystemTime) -> Option<Duration> {
        let waits = matches!(class, ErrorClass::RateLimited | ErrorClass::PlanWindow);
        waits.then(|| seconds_after(message)).flatten()
    }

    fn is_echoed(&self, tool: &str) -> bool {
        tool.starts_with('$')
    }
}

/// The figure in "please try again after 1 seconds".
fn seconds_after(message: &str) -> Option<Duration> {
    let (_, rest) = message.split_once("try again after ")?;
    let end = rest.find(|c: char| !c.is_ascii_digit());
    let figure: u32 = rest[..end.unwrap_or(rest.len())].parse().ok()?;
    Some(Duration::from_secs(figure.into()))
}

#[cfg(test)]
mod tests {
    use super::super::dialect::tests::sent;
    use super::*;
    use crate::config::Thinking;
    use crate::providers::testing::model;

    fn check(status: u16, kind: &str, message: &str, expected: ErrorClass) {
        let error = ErrorBody {
            message: message.into(),
            kind: Some(kind.into()).filter(|kind: &String| !kind.is_empty()),
            ..ErrorBody::default()
        };
        assert_eq!(Kimi.classify(status, &error), expected, "{status} {kind}");
    }

    #[test]
    fn frozen_parameters_are_not_sent_and_are_named_where_they_were_meant() {
        let fields =
            json!({"temperature": 0.2, "top_p": null, "n": 1, "frequency_penalty": 0, "seed": 7});
        let (body, dropped) = sent(&Kimi, None, fields).expect("a body");
        assert_eq!(dropped, ["temperature"]);
        for parameter in ["temperature", "top_p", "n", "frequency_penalty"] {
            assert_eq!(body.get(parameter), None, "{parameter}");
        }
        assert_eq!(body["seed"], 7);
    }

    #[test]
    fn a_request_is_put_into_kimis_words() {
        let fields = json!({"max_tokens": 5, "user": "ann", "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "x"},
        ]});
        let (body, dropped) =
            sent(&Kimi, Some(&model("m", Thinking::Always)), fields).expect("a body");
        assert!(dropped.is_empty());
        assert_eq!(body["stream"], true);
        assert_eq!(body["stream_options"], json!({"include_usage": true}));
        assert_eq!(body["max_completion_tokens"], 5);
        assert_eq!(
            (body.get("user"), &body["safety_identifier"]),
            (None, &json!("ann"))
        );
        assert_eq!(
            body["messages"][0],
            json!({"role": "system", "content": "Be brief."})
        );
        assert_eq!(body["messages"][1]["reasoning_content"], " ");
    }

    #[test]
    fn a_search_is_a_builtin_function_beside_the_clients_tools() {
        let fields = json!({"pointsman": {"web_search": true},
            "tools": [{"type": "function", "function": {"name": "f"}}]});
        let (body, _) = sent(&Kimi, None, fields).expect("a body");
        assert_eq!(body["tools"][0]["function"]["name"], "f");
        assert_eq!(body["tools"][1]["function"]["name"], "$web_search");
        assert!(Kimi.is_echoed("$web_search") && !Kimi.is_echoed("web_search"));
    }

    #[test]
    fn errors_are_told_apart_by_their_type() {
        check(
            400,
            "invalid_request_error",
            "invalid temperature",
            ErrorClass::InvalidRequest,
        );
        check(
            400,
            "invalid_request_error",
            "Your request exceeded model token limit : 262144",
            ErrorClass::ContextLength,
        );
        check(
            400,
            "content_filter",
            "high risk",
            ErrorClass::ContentFilter,
        );
        check(401, "invalid_authentication_error", "", ErrorClass::Auth);
        check(403, "permission_denied_error", "", ErrorClass::Forbidden);
        check(
            403,
            "permission_denied_error",
            "reached your usage limit for this billing cycle",
            ErrorClass::Quota,
        );
        check(
            404,
            "resource_not_found_error",
            "",
            ErrorClass::ModelNotFound,
        );
        check(
            429,
            "rate_limit_reached_error",
            "max RPM: 3",
            ErrorClass::RateLimited,
        );
        check(
            429,
            "rate_limit_reached_error",
            "max TPD: 1500000",
            ErrorClass::PlanWindow,
        );
        check(429, "engine_overloaded_error", "", ErrorClass::Overloaded);
        check(429, "exceeded_current_quota_error", "", ErrorClass::Quota);
        check(500, "server_error", "", ErrorClass::ServerError);
        check(503, "server_unavailable", "", ErrorClass::Overloaded);
        check(
            200,
            "engine_overloaded_error",
            "in a stream",
            ErrorClass::Overloaded,
        );
        check(402, "", "membership", ErrorClass::Quota);
        check(504, "", "", ErrorClass::ServerError);
    }

    #[test]
    fn the_seconds_in_the_text_are_heard() {
        let words = "request reached organization max RPM: 3, please try again after 17 seconds";
        let wait = |class| Kimi.wait_in_words(class, words, SystemTime::UNIX_EPOCH);
        assert_eq!(wait(ErrorClass::RateLimited), Some(Duration::from_secs(17)));
        assert_eq!(wait(ErrorClass::Overloaded), None);
        assert_eq!(seconds_after("try again after a while"), None);
    }
}
