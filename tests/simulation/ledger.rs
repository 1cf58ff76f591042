//! The simulator's own books, kept from what was told to the core and what it answered, and nothing else. Plain
//! vectors and linear scans: they are to be right, not fast.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use pointsman::admission::{
    Action, ClassView, Core, CoreView, Ending, JobId, Outcome, PermitKey, ProviderId, SLICE,
    Settings, StageId, Step, Submission, TargetId,
};
use pointsman::cancel::CancelReason;
use pointsman::clock::Time;
use pointsman::config::Priority;

use super::rules::{FALLS_BACK, name_of};

/// What the core was told.
#[derive(Debug)]
pub(super) enum Stimulus {
    Submit(Submission, Vec<Vec<TargetId>>),
    GiveBack(PermitKey, Outcome),
    Cancel(JobId, CancelReason),
    Begin,
    Stop(Time),
    Tick,
}

/// A job that has not ended.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) submission: Submission,
    pub(super) route: Vec<Vec<TargetId>>,
    pub(super) at: usize,
    /// Who came first has the lower one.
    pub(super) place: usize,
    pub(super) queue_until: Time,
    pub(super) attempt: u32,
    pub(super) state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It came, or came back, and the core has not said anything yet.
    Unheard,
    Waiting,
    Running(PermitKey),
}

/// A permit that is out.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) job: JobId,
    pub(super) provider: ProviderId,
    pub(super) session: Option<u64>,
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
    pub(super) stop: Option<Time>,
    pub(super) seq: u64,
    /// The job whose end was the last action, if it was running.
    pub(super) to_interrupt: Option<JobId>,
    pub(super) late_returns: u64,
    pub(super) ends_in_step: usize,
    /// How many waited before the step; jobs that came back may be more than the places.
    pub(super) waited: usize,
    /// Which ways to end have been seen.
    pub(super) endings: BTreeSet<&'static str>,
}

type Check = Result<(), String>;

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(what()) }
}

impl Ledger {
    pub(super) fn new(
        settings: Settings,
        stages: HashMap<Vec<TargetId>, StageId>,
        prompt: bool,
    ) -> Ledger {
        Ledger {
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
            ends_in_step: 0,
            waited: 0,
            endings: BTreeSet::new(),
        }
    }

