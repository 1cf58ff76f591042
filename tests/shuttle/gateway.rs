//! A small gateway around the core: what its threads share, what each of them does, and what must hold meanwhile.
//!
//! Decisions are put on record under the core's lock, as they are made; they are carried out after it is released, by
//! whichever thread made the core speak, so in any order. What the rules say of a job's life is checked against the
//! record, in the order of its sequence numbers.

mod limits;
mod orphans;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pointsman::admission::{
    Action, Cause, Core, CoreView, Ending, Event, JobId, Outcome, PermitKey, RefusalReason, Report,
    Step, Submission, TargetId, Throttle, WorkerId,
};
use pointsman::cancel::CancelReason;
use pointsman::clock::Time;
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

use super::record::{LimitSet, Record};
use super::scenario::Scenario;

/// What the threads share.
struct Shared {
    scenario: Scenario,
    inner: Mutex<Inner>,
    /// Jobs that were started and that no worker has taken yet.
    ready: Mutex<VecDeque<Ready>>,
    /// What was carried out.
    seen: Mutex<Seen>,
    /// Permits that come back twice: from their owner, and from somebody else.
    stale: Mutex<Vec<PermitKey>>,
    /// All who were ever hired.
    crew: Mutex<Vec<thread::JoinHandle<()>>>,
}

/// A job that was handed to the workers.
#[derive(Debug, Clone, Copy)]
struct Ready {
    job: JobId,
    permit: PermitKey,
    target: TargetId,
    attempt: u32,
    probe: bool,
}

/// What the core's lock protects.
struct Inner {
    scenario: Scenario,
    core: Core,
    now: Time,
    /// Permits that were given out and that their owners have not given back, with what is known of them.
    out: Vec<Out>,
    /// All that were ever given out.
    given: BTreeSet<PermitKey>,
    /// Those whose slots were taken from them, and that have not come back.
    abandoned: Vec<Out>,
    /// How many there ever were of these.
    reclaimed: u64,
    /// The global limit that is configured, and what the load of the box leaves of it.
    configured: usize,
    throttle: Throttle,
    /// What was in flight when the global limit was last set.
    debt: usize,
    /// The limit that is being set.
    setting: Option<LimitSet>,
    /// Deadlines of the jobs that were submitted.
    deadlines: BTreeMap<JobId, Time>,
    record: Record,
    ended: BTreeSet<JobId>,
    /// Of each target: its limit, and the last decision before it was last cut.
    limits: Vec<(usize, u64)>,
    /// The call that is coming back.
    returning: Option<Out>,
    /// Of each target: the probe that was let through and has not been judged.
    probes: Vec<Option<PermitKey>>,
    /// Returns of permits that had come back before.
    late: u64,
}

/// A permit that is out.
#[derive(Debug, Clone, Copy)]
struct Out {
    permit: PermitKey,
    job: JobId,
    target: TargetId,
    /// The decision that it was given out by.
    seq: u64,
    /// Who makes the call, once it has begun.
    worker: Option<WorkerId>,
    /// Since when its job has ended.
    interrupted: Option<Time>,
    /// Since when its holder is given up on.
    quarantined: Option<Time>,
}

#[derive(Default)]
struct Seen {
    ended: BTreeSet<JobId>,
    numbers: BTreeSet<u64>,
    /// Calls whose worker may make them and has not given back.
    calling: usize,
    /// How many workers were hired.
    hired: u32,
    /// What each worker has in hand.
    hands: BTreeMap<WorkerId, PermitKey>,
    /// Those who were given up on: others work in their place.
    lost: BTreeSet<WorkerId>,
}

