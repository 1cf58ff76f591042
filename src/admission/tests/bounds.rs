//! Bounds of the waiting lines: who is refused, why, for how long; and who gives way.

use super::*;

/// A world in which one job runs on the only slot.
fn busy(change: impl FnOnce(&mut QueueSettings)) -> World {
    let mut limits = one_slot();
    limits.providers.push(limits.providers[0].clone());
    limits.targets.push(ProviderId(1));
    change(&mut limits.queue);
    let mut world = World::new(limits);
    world.submit(ask(1));
    world
}

#[test]
fn each_bound_refuses_by_its_own_name() {
    let mut world = busy(|queue| queue.capacity = 2);
    world.submit_all(2, &ask(1));
    let refused = world.submit(ask(1));
    assert_eq!(world.refusal(refused), Some(RefusalReason::QueueFull));

    let mut world = busy(|queue| queue.per_session = 2);
    world.submit_all(2, &ask(1));
    let refused = world.submit(ask(1));
    assert_eq!(
        world.refusal(refused),
        Some(RefusalReason::SessionQueueFull)
    );
    let other = world.submit(ask(2));
    assert_eq!(
        world.refusal(other),
        None,
        "each flow has places of its own"
    );
    let elsewhere = world.submit(ask(1).on(1));
    assert_eq!(
        world.refusal(elsewhere),
        None,
        "and has them for each target"
    );

    let mut world = busy(|queue| queue.max_bytes = 100);
    world.submit(ask(1).bytes(60));
    let refused = world.submit(ask(1).bytes(41));
    assert_eq!(world.refusal(refused), Some(RefusalReason::QueueBytes));
    let small = world.submit(ask(1).bytes(40));
    assert_eq!(world.refusal(small), None);

    let mut world = busy(|queue| queue.per_provider = 3);
    world.submit_all(3, &ask(1));
    let refused = world.submit(ask(1));
    assert_eq!(
        world.refusal(refused),
        Some(RefusalReason::ProviderQueueFull)
    );
    let elsewhere = world.submit(ask(2).on(1));
    assert_eq!(
        world.refusal(elsewhere),
        None,
        "the other provider has its places"
    );
}

#[test]
fn every_refusal_says_what_is_full_and_which_knob_it_is() {
    let expected = secs(90);
    for (reason, says) in [
        (RefusalReason::QueueFull, "queue.capacity"),
        (RefusalReason::SessionQueueFull, "queue.per_session"),
        (RefusalReason::QueueBytes, "queue.max_bytes"),
        (RefusalReason::ProviderQueueFull, "queue.provider_share"),
        (RefusalReason::WaitTooLong { expected }, "wait of 90 s"),
        (RefusalReason::Displaced, "less than its share"),
        (RefusalReason::Shut(Shut::Quota), "nothing left to spend"),
        (RefusalReason::Stopping, "stopping"),
    ] {
        let text = reason.to_string();
        assert!(text.contains(says), "{text:?} does not say {says:?}");
    }
}

#[test]
fn who_backs_off_keeps_its_place_and_its_bytes() {
    let backing_off = |change: fn(&mut QueueSettings)| {
        let mut limits = one_slot();
        limits.providers[0].retry = RetrySettings::default();
        change(&mut limits.queue);
        let mut world = World::new(limits);
        let back = world.submit(ask(1).bytes(60));
        let runs = world.submit(ask(1).bytes(1));
        world.fail(back, Cause::Unreachable);
        assert_eq!((world.view().backing_off, world.view().waiting), (1, 0));
        assert!(world.has_started(runs));
        world
    };
    let mut world = backing_off(|queue| queue.max_bytes = 100);
    let refused = world.submit(ask(2).bytes(41));
    assert_eq!(world.refusal(refused), Some(RefusalReason::QueueBytes));
    let small = world.submit(ask(2).bytes(40));
    assert_eq!(world.refusal(small), None);

    let mut world = backing_off(|queue| queue.per_provider = 2);
    let second = world.submit(ask(2));
    assert_eq!(world.refusal(second), None);
    let refused = world.submit(ask(2));
    assert_eq!(
        world.refusal(refused),
        Some(RefusalReason::ProviderQueueFull)
    );
}

