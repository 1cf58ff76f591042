//! Targets that are shut: whoever would wait for them in vain goes on or is refused, and told why.

use super::*;

const RATE_LIMITED: Shut = Shut::RateLimited;

fn retry_after(seconds: u64) -> Cause {
    Cause::Congested {
        retry_after: Some(secs(seconds)),
    }
}

/// Providers that learn, and whose calls are not repeated.
fn learning(providers: usize) -> Settings {
    let mut settings = settings(providers);
    for provider in &mut settings.providers {
        provider.adaptive = true;
        provider.breaker = Some(BreakerSettings::default());
    }
    settings
}

/// Has a call of target 0 fail, with nobody else about.
fn shut_by(world: &mut World, cause: Cause) {
    let job = world.submit(ask(99));
    world.fail(job, cause);
    world.started();
}

#[test]
fn a_target_starts_with_few_calls_and_takes_more_as_they_go_well() {
    let mut world = World::new(learning(1));
    let jobs = world.submit_all(20, &ask(1));
    assert_eq!(world.started(), jobs[..4]);
    world.finish(jobs[3]);
    assert_eq!(
        world.started(),
        jobs[4..6],
        "one for the slot, one for the limit"
    );
}

#[test]
fn congestion_cuts_the_limit_and_what_runs_is_left_alone() {
    let mut world = World::new(learning(1));
    let jobs = world.submit_all(20, &ask(1));
    world.started();
    world.fail(jobs[0], Cause::Congested { retry_after: None });
    assert_eq!((world.view().targets[0].limit, world.view().in_use), (2, 3));
    assert_eq!(world.started(), [] as [u64; 0], "the debt drains first");
    world.finish(jobs[1]);
    assert_eq!(world.started(), [] as [u64; 0]);
    world.finish(jobs[2]);
    assert_eq!(world.started(), [jobs[4]]);
    assert!(
        jobs[1..4]
            .iter()
            .all(|job| world.seen[job].interrupted.is_none())
    );
}

#[test]
fn a_limit_that_grows_back_starts_who_waits_without_another_event() {
    let mut limits = learning(1);
    limits.queue.timeout = secs(3_000);
    let mut world = World::new(limits);
    let jobs = world.submit_all(4, &ask(1).within(36_000));
    world.fail(jobs[0], Cause::Congested { retry_after: None });
    world.finish(jobs[1]);
    let late = world.submit_all(3, &ask(2).within(36_000));
    world.started();
    for (seconds, started) in [(17, &late[..0]), (2, &late[..1]), (282, &late[1..2])] {
        world.play(seconds);
        assert_eq!(world.started(), started, "at {:?}", world.now);
    }
    world.play(282);
    assert_eq!(world.started(), late[2..], "above where it was cut");
}

#[test]
fn nothing_starts_through_a_gate_that_is_shut() {
    let mut world = World::new(learning(1));
    shut_by(&mut world, retry_after(30));
    let job = world.submit(ask(1));
    world.play(29);
    assert!(!world.has_started(job));
    world.play(5);
    assert_eq!(world.started(), [job]);
}

#[test]
fn whoever_cannot_be_served_in_time_is_refused_at_once_with_the_time_of_the_opening() {
    for (cause, why) in [
        (retry_after(200), RATE_LIMITED),
        (
            Cause::WindowUsedUp {
                opens_in: Some(secs(7_200)),
            },
            Shut::PlanWindow,
        ),
    ] {
        let mut world = World::new(learning(1));
        shut_by(&mut world, cause);
        let job = world.submit(ask(1));
        assert_eq!(world.refusal(job), Some(RefusalReason::Shut(why)));
        let wait = cause.asked_wait().expect("it asked").as_secs();
        assert!((wait..=wait * 11 / 10).contains(&world.retry_after(job)));
        assert_eq!(world.view().in_use, 0);
    }
}

#[test]
fn who_waits_when_its_target_shuts_for_too_long_is_refused_too() {
    let mut world = World::new(learning(1));
    let running = world.submit_all(4, &ask(1));
    let waiting = world.submit_all(3 * SLICE, &ask(1));
    world.fail(running[0], retry_after(200));
    world.play(0);
    for job in waiting {
        assert_eq!(world.refusal(job), Some(RefusalReason::Shut(RATE_LIMITED)));
    }
    assert_eq!(world.view().in_use, 3);
}

