//! Silence: who may be quiet for how long, what a client hears meanwhile, and where everybody can see the wait.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Answer, Ask, Broken, Event, Gate, Response, Script, Server, Stream, Upstream, code, eventually,
    text,
};

/// The program in front of `upstream`: `mine/...` as plain OpenAI, `moon/...` as Kimi.
fn server(upstream: &Upstream, more: &str) -> Server {
    let url = upstream.url();
    let config = format!(
        "providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"{url}\"\n\
         providers.moon.kind = \"kimi\"\nproviders.moon.base_url = \"{url}\"\nproviders.moon.api_key_env = \"MOON\"\n\
         providers.moon.models = [{{ name = \"m\" }}, {{ name = \"role-first\" }}, {{ name = \"dripping\" }}]\n{more}\n"
    );
    Server::start_with(&config, &[("MOON", "sk-moon")])
}

fn answer() -> Answer {
    Answer {
        text: "a whole answer".into(),
        ..Answer::default()
    }
}

/// The text of a stream that ended as it should.
fn whole_text(stream: &mut Stream) -> String {
    let events = stream.events().expect("a proper end");
    assert_eq!(events.last(), Some(&Event::Data("[DONE]".into())));
    let content = |event: &Event| {
        let chunk = event.json()?;
        Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned())
    };
    events.iter().filter_map(content).collect()
}

/// The error with which a stream broke off; the events before it are looked at by `see`.
fn broken_with(stream: &mut Stream, mut see: impl FnMut(&Event)) -> Value {
    let mut last = Value::Null;
    loop {
        match stream.event() {
            Ok(Some(event)) => {
                see(&event);
                last = event.json().unwrap_or(last);
            }
            Ok(None) => panic!("it ended cleanly, after {last:#}"),
            Err(Broken) => return last["error"].clone(),
        }
    }
}

#[test]
fn a_healthy_stream_may_last_longer_than_the_idle_limit() {
    let upstream = Upstream::start(Script::Answer(Answer {
        pieces: 12,
        pace: Duration::from_millis(80),
        ..answer()
    }));
    let server = server(&upstream, "timeouts.idle = \"600ms\"");
    let mut stream = Ask::of("mine/m").streamed().stream(&server);
    assert_eq!(whole_text(&mut stream), "a whole answer");
}

#[test]
fn a_model_may_think_in_silence_for_longer_than_the_idle_limit() {
    let silence = Duration::from_millis(500);
    let upstream = Upstream::start(Script::Answer(Answer {
        delay: silence,
        ..answer()
    }));
    let role_first = Answer {
        think: silence,
        ..answer()
    };
    upstream.on_model("role-first", Script::Answer(role_first));
    let server = server(&upstream, "timeouts.idle = \"200ms\"");
    for model in ["mine/m", "mine/role-first", "moon/role-first"] {
        let ask = Ask::of(model).within("10s");
        assert_eq!(text(&ask.answer(&server)), "a whole answer", "{model}");
        let mut stream = ask.streamed().stream(&server);
        assert_eq!(whole_text(&mut stream), "a whole answer", "{model}");
    }
    assert_eq!(upstream.requests().len(), 6, "one call each");
}

#[test]
fn silence_in_the_middle_of_an_answer_is_an_error() {
    let upstream = Upstream::start(Script::StallAfterFirst);
    upstream.on_model("dripping", Script::KeepAliveCommentsAfterFirst);
    let server = server(&upstream, "timeouts.idle = \"150ms\"");
    for model in ["mine/m", "moon/m", "mine/dripping", "moon/dripping"] {
        let mut stream = Ask::of(model).streamed().stream(&server);
        let error = broken_with(&mut stream, |_| {});
        assert_eq!(
            (&error["code"], &error["type"]),
            (&json!("provider_timeout"), &json!("provider_error")),
            "{model}"
        );
    }
    for model in ["mine/m", "moon/m", "moon/dripping"] {
        let answer = Ask::of(model).answer(&server);
        assert_eq!(
            (answer.status, code(&answer).as_str()),
            (504, "provider_timeout"),
            "{model}"
        );
    }
    upstream.wait_for_closed(7);
    server.wait_until_idle();
}

#[test]
fn the_first_byte_has_a_limit_where_one_is_set() {
    let upstream = Upstream::start(Script::Silent);
    let server = server(&upstream, "timeouts.first_byte = \"150ms\"");
    for ask in [Ask::of("mine/m"), Ask::of("mine/m").streamed()] {
        let answer = ask.answer(&server);
        assert_eq!(
            (answer.status, code(&answer).as_str()),
            (504, "provider_timeout")
        );
    }
    upstream.wait_for_closed(2);
}

