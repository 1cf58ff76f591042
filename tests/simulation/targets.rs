//! What is known of a target from outside: what it was asked and what it said, and what follows from that by the rules, in
//! plain words. Where the core draws a random wait, this knows the earliest and the latest end of it.

use std::time::Duration;

use crate::admission::{
    BreakerSettings, Cause, LimitSettings, Outcome, Report, Settings, TargetView,
};
use pointsman::clock::Time;

use super::ledger::{Check, ensure};

/// What a call knew of its target when it started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Badge {
    cuts: u32,
    changes: u32,
    probe: bool,
    in_use: usize,
    pub(super) bound: bool,
    generation: u32,
}

/// A target as seen from outside.
#[derive(Debug)]
pub(super) struct Watch {
    adaptive: bool,
    most: usize,
    rules: LimitSettings,
    breaker_rules: Option<BreakerSettings>,
    max_wait: Duration,
    jitter: f64,
    window: Duration,
    pace: Duration,
    /// The limit after the last step.
    limit: usize,
    held_back: bool,
    cuts: u32,
    cut: Option<Cut>,
    /// What the present step may do to the limit.
    change: Change,
    /// Shut at least until, and at most until.
    gate: (Time, Time),
    starts_since_gate: usize,
    last_start: Option<Time>,
    breaker: Breaker,
    changes: u32,
    opened: u32,
    pub(super) tokens: f64,
    /// Whether it was sure to take calls, and until when it was shut at the latest, before what happened in this step.
    before: (bool, Time),
    /// The most calls in flight after a start of this step.
    filled: usize,
    /// How often it became another.
    generation: u32,
    /// Whether it was taken out.
    is_gone: bool,
}

/// The last cut: between which values the limit then was, and what happened since.
#[derive(Debug, Clone, Copy)]
struct Cut {
    at: Time,
    least: f64,
    most: f64,
    /// For how long somebody has waited since then while all that the limit gives was in use.
    used: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Change {
    Nothing,
    /// A call that filled the limit came to its proper end.
    Success,
    /// To something between these.
    Cut(usize, usize),
    Configured,
}

#[derive(Debug)]
enum Breaker {
    Closed {
        /// When, and whether it failed.
        calls: Vec<(Time, bool)>,
        unreachable: u32,
    },
    Open {
        earliest: Time,
        latest: Time,
    },
    HalfOpen {
        lease: Option<Time>,
        successes: u32,
    },
}

/// What an end says about health: `None`: nothing.
fn judged(outcome: Outcome) -> Option<bool> {
    match outcome {
        Outcome::Completed => Some(true),
        Outcome::Failed(
            Cause::Unreachable
            | Cause::Failing { .. }
            | Cause::Unanswered
            | Cause::Credentials
            | Cause::Quota,
        ) => Some(false),
        Outcome::Failed(_) => None,
    }
}

impl Watch {
    pub(super) fn new(settings: &Settings, target: usize) -> Watch {
        let provider = &settings.providers[settings.targets[target].0 as usize];
        let gate = &settings.learning.gate;
        let start = settings.learning.limit.start.min(provider.limit);
        Watch {
            adaptive: provider.adaptive,
            most: provider.limit,
            rules: settings.learning.limit,
            breaker_rules: provider.breaker,
            max_wait: gate.max,
            jitter: gate.jitter,
            window: gate.window,
            pace: gate.pace,
            limit: if provider.adaptive {
                start.max(1)
            } else {
                provider.limit
            },
            held_back: false,
            cuts: 0,
            cut: None,
            change: Change::Nothing,
            gate: (Time::ZERO, Time::ZERO),
            starts_since_gate: 0,
            last_start: None,
            breaker: Breaker::Closed {
                calls: Vec::new(),
                unreachable: 0,
            },
            changes: 0,
            opened: 0,
            tokens: provider.retry.budget,
            before: (true, Time::ZERO),
            filled: 0,
            generation: 0,
            is_gone: false,
        }
    }

