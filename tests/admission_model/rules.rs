//! The rules of admission in the plainest words: who may start, who is refused, who gives way, whose turn it is.

use std::collections::BTreeMap;

use pointsman::admission::{Cause, Ending, Outcome, ProviderId, RefusalReason, StageId, TargetId};
use pointsman::clock::Time;

use super::model::{Job, Model};

impl Model {
    /// Of the first of each flow in each line, those with a slot. If no line leaves a choice between flows or classes,
    /// only the oldest; of those that need a place only the one whose session has waited longest for it.
    pub(super) fn who_may_start(&self) -> Vec<u64> {
        if self.has_stopped() {
            return Vec::new();
        }
        let key = |job: &Job| (self.stage(job).clone(), job.class, job.flow);
        let waiting: Vec<&Job> = self.jobs.iter().filter(|job| job.waits()).collect();
        let first = |job: &&&Job| {
            !waiting
                .iter()
                .any(|other| other.id < job.id && key(other) == key(job))
        };
        let heads = waiting.iter().filter(first);
        let able: Vec<&Job> = heads
            .copied()
            .filter(|job| self.slot(job).is_some() && self.session_allows(job.flow))
            .collect();
        let choice = |job: &&Job| {
            able.iter()
                .any(|other| other.id != job.id && self.stage(other) == self.stage(job))
        };
        if able.iter().any(choice) {
            return able.iter().map(|job| job.id).collect();
        }
        let ticket = |job: &Job| self.newcomers.iter().position(|&flow| flow == job.flow);
        let rooted = able.iter().filter(|job| ticket(job).is_none());
        let first_in = able
            .iter()
            .filter(|job| ticket(job).is_some())
            .min_by_key(|job| ticket(job));
        let oldest = rooted.chain(first_in).map(|job| job.id).min();
        oldest.into_iter().collect()
    }

