//! Another configuration for a gateway that runs.
//!
//! | what | becomes of it |
//! |---|---|
//! | calls under way | come to their end as they began, under the slots that they hold; nobody is interrupted |
//! | who waits in line | waits on, under the limits that are now in force; whose provider is gone goes to the next stage of its route, else is refused |
//! | a provider configured as before | is the same: connections, learned limit, breaker, learned timeouts, list of models |
//! | one with other limits, timeouts, models | keeps what was learned; its connections are made anew where calls are made otherwise |
//! | one with another kind, address or key | starts anew |
//! | sockets, bounds of the HTTP front, the lifecycle log, metrics, alerts | stay as they are until the next start, and the answer says so |
//!
//! **All or nothing.** The new providers are made before anything is changed, and making them connects to nobody; what then
//! follows can't fail but by the one bound that the engine looks at first. Reloads come one after the other.

use std::fmt;
use std::io;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use super::Gateway;
use super::alerts::Alerts;
use super::lists::Lists;
use crate::clock::SharedClock;
use crate::config::{Changes, Config, ConfigError, Listen};
use crate::engine::{Engine, Reload};
use crate::http::{Api, NotReloaded, Reloader};
use crate::providers::Providers;
use crate::routing::Router;
use crate::telemetry::{LifecycleLog, Monitor};

/// Where a gateway reads its configuration anew when a client asks for it (`POST /api/reload`).
///
/// ```
/// use pointsman::config::{Config, ConfigError, Profile};
/// use pointsman::{ConfigSource, Gateway};
/// use std::path::PathBuf;
///
/// struct File(PathBuf);
///
/// impl ConfigSource for File {
///     fn read(&self) -> Result<Config, ConfigError> {
///         Config::load(&self.0)
///     }
/// }
///
/// let gateway = Gateway::start(Config::builtin(Profile::Test))?;
/// gateway.reload_from(File("config.toml".into()));
/// # Ok::<(), pointsman::StartError>(())
/// ```
pub trait ConfigSource: Send + Sync {
    /// Reads it.
    ///
    /// # Errors
    /// See [`ConfigError`]; the gateway then goes on as it was.
    fn read(&self) -> Result<Config, ConfigError>;

    /// It is in force. For what is the program's own, such as the level of its log. May not wait for another reload.
    fn in_force(&self, _config: &Config) {}
}

/// Why a gateway goes on as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration is refused.
    #[error("the configuration is refused, and nothing has changed\n{0}")]
    Config(#[from] ConfigError),
    /// Without keys for clients it would be open to other machines: where it listens counts from the next start on.
    #[error(
        "the configuration is refused, and nothing has changed\nserver.keys: found none, accepted is at least one while the \
         gateway listens on {0} (server.listen), which other machines can reach; another address needs a restart"
    )]
    Exposed(Listen),
    /// Nobody said where the configuration is: see [`Gateway::reload_from`].
    #[error("this gateway was given its configuration by a program, and has nothing to read anew")]
    NoSource,
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
    /// A bound of the engine.
    #[error("nothing has changed: {0}")]
    Bound(#[source] io::Error),
}

/// What a reload changes.
pub(super) struct Current {
    config: RwLock<Arc<Config>>,
    /// Held while they are exchanged.
    providers: Mutex<Providers>,
    source: RwLock<Option<Arc<dyn ConfigSource>>>,
    /// From the reading of a source until what it said is in force: nobody overtakes.
    turn: Mutex<()>,
    /// Of the servers that were opened.
    apis: Mutex<Vec<Weak<Api>>>,
}

impl Current {
    pub(super) fn new(config: Config, providers: Providers) -> Self {
        Current {
            config: RwLock::new(Arc::new(config)),
            providers: Mutex::new(providers),
            source: RwLock::default(),
            turn: Mutex::default(),
            apis: Mutex::default(),
        }
    }

    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read())
    }

    /// Opens an API by what is in force; it is told of each reload for as long as it lives.
    pub(super) fn attach(&self, open: impl FnOnce(&Config) -> Api) -> Arc<Api> {
        // No reload comes in between.
        let _providers = self.providers.lock();
        let api = Arc::new(open(&self.config()));
        let mut apis = self.apis.lock();
        apis.retain(|api| api.strong_count() > 0);
        apis.push(Arc::downgrade(&api));
        api
    }
}

