//! Throttle: how much of the global limit the load of the box leaves. A plain state machine.
//!
//! ```text
//!  readings (processors, memory, file handles)
//!     |  smoothed
//!     v
//!  level:  low -> normal -> high -> critical -> emergency     up: to where the readings stand, once they have stood
//!             <-         <-      <-          <-                   there for rise_after
//!     |  its share of the global limit, from min to max       down: by one, once they have stood below its beginning,
//!     v                                                             less the margin, for fall_after
//!  limit:  lowered at once, raised by one every raise_every
//! ```
//!
//! [`Governor`] has no clock, no thread and no I/O: readings and the present time go in, a [`Target`] comes out. Somebody
//! else reads the box, and somebody else applies the target, which is what is really admitted (and not a figure that
//! nothing heeds). What runs is left alone when the limit is lowered.
//!
//! # Rules
//!
//! 1. Each resource has a level by itself; the highest counts. One that can't be read has none.
//! 2. Down fast, up slowly: a peak must not last long enough to hurt, and a box that has just recovered is not hit with
//!    all that waited.
//! 3. The limit never leaves its bounds, and is never above the global limit: a quiet box says nothing of what the
//!    providers, their connections and our workers are made for.
//! 4. Somebody may [force](Governor::force) a limit or a level for a while. It counts at once and within the bounds; when
//!    the while is over the readings decide again, as if the limit had been lowered for load.

mod governor;
mod level;
mod readings;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::clock::Time;

pub use governor::Governor;
pub use level::Level;
pub use readings::{Readings, Resource};

/// What the load leaves of the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Calls in flight in all, where this is less than the global limit.
    pub most: usize,
    /// Whether jobs of low priority are refused.
    pub refuses_low: bool,
    /// Another one for each other target: whoever applied this one asks whether it is still the latest.
    pub edition: u64,
}

/// What somebody wants instead of what the readings say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// This limit.
    Limit(usize),
    /// What this level leaves.
    Level(Level),
}

/// A level or a limit that changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// When.
    pub at: Time,
    /// The level before, and after.
    pub level: (Level, Level),
    /// The global limit in force before, and after.
    pub limit: (usize, usize),
    /// In words.
    pub why: String,
}

/// One look at the box, and what was made of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// When.
    pub at: Time,
    /// What was read.
    pub raw: Readings,
    /// What is believed.
    pub smoothed: Readings,
    /// The level then.
    pub level: Level,
    /// The global limit in force then.
    pub limit: usize,
}

/// The throttle at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct ThrottleView {
    /// Whether readings change anything.
    pub enabled: bool,
    /// The level: what is forced, else what the readings say.
    pub level: Level,
    /// For how long it has been that.
    pub for_so_long: Duration,
    /// Why, in words.
    pub why: String,
    /// The global limit that is configured.
    pub configured: usize,
    /// The global limit in force.
    pub limit: usize,
    /// What the limit is kept within.
    pub bounds: (usize, usize),
    /// The longest time for which anything may be forced.
    pub force_max: Duration,
    /// Whether jobs of low priority are refused.
    pub refuses_low: bool,
    /// What is forced, and for how long yet.
    pub forced: Option<(Force, Duration)>,
    /// What was read last.
    pub raw: Readings,
    /// What is believed.
    pub smoothed: Readings,
    /// The level that the readings are about to rise to, and for how long they have stood there.
    pub rising: Option<(Level, Duration)>,
    /// For how long they have stood below the level that holds.
    pub falling: Option<Duration>,
    /// The latest changes, the last one last, and how long ago each was.
    pub changes: Vec<(Change, Duration)>,
}
