//! Limits that change while jobs wait and run.
//!
//! A limit that is raised starts whoever can start in the same step, as after every event. One that is lowered interrupts
//! nobody: what is in flight above it is a *debt* that drains, and nothing starts before it has.

use super::planted::Fault;
use super::state::Core;
use super::{Limits, Throttle};
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

    /// The most calls that may be in flight: the limit, or what is left of those that were when it was lowered.
    pub(super) fn most_in_flight(&self) -> usize {
        self.global().max(self.debt)
    }
}
