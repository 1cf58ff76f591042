//! The engine: workers, watchdog and jobs around the admission core.
//!
//! # What happens to a job
//!
//! ```text
//!  submit --> Waiting --start--> Allocated --begin--> Processing --+--> Completed | Error
//!     |          |                   |                    |        |
//!     |          +-------------------+--------------------+--------+--> Timeout | Cancelled
//!     +--> Refused                                                      (its call, if any, is interrupted)
//! ```
//!
//! A call that failed may be tried again: the job then goes from Processing back to Waiting, at once or after a while in
//! which it is nowhere, there or at the next stage of its route. Each try begins from nothing: what the last one left
//! with the job's sink is dropped when the next one is [told](Sink::call).
//!
//! The core moves it on at every arrow but *begin* and the way to Completed or Error: these the worker moves. The
//! first event under the core's lock that ends a job wins, and only its word reaches the job's [`Sink`], exactly once.
//!
//! # Threads
//!
//! | name | what | bound |
//! |---|---|---|
//! | `pointsman-worker-N` | runs one call at a time | `engine.workers`, and `watchdog.max_lost_workers` that don't come back |
//! | `pointsman-watchdog` | ends what is late | 1 |
//! | `pointsman-health` | audits the books, finds and recovers leaks | 1 |
//!
//! They share the core under its lock and the ready jobs, and nothing else. See `shell.rs` for the races.
//!
//! # Stopping
//!
//! [`Engine::quiesce`] refuses the new and gives the rest until a point in time; [`Engine::stop`] does that and waits.
//! What has not ended by then is ended by the core, its calls are interrupted, and the threads are joined. A worker
//! that does not come back even then is left behind, counted and said in the log: nothing waits for it.

mod crew;
mod gauges;
mod handle;
mod health;
mod job;
mod learn;
mod live;
mod measure;
mod moments;
#[cfg(test)]
mod orphan_tests;
mod parking;
mod permit;
mod plan;
mod pools;
mod ready;
#[cfg(test)]
mod ready_tests;
mod reload;
mod report;
mod sessions;
mod settings;
mod shell;
mod snapshot;
mod task;
mod throttle;
mod watchdog;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Sender, bounded};
use parking_lot::{Mutex, RwLock};

use self::crew::join;
use self::live::{Leg, LiveJob};
use self::plan::Planner;
use self::sessions::{Seat, SessionTable};
use self::shell::{Shell, Target};
use self::task::Nobody;
use crate::admission::{Core, Event, JobId, Submission, TargetId};
use crate::cancel::CancelReason;
use crate::chat::ChatRequest;
use crate::clock::{SharedClock, Time};
use crate::config::Config;
use crate::providers::Provider;
use crate::routing::Router;
use crate::telemetry::{LifecycleLog, Metrics, Subject};

pub use crate::admission::{
    ClassView, CoreView, Obstacle, ProviderView, Refusal, RefusalReason, Shut, SlotState, SlotView,
    Slots, TargetView, Turnover, Whereabouts,
};
pub use crate::providers::{ErrorClass, PoolStats, Probe, ProviderError};
pub use crate::routing::{ModelInfo, RouteError as PlanError};
pub use crate::telemetry::ResourceView;
pub use crate::throttle::{
    Change as ThrottleChange, Force, Level, Readings, Resource, Sample as ThrottleSample,
    ThrottleView,
};
pub use crew::CrewView;
pub use handle::JobHandle;
pub use health::{CheckEnd, HealthCheck, HealthCounts, SemaphoreView, Unhealthy};
pub use job::{
    Alternative, CallInfo, Expiry, JobEnd, JobSpec, NullSink, Owner, Phase, Phases, SessionName,
    Sink, SinkGone, Speaker, Verdict,
};
pub use plan::{Ask, Plan};
pub use pools::ProbeEnd;
pub use reload::Reload;
pub use report::last_step;
pub use snapshot::{RequestView, SlotHolding, Snapshot};
pub use task::{ChatTask, FnTask, Task, TaskContext, TaskError};

/// How long a worker has to come back after its call was interrupted, when the engine stops.
const COME_BACK: Duration = Duration::from_secs(1);

/// Runs jobs under slots, deadlines and a watchdog.
pub struct Engine {
    shell: Arc<Shell>,
    /// Exchanged as a whole by a reload; taken once per request.
    rules: RwLock<Arc<Rules>>,
    /// Held by a reload: one after the other.
    reloading: Mutex<()>,
    load: throttle::Load,
    threads: Mutex<Option<Threads>>,
}

/// What requests go by on their way in.
struct Rules {
    planner: Planner,
    /// By the name of the API key: calls in flight of each of its sessions.
    session_limits: HashMap<String, usize>,
}

/// The threads beside the workers.
struct Threads {
    watchdog: JoinHandle<()>,
    health: JoinHandle<()>,
    /// Closing it sends `health` home.
    bell: Sender<()>,
}

