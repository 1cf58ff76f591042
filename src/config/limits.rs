//! `[limits]`: counting semaphores, and who counts as a session.

use std::time::Duration;

use super::adaptive::{Adaptive, Gate};
use super::profile::{PerProfile, Profile};
use super::section::Section;
use super::{HOUR, MAX_IN_FLIGHT, millis, secs};

/// `[limits]`
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Calls in flight in all.
    pub global: usize,
    /// Calls in flight of one session.
    pub session: usize,
    /// Sessions with running jobs at once.
    pub sessions: usize,
    /// A session unused for so long is forgotten.
    pub session_idle: Duration,
    /// How long a session keeps its place while one session too many waits for it.
    pub session_turn: Duration,
    /// How the limit of a provider follows what it takes.
    pub adaptive: Adaptive,
    /// How a provider is left alone that asks for it.
    pub gate: Gate,
}

impl Limits {
    pub(super) fn read(section: &mut Section<'_>, profile: Profile) -> Self {
        let global = PerProfile {
            dev: 5,
            demo: 15,
            prod: 24,
        };
        let session = PerProfile {
            dev: 2,
            demo: 5,
            prod: 8,
        };
        let sessions = PerProfile {
            dev: 5,
            demo: 25,
            prod: 100,
        };
        Limits {
            global: section
                .count("global", 1..=MAX_IN_FLIGHT)
                .unwrap_or(global.of(profile)),
            session: section
                .count("session", 1..=MAX_IN_FLIGHT)
                .unwrap_or(session.of(profile)),
            sessions: section
                .count("sessions", 1..=100_000)
                .unwrap_or(sessions.of(profile)),
            session_idle: section
                .duration("session_idle", secs(1)..=168 * HOUR)
                .unwrap_or(HOUR),
            session_turn: section
                .duration("session_turn", millis(100)..=HOUR)
                .unwrap_or(secs(30)),
            adaptive: section.section("adaptive", Adaptive::read),
            gate: section.section("gate", Gate::read),
        }
    }
}
