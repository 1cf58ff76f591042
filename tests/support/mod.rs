//! What the chapters share: a scripted provider, a client, the program itself, and one way of waiting.
//!
//! Nothing here sleeps. Whatever waits, waits for a signal and at most for [`BOUND`], and then says what never came.

#![allow(dead_code, reason = "a chapter takes what it needs")]

mod ask;
mod browser;
mod client;
mod errand;
pub(crate) mod figures;
mod http;
mod peer;
mod server;
mod tls;
mod tools;
mod trace;
mod upstream;

use std::time::{Duration, Instant};

#[allow(unused_imports, reason = "a chapter takes what it needs")]
pub(crate) use {
    ask::{Ask, code, text},
    browser::Browser,
    client::{Broken, Client, Event, Response, Stream},
    errand::{Done, Errand},
    peer::Peer,
    server::{Failure, Server},
    tls::{Authority, Identity},
    tools::{approves, installed},
    trace::Timeline,
    upstream::{Answer, Gate, Request, Script, Then, Upstream},
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

/// Runs `run` on `count` threads at once, each with its number, and returns what they return, in order.
///
/// # Panics
/// When one of them does.
pub(crate) fn at_once<T: Send>(count: usize, run: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let start = |index| {
            let run = &run;
            std::thread::Builder::new()
                .name(format!("test-caller-{index}"))
                .spawn_scoped(scope, move || run(index))
                .expect("thread starts")
        };
        let threads: Vec<_> = (0..count).map(start).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, T>| thread.join().expect("no panic");
        threads.into_iter().map(join).collect()
    })
}
