//! How often a provider is asked again, and what judges its health.

use std::time::Duration;

use crate::config::section::Section;
use crate::config::{HOUR, millis, secs};

/// `retry = { ... }`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Tries of one call, the first included. Further stages of a fallback come on top.
    pub attempts: u32,
    /// The wait before the first repetition is random, up to this; up to twice as long before each further one.
    pub base: Duration,
    /// The random part of a wait is never above this.
    pub max: Duration,
    /// Tokens at most, and at first. Each repetition takes one.
    pub budget: f64,
    /// Nothing is repeated with so few tokens or fewer.
    pub floor: f64,
    /// Tokens that each success brings back.
    pub refill: f64,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            attempts: 3,
            base: millis(500),
            max: secs(20),
            budget: 10.0,
            floor: 5.0,
            refill: 0.1,
        }
    }
}

impl Retry {
    /// Nothing is tried twice.
    pub(super) fn never() -> Self {
        Retry {
            attempts: 1,
            ..Retry::default()
        }
    }

    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = Retry::default();
        let retry = section.section("retry", |section| Retry {
            attempts: section
                .count("attempts", 1..=20)
                .unwrap_or(default.attempts),
            base: section
                .duration("base", millis(1)..=HOUR)
                .unwrap_or(default.base),
            max: section
                .duration("max", millis(1)..=HOUR)
                .unwrap_or(default.max),
            budget: section
                .fraction("budget", 1.0..=10_000.0)
                .unwrap_or(default.budget),
            floor: section
                .fraction("floor", 0.0..=10_000.0)
                .unwrap_or(default.floor),
            refill: section
                .fraction("refill", 0.0..=1.0)
                .unwrap_or(default.refill),
        });
        if retry.floor >= retry.budget {
            let message = format!(
                "{} is not below {} ({}), so that nothing would ever be repeated: for that say retry.attempts = 1",
                retry.floor,
                section.full("retry.budget"),
                retry.budget
            );
            section.refuse_pair("retry.floor", "retry.budget", message);
        }
        retry
    }
}

/// `breaker = { ... }`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breaker {
    /// Without it every call is made, however the last ones went.
    pub enabled: bool,
    /// It is judged from so many calls ...
    pub attempts: u32,
    /// ... within this time ...
    pub window: Duration,
    /// ... and opens if this part of them failed.
    pub failures: f64,
    /// It opens after so many calls in a row that found no connection.
    pub connects: u32,
    /// How long it stays open at first; twice as long each time that it opens again before it closed.
    pub wait: Duration,
    /// The longest that it stays open.
    pub max_wait: Duration,
    /// Its waits are longer or shorter by up to this part.
    pub jitter: f64,
    /// A probe whose answer has not begun by then has failed.
    pub lease: Duration,
    /// It closes after so many probes that succeeded.
    pub successes: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker {
            enabled: true,
            attempts: 10,
            window: secs(60),
            failures: 0.5,
            connects: 5,
            wait: secs(5),
            max_wait: secs(120),
            jitter: 0.2,
            lease: secs(60),
            successes: 2,
        }
    }
}

impl Breaker {
    pub(super) fn never() -> Self {
        Breaker {
            enabled: false,
            ..Breaker::default()
        }
    }

    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = Breaker::default();
        let time = secs(1)..=HOUR;
        section.section("breaker", |section| Breaker {
            enabled: section.flag("enabled").unwrap_or(default.enabled),
            attempts: section
                .count("attempts", 1..=10_000)
                .unwrap_or(default.attempts),
            window: section
                .duration("window", time.clone())
                .unwrap_or(default.window),
            failures: section
                .fraction("failures", 0.01..=1.0)
                .unwrap_or(default.failures),
            connects: section
                .count("connects", 1..=10_000)
                .unwrap_or(default.connects),
            wait: section
                .duration("wait", millis(1)..=HOUR)
                .unwrap_or(default.wait),
            max_wait: section
                .duration("max_wait", millis(1)..=HOUR)
                .unwrap_or(default.max_wait),
            jitter: section
                .fraction("jitter", 0.0..=0.9)
                .unwrap_or(default.jitter),
            lease: section.duration("lease", time).unwrap_or(default.lease),
            successes: section
                .count("successes", 1..=100)
                .unwrap_or(default.successes),
        })
    }
}
