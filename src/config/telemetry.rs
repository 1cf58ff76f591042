//! `[telemetry]`: the lifecycle log in memory and as a file, and metrics.

use std::path::PathBuf;
use std::time::Duration;

use super::section::Section;
use super::{HOUR, KIB, Live, MIB, Profile, secs};

/// `[telemetry]`
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// Lifecycle events kept in memory.
    pub max_events: usize,
    /// Lifecycle events are forgotten after so long.
    pub max_age: Duration,
    /// Percentiles are of the requests that ended within so long, to a sixth of it.
    pub window: Duration,
    /// Lifecycle events are written to this file as well, each a line of JSON.
    pub lifecycle_file: Option<PathBuf>,
    /// It is put aside before it has more bytes.
    pub lifecycle_file_size: usize,
    /// So many are kept that were put aside.
    pub lifecycle_files: usize,
    /// Events that wait to be written.
    pub lifecycle_backlog: usize,
    /// Whether anything is counted for Prometheus.
    pub metrics: bool,
    /// Models whose tokens are counted apart.
    pub metric_models: usize,
    /// What dashboards are sent.
    pub live: Live,
}

impl Telemetry {
    pub(super) fn read(section: &mut Section<'_>, profile: Profile) -> Self {
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
            lifecycle_file: section.knob("lifecycle_file", "the path of a file", |value| {
                let path = value.as_text()?;
                let fits = !path.is_empty() && !path.contains('\0');
                fits.then(|| PathBuf::from(path))
            }),
            lifecycle_file_size: section
                .size("lifecycle_file_size", 64 * KIB..=1024 * 1024 * MIB)
                .unwrap_or(64 * MIB),
            lifecycle_files: section.count("lifecycle_files", 1..=1000).unwrap_or(4),
            lifecycle_backlog: section
                .count("lifecycle_backlog", 100..=1_000_000)
                .unwrap_or(10_000),
            metrics: section.flag("metrics").unwrap_or(true),
            metric_models: section.count("metric_models", 1..=10_000).unwrap_or(100),
            live: Live::read(section, profile),
        }
    }
}
