//! Counts and histograms: one recorder per caller, added up at the end.
//!
//! Nothing is shared while the test runs, so that recording costs nanoseconds and no caller waits for another. A
//! histogram keeps three significant digits and grows with what it is given; one that got nothing takes no memory.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::exchange::Seen;
use super::outcome::{Outcome, Trouble};
use crate::config::Priority;

/// Different reasons that are kept apart; what comes beyond them is counted together.
const MAX_REASONS: usize = 50;
/// Longer times count as this long: a histogram grows with the longest.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
const OTHER_REASONS: &str = "other reasons";

/// What was seen of some requests.
#[derive(Debug, Clone, Default)]
pub(super) struct Recorder {
    /// How long they took, by what became of them.
    took: [Durations; Outcome::ALL.len()],
    /// How long those that were answered took, by priority where one was said.
    pub(super) by_priority: [Durations; Priority::ALL.len()],
    /// To the first piece of a stream.
    pub(super) first_piece: Durations,
    /// Between two pieces of a stream.
    pub(super) gaps: Durations,
    /// In the server's line, as it says.
    pub(super) queue: Durations,
    /// From when a request was due to when it was sent; at a fixed rate only.
    pub(super) late: Durations,
    /// Why requests were not answered, and how many.
    pub(super) reasons: BTreeMap<String, u64>,
}

impl Recorder {
    /// Takes down the end of a request.
    pub(super) fn record(
        &mut self,
        took: Duration,
        priority: Option<Priority>,
        seen: &Seen,
        end: Result<(), Trouble>,
    ) {
        let outcome = end.as_ref().err().map_or(Outcome::Answered, |t| t.outcome);
        self.took[outcome as usize].record(took);
        if let (Outcome::Answered, Some(priority)) = (outcome, priority) {
            self.by_priority[priority.index()].record(took);
        }
        if let Some(length) = seen.first_piece {
            self.first_piece.record(length);
        }
        if let Some(length) = seen.queue {
            self.queue.record(length);
        }
        seen.gaps.iter().for_each(|gap| self.gaps.record(*gap));
        if let Err(trouble) = end {
            self.blame(trouble.reason, 1);
        }
    }

    /// How long requests took of which this became.
    pub(super) fn took(&self, outcome: Outcome) -> &Durations {
        &self.took[outcome as usize]
    }

    /// How many requests this became of.
    pub(super) fn count(&self, outcome: Outcome) -> u64 {
        self.took(outcome).count()
    }

    /// Both.
    pub(super) fn merge(mut self, other: &Recorder) -> Recorder {
        let durations = self.took.iter_mut().zip(&other.took);
        let by_priority = self.by_priority.iter_mut().zip(&other.by_priority);
        durations.chain(by_priority).for_each(|(a, b)| a.merge(b));
        self.first_piece.merge(&other.first_piece);
        self.gaps.merge(&other.gaps);
        self.queue.merge(&other.queue);
        self.late.merge(&other.late);
        for (reason, count) in &other.reasons {
            self.blame(reason.clone(), *count);
        }
        self
    }

    fn blame(&mut self, reason: String, count: u64) {
        let is_new = !self.reasons.contains_key(&reason);
        let is_full = is_new && self.reasons.len() >= MAX_REASONS;
        let reason = if is_full {
            OTHER_REASONS.into()
        } else {
            reason
        };
        *self.reasons.entry(reason).or_default() += count;
    }
}

/// Lengths of time, in microseconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Durations(Option<Histogram<u64>>);

impl Durations {
    pub(super) fn record(&mut self, length: Duration) {
        let micros = length.min(LONGEST).as_micros();
        let micros = u64::try_from(micros).expect("a day fits");
        let recorded = self.histogram().record(micros);
        recorded.expect("a histogram that grows takes every value");
    }

    pub(super) fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, Histogram::len)
    }

    pub(super) fn merge(&mut self, other: &Durations) {
        if let Some(other) = &other.0 {
            let added = self.histogram().add(other);
            added.expect("a histogram that grows takes every value");
        }
    }

    /// `None` where nothing was recorded.
    pub(super) fn quantiles(&self) -> Option<Quantiles> {
        let histogram = self.0.as_ref()?;
        let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
        Some(Quantiles {
            count: histogram.len(),
            min: Duration::from_micros(histogram.min()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: Duration::from_micros(histogram.max()),
        })
    }

    fn histogram(&mut self) -> &mut Histogram<u64> {
        self.0.get_or_insert_with(|| {
            let mut histogram = Histogram::new(3).expect("three digits are allowed");
            histogram.auto(true);
            histogram
        })
    }
}

/// How lengths of time are spread; exact to three digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantiles {
    /// How many there are; at least 1.
    pub count: u64,
    /// The shortest.
    pub min: Duration,
    /// Half of them are no longer.
    pub p50: Duration,
    /// Nine of ten are no longer.
    pub p90: Duration,
    /// 99 of 100 are no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn near(a: Duration, b: Duration) -> bool {
        a.abs_diff(b) <= b / 500
    }

    #[test]
    fn percentiles_are_those_of_all_callers_together() {
        let mut recorders = [Recorder::default(), Recorder::default()];
        for value in 1..=1000 {
            let recorder = &mut recorders[value as usize % 2];
            recorder.record(ms(value), Some(Priority::High), &Seen::default(), Ok(()));
        }
        let [first, second] = recorders;
        let all = first.merge(&second);
        let spread = all.took(Outcome::Answered).quantiles().expect("values");
        assert_eq!(spread.count, 1000);
        for (found, expected) in [
            (spread.min, ms(1)),
            (spread.p50, ms(500)),
            (spread.p90, ms(900)),
            (spread.p99, ms(990)),
            (spread.max, ms(1000)),
        ] {
            assert!(near(found, expected), "{found:?} {expected:?}");
        }
        assert_eq!(all.by_priority[Priority::High.index()].count(), 1000);
        assert_eq!(all.took(Outcome::Failed).quantiles(), None);
    }

    #[test]
    fn reasons_are_counted_and_bounded() {
        let mut recorder = Recorder::default();
        for number in 0..MAX_REASONS as u64 + 10 {
            let trouble = Trouble::new(Outcome::Failed, format!("reason {number:03}"));
            recorder.record(ms(1), None, &Seen::default(), Err(trouble));
        }
        let both = recorder.clone().merge(&recorder);
        assert_eq!(both.count(Outcome::Failed), 2 * (MAX_REASONS as u64 + 10));
        assert_eq!(both.reasons["reason 000"], 2);
        assert_eq!(both.reasons[OTHER_REASONS], 20);
        assert_eq!(both.reasons.len(), MAX_REASONS + 1);
    }
}
