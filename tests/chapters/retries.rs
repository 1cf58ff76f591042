//! Calls that are tried again, elsewhere or not at all, and providers that are left alone for a while.

use serde_json::json;

use crate::support::{Ask, Broken, Event, Gate, Script, Server, Upstream, code, eventually, text};

/// Two providers, the second of which steps in for the first where `more` says so.
struct Rig {
    first: Upstream,
    second: Upstream,
    server: Server,
}

const FALLBACK: &str = "routing.fallback = [\"second/b\"]";

impl Rig {
    fn new(more: &str) -> Rig {
        let [first, second] = [(); 2].map(|()| Upstream::start(Script::text("hello")));
        let provider = |name: &str, upstream: &Upstream| {
            let url = upstream.url();
            format!("providers.{name}.kind = \"openai\"\nproviders.{name}.base_url = \"{url}\"\n")
        };
        let mut config = provider("first", &first) + &provider("second", &second);
        config += "providers.first.retry.base = \"5ms\"\n";
        let server = Server::start(&format!("{config}{more}\n"));
        Rig {
            first,
            second,
            server,
        }
    }

    fn status(&self) -> serde_json::Value {
        self.server.page("/api/status")["slots"]["providers"]["first"].clone()
    }
}

fn overloaded() -> Script {
    Script::error(503, "engine_overloaded_error", "busy")
}

#[test]
fn a_call_that_was_refused_is_tried_again_and_the_answer_says_how_often() {
    let rig = Rig::new("");
    rig.first.next(overloaded());
    rig.first.next(Script::Status(502, json!({}), vec![]));
    let answer = Ask::of("first/a").answer(&rig.server);
    assert_eq!(text(&answer), "hello");
    assert_eq!(answer.header("x-attempts"), Some("3"));
    assert_eq!(answer.json()["pointsman"]["attempts"], 3);
    assert_eq!(rig.first.requests().len(), 3);

    rig.first.next(overloaded());
    let mut stream = Ask::of("first/a").streamed().stream(&rig.server);
    assert_eq!(
        (stream.status, stream.head.header("x-attempts")),
        (200, Some("2"))
    );
    let last = stream.events().expect("a proper end").pop();
    assert_eq!(last, Some(Event::Data("[DONE]".into())));
    rig.server.wait_until_idle();
}

#[test]
fn a_provider_that_always_refuses_is_asked_as_often_as_configured_and_no_more() {
    for (attempts, more) in [(3, ""), (1, "providers.first.retry.attempts = 1")] {
        let rig = Rig::new(more);
        rig.first.on_model("a", overloaded());
        let answer = Ask::of("first/a").answer(&rig.server);
        assert_eq!(
            (answer.status, code(&answer).as_str()),
            (503, "provider_overloaded")
        );
        assert_eq!(
            answer.header("x-attempts"),
            Some(attempts.to_string().as_str())
        );
        assert_eq!(rig.first.requests().len(), attempts);
        rig.server.wait_until_idle();
    }
}

#[test]
fn retry_after_is_waited_for_and_meanwhile_the_slot_is_anothers() {
    let rig = Rig::new("limits.global = 1");
    rig.first.next(Script::rate_limited("1"));
    let mut waits = Ask::of("first/a").id("waits").send(&rig.server);
    rig.server.wait_for_status("it backs off", |status| {
        status["queue"]["backing_off"] == 1 && status["slots"]["global"]["in_use"] == 0
    });
    eventually("its state says so", || {
        rig.server.page("/api/requests/waits")["active"]["state"] == "RETRYING"
    });
    let status = rig.status();
    assert_eq!(status["takes_calls"], false);
    assert!(
        status["reason"].to_string().contains("Retry-After"),
        "{status:#}"
    );
    assert_eq!(text(&Ask::of("second/b").answer(&rig.server)), "hello");
    let answer = waits.response().expect("an answer");
    assert_eq!(
        (text(&answer).as_str(), answer.header("x-attempts")),
        ("hello", Some("2"))
    );
    rig.server.wait_until_idle();
}

#[test]
fn a_wait_of_hours_fails_at_once_and_the_next_is_told_without_a_call() {
    let rig = Rig::new("");
    rig.first.next(Script::rate_limited("7200"));
    let answer = Ask::of("first/a").answer(&rig.server);
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (429, "provider_rate_limited")
    );
    assert_eq!(answer.header("retry-after"), Some("7200"));
    let answer = Ask::of("first/a").answer(&rig.server);
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (429, "provider_rate_limited")
    );
    let wait = answer
        .header("retry-after")
        .and_then(|wait| wait.parse::<u64>().ok());
    assert!(
        wait.is_some_and(|wait| (299..=330).contains(&wait)),
        "{wait:?}"
    );
    assert_eq!(rig.first.requests().len(), 1);
}

