//! The engine under real threads: slots, ends, panics, the watchdog, stopping.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, unbounded};

use super::*;
use crate::cancel::CancelReason;
use crate::chat::{Delta, Piece};
use crate::clock::SystemClock;
use crate::config::{Config, Profile};
use crate::providers::{Call, ErrorClass, OnPiece, ProviderError, Providers};

pub(super) const LONG: Duration = Duration::from_secs(30);

/// A provider that nobody asks: the jobs of these tests are functions.
#[derive(Debug)]
struct Unasked;

impl Provider for Unasked {
    fn chat(&self, _call: &Call<'_>, _on_piece: &mut OnPiece<'_>) -> Result<(), ProviderError> {
        Ok(())
    }
}

pub(super) struct Bench {
    pub(super) engine: Engine,
    pub(super) clock: SharedClock,
}

impl Bench {
    /// An engine with providers `a` and `b` of two slots each, three in all, two to a session.
    pub(super) fn new() -> Bench {
        Bench::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut Config)) -> Bench {
        let mut config = Config::builtin(Profile::Test);
        config.limits.global = 3;
        config.limits.session = 2;
        change(&mut config);
        let embedded = config
            .providers
            .values()
            .next()
            .expect("the test profile has a provider")
            .clone();
        for name in ["a", "b"] {
            let provider = crate::config::Provider {
                name: name.into(),
                max_inflight: 2,
                ..embedded.clone()
            };
            config.providers.insert(name.into(), provider);
        }
        let clock = SystemClock::shared();
        let lifecycle = Arc::new(LifecycleLog::new(&config.telemetry));
        let providers: Vec<(Arc<str>, Arc<dyn Provider>)> = ["a", "b"]
            .map(|name| (name.into(), Arc::new(Unasked) as Arc<dyn Provider>))
            .into();
        let engine = Engine::start(
            &config,
            clock.clone(),
            providers,
            Router::new(&config, &Providers::new(&config, SystemClock::shared())),
            lifecycle,
        )
        .expect("threads start");
        Bench { engine, clock }
    }

    pub(super) fn spec(&self, provider: &str, task: impl Task + 'static) -> JobSpec {
        let now = self.clock.now();
        JobSpec {
            provider: Some(provider.into()),
            ..JobSpec::new("r".into(), task, now, now + LONG)
        }
    }

    pub(super) fn submit(&self, spec: JobSpec) -> JobHandle {
        self.engine.submit(spec).expect("the provider is known")
    }

    /// A job that says when it runs, and runs until it is cancelled.
    pub(super) fn silent(&self, provider: &str) -> (JobSpec, Receiver<()>) {
        let (running, runs) = unbounded();
        (
            self.spec(
                provider,
                FnTask(move |context: &TaskContext<'_>| until_cancelled(context, &running)),
            ),
            runs,
        )
    }

    pub(super) fn quick(&self, provider: &str) -> JobSpec {
        self.spec(provider, FnTask(|_: &TaskContext<'_>| Ok(())))
    }

    fn is_idle(&self) -> bool {
        let core = self.engine.snapshot().core;
        core.in_use == 0 && core.waiting == 0 && core.turnover.taken == core.turnover.given_back
    }

    /// Stops the engine, which waits for its workers, and sees that nothing is held.
    pub(super) fn close(self) {
        self.engine.stop(LONG);
        assert!(self.is_idle(), "{:?}", self.engine.snapshot());
        self.engine.audit().expect("the books agree");
    }
}

fn until_cancelled(context: &TaskContext<'_>, running: &Sender<()>) -> Result<(), ProviderError> {
    // A test that no longer listens still lets its job run.
    let _ = running.send(());
    let reason = context.cancel.wait(LONG).expect("the test cancels");
    Err(failure(ErrorClass::Cancelled(reason)))
}

fn failure(class: ErrorClass) -> ProviderError {
    let message = "it failed".into();
    ProviderError {
        class,
        message,
        detail: None,
        status: None,
        code: None,
        param: None,
        retry_after: None,
    }
}

#[test]
fn a_job_runs_and_its_waiter_is_told() {
    let bench = Bench::new();
    let end = bench.submit(bench.quick("a")).wait();
    assert_eq!(end.verdict, Verdict::Completed);
    assert_eq!(end.call.map(|call| call.attempt), Some(1));
    bench.close();
}

#[test]
fn a_job_for_a_provider_that_is_not_there_is_refused_by_name() {
    let bench = Bench::new();
    let error = bench
        .engine
        .submit(bench.quick("c"))
        .expect_err("there is no c");
    assert_eq!(error.to_string(), "there is no provider named \"c\"");
    bench.close();
}

#[test]
fn a_failed_call_ends_its_job_with_the_providers_words() {
    let bench = Bench::new();
    let task = FnTask(|_: &TaskContext<'_>| Err(failure(ErrorClass::Auth)));
    let end = bench.submit(bench.spec("a", task)).wait();
    assert_eq!(end.verdict, Verdict::Failed(failure(ErrorClass::Auth)));
    bench.close();
}

#[test]
fn a_panicking_job_gives_its_slot_back_and_its_worker_goes_on() {
    let bench = Bench::new();
    for _ in 0..10 {
        let task =
            FnTask(|_: &TaskContext<'_>| -> Result<(), ProviderError> { panic!("on purpose") });
        let end = bench.submit(bench.spec("a", task)).wait();
        assert_eq!(end.verdict, Verdict::Panicked("on purpose".into()));
    }
    assert_eq!(
        bench.submit(bench.quick("a")).wait().verdict,
        Verdict::Completed
    );
    bench.close();
}

/// A task that panics when it is dropped.
#[derive(Debug)]
struct Explosive;

impl Task for Explosive {
    fn call(&mut self, _context: &TaskContext<'_>) -> Result<(), TaskError> {
        Ok(())
    }
}

impl Drop for Explosive {
    fn drop(&mut self) {
        panic!("in its drop");
    }
}

#[test]
fn a_task_that_panics_in_its_drop_costs_no_worker() {
    let bench = Bench::new();
    for _ in 0..4 {
        let end = bench.submit(bench.spec("a", Explosive)).wait();
        assert_eq!(end.verdict, Verdict::Panicked("in its drop".into()));
    }
    bench.close();
}

/// A task that fails by itself.
#[derive(Debug)]
struct Clumsy;

impl Task for Clumsy {
    fn call(&mut self, _context: &TaskContext<'_>) -> Result<(), TaskError> {
        Err(TaskError::Own("no such file".into()))
    }
}

#[test]
fn a_task_that_fails_by_itself_ends_in_an_error_that_is_no_providers() {
    let bench = Bench::new();
    let verdict = bench.submit(bench.spec("a", Clumsy)).wait().verdict;
    assert_eq!(verdict, Verdict::Erred("no such file".into()));
    assert_eq!(
        (verdict.word(), verdict.reason()),
        ("error", "no such file".into())
    );
    bench.close();
}

#[test]
fn a_job_without_a_provider_takes_a_global_slot_and_no_providers() {
    let bench = Bench::new();
    let mut handles = Vec::new();
    for _ in 0..3 {
        let (mut spec, runs) = bench.silent("a");
        spec.provider = None;
        handles.push(bench.submit(spec));
        runs.recv_timeout(LONG).expect("it runs");
    }
    let snapshot = bench.engine.snapshot();
    let in_use = |view: &ProviderView| view.in_use;
    assert_eq!(
        (snapshot.core.in_use, snapshot.without_provider.in_use),
        (3, 3)
    );
    assert_eq!(
        Vec::from_iter(snapshot.core.providers.iter().map(in_use)),
        [0, 0]
    );
    let waits = bench.submit(bench.quick("a"));
    assert_eq!(
        bench.engine.snapshot().core.waiting,
        1,
        "no global slot is free"
    );
    handles
        .iter()
        .for_each(|handle| handle.cancel(CancelReason::Requested));
    assert_eq!(waits.wait().verdict, Verdict::Completed);
    bench.close();
}

#[test]
fn a_job_without_a_provider_has_nobody_to_ask() {
    let bench = Bench::new();
    let now = bench.clock.now();
    let task = ChatTask::new(Arc::new(ChatRequest::new("m").user("x")));
    let end = bench.submit(JobSpec::new("r".into(), task, now, now + LONG));
    let verdict = end.wait().verdict;
    assert!(
        matches!(&verdict, Verdict::Failed(error) if error.class == ErrorClass::InvalidRequest),
        "{verdict:?}"
    );
    bench.close();
}

#[test]
fn the_engine_knows_its_own_workers_and_no_others() {
    let (bench, other) = (Arc::new(Bench::new()), Bench::new());
    let (tell, told) = unbounded();
    let inside = Arc::clone(&bench);
    let ask = move |_: &TaskContext<'_>| {
        tell.send(inside.engine.is_on_worker())
            .expect("the test listens");
        Ok(())
    };
    bench.submit(bench.spec("a", FnTask(ask.clone()))).wait();
    other.submit(other.spec("a", FnTask(ask))).wait();
    let heard = [(); 2].map(|()| told.recv_timeout(LONG).expect("the job says"));
    assert_eq!((heard, bench.engine.is_on_worker()), ([true, false], false));
    other.close();
}

#[test]
fn a_silent_provider_does_not_hold_up_another() {
    let bench = Bench::new();
    let mut silent = Vec::new();
    for index in 0..20 {
        let (spec, runs) = bench.silent("a");
        silent.push(bench.submit(spec));
        if index < 2 {
            runs.recv_timeout(LONG).expect("it runs");
        }
    }
    assert_eq!(
        bench.submit(bench.quick("b")).wait().verdict,
        Verdict::Completed
    );
    for handle in &silent {
        handle.cancel(CancelReason::Requested);
        assert_eq!(
            handle.wait().verdict,
            Verdict::Cancelled(CancelReason::Requested)
        );
    }
    bench.close();
}

#[test]
fn a_running_job_ends_at_its_deadline_and_its_call_is_interrupted() {
    let bench = Bench::new();
    let (mut spec, runs) = bench.silent("a");
    spec.deadline = bench.clock.now() + Duration::from_millis(20);
    let handle = bench.submit(spec);
    runs.recv_timeout(LONG).expect("it runs");
    assert_eq!(
        handle.wait().verdict,
        Verdict::Expired(Phase::Connect.into())
    );
    bench.close();
}

#[test]
fn a_job_in_line_ends_at_the_queue_timeout_and_leaves_it() {
    let bench = Bench::with(|config| config.queue.timeout = Duration::from_millis(20));
    let (running, _runs) = bench.silent("a");
    let (other, _also) = bench.silent("a");
    let holders = [bench.submit(running), bench.submit(other)];
    assert_eq!(
        bench.submit(bench.quick("a")).wait().verdict.reason(),
        "queue timeout: 2 of 2 slots of its provider in use"
    );
    assert_eq!(bench.engine.snapshot().core.waiting, 0, "it left the line");
    holders
        .iter()
        .for_each(|handle| handle.cancel(CancelReason::Requested));
    bench.close();
}

#[test]
fn a_token_cancelled_before_the_submission_still_ends_the_job() {
    let bench = Bench::new();
    let (spec, _runs) = bench.silent("a");
    spec.cancel.cancel(CancelReason::ClientLeft);
    assert_eq!(
        bench.submit(spec).wait().verdict,
        Verdict::Cancelled(CancelReason::ClientLeft)
    );
    bench.close();
}

#[test]
fn two_sessions_do_not_share_a_limit_and_one_session_does_not_pass_its_own() {
    let bench = Bench::new();
    let mut handles = Vec::new();
    for provider in ["a", "b", "a"] {
        let (mut spec, runs) = bench.silent(provider);
        spec.owner = Owner::Session("one".into());
        handles.push(bench.submit(spec));
        if handles.len() < 3 {
            runs.recv_timeout(LONG).expect("it runs");
        }
    }
    let core = bench.engine.snapshot().core;
    assert_eq!((core.in_use, core.waiting, core.sessions), (2, 1, 1));
    let mut other = bench.quick("b");
    other.owner = Owner::Session("two".into());
    assert_eq!(bench.submit(other).wait().verdict, Verdict::Completed);
    handles
        .iter()
        .for_each(|handle| handle.cancel(CancelReason::Requested));
    bench.close();
}

/// Counts what it is told.
#[derive(Debug, Default)]
struct CountingSink {
    pieces: AtomicUsize,
    ends: AtomicUsize,
}

impl Sink for CountingSink {
    fn call(&self, _call: &CallInfo) {}

    fn piece(&self, _piece: Piece) -> Result<(), SinkGone> {
        self.pieces.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn end(&self, _end: &JobEnd, _speaker: Speaker) {
        self.ends.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn pieces_reach_the_sink_in_the_call_and_the_end_comes_once() {
    let bench = Bench::new();
    let sink = Arc::new(CountingSink::default());
    let task = FnTask(|context: &TaskContext<'_>| {
        for _ in 0..3 {
            assert!(context.piece(Piece::Delta(Delta::text("x"))).is_continue());
        }
        Ok(())
    });
    let handle = bench.submit(JobSpec {
        sink: sink.clone(),
        ..bench.spec("a", task)
    });
    handle.wait();
    handle.cancel(CancelReason::Requested);
    bench.close();
    assert_eq!(
        (
            sink.pieces.load(Ordering::SeqCst),
            sink.ends.load(Ordering::SeqCst)
        ),
        (3, 1)
    );
}

#[test]
fn every_job_ends_once_however_many_hands_pull_at_it() {
    let bench = Bench::new();
    let sink = Arc::new(CountingSink::default());
    std::thread::scope(|scope| {
        for lane in 0..4 {
            let (bench, sink) = (&bench, &sink);
            let pull = move || {
                for index in 0..200 {
                    let mut spec = bench.quick(["a", "b"][(lane + index) % 2]);
                    spec.sink = sink.clone();
                    spec.owner = Owner::Session(format!("s{}", index % 5).into());
                    let handle = bench.submit(spec);
                    if index % 3 == 0 {
                        handle.cancel(CancelReason::Requested);
                    }
                    handle.wait();
                }
            };
            std::thread::Builder::new()
                .name("test-lane".into())
                .spawn_scoped(scope, pull)
                .expect("thread starts");
        }
    });
    bench.close();
    assert_eq!(sink.ends.load(Ordering::SeqCst), 800);
}

#[test]
fn stopping_lets_what_runs_finish_and_refuses_the_new() {
    let bench = Bench::new();
    let (release, released) = unbounded::<()>();
    let (running, runs) = unbounded();
    let task = FnTask(move |_: &TaskContext<'_>| {
        running.send(()).expect("the test listens");
        released.recv_timeout(LONG).expect("the test releases");
        Ok(())
    });
    let handle = bench.submit(bench.spec("a", task));
    runs.recv_timeout(LONG).expect("it runs");
    bench.engine.quiesce(bench.clock.now() + LONG);
    let refused = bench.submit(bench.quick("a")).wait().verdict;
    assert!(
        matches!(refused, Verdict::Refused(refusal) if refusal.reason == crate::admission::RefusalReason::Stopping)
    );
    release.send(()).expect("the job listens");
    assert_eq!(handle.wait().verdict, Verdict::Completed);
    bench.close();
}

#[test]
fn dropping_the_engine_interrupts_what_runs() {
    let bench = Bench::new();
    let (spec, runs) = bench.silent("a");
    let handle = bench.submit(spec);
    runs.recv_timeout(LONG).expect("it runs");
    drop(bench);
    assert_eq!(
        handle.wait().verdict,
        Verdict::Cancelled(CancelReason::Stopping)
    );
}

#[test]
fn a_watchdog_that_can_not_have_the_core_gives_no_answer() {
    let bench = Bench::new();
    let engine = &bench.engine;
    assert_eq!(engine.pulse(bench.clock.now() + LONG), Ok(()));
    let (held, holds) = unbounded();
    let (let_go, told) = unbounded::<()>();
    std::thread::scope(|scope| {
        let holder = std::thread::Builder::new().name("test-holder".into());
        let hold = move || {
            engine.shell.look(|_, _| {
                held.send(()).expect("somebody waits");
                let _ = told.recv();
            });
        };
        holder.spawn_scoped(scope, hold).expect("thread starts");
        holds.recv().expect("the core is held");
        let silent = Err(Unhealthy::Watchdog);
        assert_eq!(engine.pulse(bench.clock.now()), silent);
        drop(let_go);
    });
    assert_eq!(engine.pulse(bench.clock.now() + LONG), Ok(()));
    engine.stop(LONG);
    assert_eq!(engine.pulse(bench.clock.now()), Ok(()), "it has gone home");
}
