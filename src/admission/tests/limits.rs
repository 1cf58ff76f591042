//! Limits: never exceeded, taken all or none, and one provider's trouble is its own.

use super::*;

/// How many of twenty jobs of one session start under these settings.
fn started_of_twenty(settings: Settings) -> usize {
    let mut world = World::new(settings);
    world.submit_all(20, &session(1));
    world.started().len()
}

#[test]
fn the_least_of_all_limits_decides() {
    let lower = |change: fn(&mut Settings)| {
        let mut settings = settings(1);
        change(&mut settings);
        started_of_twenty(settings)
    };
    assert_eq!(lower(|_| ()), 20);
    assert_eq!(lower(|limits| limits.workers = 3), 3);
    assert_eq!(lower(|limits| limits.global = 4), 4);
    assert_eq!(lower(|limits| limits.session = 5), 5);
    assert_eq!(lower(|limits| limits.providers[0].limit = 6), 6);
    assert_eq!(lower(|limits| (limits.global, limits.session) = (4, 2)), 2);
}

#[test]
fn a_slot_given_back_goes_to_the_next_in_the_same_step() {
    let mut world = World::new(one_slot());
    let jobs = world.submit_all(3, &ask(1));
    for job in jobs {
        assert_eq!(world.started(), [job]);
        world.finish(job);
    }
    assert_eq!(world.view().in_use, 0);
}

#[test]
fn while_one_provider_is_full_a_job_for_another_starts_at_once() {
    let mut limits = settings(2);
    limits.providers[0].limit = 2;
    let mut world = World::new(limits);
    world.submit_all(50, &ask(1));
    assert_eq!(world.started().len(), 2);
    let other = world.submit(ask(1).on(1));
    assert_eq!(world.started(), [other]);
}

#[test]
fn who_waits_for_its_provider_takes_nothing_of_its_session() {
    let mut limits = settings(2);
    limits.providers[0].limit = 1;
    (limits.session, limits.sessions) = (1, 2);
    let mut world = World::new(limits);
    world.submit(session(1));
    let waiting = world.submit(session(2));
    let other = world.submit(session(2).on(1));
    assert!(!world.has_started(waiting));
    assert!(world.has_started(other), "its session was not full");
    assert_eq!(world.view().sessions, 2);
}

#[test]
fn who_waits_for_its_session_takes_nothing_of_its_provider() {
    let mut limits = settings(1);
    (limits.session, limits.global) = (1, 2);
    let mut world = World::new(limits);
    let first = world.submit(session(1));
    let second = world.submit(session(1));
    let other = world.submit(session(2));
    assert_eq!(world.started(), [first, other]);
    world.finish(first);
    assert_eq!(world.started(), [second]);
}

#[test]
fn requests_without_a_session_share_a_line_but_have_no_limit() {
    let mut limits = settings(1);
    (limits.session, limits.sessions) = (1, 1);
    let mut world = World::new(limits);
    world.submit_all(9, &ask(1));
    assert_eq!(world.started().len(), 9);
    assert_eq!(world.view().sessions, 0);
}

/// How many calls a lone provider gets of ten slots, beside others that are idle.
fn room_beside(idle_remote: usize, idle_embedded: usize) -> usize {
    let mut limits = settings(1 + idle_remote + idle_embedded);
    limits.global = 10;
    for provider in &mut limits.providers[1..=idle_remote] {
        provider.reserves = true;
    }
    let mut world = World::new(limits);
    world.submit_all(20, &ask(1));
    world.started().len()
}

#[test]
fn one_slot_is_kept_for_each_idle_remote_provider_but_at_most_half_of_all() {
    assert_eq!(room_beside(0, 0), 10);
    assert_eq!(room_beside(1, 0), 9);
    assert_eq!(room_beside(3, 0), 7);
    assert_eq!(room_beside(8, 0), 5, "half of the limit is the most");
    assert_eq!(
        room_beside(0, 4),
        10,
        "an embedded provider is kept nothing"
    );
    assert_eq!(room_beside(2, 2), 8);
}

#[test]
fn a_slot_is_kept_among_the_workers_too() {
    let mut limits = settings(2);
    (limits.workers, limits.global) = (4, 24);
    limits.providers[1].reserves = true;
    let mut world = World::new(limits);
    world.submit_all(20, &ask(1));
    assert_eq!(world.started().len(), 3);
    let other = world.submit(ask(2).on(1));
    assert_eq!(
        world.started(),
        [other],
        "no silent provider takes every worker"
    );
}

#[test]
fn a_slot_kept_for_a_provider_is_free_for_the_rest_once_it_has_one() {
    let mut limits = settings(2);
    limits.global = 4;
    limits.providers[1].reserves = true;
    let mut world = World::new(limits);
    let jobs = world.submit_all(8, &ask(1));
    assert_eq!(world.started().len(), 3);
    let other = world.submit(ask(2).on(1));
    assert_eq!(world.started(), [other]);
    world.finish(jobs[0]);
    assert_eq!(world.started(), [jobs[3]]);
    world.finish(other);
    assert_eq!(
        world.started(),
        [] as [u64; 0],
        "it is idle again: its slot is kept"
    );
}

