//! Calls that are tried again: when, how often, and what the job holds meanwhile.

use super::*;

const CONGESTED: Cause = Cause::Congested { retry_after: None };

fn retrying(providers: usize) -> Settings {
    let mut settings = settings(providers);
    for provider in &mut settings.providers {
        provider.retry = RetrySettings::default();
    }
    settings
}

/// One call at a time, at each of so many providers.
fn narrow(providers: usize) -> Settings {
    let mut settings = retrying(providers);
    settings
        .providers
        .iter_mut()
        .for_each(|provider| provider.limit = 1);
    settings
}

fn failed(cause: Cause) -> Option<Ending> {
    Some(Ending::Finished(Outcome::Failed(cause)))
}

#[test]
fn a_call_that_was_not_processed_is_tried_three_times_and_no_more() {
    for cause in [CONGESTED, Cause::Unreachable] {
        let mut world = World::new(retrying(1));
        let job = world.submit(ask(1));
        for attempt in 1..=3 {
            assert_eq!(
                (world.seen[&job].attempt, world.ending(job)),
                (attempt, None)
            );
            world.fail(job, cause);
            world.play(20);
        }
        assert_eq!(
            (world.seen[&job].attempt, world.ending(job)),
            (3, failed(cause))
        );
    }
}

#[test]
fn a_provider_that_failed_is_asked_once_more_where_it_may_be() {
    let mut world = World::new(retrying(1));
    let job = world.submit(ask(1));
    world.fail(job, Cause::Failing { again: true });
    world.play(20);
    world.fail(job, Cause::Failing { again: true });
    assert_eq!(
        (world.seen[&job].attempt, world.ending(job).is_some()),
        (2, true)
    );
    let job = world.submit(ask(1));
    for cause in [CONGESTED, Cause::Failing { again: true }] {
        world.fail(job, cause);
        world.play(20);
    }
    assert_eq!(
        world.seen[&job].attempt, 3,
        "it had refused before, and not failed"
    );
    let job = world.submit(ask(1));
    world.fail(job, Cause::Failing { again: false });
    assert!(world.ending(job).is_some());
}

#[test]
fn what_may_have_been_processed_or_would_fail_again_is_not_tried_again() {
    for cause in [
        Cause::Unanswered,
        Cause::Broken,
        Cause::Credentials,
        Cause::Quota,
        Cause::ModelUnavailable,
        Cause::Barred,
        Cause::Request,
        Cause::Unwanted,
        Cause::Own,
    ] {
        let mut world = World::new(retrying(1));
        let job = world.submit(ask(1));
        world.fail(job, cause);
        assert_eq!(world.ending(job), failed(cause));
    }
}

#[test]
fn nothing_is_tried_again_or_elsewhere_once_content_went_out() {
    let mut world = World::new(retrying(2));
    let job = world.submit(ask(1).along(&[&[0], &[1]]));
    let report = Report {
        content: true,
        ..Outcome::Failed(CONGESTED).into()
    };
    world.give_back(job, report);
    assert_eq!(
        (world.ending(job), world.view().in_use),
        (failed(CONGESTED), 0)
    );
}

#[test]
fn a_job_that_backs_off_holds_nothing_and_the_next_takes_its_slot_at_once() {
    let mut world = World::new(narrow(1));
    let first = world.submit(session(1));
    let next = world.submit(ask(2));
    world.started();
    world.fail(first, CONGESTED);
    assert_eq!(world.started(), [next]);
    let view = world.view();
    assert_eq!((view.sessions, view.in_use), (0, 1));
    assert_eq!((view.backing_off, view.waiting), (1, 0));
}

#[test]
fn who_comes_back_has_the_place_that_it_had() {
    let mut world = World::new(narrow(1));
    let first = world.submit(ask(1));
    let others = world.submit_all(5, &ask(1));
    world.started();
    world.fail(first, CONGESTED);
    assert_eq!(world.started(), others[..1]);
    world.play(1);
    assert_eq!(world.view().backing_off, 0);
    world.finish(others[0]);
    assert_eq!(world.started(), [first]);
}

