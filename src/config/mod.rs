//! What can be set: every bound of pointsman is a knob here, with its unit, default and range.

mod provider;
mod server;

pub use provider::{Model, OperationTimeouts, Pool, Provider, ProviderKind, Thinking};
pub use server::{Listen, Server};

use std::collections::BTreeMap;
use std::time::Duration;

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Which set of defaults the rest started from.
    pub profile: Profile,
    /// The HTTP front.
    pub server: Server,
    /// The pool of workers.
    pub engine: Engine,
    /// Counting semaphores.
    pub limits: Limits,
    /// The waiting lines.
    pub queue: Queue,
    /// By kind of request.
    pub timeouts: Timeouts,
    /// By name.
    pub providers: BTreeMap<String, Provider>,
    /// Who answers `auto`.
    pub routing: Routing,
    /// The lifecycle log in memory.
    pub telemetry: Telemetry,
    /// What is written to standard error.
    pub log: Log,
}

/// A set of defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// One developer's box.
    Dev,
    /// Several agents at once, before an audience.
    Demo,
    /// A shared box.
    Prod,
    /// Embedded provider only, free port, nothing kept.
    Test,
}

/// How urgent a job is. The order of the variants is the order of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Somebody waits for it (1).
    High,
    /// Background work (2).
    #[default]
    Medium,
    /// Maintenance (3).
    Low,
}

impl Priority {
    /// All, most urgent first.
    pub const ALL: [Priority; 3] = [Priority::High, Priority::Medium, Priority::Low];

    /// 0 for the most urgent.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// `[engine]`
#[derive(Debug, Clone, PartialEq)]
pub struct Engine {
    /// Threads that run jobs; `None`: as many as the global limit.
    pub workers: Option<usize>,
}

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
}

/// `[queue]`
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// Waiting jobs in all.
    pub capacity: usize,
    /// Waiting jobs of one session for one target.
    pub per_session: usize,
    /// Bytes of waiting requests in all.
    pub max_bytes: usize,
    /// The part of `capacity` that one provider may fill, 0.0 to 1.0.
    pub provider_share: f64,
    /// Nobody waits longer.
    pub timeout: Duration,
    /// Shares of service by class.
    pub weights: Weights,
    /// Backpressure starts at this part of `capacity`.
    pub pressure_on: f64,
    /// Backpressure ends at this part of `capacity`.
    pub pressure_off: f64,
}

/// Shares of service by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// Of [`Priority::High`].
    pub high: u32,
    /// Of [`Priority::Medium`].
    pub medium: u32,
    /// Of [`Priority::Low`].
    pub low: u32,
}

/// `[timeouts]`
#[derive(Debug, Clone, PartialEq)]
pub struct Timeouts {
    /// A request that wants one body.
    pub normal: Duration,
    /// A request that wants a stream.
    pub streaming: Duration,
    /// A request that continues a conversation.
    pub continuation: Duration,
    /// Name lookup, TCP and TLS.
    pub connect: Duration,
    /// Silence between two pieces of an answer.
    pub idle: Duration,
    /// Until the first byte of an answer; `None`: the deadline.
    pub first_byte: Option<Duration>,
    /// The longest deadline that a caller may ask for.
    pub max: Duration,
    /// A prompt of more tokens than this takes the next longer row of a provider's table.
    pub long_prompt_tokens: u64,
}

/// `[routing]`
#[derive(Debug, Clone, PartialEq)]
pub struct Routing {
    /// Names of the providers that may answer `auto`, the preferred first. Without embedded ones: they answer `auto`
    /// only when no other provider has a key.
    pub auto: Vec<String>,
}

/// `[telemetry]`
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// Lifecycle events kept in memory.
    pub max_events: usize,
    /// Lifecycle events are forgotten after so long.
    pub max_age: Duration,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter in env_logger's form.
    pub level: String,
}
