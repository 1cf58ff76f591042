//! Those who answer: one trait, and what can go wrong with them.
//!
//! | file | what it answers for |
//! |---|---|
//! | `registry.rs` | all providers of a configuration, by name |
//! | `models.rs` | which models a provider offers: those configured, and those it lists itself |
//! | `operation.rs`, `prompt.rs` | how long a request may take, and how long its prompt is |
//! | `learned.rs` | what follows for that from how long calls took |
//! | `openai.rs` | one call over the OpenAI wire, whoever the provider is |
//! | `dialect.rs`, `kimi.rs`, `glm.rs` | what each provider does its own way: parameters, web search, errors |
//! | `search.rs` | web searches that a provider has us echo |
//! | `trouble.rs` | from what went wrong to a [`ProviderError`] |
//! | `embedded/` | the provider in this process |
//! | `transport/` | sockets |

mod dialect;
mod embedded;
mod glm;
mod kimi;
mod learned;
mod models;
mod openai;
mod operation;
mod prompt;
mod registry;
mod search;
#[cfg(test)]
mod testing;
mod transport;
mod trouble;

pub use learned::{Learner, Lesson, Sort};
pub use models::{Known, List, Models, Offered};
pub use operation::{ChosenTimeout, Demand, Kind, Operation, choose_timeout};
pub use prompt::prompt_tokens;
pub use registry::Providers;
pub use transport::PoolStats;

use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use crate::cancel::{CancelReason, CancelToken};
use crate::chat::{ChatRequest, Piece};
use crate::clock::Time;
use crate::config;
use crate::wire::ListedModel;

/// Somebody who answers chats. One value per provider, shared by all workers.
pub trait Provider: fmt::Debug + Send + Sync {
    /// Makes one call, and gives each piece to `on_piece` as it comes: a [`Piece::Head`] first.
    /// Blocks until the last byte is in, the call is cancelled or its deadline has passed.
    ///
    /// # Errors
    /// What went wrong, classified. An answer that breaks off is an error, however much of it came.
    fn chat(&self, call: &Call<'_>, on_piece: &mut OnPiece<'_>) -> Result<(), ProviderError>;

    /// Finds out whether it can be reached, takes our key, and which models it has, at no cost. Blocks until it is known, `cancel` is said or
    /// `deadline` has passed.
    ///
    /// # Errors
    /// What stands in the way, classified.
    fn probe(&self, cancel: &CancelToken, deadline: Time) -> Result<Probe, ProviderError> {
        // Whoever is in this process is there.
        let _ = (cancel, deadline);
        Ok(Probe::InProcess)
    }

    /// The connections to it; `None` where there are none to be made.
    fn pool_stats(&self) -> Option<PoolStats> {
        None
    }

    /// Begins to count anew what becomes of its connections.
    fn reset_pool_stats(&self) {}
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// It is in this process.
    InProcess,
    /// It answered, and took the key if there is one; with the models that it lists, where that is a list.
    Accepted(Option<Vec<ListedModel>>),
    /// It answered, but has nothing to be asked that costs nothing: what it thinks of the key is not known.
    Reached,
}

/// Takes a piece; `Break` when nobody wants any more of them.
pub type OnPiece<'a> = dyn FnMut(Piece) -> ControlFlow<()> + 'a;

/// One try at a provider.
#[derive(Debug)]
pub struct Call<'a> {
    /// What is asked.
    pub request: &'a ChatRequest,
    /// Said when the answer is not wanted any more.
    pub cancel: &'a CancelToken,
    /// Nothing may last longer.
    pub deadline: Time,
    /// The first byte of the answer has to be in by then, so that somebody else can still be asked.
    pub first_byte_by: Time,
    /// How long the connection may be silent before the answer's first byte, where that is known to come soon; the
    /// shorter of it and `timeouts.first_byte` counts.
    pub first_byte: Option<Duration>,
    /// Told when something happens.
    pub watch: &'a dyn CallWatch,
}

/// Hears of what happens inside a call: for the request's phases.
pub trait CallWatch: fmt::Debug + Sync {
    /// The connection stands: new, or taken from the pool.
    fn connected(&self, reused: bool);
    /// The first byte of the answer is in.
    fn first_byte(&self);
}

/// What went wrong with a call.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ProviderError {
    /// What kind of failure it was.
    pub class: ErrorClass,
    /// What the client may read.
    pub message: String,
    /// What only the log may say.
    pub detail: Option<String>,
    /// The provider's HTTP status, where there was one.
    pub status: Option<u16>,
    /// The provider's own code or type.
    pub code: Option<String>,
    /// The request's field that the provider names.
    pub param: Option<String>,
    /// How long the provider asks us to wait.
    pub retry_after: Option<Duration>,
}

impl ProviderError {
    /// An error of `class`, with nothing further known of it.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        ProviderError {
            class,
            message: message.into(),
            detail: None,
            status: None,
            code: None,
            param: None,
            retry_after: None,
        }
    }

    /// The end of a call that was given up for `reason`.
    pub fn cancelled(reason: CancelReason) -> Self {
        ProviderError::new(ErrorClass::Cancelled(reason), reason.to_string())
    }

    /// The end of a call whose deadline came.
    fn deadline() -> Self {
        ProviderError::cancelled(CancelReason::Deadline)
    }

    /// The end of a call whose pieces nobody takes any more. Where the token doesn't say why, the client is gone.
    fn unwanted(cancel: &CancelToken) -> Self {
        ProviderError::cancelled(cancel.reason().unwrap_or(CancelReason::ClientLeft))
    }
}

/// The name of a model as `provider` knows it: without `provider/` in front; `auto` is the provider's first model.
fn model_name<'a>(name: &'a str, provider: &'a config::Provider) -> &'a str {
    let own = name.strip_prefix(provider.name.as_str());
    let name = own.and_then(|rest| rest.strip_prefix('/')).unwrap_or(name);
    match provider.models.first() {
        Some(first) if name == "auto" => &first.name,
        _ => name,
    }
}

/// Kinds of failure. Which of them may be tried again is decided in one place, the admission core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// No connection: name lookup, TCP, TLS.
    Connect,
    /// Time ran out while connecting.
    ConnectTimeout,
    /// Time ran out before the first byte of the answer.
    FirstByteTimeout,
    /// Time ran out between two pieces of the answer.
    IdleTimeout,
    /// Rate or concurrency (429).
    RateLimited,
    /// The provider is overloaded (429, 503, 529).
    Overloaded,
    /// A plan's window is used up until a stated time (429).
    PlanWindow,
    /// No balance, no plan (402, 429).
    Quota,
    /// The key is not accepted (401).
    Auth,
    /// The key may not do that (403).
    Forbidden,
    /// No such model (404).
    ModelNotFound,
    /// The prompt is too long (400).
    ContextLength,
    /// The provider's filter said no (400).
    ContentFilter,
    /// The request is wrong in another way (4xx).
    InvalidRequest,
    /// The provider failed (5xx).
    ServerError,
    /// The answer broke off before its proper end.
    Incomplete,
    /// The answer is no answer: not HTTP, not JSON, not the wire.
    Malformed,
    /// We gave up on it: see the reason.
    Cancelled(CancelReason),
}
