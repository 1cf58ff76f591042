//! The model: two vectors, linear scans, and the rules in the order in which they are written down. It drives the core,
//! compares what the core says with what it foretold, and follows the core where the rules leave a choice.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use pointsman::admission::{
    Action, Cause, Core, Ending, Event, FlowId, JobId, Outcome, PermitKey, ProviderId, Settings,
    StageId, Step, Submission, TargetId, Throttle, WorkerId,
};
use pointsman::cancel::CancelReason;
use pointsman::clock::Time;
use pointsman::config::Priority;

use super::rules::{is_session, name, session_limit};
use super::seen;

/// What becomes of a call, by number.
const OUTCOMES: [Outcome; 6] = [
    Outcome::Failed(Cause::Request),
    Outcome::Failed(Cause::Broken),
    Outcome::Failed(Cause::Unreachable),
    Outcome::Failed(Cause::Failing { again: true }),
    Outcome::Completed,
    Outcome::Completed,
];

/// What an action comes to, for comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen {
    Wait(usize),
    Start(TargetId, u32),
    BackOff(Time),
    End(&'static str),
    Interrupt(CancelReason),
}

/// A job that has not ended.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) flow: u64,
    pub(super) class: usize,
    pub(super) route: usize,
    pub(super) at: usize,
    pub(super) attempt: u32,
    pub(super) bytes: usize,
    pub(super) deadline: Time,
    pub(super) queue_until: Time,
    pub(super) permit: Option<PermitKey>,
    /// How often its call was repeated, and whether because its provider had failed.
    pub(super) repeats: u32,
    pub(super) failed_once: bool,
    /// While it backs off: until when.
    pub(super) back_at: Option<Time>,
}

/// A permit that is out.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) job: u64,
    pub(super) flow: u64,
    pub(super) permit: PermitKey,
    pub(super) target: TargetId,
}

/// The core, and what it should be like.
pub(super) struct Model {
    pub(super) core: Core,
    pub(super) settings: Settings,
    pub(super) routes: [Vec<Vec<TargetId>>; 4],
    pub(super) stages: Vec<Vec<StageId>>,
    pub(super) now: Time,
    /// Those that live, oldest first.
    pub(super) jobs: Vec<Job>,
    pub(super) calls: Vec<Call>,
    pub(super) returned: Vec<PermitKey>,
    pub(super) submitted: u64,
    pub(super) completed: usize,
    /// Sessions that run something, by since when.
    pub(super) since: BTreeMap<u64, Time>,
    /// Sessions that make room.
    pub(super) told: Vec<u64>,
    /// Sessions that wait for a place, who came first standing first.
    pub(super) newcomers: Vec<u64>,
    pub(super) last_turn: Time,
    pub(super) stop: Option<Time>,
    /// What the load of the box leaves of the limits.
    pub(super) throttle: Throttle,
    /// By target: what is left of its budget for repetitions.
    pub(super) tokens: Vec<f64>,
}

type Check = Result<(), String>;

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(what()) }
}

impl Model {
    pub(super) fn new(settings: Settings, routes: [Vec<Vec<TargetId>>; 4]) -> Model {
        let mut core = Core::new(settings.clone());
        let stages = routes
            .iter()
            .map(|route| route.iter().map(|stage| core.stage(stage)).collect());
        let budget = |provider: &ProviderId| settings.providers[provider.0 as usize].retry.budget;
        Model {
            tokens: settings.targets.iter().map(budget).collect(),
            stages: stages.collect(),
            core,
            settings,
            routes,
            now: Time::ZERO,
            jobs: Vec::new(),
            calls: Vec::new(),
            returned: Vec::new(),
            submitted: 0,
            completed: 0,
            since: BTreeMap::new(),
            told: Vec::new(),
            newcomers: Vec::new(),
            last_turn: Time::ZERO,
            stop: None,
            throttle: Throttle::NONE,
        }
    }

