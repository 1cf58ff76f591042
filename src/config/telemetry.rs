//! `[telemetry]`: the lifecycle log in memory, and metrics.

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
    /// Whether anything is counted for Prometheus.
    pub metrics: bool,
    /// Models whose tokens are counted apart.
    pub metric_models: usize,
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
            metrics: section.flag("metrics").unwrap_or(true),
            metric_models: section.count("metric_models", 1..=10_000).unwrap_or(100),
        }
    }
}
