//! `[alerts.rules]`: the rules by name, each with its figure, threshold and patience.

use std::fmt;
use std::time::Duration;

use super::super::section::Section;
use super::super::{HOUR, secs};

/// What a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertKind {
    /// The part of the queue that is taken.
    QueueDepth,
    /// Seconds that the oldest request has been in line.
    QueueAge,
    /// Requests turned away for want of room.
    Refusals,
    /// Requests whose time was over.
    Timeouts,
    /// Slots whose holder was gone.
    Leaks,
    /// Repairs of leaks.
    Recoveries,
    /// Limits that are full while somebody waits.
    Saturation,
    /// The part of the calls that a timeout of ours cut.
    CutCalls,
    /// Repetitions per call.
    Retries,
    /// Breakers that are open.
    BreakerOpen,
    /// Audits that found a difference.
    Audit,
    /// The part of the calls that left no connection that can be used again.
    Pool,
    /// The part of the requests that failed.
    Errors,
    /// Errors of providers that are new.
    NewError,
    /// How busy the box is.
    Box,
}

impl AlertKind {
    /// All of them.
    pub const ALL: [AlertKind; 15] = [
        AlertKind::QueueDepth,
        AlertKind::QueueAge,
        AlertKind::Refusals,
        AlertKind::Timeouts,
        AlertKind::Leaks,
        AlertKind::Recoveries,
        AlertKind::Saturation,
        AlertKind::CutCalls,
        AlertKind::Retries,
        AlertKind::BreakerOpen,
        AlertKind::Audit,
        AlertKind::Pool,
        AlertKind::Errors,
        AlertKind::NewError,
        AlertKind::Box,
    ];

    /// The rule's name: `queue_depth`.
    pub const fn word(self) -> &'static str {
        match self {
            AlertKind::QueueDepth => "queue_depth",
            AlertKind::QueueAge => "queue_age",
            AlertKind::Refusals => "refusals",
            AlertKind::Timeouts => "timeouts",
            AlertKind::Leaks => "leaks",
            AlertKind::Recoveries => "recoveries",
            AlertKind::Saturation => "saturation",
            AlertKind::CutCalls => "cut_calls",
            AlertKind::Retries => "retries",
            AlertKind::BreakerOpen => "breaker_open",
            AlertKind::Audit => "audit",
            AlertKind::Pool => "pool",
            AlertKind::Errors => "errors",
            AlertKind::NewError => "new_error",
            AlertKind::Box => "box",
        }
    }

    const fn defaults(self) -> Defaults {
        /// Threshold and clear; window in minutes; hold in seconds; cool-down in minutes.
        const fn of(figure: (f64, f64), window: Option<u64>, hold: u64, cooldown: u64) -> Defaults {
            Defaults {
                threshold: figure.0,
                clear: figure.1,
                window: match window {
                    Some(minutes) => Some(secs(60 * minutes)),
                    None => None,
                },
                hold: secs(hold),
                cooldown: secs(60 * cooldown),
            }
        }
        match self {
            AlertKind::QueueDepth => of((0.8, 0.3), None, 30, 10),
            AlertKind::QueueAge => of((45.0, 20.0), None, 15, 10),
            AlertKind::Refusals => of((10.0, 0.0), Some(5), 0, 15),
            AlertKind::Timeouts => of((5.0, 0.0), Some(5), 0, 15),
            AlertKind::Leaks => of((0.0, 0.0), Some(60), 0, 60),
            AlertKind::Recoveries => of((1.0, 1.0), Some(60), 0, 60),
            AlertKind::Saturation => of((0.0, 0.0), None, 300, 15),
            AlertKind::CutCalls => of((0.1, 0.05), Some(10), 60, 30),
            AlertKind::Retries => of((0.5, 0.2), Some(10), 60, 30),
            AlertKind::BreakerOpen => of((0.0, 0.0), None, 30, 10),
            AlertKind::Audit => of((0.0, 0.0), Some(10), 0, 60),
            AlertKind::Pool => of((0.5, 0.2), Some(10), 60, 30),
            AlertKind::Errors => of((0.2, 0.05), Some(5), 60, 15),
            AlertKind::NewError => of((0.0, 0.0), Some(1440), 0, 5),
            AlertKind::Box => of((2.0, 1.0), None, 60, 15),
        }
    }
}

impl fmt::Display for AlertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

struct Defaults {
    threshold: f64,
    clear: f64,
    window: Option<Duration>,
    hold: Duration,
    cooldown: Duration,
}

/// A rule: when its figure is worth an alert, and when no more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AlertRule {
    /// What it looks at.
    pub kind: AlertKind,
    /// Whether anybody does.
    pub enabled: bool,
    /// Above it an alert is raised ...
    pub threshold: f64,
    /// ... and at this or below it is resolved: never above the threshold.
    pub clear: f64,
    /// Either is so only after so long.
    pub hold: Duration,
    /// After an alert is over none is raised again for so long.
    pub cooldown: Duration,
    /// Of what is counted, the time that counts; `None` for a figure of the moment.
    pub window: Option<Duration>,
}

impl AlertRule {
    pub(super) fn read(section: &mut Section<'_>, kind: AlertKind) -> Self {
        let default = kind.defaults();
        let figures = 0.0..=1_000_000_000.0;
        let threshold = section.fraction("threshold", figures.clone());
        let rule = AlertRule {
            kind,
            enabled: section.flag("enabled").unwrap_or(true),
            threshold: threshold.unwrap_or(default.threshold),
            clear: section
                .fraction("clear", figures)
                // A threshold alone may be set below what is cleared at by default.
                .unwrap_or(threshold.unwrap_or(default.clear).min(default.clear)),
            hold: section
                .duration("for", Duration::ZERO..=24 * HOUR)
                .unwrap_or(default.hold),
            cooldown: section
                .duration("cooldown", Duration::ZERO..=168 * HOUR)
                .unwrap_or(default.cooldown),
            window: default.window.map(|window| {
                section
                    .duration("window", secs(1)..=168 * HOUR)
                    .unwrap_or(window)
            }),
        };
        if rule.clear > rule.threshold {
            let message = format!(
                "is {}, above the threshold of {}: an alert would be over as soon as it is raised",
                rule.clear, rule.threshold
            );
            section.refuse_pair("clear", "threshold", message);
        }
        rule
    }
}
