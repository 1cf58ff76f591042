//! Every call ends at its deadline, or at the bound of its phase, whatever the peer does.

use std::sync::mpsc::channel;

use super::peer::{Line, Peer, Said, full_listener};
use super::*;

/// How long the bound under test is.
const SHORT: Duration = Duration::from_millis(100);

/// A call that must end with `expected`, not before [`SHORT`] and not long after.
fn check(url: &str, timeouts: &Timeouts, deadline: Duration, expected: &TransportError) {
    let caller = Caller::with_timeouts(url, timeouts);
    let body = vec![0; 16 << 20];
    let (result, took) = timed(|| caller.read(&body, &CancelToken::new(), caller.after(deadline)));
    assert_eq!(result.as_ref(), Err(expected));
    assert!(took >= SHORT && took < Duration::from_secs(1), "{took:?}");
}

/// Against a peer that runs `script`, with the deadline as the bound.
fn check_deadline(script: impl Fn(Line) + Send + Sync + 'static) {
    let peer = Peer::new(script);
    check(&peer.url(), &timeouts(), SHORT, &TransportError::Deadline);
    peer.wait_for(&Said::Gone);
}

#[test]
fn a_peer_that_lets_nobody_in() {
    let (listener, _first) = full_listener();
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    check(&url, &timeouts(), SHORT, &TransportError::Deadline);
    let timeouts = Timeouts {
        connect: SHORT,
        ..timeouts()
    };
    let expected = TransportError::Connect {
        detail: "timed out".into(),
        timed_out: true,
    };
    check(&url, &timeouts, BOUND, &expected);
}

#[test]
fn a_peer_that_never_says_hello_in_tls() {
    let peer = Peer::new(Line::see_off);
    let url = format!("https://{}", peer.address);
    check(&url, &timeouts(), SHORT, &TransportError::Deadline);
    peer.wait_for(&Said::Gone);
}

#[test]
fn a_peer_that_does_not_read() {
    let (let_go, held) = channel::<()>();
    let held = Mutex::new(held);
    let peer = Peer::new(move |line| {
        let _ = held.lock().recv();
        line.see_off();
    });
    check(&peer.url(), &timeouts(), SHORT, &TransportError::Deadline);
    drop(let_go);
    peer.wait_for(&Said::Gone);
}

#[test]
fn a_peer_that_sends_nothing() {
    check_deadline(Line::see_off);
    let peer = Peer::replying("");
    let timeouts = Timeouts {
        first_byte: Some(SHORT),
        ..timeouts()
    };
    check(
        &peer.url(),
        &timeouts,
        BOUND,
        &TransportError::FirstByteTimeout,
    );
}

#[test]
fn a_peer_that_trickles_its_head() {
    check_deadline(|mut line| {
        line.request();
        line.write(b"HTTP/1.1 200 OK\r\nx: ");
        line.trickle(b"y");
    });
}

#[test]
fn a_peer_that_trickles_its_body() {
    check_deadline(|mut line| {
        line.request();
        line.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        line.trickle(b"1\r\ny\r\n");
    });
}

#[test]
fn a_peer_that_falls_silent() {
    let peer = Peer::replying("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    let timeouts = Timeouts {
        idle: SHORT,
        ..timeouts()
    };
    check(&peer.url(), &timeouts, BOUND, &TransportError::IdleTimeout);
}

#[test]
fn a_deadline_that_has_passed_connects_nowhere() {
    let peer = Peer::replying("");
    let caller = Caller::new(&peer.url());
    let result = caller.read(b"?", &CancelToken::new(), Time::ZERO);
    assert_eq!(result, Err(TransportError::Deadline));
    assert_eq!(peer.all(), []);
}

#[test]
fn an_answer_slower_in_all_than_the_idle_limit_is_whole() {
    let peer = Peer::new(|mut line| {
        line.request();
        line.write(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n");
        line.trickle(b"y");
    });
    let timeouts = Timeouts {
        idle: SHORT,
        ..timeouts()
    };
    let caller = Caller::with_timeouts(&peer.url(), &timeouts);
    let (result, took) = timed(|| caller.ask("?"));
    assert_eq!(result, Ok("y".repeat(40)));
    assert!(took > SHORT, "{took:?} proves nothing");
}
