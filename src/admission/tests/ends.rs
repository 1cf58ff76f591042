//! Every job ends exactly once, and nothing starts after its time. (That no job ends twice is checked by the world.)

use super::*;

const REQUESTED: Ending = Ending::Cancelled(CancelReason::Requested);

#[test]
fn who_waits_ends_at_the_queue_timeout_or_at_its_deadline_whichever_comes_first() {
    let mut world = World::new(one_slot());
    world.submit(ask(1));
    let patient = world.submit(ask(1));
    let hurried = world.submit(ask(1).within(30));
    let even = world.submit(ask(1).within(60));
    world.play(29);
    assert_eq!(world.ending(hurried), None);
    world.play(1);
    assert_eq!(
        world.ending(hurried),
        Some(Ending::Expired(Some(full(Slots::Global, 1, 1))))
    );
    world.play(29);
    assert_eq!(world.ending(patient), None);
    world.play(1);
    assert_eq!(
        world.ending(patient),
        Some(Ending::QueueTimeout(full(Slots::Global, 1, 1)))
    );
    assert_eq!(
        world.ending(even),
        Some(Ending::Expired(Some(full(Slots::Global, 1, 1)))),
        "both at once: the deadline"
    );
}

#[test]
fn who_waited_in_vain_is_told_for_what() {
    let mut settings = one_slot();
    (settings.global, settings.session) = (5, 1);
    settings.providers[0].limit = 5;
    let mut world = World::new(settings);
    world.submit(session(1));
    let second = world.submit(session(1).within(5));
    world.on(Event::Throttle(Throttle {
        most: 1,
        refuses_low: false,
    }));
    let other = world.submit(session(2).within(5));
    world.play(5);
    let waited_for = |job| match world.ending(job) {
        Some(Ending::Expired(Some(obstacle))) => obstacle.to_string(),
        ending => panic!("{ending:?}"),
    };
    assert_eq!(waited_for(second), "1 of 1 slots of its session in use");
    assert_eq!(
        waited_for(other),
        "1 of 1 slots in use; the throttle holds the global limit at 1 of 5 (/api/throttling/status says why)"
    );
}

#[test]
fn who_runs_ends_at_its_deadline_and_not_at_the_queue_timeout() {
    let mut world = World::new(one_slot());
    let job = world.submit(ask(1).within(100));
    world.play(99);
    assert_eq!(world.ending(job), None);
    world.play(1);
    assert_eq!(world.ending(job), Some(Ending::Expired(None)));
    assert_eq!(world.seen[&job].interrupted, Some(CancelReason::Deadline));
    assert_eq!(world.view().in_use, 1, "its socket may still be open");
}

#[test]
fn who_comes_after_its_deadline_ends_at_once() {
    let mut world = World::new(one_slot());
    let job = world.submit(ask(1).within(0));
    assert_eq!(world.ending(job), Some(Ending::Expired(None)));
    assert!(!world.has_started(job));
}

#[test]
fn who_timed_out_in_line_makes_way_for_the_next() {
    let mut world = World::new(one_slot());
    let first = world.submit(ask(1));
    let hurried = world.submit(ask(1).within(5));
    let next = world.submit(ask(1));
    world.play(10);
    world.finish(first);
    assert_eq!(
        world.ending(hurried),
        Some(Ending::Expired(Some(full(Slots::Global, 1, 1))))
    );
    assert_eq!(world.started(), [first, next]);
}

#[test]
fn with_a_late_tick_the_expired_still_never_start() {
    let mut world = World::new(one_slot());
    let first = world.submit(ask(1));
    let expired = world.submit(ask(1).within(5));
    let timed_out = world.submit(ask(1));
    world.pass(50);
    let next = world.submit(ask(1));
    world.pass(20);
    world.finish(first);
    assert_eq!(
        world.ending(expired),
        Some(Ending::Expired(Some(Obstacle::Turn)))
    );
    assert_eq!(
        world.ending(timed_out),
        Some(Ending::QueueTimeout(Obstacle::Turn))
    );
    assert_eq!(world.started(), [first, next]);
}

#[test]
fn one_step_ends_no_more_than_a_slice_of_the_expired() {
    let mut world = World::new(one_slot());
    let first = world.submit(ask(1));
    let expired = world.submit_all(3 * SLICE, &ask(1).within(5));
    let next = world.submit(ask(1));
    world.pass(10);
    let ended = |world: &World| {
        expired
            .iter()
            .filter(|&&job| world.ending(job).is_some())
            .count()
    };
    world.finish(first);
    assert_eq!(ended(&world), SLICE);
    assert!(
        world.core.next_due() <= world.now,
        "it wants to go on at once"
    );
    world.tick();
    assert!(ended(&world) <= 3 * SLICE);
    world.play(0);
    assert_eq!(ended(&world), 3 * SLICE);
    assert_eq!(world.started(), [first, next]);
}

