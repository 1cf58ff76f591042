//! The core's state, and the one place where events are taken.

use std::collections::{BTreeSet, HashMap};

use fastrand::Rng;

use super::estimate::{Estimate, Pacer};
use super::onward::Onward;
use super::planted::{Fault, Planted};
use super::queue::{Line, Place};
use super::sessions::Sessions;
use super::slots::{Books, Holding};
use super::target::Target;
use super::{
    Action, CLASSES, Cause, ClassId, Ending, Event, FlowId, JobId, Leg, Outcome, PermitKey,
    ProviderId, Report, SLICE, Settings, StageId, Step, TargetId, Throttle, WorkerId,
};
use crate::cancel::CancelReason;
use crate::clock::Time;

/// The admission core: see the story of this folder.
///
/// ```
/// use pointsman::admission::{Core, Event, Settings, Step, Submission, JobId, FlowId, TargetId};
/// # use pointsman::admission::{Learning, ProviderId, ProviderSettings, QueueSettings};
/// use pointsman::clock::Time;
/// use pointsman::config::Priority;
/// use std::time::Duration;
/// # let queue = QueueSettings { capacity: 10, per_session: 10, max_bytes: 1000, per_provider: 10,
/// #     timeout: Duration::from_secs(60), weights: [16, 4, 1], pressure_on: 8, pressure_off: 3 };
/// # let settings = Settings { workers: 1, global: 1, session: 1, sessions: 1, session_turn: Duration::from_secs(10), queue,
/// #     providers: vec![ProviderSettings::fixed(1)], targets: vec![ProviderId(0)], learning: Learning::default(),
/// #     orphans: Default::default() };
///
/// let mut core = Core::new(settings);
/// let stage = core.stage(&[TargetId(0)]);
/// let mut actions = Vec::new();
/// let job = Submission {
///     job: JobId(1), route: vec![stage.into()], flow: FlowId(1), session: false, session_limit: None,
///     class: Priority::High, deadline: Time::ZERO + Duration::from_secs(30), bytes: 100, reclaim: true,
/// };
/// core.on(Event::Submit(job), Time::ZERO, &mut actions);
/// assert!(matches!(actions[0].step, Step::Start { .. }));
/// ```
#[derive(Debug)]
pub struct Core {
    pub(super) settings: Settings,
    pub(super) books: Books,
    pub(super) lines: Vec<Line>,
    stages: HashMap<Vec<TargetId>, StageId>,
    pub(super) jobs: HashMap<JobId, Job>,
    pub(super) sessions: Sessions,
    /// Every job, by when it has to end if nothing ends it before: a waiting one by its queue time.
    pub(super) timers: BTreeSet<(Time, JobId)>,
    pub(super) waiting: Waiting,
    pub(super) estimates: Vec<Estimate>,
    pub(super) targets: Vec<Target>,
    /// By provider: its targets.
    pub(super) targets_of: Vec<Vec<TargetId>>,
    pub(super) onward: Onward,
    /// For jitter.
    pub(super) rng: Rng,
    pub(super) pacer: Pacer,
    /// When running jobs are charged next; only while somebody waits, since nobody competes before.
    pub(super) next_bill: Time,
    pub(super) stop: Option<Time>,
    next_place: Place,
    seq: u64,
    pub(super) peak: usize,
    /// What the load of the box leaves of the limits.
    pub(super) throttle: Throttle,
    /// What was in flight when the settings, or the throttle, last changed.
    pub(super) debt: usize,
    pub(super) planted: Planted,
}

/// What waits, counted in every way that a bound asks for.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) jobs: usize,
    pub(super) bytes: usize,
    pub(super) by_provider: Vec<usize>,
    /// By class: who came first.
    pub(super) ages: [BTreeSet<(Time, JobId)>; CLASSES],
    /// By provider and class: whose line is longest.
    pub(super) lengths: Vec<[BTreeSet<(usize, StageId, FlowId)>; CLASSES]>,
    /// Backpressure.
    pub(super) pressure: bool,
}

