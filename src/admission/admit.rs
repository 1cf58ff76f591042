//! Arrivals: at once, into line, or refused; and the counters of what waits.

use std::collections::BTreeSet;
use std::time::Duration;

use super::onward::in_vain;
use super::queue::{Candidate, Line};
use super::state::{Core, Job};
use super::{
    Action, CLASSES, ClassId, Ending, FlowId, JobId, ProviderId, Refusal, RefusalReason, SLICE,
    StageId, Step, Submission,
};
use crate::cancel::CancelReason;
use crate::clock::Time;
use crate::config::Priority;

impl Core {
    pub(super) fn submit(&mut self, submission: Submission, now: Time, actions: &mut Vec<Action>) {
        let id = submission.job;
        if self.stop.is_some() {
            let refused = self.refusal(RefusalReason::Stopping, now);
            return self.act(id, Step::End(refused), actions);
        }
        if submission.deadline <= now {
            return self.act(id, Step::End(Ending::Expired(None)), actions);
        }
        let lost = self.books.lost();
        if lost > self.settings.orphans.max_lost {
            let refused = self.refusal(RefusalReason::WorkersLost { lost }, now);
            return self.act(id, Step::End(refused), actions);
        }
        if self.throttle.refuses_low && submission.class == Priority::Low {
            let refused = self.refusal(RefusalReason::BoxLoaded, now);
            return self.act(id, Step::End(refused), actions);
        }
        let mut job = self.arrive(submission, now);
        match self.choose_stage(&job.route, 0, None, job.due(), now) {
            Ok((at, leg)) => {
                job.at = at;
                job.route[at].stage = self.narrow(leg, now);
            }
            Err(shut) => return self.act(id, Step::End(in_vain(shut, now)), actions),
        }
        // Nobody who waits could start (rule 3), so a job that could start takes no turn away from anyone.
        if let Some(target) = self.open_target(&job) {
            self.timers.insert((job.deadline, id));
            self.jobs.insert(id, job);
            return self.start_at_once(id, target, now, actions);
        }
        match self.reason_to_refuse(&job, now) {
            None => self.take_in(id, job, now, actions),
            Some(RefusalReason::QueueFull | RefusalReason::ProviderQueueFull)
                if self.make_room(&job, now, actions) =>
            {
                self.take_in(id, job, now, actions)
            }
            Some(reason) => {
                let refused = self.refusal(reason, now);
                self.act(id, Step::End(refused), actions);
            }
        }
    }

    /// A refusal with its advice.
    pub(super) fn refusal(&mut self, reason: RefusalReason, now: Time) -> Ending {
        Ending::Refused(Refusal {
            reason,
            retry_after: self.pacer.refuse(now),
            throttled: self
                .throttled()
                .filter(|_| reason != RefusalReason::Stopping),
        })
    }

    /// Puts a job that lives into the line of its stage.
    pub(super) fn enqueue(&mut self, id: JobId, now: Time, actions: &mut Vec<Action>) {
        let job = &self.jobs[&id];
        let (flow, class, stage, at) = (job.flow, job.class, job.stage(), job.at);
        let place = Candidate {
            class,
            flow,
            place: job.place,
            job: id,
        };
        let (bytes, arrived, session, due) = (job.bytes, job.arrived, job.session, job.due());
        let session_limit = job.session_limit;
        if self.waiting.jobs == 0 {
            // Nobody competed until now: what runs is charged up to the present first.
            self.bill_all(now);
        }
        let standing = self.standing(flow, session);
        let provider = self.first_provider(stage);
        let line = &mut self.lines[stage.index()];
        let before = line.waiting_of(class, flow);
        line.push(place, standing);
        let waiting = line.waiting();
        let lengths = &mut self.waiting.lengths[provider.index()][class];
        lengths.remove(&(before, stage, flow));
        lengths.insert((before + 1, stage, flow));
        self.waiting.ages[class].insert((arrived, id));
        self.onward.enter(stage, due, id);
        self.waiting.jobs += 1;
        self.waiting.bytes += bytes;
        self.waiting.by_provider[provider.index()] += 1;
        self.set_pressure();
        if session {
            self.limit_session(flow, session_limit);
            self.session_waits(flow, stage, class, now);
        }
        self.act(id, Step::Wait { stage: at, waiting }, actions);
    }

