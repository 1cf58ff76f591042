//! Clients: those who leave keep nothing busy, those who ask in a row are answered in a row, and nonsense costs nothing.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Answer, Ask, Client, Event, Gate, Response, Script, Server, Upstream, at_once, code, text,
};

/// The program in front of `upstream`, whose models are `mine/...`, with `slots` of every kind.
fn server(upstream: &Upstream, slots: usize, more: &str) -> Server {
    let url = upstream.url();
    Server::start(&format!(
        "limits.global = {slots}\nlimits.session = {slots}\nproviders.mine.kind = \"openai\"\n\
         providers.mine.base_url = \"{url}\"\nproviders.mine.max_inflight = {slots}\n\
         providers.mine.pool.max_connections = 32\n{more}\n"
    ))
}

fn wait_for_waiting(server: &Server, count: usize) {
    server.wait_for_status("they wait", |status| status["queue"]["waiting"] == count);
}

fn wait_for_cancelled(server: &Server, count: usize) {
    server.wait_for_status("they are ended", |status| {
        status["requests"]["cancelled"] == count
    });
}

/// Four clients in the middle of their calls: two without a head yet, two with half an answer.
fn four_running(upstream: &Upstream, server: &Server) -> Vec<Client> {
    upstream.on_model("silent", Script::Silent);
    upstream.on_model("half", Script::StallAfterFirst);
    let asks = ["mine/silent", "mine/half"].map(Ask::of);
    let both = |ask: Ask| [ask.clone(), ask.streamed()];
    let clients = asks.into_iter().flat_map(both).map(|ask| ask.send(server));
    let mut clients: Vec<Client> = clients.collect();
    upstream.wait_for_in_flight(4);
    let streaming = clients.pop().expect("there are four");
    let mut stream = streaming.into_stream().expect("a head");
    assert!(
        matches!(stream.event(), Ok(Some(Event::Data(_)))),
        "it streams"
    );
    clients.push(stream.into_client());
    clients
}

fn four_waiting(server: &Server) -> Vec<Client> {
    let ask = Ask::of("mine/never");
    let both = [ask.clone(), ask.streamed()];
    let clients = both.iter().cycle().take(4).map(|ask| ask.send(server));
    let clients = clients.collect();
    wait_for_waiting(server, 4);
    clients
}

#[test]
fn whoever_leaves_is_called_for_no_longer_in_line_or_in_a_call_or_in_an_answer() {
    let upstream = Upstream::start(Script::Silent);
    let server = server(&upstream, 4, "");
    let running = four_running(&upstream, &server);
    let waiting = four_waiting(&server);
    drop(waiting);
    wait_for_cancelled(&server, 4);
    wait_for_waiting(&server, 0);
    drop(running);
    upstream.wait_for_closed(4);
    upstream.wait_for_in_flight(0);
    wait_for_cancelled(&server, 8);
    server.wait_until_idle();
    assert_eq!(
        upstream.requests().len(),
        4,
        "nobody in line was called for"
    );
}

#[test]
fn when_all_leave_at_once_nothing_runs_for_nobody() {
    let upstream = Upstream::start(Script::Silent);
    let server = server(&upstream, 4, "");
    let mut clients = four_running(&upstream, &server);
    clients.extend(four_waiting(&server));
    drop(clients);
    wait_for_cancelled(&server, 8);
    server.wait_until_idle();
    upstream.wait_for_in_flight(0);
}

#[test]
fn a_client_that_leaves_while_its_provider_fails_leaves_no_slot_behind() {
    let failures = [
        Script::error(502, "server_error", "broken"),
        Script::HtmlGateway504,
        Script::HalfClose,
        Script::Reset,
    ];
    let upstream = Upstream::start(Script::Silent);
    let server = server(&upstream, 2, "");
    for (number, failure) in failures.into_iter().cycle().take(12).enumerate() {
        let gate = Gate::new();
        upstream.next(Script::Gate(gate.clone(), Box::new(failure)));
        let client = Ask::of("mine/m").streamed().send(&server);
        upstream.wait_for_requests(number + 1);
        // Whichever comes first: the failure, or the client's end.
        gate.release();
        drop(client);
        server.wait_until_idle();
    }
    let status = server.page("/api/status");
    assert_eq!(status["slots"]["taken"], 12, "{status:#}");
}

