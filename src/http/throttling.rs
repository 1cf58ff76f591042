//! `/api/throttling/...`: how loaded the box is, what of the global limit that leaves, and a hand on it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::{Api, Visit};
use crate::engine::{Force, Level, Readings, Resource, Snapshot, ThrottleChange, ThrottleView};

/// How long an adjustment holds whose sender doesn't say.
const USUAL: Duration = Duration::from_secs(60);

impl Api {
    /// `GET /api/throttling/status`: the level and why, the limit and its bounds, and how both came about.
    pub(super) fn throttle_status(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        visit.json(200, &self.throttling())
    }

    /// `GET /api/throttling/metrics`: what was read of the box, what is believed of it, and what was made of that.
    pub(super) fn throttle_metrics(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let now = self.clock.now();
        let samples = self.engine.throttle_samples();
        let samples = samples.iter().map(|sample| {
            json!({
                "ago_s": seconds(now.since(sample.at)),
                "raw": readings(&sample.raw),
                "smoothed": readings(&sample.smoothed),
                "level": sample.level.name(),
                "limit": sample.limit,
            })
        });
        let body = json!({
            "resources": self.resources(),
            "samples": samples.collect::<Vec<_>>(),
        });
        visit.json(200, &body)
    }

    /// `GET /api/throttling/concurrency`: the global limit in force, what holds it there, and who uses it.
    pub(super) fn throttle_concurrency(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let snapshot = self.engine.snapshot();
        let (core, throttle) = (&snapshot.core, self.engine.throttle());
        let (held_by, why) = holder(&snapshot, &throttle);
        let body = json!({
            "limit": core.limit_now,
            "configured": core.limit,
            "workers": snapshot.workers.alive,
            "held_by": held_by,
            "why": why,
            "in_use": core.in_use,
            "draining": core.in_use.saturating_sub(core.limit_now),
            "waiting": core.waiting,
            "refuses_low": core.refuses_low,
        });
        visit.json(200, &body)
    }

    /// `POST /api/throttling/force-adjustment`: holds a limit or a level for a while. With keys configured, for an admin's.
    pub(super) fn throttle_force(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        if !visit.caller.is_admin() {
            return Err(ApiError::admin_only());
        }
        let throttle = self.engine.throttle();
        let wish = Wish::read(&visit.request.body)?;
        let force = wish.check(throttle.bounds, throttle.force_max)?;
        self.engine.force_throttle(force);
        visit.json(200, &self.throttling())
    }

    /// In short, for `/api/status`.
    pub(super) fn throttle_summary(&self) -> Value {
        let view = self.engine.throttle();
        json!({ "enabled": view.enabled, "level": view.level.name(), "why": view.why })
    }

    /// What was seen of the box and of this process last.
    pub(super) fn resources(&self) -> Value {
        let seen = self.engine.resources();
        // Numbers and names alone: nothing in it could fail to become JSON.
        seen.map_or(Value::Null, |seen| {
            serde_json::to_value(&*seen).unwrap_or_default()
        })
    }

    fn throttling(&self) -> Value {
        // What is admitted is the core's word; all the rest is the throttle's.
        let core = self.engine.snapshot().core;
        let view = self.engine.throttle();
        let (min, max) = view.bounds;
        json!({
            "enabled": view.enabled,
            "level": view.level.name(),
            "for_s": seconds(view.for_so_long),
            "why": view.why,
            "limit": { "now": core.limit_now, "configured": core.limit, "min": min, "max": max },
            "refuses_low": core.refuses_low,
            "forced": view.forced.map(|(force, left)| match force {
                Force::Limit(limit) => json!({ "limit": limit, "left_s": seconds(left) }),
                Force::Level(level) => json!({ "level": level.name(), "left_s": seconds(left) }),
            }),
            "raw": readings(&view.raw),
            "smoothed": readings(&view.smoothed),
            "rising": view.rising.map(|(level, length)| {
                json!({ "to": level.name(), "for_s": seconds(length) })
            }),
            "falling_for_s": view.falling.map(seconds),
            "changes": changes(&view),
        })
    }
}

/// What holds the global limit where it is: a word, and a sentence.
fn holder(snapshot: &Snapshot, throttle: &ThrottleView) -> (&'static str, String) {
    let core = &snapshot.core;
    if snapshot.workers.wanted < core.limit_now {
        let why = format!(
            "there are {} workers (engine.workers)",
            snapshot.workers.wanted
        );
        ("workers", why)
    } else if core.limit_now < core.limit {
        let why = format!(
            "the throttle leaves {} of {}: level {}, {}",
            core.limit_now, core.limit, throttle.level, throttle.why
        );
        ("throttle", why)
    } else {
        let why = "it is as configured (limits.global)".to_owned();
        ("configuration", why)
    }
}

fn changes(view: &ThrottleView) -> Vec<Value> {
    let change = |(change, ago): &(ThrottleChange, Duration)| {
        json!({
            "ago_s": seconds(*ago),
            "level": { "from": change.level.0.name(), "to": change.level.1.name() },
            "limit": { "from": change.limit.0, "to": change.limit.1 },
            "why": change.why,
        })
    };
    view.changes.iter().map(change).collect()
}

/// Thousandths.
fn readings(readings: &Readings) -> Value {
    let rounded = |share: f64| (share * 1000.0).round() / 1000.0;
    let named = |resource: Resource| {
        let share = readings.of(resource).map(rounded);
        (resource.name().to_owned(), json!(share))
    };
    Value::Object(Resource::ALL.map(named).into_iter().collect())
}

fn seconds(length: Duration) -> f64 {
    (length.as_secs_f64() * 1000.0).round() / 1000.0
}

/// What somebody wants of the throttle.
#[derive(Debug, PartialEq)]
enum Wish {
    Limit(Value, Option<Value>),
    Level(Value, Option<Value>),
    Release,
}

