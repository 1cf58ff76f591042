//! The whole of pointsman as one value: built bottom-up, stopped top-down. The face of the library.
//!
//! | what a program wants | what it calls | what it gets |
//! |---|---|---|
//! | an answer | [`Gateway::chat`] | [`ChatReply`], when it is whole |
//! | an answer as it comes | [`Gateway::stream`] | [`ChatStream`]: an iterator of pieces, whose drop ends the call |
//! | an answer later | [`Gateway::submit`] | [`ChatHandle`]: wait, wait for a while, cancel |
//! | a function of its own under slots and deadline | [`Gateway::execute`] | what the function returns |
//! | many of them | [`Gateway::execute_all`] | their results, in order |
//! | models that only a provider knows, from the first moment | [`Gateway::wait_for_models`] | whether they are known |
//! | the HTTP API beside all that | [`Gateway::serve`], [`Gateway::serve_on`] | [`Server`] |
//! | another configuration, while it runs | [`Gateway::reload`] | what is different in it |
//!
//! Everything blocks, nothing is async, nothing is global: several gateways may live in one process, each with its own
//! limits and threads. From async code: [`submit`](Gateway::submit), which does not wait, and then wait on the handle
//! on a thread that may block.
//!
//! # Who keeps it running
//!
//! A [`Gateway`] is a handle: its clones and its [`Server`]s share one engine. Whichever of them is dropped last stops
//! it at once, as `shutdown(Duration::ZERO)` would. A [`ChatHandle`] or a [`ChatStream`] keeps nothing running: its job
//! ends with the engine, and says so. A function that is executed and owns a clone keeps the gateway until it returns.
//!
//! # Waiting for oneself
//!
//! A function that is executed runs on one of the gateway's workers and holds a slot. If it waited for another job of
//! the same gateway, all workers could come to wait for jobs that nobody is left to run. So whatever waits looks first
//! whether it is on a worker of its own gateway, and says `WouldDeadlock` at once instead of waiting. Submitting does not
//! wait and is allowed; so is waiting for another gateway. A thread that the function starts itself is not known to us: if
//! the function waits for it, that is its own affair, and its deadline ends the matter for its caller.

mod alerts;
mod batch;
mod call;
mod check;
mod error;
mod execute;
mod job;
mod lists;
mod load;
mod options;
mod reload;
mod reply;
mod server;
mod stream;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::chat::ChatReply;
use crate::clock::{SharedClock, SystemClock};
use crate::config::Config;
use crate::engine::Engine;
use crate::providers::Providers;
use crate::routing::Router;
use crate::telemetry::{LifecycleLog, Monitor};

pub use crate::door::Inherited;
pub use crate::engine::{CallInfo, Level, Phases, Unhealthy};
pub use call::{Call, CallContext};
pub use check::{Finding, State, check};
pub use error::{ChatError, ExecuteError, StartError};
pub use job::Job;
pub use reload::{ConfigSource, ReloadError};
pub use reply::ChatHandle;
pub use server::Server;
pub use stream::ChatStream;

use alerts::Alerts;
use lists::Lists;
use reload::Current;

/// Providers, engine and lifecycle log of one configuration: see the story of this folder.
///
/// ```
/// use pointsman::{ChatRequest, Config, Gateway, Profile};
/// use std::time::Duration;
///
/// let gateway = Gateway::start(Config::builtin(Profile::Test))?;
/// let reply = gateway.chat(ChatRequest::new("auto").user("Say hello"))?;
/// assert!(reply.text().contains("Say hello"));
/// gateway.shutdown(Duration::from_secs(10));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Gateway {
    current: Arc<Current>,
    clock: SharedClock,
    lists: Arc<Lists>,
    alerts: Option<Arc<Alerts>>,
    // Before the engine that it tells: its thread is gone when the engine goes.
    monitor: Arc<Monitor>,
    engine: Arc<Engine>,
    lifecycle: Arc<LifecycleLog>,
}

