//! What became of a call, in words that say nothing of who was called: what admission learns from.
//!
//! Whoever makes the calls sorts their failures into [`Cause`]s; what follows from each is in its table.

use std::time::Duration;

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It came to its proper end.
    Completed,
    /// It failed.
    Failed(Cause),
}

impl Outcome {
    /// Why it failed, if it did.
    pub const fn cause(self) -> Option<Cause> {
        match self {
            Outcome::Completed => None,
            Outcome::Failed(cause) => Some(cause),
        }
    }
}

/// Why a call failed. What follows from each cause:
///
/// | cause | again, same stage | next stage | learned |
/// |---|---|---|---|
/// | [`Congested`](Cause::Congested) | yes | yes | limit is cut, gate shut for as long as was asked |
/// | [`WindowUsedUp`](Cause::WindowUsedUp) | yes, once it opens | yes | gate shut until then |
/// | [`Unreachable`](Cause::Unreachable) | yes | yes | breaker |
/// | [`Failing`](Cause::Failing) | once, where it says so | yes | breaker |
/// | [`Unanswered`](Cause::Unanswered) | no | yes, at another provider | breaker |
/// | [`Broken`](Cause::Broken) | no | yes | |
/// | [`Credentials`](Cause::Credentials), [`Quota`](Cause::Quota) | no | yes | breaker opens at once |
/// | [`ModelUnavailable`](Cause::ModelUnavailable) | no | yes | the target is passed over for that model for a while |
/// | [`Barred`](Cause::Barred) | no | yes | |
/// | [`Request`](Cause::Request), [`Unwanted`](Cause::Unwanted), [`Own`](Cause::Own) | no | no | |
///
/// Nothing is tried again once content went to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The provider takes no more calls for now: too many, too often, or it is overloaded.
    Congested {
        /// How long it asks us to stay away.
        retry_after: Option<Duration>,
    },
    /// What the plan allows in some stretch of time is used up.
    WindowUsedUp {
        /// How long until there is more, if that was said.
        opens_in: Option<Duration>,
    },
    /// There was no connection.
    Unreachable,
    /// The provider failed.
    Failing {
        /// Whether nothing speaks against asking it once more.
        again: bool,
    },
    /// Nothing came back within the time for the first byte. The request was sent in full, so it may be under way.
    Unanswered,
    /// The answer broke off, fell silent, or was none.
    Broken,
    /// The key is not accepted.
    Credentials,
    /// The account has nothing left to spend.
    Quota,
    /// The target does not have this model, or not for us.
    ModelUnavailable,
    /// The target does not do this for us, and does not say for how long.
    Barred,
    /// The request is wrong, wherever it goes.
    Request,
    /// Nobody waits for the answer: the client left, somebody cancelled, the deadline came.
    Unwanted,
    /// The job's own code failed.
    Own,
}

impl Cause {
    /// Whether the same stage may be asked again; `failed_once`: it was, after its provider had failed.
    pub(super) const fn allows_repeat(self, failed_once: bool) -> bool {
        match self {
            Cause::Congested { .. } | Cause::WindowUsedUp { .. } | Cause::Unreachable => true,
            Cause::Failing { again } => again && !failed_once,
            Cause::Unanswered
            | Cause::Broken
            | Cause::Credentials
            | Cause::Quota
            | Cause::ModelUnavailable
            | Cause::Barred
            | Cause::Request
            | Cause::Unwanted
            | Cause::Own => false,
        }
    }

    /// Whether the next stage may try.
    pub(super) const fn allows_fallback(self) -> bool {
        match self {
            Cause::Congested { .. }
            | Cause::WindowUsedUp { .. }
            | Cause::Unreachable
            | Cause::Failing { .. }
            | Cause::Unanswered
            | Cause::Broken
            | Cause::Credentials
            | Cause::Quota
            | Cause::ModelUnavailable
            | Cause::Barred => true,
            Cause::Request | Cause::Unwanted | Cause::Own => false,
        }
    }

    /// How long the provider wants us to wait.
    pub(super) const fn asked_wait(self) -> Option<Duration> {
        match self {
            Cause::Congested { retry_after: wait } | Cause::WindowUsedUp { opens_in: wait } => wait,
            Cause::Unreachable
            | Cause::Failing { .. }
            | Cause::Unanswered
            | Cause::Broken
            | Cause::Credentials
            | Cause::Quota
            | Cause::ModelUnavailable
            | Cause::Barred
            | Cause::Request
            | Cause::Unwanted
            | Cause::Own => None,
        }
    }
}

/// What comes back with a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// What became of the call.
    pub outcome: Outcome,
    /// Whether any content went to whoever waits: then nothing is tried again.
    pub content: bool,
    /// How long the answer's first byte was in coming, where that says something about the provider.
    pub first_byte: Option<Duration>,
}

impl From<Outcome> for Report {
    /// Nothing further is known: no content, no first byte.
    fn from(outcome: Outcome) -> Self {
        Report {
            outcome,
            content: false,
            first_byte: None,
        }
    }
}
