//! A provider's connections and deadlines.

use std::time::Duration;

use super::ProviderKind;
use crate::config::profile::{PerProfile, Profile};
use crate::config::section::Section;
use crate::config::{HOUR, MAX_IN_FLIGHT, millis, secs};

/// `pool = { ... }`
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Connections at once; never below `max_inflight`.
    pub max_connections: usize,
    /// An idle connection is closed after so long.
    pub max_idle_age: Duration,
    /// A connection is closed after so long in all.
    pub max_age: Duration,
}

impl Pool {
    pub(super) fn default_for(max_inflight: usize, profile: Profile) -> Self {
        let connections = PerProfile {
            dev: 5,
            demo: 15,
            prod: 15,
        };
        Pool {
            max_connections: connections.of(profile).max(max_inflight),
            max_idle_age: secs(60),
            max_age: secs(600),
        }
    }

    /// A job that held its slots and waited for a connection would block others while it does nothing, so there are
    /// never fewer connections than calls.
    pub(super) fn read(section: &mut Section<'_>, max_inflight: usize, profile: Profile) -> Self {
        let default = Pool::default_for(max_inflight, profile);
        let pool = section.section("pool", |section| Pool {
            max_connections: section
                .count("max_connections", 1..=MAX_IN_FLIGHT)
                .unwrap_or(default.max_connections),
            max_idle_age: section
                .duration("max_idle_age", millis(100)..=24 * HOUR)
                .unwrap_or(default.max_idle_age),
            max_age: section
                .duration("max_age", secs(1)..=168 * HOUR)
                .unwrap_or(default.max_age),
        });
        if pool.max_connections < max_inflight {
            let message = format!(
                "{} is below {} ({max_inflight}), so that calls would wait for connections while they hold slots",
                pool.max_connections,
                section.full("max_inflight")
            );
            section.refuse_pair("pool.max_connections", "max_inflight", message);
        }
        pool
    }
}

/// `timeouts = { ... }`: the whole request's deadline, by operation.
///
/// A request gets the longer of its row here and of its kind's deadline in `[timeouts]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationTimeouts {
    /// Neither of the below.
    pub plain: Duration,
    /// With web search.
    pub web_search: Duration,
    /// With thinking.
    pub thinking: Duration,
    /// With both.
    pub web_search_thinking: Duration,
}

impl OperationTimeouts {
    /// Providers without a table of their own have the shortest deadline of `[timeouts]` in each row, so that the kind
    /// of request alone decides.
    pub(super) fn default_for(kind: ProviderKind, shortest: Duration) -> Self {
        let [plain, web_search, thinking, web_search_thinking] = match kind {
            ProviderKind::Kimi => [240, 300, 360, 420].map(secs),
            ProviderKind::Glm => [120, 300, 300, 420].map(secs),
            ProviderKind::OpenAi | ProviderKind::Embedded => [shortest; 4],
        };
        OperationTimeouts {
            plain,
            web_search,
            thinking,
            web_search_thinking,
        }
    }

    /// The longest row.
    pub fn longest(&self) -> Duration {
        let with_search = self.web_search.max(self.web_search_thinking);
        self.plain.max(self.thinking).max(with_search)
    }

    pub(super) fn read(section: &mut Section<'_>, kind: ProviderKind, shortest: Duration) -> Self {
        let default = Self::default_for(kind, shortest);
        let range = millis(1)..=24 * HOUR;
        section.section("timeouts", |section| OperationTimeouts {
            plain: section
                .duration("plain", range.clone())
                .unwrap_or(default.plain),
            web_search: section
                .duration("web_search", range.clone())
                .unwrap_or(default.web_search),
            thinking: section
                .duration("thinking", range.clone())
                .unwrap_or(default.thinking),
            web_search_thinking: section
                .duration("web_search_thinking", range.clone())
                .unwrap_or(default.web_search_thinking),
        })
    }
}
