//! Places for sessions: busy sessions make room for newcomers, turn by turn.

use super::*;

/// Room for so many sessions, each with so many calls; two providers.
fn places(sessions: usize, session: usize) -> Settings {
    let mut limits = settings(2);
    (limits.sessions, limits.session) = (sessions, session);
    limits.queue.timeout = secs(1_000);
    limits
}

#[test]
fn a_session_too_many_waits_and_takes_the_first_place_that_is_free() {
    let mut world = World::new(places(2, 5));
    let jobs: Vec<u64> = (1..=3).map(|flow| world.submit(session(flow))).collect();
    assert_eq!(world.started(), jobs[..2]);
    world.finish(jobs[1]);
    assert_eq!(world.started(), jobs[2..]);
}

#[test]
fn a_busy_session_makes_room_when_its_turn_is_over() {
    let mut world = World::new(places(1, 1));
    let busy = world.submit_all(3, &session(1));
    world.play(20);
    let newcomer = world.submit(session(2));
    world.finish(busy[0]);
    assert!(
        world.has_started(newcomer),
        "it has waited longest for a place"
    );
    assert!(!world.has_started(busy[1]));
}

/// Calls of 4 s, two at a time, always eight more in line: runs until the newcomer's job has its end.
fn wait_of_a_newcomer(busy: &[Ask], newcomer: Ask, limits: Settings) -> Duration {
    let mut world = World::new(limits);
    let mut running: Vec<(Time, u64, Ask)> = Vec::new();
    let mut asks: HashMap<u64, Ask> = HashMap::new();
    for ask in busy {
        for job in world.submit_all(10, ask) {
            asks.insert(job, ask.clone());
        }
    }
    world.pass(1);
    let arrival = world.now;
    let mine = world.submit(newcomer.within(100_000));
    while !world.has_started(mine) {
        assert_eq!(world.ending(mine), None, "the newcomer is starved");
        for job in world.started() {
            running.push((world.now + secs(4), job, asks[&job].clone()));
        }
        world.play(1);
        let (over, on): (Vec<_>, Vec<_>) =
            running.into_iter().partition(|call| call.0 <= world.now);
        running = on;
        for (_, job, ask) in over {
            let next = world.submit(ask.clone());
            asks.insert(next, ask);
            world.finish(job);
        }
    }
    world.now.since(arrival)
}

#[test]
fn a_newcomer_is_not_starved_by_a_busy_session() {
    let wait = wait_of_a_newcomer(&[session(1)], session(2), places(1, 2));
    assert!(wait <= secs(20), "it waited for {wait:?}");
}

#[test]
fn a_newcomer_is_not_starved_by_a_session_that_is_busy_in_two_lines() {
    let busy = [session(1), session(1).on(1)];
    let wait = wait_of_a_newcomer(&busy, session(2).on(1), places(1, 2));
    assert!(wait <= secs(30), "it waited for {wait:?}");
}

#[test]
fn a_session_that_has_older_jobs_in_another_line_does_not_take_the_place_again() {
    let mut world = World::new(places(1, 1));
    let busy = world.submit_all(5, &session(1));
    let newcomer = world.submit(session(2).on(1));
    world.started();
    world.finish(busy[0]);
    assert_eq!(world.started(), [newcomer]);
    world.finish(newcomer);
    assert_eq!(world.started(), [busy[1]]);
}

#[test]
fn a_session_s_own_jobs_start_in_order_when_it_gets_its_place() {
    let mut limits = places(1, 1);
    limits.global = 2;
    let mut world = World::new(limits);
    let first = world.submit(session(1));
    let [older, younger] = [1, 0].map(|target| world.submit(session(2).on(target)));
    world.started();
    world.finish(first);
    assert_eq!(world.started(), [older]);
    world.finish(older);
    assert_eq!(world.started(), [younger]);
}

#[test]
fn as_many_sessions_make_room_as_wait_for_a_place() {
    let mut world = World::new(places(2, 2));
    let first = world.submit_all(2, &session(1));
    let second = world.submit_all(3, &session(2));
    let newcomers = [world.submit(session(3)), world.submit(session(4))];
    world.play(25);
    world.started();
    world.finish(first[0]);
    world.finish(second[0]);
    assert_eq!(world.started(), [] as [u64; 0], "both start nothing more");
    world.finish(first[1]);
    assert_eq!(world.started(), newcomers[..1]);
    world.finish(second[1]);
    assert_eq!(
        world.started(),
        newcomers[1..],
        "one place taken does not call off the other"
    );
}

#[test]
fn nobody_makes_room_once_the_newcomer_has_left() {
    let mut world = World::new(places(1, 2));
    let busy = world.submit_all(4, &session(1));
    let newcomer = world.submit(session(2));
    world.play(15);
    world.started();
    world.finish(busy[0]);
    assert_eq!(world.started(), [] as [u64; 0], "its turn is over");
    world.cancel(newcomer);
    assert_eq!(
        world.started(),
        [busy[2]],
        "nobody waits for its place any more"
    );
}

#[test]
fn a_place_is_kept_for_a_turn() {
    let mut world = World::new(places(1, 2));
    let busy = world.submit_all(9, &session(1));
    world.play(100);
    world.submit(session(2));
    world.started();
    world.play(9);
    world.finish(busy[0]);
    assert_eq!(
        world.started(),
        [busy[2]],
        "a turn begins with the first who waits"
    );
    world.play(1);
    world.finish(busy[1]);
    assert_eq!(world.started(), [] as [u64; 0]);
}

#[test]
fn a_session_at_its_limit_hides_nobody() {
    let mut limits = places(9, 1);
    limits.global = 2;
    let mut world = World::new(limits);
    let first = world.submit_all(5, &session(1));
    let other = world.submit(session(2));
    assert_eq!(world.started(), [first[0], other]);
}

#[test]
fn a_call_that_is_interrupted_keeps_its_session_s_slot_until_it_is_back() {
    let mut world = World::new(places(1, 1));
    let job = world.submit(session(1));
    let next = world.submit(session(1));
    world.cancel(job);
    assert!(!world.has_started(next), "its socket may still be open");
    world.finish(job);
    assert!(world.has_started(next));
}