#[test]
fn a_tick_ends_what_is_due_in_slices() {
    let mut world = World::new(one_slot());
    world.submit(ask(1));
    let jobs = world.submit_all(2 * SLICE + 1, &ask(1));
    world.pass(60);
    let ended = |world: &World| {
        jobs.iter()
            .filter(|&&job| world.ending(job).is_some())
            .count()
    };
    for expected in [SLICE, 2 * SLICE, 2 * SLICE + 1] {
        assert!(world.core.next_due() <= world.now);
        world.tick();
        assert_eq!(ended(&world), expected);
    }
    assert!(world.core.next_due() > world.now);
}

#[test]
fn a_worker_may_begin_unless_its_job_has_ended() {
    let mut world = World::new(settings(1));
    let [ready, cancelled, late] = [ask(1), ask(1), ask(1).within(5)].map(|ask| world.submit(ask));
    world.cancel(cancelled);
    assert!(world.begin(ready));
    assert!(!world.begin(cancelled));
    world.pass(5);
    assert!(!world.begin(late), "its deadline is looked at again");
    assert_eq!(world.ending(late), Some(Ending::Expired(None)));
    world.finish(ready);
    assert!(!world.begin(ready), "its permit is back");
    for job in [cancelled, late] {
        world.finish(job);
    }
    assert_eq!(world.view().in_use, 0);
}

#[test]
fn a_cancel_ends_a_job_at_every_stage_and_only_once() {
    let mut world = World::new(one_slot());
    let (begun, waiting) = (world.submit(ask(1)), world.submit(ask(1)));
    assert!(world.begin(begun));
    for job in [begun, waiting] {
        world.cancel(job);
        world.cancel(job);
        assert_eq!(world.ending(job), Some(REQUESTED));
    }
    assert_eq!(
        world.seen[&begun].interrupted,
        Some(CancelReason::Requested)
    );
    assert_eq!(
        world.seen[&waiting].interrupted, None,
        "there is no call to end"
    );
    world.finish(begun);

    let started = world.submit(ask(1));
    world.cancel(started);
    assert_eq!(world.ending(started), Some(REQUESTED));
    world.finish(started);

    let ended = world.submit(ask(1));
    world.finish(ended);
    world.cancel(ended);
    assert_eq!(
        world.ending(ended),
        Some(Ending::Finished(Outcome::Completed))
    );
    assert_eq!((world.view().in_use, world.view().waiting), (0, 0));
}

#[test]
fn what_a_call_brings_after_its_job_has_ended_is_not_heard() {
    for outcome in [Outcome::Completed, FAILS, FALLS_BACK] {
        let mut world = World::new(settings(2));
        let job = world.submit(ask(1).along(&[&[0], &[1]]).within(5));
        world.play(5);
        world.give_back(job, outcome);
        assert_eq!(world.ending(job), Some(Ending::Expired(None)));
        assert_eq!((world.seen[&job].attempt, world.view().in_use), (1, 0));
    }
}

#[test]
fn a_permit_given_back_twice_is_counted_and_frees_nobody_else_s_slot() {
    let mut world = World::new(one_slot());
    let (first, second) = (world.submit(ask(1)), world.submit(ask(1)));
    let third = world.submit(ask(1));
    world.finish(first);
    world.finish(first);
    assert_eq!(
        (world.view().in_use, world.view().turnover.late_returns),
        (1, 1)
    );
    assert_eq!(world.started(), [first, second]);
    world.finish(second);
    assert_eq!(world.started(), [third]);
}

#[test]
fn ticks_at_the_times_that_the_core_asks_for_miss_no_end() {
    let mut limits = settings(1);
    (limits.global, limits.session, limits.sessions) = (3, 2, 2);
    let mut world = World::new(limits);
    let jobs: Vec<(u64, u64)> = (0..60)
        .map(|job| {
            let deadline = 1 + (job * 37) % 150;
            let asked = if job % 2 == 0 {
                session(job % 5)
            } else {
                ask(9)
            };
            let asked = Ask {
                reclaim: false,
                ..asked.within(deadline)
            };
            (world.submit(asked), deadline)
        })
        .collect();
    for second in 1..=150 {
        world.play(1);
        for &(job, deadline) in &jobs {
            let runs = world.has_started(job);
            let due = if runs { deadline } else { deadline.min(60) };
            assert_eq!(
                world.ending(job).is_some(),
                due <= second,
                "job {job} at {second} s"
            );
        }
    }
    assert_eq!(world.core.next_due(), Time::NEVER);
}

#[test]
fn a_tick_is_asked_for_when_there_is_something_to_do_and_only_then() {
    let mut world = World::new(one_slot());
    assert_eq!(world.core.next_due(), Time::NEVER);
    let runs = world.submit(ask(1).within(100));
    assert_eq!(world.core.next_due(), world.now + secs(100), "its deadline");
    let waits = world.submit(ask(2).within(100));
    let billed = world.core.next_due();
    assert_eq!(billed, world.now + secs(1), "who runs is charged by then");
    world.cancel(waits);
    assert_eq!(world.core.next_due(), world.now + secs(100));
    world.fail(
        runs,
        Cause::Congested {
            retry_after: Some(secs(9)),
        },
    );
    assert_eq!(
        world.core.next_due(),
        Time::NEVER,
        "a gate opens for nobody"
    );
}