/// One life of the gateway: all threads of the scenario, until every job has ended and every permit is back. Says which
/// of the scenario's turns it took.
pub(super) fn live(scenario: Scenario) -> Vec<bool> {
    let (inner, jobs) = Inner::new(&scenario);
    let shared = Arc::new(Shared {
        inner: Mutex::new(inner),
        ready: Mutex::default(),
        seen: Mutex::default(),
        stale: Mutex::default(),
        crew: Mutex::default(),
        scenario,
    });
    (0..scenario.workers).for_each(|_| shared.hire());
    let threads = errands(scenario, &jobs).into_iter().map(|errand| {
        let shared = Arc::clone(&shared);
        thread::spawn(move || errand(&shared))
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().expect("no thread panicked");
    }
    // Nobody is hired any more: the watchdogs have gone home.
    let crew = std::mem::take(&mut *shared.crew.lock().expect("no thread panicked"));
    for thread in crew {
        thread.join().expect("no thread panicked");
    }
    shared.check_the_end()
}

/// What a thread does.
type Errand = Box<dyn Fn(&Arc<Shared>) + Send>;

/// What all threads do but the workers.
fn errands(scenario: Scenario, jobs: &[Submission]) -> Vec<Errand> {
    let mut errands: Vec<Errand> = Vec::new();
    for jobs in jobs.chunks(jobs.len().div_ceil(scenario.submitters)) {
        let jobs = jobs.to_vec();
        errands.push(Box::new(move |shared| {
            for job in &jobs {
                shared.on(Event::Submit(job.clone()));
                (0..scenario.rest).for_each(|_| thread::yield_now());
            }
        }));
    }
    for &job in scenario.cancelled {
        let cancel = Event::Cancel(JobId(job), CancelReason::ClientLeft);
        errands.push(Box::new(move |shared| shared.on(cancel.clone())));
    }
    if let Some(drain) = scenario.drain {
        errands.push(Box::new(move |shared| {
            let until = shared.inner.lock().expect("no thread panicked").now + drain;
            shared.on(Event::Stop { until });
        }));
    }
    for limits in scenario.limits() {
        errands.push(Box::new(move |shared| {
            for limit in &limits {
                shared.on(limit.clone());
                thread::yield_now();
            }
        }));
    }
    let tick = Shared::tick as fn(&Arc<Shared>);
    let turns = std::iter::repeat_n(tick, scenario.watchdogs);
    let turns = turns.chain(scenario.reclaims.then_some(Shared::reclaim as _));
    for turn in turns {
        errands.push(Box::new(move |shared| {
            while !shared.is_over() {
                turn(shared);
                thread::yield_now();
            }
        }));
    }
    errands
}

impl Shared {
    /// Tells the core, then, without its lock, carries out what it says.
    fn on(self: &Arc<Self>, event: Event) {
        let is_tick = matches!(event, Event::Tick);
        self.step(is_tick, |inner, actions| {
            inner.hear(&event);
            inner.core.on(event, inner.now, actions);
        });
    }

    fn begin(self: &Arc<Self>, permit: PermitKey, worker: WorkerId) -> bool {
        self.step(false, |inner, actions| {
            let lives = inner.is_taken(permit, worker);
            let may = inner.core.begin(permit, worker, inner.now, actions);
            assert_eq!(may, lives, "only who lives may make its call");
            may
        })
    }

    fn step<T>(
        self: &Arc<Self>,
        is_tick: bool,
        tell: impl FnOnce(&mut Inner, &mut Vec<Action>) -> T,
    ) -> T {
        let mut actions = Vec::new();
        let said = {
            let inner = &mut *self.inner.lock().expect("no thread panicked");
            let said = tell(inner, &mut actions);
            inner.note(&actions, is_tick);
            inner.check(is_tick);
            said
        };
        self.carry_out(actions);
        said
    }

    fn carry_out(self: &Arc<Self>, actions: Vec<Action>) {
        for action in actions {
            let mut seen = self.seen.lock().expect("no thread panicked");
            assert!(seen.numbers.insert(action.seq), "a number was given twice");
            match action.step {
                Step::Start {
                    permit,
                    target,
                    attempt,
                    probe,
                    ..
                } => {
                    drop(seen);
                    let mut ready = self.ready.lock().expect("no thread panicked");
                    ready.push_back(Ready {
                        job: action.job,
                        permit,
                        target,
                        attempt,
                        probe,
                    });
                }
                Step::End(_) => {
                    let first = seen.ended.insert(action.job);
                    assert!(first, "{:?} ended twice", action.job);
                }
                Step::Quarantine {
                    permit,
                    worker: Some(worker),
                } => {
                    // Perhaps it is back, and has another in hand.
                    if seen.hands.get(&worker) == Some(&permit) {
                        assert!(seen.lost.insert(worker), "{worker:?} is lost twice");
                        drop(seen);
                        self.hire();
                    }
                }
                Step::Wait { .. }
                | Step::BackOff { .. }
                | Step::Interrupt(_)
                | Step::Quarantine { worker: None, .. }
                | Step::Reclaim { .. } => {}
            }
        }
    }

    /// One more worker, who works until all is over or somebody else was hired in its place.
    fn hire(self: &Arc<Self>) {
        let worker = {
            let mut seen = self.seen.lock().expect("no thread panicked");
            seen.hired += 1;
            WorkerId(seen.hired)
        };
        let shared = Arc::clone(self);
        let thread = thread::spawn(move || {
            while !shared.is_over() && !shared.is_lost(worker) {
                shared.work(worker);
                thread::yield_now();
            }
        });
        let mut crew = self.crew.lock().expect("no thread panicked");
        crew.push(thread);
    }

    fn is_lost(&self, worker: WorkerId) -> bool {
        let seen = self.seen.lock().expect("no thread panicked");
        seen.lost.contains(&worker)
    }

    /// A worker's turn: takes one job, if there is one, and makes its call.
    fn work(self: &Arc<Self>, worker: WorkerId) {
        let next = self.ready.lock().expect("no thread panicked").pop_front();
        let Some(ready) = next else {
            return;
        };
        let in_hand = |permit: Option<PermitKey>| {
            let mut seen = self.seen.lock().expect("no thread panicked");
            seen.hands.retain(|&whose, _| whose != worker);
            seen.hands.extend(permit.map(|permit| (worker, permit)));
        };
        in_hand(Some(ready.permit));
        let report = if self.begin(ready.permit, worker) {
            self.seen.lock().expect("no thread panicked").calling += 1;
            (0..(self.scenario.holds)(ready.job.0)).for_each(|_| thread::yield_now());
            if ready.probe {
                self.on(Event::Answer(ready.permit));
            }
            self.hang_up();
            self.scenario.report(ready.job, ready.target, ready.attempt)
        } else {
            dropped()
        };
        self.give_back(ready.permit, report);
        in_hand(None);
    }

    /// A call is over. No more are under way than there is room for, but for those whose slots were taken from them.
    fn hang_up(&self) {
        let inner = self.inner.lock().expect("no thread panicked");
        let mut seen = self.seen.lock().expect("no thread panicked");
        let (most, calling) = (inner.most() + inner.abandoned.len(), seen.calling);
        assert!(calling <= most, "{calling} calls are under way");
        seen.calling -= 1;
    }

    fn give_back(self: &Arc<Self>, permit: PermitKey, report: Report) {
        if self.scenario.reclaims {
            let mut stale = self.stale.lock().expect("no thread panicked");
            stale.push(permit);
        }
        self.on(Event::GiveBack(permit, report));
    }

    /// The turn of somebody who takes permits back that their owners are about to give back: now, or at any time later.
    fn reclaim(self: &Arc<Self>) {
        let permit = self.stale.lock().expect("no thread panicked").pop();
        if let Some(permit) = permit {
            self.on(Event::GiveBack(permit, dropped()));
        }
    }

    /// The watchdog's turn: lets the time pass until the core wants a tick.
    fn tick(self: &Arc<Self>) {
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
        let stale = self.stale.lock().expect("no thread panicked");
        let out = inner.out.len() + inner.abandoned.len() + stale.len();
        ended == inner.deadlines.len() && out == 0
    }

    /// What must be left when all is over: nothing.
    fn check_the_end(&self) -> Vec<bool> {
        let inner = self.inner.lock().expect("no thread panicked");
        let view = inner.core.view(inner.now);
        let left = [
            view.in_use,
            view.waiting,
            view.sessions,
            view.waiting_bytes,
            view.backing_off,
            view.lost_workers,
            inner.core.ledger().len(),
        ];
        assert_eq!(left, [0; 7]);
        assert_eq!(inner.core.next_due(), Time::NEVER);
        assert_eq!(
            view.turnover.late_returns, inner.late,
            "each late return is counted"
        );
        inner.check_record();
        let turns = self.scenario.turns.iter();
        turns.map(|(_, came)| came(&view, &inner.record)).collect()
    }
}

/// A call that never was.
fn dropped() -> Report {
    Outcome::Failed(Cause::Unwanted).into()
}

impl Inner {
    fn new(scenario: &Scenario) -> (Inner, Vec<Submission>) {
        let settings = scenario.settings();
        let targets = settings.targets.len();
        let mut core = Core::new(settings);
        let jobs = scenario.submissions(&mut core);
        let inner = Inner {
            scenario: *scenario,
            core,
            now: Time::ZERO,
            out: Vec::new(),
            given: BTreeSet::new(),
            abandoned: Vec::new(),
            reclaimed: 0,
            configured: scenario.limit,
            throttle: Throttle::NONE,
            debt: 0,
            setting: None,
            deadlines: jobs.iter().map(|job| (job.job, job.deadline)).collect(),
            record: Record::default(),
            ended: BTreeSet::new(),
            limits: vec![(usize::MAX, 0); targets],
            returning: None,
            probes: vec![None; targets],
            late: 0,
        };
        (inner, jobs)
    }

    /// What an event means, before the core hears of it.
    fn hear(&mut self, event: &Event) {
        if let Event::GiveBack(permit, _) | Event::Answer(permit) = event {
            for probe in &mut self.probes {
                probe.take_if(|probe| probe == permit);
            }
        }
        match event {
            Event::GiveBack(permit, _) => {
                let at = self.out.iter().position(|out| out.permit == *permit);
                self.returning = at.map(|at| self.out.swap_remove(at));
                if at.is_none() {
                    self.is_late(*permit);
                }
            }
            Event::Throttle(throttle) => self.set_limit(self.configured, *throttle),
            Event::Change(change) => self.set_limit(change.settings.global, self.throttle),
            Event::Submit(_)
            | Event::Answer(_)
            | Event::Cancel(..)
            | Event::Tick
            | Event::Stop { .. } => {}
        }
    }

    /// Puts decisions on record, and looks at whom they let through.
    fn note(&mut self, actions: &[Action], is_tick: bool) {
        let view = self.core.view(self.now);
        for (probe, target) in self.probes.iter_mut().zip(&view.targets) {
            // The probe of an earlier time is judged no more.
            if target.breaker != "half-open" {
                *probe = None;
            }
        }
        let returning = self.returning.take();
        self.look_at_limits(returning, &view);
        // What was decided before the core heard of a return may no longer hold at the target that it came from.
        let heard = |out: Out| actions.iter().position(|action| action.job == out.job);
        let heard = returning.map(|out| (out.target, heard(out).unwrap_or(actions.len())));
        for (at, action) in actions.iter().enumerate() {
            self.record.actions.push((self.now, action.clone()));
            match &action.step {
                &Step::Start {
                    permit,
                    target,
                    probe,
                    ..
                } => {
                    assert!(self.given.insert(permit), "it was given out before");
                    self.out.push(Out {
                        permit,
                        job: action.job,
                        target,
                        seq: action.seq,
                        worker: None,
                        interrupted: None,
                        quarantined: None,
                    });
                    let before = heard.is_some_and(|(of, heard)| of == target && at < heard);
                    if !before {
                        self.let_through(permit, target, probe, &view);
                    }
                }
                Step::End(ending) => {
                    assert!(self.ended.insert(action.job), "it ended twice");
                    self.refuses_rightly(ending);
                }
                Step::Interrupt(_) => self.is_told(action.job),
                step @ (Step::Quarantine { .. } | Step::Reclaim { .. }) => {
                    assert!(is_tick, "only a tick does this: {step:?}");
                    self.watchdog_acts(step);
                }
                Step::Wait { .. } | Step::BackOff { .. } => {}
            }
        }
        self.limit_is_kept(actions, &view);
    }

    /// A limit is cut only by a call that was started after the last cut.
    fn look_at_limits(&mut self, returning: Option<Out>, view: &CoreView) {
        let decided = self
            .record
            .actions
            .last()
            .map_or(0, |(_, action)| action.seq);
        let targets = view.targets.iter().enumerate();
        for ((index, target), (limit, cut)) in targets.zip(&mut self.limits) {
            if target.limit < *limit && *limit < usize::MAX {
                let started = returning.filter(|out| out.target.index() == index);
                let started = started.expect("nobody's return cut it").seq;
                assert!(started > *cut, "cut twice for one event");
                *cut = decided;
            }
            *limit = target.limit;
        }
    }

    /// Nothing starts above a target's limit, at one that is shut, or beside a probe.
    fn let_through(&mut self, permit: PermitKey, target: TargetId, probe: bool, view: &CoreView) {
        let seen = &view.targets[target.index()];
        assert!(seen.in_use <= seen.limit, "above its limit: {seen:?}");
        assert_eq!(seen.shut, None, "it is shut");
        assert_eq!(probe, seen.breaker == "half-open");
        if probe {
            let before = self.probes[target.index()].replace(permit);
            assert_eq!(before, None, "another probe is under way");
        }
    }

    /// What must hold whenever the lock is free.
    fn check(&self, is_tick: bool) {
        self.core.audit().expect("the books agree");
        let view = self.core.view(self.now);
        let (out, most) = (self.out.len(), self.most());
        assert_eq!(view.in_use, out, "each permit that is out has its slot");
        assert!(out <= most, "{out} calls, room for {most}");
        let of_sessions = view.sessions * self.scenario.session;
        assert!(out <= of_sessions, "the limit of a session");
        assert!(view.sessions <= view.sessions_limit);
        let turnover = view.turnover;
        let back = turnover.given_back + turnover.reclaimed;
        assert_eq!(turnover.taken - back, out as u64);
        assert_eq!(turnover.late_returns, self.late);
        self.nobody_waits_in_vain(&view);
        self.orphans_agree(&view, is_tick);
        for (index, target) in view.targets.iter().enumerate() {
            let calls = self.out.iter().filter(|out| out.target.index() == index);
            assert_eq!(target.in_use, calls.count());
        }
        if is_tick {
            let mut late = self.deadlines.iter();
            let late = late.find(|&(&job, &deadline)| {
                deadline <= self.now && self.has_come(job) && !self.ended.contains(&job)
            });
            assert_eq!(late, None, "it outlived its deadline");
        }
    }

    fn has_come(&self, job: JobId) -> bool {
        self.record.iter().any(|(_, action)| action.job == job)
    }

    /// Read in the order of its numbers, the record tells a sound life of each job.
    fn check_record(&self) {
        let numbers: Vec<u64> = self.record.iter().map(|(_, action)| action.seq).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "as they were decided");
        for (&job, &deadline) in &self.deadlines {
            let mut runs = false;
            let mut over = false;
            let mut attempts = 0;
            for (now, action) in self.record.iter().filter(|(_, action)| action.job == job) {
                match &action.step {
                    Step::Quarantine { .. } | Step::Reclaim { .. } => {}
                    Step::Interrupt(_) => assert!(over && runs, "an interrupt follows the end"),
                    step => assert!(!over, "{step:?} of {job:?} after its end"),
                }
                match &action.step {
                    Step::Start { attempt, .. } => {
                        attempts += 1;
                        assert!(*now < deadline, "{job:?} starts after its deadline");
                        assert_eq!((*attempt, runs), (attempts, false));
                        runs = true;
                    }
                    Step::Wait { .. } | Step::BackOff { .. } => runs = false,
                    Step::End(ending) => {
                        over = true;
                        let refused = matches!(ending, Ending::Refused(refusal)
                            if refusal.reason == RefusalReason::Displaced);
                        assert!(!refused || attempts == 0, "{job:?} had its place");
                    }
                    Step::Interrupt(_) | Step::Quarantine { .. } | Step::Reclaim { .. } => {}
                }
            }
            assert!(over, "{job:?} never ended");
        }
    }
}
