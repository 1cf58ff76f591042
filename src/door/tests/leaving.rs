//! Clients that leave while they are waited for, and words that wake.

use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::Duration;

use super::support::{Client, PATIENCE, Scripted, config, eventually, open};
use crate::clock::{SystemClock, Time};
use crate::config::{Listen, Server};
use crate::door::{Door, Exchange, Headers, Progress, Response, StatusCode, Wake};

/// A door whose handler waits once, says why it woke, and answers if nobody did.
struct Waiting {
    door: Door,
    exchanges: mpsc::Receiver<Exchange>,
    wakes: mpsc::Receiver<Wake>,
}

fn waiting(config: &Server, until: Duration) -> Waiting {
    let (give, exchanges) = mpsc::channel();
    let (say, wakes) = mpsc::channel();
    let clock = SystemClock::shared();
    let own = clock.clone();
    let handler = Scripted::new(move |_, exchange| {
        give.send(exchange.clone()).expect("the test lives");
        let wake = exchange.wait(own.now() + until);
        if exchange.progress() == Progress::Unsent {
            let _ = exchange.reply(Response::new(200).with_body("text/plain", "late"));
        }
        let _ = say.send(wake);
    });
    let door = Door::open(config, clock, handler).expect("the door opens");
    Waiting {
        door,
        exchanges,
        wakes,
    }
}

/// A thread that waits does not look up by itself within a test.
fn never_looking_up() -> Server {
    Server {
        park_after: PATIENCE * 2,
        ..config()
    }
}

/// How long a handler waits whom something else is to wake.
const LONG: Duration = PATIENCE.saturating_mul(2);

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_client_that_closes_is_noticed() {
    let Waiting {
        door,
        exchanges,
        wakes,
    } = waiting(&config(), LONG);
    let mut client = Client::connect(&door);
    client.say(GET);
    exchanges.recv_timeout(PATIENCE).expect("handled");
    drop(client);
    assert_eq!(wakes.recv_timeout(PATIENCE), Ok(Wake::ClientLeft));
    eventually(&door, "its place is free", |now| now.connections == 0);
}

#[test]
fn a_client_that_closes_a_unix_socket_is_noticed_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("door.sock");
    let listen = Listen::Unix(path.clone());
    let config = Server { listen, ..config() };
    let Waiting {
        door: _door,
        exchanges,
        wakes,
    } = waiting(&config, LONG);
    let mut client = UnixStream::connect(&path).expect("the door listens");
    client.write_all(GET.as_bytes()).expect("sent");
    exchanges.recv_timeout(PATIENCE).expect("handled");
    drop(client);
    assert_eq!(wakes.recv_timeout(PATIENCE), Ok(Wake::ClientLeft));
}

#[test]
fn a_client_that_only_stops_sending_counts_as_left_and_reads_what_is_said() {
    let Waiting {
        door,
        exchanges,
        wakes,
    } = waiting(&config(), LONG);
    let mut client = Client::connect(&door);
    client.say(GET);
    exchanges.recv_timeout(PATIENCE).expect("handled");
    client
        .stream()
        .shutdown(Shutdown::Write)
        .expect("a live socket");
    assert_eq!(wakes.recv_timeout(PATIENCE), Ok(Wake::ClientLeft));
    assert_eq!(client.hear().body, "late");
}

#[test]
fn pipelined_bytes_are_no_leaving_and_wake_nobody() {
    let Waiting {
        door,
        exchanges,
        wakes,
    } = waiting(&config(), LONG);
    let mut client = Client::connect(&door);
    client.say(GET).say(GET);
    let exchange = exchanges.recv_timeout(PATIENCE).expect("handled");
    assert!(wakes.try_recv().is_err(), "it still waits");
    exchange.notify();
    assert_eq!(wakes.recv_timeout(PATIENCE), Ok(Wake::Notified));
    assert_eq!(client.hear().body, "late");
    exchanges
        .recv_timeout(PATIENCE)
        .expect("the second is handled")
        .notify();
    assert_eq!(client.hear().body, "late");
}

