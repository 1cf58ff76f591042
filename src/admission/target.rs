//! One target as the core knows it: what it takes, why it takes nothing, what became of its calls.

use std::time::Duration;

use fastrand::Rng;

use super::backoff::{Budget, FirstBytes};
use super::breaker::{Breaker, Pass, Verdict};
use super::gate::Gate;
use super::limit::Limit;
use super::outcome::{Cause, Outcome, Report};
use super::planted::{Fault, Planted};
use super::settings::{Learning, ProviderSettings};
use super::shut::{Opening, Shut};
use crate::clock::Time;

/// What a call knows of its target as it was when the call started.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Badge {
    /// Of the target: who it was.
    generation: u32,
    /// Of the limit: which stretch between two cuts.
    epoch: u32,
    /// Whether the call filled the limit.
    bound: bool,
    pub(super) pass: Pass,
}

/// See the story of this file.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) limit: Limit,
    pub(super) gate: Gate,
    pub(super) breaker: Breaker,
    pub(super) budget: Budget,
    first_bytes: FirstBytes,
    /// When [`Target::advance`] has something to do.
    wakes: Time,
    /// How often it became another.
    generation: u32,
    /// Whether it was taken out of the configuration.
    is_gone: bool,
    planted: Planted,
}

impl Target {
    pub(super) fn new(provider: &ProviderSettings, learning: &Learning) -> Self {
        Target {
            limit: Limit::new(provider.limit, provider.adaptive, &learning.limit),
            gate: Gate::new(&learning.gate),
            breaker: Breaker::new(provider.breaker),
            budget: Budget::new(&provider.retry),
            first_bytes: FirstBytes::default(),
            wakes: Time::NEVER,
            generation: 0,
            is_gone: false,
            planted: Planted::default(),
        }
    }

    /// It takes the place of one of this generation, of which `in_use` calls are in flight.
    pub(super) fn succeed(&mut self, generation: u32, is_gone: bool, in_use: usize, now: Time) {
        self.generation = generation.wrapping_add(1);
        self.is_gone = is_gone;
        self.limit.come_back(in_use, now);
    }

    /// How often it became another.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether it was taken out of the configuration.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Other settings are in force; what it learned stays.
    pub(super) fn configure(
        &mut self,
        provider: &ProviderSettings,
        learning: &Learning,
        now: Time,
    ) {
        self.limit
            .configure(provider.limit, provider.adaptive, &learning.limit, now);
        self.gate.configure(&learning.gate);
        self.breaker.configure(provider.breaker);
        self.budget.configure(&provider.retry);
        self.set_alarm();
    }

    /// Whether the call was made to who it is now.
    pub(super) fn knows(&self, badge: &Badge) -> bool {
        badge.generation == self.generation || self.planted.is(Fault::OldCallsTeach)
    }

    /// Whether a call may start beside `in_use` others.
    pub(super) fn admits(&self, in_use: usize) -> bool {
        let has_place = in_use < self.limit.places() || self.planted.is(Fault::LimitNotApplied);
        self.is_open() && has_place
    }

    /// Whether nothing but its limit bounds it.
    pub(super) fn is_open(&self) -> bool {
        let gate = self.gate.is_open() || self.planted.is(Fault::GateIgnored);
        let is_there = !self.is_gone || self.planted.is(Fault::GoneIsCalled);
        gate && self.breaker.admits() && is_there
    }

    /// When it will take calls, its limit aside. A start that is merely paced is none of that.
    pub(super) fn opening(&self) -> Opening {
        if self.is_gone {
            return Opening::Shut(Time::NEVER, Shut::Removed);
        }
        match (self.gate.shut(), self.breaker.opening()) {
            (None, breaker) => breaker,
            (Some((until, why)), Opening::Shut(later, _)) if later <= until => {
                Opening::Shut(until, why)
            }
            (Some(_), shut @ Opening::Shut(..)) => shut,
            (Some((until, why)), Opening::Open | Opening::Probing) => Opening::Shut(until, why),
        }
    }