#[test]
fn a_slot_is_held_until_the_last_byte_of_the_answer() {
    let upstream = Upstream::start(Script::StallAfterFirst);
    let server = server(&upstream, 1, "");
    let mut first = Ask::of("mine/first").streamed().stream(&server);
    assert!(
        matches!(first.event(), Ok(Some(Event::Data(_)))),
        "it has begun"
    );
    upstream.next(Script::text("my turn"));
    let mut second = Ask::of("mine/second").send(&server);
    wait_for_waiting(&server, 1);
    let status = server.page("/api/status");
    assert_eq!(status["slots"]["providers"]["mine"]["in_use"], 1);
    assert_eq!(upstream.requests().len(), 1);
    drop(first);
    assert_eq!(text(&second.response().expect("an answer")), "my turn");
    server.wait_until_idle();
}

#[test]
fn those_who_leave_harm_nobody_who_stays() {
    let upstream = Upstream::start(Script::Silent);
    let long = Script::Answer(Answer {
        text: "all of it".into(),
        pieces: 9,
        pace: Duration::from_millis(50),
        ..Answer::default()
    });
    upstream.on_model("long", long);
    let server = server(&upstream, 8, "");
    let mut staying = Ask::of("mine/long").streamed().stream(&server);
    at_once(4, |_| {
        for _ in 0..4 {
            let client = Ask::of("mine/silent").streamed().send(&server);
            server.wait_for_status("somebody runs", |status| {
                status["slots"]["global"]["in_use"].as_u64() >= Some(1)
            });
            drop(client);
        }
    });
    let events = staying.events().expect("a proper end");
    assert_eq!(events.last(), Some(&Event::Data("[DONE]".into())));
    wait_for_cancelled(&server, 16);
    upstream.next(Script::text("at once"));
    assert_eq!(text(&Ask::of("mine/m").answer(&server)), "at once");
    server.wait_until_idle();
    let requests = server.page("/api/status")["requests"].clone();
    assert_eq!(
        (&requests["completed"], &requests["error"]),
        (&json!(2), &json!(0))
    );
}

