//! `[watchdog]`: slots whose holders don't come back, and how often the books are compared with what is there.

use std::time::Duration;

use super::section::Section;
use super::{HOUR, Profile, millis, secs};

/// `[watchdog]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watchdog {
    /// A worker that has not come back so long after its call was interrupted is lost: another takes its place.
    pub quarantine_after: Duration,
    /// Its slot is free again so long after the interrupt.
    pub reclaim_after: Duration,
    /// With more workers lost than that, nothing new is taken and the gateway says that it is unhealthy.
    pub max_lost_workers: usize,
    /// Whether the slot of an `execute` function that does not heed its token is reclaimed too.
    pub reclaim_execute: bool,
    /// How often the books are audited and looked through for slots that nobody holds.
    pub audit: Duration,
    /// How often the health check is made and logged.
    pub health_check: Duration,
}

impl Watchdog {
    pub(super) fn read(section: &mut Section<'_>, profile: Profile) -> Self {
        let rarely = match profile {
            Profile::Test => 24 * HOUR,
            Profile::Dev | Profile::Demo | Profile::Prod => secs(60),
        };
        let patience = millis(1)..=HOUR;
        let watchdog = Watchdog {
            quarantine_after: section
                .duration("quarantine_after", patience.clone())
                .unwrap_or(secs(1)),
            reclaim_after: section
                .duration("reclaim_after", patience)
                .unwrap_or(secs(6)),
            max_lost_workers: section.count("max_lost_workers", 0..=1024).unwrap_or(16),
            reclaim_execute: section.flag("reclaim_execute").unwrap_or(true),
            audit: section
                .duration("audit", millis(10)..=secs(60))
                .unwrap_or(secs(1)),
            health_check: section
                .duration("health_check", millis(10)..=24 * HOUR)
                .unwrap_or(rarely),
        };
        if watchdog.reclaim_after <= watchdog.quarantine_after {
            section.refuse_pair(
                "reclaim_after",
                "quarantine_after",
                "must be longer than watchdog.quarantine_after, or a slot would be given away before its worker is given up on",
            );
        }
        watchdog
    }
}
