//! Arrivals: at once, into line, or refused; and the counters of what waits.

use std::time::Duration;

use super::queue::Candidate;
use super::state::{Core, Job};
use super::{Action, Ending, JobId, ProviderId, Refusal, RefusalReason, Step, Submission};
use crate::clock::Time;

impl Core {
    pub(super) fn submit(&mut self, submission: Submission, now: Time, actions: &mut Vec<Action>) {
        let id = submission.job;
        if self.stop.is_some() {
            let refused = self.refusal(RefusalReason::Stopping, now);
            return self.act(id, Step::End(refused), actions);
        }
        if submission.deadline <= now {
            return self.act(id, Step::End(Ending::Expired), actions);
        }
        let job = self.arrive(submission, now);
        // Nobody who waits could start (rule 3), so a job that could start takes no turn away from anyone.
        if let Some(target) = self.open_target(&job) {
            self.timers.insert((job.deadline, id));
            self.jobs.insert(id, job);
            return self.start_at_once(id, target, now, actions);
        }
        match self.reason_to_refuse(&job, now) {
            None => self.take_in(id, job, now, actions),
            Some(RefusalReason::QueueFull) if self.make_room(&job, now, actions) => {
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
        })
    }

    /// Puts a job that lives into the line of its stage.
    pub(super) fn enqueue(&mut self, id: JobId, now: Time, actions: &mut Vec<Action>) {
        let job = &self.jobs[&id];
        let (flow, class, stage) = (job.flow, job.class, job.stage());
        let place = Candidate {
            class,
            flow,
            place: job.place,
            job: id,
        };
        let (bytes, arrived, session) = (job.bytes, job.arrived, job.session);
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
        self.waiting.lengths[class].remove(&(before, stage, flow));
        self.waiting.lengths[class].insert((before + 1, stage, flow));
        self.waiting.ages[class].insert((arrived, id));
        self.waiting.jobs += 1;
        self.waiting.bytes += bytes;
        self.waiting.by_provider[provider.index()] += 1;
        self.set_pressure();
        if session {
            self.session_waits(flow, stage, class, now);
        }
        self.act(id, Step::Wait { waiting }, actions);
    }

    /// Takes a job out of the line of its stage, to end.
    pub(super) fn leave_line(&mut self, id: JobId) {
        let job = &self.jobs[&id];
        let (stage, class, flow, place) = (job.stage(), job.class, job.flow, job.place);
        let removed = self.lines[stage.index()].remove(class, flow, place);
        debug_assert!(removed, "a waiting job stands in its line");
        self.left_line(id);
    }

    /// Counts a job that has left the line of its stage, to end or to start.
    pub(super) fn left_line(&mut self, id: JobId) {
        let job = &self.jobs[&id];
        let (stage, class, flow, session) = (job.stage(), job.class, job.flow, job.session);
        let (bytes, arrived) = (job.bytes, job.arrived);
        let provider = self.first_provider(stage);
        let after = self.lines[stage.index()].waiting_of(class, flow);
        self.waiting.lengths[class].remove(&(after + 1, stage, flow));
        if after > 0 {
            self.waiting.lengths[class].insert((after, stage, flow));
        }
        self.waiting.ages[class].remove(&(arrived, id));
        self.waiting.jobs -= 1;
        self.waiting.bytes -= bytes;
        self.waiting.by_provider[provider.index()] -= 1;
        self.set_pressure();
        if session && after == 0 {
            self.session_waits_no_more(flow, stage, class);
        }
    }

    fn arrive(&mut self, submission: Submission, now: Time) -> Job {
        Job {
            flow: submission.flow,
            session: submission.session,
            class: submission.class.index(),
            route: submission.route,
            at: 0,
            place: self.take_place(),
            arrived: now,
            queue_until: now + self.settings.queue.timeout,
            deadline: submission.deadline,
            bytes: submission.bytes,
            attempt: 0,
            permit: None,
        }
    }

    fn take_in(&mut self, id: JobId, job: Job, now: Time, actions: &mut Vec<Action>) {
        self.timers.insert((job.due(), id));
        self.jobs.insert(id, job);
        self.enqueue(id, now, actions);
    }

