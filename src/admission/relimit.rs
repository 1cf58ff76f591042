//! Limits that change while jobs wait and run.
//!
//! A limit that is raised starts whoever can start in the same step, as after every event. One that is lowered interrupts
//! nobody: what is in flight above it is a *debt* that drains, and nothing starts before it has.
//!
//! What is configured and what the load of the box leaves of it are kept apart, and the lower of both is in force: so a
//! new configuration doesn't lift the throttle, and the throttle that lets go doesn't bring back an old configuration.

use super::planted::Fault;
use super::state::Core;
use super::{Limits, Throttle, Throttled};
use crate::clock::Time;

impl Core {
    /// Puts other limits in force. Costs as much as there are sessions: it comes with a new configuration, not with a job.
    pub(super) fn set_limits(&mut self, limits: &Limits, now: Time) {
        self.debt = self.books.in_use();
        let settings = &mut self.settings;
        settings.workers = limits.workers.max(1);
        settings.global = limits.global.max(1);
        settings.session = limits.session.max(1);
        settings.sessions = limits.sessions.max(1);
        for (index, (provider, &limit)) in settings
            .providers
            .iter_mut()
            .zip(&limits.providers)
            .enumerate()
        {
            provider.limit = limit.max(1);
            for target in &self.targets_of[index] {
                self.targets[target.index()]
                    .limit
                    .set_most(provider.limit, now);
            }
        }
        if self.planted.is(Fault::LimitsLiftThrottle) {
            self.throttle = Throttle::NONE;
        }
        self.stand_all();
    }

    /// Holds the global limit down, or lets go of it.
    pub(super) fn set_throttle(&mut self, throttle: Throttle) {
        self.debt = self.books.in_use();
        self.throttle = throttle;
    }

    /// The global limit in force.
    pub(super) fn global(&self) -> usize {
        match self.planted.is(Fault::ThrottleNotApplied) {
            true => self.settings.global,
            false => self.settings.global.min(self.throttle.most.max(1)),
        }
    }

    /// By how much the throttle holds the global limit down, if it does.
    pub(super) fn throttled(&self) -> Option<Throttled> {
        let (to, of) = (self.global(), self.settings.global);
        (to < of).then_some(Throttled { to, of })
    }

    /// The most calls that may be in flight: the limit, or what is left of those that were when it was lowered.
    pub(super) fn most_in_flight(&self) -> usize {
        self.global().max(self.debt)
    }
}
