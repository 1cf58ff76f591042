//! What a job may do after it came, after its call, or while others are shut: where it may go, and when it may come back.

use crate::admission::{Cause, JobId, Outcome, PermitKey, Report, TargetId};
use pointsman::clock::Time;

use super::ledger::{Call, Check, Ledger, State, ensure};
use super::rules::{allows_fallback, allows_repeat};

impl Ledger {
    /// A job goes into line for, or starts at, this stage of its route.
    pub(super) fn goes_to(&mut self, id: JobId, stage: usize, now: Time) -> Check {
        let job = self.jobs.get(&id).ok_or("an unknown job goes on")?;
        let from = match job.state {
            State::Running(_) => return Err(format!("{id:?} runs, and goes to stage {stage}")),
            State::Returned(report, ..) => {
                let may = !report.content && allows_fallback(report.outcome);
                ensure(may && stage > job.at, || {
                    format!("{id:?} goes to stage {stage} after {report:?}")
                })?;
                job.at + 1
            }
            State::BackingOff(until) => {
                ensure(until <= now, || {
                    format!("{id:?} comes back before {until:?}")
                })?;
                job.at
            }
            State::Unheard | State::Waiting => job.at,
        };
        ensure(stage >= from, || {
            format!("{id:?} goes back to stage {stage}")
        })?;
        // After an answer that never came, its provider is passed over.
        let unanswered = matches!(
            job.state,
            State::Returned(
                Report {
                    outcome: Outcome::Failed(Cause::Unanswered),
                    ..
                },
                ..
            )
        );
        let passed_over = (from..stage).find(|&at| !unanswered && self.takes_calls(job, at, now));
        ensure(passed_over.is_none(), || {
            format!("{id:?} goes to stage {stage}, but {passed_over:?} takes calls")
        })?;
        let queue_until = now + self.settings.queue.timeout;
        let job = self.jobs.get_mut(&id).ok_or("looked up above")?;
        if job.at != stage || !matches!(job.state, State::Waiting | State::Unheard) {
            job.queue_until = queue_until;
        }
        job.at = stage;
        Ok(())
    }

    pub(super) fn backs_off(&mut self, id: JobId, until: Time, now: Time) -> Check {
        let job = self.jobs.get(&id).ok_or("an unknown job backs off")?;
        let State::Returned(report, target, _) = job.state else {
            return Err(format!("{id:?} backs off, it is {:?}", job.state));
        };
        let retry = self.settings.providers[self.provider_of(target).0 as usize].retry;
        let watch = &self.targets[target.index()];
        let asked = match report.outcome {
            Outcome::Failed(
                Cause::Congested { retry_after: wait } | Cause::WindowUsedUp { opens_in: wait },
            ) => wait.unwrap_or_default(),
            _ => Default::default(),
        };
        let random = retry.max.min(retry.base * 2_u32.pow(job.repeats));
        let stage = job.route[job.at].iter();
        let opens = stage
            .map(|target| self.targets[target.index()].opens_by())
            .max();
        let away = job.model.map(|_| now + self.settings.learning.model_away);
        let latest = (now + random.max(asked)).max(opens.max(away).unwrap_or_default());
        let right = allows_repeat(report.outcome, job.failed_once)
            && !report.content
            && job.repeats + 1 < retry.attempts
            && watch.tokens > retry.floor
            && until >= now + asked
            && until <= latest
            && until < job.submission.deadline
            && !self.has_stopped(now);
        ensure(right, || {
            format!("{id:?} backs off until {until:?} (at most {latest:?}): {job:?} {watch:?}")
        })?;
        self.targets[target.index()].tokens -= 1.0;
        let job = self.jobs.get_mut(&id).ok_or("looked up above")?;
        job.repeats += 1;
        job.failed_once |= matches!(report.outcome, Outcome::Failed(Cause::Failing { .. }));
        job.state = State::BackingOff(until);
        Ok(())
    }

    pub(super) fn waits(&mut self, id: JobId, stage: usize, waiting: usize, now: Time) -> Check {
        self.goes_to(id, stage, now)?;
        let job = self.jobs.get_mut(&id).ok_or("an unknown job waits")?;
        let came_back = job.attempt > 0 || job.state == State::Waiting;
        job.state = State::Waiting;
        let (stage, flow) = (job.route[job.at].clone(), job.submission.flow);
        let in_line = self.waiting().filter(|job| job.route[job.at] == stage);
        let (all, own) = in_line.fold((0, 0), |(all, own), job| {
            (all + 1, own + usize::from(job.submission.flow == flow))
        });
        ensure(all == waiting || self.has_models(), || {
            format!("{all} wait in line, the core says {waiting}")
        })?;
        let queue = &self.settings.queue;
        let bytes: usize = self.waiting().map(|job| job.submission.bytes).sum();
        let in_bounds = self.waiting().count() <= queue.capacity.max(self.waited)
            && own <= queue.per_session
            && bytes <= queue.max_bytes;
        ensure(came_back || in_bounds || self.has_models(), || {
            format!("{id:?} was taken in over the bounds")
        })
    }

    /// A call of a job that starts is made at this target.
    pub(super) fn is_called(
        &mut self,
        id: JobId,
        permit: PermitKey,
        target: TargetId,
        probe: bool,
        now: Time,
    ) -> Check {
        let job = &self.jobs[&id];
        let session = job.submission.session.then_some(job.submission.flow.0);
        ensure(!self.is_away(target, job.model, now), || {
            format!("{id:?} goes to {target:?}, which has not its model")
        })?;
        let in_use = self.running_on(target) + 1;
        let badge = self.targets[target.index()].start(in_use, probe, now)?;
        if let Some(session) = session {
            self.active_since.entry(session).or_insert(now);
        }
        let call = Call {
            job: id,
            provider: self.provider_of(target),
            session,
            target,
            badge,
            reclaim: job.submission.reclaim,
            begun: false,
            interrupted: None,
            quarantined: None,
        };
        self.calls.insert(permit, call);
        self.started.push(permit);
        Ok(())
    }
}
