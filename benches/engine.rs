//! What a job costs beside its call: submit to result, against the bare hand-off to a thread and back.
//!
//! Bars: a no-op job at most 2.5 times the bare round trip; 12 tasks of 50 ms on 12 workers under 52 ms.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use crossbeam::channel::bounded;
use pointsman::clock::{SharedClock, SystemClock};
use pointsman::config::{Config, Priority, Profile};
use pointsman::engine::{Engine, FnTask, JobSpec, Task, TaskContext};
use pointsman::providers::{Call, OnPiece, Provider, ProviderError, Providers};
use pointsman::routing::Router;
use pointsman::telemetry::LifecycleLog;

/// The jobs here are functions: nobody is called.
#[derive(Debug)]
struct Nobody;

impl Provider for Nobody {
    fn chat(&self, _call: &Call<'_>, _on_piece: &mut OnPiece<'_>) -> Result<(), ProviderError> {
        Ok(())
    }
}

struct Rig {
    engine: Engine,
    clock: SharedClock,
}

impl Rig {
    /// An engine of `workers` workers without other limits.
    fn new(workers: usize) -> Rig {
        let mut config = Config::builtin(Profile::Test);
        config.limits.global = workers;
        let clock = SystemClock::shared();
        let providers: Vec<(Arc<str>, Arc<dyn Provider>)> =
            vec![("nobody".into(), Arc::new(Nobody))];
        let lifecycle = Arc::new(LifecycleLog::new(&config.telemetry));
        let router = Router::new(&config, &Providers::new(&config, Arc::clone(&clock)));
        let engine = Engine::start(&config, Arc::clone(&clock), providers, router, lifecycle);
        Rig {
            engine: engine.expect("threads start"),
            clock,
        }
    }

    fn spec(&self, task: impl Task + 'static) -> JobSpec {
        let now = self.clock.now();
        let deadline = now + Duration::from_secs(60);
        JobSpec {
            provider: Some("nobody".into()),
            priority: Priority::High,
            ..JobSpec::new("bench".into(), task, now, deadline)
        }
    }
}

/// A thread that sends back what it is sent: what any hand-off costs on this machine now.
fn bare_round_trip(criterion: &mut Criterion) {
    let (there, takes) = bounded::<u64>(1);
    let (back, result) = bounded::<u64>(1);
    let echo = std::thread::Builder::new().name("bench-echo".into());
    let echo = echo.spawn(move || takes.iter().all(|value| back.send(value).is_ok()));
    criterion.bench_function("uncontended/bare_round_trip", |bencher| {
        bencher.iter(|| {
            there.send(black_box(1)).expect("the echo lives");
            result.recv().expect("the echo answers")
        });
    });
    drop(there);
    echo.expect("a thread starts").join().expect("no panic");
}

fn no_op(criterion: &mut Criterion) {
    let rig = Rig::new(4);
    criterion.bench_function("uncontended/no_op_job", |bencher| {
        bencher.iter(|| {
            let task = FnTask(|_: &TaskContext<'_>| Ok(()));
            rig.engine
                .submit(rig.spec(task))
                .expect("known provider")
                .wait()
        });
    });
}

fn twelve_at_once(criterion: &mut Criterion) {
    let rig = Rig::new(12);
    criterion.bench_function("contended/12_tasks_of_50_ms", |bencher| {
        bencher.iter_custom(|rounds| {
            let start = Instant::now();
            for _ in 0..rounds {
                let pause = |context: &TaskContext<'_>| {
                    context.cancel.wait(Duration::from_millis(50));
                    Ok(())
                };
                let submit = |_| {
                    rig.engine
                        .submit(rig.spec(FnTask(pause)))
                        .expect("known provider")
                };
                let jobs: Vec<_> = (0..12).map(submit).collect();
                jobs.iter().for_each(|job| drop(job.wait()));
            }
            start.elapsed()
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(4));
    targets = bare_round_trip, no_op, twelve_at_once
}
criterion_main!(benches);