    /// Another takes its place. What was so before this step may still have been gone by in it.
    pub(super) fn replace(&mut self, other: Watch, is_gone: bool) {
        *self = Watch {
            generation: self.generation + 1,
            is_gone,
            before: (false, Time::NEVER),
            change: Change::Configured,
            ..other
        };
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Whether the call was made to who it is now.
    pub(super) fn knows(&self, badge: &Badge) -> bool {
        self.generation == badge.generation
    }

    /// Time has passed, during which `in_use` calls were in flight; `grows`: and somebody waited, and
    /// ticks were prompt.
    pub(super) fn pass(&mut self, from: Time, now: Time, in_use: usize, grows: bool) {
        (self.change, self.filled) = (Change::Nothing, 0);
        let bound = in_use as f64 >= self.rules.bound * self.limit as f64;
        if let Some(cut) = &mut self.cut
            && grows
            && bound
            && !self.held_back
            && self.limit < self.most
        {
            cut.used += now.since(from);
        }
        match self.breaker {
            Breaker::Open { latest, .. } if latest <= now => self.half_open(),
            Breaker::HalfOpen {
                lease: Some(until), ..
            } if until <= now => self.open(now),
            _ => {}
        }
        self.before = (self.surely_open(now), self.shut_until());
    }

    /// Other limits are in force.
    pub(super) fn configure(&mut self, most: usize) {
        self.most = most;
        self.change = Change::Configured;
    }

    /// Whether it certainly takes calls, its limit aside.
    pub(super) fn surely_open(&self, now: Time) -> bool {
        let paced =
            self.gate.1 > Time::ZERO && self.last_start.is_some_and(|last| now < last + self.pace);
        let breaker = match self.breaker {
            Breaker::Closed { .. } => true,
            Breaker::Open { .. } => false,
            Breaker::HalfOpen { lease, .. } => lease.is_none(),
        };
        self.gate.1 <= now && !paced && breaker && !self.is_gone
    }

    /// Whether it certainly takes none.
    pub(super) fn surely_shut(&self, now: Time) -> bool {
        let breaker = match self.breaker {
            Breaker::Closed { .. } => false,
            Breaker::Open { earliest, .. } => now < earliest,
            Breaker::HalfOpen { lease, .. } => lease.is_some(),
        };
        now < self.gate.0 || breaker || self.is_gone
    }

    /// Whether it certainly took calls all through this step.
    pub(super) fn stays_open(&self, now: Time) -> bool {
        self.before.0 && self.surely_open(now)
    }

    /// Until when it may be shut at the latest.
    pub(super) fn opens_by(&self) -> Time {
        self.before.1.max(self.shut_until())
    }

    fn shut_until(&self) -> Time {
        if self.is_gone {
            return Time::NEVER;
        }
        match self.breaker {
            Breaker::Open { latest, .. } => latest.max(self.gate.1),
            Breaker::Closed { .. } | Breaker::HalfOpen { .. } => self.gate.1,
        }
    }

    pub(super) fn has_place(&self, in_use: usize) -> bool {
        in_use < self.limit
    }

    /// A call starts and makes it `in_use` of them; `probe` is what the core says it is.
    pub(super) fn start(&mut self, in_use: usize, probe: bool, now: Time) -> Result<Badge, String> {
        ensure(!self.surely_shut(now), || {
            format!("a start while shut: {self:?}")
        })?;
        let paced = self.gate.1 > Time::ZERO && self.starts_since_gate == 1;
        let soon = self.last_start.is_some_and(|last| now < last + self.pace);
        ensure(!(paced && soon), || {
            format!("the first starts after a wait are not paced: {self:?}")
        })?;
        if let Breaker::Open { .. } = self.breaker {
            self.half_open();
        }
        let leased = match (&mut self.breaker, &self.breaker_rules) {
            (Breaker::HalfOpen { lease, .. }, Some(rules)) => {
                *lease = Some(now + rules.lease);
                true
            }
            _ => false,
        };
        ensure(leased == probe, || {
            format!("a probe: {probe}, but: {self:?}")
        })?;
        self.starts_since_gate += 1;
        self.last_start = Some(now);
        self.filled = self.filled.max(in_use);
        Ok(Badge {
            cuts: self.cuts,
            changes: self.changes,
            probe,
            in_use,
            bound: false,
            generation: self.generation,
        })
    }

    /// Whether the call filled the limit, known when the step of its start is over.
    pub(super) fn settle(&self, badge: &mut Badge) {
        badge.bound = badge.in_use as f64 >= self.rules.bound * self.limit as f64;
    }

    /// An answer has begun.
    pub(super) fn answer(&mut self, badge: &mut Badge, now: Time) {
        if self.knows(badge) {
            self.judge(badge, Outcome::Completed, now);
        }
    }

    /// A call is back, which was one of `in_use`.
    pub(super) fn back(&mut self, mut badge: Badge, report: &Report, in_use: usize, now: Time) {
        if !self.knows(&badge) {
            return;
        }
        match report.outcome {
            Outcome::Completed => {
                self.tokens = (self.tokens + 0.1).min(10.0);
                if badge.bound && self.cuts == 0 && self.adaptive {
                    self.change = Change::Success;
                }
            }
            Outcome::Failed(Cause::Congested { retry_after }) => {
                if self.adaptive && badge.cuts == self.cuts {
                    self.is_cut(in_use, now);
                }
                if let Some(wait) = retry_after.filter(|wait| !wait.is_zero()) {
                    let wait = wait.min(self.max_wait);
                    self.shut(now + wait, now + wait.mul_f64(1.0 + self.jitter));
                }
            }
            Outcome::Failed(Cause::WindowUsedUp { opens_in }) => {
                let until = now + opens_in.unwrap_or(self.window);
                if until > now {
                    self.shut(until, until);
                }
            }
            Outcome::Failed(_) => {}
        }
        self.judge(&mut badge, report.outcome, now);
    }

    fn is_cut(&mut self, in_use: usize, now: Time) {
        let (low, high) = (
            self.limit.min(in_use) as f64,
            (self.limit + 1).min(in_use) as f64,
        );
        let [least, most] = [low, high].map(|peak| (peak * self.rules.cut).max(1.0));
        self.cuts += 1;
        self.change = Change::Cut((least + 1e-6) as usize, (most + 1e-6) as usize);
        self.cut = Some(Cut {
            at: now,
            least: low,
            most: high,
            used: Duration::ZERO,
        });
    }

    fn shut(&mut self, earliest: Time, latest: Time) {
        self.gate = (self.gate.0.max(earliest), self.gate.1.max(latest));
        self.starts_since_gate = 0;
    }

    fn judge(&mut self, badge: &mut Badge, outcome: Outcome, now: Time) {
        let Some(rules) = self.breaker_rules.filter(|_| badge.changes == self.changes) else {
            return;
        };
        let verdict = judged(outcome);
        let at_once = matches!(outcome, Outcome::Failed(Cause::Credentials | Cause::Quota));
        match &mut self.breaker {
            Breaker::Closed { calls, unreachable } => {
                match (verdict, outcome) {
                    (_, Outcome::Failed(Cause::Unreachable)) => *unreachable += 1,
                    (Some(_), _) => *unreachable = 0,
                    (None, _) => {}
                }
                calls.extend(verdict.map(|well| (now, !well)));
                let part = rules.window.as_nanos() as u64 / 6;
                let oldest = (now.as_nanos() / part).saturating_sub(5) * part;
                let lately = calls.iter().filter(|(at, _)| at.as_nanos() >= oldest);
                let (all, failed) = lately.fold((0, 0), |(all, failed), call| {
                    (all + 1, failed + u32::from(call.1))
                });
                let bad = verdict == Some(false)
                    && all >= rules.attempts
                    && f64::from(failed) >= rules.failures * f64::from(all);
                if at_once || *unreachable >= rules.connects || bad {
                    self.open(now);
                }
            }
            Breaker::HalfOpen { lease, successes } if badge.probe => {
                badge.probe = false;
                *lease = None;
                match verdict {
                    Some(true) if *successes + 1 >= rules.successes => {
                        (self.opened, self.changes) = (0, self.changes + 1);
                        self.breaker = Breaker::Closed {
                            calls: Vec::new(),
                            unreachable: 0,
                        };
                    }
                    Some(true) => *successes += 1,
                    Some(false) => self.open(now),
                    None => {}
                }
            }
            Breaker::HalfOpen { .. } | Breaker::Open { .. } => {}
        }
    }

    fn open(&mut self, now: Time) {
        let rules = self.breaker_rules.unwrap_or_default();
        let wait = rules.wait * 2_u32.pow(self.opened.min(10));
        let wait = wait.min(rules.max_wait);
        self.opened += 1;
        self.changes += 1;
        self.breaker = Breaker::Open {
            earliest: now + wait.mul_f64(0.999_999 - rules.jitter),
            latest: now + wait.mul_f64(1.000_001 + rules.jitter),
        };
    }

    fn half_open(&mut self) {
        self.changes += 1;
        self.breaker = Breaker::HalfOpen {
            lease: None,
            successes: 0,
        };
    }

    /// Compares what should be with what the core shows after a step.
    pub(super) fn agrees_with(&mut self, view: &TargetView, now: Time) -> Check {
        ensure(self.filled == 0 || self.filled <= view.limit, || {
            format!("{} are in flight, {view:?}", self.filled)
        })?;
        self.limit_is_right(view, now)?;
        if view.limit < self.limit
            && self.change == Change::Configured
            && let Some(cut) = &mut self.cut
        {
            // It comes back from there as soon as it is used.
            (cut.least, cut.used) = (1.0, Duration::ZERO);
        }
        (self.limit, self.held_back) = (view.limit, view.held_back);
        if let Breaker::Open { earliest, .. } = self.breaker
            && view.breaker == "half-open"
            && earliest <= now
        {
            self.half_open();
        }
        let word = match self.breaker {
            Breaker::Closed { .. } => "closed",
            Breaker::Open { .. } => "open",
            Breaker::HalfOpen { .. } => "half-open",
        };
        ensure(word == view.breaker, || format!("{view:?}, but {self:?}"))?;
        ensure((self.tokens - view.retry_tokens).abs() < 1e-6, || {
            format!("{view:?}, but {} tokens", self.tokens)
        })
    }

    fn limit_is_right(&self, view: &TargetView, now: Time) -> Check {
        let (before, after) = (self.limit, view.limit);
        let wrong = |why: &str| format!("the limit goes from {before} to {after}, {why}: {self:?}");
        ensure(after >= 1 && after <= self.most.max(1), || {
            wrong("out of bounds")
        })?;
        match self.change {
            Change::Configured => Ok(()),
            Change::Cut(least, most) => {
                let right = (least..=most).contains(&after) || after == self.most.min(least);
                ensure(right, || wrong("which is not the cut"))
            }
            Change::Success => {
                let grown = (before + usize::from(!view.held_back)).min(self.most);
                ensure(after == grown, || wrong("on a success in slow start"))
            }
            Change::Nothing => self.cut.map_or_else(
                || ensure(before == after, || wrong("for no reason")),
                |cut| {
                    ensure(after >= before, || wrong("without a cut"))?;
                    let most = self.curve(cut.most, now.since(cut.at)) + 1e-3;
                    ensure(after <= before || after as f64 <= most, || {
                        wrong("too soon")
                    })?;
                    let least = self.curve(cut.least, cut.used) - 1e-3;
                    let least = (least as usize).min(self.most);
                    ensure(after >= least, || wrong("and does not recover"))
                },
            ),
        }
    }

    /// The limit that a cut at `peak` has come back to after `time` of use.
    fn curve(&self, peak: f64, time: Duration) -> f64 {
        let base = (peak * self.rules.cut).max(1.0);
        let top = peak.max(base + 1.0);
        let small = self.rules.small as f64;
        let period = match peak <= small {
            true => self.rules.recover_small,
            false => self.rules.recover,
        };
        let x = (time.as_secs_f64() - period.as_secs_f64()) / period.as_secs_f64();
        top + (top - base) * x.powi(3)
    }
}
