//! The rule, under a clock that is turned by hand.

use proptest::prelude::*;

use super::*;
use crate::chat::{Delta, Head};
use crate::clock::{Clock, ManualClock};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The rows of Kimi's table.
const TABLE: Duration = secs(240);
const LONGEST_ROW: Duration = secs(420);

/// Of a streamed plain question to a model that doesn't think.
const PLAIN: Demand = Demand {
    operation: Operation {
        web: false,
        thinking: false,
    },
    kind: Kind::Normal,
    tokens: 10,
    is_long: false,
    speaks_soon: true,
};

/// Of one to a model that thinks, maybe in silence.
const THINKING: Demand = Demand {
    operation: Operation {
        web: false,
        thinking: true,
    },
    speaks_soon: false,
    ..PLAIN
};

struct Bench {
    clock: Arc<ManualClock>,
    learner: Arc<Learner>,
}

impl Bench {
    fn new() -> Self {
        Bench::with(Learn::default())
    }

    fn with(learn: Learn) -> Self {
        let clock = Arc::new(ManualClock::new());
        let learner = Arc::new(Learner::new(learn, clock.clone()));
        Bench { clock, learner }
    }

    fn lesson(&self, model: &str, demand: &Demand) -> Lesson {
        let sort = Sort::new("kimi".into(), model.into(), demand);
        self.learner.lesson(sort)
    }

    /// A call whose answer begins after `first`, if at all, and that is over after `total`.
    fn call(&self, demand: &Demand, first: Option<Duration>, total: Duration, end: End) {
        let lesson = self.lesson("m", demand);
        let mut timed = lesson.begin();
        if let Some(first) = first {
            self.clock.advance(first);
            timed.hear(&Piece::Head(Head::default()));
        }
        self.clock
            .advance(total.saturating_sub(first.unwrap_or_default()));
        timed.end(&end.map_err(|class| ProviderError::new(class, "")));
    }

    /// Calls that are answered within `total`.
    fn calls(&self, demand: &Demand, count: usize, total: Duration) {
        (0..count).for_each(|_| self.call(demand, Some(total / 2), total, WHOLE));
    }

    fn chosen(&self, demand: &Demand) -> ChosenTimeout {
        let table = ChosenTimeout {
            value: TABLE,
            reason: "why".into(),
            first_byte: None,
        };
        let lesson = self.lesson("m", demand);
        lesson.apply(table, demand, LONGEST_ROW)
    }

    fn check(&self, demand: &Demand, expected: &str) {
        assert_eq!(self.chosen(demand).to_string(), expected);
    }
}

type End = Result<(), ErrorClass>;
const WHOLE: End = Ok(());
const CUT: End = Err(ErrorClass::Cancelled(CancelReason::Deadline));
const GIVEN_UP: End = Err(ErrorClass::FirstByteTimeout);
const LEFT: End = Err(ErrorClass::Cancelled(CancelReason::ClientLeft));

#[test]
fn nothing_follows_until_enough_calls_are_known() {
    let bench = Bench::new();
    bench.calls(&PLAIN, 99, secs(100));
    bench.check(&PLAIN, "240s (why)");
    bench.calls(&PLAIN, 1, secs(2));
    bench.check(
        &PLAIN,
        "300s (why, learned: longest of 100 calls 100.0s x 3, table 240s, first byte within 150s, learned: \
         slowest of 100 calls 50.0s x 3)",
    );
    // Other models, and other sorts of calls, have calls of their own.
    let other = Demand {
        kind: Kind::Streaming,
        ..PLAIN
    };
    bench.check(&other, "240s (why)");
}

#[test]
fn the_first_byte_is_waited_for_as_long_as_the_slowest_needed_a_few_times() {
    let bench = Bench::new();
    bench.calls(&PLAIN, 100, secs(2));
    bench.check(
        &PLAIN,
        "240s (why, first byte within 60s, learned: slowest of 100 calls 1.0s x 3, no less than the floor)",
    );
    // One slow one among many fast ones counts from the next call on.
    bench.call(&PLAIN, Some(secs(50)), secs(51), WHOLE);
    assert_eq!(bench.chosen(&PLAIN).first_byte, Some(secs(150)));
    bench.calls(&PLAIN, 1_000, secs(2));
    assert_eq!(bench.chosen(&PLAIN).first_byte, Some(secs(150)));
    // No longer than the deadline, which went up with it.
    bench.call(&PLAIN, Some(secs(141)), secs(142), WHOLE);
    assert_eq!(bench.chosen(&PLAIN).first_byte, None);
    // And it is forgotten with the window.
    bench.clock.advance(secs(24 * 3600));
    bench.check(&PLAIN, "240s (why)");
    bench.calls(&PLAIN, 100, secs(2));
    assert_eq!(bench.chosen(&PLAIN).first_byte, Some(secs(60)));
}

