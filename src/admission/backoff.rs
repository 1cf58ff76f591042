//! Whether a call is tried again, and how long it waits until then.
//!
//! A job that backs off is only data: it holds no worker, no slot, no connection. What keeps repetitions from making a
//! bad hour worse is the *budget* of each target (after gRPC's retry throttling): each repetition takes a token, each
//! success brings back a tenth of one, and with half of the tokens gone nothing is repeated. So a target that fails
//! every call gets a handful of repetitions and then only first tries; one that works gets one in ten.

use std::time::Duration;

use fastrand::Rng;

use super::settings::RetrySettings;

/// First bytes that are remembered.
const SEEN: usize = 32;

/// The budget of one target.
#[derive(Debug)]
pub(super) struct Budget {
    settings: RetrySettings,
    tokens: f64,
}

impl Budget {
    pub(super) fn new(settings: &RetrySettings) -> Self {
        Budget {
            settings: *settings,
            tokens: settings.budget,
        }
    }

    /// Other settings are in force. The part of the tokens that was spent stays spent.
    pub(super) fn configure(&mut self, settings: &RetrySettings) {
        if self.settings.budget > 0.0 && self.settings.budget != settings.budget {
            self.tokens = self.tokens / self.settings.budget * settings.budget;
        }
        self.settings = *settings;
    }

    pub(super) fn tokens(&self) -> f64 {
        self.tokens
    }

    /// A call came to its proper end.
    pub(super) fn succeed(&mut self) {
        self.tokens = (self.tokens + self.settings.refill).min(self.settings.budget);
    }

    /// Whether a call that was repeated `repeats` times may be repeated once more.
    pub(super) fn allows(&self, repeats: u32) -> bool {
        repeats + 1 < self.settings.attempts && self.tokens > self.settings.floor
    }

    /// A call is repeated.
    pub(super) fn spend(&mut self) {
        self.tokens = (self.tokens - 1.0).max(0.0);
    }

    /// How long a call waits that was repeated `repeats` times, where the provider `asked` for a wait.
    pub(super) fn wait(&self, repeats: u32, asked: Option<Duration>, rng: &mut Rng) -> Duration {
        let settings = &self.settings;
        let most = settings.base.saturating_mul(1 << repeats.min(20));
        let random = most.min(settings.max).mul_f64(rng.f64());
        random.max(asked.unwrap_or_default())
    }
}

/// How long the last first bytes of one target were in coming.
#[derive(Debug, Default)]
pub(super) struct FirstBytes {
    seen: [Duration; SEEN],
    count: usize,
}

impl FirstBytes {
    pub(super) fn record(&mut self, first_byte: Duration) {
        self.seen[self.count % SEEN] = first_byte;
        self.count += 1;
    }

    /// What nine of ten take at least: less time than this is left for nothing. Zero where none was seen.
    pub(super) fn usual(&self) -> Duration {
        let mut seen = self.seen;
        let seen = &mut seen[..self.count.min(SEEN)];
        seen.sort_unstable();
        seen.get(seen.len() / 10).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        Budget::new(&RetrySettings::default())
    }

    #[test]
    fn a_call_is_tried_three_times_at_most() {
        let budget = budget();
        assert_eq!(
            [0, 1, 2, 3].map(|repeats| budget.allows(repeats)),
            [true, true, false, false]
        );
    }

    #[test]
    fn a_target_that_always_fails_gets_five_repetitions_and_no_more() {
        let mut budget = budget();
        let mut repeated = 0;
        while budget.allows(0) {
            budget.spend();
            repeated += 1;
        }
        assert_eq!((repeated, budget.tokens()), (5, 5.0));
    }

    #[test]
    fn ten_successes_pay_for_one_repetition_and_save_up_no_more_than_at_first() {
        let mut budget = budget();
        while budget.allows(0) {
            budget.spend();
        }
        for _ in 0..10 {
            budget.succeed();
        }
        assert!(budget.allows(0));
        budget.spend();
        assert!(!budget.allows(0));
        for _ in 0..1_000 {
            budget.succeed();
        }
        assert_eq!(budget.tokens(), 10.0);
    }

    #[test]
    fn the_wait_is_random_up_to_a_bound_that_doubles_and_never_less_than_asked() {
        let budget = budget();
        let mut rng = Rng::with_seed(5);
        for (repeats, most) in [
            (0, 0.5),
            (1, 1.0),
            (2, 2.0),
            (5, 16.0),
            (6, 20.0),
            (60, 20.0),
        ] {
            let mut draw = || budget.wait(repeats, None, &mut rng).as_secs_f64();
            let waits: Vec<f64> = (0..500).map(|_| draw()).collect();
            let longest = waits.iter().fold(0.0, |a: f64, &b| a.max(b));
            let shortest = waits.iter().fold(most, |a: f64, &b| a.min(b));
            assert!(
                longest <= most && longest > 0.9 * most,
                "{repeats}: {longest}"
            );
            assert!(shortest < 0.1 * most, "{repeats}: {shortest}");
        }
        let asked = Some(Duration::from_secs(7));
        assert_eq!(budget.wait(0, asked, &mut rng), Duration::from_secs(7));
    }

    #[test]
    fn the_usual_first_byte_is_what_nine_of_ten_take_at_least() {
        let mut seen = FirstBytes::default();
        assert_eq!(seen.usual(), Duration::ZERO);
        for second in (1..=100).rev() {
            seen.record(Duration::from_secs(second));
        }
        assert_eq!(
            seen.usual(),
            Duration::from_secs(4),
            "of the last thirty-two"
        );
    }
}
