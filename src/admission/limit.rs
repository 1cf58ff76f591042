//! The adaptive limit of one target: how many calls it takes, as far as it has told us.
//!
//! What a provider *says* moves the limit; how long a call *takes* does not (an answer takes 1 s or 7 min with nothing
//! wrong). Latency may only hold growth back.
//!
//! ```text
//!            success while bound: +1          (t runs while bound)
//!               +-----------+                  +------------+
//!               v           |    congested     v            |
//!   start --> SlowStart ----+---------------> Cubic --------+
//!                                              ^   | congested: base and top anew, t = 0
//!                                              +---+
//! ```
//!
//! * *Bound*: the calls in flight fill `bound` of the limit. Who doesn't use what it has learns nothing by it. What counts
//!   is the limit in whole calls: of 1.9, one is all that can be used.
//! * *One cut per event*: a refusal counts only if its call was started after the last cut. All calls that were in flight
//!   then are refused for the same reason. [`Limit::epoch`] numbers the stretches between cuts.
//! * *Debt*: a limit below what is in flight interrupts nobody; it drains.
//! * *Every cut recovers*: the curve goes through `top`, which is at least one above where it begins, at `t = K`.
//!
//! What came of it in simulation (`tests/simulation/race.rs`: 15 hours, a true capacity of 64 calls, calls of a median of
//! 12 s, refusals within 0.2 s above it, always somebody in line), beside rules of others, written anew as they are described:
//!
//! | | utilisation | refusals per success |
//! |---|---|---|
//! | these rules | 94 % | 0.003 |
//! | AIMD on 429 only | 96 % | 0.158 |
//! | Netflix AIMD, its defaults | 32 % | 0 |
//! | Vegas, its defaults | 10 % | 0 |
//! | Gradient2 per sample | 34 % | 0 |
//! | Gradient2 windowed | 99 % | 50 |
//!
//! Those that judge by latency take calls of 1 s to 7 min for congestion; and Gradient2 knows no refusals at all.

use std::time::Duration;

use super::planted::{Fault, Planted};
use super::settings::LimitSettings;
use crate::clock::Time;

/// Room for what floating point leaves out.
const EPSILON: f64 = 1e-6;
/// A growth step is due so much after its time, for the same reason.
const SLACK: Duration = Duration::from_micros(1);
/// The weight of the newest first byte in the short-time mean, one part in so many ...
const SHORT: f64 = 8.0;
/// ... and in the long-time mean.
const LONG: f64 = 128.0;

/// See the story of this file.
#[derive(Debug)]
pub(super) struct Limit {
    settings: LimitSettings,
    /// Never above this.
    most: f64,
    value: f64,
    phase: Phase,
    /// Counts cuts.
    epoch: u32,
    /// By how many calls it has grown in all.
    raised: u64,
    in_use: usize,
    /// The curve is drawn up to this time.
    drawn: Time,
    /// When the limit will be one call higher, if all stays as it is.
    grows: Time,
    latency: Latency,
    pub(super) planted: Planted,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// It learns nothing.
    Fixed,
    SlowStart,
    Cubic(Curve),
}

/// `top + (top - base) * ((t - K) / K)^3`
#[derive(Debug, Clone, Copy)]
struct Curve {
    base: f64,
    top: f64,
    /// `K`, in seconds.
    period: f64,
    /// `t`, in seconds.
    grown: f64,
}

impl Curve {
    fn value(&self) -> f64 {
        let x = (self.grown - self.period) / self.period;
        self.top + (self.top - self.base) * x * x * x
    }

    /// How long until the curve reaches `value`.
    fn until(&self, value: f64) -> Duration {
        let x = ((value - self.top) / (self.top - self.base)).cbrt();
        let seconds = self.period * (1.0 + x) - self.grown;
        Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
    }
}

impl Limit {
    /// A limit that is never above `most`; it stays there if it is not to learn.
    pub(super) fn new(most: usize, learns: bool, settings: &LimitSettings) -> Self {
        let start = if learns {
            settings.start.min(most)
        } else {
            most
        };
        Limit {
            settings: *settings,
            most: most as f64,
            value: start.max(1) as f64,
            phase: if learns {
                Phase::SlowStart
            } else {
                Phase::Fixed
            },
            epoch: 0,
            raised: 0,
            in_use: 0,
            drawn: Time::ZERO,
            grows: Time::NEVER,
            latency: Latency::default(),
            planted: Planted::default(),
        }
    }