    pub(super) fn submit(
        &mut self,
        flow: u64,
        class: Priority,
        route: usize,
        patience: Duration,
        bytes: usize,
    ) -> Check {
        self.submitted += 1;
        let job = Job {
            id: self.submitted,
            flow,
            class: class.index(),
            route,
            at: 0,
            attempt: 0,
            bytes,
            deadline: self.now + patience,
            queue_until: self.now + self.settings.queue.timeout,
            permit: None,
            repeats: 0,
            failed_once: false,
            back_at: None,
        };
        let event = Event::Submit(Submission {
            job: JobId(job.id),
            route: self.stages[route]
                .iter()
                .map(|&stage| stage.into())
                .collect(),
            flow: FlowId(flow),
            session: is_session(flow),
            session_limit: session_limit(flow),
            class,
            deadline: job.deadline,
            bytes,
            reclaim: false,
        });
        let mut actions = self.tell(event)?;
        let id = job.id;
        if self.stop.is_some() {
            expect(&mut actions, id, Seen::End("stopping"))?;
        } else if patience.is_zero() {
            expect(&mut actions, id, Seen::End("expired"))?;
        } else if self.throttle.refuses_low && class == Priority::Low {
            expect(&mut actions, id, Seen::End("box loaded"))?;
        } else if self.slot(&job).is_some() && self.session_allows(flow) {
            // It needs no place in line: it is the only one that can start.
            self.jobs.push(job);
            self.start_next(&mut actions)?;
        } else {
            self.queue_or_refuse(job, &mut actions)?;
        }
        self.settle(actions)
    }

    fn queue_or_refuse(&mut self, job: Job, actions: &mut VecDeque<Action>) -> Check {
        let id = job.id;
        let said = actions.front().map(|action| seen(&action.step));
        if said == Some(Seen::End("wait too long")) && self.completed >= 20 {
            actions.pop_front();
            return Ok(());
        }
        match self.bound(&job) {
            Some(full @ ("queue full" | "provider queue full")) => {
                let victims = self.victims(&job);
                if victims.is_empty() {
                    return expect(actions, id, Seen::End(full));
                }
                let victim = actions.front().map_or(0, |action| action.job.0);
                ensure(victims.contains(&victim), || {
                    format!("{victim} of {victims:?} gives way")
                })?;
                expect(actions, victim, Seen::End("displaced"))?;
                self.forget(victim);
            }
            Some(bound) => return expect(actions, id, Seen::End(bound)),
            None => {}
        }
        self.jobs.push(job);
        self.note_newcomers();
        expect(actions, id, Seen::Wait(self.line_of(id)))
    }

    pub(super) fn give_back(&mut self, call: usize, how: u8) -> Check {
        if self.calls.is_empty() {
            return Ok(());
        }
        let call = self.calls[call % self.calls.len()].clone();
        let outcome = OUTCOMES[usize::from(how) % OUTCOMES.len()];
        let mut actions = self.tell(Event::GiveBack(call.permit, outcome.into()))?;
        self.calls.retain(|other| other.permit != call.permit);
        self.returned.push(call.permit);
        self.completed += 1;
        if outcome == Outcome::Completed {
            self.refill(call.target);
        }
        self.note_running(call.flow);
        let mut jobs = self.jobs.iter();
        if let Some(index) = jobs.position(|job| job.permit == Some(call.permit)) {
            self.go_on(index, &call, outcome, &mut actions)?;
        }
        self.note_newcomers();
        self.settle(actions)
    }

