//! `/api/overview`: everything that a dashboard shows, in one picture of a bounded size.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::error::ApiError;
use super::semaphores::holding;
use super::status::seconds;
use super::stories::Active;
use super::{Api, Visit};
use crate::engine::{SlotHolding, SlotState, Whereabouts};
use crate::telemetry::Ends;

impl Api {
    /// `GET /api/overview`: the picture that `/api/live` sends, once. It is at most `telemetry.live_interval` old.
    pub(super) fn overview(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let text = self.picture(visit);
        visit.bytes(200, text.to_vec())
    }

    /// A new picture, for all who may see what this caller may see.
    pub(super) fn overview_json(&self, visit: &Visit<'_>) -> Value {
        let rows = self.live.rows();
        let active = self.active_in_brief(visit);
        let (slots, abandoned, more) = self.slots(visit, &active);
        let (waiting, running): (Vec<&Active>, Vec<&Active>) =
            active.iter().partition(|active| active.is_waiting());
        let list = |all: &[&Active]| -> Vec<Value> {
            all.iter().take(rows).map(|active| row(active)).collect()
        };
        let sessions = sessions(&active);
        json!({
            "viewer": {
                "key": visit.caller.key(),
                "admin": visit.caller.is_admin(),
            },
            "interval_s": seconds(self.live.interval()),
            "target_s": seconds(self.live.target()),
            "status": self.status_json(visit),
            "slots": slots,
            "slots_more": more,
            "abandoned": abandoned,
            "last_check": self.engine.last_check().map(|check| self.check_json(&check)),
            "running": list(&running),
            "running_more": running.len().saturating_sub(rows),
            "waiting": list(&waiting),
            "waiting_more": waiting.len().saturating_sub(rows),
            "sessions": sessions.iter().take(rows).map(Session::json).collect::<Vec<_>>(),
            "sessions_more": sessions.len().saturating_sub(rows),
            "pools": self.pools_json(),
            "latency": self.lately(),
            "alerts": self.active_alerts(),
            "hour": self.lifecycle.hour(self.clock.now()).iter().map(minute).collect::<Vec<_>>(),
        })
    }

    /// The slots that are taken, the calls that go on without theirs, and how many slots are left out.
    fn slots(&self, visit: &Visit<'_>, active: &[Active]) -> (Vec<Value>, Vec<Value>, usize) {
        let rows = self.live.rows();
        let by_job: HashMap<u64, &Active> = active
            .iter()
            .filter(|active| !active.has_joined())
            .map(|active| (active.view.job, active))
            .collect();
        let slot = |slot: &SlotHolding| {
            let key = slot.holder.as_ref().and_then(|(_, owner)| owner.key());
            let mut body = holding(slot, visit.caller.may_see(key.map(|name| &**name)));
            if let Some(active) = by_job.get(&slot.slot.job.0) {
                body["model"] = json!(active.view.model.as_deref());
                body["phase"] = json!(active.view.phase.to_string());
                body["priority"] = json!(active.view.priority.to_string());
            }
            body
        };
        let (_, slots) = self.engine.semaphores();
        let (taken, abandoned): (Vec<_>, Vec<_>) = slots
            .iter()
            .partition(|slot| slot.slot.state != SlotState::Free);
        let more = taken.len().saturating_sub(rows);
        let taken = taken.into_iter().take(rows).map(slot).collect();
        let abandoned = abandoned.into_iter().take(rows).map(slot).collect();
        (taken, abandoned, more)
    }
}

/// A request, with its place in line where it waits.
fn row(active: &Active) -> Value {
    let mut body = active.brief();
    body["waits"] = match active.view.whereabouts {
        _ if active.has_joined() => Value::Null,
        None => Value::Null,
        Some(Whereabouts::BackingOff(left)) => json!({ "left_s": seconds(left) }),
        Some(Whereabouts::InLine {
            position, expected, ..
        }) => json!({ "position": position, "expected_s": expected.map(seconds) }),
    };
    body
}

/// `[completed, timeout, error, cancelled, refused]`
fn minute(ends: &Ends) -> Value {
    json!([
        ends.completed,
        ends.timeout,
        ends.error,
        ends.cancelled,
        ends.refused
    ])
}

/// A named session with requests that have not ended.
#[derive(Debug)]
struct Session {
    name: Arc<str>,
    key: Option<Arc<str>>,
    running: usize,
    waiting: usize,
    /// How long its oldest request is there.
    oldest_s: f64,
}

/// The sessions of requests, those with the oldest ones first.
fn sessions(active: &[Active]) -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    let mut places: HashMap<_, usize> = HashMap::new();
    for active in active {
        let owner = &active.view.owner;
        let Some(name) = owner.session() else {
            continue;
        };
        let place = *places.entry(owner).or_insert_with(|| {
            sessions.push(Session {
                name: Arc::clone(name),
                key: owner.key().cloned(),
                running: 0,
                waiting: 0,
                oldest_s: seconds(active.view.age),
            });
            sessions.len() - 1
        });
        let session = &mut sessions[place];
        match active.is_waiting() {
            true => session.waiting += 1,
            false => session.running += 1,
        }
    }
    sessions
}

impl Session {
    fn json(&self) -> Value {
        json!({
            "session_id": &*self.name,
            "key": self.key.as_deref(),
            "running": self.running,
            "waiting": self.waiting,
            "oldest_s": self.oldest_s,
        })
    }
}
