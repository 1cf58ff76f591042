//! What an alert says: what, how much, since when, and what to do.

use std::time::{Duration, SystemTime};

use super::evaluate::{Alert, Change, Transition};
use crate::config::AlertKind;

impl Alert {
    /// What, and how much: `85 % of the places in line are taken (85 of 100 places); more than 80 % is too many`.
    pub fn summary(&self) -> String {
        let (kind, value, threshold) = (self.kind, self.value, self.rule.threshold);
        let over = match self.rule.window {
            Some(window) => format!(" in the last {}", humantime::format_duration(window)),
            None => String::new(),
        };
        let detail = match self.detail.as_str() {
            "" => String::new(),
            detail => format!(" ({detail})"),
        };
        let what = what(kind);
        match unit(kind) {
            Unit::Share => format!(
                "{} % {what}{over}{detail}; raised above {} %",
                hundredths(value),
                hundredths(threshold)
            ),
            Unit::Count => format!("{value} {what}{over}{detail}; raised above {threshold}"),
            Unit::PerCall => format!("{value:.2} {what}{over}{detail}; raised above {threshold}"),
            Unit::Seconds => format!("{what} for {value:.0} s{detail}; raised above {threshold} s"),
            Unit::Level => {
                let (level, threshold) = (level(value), level(threshold));
                format!("{what} {level}{detail}; raised above {threshold}")
            }
        }
    }

    /// Since when: `2026-11-21T19:05:10Z`.
    pub fn since(&self) -> String {
        let raised = SystemTime::UNIX_EPOCH + Duration::from_secs(self.raised);
        humantime::format_rfc3339_seconds(raised).to_string()
    }

    /// What to do about it.
    pub const fn advice(&self) -> &'static str {
        advice(self.kind)
    }
}

/// What the figures of a rule are.
enum Unit {
    Share,
    Count,
    PerCall,
    Seconds,
    Level,
}

const fn unit(kind: AlertKind) -> Unit {
    match kind {
        AlertKind::QueueDepth | AlertKind::CutCalls | AlertKind::Pool | AlertKind::Errors => {
            Unit::Share
        }
        AlertKind::Retries => Unit::PerCall,
        AlertKind::QueueAge => Unit::Seconds,
        AlertKind::Box => Unit::Level,
        AlertKind::Refusals
        | AlertKind::Timeouts
        | AlertKind::Leaks
        | AlertKind::Recoveries
        | AlertKind::Saturation
        | AlertKind::BreakerOpen
        | AlertKind::Audit
        | AlertKind::NewError => Unit::Count,
    }
}

const fn what(kind: AlertKind) -> &'static str {
    match kind {
        AlertKind::QueueDepth => "of the places in line are taken",
        AlertKind::QueueAge => "the oldest request has been in line",
        AlertKind::Refusals => "requests were turned away for want of room",
        AlertKind::Timeouts => "requests ran out of time",
        AlertKind::Leaks => "slots had no living owner",
        AlertKind::Recoveries => "repairs of leaked slots",
        AlertKind::Saturation => "limits are full while somebody waits",
        AlertKind::CutCalls => "of the calls were cut by a timeout of ours",
        AlertKind::Retries => "repetitions per call",
        AlertKind::BreakerOpen => "providers take no calls, because their breaker is open",
        AlertKind::Audit => "audits found the books wrong",
        AlertKind::Pool => "of the calls left no connection that can be used again",
        AlertKind::Errors => "of the requests failed",
        AlertKind::NewError => "errors of providers that are new",
        AlertKind::Box => "the load of the box is",
    }
}

/// What the figure of a rule is, behind its value: in seconds, or as a share of 1.
pub(super) const fn figure(kind: AlertKind) -> &'static str {
    match kind {
        AlertKind::QueueAge => "seconds that the oldest request has been in line",
        AlertKind::Box => "is the load of the box (0 low to 4 emergency)",
        other => what(other),
    }
}

/// What to do about an alert of this kind.
pub(super) const fn advice(kind: AlertKind) -> &'static str {
    match kind {
        AlertKind::QueueDepth | AlertKind::QueueAge => {
            "see /api/requests for who holds the slots; raise limits.global or the provider's max_inflight if the account \
             allows it, or send less at once"
        }
        AlertKind::Refusals => {
            "see rejected_total for why; raise queue.capacity or a limit, or have clients heed Retry-After"
        }
        AlertKind::Timeouts => {
            "see deadline_exceeded_total for where the time goes: in line (raise a limit), or in the call (raise the \
             provider's timeouts, or ask a quicker model)"
        }
        AlertKind::Leaks | AlertKind::Recoveries | AlertKind::Audit => {
            "a fault of the gateway: keep its log, see /api/semaphores and /healthz, and report it; a restart repairs it"
        }
        AlertKind::Saturation => {
            "see /api/requests for who holds the slots, and cancel what nobody waits for; raise the limit if the account \
             allows it"
        }
        AlertKind::CutCalls => {
            "raise the provider's timeouts if its answers are healthy but long; see /api/connection-pool/test if it hangs"
        }
        AlertKind::Retries => {
            "see retries_total for why: for 429 lower the provider's max_inflight; for 5xx see the provider's status page"
        }
        AlertKind::BreakerOpen => {
            "see /api/status for the reason: set another key, fill the account, or wait until the provider is well; \
             routing.fallback lets another step in"
        }
        AlertKind::Pool => {
            "see /api/connection-pool/health; a proxy or firewall between may close connections, or calls are cut"
        }
        AlertKind::Errors => {
            "see upstream_responses_total and the log for which provider says what"
        }
        AlertKind::NewError => {
            "see the log for what the provider said; a model, key or plan may have changed"
        }
        AlertKind::Box => {
            "see what else runs on the box; the gateway lowers its own limit meanwhile"
        }
    }
}

/// Per cent, without more digits than anybody reads.
fn hundredths(share: f64) -> f64 {
    (share * 1000.0).round() / 10.0
}

fn level(value: f64) -> &'static str {
    const LEVELS: [&str; 5] = ["low", "normal", "high", "critical", "emergency"];
    LEVELS[(value.max(0.0) as usize).min(LEVELS.len() - 1)]
}

/// Tells the log.
pub(super) fn log(change: &Transition) {
    let alert = &change.alert;
    match change.change {
        Change::Raised => log::warn!(
            "alert {}: {}; since {}; what to do: {}",
            alert.id,
            alert.summary(),
            alert.since(),
            alert.advice()
        ),
        Change::Acknowledged => {
            let by = alert.acknowledged.as_ref().map_or("", |(by, _)| by);
            log::info!("alert {}: acknowledged by {by:?}", alert.id);
        }
        Change::Resolved => {
            let lasted = alert
                .resolved
                .unwrap_or(alert.raised)
                .saturating_sub(alert.raised);
            let lasted = humantime::format_duration(Duration::from_secs(lasted));
            log::info!("alert {}: over after {lasted}", alert.id);
        }
    }
}
