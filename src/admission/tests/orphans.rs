//! Holders that don't come back: when they are given up on, when their slots are free again, and that a late return harms
//! nobody.

use super::*;

/// So many seconds after the start.
fn at(seconds: u64) -> Option<Time> {
    Some(Time::ZERO + secs(seconds))
}

#[test]
fn a_slot_is_quarantined_after_a_second_and_free_after_six() {
    let mut world = World::new(one_slot());
    let (deaf, next) = (world.submit(ask(1).within(10)), world.submit(ask(1)));
    assert!(world.begin(deaf));
    world.play(10);
    assert_eq!(world.ending(deaf), Some(Ending::Expired(None)));
    assert_eq!(world.view().in_use, 1, "its holder has yet to come back");
    world.play(1);
    assert_eq!(world.seen[&deaf].quarantined, at(11));
    assert_eq!(
        (world.view().quarantined, world.view().lost_workers),
        (1, 1)
    );
    assert!(!world.has_started(next));
    world.play(5);
    assert_eq!(world.seen[&deaf].reclaimed, at(16));
    assert!(world.has_started(next));
    assert_eq!(
        (world.view().quarantined, world.view().lost_workers),
        (0, 1)
    );
}

#[test]
fn who_comes_back_late_changes_nothing_and_is_counted() {
    let mut world = World::new(one_slot());
    let (deaf, next) = (world.submit(ask(1).within(10)), world.submit(ask(1)));
    world.begin(deaf);
    world.play(20);
    world.finish(deaf);
    let view = world.view();
    assert_eq!((view.in_use, view.lost_workers), (1, 0));
    let turnover = view.turnover;
    assert_eq!((turnover.reclaimed, turnover.late_returns), (1, 1));
    world.finish(next);
    assert_eq!(world.view().in_use, 0);
    assert_eq!(world.view().turnover.given_back, 1);
}

#[test]
fn who_comes_back_in_quarantine_gives_its_slot_back_at_once() {
    let mut world = World::new(one_slot());
    let (slow, next) = (world.submit(ask(1).within(10)), world.submit(ask(1)));
    world.begin(slow);
    world.play(13);
    world.finish(slow);
    assert!(world.has_started(next));
    world.play(100);
    let turnover = world.view().turnover;
    assert_eq!((turnover.given_back, turnover.reclaimed), (1, 0));
}

#[test]
fn after_a_standstill_everybody_has_time_to_come_back() {
    let mut world = World::new(one_slot());
    let job = world.submit(ask(1).within(10));
    world.begin(job);
    world.pass(3_000);
    world.tick();
    assert_eq!(world.seen[&job].quarantined, None);
    world.pass(3_000);
    world.tick();
    assert_eq!(world.seen[&job].quarantined, at(6_000));
    assert_eq!(world.seen[&job].reclaimed, None);
    world.play(5);
    assert_eq!(world.seen[&job].reclaimed, at(6_005));
}

#[test]
fn a_cancelled_call_is_looked_after_as_one_that_is_late() {
    let mut world = World::new(one_slot());
    let deaf = world.submit(ask(1));
    world.begin(deaf);
    world.play(2);
    world.cancel(deaf);
    world.play(6);
    assert_eq!(world.seen[&deaf].reclaimed, at(8));
}

#[test]
fn a_thousand_long_calls_lose_nothing_to_the_watchdog_in_an_hour() {
    let mut world = World::new(settings(1));
    let jobs = world.submit_all(990, &ask(1).within(7_200));
    jobs.iter().for_each(|&job| assert!(world.begin(job)));
    // Beside them others that are deaf, so that there is something to reclaim all the time.
    for _ in 0..360 {
        let deaf = world.submit(ask(2).within(1));
        world.begin(deaf);
        world.play(10);
        world.finish(deaf);
    }
    let view = world.view();
    assert_eq!((view.in_use, view.turnover.reclaimed), (990, 360));
    assert!(jobs.iter().all(|job| world.ending(*job).is_none()));
    jobs.iter().for_each(|&job| world.finish(job));
    assert_eq!(world.view().in_use, 0);
}

#[test]
fn with_too_many_lost_nothing_is_taken_in_until_one_comes_back() {
    let mut limits = settings(1);
    limits.orphans.max_lost = 2;
    let mut world = World::new(limits);
    let deaf = world.submit_all(3, &ask(1).within(10));
    deaf.iter().for_each(|&job| assert!(world.begin(job)));
    world.play(11);
    let lost = 3;
    let refused = world.submit(ask(2));
    assert_eq!(
        world.refusal(refused),
        Some(RefusalReason::WorkersLost { lost })
    );
    world.play(10);
    assert!(
        world.refusal(refused).is_some(),
        "a free slot changes nothing in that"
    );
    world.finish(deaf[0]);
    let taken = world.submit(ask(2));
    assert!(world.has_started(taken));
}

#[test]
fn a_lost_worker_makes_room_for_another_before_its_slot_is_free() {
    let mut limits = settings(1);
    limits.workers = 1;
    let mut world = World::new(limits);
    let (deaf, next) = (world.submit(ask(1).within(10)), world.submit(ask(1)));
    world.begin(deaf);
    world.play(10);
    assert!(!world.has_started(next), "its worker may come back");
    world.play(1);
    assert!(world.has_started(next), "it is lost, and was replaced");
    assert_eq!(world.view().in_use, 2);
}

#[test]
fn a_slot_of_a_job_that_may_keep_it_stays_taken() {
    let mut world = World::new(one_slot());
    let deaf = world.submit(Ask {
        reclaim: false,
        ..ask(1).within(10)
    });
    world.begin(deaf);
    world.play(3_000);
    assert_eq!(world.seen[&deaf].quarantined, None);
    assert_eq!((world.view().in_use, world.view().lost_workers), (1, 0));
    world.finish(deaf);
    assert_eq!(world.view().in_use, 0);
}

#[test]
fn a_slot_that_nobody_holds_is_recovered_with_its_job_and_starts_the_next() {
    let mut world = World::new(one_slot());
    let (leaked, next) = (world.submit(ask(1)), world.submit(ask(1)));
    world.begin(leaked);
    assert!(world.recover(leaked));
    let own = Outcome::Failed(Cause::Own);
    assert_eq!(world.ending(leaked), Some(Ending::Finished(own)));
    assert!(world.has_started(next));
    assert!(!world.recover(leaked), "it is another's now");
    world.finish(next);
    assert_eq!(world.view().turnover.recovered, 1);
}
