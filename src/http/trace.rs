//! `GET /api/trace`: the requests of the last minute as a timeline, for Perfetto and its like.

use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::error::ApiError;
use super::{Api, Visit};
use crate::clock::Calendar;
use crate::telemetry::Trace;

/// How far back a timeline goes that nobody says it of.
const LAST: Duration = Duration::from_secs(60);

impl Api {
    /// `GET /api/trace?last=60s`: the caller's requests that were under way at any time since then, as far as they are
    /// remembered.
    pub(super) fn trace(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let last = last(visit.request.head.query.as_deref(), self.max_age)?;
        let calendar = Calendar::of(&*self.clock);
        let now = self.clock.now();
        let mut events = self.lifecycle.events(now);
        events.retain(|event| visit.caller.may_see(event.subject.key.as_deref()));
        let trace = Trace::of(&events, now - last, now, &calendar);
        let body = serde_json::to_vec(&trace);
        visit.bytes(
            200,
            body.map_err(|error| ApiError::internal(error.to_string()))?,
        )
    }
}

/// What the query says of how far back to go.
fn last(query: Option<&str>, most: Duration) -> Result<Duration, ApiError> {
    let accepted = || {
        format!(
            "accepted: last, a duration such as 60s or 5m, at most {} (telemetry.max_age)",
            humantime::format_duration(most)
        )
    };
    let mut found = None;
    let pairs = query.unwrap_or_default().split('&');
    for pair in pairs.filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let shown: String = percent_decode_str(value)
            .decode_utf8_lossy()
            .chars()
            .take(60)
            .collect();
        if name != "last" {
            let name: String = name.chars().take(60).collect();
            let message = format!("the query has {name:?}; {}", accepted());
            return Err(ApiError::invalid(message, None));
        }
        let length = humantime::parse_duration(&shown).ok();
        let length = length.filter(|length| !length.is_zero() && *length <= most);
        let length = length.ok_or_else(|| {
            ApiError::invalid(format!("last is {shown:?}; {}", accepted()), Some("last"))
        });
        found = Some(length?);
    }
    Ok(found.unwrap_or(LAST.min(most)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_minute_is_told_unless_the_query_says_otherwise() {
        for (query, seconds) in [
            (None, 60),
            (Some(""), 60),
            (Some("last=5m"), 300),
            (Some("last=1m%2030s"), 90),
            (Some("last=1h"), 3_600),
        ] {
            let found = last(query, HOUR).map(|last| last.as_secs());
            assert_eq!(found, Ok(seconds), "{query:?}");
        }
        let short = Duration::from_secs(5);
        assert_eq!(last(None, short), Ok(short));
    }

    #[test]
    fn what_is_not_accepted_is_told_with_what_is() {
        for query in [
            "last=",
            "last",
            "last=0s",
            "last=-5s",
            "last=soon",
            "last=61m",
            "last=60",
            "since=5s",
        ] {
            let error = last(Some(query), HOUR).expect_err(query);
            assert_eq!(error.status, 400, "{query}");
            let accepted = "at most 1h (telemetry.max_age)";
            assert!(error.message.ends_with(accepted), "{}", error.message);
        }
    }
}
