//! The breaker of one target: what judges its health, and gives it time to get well.
//!
//! ```text
//!            too many of the last calls failed, or found no connection in a row; credentials, quota: at once
//!   Closed ------------------------------------------------------------------------------------> Open
//!     ^                                                                                        |   ^
//!     | enough probes succeeded                          its wait is over: 5 s * 2^n, +-20 %   v   | the probe failed,
//!     +--------------------------------------------------------------------------------- HalfOpen -+ or its lease ran out
//! ```
//!
//! While half-open one probe at a time is under way, on a *lease*: a probe that never answers fails when its lease runs
//! out, so no target hangs there for ever. A probe has succeeded as soon as its answer begins: an answer may take longer
//! than any lease with nothing wrong.
//!
//! Each change begins a new *epoch*, and what became of a call counts only in the epoch that it was started in: else the
//! failures of calls from before would open again what has just been closed.

use fastrand::Rng;

use super::outcome::Cause;
use super::planted::{Fault, Planted};
use super::settings::BreakerSettings;
use super::shut::{Opening, Shut};
use super::view::BreakerChanges;
use crate::clock::Time;

/// The window is counted in so many parts, of which the oldest is forgotten at once.
const PARTS: usize = 6;

/// What a call's end says about the health of its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Well,
    /// It could not be reached.
    Unreachable,
    Failed,
    /// It will fail until somebody changes something.
    Barred(Shut),
    /// Nothing: not its fault, or not its health.
    Nothing,
}

impl Verdict {
    pub(super) fn of(cause: Cause) -> Self {
        match cause {
            Cause::Unreachable => Verdict::Unreachable,
            Cause::Failing { .. } | Cause::Unanswered => Verdict::Failed,
            Cause::Credentials => Verdict::Barred(Shut::Credentials),
            Cause::Quota => Verdict::Barred(Shut::Quota),
            Cause::Congested { .. }
            | Cause::WindowUsedUp { .. }
            | Cause::Broken
            | Cause::ModelUnavailable
            | Cause::Barred
            | Cause::Request
            | Cause::Unwanted
            | Cause::Own => Verdict::Nothing,
        }
    }
}

/// What a call knows of the breaker that let it start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pass {
    epoch: u32,
    /// Whether it is a probe that was not judged yet.
    pub(super) probe: bool,
}

/// See the story of this file.
#[derive(Debug)]
pub(super) struct Breaker {
    /// `None`: it never opens.
    settings: Option<BreakerSettings>,
    state: State,
    epoch: u32,
    /// How often it has opened since it was last closed.
    opened: u32,
    changes: BreakerChanges,
    pub(super) planted: Planted,
}

#[derive(Debug)]
enum State {
    Closed {
        window: Window,
        /// Calls in a row that found no connection.
        unreachable: u32,
    },
    Open {
        until: Time,
        why: Shut,
    },
    HalfOpen {
        /// Until when the probe under way may take.
        lease: Option<Time>,
        successes: u32,
        /// Why it had opened.
        why: Shut,
    },
}

impl State {
    fn closed() -> Self {
        State::Closed {
            window: Window::default(),
            unreachable: 0,
        }
    }
}

impl Breaker {
    pub(super) fn new(settings: Option<BreakerSettings>) -> Self {
        Breaker {
            settings,
            state: State::closed(),
            epoch: 0,
            opened: 0,
            changes: BreakerChanges::default(),
            planted: Planted::default(),
        }
    }

    /// Other settings are in force. How it stands stays, unless nothing is to be judged any more.
    pub(super) fn configure(&mut self, settings: Option<BreakerSettings>) {
        self.settings = settings;
        if settings.is_none() {
            self.opened = 0;
            self.change(State::closed());
        }
    }

