//! Starts: which job goes next, and the slots that it takes with it.

use std::time::Duration;

use super::planted::Fault;
use super::queue::Candidate;
use super::slots::Holding;
use super::state::{Core, Job};
use super::{Action, JobId, ProviderId, SLICE, StageId, Step, TargetId};
use crate::clock::Time;

/// Running jobs are charged this often while somebody waits.
const BILLING: Duration = Duration::from_secs(1);

/// A job that can start.
#[derive(Debug, Clone, Copy)]
struct Start {
    /// From which line.
    stage: StageId,
    next: Candidate,
    /// Where.
    target: TargetId,
}

/// Keeps the one with the lower number; of equals the older.
fn keep_least(best: &mut Option<(u64, Start)>, other: (u64, Start)) {
    let key = |(number, start): (u64, Start)| (number, start.next.place);
    if best.is_none_or(|best| key(other) < key(best)) {
        *best = Some(other);
    }
}

impl Core {
    /// Starts whatever can start: afterwards no eligible job meets a free slot (rule 3). Expired jobs that a late tick has
    /// left in line are ended, and those whose target has not their model are led on, a slice of them; if there are more,
    /// the core wants its tick at once.
    pub(super) fn settle(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.relax();
        self.onward.is_behind = false;
        if self.has_stopped(now) {
            return;
        }
        let mut late = 0;
        while self.waiting.jobs > 0 && self.has_room() {
            let Some(Start {
                stage,
                next,
                target,
            }) = self.next_start()
            else {
                return;
            };
            if self.jobs[&next.job].due() <= now && !self.planted.is(Fault::ExpiredStarts) {
                if late == SLICE {
                    return;
                }
                self.end_late(next.job, now, actions);
                late += 1;
            } else if self.onward.has_marks() && self.lacks(target, &self.jobs[&next.job], now) {
                if late == SLICE {
                    self.onward.is_behind = true;
                    return;
                }
                self.lead_on(next.job, now, actions);
                late += 1;
            } else {
                self.lines[stage.index()].start(next.class, next.flow, next.place);
                self.left_line(next.job, now);
                self.run(next.job, target, now, actions);
            }
            self.relax();
        }
    }

    /// Starts a job that stands in no line.
    pub(super) fn start_at_once(
        &mut self,
        id: JobId,
        target: TargetId,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let job = &self.jobs[&id];
        let (stage, class, flow) = (job.stage(), job.class, job.flow);
        let standing = self.standing(flow, job.session);
        self.lines[stage.index()].start_at_once(class, flow, standing);
        // No timer of the waiting kind was set: `run` replaces what is there.
        self.run(id, target, now, actions);
    }

    /// A target on which the job could start now, all limits considered.
    pub(super) fn open_target(&self, job: &Job) -> Option<TargetId> {
        if !self.has_room() || !self.may_start(job.flow, job.session) {
            return None;
        }
        self.free_target(job.stage())
    }

    /// Charges every running job up to the present.
    pub(super) fn bill_all(&mut self, now: Time) {
        for held in self.books.held() {
            let service = u64::try_from(now.since(held.since).as_nanos()).unwrap_or(u64::MAX);
            // The estimate was charged at the start: only what runs over it comes on top.
            let line = &mut self.lines[held.stage.index()];
            let late = self.planted.is(Fault::BilledAtEnd);
            if !late && service > self.estimates[held.target.index()].nanos(held.class) {
                line.bill(held.class, held.flow, &mut held.billed, service);
            }
        }
        self.next_bill = now + BILLING;
    }

    /// The limit of one provider.
    pub(super) fn limit_of(&self, provider: ProviderId) -> usize {
        self.settings.providers[provider.index()].limit
    }

