//! What admission promises, sentence by sentence: one chapter per theme, on a world in which time stands still until
//! a test moves it.

mod audit;
mod bounds;
mod changes;
mod ends;
mod fairness;
mod limits;
mod orphans;
mod retries;
mod sessions;
mod shut;
mod stopping;
mod throttle;
mod whereabouts;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::*;

/// A core, the time, and what became of each job.
struct World {
    core: Core,
    now: Time,
    stages: HashMap<Vec<u32>, StageId>,
    seen: BTreeMap<u64, Seen>,
    /// Started since the last look, in order.
    started: Vec<u64>,
    seq: u64,
}

/// What became of one job.
#[derive(Debug, Default)]
struct Seen {
    permit: Option<PermitKey>,
    target: Option<TargetId>,
    attempt: u32,
    waits: usize,
    ending: Option<Ending>,
    interrupted: Option<CancelReason>,
    /// When its holder was given up on, and when its slot was taken back.
    quarantined: Option<Time>,
    reclaimed: Option<Time>,
    /// While it backs off: until when.
    back_at: Option<Time>,
    stage: usize,
    first_byte_by: Time,
    probe: bool,
}

/// A job to submit; what is not said is harmless.
#[derive(Debug, Clone)]
struct Ask {
    flow: u64,
    session: bool,
    session_limit: Option<usize>,
    class: Priority,
    route: Vec<Vec<u32>>,
    model: Option<ModelId>,
    deadline: u64,
    bytes: usize,
    /// Whether its slot may be taken from a holder that does not come back.
    reclaim: bool,
}

/// The job is over with it.
const FAILS: Outcome = Outcome::Failed(Cause::Request);
/// The next stage may try.
const FALLS_BACK: Outcome = Outcome::Failed(Cause::Broken);

/// A job of a flow without a limit, for target 0, due in an hour.
fn ask(flow: u64) -> Ask {
    Ask {
        flow,
        session: false,
        session_limit: None,
        class: Priority::Medium,
        route: vec![vec![0]],
        model: None,
        deadline: 3_600,
        bytes: 1,
        reclaim: true,
    }
}

/// The same for a named session.
fn session(flow: u64) -> Ask {
    Ask {
        session: true,
        ..ask(flow)
    }
}

impl Ask {
    /// For this target and no other.
    fn on(self, target: u32) -> Ask {
        self.along(&[&[target]])
    }

    /// For one stage after the other.
    fn along(mut self, route: &[&[u32]]) -> Ask {
        self.route = route.iter().map(|stage| stage.to_vec()).collect();
        self
    }

    /// For this model.
    fn model(mut self, model: u64) -> Ask {
        self.model = Some(ModelId(model));
        self
    }

    /// Of a session with a limit of its own.
    fn limited(mut self, limit: usize) -> Ask {
        self.session_limit = Some(limit);
        self
    }

    fn class(mut self, class: Priority) -> Ask {
        self.class = class;
        self
    }

    /// Due so many seconds from now.
    fn within(mut self, seconds: u64) -> Ask {
        self.deadline = seconds;
        self
    }

    fn bytes(mut self, bytes: usize) -> Ask {
        self.bytes = bytes;
        self
    }
}

/// Limits that nobody meets: a test lowers the one that it is about. One target for each provider.
fn settings(providers: usize) -> Settings {
    let provider = ProviderSettings::fixed(1_000);
    Settings {
        workers: 1_000,
        global: 1_000,
        session: 1_000,
        sessions: 1_000,
        session_turn: secs(10),
        queue: QueueSettings {
            capacity: 1_000,
            per_session: 1_000,
            max_bytes: 1_000_000,
            per_provider: 1_000,
            timeout: secs(60),
            weights: [16, 4, 1],
            pressure_on: 800,
            pressure_off: 300,
        },
        providers: vec![provider; providers],
        targets: (0..providers as u32).map(ProviderId).collect(),
        learning: Learning::default(),
        orphans: Default::default(),
    }
}