#[test]
fn who_can_wait_for_the_opening_waits() {
    let mut world = World::new(learning(1));
    let running = world.submit_all(4, &ask(1));
    let patient = world.submit(ask(1));
    let hurried = world.submit(ask(1).within(20));
    world.fail(running[0], retry_after(30));
    world.play(0);
    assert_eq!(
        world.refusal(hurried),
        Some(RefusalReason::Shut(RATE_LIMITED))
    );
    assert_eq!(world.ending(patient), None);
    for &job in &running[1..] {
        world.finish(job);
    }
    world.play(34);
    assert!(world.has_started(patient));
}

#[test]
fn credentials_and_quota_shut_a_target_at_once_and_say_so() {
    for (cause, why) in [
        (Cause::Credentials, Shut::Credentials),
        (Cause::Quota, Shut::Quota),
    ] {
        let mut world = World::new(learning(1));
        shut_by(&mut world, cause);
        let job = world.submit(ask(1).within(3));
        assert_eq!(world.refusal(job), Some(RefusalReason::Shut(why)));
        let view = world.view().targets[0];
        assert_eq!((view.breaker, view.breaker_reason), ("open", Some(why)));
        assert!(
            view.shut
                .is_some_and(|(left, of)| left <= secs(6) && of == why)
        );
    }
}

#[test]
fn a_breaker_that_opened_lets_one_probe_through_and_then_all() {
    let mut world = World::new(learning(1));
    shut_by(&mut world, Cause::Quota);
    let jobs = world.submit_all(4, &ask(1));
    world.play(6);
    assert_eq!(world.started(), jobs[..1]);
    assert!(world.seen[&jobs[0]].probe);
    world.finish(jobs[0]);
    assert_eq!(world.started(), jobs[1..2]);
    world.finish(jobs[1]);
    assert_eq!(world.started(), jobs[2..]);
    assert_eq!(world.view().targets[0].breaker, "closed");
}

#[test]
fn a_probe_has_succeeded_when_its_answer_begins() {
    let mut world = World::new(learning(1));
    shut_by(&mut world, Cause::Quota);
    let jobs = world.submit_all(4, &ask(1));
    world.play(6);
    for job in &jobs[..2] {
        let permit = world.seen[job].permit.expect("it was started");
        world.on(Event::Answer(permit));
        world.on(Event::Answer(permit));
    }
    assert_eq!(world.started(), jobs);
    world.play(100);
    assert_eq!(
        world.view().targets[0].breaker,
        "closed",
        "no lease runs out"
    );
}

#[test]
fn a_probe_that_never_answers_does_not_shut_the_target_for_ever() {
    let mut world = World::new(learning(1));
    world.core.settings.queue.timeout = secs(600);
    shut_by(&mut world, Cause::Quota);
    let jobs = world.submit_all(2, &ask(1));
    world.play(6);
    assert_eq!(world.started(), jobs[..1]);
    world.play(59);
    assert_eq!(world.started(), [] as [u64; 0]);
    world.play(14);
    assert_eq!(
        world.started(),
        jobs[1..],
        "the next probe, 10 s after the lease ran out"
    );
}

#[test]
fn who_has_a_further_stage_goes_there_at_once_when_the_first_is_shut_for_long() {
    let mut world = World::new(learning(2));
    shut_by(&mut world, retry_after(30));
    let job = world.submit(ask(1).along(&[&[0], &[1]]));
    assert_eq!(world.started(), [job]);
    assert_eq!(
        (world.seen[&job].target, world.seen[&job].stage),
        (Some(TargetId(1)), 1)
    );
}

#[test]
fn who_waits_and_has_a_further_stage_goes_there_when_the_first_shuts() {
    let mut world = World::new(learning(2));
    let running = world.submit_all(4, &ask(1));
    let jobs = world.submit_all(3, &ask(1).along(&[&[0], &[1]]));
    assert!(
        jobs.iter().all(|&job| !world.has_started(job)),
        "busy is no reason to go on"
    );
    world.started();
    world.fail(running[0], retry_after(30));
    world.play(0);
    assert_eq!(world.started(), jobs);
}

#[test]
fn a_stage_that_is_shut_for_a_moment_is_waited_for() {
    let mut world = World::new(learning(2));
    shut_by(&mut world, retry_after(3));
    let job = world.submit(ask(1).along(&[&[0], &[1]]));
    assert!(!world.has_started(job));
    world.play(4);
    assert_eq!(world.seen[&job].target, Some(TargetId(0)));
}