impl Engine {
    /// Starts workers and watchdog for these providers, each under its name in the configuration.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(
        config: &Config,
        clock: SharedClock,
        providers: Vec<(Arc<str>, Arc<dyn Provider>)>,
        router: Router,
        lifecycle: Arc<LifecycleLog>,
    ) -> io::Result<Engine> {
        let nobody = Target::new(None, Arc::new(Nobody));
        let named = providers.into_iter();
        let named = named.map(|(name, provider)| Target::new(Some(name), provider));
        let mut targets: Vec<Target> = [nobody].into_iter().chain(named).collect();
        let settings = settings::settings(config, &targets);
        let workers = settings.workers.min(settings.global);
        let mut core = Core::new(settings);
        for (index, target) in targets.iter_mut().enumerate() {
            target.stage = core.stage(&[TargetId(index as u32)]);
        }
        let sessions = Arc::new(SessionTable::new(config.limits.session_idle));
        let load = throttle::Load::new(config, clock.now());
        let metrics = Arc::new(Metrics::new(&settings::names(&targets), &config.telemetry));
        let crew = (workers, config.watchdog.max_lost_workers);
        let shell = Shell::new(clock, core, crew, targets, sessions, lifecycle, metrics);
        let shell = Arc::new(shell);
        let planner = Planner::new(config, router, Arc::clone(&shell.clock));
        let threads = Threads::start(&shell, config)
            .inspect_err(|_| shell.crew.dismiss(&shell, Duration::ZERO))?;
        Ok(Engine {
            shell,
            rules: RwLock::new(Arc::new(Rules {
                planner,
                session_limits: settings::session_limits(config),
            })),
            reloading: Mutex::new(()),
            load,
            threads: Mutex::new(Some(threads)),
        })
    }

    /// Finds out where a chat goes, until when, and why.
    ///
    /// # Errors
    /// No such model, nobody to call, or a prompt too long for `auto`.
    pub fn plan(&self, request: ChatRequest, ask: &Ask) -> Result<Plan, PlanError> {
        self.rules().planner.plan(request, ask)
    }

    /// All models that are listed, in the order of preference.
    pub fn models(&self) -> Vec<ModelInfo> {
        self.rules().planner.models()
    }

    /// What a request for the model `name` would get; `auto` is one too.
    ///
    /// # Errors
    /// As [`Engine::plan`].
    pub fn model(&self, name: &str) -> Result<ModelInfo, PlanError> {
        self.rules().planner.model(name)
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read())
    }

    /// Takes a job. Whatever becomes of it, refusal included, its sink and its handle are told.
    ///
    /// # Errors
    /// [`UnknownProvider`] if `spec.provider` or one of `spec.fallback` was never among those that the engine calls. A job for
    /// one that was taken out is refused, or goes on to the next stage of its route.
    pub fn submit(&self, spec: JobSpec) -> Result<JobHandle, UnknownProvider> {
        let shell = &self.shell;
        let is_on_record = spec.number.is_some();
        let id = spec.number.map_or_else(|| shell.next_job(), JobId);
        let legs = self.legs(id, &spec)?;
        let seat = Seat::take(&shell.sessions, &spec.owner, &shell.clock);
        let submission = Submission {
            job: id,
            route: legs.iter().map(|leg| shell.leg(leg)).collect(),
            flow: seat.flow,
            session: spec.owner.session().is_some(),
            session_limit: self.session_limit(&spec.owner),
            class: spec.priority,
            deadline: spec.deadline,
            bytes: spec.bytes,
            reclaim: spec.reclaim,
        };
        let cancel = spec.cancel.clone();
        let job = Arc::new(LiveJob::new(id, spec, legs, seat, Arc::clone(&shell.clock)));
        if !is_on_record {
            report::received(shell, &job);
        }
        shell.submit(&job, submission);
        let handle = JobHandle {
            shell: Arc::downgrade(shell),
            clock: Arc::clone(&shell.clock),
            job,
        };
        let canceller = handle.clone();
        handle
            .job
            .listen(&cancel, move |reason| canceller.cancel(reason));
        Ok(handle)
    }

    /// Where a job is called, stage by stage.
    fn legs(&self, id: JobId, spec: &JobSpec) -> Result<Vec<Leg>, UnknownProvider> {
        let targets = self.shell.targets();
        let leg = |provider: Option<&Arc<str>>, model: Option<&Arc<str>>| {
            let mut rows = targets.iter();
            let row = rows.position(|target| target.name.as_ref() == provider);
            let unknown = || provider.map(|name| name.to_string()).unwrap_or_default();
            let target = row.ok_or_else(|| UnknownProvider(unknown()))?;
            Ok(Leg {
                target,
                stage: targets[target].stage,
                provider: provider.cloned(),
                model: model.cloned(),
                subject: Arc::new(Subject {
                    request: Arc::clone(&spec.request_id),
                    job: id.0,
                    key: spec.owner.key().cloned(),
                    session: spec.owner.session().cloned(),
                    provider: provider.cloned(),
                    model: model.cloned(),
                    joined: None,
                }),
            })
        };
        let first = leg(spec.provider.as_ref(), spec.model.as_ref());
        let rest = spec.fallback.iter();
        let rest = rest.map(|other| leg(Some(&other.provider), Some(&other.model)));
        std::iter::once(first).chain(rest).collect()
    }

    /// The number of a request that is not a job yet, and may never be one: no job and no other request has it.
    pub fn number(&self) -> u64 {
        self.shell.next_job().0
    }

    /// Whether this thread is one of the workers: a wait for a job on it could be a wait for itself.
    pub fn is_on_worker(&self) -> bool {
        self.shell.is_worker()
    }

    /// Slots, lines and workers at this moment.
    pub fn snapshot(&self) -> Snapshot {
        snapshot::take(&self.shell)
    }

    /// The jobs that have not ended, oldest first.
    pub fn requests(&self) -> Vec<RequestView> {
        snapshot::requests(&self.shell)
    }

    /// Ends the jobs of a request whose owner is `meant`, in line or in their call. Returns how many there were.
    pub fn cancel(
        &self,
        request_id: &str,
        meant: impl Fn(&Owner) -> bool,
        reason: CancelReason,
    ) -> usize {
        let jobs = self
            .shell
            .live()
            .into_iter()
            .filter(|job| *job.request_id == *request_id && meant(&job.owner));
        jobs.map(|job| self.shell.step(Event::Cancel(job.id, reason), None))
            .count()
    }

    /// The limit that the owner's API key gives each of its sessions.
    fn session_limit(&self, owner: &Owner) -> Option<usize> {
        let key = owner.key()?;
        self.rules().session_limits.get(&**key).copied()
    }

    /// Compares what is counted with what is there.
    ///
    /// # Errors
    /// In words, what does not agree.
    pub fn audit(&self) -> Result<(), String> {
        self.shell.look(|core, _| core.audit())
    }

    /// What is counted of it.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shell.metrics
    }

    /// All semaphores, and who holds what: the slots in use, and the calls that go on without theirs, oldest first.
    pub fn semaphores(&self) -> (Vec<SemaphoreView>, Vec<SlotHolding>) {
        snapshot::semaphores(&self.shell)
    }

    /// Makes a health check now, and recovers what it finds: see [`HealthCheck`].
    pub fn check_health(&self) -> HealthCheck {
        let check = health::make_check(&self.shell);
        if check.end == CheckEnd::Passed {
            log::info!("{check}");
        }
        check
    }

    /// What the last health check found; `None` before the first.
    pub fn last_check(&self) -> Option<HealthCheck> {
        self.shell.health.last()
    }

    /// Whether all is well: the books of the slots agree, and no more workers are lost than may be.
    ///
    /// # Errors
    /// What is wrong.
    pub fn health(&self) -> Result<(), Unhealthy> {
        health::verdict(&self.shell)
    }

    /// The same, and the watchdog answers before `limit`. Waits for that; it has nothing to do once the engine stops.
    ///
    /// # Errors
    /// What is wrong.
    pub fn pulse(&self, limit: Time) -> Result<(), Unhealthy> {
        match self.shell.alarm.answers(&self.shell.clock, limit) {
            true => self.health(),
            false => Err(Unhealthy::Watchdog),
        }
    }

    /// Takes nothing new from now on; what has not ended by `until` is ended then.
    pub fn quiesce(&self, until: Time) {
        self.shell.step(Event::Stop { until }, None);
    }

    /// Quiesces, waits at most `grace` for what runs, ends the rest, and joins the threads. Further calls do nothing.
    pub fn stop(&self, grace: Duration) {
        let until = self.shell.clock.now() + grace;
        self.quiesce(until);
        self.shell.wait_until_empty(until + COME_BACK);
        let threads = self.threads.lock().take();
        if let Some(threads) = threads {
            threads.stop(&self.shell);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("workers", &self.shell.crew.view(&self.shell))
            .finish_non_exhaustive()
    }
}

/// A job named a provider that the engine does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no provider named {0:?}")]
pub struct UnknownProvider(pub String);

impl Threads {
    fn start(shell: &Arc<Shell>, config: &Config) -> io::Result<Threads> {
        shell.crew.muster(shell)?;
        let watched = Arc::clone(shell);
        let watchdog = Builder::new()
            .name("pointsman-watchdog".into())
            .spawn(move || watchdog::run(&watched))?;
        let (bell, rung) = bounded(0);
        let checked = Arc::clone(shell);
        let (audit, check) = (config.watchdog.audit, config.watchdog.health_check);
        let health = Builder::new()
            .name("pointsman-health".into())
            .spawn(move || health::run(&checked, audit, check, &rung))?;
        Ok(Threads {
            watchdog,
            health,
            bell,
        })
    }

    fn stop(self, shell: &Shell) {
        drop(self.bell);
        join(self.health);
        shell.crew.dismiss(shell, COME_BACK);
        shell.alarm.stop();
        join(self.watchdog);
    }
}
