//! Functions of the embedding program under slots, deadline and watchdog.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use pointsman::engine::{ErrorClass, ProviderError};
use pointsman::{
    Call, CallContext, CancelReason, CancelToken, ChatError, ChatRequest, ExecuteError, Gateway,
    Job, Level,
};

use crate::embedding::gateway;
use crate::support::{BOUND, Client, Script, Upstream};

/// A gateway whose provider is asked by nobody but the functions. While it is idle one slot is kept for it, where there
/// is more than one.
pub(crate) fn start(global: usize, more: &str) -> Gateway {
    gateway(&Upstream::start(Script::Silent), global, more)
}

/// Deaf functions: each says that it runs, and returns only when it is released.
pub(crate) struct Deaf {
    runs: (Sender<()>, Receiver<()>),
    release: (Sender<()>, Arc<parking_lot::Mutex<Receiver<()>>>),
}

impl Deaf {
    pub(crate) fn new() -> Deaf {
        let (release, released) = channel();
        Deaf {
            runs: channel(),
            release: (release, Arc::new(parking_lot::Mutex::new(released))),
        }
    }

    pub(crate) fn function(
        &self,
    ) -> impl FnOnce(&CallContext) -> Result<(), String> + Send + 'static {
        let (say, released) = (self.runs.0.clone(), Arc::clone(&self.release.1));
        move |_| {
            say.send(()).map_err(|_| "nobody listens")?;
            released
                .lock()
                .recv_timeout(BOUND)
                .map_err(|_| "nobody releases it")?;
            Ok(())
        }
    }

    pub(crate) fn wait_until_one_runs(&self) {
        self.runs.1.recv_timeout(BOUND).expect("it runs");
    }

    pub(crate) fn release(&self) {
        self.release.0.send(()).expect("the function is there");
    }
}

/// Executes on a thread of its own.
pub(crate) fn aside<T: Send + 'static>(
    gateway: &Gateway,
    call: Call,
    function: impl FnOnce(&CallContext) -> Result<T, String> + Send + 'static,
) -> JoinHandle<Result<T, ExecuteError<String>>> {
    let gateway = gateway.clone();
    let thread = std::thread::Builder::new().name("test-aside".into());
    let thread = thread.spawn(move || gateway.execute(call, function));
    thread.expect("a thread starts")
}

pub(crate) fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().expect("no panic")
}