    /// The bound that would refuse a job, in the order in which they are asked.
    pub(super) fn bound(&self, job: &Job) -> Option<&'static str> {
        let queue = &self.settings.queue;
        // Who backs off keeps its place.
        let waiting = || self.jobs.iter().filter(|job| job.permit.is_none());
        let own = waiting().filter(|other| {
            other.waits() && other.flow == job.flow && self.stage(other) == self.stage(job)
        });
        if own.count() >= queue.per_session {
            Some("session queue full")
        } else if waiting().map(|job| job.bytes).sum::<usize>() + job.bytes > queue.max_bytes {
            Some("queue bytes")
        } else if waiting().count() >= queue.capacity {
            Some("queue full")
        } else if self.share_is_full(job) {
            Some("provider queue full")
        } else {
            None
        }
    }

    /// Whether the jobs that wait for the provider of `job` fill its share of the places.
    fn share_is_full(&self, job: &Job) -> bool {
        let waiting = self.jobs.iter().filter(|job| job.permit.is_none());
        let there = waiting.filter(|other| self.home(other) == self.home(job));
        there.count() >= self.settings.queue.per_provider
    }

    /// The provider whose share of the places a job counts against.
    fn home(&self, job: &Job) -> ProviderId {
        self.provider_of(self.stage(job)[0])
    }

    /// Who may have to give way: the newest of the longest lines of the lowest class; of the same provider, where it is
    /// the provider's share that is full.
    pub(super) fn victims(&self, arrival: &Job) -> Vec<u64> {
        let mut lines: BTreeMap<(usize, Vec<TargetId>, u64), Vec<&Job>> = BTreeMap::new();
        let within = self.share_is_full(arrival);
        let competes =
            |job: &&Job| job.waits() && (!within || self.home(job) == self.home(arrival));
        for job in self.jobs.iter().filter(competes) {
            let line = (job.class, self.stage(job).clone(), job.flow);
            lines.entry(line).or_default().push(job);
        }
        let waiting: usize = lines.values().map(Vec::len).sum();
        let lowest = lines.keys().map(|line| line.0).max();
        let Some(class) = lowest.filter(|&class| class >= arrival.class) else {
            return Vec::new();
        };
        let own = lines.get(&(arrival.class, self.stage(arrival).clone(), arrival.flow));
        let own = own.map_or(0, Vec::len);
        let longest = lines
            .iter()
            .filter(|(line, _)| line.0 == class)
            .map(|(_, jobs)| jobs.len())
            .max();
        let longest = longest.unwrap_or(0);
        if own * lines.len() >= waiting || (class == arrival.class && longest <= own + 1) {
            return Vec::new();
        }
        // Of two lines of equal length either will do, but the one that is taken decides whether anybody gives way.
        let last = |jobs: &Vec<&Job>| jobs.iter().rfind(|job| job.attempt == 0).map(|job| job.id);
        let (_, jobs) = lines
            .iter()
            .filter(|(line, jobs)| line.0 == class && jobs.len() == longest)
            .max_by_key(|(line, _)| (self.stage_id(&line.1), line.2))
            .expect("one is longest");
        last(jobs).into_iter().collect()
    }

    /// The target that the job would start on now.
    pub(super) fn slot(&self, job: &Job) -> Option<TargetId> {
        let mut stage = self.stage(job).iter().copied();
        stage.find(|&target| self.has_slot(self.provider_of(target)))
    }

    pub(super) fn has_slot(&self, provider: ProviderId) -> bool {
        // 0 counts as 1.
        let global = self.settings.global.min(self.throttle.most.max(1));
        let room = global.min(self.settings.workers);
        let other = ProviderId(1 - provider.0);
        let kept =
            self.settings.providers[other.0 as usize].reserves && self.running_at(other) == 0;
        let own =
            self.settings.providers[provider.0 as usize].reserves && self.running_at(provider) == 0;
        let kept = usize::from(kept && !own).min(room / 2);
        self.running_at(provider) < self.settings.providers[provider.0 as usize].limit
            && self.calls.len() + kept < room
    }

    pub(super) fn session_allows(&self, flow: u64) -> bool {
        let running = self.calls.iter().filter(|call| call.flow == flow).count();
        match (is_session(flow), running) {
            (false, _) => true,
            (true, 0) => self.since.len() < self.settings.sessions,
            (true, _) => {
                let own = session_limit(flow).unwrap_or(usize::MAX);
                running < own.min(self.settings.session) && !self.told.contains(&flow)
            }
        }
    }

    /// Sessions that run something and were not told to make room.
    pub(super) fn keeping(&self) -> impl Iterator<Item = (Time, u64)> {
        let keeping = self
            .since
            .iter()
            .filter(|(flow, _)| !self.told.contains(flow));
        keeping.map(|(&flow, &since)| (since, flow))
    }

    pub(super) fn next_turn(&self) -> Time {
        let crowded = !self.newcomers.is_empty() && self.since.len() >= self.settings.sessions;
        match self.keeping().min().filter(|_| crowded) {
            Some((since, _)) => since.max(self.last_turn) + self.settings.session_turn,
            None => Time::NEVER,
        }
    }

    /// Nobody has to make room where all have a place.
    pub(super) fn relax(&mut self) {
        if self.since.len() + self.newcomers.len() <= self.settings.sessions {
            self.told.clear();
        }
    }

    /// A call of this flow started or came back.
    pub(super) fn note_running(&mut self, flow: u64) {
        if !is_session(flow) {
            return;
        }
        if self.calls.iter().any(|call| call.flow == flow) {
            self.since.entry(flow).or_insert(self.now);
        } else {
            self.since.remove(&flow);
            self.told.retain(|&told| told != flow);
        }
    }

    /// How many wait in the line that this job stands in.
    pub(super) fn line_of(&self, id: u64) -> usize {
        let job = self.jobs.iter().find(|job| job.id == id).expect("it lives");
        let in_line = |other: &&Job| other.waits() && self.stage(other) == self.stage(job);
        self.jobs.iter().filter(in_line).count()
    }

    /// Whether the drain is over.
    pub(super) fn has_stopped(&self) -> bool {
        self.stop.is_some_and(|until| until <= self.now)
    }

    /// Whether a call that came back so may be repeated where it was, time aside.
    pub(super) fn may_repeat(&self, job: &Job, target: TargetId, outcome: Outcome) -> bool {
        let retry = self.settings.providers[self.provider_of(target).0 as usize].retry;
        let by_cause = match outcome {
            Outcome::Failed(Cause::Unreachable) => true,
            Outcome::Failed(Cause::Failing { again }) => again && !job.failed_once,
            _ => false,
        };
        by_cause && job.repeats + 1 < retry.attempts && self.tokens[target.index()] > retry.floor
    }

    /// Until when a job may back off: before its share of the time is over, and no later than the longest wait.
    pub(super) fn backs_off_until(&self, job: &Job, target: TargetId) -> (Time, Time) {
        let retry = self.settings.providers[self.provider_of(target).0 as usize].retry;
        let stages = (self.routes[job.route].len() - job.at) as u32;
        let share = self.now + job.deadline.since(self.now) / stages;
        let longest = (retry.base * 2_u32.pow(job.repeats)).min(retry.max);
        (share, self.now + longest)
    }

    /// A call came to its proper end.
    pub(super) fn refill(&mut self, target: TargetId) {
        let retry = self.settings.providers[self.provider_of(target).0 as usize].retry;
        let tokens = &mut self.tokens[target.index()];
        *tokens = (*tokens + retry.refill).min(retry.budget);
    }

    pub(super) fn stage(&self, job: &Job) -> &Vec<TargetId> {
        &self.routes[job.route][job.at]
    }

    pub(super) fn stage_id(&self, targets: &Vec<TargetId>) -> Option<StageId> {
        let all = self
            .routes
            .iter()
            .flatten()
            .zip(self.stages.iter().flatten());
        all.into_iter()
            .find(|(stage, _)| *stage == targets)
            .map(|(_, &id)| id)
    }

    pub(super) fn running_at(&self, provider: ProviderId) -> usize {
        self.calls
            .iter()
            .filter(|call| self.provider_of(call.target) == provider)
            .count()
    }

    pub(super) fn provider_of(&self, target: TargetId) -> ProviderId {
        self.settings.targets[target.index()]
    }
}

/// Flow 0 is that of all who have no session.
pub(super) fn is_session(flow: u64) -> bool {
    flow > 0
}

/// Two sessions have limits of their own, one of them above that of all.
pub(super) fn session_limit(flow: u64) -> Option<usize> {
    match flow {
        4 => Some(1),
        5 => Some(9),
        _ => None,
    }
}

/// The name of an ending.
pub(super) fn name(ending: &Ending) -> &'static str {
    match ending {
        Ending::Finished(Outcome::Completed) => "completed",
        Ending::Finished(Outcome::Failed(Cause::Broken)) => "fallback",
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
            RefusalReason::Shut(_) => "shut",
        },
    }
}