#[test]
fn who_comes_back_is_refused_by_no_bound_and_gives_way_to_nobody() {
    let mut limits = narrow(1);
    limits.queue.capacity = 2;
    let mut world = World::new(limits);
    let first = world.submit(ask(1));
    let waiting = world.submit_all(2, &ask(1));
    world.fail(first, CONGESTED);
    let refused = world.submit_all(2, &ask(1));
    assert_eq!(
        world.refusal(refused[0]),
        Some(RefusalReason::QueueFull),
        "its place is not given away"
    );
    world.play(1);
    let newcomer = world.submit(ask(2));
    assert_eq!(world.ending(first), None);
    assert_eq!(
        world.refusal(waiting[1]),
        Some(RefusalReason::Displaced),
        "{newcomer}"
    );
}

#[test]
fn every_retry_after_is_waited_for_and_each_new_one_anew() {
    let mut world = World::new(retrying(1));
    let job = world.submit(ask(1));
    for wait in [7, 9] {
        world.started();
        world.fail(
            job,
            Cause::Congested {
                retry_after: Some(secs(wait)),
            },
        );
        world.play(wait - 1);
        assert_eq!(world.started(), [] as [u64; 0]);
        world.play(3);
        assert_eq!(world.started(), [job]);
    }
}

#[test]
fn a_wait_that_the_deadline_does_not_allow_fails_at_once() {
    let mut world = World::new(retrying(1));
    let job = world.submit(ask(1).within(30));
    let cause = Cause::Congested {
        retry_after: Some(secs(3_600)),
    };
    world.fail(job, cause);
    assert_eq!(world.ending(job), failed(cause));
}

#[test]
fn a_repetition_leaves_time_for_the_usual_first_byte() {
    let mut world = World::new(retrying(1));
    for _ in 0..20 {
        let job = world.submit(ask(1));
        let report = Report {
            first_byte: Some(secs(25)),
            ..Outcome::Completed.into()
        };
        world.give_back(job, report);
    }
    let hurried = world.submit(ask(1).within(25));
    world.fail(hurried, CONGESTED);
    assert_eq!(world.ending(hurried), failed(CONGESTED));
    let patient = world.submit(ask(1).within(27));
    world.fail(patient, CONGESTED);
    assert_eq!(world.ending(patient), None);
}

#[test]
fn a_target_that_fails_all_calls_gets_five_repetitions_in_all() {
    let mut world = World::new(retrying(1));
    let jobs = world.submit_all(50, &ask(1));
    for _ in 0..3 {
        for &job in &jobs {
            let seen = &world.seen[&job];
            if seen.ending.is_none() && seen.back_at.is_none() {
                world.fail(job, CONGESTED);
            }
        }
        world.play(20);
    }
    let attempts: u32 = jobs.iter().map(|job| world.seen[job].attempt).sum();
    assert_eq!(attempts, 50 + 5);
}

#[test]
fn who_backs_off_ends_by_its_deadline_a_cancel_or_the_end_of_the_drain() {
    let back_off = |world: &mut World, deadline| {
        world.core.rng = fastrand::Rng::with_seed(1);
        let job = world.submit(ask(1).within(deadline));
        world.fail(
            job,
            Cause::Congested {
                retry_after: Some(secs(20)),
            },
        );
        assert!(world.seen[&job].back_at.is_some());
        job
    };
    let mut world = World::new(retrying(1));
    let job = back_off(&mut world, 100);
    world.cancel(job);
    assert_eq!(
        world.ending(job),
        Some(Ending::Cancelled(CancelReason::Requested))
    );
    assert_eq!(world.view().backing_off, 0);

    let mut world = World::new(retrying(1));
    let job = back_off(&mut world, 100);
    world.on(Event::Stop {
        until: world.now + secs(5),
    });
    world.play(5);
    assert_eq!(world.refusal(job), Some(RefusalReason::Stopping));

    let mut world = World::new(retrying(1));
    let first = back_off(&mut world, 23);
    world.pass(100);
    world.tick();
    assert_eq!(
        world.ending(first),
        Some(Ending::Expired(None)),
        "even if the tick is late"
    );
    assert_eq!(world.view().backing_off, 0);
}