    /// Which ways to end have been seen.
    pub(super) fn endings(self) -> BTreeSet<&'static str> {
        self.endings
    }

    pub(super) fn is_in_flight(&self, permit: PermitKey) -> bool {
        self.calls.contains_key(&permit)
    }

    /// Books what the core is about to be told.
    pub(super) fn announce(&mut self, stimulus: &Stimulus, now: Time) {
        self.ends_in_step = 0;
        self.waited = self.waiting().count();
        match stimulus {
            Stimulus::Submit(submission, route) => {
                let job = Job {
                    submission: submission.clone(),
                    route: route.clone(),
                    at: 0,
                    place: self.jobs.len() + self.ended.len(),
                    queue_until: now + self.settings.queue.timeout,
                    attempt: 0,
                    state: State::Unheard,
                };
                self.jobs.insert(submission.job, job);
            }
            Stimulus::GiveBack(permit, outcome) => self.permit_is_back(*permit, *outcome, now),
            Stimulus::Stop(until) => {
                self.stop = Some(self.stop.map_or(*until, |before| before.min(*until)));
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
            !self.ended.contains(&id) || matches!(action.step, Step::Interrupt(_)),
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
        match &action.step {
            Step::Wait { waiting } => self.waits(id, *waiting),
            Step::Start {
                permit,
                target,
                attempt,
                ..
            } => self.starts(id, *permit, *target, *attempt, now),
            // Nothing is repeated here, so nothing backs off.
            Step::BackOff { .. } => Err(format!("{id:?} backs off")),
            Step::End(ending) => self.ends(id, ending, stimulus, now),
            Step::Interrupt(_) => Ok(()),
        }
    }

    fn permit_is_back(&mut self, permit: PermitKey, outcome: Outcome, now: Time) {
        let Some(call) = self.calls.remove(&permit) else {
            self.late_returns += 1;
            return;
        };
        if let Some(session) = call.session
            && self.running_of(session) == 0
        {
            self.active_since.remove(&session);
        }
        let stopped = self.has_stopped(now);
        let job = self.jobs.get_mut(&call.job);
        if let Some(job) = job.filter(|job| job.state == State::Running(permit)) {
            let more = job.at + 1 < job.route.len() && job.submission.deadline > now && !stopped;
            if outcome == FALLS_BACK && more {
                job.at += 1;
                job.queue_until = now + self.settings.queue.timeout;
                job.state = State::Unheard;
            }
        }
    }

    fn waits(&mut self, id: JobId, waiting: usize) -> Check {
        let job = self.jobs.get_mut(&id).ok_or("an unknown job waits")?;
        ensure(job.state == State::Unheard, || {
            format!("{id:?} waits, it is {:?}", job.state)
        })?;
        job.state = State::Waiting;
        let (came_back, stage, flow) = (
            job.attempt > 0,
            job.route[job.at].clone(),
            job.submission.flow,
        );
        let in_line = self.waiting().filter(|job| job.route[job.at] == stage);
        let (all, own) = in_line.fold((0, 0), |(all, own), job| {
            (all + 1, own + usize::from(job.submission.flow == flow))
        });
        ensure(all == waiting, || {
            format!("{all} wait in line, the core says {waiting}")
        })?;
        let queue = &self.settings.queue;
        let bytes: usize = self.waiting().map(|job| job.submission.bytes).sum();
        let in_bounds = self.waiting().count() <= queue.capacity.max(self.waited)
            && own <= queue.per_session
            && bytes <= queue.max_bytes;
        ensure(came_back || in_bounds, || {
            format!("{id:?} was taken in over the bounds")
        })
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
        ensure(self.has_slot(self.provider_of(target)), || {
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
        let overtakes = self
            .waiting()
            .any(|other| other.place < job.place && key(other) == key(job));
        ensure(!overtakes, || {
            format!("{id:?} overtakes one of its own flow")
        })?;
        let session = job.submission.session.then_some(job.submission.flow.0);
        if let Some(session) = session {
            self.active_since.entry(session).or_insert(now);
        }
        let provider = self.provider_of(target);
        self.calls.insert(
            permit,
            Call {
                job: id,
                provider,
                session,
            },
        );
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
                outcome == said && job.state == State::Running(*permit)
            }
            (Ending::Finished(_), _) => false,
            (Ending::QueueTimeout, _) => {
                job.state == State::Waiting && job.queue_until <= now && !late
            }
            (Ending::Expired, _) => late,
            (Ending::Cancelled(reason), Stimulus::Cancel(asked, why)) => {
                *asked == id && reason == why
            }
            (Ending::Cancelled(reason), _) => {
                *reason == CancelReason::Stopping && stopped && running
            }
            (Ending::Refused(refusal), _) => {
                refusal.retry_after.as_secs() >= 1
                    && refusal.retry_after.as_secs() <= 32
                    && self.may_refuse(job, refusal.reason, stimulus, now)
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
        self.agrees_with(&core.view(now))?;
        for (id, job) in &self.jobs {
            ensure(job.state != State::Unheard, || {
                format!("{id:?} was not heard of again")
            })?;
            let overdue = job.due() < now || self.stop.is_some_and(|until| until < now);
            ensure(!(self.prompt && overdue), || {
                format!("{id:?} should have ended")
            })?;
        }
        // `begin` ends a job but frees nothing, so it starts nobody; and a slice of late ones may hide the rest.
        let settled = !matches!(stimulus, Stimulus::Begin) && self.ends_in_step < SLICE;
        let idle = self.calls.len() < self.room() && !self.has_stopped(now);
        let mut waiting = self.waiting().filter(|_| settled && idle);
        match waiting.find(|job| self.can_start(job, now) && !self.may_have_to_make_room(job, now))
        {
            Some(job) => Err(format!("a slot is free, and this job could start: {job:?}")),
            None => Ok(()),
        }
    }

    /// After the load nothing is left.
    pub(super) fn is_at_rest(&self, view: &CoreView) -> Check {
        ensure(self.jobs.is_empty(), || {
            format!("these never ended: {:?}", self.jobs)
        })?;
        ensure(self.calls.is_empty(), || {
            format!("these never came back: {:?}", self.calls)
        })?;
        ensure(view.taken == view.given_back, || {
            format!("slots are lost: {view:?}")
        })?;
        ensure(!view.pressure, || "the pressure stays on".into())
    }

    fn agrees_with(&self, view: &CoreView) -> Check {
        let providers = (0..self.settings.providers.len() as u32).map(ProviderId);
        let by_provider = |id| (self.running_at(id), self.waiting_at(id));
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
                .map(|provider| (provider.in_use, provider.waiting))
                .collect(),
            (
                view.classes.map(|ClassView { waiting, .. }| waiting),
                view.taken,
                view.late_returns,
            ),
        );
        ensure(ours == theirs, || {
            format!("the core sees {theirs:?}, it is {ours:?}")
        })
    }
}

impl Job {
    /// When it has to end if nothing ends it before.
    pub(super) fn due(&self) -> Time {
        match self.state {
            State::Running(_) => self.submission.deadline,
            State::Unheard | State::Waiting => self.queue_until.min(self.submission.deadline),
        }
    }
}