impl Waiting {
    pub(super) fn new(providers: usize) -> Self {
        Waiting {
            jobs: 0,
            bytes: 0,
            by_provider: vec![0; providers],
            ages: Default::default(),
            lengths: (0..providers).map(|_| Default::default()).collect(),
            pressure: false,
        }
    }

    /// There are so many providers from now on; never fewer than before.
    pub(super) fn grow(&mut self, providers: usize) {
        self.by_provider.resize(providers, 0);
        self.lengths.resize_with(providers, Default::default);
    }

    /// The lengths of the lines for one provider, or for each.
    pub(super) fn lengths_of(
        &self,
        within: Option<ProviderId>,
    ) -> impl Iterator<Item = &[BTreeSet<(usize, StageId, FlowId)>; CLASSES]> {
        let all = self.lengths.iter().enumerate();
        let counts = move |index| within.is_none_or(|provider| provider.index() == index);
        all.filter_map(move |(index, lengths)| counts(index).then_some(lengths))
    }
}

/// A job that has not ended.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) flow: FlowId,
    pub(super) session: bool,
    pub(super) session_limit: Option<usize>,
    pub(super) class: ClassId,
    pub(super) route: Vec<Leg>,
    /// Which stage of the route it is at.
    pub(super) at: usize,
    /// How often a call of it was repeated.
    pub(super) repeats: u32,
    /// Whether one of these was because the provider had failed.
    pub(super) failed_once: bool,
    /// When it goes back into line, while it backs off.
    pub(super) back_at: Option<Time>,
    pub(super) place: Place,
    pub(super) arrived: Time,
    pub(super) queue_until: Time,
    pub(super) deadline: Time,
    pub(super) bytes: usize,
    pub(super) reclaim: bool,
    pub(super) attempt: u32,
    /// The slot that it runs on; `None` while it waits.
    pub(super) permit: Option<PermitKey>,
}

impl Job {
    pub(super) fn stage(&self) -> StageId {
        self.route[self.at].stage
    }

    /// When it has to end if nothing ends it before.
    pub(super) fn due(&self) -> Time {
        if self.permit.is_some() || self.back_at.is_some() {
            self.deadline
        } else {
            self.queue_until.min(self.deadline)
        }
    }
}

impl Core {
    /// A core in which nothing runs.
    ///
    /// # Panics
    /// If a target names a provider that the settings don't have.
    pub fn new(settings: Settings) -> Self {
        let providers = settings.providers.len();
        assert!(
            settings
                .targets
                .iter()
                .all(|provider| provider.index() < providers),
            "every target has its provider"
        );
        Core {
            books: Books::new(providers, settings.targets.len()),
            lines: Vec::new(),
            stages: HashMap::new(),
            jobs: HashMap::new(),
            sessions: Sessions::default(),
            timers: BTreeSet::new(),
            waiting: Waiting::new(providers),
            estimates: settings
                .targets
                .iter()
                .map(|_| Estimate::default())
                .collect(),
            targets: settings
                .targets
                .iter()
                .map(|provider| {
                    Target::new(&settings.providers[provider.index()], &settings.learning)
                })
                .collect(),
            targets_of: targets_of(&settings),
            onward: Onward::new(providers),
            rng: Rng::with_seed(settings.learning.seed),
            pacer: Pacer::default(),
            next_bill: Time::NEVER,
            stop: None,
            next_place: 0,
            seq: 0,
            peak: 0,
            throttle: Throttle::NONE,
            debt: 0,
            planted: Planted::default(),
            settings,
        }
    }

    /// Names a set of interchangeable targets; the same set always gets the same name.
    ///
    /// # Panics
    /// If `targets` is empty or names one that the settings don't have.
    pub fn stage(&mut self, targets: &[TargetId]) -> StageId {
        assert!(!targets.is_empty(), "a stage has a target");
        assert!(
            targets
                .iter()
                .all(|target| target.index() < self.settings.targets.len()),
            "a stage has known targets"
        );
        if let Some(&stage) = self.stages.get(targets) {
            return stage;
        }
        let stage =
            StageId(u32::try_from(self.lines.len()).expect("fewer stages than u32 can count"));
        self.lines
            .push(Line::new(targets.to_vec(), self.settings.queue.weights));
        self.onward.add_stage();
        self.stages.insert(targets.to_vec(), stage);
        stage
    }

