//! `[queue]`: the waiting lines.

use std::time::Duration;

use super::profile::{PerProfile, Profile};
use super::section::Section;
use super::{HOUR, KIB, MIB, millis, secs};

/// `[queue]`
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// Waiting jobs in all.
    pub capacity: usize,
    /// Waiting jobs of one session for one target.
    pub per_session: usize,
    /// Bytes of waiting requests in all.
    pub max_bytes: usize,
    /// The part of `capacity` that one provider may fill, 0.0 to 1.0.
    pub provider_share: f64,
    /// Nobody waits longer.
    pub timeout: Duration,
    /// Shares of service by class.
    pub weights: Weights,
    /// Backpressure starts at this part of `capacity`.
    pub pressure_on: f64,
    /// Backpressure ends at this part of `capacity`.
    pub pressure_off: f64,
}

impl Queue {
    pub(super) fn read(section: &mut Section<'_>, profile: Profile) -> Self {
        let capacities = PerProfile {
            dev: 100,
            demo: 100,
            prod: 2000,
        };
        let capacity = section
            .count("capacity", 1..=1_000_000)
            .unwrap_or(capacities.of(profile));
        let queue = Queue {
            capacity,
            per_session: section
                .count("per_session", 1..=1_000_000)
                .unwrap_or(capacity.min(50)),
            max_bytes: section
                .size("max_bytes", KIB..=65_536 * MIB)
                .unwrap_or(256 * MIB),
            provider_share: section
                .fraction("provider_share", 0.01..=1.0)
                .unwrap_or(0.75),
            timeout: section
                .duration("timeout", millis(1)..=24 * HOUR)
                .unwrap_or(secs(60)),
            weights: section.section("weights", Weights::read),
            pressure_on: section.fraction("pressure_on", 0.01..=1.0).unwrap_or(0.8),
            pressure_off: section.fraction("pressure_off", 0.0..=0.99).unwrap_or(0.3),
        };
        queue.check(section);
        queue
    }

    fn check(&self, section: &mut Section<'_>) {
        if self.pressure_off >= self.pressure_on {
            let message = format!(
                "{} is not below queue.pressure_on ({}), so that backpressure would flap or never end",
                self.pressure_off, self.pressure_on
            );
            section.refuse_pair("pressure_off", "pressure_on", message);
        }
        if self.per_session > self.capacity {
            let message = format!(
                "one session would be promised {} places of the {} that queue.capacity has",
                self.per_session, self.capacity
            );
            section.refuse_pair("per_session", "capacity", message);
        }
    }
}

/// Shares of service by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// Of [`Priority::High`](super::Priority::High).
    pub high: u32,
    /// Of [`Priority::Medium`](super::Priority::Medium).
    pub medium: u32,
    /// Of [`Priority::Low`](super::Priority::Low).
    pub low: u32,
}

impl Weights {
    /// None may be 0: that class would starve.
    fn read(section: &mut Section<'_>) -> Self {
        Weights {
            high: section.count("high", 1..=1000).unwrap_or(16),
            medium: section.count("medium", 1..=1000).unwrap_or(4),
            low: section.count("low", 1..=1000).unwrap_or(1),
        }
    }
}
