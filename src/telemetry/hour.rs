//! How requests ended in the last hour, minute by minute: sixty places, however busy the hour was.

use super::Step;
use crate::clock::Time;

const MINUTES: usize = 60;
const MINUTE_NS: u64 = 60 * 1_000_000_000;

/// How the requests of one minute ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends {
    /// Well.
    pub completed: u64,
    /// Their time ran out.
    pub timeout: u64,
    /// They failed.
    pub error: u64,
    /// Somebody cancelled them.
    pub cancelled: u64,
    /// They were not taken in.
    pub refused: u64,
}

/// The last sixty minutes. A minute's place is its number modulo sixty, so the next hour takes the places of this one.
#[derive(Debug)]
pub(super) struct Hour {
    /// Each with its number, counted from the start of the clock.
    minutes: [(u64, Ends); MINUTES],
}

impl Default for Hour {
    fn default() -> Self {
        Hour {
            minutes: [(0, Ends::default()); MINUTES],
        }
    }
}

impl Hour {
    /// A step happened at `at`; only ends count. One that comes an hour late counts nowhere.
    pub(super) fn count(&mut self, step: Step, at: Time) {
        if !step.is_end() {
            return;
        }
        let number = at.as_nanos() / MINUTE_NS;
        let minute = &mut self.minutes[(number % MINUTES as u64) as usize];
        if minute.0 < number {
            *minute = (number, Ends::default());
        }
        if minute.0 == number {
            minute.1.count(step);
        }
    }

    /// The minutes up to the one that is under way at `now`, the oldest first.
    pub(super) fn view(&self, now: Time) -> [Ends; MINUTES] {
        let last = now.as_nanos() / MINUTE_NS;
        std::array::from_fn(|index| {
            let ago = (MINUTES - 1 - index) as u64;
            let Some(number) = last.checked_sub(ago) else {
                return Ends::default();
            };
            let (found, ends) = self.minutes[(number % MINUTES as u64) as usize];
            if found == number {
                ends
            } else {
                Ends::default()
            }
        })
    }
}

impl Ends {
    fn count(&mut self, step: Step) {
        match step {
            Step::Completed => self.completed += 1,
            Step::Timeout => self.timeout += 1,
            Step::Error => self.error += 1,
            Step::Cancelled => self.cancelled += 1,
            Step::Refused => self.refused += 1,
            Step::Received
            | Step::Joined
            | Step::Queued
            | Step::Dequeued
            | Step::SessionAllocated
            | Step::ProviderCallStart
            | Step::ProviderCallEnd
            | Step::SessionReleased
            | Step::BackingOff => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn refused(refused: u64) -> Ends {
        Ends {
            refused,
            ..Ends::default()
        }
    }

    #[test]
    fn ends_are_counted_in_their_minute_and_other_steps_are_not() {
        let mut hour = Hour::default();
        for step in Step::ALL {
            hour.count(step, at(30));
        }
        hour.count(Step::Refused, at(60));
        let one_each = Ends {
            completed: 1,
            timeout: 1,
            error: 1,
            cancelled: 1,
            refused: 1,
        };
        let view = hour.view(at(119));
        assert_eq!(view[58..], [one_each, refused(1)]);
        assert_eq!(view[..58], [Ends::default(); 58]);
    }

    #[test]
    fn what_is_older_than_an_hour_is_forgotten_and_its_place_taken() {
        let mut hour = Hour::default();
        hour.count(Step::Refused, at(10));
        assert_eq!(hour.view(at(59 * 60))[0], refused(1));
        assert_eq!(hour.view(at(60 * 60)), [Ends::default(); 60]);
        hour.count(Step::Refused, at(3_610));
        hour.count(Step::Refused, at(3_620));
        hour.count(Step::Refused, at(11));
        let view = hour.view(at(3_659));
        assert_eq!(view[59], refused(2), "the late one is not of this hour");
        assert_eq!(view[..59], [Ends::default(); 59]);
    }
}
