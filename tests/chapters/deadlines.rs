//! Deadlines: whatever a provider or a client does or leaves undone, a request is over when its time is.
//!
//! A test that times something asserts at least the deadline and at most [`MARGIN`] more: busy machines are slow. Where
//! the upstream is asked afterwards how often it was called, its answer is one call: retries by anybody would show.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{
    Ask, Broken, Client, Event, Gate, Response, Script, Server, Upstream, at_once, code,
    eventually, text,
};

/// The deadline of most requests here.
const DEADLINE: Duration = Duration::from_millis(300);
/// How much later than its deadline an answer may come.
const MARGIN: Duration = Duration::from_secs(1);

/// The program in front of `upstream`, whose models are `mine/...`, with room for all callers of a test.
fn server(upstream: &Upstream, more: &str) -> Server {
    let url = upstream.url();
    Server::start(&format!(
        "limits.global = 32\nlimits.session = 32\nproviders.mine.kind = \"openai\"\n\
         providers.mine.base_url = \"{url}\"\nproviders.mine.max_inflight = 32\n\
         providers.mine.pool.max_connections = 32\n{more}\n"
    ))
}

fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = run();
    (value, start.elapsed())
}

fn assert_on_time(what: &str, took: Duration, deadline: Duration) {
    assert!(
        took >= deadline && took < deadline + MARGIN,
        "{what}: {took:?}"
    );
}

/// An answer that says that the deadline passed, and in which phase.
fn assert_expired(what: &str, answer: &Response, phase: &str) {
    assert_eq!(
        (answer.status, code(answer).as_str()),
        (504, "deadline_exceeded"),
        "{what}"
    );
    assert_eq!(answer.header("x-should-retry"), Some("false"), "{what}");
    let error = answer.json()["error"].clone();
    assert_eq!(error["type"], "gateway_error", "{what}");
    let message = error["message"].as_str().expect("a message");
    assert!(
        message == format!("the deadline passed; phase: {phase}")
            || phase == "queue" && message.starts_with("the deadline passed; phase: queue; "),
        "{what}: {message}"
    );
}

/// The upstreams that never answer, each as a model, and the phase in which a request for it ends.
fn dead() -> Vec<(&'static str, Script, &'static str)> {
    vec![
        ("silent", Script::Silent, "first byte"),
        ("no-headers", Script::NoHeaders, "first byte"),
        ("trickled-head", Script::TrickleHeaders, "first byte"),
        ("trickled-body", Script::TrickleBody, "body"),
    ]
}

#[test]
fn a_provider_that_never_answers_outlives_no_deadline_and_is_called_once() {
    let upstream = Upstream::start(Script::Silent);
    let cases: Vec<(String, bool, &str)> = dead()
        .into_iter()
        .flat_map(|(model, script, phase)| {
            upstream.on_model(model, script);
            [
                (format!("mine/{model}"), false, phase),
                (format!("mine/{model}"), true, phase),
            ]
        })
        .collect();
    let server = server(&upstream, "");
    at_once(cases.len(), |index| {
        let (model, stream, phase) = &cases[index];
        let ask = Ask::of(model).within("300ms");
        let ask = if *stream { ask.streamed() } else { ask };
        let (answer, took) = timed(|| ask.answer(&server));
        let what = format!("{model}, stream {stream}");
        assert_expired(&what, &answer, phase);
        assert_on_time(&what, took, DEADLINE);
        assert_eq!(answer.header("x-attempts"), Some("1"), "{what}");
        assert_eq!(
            answer.header("x-timeout"),
            Some("300ms (asked for)"),
            "{what}"
        );
    });
    upstream.wait_for_closed(cases.len());
    server.wait_until_idle();
    assert_eq!(upstream.requests().len(), cases.len(), "one call each");
}

#[test]
fn a_provider_that_lets_nobody_in_outlives_no_deadline() {
    let upstream = Upstream::no_accept();
    let server = server(&upstream, "");
    for ask in [Ask::of("mine/m"), Ask::of("mine/m").streamed()] {
        let (answer, took) = timed(|| ask.within("300ms").answer(&server));
        assert_expired("no accept", &answer, "connect");
        assert_on_time("no accept", took, DEADLINE);
    }
    server.wait_until_idle();
}

#[test]
fn a_whole_answer_that_stalls_in_the_middle_is_no_answer() {
    let upstream = Upstream::start(Script::StallAfterFirst);
    upstream.on_model("dripping", Script::KeepAliveCommentsAfterFirst);
    let server = server(&upstream, "");
    for model in ["mine/stalled", "mine/dripping"] {
        let (answer, took) = timed(|| Ask::of(model).within("300ms").answer(&server));
        assert_expired(model, &answer, "body");
        assert_on_time(model, took, DEADLINE);
    }
    upstream.wait_for_closed(2);
    server.wait_until_idle();
}

