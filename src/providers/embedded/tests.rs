//! What the embedded models answer, and how they go wrong.

use std::ops::ControlFlow;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::cancel::{CancelReason, CancelToken};
use crate::chat::{ChatReply, ChatRequest, Message, ResponseFormat, Role, Tool, ToolChoice};
use crate::clock::{ManualClock, SystemClock};
use crate::config::ProviderKind;
use crate::providers::testing::{Deaf, answer, provider, run, run_until, timeouts};

fn embedded() -> Embedded {
    let mut config = provider("embedded", ProviderKind::Embedded);
    config.faults = true;
    Embedded::new(&config, &timeouts(), Arc::new(ManualClock::new()))
}

fn slow(latency: Duration, pace: Duration) -> Embedded {
    let mut embedded = embedded();
    (embedded.config.latency, embedded.config.pace) = (latency, pace);
    embedded
}

fn ask(model: &str) -> ChatRequest {
    ChatRequest::new(model).user("Which way to Ulm?")
}

fn lookup() -> Tool {
    Tool::Function {
        name: "lookup".into(),
        description: None,
        parameters: Some(json!({"type": "object", "properties": {"city": {"type": "string"}}})),
        extra: Default::default(),
    }
}

#[test]
fn the_plain_model_names_itself_repeats_the_question_and_counts() {
    let (pieces, end) = run(&embedded(), &ask("embedded"));
    assert_eq!(end, Ok(()));
    assert!(matches!(pieces.first(), Some(Piece::Head(_))));
    let reply = answer(&embedded(), &ask("embedded/embedded"));
    let text = reply.text();
    assert!(
        text.contains("embedded") && text.ends_with("Which way to Ulm?"),
        "{text}"
    );
    let usage = reply.usage.clone().expect("usage");
    assert_eq!(usage.completion as usize, text.split_whitespace().count());
    assert_eq!((usage.prompt, usage.total), (5, 5 + usage.completion));
    assert_eq!(
        reply,
        answer(&embedded(), &ask("embedded")),
        "the same again"
    );
}

#[test]
fn the_reasoning_model_thinks_first_unless_told_not_to() {
    let mut request = ask("embedded-reasoning");
    let reply = answer(&embedded(), &request);
    assert!(reply.choices[0].message.reasoning.is_some());
    assert!(reply.usage.expect("usage").reasoning > Some(0));
    request.thinking = Some(false);
    assert_eq!(
        answer(&embedded(), &request).choices[0].message.reasoning,
        None
    );
}

#[test]
fn the_tool_model_calls_a_tool_and_then_answers_from_its_result() {
    let mut request = ask("embedded-tools");
    request.tools = vec![lookup()];
    let reply = answer(&embedded(), &request);
    let choice = &reply.choices[0];
    assert_eq!(choice.finish, Some(FinishReason::ToolCalls));
    let call = choice.message.tool_calls[0].clone();
    assert_eq!(call.name, "lookup");
    let arguments: Value = serde_json::from_str(&call.arguments).expect("JSON");
    assert_eq!(arguments, json!({"city": "Which way to Ulm?"}));
    let mut result = Message::new(Role::Tool, "northwards");
    result.tool_call_id = Some(call.id);
    let request = request.message(choice.message.clone()).message(result);
    let reply = answer(&embedded(), &request);
    assert!(reply.text().contains("northwards"));
    assert_eq!(reply.choices[0].finish, Some(FinishReason::Stop));
}

#[test]
fn a_bound_on_the_answer_is_kept_and_named() {
    let mut request = ask("embedded-reasoning");
    request.max_output_tokens = Some(3);
    let reply = answer(&embedded(), &request);
    assert_eq!(reply.choices[0].finish, Some(FinishReason::Length));
    assert_eq!(reply.usage.expect("usage").completion, 3);
}

#[test]
fn json_is_answered_where_json_is_asked_for() {
    let mut request = ask("embedded");
    request.response_format = Some(ResponseFormat::JsonObject);
    let text = answer(&embedded(), &request).text();
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value["echo"], "Which way to Ulm?");
    let schema = json!({"name": "n", "schema": {"type": "object", "properties": {"km": {"type": "integer"}}}});
    request.response_format = Some(ResponseFormat::JsonSchema(schema));
    assert_eq!(answer(&embedded(), &request).text(), "{\"km\":1}");
}

