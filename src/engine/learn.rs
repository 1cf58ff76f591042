//! From what became of a call to what admission learns from it: the only place that knows both vocabularies.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::live::Leg;
use super::measure;
use super::shell::Shell;
use super::task::TaskError;
use crate::admission::{Cause, Event, Outcome, PermitKey, Report};
use crate::cancel::CancelReason;
use crate::chat::Piece;
use crate::providers::{ErrorClass, ProviderError};

/// Why a call failed, in admission's words. What kind of failure it was has been found out by the provider's dialect.
fn cause(error: &ProviderError) -> Cause {
    let wait = error.retry_after;
    match error.class {
        ErrorClass::RateLimited | ErrorClass::Overloaded => Cause::Congested { retry_after: wait },
        ErrorClass::PlanWindow => Cause::WindowUsedUp { opens_in: wait },
        ErrorClass::Connect | ErrorClass::ConnectTimeout => Cause::Unreachable,
        // A 504 and its like stand for a request that somebody may be at work on.
        ErrorClass::ServerError => Cause::Failing {
            again: matches!(error.status, Some(500 | 502)),
        },
        ErrorClass::FirstByteTimeout => Cause::Unanswered,
        ErrorClass::IdleTimeout | ErrorClass::Incomplete | ErrorClass::Malformed => Cause::Broken,
        ErrorClass::Quota => Cause::Quota,
        ErrorClass::Auth => Cause::Credentials,
        ErrorClass::Forbidden => Cause::Barred,
        ErrorClass::ModelNotFound => Cause::ModelUnavailable,
        ErrorClass::ContextLength | ErrorClass::ContentFilter | ErrorClass::InvalidRequest => {
            Cause::Request
        }
        ErrorClass::Cancelled(
            CancelReason::Deadline
            | CancelReason::ClientLeft
            | CancelReason::Requested
            | CancelReason::Stopping,
        ) => Cause::Unwanted,
    }
}

/// What became of a call that did not panic. Its first byte is looked up separately.
pub(super) fn report(result: &Result<(), TaskError>, ear: &Ear<'_>) -> Report {
    let (outcome, content) = match result {
        Ok(()) => (Outcome::Completed, true),
        Err(TaskError::Provider(error)) => (Outcome::Failed(cause(error)), ear.has_content()),
        // A function that failed is never run again, whatever it says of its provider.
        Err(TaskError::Reported { error, .. }) => (Outcome::Failed(cause(error)), true),
        Err(TaskError::Own(_)) => (Outcome::Failed(Cause::Own), true),
    };
    Report {
        outcome,
        content,
        first_byte: None,
    }
}

/// Hears the pieces of one call go by.
pub(super) struct Ear<'a> {
    shell: &'a Arc<Shell>,
    leg: &'a Leg,
    permit: PermitKey,
    /// Whether admission wants to know when the answer begins.
    probe: bool,
    pieces: AtomicBool,
    content: AtomicBool,
}

impl<'a> Ear<'a> {
    pub(super) fn new(shell: &'a Arc<Shell>, leg: &'a Leg, permit: PermitKey, probe: bool) -> Self {
        Ear {
            shell,
            leg,
            permit,
            probe,
            pieces: AtomicBool::new(false),
            content: AtomicBool::new(false),
        }
    }

    pub(super) fn hear(&self, piece: &Piece) {
        if piece.is_content() {
            self.content.store(true, Ordering::Relaxed);
        }
        if let Piece::Usage(usage) = piece {
            measure::tokens(self.shell, self.leg, usage);
        }
        let first = !self.pieces.swap(true, Ordering::Relaxed);
        if first && self.probe {
            self.shell.step(Event::Answer(self.permit), None);
        }
    }

    /// Whether any piece went by.
    pub(super) fn has_pieces(&self) -> bool {
        self.pieces.load(Ordering::Relaxed)
    }

    fn has_content(&self) -> bool {
        self.content.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Ear<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ear")
            .field("permit", &self.permit)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_status_that_says_so_may_be_asked_again() {
        for (status, again) in [
            (500, true),
            (502, true),
            (504, false),
            (501, false),
            (408, false),
        ] {
            let mut error = ProviderError::new(ErrorClass::ServerError, "it failed");
            error.status = Some(status);
            assert_eq!(cause(&error), Cause::Failing { again }, "{status}");
        }
    }

    #[test]
    fn what_the_provider_asks_us_to_wait_is_handed_on() {
        let wait = Some(Duration::from_secs(7));
        for (class, expected) in [
            (
                ErrorClass::RateLimited,
                Cause::Congested { retry_after: wait },
            ),
            (
                ErrorClass::Overloaded,
                Cause::Congested { retry_after: wait },
            ),
            (
                ErrorClass::PlanWindow,
                Cause::WindowUsedUp { opens_in: wait },
            ),
        ] {
            let mut error = ProviderError::new(class, "later");
            error.retry_after = wait;
            assert_eq!(cause(&error), expected);
        }
    }
}
