//! The rules of admission once more, in the plainest words: what may start, and who may be refused. Plain scans: they
//! are to be right, not fast.

use std::collections::HashSet;

use crate::admission::{
    Cause, Ending, ModelId, Outcome, ProviderId, RefusalReason, Shut, TargetId,
};
use pointsman::clock::Time;
use pointsman::config::Priority;

use super::ledger::{Job, Ledger, State, Stimulus};

/// Whether a failure lets the same stage be asked again.
pub(super) fn allows_repeat(outcome: Outcome, failed_once: bool) -> bool {
    match outcome {
        Outcome::Failed(
            Cause::Congested { .. } | Cause::WindowUsedUp { .. } | Cause::Unreachable,
        ) => true,
        Outcome::Failed(Cause::Failing { again }) => again && !failed_once,
        _ => false,
    }
}

/// Whether a failure lets the next stage try.
pub(super) fn allows_fallback(outcome: Outcome) -> bool {
    let nowhere = [
        Outcome::Completed,
        Outcome::Failed(Cause::Request),
        Outcome::Failed(Cause::Unwanted),
        Outcome::Failed(Cause::Own),
    ];
    !nowhere.contains(&outcome)
}

impl Ledger {
    /// Whether a refusal for this reason is true, at a stage that the job may have been led to.
    pub(super) fn may_refuse_somewhere(
        &self,
        job: &Job,
        reason: RefusalReason,
        stimulus: &Stimulus,
        now: Time,
    ) -> bool {
        let led_on = |&at: &usize| {
            let open = |before| self.takes_calls(job, before, now);
            at == job.at || (job.state == State::Unheard && !(job.at..at).any(open))
        };
        let stages = (job.at..job.route.len()).filter(led_on);
        let mut there = stages.map(|at| Job { at, ..job.clone() });
        there.any(|job| self.may_refuse(&job, reason, stimulus, now))
    }

    /// Whether a refusal for this reason is true.
    fn may_refuse(&self, job: &Job, reason: RefusalReason, stimulus: &Stimulus, now: Time) -> bool {
        let queue = &self.settings.queue;
        let stage = &job.route[job.at];
        let here = |other: &&Job| &other.route[other.at] == stage;
        let arrives =
            matches!(stimulus, Stimulus::Submit(arrival, _) if arrival.job == job.submission.job);
        let could_start = self.can_start(job, now) && !self.may_have_to_make_room(job, now);
        let stuck = arrives && job.state == State::Unheard && !could_start;
        match reason {
            RefusalReason::Stopping => {
                let holds_nothing = matches!(job.state, State::Waiting | State::BackingOff(_));
                (arrives && self.stop.is_some()) || (holds_nothing && self.has_stopped(now))
            }
            RefusalReason::WorkersLost { lost } => {
                arrives && lost == self.lost() && lost > self.settings.orphans.max_lost
            }
            RefusalReason::BoxLoaded => {
                let low = job.submission.class == Priority::Low;
                arrives && low && self.throttle.refuses_low
            }
            RefusalReason::Displaced => {
                matches!(stimulus, Stimulus::Submit(..))
                    && job.state == State::Waiting
                    && job.attempt == 0
                    && (self.places() >= queue.capacity
                        || self.has_models()
                        || self.places_at(self.provider_of(stage[0])) >= queue.per_provider)
            }
            RefusalReason::QueueFull => stuck && self.places() >= queue.capacity,
            RefusalReason::SessionQueueFull => {
                let own = self.waiting().filter(here);
                let own = own.filter(|other| other.submission.flow == job.submission.flow);
                stuck && (self.has_models() || own.count() >= queue.per_session)
            }
            RefusalReason::QueueBytes => {
                let bytes: usize = self.placed().map(|job| job.submission.bytes).sum();
                stuck && bytes + job.submission.bytes > queue.max_bytes
            }
            RefusalReason::ProviderQueueFull => {
                let provider = self.provider_of(stage[0]);
                stuck && (self.has_models() || self.places_at(provider) >= queue.per_provider)
            }
            RefusalReason::Shut(_) => self.waits_in_vain(job, now),
            RefusalReason::WaitTooLong { expected } => {
                let free = stage
                    .iter()
                    .any(|&target| self.surely_has_slot(target, job, now));
                let waited_for = self.has_models() || self.waiting().any(|job| here(&job));
                stuck && !free && waited_for && now + expected > job.due()
            }
        }
    }

