//! Shares, waits and idle slots over long runs: not only safe, but fair and busy.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use crate::admission::{
    Core, Event, Fault, FlowId, JobId, Learning, Outcome, PermitKey, ProviderId, ProviderSettings,
    QueueSettings, Settings, StageId, Step, Submission, TargetId,
};
use fastrand::Rng;
use pointsman::clock::Time;
use pointsman::config::Priority;

/// Somebody who always has `backlog` jobs in line, or comes back after a while with the next one.
#[derive(Debug, Clone)]
struct Client {
    flow: u64,
    session: bool,
    class: Priority,
    /// What a call takes on the average.
    call: Duration,
    /// Whether calls differ (exponentially), or all take the same.
    varied: bool,
    backlog: usize,
    /// From the end of a job to the arrival of the next; only without a backlog.
    pause: Duration,
}

/// What a client had.
#[derive(Debug, Clone, Default)]
struct Had {
    service: Duration,
    longest_wait: Duration,
    starts: usize,
}

/// A run of some clients on one provider.
struct Run {
    core: Core,
    stage: StageId,
    slots: usize,
    clients: Vec<Client>,
    had: Vec<Had>,
    jobs: HashMap<JobId, (usize, Time)>,
    running: BinaryHeap<Reverse<(Time, Call)>>,
    arrivals: BinaryHeap<Reverse<(Time, usize)>>,
    submitted: u64,
    rng: Rng,
    now: Time,
    /// Slots that stood idle while somebody waited, times how long.
    idle: Duration,
}

/// A call under way, ordered by its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Call(JobId, PermitKey);

impl PartialOrd for Call {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Call {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl Run {
    fn new(slots: usize, session: usize, clients: Vec<Client>) -> Run {
        Run::with(None, slots, session, clients)
    }

    fn with(fault: Option<Fault>, slots: usize, session: usize, clients: Vec<Client>) -> Run {
        let mut core = Core::new(settings(slots, session));
        if let Some(fault) = fault {
            core.plant(fault);
        }
        Run {
            stage: core.stage(&[TargetId(0)]),
            core,
            slots,
            had: vec![Had::default(); clients.len()],
            clients,
            jobs: HashMap::new(),
            running: BinaryHeap::new(),
            arrivals: BinaryHeap::new(),
            submitted: 0,
            rng: Rng::with_seed(1),
            now: Time::ZERO,
            idle: Duration::ZERO,
        }
    }

    /// Plays so many seconds.
    fn play(mut self, seconds: u64) -> (Vec<Had>, Duration) {
        for client in 0..self.clients.len() {
            for _ in 0..self.clients[client].backlog.max(1) {
                self.submit(client);
            }
        }
        let end = Time::ZERO + Duration::from_secs(seconds);
        while self.now < end {
            self.step();
        }
        (self.had, self.idle)
    }

    fn step(&mut self) {
        let ends = self.running.peek().map_or(Time::NEVER, |call| call.0.0);
        let comes = self.arrivals.peek().map_or(Time::NEVER, |call| call.0.0);
        let next = self.core.next_due().max(self.now).min(ends).min(comes);
        if self.core.view(self.now).waiting > 0 {
            let idle = self.slots - self.running.len();
            self.idle += next.since(self.now) * idle as u32;
        }
        self.now = next;
        if ends == next {
            let Reverse((_, Call(job, permit))) = self.running.pop().expect("peeked");
            let (client, _) = self.jobs.remove(&job).expect("it was submitted");
            self.tell(Event::GiveBack(permit, Outcome::Completed.into()));
            if self.clients[client].backlog == 0 {
                let comes = self.now + self.clients[client].pause;
                self.arrivals.push(Reverse((comes, client)));
            }
        } else if comes == next {
            let Reverse((_, client)) = self.arrivals.pop().expect("peeked");
            self.submit(client);
        } else {
            self.tell(Event::Tick);
        }
    }