#[test]
fn a_client_that_leaves_in_its_body_or_between_two_requests_was_no_request() {
    let upstream = Upstream::start(Script::text("hello"));
    let server = server(&upstream, 1, "");
    let mut half = server.client();
    half.send(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{\"mo",
    );
    drop(half);
    let mut polite = server.client();
    Ask::of("mine/m").on(&mut polite);
    assert_eq!(text(&polite.response().expect("an answer")), "hello");
    drop(polite);
    assert_eq!(text(&Ask::of("mine/m").answer(&server)), "hello");
    server.wait_until_idle();
    let requests = server.page("/api/status")["requests"].clone();
    assert_eq!(
        (&requests["received"], &requests["completed"]),
        (&json!(2), &json!(2))
    );
}

#[test]
fn requests_in_a_row_on_one_connection_are_answered_in_that_row() {
    let gate = Gate::new();
    let upstream = Upstream::start(Script::text("fast {prompt}"));
    upstream.on_model(
        "slow",
        Script::Gate(gate.clone(), Box::new(Script::text("slow {prompt}"))),
    );
    let server = server(&upstream, 4, "");
    let mut client = server.client();
    Ask::of("mine/slow").saying("1").on(&mut client);
    Ask::of("mine/m").saying("2").on(&mut client);
    client.request("GET", "/healthz", &[], None);
    Ask::of("mine/m").saying("4").on(&mut client);
    upstream.wait_for_in_flight(1);
    let other = Ask::of("mine/m").saying("elsewhere").answer(&server);
    assert_eq!(text(&other), "fast elsewhere");
    gate.release();
    let mut next = || client.response().expect("an answer");
    assert_eq!(text(&next()), "slow 1");
    assert_eq!(text(&next()), "fast 2");
    assert_eq!(next().json()["status"], "ok");
    assert_eq!(text(&next()), "fast 4");
    server.wait_until_idle();
}

#[test]
fn a_connection_serves_one_request_after_another_whatever_their_kind() {
    let upstream = Upstream::start(Script::text("hello"));
    let server = server(&upstream, 1, "");
    let mut client = server.client();
    for path in ["/healthz", "/v1/models", "/api/status"] {
        client.request("HEAD", path, &[], None);
        let (status, head) = client.head().expect("a head");
        assert_eq!(status, 200, "HEAD {path}");
        let length = head
            .header("content-length")
            .and_then(|text| text.parse().ok());
        assert!(length > Some(0usize), "what GET would have: {head:?}");
        // Were there a body, it would be taken for this answer's head.
        assert_eq!(client.get(path).status, 200, "GET {path}");
    }
    let mut stream = client.stream("/v1/chat/completions", &json!({
        "model": "mine/m", "stream": true, "messages": [{"role": "user", "content": "hello"}],
    })).expect("a stream");
    assert_eq!(stream.events().map(|events| events.is_empty()), Ok(false));
    let mut client = stream.into_client();
    assert_eq!(client.get("/v1/chat/completions").status, 405);
    Ask::of("mine/m").on(&mut client);
    assert_eq!(text(&client.response().expect("an answer")), "hello");
}

/// An OpenAI-shaped error of the caller's.
fn assert_refused(what: &str, answer: &Response, status: u16, expected: &str, param: Option<&str>) {
    assert_eq!(
        (answer.status, code(answer).as_str()),
        (status, expected),
        "{what}"
    );
    assert_eq!(
        answer.header("content-type"),
        Some("application/json"),
        "{what}"
    );
    let error = answer.json()["error"].clone();
    assert_eq!(error["type"], "caller_error", "{what}: {error:#}");
    assert_eq!(error["param"].as_str(), param, "{what}: {error:#}");
    let message = error["message"].as_str();
    assert!(
        message.is_some_and(|message| message.len() > 10),
        "{what}: {error:#}"
    );
}

/// Sees that nobody was called and no slot was taken for what was refused.
fn assert_cost_nothing(upstream: &Upstream, server: &Server) {
    assert_eq!((upstream.requests().len(), upstream.connections()), (0, 0));
    let status = server.page("/api/status");
    assert_eq!(status["slots"]["taken"], 0, "{status:#}");
    assert_eq!(status["requests"]["received"], 0, "{status:#}");
}

/// Bodies that are no request, with the field at fault.
fn wrong_bodies() -> Vec<(Value, Option<&'static str>)> {
    let hello = json!([{"role": "user", "content": "hello"}]);
    let with = |field: &str, value: Value| {
        let mut body = json!({"model": "mine/m", "messages": hello});
        body[field] = value;
        body
    };
    vec![
        (json!([1, 2]), None),
        (json!({"messages": hello}), Some("model")),
        (json!({"model": "mine/m"}), Some("messages")),
        (with("messages", json!([])), Some("messages")),
        (with("messages", json!("hello")), Some("messages")),
        (
            with("messages", json!([{"content": "x"}])),
            Some("messages[0].role"),
        ),
        (
            with("messages", json!([{"role": "user", "content": 7}])),
            Some("messages[0].content"),
        ),
        (with("model", json!(7)), Some("model")),
        (with("model", json!(" ")), Some("model")),
        (with("stream", json!("yes")), Some("stream")),
        (with("temperature", json!("hot")), Some("temperature")),
        (with("max_tokens", json!(-1)), Some("max_tokens")),
        (with("tools", json!({})), Some("tools")),
        (
            with("pointsman", json!({"priority": "urgent"})),
            Some("pointsman.priority"),
        ),
        (
            with("pointsman", json!({"timeout": "soon"})),
            Some("pointsman.timeout"),
        ),
        (
            with("pointsman", json!({"timeuot": "3s"})),
            Some("pointsman.timeuot"),
        ),
    ]
}

#[test]
fn a_body_that_is_no_request_is_refused_with_its_field_and_costs_nothing() {
    let upstream = Upstream::start(Script::text("never"));
    let server = server(&upstream, 1, "");
    let mut client = server.client();
    for (body, param) in wrong_bodies() {
        let answer = client.post("/v1/chat/completions", &body);
        assert_refused(&body.to_string(), &answer, 400, "invalid_request", param);
    }
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    for text in ["", "{", "{\"model\": }", "hello", "\u{feff}{}", &deep] {
        client.send(raw("POST /v1/chat/completions", "", text));
        let answer = client.response().expect("an answer");
        assert_refused(text, &answer, 400, "invalid_request", None);
    }
    assert_cost_nothing(&upstream, &server);
}

#[test]
fn a_header_that_says_nonsense_is_refused_by_its_name() {
    let upstream = Upstream::start(Script::text("never"));
    let server = server(&upstream, 1, "");
    let long = "x".repeat(129);
    for (name, value) in [
        ("X-Priority", "urgent"),
        ("X-Request-Timeout", "soon"),
        ("X-Request-Timeout", "0s"),
        ("X-Request-Timeout", "-3s"),
        ("X-Session-Id", &long),
        ("X-Session-Id", ""),
    ] {
        let answer = Ask::of("mine/m").header(name, value).answer(&server);
        assert_refused(name, &answer, 400, "invalid_request", None);
        let message = answer.json()["error"]["message"].clone();
        let names_it = message.as_str().is_some_and(|text| text.contains(name));
        assert!(names_it, "{message}");
    }
    assert_cost_nothing(&upstream, &server);
}

#[test]
fn what_is_not_there_is_not_found_and_the_nearest_is_named() {
    let upstream = Upstream::start(Script::text("never"));
    let server = server(&upstream, 1, "");
    for model in ["embeded", "minee/m", "fault-panic", "mine/"] {
        let answer = Ask::of(model).answer(&server);
        assert_refused(model, &answer, 404, "model_not_found", Some("model"));
        assert_eq!(answer.header("x-should-retry"), Some("false"));
    }
    let named = Ask::of("embeded").answer(&server).json()["error"]["message"].to_string();
    assert!(named.contains("embedded"), "{named}");
    let mut client = server.client();
    let body = json!({});
    for (path, word) in [
        ("/v1/chat/completion", "/v1/chat/completions"),
        ("/v1/embeddings", "not supported"),
        ("/v1/messages", "not supported"),
    ] {
        let answer = client.post(path, &body);
        assert_refused(path, &answer, 404, "not_found", None);
        assert!(
            answer.json()["error"]["message"].to_string().contains(word),
            "{path}"
        );
    }
    let answer = client.get("/v1/chat/completions");
    assert_refused("GET", &answer, 405, "method_not_allowed", None);
    assert_eq!(answer.header("allow"), Some("POST"));
    client.request("DELETE", "/api/status", &[], None);
    let answer = client.response().expect("an answer");
    assert_refused("DELETE", &answer, 405, "method_not_allowed", None);
    assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    assert_cost_nothing(&upstream, &server);
}

/// A request with further headers and a body, byte for byte.
fn raw(line: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

#[test]
fn a_page_of_another_site_reaches_nothing() {
    let upstream = Upstream::start(Script::text("hello"));
    let server = server(&upstream, 1, "");
    let body =
        json!({"model": "mine/m", "messages": [{"role": "user", "content": "hello"}]}).to_string();
    let length = body.len();
    for line in [
        "POST /v1/chat/completions",
        "GET /api/status",
        "DELETE /api/requests/x",
    ] {
        for head in [
            "Host: evil.example",
            "Host: localhost\r\nOrigin: https://evil.example",
            "Host: localhost.evil.example:80",
            "Host: localhost\r\nOrigin: null",
        ] {
            let mut client = server.client();
            client.send(format!(
                "{line} HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}"
            ));
            let answer = client.response().expect("an answer");
            assert_refused(head, &answer, 403, "forbidden", None);
        }
    }
    assert_cost_nothing(&upstream, &server);
    let local = raw(
        "POST /v1/chat/completions",
        "Origin: http://localhost:3000\r\n",
        &body,
    );
    let mut client = server.client();
    client.send(local);
    assert_eq!(text(&client.response().expect("an answer")), "hello");
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let upstream = Upstream::start(Script::text("hello"));
    let server = server(&upstream, 1, "server.max_body = \"4KiB\"");
    let mut announced = server.client();
    announced.send(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n",
    );
    assert_refused(
        "announced",
        &announced.response().expect("an answer"),
        413,
        "request_too_large",
        None,
    );
    let mut chunked = server.client();
    chunked.send("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    chunked.send(format!("{:x}\r\n{}\r\n", 5000, " ".repeat(5000)));
    assert_refused(
        "chunked",
        &chunked.response().expect("an answer"),
        413,
        "request_too_large",
        None,
    );
    let mut head = server.client();
    head.send(format!(
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n",
        "x".repeat(20_000)
    ));
    assert_refused(
        "head",
        &head.response().expect("an answer"),
        431,
        "request_too_large",
        None,
    );
    let mut twice = server.client();
    twice.send("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}");
    assert_refused(
        "two lengths",
        &twice.response().expect("an answer"),
        400,
        "invalid_request",
        None,
    );
    twice.wait_for_end();
    assert_cost_nothing(&upstream, &server);
    let fits = Ask::of("mine/m").saying(&"x".repeat(3_000)).answer(&server);
    assert_eq!(text(&fits), "hello");
}
