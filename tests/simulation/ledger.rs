//! The simulator's own books, kept from what was told to the core and what it answered, and nothing else. Plain
//! vectors and linear scans: they are to be right, not fast.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use crate::admission::{
    Action, Cause, Change, ClassView, Core, CoreView, Ending, JobId, ModelId, Outcome, PermitKey,
    ProviderId, RefusalReason, Report, SLICE, Settings, StageId, Step, Submission, TargetId,
    Throttle,
};
use pointsman::cancel::CancelReason;
use pointsman::clock::Time;
use pointsman::config::Priority;

use super::orphans::GONE;
use super::rules::name_of;
use super::targets::{Badge, Watch};

/// What the core was told.
#[derive(Debug)]
pub(super) enum Stimulus {
    Submit(Submission, Vec<Vec<TargetId>>),
    GiveBack(PermitKey, Report),
    Answer(PermitKey),
    Change(Box<Change>),
    Throttle(Throttle),
    Cancel(JobId, CancelReason),
    Begin,
    /// A guard was found to be lost.
    Recover(PermitKey),
    Stop(Time),
    Tick,
}

/// A job that has not ended.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) submission: Submission,
    pub(super) route: Vec<Vec<TargetId>>,
    pub(super) at: usize,
    /// Who came first has the lower one.
    pub(super) place: usize,
    pub(super) arrived: Time,
    pub(super) queue_until: Time,
    pub(super) attempt: u32,
    pub(super) repeats: u32,
    pub(super) failed_once: bool,
    pub(super) model: Option<ModelId>,
    pub(super) state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It came, or came back, and the core has not said anything yet.
    Unheard,
    Waiting,
    Running(PermitKey),
    /// Its call is back, with this, from there; and the core has not said anything yet.
    Returned(Report, TargetId, PermitKey),
    BackingOff(Time),
}

/// A permit that is out.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) job: JobId,
    pub(super) provider: ProviderId,
    pub(super) session: Option<u64>,
    pub(super) target: TargetId,
    pub(super) badge: Badge,
    /// Whether its slot may be taken from it.
    pub(super) reclaim: bool,
    /// Whether a worker is at it.
    pub(super) begun: bool,
    /// Since when its job has ended.
    pub(super) interrupted: Option<Time>,
    /// Since when it is given up on.
    pub(super) quarantined: Option<Time>,
}

/// The books.
pub(super) struct Ledger {
    pub(super) settings: Settings,
    pub(super) stages: HashMap<Vec<TargetId>, StageId>,
    /// Whether ticks come when the core wants them.
    pub(super) prompt: bool,
    pub(super) jobs: BTreeMap<JobId, Job>,
    pub(super) ended: HashSet<JobId>,
    pub(super) calls: HashMap<PermitKey, Call>,
    pub(super) used: HashSet<PermitKey>,
    pub(super) active_since: HashMap<u64, Time>,
    pub(super) targets: Vec<Watch>,
    /// Models that targets don't have, until when.
    pub(super) away: HashMap<(TargetId, ModelId), Time>,
    /// Calls that started in this step.
    pub(super) started: Vec<PermitKey>,
    /// When the last step was.
    pub(super) last: Time,
    /// What the load of the box leaves of the limits.
    pub(super) throttle: Throttle,
    /// What was in flight when settings, or the throttle, last changed.
    pub(super) debt: usize,
    pub(super) stop: Option<Time>,
    pub(super) seq: u64,
    /// The job whose end was the last action, if it was running.
    pub(super) to_interrupt: Option<JobId>,
    pub(super) late_returns: u64,
    /// Calls that go on without their slot, and whether a worker is at it.
    pub(super) abandoned: HashMap<PermitKey, bool>,
    pub(super) reclaimed: u64,
    pub(super) recovered: u64,
    pub(super) ends_in_step: usize,
    /// How many waited or backed off before the step; jobs that came back may be more than the places.
    pub(super) waited: usize,
    /// Which ways to end have been seen.
    pub(super) endings: BTreeSet<&'static str>,
}

pub(super) type Check = Result<(), String>;

pub(super) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(what()) }
}

