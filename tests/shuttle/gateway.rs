//! A small gateway around the core: what its threads share, what each of them does, and what must hold meanwhile.
//!
//! Decisions are put on record under the core's lock, as they are made; they are carried out after it is released, by
//! whichever thread made the core speak, so in any order. What the rules say of a job's life is checked against the
//! record, in the order of its sequence numbers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pointsman::admission::{
    Action, Cause, Core, CoreView, Ending, Event, JobId, Outcome, PermitKey, RefusalReason, Report,
    Step, Submission, TargetId, WorkerId,
};
use pointsman::cancel::CancelReason;
use pointsman::clock::Time;
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

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
    core: Core,
    now: Time,
    /// Permits that were given out and that their owners have not given back, with what is known of them.
    out: Vec<Out>,
    /// Deadlines of the jobs that were submitted.
    deadlines: BTreeMap<JobId, Time>,
    /// All decisions, with the moment of each.
    record: Vec<(Time, Action)>,
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
}

#[derive(Default)]
struct Seen {
    ended: BTreeSet<JobId>,
    numbers: BTreeSet<u64>,
    /// Calls whose worker may make them and has not given back.
    calling: usize,
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
        scenario,
    });
    let mut errands: Vec<Errand> = Vec::new();
    for jobs in jobs.chunks(jobs.len().div_ceil(scenario.submitters)) {
        let jobs = jobs.to_vec();
        errands.push(Box::new(move |shared| {
            jobs.iter()
                .for_each(|job| shared.on(Event::Submit(job.clone())));
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
    let turns = std::iter::repeat_n(Shared::work as fn(&Shared), scenario.workers);
    let turns = turns.chain(std::iter::repeat_n(Shared::tick as _, scenario.watchdogs));
    let turns = turns.chain(scenario.reclaims.then_some(Shared::reclaim as _));
    for turn in turns {
        errands.push(Box::new(move |shared| {
            while !shared.is_over() {
                turn(shared);
                thread::yield_now();
            }
        }));
    }
    let threads = errands.into_iter().map(|errand| {
        let shared = Arc::clone(&shared);
        thread::spawn(move || errand(&shared))
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().expect("no thread panicked");
    }
    shared.check_the_end()
}

/// What a thread does.
type Errand = Box<dyn Fn(&Shared) + Send>;

impl Shared {
    /// Tells the core, then, without its lock, carries out what it says.
    fn on(&self, event: Event) {
        let is_tick = matches!(event, Event::Tick);
        self.step(is_tick, |inner, actions| {
            inner.hear(&event);
            inner.core.on(event, inner.now, actions);
        });
    }

    fn begin(&self, permit: PermitKey) -> bool {
        self.step(false, |inner, actions| {
            inner.core.begin(permit, WorkerId(0), inner.now, actions)
        })
    }

    fn step<T>(&self, is_tick: bool, tell: impl FnOnce(&mut Inner, &mut Vec<Action>) -> T) -> T {
        let mut actions = Vec::new();
        let said = {
            let inner = &mut *self.inner.lock().expect("no thread panicked");
            let said = tell(inner, &mut actions);
            inner.note(&actions);
            inner.check(self.scenario.rooms(), is_tick);
            said
        };
        self.carry_out(actions);
        said
    }

    fn carry_out(&self, actions: Vec<Action>) {
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
                Step::Wait { .. }
                | Step::BackOff { .. }
                | Step::Interrupt(_)
                | Step::Quarantine { .. }
                | Step::Reclaim { .. } => {}
            }
        }
    }

    /// A worker's turn: takes one job, if there is one, and makes its call.
    fn work(&self) {
        let next = self.ready.lock().expect("no thread panicked").pop_front();
        let Some(ready) = next else {
            return;
        };
        let report = if self.begin(ready.permit) {
            self.seen.lock().expect("no thread panicked").calling += 1;
            thread::yield_now();
            if ready.probe {
                self.on(Event::Answer(ready.permit));
            }
            let mut seen = self.seen.lock().expect("no thread panicked");
            let (room, calling) = (self.scenario.rooms().0, seen.calling);
            assert!(calling <= room, "{calling} calls are under way");
            seen.calling -= 1;
            self.scenario.report(ready.job, ready.target, ready.attempt)
        } else {
            dropped()
        };
        self.give_back(ready.permit, report);
    }

    fn give_back(&self, permit: PermitKey, report: Report) {
        if self.scenario.reclaims {
            let mut stale = self.stale.lock().expect("no thread panicked");
            stale.push(permit);
        }
        self.on(Event::GiveBack(permit, report));
    }

    /// The turn of somebody who takes permits back that their owners are about to give back: now, or at any time later.
    fn reclaim(&self) {
        let permit = self.stale.lock().expect("no thread panicked").pop();
        if let Some(permit) = permit {
            self.on(Event::GiveBack(permit, dropped()));
        }
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
        let stale = self.stale.lock().expect("no thread panicked");
        ended == inner.deadlines.len() && inner.out.is_empty() && stale.is_empty()
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
        ];
        assert_eq!(left, [0; 5]);
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
            core,
            now: Time::ZERO,
            out: Vec::new(),
            deadlines: jobs.iter().map(|job| (job.job, job.deadline)).collect(),
            record: Vec::new(),
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
        let (Event::GiveBack(permit, _) | Event::Answer(permit)) = event else {
            return;
        };
        for probe in &mut self.probes {
            probe.take_if(|probe| probe == permit);
        }
        if let Event::GiveBack(..) = event {
            let at = self.out.iter().position(|out| out.permit == *permit);
            self.returning = at.map(|at| self.out.swap_remove(at));
            self.late += u64::from(at.is_none());
        }
    }

    /// Puts decisions on record, and looks at whom they let through.
    fn note(&mut self, actions: &[Action]) {
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
            self.record.push((self.now, action.clone()));
            match action.step {
                Step::Start {
                    permit,
                    target,
                    probe,
                    ..
                } => {
                    self.out.push(Out {
                        permit,
                        job: action.job,
                        target,
                        seq: action.seq,
                    });
                    let before = heard.is_some_and(|(of, heard)| of == target && at < heard);
                    if !before {
                        self.let_through(permit, target, probe, &view);
                    }
                }
                Step::End(_) => assert!(self.ended.insert(action.job), "it ended twice"),
                Step::Wait { .. }
                | Step::BackOff { .. }
                | Step::Interrupt(_)
                | Step::Quarantine { .. }
                | Step::Reclaim { .. } => {}
            }
        }
    }

    /// A limit is cut only by a call that was started after the last cut.
    fn look_at_limits(&mut self, returning: Option<Out>, view: &CoreView) {
        let decided = self.record.last().map_or(0, |(_, action)| action.seq);
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
    fn check(&self, (room, of_session): (usize, usize), is_tick: bool) {
        self.core.audit().expect("the books agree");
        let view = self.core.view(self.now);
        let out = self.out.len();
        assert_eq!(view.in_use, out, "each permit that is out has its slot");
        assert!(out <= room, "{out} calls, room for {room}");
        assert!(out <= view.sessions * of_session, "the limit of a session");
        assert!(view.sessions <= view.sessions_limit);
        assert_eq!(view.turnover.taken - view.turnover.given_back, out as u64);
        assert_eq!(view.turnover.late_returns, self.late);
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
