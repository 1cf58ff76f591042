//! What can go wrong: one enum per facade.
//!
//! The `Display` of each is what a client may read. What is only for a log is in [`ChatError::detail`] and
//! [`ExecuteError::detail`].

use std::fmt;
use std::io;
use std::time::Duration;

use crate::cancel::CancelReason;
use crate::config::Listen;
use crate::config::Telemetry;
use crate::engine::Level;
use crate::engine::{Expiry, Obstacle, PlanError, ProviderError, Refusal, Verdict};

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system gave no thread.
    #[error("no thread can be started: {0}")]
    Threads(#[source] io::Error),
    /// The file for the lifecycle events can't be written.
    #[error(
        "{path}: {cause} (telemetry.lifecycle_file; accepted is a file that can be made or written)"
    )]
    LifecycleFile {
        /// The file, as configured.
        path: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The address can't be listened on.
    #[error("can't listen on {address} (server.listen): {cause}")]
    Listen {
        /// The address, as configured.
        address: String,
        /// What the system said.
        cause: io::Error,
    },
    /// A socket that was handed over can't be served.
    #[error("the socket that was handed over can't be served: {0}")]
    Inherited(#[source] io::Error),
    /// A socket that was handed over can be reached from other machines, and clients have no keys.
    #[error(
        "the socket that was handed over listens on {0}, which can be reached from other machines, and clients have no keys \
         (server.keys): anyone could spend yours, accepted without keys is a loopback address or a Unix socket"
    )]
    Exposed(Listen),
}

impl StartError {
    /// Why the lifecycle log was not opened: its file, or where none is configured the thread.
    pub(super) fn lifecycle(config: &Telemetry, cause: io::Error) -> Self {
        match &config.lifecycle_file {
            Some(path) => StartError::LifecycleFile {
                path: path.display().to_string(),
                cause,
            },
            None => StartError::Threads(cause),
        }
    }
}

/// Why there is no answer, or no more of it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ChatError {
    /// No such model, nobody to call, or a prompt too long for `auto`. Nothing was submitted.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// It was not taken in, or had to give its place away; [`ChatError::retry_after`] says when to come again.
    #[error("the request was not taken in: {0}")]
    Refused(Refusal),
    /// It waited in line for longer than `queue.timeout`.
    #[error("the request waited in line for longer than the queue timeout (queue.timeout): {0}")]
    QueueTimeout(Obstacle),
    /// Its deadline passed.
    #[error("the deadline passed; {0}")]
    DeadlineExceeded(Expiry),
    /// Somebody cancelled it, or the gateway stopped.
    #[error("{0}")]
    Cancelled(CancelReason),
    /// The provider failed it.
    #[error(transparent)]
    Provider(ProviderError),
    /// Pointsman failed it.
    #[error("the request failed inside the gateway; its log says why")]
    Internal {
        /// What the log says.
        detail: String,
    },
    /// This thread is a worker of the gateway that it would wait for.
    #[error("a wait for a job on a worker of its own gateway could be a wait for itself")]
    WouldDeadlock,
}

impl ChatError {
    /// What a job's verdict means for whoever wants its answer.
    pub(super) fn of(verdict: &Verdict) -> Result<(), ChatError> {
        Err(match verdict {
            Verdict::Completed => return Ok(()),
            Verdict::Failed(error) => ChatError::Provider(error.clone()),
            Verdict::Erred(detail) | Verdict::Panicked(detail) => ChatError::Internal {
                detail: detail.clone(),
            },
            Verdict::QueueTimeout(obstacle) => ChatError::QueueTimeout(*obstacle),
            Verdict::Expired(expiry) => ChatError::DeadlineExceeded(*expiry),
            Verdict::Cancelled(reason) => ChatError::Cancelled(*reason),
            Verdict::Refused(refusal) => ChatError::Refused(*refusal),
        })
    }

    /// When to come again, where somebody knows.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            ChatError::Refused(refusal) => Some(refusal.retry_after),
            ChatError::Provider(error) => error.retry_after,
            ChatError::Plan(_)
            | ChatError::QueueTimeout(_)
            | ChatError::DeadlineExceeded(_)
            | ChatError::Cancelled(_)
            | ChatError::Internal { .. }
            | ChatError::WouldDeadlock => None,
        }
    }

    /// What only a log may say beside the error itself.
    pub fn detail(&self) -> Option<&str> {
        match self {
            ChatError::Provider(error) => error.detail.as_deref(),
            ChatError::Internal { detail } => Some(detail),
            ChatError::Plan(_)
            | ChatError::Refused(_)
            | ChatError::QueueTimeout(_)
            | ChatError::DeadlineExceeded(_)
            | ChatError::Cancelled(_)
            | ChatError::WouldDeadlock => None,
        }
    }
}

/// Why a function has no result. `E` is its own error.
///
/// `started` says whether the function had begun: if not, it never will, and has had no effect.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ExecuteError<E> {
    /// The function's own error, as it returned it.
    #[error("{0}")]
    Function(E),
    /// The function panicked.
    #[error("the function panicked")]
    Panicked {
        /// The message of the panic, for the log.
        detail: String,
    },
    /// It was not taken in, or had to give its place away; [`ExecuteError::retry_after`] says when to come again.
    #[error("the call was not taken in: {0}")]
    Refused(Refusal),
    /// It waited in line for longer than `queue.timeout`.
    #[error("the call waited in line for longer than the queue timeout (queue.timeout): {0}")]
    QueueTimeout(Obstacle),
    /// Its deadline passed.
    #[error("the deadline passed; {}", begun(.started))]
    DeadlineExceeded {
        /// Whether the function had begun.
        started: bool,
    },
    /// Somebody cancelled it, or the gateway stopped.
    #[error("{reason}; {}", begun(.started))]
    Cancelled {
        /// Why.
        reason: CancelReason,
        /// Whether the function had begun.
        started: bool,
    },
    /// The load was as high as [`Call::unless_load`](super::Call::unless_load) said, or higher.
    #[error("the load is {0}")]
    Loaded(Level),
    /// The configuration has no provider of that name.
    #[error("there is no provider named {0:?}")]
    UnknownProvider(String),
    /// This thread is a worker of the gateway that it would wait for.
    #[error("a wait for a job on a worker of its own gateway could be a wait for itself")]
    WouldDeadlock,
}

fn begun(started: &bool) -> impl fmt::Display {
    match started {
        true => "the function had begun",
        false => "the function had not begun",
    }
}

impl<E> ExecuteError<E> {
    /// When to come again, where somebody knows.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            ExecuteError::Refused(refusal) => Some(refusal.retry_after),
            ExecuteError::Function(_)
            | ExecuteError::Panicked { .. }
            | ExecuteError::QueueTimeout(_)
            | ExecuteError::DeadlineExceeded { .. }
            | ExecuteError::Cancelled { .. }
            | ExecuteError::Loaded(_)
            | ExecuteError::UnknownProvider(_)
            | ExecuteError::WouldDeadlock => None,
        }
    }

    /// What only a log may say beside the error itself.
    pub fn detail(&self) -> Option<&str> {
        match self {
            ExecuteError::Panicked { detail } => Some(detail),
            ExecuteError::Function(_)
            | ExecuteError::Refused(_)
            | ExecuteError::QueueTimeout(_)
            | ExecuteError::DeadlineExceeded { .. }
            | ExecuteError::Cancelled { .. }
            | ExecuteError::Loaded(_)
            | ExecuteError::UnknownProvider(_)
            | ExecuteError::WouldDeadlock => None,
        }
    }
}