impl Ledger {
    pub(super) fn new(
        settings: Settings,
        stages: HashMap<Vec<TargetId>, StageId>,
        prompt: bool,
    ) -> Ledger {
        Ledger {
            targets: (0..settings.targets.len())
                .map(|target| Watch::new(&settings, target))
                .collect(),
            away: HashMap::new(),
            started: Vec::new(),
            last: Time::ZERO,
            throttle: Throttle::NONE,
            debt: 0,
            settings,
            stages,
            prompt,
            jobs: BTreeMap::new(),
            ended: HashSet::new(),
            calls: HashMap::new(),
            used: HashSet::new(),
            active_since: HashMap::new(),
            stop: None,
            seq: 0,
            to_interrupt: None,
            late_returns: 0,
            abandoned: HashMap::new(),
            reclaimed: 0,
            recovered: 0,
            ends_in_step: 0,
            waited: 0,
            endings: BTreeSet::new(),
        }
    }

    /// Which ways to end have been seen.
    pub(super) fn endings(self) -> BTreeSet<&'static str> {
        self.endings
    }

    /// How long the first byte of a job's answer may take, where that ends before the job does.
    pub(super) fn patience(&self, job: JobId, by: Time, now: Time) -> Option<Duration> {
        let deadline = self.jobs.get(&job)?.submission.deadline;
        (by < deadline).then(|| by.since(now))
    }

    pub(super) fn is_in_flight(&self, permit: PermitKey) -> bool {
        self.calls.contains_key(&permit)
    }

    /// Books what the core is about to be told.
    pub(super) fn announce(&mut self, stimulus: &Stimulus, now: Time) {
        self.ends_in_step = 0;
        self.waited = self.places();
        self.started.clear();
        let grows = self.prompt && self.waiting().next().is_some();
        for target in 0..self.targets.len() {
            let in_use = self.running_on(TargetId(target as u32));
            self.targets[target].pass(self.last, now, in_use, grows);
        }
        self.last = now;
        match stimulus {
            Stimulus::Submit(submission, route) => {
                let job = Job {
                    submission: submission.clone(),
                    route: route.clone(),
                    at: 0,
                    place: self.jobs.len() + self.ended.len(),
                    arrived: now,
                    queue_until: now + self.settings.queue.timeout,
                    attempt: 0,
                    repeats: 0,
                    failed_once: false,
                    model: submission.route[0].model,
                    state: State::Unheard,
                };
                self.jobs.insert(submission.job, job);
            }
            Stimulus::GiveBack(permit, report) => self.permit_is_back(*permit, report, now),
            Stimulus::Recover(permit) if self.calls.contains_key(permit) => {
                self.recovered += 1;
                self.permit_is_back(*permit, &GONE, now);
            }
            Stimulus::Answer(permit) => {
                if let Some(call) = self.calls.get_mut(permit) {
                    self.targets[call.target.index()].answer(&mut call.badge, now);
                }
            }
            Stimulus::Change(change) => self.settings_change(change, now),
            Stimulus::Throttle(throttle) => {
                self.debt = self.calls.len();
                self.throttle = *throttle;
            }
            Stimulus::Stop(until) => {
                self.stop = Some(self.stop.map_or(*until, |before| before.min(*until)));
            }
            Stimulus::Recover(permit) => {
                self.abandoned.remove(permit);
            }
            Stimulus::Cancel(..) | Stimulus::Begin | Stimulus::Tick => {}
        }
    }

    /// The core has said whether a worker may make its call.
    pub(super) fn begins(&mut self, job: JobId, permit: PermitKey, may: bool, now: Time) -> Check {
        self.ends_in_step = 0;
        let alive = self.jobs.get(&job).is_some_and(|job| {
            job.state == State::Running(permit) && job.submission.deadline > now
        });
        if let Some(call) = self
            .calls
            .get_mut(&permit)
            .filter(|call| call.interrupted.is_none())
        {
            call.begun = true;
        }
        ensure(alive == may, || {
            format!("{job:?} may begin: {may}, but is alive: {alive}")
        })
    }

    /// Checks one action and books it.
    pub(super) fn take(&mut self, action: &Action, stimulus: &Stimulus, now: Time) -> Check {
        let id = action.job;
        ensure(action.seq > self.seq, || {
            "sequence numbers do not increase".into()
        })?;
        self.seq = action.seq;
        ensure(
            !self.ended.contains(&id) || is_about_its_call(&action.step),
            || format!("{id:?} has ended, and yet: {:?}", action.step),
        )?;
        let interrupted = self.to_interrupt.take();
        match &action.step {
            Step::Interrupt(_) => {
                return ensure(interrupted == Some(id), || {
                    format!("{id:?} is interrupted without an end")
                });
            }
            _ => ensure(interrupted.is_none(), || {
                format!("{interrupted:?} was not interrupted")
            })?,
        }
        let arrives = matches!(stimulus, Stimulus::Submit(arrival, _) if arrival.job == id);
        let taken = matches!(action.step, Step::Wait { .. } | Step::Start { .. });
        let lost = self.lost();
        ensure(
            !(arrives && taken) || lost <= self.settings.orphans.max_lost,
            || format!("{id:?} is taken in with {lost} workers lost"),
        )?;
        match &action.step {
            Step::Wait { stage, waiting } => self.waits(id, *stage, *waiting, now),
            Step::Start {
                permit,
                target,
                attempt,
                stage,
                probe,
                ..
            } => {
                self.goes_to(id, *stage, now)?;
                self.starts(id, *permit, *target, *attempt, now)?;
                self.is_called(id, *permit, *target, *probe, now)
            }
            Step::BackOff { until } => self.backs_off(id, *until, now),
            Step::End(ending) => self.ends(id, ending, stimulus, now),
            step @ (Step::Quarantine { .. } | Step::Reclaim { .. }) => {
                self.watchdog_acts(step, stimulus, now)
            }
            Step::Interrupt(_) => Ok(()),
        }
    }

    pub(super) fn permit_is_back(&mut self, permit: PermitKey, report: &Report, now: Time) {
        let Some(call) = self.calls.get(&permit) else {
            return self.is_late(permit);
        };
        let in_use = self.running_on(call.target);
        self.targets[call.target.index()].back(call.badge, report, in_use, now);
        let Some(call) = self.calls.remove(&permit) else {
            return;
        };
        if let Some(session) = call.session
            && self.running_of(session) == 0
        {
            self.active_since.remove(&session);
        }
        let job = self.jobs.get_mut(&call.job);
        if let Some(job) = job.filter(|job| job.state == State::Running(permit)) {
            job.state = State::Returned(*report, call.target, permit);
            if let (Outcome::Failed(Cause::ModelUnavailable), Some(model)) =
                (report.outcome, job.model)
                && self.targets[call.target.index()].knows(&call.badge)
            {
                let until = now + self.settings.learning.model_away;
                self.away.insert((call.target, model), until);
            }
        }
    }

    fn settings_change(&mut self, change: &Change, now: Time) {
        self.debt = self.calls.len();
        let turn = self.settings.session_turn;
        self.settings = change.settings.clone();
        // Who was told to make room when turns were shorter still has to.
        self.settings.session_turn = turn.min(self.settings.session_turn);
        for (index, watch) in self.targets.iter_mut().enumerate() {
            let id = TargetId(index as u32);
            let is_gone = change.gone.contains(&id);
            if change.anew.contains(&id) || is_gone != watch.is_gone() {
                watch.replace(Watch::new(&self.settings, index), is_gone);
                // Who was found not to have a model may be in a line of fewer targets still.
                let marks = self.away.iter_mut().filter(|((at, _), _)| *at == id);
                marks.for_each(|(_, until)| *until = (*until).min(now));
            } else {
                let provider = self.settings.targets[index];
                watch.configure(self.settings.providers[provider.0 as usize].limit);
            }
        }
        let new = self.targets.len()..self.settings.targets.len();
        self.targets
            .extend(new.map(|target| Watch::new(&self.settings, target)));
    }

    fn starts(
        &mut self,
        id: JobId,
        permit: PermitKey,
        target: TargetId,
        attempt: u32,
        now: Time,
    ) -> Check {
        let job = self.jobs.get(&id).ok_or("an unknown job starts")?;
        ensure(!matches!(job.state, State::Running(_)), || {
            format!("{id:?} starts twice")
        })?;
        ensure(job.due() > now, || format!("{id:?} starts after its time"))?;
        ensure(!self.has_stopped(now), || {
            format!("{id:?} starts after the drain")
        })?;
        ensure(attempt == job.attempt + 1, || {
            format!("{id:?} makes attempt {attempt}")
        })?;
        ensure(job.route[job.at].contains(&target), || {
            format!("{id:?} goes to {target:?}")
        })?;
        ensure(self.has_slot(self.provider_of(target), true, now), || {
            format!("{id:?} starts at {target:?}: full")
        })?;
        ensure(self.session_allows(job), || {
            format!("{id:?} starts: its session is full")
        })?;
        ensure(self.used.insert(permit), || {
            format!("{permit:?} is given out twice")
        })?;
        let job = &self.jobs[&id];
        let key = |job: &Job| {
            (
                job.route[job.at].clone(),
                job.submission.class,
                job.submission.flow,
            )
        };
        // After a tick so late that a slice of jobs expired, those behind them are hidden until the next one.
        let late = self.waiting().any(|other| other.due() <= now);
        // Who has a model may stand in a line of fewer targets.
        let overtakes = self.waiting().find(|other| {
            let competes = other.place < job.place && !late;
            competes && key(other) == key(job) && job.model.or(other.model).is_none()
        });
        ensure(overtakes.is_none(), || {
            format!("{id:?} overtakes one of its own flow: {overtakes:?}")
        })?;
        let job = self.jobs.get_mut(&id).expect("looked up above");
        (job.attempt, job.state) = (attempt, State::Running(permit));
        Ok(())
    }

    fn ends(&mut self, id: JobId, ending: &Ending, stimulus: &Stimulus, now: Time) -> Check {
        let job = self.jobs.get(&id).ok_or("an unknown job ends")?;
        let running = matches!(job.state, State::Running(_));
        let late = job.submission.deadline <= now;
        let stopped = self.has_stopped(now);
        let right = match (ending, stimulus) {
            (Ending::Finished(outcome), Stimulus::GiveBack(permit, said)) => {
                *outcome == said.outcome
                    && matches!(job.state, State::Returned(_, _, own) if own == *permit)
            }
            (Ending::Finished(outcome), Stimulus::Recover(permit)) => {
                *outcome == GONE.outcome
                    && matches!(job.state, State::Returned(_, _, own) if own == *permit)
            }
            (Ending::Finished(_), _) => false,
            (Ending::QueueTimeout(_), _) => {
                job.state == State::Waiting && job.queue_until <= now && !late
            }
            (Ending::Expired(_), _) => late,
            (Ending::Cancelled(reason), Stimulus::Cancel(asked, why)) => {
                *asked == id && reason == why
            }
            (Ending::Cancelled(reason), _) => {
                *reason == CancelReason::Stopping && stopped && running
            }
            (Ending::Refused(refusal), _) => {
                let shut = matches!(refusal.reason, RefusalReason::Shut(_));
                (shut || (1..=32).contains(&refusal.retry_after.as_secs()))
                    && self.may_refuse_somewhere(job, refusal.reason, stimulus, now)
            }
        };
        ensure(right, || {
            format!("{id:?} ends by {ending:?} on {stimulus:?}: {job:?}")
        })?;
        ensure(!self.prompt || now <= job.submission.deadline, || {
            format!("{id:?} ends late")
        })?;
        let to_interrupt = running && !matches!(ending, Ending::Finished(_));
        self.to_interrupt = to_interrupt.then_some(id);
        let State::Running(permit) = job.state else {
            return self.forget(id, ending);
        };
        if let Some(call) = self.calls.get_mut(&permit) {
            call.interrupted = Some(now);
        }
        self.forget(id, ending)
    }

    fn forget(&mut self, id: JobId, ending: &Ending) -> Check {
        self.jobs.remove(&id);
        self.ended.insert(id);
        self.endings.insert(name_of(ending));
        self.ends_in_step += 1;
        ensure(self.ends_in_step <= 2 * SLICE + 1, || {
            "one step ends too many".into()
        })
    }

    /// Everything that can be seen after a step.
    pub(super) fn step_is_over(&mut self, stimulus: &Stimulus, core: &Core, now: Time) -> Check {
        ensure(self.to_interrupt.is_none(), || {
            format!("{:?} was not interrupted", self.to_interrupt)
        })?;
        core.audit()?;
        if !matches!(stimulus, Stimulus::Begin) {
            self.targets_agree(&core.view(now), now)?;
        }
        self.agrees_with(&core.view(now))?;
        self.orphans_agree(core, now)?;
        for (id, job) in &self.jobs {
            ensure(job.state != State::Unheard, || {
                format!("{id:?} was not heard of again")
            })?;
            if let State::Returned(..) = job.state {
                return Err(format!("{id:?} was not heard of after its call"));
            }
            let back = matches!(job.state, State::BackingOff(until) if until < now);
            let overdue = job.due() < now || back || self.stop.is_some_and(|until| until < now);
            ensure(!(self.prompt && overdue), || {
                format!("{id:?} should have ended")
            })?;
        }
        // `begin` ends a job but frees nothing, so it starts nobody; and a slice of late ones may hide the rest.
        let settled = !matches!(stimulus, Stimulus::Begin) && self.ends_in_step < SLICE;
        let idle = self.vacant() > 0 && !self.has_stopped(now);
        let mut waiting = self.waiting().filter(|_| settled && idle);
        match waiting.find(|job| self.can_start(job, now) && !self.may_have_to_make_room(job, now))
        {
            Some(job) => Err(format!("a slot is free, and this job could start: {job:?}")),
            None => Ok(()),
        }
    }

    fn targets_agree(&mut self, view: &CoreView, now: Time) -> Check {
        let most = self.global().max(self.debt);
        ensure(self.calls.len() <= most, || {
            format!("{} calls, {most} may be", self.calls.len())
        })?;
        for (watch, view) in self.targets.iter_mut().zip(&view.targets) {
            watch.agrees_with(view, now)?;
        }
        for permit in &self.started {
            if let Some(call) = self.calls.get_mut(permit) {
                self.targets[call.target.index()].settle(&mut call.badge);
            }
        }
        Ok(())
    }

    /// After the load nothing is left.
    pub(super) fn is_at_rest(&self, view: &CoreView) -> Check {
        ensure(self.jobs.is_empty(), || {
            format!("these never ended: {:?}", self.jobs)
        })?;
        ensure(self.calls.is_empty(), || {
            format!("these never came back: {:?}", self.calls)
        })?;
        let turnover = view.turnover;
        let back = turnover.given_back + turnover.reclaimed + turnover.recovered;
        ensure(turnover.taken == back && view.lost_workers == 0, || {
            format!("slots are lost: {view:?}")
        })?;
        ensure(view.backing_off == 0 && view.waiting_bytes == 0, || {
            format!("somebody is still waited for: {view:?}")
        })?;
        ensure(!view.pressure, || "the pressure stays on".into())
    }

    fn agrees_with(&self, view: &CoreView) -> Check {
        let providers = (0..self.settings.providers.len() as u32).map(ProviderId);
        let models = self.has_models();
        let by_provider = |id| {
            let waiting = if models { 0 } else { self.waiting_at(id) };
            (self.running_at(id), waiting)
        };
        let classes = Priority::ALL.map(|class| {
            self.waiting()
                .filter(|job| job.submission.class == class)
                .count()
        });
        let bytes: usize = self.waiting().map(|job| job.submission.bytes).sum();
        let ours = (
            (
                self.calls.len(),
                self.active_since.len(),
                self.waiting().count(),
                bytes,
            ),
            providers.map(by_provider).collect::<Vec<_>>(),
            (classes, self.used.len() as u64, self.late_returns),
        );
        let theirs = (
            (view.in_use, view.sessions, view.waiting, view.waiting_bytes),
            view.providers
                .iter()
                .map(|provider| (provider.in_use, if models { 0 } else { provider.waiting }))
                .collect(),
            (
                view.classes.map(|ClassView { waiting, .. }| waiting),
                view.turnover.taken,
                view.turnover.late_returns,
            ),
        );
        ensure(ours == theirs, || {
            format!("the core sees {theirs:?}, it is {ours:?}")
        })
    }
}

/// Whether a step is about a call, which may outlive its job.
fn is_about_its_call(step: &Step) -> bool {
    matches!(
        step,
        Step::Interrupt(_) | Step::Quarantine { .. } | Step::Reclaim { .. }
    )
}

impl Job {
    /// When it has to end if nothing ends it before.
    pub(super) fn due(&self) -> Time {
        match self.state {
            State::Running(_) | State::Returned(..) | State::BackingOff(_) => {
                self.submission.deadline
            }
            State::Unheard | State::Waiting => self.queue_until.min(self.submission.deadline),
        }
    }
}
