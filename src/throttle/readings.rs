//! What is read of the box, and how it is smoothed.

use std::fmt;
use std::time::Duration;

use crate::config::{Thresholds, Throttle};

/// What the box can run short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// The time of its processors.
    Cpu,
    /// Its memory.
    Memory,
    /// File handles, of the box or of this process.
    Files,
}

impl Resource {
    /// All of them.
    pub const ALL: [Resource; 3] = [Resource::Cpu, Resource::Memory, Resource::Files];

    /// Its name, as in `throttle.cpu`.
    pub const fn name(self) -> &'static str {
        match self {
            Resource::Cpu => "cpu",
            Resource::Memory => "memory",
            Resource::Files => "files",
        }
    }

    pub(super) fn thresholds(self, settings: &Throttle) -> Thresholds {
        match self {
            Resource::Cpu => settings.cpu,
            Resource::Memory => settings.memory,
            Resource::Files => settings.files,
        }
    }
}

/// The part of each resource that is used, 0 to 1; `None` where it can't be read.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Readings {
    /// Of the processors' time since the last look.
    pub cpu: Option<f64>,
    /// Of memory, what is not available.
    pub memory: Option<f64>,
    /// Of file handles.
    pub files: Option<f64>,
}

impl Readings {
    /// Of one resource.
    pub fn of(&self, resource: Resource) -> Option<f64> {
        match resource {
            Resource::Cpu => self.cpu,
            Resource::Memory => self.memory,
            Resource::Files => self.files,
        }
    }

    /// Moves towards `next`, which was read so long after: by two thirds of the way in the time `smoothing`
    /// (an exponentially weighted mean; weights follow from time, so that a late look counts for more). What was not read
    /// before is believed at once, and what is not read any more is forgotten.
    pub(super) fn follow(&self, next: &Readings, after: Duration, smoothing: Duration) -> Readings {
        let weight = match smoothing.is_zero() {
            true => 1.0,
            false => 1.0 - (-after.as_secs_f64() / smoothing.as_secs_f64()).exp(),
        };
        let mean = |resource| {
            let next = next.of(resource).filter(|next| next.is_finite())?;
            let before = self.of(resource).unwrap_or(next);
            Some(before + (next - before) * weight)
        };
        Readings {
            cpu: mean(Resource::Cpu),
            memory: mean(Resource::Memory),
            files: mean(Resource::Files),
        }
    }
}

impl fmt::Display for Readings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, resource) in Resource::ALL.into_iter().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            match self.of(resource) {
                Some(share) => write!(f, "{separator}{} {}", resource.name(), percent(share))?,
                None => write!(f, "{separator}{} not known", resource.name())?,
            }
        }
        Ok(())
    }
}

/// A part in whole hundredths, never rounded up: what is shown has been reached.
pub(super) fn percent(share: f64) -> String {
    format!("{} %", (share * 100.0 + 1e-9).floor())
}
