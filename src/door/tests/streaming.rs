//! Streams, broken streams, and who may speak.

use std::io::{self, Read as _};
use std::sync::mpsc;
use std::time::Duration;

use super::support::{Client, PATIENCE, Scripted, config, field, open};
use crate::clock::Time;
use crate::door::{Exchange, Headers, Progress, Response, StatusCode, Wake};

/// A handler that hands its exchange to the test and keeps it until the answer is over.
fn handed_out() -> (std::sync::Arc<Scripted>, mpsc::Receiver<Exchange>) {
    let (give, take) = mpsc::channel();
    let handler = Scripted::new(move |_, exchange| {
        give.send(exchange.clone()).expect("the test lives");
        while exchange.wait(Time::NEVER) != Wake::Notified || !exchange.progress().is_over() {
            if exchange.progress() == Progress::Unsent {
                // The client left: nobody else will end it.
                exchange.abort();
            }
        }
    });
    (handler, take)
}

#[test]
fn each_piece_reaches_the_client_at_once() {
    let (handler, exchanges) = handed_out();
    let door = open(&config(), handler);
    let mut client = Client::connect(&door);
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let exchange = exchanges.recv_timeout(PATIENCE).expect("handled");
    let mut kind = Headers::default();
    kind.add("Content-Type", "text/event-stream");
    exchange.start(StatusCode(200), &kind).expect("sent");
    let head = client.hear_head();
    assert_eq!(field(&head, "content-type"), Some("text/event-stream"));
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
    assert_eq!(field(&head, "content-length"), None);
    for (piece, bytes) in [
        ("one", "3\r\none\r\n"),
        ("sixteen bytes ..", "10\r\nsixteen bytes ..\r\n"),
    ] {
        exchange.write(piece.as_bytes()).expect("sent");
        client.expect(bytes);
    }
    exchange.write(b"").expect("an empty piece is no end");
    assert_eq!(exchange.progress(), Progress::Streaming);
    exchange.finish().expect("sent");
    client.expect("0\r\n\r\n");
    assert_eq!(exchange.progress(), Progress::Finished);
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let next = exchanges
        .recv_timeout(PATIENCE)
        .expect("the connection goes on");
    next.reply(Response::new(200)).expect("sent");
    assert_eq!(client.hear().status, 200);
}

