//! Whole calls: what is sent, what is kept, what is told, and how failures are named.

use std::io::BufRead;
use std::sync::mpsc::channel;

use parking_lot::Mutex;

use super::super::Get;
use super::peer::{Peer, Said, closed_port, ok};
use super::*;
use crate::providers::transport::tls::TlsFault;

/// A new connection that was closed.
macro_rules! closed {
    (before_answer: $before:literal) => {
        TransportError::Closed {
            reused: false,
            before_answer: $before,
            ..
        }
    };
}

#[test]
fn a_request_carries_the_key_and_what_was_asked_for() {
    let (say, heard) = channel();
    let say = Mutex::new(say);
    let peer = Peer::new(move |mut line| {
        let head = line.head();
        say.lock().send(head).expect("the test lives");
        line.write(ok("{}").as_bytes());
    });
    let caller = Caller::new(&peer.url());
    let mut answer = caller
        .transport
        .get(&Get {
            path: "/models",
            headers: &[("x-note", "hello")],
            accept: "application/json",
            cancel: &CancelToken::new(),
            deadline: caller.after(BOUND),
            watch: &caller.watch,
        })
        .expect("an answer");
    assert_eq!(
        (answer.status, answer.header("content-length")),
        (200, Some("2"))
    );
    assert_eq!(answer.fill_buf().expect("a body"), b"{}");
    let head = heard.recv_timeout(BOUND).expect("a request");
    let version = env!("CARGO_PKG_VERSION");
    for line in [
        "get /v1/models http/1.1",
        "authorization: bearer secret",
        "accept: application/json",
        "accept-encoding: identity",
        &format!("user-agent: pointsman/{version}"),
        "x-note: hello",
    ] {
        assert!(head.lines().any(|l| l == line), "{line} is not in {head}");
    }
    assert_eq!(caller.told(), ["new", "first byte"]);
    assert!(!format!("{:?}", caller.transport).contains("secret"));
}

#[test]
fn a_connection_is_used_again_and_counted() {
    let peer = Peer::replying(ok("hello"));
    let caller = Caller::new(&peer.url());
    for told in ["new", "reused", "reused"] {
        assert_eq!(caller.ask("?").expect("an answer"), "hello");
        assert_eq!(caller.told(), [told, "first byte"]);
    }
    let stats = caller.transport.pool_stats();
    assert_eq!((stats.checkouts, stats.checkins, stats.failed), (3, 3, 0));
    assert_eq!((stats.active, stats.idle, stats.max), (0, 1, 2));
    let accepted = peer.all().into_iter().filter(|s| *s == Said::Accepted);
    assert_eq!(accepted.count(), 1);
}

#[test]
fn a_status_is_an_answer_and_a_redirect_is_not_followed() {
    for (status, head) in [
        (429, "Retry-After: 7"),
        (302, "Location: http://127.0.0.1:1/"),
    ] {
        let peer = Peer::replying(format!(
            "HTTP/1.1 {status} Whatever\r\n{head}\r\nContent-Length: 2\r\n\r\nno"
        ));
        let caller = Caller::new(&peer.url());
        let answer = caller.post(b"?", &CancelToken::new(), caller.after(BOUND));
        let answer = answer.expect("an answer");
        let (name, value) = head.split_once(": ").expect("a header");
        assert_eq!((answer.status, answer.header(name)), (status, Some(value)));
    }
}

#[test]
fn an_idle_connection_that_the_server_closed_is_replaced() {
    let (say, closed) = channel();
    let say = Mutex::new(say);
    let peer = Peer::new(move |mut line| {
        line.request();
        line.write(ok("hello").as_bytes());
        drop(line);
        say.lock().send(()).expect("the test lives");
    });
    let caller = Caller::new(&peer.url());
    for _ in 0..3 {
        assert_eq!(caller.ask("?").expect("an answer"), "hello");
        assert_eq!(caller.told(), ["new", "first byte"]);
        closed.recv_timeout(BOUND).expect("the peer closes");
    }
}

#[test]
fn a_connection_that_closes_as_it_is_used_again_says_that_it_was_used_before() {
    let peer = Peer::new(|mut line| {
        line.request();
        line.write(ok("hello").as_bytes());
        line.request();
    });
    let caller = Caller::new(&peer.url());
    caller.ask("?").expect("an answer");
    let Err(TransportError::Closed {
        reused: true,
        before_answer: true,
        ..
    }) = caller.ask("?")
    else {
        panic!("it was closed");
    };
    assert_eq!(caller.told(), ["new", "first byte", "reused"]);
}

