//! Stopping: nothing new, then nothing at all.

use super::*;

fn stop_in(world: &mut World, seconds: u64) {
    let until = world.now + secs(seconds);
    world.on(Event::Stop { until });
}

#[test]
fn from_the_word_on_nobody_is_taken_in() {
    let mut world = World::new(settings(1));
    stop_in(&mut world, 30);
    let job = world.submit(ask(1));
    assert_eq!(world.refusal(job), Some(RefusalReason::Stopping));
    assert!(world.view().stopping);
    assert_eq!(
        world.core.next_due(),
        Time::NEVER,
        "there is nothing to end"
    );
}

#[test]
fn who_waits_may_still_start_within_the_drain() {
    let mut world = World::new(one_slot());
    let (first, second) = (world.submit(ask(1)), world.submit(ask(1)));
    stop_in(&mut world, 30);
    world.play(29);
    world.finish(first);
    assert_eq!(world.started(), [first, second]);
}

#[test]
fn at_the_end_of_the_drain_who_waits_is_refused_and_who_runs_is_cancelled() {
    let mut world = World::new(one_slot());
    let (running, waiting) = (world.submit(ask(1)), world.submit(ask(1)));
    stop_in(&mut world, 30);
    world.play(30);
    assert_eq!(
        world.ending(running),
        Some(Ending::Cancelled(CancelReason::Stopping))
    );
    assert_eq!(
        world.seen[&running].interrupted,
        Some(CancelReason::Stopping)
    );
    assert_eq!(world.refusal(waiting), Some(RefusalReason::Stopping));
    world.finish(running);
    assert_eq!((world.view().in_use, world.view().waiting), (0, 0));
}

#[test]
fn after_the_drain_nothing_starts_even_if_the_tick_is_late() {
    let mut world = World::new(one_slot());
    let (first, second) = (world.submit(ask(1)), world.submit(ask(1)));
    stop_in(&mut world, 30);
    world.pass(30);
    world.finish(first);
    assert!(!world.has_started(second));
    world.tick();
    assert_eq!(world.refusal(second), Some(RefusalReason::Stopping));
}

#[test]
fn the_end_of_the_drain_is_worked_off_in_slices_and_nothing_starts_between_them() {
    let mut world = World::new(one_slot());
    let running = world.submit(ask(1));
    let waiting = world.submit_all(3 * SLICE, &ask(1));
    stop_in(&mut world, 0);
    world.tick();
    let ended = waiting
        .iter()
        .filter(|&&job| world.ending(job).is_some())
        .count();
    assert!(ended <= SLICE, "{ended} ended in one step");
    world.finish(running);
    world.play(0);
    assert_eq!(world.started(), [running]);
    assert_eq!((world.view().in_use, world.view().waiting), (0, 0));
}

#[test]
fn a_second_word_can_only_shorten_the_drain() {
    let mut world = World::new(one_slot());
    let job = world.submit(ask(1));
    stop_in(&mut world, 30);
    stop_in(&mut world, 90);
    assert_eq!(world.core.next_due(), Time::ZERO + secs(30));
    stop_in(&mut world, 10);
    world.play(10);
    assert_eq!(
        world.ending(job),
        Some(Ending::Cancelled(CancelReason::Stopping))
    );
}

#[test]
fn a_job_that_comes_back_goes_on_within_the_drain_and_not_after_it() {
    let mut world = World::new(settings(2));
    let both = world.submit_all(2, &ask(1).along(&[&[0], &[1]]));
    stop_in(&mut world, 30);
    world.give_back(both[0], FALLS_BACK);
    assert_eq!(world.seen[&both[0]].attempt, 2);
    world.pass(30);
    world.give_back(both[1], FALLS_BACK);
    assert_eq!(world.seen[&both[1]].attempt, 1);
    assert_eq!(world.ending(both[1]), Some(Ending::Finished(FALLS_BACK)));
}