    /// Takes a job out of the line of its stage, to end.
    pub(super) fn leave_line(&mut self, id: JobId, now: Time) {
        let job = &self.jobs[&id];
        let (stage, class, flow, place) = (job.stage(), job.class, job.flow, job.place);
        let removed = self.lines[stage.index()].remove(class, flow, place);
        debug_assert!(removed, "a waiting job stands in its line");
        self.left_line(id, now);
    }

    /// Counts a job that has left the line of its stage, to end or to start.
    pub(super) fn left_line(&mut self, id: JobId, now: Time) {
        let job = &self.jobs[&id];
        let (stage, class, flow, session) = (job.stage(), job.class, job.flow, job.session);
        let (bytes, arrived) = (job.bytes, job.arrived);
        self.onward.leave(stage, job.due(), id);
        let provider = self.first_provider(stage);
        let after = self.lines[stage.index()].waiting_of(class, flow);
        let lengths = &mut self.waiting.lengths[provider.index()][class];
        lengths.remove(&(after + 1, stage, flow));
        if after > 0 {
            lengths.insert((after, stage, flow));
        }
        self.waiting.ages[class].remove(&(arrived, id));
        self.waiting.jobs -= 1;
        self.waiting.bytes -= bytes;
        self.waiting.by_provider[provider.index()] -= 1;
        self.set_pressure();
        if session && after == 0 {
            self.session_waits_no_more(flow, stage, class, now);
        }
    }

    fn arrive(&mut self, submission: Submission, now: Time) -> Job {
        Job {
            flow: submission.flow,
            session: submission.session,
            session_limit: submission.session_limit,
            class: submission.class.index(),
            route: submission.route,
            at: 0,
            repeats: 0,
            failed_once: false,
            back_at: None,
            place: self.take_place(),
            arrived: now,
            queue_until: now + self.settings.queue.timeout,
            deadline: submission.deadline,
            bytes: submission.bytes,
            reclaim: submission.reclaim,
            attempt: 0,
            permit: None,
        }
    }

    fn take_in(&mut self, id: JobId, job: Job, now: Time, actions: &mut Vec<Action>) {
        self.timers.insert((job.due(), id));
        self.jobs.insert(id, job);
        self.enqueue(id, now, actions);
    }

    /// The bound that an arrival would break, if any. Those about places come last: they can be mended by making room.
    fn reason_to_refuse(&self, job: &Job, now: Time) -> Option<RefusalReason> {
        let (queue, stage) = (&self.settings.queue, job.stage());
        let line = &self.lines[stage.index()];
        if line.waiting_of_flow(job.flow) >= queue.per_session {
            return Some(RefusalReason::SessionQueueFull);
        }
        // Those that back off come back: their places are not given away.
        let bytes = self.waiting.bytes + self.onward.backing_bytes();
        if bytes.saturating_add(job.bytes) > queue.max_bytes {
            return Some(RefusalReason::QueueBytes);
        }
        if let Some(expected) = self
            .expected_wait(job, now)
            .filter(|&wait| wait > job.due().since(now))
        {
            return Some(RefusalReason::WaitTooLong { expected });
        }
        if self.waiting.jobs + self.onward.backing() >= queue.capacity {
            return Some(RefusalReason::QueueFull);
        }
        self.has_its_share(self.first_provider(stage))
            .then_some(RefusalReason::ProviderQueueFull)
    }

    /// Whether the jobs that wait for a provider fill its share of the places.
    fn has_its_share(&self, provider: ProviderId) -> bool {
        let places = self.waiting.by_provider[provider.index()] + self.onward.backing_at(provider);
        places >= self.settings.queue.per_provider
    }

    /// How long an arrival would wait in line, judged from what calls took lately; `None` where too few ended lately, the
    /// line is empty or a slot is free (a rule that refuses whatever *might* be late locks shut after one slow hour).
    fn expected_wait(&self, job: &Job, now: Time) -> Option<Duration> {
        let stage = job.stage();
        let line = &self.lines[stage.index()];
        if line.waiting() == 0 || (self.has_room() && self.free_target(stage).is_some()) {
            return None;
        }
        let rounds = line.waiting_of(job.class, job.flow) + 1;
        let mut work = 0_u64;
        for class in 0..=job.class {
            let waiting = line.waiting_in(class);
            let ahead = if class == job.class {
                waiting.min(line.flows_in(class).max(1) * rounds)
            } else {
                waiting
            };
            if ahead > 0 {
                let slowest = self.slowest(line, class, now)?;
                work = work.saturating_add(slowest.saturating_mul(ahead as u64));
            }
        }
        Some(Duration::from_nanos(work / self.places(line) as u64))
    }

