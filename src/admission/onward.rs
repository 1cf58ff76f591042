//! What becomes of a job after its call, or when those whom it waits for are shut: done, once more, on to the next
//! stage, or given up.
//!
//! ```text
//!   in line --start--> running --given back--> done
//!     ^  ^                |
//!     |  |                +-- failed, may be repeated -----> backing off --its time comes--+
//!     |  |                +-- failed, a further stage -+                                   |
//!     |  +------------------------------------------- +  <---------------------------------+
//!     +-- its stage was shut, a further one is not          (or refused, where all are shut for too long)
//! ```
//!
//! A job that backs off is in no line and holds no slot; it is in `backing`, by when its time comes, and in the timers, by
//! its deadline. Its place in line is its own: nobody is refused or displaced for it, and it is refused for no bound.
//!
//! Jobs whose stage shuts while they are in line are looked at in slices ([`SLICE`]), by when their time in line is over.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use super::outcome::{Cause, Outcome, Report};
use super::planted::Fault;
use super::shut::{Opening, Shut};
use super::state::{Core, Job};
use super::{
    Action, Ending, JobId, Leg, ModelId, ProviderId, Refusal, RefusalReason, SLICE, StageId, Step,
    TargetId,
};
use crate::clock::Time;

/// Models that targets were found not to have; the one that is forgotten soonest makes room for a new one.
const MARKS: usize = 64;
/// When to come again after one's provider was taken out.
const ONCE_MORE: Duration = Duration::from_secs(1);

/// Jobs that back off, lines that have to be looked through, and what else leads jobs on.
#[derive(Debug, Default)]
pub(super) struct Onward {
    /// By when their time comes.
    backing: BTreeSet<(Time, JobId)>,
    /// Bytes that they hold.
    backing_bytes: usize,
    /// By provider, as [`super::state::Waiting::by_provider`] has it.
    backing_at: Vec<usize>,
    /// Jobs in line, by stage and by when their time there is over.
    dues: Vec<BTreeSet<(Time, JobId)>>,
    /// Stages that were shut while jobs waited, with the last job that was looked at.
    sweeps: BTreeMap<StageId, (Time, JobId)>,
    /// Whether the last step left jobs in line whose target has not their model.
    pub(super) is_behind: bool,
    /// Models that targets don't have, until when.
    marks: Vec<(TargetId, ModelId, Time)>,
}

impl Onward {
    pub(super) fn new(providers: usize) -> Self {
        Onward {
            backing_at: vec![0; providers],
            ..Onward::default()
        }
    }

    /// There are so many providers from now on; never fewer than before.
    pub(super) fn grow(&mut self, providers: usize) {
        self.backing_at.resize(providers, 0);
    }

    /// Which models the target has is not known any more.
    pub(super) fn forget_marks(&mut self, target: TargetId) {
        self.marks.retain(|&(at, ..)| at != target);
    }

    /// There is one more stage.
    pub(super) fn add_stage(&mut self) {
        self.dues.push(BTreeSet::new());
    }

    /// A job stands in the line of `stage` until `due`.
    pub(super) fn enter(&mut self, stage: StageId, due: Time, job: JobId) {
        self.dues[stage.index()].insert((due, job));
    }

    pub(super) fn leave(&mut self, stage: StageId, due: Time, job: JobId) {
        self.dues[stage.index()].remove(&(due, job));
    }

    /// Jobs that back off.
    pub(super) fn backing(&self) -> usize {
        self.backing.len()
    }

    pub(super) fn backing_bytes(&self) -> usize {
        self.backing_bytes
    }

