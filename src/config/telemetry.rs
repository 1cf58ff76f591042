//! `[telemetry]`: the lifecycle log in memory.

use std::time::Duration;

use super::section::Section;
use super::{HOUR, secs};

/// `[telemetry]`
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// Lifecycle events kept in memory.
    pub max_events: usize,
    /// Lifecycle events are forgotten after so long.
    pub max_age: Duration,
    /// Percentiles are of the requests that ended within so long, to a sixth of it.
    pub window: Duration,
}

impl Telemetry {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Telemetry {
            max_events: section
                .count("max_events", 100..=10_000_000)
                .unwrap_or(20_000),
            max_age: section
                .duration("max_age", secs(1)..=168 * HOUR)
                .unwrap_or(HOUR),
            window: section
                .duration("window", secs(1)..=24 * HOUR)
                .unwrap_or(secs(600)),
        }
    }
}
