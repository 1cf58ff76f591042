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
    /// How the core learns from what becomes of calls.
    pub learning: Learning,
    /// What becomes of slots whose holders don't come back.
    pub orphans: OrphanSettings,
}

/// What becomes of slots whose holders don't come back from a call that was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrphanSettings {
    /// The holder is given up on so long after the interrupt.
    pub quarantine_after: Duration,
    /// Its slot is taken from it so long after the interrupt.
    pub reclaim_after: Duration,
    /// With more workers lost than that, nothing new is taken.
    pub max_lost: usize,
}

impl Default for OrphanSettings {
    fn default() -> Self {
        OrphanSettings {
            quarantine_after: Duration::from_secs(1),
            reclaim_after: Duration::from_secs(6),
            max_lost: 16,
        }
    }
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
    /// Calls in flight; 0 counts as 1 where it is [changed](super::Event::Change) to that.
    pub limit: usize,
    /// Whether one global slot is kept for it while it has nothing in flight: so for each remote provider that can be
    /// called. Else a silent provider whose own limit is as large as the global one would shut out the rest.
    pub reserves: bool,
    /// Whether each of its targets has a limit that follows what it takes.
    pub adaptive: bool,
    /// What judges the health of each of its targets; `None`: nothing does.
    pub breaker: Option<BreakerSettings>,
    /// How often a call is tried again.
    pub retry: RetrySettings,
}

impl ProviderSettings {
    /// A provider that takes `limit` calls, whatever becomes of them: nothing is learned and nothing is tried again.
    pub fn fixed(limit: usize) -> Self {
        ProviderSettings {
            limit,
            reserves: false,
            adaptive: false,
            breaker: None,
            retry: RetrySettings {
                attempts: 1,
                ..RetrySettings::default()
            },
        }
    }
}

/// What all targets learn by.
#[derive(Debug, Clone, PartialEq)]
pub struct Learning {
    /// Where the jitter comes from: the same seed and the same events give the same waits.
    pub seed: u64,
    /// Adaptive limits.
    pub limit: LimitSettings,
    /// Gates.
    pub gate: GateSettings,
    /// Where a job has a further stage, it waits no longer than this for one that is shut.
    pub fallback_after: Duration,
    /// A target that does not have a model is passed over for that model for so long.
    pub model_away: Duration,
}

impl Default for Learning {
    fn default() -> Self {
        Learning {
            seed: 0,
            limit: LimitSettings::default(),
            gate: GateSettings::default(),
            fallback_after: Duration::from_secs(5),
            model_away: Duration::from_secs(300),
        }
    }
}

/// The adaptive limit of a target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LimitSettings {
    /// Where it starts, or at what is configured if that is less.
    pub start: usize,
    /// In use is what fills at least this part of the limit.
    pub bound: f64,
    /// What a cut leaves of what was in flight.
    pub cut: f64,
    /// How long a limit that was cut takes back to where it was, if it is in use.
    pub recover: Duration,
    /// The same for limits of `small` calls or fewer, of which each one more is a large step.
    pub recover_small: Duration,
    /// See `recover_small`.
    pub small: usize,
    /// Nothing grows while first bytes take so many times as long as they use to.
    pub latency: f64,
}

impl Default for LimitSettings {
    fn default() -> Self {
        LimitSettings {
            start: 4,
            bound: 0.8,
            cut: 0.7,
            recover: Duration::from_secs(120),
            recover_small: Duration::from_secs(300),
            small: 8,
            latency: 2.0,
        }
    }
}

/// What keeps a target shut because it asked for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GateSettings {
    /// The longest wait that is believed.
    pub max: Duration,
    /// Up to so much of a wait is added to it, so that not everybody comes back at the same moment.
    pub jitter: f64,
    /// The first starts after a wait are so far apart.
    pub pace: Duration,
    /// How long a plan is taken to be used up that does not say until when.
    pub window: Duration,
}

impl Default for GateSettings {
    fn default() -> Self {
        GateSettings {
            max: Duration::from_secs(300),
            jitter: 0.1,
            pace: Duration::from_millis(250),
            window: Duration::from_secs(300),
        }
    }
}

/// What judges the health of a target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerSettings {
    /// It is judged from so many calls ...
    pub attempts: u32,
    /// ... within this time ...
    pub window: Duration,
    /// ... and opens if this part of them failed.
    pub failures: f64,
    /// It opens after so many calls in a row that found no connection.
    pub connects: u32,
    /// How long it stays open at first; twice as long each time that it opens again before it closed.
    pub wait: Duration,
    /// The longest that it stays open.
    pub max_wait: Duration,
    /// Its waits are longer or shorter by up to this part.
    pub jitter: f64,
    /// A probe that has not succeeded by then has failed.
    pub lease: Duration,
    /// It closes after so many probes that succeeded.
    pub successes: u32,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        BreakerSettings {
            attempts: 10,
            window: Duration::from_secs(60),
            failures: 0.5,
            connects: 5,
            wait: Duration::from_secs(5),
            max_wait: Duration::from_secs(120),
            jitter: 0.2,
            lease: Duration::from_secs(60),
            successes: 2,
        }
    }
}

/// How often a call is tried again, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetrySettings {
    /// Tries of one call, the first included; each further stage has one try on top.
    pub attempts: u32,
    /// The wait before the first repetition is random, up to this; up to twice as long before each further one.
    pub base: Duration,
    /// The random part of a wait is never above this.
    pub max: Duration,
    /// Tokens that a target has at most, and at first. Each repetition takes one.
    pub budget: f64,
    /// Nothing is repeated with so few tokens or fewer.
    pub floor: f64,
    /// Tokens that each success brings back.
    pub refill: f64,
}

impl Default for RetrySettings {
    fn default() -> Self {
        RetrySettings {
            attempts: 3,
            base: Duration::from_millis(500),
            max: Duration::from_secs(20),
            budget: 10.0,
            floor: 5.0,
            refill: 0.1,
        }
    }
}