impl Wish {
    fn read(body: &[u8]) -> Result<Wish, ApiError> {
        let accepted = "accepted is one of {\"limit\": 3, \"for\": \"60s\"}, {\"level\": \"high\", \"for\": \"60s\"} and \
                        {\"release\": true}";
        let wrong = |what: String, key: Option<&str>| {
            Err(ApiError::invalid(format!("{what}; {accepted}"), key))
        };
        let mut fields: Map<String, Value> = match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return wrong("the body is no object".into(), None),
            Err(error) => return wrong(format!("the body is not JSON: {error}"), None),
        };
        let mut take = |key: &str| fields.remove(key);
        let (limit, level, release, length) =
            (take("limit"), take("level"), take("release"), take("for"));
        if let Some(key) = fields.keys().next() {
            return wrong(format!("{key:?} is not known"), Some(key));
        }
        match (limit, level, release, length) {
            (Some(limit), None, None, length) => Ok(Wish::Limit(limit, length)),
            (None, Some(level), None, length) => Ok(Wish::Level(level, length)),
            (None, None, Some(Value::Bool(true)), None) => Ok(Wish::Release),
            (None, None, Some(_), None) => wrong("release is not true".into(), Some("release")),
            (None, None, Some(_), Some(_)) => wrong("a release is for ever".into(), Some("for")),
            (None, None, None, _) => wrong("there is nothing to do".into(), None),
            _ => wrong("limit, level and release say different things".into(), None),
        }
    }

    /// What it comes to, within these bounds; `None`: let go.
    fn check(
        self,
        bounds: (usize, usize),
        longest: Duration,
    ) -> Result<Option<(Force, Duration)>, ApiError> {
        let (force, length) = match self {
            Wish::Release => return Ok(None),
            Wish::Limit(limit, length) => (Force::Limit(within(&limit, bounds)?), length),
            Wish::Level(level, length) => (Force::Level(named(&level)?), length),
        };
        let Some(length) = length else {
            return Ok(Some((force, USUAL.min(longest))));
        };
        let read = length
            .as_str()
            .and_then(|text| humantime::parse_duration(text).ok());
        match read.filter(|length| !length.is_zero() && *length <= longest) {
            Some(length) => Ok(Some((force, length))),
            None => {
                let longest = humantime::format_duration(longest);
                let message = format!(
                    "for is {length}, accepted is a duration such as \"60s\", at most \"{longest}\" (throttle.force_max)"
                );
                Err(ApiError::invalid(message, Some("for")))
            }
        }
    }
}

fn within(limit: &Value, (min, max): (usize, usize)) -> Result<usize, ApiError> {
    let read = limit.as_u64().and_then(|limit| usize::try_from(limit).ok());
    read.filter(|limit| (min..=max).contains(limit)).ok_or_else(|| {
        let message = format!(
            "limit is {limit}, accepted is a whole number from {min} to {max} (throttle.min, throttle.max)"
        );
        ApiError::invalid(message, Some("limit"))
    })
}

fn named(level: &Value) -> Result<Level, ApiError> {
    let read = level.as_str().map(str::parse::<Level>);
    read.unwrap_or_else(|| level.to_string().parse())
        .map_err(|message| ApiError::invalid(format!("level: {message}"), Some("level")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a body where the bounds are 2 to 10, and an hour.
    fn read(body: &str) -> Result<Option<(Force, Duration)>, String> {
        let longest = Duration::from_secs(3600);
        let wish = Wish::read(body.as_bytes()).and_then(|wish| wish.check((2, 10), longest));
        wish.map_err(|error| {
            assert_eq!(error.status, 400);
            error.message
        })
    }

    #[test]
    fn a_wish_says_a_limit_or_a_level_and_for_how_long() {
        let secs = Duration::from_secs;
        for (body, wish) in [
            (
                r#"{"limit": 3, "for": "90s"}"#,
                Some((Force::Limit(3), secs(90))),
            ),
            (r#"{"limit": 10}"#, Some((Force::Limit(10), secs(60)))),
            (
                r#"{"level": "emergency", "for": "1h"}"#,
                Some((Force::Level(Level::Emergency), secs(3600))),
            ),
            (r#"{"release": true}"#, None),
        ] {
            assert_eq!(read(body), Ok(wish), "{body}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_wish_is_said() {
        for (body, said) in [
            ("", "not JSON"),
            ("[]", "no object"),
            ("{}", "nothing to do"),
            (r#"{"for": "1s"}"#, "nothing to do"),
            (r#"{"limit": 3, "level": "low"}"#, "different things"),
            (r#"{"limit": 3, "until": 4}"#, "\"until\" is not known"),
            (
                r#"{"limit": 1}"#,
                "from 2 to 10 (throttle.min, throttle.max)",
            ),
            (r#"{"limit": 11}"#, "limit is 11,"),
            (r#"{"limit": -1}"#, "limit is -1,"),
            (r#"{"limit": "3"}"#, "limit is \"3\","),
            (
                r#"{"level": "loud"}"#,
                "accepted are low, normal, high, critical, emergency",
            ),
            (r#"{"level": 3}"#, "is no level"),
            (
                r#"{"limit": 3, "for": "2h"}"#,
                "at most \"1h\" (throttle.force_max)",
            ),
            (r#"{"limit": 3, "for": "0s"}"#, "for is \"0s\""),
            (r#"{"limit": 3, "for": 60}"#, "for is 60"),
            (r#"{"release": false}"#, "release is not true"),
            (r#"{"release": true, "for": "1s"}"#, "for ever"),
        ] {
            let message = read(body).expect_err(body);
            assert!(message.contains(said), "{body}: {message}");
        }
    }
}
