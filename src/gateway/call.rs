//! A function's circumstances: what its caller says of it, and what it can find out while it runs.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::options::{Options, option_setters};
use crate::cancel::CancelToken;
use crate::clock::{SharedClock, Time};
use crate::engine::Level;
use crate::engine::ProviderError;

/// Whose slots a function takes, whose it is, how urgent, and until when.
///
/// ```
/// use pointsman::{Call, Level, Priority};
/// use std::time::Duration;
///
/// let call = Call::on("kimi")
///     .session("agent-1")
///     .priority(Priority::Low)
///     .timeout(Duration::from_secs(30))
///     .unless_load(Level::High);
/// # let _ = call;
/// ```
#[derive(Debug, Clone, Default)]
pub struct Call {
    pub(super) provider: Option<Arc<str>>,
    pub(super) options: Options,
    pub(super) unless_load: Option<Level>,
}

impl Call {
    /// Takes a global slot and, where a session is named, one of that session's; no provider's. Like all others it leaves
    /// the global slots that are kept for idle providers. Without a [`timeout`](Call::timeout) it has `timeouts.normal`.
    pub fn new() -> Call {
        Call::default()
    }

    /// As [`Call::new`], and a slot of this provider: for functions that call it themselves.
    pub fn on(provider: impl Into<Arc<str>>) -> Call {
        Call {
            provider: Some(provider.into()),
            ..Call::default()
        }
    }

    option_setters!();

    /// Refuses the call at once when the [load](super::Gateway::load) is at this level or a higher one. It is looked at
    /// once, just before the call is submitted.
    #[must_use]
    pub fn unless_load(mut self, level: Level) -> Call {
        self.unless_load = Some(level);
        self
    }
}

/// What a function that is executed can find out, and say.
///
/// ```
/// # use pointsman::{Call, Config, Gateway, Profile};
/// # use std::time::Duration;
/// # let gateway = Gateway::start(Config::builtin(Profile::Test))?;
/// let words = gateway.execute(Call::new().session("agent-1"), |ctx| {
///     let mut words = 0;
///     for line in ["sets the points", "works the semaphores"] {
///         if ctx.cancel_token().is_cancelled() {
///             return Err("nobody waits any more");
///         }
///         assert!(ctx.time_left() > Duration::ZERO && ctx.session() == Some("agent-1"));
///         words += line.split(' ').count();
///     }
///     Ok(words)
/// });
/// assert_eq!(words, Ok(6));
/// # Ok::<(), pointsman::StartError>(())
/// ```
#[derive(Debug)]
pub struct CallContext {
    pub(super) request_id: Arc<str>,
    pub(super) session: Option<Arc<str>>,
    pub(super) provider: Option<Arc<str>>,
    pub(super) cancel: CancelToken,
    pub(super) deadline: Time,
    pub(super) clock: SharedClock,
    pub(super) reported: Mutex<Option<ProviderError>>,
}

impl CallContext {
    /// The id that the log and `/api/requests` know the call by.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// The session whose call it is, if it has a name.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// The provider whose slot the call holds, if it holds one.
    pub fn provider(&self) -> Option<&str> {
        self.provider.as_deref()
    }

    /// When the caller gets its answer, whatever the function does; on the gateway's clock.
    pub fn deadline(&self) -> Time {
        self.deadline
    }

    /// How long until the deadline; zero once it has passed. For the timeouts of whatever the function calls.
    pub fn time_left(&self) -> Duration {
        self.deadline.until(self.clock.now())
    }

    /// Cancelled when the caller doesn't wait any more: at the deadline, on request, or because the gateway stops. A
    /// function that can be interrupted hangs a hook on it.
    pub fn cancel_token(&self) -> &CancelToken {
        &self.cancel
    }

    /// Says what the provider did wrong. The last report counts, and only of a function that then returns its own
    /// error: the log gives it as the reason, and the provider's limit and breaker learn from it. A function that reports nothing holds nothing against its provider.
    pub fn report(&self, error: ProviderError) {
        *self.reported.lock() = Some(error);
    }
}