pub(crate) fn nothing(_: &CallContext) -> Result<(), String> {
    Ok(())
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_function_returns_its_value_and_its_own_error_passes_through() {
    #[derive(Debug, PartialEq)]
    struct Own(u32);
    let gateway = start(2, "");
    let value = gateway.execute(Call::on("mine"), |_| Ok::<_, Own>(vec![1, 2, 3]));
    assert_eq!(value, Ok(vec![1, 2, 3]));
    let error = gateway.execute(Call::new(), |_| Err::<(), _>(Own(7)));
    assert_eq!(error, Err(ExecuteError::Function(Own(7))));
}

#[test]
fn a_failing_function_runs_once() {
    let gateway = start(2, "");
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let error = gateway.execute(Call::on("mine"), move |ctx| {
        counted.fetch_add(1, Ordering::SeqCst);
        let class = ErrorClass::Overloaded;
        ctx.report(ProviderError::new(class, "it is overloaded"));
        Err::<(), _>("no")
    });
    assert_eq!(error, Err(ExecuteError::Function("no")));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[test]
fn each_function_ends_in_the_statistics_as_what_it_was() {
    let gateway = start(1, "");
    let server = gateway.serve().expect("it listens");
    assert_eq!(gateway.execute(Call::new(), nothing), Ok(()));
    for _ in 0..2 {
        let failed = gateway.execute(Call::on("mine"), |_| Err::<(), _>("no"));
        assert_eq!(failed, Err(ExecuteError::Function("no")));
    }
    let mut client = Client::connect(server.address().parse().expect("an address"));
    let requests = client.get("/api/status").json()["requests"].clone();
    assert_eq!([&requests["completed"], &requests["error"]], [1, 2]);
}

#[test]
fn a_function_that_panics_costs_no_worker_and_no_slot() {
    let gateway = start(1, "");
    for _ in 0..3 {
        let error = gateway.execute(Call::on("mine"), |_| -> Result<(), String> {
            panic!("on purpose")
        });
        let error = error.expect_err("it panics");
        assert_eq!(error.detail(), Some("on purpose"));
        assert_eq!(error.to_string(), "the function panicked");
    }
    assert_eq!(gateway.execute(Call::on("mine"), nothing), Ok(()));
}

#[test]
fn a_function_knows_its_ids_its_deadline_and_its_provider() {
    let gateway = start(2, "");
    let call = Call::on("mine")
        .session("agent-1")
        .request_id("r-1")
        .timeout(Duration::from_secs(20));
    let seen = gateway.execute(call, |ctx| {
        let names = [Some(ctx.request_id()), ctx.session(), ctx.provider()];
        let names = names.map(|name| name.map(str::to_owned));
        Ok::<_, String>((names, ctx.time_left()))
    });
    let (names, left) = seen.expect("it returns");
    assert_eq!(
        names.each_ref().map(Option::as_deref),
        [Some("r-1"), Some("agent-1"), Some("mine")]
    );
    assert!(left > Duration::from_secs(10) && left <= Duration::from_secs(20));
    let seen = gateway.execute(Call::new(), |ctx| {
        let named = ctx.session().is_some() || ctx.provider().is_some();
        Ok::<_, String>((named, ctx.time_left()))
    });
    let (named, left) = seen.expect("it returns");
    assert!(!named && left <= Duration::from_secs(30), "timeouts.normal");
}

#[test]
fn a_provider_that_the_configuration_does_not_have_is_named() {
    let error = start(2, "").execute(Call::on("nobody"), nothing);
    assert_eq!(error, Err(ExecuteError::UnknownProvider("nobody".into())));
}

/// With one function of `first` running, one of `second` waits, and runs when the first has returned.
fn waits_for(more: &str, first: Call, second: Call) {
    let (gateway, deaf) = (start(3, more), Deaf::new());
    let holder = aside(&gateway, first, deaf.function());
    deaf.wait_until_one_runs();
    let short = second.clone().timeout(millis(30));
    assert_eq!(
        gateway.execute(short, nothing),
        Err(ExecuteError::DeadlineExceeded { started: false })
    );
    let waiter = aside(&gateway, second, nothing);
    deaf.release();
    assert_eq!((join(holder), join(waiter)), (Ok(()), Ok(())));
}

/// With one function of `first` running, one of `second` runs as well.
fn passes(more: &str, first: Call, second: Call) {
    let (gateway, deaf) = (start(3, more), Deaf::new());
    let holder = aside(&gateway, first, deaf.function());
    deaf.wait_until_one_runs();
    assert_eq!(gateway.execute(second, nothing), Ok(()));
    deaf.release();
    assert_eq!(join(holder), Ok(()));
}

#[test]
fn a_function_takes_a_slot_of_its_provider() {
    let one = "providers.mine.max_inflight = 1";
    waits_for(one, Call::on("mine"), Call::on("mine"));
    passes(one, Call::on("mine"), Call::on("embedded"));
    passes(one, Call::on("mine"), Call::new());
}

#[test]
fn a_function_takes_a_slot_of_its_session() {
    let one = "limits.session = 1";
    let call = |session: &str| Call::new().session(session);
    waits_for(one, call("a"), call("a"));
    passes(one, call("a"), call("b"));
    passes(one, call("a"), Call::new());
}

#[test]
fn functions_without_a_provider_leave_the_slot_that_is_kept_for_an_idle_one() {
    let (gateway, deaf) = (start(2, ""), Deaf::new());
    let holder = aside(&gateway, Call::new(), deaf.function());
    deaf.wait_until_one_runs();
    let short = Call::new().timeout(millis(30));
    assert_eq!(
        gateway.execute(short, nothing),
        Err(ExecuteError::DeadlineExceeded { started: false })
    );
    assert_eq!(gateway.execute(Call::on("mine"), nothing), Ok(()));
    deaf.release();
    assert_eq!(join(holder), Ok(()));
}

#[test]
fn a_function_without_a_provider_takes_a_global_slot() {
    waits_for("engine.workers = 1", Call::new(), Call::new());
    let (gateway, deaf) = (start(1, ""), Deaf::new());
    let holder = aside(&gateway, Call::new(), deaf.function());
    deaf.wait_until_one_runs();
    let job = Job::chat(ChatRequest::new("embedded").user("x")).timeout(millis(30));
    let error = gateway.chat(job).expect_err("no slot is free");
    assert_eq!(
        error.to_string(),
        "the deadline passed; phase: queue; 1 of 1 slots in use"
    );
    deaf.release();
    assert_eq!(join(holder), Ok(()));
}

#[test]
fn at_the_deadline_the_caller_is_answered_and_the_slot_stays_taken_until_the_function_returns() {
    let keep = "watchdog.reclaim_execute = false\nwatchdog.quarantine_after = \"1ms\"\nwatchdog.reclaim_after = \"2ms\"";
    let (gateway, deaf) = (start(1, keep), Deaf::new());
    let short = || Call::new().timeout(millis(300));
    assert_eq!(
        gateway.execute(short(), deaf.function()),
        Err(ExecuteError::DeadlineExceeded { started: true })
    );
    assert_eq!(
        gateway.execute(short(), nothing),
        Err(ExecuteError::DeadlineExceeded { started: false }),
        "the function still runs"
    );
    deaf.release();
    assert_eq!(gateway.execute(Call::new(), nothing), Ok(()));
}

#[test]
fn a_function_that_had_not_begun_never_does_and_is_dropped_with_its_answer() {
    let (gateway, deaf) = (start(1, ""), Deaf::new());
    let holder = aside(&gateway, Call::new(), deaf.function());
    deaf.wait_until_one_runs();
    let owned = Arc::new(());
    let late = Arc::clone(&owned);
    let error = gateway.execute(Call::new().timeout(millis(20)), move |_| {
        drop(late);
        Err::<(), _>("it ran")
    });
    assert_eq!(
        error,
        Err(ExecuteError::DeadlineExceeded { started: false })
    );
    assert_eq!(Arc::strong_count(&owned), 1, "what it owned is gone");
    deaf.release();
    assert_eq!(join(holder), Ok(()));
}

#[test]
fn a_function_that_heeds_its_token_is_told_of_the_deadline() {
    let (gateway, (say, said)) = (start(1, ""), channel());
    let error = gateway.execute(Call::new().timeout(millis(300)), move |ctx| {
        let reason = ctx.cancel_token().wait(BOUND);
        let _ = say.send((reason, ctx.time_left()));
        Err::<(), _>("too late")
    });
    assert_eq!(error, Err(ExecuteError::DeadlineExceeded { started: true }));
    let told = said.recv_timeout(BOUND).expect("it is told");
    assert_eq!(told, (Some(CancelReason::Deadline), Duration::ZERO));
}

#[test]
fn a_callers_token_ends_a_call_in_line_and_one_under_way() {
    let (gateway, deaf) = (start(1, ""), Deaf::new());
    let token = CancelToken::new();
    let call = || Call::new().cancelled_by(&token);
    let running = aside(&gateway, call(), deaf.function());
    deaf.wait_until_one_runs();
    let waiting = aside(&gateway, call(), nothing);
    token.cancel(CancelReason::Requested);
    let cancelled = |started| {
        let reason = CancelReason::Requested;
        Err(ExecuteError::Cancelled { reason, started })
    };
    assert_eq!(join(running), cancelled(true));
    assert_eq!(join(waiting), cancelled(false));
    deaf.release();
}

#[test]
fn stopping_answers_the_caller_of_a_deaf_function_and_leaves_it_behind() {
    let (gateway, deaf) = (start(1, ""), Deaf::new());
    let running = aside(&gateway, Call::new(), deaf.function());
    deaf.wait_until_one_runs();
    gateway.shutdown(Duration::ZERO);
    let reason = CancelReason::Stopping;
    assert_eq!(
        join(running),
        Err(ExecuteError::Cancelled {
            reason,
            started: true
        })
    );
    let refused = gateway.execute(Call::new(), nothing);
    assert!(
        matches!(refused, Err(ExecuteError::Refused(_))),
        "{refused:?}"
    );
    deaf.release();
}

#[test]
fn whoever_waits_on_a_worker_of_the_same_gateway_is_told_at_once() {
    let gateway = start(1, "");
    let inner = gateway.clone();
    let question = || ChatRequest::new("embedded").user("x");
    let would = gateway.execute(Call::new().timeout(BOUND), move |_| {
        let job = inner
            .submit(question())
            .map_err(|error| error.to_string())?;
        let batch = inner.execute_all([(Call::new(), nothing), (Call::new(), nothing)]);
        let executed = [inner.execute(Call::new(), nothing)];
        let chats = [
            inner.chat(question()).err(),
            inner.stream(question()).err(),
            job.wait().err(),
            job.wait_timeout(BOUND).err(),
        ];
        let functions = executed.into_iter().chain(batch).map(Result::err);
        Ok::<_, String>((job, chats, Vec::from_iter(functions)))
    });
    let (job, chats, functions) = would.expect("it returns");
    assert_eq!(chats, [const { Some(ChatError::WouldDeadlock) }; 4]);
    assert_eq!(functions, [const { Some(ExecuteError::WouldDeadlock) }; 3]);
    assert!(
        job.wait().is_ok(),
        "what was submitted is done once the worker is free"
    );
}

#[test]
fn a_stream_that_is_read_on_a_worker_of_its_gateway_ends() {
    let gateway = start(3, "");
    let question = ChatRequest::new("embedded").user("x");
    let mut stream = gateway.stream(question).expect("it begins");
    let read = gateway.execute(Call::new(), move |_| {
        Ok::<_, String>([stream.next(), stream.next()])
    });
    assert_eq!(read, Ok([Some(Err(ChatError::WouldDeadlock)), None]));
}

#[test]
fn a_worker_may_wait_for_another_gateway() {
    let (one, other) = (start(1, ""), start(1, ""));
    let value = one.execute(Call::new(), move |_| other.execute(Call::new(), nothing));
    assert_eq!(value, Ok(()));
}

#[test]
fn a_batch_gives_its_results_in_order_however_many_there_are() {
    let gateway = start(2, "queue.capacity = 4\nqueue.per_session = 3");
    let square = |n: u32| {
        let function = move |_: &CallContext| match n % 10 {
            0 => Err(n),
            _ => Ok(n * n),
        };
        (Call::new(), function)
    };
    let results = gateway.execute_all((1..=200).map(square));
    let expected = (1..=200).map(|n| match n % 10 {
        0 => Err(ExecuteError::Function(n)),
        _ => Ok(n * n),
    });
    assert_eq!(results, Vec::from_iter(expected));
    assert_eq!(gateway.load(), Level::Low, "nothing is left behind");
}

#[test]
fn a_batch_is_partial_at_the_deadline() {
    let (gateway, deaf) = (start(3, ""), Deaf::new());
    let hang = deaf.function();
    type Function = Box<dyn FnOnce(&CallContext) -> Result<(), String> + Send>;
    let short = || Call::new().timeout(millis(500));
    let calls: [(Call, Function); 4] = [
        (short(), Box::new(nothing)),
        (short(), Box::new(hang)),
        (Call::on("nobody"), Box::new(nothing)),
        (short(), Box::new(nothing)),
    ];
    let late = ExecuteError::DeadlineExceeded { started: true };
    let unknown = ExecuteError::UnknownProvider("nobody".into());
    assert_eq!(
        gateway.execute_all(calls),
        [Ok(()), Err(late), Err(unknown), Ok(())]
    );
    deaf.release();
}

#[test]
fn a_call_unless_loaded_is_refused_from_that_level_on() {
    let queue = "queue.capacity = 4\nqueue.pressure_on = 0.5\nqueue.provider_share = 1.0";
    let (gateway, deaf) = (start(1, queue), Deaf::new());
    let wary = |level| gateway.execute(Call::new().unless_load(level), nothing);
    assert_eq!((gateway.load(), wary(Level::Normal)), (Level::Low, Ok(())));
    assert_eq!(wary(Level::Low), Err(ExecuteError::Loaded(Level::Low)));
    let holder = aside(&gateway, Call::new(), deaf.function());
    deaf.wait_until_one_runs();
    assert_eq!(gateway.load(), Level::Normal, "all slots are taken");
    let mut line = Vec::new();
    for level in [Level::Normal, Level::High, Level::High, Level::Critical] {
        let question = ChatRequest::new("embedded").user("x");
        line.push(gateway.submit(question).expect("it is taken"));
        assert_eq!(gateway.load(), level, "{} wait", line.len());
    }
    let error = wary(Level::High).expect_err("it is loaded");
    assert_eq!(error, ExecuteError::Loaded(Level::Critical));
    assert_eq!(error.to_string(), "the load is critical");
    deaf.release();
    assert_eq!(join(holder), Ok(()));
    for job in line {
        assert!(job.wait().is_ok());
    }
}