#[test]
fn an_answer_dropped_half_read_closes_its_connection() {
    let peer =
        Peer::replying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let caller = Caller::new(&peer.url());
    let mut answer = caller
        .post(b"?", &CancelToken::new(), caller.after(BOUND))
        .expect("an answer");
    assert_eq!(answer.fill_buf().expect("a chunk"), b"hello");
    drop(answer);
    peer.wait_for(&Said::Gone);
    let stats = caller.transport.pool_stats();
    assert_eq!((stats.active, stats.idle, stats.failed), (0, 0, 1));
}

#[test]
fn an_answer_finished_before_its_last_byte_leaves_its_connection_to_the_next() {
    let peer = Peer::replying(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n[DONE]\r\n0\r\n\r\n",
    );
    let caller = Caller::new(&peer.url());
    for told in ["new", "reused"] {
        let mut answer = caller
            .post(b"?", &CancelToken::new(), caller.after(BOUND))
            .expect("an answer");
        assert_eq!(answer.fill_buf().expect("a chunk"), b"[DONE]");
        answer.finish();
        assert_eq!(caller.told(), [told, "first byte"]);
    }
}

#[test]
fn more_calls_than_places_are_served_and_not_kept() {
    let peer = Peer::replying(ok("hello"));
    let caller = Caller::new(&peer.url());
    let post = || caller.post(b"?", &CancelToken::new(), caller.after(BOUND));
    let mut answers: Vec<Answer> = (0..3).map(|_| post().expect("an answer")).collect();
    assert_eq!(caller.transport.pool_stats().active, 3);
    for answer in &mut answers {
        std::io::copy(answer, &mut std::io::sink()).expect("a body");
    }
    let stats = caller.transport.pool_stats();
    assert_eq!((stats.active, stats.idle, stats.recycled), (0, 2, 1));
}

#[test]
fn failures_have_names() {
    check("garbage\r\n\r\n", |e| {
        matches!(e, TransportError::Malformed(_))
    });
    let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(40_000));
    check(&head, |e| matches!(e, TransportError::Malformed(_)));
    check("", |e| matches!(e, closed!(before_answer: true)));
    check("HTTP/1.1 200 OK\r\n", |e| {
        matches!(e, closed!(before_answer: false))
    });
    check("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", |e| {
        matches!(e, closed!(before_answer: false))
    });
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        |e| matches!(e, closed!(before_answer: false)),
    );
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n",
        |e| matches!(e, TransportError::Malformed(_)),
    );
}

fn check(reply: &str, expected: impl Fn(&TransportError) -> bool) {
    let reply = reply.to_owned();
    let text = reply.clone();
    let peer = Peer::new(move |mut line| {
        line.request();
        line.write(reply.as_bytes());
    });
    let error = Caller::new(&peer.url()).ask("?").expect_err("no answer");
    assert!(expected(&error), "{text:?} gave {error:?}");
}

#[test]
fn a_reset_in_a_body_without_length_is_no_clean_end() {
    let (go, gone) = channel();
    let gone = Mutex::new(gone);
    let peer = Peer::new(move |mut line| {
        line.request();
        line.write(b"HTTP/1.1 200 OK\r\n\r\nhello");
        gone.lock()
            .recv_timeout(BOUND)
            .expect("the test has read it");
        line.reset();
    });
    let caller = Caller::new(&peer.url());
    let mut answer = caller
        .post(b"?", &CancelToken::new(), caller.after(BOUND))
        .expect("an answer");
    assert_eq!(answer.fill_buf().expect("a piece"), b"hello");
    answer.consume(5);
    go.send(()).expect("the peer lives");
    for _ in 0..2 {
        let error = TransportError::from(answer.fill_buf().expect_err("a reset"));
        assert!(matches!(error, TransportError::Closed { .. }), "{error:?}");
    }
}

#[test]
fn what_cannot_be_reached_is_a_connect_error() {
    let plain = Peer::new(|mut line| {
        line.write(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        line.see_off();
    });
    let (_bound, closed) = closed_port();
    for url in [
        format!("http://{closed}/v1"),
        format!("https://{}/v1", plain.address),
        "ftp://127.0.0.1/".into(),
        "no url".into(),
    ] {
        let error = Caller::new(&url).ask("?").expect_err("no connection");
        let is_expected = match &error {
            TransportError::Connect { timed_out, .. } => !timed_out,
            TransportError::Tls { fault, .. } => *fault == TlsFault::NoTls,
            _ => false,
        };
        assert!(is_expected, "{url} gave {error:?}");
    }
}
