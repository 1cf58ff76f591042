//! The operation routes: is it alive, is it ready, what is it doing, who waits for what.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::{Api, Visit};
use crate::cancel::CancelReason;
use crate::clock::Time;
use crate::config::Priority;
use crate::engine::{Owner, Phase, Phases, ProviderView, RequestView, Snapshot, TargetView};
use crate::telemetry::Event;

impl Api {
    /// `GET /healthz`: 200 while the books are right and workers come back, 503 with what is wrong otherwise.
    pub(super) fn health(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let snapshot = self.engine.snapshot();
        let health = self.engine.health();
        let body = json!({
            "status": if health.is_ok() { "ok" } else { "unhealthy" },
            "problem": health.as_ref().err().map(ToString::to_string),
            "in_flight": snapshot.core.in_use,
            "waiting": snapshot.core.waiting,
            "connections": self.pool_summary(),
            "uptime_s": seconds(self.clock.now().since(self.started)),
        });
        visit.json(if health.is_ok() { 200 } else { 503 }, &body)
    }

    /// `GET /readyz`: 200 while new requests are welcome, 503 while it stops or is under pressure.
    pub(super) fn ready(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let core = self.engine.snapshot().core;
        let state = match (core.stopping, core.pressure) {
            (true, _) => "stopping",
            (false, true) => "under pressure",
            (false, false) => "ready",
        };
        let body = json!({ "status": state, "waiting": core.waiting });
        visit.json(if state == "ready" { 200 } else { 503 }, &body)
    }

    /// `GET /api/status`: slots, lines, sessions, providers, threads.
    pub(super) fn status(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let snapshot = self.engine.snapshot();
        let statistics = self.lifecycle.statistics();
        let (core, crew) = (&snapshot.core, &snapshot.workers);
        let body = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "profile": visit.terms.profile.to_string(),
            "uptime_s": seconds(self.clock.now().since(self.started)),
            "state": if core.stopping { "stopping" } else { "serving" },
            "slots": {
                "global": { "in_use": core.in_use, "limit": core.limit, "peak": core.peak },
                "providers": providers_json(&snapshot, &visit.terms.missing_keys),
                "quarantined": core.quarantined,
                "taken": core.turnover.taken,
                "given_back": core.turnover.given_back,
                "reclaimed": core.turnover.reclaimed,
                "recovered": core.turnover.recovered,
                "late_returns": core.turnover.late_returns,
            },
            "queue": {
                "waiting": core.waiting,
                "bytes": core.waiting_bytes,
                "backing_off": core.backing_off,
                "pressure": core.pressure,
                "classes": classes(&snapshot),
            },
            "sessions": { "active": core.sessions, "limit": core.sessions_limit, "known": snapshot.sessions_known },
            "requests": {
                "received": statistics.received,
                "active": statistics.active,
                "completed": statistics.completed,
                "timeout": statistics.timeout,
                "error": statistics.error,
                "cancelled": statistics.cancelled,
                "refused": statistics.refused,
            },
            "threads": {
                "workers": crew.alive,
                "idle": crew.idle,
                "lost": crew.lost,
                "replaced": crew.replaced,
            },
        });
        visit.json(200, &body)
    }

    /// `GET /api/requests`: the caller's requests that have not ended, oldest first.
    pub(super) fn requests(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let active: Vec<Value> = self.active(visit).iter().map(Active::json).collect();
        visit.json(200, &json!({ "active": active }))
    }

    /// `GET /api/requests/{id}`: the story of one of the caller's requests, as far as it is remembered. Clients choose ids:
    /// one of another key may have the same, and is not shown; of several of the caller's the latest is told, and the
    /// others are under `earlier`.
    pub(super) fn request(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let id = visit.rest();
        // First: what was decided of an active request is on record once it is listed.
        let active = self.active(visit);
        let now = self.clock.now();
        let mut events = self.lifecycle.of_request(id, now);
        events.retain(|event| visit.caller.may_see(event.subject.key.as_deref()));
        let story = |events: &[Event]| {
            let job = events.first().map(|event| event.subject.job);
            let active = active.iter().find(|active| Some(active.view.job) == job);
            let steps: Vec<Value> = events.iter().map(|event| step(event, now)).collect();
            json!({ "request_id": id, "steps": steps, "active": active.map(Active::json) })
        };
        let mut stories: Vec<Value> = events
            .chunk_by(|one, next| one.subject.job == next.subject.job)
            .map(story)
            .collect();
        let Some(mut latest) = stories.pop() else {
            return Err(ApiError::not_found(format!(
                "no request {id:?} is remembered"
            )));
        };
        latest["earlier"] = Value::Array(stories);
        visit.json(200, &latest)
    }

    /// `DELETE /api/requests/{id}`: ends the caller's requests of this id, in line or in their calls, with all who share
    /// these; and those who share another's, which goes on while somebody waits for it.
    pub(super) fn cancel(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let meant = |owner: &Owner| visit.caller.owns(owner);
        let (id, reason) = (visit.rest(), CancelReason::Requested);
        let count = self.engine.cancel(id, meant, reason) + self.resends.cancel(id, meant, reason);
        if count == 0 {
            return Err(ApiError::not_found(format!(
                "no request {:?} is active",
                visit.rest()
            )));
        }
        visit.json(
            200,
            &json!({ "request_id": visit.rest(), "cancelled": count }),
        )
    }

    /// The requests that have not ended and that the caller may see.
    fn active(&self, visit: &Visit<'_>) -> Vec<Active> {
        let attendance = self.resends.attendance();
        let of_job = |view: RequestView| Active {
            clients: attendance.get(&view.job).copied(),
            joined: None,
            view,
        };
        let mut active: Vec<Active> = self.engine.requests().into_iter().map(of_job).collect();
        let now = self.clock.now();
        let joiners = self.resends.joiners();
        active.extend(joiners.iter().filter_map(|(call, ear)| {
            let guest = ear.guest()?;
            Some(Active {
                view: guest.view(call, now),
                joined: guest.joined().cloned(),
                clients: None,
            })
        }));
        active.sort_by_key(|active| std::cmp::Reverse(active.view.age));
        active.retain(|active| visit.caller.owns(&active.view.owner));
        active
    }
}

