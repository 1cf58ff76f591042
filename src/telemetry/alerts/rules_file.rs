//! The same rules for Prometheus: `pointsman print prometheus-rules`.

use std::fmt::Write;
use std::time::Duration;

use super::words;
use crate::config::{AlertKind, AlertRule, Alerts};

/// What stands for calls and requests in the shares of [`expression`].
const CALLS: &str = "pointsman_upstream_responses_total";
const REQUESTS: &str = "pointsman_requests_total";

/// A file of rules for Prometheus, as YAML: the same thresholds, windows and patience as in the configuration. What is
/// switched off there is left out.
pub fn prometheus_rules(config: &Alerts) -> String {
    let mut file = String::from(
        "# Rules for Prometheus over the metrics of pointsman: `pointsman print prometheus-rules`.\n\
         groups:\n  - name: pointsman\n    rules:\n",
    );
    for rule in config.rules.iter().filter(|rule| rule.enabled) {
        let expression = expression(rule, config.min_calls);
        // Writing into a text can't fail.
        let _ = write!(
            file,
            "      - alert: Pointsman{}\n        expr: {}\n        for: {}\n        labels:\n          severity: warning\n          \
             rule: {}\n        annotations:\n          summary: {}\n          description: {}\n",
            camel(rule.kind),
            quoted(&expression),
            seconds(rule.hold),
            rule.kind,
            quoted(&format!(
                "pointsman: {{{{ $value }}}} {}",
                words::figure(rule.kind)
            )),
            quoted(words::advice(rule.kind)),
        );
    }
    file
}

/// When the rule holds.
fn expression(rule: &AlertRule, min_calls: u64) -> String {
    let above = rule.threshold;
    let window = rule.window.map(seconds).unwrap_or_default();
    let increase = |what: &str| format!("sum(increase({what}[{window}]))");
    let share = |part: &str, all: &str| {
        let (part, all) = (increase(part), increase(all));
        format!("{part} / {all} > {above} and {all} >= {min_calls}")
    };
    match rule.kind {
        AlertKind::QueueDepth => {
            format!("sum(pointsman_queue_length) / sum(pointsman_queue_capacity) > {above}")
        }
        AlertKind::QueueAge => format!("max(pointsman_queue_oldest_seconds) > {above}"),
        AlertKind::Refusals => {
            let reasons = "stopping|no_key|not_allowed|malformed|no_model";
            let refused = increase(&format!(
                "pointsman_rejected_total{{reason!~\"{reasons}\"}}"
            ));
            format!("{refused} > {above}")
        }
        AlertKind::Timeouts => {
            let timeouts = increase(&format!("{REQUESTS}{{outcome=\"timeout\"}}"));
            format!("{timeouts} > {above}")
        }
        AlertKind::Leaks => format!(
            "{} > {above}",
            increase("pointsman_semaphore_leaks_detected_total{semaphore_type=\"global\"}")
        ),
        AlertKind::Recoveries => format!(
            "{} > {above}",
            increase("pointsman_semaphore_recoveries_total{semaphore_type=\"global\"}")
        ),
        AlertKind::Audit => format!("{} > {above}", increase("pointsman_audit_mismatch_total")),
        AlertKind::Saturation => format!(
            "count((pointsman_slots_in_use{{semaphore_type!=\"session\"}} >= pointsman_slots_limit) and on() (sum(pointsman_queue_length) > 0)) > {above}"
        ),
        AlertKind::CutCalls => {
            let phases = "connect|first_byte|body|connect_timeout|first_byte_timeout|idle_timeout";
            let cut = format!("pointsman_deadline_exceeded_total{{phase=~\"{phases}\"}}");
            share(&cut, CALLS)
        }
        AlertKind::Retries => share("pointsman_retries_total", CALLS),
        AlertKind::BreakerOpen => format!("count(pointsman_breaker_state == 2) > {above}"),
        AlertKind::Pool => share(
            "pointsman_pool_failed_total",
            "pointsman_pool_checkins_total",
        ),
        AlertKind::Errors => share(&format!("{REQUESTS}{{outcome=\"error\"}}"), REQUESTS),
        AlertKind::NewError => {
            let errors = format!("{CALLS}{{code!=\"200\"}}");
            let by = "sum by (provider, code)";
            format!(
                "count(({by} (increase({errors}[5m])) > 0) unless ({by} (increase({errors}[{window}] offset 5m)) > 0)) > {above}"
            )
        }
        AlertKind::Box => format!("max(pointsman_load_level) > {above}"),
    }
}

/// A duration as Prometheus has it.
fn seconds(length: Duration) -> String {
    format!("{}s", length.as_secs())
}

/// `QueueDepth` for `queue_depth`.
fn camel(kind: AlertKind) -> String {
    let parts = kind.word().split('_');
    let part = |part: &str| {
        let mut letters = part.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    parts.map(part).collect()
}

/// A text in YAML; what JSON takes YAML takes too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
