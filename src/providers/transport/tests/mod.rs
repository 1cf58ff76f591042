//! The transport against scripted peers on loopback sockets.

mod calls;
mod cuts;
mod deadlines;
mod peer;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::cancel::CancelToken;
use crate::clock::{Clock, SharedClock, SystemClock, Time};
use crate::config::{Breaker, OperationTimeouts, Pool, Provider, ProviderKind, Retry, Timeouts};
use crate::providers::CallWatch;

use super::{Answer, Post, Transport, TransportError};

/// Nothing in these tests may take longer.
const BOUND: Duration = Duration::from_secs(30);

pub(super) fn timeouts() -> Timeouts {
    Timeouts {
        normal: Duration::from_secs(30),
        streaming: Duration::from_secs(300),
        continuation: Duration::from_secs(120),
        connect: Duration::from_secs(10),
        idle: Duration::from_secs(60),
        first_byte: Some(Duration::from_secs(20)),
        max: Duration::from_secs(3600),
        long_prompt_tokens: 65_536,
        learn: crate::config::Learn::default(),
    }
}

fn provider(base_url: &str) -> Provider {
    let minute = Duration::from_secs(60);
    Provider {
        name: "peer".into(),
        kind: ProviderKind::OpenAi,
        base_url: base_url.into(),
        ca_file: None,
        api_key_env: None,
        api_key_file: None,
        api_key: Some("secret".into()),
        api_key_problem: None,
        max_inflight: 2,
        pool: Pool {
            max_connections: 2,
            max_idle_age: minute,
            max_age: 10 * minute,
        },
        timeouts: OperationTimeouts {
            plain: minute,
            web_search: minute,
            thinking: minute,
            web_search_thinking: minute,
        },
        retry: Retry::default(),
        breaker: Breaker::default(),
        models: vec![],
        model_list: false,
        faults: false,
        latency: Duration::ZERO,
        pace: Duration::ZERO,
    }
}

/// A caller: a transport, its clock, and what it was told.
struct Caller {
    transport: Transport,
    clock: SharedClock,
    watch: Watch,
}

#[derive(Debug, Default)]
struct Watch(Mutex<Vec<&'static str>>);

impl CallWatch for Watch {
    fn connected(&self, reused: bool) {
        self.0.lock().push(if reused { "reused" } else { "new" });
    }

    fn first_byte(&self) {
        self.0.lock().push("first byte");
    }
}

impl Caller {
    fn new(base_url: &str) -> Self {
        Caller::with_timeouts(base_url, &timeouts())
    }

    fn with_timeouts(base_url: &str, timeouts: &Timeouts) -> Self {
        let clock: SharedClock = Arc::new(SystemClock::new());
        Caller {
            transport: Transport::new(&provider(base_url), timeouts, Arc::clone(&clock)),
            clock,
            watch: Watch::default(),
        }
    }

    fn after(&self, length: Duration) -> Time {
        self.clock.now() + length
    }

    fn post(
        &self,
        body: &[u8],
        cancel: &CancelToken,
        deadline: Time,
    ) -> Result<Answer, TransportError> {
        self.transport.post(&Post {
            path: "/chat/completions",
            headers: &[("x-note", "hello")],
            body,
            accept: "text/event-stream",
            cancel,
            deadline,
            first_byte_by: Time::NEVER,
            first_byte: None,
            watch: &self.watch,
        })
    }

    /// A whole call.
    fn read(
        &self,
        body: &[u8],
        cancel: &CancelToken,
        deadline: Time,
    ) -> Result<String, TransportError> {
        let mut text = String::new();
        let mut answer = self.post(body, cancel, deadline)?;
        answer.content_began();
        std::io::Read::read_to_string(&mut answer, &mut text)?;
        Ok(text)
    }

    /// A whole call with all the time in the world.
    fn ask(&self, body: &str) -> Result<String, TransportError> {
        self.read(body.as_bytes(), &CancelToken::new(), self.after(BOUND))
    }

    fn told(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.watch.0.lock())
    }
}

/// Waits until `cond` holds.
fn eventually(what: &str, mut cond: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    while !cond() {
        assert!(clock.now() < Time::ZERO + BOUND, "never happened: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Runs `f` and says how long it took.
fn timed<T>(f: impl FnOnce() -> T) -> (T, Duration) {
    let clock = SystemClock::new();
    let value = f();
    (value, clock.now().since(Time::ZERO))
}
