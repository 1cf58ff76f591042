//! What a webhook is sent: the body for each kind, and what its answer means.

use serde_json::{Value, json};

use super::evaluate::{Alert, Change, Transition};
use crate::config::{Webhook, WebhookKind};

/// The body of a message.
pub(super) fn body(webhook: &Webhook, change: &Transition, host: &str) -> Vec<u8> {
    let body = match webhook.kind {
        WebhookKind::Slack => slack(change, host),
        WebhookKind::PagerDuty => pagerduty(change, host, webhook.key.as_deref().unwrap_or("")),
        WebhookKind::Json => {
            json!({ "event": word(change.change), "host": host, "alert": alert(&change.alert) })
        }
    };
    body.to_string().into_bytes()
}

/// The headers that a message has besides those of every request.
pub(super) fn headers(webhook: &Webhook) -> Vec<(&'static str, String)> {
    match (webhook.kind, &webhook.key) {
        (WebhookKind::Json, Some(key)) => vec![("Authorization", format!("Bearer {key}"))],
        _ => Vec::new(),
    }
}

/// An alert as pages and `json` webhooks have it.
pub(super) fn alert(alert: &Alert) -> Value {
    let acknowledged = alert.acknowledged.as_ref();
    json!({
        "id": alert.id,
        "rule": alert.kind.word(),
        "summary": alert.summary(),
        "advice": alert.advice(),
        "value": alert.value,
        "peak": alert.peak,
        "threshold": alert.rule.threshold,
        "detail": alert.detail,
        "raised": alert.raised,
        "since": alert.since(),
        "acknowledged_by": acknowledged.map(|(by, _)| by),
        "acknowledged": acknowledged.map(|(_, at)| at),
        "resolved": alert.resolved,
    })
}

pub(super) const fn word(change: Change) -> &'static str {
    match change {
        Change::Raised => "raised",
        Change::Acknowledged => "acknowledged",
        Change::Resolved => "resolved",
    }
}

fn slack(change: &Transition, host: &str) -> Value {
    let alert = &change.alert;
    let text = match change.change {
        Change::Raised => format!(
            "pointsman on {host}: {}\nsince {}, {}\nWhat to do: {}",
            alert.summary(),
            alert.since(),
            alert.id,
            alert.advice()
        ),
        Change::Acknowledged => {
            let by = alert.acknowledged.as_ref().map_or("", |(by, _)| by);
            format!("pointsman on {host}: {} is seen by {by}", alert.id)
        }
        Change::Resolved => format!("pointsman on {host}: {} is over", alert.id),
    };
    // Slack takes these three for its own marks.
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    json!({ "text": text.replace('>', "&gt;") })
}

fn pagerduty(change: &Transition, host: &str, key: &str) -> Value {
    let alert = &change.alert;
    let action = match change.change {
        Change::Raised => "trigger",
        Change::Acknowledged => "acknowledge",
        Change::Resolved => "resolve",
    };
    let mut event = json!({
        "routing_key": key,
        "event_action": action,
        "dedup_key": format!("pointsman/{host}/{}", alert.id),
    });
    if change.change == Change::Raised {
        event["client"] = "pointsman".into();
        event["payload"] = json!({
            // Its bound.
            "summary": alert.summary().chars().take(1024).collect::<String>(),
            "source": host,
            "severity": "warning",
            "component": "pointsman",
            "class": alert.kind.word(),
            "timestamp": alert.since(),
            "custom_details": self::alert(alert),
        });
    }
    event
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was told.
    Told,
    /// The same again may help.
    Again,
    /// The same again will be refused again.
    Refused,
}

/// What the status of an answer means.
pub(super) const fn verdict(status: u16) -> Verdict {
    match status {
        200..=299 => Verdict::Told,
        408 | 425 | 429 | 500..=599 => Verdict::Again,
        _ => Verdict::Refused,
    }
}
