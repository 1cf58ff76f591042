//! What is taken for a request, and what is said of the rest.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::chat::Role;

fn parse(body: &Value) -> Result<ParsedRequest, WireError> {
    parse_request(body.to_string().as_bytes(), 32)
}

/// A good request with `field` set to `value`.
fn with(field: &str, value: Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    body[field] = value;
    body
}

fn check_error(body: &Value, param: &str, message: &str) {
    let error = parse(body).expect_err("something is wrong");
    assert_eq!(
        (error.param(), error.to_string().as_str()),
        (Some(param), message)
    );
}

#[test]
fn a_plain_request_is_read() {
    let parsed = parse(&with("stream", json!(true))).expect("a request");
    assert_eq!(
        parsed.chat,
        ChatRequest {
            stream: true,
            ..ChatRequest::new("m").user("Hi")
        }
    );
    assert_eq!(parsed.options, Options::default());
}

#[test]
fn our_own_object_is_taken_out_and_heard() {
    let ours = json!({"session_id": "s", "priority": 1, "timeout": 30, "use_websearch": true, "thinking": false,
        "continuation_id": "c"});
    let parsed = parse(&with("pointsman", ours)).expect("a request");
    assert!(parsed.chat.web_search && parsed.chat.extra.is_empty());
    assert_eq!(parsed.chat.thinking, Some(false));
    let options = parsed.options;
    assert_eq!(options.session_id.as_deref(), Some("s"));
    assert_eq!(
        (options.priority.as_deref(), options.timeout.as_deref()),
        (Some("1"), Some("30s"))
    );
    assert_eq!(options.continuation_id.as_deref(), Some("c"));
}

#[test]
fn our_word_on_thinking_stands_above_a_type_that_we_do_not_know() {
    let mut body = with("thinking", json!({"type": "auto", "keep": "all"}));
    body["pointsman"] = json!({"thinking": true});
    let chat = parse(&body).expect("a request").chat;
    assert_eq!(chat.thinking, Some(true));
    assert_eq!(Value::Object(chat.thinking_options), json!({"keep": "all"}));
}

#[test]
fn every_wrong_field_is_named_with_what_was_found_and_what_is_accepted() {
    let messages = |message: Value| with("messages", json!([message]));
    check_error(
        &json!({"messages": []}),
        "messages",
        "`messages` is an empty array: expected an array of at least one message",
    );
    check_error(
        &json!({"messages": [{"role": "user", "content": ""}]}),
        "model",
        "`model` is missing: expected the name of a model, or \"auto\"",
    );
    check_error(
        &json!({"model": "m"}),
        "messages",
        "`messages` is missing: expected an array of at least one message",
    );
    check_error(
        &with("model", json!(3)),
        "model",
        "`model` is the number 3: expected a string",
    );
    check_error(
        &with("max_tokens", json!(-1)),
        "max_tokens",
        "`max_tokens` is the number -1: expected a whole number of at least 1",
    );
    check_error(
        &with("temperature", json!("hot")),
        "temperature",
        "`temperature` is the string \"hot\": expected a number",
    );
    check_error(
        &messages(json!({"content": "x"})),
        "messages[0].role",
        "`messages[0].role` is missing: expected system, developer, user, assistant or tool",
    );
    check_error(
        &messages(json!({"role": "user", "content": ["x"]})),
        "messages[0].content[0]",
        "`messages[0].content[0]` is the string \"x\": expected a content part (an object)",
    );
    check_error(
        &messages(json!({"role": "tool", "content": "x"})),
        "messages[0].tool_call_id",
        "`messages[0].tool_call_id` is missing: expected the id of the call that it answers",
    );
    check_error(
        &with("tools", json!([{"type": "function", "function": {}}])),
        "tools[0].function.name",
        "`tools[0].function.name` is missing: expected a string",
    );
    check_error(
        &with("stream_options", json!({"include_usage": 1})),
        "stream_options.include_usage",
        "`stream_options.include_usage` is the number 1: expected true or false",
    );
    check_error(
        &with("pointsman", json!({"sesion": 1})),
        "pointsman.sesion",
        "`pointsman.sesion` is unknown (with the number 1): expected session_id, priority, timeout, web_search, \
         thinking or continuation_id",
    );
}