#[test]
fn a_model_that_a_target_does_not_have_is_not_asked_there_again_for_a_while() {
    let mut world = World::new(learning(2));
    let first = world.submit(ask(1).model(7));
    world.fail(first, Cause::ModelUnavailable);
    let again = world.submit(ask(1).model(7));
    assert_eq!(
        world.refusal(again),
        Some(RefusalReason::Shut(Shut::ModelUnavailable))
    );
    assert_eq!(world.retry_after(again), 300);
    let other = world.submit(ask(1).model(8));
    let elsewhere = world.submit(ask(1).model(7).along(&[&[0], &[1]]));
    assert_eq!(world.seen[&elsewhere].target, Some(TargetId(1)));
    assert!(world.has_started(other));
    world.play(300);
    let later = world.submit(ask(1).model(7));
    assert!(world.has_started(later));
}

#[test]
fn who_waits_for_a_model_that_turns_out_not_to_be_there_does_not_call_for_it() {
    let mut limits = learning(2);
    limits.providers[0].limit = 1;
    let mut world = World::new(limits);
    let first = world.submit(ask(1).model(7));
    let alone = world.submit(ask(1).model(7));
    let either = world.submit(ask(1).model(7).along(&[&[0, 1]]));
    let moves = world.submit(ask(1).model(7).along(&[&[0], &[1]]));
    assert_eq!(
        world.seen[&either].target,
        Some(TargetId(1)),
        "the one that is free"
    );
    world.fail(first, Cause::ModelUnavailable);
    assert_eq!(
        world.refusal(alone),
        Some(RefusalReason::Shut(Shut::ModelUnavailable))
    );
    assert_eq!(world.seen[&moves].target, Some(TargetId(1)));
    let third = world.submit(ask(1).model(7).along(&[&[0, 1]]));
    assert_eq!(world.seen[&third].target, Some(TargetId(1)));
}

#[test]
fn a_target_without_the_model_does_not_hide_one_that_opens_soon() {
    let mut world = World::new(learning(2));
    let lacks = world.submit(ask(1).model(7));
    world.fail(lacks, Cause::ModelUnavailable);
    // The target that lacks the model lacks it for less long than the other one is shut.
    world.pass(290);
    let busy = world.submit(ask(1).on(1));
    world.fail(busy, retry_after(20));
    let waits = world.submit(ask(1).model(7).along(&[&[0, 1]]));
    assert_eq!(world.ending(waits), None);
    world.play(30);
    assert!(world.has_started(waits));
}

#[test]
fn a_target_that_falls_away_does_not_renew_the_time_in_line() {
    let mut limits = learning(2);
    for provider in &mut limits.providers {
        provider.limit = 1;
    }
    let mut world = World::new(limits);
    let first = world.submit(ask(1).model(7));
    world.submit(ask(1).on(1));
    let waits = world.submit(ask(1).model(7).along(&[&[0, 1]]));
    world.play(30);
    world.fail(first, Cause::ModelUnavailable);
    assert_eq!(
        world.ending(waits),
        None,
        "the other one may have the model"
    );
    world.play(30);
    assert_eq!(
        world.ending(waits),
        Some(Ending::QueueTimeout(full(Slots::Provider, 1, 1)))
    );
}

#[test]
fn no_slot_is_kept_for_a_provider_that_takes_nothing() {
    let mut limits = learning(2);
    limits.global = 4;
    limits.providers[0].reserves = true;
    let mut world = World::new(limits);
    world.submit_all(4, &ask(1).on(1));
    assert_eq!(world.started().len(), 3);
    shut_by(&mut world, retry_after(100));
    world.tick();
    assert_eq!(world.view().in_use, 4);
}

#[test]
fn clients_that_leave_and_wrong_requests_neither_cut_nor_open_anything() {
    let mut world = World::new(learning(1));
    for cause in [Cause::Unwanted, Cause::Request, Cause::Own, Cause::Barred].repeat(50) {
        let job = world.submit(ask(1));
        world.fail(job, cause);
        assert_eq!(
            world.ending(job),
            Some(Ending::Finished(Outcome::Failed(cause)))
        );
    }
    let view = world.view().targets[0];
    assert_eq!(
        (view.limit, view.breaker, view.retry_tokens),
        (4, "closed", 10.0)
    );
}

