//! What calls take, and how often jobs are refused: the figures behind an honest *no*.

use std::collections::VecDeque;
use std::time::Duration;

use super::{CLASSES, ClassId};
use crate::clock::Time;

/// What a call is taken to last until some have been seen.
const FIRST_ESTIMATE: Duration = Duration::from_secs(30);
/// A wait is foretold only from so many completions ...
const ENOUGH: usize = 20;
/// ... not older than this.
const LATELY: Duration = Duration::from_secs(600);
/// The weight of the newest call, one part in so many.
const SMOOTHING: u64 = 8;

/// What the calls of one target took.
#[derive(Debug)]
pub(super) struct Estimate {
    mean: [u64; CLASSES],
    recent: VecDeque<Time>,
}

impl Default for Estimate {
    fn default() -> Self {
        Estimate {
            mean: [FIRST_ESTIMATE.as_nanos() as u64; CLASSES],
            recent: VecDeque::with_capacity(ENOUGH),
        }
    }
}

impl Estimate {
    /// A call of this class came to its end.
    pub(super) fn record(&mut self, class: ClassId, took: Duration, now: Time) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let mean = &mut self.mean[class];
        *mean = *mean - *mean / SMOOTHING + took / SMOOTHING;
        if self.recent.len() == ENOUGH {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
    }

    /// What the next call of this class is taken to last, in nanoseconds.
    pub(super) fn nanos(&self, class: ClassId) -> u64 {
        self.mean[class]
    }

    /// Whether enough calls ended lately to foretell a wait.
    pub(super) fn is_known(&self, now: Time) -> bool {
        self.recent.len() == ENOUGH
            && self
                .recent
                .front()
                .is_some_and(|&first| now.since(first) <= LATELY)
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
            assert!(!estimate.is_known(at(second)));
            estimate.record(1, SECOND, at(second));
        }
        assert!(estimate.is_known(at(600)));
        assert!(
            !estimate.is_known(at(601)),
            "the first of the twenty is too old"
        );
    }

    #[test]
    fn the_estimate_follows_what_calls_take() {
        let mut estimate = Estimate::default();
        for _ in 0..60 {
            estimate.record(0, SECOND, at(0));
        }
        let mean = Duration::from_nanos(estimate.nanos(0));
        assert!(
            mean > SECOND * 99 / 100 && mean < SECOND * 102 / 100,
            "{mean:?}"
        );
        assert_eq!(
            estimate.nanos(1),
            FIRST_ESTIMATE.as_nanos() as u64,
            "classes are apart"
        );
    }
}
