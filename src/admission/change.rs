//! Settings that change while jobs wait and run.
//!
//! A limit that is raised starts whoever can start in the same step, as after every event. One that is lowered interrupts
//! nobody: what is in flight above it is a *debt* that drains, and nothing starts before it has. Bounds of the waiting
//! lines hold for whoever comes from now on; whoever waits keeps its place, and the time that it was given.
//!
//! Providers and targets have rows that stay for ever, so that every id means the same as long as the core lives:
//!
//! | a target | what it learned | who waits for it | calls in flight |
//! |---|---|---|---|
//! | stays | stays | waits on, under what is now in force | as before |
//! | is another from now on (*anew*) | is forgotten | waits on | come to their end, count against its limit, teach nothing |
//! | is *gone* | is forgotten | goes to the next stage of its route, else is refused: a slice in each step | come to their end, and keep their slots until then |
//! | is new, or is back | nothing yet | | |

use super::estimate::Estimate;
use super::planted::Fault;
use super::state::{Core, targets_of};
use super::target::Target;
use super::{Settings, TargetId, Throttle};
use crate::clock::Time;

/// What is in force from now on.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// All of it. A limit of 0 counts as 1. The providers and targets that there were stand where they stood, new ones come
    /// behind them. (The seed stays what it was.)
    pub settings: Settings,
    /// Of the targets that there were, those that are others from now on.
    pub anew: Vec<TargetId>,
    /// Those that take no calls any more; who was gone and is not named is back.
    pub gone: Vec<TargetId>,
}

impl Core {
    /// Puts other settings in force. Costs as much as there are sessions and targets: it comes with a new configuration, not
    /// with a job.
    ///
    /// # Panics
    /// If the providers or targets that there were are not where they stood.
    pub(super) fn change_settings(&mut self, change: &Change, now: Time) {
        let kept = self.settings.targets.len();
        assert!(
            change.settings.targets.starts_with(&self.settings.targets)
                && change.settings.providers.len() >= self.settings.providers.len(),
            "rows stay where they stand"
        );
        self.debt = self.books.in_use();
        self.settings = Settings {
            learning: super::Learning {
                seed: self.settings.learning.seed,
                ..change.settings.learning.clone()
            },
            ..change.settings.clone()
        };
        self.settings.at_least_one();
        self.make_rows();
        for index in 0..kept {
            self.change_target(TargetId(index as u32), change, now);
        }
        for line in &mut self.lines {
            line.set_weights(self.settings.queue.weights);
        }
        if self.planted.is(Fault::LimitsLiftThrottle) {
            self.throttle = Throttle::NONE;
        }
        self.set_pressure();
        self.stand_all();
    }

    /// Rows for the providers and targets that are new.
    fn make_rows(&mut self) {
        let (providers, targets) = (self.settings.providers.len(), self.settings.targets.len());
        self.books.grow(providers, targets);
        self.waiting.grow(providers);
        self.onward.grow(providers);
        self.estimates.resize_with(targets, Estimate::default);
        for index in self.targets.len()..targets {
            let target = self.new_target(TargetId(index as u32));
            self.targets.push(target);
        }
        self.targets_of = targets_of(&self.settings);
    }

    fn change_target(&mut self, id: TargetId, change: &Change, now: Time) {
        let (index, is_gone) = (id.index(), change.gone.contains(&id));
        let was_gone = self.targets[index].is_gone();
        if is_gone != was_gone || change.anew.contains(&id) {
            let in_use = self.books.in_use_of_target(id);
            let generation = self.targets[index].generation();
            self.targets[index] = self.new_target(id);
            self.targets[index].succeed(generation, is_gone, in_use, now);
            self.estimates[index] = Estimate::default();
            self.onward.forget_marks(id);
        } else {
            let provider = &self.settings.providers[self.provider_of(id).index()];
            self.targets[index].configure(provider, &self.settings.learning, now);
        }
        if is_gone && !was_gone {
            self.note_shut(id);
        }
    }

    fn new_target(&self, id: TargetId) -> Target {
        let provider = &self.settings.providers[self.provider_of(id).index()];
        let target = Target::new(provider, &self.settings.learning);
        #[cfg(test)]
        let target = target.planted(self.planted);
        target
    }

    /// The most calls that may be in flight: the limit, or what is left of those that were when it was lowered.
    pub(super) fn most_in_flight(&self) -> usize {
        self.global().max(self.debt)
    }
}

impl Settings {
    /// A limit of 0 would stop everything for good.
    fn at_least_one(&mut self) {
        let limits = [
            &mut self.workers,
            &mut self.global,
            &mut self.session,
            &mut self.sessions,
        ];
        let providers = self.providers.iter_mut();
        let limits = limits
            .into_iter()
            .chain(providers.map(|one| &mut one.limit));
        limits.for_each(|limit| *limit = (*limit).max(1));
    }
}