#[test]
fn the_places_of_a_flow_for_a_target_are_counted_over_its_classes() {
    let mut world = busy(|queue| queue.per_session = 2);
    world.submit(ask(1).class(Priority::High));
    world.submit(ask(1).class(Priority::Low));
    let refused = world.submit(ask(1));
    assert_eq!(
        world.refusal(refused),
        Some(RefusalReason::SessionQueueFull)
    );
}

#[test]
fn who_is_refused_leaves_no_trace() {
    let mut world = busy(|queue| queue.capacity = 1);
    world.submit(session(1));
    let before = world.view();
    let refused = world.submit(session(1).bytes(1_000));
    assert_eq!(world.refusal(refused), Some(RefusalReason::QueueFull));
    assert_eq!(world.view(), before);
}

#[test]
fn an_arrival_that_can_start_needs_no_place() {
    let mut limits = settings(2);
    limits.providers[0].limit = 1;
    limits.queue.capacity = 1;
    let mut world = World::new(limits);
    world.submit_all(2, &ask(1));
    let refused = world.submit(ask(1));
    let starts = world.submit(ask(2).on(1));
    assert_eq!(world.refusal(refused), Some(RefusalReason::QueueFull));
    assert!(world.has_started(starts));
}

#[test]
fn the_advice_doubles_while_refusals_continue_and_shrinks_by_the_second_when_they_stop() {
    let mut world = busy(|queue| queue.capacity = 0);
    let mut advice = Vec::new();
    for _ in 0..7 {
        let refused = world.submit(ask(1));
        advice.push(world.retry_after(refused));
        world.pass(1);
    }
    assert_eq!(advice, [1, 2, 4, 8, 16, 32, 32]);
    world.pass(9);
    let refused = world.submit(ask(1));
    assert_eq!(world.retry_after(refused), 23);
    world.pass(100);
    let refused = world.submit(ask(1));
    assert_eq!(world.retry_after(refused), 1);
}

/// Four places, taken by these; then another comes. Which of them gave way, and whether the newcomer was taken in.
fn displace(waiting: [Ask; 4], newcomer: Ask) -> (Option<usize>, bool) {
    let mut world = busy(|queue| queue.capacity = 4);
    let waiting = waiting.map(|ask| world.submit(ask));
    let newcomer = world.submit(newcomer);
    let gave_way: Vec<usize> = (0..4)
        .filter(|&index| world.refusal(waiting[index]) == Some(RefusalReason::Displaced))
        .collect();
    assert!(gave_way.len() <= 1, "one place, one victim");
    assert_eq!(world.view().waiting, 4);
    (gave_way.first().copied(), world.ending(newcomer).is_none())
}

#[test]
fn a_full_queue_makes_room_for_who_has_less_than_its_share() {
    let [high, medium, low] = Priority::ALL.map(|class| move |flow| ask(flow).class(class));
    let greedy = || [medium(1), medium(1), medium(1), medium(2)];
    let cases: [(&str, [Ask; 4], Ask, Option<usize>); 8] = [
        (
            "the newest of the longest line",
            greedy(),
            medium(3),
            Some(2),
        ),
        (
            "for one with a single job, too",
            greedy(),
            medium(2),
            Some(2),
        ),
        ("not for the greedy one itself", greedy(), medium(1), None),
        ("not for a lower class", greedy(), low(3), None),
        ("for a higher class", greedy(), high(1), Some(2)),
        (
            "the lowest class first",
            [medium(1), medium(1), low(2), low(2)],
            high(3),
            Some(3),
        ),
        (
            "a lower class even if it has one",
            [medium(1), medium(1), low(2), low(3)],
            high(4),
            Some(3),
        ),
        (
            "not if all have the same",
            [medium(1), medium(2), medium(3), medium(4)],
            medium(5),
            None,
        ),
    ];
    for (what, waiting, newcomer, victim) in cases {
        assert_eq!(
            displace(waiting, newcomer),
            (victim, victim.is_some()),
            "{what}"
        );
    }
}

#[test]
fn nobody_gives_way_to_a_session_that_has_the_average() {
    let mut world = busy(|queue| queue.capacity = 8);
    for (flow, jobs) in [(1, 4), (2, 2), (3, 1), (4, 1)] {
        world.submit_all(jobs, &ask(flow));
    }
    let refused = world.submit(ask(2));
    assert_eq!(world.refusal(refused), Some(RefusalReason::QueueFull));
    let modest = world.submit(ask(3));
    assert_eq!(world.refusal(modest), None, "it has less");
}

