//! Routing: from the name of a model to where the call goes.
//!
//! Routing says *where*; *when* is admission's word, and the engine asks both. The [`Router`] decides by rule from what
//! the configuration says, from what is known of the providers' models ([`crate::providers::Models`]) and from the
//! request: it asks nobody, keeps nothing between two requests, and takes microseconds. (A selection call per request is what made `auto` slow in an older system.) It says its reason in
//! words, for the answer and the log.
//!
//! | the client asks for | it gets |
//! |---|---|
//! | `provider/model` | that model of that provider; of an `openai` provider without configured models, any. The model may hold slashes |
//! | a model's bare name | the first available provider whose configuration names it, else the first that lists it; those of `routing.auto` first |
//! | `auto` | the first available provider in the order of `routing.auto` with a model whose context holds the prompt, and its first such model, configured ones first |
//! | anything else | [`RouteError::UnknownModel`], with the nearest names |
//!
//! Behind whoever was found stand those of `routing.fallback` who can be called and whose context holds the prompt: further
//! stages, entered only when the ones before fail or take nothing.
//!
//! An embedded provider answers under its own models' names, and under `auto` only when no other provider has a key:
//! nobody takes a made-up answer for a model's. It is never a stand-in for a model of the same name elsewhere.

mod auto;
#[cfg(test)]
mod list_tests;
mod offer;
mod router;
#[cfg(test)]
mod tests;

pub use router::{ModelInfo, Router};

use std::sync::Arc;

use crate::providers::Offered;

/// Where a call goes, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// To be tried one after the other. Never empty.
    pub stages: Vec<Stage>,
    /// The provider's name for the model.
    pub model: String,
    /// What is known of the model; `None` for one that its provider has not named.
    pub known: Option<Arc<Offered>>,
    /// The provider's name.
    pub provider: String,
    /// Why it goes there, in words for people.
    pub reason: String,
}

/// Interchangeable targets: whichever is free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Never empty.
    pub targets: Vec<TargetRef>,
    /// The model that is asked there, by its provider's name for it.
    pub model: String,
}

/// One endpoint and key of a provider. Each provider has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRef {
    /// The provider's name.
    pub provider: String,
}

/// Why a call goes nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No provider offers a model of this name.
    #[error("no model is called {name:?}{}{}", nearest(.suggestions), unasked(.awaited, .unread))]
    UnknownModel {
        /// What was asked for, cut if it is long.
        name: String,
        /// The nearest names that a client may ask for, the nearest first.
        suggestions: Vec<String>,
        /// Providers that have not yet said which models they have: it may be one of theirs.
        awaited: Vec<String>,
        /// Providers that could not be brought to say so.
        unread: Vec<String>,
    },
    /// Whoever offers the model can't be called.
    #[error("{provider} is not available: {advice}")]
    Unavailable {
        /// The provider's name, or `auto`.
        provider: String,
        /// What to do about it.
        advice: String,
    },
    /// `auto` found no model whose context holds the prompt.
    #[error(
        "the prompt has about {tokens} tokens, and the largest context that is available holds {context}"
    )]
    TooLong {
        /// The prompt's length, estimated.
        tokens: u64,
        /// The largest context there is, in tokens.
        context: u64,
    },
}

fn nearest(suggestions: &[String]) -> String {
    match suggestions {
        [] => String::new(),
        names => format!("; the nearest are {}", names.join(", ")),
    }
}

fn unasked(awaited: &[String], unread: &[String]) -> String {
    let mut words = String::new();
    if !awaited.is_empty() {
        let who = awaited.join(", ");
        words += &format!("; {who} has not yet said which models it has: ask again in a moment");
    }
    if !unread.is_empty() {
        let who = unread.join(", ");
        words += &format!("; {who} does not say which models it has, the log says why");
    }
    words
}
