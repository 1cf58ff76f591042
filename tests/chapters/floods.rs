//! Whatever clients send, and however many they are: each gets a clear answer or nothing, and the others are served.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use serde_json::json;

use crate::deadlines::endless;
use crate::support::{Ask, Client, Response, Script, Server, Upstream, code, eventually, text};

/// A server that answers at once.
fn server(more: &str) -> Server {
    let fast = "providers.embedded.pace = \"0ms\"\n";
    Server::start(&format!("profile = \"test\"\n{fast}{more}\n"))
}

/// What a process has at a moment.
#[derive(Debug, Clone, Copy)]
struct Held {
    handles: usize,
    threads: usize,
    /// Resident memory, and the most that it ever was, in KiB.
    memory: usize,
    peak: usize,
}

fn held(server: &Server) -> Held {
    let place = format!("/proc/{}", server.pid());
    let status = std::fs::read_to_string(format!("{place}/status")).expect("it lives");
    let figure = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let word = line.and_then(|line| line.split_whitespace().next());
        word.and_then(|word| word.parse().ok()).expect(name)
    };
    let handles = std::fs::read_dir(format!("{place}/fd")).expect("it lives");
    Held {
        handles: handles.count(),
        threads: figure("Threads:"),
        memory: figure("VmRSS:"),
        peak: figure("VmHWM:"),
    }
}

/// As many file handles for the test itself as the system lets it have.
fn take_handles() {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum;
    let raised = Rlimit { current, ..limit };
    setrlimit(Resource::Nofile, raised).expect("up to its maximum");
}

/// Connections that say `bytes` and then nothing.
fn hold(server: &Server, count: usize, bytes: &str) -> Vec<Client> {
    let open = || {
        let mut client = server.client();
        client.send(bytes);
        client
    };
    (0..count).map(|_| open()).collect()
}

/// The beginning of a request.
const HALF: &str = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-";

/// Asks `path` on connections of their own, and sees that each is answered 200, most of them within 50 ms.
fn assert_served(what: &str, server: &Server, path: &str) {
    let ask = || {
        let start = Instant::now();
        let answer = server.client().get(path);
        assert_eq!(answer.status, 200, "{what}: {}", answer.head.start);
        start.elapsed()
    };
    let mut times: Vec<Duration> = (0..21).map(|_| ask()).collect();
    times.sort_unstable();
    assert!(
        times[10] < Duration::from_millis(50),
        "{what}: {:?}",
        times[10]
    );
}

/// Sees that an error is whole: OpenAI's shape, our code, and an id by which it can be spoken of.
fn assert_told(what: &str, answer: &Response, status: u16, expected: &str) {
    let told = (answer.status, code(answer));
    assert_eq!(told, (status, expected.to_owned()), "{what}");
    let id = answer.header("x-request-id").unwrap_or_default();
    assert!(!id.is_empty(), "{what} has no id");
    assert_eq!(answer.json()["pointsman"]["request_id"], id, "{what}");
}

fn post(headers: &str, body: &str) -> Vec<u8> {
    let line = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n";
    format!("{line}{headers}\r\n{body}").into_bytes()
}

fn get(headers: &str) -> Vec<u8> {
    format!("GET /healthz HTTP/1.1\r\n{headers}\r\n").into_bytes()
}

