//! Workers that don't come back, guards that are lost, and health checks beside living calls.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, unbounded};

use super::shell::{Ready, Shell};
use super::tests::{Bench, LONG};
use super::*;
use crate::cancel::CancelReason;
use crate::chat::Piece;
use crate::providers::ProviderError;

/// What a worker does wrong.
#[derive(Debug, Clone, Copy)]
pub(super) enum Slip {
    /// It loses the guard that it has in hand.
    LosesGuard,
    /// It panics where nobody expects it.
    Panics,
}

/// Does what the worker is to do wrong; the guard, if it still has it then.
pub(super) fn slip(shell: &Shell, ready: Ready) -> Option<Ready> {
    let slip = shell.slip.lock().take();
    match slip {
        None => Some(ready),
        Some(Slip::LosesGuard) => {
            std::mem::forget(ready);
            None
        }
        Some(Slip::Panics) => panic!("on purpose"),
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Waits until the engine is as `cond` wants it.
fn eventually(what: &str, cond: impl Fn() -> bool) {
    let clock = crate::clock::SystemClock::shared();
    let until = clock.now() + LONG;
    while !cond() {
        assert!(clock.now() < until, "never happened: {what}");
        thread::park_timeout(millis(1));
    }
}

/// A bench whose watchdog is quick and whose health is checked on demand alone.
fn bench() -> Bench {
    Bench::with(|config| {
        config.watchdog.quarantine_after = millis(20);
        config.watchdog.reclaim_after = millis(60);
        config.watchdog.audit = LONG;
    })
}

/// A job that heeds nothing until it is released.
fn deaf(bench: &Bench) -> (JobSpec, Receiver<()>, Sender<()>) {
    let ((running, runs), (release, released)) = (unbounded(), unbounded::<()>());
    let task = FnTask(move |_: &TaskContext<'_>| -> Result<(), ProviderError> {
        let _ = running.send(());
        let _ = released.recv_timeout(LONG);
        Ok(())
    });
    (bench.spec("a", task), runs, release)
}

#[test]
fn a_worker_that_does_not_come_back_is_replaced_and_its_slot_is_free_again() {
    let bench = bench();
    let (spec, runs, release) = deaf(&bench);
    let handle = bench.submit(spec);
    runs.recv_timeout(LONG).expect("it runs");
    handle.cancel(CancelReason::Requested);
    let cancelled = Verdict::Cancelled(CancelReason::Requested);
    assert_eq!(handle.wait().verdict, cancelled);
    eventually("the slot is free again", || {
        bench.engine.snapshot().core.turnover.reclaimed == 1
    });
    let crew = bench.engine.snapshot().workers;
    assert_eq!((crew.lost, crew.replaced, crew.alive), (1, 1, 3));
    let (_, slots) = bench.engine.semaphores();
    let states: Vec<_> = slots.iter().map(|slot| slot.slot.state).collect();
    assert_eq!(states, [SlotState::Free], "it is shown until it returns");
    assert_eq!(slots[0].holder.as_ref().map(|(id, _)| &**id), Some("r"));
    let sessions = (0..3).map(|_| bench.submit(bench.quick("b")));
    for handle in sessions.collect::<Vec<_>>() {
        assert_eq!(handle.wait().verdict, Verdict::Completed);
    }
    release.send(()).expect("it waits for that");
    eventually("the lost one is back", || {
        let snapshot = bench.engine.snapshot();
        (snapshot.workers.lost, snapshot.core.lost_workers) == (0, 0)
    });
    let turnover = bench.engine.snapshot().core.turnover;
    assert_eq!((turnover.taken, turnover.given_back), (4, 3));
    assert_eq!((turnover.reclaimed, turnover.late_returns), (1, 1));
    bench.engine.audit().expect("the books agree");
}

#[test]
fn a_worker_that_comes_back_in_quarantine_gives_its_slot_back_itself() {
    let bench = Bench::with(|config| {
        config.watchdog.quarantine_after = millis(20);
        config.watchdog.reclaim_after = LONG;
    });
    let (spec, runs, release) = deaf(&bench);
    let handle = bench.submit(spec);
    runs.recv_timeout(LONG).expect("it runs");
    handle.cancel(CancelReason::Requested);
    eventually("the worker is given up on", || {
        bench.engine.snapshot().workers.lost == 1
    });
    assert_eq!(bench.engine.snapshot().core.quarantined, 1);
    release.send(()).expect("it waits for that");
    eventually("it is back, and nobody is too many", || {
        let crew = bench.engine.snapshot().workers;
        (crew.lost, crew.alive) == (0, 3)
    });
    bench.close();
}

#[test]
fn a_guard_that_was_lost_is_found_within_one_check_and_its_job_is_told() {
    let bench = bench();
    let checked = bench.engine.check_health();
    assert_eq!((checked.end, checked.leaks.len()), (CheckEnd::Passed, 0));
    *bench.engine.shell.slip.lock() = Some(Slip::LosesGuard);
    let leaked = bench.submit(bench.quick("a"));
    // The worker loses its guard and goes on: nobody has it then.
    eventually("the guard is lost", || {
        let crew = bench.engine.snapshot().workers;
        bench.engine.shell.slip.lock().is_none() && crew.idle == crew.alive
    });
    assert_eq!(bench.engine.snapshot().core.in_use, 1);
    let checked = bench.engine.check_health();
    assert_eq!((checked.end, checked.recovered), (CheckEnd::Success, 1));
    assert_eq!(checked.leaks[0].job.0, leaked.number());
    let words = checked.to_string();
    let begins = "semaphore recovery: success, 1 of 1 slots without a holder recovered;";
    assert!(words.starts_with(begins), "{words}");
    assert_eq!(
        leaked.wait().verdict,
        Verdict::Completed,
        "the worker had left word"
    );
    let snapshot = bench.engine.snapshot();
    assert_eq!((snapshot.core.in_use, snapshot.health.leaks), (0, 1));
    assert_eq!(snapshot.core.turnover.recovered, 1);
    assert_eq!(bench.engine.check_health().end, CheckEnd::Passed);
}

#[test]
fn the_audit_of_every_second_finds_a_lost_guard_by_itself() {
    let bench = Bench::with(|config| config.watchdog.audit = millis(10));
    *bench.engine.shell.slip.lock() = Some(Slip::LosesGuard);
    let leaked = bench.submit(bench.quick("a"));
    assert_eq!(leaked.wait().verdict, Verdict::Completed);
    eventually("the check is over", || {
        let last = bench.engine.last_check();
        last.is_some_and(|last| last.end == CheckEnd::Success)
    });
}

#[test]
fn checks_beside_a_thousand_hand_overs_take_nothing_from_anybody() {
    let bench = bench();
    let silent = bench.silent("b");
    let long = bench.submit(silent.0);
    silent.1.recv_timeout(LONG).expect("it runs");
    thread::scope(|scope| {
        let bench = &bench;
        let pull = move || {
            for _ in 0..1_000 {
                let end = bench.submit(bench.quick("a")).wait();
                assert_eq!(end.verdict, Verdict::Completed);
            }
        };
        let puller = thread::Builder::new().name("test-puller".into());
        let puller = puller.spawn_scoped(scope, pull).expect("a thread starts");
        while !puller.is_finished() {
            let checked = bench.engine.check_health();
            assert_eq!((checked.end, checked.leaks), (CheckEnd::Passed, Vec::new()));
        }
    });
    assert!(long.wait_timeout(Duration::ZERO).is_none(), "it still runs");
    long.cancel(CancelReason::Requested);
    bench.close();
}

#[test]
fn books_that_are_wrong_are_counted_anew_and_said() {
    let bench = bench();
    bench.engine.shell.spoil_books();
    assert!(bench.engine.health().is_err());
    let checked = bench.engine.check_health();
    assert_eq!(checked.end, CheckEnd::Success);
    assert!(checked.mismatch.is_some());
    assert_eq!(bench.engine.snapshot().health.mismatches, 1);
    bench.engine.health().expect("they were counted anew");
    bench.close();
}

/// A sink that panics at the end of its job.
#[derive(Debug)]
struct Touchy;

impl Sink for Touchy {
    fn call(&self, _call: &CallInfo) {}

    fn piece(&self, _piece: Piece) -> Result<(), SinkGone> {
        Ok(())
    }

    fn end(&self, _end: &JobEnd, _speaker: Speaker) {
        panic!("on purpose");
    }
}

#[test]
fn a_sink_that_panics_costs_no_worker_and_no_slot() {
    let bench = bench();
    for _ in 0..5 {
        let touchy = bench.submit(JobSpec {
            sink: Arc::new(Touchy),
            ..bench.quick("a")
        });
        assert_eq!(touchy.wait().verdict, Verdict::Completed);
    }
    assert_eq!(bench.engine.snapshot().workers.replaced, 0);
    bench.close();
}

#[test]
fn a_worker_that_panics_outside_of_its_job_is_replaced_and_costs_no_slot() {
    let bench = bench();
    for round in 1..=5 {
        *bench.engine.shell.slip.lock() = Some(Slip::Panics);
        let end = bench.submit(bench.quick("a")).wait();
        assert_eq!(end.verdict, Verdict::Completed, "the worker had left word");
        eventually("the worker is replaced", || {
            let crew = bench.engine.snapshot().workers;
            (crew.replaced, crew.alive, crew.lost) == (round, 3, 0)
        });
    }
    bench.close();
}

#[test]
fn the_crew_grows_at_once_and_shrinks_when_there_is_nothing_to_do() {
    let bench = Bench::with(|config| config.watchdog.audit = millis(10));
    bench.engine.want_workers(8);
    assert_eq!(bench.engine.snapshot().workers.alive, 8);
    let handles: Vec<_> = (0..50).map(|_| bench.submit(bench.quick("a"))).collect();
    bench.engine.want_workers(2);
    for handle in handles {
        assert_eq!(handle.wait().verdict, Verdict::Completed);
    }
    eventually("six have gone home", || {
        bench.engine.snapshot().workers.alive == 2
    });
    bench.close();
}