#[test]
fn a_late_tick_brings_jobs_back_in_slices() {
    let mut limits = retrying(1);
    limits.providers[0].retry.budget = 1_000.0;
    let mut world = World::new(limits);
    let jobs = world.submit_all(2 * SLICE, &ask(1));
    for &job in &jobs {
        world.fail(job, CONGESTED);
    }
    world.pass(1);
    world.started();
    world.tick();
    assert!(world.started().len() <= SLICE);
    assert!(world.core.next_due() <= world.now);
    world.play(0);
    assert_eq!(
        (world.view().backing_off, world.view().in_use),
        (0, 2 * SLICE)
    );
}

#[test]
fn a_stage_that_failed_for_good_is_followed_by_the_next() {
    for cause in [
        Cause::Quota,
        Cause::Broken,
        Cause::ModelUnavailable,
        Cause::Barred,
        Cause::Unanswered,
    ] {
        let mut world = World::new(retrying(2));
        let job = world.submit(ask(1).along(&[&[0], &[1]]));
        world.started();
        world.fail(job, cause);
        assert_eq!(world.started(), [job]);
        let seen = &world.seen[&job];
        assert_eq!(
            (seen.target, seen.stage, seen.attempt),
            (Some(TargetId(1)), 1, 2)
        );
    }
    let mut world = World::new(retrying(2));
    let job = world.submit(ask(1).along(&[&[0], &[1]]));
    world.fail(job, Cause::Request);
    assert_eq!(
        world.ending(job),
        failed(Cause::Request),
        "it would be wrong there too"
    );
}

#[test]
fn a_request_that_may_still_be_under_way_is_not_sent_to_the_same_provider_again() {
    let mut limits = retrying(2);
    limits.targets = vec![ProviderId(0), ProviderId(0), ProviderId(1)];
    let mut world = World::new(limits);
    let job = world.submit(ask(1).along(&[&[0], &[1], &[2]]));
    world.fail(job, Cause::Unanswered);
    assert_eq!(world.seen[&job].target, Some(TargetId(2)));
    let job = world.submit(ask(1).along(&[&[0], &[1]]));
    world.fail(job, Cause::Unanswered);
    assert_eq!(world.ending(job), failed(Cause::Unanswered));
}

#[test]
fn who_would_back_off_for_long_goes_to_the_next_stage_instead() {
    let mut world = World::new(retrying(2));
    let job = world.submit(ask(1).along(&[&[0], &[1]]));
    world.fail(
        job,
        Cause::Congested {
            retry_after: Some(secs(30)),
        },
    );
    assert_eq!(world.seen[&job].target, Some(TargetId(1)));
    let job = world.submit(ask(1).along(&[&[1], &[0]]));
    world.fail(job, CONGESTED);
    assert!(
        world.seen[&job].back_at.is_some(),
        "half a second at most is no long time"
    );
}

#[test]
fn an_attempt_has_its_share_of_the_deadline_while_stages_remain() {
    let mut world = World::new(retrying(3));
    let job = world.submit(ask(1).along(&[&[0], &[1], &[2]]).within(90));
    let share = |world: &World| world.seen[&job].first_byte_by.since(world.now).as_secs();
    assert_eq!(share(&world), 30);
    world.pass(30);
    world.fail(job, Cause::Unanswered);
    assert_eq!((world.seen[&job].stage, share(&world)), (1, 30));
    world.pass(10);
    world.fail(job, Cause::Unanswered);
    assert_eq!(
        (world.seen[&job].stage, share(&world)),
        (2, 50),
        "the last may take what is left"
    );
}

#[test]
fn repetitions_and_stages_together_stay_within_one_bound() {
    let mut world = World::new(retrying(3));
    let job = world.submit(ask(1).along(&[&[0], &[1], &[2]]));
    for _ in 0..10 {
        if world.ending(job).is_none() {
            world.fail(job, Cause::Unreachable);
            world.play(3);
        }
    }
    assert_eq!(
        world.seen[&job].attempt, 5,
        "two repetitions, and one call at each stage"
    );
    assert_eq!(world.ending(job), failed(Cause::Unreachable));
}

#[test]
fn who_comes_back_goes_before_an_arrival_even_if_the_tick_is_late() {
    let mut world = World::new(narrow(1));
    let back = world.submit(ask(1));
    world.fail(back, CONGESTED);
    world.started();
    world.pass(20);
    let arrives = world.submit(ask(2));
    assert_eq!(world.started(), [back]);
    assert_eq!(world.ending(arrives), None);
}