    /// Takes an event. What has to be done is added to `actions`, in the order of decision.
    pub fn on(&mut self, event: Event, now: Time, actions: &mut Vec<Action>) {
        if self.advance(now, actions) && matches!(event, Event::Submit(_)) {
            // Whoever waited for what has opened goes before whoever comes now.
            self.settle(now, actions);
        }
        match event {
            Event::Submit(submission) => self.submit(submission, now, actions),
            Event::GiveBack(permit, report) => self.give_back(permit, &report, now, actions),
            Event::Answer(permit) => self.answer(permit, now),
            Event::Cancel(job, reason) => {
                self.end_early(job, Ending::Cancelled(reason), reason, now, actions)
            }
            Event::Tick => self.tick(now, actions),
            Event::Change(change) => {
                self.change_settings(&change, now);
                if self.planted.is(Fault::LimitsWakeNobody) {
                    return;
                }
            }
            Event::Throttle(throttle) => {
                self.set_throttle(throttle);
                if self.planted.is(Fault::ThrottleWakesNobody) {
                    return;
                }
            }
            Event::Stop { until } => {
                self.stop = Some(self.stop.map_or(until, |before| before.min(until)))
            }
        }
        self.settle(now, actions);
    }

    /// `worker` is about to make its job's call: whether it still may. `false`: give the permit back, do nothing.
    pub fn begin(
        &mut self,
        permit: PermitKey,
        worker: WorkerId,
        now: Time,
        actions: &mut Vec<Action>,
    ) -> bool {
        if !self.books.is_held(permit) {
            return self.planted.is(Fault::EndedJobBegins);
        }
        let held = self.books.holding(permit).expect("held");
        held.worker = Some(worker);
        let job = held.job;
        let expired = self.jobs.get(&job).is_none_or(|job| job.deadline <= now);
        if expired {
            self.end_early(
                job,
                Ending::Expired(None),
                CancelReason::Deadline,
                now,
                actions,
            );
        }
        !expired
    }

    /// When the core wants its next [`Event::Tick`]; in the past if it wants it at once.
    pub fn next_due(&self) -> Time {
        let timer = self.timers.first().map_or(Time::NEVER, |&(due, _)| due);
        let bill = if self.waiting.jobs > 0 && self.books.in_use() > 0 {
            self.next_bill
        } else {
            Time::NEVER
        };
        let stop = if self.jobs.is_empty() {
            Time::NEVER
        } else {
            self.stop.unwrap_or(Time::NEVER)
        };
        let soonest = timer
            .min(bill)
            .min(stop)
            .min(self.next_turn())
            .min(self.books.next_orphan());
        if self.jobs.is_empty() && self.books.in_use() == 0 {
            // Nobody is there for whom a target could open.
            return soonest;
        }
        soonest.min(self.advances_at())
    }

    fn give_back(
        &mut self,
        permit: PermitKey,
        report: &Report,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        if let Some(held) = self.books.give_back(permit) {
            self.is_back(permit, held, report, now, actions);
        }
    }

    /// A slot is free again; what became of its call is learned from, and its job goes on, if it has not ended.
    pub(super) fn is_back(
        &mut self,
        permit: PermitKey,
        mut held: Holding,
        report: &Report,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let took = now.since(held.since);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let line = &mut self.lines[held.stage.index()];
        line.bill(held.class, held.flow, &mut held.billed, nanos);
        line.finish(held.class, held.flow);
        let in_use = self.books.in_use_of_target(held.target);
        let target = &mut self.targets[held.target.index()];
        let current = target.knows(&held.badge);
        let shut = target.come_back(held.badge, report, in_use, &mut self.rng, now);
        let ours = self
            .jobs
            .get(&held.job)
            .is_some_and(|job| job.permit == Some(permit));
        if ours && current {
            self.estimates[held.target.index()].record(held.class, took, now);
            if report.outcome == Outcome::Failed(Cause::ModelUnavailable) {
                self.note_missing(held.job, held.target, now);
            }
        }
        if ours {
            self.go_on(held.job, report, held.target, now, actions);
        }
        if shut {
            self.note_shut(held.target);
        }
        if held.session {
            self.session_changed(held.flow, now);
        }
    }

