//! `/api/semaphores`: who holds what, and whether the books agree.

use serde_json::{Value, json};

use super::error::ApiError;
use super::status::seconds;
use super::{Api, Visit};
use crate::engine::{HealthCheck, Owner, SemaphoreView, SlotHolding, SlotState, Turnover};

impl Api {
    /// `GET /api/semaphores`: the semaphores and the ledger of slots. Requests of another key's are shown without their
    /// ids and sessions.
    pub(super) fn semaphores(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let (semaphores, slots) = self.engine.semaphores();
        let snapshot = self.engine.snapshot();
        let holding = |slot: &SlotHolding| {
            let key = slot.holder.as_ref().and_then(|(_, owner)| owner.key());
            let shown = visit.caller.may_see(key.map(|name| &**name));
            holding(slot, shown)
        };
        let (taken, abandoned): (Vec<_>, Vec<_>) = slots
            .iter()
            .partition(|slot| slot.slot.state != SlotState::Free);
        let last = self.engine.last_check();
        let body = json!({
            "semaphores": semaphores.iter().map(semaphore).collect::<Vec<_>>(),
            "slots": taken.into_iter().map(holding).collect::<Vec<_>>(),
            "abandoned": abandoned.into_iter().map(holding).collect::<Vec<_>>(),
            "turnover": turnover(&snapshot.core.turnover),
            "leaks": snapshot.health.leaks,
            "audits": { "runs": snapshot.health.audits, "mismatches": snapshot.health.mismatches },
            "last_check": last.as_ref().map(|last| self.check_json(last)),
        });
        visit.json(200, &body)
    }

    /// `POST /api/semaphores/check`: makes a health check now, and recovers what it finds. With keys configured, for an
    /// admin's.
    pub(super) fn check_semaphores(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        if !visit.caller.is_admin() {
            return Err(ApiError::admin_only());
        }
        visit.json(200, &self.check_json(&self.engine.check_health()))
    }

    pub(super) fn check_json(&self, check: &HealthCheck) -> Value {
        json!({
            "status": check.end.word(),
            "message": check.to_string(),
            "age_s": seconds(self.clock.now().since(check.at)),
            "semaphores": check.semaphores.iter().map(semaphore).collect::<Vec<_>>(),
            "leaks": check.leaks.len(),
            "recovered": check.recovered,
            "mismatch": check.mismatch,
        })
    }
}

/// What went through the ledger since the start.
pub(super) fn turnover(turnover: &Turnover) -> Value {
    json!({
        "taken": turnover.taken,
        "given_back": turnover.given_back,
        "reclaimed": turnover.reclaimed,
        "recovered": turnover.recovered,
        "late_returns": turnover.late_returns,
    })
}

fn semaphore(view: &SemaphoreView) -> Value {
    json!({
        "type": view.kind,
        "provider": view.provider,
        "limit": view.limit,
        "in_use": view.in_use,
        "current": view.current,
        "expected": view.expected,
    })
}

pub(super) fn holding(holding: &SlotHolding, shown: bool) -> Value {
    let slot = &holding.slot;
    let holder = holding.holder.as_ref().filter(|_| shown);
    let session = holder.and_then(|(_, owner)| Owner::session(owner));
    json!({
        "slot": slot.permit.slot(),
        "generation": slot.permit.generation(),
        "state": word(slot.state),
        "job": slot.job.0,
        "request_id": holder.map(|(id, _)| id),
        "session_id": session.map(|name| &**name),
        "provider": holding.provider,
        "worker": slot.worker.map(|worker| worker.0),
        "age_s": seconds(holding.age),
        "deadline_in_s": seconds(holding.left),
        "given_up_in_s": holding.due.map(seconds),
    })
}

/// How a slot stands, in one word; of a slot that was reclaimed this tells of the call that goes on without it.
const fn word(state: SlotState) -> &'static str {
    match state {
        SlotState::Free => "abandoned",
        SlotState::Held => "held",
        SlotState::Interrupted => "interrupted",
        SlotState::Quarantined => "quarantined",
    }
}