    /// The job's call is back: it is tried again, goes to its next stage, or is over.
    fn go_on(
        &mut self,
        index: usize,
        call: &Call,
        outcome: Outcome,
        actions: &mut VecDeque<Action>,
    ) -> Check {
        let job = self.jobs[index].clone();
        let over = job.deadline <= self.now || self.has_stopped();
        let (soonest_too_late, last) = self.backs_off_until(&job, call.target);
        let said = actions.front().map(|action| seen(&action.step));
        if let Some(Seen::BackOff(until)) = said {
            let sound = !over && self.may_repeat(&job, call.target, outcome);
            let in_bounds = until >= self.now && until <= last && until < soonest_too_late;
            ensure(sound && in_bounds, || format!("{job:?} until {until:?}"))?;
            expect(actions, job.id, Seen::BackOff(until))?;
            self.tokens[call.target.index()] = (self.tokens[call.target.index()] - 1.0).max(0.0);
            let job = &mut self.jobs[index];
            job.permit = None;
            job.repeats += 1;
            job.failed_once |= matches!(outcome, Outcome::Failed(Cause::Failing { .. }));
            job.back_at = Some(until);
            return Ok(());
        }
        let has_to =
            !over && self.may_repeat(&job, call.target, outcome) && last < soonest_too_late;
        ensure(!has_to, || format!("{job:?} is not tried again"))?;
        let more = job.at + 1 < self.routes[job.route].len();
        let falls_back =
            outcome != Outcome::Failed(Cause::Request) && outcome != Outcome::Completed;
        if falls_back && more && !over {
            let timeout = self.now + self.settings.queue.timeout;
            let job = &mut self.jobs[index];
            (job.permit, job.at, job.queue_until) = (None, job.at + 1, timeout);
            self.note_newcomers();
            return expect(actions, call.job, Seen::Wait(self.line_of(call.job)));
        }
        self.jobs.remove(index);
        expect(
            actions,
            call.job,
            Seen::End(name(&Ending::Finished(outcome))),
        )
    }

    pub(super) fn give_back_again(&mut self, which: usize) -> Check {
        if self.returned.is_empty() {
            return Ok(());
        }
        let permit = self.returned[which % self.returned.len()];
        let late = self.core.view(self.now).turnover.late_returns;
        let actions = self.tell(Event::GiveBack(permit, Outcome::Completed.into()))?;
        ensure(
            self.core.view(self.now).turnover.late_returns == late + 1,
            || "a late return is not counted".into(),
        )?;
        self.settle(actions)
    }

    pub(super) fn cancel(&mut self, job: usize) -> Check {
        let id = job as u64 % (self.submitted + 1);
        let mut actions = self.tell(Event::Cancel(JobId(id), CancelReason::Requested))?;
        self.end_early(id, "cancelled", CancelReason::Requested, &mut actions)?;
        self.settle(actions)
    }

    pub(super) fn begin(&mut self, call: usize) -> Check {
        if self.calls.is_empty() {
            return Ok(());
        }
        let call = self.calls[call % self.calls.len()].clone();
        let mut said = Vec::new();
        let may = self
            .core
            .begin(call.permit, WorkerId(0), self.now, &mut said);
        let mut actions = VecDeque::from(said);
        let job = self.jobs.iter().find(|job| job.permit == Some(call.permit));
        let late = job.is_some_and(|job| job.deadline <= self.now);
        ensure(may == (job.is_some() && !late), || {
            format!("{call:?} may begin: {may}")
        })?;
        if late {
            self.end_early(call.job, "expired", CancelReason::Deadline, &mut actions)?;
        }
        ensure(actions.is_empty(), || format!("unforeseen: {actions:?}"))
    }

    pub(super) fn pass(&mut self, time: Duration) -> Check {
        self.now = self.now + time;
        Ok(())
    }

    pub(super) fn throttle(&mut self, throttle: Throttle) -> Check {
        let actions = self.tell(Event::Throttle(throttle))?;
        self.throttle = throttle;
        self.settle(actions)
    }

    pub(super) fn stop(&mut self, drain: Duration) -> Check {
        let until = self.now + drain;
        let actions = self.tell(Event::Stop { until })?;
        self.stop = Some(self.stop.map_or(until, |before| before.min(until)));
        self.settle(actions)
    }

