//! What threads share, under many interleavings of them.
//!
//! * The admission core behind a lock: submitters, workers, cancellers and watchdogs share it as the threads of the
//!   engine do. Time is a number that a watchdog moves on, since a schedule knows no timed waits. Each scenario names the
//!   turns that its events must have taken in some schedule: one that tries nothing fails.
//! * The queue of ready jobs, the engine's own file, over this checker's locks and parking places.
//!
//! Schedules are random, from a fixed seed: `SHUTTLE_RANDOM_SEED` sets another one, `POINTSMAN_SCHEDULES` how many are
//! tried of each scenario. A failure prints the schedule; `shuttle::replay` plays it again.

mod gateway;
mod ready;
mod record;
mod scenario;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, Runner};

use scenario::Scenario;

/// Schedules of each scenario, unless `POINTSMAN_SCHEDULES` says otherwise.
const SCHEDULES: usize = 4_000;
const SEED: u64 = 0x5EED;

/// Plays `life` under so many schedules.
fn under_schedules(life: impl Fn() + Send + Sync + 'static) {
    let schedules = std::env::var("POINTSMAN_SCHEDULES").ok();
    let schedules = schedules.map_or(SCHEDULES, |text| text.parse().expect("it is a number"));
    let scheduler = RandomScheduler::new_from_seed(SEED, schedules);
    Runner::new(scheduler, Config::default()).run(life);
}

/// Plays a scenario. Each of its turns must come up.
fn check(scenario: Scenario) {
    let taken: Arc<Vec<AtomicUsize>> =
        Arc::new(scenario.turns.iter().map(|_| AtomicUsize::new(0)).collect());
    let counted = Arc::clone(&taken);
    under_schedules(move || {
        for (count, came) in counted.iter().zip(gateway::live(scenario)) {
            count.fetch_add(usize::from(came), Ordering::Relaxed);
        }
    });
    for ((turn, _), count) in scenario.turns.iter().zip(&*taken) {
        assert!(count.load(Ordering::Relaxed) > 0, "in no schedule: {turn}");
    }
}

#[test]
fn arrivals_from_many_threads_are_started_queued_or_refused_within_all_bounds() {
    check(scenario::ARRIVALS);
}

#[test]
fn each_return_frees_its_slot_once_and_starts_who_is_next() {
    check(scenario::RETURNS);
}

#[test]
fn a_cancel_at_any_moment_ends_its_job_once_and_loses_no_slot() {
    check(scenario::CANCELS);
}

#[test]
fn ticks_at_any_moment_end_what_is_late_and_nothing_twice() {
    check(scenario::TICKS);
}

#[test]
fn limits_that_are_cut_and_grow_are_kept_and_one_event_cuts_once() {
    check(scenario::CUTS);
}

#[test]
fn jobs_go_on_past_failures_and_breakers_with_one_probe_at_a_time() {
    check(scenario::ONWARD);
}

#[test]
fn a_permit_that_comes_back_late_changes_nothing_and_is_counted() {
    check(scenario::LATE_RETURNS);
}

#[test]
fn a_stop_at_any_moment_ends_everything_within_its_drain() {
    check(scenario::STOPS);
}

#[test]
fn a_slot_that_is_taken_from_its_holder_is_another_s_whenever_that_comes_back() {
    check(scenario::ORPHANS);
}

#[test]
fn while_too_many_workers_are_lost_as_many_calls_fewer_are_made_and_nothing_is_taken_in() {
    check(scenario::MISSING);
}

#[test]
fn a_throttle_at_any_moment_is_kept_interrupts_nobody_and_lets_go_in_one_step() {
    check(scenario::THROTTLES);
}

#[test]
fn new_limits_at_any_moment_are_kept_and_leave_the_throttle_as_it_is() {
    check(scenario::CHANGES);
}