    /// What is configured has changed. A limit that was cut comes up to it by itself; one that was never cut is at least where
    /// a new one begins, and one that begins to learn, or learns no more, begins as a new one does.
    pub(super) fn configure(
        &mut self,
        most: usize,
        learns: bool,
        settings: &LimitSettings,
        now: Time,
    ) {
        self.draw(now);
        self.settings = *settings;
        self.most = most as f64;
        match (self.phase, learns) {
            // Nothing speaks against what a new one would begin with.
            (Phase::SlowStart, true) => {
                let begin = Limit::new(most, learns, settings).value;
                self.value = self.value.max(begin).min(self.most);
            }
            (Phase::Cubic(_), true) => self.value = self.value.min(self.most),
            (Phase::Fixed, _) | (Phase::SlowStart | Phase::Cubic(_), false) => {
                let new = Limit::new(most, learns, settings);
                (self.phase, self.value) = (new.phase, new.value);
            }
        }
        self.look_ahead();
    }

    /// Calls that may be in flight.
    pub(super) fn places(&self) -> usize {
        ((self.value + EPSILON) as usize).max(1)
    }

    /// Which stretch between two cuts this is.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// How often it was cut, and by how many calls it has grown in all.
    pub(super) fn turns(&self) -> (u64, u64) {
        (u64::from(self.epoch), self.raised)
    }

    /// Whether the calls in flight use what the limit gives.
    fn is_bound(&self) -> bool {
        self.in_use as f64 >= self.settings.bound * self.places() as f64
    }

    /// A call starts, and makes it `in_use` of them. Says whether that fills the limit.
    pub(super) fn start(&mut self, in_use: usize, now: Time) -> bool {
        self.use_up(in_use, now);
        self.is_bound()
    }

    /// A call is back, which leaves `in_use` of them.
    pub(super) fn come_back(&mut self, in_use: usize, now: Time) {
        self.use_up(in_use, now);
    }

    fn use_up(&mut self, in_use: usize, now: Time) {
        self.draw(now);
        self.in_use = in_use;
        self.look_ahead();
    }

    /// A call came to its proper end; `was_bound` is what [`Limit::start`] said of it.
    pub(super) fn succeed(&mut self, was_bound: bool) {
        if let Phase::SlowStart = self.phase
            && was_bound
            && !self.is_held_back()
        {
            let before = self.places();
            self.value = (self.value + 1.0).min(self.most);
            self.raised += (self.places() - before) as u64;
        }
    }

    /// The first byte of an answer was so long in coming.
    pub(super) fn hear(&mut self, first_byte: Duration, now: Time) {
        self.draw(now);
        self.latency.record(first_byte.as_secs_f64());
        self.look_ahead();
    }

    /// The target refused a call that was started in `epoch`, with `in_use` in flight, itself included. `false`: that was
    /// counted already.
    pub(super) fn congest(&mut self, epoch: u32, in_use: usize, now: Time) -> bool {
        if matches!(self.phase, Phase::Fixed) || epoch != self.epoch {
            return false;
        }
        self.draw(now);
        let peak = self.value.min(in_use as f64);
        let base = (peak * self.settings.cut).max(1.0);
        let small = peak <= self.settings.small as f64;
        let period = if small {
            self.settings.recover_small
        } else {
            self.settings.recover
        };
        self.value = base;
        self.phase = Phase::Cubic(Curve {
            base,
            top: peak.max(base + 1.0),
            period: period.as_secs_f64(),
            grown: 0.0,
        });
        self.epoch = self.epoch.wrapping_add(1);
        self.look_ahead();
        true
    }

    /// Draws the curve up to the present.
    pub(super) fn draw(&mut self, now: Time) {
        if self.drawn >= now {
            return;
        }
        let before = self.places();
        while let Some((step, curve)) = self.next_step() {
            let left = now.since(self.drawn);
            if left < step {
                self.grow(curve, left);
                break;
            }
            // To the next whole call: whether it is bound may be another matter there.
            let whole = (self.places() + 1) as f64;
            self.grow(curve, step);
            self.value = self.value.max(whole).min(self.most);
            self.drawn = self.drawn + step;
        }
        self.raised += self.places().saturating_sub(before) as u64;
        self.drawn = now;
        self.look_ahead();
    }

    /// When the limit will be one call higher, if all stays as it is.
    pub(super) fn grows_at(&self) -> Time {
        self.grows
    }

