//! `/api/connection-pool/...`: the connections to the providers.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::{Api, Visit};
use crate::engine::{PoolStats, Probe, ProbeEnd, Verdict};

/// With fewer calls than this nothing is said of how their connections do.
const ENOUGH: u64 = 10;

impl Api {
    /// `GET /api/connection-pool/status`: what there is, and what has become of it since the counts were reset.
    pub(super) fn pool_status(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        visit.json(200, &json!({ "providers": self.pools_json() }))
    }

    /// The same, by the names of the providers.
    pub(super) fn pools_json(&self) -> Value {
        self.by_pool(status)
    }

    /// `GET /api/connection-pool/health`: what stands out in that, with what may be done about it.
    pub(super) fn pool_health(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let pools = self.engine.pools();
        let is_fine = pools.iter().all(|(_, stats)| advice(stats).is_empty());
        let providers = self.by_pool(|stats| {
            let advice = advice(stats);
            json!({ "status": word(advice.is_empty()), "recommendations": advice })
        });
        let body = json!({ "status": word(is_fine), "providers": providers });
        visit.json(200, &body)
    }

    /// `POST /api/connection-pool/test`: asks each provider that has what it needs for its list of models, which costs
    /// nothing.
    pub(super) fn pool_test(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let terms = visit.terms;
        let without_key = |name: &str| terms.missing_keys.contains_key(name);
        let ends = self
            .engine
            .probe(visit.request_id, terms.test_within, without_key);
        let mut providers: Map<String, Value> = ends.iter().map(tested).collect();
        for (name, advice) in &terms.missing_keys {
            let body = json!({ "reachable": null, "detail": advice });
            providers.insert(name.clone(), body);
        }
        visit.json(200, &json!({ "providers": providers }))
    }

    /// `POST /api/connection-pool/reset-metrics`: begins to count anew. With keys configured, for an admin's.
    pub(super) fn pool_reset(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        if !visit.caller.is_admin() {
            return Err(ApiError::admin_only());
        }
        self.engine.reset_pools();
        visit.json(200, &json!({ "reset": true }))
    }

    /// In short, for `/healthz`.
    pub(super) fn pool_summary(&self) -> Value {
        let pools = self.engine.pools();
        let (active, idle) = pools.iter().fold((0, 0), |(active, idle), (_, stats)| {
            (active + stats.active, idle + stats.idle)
        });
        json!({ "active": active, "idle": idle })
    }

    fn by_pool(&self, describe: impl Fn(&PoolStats) -> Value) -> Value {
        let pools = self.engine.pools();
        let described = pools
            .iter()
            .map(|(name, stats): &(Arc<str>, PoolStats)| (name.to_string(), describe(stats)));
        Value::Object(described.collect())
    }
}

fn word(is_fine: bool) -> &'static str {
    if is_fine { "ok" } else { "attention" }
}

fn status(stats: &PoolStats) -> Value {
    json!({
        "active": stats.active,
        "idle": stats.idle,
        "max": stats.max,
        "peak": stats.peak,
        "utilisation": share(stats.active as u64, stats.max as u64),
        "checkouts": stats.checkouts,
        "reused": stats.reused,
        "checkins": stats.checkins,
        "failed": stats.failed,
        "recycled": stats.recycled,
    })
}

/// Hundredths.
fn share(part: u64, of: u64) -> f64 {
    match of {
        0 => 0.0,
        of => (part as f64 / of as f64 * 100.0).round() / 100.0,
    }
}

/// What may be done better, in words.
fn advice(stats: &PoolStats) -> Vec<String> {
    let mut advice = Vec::new();
    if stats.active >= stats.max {
        advice.push(format!(
            "all {} places are taken: further calls make connections that are not kept; raise pool.max_connections",
            stats.max
        ));
    }
    if stats.checkins < ENOUGH {
        return advice;
    }
    if stats.failed * 5 > stats.checkins {
        advice.push(format!(
            "{} of {} calls left no connection that can be used again: it closes them, or calls are cut",
            stats.failed, stats.checkins
        ));
    }
    if stats.recycled * 2 > stats.checkins {
        advice.push(format!(
            "{} connections were closed for their age in {} calls; raise pool.max_idle_age if it keeps them for longer",
            stats.recycled, stats.checkins
        ));
    }
    advice
}

fn tested(ended: &ProbeEnd) -> (String, Value) {
    let detail = match (&ended.found, &ended.end.verdict) {
        (Some(Probe::Accepted(_)), _) => "it answers, and takes the key if there is one".to_owned(),
        (Some(Probe::Reached), _) => "it answers; it has no list of models to ask for".to_owned(),
        (Some(Probe::InProcess), _) => "it is in this process".to_owned(),
        (None, Verdict::Failed(error)) => error.message.clone(),
        (None, verdict) => verdict.reason(),
    };
    let body = json!({
        "reachable": ended.found.is_some(),
        "took_s": ended.end.phases.upstream.as_secs_f64(),
        "detail": detail,
    });
    (ended.provider.to_string(), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_stands_out_in_a_pool_that_does_its_work() {
        let busy = PoolStats {
            active: 4,
            idle: 1,
            max: 5,
            checkins: 1_000,
            failed: 200,
            recycled: 500,
            ..PoolStats::default()
        };
        assert_eq!(advice(&busy), [""; 0]);
        let few = PoolStats {
            max: 5,
            checkins: 9,
            failed: 9,
            recycled: 9,
            ..PoolStats::default()
        };
        assert_eq!(advice(&few), [""; 0], "too few to judge by");
    }

    #[test]
    fn what_stands_out_is_told_with_what_may_be_done() {
        let poor = PoolStats {
            active: 5,
            max: 5,
            checkins: 10,
            failed: 3,
            recycled: 6,
            ..PoolStats::default()
        };
        let advice = advice(&poor);
        assert_eq!(advice.len(), 3);
        for (said, word) in advice
            .iter()
            .zip(["max_connections", "3 of 10", "max_idle_age"])
        {
            assert!(said.contains(word), "{said}");
        }
    }

    #[test]
    fn a_share_has_two_digits_and_nothing_of_nothing_is_none() {
        assert_eq!((share(1, 3), share(0, 0)), (0.33, 0.0));
    }
}
