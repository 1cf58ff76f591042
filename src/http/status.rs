//! The operation routes: is it alive, is it ready, what is it doing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::error::ApiError;
use super::{Api, Visit};
use crate::config::Priority;
use crate::engine::{ProviderView, Snapshot, TargetView};

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
        visit.json(200, &self.status_json(visit))
    }

    pub(super) fn status_json(&self, visit: &Visit<'_>) -> Value {
        let snapshot = self.engine.snapshot();
        let statistics = self.lifecycle.statistics();
        let (core, crew) = (&snapshot.core, &snapshot.workers);
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "profile": visit.terms.profile.to_string(),
            "uptime_s": seconds(self.clock.now().since(self.started)),
            "state": if core.stopping { "stopping" } else { "serving" },
            "slots": {
                "global": { "in_use": core.in_use, "limit": core.limit, "limit_now": core.limit_now, "peak": core.peak },
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
            "throttle": self.throttle_summary(),
            "resources": self.resources(),
            "lifecycle": {
                "remembered": statistics.recorded - statistics.forgotten,
                "forgotten": statistics.forgotten,
                "file": self.lifecycle.file(),
            },
        })
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

/// Seconds to the millisecond.
pub(super) fn seconds(length: Duration) -> f64 {
    (length.as_secs_f64() * 1000.0).round() / 1000.0
}
