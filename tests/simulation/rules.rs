//! The rules of admission once more, in the plainest words: what may start, and who may be refused. Plain scans: they
//! are to be right, not fast.

use std::collections::HashSet;

use pointsman::admission::{Cause, Ending, Outcome, ProviderId, RefusalReason, TargetId};
use pointsman::clock::Time;

use super::ledger::{Job, Ledger, State, Stimulus};

/// A call that fails, and its job with it.
pub(super) const FAILS: Outcome = Outcome::Failed(Cause::Request);
/// A call that fails in a way that lets the next stage try.
pub(super) const FALLS_BACK: Outcome = Outcome::Failed(Cause::Broken);

impl Ledger {
    /// Whether a refusal for this reason is true.
    pub(super) fn may_refuse(
        &self,
        job: &Job,
        reason: RefusalReason,
        stimulus: &Stimulus,
        now: Time,
    ) -> bool {
        let queue = &self.settings.queue;
        let stage = &job.route[job.at];
        let here = |other: &&Job| &other.route[other.at] == stage;
        let arrives =
            matches!(stimulus, Stimulus::Submit(arrival, _) if arrival.job == job.submission.job);
        let could_start = self.can_start(job, now) && !self.may_have_to_make_room(job, now);
        let stuck = arrives && job.state == State::Unheard && !could_start;
        match reason {
            RefusalReason::Stopping => {
                (arrives && self.stop.is_some())
                    || (job.state == State::Waiting && self.has_stopped(now))
            }
            RefusalReason::Displaced => {
                matches!(stimulus, Stimulus::Submit(..))
                    && job.state == State::Waiting
                    && job.attempt == 0
                    && (self.waiting().count() >= queue.capacity
                        || self.waiting_at(self.provider_of(stage[0])) >= queue.per_provider)
            }
            RefusalReason::QueueFull => stuck && self.waiting().count() >= queue.capacity,
            RefusalReason::SessionQueueFull => {
                let own = self.waiting().filter(here);
                stuck
                    && own
                        .filter(|other| other.submission.flow == job.submission.flow)
                        .count()
                        >= queue.per_session
            }
            RefusalReason::QueueBytes => {
                let bytes: usize = self.waiting().map(|job| job.submission.bytes).sum();
                stuck && bytes + job.submission.bytes > queue.max_bytes
            }
            RefusalReason::ProviderQueueFull => {
                let provider = self.provider_of(stage[0]);
                stuck && self.waiting_at(provider) >= queue.per_provider
            }
            // Nothing is learned here, so nobody is shut.
            RefusalReason::Shut(_) => false,
            RefusalReason::WaitTooLong { expected } => {
                let free = stage
                    .iter()
                    .any(|&target| self.has_slot(self.provider_of(target)));
                stuck && !free && self.waiting().any(|job| here(&job)) && now + expected > job.due()
            }
        }
    }

    pub(super) fn can_start(&self, job: &Job, now: Time) -> bool {
        let mut stage = job.route[job.at].iter();
        job.due() > now
            && self.session_allows(job)
            && stage.any(|&target| self.has_slot(self.provider_of(target)))
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

    pub(super) fn has_slot(&self, provider: ProviderId) -> bool {
        let is_idle = |other: &ProviderId| {
            self.settings.providers[other.0 as usize].reserves && self.running_at(*other) == 0
        };
        let others = (0..self.settings.providers.len() as u32).map(ProviderId);
        let kept = match is_idle(&provider) {
            true => 0,
            false => others.filter(is_idle).count().min(self.room() / 2),
        };
        self.running_at(provider) < self.settings.providers[provider.0 as usize].limit
            && self.calls.len() + kept < self.room()
    }

    pub(super) fn room(&self) -> usize {
        self.settings.global.min(self.settings.workers)
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
        Ending::Finished(Outcome::Failed(Cause::Broken)) => "fallback",
        Ending::Finished(Outcome::Failed(_)) => "failed",
        Ending::QueueTimeout => "queue timeout",
        Ending::Expired => "expired",
        Ending::Cancelled(_) => "cancelled",
        Ending::Refused(refusal) => match refusal.reason {
            RefusalReason::QueueFull => "queue full",
            RefusalReason::SessionQueueFull => "session queue full",
            RefusalReason::QueueBytes => "queue bytes",
            RefusalReason::ProviderQueueFull => "provider queue full",
            RefusalReason::WaitTooLong { .. } => "wait too long",
            RefusalReason::Displaced => "displaced",
            RefusalReason::Stopping => "stopping",
            RefusalReason::Shut(_) => "shut",
        },
    }
}

/// How many names [`name_of`] knows.
pub(super) const ENDINGS: usize = 13;
