//! What can go wrong on our own errands, and how a failure finds its name.

use std::io;
use std::time::Duration;

use crate::cancel::{CancelReason, CancelToken};

/// Why a request got no answer, or no whole one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("`{0}` is no address of a server; accepted: http://HOST:PORT, https://HOST, unix:PATH")]
    Url(String),
    /// No connection: name lookup, TCP, or the socket's file.
    #[error("no connection to {to}: {why}")]
    Connect {
        /// Whom to.
        to: String,
        /// What the system said.
        why: String,
    },
    /// The request's time ran out.
    #[error("no answer in time ({0})")]
    TimedOut(&'static str),
    /// The client's token was cancelled.
    #[error("{0}")]
    Cancelled(CancelReason),
    /// The connection broke, or what came over it is not HTTP.
    #[error("the connection broke: {0}")]
    Broken(String),
}

impl ClientError {
    /// A connection that could not be made.
    pub(super) fn connect(to: impl ToString, why: impl ToString) -> Self {
        ClientError::Connect {
            to: to.to_string(),
            why: why.to_string(),
        }
    }

    /// Names what the HTTP client said. The token is asked first: a socket that its hook shut fails in every way a
    /// socket can, and none of them is the reason.
    pub(super) fn of(error: ureq::Error, cancel: &CancelToken) -> Self {
        if let Some(reason) = cancel.reason() {
            return ClientError::Cancelled(reason);
        }
        match error {
            ureq::Error::Timeout(ureq::Timeout::Connect) => ClientError::TimedOut("connecting"),
            ureq::Error::Timeout(_) => ClientError::TimedOut("the whole request"),
            ureq::Error::Io(error) => of_io(error),
            other => ClientError::Broken(other.to_string()),
        }
    }
}

/// The HTTP client hands errors through as the payload of an [`io::Error`], its own and ours.
fn of_io(error: io::Error) -> ClientError {
    let error = match error.downcast::<ClientError>() {
        Ok(ours) => return ours,
        Err(error) => error,
    };
    match error.downcast::<ureq::Error>() {
        Ok(ureq::Error::Timeout(_)) => ClientError::TimedOut("the whole request"),
        Ok(other) => ClientError::Broken(other.to_string()),
        Err(error) => ClientError::Broken(error.to_string()),
    }
}

/// Finds what a read of an [`Answer`](super::Answer) returned.
impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        of_io(error)
    }
}

/// What is left of a timeout, for a call of the system: zero would mean "without limit" to it.
pub(super) fn left(timeout: Duration) -> Duration {
    timeout.max(Duration::from_millis(1))
}