#[test]
fn a_word_before_the_wait_is_not_lost() {
    let (say, wakes) = mpsc::channel();
    let handler = Scripted::new(move |_, exchange| {
        exchange.notify();
        exchange.notify();
        let first = exchange.wait(Time::NEVER);
        let second = exchange.wait(Time::ZERO);
        exchange.reply(Response::new(200)).expect("sent");
        say.send((first, second)).expect("the test lives");
    });
    let door = open(&config(), handler);
    assert_eq!(Client::connect(&door).get("/").status, 200);
    let heard = wakes.recv_timeout(PATIENCE);
    assert_eq!(heard, Ok((Wake::Notified, Wake::TimedOut)));
}

#[test]
fn the_wait_ends_at_its_time() {
    let Waiting {
        door,
        exchanges: _exchanges,
        wakes,
    } = waiting(&config(), Duration::from_millis(5));
    let mut client = Client::connect(&door);
    assert_eq!(client.get("/").body, "late");
    assert_eq!(wakes.recv_timeout(PATIENCE), Ok(Wake::TimedOut));
}

#[test]
fn the_next_request_wakes_a_thread_whose_answer_is_given_by_another() {
    let Waiting {
        door,
        exchanges,
        wakes,
    } = waiting(&never_looking_up(), LONG);
    let mut client = Client::connect(&door);
    client.say(GET);
    for _ in 0..100 {
        let exchange = exchanges.recv_timeout(PATIENCE).expect("handled");
        exchange.reply(Response::new(200)).expect("sent");
        assert_eq!(client.hear().status, 200);
        client.say(GET);
        assert_eq!(wakes.recv_timeout(PATIENCE), Ok(Wake::Notified));
    }
    let last = exchanges.recv_timeout(PATIENCE).expect("handled");
    assert_eq!(door.snapshot().requests, 101);
    last.reply(Response::new(200)).expect("sent");
}

#[test]
fn the_end_wakes_the_thread_when_the_next_request_is_here_already() {
    let Waiting {
        door, exchanges, ..
    } = waiting(&never_looking_up(), LONG);
    let mut client = Client::connect(&door);
    // Two in one segment, of which the second is in the inbox; then a third that comes during the wait.
    client.say(format!("{GET}{GET}"));
    let take = || exchanges.recv_timeout(PATIENCE).expect("handled");
    take().reply(Response::new(200)).expect("sent");
    let second = take();
    client.say(GET);
    second.reply(Response::new(200)).expect("sent");
    take().reply(Response::new(200)).expect("sent");
    for _ in 0..3 {
        assert_eq!(client.hear().status, 200);
    }
}

#[test]
fn the_end_wakes_the_thread_when_the_connection_is_to_close() {
    let Waiting {
        door, exchanges, ..
    } = waiting(&never_looking_up(), LONG);
    let mut client = Client::connect(&door);
    client.say("GET / HTTP/1.0\r\n\r\n");
    let exchange = exchanges.recv_timeout(PATIENCE).expect("handled");
    exchange
        .start(StatusCode(200), &Headers::default())
        .expect("sent");
    exchange.finish().expect("sent");
    client.hear_head();
    client.expect_close();
}

#[test]
fn a_thread_whose_answer_was_given_looks_up_by_itself() {
    let Waiting {
        door,
        exchanges,
        wakes,
    } = waiting(&config(), LONG);
    let mut client = Client::connect(&door);
    client.say(GET);
    let exchange = exchanges.recv_timeout(PATIENCE).expect("handled");
    exchange.reply(Response::new(200)).expect("sent");
    assert_eq!(wakes.recv_timeout(PATIENCE), Ok(Wake::Notified));
    eventually(&door, "the connection parks", |now| now.parked == 1);
}

#[test]
fn an_exchange_kept_by_somebody_keeps_no_connection_open() {
    let Waiting {
        door,
        exchanges,
        wakes: _wakes,
    } = waiting(&config(), LONG);
    let mut client = Client::connect(&door);
    client.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let kept = exchanges.recv_timeout(PATIENCE).expect("handled");
    kept.reply(Response::new(200)).expect("sent");
    assert_eq!(client.hear().status, 200);
    client.expect_close();
    assert_eq!(kept.progress(), Progress::Finished);
}

#[test]
fn an_aborted_exchange_wakes_the_waiting_thread() {
    let Waiting {
        door,
        exchanges,
        wakes,
    } = waiting(&config(), LONG);
    let mut client = Client::connect(&door);
    client.say(GET);
    exchanges.recv_timeout(PATIENCE).expect("handled").abort();
    assert_eq!(wakes.recv_timeout(PATIENCE), Ok(Wake::Notified));
    client.expect_close();
}