    pub(super) fn backing_at(&self, provider: ProviderId) -> usize {
        self.backing_at[provider.index()]
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Time {
        if self.is_behind || !self.sweeps.is_empty() {
            return Time::ZERO;
        }
        self.backing.first().map_or(Time::NEVER, |&(at, _)| at)
    }

    /// Whether any target was found not to have a model.
    pub(super) fn has_marks(&self) -> bool {
        !self.marks.is_empty()
    }

    fn mark(&mut self, target: TargetId, model: ModelId, until: Time, now: Time) {
        let other =
            |&(at, of, end): &(TargetId, ModelId, Time)| end > now && (at, of) != (target, model);
        self.marks.retain(other);
        if self.marks.len() == MARKS
            && let Some(first) = (0..MARKS).min_by_key(|&index| self.marks[index].2)
        {
            self.marks.swap_remove(first);
        }
        self.marks.push((target, model, until));
    }

    /// Until when the target is passed over for this model.
    fn marked(&self, target: TargetId, model: Option<ModelId>, now: Time) -> Option<Time> {
        let model = model.filter(|_| self.has_marks())?;
        let mut found = self.marks.iter();
        let mark = found.find(|&&(at, of, until)| (at, of) == (target, model) && until > now);
        mark.map(|&(_, _, until)| until)
    }
}

/// What becomes of a job whose call failed.
enum Next {
    End,
    Again(Time),
    Stage { at: usize, leg: Leg },
}

impl Core {
    /// Time has passed: targets open, jobs come back, lines are looked through. Says whether any of it happened.
    pub(super) fn advance(&mut self, now: Time, actions: &mut Vec<Action>) -> bool {
        if self.advances_at() > now {
            return false;
        }
        let waited_for = self.waiting.jobs > 0;
        for target in &mut self.targets {
            if target.wakes(waited_for) <= now {
                target.advance(&mut self.rng, now);
            }
        }
        self.bring_back(now, actions);
        self.sweep(now, actions);
        true
    }

    /// When [`Core::advance`] has something to do.
    pub(super) fn advances_at(&self) -> Time {
        let waited_for = self.waiting.jobs > 0;
        let wakes = self.targets.iter().map(|target| target.wakes(waited_for));
        let wakes = wakes.min().unwrap_or(Time::NEVER);
        wakes.min(self.onward.due())
    }

    /// Jobs whose time to come back is there go into line.
    fn bring_back(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.has_stopped(now) {
            return;
        }
        for _ in 0..SLICE {
            match self.onward.backing.first() {
                Some(&(at, id)) if at <= now => {
                    self.leave_backing(id);
                    self.enter(id, None, now, actions);
                }
                _ => return,
            }
        }
    }

    /// The job's call is back, and nobody had ended the job before.
    pub(super) fn go_on(
        &mut self,
        id: JobId,
        report: &Report,
        target: TargetId,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        match self.next(id, report, target, now) {
            Next::End => {
                self.forget(id);
                self.act(id, Step::End(Ending::Finished(report.outcome)), actions);
            }
            Next::Again(at) => {
                let cause = report.outcome.cause();
                self.change(id, |job| {
                    job.permit = None;
                    job.repeats += 1;
                    job.failed_once |= matches!(cause, Some(Cause::Failing { .. }));
                    job.back_at = Some(at);
                });
                let job = &self.jobs[&id];
                let (bytes, provider) = (job.bytes, self.first_provider(job.stage()));
                self.onward.backing.insert((at, id));
                self.onward.backing_bytes += bytes;
                self.onward.backing_at[provider.index()] += 1;
                self.act(id, Step::BackOff { until: at }, actions);
            }
            Next::Stage { at, leg } => {
                self.change(id, |job| job.permit = None);
                self.enter(id, Some((at, leg)), now, actions);
            }
        }
    }

    /// The target does not have the job's model.
    pub(super) fn note_missing(&mut self, id: JobId, target: TargetId, now: Time) {
        let job = &self.jobs[&id];
        if let Some(model) = job.route[job.at].model {
            let until = now + self.settings.learning.model_away;
            self.onward.mark(target, model, until, now);
        }
    }

    fn next(&mut self, id: JobId, report: &Report, target: TargetId, now: Time) -> Next {
        let Outcome::Failed(cause) = report.outcome else {
            return Next::End;
        };
        let job = &self.jobs[&id];
        let content = report.content && !self.planted.is(Fault::RetryAfterContent);
        if content || job.deadline <= now || self.has_stopped(now) {
            return Next::End;
        }
        if let Some(at) = self.next_try(id, cause, target, now) {
            if !self.planted.is(Fault::BudgetNotSpent) {
                self.targets[target.index()].budget.spend();
            }
            return Next::Again(at);
        }
        let job = &self.jobs[&id];
        if !cause.allows_fallback() || job.at + 1 == job.route.len() {
            return Next::End;
        }
        let due = job.deadline.min(now + self.settings.queue.timeout);
        // A request that was sent in full may still be under way there.
        let except = (cause == Cause::Unanswered).then(|| self.provider_of(target));
        match self.choose_stage(&job.route, job.at + 1, except, due, now) {
            Ok((at, leg)) => Next::Stage { at, leg },
            Err(_) => Next::End,
        }
    }