    /// When [`Target::advance`] has something to do; `waited_for` says whether anybody waits for more places.
    pub(super) fn wakes(&self, waited_for: bool) -> Time {
        let grows = if waited_for {
            self.limit.grows_at()
        } else {
            Time::NEVER
        };
        self.wakes.min(grows)
    }

    /// How long its first bytes take at least.
    pub(super) fn usual_first_byte(&self) -> Duration {
        self.first_bytes.usual()
    }

    /// Time has passed.
    pub(super) fn advance(&mut self, rng: &mut Rng, now: Time) {
        self.limit.draw(now);
        self.gate.advance(self.limit.places(), now);
        self.breaker.advance(rng, now);
        self.set_alarm();
    }

    /// A call starts, and makes it `in_use` of them.
    pub(super) fn start(&mut self, in_use: usize, now: Time) -> Badge {
        self.gate.start(now);
        let badge = Badge {
            generation: self.generation,
            epoch: self.limit.epoch(),
            bound: self.limit.start(in_use, now),
            pass: self.breaker.start(now),
        };
        self.set_alarm();
        badge
    }

    /// A call's answer has begun.
    pub(super) fn answer(&mut self, badge: &mut Badge, rng: &mut Rng, now: Time) {
        if self.knows(badge) {
            self.breaker.judge(&mut badge.pass, Verdict::Well, rng, now);
            self.set_alarm();
        }
    }

    /// A call is back, which leaves `in_use` of them. Says whether the target is shut by it, or for longer.
    pub(super) fn come_back(
        &mut self,
        mut badge: Badge,
        report: &Report,
        in_use: usize,
        rng: &mut Rng,
        now: Time,
    ) -> bool {
        if !self.knows(&badge) {
            self.limit.come_back(in_use, now);
            return false;
        }
        let before = self.opening();
        if let Some(first_byte) = report.first_byte {
            self.first_bytes.record(first_byte);
            self.limit.hear(first_byte, now);
        }
        let verdict = match report.outcome {
            Outcome::Completed => {
                self.limit.succeed(badge.bound);
                self.budget.succeed();
                Verdict::Well
            }
            Outcome::Failed(cause) => {
                self.fail(cause, badge.epoch, in_use + 1, rng, now);
                Verdict::of(cause)
            }
        };
        self.breaker.judge(&mut badge.pass, verdict, rng, now);
        self.limit.come_back(in_use, now);
        self.set_alarm();
        let after = self.opening();
        matches!(after, Opening::Shut(..)) && before != after
    }

    fn fail(&mut self, cause: Cause, epoch: u32, in_use: usize, rng: &mut Rng, now: Time) {
        match cause {
            Cause::Congested { retry_after } => {
                let epoch = match self.planted.is(Fault::EachRefusalCuts) {
                    true => self.limit.epoch(),
                    false => epoch,
                };
                self.limit.congest(epoch, in_use, now);
                if let Some(wait) = retry_after.filter(|wait| !wait.is_zero()) {
                    self.gate.shut_for(wait, rng, now);
                }
            }
            Cause::WindowUsedUp { opens_in } => self.gate.shut_for_window(opens_in, now),
            Cause::Unreachable
            | Cause::Failing { .. }
            | Cause::Unanswered
            | Cause::Broken
            | Cause::Credentials
            | Cause::Quota
            | Cause::ModelUnavailable
            | Cause::Barred
            | Cause::Request
            | Cause::Unwanted
            | Cause::Own => {}
        }
    }

    #[cfg(test)]
    pub(super) fn planted(mut self, planted: Planted) -> Self {
        self.plant(planted);
        self
    }

    #[cfg(test)]
    pub(super) fn plant(&mut self, planted: Planted) {
        self.planted = planted;
        self.limit.planted = planted;
        self.breaker.planted = planted;
    }

    fn set_alarm(&mut self) {
        self.wakes = self.gate.wakes().min(self.breaker.wakes());
    }
}
