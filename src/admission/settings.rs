//! What the core works by, as plain values.

use std::time::Duration;

use super::{CLASSES, ProviderId};

/// The limits and rules in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Workers: no more jobs run than there are.
    pub workers: usize,
    /// Calls in flight in all.
    pub global: usize,
    /// Calls in flight of one session.
    pub session: usize,
    /// Sessions with calls in flight.
    pub sessions: usize,
    /// How long a session may keep its place while another one waits for it.
    pub session_turn: Duration,
    /// The waiting lines.
    pub queue: QueueSettings,
    /// Those who are called.
    pub providers: Vec<ProviderSettings>,
    /// The provider of each target.
    pub targets: Vec<ProviderId>,
}

/// The waiting lines.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueSettings {
    /// Places in all.
    pub capacity: usize,
    /// Places of one flow for one stage.
    pub per_session: usize,
    /// Bytes of waiting requests.
    pub max_bytes: usize,
    /// Places that the jobs for one provider may fill.
    pub per_provider: usize,
    /// Nobody waits longer, by class.
    pub timeout: Duration,
    /// Shares of service by class.
    pub weights: [u32; CLASSES],
    /// Backpressure begins when so many wait.
    pub pressure_on: usize,
    /// Backpressure ends when no more than so many wait.
    pub pressure_off: usize,
}

/// One provider.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderSettings {
    /// Calls in flight.
    pub limit: usize,
    /// Whether one global slot is kept for it while it has nothing in flight: so for each remote provider that can be
    /// called. Else a silent provider whose own limit is as large as the global one would shut out the rest.
    pub reserves: bool,
}