    pub(super) fn can_start(&self, job: &Job, now: Time) -> bool {
        let mut stage = job.route[job.at].iter();
        job.due() > now
            && self.session_allows(job)
            && stage.any(|&target| self.surely_has_slot(target, job, now))
    }

    pub(super) fn session_allows(&self, job: &Job) -> bool {
        let flow = job.submission.flow.0;
        let running = self.running_of(flow);
        !job.submission.session
            || (running == 0 && self.active_since.len() < self.settings.sessions)
            || (running > 0 && running < self.session_limit(job))
    }

    fn session_limit(&self, job: &Job) -> usize {
        let own = job.submission.session_limit.unwrap_or(usize::MAX);
        own.min(self.settings.session)
    }

    /// Whether its session may have been told to make room: it has had its turn, and there are more who wait for a place
    /// than there are places.
    pub(super) fn may_have_to_make_room(&self, job: &Job, now: Time) -> bool {
        let Some(&since) = self.active_since.get(&job.submission.flow.0) else {
            return false;
        };
        let sessions = self.waiting().filter(|job| job.submission.session);
        let newcomers: HashSet<u64> = sessions
            .map(|job| job.submission.flow.0)
            .filter(|flow| !self.active_since.contains_key(flow))
            .collect();
        job.submission.session
            && self.active_since.len() + newcomers.len() > self.settings.sessions
            && since + self.settings.session_turn <= now
    }

    /// Whether a call may start there, as far as the slots of providers and of all are concerned. Whether a slot is kept for
    /// a provider whose targets may or may not be shut just now is nobody's fault: `lenient` says how that is taken.
    pub(super) fn has_slot(&self, provider: ProviderId, lenient: bool, now: Time) -> bool {
        let is_idle = |other: &ProviderId, open: bool| {
            let takes_calls = |(index, at): (usize, &ProviderId)| {
                let watch = &self.targets[index];
                let certain = if open {
                    watch.surely_open(now)
                } else {
                    !watch.surely_shut(now)
                };
                at == other && certain
            };
            self.settings.providers[other.0 as usize].reserves
                && self.running_at(*other) == 0
                && self.settings.targets.iter().enumerate().any(takes_calls)
        };
        let others = (0..self.settings.providers.len() as u32).map(ProviderId);
        let kept = match is_idle(&provider, !lenient) {
            true => 0,
            false => others
                .filter(|other| is_idle(other, lenient))
                .count()
                .min(self.room() / 2),
        };
        self.running_at(provider) < self.settings.providers[provider.0 as usize].limit
            && kept < self.vacant()
    }

    fn surely_has_slot(&self, target: TargetId, job: &Job, now: Time) -> bool {
        let watch = &self.targets[target.index()];
        self.has_slot(self.provider_of(target), false, now)
            && watch.surely_open(now)
            && watch.has_place(self.running_on(target))
            && !self.was_away(target, job)
    }

    /// Whether a stage of the job's route certainly takes calls, were it not for its limits.
    pub(super) fn takes_calls(&self, job: &Job, at: usize, now: Time) -> bool {
        job.route[at].iter().any(|&target| {
            self.targets[target.index()].stays_open(now) && !self.was_away(target, job)
        })
    }

    /// Whether nobody who could still be asked may be sure to open before the job's time in line is over.
    fn waits_in_vain(&self, job: &Job, now: Time) -> bool {
        let in_line = now + self.settings.queue.timeout;
        let due = match job.state {
            State::Waiting => job.due(),
            _ => in_line.min(job.submission.deadline),
        };
        let mut rest = job.route[job.at..].iter().flatten();
        rest.all(|&target| {
            self.was_away(target, job) || self.targets[target.index()].opens_by() >= due
        })
    }