#[test]
fn a_stream_that_stalls_ends_with_an_error_at_its_deadline_and_never_as_if_whole() {
    let upstream = Upstream::start(Script::StallAfterFirst);
    upstream.on_model("dripping", Script::KeepAliveCommentsAfterFirst);
    let server = server(&upstream, "");
    for model in ["mine/stalled", "mine/dripping"] {
        let start = Instant::now();
        let mut stream = Ask::of(model).streamed().within("300ms").stream(&server);
        assert_eq!(stream.status, 200);
        let (events, end) = to_the_end(&mut stream);
        assert_on_time(model, start.elapsed(), DEADLINE);
        assert_eq!(end, Err(Broken), "{model}: it ended cleanly");
        assert_broken_off(model, &events, "deadline_exceeded");
    }
    upstream.wait_for_closed(2);
    server.wait_until_idle();
    assert_eq!(upstream.requests().len(), 2, "one call each");
}

#[test]
fn an_answer_that_breaks_off_is_not_sent_twice() {
    let upstream = Upstream::start(Script::WrongLength);
    let server = server(&upstream, "");
    let mut stream = Ask::of("mine/m").streamed().stream(&server);
    let (events, end) = to_the_end(&mut stream);
    assert_eq!(end, Err(Broken));
    assert_broken_off("a stream", &events, "provider_incomplete");
    let answer = Ask::of("mine/m").answer(&server);
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (502, "provider_incomplete")
    );
    server.wait_until_idle();
    assert_eq!(upstream.requests().len(), 2, "a retry could say it again");
}

#[test]
fn a_port_where_nobody_listens_is_told_at_once() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = port.local_addr().expect("it is bound");
    drop(port);
    let server = Server::start(&format!(
        "providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"http://{address}/v1\"\n\
         providers.mine.retry.attempts = 1\n"
    ));
    for ask in [Ask::of("mine/m"), Ask::of("mine/m").streamed()] {
        let (answer, took) = timed(|| ask.answer(&server));
        assert_eq!(
            (answer.status, code(&answer).as_str()),
            (502, "provider_unavailable")
        );
        assert_eq!(answer.json()["error"]["type"], "provider_error");
        assert!(took < MARGIN, "{took:?}");
    }
    server.wait_until_idle();
}

#[test]
fn connecting_has_a_limit_of_its_own() {
    let upstream = Upstream::no_accept();
    let server = server(
        &upstream,
        "timeouts.connect = \"200ms\"\nproviders.mine.retry.attempts = 1",
    );
    let (answer, took) = timed(|| Ask::of("mine/m").answer(&server));
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (502, "provider_unavailable")
    );
    assert_on_time("connect", took, Duration::from_millis(200));
}

#[test]
fn a_deadline_that_passes_in_line_ends_the_wait_and_calls_nobody() {
    let (upstream, gate, server) = one_slot();
    let mut first = Ask::of("mine/first").send(&server);
    upstream.wait_for_in_flight(1);
    let (answer, took) = timed(|| Ask::of("mine/second").within("300ms").answer(&server));
    assert_expired("in line", &answer, "queue");
    assert_on_time("in line", took, DEADLINE);
    assert_eq!(answer.header("x-attempts"), Some("0"));
    gate.release();
    assert_eq!(first.response().expect("an answer").status, 200);
    server.wait_until_idle();
    assert_eq!(upstream.requests().len(), 1, "nobody waits for the second");
}

#[test]
fn the_wait_in_line_is_part_of_the_deadline() {
    let (upstream, gate, server) = one_slot();
    upstream.on_model("second", Script::Silent);
    let mut first = Ask::of("mine/first").send(&server);
    upstream.wait_for_in_flight(1);
    let start = Instant::now();
    let mut second = Ask::of("mine/second")
        .id("second")
        .within("1s")
        .send(&server);
    wait_for_age(&server, "second", 0.6);
    gate.release();
    assert_eq!(first.response().expect("an answer").status, 200);
    let answer = second.response().expect("an answer");
    let took = start.elapsed();
    assert_expired("after the wait", &answer, "first byte");
    let queue = answer.json()["pointsman"]["phases"]["queue_s"].as_f64();
    assert!(queue >= Some(0.6), "it waited for {queue:?}");
    let restarted = Duration::from_millis(1_600);
    assert!(
        took < restarted,
        "the deadline began when the wait ended: {took:?}"
    );
    upstream.wait_for_closed(1);
    server.wait_until_idle();
}