impl Gateway {
    /// Starts workers and watchdog, and asks providers in the background which models they have. A provider without its key is no error: it is listed as unavailable.
    ///
    /// # Errors
    /// [`StartError::Threads`], [`StartError::LifecycleFile`]
    pub fn start(config: Config) -> Result<Gateway, StartError> {
        let clock = SystemClock::shared();
        let lifecycle = LifecycleLog::open(&config.telemetry, Arc::clone(&clock));
        let lifecycle = lifecycle.map_err(|cause| StartError::lifecycle(&config.telemetry, cause));
        let lifecycle = Arc::new(lifecycle?);
        let providers = Providers::new(&config, Arc::clone(&clock));
        let router = Router::new(&config, &providers);
        let lists = Lists::start(&config, &providers, &clock).map_err(StartError::Threads)?;
        let engine = Engine::start(
            &config,
            Arc::clone(&clock),
            providers.named().collect(),
            router,
            Arc::clone(&lifecycle),
        );
        let engine = Arc::new(engine.map_err(StartError::Threads)?);
        let monitor = load::watch(&config, &clock, &engine).map_err(StartError::Threads)?;
        let alerts = Alerts::start(&config, &clock, &engine).map_err(StartError::Threads)?;
        Ok(Gateway {
            current: Arc::new(Current::new(config, providers)),
            clock,
            lists: Arc::new(lists),
            alerts: alerts.map(Arc::new),
            monitor: Arc::new(monitor),
            engine,
            lifecycle,
        })
    }

    /// Asks, and waits for the whole answer, at most until the deadline.
    ///
    /// ```
    /// # use pointsman::{ChatRequest, Config, Gateway, Job, Priority, Profile};
    /// # use std::time::Duration;
    /// # let gateway = Gateway::start(Config::builtin(Profile::Test))?;
    /// let question = ChatRequest::new("auto").system("Be brief.").user("Say hello");
    /// let reply = gateway.chat(question.clone())?;
    ///
    /// // The same with a session, a class and a deadline.
    /// let job = Job::chat(question).session("agent-1").priority(Priority::High);
    /// let again = gateway.chat(job.timeout(Duration::from_secs(20)))?;
    /// assert_eq!(again.text(), reply.text());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ChatError`]
    pub fn chat(&self, job: impl Into<Job>) -> Result<ChatReply, ChatError> {
        if self.engine.is_on_worker() {
            return Err(ChatError::WouldDeadlock);
        }
        self.submit(job)?.wait()
    }

    /// Asks, and gives the answer piece by piece as it comes. Dropping the stream ends the call.
    ///
    /// Whoever takes the pieces slowly holds up this call and no other: a few pieces ([`Job::buffer`]) are kept for
    /// it, and then the call waits, under its slots, for at most as long as the deadline allows.
    ///
    /// ```
    /// # use pointsman::{ChatRequest, Config, Gateway, Piece, Profile};
    /// # let gateway = Gateway::start(Config::builtin(Profile::Test))?;
    /// let mut text = String::new();
    /// for piece in gateway.stream(ChatRequest::new("auto").user("Say hello"))? {
    ///     if let Piece::Delta(delta) = piece? {
    ///         text += delta.content.as_deref().unwrap_or_default();
    ///     }
    /// }
    /// assert!(text.contains("Say hello"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ChatError::Plan`] and [`ChatError::WouldDeadlock`]; all others come as the last item of the stream.
    pub fn stream(&self, job: impl Into<Job>) -> Result<ChatStream, ChatError> {
        if self.engine.is_on_worker() {
            return Err(ChatError::WouldDeadlock);
        }
        stream::open(self, job.into())
    }

    /// Asks, and does not wait: the answer is at the handle. The only one of these that a function under
    /// [`execute`](Gateway::execute) may call.
    ///
    /// ```
    /// # use pointsman::{ChatRequest, Config, Gateway, Job, Priority, Profile};
    /// # use std::time::Duration;
    /// # let gateway = Gateway::start(Config::builtin(Profile::Test))?;
    /// let question = ChatRequest::new("auto").user("Say hello");
    /// let job = gateway.submit(Job::chat(question).session("agent-1").priority(Priority::Low))?;
    /// // ... something else ...
    /// match job.wait_timeout(Duration::from_secs(5))? {
    ///     Some(reply) => assert!(reply.text().contains("Say hello")),
    ///     None => job.cancel(),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ChatError::Plan`]; all others are said by the handle.
    pub fn submit(&self, job: impl Into<Job>) -> Result<ChatHandle, ChatError> {
        reply::submit(self, job.into())
    }