#[test]
fn a_key_that_is_not_accepted_is_not_tried_again_and_the_reason_is_shown() {
    let rig = Rig::new("timeouts.normal = \"2s\"\nproviders.first.timeouts.plain = \"2s\"");
    rig.first.on_model(
        "a",
        Script::error(401, "invalid_authentication_error", "no"),
    );
    let answer = Ask::of("first/a").answer(&rig.server);
    assert_eq!(
        (answer.status, answer.header("x-attempts")),
        (401, Some("1"))
    );
    let answer = Ask::of("first/a").answer(&rig.server);
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (401, "provider_auth")
    );
    assert_eq!(answer.header("x-attempts"), Some("0"));
    assert_eq!(rig.first.requests().len(), 1);
    let status = rig.status();
    assert_eq!(status["breaker"], "open");
    assert!(status["reason"].to_string().contains("key"), "{status:#}");
}

#[test]
fn where_it_is_configured_another_model_steps_in_and_the_answer_says_so() {
    for script in [
        Script::error(401, "invalid_authentication_error", "no"),
        Script::error(429, "insufficient_quota", "no money"),
        Script::error(404, "model_not_found", "no such model"),
        Script::rate_limited("60"),
        Script::HalfClose,
        Script::Garbage,
    ] {
        let rig = Rig::new(FALLBACK);
        let what = format!("{script:?}");
        rig.first.on_model("a", script);
        for attempts in ["2", "1"] {
            let answer = Ask::of("first/a").answer(&rig.server);
            assert_eq!(text(&answer), "hello", "{what}");
            assert_eq!(answer.header("x-provider"), Some("second"), "{what}");
            assert_eq!(answer.header("x-model"), Some("b"), "{what}");
            let object = answer.json()["pointsman"].clone();
            assert_eq!(object["fallback_from"], "first/a", "{what}: {object:#}");
            if answer.header("x-attempts") != Some(attempts) {
                // What broke off says nothing about the next call, which is made.
                assert_eq!(answer.header("x-attempts"), Some("2"), "{what}");
            }
        }
        assert_eq!(rig.second.requests().len(), 2, "{what}");
        let sent = rig.second.requests().pop().expect("a request");
        assert_eq!(sent.model(), "b", "{what}");
        rig.server.wait_until_idle();
    }
}

#[test]
fn without_a_fallback_nobody_steps_in() {
    let rig = Rig::new("");
    rig.first.on_model("a", Script::HalfClose);
    let answer = Ask::of("first/a").answer(&rig.server);
    assert_eq!(code(&answer), "provider_incomplete");
    assert_eq!(rig.second.requests().len(), 0);
    assert!(answer.json()["pointsman"]["fallback_from"].is_null());
}

#[test]
fn a_silent_provider_leaves_its_successor_a_share_of_the_one_deadline() {
    let rig = Rig::new(FALLBACK);
    rig.first.on_model("a", Script::Silent);
    let answer = Ask::of("first/a").within("2s").answer(&rig.server);
    assert_eq!(text(&answer), "hello");
    let object = answer.json()["pointsman"].clone();
    let total = object["phases"]["total_s"].as_f64().expect("a figure");
    assert!((1.0..2.0).contains(&total), "{object:#}");
    rig.server.wait_until_idle();
}

#[test]
fn nothing_is_tried_again_once_the_client_has_seen_content() {
    let chunk = |content: &str| json!({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": content}}]});
    let busy = json!({"error": {"message": "busy", "type": "overloaded_error"}});
    let rig = Rig::new(FALLBACK);
    let events = [chunk("half"), busy].map(|event| event.to_string());
    rig.first.next(Script::Events(events.to_vec()));
    let mut stream = Ask::of("first/a").streamed().stream(&rig.server);
    let end = loop {
        match stream.event() {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert_eq!(end, Err(Broken));
    rig.server.wait_until_idle();
    assert_eq!(
        (rig.first.requests().len(), rig.second.requests().len()),
        (1, 0)
    );
}

#[test]
fn an_error_in_the_stream_before_any_content_is_tried_again_and_leaves_nothing_behind() {
    let busy = json!({"error": {"message": "busy", "type": "overloaded_error"}});
    let role = json!({"id": "stale", "model": "m", "choices": [{"index": 0, "delta": {"role": "assistant"}}]});
    let rig = Rig::new("");
    let events = [role, busy].map(|event| event.to_string());
    rig.first.next(Script::Events(events.to_vec()));
    let answer = Ask::of("first/a").answer(&rig.server);
    assert_eq!(text(&answer), "hello");
    assert_ne!(answer.json()["id"], "stale");
    assert_eq!(answer.header("x-attempts"), Some("2"));
}

#[test]
fn clients_that_leave_neither_open_a_breaker_nor_lower_a_limit() {
    let rig = Rig::new("");
    let gate = Gate::new();
    rig.first.on_model("a", Script::gated(&gate));
    let before = rig.status();
    for count in 1..=12 {
        let client = Ask::of("first/a").send(&rig.server);
        rig.first.wait_for_requests(count);
        drop(client);
        rig.server.wait_until_idle();
    }
    assert_eq!(rig.status(), before);
}
