//! What the end of a request counts as.

use crate::client::ClientError;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A whole answer with the request's own id in it.
    Answered,
    /// Somebody said no, for lack of room: the gateway's line is full, the provider limits its rate.
    Refused,
    /// Its time ran out: in line, at the provider, or here.
    TimedOut,
    /// It went wrong in another way.
    Failed,
    /// A whole answer without the request's id: nobody knows what it answers.
    Unproven,
    /// The test was ended before it was.
    Unfinished,
}

impl Outcome {
    /// All, in the order of reports.
    pub const ALL: [Outcome; 6] = [
        Outcome::Answered,
        Outcome::Refused,
        Outcome::TimedOut,
        Outcome::Failed,
        Outcome::Unproven,
        Outcome::Unfinished,
    ];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Refused => "refused",
            Outcome::TimedOut => "timed out",
            Outcome::Failed => "failed",
            Outcome::Unproven => "unproven",
            Outcome::Unfinished => "unfinished",
        }
    }

    /// Whether it speaks against the server.
    pub const fn is_failure(self) -> bool {
        match self {
            Outcome::TimedOut | Outcome::Failed | Outcome::Unproven => true,
            Outcome::Answered | Outcome::Refused | Outcome::Unfinished => false,
        }
    }
}

/// The end of a request that got no answer, and why, in few words that are the same for the same cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) outcome: Outcome,
    pub(super) reason: String,
    /// Nobody was there to answer: the caller pauses before it tries again.
    pub(super) is_down: bool,
}

impl Trouble {
    pub(super) fn new(outcome: Outcome, reason: impl Into<String>) -> Self {
        Trouble {
            outcome,
            reason: reason.into(),
            is_down: false,
        }
    }

    /// What an error says that the server sent: `status` is that of its head, `code` its own word.
    pub(super) fn of_error(status: u16, code: Option<&str>) -> Self {
        let reason = format!("{status} {}", code.unwrap_or_default());
        Trouble::new(outcome_of(status, code), reason.trim_end())
    }
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        let outcome = match error {
            ClientError::Cancelled(_) => Outcome::Unfinished,
            ClientError::TimedOut(_) => Outcome::TimedOut,
            ClientError::Url(_) | ClientError::Connect { .. } | ClientError::Broken(_) => {
                Outcome::Failed
            }
        };
        Trouble {
            outcome,
            is_down: outcome == Outcome::Failed,
            reason: error.to_string(),
        }
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        ClientError::from(error).into()
    }
}

/// The code knows better than the status: 503 is what both a full line and a wait that was too long have.
fn outcome_of(status: u16, code: Option<&str>) -> Outcome {
    match (code, status) {
        (
            Some(
                "over_capacity"
                | "stopping"
                | "provider_rate_limited"
                | "provider_overloaded"
                | "insufficient_quota",
            ),
            _,
        ) => Outcome::Refused,
        (
            Some("queue_timeout" | "deadline_exceeded" | "provider_timeout" | "request_timeout"),
            _,
        ) => Outcome::TimedOut,
        (Some("provider_unavailable"), _) => Outcome::Failed,
        (_, 429 | 503 | 529) => Outcome::Refused,
        (_, 408 | 504) => Outcome::TimedOut,
        (_, _) => Outcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::CancelReason;

    #[test]
    fn refusals_are_told_from_failures_and_from_lack_of_time() {
        let check = |status, code, outcome, reason: &str| {
            let trouble = Trouble::of_error(status, code);
            assert_eq!(
                (trouble.outcome, trouble.reason.as_str()),
                (outcome, reason)
            );
        };
        check(
            503,
            Some("over_capacity"),
            Outcome::Refused,
            "503 over_capacity",
        );
        check(
            503,
            Some("queue_timeout"),
            Outcome::TimedOut,
            "503 queue_timeout",
        );
        check(
            503,
            Some("provider_unavailable"),
            Outcome::Failed,
            "503 provider_unavailable",
        );
        check(429, None, Outcome::Refused, "429");
        check(429, Some("1305"), Outcome::Refused, "429 1305");
        check(504, None, Outcome::TimedOut, "504");
        check(
            200,
            Some("deadline_exceeded"),
            Outcome::TimedOut,
            "200 deadline_exceeded",
        );
        check(500, None, Outcome::Failed, "500");
        check(
            401,
            Some("provider_auth"),
            Outcome::Failed,
            "401 provider_auth",
        );
    }

    #[test]
    fn a_test_that_was_ended_blames_nobody() {
        let trouble = Trouble::from(ClientError::Cancelled(CancelReason::Requested));
        assert_eq!(trouble.outcome, Outcome::Unfinished);
        assert!(!trouble.outcome.is_failure() && !trouble.is_down);
        let trouble = Trouble::from(ClientError::Broken("reset".into()));
        assert!(trouble.outcome.is_failure() && trouble.is_down);
    }
}