/// One provider with one slot.
fn one_slot() -> Settings {
    let mut settings = settings(1);
    settings.global = 1;
    settings
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl World {
    fn new(settings: Settings) -> World {
        World {
            core: Core::new(settings),
            now: Time::ZERO,
            stages: HashMap::new(),
            seen: BTreeMap::new(),
            started: Vec::new(),
            seq: 0,
        }
    }

    /// Submits it and says under which number it is known.
    fn submit(&mut self, ask: Ask) -> u64 {
        let job = self.seen.len() as u64;
        self.seen.insert(job, Seen::default());
        let route = ask
            .route
            .iter()
            .map(|targets| Leg {
                stage: self.stage(targets),
                model: ask.model,
            })
            .collect();
        self.on(Event::Submit(Submission {
            job: JobId(job),
            route,
            flow: FlowId(ask.flow),
            session: ask.session,
            session_limit: ask.session_limit,
            class: ask.class,
            deadline: self.now + secs(ask.deadline),
            bytes: ask.bytes,
            reclaim: ask.reclaim,
        }));
        job
    }

    /// Submits as many as said.
    fn submit_all(&mut self, count: usize, ask: &Ask) -> Vec<u64> {
        (0..count).map(|_| self.submit(ask.clone())).collect()
    }

    fn finish(&mut self, job: u64) {
        self.give_back(job, Outcome::Completed);
    }

    fn give_back(&mut self, job: u64, report: impl Into<Report>) {
        let permit = self.seen[&job].permit.expect("the job was started");
        self.on(Event::GiveBack(permit, report.into()));
    }

    /// Its call failed before any content came.
    fn fail(&mut self, job: u64, cause: Cause) {
        self.give_back(job, Outcome::Failed(cause));
    }

    fn cancel(&mut self, job: u64) {
        self.on(Event::Cancel(JobId(job), CancelReason::Requested));
    }

    fn begin(&mut self, job: u64) -> bool {
        let permit = self.seen[&job].permit.expect("the job was started");
        let mut actions = Vec::new();
        let may = self.core.begin(permit, WorkerId(0), self.now, &mut actions);
        self.note(actions);
        may
    }

    /// Its guard was found to be lost.
    fn recover(&mut self, job: u64) -> bool {
        let permit = self.seen[&job].permit.expect("the job was started");
        let mut actions = Vec::new();
        let recovered = self.core.recover(permit, self.now, &mut actions);
        self.note(actions);
        recovered
    }

    /// So many seconds later, without a tick.
    fn pass(&mut self, seconds: u64) {
        self.now = self.now + secs(seconds);
    }

    /// So many seconds later, with a tick whenever the core wants one.
    fn play(&mut self, seconds: u64) {
        let until = self.now + secs(seconds);
        for ticks in 0.. {
            if self.core.next_due() > until {
                break;
            }
            assert!(ticks < 100_000, "a tick that is asked for again and again");
            self.now = self.now.max(self.core.next_due());
            self.on(Event::Tick);
        }
        self.now = until;
    }

    fn tick(&mut self) {
        self.on(Event::Tick);
    }

    fn on(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.core.on(event, self.now, &mut actions);
        self.note(actions);
    }

    /// Other settings are in force; no target is another, and none is gone.
    fn change(&mut self, settings: Settings) {
        self.change_targets(settings, &[], &[]);
    }

    fn change_targets(&mut self, settings: Settings, anew: &[u32], gone: &[u32]) {
        let ids = |list: &[u32]| list.iter().copied().map(TargetId).collect();
        self.on(Event::Change(Box::new(Change {
            settings,
            anew: ids(anew),
            gone: ids(gone),
        })));
    }

    fn note(&mut self, actions: Vec<Action>) {
        for action in actions {
            assert!(action.seq > self.seq, "sequence numbers increase");
            self.seq = action.seq;
            let seen = self.seen.get_mut(&action.job.0).expect("a job of ours");
            match action.step {
                Step::Wait { .. } => {
                    seen.waits += 1;
                    seen.back_at = None;
                }
                Step::BackOff { until } => seen.back_at = Some(until),
                Step::Start {
                    permit,
                    target,
                    attempt,
                    stage,
                    first_byte_by,
                    probe,
                } => {
                    (seen.permit, seen.target, seen.attempt) =
                        (Some(permit), Some(target), attempt);
                    (seen.stage, seen.first_byte_by, seen.probe) = (stage, first_byte_by, probe);
                    self.started.push(action.job.0);
                }
                Step::End(ending) => {
                    let before = seen.ending.replace(ending);
                    assert_eq!(before, None, "job {} ended twice", action.job.0);
                }
                Step::Interrupt(reason) => seen.interrupted = Some(reason),
                Step::Quarantine { .. } => seen.quarantined = Some(self.now),
                Step::Reclaim { .. } => seen.reclaimed = Some(self.now),
            }
        }
        self.core.audit().expect("the books agree");
    }

    /// The jobs started since the last look, in order.
    fn started(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.started)
    }

    fn has_started(&self, job: u64) -> bool {
        self.seen[&job].permit.is_some()
    }

    fn ending(&self, job: u64) -> Option<Ending> {
        self.seen[&job].ending.clone()
    }

    /// Why it was refused, if it was.
    fn refusal(&self, job: u64) -> Option<RefusalReason> {
        match self.ending(job) {
            Some(Ending::Refused(refusal)) => Some(refusal.reason),
            _ => None,
        }
    }

    fn retry_after(&self, job: u64) -> u64 {
        match self.ending(job) {
            Some(Ending::Refused(refusal)) => refusal.retry_after.as_secs(),
            other => panic!("job {job} was not refused: {other:?}"),
        }
    }

    fn view(&self) -> CoreView {
        self.core.view(self.now)
    }

    fn stage(&mut self, targets: &[u32]) -> StageId {
        let ids: Vec<TargetId> = targets.iter().copied().map(TargetId).collect();
        *self
            .stages
            .entry(targets.to_vec())
            .or_insert_with(|| self.core.stage(&ids))
    }
}

/// What keeps a job in line while the box is not loaded.
fn full(slots: Slots, in_use: usize, limit: usize) -> Obstacle {
    Obstacle::Full {
        slots,
        in_use,
        limit,
        throttled: None,
    }
}
