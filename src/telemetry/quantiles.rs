//! How long each phase took lately: percentiles over a window that moves on in slices.

use std::collections::VecDeque;
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use super::Phases;
use crate::clock::Time;

/// Slices of a window: it moves on by one at a time, so between five and six of them are told.
const SLICES: u64 = 6;
/// A percentile is off by at most one part in a hundred.
const DIGITS: u8 = 2;
const PHASES: usize = Phases::NAMES.len();

/// What requests took that ended within the window. Its histograms count microseconds; they take some 10 KiB for each
/// phase and slice.
#[derive(Debug)]
pub(super) struct Quantiles {
    /// Never zero.
    slice_ns: u64,
    slices: Mutex<VecDeque<Slice>>,
}

#[derive(Debug)]
struct Slice {
    /// Counted from the start of the clock.
    number: u64,
    phases: [Histogram<u32>; PHASES],
}

/// What one phase took lately, of the requests that had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhaseQuantiles {
    /// One of [`Phases::NAMES`].
    pub phase: &'static str,
    /// Requests that had it.
    pub count: u64,
    /// Half of them took at most so long.
    pub p50: Duration,
    /// 95 of 100 took at most so long.
    pub p95: Duration,
    /// 99 of 100 took at most so long.
    pub p99: Duration,
    /// None took longer.
    pub max: Duration,
}

impl Quantiles {
    /// None yet; those of longer ago than `window` will be forgotten.
    pub(super) fn new(window: Duration) -> Self {
        let slice = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX) / SLICES;
        Quantiles {
            slice_ns: slice.max(1),
            slices: Mutex::default(),
        }
    }

    /// A request ended at `at`, whose time went as `phases` say.
    pub(super) fn record(&self, phases: &Phases, at: Time) {
        let lengths = lengths(phases);
        let mut slices = self.slices.lock();
        let number = at.as_nanos() / self.slice_ns;
        if slices.back().is_none_or(|slice| slice.number < number) {
            while slices
                .front()
                .is_some_and(|slice| slice.number + SLICES <= number)
            {
                slices.pop_front();
            }
            slices.extend(Slice::new(number));
        }
        // Ends are recorded by many threads: one that was overtaken counts with the newest.
        let Some(slice) = slices.back_mut() else {
            return;
        };
        for ((name, length), histogram) in Phases::NAMES.iter().zip(lengths).zip(&mut slice.phases)
        {
            // Every request has these; of the others a request that never had them would lower the percentiles.
            let always = matches!(*name, "queue" | "rest" | "total");
            if always || !length.is_zero() {
                let micros = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
                // It grows with what it counts, and refuses only what could not be counted for want of memory.
                let _ = histogram.record(micros);
            }
        }
    }

    /// What requests took that ended in the window before `now`.
    pub(super) fn view(&self, now: Time) -> Vec<PhaseQuantiles> {
        let number = now.as_nanos() / self.slice_ns;
        let slices = self.slices.lock();
        let recent = |slice: &&Slice| slice.number + SLICES > number;
        let phases = Phases::NAMES.iter().enumerate();
        let view = phases.filter_map(|(index, phase)| {
            let mut all = empty()?;
            for slice in slices.iter().filter(recent) {
                all.add(&slice.phases[index]).ok()?;
            }
            let at = |quantile| Duration::from_micros(all.value_at_quantile(quantile));
            Some(PhaseQuantiles {
                phase,
                count: all.len(),
                p50: at(0.5),
                p95: at(0.95),
                p99: at(0.99),
                max: at(1.0),
            })
        });
        view.collect()
    }
}

impl Slice {
    fn new(number: u64) -> Option<Self> {
        let mut phases = Vec::with_capacity(PHASES);
        for _ in 0..PHASES {
            phases.push(empty()?);
        }
        let phases = phases.try_into().ok()?;
        Some(Slice { number, phases })
    }
}

/// A histogram that grows with what it counts; `None` for digits that it does not take.
fn empty() -> Option<Histogram<u32>> {
    Histogram::new(DIGITS).ok()
}

fn lengths(phases: &Phases) -> [Duration; PHASES] {
    [
        phases.queue,
        phases.backoff,
        phases.connect,
        phases.first_byte,
        phases.upstream,
        phases.rest(),
        phases.total,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn phases(queue_ms: u32, upstream_ms: u32) -> Phases {
        let millis = Duration::from_millis(1);
        Phases {
            queue: millis * queue_ms,
            upstream: millis * upstream_ms,
            total: millis * (queue_ms + upstream_ms),
            ..Phases::default()
        }
    }

    fn of(view: &[PhaseQuantiles], phase: &str) -> PhaseQuantiles {
        *view
            .iter()
            .find(|one| one.phase == phase)
            .expect("every phase is told")
    }

    /// Within the promised part in a hundred.
    fn near(found: Duration, expected_ms: u64) -> bool {
        let expected = Duration::from_millis(expected_ms);
        found.abs_diff(expected) <= expected / 100
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let quantiles = Quantiles::new(SECOND * 60);
        for ms in 1..=1_000 {
            quantiles.record(&phases(ms, 2 * ms), Time::ZERO);
        }
        let view = quantiles.view(Time::ZERO);
        let queue = of(&view, "queue");
        assert_eq!(queue.count, 1_000);
        for (found, expected) in [
            (queue.p50, 500),
            (queue.p95, 950),
            (queue.p99, 990),
            (queue.max, 1_000),
            (of(&view, "upstream").p50, 1_000),
            (of(&view, "total").p99, 2_970),
        ] {
            assert!(near(found, expected), "{found:?} {expected}");
        }
        assert_eq!(view.len(), PHASES);
    }

    #[test]
    fn what_a_request_did_not_have_counts_for_nothing() {
        let quantiles = Quantiles::new(SECOND * 60);
        quantiles.record(&phases(0, 0), Time::ZERO);
        quantiles.record(&phases(0, 80), Time::ZERO);
        let view = quantiles.view(Time::ZERO);
        assert_eq!(of(&view, "upstream").count, 1);
        assert!(near(of(&view, "upstream").p50, 80));
        assert_eq!(of(&view, "backoff").count, 0);
        let queue = of(&view, "queue");
        assert_eq!((queue.count, queue.max), (2, Duration::ZERO));
    }

    #[test]
    fn the_window_moves_on() {
        let quantiles = Quantiles::new(SECOND * 60);
        let at = |seconds: u32| Time::ZERO + SECOND * seconds;
        for second in 0..120 {
            quantiles.record(&phases(second, 0), at(second));
        }
        let count = |now| of(&quantiles.view(at(now)), "queue").count;
        assert_eq!((count(119), count(140), count(300)), (60, 30, 0));
        assert_eq!(quantiles.slices.lock().len() as u64, SLICES);
        // One that was overtaken is not lost.
        quantiles.record(&phases(1, 0), at(100));
        assert_eq!(count(119), 61);
    }
}
