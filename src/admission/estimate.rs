//! What calls take, and how often jobs are refused: the figures behind an honest *no*.

use std::collections::VecDeque;
use std::time::Duration;

use super::{CLASSES, ClassId};
use crate::clock::Time;

/// What a call is taken to last until one has been seen. Short, because what runs over it is charged by the second, while
/// what was charged too much comes back only at the end: whoever joined in between would stand behind all of it.
const FIRST_ESTIMATE: Duration = Duration::from_secs(1);
/// A wait is foretold only from so many completions ...
const ENOUGH: usize = 20;
/// ... not older than this.
const LATELY: Duration = Duration::from_secs(600);
/// The weight of the newest call, one part in so many, once so many have been seen.
const SMOOTHING: u64 = 8;

/// What the calls of one target took, by class.
#[derive(Debug, Default)]
pub(super) struct Estimate {
    classes: [ClassEstimate; CLASSES],
}

#[derive(Debug)]
struct ClassEstimate {
    mean: u64,
    /// Calls seen, up to [`SMOOTHING`].
    seen: u64,
    recent: VecDeque<Time>,
}

impl Default for ClassEstimate {
    fn default() -> Self {
        ClassEstimate {
            mean: FIRST_ESTIMATE.as_nanos() as u64,
            seen: 0,
            recent: VecDeque::with_capacity(ENOUGH),
        }
    }
}

impl Estimate {
    /// A call of this class came to its end.
    pub(super) fn record(&mut self, class: ClassId, took: Duration, now: Time) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let class = &mut self.classes[class];
        class.seen = (class.seen + 1).min(SMOOTHING);
        class.mean = class.mean - class.mean / class.seen + took / class.seen;
        if class.recent.len() == ENOUGH {
            class.recent.pop_front();
        }
        class.recent.push_back(now);
    }

    /// What the next call of this class is taken to last, in nanoseconds.
    pub(super) fn nanos(&self, class: ClassId) -> u64 {
        self.classes[class].mean
    }

    /// The same, where a call has ended already; of another class, where none of this one has.
    pub(super) fn guess(&self, class: ClassId) -> Option<u64> {
        let seen = |class: &&ClassEstimate| class.seen > 0;
        let own = Some(&self.classes[class]).filter(seen);
        let any = || {
            self.classes
                .iter()
                .filter(seen)
                .map(|class| class.mean)
                .max()
        };
        own.map(|class| class.mean).or_else(any)
    }

    /// Whether enough calls of this class ended lately to foretell a wait. (By class, or one whose calls were long once
    /// would be refused for that as long as the others keep the target known.)
    pub(super) fn is_known(&self, class: ClassId, now: Time) -> bool {
        let recent = &self.classes[class].recent;
        let first = recent.front().filter(|_| recent.len() == ENOUGH);
        first.is_some_and(|&first| now.since(first) <= LATELY)
    }
}

/// How long to tell the refused to stay away.
#[derive(Debug)]
pub(super) struct Pacer {
    seconds: u64,
    /// The second under way ends then.
    until: Time,
    refused: bool,
}

const LONGEST: u64 = 32;
const SECOND: Duration = Duration::from_secs(1);

impl Default for Pacer {
    fn default() -> Self {
        Pacer {
            seconds: 1,
            until: Time::ZERO,
            refused: false,
        }
    }
}

impl Pacer {
    /// Somebody is refused now: when to come again.
    pub(super) fn refuse(&mut self, now: Time) -> Duration {
        self.roll(now);
        self.refused = true;
        Duration::from_secs(self.seconds)
    }

    fn roll(&mut self, now: Time) {
        if now < self.until {
            return;
        }
        self.seconds = if self.refused {
            (self.seconds * 2).min(LONGEST)
        } else {
            self.seconds
        };
        let quiet = now.since(self.until).as_secs();
        self.seconds = self.seconds.saturating_sub(quiet).max(1);
        self.refused = false;
        self.until = now + SECOND;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn the_advice_doubles_while_refusals_continue_and_shrinks_when_they_stop() {
        let mut pacer = Pacer::default();
        let advice: Vec<u64> = (0..8)
            .map(|second| pacer.refuse(at(second)).as_secs())
            .collect();
        assert_eq!(advice, [1, 2, 4, 8, 16, 32, 32, 32]);
        assert_eq!(pacer.refuse(at(18)).as_secs(), 22);
        assert_eq!(pacer.refuse(at(500)).as_secs(), 1);
    }

    #[test]
    fn a_wait_is_foretold_only_from_enough_calls_of_late() {
        let mut estimate = Estimate::default();
        for second in 0..20 {
            assert!(!estimate.is_known(1, at(second)));
            estimate.record(1, SECOND, at(second));
        }
        assert!(estimate.is_known(1, at(600)));
        assert!(!estimate.is_known(0, at(600)), "classes are apart");
        assert!(
            !estimate.is_known(1, at(601)),
            "the first of the twenty is too old"
        );
    }

    #[test]
    fn the_first_call_says_more_than_the_guess_and_later_ones_move_it_less() {
        let mut estimate = Estimate::default();
        let mut means = Vec::new();
        for took in [8, 16, 0, 8] {
            estimate.record(0, SECOND * took, at(0));
            means.push(Duration::from_nanos(estimate.nanos(0)).as_millis());
        }
        assert_eq!(means, [8_000, 12_000, 8_000, 8_000]);
        let untouched = FIRST_ESTIMATE.as_nanos() as u64;
        assert_eq!(estimate.nanos(1), untouched, "classes are apart");
    }

    #[test]
    fn the_estimate_follows_what_calls_take() {
        let mut estimate = Estimate::default();
        for took in [100; 20].into_iter().chain([1; 60]) {
            estimate.record(0, SECOND * took, at(0));
        }
        let mean = Duration::from_nanos(estimate.nanos(0));
        assert!(mean > SECOND && mean < SECOND * 105 / 100, "{mean:?}");
    }
}