#[test]
fn an_old_client_gets_a_stream_that_the_end_closes() {
    let (handler, exchanges) = handed_out();
    let door = open(&config(), handler);
    let mut client = Client::connect(&door);
    client.say("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let exchange = exchanges.recv_timeout(PATIENCE).expect("handled");
    exchange
        .start(StatusCode(200), &Headers::default())
        .expect("sent");
    let head = client.hear_head();
    assert_eq!(field(&head, "connection"), Some("close"));
    assert_eq!(field(&head, "transfer-encoding"), None);
    exchange.write(b"plain").expect("sent");
    client.expect("plain");
    exchange.finish().expect("sent");
    assert_eq!(client.rest().expect("a clean end"), "");
}

#[test]
fn an_aborted_stream_never_looks_finished() {
    for version in ["1.1", "1.0"] {
        let (handler, exchanges) = handed_out();
        let door = open(&config(), handler);
        let mut client = Client::connect(&door);
        client.say(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n"));
        let exchange = exchanges.recv_timeout(PATIENCE).expect("handled");
        exchange
            .start(StatusCode(200), &Headers::default())
            .expect("sent");
        client.hear_head();
        exchange.abort();
        match client.rest() {
            Ok(rest) => assert_eq!((version, rest.as_str()), ("1.1", ""), "no last chunk"),
            Err(error) => assert_eq!(
                (version, error.kind()),
                ("1.0", io::ErrorKind::ConnectionReset)
            ),
        }
        let late = exchange.write(b"late").expect_err("it is over");
        assert_eq!(late.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(exchange.progress(), Progress::Broken);
    }
}

#[test]
fn abort_ends_a_write_that_the_client_does_not_take() {
    let (handler, exchanges) = handed_out();
    let door = open(&config(), handler);
    let mut client = Client::connect(&door);
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let exchange = exchanges.recv_timeout(PATIENCE).expect("handled");
    exchange
        .start(StatusCode(200), &Headers::default())
        .expect("sent");
    let (blocked, writer) = (exchange.clone(), exchange.clone());
    let writer = std::thread::Builder::new()
        .name("test-writer".into())
        .spawn(move || {
            let piece = vec![b'x'; 1024 * 1024];
            loop {
                if let Err(error) = writer.write(&piece) {
                    return error.kind();
                }
            }
        })
        .expect("thread starts");
    // A piece's first byte shows that the writer is at it; it can't be through, or it would take the next.
    client.hear_head();
    client.expect("100000\r\n");
    while blocked.seize().is_some() {
        std::thread::yield_now();
    }
    exchange.abort();
    assert_eq!(writer.join().expect("no panic"), io::ErrorKind::BrokenPipe);
    assert!(blocked.seize().is_some(), "the floor is free again");
}

#[test]
fn a_client_that_does_not_read_breaks_its_own_exchange_only() {
    let (handler, exchanges) = handed_out();
    let mut config = config();
    config.write_timeout = Duration::from_millis(30);
    let door = open(&config, handler);
    let mut client = Client::connect(&door);
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let exchange = exchanges.recv_timeout(PATIENCE).expect("handled");
    let answer = Response::new(200).with_body("text/plain", vec![b'x'; 64 * 1024 * 1024]);
    let error = exchange.reply(answer).expect_err("nobody reads");
    assert_eq!(
        (error.kind(), exchange.progress()),
        (io::ErrorKind::TimedOut, Progress::Broken)
    );
    let mut other = Client::connect(&door);
    other.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let next = exchanges.recv_timeout(PATIENCE).expect("handled");
    next.reply(Response::new(200)).expect("sent");
    assert_eq!(other.hear().status, 200);
    let mut part = Vec::new();
    let _ = client.stream().read_to_end(&mut part);
    assert!(part.len() < 64 * 1024 * 1024, "the answer is visibly short");
}

#[test]
fn a_large_answer_to_a_client_that_reads_is_whole() {
    let body = "0123456789abcdef".repeat(1024 * 1024);
    let expected = body.clone();
    let handler = Scripted::new(move |_, exchange| {
        let response = Response::new(200).with_body("text/plain", body.clone());
        exchange.reply(response).expect("the client reads");
    });
    let door = open(&config(), handler);
    assert!(Client::connect(&door).get("/").body == expected);
}

#[test]
fn only_one_answer_is_given_and_the_next_exchange_is_safe_from_the_last() {
    let (handler, exchanges) = handed_out();
    let door = open(&config(), handler);
    let mut client = Client::connect(&door);
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let first = exchanges.recv_timeout(PATIENCE).expect("handled");
    let early = first.write(b"x").expect_err("not started");
    assert_eq!(early.kind(), io::ErrorKind::InvalidInput);
    first.reply(Response::new(200)).expect("sent");
    assert_eq!(client.hear().status, 200);
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let second = exchanges.recv_timeout(PATIENCE).expect("handled");
    first.abort();
    first.notify();
    for error in [
        first.reply(Response::new(500)),
        first.start(StatusCode(500), &Headers::default()),
        first.write(b"x"),
        first.finish(),
    ] {
        assert_eq!(
            error.expect_err("it is over").kind(),
            io::ErrorKind::InvalidInput
        );
    }
    second.reply(Response::new(201)).expect("sent");
    assert_eq!(client.hear().status, 201);
}

#[test]
fn whoever_has_the_floor_speaks_alone() {
    let (handler, exchanges) = handed_out();
    let door = open(&config(), handler);
    let mut client = Client::connect(&door);
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let exchange = exchanges.recv_timeout(PATIENCE).expect("handled");
    let mut floor = exchange.seize().expect("nobody speaks");
    assert!(exchange.seize().is_none(), "one speaks");
    assert_eq!(floor.progress(), Progress::Unsent);
    floor
        .start(StatusCode(200), &Headers::default())
        .expect("sent");
    floor.write(b"last words").expect("sent");
    floor.finish().expect("sent");
    drop(floor);
    client.hear_head();
    client.expect("a\r\nlast words\r\n0\r\n\r\n");
    assert!(exchange.seize().is_some());
}
