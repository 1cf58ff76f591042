//! How loaded something is.

use std::fmt;
use std::str::FromStr;

/// How loaded a gateway is: its box, or its own slots and lines, whichever is more.
///
/// ```
/// use pointsman::{Config, Gateway, Level, Profile};
///
/// let gateway = Gateway::start(Config::builtin(Profile::Test))?;
/// assert_eq!(gateway.load(), Level::Low);
/// assert!(Level::Low < Level::High);
/// # Ok::<(), pointsman::StartError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// The box is idle. A global slot is free, and nobody waits.
    #[default]
    Low,
    /// The box works. Or all global slots are taken, or somebody waits.
    Normal,
    /// The box is short of something (`throttle.cpu.high` and its like). Or backpressure is on: since
    /// `queue.pressure_on` of the places in line were taken, and until no more than `queue.pressure_off` of them are.
    High,
    /// The box is very short of something. Or all places in line are taken: whoever comes is refused, or somebody else
    /// gives way.
    Critical,
    /// The box is about to fail.
    Emergency,
}

impl Level {
    /// All of them, the lowest first.
    pub const ALL: [Level; 5] = [
        Level::Low,
        Level::Normal,
        Level::High,
        Level::Critical,
        Level::Emergency,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Low => "low",
            Level::Normal => "normal",
            Level::High => "high",
            Level::Critical => "critical",
            Level::Emergency => "emergency",
        }
    }

    /// The highest level that begins no higher than `reading`, given where each but the lowest begins.
    pub(super) fn of(reading: f64, begins: [f64; 4]) -> Level {
        let reached = begins.iter().filter(|&&begin| reading >= begin).count();
        Level::ALL[reached]
    }

    /// The level below.
    pub(super) fn lower(self) -> Level {
        Level::ALL[(self as usize).saturating_sub(1)]
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = String;

    /// # Errors
    /// What is accepted.
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Level::ALL.into_iter().find(|level| level.name() == text);
        found.ok_or_else(|| {
            let names = Level::ALL.map(Level::name).join(", ");
            format!("{text:?} is no level, accepted are {names}")
        })
    }
}
