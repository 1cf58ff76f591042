//! What one step of the admission core costs, by how many jobs wait: it must not grow with them.
//!
//! `uncontended`: a slot is free. `contended`: all slots are busy and so many jobs wait, in a hundred sessions and
//! three classes.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use pointsman::admission::{
    Action, BreakerSettings, Core, Event, FlowId, JobId, Learning, Outcome, PermitKey, ProviderId,
    ProviderSettings, QueueSettings, Report, Settings, StageId, Step, Submission, TargetId,
};
use pointsman::cancel::CancelReason;
use pointsman::clock::Time;
use pointsman::config::Priority;

const SLOTS: usize = 24;
const SESSIONS: u64 = 100;
/// A call that went well, from which everything there is is learned.
const REPORT: Report = Report {
    outcome: Outcome::Completed,
    content: true,
    first_byte: Some(Duration::from_millis(700)),
};

/// A core with so many jobs in line, and all that it takes to go on.
struct Load {
    core: Core,
    stage: StageId,
    now: Time,
    jobs: u64,
    running: Vec<PermitKey>,
    actions: Vec<Action>,
}

impl Load {
    fn new(waiting: usize) -> Load {
        let mut core = Core::new(settings());
        let mut load = Load {
            stage: core.stage(&[TargetId(0)]),
            core,
            now: Time::ZERO,
            jobs: 0,
            running: Vec::new(),
            actions: Vec::new(),
        };
        while load.core.view(load.now).waiting < waiting {
            load.submit();
        }
        load
    }

    fn submit(&mut self) -> JobId {
        self.jobs += 1;
        let job = JobId(self.jobs);
        let submission = Submission {
            job,
            route: vec![self.stage.into()],
            flow: FlowId(self.jobs * 7 % SESSIONS),
            session: true,
            session_limit: None,
            class: Priority::ALL[(self.jobs % 3) as usize],
            deadline: self.now + Duration::from_secs(1_000_000),
            bytes: 1_000,
            reclaim: true,
        };
        self.on(Event::Submit(submission));
        job
    }

    fn submit_and_cancel(&mut self) {
        let job = self.submit();
        self.on(Event::Cancel(job, CancelReason::ClientLeft));
    }

    /// A call ends, so the next job starts; and one comes, so that as many wait as before.
    fn finish_and_submit(&mut self) {
        let permit = self
            .running
            .swap_remove(self.jobs as usize % self.running.len());
        self.on(Event::GiveBack(permit, REPORT));
        self.submit();
    }

    fn on(&mut self, event: Event) {
        self.now = self.now + Duration::from_millis(1);
        self.actions.clear();
        self.core.on(event, self.now, &mut self.actions);
        for action in &self.actions {
            if let Step::Start { permit, .. } = action.step {
                self.running.push(permit);
            }
        }
    }
}

fn settings() -> Settings {
    Settings {
        workers: SLOTS,
        global: SLOTS,
        session: 8,
        sessions: 1_000,
        session_turn: Duration::from_secs(10),
        queue: QueueSettings {
            capacity: 20_000,
            per_session: 20_000,
            max_bytes: 1 << 30,
            per_provider: 20_000,
            timeout: Duration::from_secs(1_000_000),
            weights: [16, 4, 1],
            pressure_on: 16_000,
            pressure_off: 6_000,
        },
        providers: vec![ProviderSettings {
            reserves: true,
            adaptive: true,
            breaker: Some(BreakerSettings::default()),
            ..ProviderSettings::fixed(SLOTS)
        }],
        targets: vec![ProviderId(0)],
        learning: Learning::default(),
        orphans: Default::default(),
    }
}

fn uncontended(criterion: &mut Criterion) {
    let mut load = Load::new(0);
    criterion.bench_function("uncontended/submit_and_finish", |bencher| {
        bencher.iter(|| {
            load.submit();
            let permit = load.running.pop().expect("it started at once");
            load.on(Event::GiveBack(permit, REPORT));
        });
    });
}

fn contended(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("contended");
    for waiting in [10, 1_000, 10_000] {
        let id = |what| BenchmarkId::new(what, waiting);
        let mut load = Load::new(waiting);
        group.bench_function(id("submit_and_cancel"), |bencher| {
            bencher.iter(|| load.submit_and_cancel());
        });
        let mut load = Load::new(waiting);
        group.bench_function(id("finish_and_submit"), |bencher| {
            bencher.iter(|| load.finish_and_submit());
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    uncontended(&mut criterion);
    contended(&mut criterion);
    criterion.final_summary();
}