#[test]
fn a_body_that_comes_late_is_part_of_the_deadline() {
    let upstream = Upstream::start(Script::text("too late"));
    upstream.on_model("clock", Script::Silent);
    let server = server(&upstream, "");
    let body = r#"{"model":"mine/late","messages":[{"role":"user","content":"hello"}]}"#;
    let mut late = server.client();
    late.send(format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-Request-Timeout: 300ms\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    // Sent after the head, so that its end proves that the head's time is over too.
    let clock = Ask::of("mine/clock").within("600ms").answer(&server);
    assert_eq!(clock.status, 504);
    late.send(body);
    assert_expired("a late body", &late.response().expect("an answer"), "queue");
    assert_eq!(upstream.requests().len(), 1, "only the clock");
}

#[test]
fn a_client_that_does_not_read_holds_no_worker_beyond_its_deadline() {
    let upstream = Upstream::start(endless());
    let server = server(&upstream, "engine.workers = 1");
    let start = Instant::now();
    let unread = Ask::of("mine/m").streamed().within("500ms").send(&server);
    let status = server.wait_for_status("it ends", |status| status["requests"]["timeout"] == 1);
    server.wait_until_idle();
    assert_on_time("a slow reader", start.elapsed(), Duration::from_millis(500));
    assert_eq!(status["requests"]["received"], 1);
    upstream.wait_for_closed(1);
    assert_unfinished(unread);
}

#[test]
fn a_client_that_does_not_read_holds_no_worker_beyond_the_write_timeout() {
    let upstream = Upstream::start(endless());
    let server = server(
        &upstream,
        "engine.workers = 1\nserver.write_timeout = \"200ms\"",
    );
    let unread = Ask::of("mine/m").streamed().send(&server);
    server.wait_for_status("it ends", |status| status["requests"]["cancelled"] == 1);
    upstream.wait_for_closed(1);
    upstream.next(Script::text("the worker is free"));
    let other = Ask::of("mine/m").answer(&server);
    assert_eq!(text(&other), "the worker is free");
    server.wait_until_idle();
    assert_unfinished(unread);
}

#[test]
fn a_worker_that_hears_nothing_keeps_no_client_waiting() {
    let server = Server::start("providers.embedded.faults = true\n");
    let (answer, took) = timed(|| Ask::of("fault-deaf").within("300ms").answer(&server));
    assert_expired("deaf", &answer, "first byte");
    assert_on_time("deaf", took, DEADLINE);
    let other = Ask::of("embedded").answer(&server);
    assert_eq!(other.status, 200, "another worker is there");
}

/// One slot, held by whoever asks first until the gate opens.
fn one_slot() -> (Upstream, Gate, Server) {
    let gate = Gate::new();
    let upstream = Upstream::start(Script::text("hello"));
    upstream.on_model("first", Script::gated(&gate));
    let url = upstream.url();
    let server = Server::start(&format!(
        "limits.global = 1\nlimits.session = 1\nproviders.mine.kind = \"openai\"\n\
         providers.mine.base_url = \"{url}\"\nproviders.mine.max_inflight = 1\n"
    ));
    (upstream, gate, server)
}

/// Waits until a request is `seconds` old.
fn wait_for_age(server: &Server, id: &str, seconds: f64) {
    let is_old =
        |request: &Value| request["request_id"] == id && request["age_s"].as_f64() >= Some(seconds);
    eventually("it is old", || {
        let page = server.page("/api/requests");
        let active = page["active"].as_array().expect("a list");
        active.iter().any(is_old)
    });
}

/// All events of a stream, and how it ended.
fn to_the_end(stream: &mut crate::support::Stream) -> (Vec<Event>, Result<(), Broken>) {
    let mut events = Vec::new();
    loop {
        match stream.event() {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return (events, Ok(())),
            Err(broken) => return (events, Err(broken)),
        }
    }
}

/// A stream that said "hello from up-..." once, then an error, and nothing else.
fn assert_broken_off(what: &str, events: &[Event], expected: &str) {
    let chunks: Vec<Value> = events.iter().filter_map(Event::json).collect();
    let content = |chunk: &Value| {
        let text = chunk["choices"][0]["delta"]["content"].as_str();
        text.unwrap_or_default().to_owned()
    };
    let said: String = chunks.iter().map(content).collect();
    assert_eq!(said.matches("hello from").count(), 1, "{what}: {said}");
    let last = chunks.last().expect("an error");
    assert_eq!(last["error"]["code"], expected, "{what}: {last:#}");
    let errors = chunks.iter().filter(|chunk| chunk.get("error").is_some());
    assert_eq!(errors.count(), 1, "{what}");
    let finished = |chunk: &&Value| chunk["choices"][0]["finish_reason"].is_string();
    assert_eq!(
        chunks.iter().find(finished),
        None,
        "{what}: a reason to end"
    );
    assert!(
        !events.contains(&Event::Data("[DONE]".into())),
        "{what}: done?"
    );
}

/// A stream of more bytes than all buffers between its provider and its client hold.
pub(super) fn endless() -> Script {
    let piece = "x".repeat(64 << 10);
    let event = format!(
        "data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{piece}\"}}}}]}}\n\n"
    );
    let chunk = format!("{:x}\r\n{event}\r\n", event.len());
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    Script::Raw(format!("{head}{}", chunk.repeat(400)).into_bytes())
}

/// What the client finds when it reads at last: the beginning of a stream without its end.
fn assert_unfinished(client: Client) {
    let mut stream = client.into_stream().expect("the head is there");
    let (events, end) = to_the_end(&mut stream);
    assert_eq!(end, Err(Broken), "after {} events", events.len());
}