    /// The answer to a call has begun.
    fn answer(&mut self, permit: PermitKey, now: Time) {
        if let Some(held) = self.books.holding(permit) {
            let target = &mut self.targets[held.target.index()];
            target.answer(&mut held.badge, &mut self.rng, now);
        }
    }

    /// Ends a job that has not ended: takes it out of line, or has its call interrupted.
    pub(super) fn end_early(
        &mut self,
        id: JobId,
        ending: Ending,
        why: CancelReason,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        match job.permit {
            None => self.stand_down(id, now),
            Some(permit) => self.interrupt(permit, now),
        }
        let running = self.forget(id).permit.is_some();
        self.act(id, Step::End(ending), actions);
        if running {
            self.act(id, Step::Interrupt(why), actions);
        }
    }

    fn tick(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.end_what_is_due(now, actions);
        self.look_after_orphans(now, actions);
        if now >= self.next_bill {
            self.bill_all(now);
        }
        self.sessions_turn(now);
    }

    fn end_what_is_due(&mut self, now: Time, actions: &mut Vec<Action>) {
        let stopped = self.has_stopped(now);
        for _ in 0..SLICE {
            match self.timers.first().copied() {
                Some((due, id)) if due <= now => self.end_late(id, now, actions),
                Some((_, id)) if stopped => {
                    let ending = match self.jobs[&id].permit {
                        None => self.refusal(super::RefusalReason::Stopping, now),
                        Some(_) => Ending::Cancelled(CancelReason::Stopping),
                    };
                    self.end_early(id, ending, CancelReason::Stopping, now, actions);
                }
                _ => return,
            }
        }
    }

    /// Ends a job whose time is up.
    pub(super) fn end_late(&mut self, id: JobId, now: Time, actions: &mut Vec<Action>) {
        let job = &self.jobs[&id];
        let in_line = job.permit.is_none() && job.back_at.is_none();
        let obstacle = in_line.then(|| self.obstacle(job, now));
        let ending = match obstacle {
            Some(obstacle) if job.deadline > now => Ending::QueueTimeout(obstacle),
            obstacle => Ending::Expired(obstacle),
        };
        self.end_early(id, ending, CancelReason::Deadline, now, actions);
    }

    /// Whether the drain is over: nothing starts any more.
    pub(super) fn has_stopped(&self, now: Time) -> bool {
        self.stop.is_some_and(|until| until <= now)
    }

    /// Adds an action under the next sequence number.
    pub(super) fn act(&mut self, job: JobId, step: Step, actions: &mut Vec<Action>) {
        self.seq += 1;
        actions.push(Action {
            seq: self.seq,
            job,
            step,
        });
    }

    pub(super) fn take_place(&mut self) -> Place {
        self.next_place += 1;
        self.next_place
    }

    pub(super) fn provider_of(&self, target: TargetId) -> ProviderId {
        self.settings.targets[target.index()]
    }

    pub(super) fn forget(&mut self, id: JobId) -> Job {
        let job = self
            .jobs
            .remove(&id)
            .expect("only jobs that live are forgotten");
        self.timers.remove(&(job.due(), id));
        job
    }
}

/// By provider: its targets.
pub(super) fn targets_of(settings: &Settings) -> Vec<Vec<TargetId>> {
    let mut targets = vec![Vec::new(); settings.providers.len()];
    for (index, provider) in settings.targets.iter().enumerate() {
        targets[provider.index()].push(TargetId(index as u32));
    }
    targets
}
