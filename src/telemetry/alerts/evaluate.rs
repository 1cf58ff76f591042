//! The evaluator: from samples to alerts that are raised and resolved. Pure: the time is handed in.

use std::collections::VecDeque;

use super::figures::{Figure, Figures, Sample};
use crate::clock::Time;
use crate::config::{self, AlertKind, AlertRule};

/// Something that somebody should know.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Names it: `queue_depth-1763749838-1`. No two of a gateway have the same.
    pub id: String,
    /// The rule.
    pub kind: AlertKind,
    /// The rule as it was when it was raised.
    pub rule: AlertRule,
    /// The figure now; once it is over, the one that it ended with.
    pub value: f64,
    /// The highest figure so far.
    pub peak: f64,
    /// Who or what is concerned, in words; may be empty.
    pub detail: String,
    /// When it was raised, in seconds since 1970.
    pub raised: u64,
    /// Who has seen it, and when.
    pub acknowledged: Option<(String, u64)>,
    /// When it was over.
    pub resolved: Option<u64>,
}

/// What happened to an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Raised,
    /// Somebody has seen it.
    Acknowledged,
    /// It is over.
    Resolved,
}

/// Something happened to an alert.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// What.
    pub change: Change,
    /// The alert as it is now.
    pub alert: Alert,
}

/// One rule and how far it is.
#[derive(Debug)]
struct Guard {
    rule: AlertRule,
    /// Since when the figure is above the threshold without an alert, or at clear with one.
    since: Option<Time>,
    quiet_until: Time,
    figure: Option<f64>,
    alert: Option<Alert>,
}

/// See the story of this folder.
#[derive(Debug)]
pub(super) struct Evaluator {
    guards: Vec<Guard>,
    figures: Figures,
    history: VecDeque<Alert>,
    remembered: usize,
    raised: u64,
    last_look: Option<Time>,
}

impl Evaluator {
    pub(super) fn new(config: &config::Alerts) -> Evaluator {
        let guards = config.rules.iter().filter(|rule| rule.enabled);
        let guard = |rule: &AlertRule| Guard {
            rule: *rule,
            since: None,
            quiet_until: Time::ZERO,
            figure: None,
            alert: None,
        };
        Evaluator {
            guards: guards.map(guard).collect(),
            figures: Figures::new(config),
            history: VecDeque::new(),
            remembered: config.history,
            raised: 0,
            last_look: None,
        }
    }

    /// Takes a sample in; what changed by it. `wall` is in seconds since 1970.
    pub(super) fn look(&mut self, sample: &Sample, now: Time, wall: u64) -> Vec<Transition> {
        self.last_look = Some(now);
        self.figures.take(sample, now);
        let mut changes = Vec::new();
        for guard in &mut self.guards {
            let figure = self.figures.of(&guard.rule, sample, now);
            guard.figure = figure.as_ref().map(|figure| figure.value);
            // A rule that can't be judged is as quiet as one whose figure is nothing.
            let figure = figure.unwrap_or_default();
            match &guard.alert {
                None => {
                    if guard.is_due(figure.value, now) {
                        self.raised += 1;
                        let alert = guard.raise(figure, self.raised, wall);
                        changes.push(Transition {
                            change: Change::Raised,
                            alert,
                        });
                    }
                }
                Some(_) => {
                    if let Some(alert) = guard.go_on(figure, now, wall) {
                        self.history.push_front(alert.clone());
                        self.history.truncate(self.remembered);
                        changes.push(Transition {
                            change: Change::Resolved,
                            alert,
                        });
                    }
                }
            }
        }
        changes
    }

    /// The alert, and what is to be told: nothing, if it was acknowledged before.
    pub(super) fn acknowledge(
        &mut self,
        id: &str,
        by: &str,
        wall: u64,
    ) -> Option<(Alert, Option<Transition>)> {
        let mut alerts = self.guards.iter_mut().filter_map(|it| it.alert.as_mut());
        let alert = alerts.find(|alert| alert.id == id)?;
        if alert.acknowledged.is_some() {
            return Some((alert.clone(), None));
        }
        alert.acknowledged = Some((by.to_owned(), wall));
        let change = Transition {
            change: Change::Acknowledged,
            alert: alert.clone(),
        };
        Some((alert.clone(), Some(change)))
    }

    pub(super) fn active(&self) -> Vec<Alert> {
        let alerts = self.guards.iter().filter_map(|guard| guard.alert.clone());
        let mut alerts: Vec<Alert> = alerts.collect();
        alerts.sort_by_key(|alert| alert.raised);
        alerts
    }

    pub(super) fn history(&self) -> Vec<Alert> {
        self.history.iter().cloned().collect()
    }

    pub(super) fn figures(&self) -> Vec<(AlertKind, f64)> {
        let figures = self.guards.iter();
        figures
            .filter_map(|guard| Some((guard.rule.kind, guard.figure?)))
            .collect()
    }

    pub(super) fn last_look(&self) -> Option<Time> {
        self.last_look
    }
}

impl Guard {
    /// Whether an alert is to be raised.
    fn is_due(&mut self, value: f64, now: Time) -> bool {
        if value <= self.rule.threshold {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        now.since(since) >= self.rule.hold && now >= self.quiet_until
    }

    fn raise(&mut self, figure: Figure, number: u64, wall: u64) -> Alert {
        self.since = None;
        let alert = Alert {
            id: format!("{}-{wall}-{number}", self.rule.kind),
            kind: self.rule.kind,
            rule: self.rule,
            value: figure.value,
            peak: figure.value,
            detail: figure.detail,
            raised: wall,
            acknowledged: None,
            resolved: None,
        };
        self.alert = Some(alert.clone());
        alert
    }

    /// Goes on with an active alert; returns it if it is over.
    fn go_on(&mut self, figure: Figure, now: Time, wall: u64) -> Option<Alert> {
        let alert = self.alert.as_mut()?;
        alert.value = figure.value;
        alert.peak = alert.peak.max(figure.value);
        if figure.value > self.rule.clear {
            // Who is concerned may change; once it is nobody, whoever was last is told.
            alert.detail = figure.detail;
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        if now.since(since) < self.rule.hold {
            return None;
        }
        self.since = None;
        self.quiet_until = now + self.rule.cooldown;
        let over = self.alert.take();
        over.map(|alert| Alert {
            resolved: Some(wall),
            ..alert
        })
    }
}