    /// The bound that an arrival would break, if any. `QueueFull` comes last: it alone can be mended by making room.
    fn reason_to_refuse(&self, job: &Job, now: Time) -> Option<RefusalReason> {
        let (queue, stage) = (&self.settings.queue, job.stage());
        let line = &self.lines[stage.index()];
        if line.waiting_of(job.class, job.flow) >= queue.per_session {
            return Some(RefusalReason::SessionQueueFull);
        }
        if self.waiting.bytes.saturating_add(job.bytes) > queue.max_bytes {
            return Some(RefusalReason::QueueBytes);
        }
        if self.waiting.by_provider[self.first_provider(stage).index()] >= queue.per_provider {
            return Some(RefusalReason::ProviderQueueFull);
        }
        if let Some(expected) = self
            .expected_wait(job, now)
            .filter(|&wait| wait > job.due().since(now))
        {
            return Some(RefusalReason::WaitTooLong { expected });
        }
        (self.waiting.jobs >= queue.capacity).then_some(RefusalReason::QueueFull)
    }

    /// How long an arrival would wait in line, judged from what calls took lately; `None` where too few ended lately, or
    /// the line is empty (a rule that refuses whatever *might* be late locks shut after one slow hour).
    fn expected_wait(&self, job: &Job, now: Time) -> Option<Duration> {
        let line = &self.lines[job.stage().index()];
        if line.waiting() == 0
            || !line
                .targets
                .iter()
                .all(|target| self.estimates[target.index()].is_known(now))
        {
            return None;
        }
        let more_urgent: usize = (0..job.class).map(|class| line.waiting_in(class)).sum();
        let rounds = line.waiting_of(job.class, job.flow) + 1;
        let in_class = (line.flows_in(job.class).max(1) * rounds).min(line.waiting_in(job.class));
        let ahead = u64::try_from(more_urgent + in_class).unwrap_or(u64::MAX);
        let places: usize = line
            .targets
            .iter()
            .map(|&target| self.limit_of(self.provider_of(target)))
            .sum();
        let slowest = line
            .targets
            .iter()
            .map(|target| self.estimates[target.index()].nanos(job.class))
            .max()?;
        let places = u64::try_from(places.min(self.settings.global))
            .unwrap_or(u64::MAX)
            .max(1);
        Some(Duration::from_nanos(slowest.saturating_mul(ahead) / places))
    }

    /// The newest job of the longest line in the lowest class gives way to an arrival of a session that has less than the
    /// average in line, and is not of a lower class.
    fn make_room(&mut self, arrival: &Job, now: Time, actions: &mut Vec<Action>) -> bool {
        let lengths = &self.waiting.lengths;
        let Some(class) = (arrival.class..lengths.len())
            .rev()
            .find(|&class| !lengths[class].is_empty())
        else {
            return false;
        };
        let flows: usize = lengths.iter().map(std::collections::BTreeSet::len).sum();
        let own = self.lines[arrival.stage().index()].waiting_of(arrival.class, arrival.flow);
        let Some(&(longest, stage, flow)) = lengths[class].last() else {
            return false;
        };
        if own * flows >= self.waiting.jobs || longest <= own + 1 {
            return false;
        }
        let Some(victim) = self.lines[stage.index()].newest(class, flow) else {
            return false;
        };
        if self.jobs[&victim].attempt > 0 {
            return false;
        }
        let refused = self.refusal(RefusalReason::Displaced, now);
        self.end_early(
            victim,
            refused,
            crate::cancel::CancelReason::Requested,
            actions,
        );
        true
    }

    /// The provider whose share of the places a stage's jobs count against.
    fn first_provider(&self, stage: super::StageId) -> ProviderId {
        self.provider_of(self.lines[stage.index()].targets[0])
    }

    fn set_pressure(&mut self) {
        let (queue, waiting) = (&self.settings.queue, &mut self.waiting);
        waiting.pressure = match waiting.pressure {
            true => waiting.jobs > queue.pressure_off,
            false => waiting.jobs >= queue.pressure_on,
        };
    }
}
