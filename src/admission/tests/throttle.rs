//! The global limit while the load of the box holds it down.

use super::*;

/// A global limit of five.
fn of_five() -> Settings {
    let mut settings = settings(1);
    settings.global = 5;
    settings
}

/// At most so many calls in flight, for the load of the box.
fn throttle(most: usize) -> Event {
    Event::Throttle(Throttle {
        most,
        refuses_low: false,
    })
}

#[test]
fn a_throttle_drains_and_interrupts_nobody_and_lets_go_in_one_step() {
    let mut world = World::new(of_five());
    let jobs = world.submit_all(5, &ask(1));
    let waiting = world.submit_all(4, &ask(1));
    assert_eq!(world.started(), jobs);
    world.on(throttle(2));
    assert_eq!((world.view().limit, world.view().limit_now), (5, 2));
    for job in &jobs[..3] {
        world.finish(*job);
        assert_eq!(world.started(), [] as [u64; 0]);
    }
    assert!(jobs.iter().all(|job| world.seen[job].interrupted.is_none()));
    world.finish(jobs[3]);
    assert_eq!(world.started(), waiting[..1], "1 of 2 was in flight");
    world.on(Event::Throttle(Throttle::NONE));
    assert_eq!(world.started(), waiting[1..]);
}

#[test]
fn a_throttle_never_raises_the_limit_and_never_shuts_it() {
    let mut world = World::new(of_five());
    world.on(throttle(100));
    assert_eq!(world.view().limit_now, 5);
    world.on(throttle(0));
    assert_eq!(world.view().limit_now, 1, "0 counts as 1");
    let jobs = world.submit_all(2, &ask(1));
    assert_eq!(world.started(), jobs[..1]);
}

#[test]
fn new_limits_leave_the_throttle_in_force() {
    let mut world = World::new(of_five());
    world.on(throttle(2));
    let mut settings = of_five();
    settings.global = 4;
    world.on(Event::Change(Box::new(Change {
        settings,
        anew: Vec::new(),
        gone: Vec::new(),
    })));
    let jobs = world.submit_all(5, &ask(1));
    assert_eq!(world.started(), jobs[..2]);
    world.on(Event::Throttle(Throttle::NONE));
    assert_eq!(world.started(), jobs[2..4], "the new limit, not the old");
}

#[test]
fn a_refusal_says_that_the_throttle_holds_the_limit_down() {
    let mut settings = of_five();
    settings.queue.capacity = 1;
    let mut world = World::new(settings);
    world.on(throttle(1));
    let jobs = world.submit_all(3, &ask(1));
    let Some(Ending::Refused(refusal)) = world.seen[&jobs[2]].ending else {
        panic!("the queue is full");
    };
    assert_eq!(refusal.throttled, Some(Throttled { to: 1, of: 5 }));
    assert_eq!(
        refusal.to_string(),
        "the queue is full (queue.capacity); the throttle holds the global limit at 1 of 5 (/api/throttling/status says why)"
    );
}

#[test]
fn only_the_lowest_class_is_refused_for_the_load_of_the_box() {
    let mut world = World::new(of_five());
    let before = world.submit(ask(1).class(Priority::Low));
    world.on(Event::Throttle(Throttle {
        most: 5,
        refuses_low: true,
    }));
    let low = world.submit(ask(1).class(Priority::Low));
    let medium = world.submit(ask(1).class(Priority::Medium));
    assert_eq!(world.started(), [before, medium]);
    let Some(Ending::Refused(refusal)) = &world.seen[&low].ending else {
        panic!("it is refused");
    };
    assert_eq!(refusal.reason, RefusalReason::BoxLoaded);
    assert_eq!(refusal.throttled, None, "the limit is as configured");
}
