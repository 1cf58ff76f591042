//! Who goes first: by weight between classes, by service between flows, by age where all else is equal.

use super::*;

/// Somebody who always has four jobs in line, each for so many seconds.
#[derive(Debug, Clone)]
struct Client {
    ask: Ask,
    call: u64,
}

fn client(ask: Ask, call: u64) -> Client {
    Client { ask, call }
}

/// Lets the clients compete for so many seconds, and says how many seconds of service each has had.
fn compete(limits: Settings, clients: &[Client], seconds: u64) -> Vec<u64> {
    let mut world = World::new(limits);
    let mut owner = HashMap::new();
    let mut served = vec![0; clients.len()];
    let mut running: Vec<(u64, Time)> = Vec::new();
    for (index, client) in clients.iter().enumerate() {
        for job in world.submit_all(4, &client.ask) {
            owner.insert(job, index);
        }
    }
    while world.now < Time::ZERO + secs(seconds) {
        for job in world.started() {
            let index = owner[&job];
            running.push((job, world.now + secs(clients[index].call)));
            owner.insert(world.submit(clients[index].ask.clone()), index);
        }
        let next = running
            .iter()
            .map(|call| call.1)
            .min()
            .expect("somebody runs");
        world.play(next.since(world.now).as_secs());
        let over: Vec<u64> = running
            .iter()
            .filter(|call| call.1 <= next)
            .map(|call| call.0)
            .collect();
        running.retain(|call| call.1 > next);
        for job in over {
            served[owner[&job]] += clients[owner[&job]].call;
            world.finish(job);
        }
    }
    served
}

/// Limits under which nobody gives up waiting.
fn patient(slots: usize) -> Settings {
    let mut limits = settings(1);
    limits.global = slots;
    limits.queue.timeout = secs(1_000_000);
    limits
}

/// Checks that the shares of service are as said, to so many parts in a hundred.
fn check_shares(served: &[u64], shares: &[u64], percent: f64) {
    let (total, all) = (
        served.iter().sum::<u64>() as f64,
        shares.iter().sum::<u64>() as f64,
    );
    for (had, share) in served.iter().zip(shares) {
        let due = total * *share as f64 / all;
        let off = (*had as f64 - due).abs() / due * 100.0;
        assert!(
            off <= percent,
            "{served:?}: one is {off:.1} % off its share"
        );
    }
}

#[test]
fn classes_share_sixteen_to_four_to_one() {
    let clients = Priority::ALL.map(|class| client(ask(1).class(class).within(100_000), 5));
    check_shares(&compete(patient(3), &clients, 60_000), &[16, 4, 1], 2.0);
}

#[test]
fn classes_that_compete_share_by_weight_even_beside_one_that_cannot_use_its_share() {
    let mut limits = patient(6);
    limits.session = 1;
    let high = client(session(1).class(Priority::High).within(100_000), 5);
    let medium = client(ask(2).within(100_000), 5);
    let low = client(ask(3).class(Priority::Low).within(100_000), 5);
    let served = compete(limits, &[high, medium, low], 20_000);
    check_shares(&served[..1], &[1], 0.0);
    check_shares(&[served[0], served[1] + served[2]], &[1, 5], 1.0);
    check_shares(&served[1..], &[4, 1], 2.0);
}

#[test]
fn a_session_whose_limit_is_just_above_its_share_gets_its_share() {
    let mut limits = patient(5);
    limits.session = 2;
    let clients =
        [session(7), ask(6), ask(120)].map(|ask| client(ask.clone().within(100_000), ask.flow));
    check_shares(&compete(limits, &clients, 40_000), &[1, 1, 1], 1.0);
}

#[test]
fn sessions_with_calls_of_different_length_get_the_same_service() {
    let clients = [6, 25, 120].map(|call| client(session(call).within(100_000), call));
    check_shares(&compete(patient(1), &clients, 20_000), &[1, 1, 1], 2.0);
}

#[test]
fn a_flow_with_many_jobs_in_line_gets_no_more_than_one_with_few() {
    let many = client(ask(1), 5);
    let clients = [
        many.clone(),
        many.clone(),
        many.clone(),
        many,
        client(ask(2), 5),
    ];
    let served = compete(patient(1), &clients, 10_000);
    let first: u64 = served[..4].iter().sum();
    check_shares(&[first, served[4]], &[1, 1], 1.0);
}

#[test]
fn low_is_served_under_a_flood_of_high() {
    let flood = client(ask(1).class(Priority::High), 2);
    let low = client(ask(2).class(Priority::Low), 2);
    let served = compete(
        patient(2),
        &[flood.clone(), flood.clone(), flood, low],
        2_000,
    );
    assert!(served[3] >= 2_000 * 2 / 17 - 10, "low had {} s", served[3]);
}

