//! Random events against the admission core and against a naive model of it, side by side.
//!
//! The model foretells every end and every refusal, who waits and when the core wants its tick. Which job starts is
//! foretold where the rules alone say so; where fair shares decide, the model says which ones may start, and that one
//! must.
//!
//! Calls fail in ways that let them be tried again, at their stage or the next: attempts, budgets, what a job that backs
//! off keeps and when it comes back are foretold too; how long it waits is random, so within its bounds the model follows
//! the core. What a *target* has learned (its limit, gate and breaker) is left out: those are functions of time in
//! floating point, and a model of them would be a copy. They have their own tests, and the simulator and shuttle hold
//! them to what must never happen: a start above a limit, through a shut gate, beside a probe.

mod model;
mod rules;

use std::time::Duration;

use pointsman::admission::{
    Learning, ProviderId, ProviderSettings, QueueSettings, RetrySettings, Settings, Step, TargetId,
    Throttle,
};
use pointsman::config::Priority;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use model::{Model, Seen};

/// What may happen.
#[derive(Debug, Clone)]
enum Op {
    Submit {
        flow: u64,
        class: usize,
        route: usize,
        patience_ms: u64,
        bytes: usize,
    },
    /// One of the calls under way comes back: how, by number.
    GiveBack(usize, u8),
    /// A permit that has been given back comes again.
    GiveBackAgain(usize),
    /// One of all jobs so far is cancelled.
    Cancel(usize),
    /// One of the calls under way asks whether it may begin.
    Begin(usize),
    Pass(u64),
    Tick,
    /// The box is loaded so: the calls that may be in flight in all, and whether the lowest class is refused.
    Throttle(usize, bool),
    Stop(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let submit = (0..6_u64, 0..3_usize, 0..4_usize, 0..40_000_u64, 1..60_usize);
    let submit = submit.prop_map(|(flow, class, route, patience_ms, bytes)| Op::Submit {
        flow,
        class,
        route,
        patience_ms,
        bytes,
    });
    let op = prop_oneof![
        40 => submit,
        25 => (any::<usize>(), any::<u8>()).prop_map(|(call, how)| Op::GiveBack(call, how)),
        2 => any::<usize>().prop_map(Op::GiveBackAgain),
        6 => any::<usize>().prop_map(Op::Cancel),
        6 => any::<usize>().prop_map(Op::Begin),
        12 => (0..4_000_u64).prop_map(Op::Pass),
        20 => Just(Op::Tick),
        4 => (0..7_usize, any::<bool>()).prop_map(|(most, low)| Op::Throttle(most, low)),
        1 => (0..20_000_u64).prop_map(Op::Stop),
    ];
    prop::collection::vec(op, 1..150)
}

fn settings() -> impl Strategy<Value = Settings> {
    let limits = (1..5_usize, 1..6_usize, 1..3_usize, 1..4_usize);
    let queue = (0..8_usize, 1..5_usize, 20..300_usize, 1..8_usize, 1..20_u64);
    let providers = prop::collection::vec((1..4_usize, any::<bool>()), 2);
    let retry =
        (1..5_u32, 1..6_u32, 0..4_u32).prop_map(|(attempts, budget, floor)| RetrySettings {
            attempts,
            base: Duration::from_millis(500),
            max: Duration::from_millis(1_500),
            budget: f64::from(budget),
            floor: f64::from(floor),
            refill: 0.5,
        });
    (limits, queue, providers, retry).prop_map(|(limits, queue, providers, retry)| Settings {
        workers: limits.0,
        global: limits.1,
        session: limits.2,
        sessions: limits.3,
        session_turn: Duration::from_secs(3),
        queue: QueueSettings {
            capacity: queue.0,
            per_session: queue.1,
            max_bytes: queue.2,
            per_provider: queue.3,
            timeout: Duration::from_secs(queue.4),
            weights: [16, 4, 1],
            pressure_on: 4,
            pressure_off: 1,
        },
        providers: providers
            .into_iter()
            .map(|(limit, reserves)| ProviderSettings {
                reserves,
                retry,
                ..ProviderSettings::fixed(limit)
            })
            .collect(),
        targets: [0, 1, 0].map(ProviderId).to_vec(),
        learning: Learning::default(),
        orphans: Default::default(),
    })
}

/// The routes that jobs take, by number; three targets at two providers.
fn routes() -> [Vec<Vec<TargetId>>; 4] {
    let stage = |targets: &[u32]| targets.iter().copied().map(TargetId).collect::<Vec<_>>();
    [
        vec![stage(&[0])],
        vec![stage(&[1]), stage(&[0])],
        vec![stage(&[2, 1])],
        vec![stage(&[0]), stage(&[2, 1]), stage(&[1])],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        max_shrink_iters: 100_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_core_does_what_the_model_foretells(settings in settings(), ops in ops()) {
        let mut model = Model::new(settings, routes());
        for op in ops {
            let done = match op {
                Op::Submit { flow, class, route, patience_ms, bytes } => {
                    let patience = Duration::from_millis(patience_ms);
                    model.submit(flow, Priority::ALL[class], route, patience, bytes)
                }
                Op::GiveBack(call, how) => model.give_back(call, how),
                Op::GiveBackAgain(call) => model.give_back_again(call),
                Op::Cancel(job) => model.cancel(job),
                Op::Begin(call) => model.begin(call),
                Op::Pass(millis) => model.pass(Duration::from_millis(millis)),
                Op::Tick => model.tick(),
                Op::Throttle(most, refuses_low) => model.throttle(Throttle { most, refuses_low }),
                Op::Stop(millis) => model.stop(Duration::from_millis(millis)),
            };
            done.map_err(TestCaseError::fail)?;
        }
    }
}

/// What an action comes to, for comparison.
fn seen(step: &Step) -> Seen {
    match step {
        Step::Wait { waiting, .. } => Seen::Wait(*waiting),
        Step::Start {
            target, attempt, ..
        } => Seen::Start(*target, *attempt),
        Step::BackOff { until } => Seen::BackOff(*until),
        Step::End(ending) => Seen::End(rules::name(ending)),
        Step::Interrupt(reason) => Seen::Interrupt(*reason),
        // No slot is taken from anybody here.
        Step::Quarantine { .. } | Step::Reclaim { .. } => Seen::End("watchdog"),
    }
}