#[test]
fn a_provider_that_has_all_its_places_makes_room_among_those_who_wait_for_it() {
    let mut world = busy(|queue| queue.per_provider = 3);
    let elsewhere = world.submit_all(4, &ask(3).on(1));
    let greedy = world.submit_all(3, &ask(1));
    let modest = world.submit(ask(2));
    assert_eq!(world.ending(modest), None);
    assert_eq!(world.refusal(greedy[2]), Some(RefusalReason::Displaced));
    assert!(
        elsewhere[..3]
            .iter()
            .all(|&job| world.ending(job).is_none())
    );
    let again = world.submit(ask(2));
    assert_eq!(
        world.refusal(again),
        Some(RefusalReason::ProviderQueueFull),
        "it has its share now"
    );
}

#[test]
fn a_queue_that_one_provider_may_fill_makes_room_all_the_same() {
    let mut world = busy(|queue| (queue.capacity, queue.per_provider) = (3, 3));
    let greedy = world.submit_all(3, &ask(1));
    let modest = world.submit(ask(2));
    assert_eq!(world.ending(modest), None);
    assert_eq!(world.refusal(greedy[2]), Some(RefusalReason::Displaced));
    let refused = world.submit(ask(1));
    assert_eq!(world.refusal(refused), Some(RefusalReason::QueueFull));
}

#[test]
fn a_job_that_came_back_never_gives_way() {
    let mut limits = settings(2);
    limits.providers[1].limit = 1;
    limits.queue.capacity = 2;
    let mut world = World::new(limits);
    world.submit(ask(9).on(1));
    let fresh = world.submit(ask(1).on(1));
    let back = world.submit_all(2, &ask(1).along(&[&[0], &[1]]));
    for &job in &back {
        world.give_back(job, FALLS_BACK);
    }
    assert_eq!(
        world.view().waiting,
        3,
        "they have their places though the queue is full"
    );
    let newcomer = world.submit(ask(2).on(1));
    assert_eq!(world.refusal(fresh), Some(RefusalReason::Displaced));
    assert_eq!(world.ending(newcomer), None);
    let another = world.submit(ask(3).on(1));
    assert_eq!(world.refusal(another), Some(RefusalReason::QueueFull));
    assert!(back.iter().all(|&job| world.ending(job).is_none()));
}

/// One provider with one slot, that has ended so many calls of `length` seconds, and whose slot is busy again.
fn experienced(calls: usize, length: u64) -> World {
    let mut world = World::new(one_slot());
    for _ in 0..calls {
        let job = world.submit(ask(1));
        world.pass(length);
        world.finish(job);
    }
    world.submit(ask(1));
    world
}

#[test]
fn who_would_wait_too_long_is_told_so_at_once() {
    let mut world = experienced(20, 30);
    let jobs = world.submit_all(4, &ask(1));
    let expected = secs(90);
    assert_eq!(
        jobs.iter()
            .map(|&job| world.refusal(job))
            .collect::<Vec<_>>(),
        [
            None,
            None,
            None,
            Some(RefusalReason::WaitTooLong { expected })
        ]
    );
    let hurried = world.submit(ask(2).within(20));
    assert!(matches!(
        world.refusal(hurried),
        Some(RefusalReason::WaitTooLong { .. })
    ));
}

/// Twenty calls of fifteen seconds at each of two providers that take one and two calls; then all are busy.
fn experienced_with_three_places() -> World {
    let mut limits = settings(2);
    (limits.providers[0].limit, limits.providers[1].limit) = (1, 2);
    let mut world = World::new(limits);
    for target in [0, 1] {
        for _ in 0..20 {
            let job = world.submit(ask(1).on(target));
            world.pass(15);
            world.finish(job);
        }
    }
    world.submit(ask(1).on(0));
    world.submit_all(2, &ask(1).on(1));
    world
}

#[test]
fn the_wait_is_shared_by_all_places_of_the_line() {
    let both = || ask(2).along(&[&[0, 1]]);
    let mut world = experienced_with_three_places();
    world.submit_all(6, &both());
    let refused = world.submit(both().within(29));
    let expected = secs(30);
    assert_eq!(
        world.refusal(refused),
        Some(RefusalReason::WaitTooLong { expected }),
        "six before it, fifteen seconds each, three at once"
    );
    let patient = world.submit(both().within(31));
    assert_eq!(world.refusal(patient), None);
}

