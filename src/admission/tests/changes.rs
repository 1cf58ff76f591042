//! Settings that change: who waits and runs goes on, and who was taken out is called no more.

use super::*;

/// So many providers, each with one slot.
fn single(providers: usize) -> Settings {
    let mut settings = settings(providers);
    for provider in &mut settings.providers {
        provider.limit = 1;
    }
    settings
}

/// The same with one provider more, which has one target.
fn with_another(mut settings: Settings) -> Settings {
    let id = ProviderId(settings.providers.len() as u32);
    settings.providers.push(ProviderSettings::fixed(1));
    settings.targets.push(id);
    settings
}

const REMOVED: Option<RefusalReason> = Some(RefusalReason::Shut(Shut::Removed));

#[test]
fn a_provider_that_is_added_is_called_and_has_its_own_slots() {
    let mut world = World::new(single(1));
    let first = world.submit_all(2, &ask(1));
    world.change(with_another(single(1)));
    let other = world.submit_all(2, &ask(1).on(1));
    assert_eq!(world.started(), [first[0], other[0]]);
    world.finish(other[0]);
    assert_eq!(world.started(), [other[1]]);
    assert_eq!(world.view().providers.len(), 2);
}

#[test]
fn who_waits_for_a_provider_that_is_taken_out_is_refused_and_its_call_comes_to_its_end() {
    let mut world = World::new(single(2));
    let jobs = world.submit_all(3, &ask(1));
    let other = world.submit(ask(1).on(1));
    world.started();
    world.change_targets(single(2), &[], &[0]);
    world.play(0);
    for job in &jobs[1..] {
        assert_eq!(world.refusal(*job), REMOVED);
        assert_eq!(world.retry_after(*job), 1);
    }
    assert_eq!(world.ending(jobs[0]), None);
    assert_eq!(world.view().providers[0].in_use, 1, "it holds its slot");
    world.finish(jobs[0]);
    world.finish(other);
    for job in [jobs[0], other] {
        let whole = Ending::Finished(Outcome::Completed);
        assert_eq!(world.ending(job), Some(whole));
        assert_eq!(world.seen[&job].interrupted, None);
    }
    let late = world.submit(ask(1));
    assert_eq!(world.refusal(late), REMOVED);
}

#[test]
fn who_has_a_further_stage_goes_there_when_its_provider_is_taken_out() {
    let mut world = World::new(single(2));
    let jobs = world.submit_all(3, &ask(1).along(&[&[0], &[1]]));
    world.change_targets(single(2), &[], &[0]);
    world.play(0);
    assert_eq!(world.started(), jobs[..2]);
    assert_eq!(world.seen[&jobs[1]].stage, 1);
    // The call that was under way may fail: what then may be asked is asked.
    world.finish(jobs[1]);
    assert_eq!(world.started(), [jobs[2]]);
    world.fail(jobs[0], Cause::Unreachable);
    world.finish(jobs[2]);
    assert_eq!(world.started(), [jobs[0]]);
    assert_eq!(world.seen[&jobs[0]].stage, 1);
}

#[test]
fn however_many_wait_for_who_was_taken_out_no_step_ends_more_than_a_slice() {
    let mut world = World::new(single(1));
    let jobs = world.submit_all(1 + 3 * SLICE, &ask(1));
    world.change_targets(single(1), &[], &[0]);
    let refused = |world: &World| {
        let mut ended = jobs.iter().filter(|job| world.refusal(**job) == REMOVED);
        ended.by_ref().count()
    };
    assert_eq!(refused(&world), 0, "the change itself ends nobody");
    let mut before = 0;
    for _ in 0..3 {
        assert!(world.core.next_due() <= world.now, "it wants its tick");
        world.tick();
        let after = refused(&world);
        assert!(after - before <= SLICE && after > before);
        before = after;
    }
    assert_eq!(before, 3 * SLICE);
}

#[test]
fn who_backs_off_is_refused_when_its_time_comes() {
    let mut settings = single(1);
    settings.providers[0].retry = RetrySettings::default();
    let mut world = World::new(settings.clone());
    let job = world.submit(ask(1));
    world.fail(job, Cause::Congested { retry_after: None });
    world.change_targets(settings, &[], &[0]);
    world.play(20);
    assert_eq!(world.refusal(job), REMOVED);
}

#[test]
fn who_was_taken_out_comes_back_with_its_slots_and_without_what_it_learned() {
    let mut settings = single(1);
    (settings.providers[0].limit, settings.providers[0].adaptive) = (4, true);
    settings.providers[0].breaker = Some(BreakerSettings::default());
    let mut world = World::new(settings.clone());
    let under_way = world.submit(ask(1));
    let bad = world.submit(ask(1));
    world.fail(bad, Cause::Credentials);
    world.change_targets(settings.clone(), &[], &[0]);
    world.change(settings);
    assert_eq!(world.view().targets[0].breaker, "closed");
    world.started();
    let next = world.submit_all(4, &ask(1));
    assert_eq!(world.started(), next[..3], "one slot is not back yet");
    world.finish(under_way);
    assert_eq!(world.started(), next[3..]);
}