    /// When the same stage is tried again, if it may be.
    fn next_try(&mut self, id: JobId, cause: Cause, target: TargetId, now: Time) -> Option<Time> {
        let job = &self.jobs[&id];
        let asked = &self.targets[target.index()];
        if !cause.allows_repeat(job.failed_once) || !asked.budget.allows(job.repeats) {
            return None;
        }
        let wait = asked
            .budget
            .wait(job.repeats, cause.asked_wait(), &mut self.rng);
        let wait = match self.opening(job.route[job.at], None, now) {
            Opening::Shut(until, _) => wait.max(until.since(now)),
            Opening::Open | Opening::Probing => wait,
        };
        let is_last = job.at + 1 == job.route.len();
        let patient = is_last || wait <= self.settings.learning.fallback_after;
        let in_time = now + wait + asked.usual_first_byte() < job.share(now);
        (patient && in_time).then(|| now + wait)
    }

    /// A job that stands nowhere goes into line: where `chosen` says, else where it was, or at a further stage if that one
    /// is shut.
    fn enter(
        &mut self,
        id: JobId,
        chosen: Option<(usize, Leg)>,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let until = now + self.settings.queue.timeout;
        self.change(id, |job| {
            job.back_at = None;
            job.queue_until = until;
        });
        let job = &self.jobs[&id];
        if job.due() <= now {
            // Its deadline passed while a late tick let it back off.
            self.forget(id);
            return self.act(id, Step::End(Ending::Expired(None)), actions);
        }
        let chosen = match chosen {
            Some(chosen) => Ok(chosen),
            None => self.choose_stage(&job.route, job.at, None, job.due(), now),
        };
        match chosen {
            Ok((at, leg)) => {
                let stage = self.narrow(leg, now);
                self.change(id, |job| job.go_to(at, stage));
                self.enqueue(id, now, actions);
            }
            Err(shut) => self.give_up(id, shut, now, actions),
        }
    }

    /// Refuses a job that stands nowhere: all whom it may be sent to are shut.
    fn give_up(&mut self, id: JobId, shut: (Time, Shut), now: Time, actions: &mut Vec<Action>) {
        self.forget(id);
        self.act(id, Step::End(in_vain(shut, now)), actions);
    }

    /// The stage that a job goes to, of those from `from` on: that one, unless it is shut for longer than the job has
    /// patience for and a further one is not. `Err`: none takes calls before `due`; the first that will, and why not now.
    pub(super) fn choose_stage(
        &self,
        route: &[Leg],
        from: usize,
        except: Option<ProviderId>,
        due: Time,
        now: Time,
    ) -> Result<(usize, Leg), (Time, Shut)> {
        let patience = self.settings.learning.fallback_after;
        let mut least: Option<(Duration, usize)> = None;
        let mut first: Option<(Time, Shut)> = None;
        for (at, &leg) in route.iter().enumerate().skip(from) {
            let wait = match self.opening(leg, except, now) {
                Opening::Open => return Ok((at, leg)),
                // It may take calls at any moment, but nobody with another choice waits for it.
                Opening::Probing => patience + Duration::from_nanos(1),
                Opening::Shut(until, why) => {
                    if first.is_none_or(|(before, _)| until < before) {
                        first = Some((until, why));
                    }
                    if until >= due || why == Shut::ModelUnavailable {
                        continue;
                    }
                    until.since(now)
                }
            };
            if wait <= patience {
                return Ok((at, leg));
            }
            if least.is_none_or(|(before, _)| wait < before) {
                least = Some((wait, at));
            }
        }
        let in_vain = first.unwrap_or((Time::NEVER, Shut::Failing));
        least.map(|(_, at)| (at, route[at])).ok_or(in_vain)
    }