impl Gateway {
    /// Goes by another configuration from now on; says what is different in it. Nobody who runs is interrupted, and nobody
    /// who waits loses its place. What can't change while it runs is told under
    /// [`needs_restart`](Changes::needs_restart), and is as it was.
    ///
    /// ```
    /// use pointsman::{Config, Gateway};
    ///
    /// let gateway = Gateway::start(Config::from_toml("profile = \"test\"", "before")?)?;
    /// let changes = gateway.reload(Config::from_toml("profile = \"test\"\nlimits.global = 2\nqueue.capacity = 60", "after")?)?;
    /// assert_eq!(changes.changed, ["limits.global", "providers.embedded.max_inflight", "queue.capacity"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ReloadError::Exposed`], [`ReloadError::Stopping`], [`ReloadError::Bound`]; nothing has changed then.
    pub fn reload(&self, config: Config) -> Result<Changes, ReloadError> {
        let mut providers = self.current.providers.lock();
        let before = self.current.config();
        if self.engine.snapshot().core.stopping {
            return Err(ReloadError::Stopping);
        }
        let listen = &before.server.listen;
        if config.access.keys.is_empty() && !listen.is_loopback() {
            return Err(ReloadError::Exposed(listen.clone()));
        }
        let changes = before.changes(&config);
        let config = config.in_force_after(&before);
        let renewed = providers.renewed(&before, &config, &self.clock);
        let router = Router::new(&config, &renewed);
        let anew = config.providers.values().filter(|provider| {
            let old = before.providers.get(&provider.name);
            old.is_some_and(|old| !provider.is_reached_as(old))
        });
        let reload = Reload {
            config: &config,
            providers: renewed.named().collect(),
            anew: anew.map(|provider| provider.name.as_str().into()).collect(),
            router,
        };
        self.engine.reload(reload).map_err(ReloadError::Bound)?;
        self.engine.configure_throttle(config.throttle.clone());
        self.lists.renew(&config, &renewed);
        *providers = renewed;
        self.current.apis.lock().retain(|api| {
            let api = api.upgrade();
            api.inspect(|api| api.serve_by(&config)).is_some()
        });
        *self.current.config.write() = Arc::new(config);
        log::info!("{}", said(&changes));
        Ok(changes)
    }

    /// Where the configuration is read anew when a client asks for it (`POST /api/reload`). Without, such a request is refused.
    pub fn reload_from(&self, source: impl ConfigSource + 'static) {
        *self.current.source.write() = Some(Arc::new(source));
    }

    /// Reads the source, and goes by what it says.
    fn reload_source(&self) -> Result<Changes, ReloadError> {
        let _turn = self.current.turn.lock();
        let source = self.current.source.read().clone();
        let source = source.ok_or(ReloadError::NoSource)?;
        let config = source.read()?;
        let changes = self.reload(config)?;
        source.in_force(&self.config());
        Ok(changes)
    }

    /// What is in force.
    pub(super) fn config(&self) -> Arc<Config> {
        self.current.config()
    }
}

/// What is different, in words for the log.
fn said(changes: &Changes) -> String {
    let mut words = match changes.changed.as_slice() {
        [] => "reloaded: nothing has changed".to_owned(),
        changed => format!("reloaded: {}", changed.join(", ")),
    };
    if !changes.needs_restart.is_empty() {
        let rest = changes.needs_restart.join(", ");
        words += &format!("; needs a restart, and is as it was: {rest}");
    }
    words
}

/// A gateway for its own HTTP front, which does not keep it running.
pub(super) struct Remote {
    current: Arc<Current>,
    clock: SharedClock,
    lists: Weak<Lists>,
    /// `None`: nobody looks for alerts.
    alerts: Option<Weak<Alerts>>,
    monitor: Weak<Monitor>,
    engine: Weak<Engine>,
    lifecycle: Arc<LifecycleLog>,
}

impl Remote {
    pub(super) fn new(gateway: &Gateway) -> Self {
        Remote {
            current: Arc::clone(&gateway.current),
            clock: Arc::clone(&gateway.clock),
            lists: Arc::downgrade(&gateway.lists),
            alerts: gateway.alerts.as_ref().map(Arc::downgrade),
            monitor: Arc::downgrade(&gateway.monitor),
            engine: Arc::downgrade(&gateway.engine),
            lifecycle: Arc::clone(&gateway.lifecycle),
        }
    }

    fn gateway(&self) -> Option<Gateway> {
        let alerts = match &self.alerts {
            Some(alerts) => Some(alerts.upgrade()?),
            None => None,
        };
        Some(Gateway {
            current: Arc::clone(&self.current),
            clock: Arc::clone(&self.clock),
            lists: self.lists.upgrade()?,
            alerts,
            monitor: self.monitor.upgrade()?,
            engine: self.engine.upgrade()?,
            lifecycle: Arc::clone(&self.lifecycle),
        })
    }
}

impl Reloader for Remote {
    fn reload(&self) -> Result<Changes, NotReloaded> {
        let gateway = self.gateway().ok_or(NotReloaded::Stopping)?;
        gateway.reload_source().map_err(|error| {
            log::warn!("not reloaded: {error}");
            match error {
                ReloadError::Config(_) | ReloadError::Exposed(_) => {
                    NotReloaded::Refused(error.to_string())
                }
                ReloadError::NoSource => NotReloaded::Nothing(error.to_string()),
                ReloadError::Stopping => NotReloaded::Stopping,
                ReloadError::Bound(_) => NotReloaded::Failed(error.to_string()),
            }
        })
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
