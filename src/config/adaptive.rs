//! `[limits.adaptive]` and `[limits.gate]`: how the limit of a provider follows what it takes.

use std::time::Duration;

use super::section::Section;
use super::{HOUR, MAX_IN_FLIGHT, millis, secs};

/// `[limits.adaptive]`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adaptive {
    /// Without it each provider gets `max_inflight` calls at once, whatever it says.
    pub enabled: bool,
    /// Where a limit starts, or at `max_inflight` if that is less.
    pub start: usize,
    /// A limit is in use when calls fill at least this part of it.
    pub bound: f64,
    /// What a refusal leaves of what was in flight.
    pub cut: f64,
    /// How long a limit takes back to where it was cut, if it is in use.
    pub recover: Duration,
    /// The same for limits of `small` calls or fewer.
    pub recover_small: Duration,
    /// See `recover_small`.
    pub small: usize,
    /// Nothing grows while first bytes take so many times as long as they use to.
    pub latency: f64,
}

impl Adaptive {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let time = secs(1)..=24 * HOUR;
        Adaptive {
            enabled: section.flag("enabled").unwrap_or(true),
            start: section.count("start", 1..=MAX_IN_FLIGHT).unwrap_or(4),
            bound: section.fraction("bound", 0.1..=1.0).unwrap_or(0.8),
            cut: section.fraction("cut", 0.1..=0.95).unwrap_or(0.7),
            recover: section
                .duration("recover", time.clone())
                .unwrap_or(secs(120)),
            recover_small: section.duration("recover_small", time).unwrap_or(secs(300)),
            small: section.count("small", 1..=MAX_IN_FLIGHT).unwrap_or(8),
            latency: section.fraction("latency", 1.1..=100.0).unwrap_or(2.0),
        }
    }
}

/// `[limits.gate]`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gate {
    /// The longest Retry-After that is believed.
    pub max: Duration,
    /// Up to so much of a Retry-After is added to it.
    pub jitter: f64,
    /// The first calls after it are so far apart.
    pub pace: Duration,
    /// How long a plan is taken to be used up that does not say until when.
    pub window: Duration,
}

impl Gate {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Gate {
            max: section
                .duration("max", secs(1)..=24 * HOUR)
                .unwrap_or(secs(300)),
            jitter: section.fraction("jitter", 0.0..=1.0).unwrap_or(0.1),
            pace: section
                .duration("pace", Duration::ZERO..=secs(60))
                .unwrap_or(millis(250)),
            window: section
                .duration("window", secs(1)..=24 * HOUR)
                .unwrap_or(secs(300)),
        }
    }
}
