//! How busy a gateway is.

use std::fmt;

use crate::engine::CoreView;

/// How busy a gateway is, judged by its own slots and lines; what else the box does is not looked at.
///
/// ```
/// use pointsman::{Config, Gateway, Level, Profile};
///
/// let gateway = Gateway::start(Config::builtin(Profile::Test))?;
/// assert_eq!(gateway.load(), Level::Low);
/// assert!(Level::Low < Level::High);
/// # Ok::<(), pointsman::StartError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// A global slot is free, and nobody waits.
    Low,
    /// All global slots are taken, or somebody waits.
    Normal,
    /// Backpressure is on: since `queue.pressure_on` of the places in line were taken, and until no more than
    /// `queue.pressure_off` of them are.
    High,
    /// All places in line are taken: whoever comes is refused, or somebody else gives way.
    Critical,
}

impl Level {
    pub(super) fn of(core: &CoreView, capacity: usize) -> Level {
        if core.waiting >= capacity {
            Level::Critical
        } else if core.pressure {
            Level::High
        } else if core.waiting > 0 || core.in_use >= core.limit {
            Level::Normal
        } else {
            Level::Low
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Low => "low",
            Level::Normal => "normal",
            Level::High => "high",
            Level::Critical => "critical",
        })
    }
}
