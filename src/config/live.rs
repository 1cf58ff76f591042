//! `[telemetry]`, `live_...`: the picture that dashboards are sent.

use std::time::Duration;

use super::section::Section;
use super::{HOUR, Profile, millis, secs};

/// What the dashboard and `pointsman status` show, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// A new picture is made so often, for all who look.
    pub interval: Duration,
    /// Dashboards that are open at once.
    pub max: usize,
    /// Rows of each list in a picture: slots, requests, sessions.
    pub rows: usize,
    /// The line that latency is drawn against.
    pub target: Duration,
}

impl Live {
    pub(super) fn read(section: &mut Section<'_>, profile: Profile) -> Self {
        let target = match profile {
            Profile::Demo => millis(500),
            Profile::Dev | Profile::Prod | Profile::Test => secs(30),
        };
        Live {
            interval: section
                .duration("live_interval", millis(50)..=secs(60))
                .unwrap_or(secs(1)),
            max: section.count("live_max", 1..=4096).unwrap_or(64),
            rows: section.count("live_rows", 1..=10_000).unwrap_or(100),
            target: section
                .duration("live_target", millis(1)..=HOUR)
                .unwrap_or(target),
        }
    }
}