    /// Whether the target was found not to have the job's model in the job's lifetime: it then stands in a line without
    /// that target until it ends.
    fn was_away(&self, target: TargetId, job: &Job) -> bool {
        let until = job.model.and_then(|model| self.away.get(&(target, model)));
        until.is_some_and(|&until| job.arrived < until)
    }

    pub(super) fn is_away(&self, target: TargetId, model: Option<ModelId>, now: Time) -> bool {
        let until = model.and_then(|model| self.away.get(&(target, model)));
        until.is_some_and(|&until| now < until)
    }

    /// Whether lines may be of fewer targets than routes say.
    pub(super) fn has_models(&self) -> bool {
        !self.away.is_empty()
    }

    /// Jobs that have a place: those that back off come back.
    fn placed(&self) -> impl Iterator<Item = &Job> {
        let placed = |job: &&Job| matches!(job.state, State::Waiting | State::BackingOff(_));
        self.jobs.values().filter(placed)
    }

    pub(super) fn places(&self) -> usize {
        self.placed().count()
    }

    fn places_at(&self, provider: ProviderId) -> usize {
        let first = |job: &&Job| self.provider_of(job.route[job.at][0]) == provider;
        self.placed().filter(first).count()
    }

    pub(super) fn running_on(&self, target: TargetId) -> usize {
        self.calls
            .values()
            .filter(|call| call.target == target)
            .count()
    }

    pub(super) fn room(&self) -> usize {
        self.global().min(self.settings.workers)
    }

    /// The global limit, or what the load of the box leaves of it.
    pub(super) fn global(&self) -> usize {
        self.settings.global.min(self.throttle.most)
    }

    pub(super) fn has_stopped(&self, now: Time) -> bool {
        self.stop.is_some_and(|until| until <= now)
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values().filter(|job| job.state == State::Waiting)
    }

    pub(super) fn waiting_at(&self, provider: ProviderId) -> usize {
        self.waiting()
            .filter(|job| self.provider_of(job.route[job.at][0]) == provider)
            .count()
    }

    pub(super) fn running_at(&self, provider: ProviderId) -> usize {
        self.calls
            .values()
            .filter(|call| call.provider == provider)
            .count()
    }

    pub(super) fn running_of(&self, session: u64) -> usize {
        self.calls
            .values()
            .filter(|call| call.session == Some(session))
            .count()
    }

    pub(super) fn provider_of(&self, target: TargetId) -> ProviderId {
        self.settings.targets[target.index()]
    }
}

/// The name of an ending.
pub(super) fn name_of(ending: &Ending) -> &'static str {
    match ending {
        Ending::Finished(Outcome::Completed) => "completed",
        Ending::Finished(Outcome::Failed(_)) => "failed",
        Ending::QueueTimeout(_) => "queue timeout",
        Ending::Expired(_) => "expired",
        Ending::Cancelled(_) => "cancelled",
        Ending::Refused(refusal) => match refusal.reason {
            RefusalReason::QueueFull => "queue full",
            RefusalReason::SessionQueueFull => "session queue full",
            RefusalReason::QueueBytes => "queue bytes",
            RefusalReason::ProviderQueueFull => "provider queue full",
            RefusalReason::WaitTooLong { .. } => "wait too long",
            RefusalReason::Displaced => "displaced",
            RefusalReason::Stopping => "stopping",
            RefusalReason::WorkersLost { .. } => "workers lost",
            RefusalReason::BoxLoaded => "box loaded",
            RefusalReason::Shut(why) => match why {
                Shut::RateLimited => "shut: rate limited",
                Shut::PlanWindow => "shut: plan window",
                Shut::Failing => "shut: failing",
                Shut::Unreachable => "shut: unreachable",
                Shut::Credentials => "shut: credentials",
                Shut::Quota => "shut: quota",
                Shut::ModelUnavailable => "shut: model",
                Shut::Removed => "shut: removed",
            },
        },
    }
}

/// How many names [`name_of`] knows.
pub(super) const ENDINGS: usize = 21;
