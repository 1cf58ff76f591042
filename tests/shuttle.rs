//! The admission core behind a lock, under many interleavings of the threads that use it.
//!
//! Submitters, workers, a canceller and a watchdog share a core as the threads of the engine do: one lock around the
//! core, actions carried out after it is released. Time is a number that the watchdog moves on, since a schedule
//! knows no timed waits. `POINTSMAN_SCHEDULES` sets how many random schedules are tried.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use pointsman::admission::{
    Action, Cause, Core, Event, FlowId, JobId, Learning, Outcome, PermitKey, ProviderId,
    ProviderSettings, QueueSettings, Settings, StageId, Step, Submission, TargetId,
};
use pointsman::cancel::CancelReason;
use pointsman::clock::Time;
use pointsman::config::Priority;
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

/// Schedules tried unless `POINTSMAN_SCHEDULES` says otherwise.
const SCHEDULES: usize = 50_000;
const GLOBAL: usize = 2;
const SESSION: usize = 1;
const JOBS: u64 = 5;

/// What the threads share.
struct Shared {
    inner: Mutex<Inner>,
    /// Jobs that were started and that no worker has taken yet.
    ready: Mutex<VecDeque<(JobId, PermitKey)>>,
    /// What was seen from outside.
    seen: Mutex<Seen>,
    stages: [StageId; 2],
}

struct Inner {
    core: Core,
    now: Time,
    /// Permits that were given out and that their owners have not given back.
    out: usize,
}

#[derive(Default)]
struct Seen {
    ended: BTreeSet<JobId>,
    numbers: BTreeSet<u64>,
    /// Calls whose worker may make them and has not given back.
    calling: usize,
}

