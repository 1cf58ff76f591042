//! What keeps a target shut because it asked for it: a Retry-After, or a plan whose window is used up.
//!
//! Each wait that is asked for counts anew; the latest end of all stands. After it a crowd waits, so the first starts are
//! paced: one for each place of the limit, each so long after the other.

use std::time::Duration;

use fastrand::Rng;

use super::settings::GateSettings;
use super::shut::Shut;
use crate::clock::Time;

/// See the story of this file.
#[derive(Debug)]
pub(super) struct Gate {
    settings: GateSettings,
    /// Until when, and why.
    shut: Option<(Time, Shut)>,
    /// Starts that have yet to be paced.
    paced: usize,
    /// The next of them.
    next: Option<Time>,
}

impl Gate {
    pub(super) fn new(settings: &GateSettings) -> Self {
        Gate {
            settings: *settings,
            shut: None,
            paced: 0,
            next: None,
        }
    }

    /// Other settings are in force. A wait that was asked for stands.
    pub(super) fn configure(&mut self, settings: &GateSettings) {
        self.settings = *settings;
    }

    /// The target asked us to stay away for `wait`.
    pub(super) fn shut_for(&mut self, wait: Duration, rng: &mut Rng, now: Time) {
        let wait = wait.min(self.settings.max);
        let until = now + wait.mul_f64(1.0 + self.settings.jitter * rng.f64());
        self.shut_until(until, Shut::RateLimited);
    }

    /// The plan is used up for `wait`, if that was said.
    pub(super) fn shut_for_window(&mut self, wait: Option<Duration>, now: Time) {
        let wait = wait.unwrap_or(self.settings.window);
        // One that opens now is open: else nobody would start before the next tick.
        if !wait.is_zero() {
            self.shut_until(now + wait, Shut::PlanWindow);
        }
    }

    fn shut_until(&mut self, until: Time, why: Shut) {
        if self.shut.is_none_or(|(before, _)| before < until) {
            self.shut = Some((until, why));
        }
    }

    /// A call starts.
    pub(super) fn start(&mut self, now: Time) {
        if self.paced > 0 {
            self.paced -= 1;
            self.next = Some(now + self.settings.pace);
        }
    }

    /// Time has passed; as many starts are paced after a wait as the limit has `places`.
    pub(super) fn advance(&mut self, places: usize, now: Time) {
        if self.shut.is_some_and(|(until, _)| until <= now) {
            self.shut = None;
            self.paced = places;
        }
        if self.next.is_some_and(|next| next <= now) {
            self.next = None;
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.shut.is_none() && self.next.is_none()
    }

    /// Until when it stays shut, and why; `None` where it is open, or a start is merely paced.
    pub(super) fn shut(&self) -> Option<(Time, Shut)> {
        self.shut
    }

    /// When [`Gate::advance`] has something to do.
    pub(super) fn wakes(&self) -> Time {
        let shut = self.shut.map_or(Time::NEVER, |(until, _)| until);
        shut.min(self.next.unwrap_or(Time::NEVER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn gate() -> (Gate, Rng) {
        (Gate::new(&GateSettings::default()), Rng::with_seed(7))
    }

    #[test]
    fn it_stays_shut_for_what_was_asked_and_up_to_a_tenth_more() {
        for seed in 0..200 {
            let (mut gate, _) = gate();
            gate.shut_for(Duration::from_secs(10), &mut Rng::with_seed(seed), at(0));
            assert!((at(10_000)..=at(11_000)).contains(&gate.wakes()), "{seed}");
            gate.advance(4, at(9_999));
            assert!(!gate.is_open());
            gate.advance(4, at(11_000));
            assert!(gate.is_open());
        }
    }

    #[test]
    fn no_wait_is_believed_beyond_the_bound_but_a_plans_is() {
        let (mut gate, mut rng) = gate();
        gate.shut_for(Duration::from_secs(86_400), &mut rng, at(0));
        assert!(gate.wakes() <= at(330_000));
        gate.shut_for_window(Some(Duration::from_secs(86_400)), at(0));
        assert_eq!(gate.shut(), Some((at(86_400_000), Shut::PlanWindow)));
        gate.shut_for(Duration::from_secs(1), &mut rng, at(0));
        assert_eq!(gate.wakes(), at(86_400_000), "a shorter wait opens nothing");
    }

    #[test]
    fn a_plan_that_opens_at_once_shuts_nothing() {
        let (mut gate, _) = gate();
        gate.shut_for_window(Some(Duration::ZERO), at(1_000));
        assert!(gate.is_open());
    }

    #[test]
    fn a_new_wait_counts_from_when_it_was_asked_for() {
        let (mut gate, mut rng) = gate();
        gate.shut_for(Duration::from_secs(2), &mut rng, at(0));
        gate.shut_for(Duration::from_secs(2), &mut rng, at(1_000));
        gate.advance(1, at(2_900));
        assert!(!gate.is_open());
    }

    #[test]
    fn the_first_starts_after_a_wait_are_paced() {
        let (mut gate, mut rng) = gate();
        gate.start(at(0));
        assert!(gate.is_open(), "without a wait nothing is paced");
        gate.shut_for(Duration::from_secs(1), &mut rng, at(0));
        gate.advance(3, at(2_000));
        let mut starts = Vec::new();
        for millis in (2_000..4_000).step_by(10) {
            gate.advance(3, at(millis));
            if gate.is_open() && starts.len() < 5 {
                gate.start(at(millis));
                starts.push(millis);
            }
        }
        assert_eq!(starts, [2_000, 2_250, 2_500, 2_750, 2_760]);
    }
}
