//! Cancelling a call, in each place where it may stand, and after it.

use std::io::Read;
use std::sync::mpsc::channel;
use std::thread;

use crate::cancel::CancelReason;

use super::peer::{Peer, Said, full_listener, is_connecting_to, ok, spawn};
use super::*;

const REASON: CancelReason = CancelReason::ClientLeft;

/// A call on a thread of its own, cut as soon as `is_there` returns.
fn check(caller: Caller, body: Vec<u8>, is_there: impl FnOnce()) {
    let token = CancelToken::new();
    let cut = token.clone();
    let call = thread::Builder::new()
        .name("test-call".into())
        .spawn(move || caller.read(&body, &cut, caller.after(BOUND)))
        .expect("thread starts");
    is_there();
    let (result, took) = timed(|| {
        token.cancel(REASON);
        call.join().expect("no panic")
    });
    assert_eq!(result, Err(TransportError::Cancelled(REASON)));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_call_is_cut_while_it_connects() {
    let (listener, _first) = full_listener();
    let address = listener.local_addr().expect("bound");
    check(Caller::new(&format!("http://{address}")), vec![], || {
        eventually("it connects", || is_connecting_to(address.port()));
    });
}

#[test]
fn a_call_is_cut_in_the_tls_handshake() {
    let peer = Peer::new(super::peer::Line::see_off);
    check(
        Caller::new(&format!("https://{}", peer.address)),
        vec![],
        || {
            peer.wait_for(&Said::Accepted);
        },
    );
    peer.wait_for(&Said::Gone);
}

#[test]
fn a_call_is_cut_before_the_head() {
    let peer = Peer::replying("");
    check(Caller::new(&peer.url()), vec![0; 10], || {
        peer.wait_for(&Said::Request(10));
    });
    peer.wait_for(&Said::Gone);
}

#[test]
fn a_call_is_cut_while_the_peer_does_not_read() {
    let (let_go, held) = channel::<()>();
    let held = Mutex::new(held);
    let peer = Peer::new(move |line| {
        let _ = held.lock().recv();
        line.see_off();
    });
    check(Caller::new(&peer.url()), vec![0; 64 << 20], || {
        peer.wait_for(&Said::Accepted);
    });
    drop(let_go);
    peer.wait_for(&Said::Gone);
}

#[test]
fn a_call_is_cut_in_its_body_and_the_cut_is_no_clean_end() {
    let bodies = [
        "Content-Length: 1000\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "\r\nhello",
    ];
    for body in bodies {
        let peer = Peer::replying(format!("HTTP/1.1 200 OK\r\n{body}"));
        let caller = Caller::new(&peer.url());
        let token = CancelToken::new();
        let mut answer = caller
            .post(b"?", &token, caller.after(BOUND))
            .expect("an answer");
        answer.read_exact(&mut [0; 5]).expect("a piece");
        // The read may or may not have begun: both must end.
        spawn("cancel", move || {
            token.cancel(REASON);
        });
        let error = answer.read(&mut [0]).expect_err("it was cut").into();
        assert_eq!(TransportError::Cancelled(REASON), error);
        peer.wait_for(&Said::Gone);
        drop(answer);
        assert_eq!(caller.transport.pool_stats().idle, 0);
    }
}

#[test]
fn a_call_that_was_cut_before_it_began_connects_nowhere() {
    let peer = Peer::replying(ok("hello"));
    let caller = Caller::new(&peer.url());
    let token = CancelToken::new();
    token.cancel(REASON);
    let result = caller.read(b"?", &token, caller.after(BOUND));
    assert_eq!(result, Err(TransportError::Cancelled(REASON)));
    assert_eq!(peer.all(), []);
}

/// Half of the cuts come when the call has surely ended, the others about then. A call that nobody cuts follows each, on the
/// same connection if there is one.
#[test]
fn a_late_cut_never_hits_the_next_call_on_the_connection() {
    let peer = Peer::replying(ok("hello"));
    let caller = Caller::new(&peer.url());
    let (hand_over, tokens) = channel::<CancelToken>();
    spawn("cancel", move || {
        for token in tokens {
            token.cancel(REASON);
        }
    });
    for round in 0..1000 {
        let token = CancelToken::new();
        let early = round % 2 == 0;
        if early {
            hand_over.send(token.clone()).expect("the canceller lives");
        }
        let first = caller.read(b"?", &token, caller.after(BOUND));
        if !early {
            hand_over.send(token).expect("the canceller lives");
            assert_eq!(first.as_deref(), Ok("hello"));
        }
        assert_eq!(caller.ask("?").as_deref(), Ok("hello"), "round {round}");
    }
    let told = caller.told();
    assert!(told.iter().filter(|t| **t == "reused").count() > 1000);
}
