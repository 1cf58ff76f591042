//! The whole of pointsman as one value: built bottom-up, stopped top-down.

mod ask;
mod check;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{SharedClock, SystemClock};
use crate::config::Config;
use crate::door::Door;
use crate::engine::Engine;
use crate::http::Api;
use crate::providers::Providers;
use crate::routing::Router;
use crate::telemetry::LifecycleLog;

pub use ask::{Answered, AskError, Question};
pub use check::{Finding, State, check};

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system gave no thread.
    #[error("no thread can be started: {0}")]
    Threads(#[source] io::Error),
    /// The address can't be listened on.
    #[error("can't listen on {address} (server.listen): {cause}")]
    Listen {
        /// The address, as configured.
        address: String,
        /// What the system said.
        cause: io::Error,
    },
}

/// Providers, engine and lifecycle log of one configuration. Several may live in one process; nothing is global.
///
/// ```
/// use pointsman::{Config, Gateway, Profile};
/// use std::time::Duration;
///
/// let gateway = Gateway::start(Config::builtin(Profile::Test))?;
/// let server = gateway.serve()?;
/// assert!(server.address().starts_with("127.0.0.1:"));
/// server.stop(Duration::from_secs(1));
/// # Ok::<(), pointsman::StartError>(())
/// ```
pub struct Gateway {
    config: Config,
    clock: SharedClock,
    engine: Arc<Engine>,
    lifecycle: Arc<LifecycleLog>,
}

impl Gateway {
    /// Starts workers and watchdog. A provider without its key is no error: it is listed as unavailable.
    ///
    /// # Errors
    /// [`StartError::Threads`]
    pub fn start(config: Config) -> Result<Gateway, StartError> {
        let clock = SystemClock::shared();
        let lifecycle = Arc::new(LifecycleLog::new(&config.telemetry));
        let providers = Providers::new(&config, Arc::clone(&clock));
        let router = Router::new(&config);
        let named = |name: &str| Some((Arc::from(name), Arc::clone(providers.get(name)?)));
        let providers = providers.names().filter_map(named).collect();
        let engine = Engine::start(
            &config,
            Arc::clone(&clock),
            providers,
            router,
            Arc::clone(&lifecycle),
        );
        let engine = Arc::new(engine.map_err(StartError::Threads)?);
        Ok(Gateway {
            config,
            clock,
            engine,
            lifecycle,
        })
    }

    /// Opens the HTTP front on `server.listen`.
    ///
    /// # Errors
    /// [`StartError::Listen`]
    pub fn serve(self) -> Result<Server, StartError> {
        let Gateway {
            config,
            clock,
            engine,
            lifecycle,
        } = self;
        let api = Api::new(&config, Arc::clone(&clock), Arc::clone(&engine), lifecycle);
        let door = Door::open(&config.server, Arc::clone(&clock), Arc::new(api));
        let door = door.map_err(|cause| StartError::Listen {
            address: config.server.listen.to_string(),
            cause,
        })?;
        Ok(Server {
            door,
            engine,
            clock,
        })
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

/// A gateway that serves HTTP. Dropping it stops it at once.
pub struct Server {
    // Order of fields is order of drop: the door closes before the engine stops under it.
    door: Door,
    engine: Arc<Engine>,
    clock: SharedClock,
}

impl Server {
    /// Where it listens: `127.0.0.1:8787`, or `unix:PATH`.
    pub fn address(&self) -> String {
        self.door.address()
    }

    /// Stops in two stages: takes nothing new and lets what runs finish for at most `drain`; then ends the rest.
    /// Returns when no thread is left.
    pub fn stop(self, drain: Duration) {
        let until = self.clock.now() + drain;
        self.door.quiesce();
        // Whoever waits or runs has its end by `until`, and the door's answers to it are written by then.
        self.engine.stop(drain);
        self.door.stop(until.since(self.clock.now()) + LAST_WORDS);
    }
}

/// Time for the last answers to reach their clients.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}
