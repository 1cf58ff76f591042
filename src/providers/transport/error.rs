//! What can go wrong between us and a provider's socket, and how a failure finds its name.
//!
//! Our own verdicts (cancelled, out of time, closed) are made at the bottom, where the socket is, and travel up
//! through the HTTP client and TLS as the payload of an [`io::Error`] of kind `Other`. The kind matters: the
//! client takes a reset in a body without a length for its proper end, and would hide it from us otherwise.

use std::io;

use crate::cancel::CancelReason;

use super::exchange::Exchange;
use super::tls::TlsFault;

/// Why a call got no answer, or no whole one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TransportError {
    /// No connection: name lookup, TCP, or a request that can't be written at all (a bad URL or header).
    #[error("no connection: {detail}")]
    Connect {
        /// For the log.
        detail: String,
        /// Whether `timeouts.connect` ran out, rather than somebody said no.
        timed_out: bool,
    },
    /// The connection stood, and TLS could not be agreed on.
    #[error("no TLS: {detail}")]
    Tls {
        /// What it was.
        fault: TlsFault,
        /// For the log.
        detail: String,
    },
    /// The connection stood and nothing came within `timeouts.first_byte`.
    #[error("no answer within the first-byte timeout")]
    FirstByteTimeout,
    /// The answer had begun and fell silent for longer than `timeouts.idle`.
    #[error("the answer fell silent for longer than the idle timeout")]
    IdleTimeout,
    /// The call's deadline passed.
    #[error("the deadline passed")]
    Deadline,
    /// The call's token was cancelled.
    #[error("{0}")]
    Cancelled(CancelReason),
    /// The peer closed or reset the connection.
    #[error("the connection was closed: {detail}")]
    Closed {
        /// Whether the connection had served a call before: it may then have been closed for its age alone.
        reused: bool,
        /// Whether not one byte of an answer had come.
        before_answer: bool,
        /// For the log.
        detail: String,
    },
    /// What came is not HTTP, or more than we take.
    #[error("the answer is malformed: {0}")]
    Malformed(String),
}

impl TransportError {
    /// A connection that could not be made, for another reason than time.
    pub(super) fn connect(detail: impl ToString) -> Self {
        TransportError::Connect {
            detail: detail.to_string(),
            timed_out: false,
        }
    }

    /// Names `error`, which the HTTP client returned in the course of `exchange`.
    ///
    /// The token is asked first: the socket that its hook shut fails in every way a socket can, and none of them
    /// is the reason.
    pub(super) fn classify(error: ureq::Error, exchange: &Exchange) -> Self {
        if let Err(cancelled) = exchange.check() {
            return cancelled;
        }
        if let ureq::Error::Io(inner) = &error
            && let Some(ours) = inner.get_ref().and_then(|e| e.downcast_ref::<Self>())
        {
            return ours.clone();
        }
        if exchange.stood().is_none() {
            if let Some(fault) = TlsFault::find(&error) {
                let detail = error.to_string();
                return TransportError::Tls { fault, detail };
            }
            return TransportError::connect(error);
        }
        match error {
            ureq::Error::Io(inner) if inner.kind() != io::ErrorKind::InvalidData => {
                exchange.closed(inner)
            }
            other => TransportError::Malformed(other.to_string()),
        }
    }
}

impl From<TransportError> for io::Error {
    fn from(error: TransportError) -> Self {
        io::Error::other(error)
    }
}

impl From<TransportError> for ureq::Error {
    fn from(error: TransportError) -> Self {
        ureq::Error::Io(error.into())
    }
}

/// Finds what a read of an [`Answer`](super::Answer) returned. Errors that no answer returned are [`Malformed`].
///
/// [`Malformed`]: TransportError::Malformed
impl From<io::Error> for TransportError {
    fn from(error: io::Error) -> Self {
        error
            .downcast::<TransportError>()
            .unwrap_or_else(|other| TransportError::Malformed(other.to_string()))
    }
}
