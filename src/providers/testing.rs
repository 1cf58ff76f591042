//! What the tests of this part share: configurations, and calls that are watched.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::cancel::CancelToken;
use crate::chat::{ChatReply, ChatRequest, Piece, ReplyBuilder};
use crate::clock::Time;
use crate::config::{
    self, Breaker, Model, OperationTimeouts, Pool, ProviderKind, Retry, Thinking, Timeouts,
};

use super::{Call, CallWatch, Provider, ProviderError};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The default timeouts.
pub(super) fn timeouts() -> Timeouts {
    Timeouts {
        normal: secs(30),
        streaming: secs(300),
        continuation: secs(120),
        connect: secs(10),
        idle: secs(60),
        first_byte: None,
        max: secs(3600),
        long_prompt_tokens: 64_000,
        learn: config::Learn::default(),
    }
}

/// A provider without models.
pub(super) fn provider(name: &str, kind: ProviderKind) -> config::Provider {
    config::Provider {
        name: name.into(),
        kind,
        base_url: String::new(),
        ca_file: None,
        api_key_env: None,
        api_key_file: None,
        api_key: None,
        api_key_problem: None,
        max_inflight: 4,
        pool: Pool {
            max_connections: 4,
            max_idle_age: secs(60),
            max_age: secs(600),
        },
        timeouts: OperationTimeouts {
            plain: secs(240),
            web_search: secs(300),
            thinking: secs(360),
            web_search_thinking: secs(420),
        },
        retry: Retry::default(),
        breaker: Breaker::default(),
        models: Vec::new(),
        model_list: false,
        faults: false,
        latency: Duration::ZERO,
        pace: Duration::ZERO,
    }
}

/// A model of 128k tokens.
pub(super) fn model(name: &str, thinking: Thinking) -> Model {
    Model {
        name: name.into(),
        context: 131_072,
        max_output: None,
        thinking,
        efforts: Vec::new(),
        drop: Vec::new(),
    }
}

/// A watch that hears nothing.
#[derive(Debug)]
pub(super) struct Deaf;

impl CallWatch for Deaf {
    fn connected(&self, _reused: bool) {}
    fn first_byte(&self) {}
}

/// Makes a call without a deadline; returns its pieces and how it ended.
pub(super) fn run(
    provider: &dyn Provider,
    request: &ChatRequest,
) -> (Vec<Piece>, Result<(), ProviderError>) {
    run_until(provider, request, &CancelToken::new(), Time::NEVER)
}

/// Makes a call; returns its pieces and how it ended.
pub(super) fn run_until(
    provider: &dyn Provider,
    request: &ChatRequest,
    cancel: &CancelToken,
    deadline: Time,
) -> (Vec<Piece>, Result<(), ProviderError>) {
    let call = Call {
        request,
        cancel,
        deadline,
        first_byte_by: Time::NEVER,
        first_byte: None,
        watch: &Deaf,
    };
    let mut pieces = Vec::new();
    let end = provider.chat(&call, &mut |piece| {
        pieces.push(piece);
        ControlFlow::Continue(())
    });
    (pieces, end)
}

/// The whole answer of a call that must succeed.
pub(super) fn answer(provider: &dyn Provider, request: &ChatRequest) -> ChatReply {
    let (pieces, end) = run(provider, request);
    assert_eq!(end, Ok(()));
    let mut builder = ReplyBuilder::default();
    pieces.into_iter().for_each(|piece| builder.push(piece));
    builder.finish()
}