#[test]
fn an_answer_ends_before_the_first_word_to_stop_at() {
    let whole = answer(&embedded(), &ask("embedded")).text();
    for (stop, expected) in [
        (json!("way"), "Which "),
        (json!(["Ulm", "to"]), "Which way "),
        (json!(["nowhere"]), "Which way to Ulm?"),
        (json!(""), "Which way to Ulm?"),
    ] {
        let mut request = ask("embedded");
        request.extra.insert("stop".into(), stop);
        let reply = answer(&embedded(), &request);
        assert_eq!(reply.choices[0].finish, Some(FinishReason::Stop));
        assert!(whole.starts_with(&reply.text()) && reply.text().ends_with(expected));
    }
}

#[test]
fn several_answers_are_given_where_they_are_asked_for_and_counted() {
    let mut request = ask("embedded-reasoning");
    let one = answer(&embedded(), &request);
    request.extra.insert("n".into(), json!(3));
    let reply = answer(&embedded(), &request);
    assert_eq!(reply.choices.len(), 3);
    for (choice, index) in reply.choices.iter().zip(0..) {
        assert_eq!(
            (choice.index, &choice.message),
            (index, &one.choices[0].message)
        );
        assert_eq!(choice.finish, Some(FinishReason::Stop));
    }
    let usage = |reply: &ChatReply| {
        let usage = reply.usage.clone().expect("usage");
        (usage.completion, usage.reasoning.expect("it thinks"))
    };
    let (completion, reasoning) = usage(&one);
    assert_eq!(usage(&reply), (3 * completion, 3 * reasoning));
}

#[test]
fn each_model_calls_a_tool_where_it_has_to_and_several_where_it_may() {
    let mut request = ask("embedded");
    let mut other = lookup();
    if let Tool::Function { name, .. } = &mut other {
        *name = "other".into();
    }
    request.tools = vec![lookup(), other];
    let calls = |request: &ChatRequest| -> Vec<String> {
        let calls = answer(&embedded(), request).choices[0]
            .message
            .tool_calls
            .clone();
        calls.into_iter().map(|call| call.name).collect()
    };
    assert_eq!(calls(&request), [""; 0], "it need not");
    for (choice, parallel, expected) in [
        (ToolChoice::Required, false, &["lookup"][..]),
        (ToolChoice::Required, true, &["lookup", "other"][..]),
        (ToolChoice::Function("other".into()), true, &["other"][..]),
        (ToolChoice::None, true, &[][..]),
    ] {
        request.tool_choice = Some(choice);
        request
            .extra
            .insert("parallel_tool_calls".into(), json!(parallel));
        for model in ["embedded", "embedded-reasoning", "embedded-tools"] {
            request.model = model.into();
            assert_eq!(calls(&request), expected, "{model}");
        }
    }
}

#[test]
fn what_it_can_not_do_is_refused_in_words_and_what_has_no_effect_is_named() {
    let refused = |key: &str, value: Value| {
        let mut request = ask("embedded");
        match key {
            "tool_choice" => request.tool_choice = Some(ToolChoice::Required),
            "response_format" => {
                request.response_format = Some(ResponseFormat::Other(json!({"type": "x"})));
            }
            _ => drop(request.extra.insert(key.into(), value)),
        }
        let error = run(&embedded(), &request).1.expect_err(key);
        assert_eq!(error.class, ErrorClass::InvalidRequest, "{key}");
        error.param.expect("a parameter")
    };
    assert_eq!(refused("logprobs", json!(true)), "logprobs");
    assert_eq!(refused("top_logprobs", json!(2)), "logprobs");
    assert_eq!(refused("n", json!(9)), "n");
    assert_eq!(refused("tool_choice", Value::Null), "tool_choice");
    assert_eq!(refused("response_format", Value::Null), "response_format");
    let mut request = ask("embedded");
    for (key, value) in [
        ("temperature", json!(0.2)),
        ("top_p", Value::Null),
        ("presence_penalty", json!(0)),
        ("logprobs", json!(false)),
        ("seed", json!(7)),
    ] {
        request.extra.insert(key.into(), value);
    }
    request.thinking = Some(true);
    request.web_search = true;
    let (pieces, end) = run(&embedded(), &request);
    assert_eq!(end, Ok(()));
    let Some(Piece::Head(head)) = pieces.first() else {
        panic!("{pieces:?}");
    };
    assert_eq!(head.dropped, ["temperature", "thinking", "web_search"]);
}

