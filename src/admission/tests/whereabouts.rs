//! What a waiting job is told: its place, the wait to expect, and what it waits for.

use super::*;

impl World {
    fn whereabouts(&self, job: u64) -> Option<Whereabouts> {
        self.core.whereabouts(JobId(job), self.now)
    }

    fn position(&self, job: u64) -> usize {
        match self.whereabouts(job) {
            Some(Whereabouts::InLine { position, .. }) => position,
            other => panic!("job {job} is not in line: {other:?}"),
        }
    }

    fn expected(&self, job: u64) -> Option<u64> {
        match self.whereabouts(job) {
            Some(Whereabouts::InLine { expected, .. }) => expected.map(|wait| wait.as_secs()),
            other => panic!("job {job} is not in line: {other:?}"),
        }
    }

    fn obstacle(&self, job: u64) -> Obstacle {
        match self.whereabouts(job) {
            Some(Whereabouts::InLine { obstacle, .. }) => obstacle,
            other => panic!("job {job} is not in line: {other:?}"),
        }
    }
}

#[test]
fn a_place_in_line_counts_higher_classes_and_the_turns_of_others() {
    let mut world = World::new(one_slot());
    let running = world.submit(ask(1));
    let jobs = world.submit_all(3, &ask(1));
    let positions: Vec<usize> = jobs.iter().map(|&job| world.position(job)).collect();
    assert_eq!(positions, [1, 2, 3]);
    let other = world.submit(ask(2));
    assert_eq!(
        world.position(other),
        2,
        "it has its turn in the first round"
    );
    let urgent = world.submit(ask(3).class(Priority::High));
    assert_eq!(world.position(urgent), 1);
    assert_eq!(world.position(other), 3);
    let later = world.submit(ask(4).class(Priority::Low));
    assert_eq!(world.position(later), 6, "all others go before it");
    assert_eq!(world.whereabouts(running), None, "it waits for nothing");
}

#[test]
fn a_wait_is_foretold_once_a_call_has_ended() {
    let mut settings = one_slot();
    settings.global = 2;
    let mut world = World::new(settings);
    let running = world.submit_all(2, &ask(1));
    let first = world.submit(ask(1));
    assert_eq!(world.expected(first), None);
    world.play(12);
    world.finish(running[0]);
    assert!(world.has_started(first));
    let jobs = world.submit_all(4, &ask(1));
    let expected: Vec<_> = jobs.iter().map(|&job| world.expected(job)).collect();
    assert_eq!(
        expected,
        [6, 12, 18, 24].map(Some),
        "12 s each, two at a time"
    );
    let low = world.submit(ask(1).class(Priority::Low));
    assert_eq!(world.expected(low), Some(30), "as the calls of others");
}

#[test]
fn a_session_s_own_limit_makes_its_wait_longer() {
    let mut limits = settings(1);
    limits.session = 1;
    let mut world = World::new(limits);
    let done = world.submit(session(1));
    world.play(10);
    world.finish(done);
    let jobs = world.submit_all(3, &session(1));
    assert_eq!(world.expected(jobs[1]), Some(10));
    assert_eq!(world.expected(jobs[2]), Some(20));
}

#[test]
fn what_stands_in_the_way_is_the_narrowest_limit() {
    let mut limits = settings(2);
    (limits.global, limits.session, limits.sessions) = (3, 1, 2);
    limits.providers[0].limit = 2;
    let mut world = World::new(limits);
    world.submit(session(1));
    let own = world.submit(session(1));
    assert_eq!(world.obstacle(own), full(Slots::Session, 1, 1));
    world.submit(session(2).on(1));
    let third = world.submit(session(3).on(1));
    assert_eq!(world.obstacle(third), full(Slots::Sessions, 2, 2));
    world.submit(ask(4));
    let nameless = world.submit(ask(4));
    assert_eq!(world.obstacle(nameless), full(Slots::Provider, 2, 2));
    let elsewhere = world.submit(ask(4).on(1));
    assert_eq!(world.obstacle(elsewhere), full(Slots::Global, 3, 3));
}

#[test]
fn slots_that_are_kept_for_others_are_told_from_full_ones() {
    let mut limits = settings(2);
    limits.global = 2;
    limits.providers[1].reserves = true;
    let mut world = World::new(limits);
    world.submit(ask(1));
    let waits = world.submit(ask(1));
    assert_eq!(world.obstacle(waits), full(Slots::Shared, 1, 1));
}

#[test]
fn a_shut_target_says_until_when_and_why() {
    let mut settings = settings(1);
    settings.providers[0].retry = RetrySettings::default();
    let mut world = World::new(settings);
    let first = world.submit(ask(1));
    let retry_after = Some(secs(7));
    world.fail(first, Cause::Congested { retry_after });
    let waits = world.submit(ask(2));
    let Obstacle::Shut(left, Shut::RateLimited) = world.obstacle(waits) else {
        panic!("{:?}", world.obstacle(waits));
    };
    assert!(left >= secs(7), "{left:?}");
    assert_eq!(world.expected(waits), Some(left.as_secs()));
    let Some(Whereabouts::BackingOff(left)) = world.whereabouts(first) else {
        panic!("{:?}", world.whereabouts(first));
    };
    assert!(left >= secs(7), "{left:?}");
}

#[test]
fn the_first_of_many_flows_start_in_the_order_that_they_were_told() {
    let mut world = World::new(one_slot());
    let mut running = world.submit(ask(1));
    let mut heads: Vec<u64> = (1..=6).map(|flow| world.submit(ask(flow))).collect();
    heads.sort_by_key(|&job| world.position(job));
    let positions: Vec<usize> = heads.iter().map(|&job| world.position(job)).collect();
    assert_eq!(positions, [1, 2, 3, 4, 5, 6]);
    for head in heads {
        assert_eq!(world.position(head), 1);
        world.finish(running);
        assert!(world.has_started(head));
        running = head;
    }
}

#[test]
fn a_long_line_is_not_counted_to_its_end() {
    let mut world = World::new(one_slot());
    let jobs = world.submit_all(300, &ask(1));
    world.submit(ask(2));
    assert_eq!(
        world.position(jobs[10]),
        19,
        "each of two flows has its turn"
    );
    let counted = 2 * SLICE + 1;
    assert_eq!(world.position(jobs[299]), counted.min(300));
}