    pub(super) fn tick(&mut self) -> Check {
        let mut actions = self.tell(Event::Tick)?;
        let mut due: Vec<(Time, u64)> = self.jobs.iter().map(|job| (job.due(), job.id)).collect();
        due.sort_unstable();
        let stopped = self.has_stopped();
        for (due, id) in due {
            let job = self
                .jobs
                .iter()
                .find(|job| job.id == id)
                .expect("listed above");
            let (late, waits) = (job.deadline <= self.now, job.permit.is_none());
            let (what, why) = match (due <= self.now, late, waits) {
                (true, true, _) => ("expired", CancelReason::Deadline),
                (true, false, _) => ("queue timeout", CancelReason::Deadline),
                (false, _, true) if stopped => ("stopping", CancelReason::Stopping),
                (false, _, false) if stopped => ("cancelled", CancelReason::Stopping),
                (false, ..) => continue,
            };
            self.end_early(id, what, why, &mut actions)?;
        }
        if self.next_turn() <= self.now {
            let oldest = self.keeping().min().expect("a turn is due");
            self.told.push(oldest.1);
            self.last_turn = self.now;
        }
        self.settle(actions)
    }

    /// Before the core looks at an event it looks at the time.
    fn tell(&mut self, event: Event) -> Result<VecDeque<Action>, String> {
        let arrives = matches!(event, Event::Submit(_));
        let mut actions = Vec::new();
        self.core.on(event, self.now, &mut actions);
        let mut actions = VecDeque::from(actions);
        if self.bring_back(&mut actions)? && arrives {
            // Whoever waited goes before whoever comes now.
            self.start_all(&mut actions)?;
        }
        Ok(actions)
    }

    /// Whoever has backed off for long enough goes into line. Says whether anybody has.
    fn bring_back(&mut self, actions: &mut VecDeque<Action>) -> Result<bool, String> {
        let backing = self
            .jobs
            .iter()
            .filter_map(|job| Some((job.back_at?, job.id)));
        let mut back: Vec<(Time, u64)> = backing.filter(|&(at, _)| at <= self.now).collect();
        if back.is_empty() || self.has_stopped() {
            return Ok(false);
        }
        back.sort_unstable();
        for (_, id) in back {
            let timeout = self.now + self.settings.queue.timeout;
            let mut jobs = self.jobs.iter_mut();
            let job = jobs.find(|job| job.id == id).expect("listed above");
            (job.back_at, job.queue_until) = (None, timeout);
            if job.deadline <= self.now {
                self.forget(id);
                expect(actions, id, Seen::End("expired"))?;
            } else {
                self.note_newcomers();
                expect(actions, id, Seen::Wait(self.line_of(id)))?;
            }
        }
        Ok(true)
    }

    fn end_early(
        &mut self,
        id: u64,
        what: &'static str,
        why: CancelReason,
        actions: &mut VecDeque<Action>,
    ) -> Check {
        let Some(job) = self.forget(id) else {
            return Ok(());
        };
        expect(actions, id, Seen::End(what))?;
        if job.permit.is_some() {
            expect(actions, id, Seen::Interrupt(why))?;
        }
        Ok(())
    }

    /// What is left of the actions are starts (and ends of those that would start too late), as long as there is
    /// somebody who may start, and no longer.
    fn settle(&mut self, mut actions: VecDeque<Action>) -> Check {
        self.start_all(&mut actions)?;
        ensure(actions.is_empty(), || format!("unforeseen: {actions:?}"))?;
        self.compare()
    }

    fn start_all(&mut self, actions: &mut VecDeque<Action>) -> Check {
        self.relax();
        while !self.who_may_start().is_empty() {
            self.start_next(actions)?;
            self.relax();
        }
        Ok(())
    }

    /// The next action is the start of one that may start.
    fn start_next(&mut self, actions: &mut VecDeque<Action>) -> Check {
        let may = self.who_may_start();
        let Some(action) = actions.pop_front() else {
            return Err(format!("one of {may:?} could start"));
        };
        let id = action.job.0;
        ensure(may.contains(&id), || {
            format!("{action:?}, but only {may:?} may start")
        })?;
        let job = self
            .jobs
            .iter()
            .find(|job| job.id == id)
            .expect("it may start");
        if job.due() <= self.now {
            let what = if job.deadline <= self.now {
                "expired"
            } else {
                "queue timeout"
            };
            ensure(seen(&action.step) == Seen::End(what), || {
                format!("{action:?} is late")
            })?;
            self.forget(id);
            return Ok(());
        }
        let target = self.slot(job).expect("it may start");
        let foretold = Seen::Start(target, job.attempt + 1);
        ensure(seen(&action.step) == foretold, || {
            format!("{action:?}, not {foretold:?}")
        })?;
        if let Step::Start { permit, .. } = action.step {
            let job = self
                .jobs
                .iter_mut()
                .find(|job| job.id == id)
                .expect("found above");
            (job.permit, job.attempt) = (Some(permit), job.attempt + 1);
            let (flow, job) = (job.flow, job.id);
            self.calls.push(Call {
                job,
                flow,
                permit,
                target,
            });
            self.note_running(flow);
            self.note_newcomers();
        }
        Ok(())
    }