#[test]
fn an_unknown_model_and_a_fault_that_is_switched_off_are_not_found() {
    let mut quiet = embedded();
    quiet.config.faults = false;
    for (provider, model) in [(&embedded(), "gpt"), (&quiet, "fault-429")] {
        let error = run(provider, &ask(model)).1.expect_err("no such model");
        assert_eq!(error.class, ErrorClass::ModelNotFound);
    }
    assert!(fault_models(&quiet.config).is_empty());
    assert_eq!(
        fault_models(&embedded().config).len(),
        faults::Fault::ALL.len()
    );
}

#[test]
fn a_cancel_ends_any_silence_at_once() {
    let hour = Duration::from_secs(3600);
    let zero = Duration::ZERO;
    let cases = [
        (slow(hour, zero), "embedded"),
        (slow(zero, hour), "embedded"),
        (embedded(), "fault-stall"),
        (embedded(), "fault-hang-after-first"),
    ];
    for (provider, model) in cases {
        let cancel = CancelToken::new();
        let other = cancel.clone();
        let canceller = std::thread::Builder::new().name("test-canceller".into());
        let canceller = canceller
            .spawn(move || other.cancel(CancelReason::ClientLeft))
            .expect("thread starts");
        let (_, end) = run_until(&provider, &ask(model), &cancel, Time::NEVER);
        assert_eq!(
            end.expect_err(model).class,
            ErrorClass::Cancelled(CancelReason::ClientLeft)
        );
        canceller.join().expect("no panic");
    }
}

#[test]
fn nothing_lasts_beyond_the_deadline() {
    let clock = SystemClock::shared();
    for model in [
        "embedded",
        "fault-stall",
        "fault-trickle",
        "fault-hang-after-first",
    ] {
        let mut provider = slow(Duration::ZERO, Duration::from_secs(3600));
        provider.clock = clock.clone();
        let deadline = clock.now() + Duration::from_millis(20);
        let (_, end) = run_until(&provider, &ask(model), &CancelToken::new(), deadline);
        let error = end.expect_err(model);
        assert_eq!(
            error.class,
            ErrorClass::Cancelled(CancelReason::Deadline),
            "{model}"
        );
        assert!(clock.now() >= deadline);
    }
}

#[test]
fn silence_ends_with_the_timeout_that_was_meant_for_it() {
    let mut provider = embedded();
    provider.timeouts.idle = Duration::from_millis(1);
    provider.timeouts.first_byte = Some(Duration::from_millis(1));
    let class = |model: &str| run(&provider, &ask(model)).1.expect_err(model).class;
    assert_eq!(class("fault-hang-after-first"), ErrorClass::IdleTimeout);
    assert_eq!(class("fault-stall"), ErrorClass::FirstByteTimeout);
}

#[test]
fn each_failure_has_its_class() {
    let class = |model: &str| run(&embedded(), &ask(model)).1.expect_err(model);
    assert_eq!(class("fault-fail-500").class, ErrorClass::ServerError);
    assert_eq!(class("fault-429").retry_after, Some(Duration::from_secs(1)));
    assert_eq!(class("fault-503").class, ErrorClass::Overloaded);
    assert_eq!(class("fault-quota").class, ErrorClass::Quota);
    assert_eq!(class("fault-garbage").class, ErrorClass::Malformed);
    let (pieces, end) = run(&embedded(), &ask("fault-broken"));
    assert_eq!(end.expect_err("broken").class, ErrorClass::Incomplete);
    assert!(pieces.iter().any(Piece::is_content));
}

#[test]
#[should_panic(expected = "fault-panic was asked for")]
fn the_panicking_model_panics() {
    let _ = run(&embedded(), &ask("fault-panic"));
}

#[test]
fn nothing_more_is_said_to_one_who_has_had_enough() {
    let cancel = CancelToken::new();
    let request = ask("embedded");
    let call = Call {
        request: &request,
        cancel: &cancel,
        deadline: Time::NEVER,
        first_byte_by: Time::NEVER,
        first_byte: None,
        watch: &Deaf,
    };
    let mut heard = 0;
    let end = embedded().chat(&call, &mut |_| {
        heard += 1;
        if heard == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(matches!(
        end.expect_err("ended").class,
        ErrorClass::Cancelled(_)
    ));
    assert_eq!(heard, 2);
}