fn providers_json(snapshot: &Snapshot, missing_keys: &BTreeMap<String, String>) -> Value {
    let core = &snapshot.core;
    let views = core.providers.iter().zip(&core.targets);
    let provider = |(name, (view, target)): (&Arc<str>, (&ProviderView, &TargetView))| {
        let missing = missing_keys.get(&**name);
        let body = json!({
            "in_use": view.in_use,
            "limit": view.limit,
            "limit_now": target.limit,
            "held_back": target.held_back,
            "waiting": view.waiting,
            "takes_calls": target.shut.is_none(),
            "shut_s": target.shut.map(|(left, _)| seconds(left)),
            "reason": target.shut.map(|(_, why)| why).or(target.breaker_reason).map(|why| why.to_string()),
            "breaker": target.breaker,
            "retry_tokens": (target.retry_tokens * 10.0).round() / 10.0,
            "available": missing.is_none(),
            "advice": missing,
        });
        (name.to_string(), body)
    };
    let views = snapshot.providers.iter().zip(views);
    Value::Object(views.map(provider).collect())
}

/// Where the time went, as answers and pages have it: seconds.
#[derive(Debug, Serialize)]
pub(super) struct PhaseSeconds {
    queue_s: f64,
    connect_s: f64,
    first_byte_s: f64,
    upstream_s: f64,
    total_s: f64,
}

impl From<&Phases> for PhaseSeconds {
    fn from(phases: &Phases) -> Self {
        PhaseSeconds {
            queue_s: seconds(phases.queue),
            connect_s: seconds(phases.connect),
            first_byte_s: seconds(phases.first_byte),
            upstream_s: seconds(phases.upstream),
            total_s: seconds(phases.total),
        }
    }
}

fn classes(snapshot: &Snapshot) -> Value {
    let class = |priority: Priority| {
        let view = snapshot.core.classes[priority.index()];
        (
            priority.to_string(),
            json!({ "waiting": view.waiting, "oldest_s": seconds(view.oldest) }),
        )
    };
    Value::Object(Priority::ALL.map(class).into_iter().collect())
}

fn step(event: &Event, now: Time) -> Value {
    json!({
        "seq": event.seq,
        "step": event.step.name(),
        "ago_s": seconds(now.since(event.at)),
        "took_s": event.took.map(seconds),
        "thread": event.thread.name(),
        "key": event.subject.key.as_deref(),
        "session": event.subject.session.as_deref(),
        "provider": event.subject.provider.as_deref(),
        "model": event.subject.model.as_deref(),
        "joined": event.subject.joined.as_deref(),
    })
}

/// A request that has not ended.
struct Active {
    view: RequestView,
    /// The request whose call it shares.
    joined: Option<Arc<str>>,
    /// How many clients wait for a call that can be joined.
    clients: Option<usize>,
}

impl Active {
    fn json(&self) -> Value {
        let view = &self.view;
        let state = match (&self.joined, view.phase) {
            (Some(_), _) => "JOINED",
            (None, Phase::Queue) => "IDLE",
            (None, Phase::BackOff) => "RETRYING",
            (None, Phase::Connect | Phase::FirstByte | Phase::Body) => "PROCESSING",
        };
        json!({
            "request_id": &*view.request_id,
            "key": view.owner.key().map(|key| &**key),
            "session_id": view.owner.session().map(|name| &**name),
            "priority": view.priority.to_string(),
            "provider": view.provider.as_deref(),
            "model": view.model.as_deref(),
            "state": state,
            "joined": self.joined.as_deref(),
            "clients": self.clients,
            "phase": view.phase.to_string(),
            "attempt": view.call.as_ref().map_or(0, |call| call.attempt),
            "age_s": seconds(view.age),
            "deadline_in_s": seconds(view.left),
            "phases": PhaseSeconds::from(&view.phases),
        })
    }
}

/// Seconds to the millisecond.
pub(super) fn seconds(length: Duration) -> f64 {
    (length.as_secs_f64() * 1000.0).round() / 1000.0
}