#[test]
fn the_window_moves_on_in_parts() {
    let bench = Bench::new();
    bench.calls(&THINKING, 100, secs(100));
    bench.clock.advance(secs(18 * 3600));
    assert_eq!(bench.chosen(&THINKING).value, secs(300));
    bench.calls(&THINKING, 100, secs(90));
    assert_eq!(bench.chosen(&THINKING).value, secs(300));
    bench.clock.advance(secs(8 * 3600));
    assert_eq!(bench.chosen(&THINKING).value, secs(270), "down again");
    bench.clock.advance(secs(24 * 3600));
    assert_eq!(bench.chosen(&THINKING).value, TABLE);
}

#[test]
fn the_deadline_goes_up_with_the_calls_as_far_as_the_table_goes() {
    let bench = Bench::new();
    bench.calls(&THINKING, 100, secs(80));
    bench.check(&THINKING, "240s (why)");
    bench.calls(&THINKING, 1, millis(80_001));
    assert_eq!(bench.chosen(&THINKING).value, secs(241));
    bench.calls(&THINKING, 1, secs(200));
    bench.check(
        &THINKING,
        "420s (why, learned: longest of 102 calls 200.0s x 3, table 240s)",
    );
}

#[test]
fn a_call_that_is_cut_while_it_speaks_makes_room_for_the_next_at_once() {
    let bench = Bench::new();
    bench.call(&THINKING, Some(secs(3)), secs(130), CUT);
    bench.check(
        &THINKING,
        "390s (why, learned: cut in mid-answer at 130.0s x 3, table 240s)",
    );
    // One whose client left was at least so long, but asked for no more.
    let bench = Bench::new();
    bench.call(&THINKING, Some(secs(3)), secs(130), LEFT);
    bench.check(&THINKING, "240s (why)");
    bench.calls(&THINKING, 100, secs(2));
    assert_eq!(bench.chosen(&THINKING).value, secs(390));
}

#[test]
fn what_hung_in_silence_makes_nobody_wait_longer() {
    let bench = Bench::new();
    for end in [CUT, GIVEN_UP, LEFT] {
        bench.calls(&THINKING, 100, secs(2));
        bench.call(&THINKING, None, secs(400), end);
        bench.check(&THINKING, "240s (why)");
    }
}

#[test]
fn one_given_up_on_in_silence_gives_the_next_all_the_time_there_is() {
    for end in [GIVEN_UP, CUT, LEFT] {
        let bench = Bench::new();
        bench.calls(&PLAIN, 1_000, secs(2));
        bench.call(&PLAIN, None, secs(60), end);
        bench.check(&PLAIN, "240s (why)");
        bench.calls(&PLAIN, 99, secs(2));
        bench.check(&PLAIN, "240s (why)");
        bench.calls(&PLAIN, 1, secs(2));
        assert_eq!(bench.chosen(&PLAIN).first_byte, Some(secs(180)), "{end:?}");
    }
}

#[test]
fn a_client_that_leaves_early_says_only_that_it_took_at_least_so_long() {
    let bench = Bench::new();
    bench.calls(&PLAIN, 100, secs(2));
    bench.call(&PLAIN, None, secs(25), LEFT);
    assert_eq!(bench.chosen(&PLAIN).first_byte, Some(secs(75)));
    bench.call(&PLAIN, None, millis(1), LEFT);
    assert_eq!(bench.chosen(&PLAIN).first_byte, Some(secs(75)));
}

#[test]
fn what_went_wrong_says_nothing() {
    let bench = Bench::new();
    bench.calls(&PLAIN, 100, secs(2));
    let before = bench.chosen(&PLAIN);
    for class in [
        ErrorClass::RateLimited,
        ErrorClass::ConnectTimeout,
        ErrorClass::IdleTimeout,
        ErrorClass::ServerError,
    ] {
        bench.call(&PLAIN, None, secs(200), Err(class));
        bench.call(&PLAIN, Some(secs(100)), secs(200), Err(class));
    }
    assert_eq!(bench.chosen(&PLAIN), before);
}

