//! What can be set: every bound of pointsman is a knob here, with its unit, default and range.
//!
//! ```text
//! config.toml --parse--> tree of values, each with its place --+
//! POINTSMAN_LIMITS__GLOBAL=24 ------- laid over it ------------+--> read, section by section --> Config
//! --profile, --listen --------------- laid over that ----------+         (range, default)        or every problem
//! ```
//!
//! The tree is read after everything was laid over it, so a profile that comes from the command line sets the
//! defaults of whatever the file leaves out, and what is said explicitly, anywhere, wins over every profile.
//!
//! **A knob is one line** in the `read` of its part: name, range, default. What nobody reads is an unknown key. What
//! is not accepted is noted and the default read in its place, so that one start shows all problems; no [`Config`]
//! comes of it. `config.toml` shows every knob; tests hold it against what is read here, in both directions.
//!
//! **Keys** are not knobs: knobs say where a key is. A provider's key is in [`Provider::api_key`], a client's in
//! [`ClientKey::key`], and nowhere else; no `Debug`, no error and no advice has it, and what could be a key in the wrong
//! place is not shown either.

mod access;
mod adaptive;
mod alerts;
mod changes;
mod document;
mod engine;
mod environment;
mod error;
mod file;
mod limits;
mod live;
mod load;
mod log;
mod priority;
mod profile;
mod provider;
mod queue;
mod report;
mod routing;
mod secret;
mod section;
mod server;
mod telemetry;
#[cfg(test)]
mod tests;
mod throttle;
mod timeouts;
mod value;
mod watchdog;
mod word;

pub use access::{Access, ClientKey};
pub use adaptive::{Adaptive, Gate};
pub use alerts::{AlertKind, AlertRule, Alerts, Webhook, WebhookKind};
pub use changes::Changes;
pub use engine::Engine;
pub use environment::Environment;
pub use error::{ConfigError, NotAccepted, Place, Problem};
pub use limits::Limits;
pub use live::Live;
pub use load::{Loader, Overrides};
pub use log::Log;
pub use priority::Priority;
pub use profile::Profile;
pub(crate) use provider::is_loopback_url;
pub use provider::{
    Breaker, CaFile, Model, OperationTimeouts, Pool, Provider, ProviderKind, Retry, Thinking,
};
pub use queue::{Queue, Weights};
pub use routing::{Fallback, Routing};
pub use server::{Listen, Server};
pub use telemetry::Telemetry;
pub use throttle::{Shares, Thresholds, Throttle};
pub use timeouts::{Learn, Timeouts};
pub use watchdog::Watchdog;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use provider::{Providers, Surroundings};
use section::Section;

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Which set of defaults the rest started from.
    pub profile: Profile,
    /// The HTTP front.
    pub server: Server,
    /// Who may come in by it: also under `[server]`, and kept apart so that only those who check see the keys.
    pub access: Access,
    /// The pool of workers.
    pub engine: Engine,
    /// Counting semaphores.
    pub limits: Limits,
    /// The waiting lines.
    pub queue: Queue,
    /// By kind of request.
    pub timeouts: Timeouts,
    /// By name; those that are switched off are left out.
    pub providers: BTreeMap<String, Provider>,
    /// Who answers `auto`.
    pub routing: Routing,
    /// Slots whose holders don't come back.
    pub watchdog: Watchdog,
    /// How the global limit follows the load of the box.
    pub throttle: Throttle,
    /// The lifecycle log, and metrics.
    pub telemetry: Telemetry,
    /// What is worth telling somebody about.
    pub alerts: Alerts,
    /// What is written to standard error.
    pub log: Log,
}

impl Config {
    /// Reads a file, under the environment of this process.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Loader::of_process().load(path.as_ref())
    }

    /// Reads `path`, else `./config.toml`, else starts from the built-in defaults; under the environment of this
    /// process.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn find(path: Option<&Path>) -> Result<Self, ConfigError> {
        Loader::of_process().find(path)
    }

    /// Reads a text, under an empty environment: the same text gives the same configuration everywhere, and keys are
    /// found in files alone. `name` is what errors call the text. With an environment: [`Loader::from_toml`].
    ///
    /// # Errors
    /// [`ConfigError::Refused`]
    pub fn from_toml(text: &str, name: &str) -> Result<Self, ConfigError> {
        Loader::default().from_toml(text, name)
    }

    /// The defaults of a profile, under an empty environment.
    pub fn builtin(profile: Profile) -> Self {
        let overrides = Overrides {
            profile: Some(profile),
            listen: None,
        };
        let loader = Loader::default().overrides(overrides);
        let config = loader.from_toml("", "");
        config.expect("the defaults of every profile are accepted")
    }

    fn read(root: &mut Section<'_>, environment: &Environment) -> Self {
        let profile = root.parsed("profile").unwrap_or_default();
        let limits = root.section("limits", |section| Limits::read(section, profile));
        let timeouts = root.section("timeouts", Timeouts::read);
        let around = Surroundings {
            profile,
            global: limits.global,
            shortest: timeouts.shortest(),
        };
        let mut providers = root.section("providers", |section| Providers::read(section, around));
        providers.find_keys(environment);
        if providers.on.is_empty() {
            root.refuse(
                "providers",
                "all of them are switched off, accepted is at least one that is on",
            );
        }
        let (server, access) = root.section("server", |section| {
            let access = Access::read(section, environment);
            (Server::read(section, profile, &access), access)
        });
        let telemetry = root.section("telemetry", |section| Telemetry::read(section, profile));
        let alerts = root.section("alerts", |section| {
            Alerts::read(section, profile, telemetry.metrics, environment)
        });
        let config = Config {
            profile,
            server,
            access,
            engine: root.section("engine", Engine::read),
            queue: root.section("queue", |section| Queue::read(section, profile)),
            routing: root.section("routing", |section| {
                Routing::read(section, &providers.on, &providers.off)
            }),
            watchdog: root.section("watchdog", |section| Watchdog::read(section, profile)),
            throttle: root.section("throttle", |section| {
                Throttle::read(section, profile, limits.global)
            }),
            telemetry,
            alerts,
            log: root.section("log", |section| Log::read(section, profile)),
            limits,
            timeouts,
            providers: providers.on,
        };
        config.check(root);
        config
    }

    /// What two parts say together; what one part says alone is checked in its own file.
    fn check(&self, root: &mut Section<'_>) {
        if self.queue.max_bytes < self.server.max_body {
            root.refuse_pair(
                "queue.max_bytes",
                "server.max_body",
                "is below server.max_body, so that the largest request could never wait",
            );
        }
    }
}

/// More calls in flight than this is a typing error, not a box.
const MAX_IN_FLIGHT: usize = 4096;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const HOUR: Duration = secs(3600);

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
