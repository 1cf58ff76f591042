//! Whether what is configured works: each provider, its key, and the way to it.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, Scope, ScopedJoinHandle};
use std::time::Duration;

use crate::cancel::{CancelReason, CancelToken};
use crate::clock::{SharedClock, SystemClock, Time};
use crate::config::{self, Config};
use crate::engine::{ErrorClass, ProviderError};
use crate::providers::{Models, Probe, Provider, Providers};

/// What was found out about one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its name.
    pub provider: String,
    /// Where it is; empty for one in this process.
    pub base_url: String,
    /// How it is.
    pub state: State,
}

/// How a provider is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is in this process and needs nothing.
    InProcess,
    /// It was reached, and took the key if there is one; with the configured models that it does not list.
    Works(Vec<String>),
    /// It was reached; it has no list of models, so its word on the key is not known.
    Reached,
    /// It comes with pointsman, and nobody gave it a key; with what to do about it.
    NotSetUp(String),
    /// Its key is missing; with what to do about it.
    MissingKey(String),
    /// It was reached and does not take the key; in its own words.
    RefusedKey(String),
    /// There is no way to it, and why.
    Unreachable(String),
    /// It was reached and something else is wrong, in words.
    Troubled(String),
}

impl State {
    /// Whether nobody who counts on the provider will be let down.
    pub fn is_ok(&self) -> bool {
        match self {
            State::InProcess | State::Works(_) | State::Reached | State::NotSetUp(_) => true,
            State::MissingKey(_)
            | State::RefusedKey(_)
            | State::Unreachable(_)
            | State::Troubled(_) => false,
        }
    }
}

/// Looks for keys, and asks each provider that has one for its models, all at once and for at most `within`: this
/// costs nothing. Findings come in the order of names.
///
/// # Errors
/// If the system gives no thread.
pub fn check(config: &Config, cancel: &CancelToken, within: Duration) -> io::Result<Vec<Finding>> {
    let clock = SystemClock::shared();
    let providers = Providers::new(config, SharedClock::clone(&clock));
    let deadline = clock.now() + within;
    std::thread::scope(|scope| {
        let probes = config.providers.values().map(|entry| {
            let provider = providers
                .get(&entry.name)
                .zip(providers.models(&entry.name));
            let provider = provider.expect("each provider that is on was made");
            let state = match keyless(entry) {
                Some(state) => Probing::Known(state),
                None => Probing::Asked(ask(scope, &entry.name, provider, cancel, deadline)?),
            };
            Ok((entry, state))
        });
        let probes: Vec<_> = probes.collect::<io::Result<_>>()?;
        Ok(probes.into_iter().map(finding).collect())
    })
}

/// A state, or a thread that finds it out.
enum Probing<'scope> {
    Known(State),
    Asked(ScopedJoinHandle<'scope, State>),
}

fn ask<'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    (provider, models): (&Arc<dyn Provider>, &Models),
    cancel: &CancelToken,
    deadline: Time,
) -> io::Result<ScopedJoinHandle<'scope, State>> {
    let (provider, models, cancel) = (Arc::clone(provider), models.clone(), cancel.clone());
    Builder::new()
        .name(format!("pointsman-check-{name}"))
        .spawn_scoped(scope, move || match provider.probe(&cancel, deadline) {
            Ok(Probe::InProcess) => State::InProcess,
            Ok(Probe::Accepted(listed)) => {
                if let Some(listed) = listed {
                    models.read(listed);
                }
                State::Works(models.known().missing().to_vec())
            }
            Ok(Probe::Reached) => State::Reached,
            Err(error) => State::of_error(&error),
        })
}

fn finding((entry, probing): (&config::Provider, Probing<'_>)) -> Finding {
    let state = match probing {
        Probing::Known(state) => state,
        Probing::Asked(thread) => thread
            .join()
            .unwrap_or_else(|_| State::Troubled("asking it panicked".into())),
    };
    Finding {
        provider: entry.name.clone(),
        base_url: entry.base_url.clone(),
        state,
    }
}

/// The state of a provider that can't be asked for want of a key.
fn keyless(entry: &config::Provider) -> Option<State> {
    let advice = entry.missing_key()?;
    Some(match entry.is_left_alone() {
        true => State::NotSetUp(advice),
        false => State::MissingKey(advice),
    })
}

impl State {
    fn of_error(error: &ProviderError) -> State {
        let words = error
            .detail
            .clone()
            .unwrap_or_else(|| error.message.clone());
        match error.class {
            ErrorClass::Auth | ErrorClass::Forbidden => State::RefusedKey(error.message.clone()),
            ErrorClass::Connect => State::Unreachable(words),
            ErrorClass::ConnectTimeout | ErrorClass::FirstByteTimeout => {
                State::Unreachable(error.message.clone())
            }
            ErrorClass::Cancelled(CancelReason::Deadline) => {
                State::Unreachable("no answer in time".into())
            }
            ErrorClass::Cancelled(
                CancelReason::Requested | CancelReason::ClientLeft | CancelReason::Stopping,
            )
            | ErrorClass::IdleTimeout
            | ErrorClass::RateLimited
            | ErrorClass::Overloaded
            | ErrorClass::PlanWindow
            | ErrorClass::Quota
            | ErrorClass::ModelNotFound
            | ErrorClass::ContextLength
            | ErrorClass::ContentFilter
            | ErrorClass::InvalidRequest
            | ErrorClass::ServerError
            | ErrorClass::Incomplete
            | ErrorClass::Malformed => State::Troubled(error.message.clone()),
        }
    }
}
