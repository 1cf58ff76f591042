//! Plays a scenario against a core, as the engine would: starts become calls, calls give their permits back,
//! interrupts cut them short, and a tick comes when the core wants one (or late, if the scenario says so).

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::time::Duration;

use crate::admission::{
    Action, Cause, Change, Core, Event, Fault, FlowId, JobId, Leg, ModelId, Outcome, PermitKey,
    Report, StageId, Step, Submission, TargetId, Throttle, WorkerId,
};
use fastrand::Rng;
use pointsman::cancel::CancelReason;
use pointsman::clock::Time;

use super::ledger::{Ledger, Stimulus, ensure};
use super::scenario::{Arrival, Scenario, one_in, session_limit, up_to};

/// A core, what will happen to it, and the books that it is checked by.
pub(super) struct World {
    scenario: Scenario,
    core: Core,
    ledger: Ledger,
    rng: Rng,
    now: Time,
    /// By time; what happens at one moment happens in random order.
    agenda: BinaryHeap<Reverse<(Time, u32, usize)>>,
    happenings: Vec<Happening>,
    /// Calls that have begun and whose permits have yet to come back.
    begun: HashMap<PermitKey, (JobId, TargetId)>,
    tick: Tick,
    trace: Option<Vec<String>>,
}

/// When the core wanted a tick, and when it gets it.
struct Tick {
    due: Time,
    at: Time,
}

#[derive(Debug, Clone)]
enum Happening {
    Arrive(usize),
    Begin(Handed),
    Answer(PermitKey),
    GiveBack(PermitKey, Report),
    Change(Box<Change>),
    Throttle(Throttle),
    Leap(Duration),
    GiveBackAgain(PermitKey),
    /// The guard was lost some time ago.
    Recover(PermitKey),
    Cancel(JobId),
    Stop(Time),
}

/// What a worker is handed.
#[derive(Debug, Clone, Copy)]
struct Handed {
    job: JobId,
    permit: PermitKey,
    target: TargetId,
    first_byte_by: Time,
    probe: bool,
}

/// Nobody waits for the answer any more.
const UNWANTED: Outcome = Outcome::Failed(Cause::Unwanted);

impl World {
    pub(super) fn new(scenario: Scenario, seed: u64, fault: Option<Fault>, traced: bool) -> World {
        let mut core = Core::new(scenario.settings.clone());
        if let Some(fault) = fault {
            core.plant(fault);
        }
        let stages = stages(&scenario, &mut core, scenario.settings.targets.len());
        World {
            ledger: Ledger::new(
                scenario.settings.clone(),
                stages,
                scenario.lateness.is_zero() && scenario.leap.is_none(),
            ),
            core,
            rng: Rng::with_seed(seed ^ 0x5EED),
            now: Time::ZERO,
            agenda: BinaryHeap::new(),
            happenings: Vec::new(),
            begun: HashMap::new(),
            tick: Tick {
                due: Time::NEVER,
                at: Time::NEVER,
            },
            trace: traced.then(Vec::new),
            scenario,
        }
    }

