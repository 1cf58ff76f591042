//! The words that labels may be: closed sets, so that no client can make a page of metrics grow.

use crate::config::Priority;
use crate::telemetry::{Phases, Step};

/// Classes as labels have them, most urgent first.
pub(super) const CLASSES: &[&str] = &["high", "medium", "low"];
/// Classes, and `none` for what is turned away before its class is known.
pub(super) const CLASSES_OR_NONE: &[&str] = &["high", "medium", "low", "none"];
/// How requests end.
pub(super) const OUTCOMES: &[&str] = &["completed", "timeout", "error", "cancelled", "refused"];
/// Where the time of a request goes.
pub(super) const PHASES: &[&str] = &Phases::NAMES;
/// Why a call was made again.
pub(super) const TROUBLES: &[&str] = &[
    "connect",
    "connect_timeout",
    "first_byte_timeout",
    "idle_timeout",
    "rate_limited",
    "overloaded",
    "plan_window",
    "server_error",
    "incomplete",
    "malformed",
    OTHER,
];
/// What an upstream answered; `none` for no answer at all.
pub(super) const CODES: &[&str] = &[
    "200", "400", "401", "402", "403", "404", "408", "409", "413", "422", "429", "500", "501",
    "502", "503", "504", "529", "none", OTHER,
];
/// What tokens are counted as. Those of the cache are among those of the prompt, reasoning among those of the completion.
pub(super) const TOKENS: &[&str] = &["prompt", "completion", "cached", "reasoning"];
/// Whatever no word was foreseen for.
pub(super) const OTHER: &str = "other";

/// The place of `word` among `words`; that of the last, [`OTHER`], where it is none of them.
pub(super) fn place(words: &[&str], word: &str) -> usize {
    let found = words.iter().position(|known| *known == word);
    found.unwrap_or(words.len().saturating_sub(1))
}

/// The place of a status among [`CODES`].
pub(super) fn place_of_code(status: Option<u16>) -> usize {
    match status {
        Some(status) => place(CODES, &status.to_string()),
        None => place(CODES, "none"),
    }
}

/// The place of an end among [`OUTCOMES`]; `None` for a step that is no end.
pub(super) fn place_of_end(end: Step) -> Option<usize> {
    match end {
        Step::Completed => Some(0),
        Step::Timeout => Some(1),
        Step::Error => Some(2),
        Step::Cancelled => Some(3),
        Step::Refused => Some(4),
        Step::Received
        | Step::Joined
        | Step::Queued
        | Step::Dequeued
        | Step::SessionAllocated
        | Step::ProviderCallStart
        | Step::ProviderCallEnd
        | Step::SessionReleased
        | Step::BackingOff => None,
    }
}

/// A class as labels have it.
pub fn class_word(class: Priority) -> &'static str {
    CLASSES[class.index()]
}

/// A closed set of words for a label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$of])* $variant,)+
        }

        impl $name {
            /// All of them, in the order of [`Self::WORDS`].
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];
            /// As the label has them.
            pub const WORDS: &'static [&'static str] = &[$($word,)+];

            pub(super) const fn index(self) -> usize {
                self as usize
            }

            /// As the label has it.
            pub const fn word(self) -> &'static str {
                Self::WORDS[self as usize]
            }
        }
    };
}

label! {
    /// What counts the slots.
    SemaphoreType {
        /// All calls in flight.
        Global = "global",
        /// Those at one provider.
        Provider = "provider",
        /// Those of each session; the one that has most in flight stands for all.
        Session = "session",
    }
}

label! {
    /// What became of the repair of a leak.
    Recovery {
        /// All that leaked is back.
        Success = "success",
        /// Some of it is.
        Partial = "partial",
        /// Nothing is.
        Failed = "failed",
    }
}

label! {
    /// How a wait in line ended.
    WaitEnd {
        /// The job started.
        Started = "started",
        /// It waited for too long.
        TimedOut = "timeout",
        /// Somebody did not want it any more.
        Cancelled = "cancelled",
        /// It gave way, or the gateway stopped.
        Refused = "refused",
    }
}

label! {
    /// Why somebody was turned away.
    Rejection {
        /// The line is full.
        QueueFull = "queue_full",
        /// The session's part of it is.
        SessionQueueFull = "session_queue_full",
        /// The line holds too many bytes.
        QueueBytes = "queue_bytes",
        /// The provider's part of the line is full.
        ProviderQueueFull = "provider_queue_full",
        /// The wait would be too long.
        WaitTooLong = "wait_too_long",
        /// It gave way to somebody who had less than its share.
        Displaced = "displaced",
        /// The provider takes nothing for now.
        ProviderShut = "provider_shut",
        /// Too many workers don't come back.
        WorkersLost = "workers_lost",
        /// The box is so loaded that none of its class is taken in.
        BoxLoaded = "box_loaded",
        /// The gateway is stopping.
        Stopping = "stopping",
        /// Too many connections, or too many bytes of bodies.
        Door = "door",
        /// It brought no key of ours.
        NoKey = "no_key",
        /// Its host or origin is not served.
        NotAllowed = "not_allowed",
        /// It is no request that can be read.
        Malformed = "malformed",
        /// Nobody can answer it: no such model, no provider that has a key, or a prompt too long for all.
        NoModel = "no_model",
    }
}

label! {
    /// Which time was over, and how far the request had come.
    TimeUp {
        /// The queue's own timeout.
        QueueTimeout = "queue_timeout",
        /// The deadline, in line.
        Queue = "queue",
        /// The deadline, while it waited to be tried again.
        BackOff = "back_off",
        /// The deadline, without a connection.
        Connect = "connect",
        /// The deadline, without an answer.
        FirstByte = "first_byte",
        /// The deadline, while the answer was coming in.
        Body = "body",
        /// The time for a connection.
        ConnectTimeout = "connect_timeout",
        /// The time for the first byte.
        FirstByteTimeout = "first_byte_timeout",
        /// The time between two pieces.
        IdleTimeout = "idle_timeout",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_at_the_places_of_their_values() {
        for (at, end) in [
            Step::Completed,
            Step::Timeout,
            Step::Error,
            Step::Cancelled,
            Step::Refused,
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(place_of_end(end), Some(at));
            assert_eq!(OUTCOMES[at], end.name().to_ascii_lowercase());
        }
        for class in Priority::ALL {
            assert_eq!(class_word(class), class.to_string());
        }
        for rejection in Rejection::ALL {
            assert_eq!(Rejection::WORDS[rejection.index()], rejection.word());
        }
    }

    #[test]
    fn what_nobody_foresaw_is_other_and_no_answer_is_none() {
        assert_eq!(CODES[place_of_code(Some(429))], "429");
        assert_eq!(CODES[place_of_code(Some(418))], OTHER);
        assert_eq!(CODES[place_of_code(None)], "none");
        assert_eq!(TROUBLES[place(TROUBLES, "rate_limited")], "rate_limited");
        assert_eq!(TROUBLES[place(TROUBLES, "never heard of")], OTHER);
    }
}