    /// Waits until each provider that is asked for its models (`providers.NAME.model_list`) has said, or failed to say,
    /// which it has; `false` when that takes longer than `within`. Nobody has to: models that the configuration names
    /// can be asked for at once, and others when they are known.
    ///
    /// ```
    /// # use pointsman::{Config, Gateway, Profile};
    /// # use std::time::Duration;
    /// let gateway = Gateway::start(Config::builtin(Profile::Test))?;
    /// assert!(gateway.wait_for_models(Duration::from_secs(5)), "in tests nobody is asked");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_for_models(&self, within: Duration) -> bool {
        self.lists.wait(within)
    }

    /// How loaded the gateway is, by its own slots and lines or by its box, whichever is more: what
    /// [`Call::unless_load`] goes by. With `throttle.enabled = false`, as in tests, the box is not looked at.
    pub fn load(&self) -> Level {
        let own = load::own(&self.engine.snapshot().core, self.config().queue.capacity);
        own.max(self.engine.box_level())
    }

    /// Whether all is well. `GET /healthz` says the same.
    ///
    /// ```
    /// # use pointsman::{Config, Gateway, Profile};
    /// let gateway = Gateway::start(Config::builtin(Profile::Test))?;
    /// gateway.health()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Unhealthy`]: what is wrong. A gateway that has lost too many workers takes nothing new until some come back; the
    /// process that it is part of is nobody's to end but yours.
    pub fn health(&self) -> Result<(), Unhealthy> {
        self.engine.health()
    }

    /// As [`health`](Gateway::health), and the watchdog answers within `within`: what a service manager's watchdog is fed
    /// by. Waits for the answer.
    ///
    /// ```
    /// # use pointsman::{Config, Gateway, Profile};
    /// # use std::time::Duration;
    /// let gateway = Gateway::start(Config::builtin(Profile::Test))?;
    /// gateway.pulse(Duration::from_secs(5))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Unhealthy`]
    pub fn pulse(&self, within: Duration) -> Result<(), Unhealthy> {
        self.engine.pulse(self.clock.now() + within)
    }

    /// Calls that run, and jobs that wait.
    pub fn busy(&self) -> (usize, usize) {
        let core = self.engine.snapshot().core;
        (core.in_use, core.waiting)
    }

    /// Opens the HTTP front on `server.listen`, beside whatever else the gateway does.
    ///
    /// ```
    /// # use pointsman::{Config, Gateway, Profile};
    /// # use std::time::Duration;
    /// let gateway = Gateway::start(Config::builtin(Profile::Test))?;
    /// let server = gateway.serve()?;
    /// assert!(server.address().starts_with("127.0.0.1:"));
    /// server.stop(Duration::from_secs(1));
    /// # Ok::<(), pointsman::StartError>(())
    /// ```
    ///
    /// # Errors
    /// [`StartError::Listen`]
    pub fn serve(&self) -> Result<Server, StartError> {
        server::open(self)
    }

    /// Opens the HTTP front on sockets that somebody else made, such as a service manager; `server.listen` does not count.
    /// Whoever wants to go on with them later keeps duplicates: see [`Server::stop`].
    ///
    /// ```
    /// # use pointsman::{Config, Gateway, Profile};
    /// # use std::net::TcpListener;
    /// # use std::time::Duration;
    /// let gateway = Gateway::start(Config::builtin(Profile::Test))?;
    /// let socket = TcpListener::bind("127.0.0.1:0")?;
    /// let server = gateway.serve_on(vec![socket.try_clone()?.into()])?;
    /// assert_eq!(server.address(), socket.local_addr()?.to_string());
    /// server.stop(Duration::from_secs(1));
    /// // Whoever connects now waits for the next one to serve on `socket`.
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`StartError::Inherited`], [`StartError::Exposed`]
    pub fn serve_on(&self, sockets: Vec<Inherited>) -> Result<Server, StartError> {
        server::open_on(self, sockets)
    }

    /// Takes nothing new from now on, lets what runs and waits finish for at most `grace`, ends the rest, and joins
    /// the threads. From now on every call is refused. A [`Server`] goes on to say so until it is dropped.
    ///
    /// A function that does not return even then is left behind after one second more, and the log says so.
    pub fn shutdown(&self, grace: Duration) {
        self.lists.stop();
        self.engine.stop(grace);
        self.monitor.stop();
        if let Some(alerts) = &self.alerts {
            alerts.stop();
        }
        self.lifecycle.flush();
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}
