//! What the chapters share: a scripted provider, a client, the program itself, and one way of waiting.
//!
//! Nothing here sleeps. Whatever waits, waits for a signal and at most for [`BOUND`], and then says what never came.

#![allow(dead_code, reason = "a chapter takes what it needs")]

mod client;
mod http;
mod server;
mod upstream;

use std::time::{Duration, Instant};

#[allow(unused_imports, reason = "a chapter takes what it needs")]
pub(crate) use {
    client::{Broken, Client, Event, Response, Stream},
    server::Server,
    upstream::{Answer, Gate, Request, Script, Upstream},
};

/// Nothing that a test waits for takes longer.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// Waits until `cond` holds. For what gives no signal: the state of another process, or what it wrote.
///
/// # Panics
/// When it does not hold within [`BOUND`].
pub(crate) fn eventually(what: &str, mut cond: impl FnMut() -> bool) {
    let start = Instant::now();
    let mut pause = Duration::from_micros(100);
    while !cond() {
        assert!(start.elapsed() < BOUND, "never happened: {what}");
        std::thread::park_timeout(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// A thread with a name.
pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .name(format!("test-{name}"))
        .spawn(run)
        .expect("thread starts");
}
