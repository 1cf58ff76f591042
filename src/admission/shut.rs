//! Why a target takes nothing for a while, in plain words.

use std::fmt;

/// Why a target takes nothing for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shut {
    /// It asked us to wait.
    RateLimited,
    /// The plan's window is used up.
    PlanWindow,
    /// Too many of its calls failed.
    Failing,
    /// It could not be reached several times in a row.
    Unreachable,
    /// It does not accept our key.
    Credentials,
    /// The account has nothing left to spend.
    Quota,
    /// It does not have the model, or not for us.
    ModelUnavailable,
    /// It was taken out of the configuration.
    Removed,
}

impl fmt::Display for Shut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shut::RateLimited => "it asked us to wait (Retry-After)",
            Shut::PlanWindow => "what the plan allows for now is used up",
            Shut::Failing => "too many of its last calls failed",
            Shut::Unreachable => "it could not be reached several times in a row",
            Shut::Credentials => "it does not accept our key",
            Shut::Quota => "the account has nothing left to spend",
            Shut::ModelUnavailable => "it does not have this model, or not for our key",
            Shut::Removed => "it was taken out of the configuration",
        })
    }
}

/// Whether a target, or a stage, takes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// It does.
    Open,
    /// One call finds out whether it does; the others wait for what becomes of it.
    Probing,
    /// Not before then.
    Shut(crate::clock::Time, Shut),
}
