//! Would the simulator find anything? Slips of the hand are planted in the core one by one (see `src/admission/planted.rs`),
//! and each must be found: by a seed, or, where it harms nobody but makes shares unequal, by a long run.

use rayon::prelude::*;

use super::admission::Fault;
use super::play;
use super::quantity::shares_are_kept;

/// Each is found within so many seeds.
const SEEDS: u64 = 2_000;

/// What seeds find.
const UNSAFE: [Fault; 23] = [
    Fault::StaleReturnFrees,
    Fault::InterruptedLeaks,
    Fault::ReclaimsTheLiving,
    Fault::ReclaimKeepsGeneration,
    Fault::EndedJobBegins,
    Fault::GlobalSlotFirst,
    Fault::BackOffKeepsSlot,
    Fault::GoneIsCalled,
    Fault::OldCallsTeach,
    Fault::LimitsWakeNobody,
    Fault::ThrottleNotApplied,
    Fault::LimitsLiftThrottle,
    Fault::ThrottleWakesNobody,
    Fault::ExpiredStarts,
    Fault::EachRefusalCuts,
    Fault::GrowthSticksAtOne,
    Fault::LimitNotApplied,
    Fault::GateIgnored,
    Fault::EverybodyProbes,
    Fault::ProbeWithoutLease,
    Fault::OldCallsJudged,
    Fault::RetryAfterContent,
    Fault::BudgetNotSpent,
];

/// What long runs find.
const UNFAIR: [Fault; 2] = [Fault::BilledAtEnd, Fault::StrictPriority];

#[test]
#[expect(clippy::print_stdout, reason = "shown with --nocapture")]
fn each_planted_fault_is_found_by_a_seed() {
    for fault in UNSAFE {
        let found = (0..SEEDS)
            .into_par_iter()
            .find_map_first(|seed| Some((seed, play(seed, Some(fault), false).err()?)));
        let (seed, what) = found.unwrap_or_else(|| panic!("{fault:?}: no seed finds it"));
        println!(
            "{fault:?}: seed {seed}: {}",
            what.lines().next().unwrap_or_default()
        );
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "shown with --nocapture")]
fn each_planted_unfairness_is_found_by_a_long_run() {
    shares_are_kept(None).expect("without a fault they are kept");
    for fault in UNFAIR {
        let what = shares_are_kept(Some(fault)).expect_err(&format!("{fault:?} is not found"));
        println!("{fault:?}: {what}");
    }
}