impl Shared {
    fn new() -> Shared {
        let mut core = Core::new(settings());
        Shared {
            stages: [TargetId(0), TargetId(1)].map(|target| core.stage(&[target])),
            inner: Mutex::new(Inner {
                core,
                now: Time::ZERO,
                out: 0,
            }),
            ready: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    /// Tells the core, then, without its lock, carries out what it says.
    fn on(&self, event: Event) {
        self.tell(event, 0);
    }

    /// The same, where an owner gives back so many permits with the event.
    fn tell(&self, event: Event, given_back: usize) {
        let mut actions = Vec::new();
        {
            let inner = &mut *self.inner.lock().expect("no thread panicked");
            inner.core.on(event, inner.now, &mut actions);
            let started = |action: &&Action| matches!(action.step, Step::Start { .. });
            inner.out += actions.iter().filter(started).count();
            inner.out -= given_back;
            check(inner);
        }
        self.carry_out(actions);
    }

    fn carry_out(&self, actions: Vec<Action>) {
        for action in actions {
            let mut seen = self.seen.lock().expect("no thread panicked");
            assert!(seen.numbers.insert(action.seq), "a number was given twice");
            match action.step {
                Step::Start { permit, .. } => {
                    drop(seen);
                    let mut ready = self.ready.lock().expect("no thread panicked");
                    ready.push_back((action.job, permit));
                }
                Step::End(_) => assert!(
                    seen.ended.insert(action.job),
                    "{:?} ended twice",
                    action.job
                ),
                Step::Wait { .. } | Step::BackOff { .. } | Step::Interrupt(_) => {}
            }
        }
    }

    fn submit(&self, number: u64) {
        let deadline = Time::ZERO + Duration::from_secs(2 + number % 3);
        self.on(Event::Submit(Submission {
            job: JobId(number),
            route: self.stages[..1 + (number % 2) as usize]
                .iter()
                .map(|&stage| stage.into())
                .collect(),
            flow: FlowId(number % 3),
            session: true,
            session_limit: None,
            class: Priority::ALL[(number % 3) as usize],
            deadline,
            bytes: 1,
        }));
    }

    /// A worker's turn: takes one job, if there is one, and makes its call.
    fn work(&self) {
        let next = self.ready.lock().expect("no thread panicked").pop_front();
        let Some((job, permit)) = next else {
            return;
        };
        if self.begin(permit) {
            self.seen.lock().expect("no thread panicked").calling += 1;
            thread::yield_now();
            let mut seen = self.seen.lock().expect("no thread panicked");
            assert!(
                seen.calling <= GLOBAL,
                "{} calls are under way",
                seen.calling
            );
            seen.calling -= 1;
        }
        let outcome = if job.0 % 2 == 0 {
            Outcome::Completed
        } else {
            Outcome::Failed(Cause::Broken)
        };
        self.tell(Event::GiveBack(permit, outcome.into()), 1);
        if job.0 == 0 {
            self.on(Event::GiveBack(permit, outcome.into()));
        }
    }

    fn begin(&self, permit: PermitKey) -> bool {
        let mut actions = Vec::new();
        let may = {
            let inner = &mut *self.inner.lock().expect("no thread panicked");
            inner.core.begin(permit, inner.now, &mut actions)
        };
        self.carry_out(actions);
        may
    }

    /// The watchdog's turn: lets the time pass until the core wants a tick.
    fn tick(&self) {
        {
            let inner = &mut *self.inner.lock().expect("no thread panicked");
            let due = inner.core.next_due();
            if due == Time::NEVER {
                return;
            }
            inner.now = due.max(inner.now);
        }
        self.on(Event::Tick);
    }

    fn is_over(&self) -> bool {
        let ended = self.seen.lock().expect("no thread panicked").ended.len();
        let inner = self.inner.lock().expect("no thread panicked");
        ended as u64 == JOBS && inner.out == 0
    }
}

/// What must hold whenever the lock is free.
fn check(inner: &Inner) {
    inner.core.audit().expect("the books agree");
    let view = inner.core.view(inner.now);
    assert_eq!(
        view.in_use, inner.out,
        "each permit that is out has its slot"
    );
    assert!(view.in_use <= GLOBAL);
    assert!(
        view.sessions * SESSION >= view.in_use,
        "one call of each session"
    );
    assert_eq!(view.taken - view.given_back, view.in_use as u64);
}

fn settings() -> Settings {
    let provider = ProviderSettings::fixed(GLOBAL);
    Settings {
        workers: GLOBAL,
        global: GLOBAL,
        session: SESSION,
        sessions: 2,
        session_turn: Duration::from_secs(1),
        queue: QueueSettings {
            capacity: 3,
            per_session: 2,
            max_bytes: 100,
            per_provider: 3,
            timeout: Duration::from_secs(2),
            weights: [16, 4, 1],
            pressure_on: 2,
            pressure_off: 1,
        },
        providers: vec![provider; 2],
        targets: vec![ProviderId(0), ProviderId(1)],
        learning: Learning::default(),
    }
}

/// One life of a small gateway.
fn live() {
    let shared = Arc::new(Shared::new());
    let spawn = |work: fn(&Shared, u64), number: u64| {
        let shared = Arc::clone(&shared);
        thread::spawn(move || work(&shared, number))
    };
    let until_over = |turn: fn(&Shared)| {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            while !shared.is_over() {
                turn(&shared);
                thread::yield_now();
            }
        })
    };
    let mut threads = vec![
        spawn(
            |shared, _| (0..3).for_each(|number| shared.submit(number)),
            0,
        ),
        spawn(
            |shared, _| (3..JOBS).for_each(|number| shared.submit(number)),
            0,
        ),
        spawn(
            |shared, job| shared.on(Event::Cancel(JobId(job), CancelReason::ClientLeft)),
            1,
        ),
    ];
    threads.push(until_over(Shared::work));
    threads.push(until_over(Shared::work));
    threads.push(until_over(Shared::tick));
    for thread in threads {
        thread.join().expect("no thread panicked");
    }
    let inner = shared.inner.lock().expect("no thread panicked");
    let view = inner.core.view(inner.now);
    assert_eq!(
        (view.in_use, view.waiting, view.sessions, view.waiting_bytes),
        (0, 0, 0, 0)
    );
    assert_eq!(inner.core.next_due(), Time::NEVER);
}

#[test]
fn whatever_the_schedule_each_job_ends_once_and_each_slot_comes_back() {
    let schedules = std::env::var("POINTSMAN_SCHEDULES").ok();
    let schedules = schedules.map_or(SCHEDULES, |text| text.parse().expect("it is a number"));
    shuttle::check_random(live, schedules);
}