#[test]
fn what_we_do_not_know_is_kept_as_it_came() {
    let parsed = parse(&with("logit_bias", json!({"50256": -100}))).expect("a request");
    assert_eq!(parsed.chat.extra["logit_bias"], json!({"50256": -100}));
    let parsed = parse(&with(
        "messages",
        json!([{"role": "critic", "content": null}]),
    ))
    .expect("one");
    assert_eq!(parsed.chat.messages[0].role, Role::Other("critic".into()));
}

#[test]
fn of_both_names_of_the_bound_the_newer_counts_wherever_it_stands() {
    for (first, second) in [
        ("max_tokens", "max_completion_tokens"),
        ("max_completion_tokens", "max_tokens"),
    ] {
        let value = |name: &str| if name == "max_tokens" { 5 } else { 7 };
        let mut body = with(first, json!(value(first)));
        body[second] = json!(value(second));
        assert_eq!(
            parse(&body).expect("a request").chat.max_output_tokens,
            Some(7)
        );
    }
}

#[test]
fn of_a_key_that_stands_twice_the_last_counts() {
    let body = br#"{"model":"a","model":"b","messages":[{"role":"user","content":"x"}]}"#;
    assert_eq!(parse_request(body, 32).expect("a request").chat.model, "b");
}

#[test]
fn no_body_however_deep_or_broken_is_more_than_an_error() {
    let deep = [b"[".repeat(1_000_000), br#"{"a":"#.repeat(200_000)];
    for body in &deep {
        assert!(matches!(
            parse_request(body, 128),
            Err(WireError::TooDeep { max: MAX_DEPTH, .. })
        ));
    }
    let at_the_bound = format!(
        "{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"x\"}}],\"x\":{}1{}}}",
        "[".repeat(MAX_DEPTH - 1),
        "]".repeat(MAX_DEPTH - 1)
    );
    assert!(parse_request(at_the_bound.as_bytes(), 1000).is_ok());
    assert_eq!(
        parse_request(b"{\"a\":\"\xff\"}", 9),
        Err(WireError::NotUtf8 { at: 6 })
    );
    for body in ["", "{", "{}x", "{} {}", "\u{feff}{}", "nul"] {
        assert!(
            matches!(parse_request(body.as_bytes(), 9), Err(WireError::Syntax(_))),
            "{body:?}"
        );
    }
    assert!(matches!(
        parse_request(b"[1]", 9),
        Err(WireError::NotAnObject { .. })
    ));
}

#[test]
fn brackets_in_strings_do_not_count() {
    let body = with("user", json!("[[[[{{{{\"\\[[[["));
    assert!(parse_request(body.to_string().as_bytes(), 3).is_ok());
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_request(&body, 8);
    }

    #[test]
    fn no_json_makes_the_reader_panic(field in "(model|messages|tools|thinking|pointsman|stream_options|tool_choice)",
        text in r#"[\[\]{}:,"a-z0-9 ]{0,40}"#) {
        let _ = parse_request(format!("{{\"{field}\":{text}}}").as_bytes(), 8);
    }
}

#[test]
fn what_the_values_of_a_body_take_is_asked_for_before_they_are_made() {
    let ask = |body: &str| {
        let mut asked = None;
        let read = parse_request_within(body.as_bytes(), 32, |bytes| {
            asked = Some(bytes / VALUE_BYTES);
            Err(WireError::Syntax("no".into()))
        });
        assert!(matches!(read, Err(WireError::Syntax(why)) if why == "no"));
        asked
    };
    assert_eq!(ask(r#"{"a":[1,{},[]],"b":",[{:\\\","}"#), Some(9));
    assert_eq!(ask("no JSON at all"), Some(0));
    let deep = "[".repeat(40);
    let never = parse_request_within(deep.as_bytes(), 32, |_| -> Result<(), WireError> {
        panic!("it is refused before")
    });
    assert!(matches!(never, Err(WireError::TooDeep { .. })));
}