#[test]
fn a_silent_provider_leaves_the_kept_slots_to_the_idle_ones_however_many_they_are() {
    for global in 2..=6 {
        let mut limits = settings(5);
        limits.global = global;
        limits
            .providers
            .iter_mut()
            .for_each(|provider| provider.reserves = true);
        let mut world = World::new(limits);
        world.submit_all(20, &ask(1));
        let taken = world.started().len();
        for other in 1..=(global - taken) as u32 {
            let job = world.submit(ask(2).on(other));
            assert_eq!(world.started(), [job], "of {global}, {taken} were taken");
        }
        world.submit_all(3, &ask(3).on(1));
        assert_eq!(world.started(), [] as [u64; 0], "each slot is in use");
    }
}

#[test]
fn one_global_slot_is_not_kept_for_anybody() {
    let mut limits = settings(3);
    limits.global = 1;
    limits.providers[1].reserves = true;
    limits.providers[2].reserves = true;
    let mut world = World::new(limits);
    let job = world.submit(ask(1));
    assert_eq!(world.started(), [job]);
}

#[test]
fn any_free_target_of_the_stage_will_do() {
    let mut limits = settings(2);
    limits.providers[0].limit = 1;
    limits.providers[1].limit = 2;
    let mut world = World::new(limits);
    let jobs = world.submit_all(4, &ask(1).along(&[&[0, 1]]));
    let targets: Vec<_> = jobs.iter().map(|job| world.seen[job].target).collect();
    assert_eq!(
        targets,
        [
            Some(TargetId(0)),
            Some(TargetId(1)),
            Some(TargetId(1)),
            None
        ]
    );
}

#[test]
fn a_line_that_cannot_go_on_does_not_hold_up_an_older_one_or_a_younger_one() {
    let mut limits = settings(3);
    limits.global = 3;
    for provider in &mut limits.providers {
        provider.limit = 1;
    }
    let mut world = World::new(limits);
    let running: Vec<u64> = (0..3)
        .map(|target| world.submit(ask(1).on(target)))
        .collect();
    let waiting: Vec<u64> = (0..3)
        .map(|target| world.submit(ask(2).on(target)))
        .collect();
    world.started();
    for turn in [1, 2, 0] {
        world.finish(running[turn]);
        assert_eq!(world.started(), [waiting[turn]]);
    }
}

#[test]
fn a_session_with_a_lower_limit_of_its_own_stays_below_it_and_hides_nobody() {
    let mut limits = settings(1);
    limits.session = 3;
    let mut world = World::new(limits);
    let limited = world.submit_all(5, &session(1).limited(1));
    let others = world.submit_all(5, &session(2));
    assert_eq!(
        world.started(),
        [limited[0], others[0], others[1], others[2]]
    );
    world.finish(limited[0]);
    assert_eq!(world.started(), [limited[1]]);
}

#[test]
fn a_limit_of_its_own_never_raises_that_of_all_sessions() {
    let mut limits = settings(1);
    limits.session = 2;
    let mut world = World::new(limits);
    world.submit_all(5, &session(1).limited(4));
    assert_eq!(world.started().len(), 2);
}

#[test]
fn a_limit_that_is_raised_starts_whoever_waited_for_it() {
    type Set = fn(&mut Settings, usize);
    let limits: [Set; 4] = [
        |settings, to| settings.workers = to,
        |settings, to| settings.global = to,
        |settings, to| settings.session = to,
        |settings, to| settings.providers[0].limit = to,
    ];
    for set in limits {
        let mut settings = settings(1);
        set(&mut settings, 2);
        let mut world = World::new(settings.clone());
        let jobs = world.submit_all(6, &session(1));
        assert_eq!(world.started(), jobs[..2]);
        set(&mut settings, 4);
        world.change(settings);
        assert_eq!(world.started(), jobs[2..4]);
    }
}

#[test]
fn a_limit_below_what_is_in_flight_drains_and_interrupts_nobody() {
    let mut settings = settings(1);
    let mut world = World::new(settings.clone());
    let jobs = world.submit_all(5, &ask(1));
    settings.global = 2;
    world.change(settings);
    let next = world.submit(ask(1));
    world.started();
    for job in &jobs[..3] {
        assert!(world.seen[job].interrupted.is_none());
        world.finish(*job);
        assert_eq!(world.started(), [] as [u64; 0]);
    }
    world.finish(jobs[3]);
    assert_eq!(world.started(), [next]);
}

#[test]
fn a_learned_limit_never_stands_above_a_configured_one_that_was_lowered() {
    let mut settings = settings(1);
    settings.providers[0].adaptive = true;
    let mut world = World::new(settings.clone());
    for (to, limit, why) in [(2, 2, "lowered"), (0, 1, "0 counts as 1")] {
        settings.providers[0].limit = to;
        world.change(settings.clone());
        assert_eq!(world.view().targets[0].limit, limit, "{why}");
    }
}
