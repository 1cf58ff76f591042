//! Faults of an answer: heads, lengths, chunks, bodies and events that are none, or never end; and odd ones that are whole.

use serde_json::json;

use crate::faults::{FAILED, Fault, INCOMPLETE, MALFORMED, Told, WELL, check};
use crate::support::{Script, Then};

/// The head of an answer, but for its last lines.
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

/// A proper answer to anything.
fn body() -> String {
    let message = json!({"role": "assistant", "content": WELL});
    json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    })
    .to_string()
}

/// An event with a piece of an answer.
fn piece(content: &str) -> String {
    let delta = json!({"role": "assistant", "content": content});
    let choices = json!([{"index": 0, "delta": delta, "finish_reason": null}]);
    format!(
        "data: {}\n\n",
        json!({"id": "c", "model": "m", "choices": choices})
    )
}

/// A head, and a body of the length that it says.
fn sized(head: &str, body: &str) -> String {
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn chunk(bytes: &str) -> String {
    format!("{:x}\r\n{bytes}\r\n", bytes.len())
}

/// These bytes, and the end of the connection.
fn closed(name: &'static str, bytes: impl Into<Vec<u8>>, told: Told) -> Fault {
    let script = Script::Raw(bytes.into());
    Fault { name, script, told }
}

/// These bytes, and what follows.
fn then(name: &'static str, bytes: impl Into<Vec<u8>>, then: Then, told: Told) -> Fault {
    let script = Script::RawThen(bytes.into(), then);
    Fault { name, script, told }
}

#[test]
fn a_head_that_is_none() {
    let many: String = (0..500).map(|n| format!("x-{n}: y\r\n")).collect();
    check(&[
        closed("half a head", "HTTP/1.1 200 OK\r\nContent-Le", INCOMPLETE),
        closed("half a status line", "HTTP/1", INCOMPLETE),
        then(
            "half a head, and silence",
            "HTTP/1.1 200 OK\r\nContent-Le",
            Then::Silence,
            Told::Late,
        ),
        closed("another protocol", "SSH-2.0-OpenSSH_9.9\r\n\r\n", MALFORMED),
        closed("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", MALFORMED),
        closed("bytes", vec![0xff; 64], MALFORMED),
        closed("a status of letters", "HTTP/1.1 abc OK\r\n\r\n", MALFORMED),
        closed(
            "a status of four digits",
            "HTTP/1.1 2000 OK\r\n\r\n",
            MALFORMED,
        ),
        closed(
            "a header without a name",
            format!("{OK}: x\r\n\r\n"),
            MALFORMED,
        ),
        closed(
            "a null byte in a header",
            format!("{OK}x: \0\r\n\r\n"),
            MALFORMED,
        ),
        closed(
            "too many headers",
            sized(&format!("{OK}{many}"), &body()),
            MALFORMED,
        ),
        then(
            "a header without end",
            format!("{OK}x: "),
            Then::Again(vec![b'y'; 1024]),
            MALFORMED,
        ),
        then(
            "a head without end",
            OK,
            Then::Again(b"x: y\r\n".to_vec()),
            MALFORMED,
        ),
        closed("only a reset", "", INCOMPLETE),
    ]);
}

#[test]
fn a_body_of_another_length() {
    let whole = body();
    let short = whole.len() - 20;
    let long = whole.len() + 20;
    let say = |length: &str| format!("{OK}Content-Length: {length}\r\n\r\n{whole}");
    check(&[
        then(
            "shorter than it is",
            say(&short.to_string()),
            Then::Next,
            INCOMPLETE,
        ),
        closed("longer than it is", say(&long.to_string()), INCOMPLETE),
        then(
            "longer, and silence",
            say(&long.to_string()),
            Then::Silence,
            Told::Late,
        ),
        closed("a length of letters", say("abc"), MALFORMED),
        closed("a length below zero", say("-1"), MALFORMED),
        closed(
            "a length beyond all numbers",
            say("99999999999999999999999"),
            MALFORMED,
        ),
        closed(
            "two lengths",
            say(&format!("{}\r\nContent-Length: {short}", whole.len())),
            MALFORMED,
        ),
        then(
            "no body at all",
            format!("{OK}Content-Length: 0\r\n\r\n"),
            Then::Next,
            INCOMPLETE,
        ),
        then(
            "no content",
            "HTTP/1.1 204 No Content\r\n\r\n",
            Then::Next,
            INCOMPLETE,
        ),
        closed("a head, and the end", format!("{OK}\r\n"), INCOMPLETE),
        then(
            "a reset in the body",
            say(&long.to_string()),
            Then::Reset,
            INCOMPLETE,
        ),
    ]);
}

#[test]
fn chunks_that_are_none() {
    let whole = chunk(&body());
    let half = &whole[..whole.len() / 2];
    let say = |chunks: &str| format!("{CHUNKED}{chunks}");
    check(&[
        closed(
            "a size of letters",
            say("xyz\r\n{}\r\n0\r\n\r\n"),
            MALFORMED,
        ),
        closed(
            "a size below zero",
            say("-5\r\nhello\r\n0\r\n\r\n"),
            MALFORMED,
        ),
        closed(
            "a size beyond all numbers",
            say("ffffffffffffffffff\r\n{}"),
            MALFORMED,
        ),
        closed("no size", say("\r\n\r\n"), MALFORMED),
        closed(
            "more than the size",
            say("2\r\n{}{}\r\n0\r\n\r\n"),
            MALFORMED,
        ),
        closed("cut in a size", say("1"), MALFORMED),
        closed("cut in a chunk", say(half), INCOMPLETE),
        then("stalled in a chunk", say(half), Then::Silence, Told::Late),
        then("reset in a chunk", say(half), Then::Reset, INCOMPLETE),
        closed("cut after a chunk", say(&whole), INCOMPLETE),
        then(
            "stalled after a chunk",
            say(&whole),
            Then::Silence,
            Told::Late,
        ),
        then(
            "a size without end",
            say(""),
            Then::Again(vec![b'0'; 1024]),
            MALFORMED,
        ),
    ]);
}

#[test]
fn a_body_that_says_nothing_of_the_wire() {
    let zipped =
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00";
    let gzip = [
        format!(
            "{OK}Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            zipped.len()
        )
        .into_bytes(),
        zipped.to_vec(),
    ]
    .concat();
    let broken = b"{\"choices\":[{\"message\":{\"content\":\"\xc3\x28\"}}]}";
    let no_text = [
        format!("{OK}Content-Length: {}\r\n\r\n", broken.len()).into_bytes(),
        broken.to_vec(),
    ]
    .concat();
    let say = |body: &str| sized(OK, body);
    let cut = &body()[..30];
    check(&[
        then("no JSON", say("this is no JSON"), Then::Next, MALFORMED),
        then("cut JSON", say(cut), Then::Next, INCOMPLETE),
        then("another JSON", say("[1, 2, 3]"), Then::Next, MALFORMED),
        then("an empty object", say("{}"), Then::Next, MALFORMED),
        then("null", say("null"), Then::Next, MALFORMED),
        then(
            "no choices",
            say(r#"{"choices":[]}"#),
            Then::Next,
            MALFORMED,
        ),
        then(
            "deeper than anybody goes",
            say(&"[".repeat(100_000)),
            Then::Next,
            MALFORMED,
        ),
        then("no UTF-8", no_text, Then::Next, MALFORMED),
        then("zipped though nobody asked", gzip, Then::Next, MALFORMED),
        then(
            "a page",
            say("<html>Welcome to nginx!</html>"),
            Then::Next,
            MALFORMED,
        ),
        then(
            "an error for a success",
            say(r#"{"error":{"message":"no"}}"#),
            Then::Next,
            FAILED,
        ),
        then(
            "an error of another shape",
            say(r#"{"error":"no"}"#),
            Then::Next,
            FAILED,
        ),
    ]);
}

#[test]
fn events_that_are_none() {
    let say = |events: &str| format!("{EVENTS}{events}");
    let half = &piece("half")[..20];
    let failed = "data: {\"error\":{\"message\":\"no\",\"type\":\"server_error\"}}\n\n";
    let no_text = [say("data: ").as_bytes(), b"\xc3\x28\n\n"].concat();
    let first = piece("all ");
    check(&[
        closed("cut in an event", say(half), INCOMPLETE),
        closed(
            "cut in the second event",
            say(&format!("{first}{half}")),
            INCOMPLETE,
        ),
        closed("without an end", say(&first), INCOMPLETE),
        closed(
            "an end and nothing else",
            say("data: [DONE]\n\n"),
            INCOMPLETE,
        ),
        closed(
            "comments and nothing else",
            say(": hello\n\n: hello\n\n"),
            INCOMPLETE,
        ),
        closed(
            "an error in the middle",
            say(&format!("{first}{failed}")),
            FAILED,
        ),
        closed(
            "no JSON in the middle",
            say(&format!("{first}data: nonsense\n\n")),
            MALFORMED,
        ),
        closed("no UTF-8", no_text, MALFORMED),
        then(
            "a reset in the middle",
            say(&first),
            Then::Reset,
            INCOMPLETE,
        ),
        then(
            "silence in the middle",
            say(&first),
            Then::Silence,
            Told::Late,
        ),
    ]);
}

#[test]
fn what_never_ends() {
    let line = format!("{EVENTS}data: ");
    let text = format!("{OK}\r\n{{\"id\":\"");
    let content = format!("{EVENTS}{}", piece("all "));
    // As fast as they go, they would come up against the bound of a body before or after the deadline.
    let comments = ": hello\n\n".repeat(1000);
    check(&[
        then(
            "a line of events",
            line,
            Then::Again(vec![b'x'; 64 << 10]),
            MALFORMED,
        ),
        then("a body", text, Then::Again(vec![b'x'; 64 << 10]), MALFORMED),
        then(
            "comments",
            EVENTS,
            Then::Trickle(comments.clone()),
            Told::Late,
        ),
        then(
            "comments after content",
            content,
            Then::Trickle(comments),
            Told::Late,
        ),
        then(
            "provisional answers",
            "",
            Then::Again(b"HTTP/1.1 102 Processing\r\n\r\n".repeat(100)),
            MALFORMED,
        ),
    ]);
}

#[test]
fn an_odd_answer_that_is_whole_is_an_answer() {
    let whole = body();
    let html = OK.replace("application/json", "text/html");
    let end = "data: [DONE]\n\n";
    let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let events = format!("{}{finish}{end}", piece(WELL));
    check(&[
        closed(
            "HTTP/1.0",
            format!("HTTP/1.0 200 OK\r\n\r\n{whole}"),
            Told::Answer,
        ),
        closed("without a length", format!("{OK}\r\n{whole}"), Told::Answer),
        closed(
            "close",
            sized(&format!("{OK}Connection: close\r\n"), &whole),
            Told::Answer,
        ),
        then("keep-alive", sized(OK, &whole), Then::Next, Told::Answer),
        then("as a page", sized(&html, &whole), Then::Next, Told::Answer),
        then(
            "of no type",
            sized("HTTP/1.1 200 OK\r\n", &whole),
            Then::Next,
            Told::Answer,
        ),
        then(
            "with a blank before",
            sized(OK, &format!("\r\n  {whole}")),
            Then::Next,
            Told::Answer,
        ),
        then(
            "after provisional ones",
            format!(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{}",
                sized(OK, &whole)
            ),
            Then::Next,
            Told::Answer,
        ),
        then(
            "bytes after it",
            format!("{}surplus", sized(OK, &whole)),
            Then::Next,
            Told::Answer,
        ),
        then(
            "in chunks with extensions and trailers",
            format!(
                "{CHUNKED}{:x};a=b\r\n{whole}\r\n0\r\nx: y\r\n\r\n",
                whole.len()
            ),
            Then::Next,
            Told::Answer,
        ),
        closed(
            "events with other line ends",
            format!("{EVENTS}{}", events.replace('\n', "\r\n")),
            Told::Answer,
        ),
        closed("events as JSON", format!("{OK}\r\n{events}"), Told::Answer),
    ]);
}