#[test]
fn a_model_that_turns_out_to_think_may_be_silent() {
    let bench = Bench::new();
    bench.calls(&PLAIN, 100, secs(2));
    let lesson = bench.lesson("m", &PLAIN);
    let mut timed = lesson.begin();
    timed.hear(&Piece::Delta(Delta {
        reasoning: Some("hm".into()),
        ..Delta::default()
    }));
    timed.end(&Ok(()));
    bench.check(&PLAIN, "240s (why)");
}

#[test]
fn no_more_sorts_are_kept_than_there_is_room_for() {
    let bench = Bench::with(Learn {
        keys: 2,
        samples: 1,
        window: secs(8),
        ..Learn::default()
    });
    let known = |model| {
        let known = bench.learner.known(&bench.lesson(model, &PLAIN).sort);
        known.calls
    };
    for model in ["a", "b", "a", "c"] {
        bench.lesson(model, &PLAIN).begin().end(&Ok(()));
        bench.clock.advance(secs(1));
    }
    assert_eq!(
        ["a", "b", "c"].map(known),
        [2, 0, 1],
        "b was called least lately"
    );
    // What was only asked for takes no room.
    bench
        .lesson("d", &PLAIN)
        .begin()
        .end(&Err(ProviderError::new(ErrorClass::ModelNotFound, "no")));
    assert_eq!(["a", "c", "d"].map(known), [2, 1, 0]);
}

/// The call that the rule must never cut.
#[test]
fn a_call_that_thinks_in_silence_for_258_seconds_is_not_cut_whatever_came_before() {
    let table = ChosenTimeout {
        value: secs(360),
        reason: String::new(),
        first_byte: None,
    };
    let bench = Bench::new();
    bench.calls(&THINKING, 10_000, secs(1));
    let lesson = bench.lesson("m", &THINKING);
    assert_eq!(lesson.apply(table.clone(), &THINKING, LONGEST_ROW), table);
    bench.call(&THINKING, None, secs(30), GIVEN_UP);
    bench.call(&THINKING, Some(secs(258)), secs(259), WHOLE);
    let after = lesson.apply(table, &THINKING, LONGEST_ROW);
    assert_eq!((after.value, after.first_byte), (LONGEST_ROW, None));
}

fn end() -> impl Strategy<Value = End> {
    let error = Err(ErrorClass::ServerError);
    prop_oneof![6 => Just(WHOLE), 1 => Just(CUT), 1 => Just(GIVEN_UP), 1 => Just(LEFT), 1 => Just(error)]
}

/// A pause, and a call after it: seconds until the first piece, and from there to its end.
fn history() -> impl Strategy<Value = Vec<(u64, Option<u64>, u64, End)>> {
    let first = prop::option::weighted(0.8, 0u64..300);
    prop::collection::vec((0u64..3_600, first, 0u64..300, end()), 0..60)
}

proptest! {
    #[test]
    fn no_history_shortens_what_may_be_healthy(history in history(), is_plain: bool) {
        let learn = Learn { samples: 5, ..Learn::default() };
        let bench = Bench::with(learn.clone());
        let demand = if is_plain { PLAIN } else { THINKING };
        let mut starts = Vec::new();
        for (pause, first, rest, end) in history {
            bench.clock.advance(secs(pause));
            let total = secs(first.unwrap_or_default() + rest);
            bench.call(&demand, first.map(secs), total, end);
            if let (Ok(()), Some(first)) = (end, first) {
                starts.push((bench.clock.now(), secs(first)));
            }
            let chosen = bench.chosen(&demand);
            prop_assert!((TABLE..=LONGEST_ROW).contains(&chosen.value));
            let Some(patience) = chosen.first_byte else { continue };
            prop_assert!(demand.speaks_soon);
            prop_assert!(patience >= learn.floor && patience < chosen.value);
            // Whatever began within the last seven eighths of the window would not have been cut, by a wide margin.
            let since = bench.clock.now() - learn.window * 7 / 8;
            let recent = starts.iter().filter(|(at, _)| *at > since);
            for (_, start) in recent {
                prop_assert!(patience >= *start * 3);
            }
        }
    }
}
