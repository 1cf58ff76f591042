//! Slots whose holders don't come back, in the simulator's own books: who may be given up on, and whose slot may be taken.

use crate::admission::{Cause, Outcome, PermitKey, Report, SlotState, Step};
use pointsman::clock::Time;

use super::ledger::{Check, Ledger, Stimulus, ensure};

/// What an interrupted call that never came back says.
const UNWANTED: Report = Report {
    outcome: Outcome::Failed(Cause::Unwanted),
    content: false,
    first_byte: None,
};

/// What a call says whose guard was lost.
pub(super) const GONE: Report = Report {
    outcome: Outcome::Failed(Cause::Own),
    content: true,
    first_byte: None,
};

impl Ledger {
    /// The watchdog gives up on a holder, or takes its slot.
    pub(super) fn watchdog_acts(&mut self, step: &Step, stimulus: &Stimulus, now: Time) -> Check {
        ensure(matches!(stimulus, Stimulus::Tick), || {
            format!("{step:?} on {stimulus:?}")
        })?;
        let orphans = self.settings.orphans;
        match *step {
            Step::Quarantine { permit, worker } => {
                let call = self.calls.get_mut(&permit).ok_or("nobody holds it")?;
                let due = call.interrupted.map(|at| at + orphans.quarantine_after);
                let right = call.reclaim
                    && call.quarantined.is_none()
                    && due.is_some_and(|due| due <= now)
                    && worker.is_some() == call.begun;
                ensure(right, || format!("{call:?} is given up on by {step:?}"))?;
                call.quarantined = Some(now);
                Ok(())
            }
            Step::Reclaim { permit, .. } => {
                let call = self.calls.get(&permit).ok_or("nobody holds it")?;
                let left = orphans.reclaim_after - orphans.quarantine_after;
                let due = call.quarantined.map(|at| at + left);
                ensure(due.is_some_and(|due| due <= now), || {
                    format!("{call:?} is taken back by {step:?}")
                })?;
                let begun = call.begun;
                self.permit_is_back(permit, &UNWANTED, now);
                self.abandoned.insert(permit, begun);
                self.reclaimed += 1;
                Ok(())
            }
            _ => Err(format!("{step:?} is none of the watchdog's")),
        }
    }

    /// A permit comes back that is not out any more.
    pub(super) fn is_late(&mut self, permit: PermitKey) {
        self.late_returns += 1;
        self.abandoned.remove(&permit);
    }

    /// Workers that don't come back.
    pub(super) fn lost(&self) -> usize {
        let quarantined = self.calls.values();
        let quarantined = quarantined.filter(|call| call.begun && call.quarantined.is_some());
        quarantined.count() + self.abandoned.values().filter(|begun| **begun).count()
    }

    fn quarantined(&self) -> usize {
        let calls = self.calls.values();
        calls.filter(|call| call.quarantined.is_some()).count()
    }

    /// Calls that may start beside those that are in flight.
    pub(super) fn vacant(&self) -> usize {
        let settings = &self.settings;
        let missing = self.lost().saturating_sub(settings.orphans.max_lost);
        let workers = settings.workers.saturating_sub(missing);
        let slots = self.global().saturating_sub(self.calls.len());
        slots.min(workers.saturating_sub(self.calls.len() - self.quarantined()))
    }

    /// The core's ledger is ours, and with prompt ticks nobody is looked after too late.
    pub(super) fn orphans_agree(&self, core: &crate::admission::Core, now: Time) -> Check {
        let orphans = self.settings.orphans;
        let theirs = core.ledger();
        let taken = theirs.iter().filter(|slot| slot.state != SlotState::Free);
        ensure(taken.count() == self.calls.len(), || {
            format!("the ledger has {theirs:?}, out are {:?}", self.calls)
        })?;
        ensure(
            theirs.len() == self.calls.len() + self.abandoned.len(),
            || {
                format!(
                    "the ledger has {theirs:?}, abandoned are {:?}",
                    self.abandoned
                )
            },
        )?;
        for slot in theirs.iter().filter(|slot| slot.state != SlotState::Free) {
            let call = self.calls.get(&slot.permit).ok_or("nobody holds it")?;
            let state = match (call.interrupted, call.quarantined) {
                (_, Some(_)) => SlotState::Quarantined,
                (Some(_), None) => SlotState::Interrupted,
                (None, None) => SlotState::Held,
            };
            ensure(slot.state == state && slot.job == call.job, || {
                format!("{slot:?} in the ledger, it is {call:?}")
            })?;
            let due = match (call.interrupted, call.quarantined) {
                (_, Some(at)) => at + (orphans.reclaim_after - orphans.quarantine_after),
                (Some(at), None) => at + orphans.quarantine_after,
                (None, None) => Time::NEVER,
            };
            let overdue = call.reclaim && due < now;
            ensure(!(self.prompt && overdue), || {
                format!("{call:?} is looked after too late")
            })?;
        }
        let view = core.view(now);
        let ours = (
            self.quarantined(),
            self.lost(),
            self.reclaimed,
            self.recovered,
        );
        let (turnover, quarantined) = (view.turnover, view.quarantined);
        let theirs = (
            quarantined,
            view.lost_workers,
            turnover.reclaimed,
            turnover.recovered,
        );
        ensure(ours == theirs, || {
            format!("the core sees {theirs:?} orphans, they are {ours:?}")
        })
    }
}
