//! The upstream's own tests: a script that does not do what it says would make other tests pass for nothing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::{Broken, Client, Event, Stream};
use super::*;

fn ask(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "why?"}]})
}

fn open(upstream: &Upstream, stream: bool) -> Result<Stream, Broken> {
    Client::connect(upstream.address()).stream("/v1/chat/completions", &ask("m", stream))
}

/// All of an answer's text.
fn text(stream: &mut Stream) -> String {
    let events = stream.events().expect("a proper end");
    assert_eq!(events.last(), Some(&Event::Data("[DONE]".into())));
    let piece = |event: &Event| {
        let json = event.json()?;
        Some(json["choices"][0]["delta"]["content"].as_str()?.to_owned())
    };
    events.iter().filter_map(piece).collect()
}

#[test]
fn an_answer_carries_the_requests_id_and_prompt_streamed_or_not() {
    let upstream = Upstream::start(Script::text("{id} was asked {prompt}"));
    let mut client = Client::connect(upstream.address());
    let reply = client.post("/v1/chat/completions", &ask("m", false));
    let content = reply.json()["choices"][0]["message"]["content"].clone();
    assert_eq!((reply.status, content), (200, "up-1 was asked why?".into()));
    let mut stream = client
        .stream("/v1/chat/completions", &ask("m", true))
        .expect("a stream");
    assert_eq!(text(&mut stream), "up-2 was asked why?");
    assert_eq!((upstream.connections(), upstream.peak()), (1, 1));
    drop(stream);
    upstream.wait_for_closed(1);
    upstream.wait_for_in_flight(0);
    let requests = upstream.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!((requests[1].model(), requests[1].connection), ("m", 1));
    assert_eq!(requests[1].head.header("host"), Some("localhost"));
}

#[test]
fn a_request_finds_its_script() {
    let upstream = Upstream::start(Script::text("otherwise"));
    upstream.on_model("m", Script::text("model"));
    upstream.on_header("X-Script", "h", Script::text("header"));
    upstream.next(Script::rate_limited("7"));
    let mut client = Client::connect(upstream.address());
    let refused = client.post("/v1/chat/completions", &ask("m", false));
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (429, Some("7"))
    );
    let mut check = |model: &str, headers: &[(&str, &str)], expected: &str| {
        client.request(
            "POST",
            "/v1/chat/completions",
            headers,
            Some(&ask(model, false)),
        );
        let reply = client.response().expect("an answer").json();
        assert_eq!(reply["choices"][0]["message"]["content"], expected);
    };
    check("m", &[], "model");
    check("m", &[("x-script", "h")], "header");
    check("n", &[], "otherwise");
    let models = client.get("/v1/models").json();
    assert_eq!(models["data"][0]["id"], "m");
    assert_eq!(upstream.requests().len(), 4, "no chat, no count");
}

#[test]
fn a_gate_holds_answers_until_it_is_released() {
    let gate = Gate::new();
    let upstream = Upstream::start(Script::gated(&gate));
    let clients: Vec<Client> = (0..3)
        .map(|_| {
            let mut client = Client::connect(upstream.address());
            client.request("POST", "/v1/chat/completions", &[], Some(&ask("m", false)));
            client
        })
        .collect();
    upstream.wait_for_in_flight(3);
    assert_eq!(upstream.peak(), 3);
    let mut clients = clients.into_iter();
    drop(clients.next());
    upstream.wait_for_closed(1);
    upstream.wait_for_in_flight(2);
    gate.release();
    for mut client in clients {
        assert_eq!(client.response().expect("an answer").status, 200);
    }
    upstream.wait_for_in_flight(0);
}

#[test]
fn what_breaks_off_is_seen_as_broken_off() {
    for script in [
        Script::Reset,
        Script::HalfClose,
        Script::Raw(b"HTTP/1.1 2".to_vec()),
    ] {
        let upstream = Upstream::start(script.clone());
        assert_eq!(open(&upstream, false).err(), Some(Broken), "{script:?}");
        upstream.wait_for_closed(1);
    }
    for stream in [true, false] {
        let upstream = Upstream::start(Script::WrongLength);
        let mut stream = open(&upstream, stream).expect("a head");
        assert_eq!(stream.events().err(), Some(Broken));
    }
}

#[test]
fn what_stalls_or_trickles_goes_on_until_the_client_leaves() {
    for script in [Script::Silent, Script::NoHeaders, Script::TrickleHeaders] {
        let upstream = Upstream::start(script);
        let mut client = Client::connect(upstream.address());
        client.request("POST", "/v1/chat/completions", &[], Some(&ask("m", true)));
        upstream.wait_for_in_flight(1);
        drop(client);
        upstream.wait_for_closed(1);
    }
    for (script, comments) in [
        (Script::StallAfterFirst, false),
        (Script::KeepAliveCommentsAfterFirst, true),
    ] {
        let upstream = Upstream::start(script);
        let mut stream = open(&upstream, true).expect("a head");
        let first = stream.event().expect("an event").expect("an event");
        assert!(first.json().is_some(), "{first:?}");
        if comments {
            let mut next = || stream.event().expect("an event").expect("an event");
            let comment = Event::Comment("keep-alive".into());
            assert_eq!([next(), next()], [comment.clone(), comment]);
        }
        assert_eq!(upstream.in_flight(), 1);
        drop(stream);
        upstream.wait_for_closed(1);
    }
    let upstream = Upstream::start(Script::TrickleBody);
    let mut stream = open(&upstream, true).expect("a head");
    assert_eq!(
        stream.event(),
        Ok(Some(Event::Comment("keep-alive".into())))
    );
    drop(stream);
    upstream.wait_for_closed(1);
}

#[test]
fn errors_come_as_asked_for() {
    let upstream = Upstream::start(Script::HtmlGateway504);
    upstream.next(Script::ErrorBodyWith200);
    upstream.next(Script::error(401, "auth_error", "no"));
    let mut client = Client::connect(upstream.address());
    let mut post = || client.post("/v1/chat/completions", &ask("m", false));
    let reply = post();
    assert_eq!(
        (reply.status, &reply.json()["error"]["type"]),
        (200, &json!("server_error"))
    );
    assert_eq!(post().status, 401);
    let reply = post();
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (504, Some("text/html"))
    );
    upstream.next(Script::ErrorBodyWith200);
    let events = open(&upstream, true)
        .expect("a head")
        .events()
        .expect("an end");
    assert_eq!(
        events[0].json().expect("JSON")["error"]["type"],
        "server_error"
    );
    upstream.next(Script::Garbage);
    client.request("POST", "/v1/chat/completions", &[], Some(&ask("m", false)));
    client.wait_for_end();
}

#[test]
fn a_delay_and_a_pace_are_kept() {
    let wait = Duration::from_millis(20);
    let upstream = Upstream::start(Script::Answer(Answer {
        text: "abc".into(),
        reasoning: "hm".into(),
        pieces: 3,
        delay: wait,
        think: wait,
        pace: wait,
    }));
    let start = Instant::now();
    assert_eq!(text(&mut open(&upstream, true).expect("a head")), "abc");
    assert!(start.elapsed() >= 4 * wait);
}

#[test]
fn an_upstream_that_takes_nobody_in_lets_connecting_hang() {
    let upstream = Upstream::no_accept();
    let result = TcpStream::connect_timeout(&upstream.address(), Duration::from_millis(50));
    let error = result.expect_err("it hangs");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}
