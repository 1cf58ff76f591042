//! Slots whose holders don't come back.
//!
//! When a job ends while its call is under way, the call is interrupted, and its worker has to come back and give the
//! permit up. A call to a provider does so at once, for its socket is shut. A function of the embedding program may take no
//! notice, and a fault of ours may be worse; nobody else is to wait for that. Counted from the interrupt:
//!
//! | after | the slot | the worker |
//! |---|---|---|
//! | 0 | interrupted: taken until its holder gives it back | is told |
//! | `quarantine_after` | quarantined: still taken, for the call may still be under way | is lost: another takes its place, and its result, should there be one, is nobody's |
//! | `reclaim_after` | free, as the next generation | its return changes nothing and is counted as late |
//!
//! Times count from the interrupt and from the tick that quarantined, not from deadlines: after the process was stopped for
//! a while everybody has the same time to come back. A job that lives is never looked at here, however long it runs.
//!
//! With more than `max_lost` workers lost no more are replaced and nothing new is taken in, until some come back.
//!
//! # Leaks
//!
//! A slot whose holder does not exist any more is a leak: its guard was lost, and nothing would ever give it back. The core
//! can't see that. The engine, which knows what each worker has in hand, says so by [`Core::recover`].

use super::outcome::{Cause, Outcome, Report};
use super::slots::SlotState;
use super::state::Core;
use super::{Action, FlowId, JobId, PermitKey, ProviderId, SLICE, Step, WorkerId};
use crate::clock::Time;

/// A slot that is taken, or whose holder has not come back since it was taken from it, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotView {
    /// Which use of which slot.
    pub permit: PermitKey,
    /// How it stands; [`SlotState::Free`]: it was reclaimed, and the call goes on without it.
    pub state: SlotState,
    /// The job that it was taken for.
    pub job: JobId,
    /// Where it calls.
    pub provider: ProviderId,
    /// The named session that it counts against.
    pub session: Option<FlowId>,
    /// Who makes the call; `None` before it has begun.
    pub worker: Option<WorkerId>,
    /// Since when.
    pub since: Time,
    /// When its job ends.
    pub until: Time,
    /// When its holder is given up on, or it is reclaimed; [`Time::NEVER`] while its job lives.
    pub due: Time,
}

/// Nobody waits for what the call may bring.
const UNWANTED: Report = Report {
    outcome: Outcome::Failed(Cause::Unwanted),
    content: false,
    first_byte: None,
};

/// Whoever made the call is gone.
const GONE: Report = Report {
    outcome: Outcome::Failed(Cause::Own),
    content: true,
    first_byte: None,
};

impl PermitKey {
    /// The number of its slot.
    pub const fn slot(self) -> u32 {
        self.index
    }

    /// Which use of the slot it is, from 0.
    pub const fn generation(self) -> u32 {
        self.generation
    }
}

impl Core {
    /// The job has its end; its holder is told, and looked after from now on.
    pub(super) fn interrupt(&mut self, permit: PermitKey, now: Time) {
        let due = now + self.settings.orphans.quarantine_after;
        self.books.interrupt(permit, due);
    }

    /// Gives up on holders whose time is up, and takes slots back; a slice of them.
    pub(super) fn look_after_orphans(&mut self, now: Time, actions: &mut Vec<Action>) {
        for _ in 0..SLICE {
            match self.books.orphan(now) {
                Some((permit, SlotState::Interrupted)) => self.quarantine(permit, now, actions),
                Some((permit, _)) => self.reclaim(permit, now, actions),
                None => return,
            }
        }
    }

    /// Frees a slot that nobody holds any more, and ends its job if that has not ended. `false` if it was given back or
    /// reclaimed meanwhile: there was nothing to recover, but nobody is waited for any more either.
    pub fn recover(&mut self, permit: PermitKey, now: Time, actions: &mut Vec<Action>) -> bool {
        self.advance(now, actions);
        let held = self.books.recover(permit);
        if let Some(held) = held {
            self.is_back(permit, held, &GONE, now, actions);
        }
        self.settle(now, actions);
        held.is_some()
    }

    /// Counts the slots anew from the ledger.
    pub fn recount(&mut self) {
        self.books.recount();
    }

    /// Compares the books with the ledger. Costs as much as there are slots in use, however many wait.
    ///
    /// # Errors
    /// In words, what does not agree.
    pub fn audit_books(&self) -> Result<(), String> {
        self.books.audit()?;
        let (in_use, most) = (self.books.in_use(), self.most_in_flight());
        if in_use > most {
            return Err(format!("{in_use} in flight, the limit is {most}"));
        }
        Ok(())
    }

    /// Who holds what. Costs as much as there are slots in use.
    pub fn ledger(&self) -> Vec<SlotView> {
        let rows = self.books.ledger();
        let view = rows.map(|(permit, state, due, held)| SlotView {
            permit,
            state,
            job: held.job,
            provider: held.provider,
            session: held.session.then_some(held.flow),
            worker: held.worker,
            since: held.since,
            until: held.deadline,
            due,
        });
        view.collect()
    }

    fn quarantine(&mut self, permit: PermitKey, now: Time, actions: &mut Vec<Action>) {
        let settings = &self.settings.orphans;
        let left = settings
            .reclaim_after
            .saturating_sub(settings.quarantine_after);
        if let Some(held) = self.books.quarantine(permit, now + left) {
            let worker = held.worker;
            self.act(held.job, Step::Quarantine { permit, worker }, actions);
        }
    }

    fn reclaim(&mut self, permit: PermitKey, now: Time, actions: &mut Vec<Action>) {
        if let Some(held) = self.books.reclaim(permit) {
            let worker = held.worker;
            self.act(held.job, Step::Reclaim { permit, worker }, actions);
            self.is_back(permit, held, &UNWANTED, now, actions);
        }
    }
}