    /// Plays to the end, and says which ways to end were seen. `Err` says which promise was broken, and when.
    pub(super) fn play(mut self) -> Result<BTreeSet<&'static str>, String> {
        for index in 0..self.scenario.arrivals.len() {
            self.plan(self.scenario.arrivals[index].at, Happening::Arrive(index));
        }
        if let Some((at, until)) = self.scenario.stop {
            self.plan(at, Happening::Stop(until));
        }
        for (at, change) in self.scenario.changes.clone() {
            self.plan(at, Happening::Change(Box::new(change)));
        }
        for (at, throttle) in self.scenario.throttles.clone() {
            self.plan(at, Happening::Throttle(throttle));
        }
        if let Some((at, far)) = self.scenario.leap {
            self.plan(at, Happening::Leap(far));
        }
        let end = loop {
            match self.step() {
                Ok(true) => {}
                Ok(false) => break self.ledger.is_at_rest(&self.core.view(self.now)),
                Err(what) => break Err(what),
            }
        };
        end.map_err(|what| format!("{what}\n  at {:?}{}", self.now, self.last_happenings()))?;
        Ok(self.ledger.endings())
    }

    /// Lets the next thing happen. `false`: there is none.
    fn step(&mut self) -> Result<bool, String> {
        let next = self
            .agenda
            .peek()
            .map_or(Time::NEVER, |Reverse(next)| next.0);
        let ticks_first = self.tick.at < next || (self.tick.at == next && self.rng.bool());
        if self.tick.at.min(next) == Time::NEVER {
            return Ok(false);
        }
        if ticks_first {
            self.now = self.now.max(self.tick.at);
            self.tell(Event::Tick, Stimulus::Tick)?;
        } else {
            let Reverse((at, _, index)) = self.agenda.pop().expect("peeked above");
            self.now = self.now.max(at);
            let happening = self.happenings[index].clone();
            if let Some(trace) = &mut self.trace {
                trace.push(format!("{at:?} {happening:?}"));
            }
            self.happen(happening)?;
        }
        self.plan_tick();
        Ok(true)
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Arrive(index) => self.arrive(index),
            Happening::Begin(handed) => self.begin(handed),
            Happening::Answer(permit) => self.tell(Event::Answer(permit), Stimulus::Answer(permit)),
            Happening::GiveBack(permit, report) => self.give_back(permit, report),
            Happening::Change(change) => self.change(change),
            Happening::Throttle(throttle) => {
                self.tell(Event::Throttle(throttle), Stimulus::Throttle(throttle))
            }
            Happening::Leap(far) => {
                self.now = self.now + far;
                Ok(())
            }
            Happening::GiveBackAgain(permit) => self.tell(
                Event::GiveBack(permit, Outcome::Completed.into()),
                Stimulus::GiveBack(permit, Outcome::Completed.into()),
            ),
            Happening::Recover(permit) => self.recover(permit),
            Happening::Cancel(job) => {
                let reason = CancelReason::ClientLeft;
                self.tell(Event::Cancel(job, reason), Stimulus::Cancel(job, reason))
            }
            Happening::Stop(until) => self.tell(Event::Stop { until }, Stimulus::Stop(until)),
        }
    }

    fn change(&mut self, change: Box<Change>) -> Result<(), String> {
        let targets = change.settings.targets.len();
        self.tell(Event::Change(change.clone()), Stimulus::Change(change))?;
        self.ledger.stages = stages(&self.scenario, &mut self.core, targets);
        Ok(())
    }

    fn arrive(&mut self, index: usize) -> Result<(), String> {
        let Arrival {
            flow,
            session,
            class,
            route,
            model,
            patience,
            bytes,
            cancel,
            reclaim,
            ..
        } = self.scenario.arrivals[index].clone();
        if route
            .iter()
            .any(|stage| !self.ledger.stages.contains_key(stage))
        {
            // Whom it wants to call is not there yet.
            return Ok(());
        }
        let submission = Submission {
            job: JobId(index as u64),
            route: route
                .iter()
                .map(|stage| Leg {
                    stage: self.ledger.stages[stage],
                    model: model.map(ModelId),
                })
                .collect(),
            flow: FlowId(flow),
            session,
            session_limit: session_limit(flow),
            class,
            deadline: self.now + patience,
            bytes,
            reclaim,
        };
        if let Some(after) = cancel {
            self.plan(self.now + after, Happening::Cancel(submission.job));
        }
        let stimulus = Stimulus::Submit(submission.clone(), route);
        self.tell(Event::Submit(submission), stimulus)
    }

    /// A worker has got its job and asks whether it may call.
    fn begin(&mut self, handed: Handed) -> Result<(), String> {
        let Handed { job, permit, .. } = handed;
        let mut actions = Vec::new();
        let worker = WorkerId(job.0 as u32);
        let may = self.core.begin(permit, worker, self.now, &mut actions);
        self.ledger.begins(job, permit, may, self.now)?;
        self.take(actions, Stimulus::Begin)?;
        if !may {
            return self.give_back(permit, UNWANTED.into());
        }
        self.begun.insert(permit, (job, handed.target));
        let provider = self.ledger.provider_of(handed.target);
        let weather = &mut self.scenario.providers[provider.0 as usize];
        let patience = self.ledger.patience(job, handed.first_byte_by, self.now);
        let course = weather.call(patience, &mut self.rng, self.now);
        if let Some(after) = course.answer.filter(|_| handed.probe) {
            self.plan(self.now + after, Happening::Answer(permit));
        }
        let (one_of, later) = self.scenario.leaks;
        if let Some((after, _)) = course.end
            && one_in(&mut self.rng, one_of)
        {
            // Nobody holds it any more, so that no interrupt reaches it either.
            self.over(permit);
            let found = after + up_to(&mut self.rng, later);
            self.plan(self.now + found, Happening::Recover(permit));
        } else if let Some((after, report)) = course.end {
            self.plan(self.now + after, Happening::GiveBack(permit, report));
        }
        Ok(())
    }

    /// The owner's only return; whether it comes from the call's end or from its interruption, the first one counts.
    fn give_back(&mut self, permit: PermitKey, report: Report) -> Result<(), String> {
        let was_out = self.begun.contains_key(&permit);
        self.over(permit);
        if !was_out && !self.ledger.is_in_flight(permit) {
            return Ok(());
        }
        if one_in(&mut self.rng, self.scenario.double_returns) {
            let later = self.now + up_to(&mut self.rng, Duration::from_secs(5));
            self.plan(later, Happening::GiveBackAgain(permit));
        }
        self.tell(
            Event::GiveBack(permit, report),
            Stimulus::GiveBack(permit, report),
        )
    }

    /// The call is over, as its provider sees it.
    fn over(&mut self, permit: PermitKey) {
        if let Some((_, target)) = self.begun.remove(&permit) {
            let provider = self.ledger.provider_of(target);
            self.scenario.providers[provider.0 as usize].over();
        }
    }

    /// The guard of a call is found to be lost: what is not back by now never will be.
    fn recover(&mut self, permit: PermitKey) -> Result<(), String> {
        let stimulus = Stimulus::Recover(permit);
        let held = self.ledger.is_in_flight(permit);
        let mut actions = Vec::new();
        self.ledger.announce(&stimulus, self.now);
        let recovered = self.core.recover(permit, self.now, &mut actions);
        ensure(recovered == held, || {
            format!("{permit:?} is recovered: {recovered}, it was held: {held}")
        })?;
        self.take(actions, stimulus)
    }

    fn tell(&mut self, event: Event, stimulus: Stimulus) -> Result<(), String> {
        let mut actions = Vec::new();
        self.ledger.announce(&stimulus, self.now);
        self.core.on(event, self.now, &mut actions);
        self.take(actions, stimulus)
    }

    /// Checks what the core said and did, and carries it out.
    fn take(&mut self, actions: Vec<Action>, stimulus: Stimulus) -> Result<(), String> {
        for action in &actions {
            if let Some(trace) = &mut self.trace {
                trace.push(format!("{:?}     {action:?}", self.now));
            }
            self.ledger.take(action, &stimulus, self.now)?;
        }
        self.ledger.step_is_over(&stimulus, &self.core, self.now)?;
        for action in actions {
            self.carry_out(action);
        }
        Ok(())
    }

    fn carry_out(&mut self, action: Action) {
        match action.step {
            Step::Start {
                permit,
                target,
                first_byte_by,
                probe,
                ..
            } => {
                let dawdle = up_to(&mut self.rng, self.scenario.slow_begin);
                let handed = Handed {
                    job: action.job,
                    permit,
                    target,
                    first_byte_by,
                    probe,
                };
                self.plan(self.now + dawdle, Happening::Begin(handed));
            }
            Step::Interrupt(_) => {
                let permit = self.begun.iter().find(|(_, (job, _))| *job == action.job);
                if let Some(permit) = permit.map(|(&permit, _)| permit) {
                    let (one_of, lost) = self.scenario.lost;
                    let most = match one_in(&mut self.rng, one_of) {
                        true => lost,
                        false => self.scenario.slow_return,
                    };
                    let delay = up_to(&mut self.rng, most);
                    let report = Report {
                        content: self.rng.bool(),
                        ..UNWANTED.into()
                    };
                    self.plan(self.now + delay, Happening::GiveBack(permit, report));
                }
            }
            Step::Wait { .. }
            | Step::BackOff { .. }
            | Step::End(_)
            | Step::Quarantine { .. }
            | Step::Reclaim { .. } => {}
        }
    }

    fn plan(&mut self, at: Time, happening: Happening) {
        self.happenings.push(happening);
        let entry = (at, self.rng.u32(..), self.happenings.len() - 1);
        self.agenda.push(Reverse(entry));
    }

    /// The watchdog sleeps until the core's next deadline, and oversleeps by what the scenario allows.
    fn plan_tick(&mut self) {
        let due = self.core.next_due();
        if due != self.tick.due || self.tick.at <= self.now {
            let late = up_to(&mut self.rng, self.scenario.lateness);
            let at = if due == Time::NEVER {
                due
            } else {
                due.max(self.now) + late
            };
            self.tick = Tick { due, at };
        }
    }

    fn last_happenings(&self) -> String {
        let trace = self.trace.as_deref().unwrap_or_default();
        let last = &trace[trace.len().saturating_sub(80)..];
        last.iter().map(|line| format!("\n  {line}")).collect()
    }
}

/// The stages of all who will come, as far as there are such targets yet.
fn stages(scenario: &Scenario, core: &mut Core, targets: usize) -> HashMap<Vec<TargetId>, StageId> {
    let all = scenario.arrivals.iter().flat_map(|arrival| &arrival.route);
    let known = all.filter(|stage| stage.iter().all(|target| target.index() < targets));
    known
        .map(|stage| (stage.clone(), core.stage(stage)))
        .collect()
}