    fn submit(&mut self, client: usize) {
        self.submitted += 1;
        let job = JobId(self.submitted);
        let Client {
            flow,
            session,
            class,
            ..
        } = self.clients[client].clone();
        self.jobs.insert(job, (client, self.now));
        self.tell(Event::Submit(Submission {
            job,
            route: vec![self.stage.into()],
            flow: FlowId(flow),
            session,
            session_limit: None,
            class,
            deadline: Time::NEVER,
            bytes: 1,
            reclaim: true,
        }));
    }

    fn tell(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.core.on(event, self.now, &mut actions);
        for action in actions {
            match action.step {
                Step::Start { permit, .. } => self.start(action.job, permit),
                Step::Wait { .. } => {}
                other => assert!(matches!(other, Step::End(_)), "{other:?}"),
            }
        }
    }

    fn start(&mut self, job: JobId, permit: PermitKey) {
        let (index, arrived) = self.jobs[&job];
        let client = &self.clients[index];
        let length = if client.varied {
            client.call.mul_f64(-self.rng.f64().max(1e-9).ln())
        } else {
            client.call
        };
        let had = &mut self.had[index];
        had.service += length;
        had.starts += 1;
        had.longest_wait = had.longest_wait.max(self.now.since(arrived));
        self.running
            .push(Reverse((self.now + length, Call(job, permit))));
        if client.backlog > 0 {
            self.submit(index);
        }
    }
}

fn settings(slots: usize, session: usize) -> Settings {
    Settings {
        workers: slots,
        global: slots,
        session,
        sessions: 1_000,
        session_turn: Duration::from_secs(10),
        queue: QueueSettings {
            capacity: 100_000,
            per_session: 100_000,
            max_bytes: 1_000_000,
            per_provider: 100_000,
            timeout: Duration::from_secs(1_000_000_000),
            weights: [16, 4, 1],
            pressure_on: 1_000,
            pressure_off: 100,
        },
        providers: vec![ProviderSettings::fixed(slots)],
        targets: vec![ProviderId(0)],
        learning: Learning::default(),
        orphans: Default::default(),
    }
}

/// A session with a backlog, with calls of so many seconds.
fn session(flow: u64, call: u64) -> Client {
    Client {
        flow,
        session: true,
        class: Priority::Medium,
        call: Duration::from_secs(call),
        varied: true,
        backlog: 30,
        pause: Duration::ZERO,
    }
}

fn of_class(class: Priority, call: u64) -> Client {
    Client {
        class,
        ..session(class.index() as u64, call)
    }
}

/// Checks that the shares are as said, to so many parts in a hundred, and that no slot stood idle.
fn check_shares(run: Run, seconds: u64, shares: &[f64], percent: f64) {
    if let Err(what) = compare_shares(run, seconds, shares, percent) {
        panic!("{what}");
    }
}

fn compare_shares(run: Run, seconds: u64, shares: &[f64], percent: f64) -> Result<(), String> {
    let slots = run.slots;
    let (had, idle) = run.play(seconds);
    let service: Vec<f64> = had.iter().map(|had| had.service.as_secs_f64()).collect();
    let (total, all) = (service.iter().sum::<f64>(), shares.iter().sum::<f64>());
    for (had, share) in service.iter().zip(shares) {
        let due = total * share / all;
        let off = (had - due).abs() / due * 100.0;
        if off > percent {
            return Err(format!(
                "{slots} slots: {service:.0?} for {shares:?}: {off:.2} % off"
            ));
        }
    }
    if idle > Duration::ZERO {
        return Err(format!(
            "a slot stood idle for {idle:?} while somebody waited"
        ));
    }
    Ok(())
}

/// What this file checks, in short: shares by session and by class, and how long an interactive job waits.
pub(super) fn shares_are_kept(fault: Option<Fault>) -> Result<(), String> {
    let sessions = [6, 25, 120].map(|call| session(call, call));
    let run = Run::with(fault, 8, 8, sessions.into());
    compare_shares(run, 100_000, &[1.0; 3], 2.0)?;
    let classes = Priority::ALL.map(|class| of_class(class, 10));
    let run = Run::with(fault, 5, 5, classes.into());
    compare_shares(run, 100_000, &[16.0, 4.0, 1.0], 2.0)?;
    let newcomer = Client {
        backlog: 0,
        ..session(3, 6)
    };
    let clients = vec![session(1, 120), session(2, 120), newcomer];
    let (had, _) = Run::with(fault, 8, 8, clients).play(100_000);
    let longest = had[2].longest_wait;
    match longest <= Duration::from_secs(300) {
        true => Ok(()),
        false => Err(format!("a short session waits for {longest:?}")),
    }
}

#[test]
fn sessions_with_short_and_long_calls_get_the_same_service() {
    for slots in [1, 3, 8] {
        for varied in [false, true] {
            let clients = [6, 25, 120].map(|call| Client {
                varied,
                ..session(call, call)
            });
            check_shares(
                Run::new(slots, slots, clients.into()),
                400_000,
                &[1.0; 3],
                1.0,
            );
        }
    }
}

#[test]
fn many_clients_of_one_session_get_no_more_than_few_of_another() {
    let clients = [vec![session(1, 10); 20], vec![session(2, 10); 2]].concat();
    let run = Run::new(8, 8, clients);
    let (had, _) = run.play(50_000);
    let of = |clients: &[Had]| {
        clients
            .iter()
            .map(|had| had.service.as_secs_f64())
            .sum::<f64>()
    };
    let (many, few) = (of(&had[..20]), of(&had[20..]));
    assert!((many / few - 1.0).abs() < 0.01, "{many:.0} s to {few:.0} s");
}

#[test]
fn classes_share_by_their_weights() {
    for slots in [1, 5, 21] {
        let clients = Priority::ALL.map(|class| of_class(class, 10));
        check_shares(
            Run::new(slots, slots, clients.into()),
            400_000,
            &[16.0, 4.0, 1.0],
            1.0,
        );
    }
    let calls = [5, 20, 90];
    let clients = Priority::ALL.map(|class| of_class(class, calls[class.index()]));
    check_shares(
        Run::new(6, 6, clients.into()),
        1_000_000,
        &[16.0, 4.0, 1.0],
        1.0,
    );
}

#[test]
fn what_one_cannot_use_is_shared_by_the_others_as_they_deserve() {
    let any = |client: Client| Client {
        session: false,
        ..client
    };
    let clients = vec![
        session(1, 10),
        session(2, 60),
        any(session(3, 10)),
        any(session(4, 60)),
    ];
    check_shares(
        Run::new(10, 2, clients),
        200_000,
        &[2.0, 2.0, 3.0, 3.0],
        3.0,
    );
    let clients = vec![
        of_class(Priority::High, 10),
        any(of_class(Priority::Medium, 10)),
        any(of_class(Priority::Low, 10)),
    ];
    check_shares(Run::new(12, 2, clients), 200_000, &[2.0, 8.0, 2.0], 3.0);
}

#[test]
fn low_is_served_within_a_bound_under_a_flood_of_high() {
    let low = Client {
        backlog: 0,
        ..of_class(Priority::Low, 10)
    };
    let flood = (10..20).map(|flow| Client {
        flow,
        ..of_class(Priority::High, 10)
    });
    let run = Run::new(4, 4, flood.chain([low]).collect());
    let (had, _) = run.play(50_000);
    let low = had.last().expect("there are clients");
    assert!(low.starts > 500, "{low:?}");
    assert!(low.longest_wait < Duration::from_secs(300), "{low:?}");
}

#[test]
fn an_interactive_job_waits_for_no_more_than_the_next_free_slots() {
    let interactive = Client {
        backlog: 0,
        pause: Duration::from_secs(50),
        varied: false,
        ..of_class(Priority::High, 5)
    };
    let others = [Priority::Medium, Priority::Low].map(|class| Client {
        varied: false,
        ..of_class(class, 24)
    });
    let run = Run::new(6, 6, [others.to_vec(), vec![interactive]].concat());
    let (had, _) = run.play(50_000);
    assert!(
        had[2].longest_wait <= Duration::from_secs(24),
        "{:?}",
        had[2]
    );
}