    /// Whether a stage takes calls: as the first of its targets to do so. A model that is away is nothing to wait for, so
    /// that counts only where no target has it.
    fn opening(&self, leg: Leg, except: Option<ProviderId>, now: Time) -> Opening {
        let targets = self.lines[leg.stage.index()].targets.iter().copied();
        let asked = targets.filter(|&target| except != Some(self.provider_of(target)));
        let openings = asked.map(|target| match self.onward.marked(target, leg.model, now) {
            Some(until) => Opening::Shut(until, Shut::ModelUnavailable),
            None => self.targets[target.index()].opening(),
        });
        let first = openings.min_by_key(|opening| match *opening {
            Opening::Open => (0, Time::ZERO),
            Opening::Probing => (1, Time::ZERO),
            Opening::Shut(until, why) if why != Shut::ModelUnavailable => (2, until),
            Opening::Shut(until, _) => (3, until),
        });
        first.unwrap_or(Opening::Shut(Time::NEVER, Shut::Failing))
    }

    /// The stage without those of its targets that don't have the model.
    pub(super) fn narrow(&mut self, leg: Leg, now: Time) -> StageId {
        if leg.model.is_none() || !self.onward.has_marks() {
            return leg.stage;
        }
        let targets = &self.lines[leg.stage.index()].targets;
        let has = |target: &&TargetId| self.onward.marked(**target, leg.model, now).is_none();
        let left: Vec<TargetId> = targets.iter().filter(has).copied().collect();
        if left.is_empty() || left.len() == targets.len() {
            return leg.stage;
        }
        self.stage(&left)
    }

    /// Whether the target does not have the job's model.
    pub(super) fn lacks(&self, target: TargetId, job: &Job, now: Time) -> bool {
        let model = job.route[job.at].model;
        self.onward.marked(target, model, now).is_some()
    }

    /// The target is shut: whoever waits for it is looked at.
    pub(super) fn note_shut(&mut self, target: TargetId) {
        for (index, line) in self.lines.iter().enumerate() {
            if line.targets.contains(&target) && !self.onward.dues[index].is_empty() {
                let start = (Time::ZERO, JobId(0));
                self.onward.sweeps.insert(StageId(index as u32), start);
            }
        }
    }

    /// Looks through lines whose targets are shut, a slice of jobs at a time: those who would wait in vain go on or are
    /// refused, and so do those who have somewhere else to go and would wait for long.
    fn sweep(&mut self, now: Time, actions: &mut Vec<Action>) {
        let patience = self.settings.learning.fallback_after;
        for _ in 0..SLICE {
            let Some((&stage, &last)) = self.onward.sweeps.first_key_value() else {
                return;
            };
            let Opening::Shut(until, _) = self.opening(stage.into(), None, now) else {
                self.onward.sweeps.remove(&stage);
                continue;
            };
            let rest = (Bound::Excluded(last), Bound::Unbounded);
            let next = self.onward.dues[stage.index()].range(rest).next().copied();
            match next {
                Some((due, id)) if due <= until || until.since(now) > patience => {
                    self.onward.sweeps.insert(stage, (due, id));
                    self.lead_on(id, now, actions);
                }
                _ => {
                    self.onward.sweeps.remove(&stage);
                }
            }
        }
    }

    /// A job in line whose stage is shut, or whose target has not its model, goes elsewhere if it has to.
    pub(super) fn lead_on(&mut self, id: JobId, now: Time, actions: &mut Vec<Action>) {
        let job = &self.jobs[&id];
        if job.due() <= now {
            return self.end_late(id, now, actions);
        }
        match self.choose_stage(&job.route, job.at, None, job.due(), now) {
            Ok((at, leg)) => {
                let here = job.stage();
                let stage = self.narrow(leg, now);
                if stage != here {
                    self.leave_line(id, now);
                    let until = now + self.settings.queue.timeout;
                    self.change(id, |job| {
                        // Fewer targets of the same stage are no new stage: the time in line goes on.
                        if at != job.at {
                            job.queue_until = until;
                        }
                        job.go_to(at, stage);
                    });
                    self.enqueue(id, now, actions);
                }
            }
            Err(shut) => {
                self.leave_line(id, now);
                self.give_up(id, shut, now, actions);
            }
        }
    }

    /// Takes a job out of those that back off.
    pub(super) fn leave_backing(&mut self, id: JobId) {
        let job = &self.jobs[&id];
        if let Some(at) = job.back_at {
            let (bytes, provider) = (job.bytes, self.first_provider(job.stage()));
            self.onward.backing.remove(&(at, id));
            self.onward.backing_bytes -= bytes;
            self.onward.backing_at[provider.index()] -= 1;
        }
    }