    fn look_ahead(&mut self) {
        let step = self.next_step();
        self.grows = step.map_or(Time::NEVER, |(step, _)| self.drawn + step);
    }

    /// Whether answers are slower than they use to be.
    pub(super) fn is_held_back(&self) -> bool {
        self.latency.short > self.settings.latency * self.latency.long
    }

    /// How long until one more call, and on which curve; `None` while nothing grows.
    fn next_step(&self) -> Option<(Duration, Curve)> {
        let Phase::Cubic(curve) = self.phase else {
            return None;
        };
        let next = (self.places() + 1) as f64;
        if next < 3.0 && self.planted.is(Fault::GrowthSticksAtOne) {
            return None;
        }
        let grows = self.is_bound() && !self.is_held_back() && next <= self.most + EPSILON;
        grows.then(|| (curve.until(next).saturating_add(SLACK), curve))
    }

    fn grow(&mut self, mut curve: Curve, time: Duration) {
        curve.grown += time.as_secs_f64();
        self.value = curve.value().clamp(1.0, self.most);
        self.phase = Phase::Cubic(curve);
    }
}

/// How long first bytes are in coming: lately, and in the long run.
#[derive(Debug, Default)]
struct Latency {
    short: f64,
    long: f64,
    seen: f64,
}

impl Latency {
    fn record(&mut self, seconds: f64) {
        self.seen += 1.0;
        self.short += (seconds - self.short) / self.seen.min(SHORT);
        self.long += (seconds - self.long) / self.seen.min(LONG);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn limit(most: usize) -> Limit {
        Limit::new(most, true, &LimitSettings::default())
    }

    /// A limit in slow start that has come to `value`, all of it in use.
    fn grown_to(value: usize, most: usize) -> Limit {
        let mut limit = limit(most);
        for _ in limit.places()..value {
            let bound = limit.start(limit.places(), at(0));
            limit.succeed(bound);
        }
        assert!(limit.places() >= value, "each success adds one");
        limit.start(value, at(0));
        limit
    }

    /// When the limit first reaches `value` with as much in use as it gives.
    fn reaches(limit: &mut Limit, value: usize, from: Time) -> Duration {
        for _ in limit.places()..value {
            let (before, next) = (limit.places(), limit.grows_at());
            assert!(next < Time::NEVER, "it stands still at {before}");
            limit.draw(next);
            assert_eq!(limit.places(), before + 1, "when it said that it would");
            limit.start(limit.places(), next);
        }
        limit.drawn.since(from)
    }

    #[test]
    fn it_starts_low_and_grows_by_one_for_each_success_that_filled_it() {
        let mut limit = limit(64);
        assert_eq!(limit.places(), 4);
        let bound = limit.start(4, at(0));
        limit.succeed(bound);
        assert_eq!(limit.places(), 5);
        let bound = limit.start(3, at(0));
        limit.succeed(bound);
        assert_eq!(limit.places(), 5, "three of five fill nothing");
        let bound = limit.start(4, at(0));
        limit.succeed(bound);
        assert_eq!(limit.places(), 6, "four of five are eighty per cent");
        assert_eq!(
            limit.turns(),
            (0, 2),
            "cuts, and calls that it has grown by"
        );
    }

    #[test]
    fn it_never_starts_or_grows_above_what_is_configured() {
        assert_eq!(limit(2).places(), 2);
        let mut limit = grown_to(6, 6);
        limit.succeed(true);
        assert_eq!(limit.places(), 6);
        limit.congest(0, 6, at(0));
        limit.start(limit.places(), at(0));
        reaches(&mut limit, 6, at(0));
        limit.draw(at(1_000_000));
        assert_eq!((limit.places(), limit.grows_at()), (6, Time::NEVER));
    }

    #[test]
    fn a_cut_goes_below_what_was_in_flight_and_not_below_one() {
        let mut limit = grown_to(20, 64);
        assert!(limit.congest(0, 10, at(0)));
        assert_eq!(limit.places(), 7, "of the ten in flight, not of the twenty");
        limit.start(1, at(0));
        assert!(limit.congest(1, 1, at(0)));
        assert_eq!(limit.places(), 1);
    }

    #[test]
    fn one_event_cuts_once_whatever_it_refuses() {
        let mut limit = grown_to(20, 64);
        let epoch = limit.epoch();
        assert!(limit.congest(epoch, 20, at(0)));
        for in_use in (1..20).rev() {
            assert!(
                !limit.congest(epoch, in_use, at(1)),
                "it began before the cut"
            );
        }
        assert_eq!(limit.places(), 14);
        assert!(limit.congest(limit.epoch(), 14, at(1)));
        assert_eq!(limit.places(), 9);
    }

    #[test]
    fn it_comes_back_to_the_peak_in_the_time_of_the_curve() {
        let mut large = grown_to(20, 64);
        large.congest(0, 20, at(0));
        large.start(14, at(0));
        let took = reaches(&mut large, 20, at(0));
        assert!((119..=121).contains(&took.as_secs()), "{took:?}");

        let mut small = grown_to(8, 64);
        small.congest(0, 8, at(0));
        small.start(5, at(0));
        let took = reaches(&mut small, 8, at(0));
        assert!((299..=301).contains(&took.as_secs()), "{took:?}");
    }

    #[test]
    fn it_grows_no_sooner_for_being_looked_at() {
        let (mut seen, mut unseen) = (grown_to(20, 64), grown_to(20, 64));
        for limit in [&mut seen, &mut unseen] {
            limit.congest(0, 20, at(0));
            limit.start(14, at(0));
        }
        let next = unseen.grows_at();
        for second in 1..next.since(at(0)).as_secs() {
            seen.draw(at(second));
            assert_eq!(seen.places(), 14, "at {second} s");
        }
        let apart = seen.grows_at().since(next).max(next.since(seen.grows_at()));
        assert!(apart < Duration::from_millis(1), "{apart:?}");
    }

    #[test]
    fn it_goes_on_above_the_peak_slowly_at_first() {
        let mut limit = grown_to(20, 64);
        limit.congest(0, 20, at(0));
        limit.start(14, at(0));
        let back = reaches(&mut limit, 20, at(0));
        let next = reaches(&mut limit, 21, at(0)) - back;
        let far = reaches(&mut limit, 40, at(0));
        assert!(next > Duration::from_secs(50), "{next:?}");
        assert!(far < Duration::from_secs(320), "{far:?}");
    }

    #[test]
    fn every_cut_recovers_even_one_at_a_single_call() {
        for peak in 1..=20 {
            let mut limit = grown_to(peak.max(4), 64);
            limit.congest(0, peak, at(0));
            limit.start(limit.places(), at(0));
            let took = reaches(&mut limit, peak + 1, at(0));
            assert!(took < Duration::from_secs(600), "{peak}: {took:?}");
        }
    }

    #[test]
    fn a_limit_that_is_not_used_stands_still() {
        let mut limit = grown_to(20, 64);
        limit.congest(0, 20, at(0));
        limit.come_back(0, at(0));
        assert_eq!(limit.grows_at(), Time::NEVER);
        limit.draw(at(10_000));
        assert_eq!(limit.places(), 14);
        limit.start(14, at(10_000));
        let took = reaches(&mut limit, 20, at(10_000));
        assert!((119..=121).contains(&took.as_secs()), "{took:?}");
    }

    #[test]
    fn use_that_does_not_grow_with_the_limit_stops_it_on_its_way() {
        let mut limit = grown_to(20, 64);
        limit.congest(0, 20, at(0));
        limit.start(14, at(0));
        limit.draw(at(100_000));
        assert_eq!(limit.places(), 18, "fourteen are not eighty per cent of it");
    }

    #[test]
    fn answers_twice_as_slow_as_ever_hold_growth_back_until_that_is_the_rule() {
        for usual in [Duration::from_millis(50), Duration::from_secs(1)] {
            let mut limit = grown_to(20, 64);
            for _ in 0..200 {
                limit.hear(usual, at(0));
            }
            limit.congest(0, 20, at(0));
            limit.start(14, at(0));
            assert!(limit.grows_at() < Time::NEVER);
            for slow in 1..=20 {
                limit.hear(usual * 5, at(0));
                assert_eq!(limit.is_held_back(), slow > 2, "after {slow} of {usual:?}");
            }
            assert_eq!(limit.grows_at(), Time::NEVER);
            assert_eq!(limit.places(), 14, "and takes nothing away");
            for _ in 0..200 {
                limit.hear(usual * 5, at(0));
            }
            assert!(!limit.is_held_back());
        }
    }

    #[test]
    fn a_fixed_limit_learns_nothing() {
        let mut limit = Limit::new(20, false, &LimitSettings::default());
        assert_eq!(limit.places(), 20);
        assert!(!limit.congest(0, 20, at(0)));
        assert_eq!((limit.places(), limit.epoch()), (20, 0));
    }
}