#[test]
fn who_waits_for_a_full_provider_is_refused_by_its_expectation_though_slots_are_free() {
    let mut world = experienced_with_three_places();
    world.submit_all(2, &ask(1).on(0));
    let refused = world.submit(ask(1).on(0).within(29));
    let expected = secs(30);
    assert_eq!(
        world.refusal(refused),
        Some(RefusalReason::WaitTooLong { expected })
    );
}

#[test]
fn before_a_session_go_only_as_many_of_each_other_as_it_has_itself() {
    let mut world = experienced(20, 10);
    world.submit_all(4, &ask(1));
    world.submit(ask(2));
    let refused = world.submit(ask(3).within(19));
    let expected = secs(20);
    assert_eq!(
        world.refusal(refused),
        Some(RefusalReason::WaitTooLong { expected })
    );
    let patient = world.submit(ask(3).within(21));
    assert_eq!(world.refusal(patient), None);
}

#[test]
fn nobody_is_refused_by_an_expectation_from_few_calls_or_old_ones() {
    let mut world = experienced(19, 30);
    let jobs = world.submit_all(9, &ask(1));
    assert!(jobs.iter().all(|&job| world.refusal(job).is_none()));

    let mut world = experienced(20, 30);
    world.pass(31);
    let jobs = world.submit_all(9, &ask(1));
    assert!(jobs.iter().all(|&job| world.refusal(job).is_none()));
}

#[test]
fn nobody_is_refused_by_an_expectation_while_the_line_is_empty() {
    let mut world = experienced(20, 29);
    world.pass(1);
    let job = world.submit(ask(1).within(2));
    assert_eq!(world.refusal(job), None);
}

#[test]
fn nobody_is_refused_by_an_expectation_while_a_slot_is_free() {
    let mut limits = settings(1);
    limits.session = 1;
    limits.global = 2;
    let mut world = World::new(limits);
    for _ in 0..20 {
        let job = world.submit(ask(9));
        world.pass(30);
        world.finish(job);
    }
    let jobs = world.submit_all(12, &session(1));
    assert_eq!(
        world.view().in_use,
        1,
        "its session is at its limit, a slot is free"
    );
    assert!(jobs.iter().all(|&job| world.refusal(job).is_none()));
}

#[test]
fn a_class_is_not_refused_for_what_is_known_of_another() {
    let mut world = experienced(20, 30);
    let low = ask(2).class(Priority::Low);
    let jobs = world.submit_all(9, &low);
    assert!(jobs.iter().all(|&job| world.refusal(job).is_none()));
    for &job in &jobs {
        world.cancel(job);
    }
    world.submit_all(3, &ask(1));
    let refused = world.submit(low);
    let expected = secs(90);
    assert_eq!(
        world.refusal(refused),
        Some(RefusalReason::WaitTooLong { expected })
    );
}

#[test]
fn pressure_begins_and_ends_at_different_lengths() {
    let mut world = busy(|queue| (queue.pressure_on, queue.pressure_off) = (4, 1));
    let jobs = world.submit_all(3, &ask(1));
    assert!(!world.view().pressure);
    let last = world.submit(ask(1));
    assert!(world.view().pressure);
    for job in [last, jobs[2]] {
        world.cancel(job);
        assert!(world.view().pressure);
    }
    world.cancel(jobs[1]);
    assert!(!world.view().pressure);
}

#[test]
fn the_view_counts_what_waits_by_class_and_provider() {
    let mut world = busy(|_| ());
    world.pass(3);
    world.submit(ask(1).class(Priority::High).bytes(5));
    world.submit(ask(2).class(Priority::Low).bytes(7).on(1));
    world.pass(4);
    let view = world.view();
    assert_eq!((view.waiting, view.waiting_bytes, view.in_use), (2, 12, 1));
    assert_eq!(
        view.providers
            .iter()
            .map(|provider| provider.waiting)
            .collect::<Vec<_>>(),
        [1, 1]
    );
    assert_eq!(view.classes.map(|class| class.waiting), [1, 0, 1]);
    assert_eq!(view.classes[0].oldest, secs(4));
}

#[test]
fn targets_of_one_provider_share_its_limit() {
    let mut limits = settings(1);
    limits.providers[0].limit = 2;
    limits.targets.push(ProviderId(0));
    let mut world = World::new(limits);
    let jobs = [0, 1, 0, 1].map(|target| world.submit(ask(1).on(target)));
    assert_eq!(world.started(), jobs[..2]);
}