    /// Changes a job, and with it its timer.
    fn change(&mut self, id: JobId, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.jobs.get_mut(&id) {
            self.timers.remove(&(job.due(), id));
            change(job);
            self.timers.insert((job.due(), id));
        }
    }

    /// Compares what is counted of jobs that back off with what there is.
    pub(super) fn audit_onward(&self) -> Result<(), String> {
        let backing = self.jobs.values().filter(|job| job.back_at.is_some());
        let (jobs, bytes) =
            backing.fold((0, 0), |(jobs, bytes), job| (jobs + 1, bytes + job.bytes));
        let by_provider: usize = self.onward.backing_at.iter().sum();
        let counted = (self.onward.backing.len(), self.onward.backing_bytes);
        if counted != (jobs, bytes) || by_provider != jobs {
            return Err(format!(
                "{counted:?} jobs and bytes back off, there are {:?}",
                (jobs, bytes)
            ));
        }
        let dues: usize = self.onward.dues.iter().map(BTreeSet::len).sum();
        if dues != self.waiting.jobs {
            return Err(format!("{} wait, {dues} are watched", self.waiting.jobs));
        }
        Ok(())
    }

    /// Takes a job that holds nothing out of wherever it is, to end.
    pub(super) fn stand_down(&mut self, id: JobId, now: Time) {
        if self.jobs[&id].back_at.is_some() {
            self.leave_backing(id);
        } else {
            self.leave_line(id, now);
        }
    }
}

/// How a job ends that would wait in vain.
pub(super) fn in_vain((until, why): (Time, Shut), now: Time) -> Ending {
    let retry_after = match why {
        // It never opens, but whoever comes again is routed anew.
        Shut::Removed => ONCE_MORE,
        _ => until.since(now),
    };
    Ending::Refused(Refusal {
        reason: RefusalReason::Shut(why),
        retry_after,
        throttled: None,
    })
}

impl Job {
    /// When the first byte of an attempt that starts now has to be in: at the end of its share of the time that is left,
    /// while further stages remain.
    pub(super) fn share(&self, now: Time) -> Time {
        let stages = (self.route.len() - self.at) as u32;
        if stages == 1 {
            return self.deadline;
        }
        now + self.deadline.since(now) / stages
    }

    fn go_to(&mut self, at: usize, stage: StageId) {
        self.at = at;
        self.route[at].stage = stage;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_mark_that_is_made_again_lasts_longer_and_takes_no_further_place() {
        let mut onward = Onward::new(1);
        let (one, other) = (TargetId(0), TargetId(1));
        onward.mark(one, ModelId(1), at(300), at(0));
        for second in 0..MARKS as u64 {
            onward.mark(other, ModelId(1), at(310 + second), at(second));
        }
        assert_eq!(onward.marked(one, Some(ModelId(1)), at(200)), Some(at(300)));
        let last = at(309 + MARKS as u64);
        assert_eq!(onward.marked(other, Some(ModelId(1)), at(200)), Some(last));
        assert_eq!(onward.marked(one, Some(ModelId(1)), at(300)), None);
        assert_eq!(onward.marked(one, Some(ModelId(2)), at(200)), None);
        assert_eq!(onward.marked(one, None, at(200)), None);
    }

    #[test]
    fn the_mark_that_is_forgotten_soonest_makes_room_and_what_is_over_takes_none() {
        let mut onward = Onward::new(1);
        for model in 0..MARKS as u64 {
            onward.mark(TargetId(0), ModelId(model), at(400 - model), at(0));
        }
        onward.mark(TargetId(0), ModelId(500), at(500), at(0));
        let known = |onward: &Onward, now| {
            let models = (0..=500).map(ModelId);
            models
                .filter(|&model| onward.marked(TargetId(0), Some(model), at(now)).is_some())
                .collect::<Vec<_>>()
        };
        let left: Vec<ModelId> = (0..MARKS as u64 - 1).chain([500]).map(ModelId).collect();
        assert_eq!(known(&onward, 0), left);
        onward.mark(TargetId(0), ModelId(501), at(900), at(499));
        assert_eq!(onward.marks.len(), 2, "the others are over");
    }
}