#[test]
fn a_stream_that_waits_hears_comments_and_then_its_answer_with_the_late_values_at_its_end() {
    let gate = Gate::new();
    let upstream = Upstream::start(Script::Gate(
        gate.clone(),
        Box::new(Script::Answer(answer())),
    ));
    let server = server(&upstream, "server.stream_keepalive = \"100ms\"");
    let mut stream = Ask::of("mine/m").streamed().stream(&server);
    assert_eq!(stream.status, 200);
    assert_eq!(
        stream.head.header("content-type"),
        Some("text/event-stream")
    );
    for _ in 0..2 {
        assert_eq!(
            stream.event(),
            Ok(Some(Event::Comment("keep-alive".into())))
        );
    }
    gate.release();
    let events = stream.events().expect("a proper end");
    let [.., last, done] = events.as_slice() else {
        panic!("{events:#?}")
    };
    assert_eq!(done, &Event::Data("[DONE]".into()));
    let ours = last.json().expect("a chunk")["pointsman"].clone();
    assert_eq!(
        (&ours["provider"], &ours["attempts"]),
        (&json!("mine"), &json!(1))
    );
    assert!(
        ours["phases"]["first_byte_s"].as_f64() >= Some(0.1),
        "{ours:#}"
    );
}

#[test]
fn a_stream_in_line_hears_comments_too() {
    let gate = Gate::new();
    let upstream = Upstream::start(Script::Answer(answer()));
    upstream.on_model("first", Script::gated(&gate));
    let server = server(
        &upstream,
        "limits.global = 1\nlimits.session = 1\nproviders.mine.max_inflight = 1\nproviders.moon.max_inflight = 1\nserver.stream_keepalive = \"100ms\"",
    );
    let _first = Ask::of("mine/first").send(&server);
    upstream.wait_for_in_flight(1);
    let mut stream = Ask::of("mine/second").streamed().stream(&server);
    assert_eq!(
        stream.event(),
        Ok(Some(Event::Comment("waiting, position 1".into())))
    );
    assert_eq!(upstream.requests().len(), 1, "it is in line");
    gate.release();
    assert_eq!(whole_text(&mut stream), "a whole answer");
}

#[test]
fn a_stream_that_fails_before_its_first_word_has_a_true_status_and_afterwards_an_error_event() {
    let gate = Gate::new();
    let late = Script::Gate(gate.clone(), Box::new(Script::rate_limited("7")));
    let upstream = Upstream::start(late);
    let server_of = |keepalive: &str| {
        server(
            &upstream,
            &format!("server.stream_keepalive = \"{keepalive}\""),
        )
    };
    let (quiet, lively) = (server_of("1h"), server_of("100ms"));
    let ask = Ask::of("mine/m").streamed();
    let mut commented = ask.stream(&lively);
    assert_eq!(commented.status, 200, "a comment had to go out");
    let mut held = ask.send(&quiet);
    upstream.wait_for_in_flight(2);
    gate.release();
    let held = held.response().expect("an answer");
    assert_eq!(
        (held.status, code(&held).as_str()),
        (429, "provider_rate_limited")
    );
    assert_eq!(held.header("retry-after"), Some("7"));
    let error = broken_with(&mut commented, |event| {
        assert_ne!(event, &Event::Data("[DONE]".into()));
    });
    assert_eq!(error["code"], "provider_rate_limited");
}

/// What the operation of `ask` is given, in the header, the body and the log.
fn check_timeout(server: &Server, provider: &str, ask: Ask, expected: &str) {
    let answer = ask.answer(server);
    assert_eq!(answer.status, 200, "{:#}", answer.json());
    assert_eq!(answer.header("x-timeout"), Some(expected));
    assert_eq!(answer.json()["pointsman"]["timeout"], expected);
    server.wait_for_log(&format!("{provider} timeout: {expected}"));
}

#[test]
fn each_operation_gets_the_time_that_it_needs_and_says_so() {
    let upstream = Upstream::start(Script::Answer(answer()));
    let url = upstream.url();
    let config =
        format!("providers.kimi.base_url = \"{url}\"\nproviders.glm.base_url = \"{url}\"\n");
    let keys = [("KIMI_API_KEY", "sk-k"), ("GLM_API_KEY", "id.secret")];
    let server = Server::start_with(&config, &keys);
    let ask = |model: &str, web: bool, thinking: bool| {
        Ask::of(model).with(
            "pointsman",
            json!({"web_search": web, "thinking": thinking}),
        )
    };
    let kimi = |web, thinking| ask("kimi-k2.6", web, thinking);
    check_timeout(
        &server,
        "kimi",
        kimi(false, false),
        "240s (web=false, thinking=false)",
    );
    check_timeout(
        &server,
        "kimi",
        kimi(true, false),
        "300s (web=true, thinking=false)",
    );
    check_timeout(
        &server,
        "kimi",
        kimi(false, true),
        "360s (web=false, thinking=true)",
    );
    check_timeout(
        &server,
        "kimi",
        kimi(true, true),
        "420s (web=true, thinking=true)",
    );
    let glm = |web, thinking| ask("glm-5", web, thinking);
    check_timeout(
        &server,
        "glm",
        glm(false, false),
        "120s (web=false, thinking=false)",
    );
    check_timeout(
        &server,
        "glm",
        glm(true, true),
        "420s (web=true, thinking=true)",
    );
    let forever = kimi(false, false).within("9h");
    check_timeout(
        &server,
        "kimi",
        forever,
        "3600s (asked for more, bounded by timeouts.max)",
    );
}