#[test]
fn what_is_another_from_now_on_has_learned_nothing_and_learns_nothing_from_calls_before() {
    let mut settings = settings(1);
    let provider = &mut settings.providers[0];
    (provider.limit, provider.adaptive) = (8, true);
    provider.breaker = Some(BreakerSettings::default());
    let mut world = World::new(settings.clone());
    let jobs = world.submit_all(4, &ask(1).model(1));
    world.fail(jobs[0], Cause::Congested { retry_after: None });
    assert_eq!(world.view().targets[0].limit, 2);
    world.change_targets(settings, &[0], &[]);
    assert_eq!(world.view().targets[0].limit, 4, "it starts anew");
    world.fail(
        jobs[1],
        Cause::Congested {
            retry_after: Some(secs(60)),
        },
    );
    world.fail(jobs[2], Cause::Credentials);
    world.fail(jobs[3], Cause::ModelUnavailable);
    let target = world.view().targets[0];
    assert_eq!(
        (target.limit, target.shut, target.breaker),
        (4, None, "closed")
    );
    world.started();
    let next = world.submit(ask(1).model(1));
    assert_eq!(world.started(), [next]);
}

#[test]
fn what_a_target_learned_stays_when_only_its_settings_change() {
    let mut settings = settings(1);
    let provider = &mut settings.providers[0];
    (provider.limit, provider.adaptive) = (8, true);
    (provider.retry, provider.breaker) =
        (RetrySettings::default(), Some(BreakerSettings::default()));
    let mut world = World::new(settings.clone());
    let jobs = world.submit_all(4, &ask(1));
    world.fail(jobs[0], Cause::Congested { retry_after: None });
    settings.providers[0].retry.budget = 100.0;
    settings.learning.limit.start = 8;
    world.change(settings.clone());
    let target = world.view().targets[0];
    assert_eq!(
        (target.limit, target.retry_tokens),
        (2, 90.0),
        "nine of ten tokens were left"
    );
    world.fail(jobs[1], Cause::Quota);
    world.change(settings.clone());
    assert_eq!(world.view().targets[0].breaker, "open");
    settings.providers[0].breaker = None;
    settings.providers[0].adaptive = false;
    world.change(settings);
    let target = world.view().targets[0];
    assert_eq!(
        (target.breaker, target.limit),
        ("closed", 8),
        "nothing is judged any more"
    );
}

#[test]
fn a_limit_that_begins_to_learn_begins_where_limits_do() {
    let mut settings = settings(1);
    let mut world = World::new(settings.clone());
    assert_eq!(world.view().targets[0].limit, 1_000);
    settings.providers[0].adaptive = true;
    world.change(settings);
    assert_eq!(world.view().targets[0].limit, 4);
}

#[test]
fn bounds_of_the_lines_hold_for_whoever_comes_from_now_on() {
    let mut settings = one_slot();
    let mut world = World::new(settings.clone());
    let jobs = world.submit_all(5, &ask(1));
    assert!(!world.view().pressure);
    settings.queue.capacity = 2;
    settings.queue.timeout = secs(5);
    (settings.queue.pressure_on, settings.queue.pressure_off) = (2, 1);
    world.change(settings);
    assert!(world.view().pressure, "four wait");
    let late = world.submit(ask(1));
    assert_eq!(world.refusal(late), Some(RefusalReason::QueueFull));
    world.play(59);
    assert!(jobs.iter().all(|job| world.ending(*job).is_none()));
    world.play(1);
    assert_eq!(
        world.ending(jobs[4]),
        Some(Ending::QueueTimeout(full(Slots::Global, 1, 1))),
        "the time that it was given"
    );
}

#[test]
fn shares_follow_the_weights_that_are_in_force() {
    let mut settings = one_slot();
    settings.queue.timeout = secs(100_000);
    let mut world = World::new(settings.clone());
    let served = |world: &mut World, class: Priority| {
        let of = |job: &u64| job % 2 == class.index() as u64 % 2;
        let mut count = 0;
        for _ in 0..40 {
            let running = world.started();
            world.pass(1);
            running.iter().for_each(|job| world.finish(*job));
            count += running.iter().filter(|job| of(job)).count();
        }
        count
    };
    // Jobs of even numbers are high, those of odd ones low.
    for _ in 0..100 {
        world.submit(ask(1).class(Priority::High).within(100_000));
        world.submit(ask(2).class(Priority::Medium).within(100_000));
    }
    let before = served(&mut world, Priority::High);
    settings.queue.weights = [1, 1, 1];
    world.change(settings);
    let after = served(&mut world, Priority::High);
    assert!(
        before >= 30 && (16..=24).contains(&after),
        "{before}, then {after}"
    );
}

#[test]
fn a_limit_that_was_never_cut_is_at_least_where_a_new_one_would_begin() {
    let mut settings = settings(1);
    (settings.providers[0].limit, settings.providers[0].adaptive) = (1, true);
    let mut world = World::new(settings.clone());
    let jobs = world.submit_all(5, &ask(1));
    assert_eq!(world.started(), jobs[..1]);
    settings.providers[0].limit = 6;
    world.change(settings);
    assert_eq!(world.started(), jobs[1..4], "learning starts with four");
}