    /// Takes all slots together and hands the job over.
    fn run(&mut self, id: JobId, target: TargetId, now: Time, actions: &mut Vec<Action>) {
        let provider = self.provider_of(target);
        let job = self.jobs.get_mut(&id).expect("a job that starts lives");
        self.timers.remove(&(job.due(), id));
        let (stage, class, flow, session) = (job.stage(), job.class, job.flow, job.session);
        let session_limit = job.session_limit;
        let mut holding = Holding {
            job: id,
            target,
            provider,
            flow,
            session,
            stage,
            class,
            since: now,
            deadline: job.deadline,
            reclaim: job.reclaim,
            worker: None,
            billed: Default::default(),
            badge: Default::default(),
        };
        let estimate = match self.planted.is(Fault::BilledAtEnd) {
            true => 0,
            false => self.estimates[target.index()].nanos(class),
        };
        self.lines[stage.index()].bill(class, flow, &mut holding.billed, estimate);
        let in_use = self.books.in_use_of_target(target) + 1;
        holding.badge = self.targets[target.index()].start(in_use, now);
        let probe = holding.badge.pass.probe;
        let permit = self.books.take(holding);
        job.permit = Some(permit);
        job.attempt += 1;
        let (attempt, at, first_byte_by) = (job.attempt, job.at, job.share(now));
        self.timers.insert((job.deadline, id));
        self.peak = self.peak.max(self.books.in_use());
        if session {
            self.limit_session(flow, session_limit);
            self.session_changed(flow, now);
        }
        self.act(
            id,
            Step::Start {
                permit,
                target,
                attempt,
                stage: at,
                first_byte_by,
                probe,
            },
            actions,
        );
    }

    /// The oldest of the jobs that the lines would start next. Of those that need a place for their session only the one
    /// whose session has waited longest for it stands for election.
    fn next_start(&self) -> Option<Start> {
        let (mut rooted, mut first_in) = (None, None);
        for start in self.starts() {
            match self.sessions.ticket(start.next.flow) {
                Some(ticket) => keep_least(&mut first_in, (ticket, start)),
                None => keep_least(&mut rooted, (0, start)),
            }
        }
        let both = rooted.into_iter().chain(first_in);
        both.map(|(_, start)| start)
            .min_by_key(|start| start.next.place)
    }

    /// The job that each line would start next, with a target that is free.
    fn starts(&self) -> impl Iterator<Item = Start> {
        let open = self.has_session_place();
        let lines = self.lines.iter().enumerate();
        lines.filter_map(move |(index, line)| {
            if line.waiting() == 0 {
                return None;
            }
            let stage = StageId(index as u32);
            let target = self.free_target(stage)?;
            let next = line.candidate(open)?;
            Some(Start {
                stage,
                next,
                target,
            })
        })
    }

    /// Whether a worker and a global slot are free.
    pub(super) fn has_room(&self) -> bool {
        self.vacant() > self.kept_in_vain()
    }

    /// Calls that may be in flight in all.
    pub(super) fn room(&self) -> usize {
        self.global().min(self.settings.workers)
    }

    /// Calls that may start beside those that are in flight. A worker that is lost is replaced, unless too many are.
    fn vacant(&self) -> usize {
        let missing = self
            .books
            .lost()
            .saturating_sub(self.settings.orphans.max_lost);
        let workers = self.settings.workers.saturating_sub(missing);
        let at_work = self.books.in_use() - self.books.quarantined();
        let slots = self.global().saturating_sub(self.books.in_use());
        slots.min(workers.saturating_sub(at_work))
    }

    /// The first target of a stage whose provider may start another call.
    pub(super) fn free_target(&self, stage: StageId) -> Option<TargetId> {
        let targets = &self.lines[stage.index()].targets;
        targets
            .iter()
            .copied()
            .find(|&target| self.has_slot(target))
    }

    /// Whether the target takes another call, its provider has a slot, and the slots kept for others are not touched.
    fn has_slot(&self, target: TargetId) -> bool {
        let provider = self.provider_of(target);
        let in_use = self.books.in_use_of_target(target);
        self.targets[target.index()].admits(in_use)
            && self.books.in_use_at(provider) < self.limit_of(provider)
            && self.reserve(provider) < self.vacant()
    }

    /// Slots that `provider` may not take: one for each provider that reserves and has nothing in flight, at most half of
    /// all; none where it is such a provider itself. (Where more are idle than slots are kept, each would otherwise be
    /// shut out by what is kept for the others, and slots would stand empty for as long as the busy one is silent.)
    pub(super) fn reserve(&self, provider: ProviderId) -> usize {
        if self.is_kept_for(provider) {
            return 0;
        }
        let providers = (0..self.settings.providers.len() as u32).map(ProviderId);
        let idle = providers.filter(|&other| self.is_kept_for(other));
        idle.count().min(self.room() / 2)
    }

    /// Whether a slot is kept for the provider: it reserves, has nothing in flight, and takes calls.
    fn is_kept_for(&self, provider: ProviderId) -> bool {
        self.settings.providers[provider.index()].reserves
            && self.books.in_use_at(provider) == 0
            && self.targets_of[provider.index()]
                .iter()
                .any(|target| self.targets[target.index()].is_open())
    }
}