    /// Whether a call may start.
    pub(super) fn admits(&self) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { .. } => false,
            State::HalfOpen { lease, .. } => {
                lease.is_none() || self.planted.is(Fault::EverybodyProbes)
            }
        }
    }

    pub(super) fn opening(&self) -> Opening {
        match self.state {
            State::Open { until, why } => Opening::Shut(until, why),
            State::HalfOpen { lease: Some(_), .. } => Opening::Probing,
            State::HalfOpen { lease: None, .. } | State::Closed { .. } => Opening::Open,
        }
    }

    /// One word for the pages.
    pub(super) fn word(&self) -> &'static str {
        match self.state {
            State::Closed { .. } => "closed",
            State::Open { .. } => "open",
            State::HalfOpen { .. } => "half-open",
        }
    }

    /// Why it is not closed.
    pub(super) fn why(&self) -> Option<Shut> {
        match self.state {
            State::Closed { .. } => None,
            State::Open { why, .. } | State::HalfOpen { why, .. } => Some(why),
        }
    }

    /// When [`Breaker::advance`] has something to do.
    pub(super) fn wakes(&self) -> Time {
        match self.state {
            State::Closed { .. } => Time::NEVER,
            State::Open { until, .. } => until,
            State::HalfOpen { lease, .. } => lease.unwrap_or(Time::NEVER),
        }
    }

    /// A call starts, which the breaker [admits](Breaker::admits).
    pub(super) fn start(&mut self, now: Time) -> Pass {
        let epoch = self.epoch;
        let (Some(settings), State::HalfOpen { lease, .. }) = (&self.settings, &mut self.state)
        else {
            return Pass {
                epoch,
                probe: false,
            };
        };
        *lease = Some(now + settings.lease);
        Pass { epoch, probe: true }
    }

    /// Time has passed.
    pub(super) fn advance(&mut self, rng: &mut Rng, now: Time) {
        match self.state {
            State::Open { until, why } if until <= now => {
                self.change(State::HalfOpen {
                    lease: None,
                    successes: 0,
                    why,
                });
            }
            State::HalfOpen {
                lease: Some(until),
                why,
                ..
            } if until <= now && !self.planted.is(Fault::ProbeWithoutLease) => {
                self.open(why, rng, now)
            }
            State::Closed { .. } | State::Open { .. } | State::HalfOpen { .. } => {}
        }
    }

    /// A call's end, or the beginning of its answer, says so much about the target.
    pub(super) fn judge(&mut self, pass: &mut Pass, verdict: Verdict, rng: &mut Rng, now: Time) {
        let counts = pass.epoch == self.epoch || self.planted.is(Fault::OldCallsJudged);
        let Some(settings) = self.settings.filter(|_| counts) else {
            return;
        };
        match &mut self.state {
            State::Closed {
                window,
                unreachable,
            } => {
                *unreachable = match verdict {
                    Verdict::Unreachable => *unreachable + 1,
                    Verdict::Nothing => *unreachable,
                    Verdict::Well | Verdict::Failed | Verdict::Barred(_) => 0,
                };
                window.count(verdict, &settings, now);
                let why = match verdict {
                    Verdict::Barred(why) => Some(why),
                    _ if *unreachable >= settings.connects => Some(Shut::Unreachable),
                    Verdict::Nothing | Verdict::Well => None,
                    _ => window.is_bad(&settings).then_some(Shut::Failing),
                };
                if let Some(why) = why {
                    self.open(why, rng, now);
                }
            }
            State::HalfOpen {
                lease, successes, ..
            } if pass.probe => {
                pass.probe = false;
                *lease = None;
                match verdict {
                    Verdict::Nothing => {}
                    Verdict::Well if *successes + 1 >= settings.successes => {
                        self.opened = 0;
                        self.change(State::closed());
                    }
                    Verdict::Well => *successes += 1,
                    Verdict::Unreachable => self.open(Shut::Unreachable, rng, now),
                    Verdict::Failed => self.open(Shut::Failing, rng, now),
                    Verdict::Barred(why) => self.open(why, rng, now),
                }
            }
            State::Open { .. } | State::HalfOpen { .. } => {}
        }
    }

    fn open(&mut self, why: Shut, rng: &mut Rng, now: Time) {
        let settings = self.settings.unwrap_or_default();
        let doubled = settings.wait.saturating_mul(1 << self.opened.min(20));
        let wait = doubled.min(settings.max_wait);
        let jitter = 1.0 + settings.jitter * (2.0 * rng.f64() - 1.0);
        self.opened += 1;
        self.change(State::Open {
            until: now + wait.mul_f64(jitter),
            why,
        });
    }

    /// How often it has changed.
    pub(super) fn changes(&self) -> BreakerChanges {
        self.changes
    }

    fn change(&mut self, state: State) {
        let changes = &mut self.changes;
        let count = match &state {
            State::Closed { .. } => &mut changes.closed,
            State::Open { .. } => &mut changes.opened,
            State::HalfOpen { .. } => &mut changes.half_opened,
        };
        *count += 1;
        self.state = state;
        self.epoch = self.epoch.wrapping_add(1);
    }
}

/// Calls and failures of late.
#[derive(Debug, Default)]
struct Window {
    parts: [(u32, u32); PARTS],
    /// The number of the part that is counted into.
    last: u64,
}

impl Window {
    fn count(&mut self, verdict: Verdict, settings: &BreakerSettings, now: Time) {
        let length = settings.window.as_nanos() as u64 / PARTS as u64;
        let part = now.as_nanos() / length.max(1);
        let passed = part.saturating_sub(self.last).min(PARTS as u64);
        for old in 0..passed {
            self.parts[((part - old) % PARTS as u64) as usize] = (0, 0);
        }
        self.last = part;
        let (calls, failures) = &mut self.parts[(part % PARTS as u64) as usize];
        match verdict {
            Verdict::Nothing => {}
            Verdict::Well => *calls += 1,
            Verdict::Unreachable | Verdict::Failed | Verdict::Barred(_) => {
                *calls += 1;
                *failures += 1;
            }
        }
    }

