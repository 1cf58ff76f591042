//! Models that go wrong on request, for trying out what the rest does then. On with `faults = true` alone.
//!
//! | model | what happens |
//! |---|---|
//! | `fault-stall` | no byte, ever: ends with the first-byte timeout, the deadline or a cancel |
//! | `fault-hang-after-first` | one piece, then silence: ends with the idle timeout, the deadline or a cancel |
//! | `fault-trickle` | a piece every 200 ms for ever: ends with the deadline or a cancel |
//! | `fault-broken` | a few pieces, then the answer breaks off |
//! | `fault-fail-500` | the provider failed |
//! | `fault-429` | rate limited, to be asked again after 1 s |
//! | `fault-503` | overloaded |
//! | `fault-401` | the key is not accepted |
//! | `fault-quota` | no balance |
//! | `fault-garbage` | an answer that is none |
//! | `fault-panic` | the code panics |
//! | `fault-deaf` | hears no cancel, and returns 3 s after the deadline (30 s after the start where there is none): work for the watchdog |

use std::time::Duration;

use crate::cancel::CancelToken;
use crate::chat::{Delta, Head, Piece};
use crate::clock::Time;
use crate::config::Timeouts;
use crate::providers::{ErrorClass, ProviderError};

use super::Stage;

/// Silence between two pieces of `fault-trickle`.
const TRICKLE: Duration = Duration::from_millis(200);
/// How long after the deadline `fault-deaf` returns.
const DEAF_AFTER: Duration = Duration::from_secs(3);
/// How long `fault-deaf` lasts without a deadline.
const DEAF_FOR: Duration = Duration::from_secs(30);

/// A way to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Stall,
    HangAfterFirst,
    Trickle,
    Broken,
    Fail(ErrorClass, u16),
    Panic,
    Deaf,
}

impl Fault {
    /// All of them.
    pub(super) const ALL: [Fault; 12] = [
        Fault::Stall,
        Fault::HangAfterFirst,
        Fault::Trickle,
        Fault::Broken,
        Fault::Fail(ErrorClass::ServerError, 500),
        Fault::Fail(ErrorClass::RateLimited, 429),
        Fault::Fail(ErrorClass::Overloaded, 503),
        Fault::Fail(ErrorClass::Auth, 401),
        Fault::Fail(ErrorClass::Quota, 402),
        Fault::Fail(ErrorClass::Malformed, 200),
        Fault::Panic,
        Fault::Deaf,
    ];

    /// The model's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Fault::Stall => "fault-stall",
            Fault::HangAfterFirst => "fault-hang-after-first",
            Fault::Trickle => "fault-trickle",
            Fault::Broken => "fault-broken",
            Fault::Fail(ErrorClass::RateLimited, _) => "fault-429",
            Fault::Fail(ErrorClass::Overloaded, _) => "fault-503",
            Fault::Fail(ErrorClass::Auth, _) => "fault-401",
            Fault::Fail(ErrorClass::Quota, _) => "fault-quota",
            Fault::Fail(ErrorClass::Malformed, _) => "fault-garbage",
            Fault::Fail(..) => "fault-fail-500",
            Fault::Panic => "fault-panic",
            Fault::Deaf => "fault-deaf",
        }
    }

    /// The fault of that name.
    pub(super) fn of(model: &str) -> Option<Fault> {
        Fault::ALL.into_iter().find(|fault| fault.name() == model)
    }

    /// Goes wrong.
    pub(super) fn play(
        self,
        stage: &mut Stage<'_, '_, '_>,
        timeouts: &Timeouts,
    ) -> Result<(), ProviderError> {
        stage.call.watch.connected(true);
        match self {
            Fault::Stall => Err(stage.fall_silent(timeouts)),
            Fault::HangAfterFirst => {
                self.begin(stage)?;
                Err(stage.fall_silent(timeouts))
            }
            Fault::Trickle => {
                self.begin(stage)?;
                loop {
                    stage.wait(TRICKLE)?;
                    stage.say(Piece::Delta(Delta::text("drip ")))?;
                }
            }
            Fault::Broken => {
                self.begin(stage)?;
                let message = "the embedded provider broke off, as asked";
                Err(ProviderError::new(ErrorClass::Incomplete, message))
            }
            Fault::Fail(class, status) => Err(refusal(class, status)),
            Fault::Panic => panic!("fault-panic was asked for"),
            Fault::Deaf => {
                stay_deaf(stage);
                Err(ProviderError::deadline())
            }
        }
    }

    /// A head and a first bit of text.
    fn begin(self, stage: &mut Stage<'_, '_, '_>) -> Result<(), ProviderError> {
        stage.call.watch.first_byte();
        stage.say(Piece::Head(Head {
            id: format!("chatcmpl-{}", self.name()),
            created: stage.clock.unix_seconds(),
            model: self.name().into(),
            ..Head::default()
        }))?;
        stage.say(Piece::Delta(Delta::text("The answer is ")))
    }
}

fn refusal(class: ErrorClass, status: u16) -> ProviderError {
    let again = class == ErrorClass::RateLimited;
    ProviderError {
        status: Some(status),
        code: Some("fault".into()),
        retry_after: again.then_some(Duration::from_secs(1)),
        ..ProviderError::new(class, "the embedded provider fails, as asked")
    }
}

/// Waits on a token that nobody can cancel, as code does that looks at no token.
fn stay_deaf(stage: &Stage<'_, '_, '_>) {
    let left = match stage.deadline() {
        Time::NEVER => DEAF_FOR,
        deadline => deadline.until(stage.clock.now()) + DEAF_AFTER,
    };
    CancelToken::new().wait(left);
}
