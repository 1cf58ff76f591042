//! Permits whose holders don't come back: who may be given up on, whose slot may be taken, and when.

use pointsman::admission::{CoreView, JobId, PermitKey, Step, WorkerId};
use pointsman::clock::Time;

use super::{Inner, Out};
use crate::record::LateReturn;

impl Inner {
    /// A worker is about to ask whether it may make its call: whether it may, for its job lives.
    pub(super) fn is_taken(&mut self, permit: PermitKey, worker: WorkerId) -> bool {
        let mut out = self.out.iter_mut();
        let own = out.find(|out| out.permit == permit && out.interrupted.is_none());
        own.is_some_and(|own| {
            own.worker = Some(worker);
            self.now < self.deadlines[&own.job]
        })
    }

    /// A job has ended whose call is under way.
    pub(super) fn is_told(&mut self, job: JobId) {
        let mut out = self.out.iter_mut();
        let own = out.find(|out| out.job == job && out.interrupted.is_none());
        own.expect("a call of it is under way").interrupted = Some(self.now);
    }

    /// A permit comes back that is not out any more.
    pub(super) fn is_late(&mut self, permit: PermitKey) {
        self.late += 1;
        let at = self.abandoned.iter().position(|out| out.permit == permit);
        if let Some(at) = at {
            self.abandoned.swap_remove(at);
            let mut out = self.out.iter();
            let taken = out.any(|out| out.permit.slot() == permit.slot());
            self.record.late.push(LateReturn { taken });
        }
    }

    /// A holder is given up on, or its slot is taken from it: each in its time, and not before its job has ended.
    pub(super) fn watchdog_acts(&mut self, step: &Step) {
        let (Step::Quarantine { permit, worker } | Step::Reclaim { permit, worker }) = step else {
            return;
        };
        let at = self.out.iter().position(|out| out.permit == *permit);
        let at = at.expect("it is out");
        let due = self.due(&self.out[at]);
        assert!(
            due.is_some_and(|due| due <= self.now),
            "too early: {step:?}"
        );
        assert_eq!(self.out[at].worker, *worker);
        let given_up = self.out[at].quarantined;
        if let Step::Quarantine { .. } = step {
            assert_eq!(given_up, None, "it was given up on before");
            self.out[at].quarantined = Some(self.now);
        } else {
            assert!(given_up.is_some(), "it was not given up on");
            self.reclaimed += 1;
            let out = self.out.swap_remove(at);
            self.abandoned.push(out);
        }
    }

    /// What the core knows of those who are lost, and that each was looked after in time.
    pub(super) fn orphans_agree(&self, view: &CoreView, is_tick: bool) {
        let theirs = (view.quarantined, view.lost_workers, view.turnover.reclaimed);
        assert_eq!(theirs, (self.quarantined(), self.lost(), self.reclaimed));
        let mut out = self.out.iter();
        let late = out.find(|out| self.due(out).is_some_and(|due| due <= self.now));
        assert!(!is_tick || late.is_none(), "nobody looked after {late:?}");
    }

    /// Calls that may start beside those that are in flight.
    pub(super) fn vacant(&self) -> usize {
        let slots = self.limit().saturating_sub(self.out.len());
        slots.min(self.workers().saturating_sub(self.at_work()))
    }

    /// Those who may be at work. Who is lost is replaced, unless too many are.
    pub(super) fn workers(&self) -> usize {
        let orphans = self.scenario.orphans.unwrap_or_default();
        let missing = self.lost().saturating_sub(orphans.max_lost);
        self.scenario.limit.saturating_sub(missing)
    }

    /// Calls whose holders are not given up on.
    pub(super) fn at_work(&self) -> usize {
        self.out.len() - self.quarantined()
    }

    /// When the watchdog looks after it next, if it ever does.
    fn due(&self, out: &Out) -> Option<Time> {
        let orphans = self.scenario.orphans?;
        let left = orphans.reclaim_after - orphans.quarantine_after;
        match out.quarantined {
            None => Some(out.interrupted? + orphans.quarantine_after),
            Some(since) => Some(since + left),
        }
    }

    fn quarantined(&self) -> usize {
        let out = self.out.iter();
        out.filter(|out| out.quarantined.is_some()).count()
    }

    /// Workers that don't come back, with their slot or without it.
    pub(super) fn lost(&self) -> usize {
        let quarantined = self.out.iter().filter(|out| out.quarantined.is_some());
        let lost = quarantined.chain(&self.abandoned);
        lost.filter(|out| out.worker.is_some()).count()
    }
}