/// The line of the log about the request of that id, by the names of its fields.
fn log_line(server: &Server, id: &str) -> Vec<(String, String)> {
    let line = server.wait_for_log(&format!("request {id} "));
    let lines = server.log();
    let about = lines
        .iter()
        .filter(|line| line.contains(&format!("request {id} ")));
    assert_eq!(about.count(), 1, "one line each: {lines:#?}");
    let fields = line.split(' ').filter_map(|field| field.split_once('='));
    fields
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn field<'a>(line: &'a [(String, String)], name: &str) -> &'a str {
    let found = line.iter().find(|(key, _)| key == name);
    found.map_or_else(|| panic!("no {name} in {line:?}"), |(_, value)| value)
}

fn seconds(line: &[(String, String)], name: &str) -> f64 {
    let text = field(line, name).strip_suffix('s');
    text.and_then(|text| text.parse().ok()).expect("seconds")
}

/// The milliseconds of a part in `Server-Timing`.
fn timing(answer: &Response, name: &str) -> f64 {
    let header = answer.header("server-timing").expect("a header");
    let part = header
        .split(", ")
        .find_map(|part| part.strip_prefix(&format!("{name};dur=")));
    part.and_then(|part| part.parse().ok())
        .expect("milliseconds")
}

#[test]
fn each_request_leaves_one_line_in_the_log_that_says_who_and_how_and_where_its_time_went() {
    let upstream = Upstream::start(Script::Answer(Answer {
        delay: Duration::from_millis(60),
        pace: Duration::from_millis(60),
        pieces: 2,
        ..answer()
    }));
    upstream.on_model("dead", Script::Silent);
    upstream.on_model("broken", Script::HtmlGateway504);
    let server = server(&upstream, "");
    let ask = |model: &str, id: &str| Ask::of(model).session("agent-1").priority("high").id(id);
    assert_eq!(
        ask("mine/m", "good")
            .streamed()
            .stream(&server)
            .events()
            .map(drop),
        Ok(())
    );
    let line = log_line(&server, "good");
    let who = [
        "provider", "model", "session", "priority", "status", "attempts",
    ]
    .map(|name| field(&line, name));
    assert_eq!(who, ["mine", "m", "agent-1", "high", "completed", "1"]);
    let [first_byte, upstream_s, total] =
        ["first_byte", "upstream", "total"].map(|name| seconds(&line, name));
    assert!(
        first_byte >= 0.06 && upstream_s >= 0.12 && total >= upstream_s,
        "{line:?}"
    );
    assert!(
        first_byte + 0.05 < upstream_s,
        "the pieces are no first byte: {line:?}"
    );
    ask("mine/dead", "late").within("100ms").answer(&server);
    let line = log_line(&server, "late");
    assert_eq!(field(&line, "status"), "timeout");
    let [connect, first_byte, upstream_s, total] =
        ["connect", "first_byte", "upstream", "total"].map(|name| seconds(&line, name));
    assert!(total >= 0.1, "{line:?}");
    // All of the call went to waiting for a first byte that never came. Each figure is cut off by itself.
    assert!(
        (upstream_s - connect - first_byte).abs() < 0.0003,
        "{line:?}"
    );
    ask("mine/broken", "bad").answer(&server);
    assert_eq!(field(&log_line(&server, "bad"), "status"), "error");
}

#[test]
fn the_wait_in_line_is_in_the_header_in_the_body_and_in_the_log() {
    let gate = Gate::new();
    let upstream = Upstream::start(Script::Answer(answer()));
    upstream.on_model("first", Script::gated(&gate));
    let server = server(
        &upstream,
        "limits.global = 1\nlimits.session = 1\nproviders.mine.max_inflight = 1\nproviders.moon.max_inflight = 1",
    );
    let _first = Ask::of("mine/first").send(&server);
    upstream.wait_for_in_flight(1);
    let mut second = Ask::of("mine/second").id("second").send(&server);
    eventually("it has waited", || {
        let page = server.page("/api/requests");
        let waiting = &page["active"][1];
        waiting["phase"] == "queue" && waiting["age_s"].as_f64() >= Some(0.15)
    });
    gate.release();
    let answer = second.response().expect("an answer");
    let phases = answer.json()["pointsman"]["phases"].clone();
    assert!(phases["queue_s"].as_f64() >= Some(0.15), "{phases:#}");
    let [queue, upstream_ms, total] =
        ["queue", "upstream", "total"].map(|name| timing(&answer, name));
    // Each is rounded by itself.
    assert!(queue >= 150.0 && total >= queue + upstream_ms - 1.0);
    assert!(seconds(&log_line(&server, "second"), "queue") >= 0.15);
}