    fn compare(&self) -> Check {
        self.core.audit()?;
        let view = self.core.view(self.now);
        let waiting: Vec<&Job> = self.jobs.iter().filter(|job| job.waits()).collect();
        let running: Vec<usize> = (0..2).map(|id| self.running_at(ProviderId(id))).collect();
        let theirs: Vec<usize> = view
            .providers
            .iter()
            .map(|provider| provider.in_use)
            .collect();
        ensure(theirs == running && view.in_use == self.calls.len(), || {
            format!("{theirs:?}, not {running:?}")
        })?;
        ensure(view.waiting == waiting.len(), || {
            format!("{} wait, not {}", view.waiting, waiting.len())
        })?;
        let backing = self.jobs.iter().filter(|job| job.back_at.is_some());
        ensure(view.backing_off == backing.count(), || {
            format!("{} back off", view.backing_off)
        })?;
        let tokens: Vec<f64> = view.targets.iter().map(|seen| seen.retry_tokens).collect();
        ensure(tokens == self.tokens, || {
            format!("{tokens:?} tokens, not {:?}", self.tokens)
        })?;
        ensure(view.sessions == self.since.len(), || {
            format!("{} sessions", view.sessions)
        })?;
        let timers = self.jobs.iter().map(Job::due);
        let stop = self.stop.filter(|_| !self.jobs.is_empty());
        let due = timers
            .chain(stop)
            .chain(self.jobs.iter().filter_map(|job| job.back_at))
            .chain([self.next_turn()])
            .min()
            .unwrap_or(Time::NEVER);
        let wanted = self.core.next_due();
        let bills = !waiting.is_empty() && !self.calls.is_empty();
        ensure(wanted == due || (bills && wanted < due), || {
            format!("a tick at {wanted:?}, not {due:?}")
        })
    }

    /// Jobs came or went.
    fn note_newcomers(&mut self) {
        let waits = |flow: u64| {
            let mut waiting = self.jobs.iter().filter(|job| job.waits());
            is_session(flow)
                && !self.since.contains_key(&flow)
                && waiting.any(|job| job.flow == flow)
        };
        let new: Vec<u64> = (0..6).filter(|&flow| waits(flow)).collect();
        self.newcomers.retain(|flow| new.contains(flow));
        for flow in new {
            if !self.newcomers.contains(&flow) {
                if self.newcomers.is_empty() {
                    self.last_turn = self.now;
                }
                self.newcomers.push(flow);
            }
        }
    }

    fn forget(&mut self, id: u64) -> Option<Job> {
        let index = self.jobs.iter().position(|job| job.id == id)?;
        let job = self.jobs.remove(index);
        self.note_newcomers();
        Some(job)
    }
}

impl Job {
    /// When it has to end if nothing ends it before.
    pub(super) fn due(&self) -> Time {
        if self.waits() {
            self.deadline.min(self.queue_until)
        } else {
            self.deadline
        }
    }

    /// Whether it stands in line.
    pub(super) fn waits(&self) -> bool {
        self.permit.is_none() && self.back_at.is_none()
    }
}

/// The next action is this one.
fn expect(actions: &mut VecDeque<Action>, job: u64, foretold: Seen) -> Check {
    let action = actions.pop_front();
    let said = action
        .as_ref()
        .map(|action| (action.job.0, seen(&action.step)));
    ensure(said == Some((job, foretold.clone())), || {
        format!("{action:?}, not {job} {foretold:?}")
    })
}