    fn is_bad(&self, settings: &BreakerSettings) -> bool {
        let calls: u32 = self.parts.iter().map(|part| part.0).sum();
        let failures: u32 = self.parts.iter().map(|part| part.1).sum();
        calls >= settings.attempts && f64::from(failures) >= settings.failures * f64::from(calls)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    struct Bench {
        breaker: Breaker,
        rng: Rng,
    }

    impl Bench {
        fn new() -> Self {
            Bench {
                breaker: Breaker::new(Some(BreakerSettings::default())),
                rng: Rng::with_seed(3),
            }
        }

        /// A call that starts and ends at `second`.
        fn call(&mut self, verdict: Verdict, second: u64) {
            assert!(self.breaker.admits(), "at {second} s");
            let mut pass = self.breaker.start(at(second));
            self.judge(&mut pass, verdict, second);
        }

        fn judge(&mut self, pass: &mut Pass, verdict: Verdict, second: u64) {
            self.breaker.judge(pass, verdict, &mut self.rng, at(second));
        }

        fn advance(&mut self, second: u64) {
            self.breaker.advance(&mut self.rng, at(second));
        }

        /// Opens it, and lets its wait pass. Says when that is.
        fn half_open(&mut self) -> u64 {
            self.call(Verdict::Barred(Shut::Quota), 0);
            self.advance(6);
            assert_eq!(self.breaker.word(), "half-open");
            6
        }
    }

    #[test]
    fn it_opens_when_half_of_at_least_ten_calls_failed() {
        let mut bench = Bench::new();
        for _ in 0..9 {
            bench.call(Verdict::Failed, 1);
        }
        assert_eq!(bench.breaker.word(), "closed", "nine are too few");
        bench.call(Verdict::Failed, 1);
        assert_eq!(bench.breaker.why(), Some(Shut::Failing));

        let mut bench = Bench::new();
        for call in 0..40 {
            let fails = call % 5 > 2;
            bench.call(
                if fails {
                    Verdict::Failed
                } else {
                    Verdict::Well
                },
                1,
            );
        }
        assert_eq!(bench.breaker.word(), "closed", "two of five are not half");
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut bench = Bench::new();
        for second in 0..9 {
            bench.call(Verdict::Failed, second);
        }
        bench.call(Verdict::Failed, 75);
        assert_eq!(bench.breaker.word(), "closed");
    }

    #[test]
    fn failures_of_all_the_window_count() {
        let mut bench = Bench::new();
        for second in (5..55).step_by(5).take(9) {
            bench.call(Verdict::Failed, second);
        }
        assert_eq!(bench.breaker.word(), "closed");
        bench.call(Verdict::Failed, 59);
        assert_eq!(bench.breaker.word(), "open");

        let mut bench = Bench::new();
        for _ in 0..9 {
            bench.call(Verdict::Failed, 35);
        }
        bench.call(Verdict::Failed, 65);
        assert_eq!(bench.breaker.word(), "open");
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten_though_calls_were_few_since() {
        for between in [25, 55] {
            let mut bench = Bench::new();
            for _ in 0..9 {
                bench.call(Verdict::Failed, 5);
            }
            bench.call(Verdict::Well, between);
            bench.call(Verdict::Failed, 75);
            assert_eq!(bench.breaker.word(), "closed");
        }
    }

    #[test]
    fn a_success_never_opens_it() {
        let mut bench = Bench::new();
        for _ in 0..9 {
            bench.call(Verdict::Failed, 1);
        }
        bench.call(Verdict::Well, 1);
        bench.call(Verdict::Nothing, 1);
        assert_eq!(bench.breaker.word(), "closed", "though nine of ten failed");
        bench.call(Verdict::Failed, 1);
        assert_eq!(bench.breaker.word(), "open");
    }

    #[test]
    fn it_stays_open_until_its_wait_is_over() {
        let mut bench = Bench::new();
        bench.call(Verdict::Barred(Shut::Quota), 0);
        let until = bench.breaker.wakes();
        assert!(until >= at(4));
        bench.advance(3);
        assert_eq!(bench.breaker.word(), "open");
        bench.breaker.advance(&mut bench.rng, until);
        assert_eq!(bench.breaker.word(), "half-open");
        let changes = bench.breaker.changes();
        assert_eq!(
            (changes.opened, changes.half_opened, changes.closed),
            (1, 1, 0)
        );
    }

    #[test]
    fn it_opens_when_five_calls_in_a_row_found_no_connection() {
        let mut bench = Bench::new();
        for _ in 0..4 {
            bench.call(Verdict::Unreachable, 1);
        }
        bench.call(Verdict::Well, 1);
        for _ in 0..4 {
            bench.call(Verdict::Unreachable, 70);
        }
        bench.call(Verdict::Nothing, 70);
        assert_eq!(bench.breaker.word(), "closed");
        bench.call(Verdict::Unreachable, 70);
        assert_eq!(bench.breaker.why(), Some(Shut::Unreachable));
    }

    #[test]
    fn credentials_and_quota_open_it_at_once() {
        for (cause, why) in [
            (Cause::Credentials, Shut::Credentials),
            (Cause::Quota, Shut::Quota),
        ] {
            let mut bench = Bench::new();
            bench.call(Verdict::of(cause), 1);
            assert_eq!(bench.breaker.why(), Some(why));
        }
    }

    #[test]
    fn refusals_wrong_requests_and_clients_that_leave_never_open_it() {
        for cause in [
            Cause::Congested { retry_after: None },
            Cause::WindowUsedUp { opens_in: None },
            Cause::Request,
            Cause::Unwanted,
            Cause::Own,
            Cause::ModelUnavailable,
            Cause::Barred,
        ] {
            let mut bench = Bench::new();
            for _ in 0..100 {
                bench.call(Verdict::of(cause), 1);
            }
            assert_eq!(bench.breaker.word(), "closed", "{cause:?}");
        }
    }

    #[test]
    fn its_wait_doubles_while_probes_fail_up_to_the_longest() {
        let mut bench = Bench::new();
        let mut now = 0;
        bench.call(Verdict::Barred(Shut::Quota), now);
        for nominal in [5.0, 10.0, 20.0, 40.0, 80.0, 120.0, 120.0] {
            let wait = bench.breaker.wakes().since(at(now)).as_secs_f64();
            assert!((0.8..=1.2).contains(&(wait / nominal)), "{wait} {nominal}");
            now += wait as u64 + 1;
            bench.advance(now);
            bench.call(Verdict::Failed, now);
        }
    }

    #[test]
    fn half_open_it_lets_one_probe_through_at_a_time_and_closes_after_two() {
        let mut bench = Bench::new();
        let now = bench.half_open();
        let mut probe = bench.breaker.start(at(now));
        assert!(!bench.breaker.admits(), "one probe is under way");
        bench.judge(&mut probe, Verdict::Well, now);
        assert_eq!(bench.breaker.word(), "half-open");
        bench.judge(&mut probe, Verdict::Well, now);
        assert_eq!(bench.breaker.word(), "half-open", "a probe counts once");
        bench.call(Verdict::Well, now);
        assert_eq!(
            (bench.breaker.word(), bench.breaker.why()),
            ("closed", None)
        );
        bench.call(Verdict::Barred(Shut::Quota), now);
        let wait = bench.breaker.wakes().since(at(now));
        assert!(wait <= Duration::from_secs(6), "it begins anew: {wait:?}");
    }

    #[test]
    fn a_probe_that_says_nothing_makes_room_for_the_next() {
        let mut bench = Bench::new();
        let now = bench.half_open();
        for _ in 0..3 {
            bench.call(Verdict::Nothing, now);
        }
        assert_eq!(bench.breaker.word(), "half-open");
    }

    #[test]
    fn a_probe_whose_lease_runs_out_has_failed_and_is_heard_no_more() {
        let mut bench = Bench::new();
        let now = bench.half_open();
        let mut probe = bench.breaker.start(at(now));
        bench.advance(now + 59);
        assert_eq!(bench.breaker.word(), "half-open");
        bench.advance(now + 60);
        assert_eq!(bench.breaker.word(), "open");
        bench.judge(&mut probe, Verdict::Well, now + 61);
        assert_eq!(bench.breaker.word(), "open");
    }

    #[test]
    fn calls_from_before_a_change_count_no_more() {
        let mut bench = Bench::new();
        let mut old = bench.breaker.start(at(0));
        let now = bench.half_open();
        bench.judge(&mut old, Verdict::Failed, now);
        bench.judge(&mut old, Verdict::Well, now);
        assert!(
            bench.breaker.admits(),
            "half-open, and no probe is under way"
        );
        bench.call(Verdict::Well, now);
        bench.call(Verdict::Well, now);
        bench.judge(&mut old, Verdict::Barred(Shut::Credentials), now);
        assert_eq!(bench.breaker.word(), "closed");
    }

    #[test]
    fn without_settings_it_never_opens() {
        let mut breaker = Breaker::new(None);
        let rng = &mut Rng::with_seed(1);
        for _ in 0..100 {
            let mut pass = breaker.start(at(0));
            breaker.judge(&mut pass, Verdict::Barred(Shut::Quota), rng, at(0));
        }
        assert!(breaker.admits());
    }
}
