//! The audit: a counter that is off is found, and named.

use super::*;
use crate::admission::state::Waiting;

/// What the audit says when one of the counters is off.
fn says(spoil: fn(&mut Waiting)) -> String {
    let mut world = World::new(one_slot());
    world.submit(ask(1));
    world.submit(ask(2).bytes(7));
    spoil(&mut world.core.waiting);
    world.core.audit().expect_err("it is off")
}

#[test]
fn each_counter_of_what_waits_that_is_off_is_found() {
    for (said, name) in [
        (says(|waiting| waiting.bytes += 1), "bytes in line"),
        (says(|waiting| waiting.by_provider[0] = 0), "by provider"),
        (says(|waiting| waiting.ages.swap(1, 2)), "by age"),
        (says(|waiting| waiting.lengths[0][1].clear()), "lengths"),
    ] {
        assert!(said.contains(name), "{said:?} does not say {name:?}");
    }
}

#[test]
fn a_job_in_line_whose_time_nobody_watches_is_found() {
    let mut world = World::new(one_slot());
    world.submit(ask(1));
    let waits = JobId(world.submit(ask(1)));
    let job = &world.core.jobs[&waits];
    let (stage, due) = (job.stage(), job.due());
    world.core.onward.leave(stage, due, waits);
    let said = world.core.audit().expect_err("it is off");
    assert_eq!(said, "1 wait, 0 are watched");
}