#[test]
fn who_waited_for_a_gate_goes_before_who_comes_when_it_opens() {
    let mut settings = learning(1);
    settings.learning.gate.jitter = 0.0;
    let mut world = World::new(settings);
    shut_by(&mut world, retry_after(10));
    let waited = world.submit(ask(1));
    assert_eq!(world.started(), [] as [u64; 0]);
    // No tick has told the core that the gate is open: the arrival does.
    world.now = world.now + secs(10);
    let comes = world.submit(ask(1));
    assert_eq!(world.started(), [waited]);
    assert!(
        world.seen[&comes].permit.is_none(),
        "starts are paced after a wait"
    );
}

#[test]
fn those_whose_target_lacks_their_model_are_led_on_in_slices_without_delay() {
    let mut limits = settings(1);
    limits.providers[0].limit = 1;
    let mut world = World::new(limits);
    let first = world.submit(ask(1).model(1));
    let waiting = world.submit_all(2 * SLICE, &ask(1).model(1));
    world.fail(first, Cause::ModelUnavailable);
    let refused = |world: &World| {
        let ended = waiting.iter().filter(|&&job| world.ending(job).is_some());
        ended.count()
    };
    assert_eq!(refused(&world), SLICE);
    world.play(0);
    assert_eq!(refused(&world), waiting.len());
}

#[test]
fn a_job_whose_call_failed_waits_for_its_next_stage_if_that_opens_in_time() {
    for (opens_in, waits) in [(10, true), (200, false)] {
        let mut world = World::new(learning(2));
        shut_by(&mut world, retry_after(opens_in));
        let job = world.submit(ask(1).along(&[&[1], &[0]]));
        world.give_back(job, FALLS_BACK);
        assert_eq!(world.ending(job).is_none(), waits, "in {opens_in} s");
        world.started();
        world.play(12);
        assert_eq!(world.started() == [job], waits);
    }
}

#[test]
fn no_tick_is_asked_for_a_limit_that_grows_while_nobody_waits() {
    let mut world = World::new(learning(1));
    let jobs = world.submit_all(4, &ask(1));
    world.fail(jobs[0], Cause::Congested { retry_after: None });
    assert_eq!(world.core.next_due(), world.now + secs(3_600), "a deadline");
    world.submit(ask(1));
    assert!(world.core.next_due() < world.now + secs(3_600));
}

#[test]
fn of_stages_that_are_all_shut_the_first_to_open_is_waited_for() {
    for (first, second) in [(40, 15), (15, 40)] {
        let mut world = World::new(learning(2));
        shut_by(&mut world, retry_after(first));
        let job = world.submit(ask(1).on(1));
        world.fail(job, retry_after(second));
        let job = world.submit(ask(1).along(&[&[0], &[1]]));
        world.play(18);
        let opened = if first < second { 0 } else { 1 };
        assert_eq!(world.seen[&job].target, Some(TargetId(opened)));
    }
}

#[test]
fn a_stage_opens_with_the_first_of_its_targets() {
    for (first, second) in [(15, 50), (50, 15)] {
        let mut world = World::new(learning(2));
        shut_by(&mut world, retry_after(first));
        let job = world.submit(ask(1).on(1));
        world.fail(job, retry_after(second));
        let job = world.submit(ask(1).along(&[&[0, 1]]).within(20));
        assert_eq!(world.ending(job), None, "{first} s and {second} s");
        world.play(18);
        assert!(world.has_started(job));
    }
}

#[test]
fn nobody_with_another_choice_waits_for_what_becomes_of_a_probe() {
    let mut world = World::new(learning(2));
    shut_by(&mut world, Cause::Quota);
    world.submit(ask(1));
    world.play(6);
    assert_eq!(world.view().targets[0].breaker, "half-open");
    let job = world.submit(ask(1).along(&[&[0], &[1]]));
    assert_eq!(world.seen[&job].target, Some(TargetId(1)));
}

#[test]
fn who_would_wait_in_vain_is_told_at_once_however_short_the_wait() {
    let mut world = World::new(learning(1));
    let running = world.submit_all(4, &ask(1));
    let hurried = world.submit(ask(1).within(2));
    world.fail(running[0], retry_after(4));
    world.play(0);
    assert_eq!(
        world.refusal(hurried),
        Some(RefusalReason::Shut(RATE_LIMITED))
    );
}
