//! Which request is due when. No clock, no thread: `now` is handed in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::plan::{Extent, Plan};
use crate::clock::Time;

/// Hands out the requests of a test, each once, to whichever caller asks next.
#[derive(Debug)]
pub(super) struct Schedule {
    start: Time,
    extent: Extent,
    rate: Option<f64>,
    next: AtomicU64,
}

/// Leave to send one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ticket {
    /// From 0.
    pub(super) number: u64,
    /// When it is to be sent.
    pub(super) due: Time,
}

impl Schedule {
    pub(super) fn new(plan: &Plan, start: Time) -> Self {
        Schedule {
            start,
            extent: plan.extent,
            rate: plan.rate,
            next: AtomicU64::new(0),
        }
    }

    /// The next request; `None` when the test is over. At a fixed rate it may be due later, or have been due before.
    pub(super) fn ticket(&self, now: Time) -> Option<Ticket> {
        if self.is_over(now) {
            return None;
        }
        // Numbers beyond the end are taken by callers that find out and go home.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = self.due(number).unwrap_or(now);
        let is_in = match self.extent {
            Extent::Requests(count) => number < count,
            Extent::Duration(length) => due < self.start + length,
        };
        is_in.then_some(Ticket { number, due })
    }

    /// Whether nothing is sent any more.
    pub(super) fn is_over(&self, now: Time) -> bool {
        match self.extent {
            Extent::Requests(_) => false,
            Extent::Duration(length) => now >= self.start + length,
        }
    }

    /// How many requests the plan has, where it says.
    pub(super) fn planned(&self) -> Option<u64> {
        match (self.extent, self.rate) {
            (Extent::Requests(count), _) => Some(count),
            (Extent::Duration(length), Some(rate)) => {
                Some((length.as_secs_f64() * rate).ceil() as u64)
            }
            (Extent::Duration(_), None) => None,
        }
    }

    fn due(&self, number: u64) -> Option<Time> {
        let offset = Duration::try_from_secs_f64(number as f64 / self.rate?);
        Some(offset.map_or(Time::NEVER, |offset| self.start + offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::from_nanos(7_000_000_000);

    fn schedule(extent: Extent, rate: Option<f64>) -> Schedule {
        Schedule {
            start: START,
            extent,
            rate,
            next: AtomicU64::new(0),
        }
    }

    fn at(ms: u64) -> Time {
        START + Duration::from_millis(ms)
    }

    #[test]
    fn a_closed_loop_sends_at_once_until_its_count_is_reached() {
        let schedule = schedule(Extent::Requests(2), None);
        for number in 0..2 {
            let due = at(number * 10);
            assert_eq!(schedule.ticket(due), Some(Ticket { number, due }));
        }
        assert_eq!(schedule.ticket(at(20)), None);
        assert_eq!(schedule.planned(), Some(2));
    }

    #[test]
    fn a_duration_ends_the_sending_to_the_moment() {
        let schedule = schedule(Extent::Duration(Duration::from_millis(100)), None);
        assert!(schedule.ticket(at(99)).is_some());
        assert_eq!(schedule.ticket(at(100)), None);
        assert_eq!(schedule.planned(), None);
    }

    #[test]
    fn a_rate_spaces_requests_whoever_sends_them_and_however_late() {
        let schedule = schedule(Extent::Duration(Duration::from_millis(100)), Some(50.0));
        let due = |number| at(20 * number);
        for number in 0..5 {
            let now = if number == 2 { at(90) } else { START };
            let due = due(number);
            assert_eq!(schedule.ticket(now), Some(Ticket { number, due }));
        }
        assert_eq!(schedule.ticket(START), None, "due at the end is too late");
        assert_eq!(schedule.planned(), Some(5));
    }
}
