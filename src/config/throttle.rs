//! `[throttle]`: how the global limit follows the load of the box.
//!
//! Why the defaults are what they are: a call is mostly waiting for somebody else, so a box whose processors are busy
//! (somebody compiles) can still make calls, if a little later. It loses a quarter of its global limit and no more,
//! however long that lasts. Memory and file handles are another matter: who runs out of them fails, with all that is in
//! flight. So they alone reach the levels that leave half and a quarter.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::profile::{PerProfile, Profile};
use super::section::Section;
use super::value::Value;
use super::{HOUR, MAX_IN_FLIGHT, millis, secs};

/// `[throttle]`
#[derive(Debug, Clone, PartialEq)]
pub struct Throttle {
    /// Whether the load of the box changes the global limit by itself.
    pub enabled: bool,
    /// Where the kernel shows the box and this process.
    pub proc: PathBuf,
    /// Where the kernel shows control groups.
    pub cgroup: PathBuf,
    /// How often they are looked at.
    pub interval: Duration,
    /// How long it takes until about two thirds of a change are believed.
    pub smoothing: Duration,
    /// How far below a threshold, as a part of it, readings have to be before the level falls.
    pub margin: f64,
    /// How long the readings have to stand above a threshold before the level rises.
    pub rise_after: Duration,
    /// How long they have to stand so far below it before the level falls by one.
    pub fall_after: Duration,
    /// How long until the limit rises by one more.
    pub raise_every: Duration,
    /// The limit is never held lower.
    pub min: usize,
    /// Nor let go any higher.
    pub max: usize,
    /// Of processor time, the part that is used.
    pub cpu: Thresholds,
    /// Of memory, the part that is not available: of the box's, or of what our control group may have.
    pub memory: Thresholds,
    /// Of file handles, the part that is used: of this process or of the box, whichever is more.
    pub files: Thresholds,
    /// What each level leaves of the global limit.
    pub share: Shares,
    /// Whether jobs of low priority are refused at the highest level.
    pub refuse_low: bool,
    /// The longest time for which an adjustment may be forced.
    pub force_max: Duration,
    /// Samples, and changes, that are remembered.
    pub history: usize,
}

/// Where the levels begin; above 1: never.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Of normal.
    pub normal: f64,
    /// Of high.
    pub high: f64,
    /// Of critical.
    pub critical: f64,
    /// Of emergency.
    pub emergency: f64,
}

/// What levels leave of the global limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    /// At high.
    pub high: f64,
    /// At critical.
    pub critical: f64,
    /// At emergency.
    pub emergency: f64,
}

impl Throttle {
    /// Without a word about it, `max` is never below the global limit.
    pub(super) fn read(section: &mut Section<'_>, profile: Profile, global: usize) -> Self {
        let most = PerProfile {
            dev: 10,
            demo: 25,
            prod: 50,
        };
        let least = PerProfile {
            dev: 2,
            demo: 2,
            prod: 4,
        };
        let moment = Duration::ZERO..=HOUR;
        let throttle = Throttle {
            enabled: section.flag("enabled").unwrap_or(profile != Profile::Test),
            proc: section
                .knob("proc", "an absolute path", directory)
                .unwrap_or_else(|| "/proc".into()),
            cgroup: section
                .knob("cgroup", "an absolute path", directory)
                .unwrap_or_else(|| "/sys/fs/cgroup".into()),
            interval: section
                .duration("interval", millis(10)..=secs(60))
                .unwrap_or(secs(1)),
            smoothing: section
                .duration("smoothing", Duration::ZERO..=HOUR)
                .unwrap_or(secs(2)),
            margin: section.fraction("margin", 0.0..=0.5).unwrap_or(0.05),
            rise_after: section
                .duration("rise_after", moment.clone())
                .unwrap_or(secs(2)),
            fall_after: section.duration("fall_after", moment).unwrap_or(secs(10)),
            raise_every: section
                .duration("raise_every", millis(1)..=HOUR)
                .unwrap_or(secs(1)),
            min: section
                .count("min", 1..=MAX_IN_FLIGHT)
                .unwrap_or(least.of(profile)),
            max: section
                .count("max", 1..=MAX_IN_FLIGHT)
                .unwrap_or(most.of(profile).max(global)),
            cpu: section.section("cpu", |section| {
                Thresholds::read(section, [0.6, 0.9, 2.0, 2.0])
            }),
            memory: section.section("memory", |section| {
                Thresholds::read(section, [0.7, 0.9, 0.95, 0.98])
            }),
            files: section.section("files", |section| {
                Thresholds::read(section, [0.5, 0.8, 0.9, 0.95])
            }),
            share: section.section("share", Shares::read),
            refuse_low: section.flag("refuse_low").unwrap_or(true),
            force_max: section
                .duration("force_max", secs(1)..=24 * HOUR)
                .unwrap_or(HOUR),
            history: section.count("history", 1..=100_000).unwrap_or(300),
        };
        throttle.check(section);
        throttle
    }

    fn check(&self, section: &mut Section<'_>) {
        if self.min > self.max {
            let message = format!("is {}, above throttle.max, which is {}", self.min, self.max);
            section.refuse_pair("min", "max", message);
        }
    }
}

impl Thresholds {
    /// Where each level begins, from normal up.
    pub fn ascending(&self) -> [f64; 4] {
        [self.normal, self.high, self.critical, self.emergency]
    }

    fn read(section: &mut Section<'_>, defaults: [f64; 4]) -> Self {
        let mut from = |key: &str, default| section.fraction(key, 0.01..=2.0).unwrap_or(default);
        let thresholds = Thresholds {
            normal: from("normal", defaults[0]),
            high: from("high", defaults[1]),
            critical: from("critical", defaults[2]),
            emergency: from("emergency", defaults[3]),
        };
        let names = ["normal", "high", "critical", "emergency"];
        let values = thresholds.ascending();
        refuse_disorder(section, &names, |at| values[at] <= values[at + 1], "above");
        thresholds
    }
}

impl Shares {
    fn read(section: &mut Section<'_>) -> Self {
        let mut of = |key: &str, default| section.fraction(key, 0.01..=1.0).unwrap_or(default);
        let shares = Shares {
            high: of("high", 0.75),
            critical: of("critical", 0.5),
            emergency: of("emergency", 0.25),
        };
        let values = [shares.high, shares.critical, shares.emergency];
        let names = ["high", "critical", "emergency"];
        refuse_disorder(section, &names, |at| values[at] >= values[at + 1], "below");
        shares
    }
}

/// Refuses neighbours that stand in the wrong order.
fn refuse_disorder(
    section: &mut Section<'_>,
    names: &[&str],
    is_right: impl Fn(usize) -> bool,
    wrong: &str,
) {
    for (at, pair) in names.windows(2).enumerate() {
        if let (false, [first, second]) = (is_right(at), pair) {
            let message = format!("is {wrong} {}", section.full(second));
            section.refuse_pair(first, second, message);
        }
    }
}

fn directory(value: &Value) -> Option<PathBuf> {
    let path = Path::new(value.as_text()?);
    path.is_absolute().then(|| path.to_owned())
}