/// What is no request, or could be read as two, with the status that it deserves.
fn malformed() -> Vec<(&'static str, u16, Vec<u8>)> {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let local = "Host: localhost\r\n";
    let many = |count: usize| get(&(local.to_owned() + &"A: b\r\n".repeat(count)));
    #[rustfmt::skip]
    let table = vec![
        ("i64::MAX", 413, post("Content-Length: 9223372036854775807\r\n", "")),
        ("u64::MAX", 413, post("Content-Length: 18446744073709551615\r\n", "")),
        ("beyond", 400, post("Content-Length: 99999999999999999999999\r\n", "")),
        ("-1", 400, post("Content-Length: -1\r\n", "")),
        ("+5", 400, post("Content-Length: +5\r\n", "hello")),
        ("5, 5", 400, post("Content-Length: 5, 5\r\n", "hello")),
        ("twice", 400, post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello")),
        ("both", 400, post(&format!("Content-Length: 5\r\n{chunked}"), "0\r\n\r\n")),
        ("chunked twice", 400, post(&chunked.repeat(2), "0\r\n\r\n")),
        ("gzip", 400, post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")),
        ("no chunk", 400, post(chunked, "zz\r\nhello\r\n0\r\n\r\n")),
        ("chunk -1", 400, post(chunked, "-1\r\nhello\r\n0\r\n\r\n")),
        ("chunk too large", 413, post(chunked, "7fffffffffffffff\r\nhello\r\n")),
        ("chunk too long", 400, post(chunked, "5\r\nhelloXX0\r\n\r\n")),
        ("chunk's line", 400, post(chunked, &format!("5;{}", "a".repeat(1000)))),
        ("trailers", 431, post(chunked, &format!("0\r\n{}", "X: y\r\n".repeat(20_000)))),
        ("expects magic", 417, post("Expect: magic\r\nContent-Length: 2\r\n", "{}")),
        ("bare line feeds", 400, b"GET /healthz HTTP/1.1\nHost: localhost\n\n".to_vec()),
        ("no host", 400, get("")),
        ("two hosts", 400, get(&local.repeat(2))),
        ("folded", 400, get("Host: localhost\r\nX: a\r\n b\r\n")),
        ("space before colon", 400, get("Host : localhost\r\n")),
        ("nul", 400, get("Host: localhost\r\nX: a\0b\r\n")),
        ("TLS", 400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("HTTP/2", 505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("HTTP/0.9", 400, b"GET /\r\n\r\n".to_vec()),
        ("no text", 400, vec![0x80; 100_000]),
        ("empty lines", 431, b"\r\n".repeat(100_000)),
        ("101 headers", 431, many(100)),
        ("100,000 headers", 431, many(100_000)),
        ("10 MB of a line", 431, format!("GET /{}", "a".repeat(10_000_000)).into_bytes()),
        ("10 MB of a header", 431, get(&format!("X: {}\r\n", "a".repeat(10_000_000)))),
    ];
    table
}

#[test]
fn what_is_no_request_is_refused_with_an_id_and_closed_and_harms_nobody() {
    let server = server("");
    for (what, status, bytes) in malformed() {
        let mut client = server.client();
        client.send(bytes);
        let answer = client.response().expect(what);
        let expected = match status {
            413 | 431 => "request_too_large",
            _ => "invalid_request",
        };
        assert_told(what, &answer, status, expected);
        assert_eq!(answer.header("connection"), Some("close"), "{what}");
        client.wait_for_end();
        assert_eq!(server.client().get("/healthz").status, 200, "after {what}");
    }
    let named = post("X-Request-Id: mine\r\nContent-Length: -1\r\n", "");
    let mut client = server.client();
    client.send(named);
    let answer = client.response().expect("an answer");
    assert_eq!(answer.header("x-request-id"), Some("mine"), "it was read");
    assert!(held(&server).peak < 100 << 10, "{:?}", held(&server));
}

#[test]
fn what_is_no_chat_is_refused_in_words_on_a_connection_that_stays() {
    let server = server("");
    let mut client = server.client();
    let chat = |more: &str| {
        let messages = r#""messages":[{"role":"user","content":"x"}]"#;
        format!("{{{more},{messages}}}").into_bytes()
    };
    let nested = |open: &str, close: &str| {
        let (open, close) = (open.repeat(100_000), close.repeat(100_000));
        chat(&format!(r#""model":"embedded","x":{open}1{close}"#))
    };
    let (invalid, unknown) = ("invalid_request", "model_not_found");
    #[rustfmt::skip]
    let table = [
        ("null", 400, invalid, b"null".to_vec()),
        ("no UTF-8", 400, invalid, chat("\"model\":\"em\u{0}\"").replace_zero(0xff)),
        ("UTF-16", 400, invalid, b"\xff\xfe{\0}\0".to_vec()),
        ("half a pair", 400, invalid, chat(r#""model":"\ud800""#)),
        ("lists", 400, invalid, nested("[", "]")),
        ("objects", 400, invalid, nested("{\"a\":", "}")),
        ("not a number", 400, invalid, chat(r#""model":"embedded","temperature":NaN"#)),
        ("infinite", 400, invalid, chat(r#""model":"embedded","temperature":1e999"#)),
        ("null for a model", 400, invalid, chat(r#""model":null"#)),
        ("a flag for a model", 400, invalid, chat(r#""model":true"#)),
        ("null for a message", 400, invalid, br#"{"model":"embedded","messages":[null]}"#.to_vec()),
        ("two bodies", 400, invalid, b"{}{}".to_vec()),
        ("unknown", 404, unknown, chat(r#""model":"nobody""#)),
        ("unknown and long", 404, unknown, chat(&format!(r#""model":"{}""#, "x".repeat(1 << 20)))),
        ("unknown and split", 404, unknown, chat(r#""model":"a\r\nX-Mine: b\u0000""#)),
    ];
    for (what, status, expected, body) in table {
        client.send(post(&format!("Content-Length: {}\r\n", body.len()), ""));
        client.send(body);
        let answer = client.response().expect(what);
        assert_told(what, &answer, status, expected);
        assert!(answer.body.len() < 2000, "{what}: the answer is no echo");
        assert_eq!(answer.header("x-mine"), None);
    }
    let twice = chat(r#""model":"nobody","model":"embedded""#);
    client.send(post(&format!("Content-Length: {}\r\n", twice.len()), ""));
    client.send(twice);
    let answer = client.response().expect("an answer");
    assert_eq!(
        answer.status, 200,
        "of a key that stands twice the last counts"
    );
    server.wait_until_idle();
}

/// Bytes that no text of a test can hold.
trait ReplaceZero {
    fn replace_zero(self, with: u8) -> Self;
}

impl ReplaceZero for Vec<u8> {
    fn replace_zero(mut self, with: u8) -> Self {
        let zeros = self.iter_mut().filter(|byte| **byte == 0);
        zeros.for_each(|byte| *byte = with);
        self
    }
}

#[test]
fn a_body_of_nothing_but_brackets_gets_no_more_memory_than_is_set_aside() {
    let server = server("server.max_body_total = \"32MiB\"");
    let body = |values: usize| {
        let list = vec!["[[[]]]"; values / 4].join(",");
        let messages = r#"[{"role":"user","content":"x"}]"#;
        format!(r#"{{"model":"embedded","messages":{messages},"x":[{list}]}}"#)
    };
    let send = |body: &str| {
        let mut client = server.client();
        client.send(post(&format!("Content-Length: {}\r\n", body.len()), body));
        client.response().expect("an answer")
    };
    let before = held(&server).memory;
    let answer = send(&body(8_000_000));
    assert_told("8 million", &answer, 413, "request_too_large");
    let grown = held(&server).peak - before;
    assert!(grown < 48 << 10, "{grown} KiB more for a body of 14 MB");
    assert_eq!(send(&body(100_000)).status, 200, "what fits is read");
    server.wait_until_idle();
}

#[test]
fn clients_that_are_slow_or_silent_hold_up_nobody() {
    take_handles();
    let server = server("server.max_connections = 4000");
    let _half = hold(&server, 500, HALF);
    assert_served("half-open", &server, "/v1/models");
    let mut dripping = hold(&server, 100, "");
    for byte in HALF.as_bytes().chunks(1).take(30) {
        dripping.iter_mut().for_each(|client| client.send(byte));
    }
    assert_served("dripping", &server, "/v1/models");
    let _idle = hold(&server, 1500, "");
    assert_served("silent", &server, "/v1/models");
    let answer = Ask::of("embedded").answer(&server);
    assert_eq!(answer.status, 200, "{}", text(&answer));
    let memory = held(&server).memory;
    assert!(memory < 100 << 10, "{memory} KiB");
}

#[test]
fn clients_that_do_not_read_hold_up_nobody() {
    let upstream = Upstream::start(endless());
    let config = format!(
        "providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"{}\"\n\
         providers.mine.max_inflight = 4\nlimits.global = 5\nlimits.session = 5\n",
        upstream.url()
    );
    let server = server(&config);
    let ask = Ask::of("mine/m").streamed();
    let unread: Vec<Client> = (0..20).map(|_| ask.send(&server)).collect();
    upstream.wait_for_in_flight(4);
    assert_served("unread", &server, "/v1/models");
    assert_eq!(Ask::of("embedded").answer(&server).status, 200);
    drop(unread);
    server.wait_until_idle();
}

#[test]
fn past_the_limit_operation_routes_are_served_and_the_others_told_so_at_once() {
    let server = server("server.max_connections = 8\nserver.operation_connections = 8");
    let _half = hold(&server, 8, HALF);
    let start = Instant::now();
    let answer = server.client().get("/v1/models");
    assert_told("beyond", &answer, 503, "over_capacity");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(start.elapsed() < Duration::from_millis(500));
    for path in ["/healthz", "/readyz", "/api/status", "/api/requests"] {
        assert_served("full", &server, path);
    }
    // They take the places for operation routes too, and may not keep them.
    let silent = hold(&server, 20, "");
    let half = hold(&server, 20, HALF);
    eventually("operation routes are served again", || {
        server.client().get("/healthz").status == 200
    });
    drop((silent, half));
    eventually("all places for operation routes are free again", || {
        let mut clients: Vec<Client> = (0..8).map(|_| server.client()).collect();
        let mut answers = clients.iter_mut().map(|client| client.get("/healthz"));
        answers.all(|answer| answer.status == 200)
    });
}

#[test]
fn connections_that_idle_give_way_to_those_that_have_something_to_say() {
    take_handles();
    let server = server("server.max_connections = 16\nserver.park_after = \"5ms\"");
    let _idle = hold(&server, 64, "");
    // Long before they would be closed for their silence.
    eventually("one of them gives way", || {
        server.client().get("/v1/models").status == 200
    });
    assert_served("idle", &server, "/v1/models");
    assert_eq!(Ask::of("embedded").answer(&server).status, 200);
}

#[test]
fn when_file_handles_are_used_up_and_given_back_everybody_is_served_again() {
    let server = server("");
    let pid = i32::try_from(server.pid()).ok().and_then(Pid::from_raw);
    let room = u64::try_from(held(&server).handles + 20).expect("a few");
    let limit = Rlimit {
        current: Some(room),
        maximum: Some(room),
    };
    prlimit(pid, Resource::Nofile, limit).expect("it is ours");
    let many = hold(&server, 200, HALF);
    server.wait_for_log("no file handle is left");
    let start = Instant::now();
    let answer = server.client().response().expect("a clear word");
    assert_told("too many", &answer, 503, "over_capacity");
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    drop(many);
    eventually("it is served again", || {
        server.client().get("/healthz").status == 200
    });
    assert_eq!(Ask::of("embedded").answer(&server).status, 200);
    server.wait_until_idle();
    let lines = server.log().len();
    assert!(lines < 50, "{lines} lines of log for one flood");
}

/// `count` streams, of which every second one is left by its client in the middle.
fn stream(server: &Server, count: usize) {
    let whole = Ask::of("mine/whole").streamed();
    let endless = Ask::of("mine/endless").streamed();
    crate::support::at_once(4, |_| {
        for _ in 0..count / 8 {
            let mut left = endless.stream(server);
            assert!(left.event().expect("it has begun").is_some());
            drop(left);
            let events = whole.stream(server).events();
            assert!(events.is_ok_and(|events| events.len() > 2));
        }
    });
    server.wait_until_idle();
}

#[test]
fn streams_that_are_left_half_way_leave_nothing_behind() {
    let upstream = Upstream::start(Script::Silent);
    upstream.on_model("whole", Script::text("hello"));
    upstream.on_model("endless", Script::StallAfterFirst);
    let config = format!(
        "providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"{}\"\n",
        upstream.url()
    );
    let server = server(&config);
    stream(&server, 80);
    let before = held(&server);
    stream(&server, 400);
    let mut after = before;
    eventually("handles are back", || {
        after = held(&server);
        after.handles <= before.handles + 4
    });
    assert!(after.threads <= before.threads + 4, "{before:?} {after:?}");
    let grown = after.memory.saturating_sub(before.memory);
    assert!(grown < 8 << 10, "{before:?} {after:?}");
    let status = server.page("/api/status");
    assert_eq!(status["requests"]["cancelled"], json!(240));
    assert_eq!(status["requests"]["completed"], json!(240));
    assert_eq!(status["requests"]["active"], json!(0));
}