#[test]
fn an_interactive_job_goes_before_those_that_wait_in_lower_classes() {
    let mut world = World::new(one_slot());
    let first = world.submit(ask(1).class(Priority::Low));
    world.submit_all(9, &ask(1).class(Priority::Low));
    world.submit_all(9, &ask(2));
    world.pass(1);
    let interactive = world.submit(ask(3).class(Priority::High));
    world.started();
    world.finish(first);
    assert_eq!(world.started(), [interactive]);
}

#[test]
fn an_interactive_job_is_next_however_wrong_the_first_estimates_are() {
    let mut limits = patient(8);
    limits.session = 8;
    let mut world = World::new(limits);
    world.submit_all(100, &ask(1).class(Priority::Low));
    let running = world.started();
    world.play(1);
    let interactive = world.submit(ask(2).class(Priority::High));
    world.play(1);
    for &job in &running[..2] {
        world.finish(job);
    }
    assert!(
        world.has_started(interactive),
        "what others were charged too much is not its debt"
    );
}

#[test]
fn a_session_that_joins_is_next_however_wrong_the_first_estimates_are() {
    let mut world = World::new(patient(8));
    world.submit_all(100, &session(1));
    let running = world.started();
    world.play(1);
    let newcomer = world.submit(session(2));
    world.play(1);
    for &job in &running[..2] {
        world.finish(job);
    }
    assert!(
        world.has_started(newcomer),
        "what others were charged too much is not its debt"
    );
}

#[test]
fn within_a_flow_the_first_to_come_is_the_first_to_go() {
    let mut world = World::new(one_slot());
    let jobs = world.submit_all(5, &ask(1));
    world.cancel(jobs[2]);
    for &job in &[jobs[0], jobs[1], jobs[3], jobs[4]] {
        assert_eq!(world.started(), [job]);
        world.finish(job);
    }
}

#[test]
fn between_lines_the_oldest_job_goes_first() {
    let mut limits = settings(2);
    limits.global = 1;
    let mut world = World::new(limits);
    let first = world.submit(ask(1));
    let waiting = [1, 0, 0, 1].map(|target| world.submit(ask(2).on(target)));
    let mut last = first;
    world.started();
    for job in waiting {
        world.finish(last);
        assert_eq!(world.started(), [job]);
        last = job;
    }
}

#[test]
fn a_job_that_falls_back_keeps_its_place_among_those_of_its_flow() {
    let mut limits = settings(2);
    limits.providers[1].limit = 1;
    let mut world = World::new(limits);
    let back = world.submit(ask(1).along(&[&[0], &[1]]));
    let busy = world.submit(ask(1).on(1));
    let younger = world.submit(ask(1).on(1));
    world.give_back(back, FALLS_BACK);
    world.started();
    world.finish(busy);
    assert_eq!(world.started(), [back]);
    assert_eq!(world.seen[&back].attempt, 2);
    world.give_back(back, FALLS_BACK);
    assert_eq!(
        world.ending(back),
        Some(Ending::Finished(FALLS_BACK)),
        "there is no third stage"
    );
    assert_eq!(world.started(), [younger]);
}

#[test]
fn a_later_stage_is_entered_only_by_fallback() {
    let mut limits = settings(2);
    limits.providers[0].limit = 1;
    let mut world = World::new(limits);
    let jobs = world.submit_all(2, &ask(1).along(&[&[0], &[1]]));
    assert_eq!(world.started(), jobs[..1]);
    world.give_back(jobs[0], FALLS_BACK);
    let targets: Vec<_> = jobs.iter().map(|job| world.seen[job].target).collect();
    assert_eq!(targets, [Some(TargetId(1)), Some(TargetId(0))]);
}

#[test]
fn a_fallback_is_never_refused() {
    let mut limits = settings(2);
    limits.providers[1].limit = 1;
    limits.queue = QueueSettings {
        capacity: 1,
        per_session: 1,
        max_bytes: 10,
        per_provider: 1,
        ..limits.queue
    };
    let mut world = World::new(limits);
    world.submit_all(2, &ask(1).on(1).bytes(10));
    let back = world.submit_all(3, &ask(1).along(&[&[0], &[1]]).bytes(10));
    for &job in &back {
        world.give_back(job, FALLS_BACK);
        assert_eq!(world.ending(job), None);
    }
    assert_eq!(world.view().waiting, 4);
}