    /// What a call of this class takes on the slowest target of the line, in nanoseconds, if that is known of all.
    fn slowest(&self, line: &Line, class: ClassId, now: Time) -> Option<u64> {
        let estimates = line.targets.iter().map(|target| {
            let estimate = &self.estimates[target.index()];
            estimate.is_known(class, now).then(|| estimate.nanos(class))
        });
        estimates.collect::<Option<Vec<u64>>>()?.into_iter().max()
    }

    /// Calls that a line's targets take at once, at least one.
    pub(super) fn places(&self, line: &Line) -> usize {
        let providers: BTreeSet<ProviderId> = line
            .targets
            .iter()
            .map(|&target| self.provider_of(target))
            .collect();
        let places = providers.into_iter().map(|id| {
            let targets = line
                .targets
                .iter()
                .filter(|&&target| self.provider_of(target) == id);
            let learned = targets.map(|target| self.targets[target.index()].limit.places());
            self.limit_of(id).min(learned.sum())
        });
        let places: usize = places.sum();
        places.min(self.room()).max(1)
    }

    /// The newest job of the longest line in the lowest class gives way to an arrival of a session that has less than the
    /// average in line, and is not of a lower class. Where the arrival's provider has its share of the places, all of this
    /// is about the jobs that wait for that provider: another's would make room in vain.
    fn make_room(&mut self, arrival: &Job, now: Time, actions: &mut Vec<Action>) -> bool {
        let provider = self.first_provider(arrival.stage());
        let within = self.has_its_share(provider).then_some(provider);
        let Some((class, (longest, stage, flow))) = self.longest_line(arrival.class, within) else {
            return false;
        };
        let (jobs, flows) = self.competition(within);
        let own = self.lines[arrival.stage().index()].waiting_of(arrival.class, arrival.flow);
        // Among equals, taking from one to give to the other must leave them closer than they were.
        let pointless = class == arrival.class && longest <= own + 1;
        if own * flows >= jobs || pointless {
            return false;
        }
        // A job that came back has its place. Such jobs are old, so few stand at the end of the line.
        let newest = self.lines[stage.index()].newest(class, flow);
        let victim = newest.take(SLICE).find(|job| self.jobs[job].attempt == 0);
        let Some(victim) = victim else {
            return false;
        };
        let refused = self.refusal(RefusalReason::Displaced, now);
        self.end_early(victim, refused, CancelReason::Requested, now, actions);
        true
    }

    /// The longest line of the lowest class, of those for one provider or of all; none of a class above `least`.
    fn longest_line(
        &self,
        least: ClassId,
        within: Option<ProviderId>,
    ) -> Option<(ClassId, (usize, StageId, FlowId))> {
        (least..CLASSES).rev().find_map(|class| {
            let lines = self.waiting.lengths_of(within);
            let longest = lines.filter_map(|lengths| lengths[class].last()).max()?;
            Some((class, *longest))
        })
    }

    /// Waiting jobs, and in how many lines they stand: those for one provider, or all.
    fn competition(&self, within: Option<ProviderId>) -> (usize, usize) {
        let jobs = within.map_or(self.waiting.jobs, |provider| {
            self.waiting.by_provider[provider.index()]
        });
        let lines = self.waiting.lengths_of(within).flatten();
        (jobs, lines.map(BTreeSet::len).sum())
    }

    /// The provider whose share of the places a stage's jobs count against.
    pub(super) fn first_provider(&self, stage: StageId) -> ProviderId {
        self.provider_of(self.lines[stage.index()].targets[0])
    }

    pub(super) fn set_pressure(&mut self) {
        let (queue, waiting) = (&self.settings.queue, &mut self.waiting);
        waiting.pressure = match waiting.pressure {
            true => waiting.jobs > queue.pressure_off,
            false => waiting.jobs >= queue.pressure_on,
        };
    }
}
