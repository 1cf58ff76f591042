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
//! | `pointsman-worker-N` | runs one call at a time | `engine.workers` |
//! | `pointsman-watchdog` | ends what is late | 1 |
//!
//! They share the core under its lock and the ready jobs, and nothing else. See `shell.rs` for the races.
//!
//! # Stopping
//!
//! [`Engine::quiesce`] refuses the new and gives the rest until a point in time; [`Engine::stop`] does that and waits.
//! What has not ended by then is ended by the core, its calls are interrupted, and the threads are joined. A worker
//! that does not come back even then is left behind, counted and said in the log: nothing waits for it.

mod gauges;
mod handle;
mod job;
mod learn;
mod live;
mod measure;
mod parking;
mod permit;
mod plan;
mod pools;
mod ready;
#[cfg(test)]
mod ready_tests;
mod report;
mod sessions;
mod settings;
mod shell;
mod snapshot;
mod task;
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

use crossbeam::channel::{Receiver, bounded};
use parking_lot::Mutex;

use self::live::{Leg, LiveJob};
use self::plan::Planner;
use self::ready::ReadyQueue;
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
    ClassView, CoreView, ProviderView, Refusal, RefusalReason, Shut, TargetView,
};
pub use crate::providers::{ErrorClass, PoolStats, Probe, ProviderError};
pub use crate::routing::{ModelInfo, RouteError as PlanError};
pub use handle::JobHandle;
pub use job::{
    Alternative, CallInfo, JobEnd, JobSpec, NullSink, Owner, Phase, Phases, SessionName, Sink,
    SinkGone, Speaker, Verdict,
};
pub use plan::{Ask, Plan};
pub use pools::ProbeEnd;
pub use report::last_step;
pub use snapshot::{RequestView, Snapshot};
pub use task::{ChatTask, FnTask, Task, TaskContext, TaskError};

/// How long a worker has to come back after its call was interrupted, when the engine stops.
const COME_BACK: Duration = Duration::from_secs(1);

/// Runs jobs under slots, deadlines and a watchdog.
pub struct Engine {
    shell: Arc<Shell>,
    planner: Planner,
    /// By the name of the API key: calls in flight of each of its sessions.
    session_limits: HashMap<String, usize>,
    workers: usize,
    threads: Mutex<Option<Threads>>,
}

/// The threads.
struct Threads {
    /// Closed when the last worker has gone.
    gone: Receiver<()>,
    workers: Vec<JoinHandle<()>>,
    watchdog: JoinHandle<()>,
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
        let names: Vec<Arc<str>> = providers.iter().map(|(name, _)| name.clone()).collect();
        let settings = settings::settings(config, &names);
        let workers = settings.workers.min(settings.global);
        let mut core = Core::new(settings);
        let nobody: (_, Arc<dyn Provider>) = (None, Arc::new(Nobody));
        let targets = providers
            .into_iter()
            .map(|(name, provider)| (Some(name), provider))
            .chain([nobody])
            .enumerate()
            .map(|(index, (name, provider))| Target {
                name,
                provider,
                stage: core.stage(&[TargetId(index as u32)]),
            });
        let targets = targets.collect();
        let sessions = Arc::new(SessionTable::new(config.limits.session_idle));
        let ready = ReadyQueue::new(workers);
        let metrics = Arc::new(Metrics::new(&names, &config.telemetry));
        let shell = Shell::new(clock, core, ready, targets, sessions, lifecycle, metrics);
        let shell = Arc::new(shell);
        let planner = Planner::new(config, router, Arc::clone(&shell.clock));
        let threads = Threads::start(&shell, workers)?;
        Ok(Engine {
            shell,
            planner,
            session_limits: settings::session_limits(config),
            workers,
            threads: Mutex::new(Some(threads)),
        })
    }

    /// Finds out where a chat goes, until when, and why.
    ///
    /// # Errors
    /// No such model, nobody to call, or a prompt too long for `auto`.
    pub fn plan(&self, request: ChatRequest, ask: &Ask) -> Result<Plan, PlanError> {
        self.planner.plan(request, ask)
    }

    /// All models that are listed, in the order of preference.
    pub fn models(&self) -> Vec<ModelInfo> {
        self.planner.models()
    }

    /// What a request for the model `name` would get; `auto` is one too.
    ///
    /// # Errors
    /// As [`Engine::plan`].
    pub fn model(&self, name: &str) -> Result<ModelInfo, PlanError> {
        self.planner.model(name)
    }

    /// Takes a job. Whatever becomes of it, refusal included, its sink and its handle are told.
    ///
    /// # Errors
    /// [`UnknownProvider`] if `spec.provider` or one of `spec.fallback` was not among those that the engine was started with.
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
        let leg = |provider: Option<&Arc<str>>, model: Option<&Arc<str>>| {
            let mut targets = self.shell.targets.iter();
            let target = targets.position(|target| target.name.as_ref() == provider);
            let unknown = || provider.map(|name| name.to_string()).unwrap_or_default();
            Ok(Leg {
                target: target.ok_or_else(|| UnknownProvider(unknown()))?,
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
        snapshot::take(&self.shell, self.workers)
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
        self.session_limits.get(&**owner.key()?).copied()
    }

    /// Compares what is counted with what is there.
    ///
    /// # Errors
    /// In words, what does not agree.
    pub fn audit(&self) -> Result<(), String> {
        let found = self.shell.look(|core, _| core.audit());
        self.shell.metrics.record_audit(found.is_ok());
        found
    }

    /// What is counted of it.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shell.metrics
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
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

/// A job named a provider that the engine does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no provider named {0:?}")]
pub struct UnknownProvider(pub String);

impl Threads {
    fn start(shell: &Arc<Shell>, workers: usize) -> io::Result<Threads> {
        let (alive, gone) = bounded::<()>(0);
        let watched = Arc::clone(shell);
        let watchdog = Builder::new()
            .name("pointsman-watchdog".into())
            .spawn(move || watchdog::run(&watched))?;
        let workers = (0..workers).map(|index| {
            let (shell, alive) = (Arc::clone(shell), alive.clone());
            Builder::new()
                .name(format!("pointsman-worker-{index}"))
                .spawn(move || {
                    worker::run(&shell, index);
                    drop(alive);
                })
        });
        Ok(Threads {
            gone,
            workers: workers.collect::<io::Result<_>>()?,
            watchdog,
        })
    }

    fn stop(self, shell: &Shell) {
        shell.ready.close();
        // Nothing is ever sent: the wait ends when the last worker drops its end, or the time is up.
        let all_gone = self
            .gone
            .recv_timeout(COME_BACK)
            .is_err_and(|error| error.is_disconnected());
        shell.alarm.stop();
        join(self.watchdog);
        let (gone, stuck): (Vec<_>, Vec<_>) = self
            .workers
            .into_iter()
            .partition(|worker| all_gone || worker.is_finished());
        gone.into_iter().for_each(join);
        if !stuck.is_empty() {
            log::error!(
                "{} workers did not come back from an interrupted call and are left behind",
                stuck.len()
            );
        }
    }
}

fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or("unnamed").to_owned();
    if thread.thread().id() == std::thread::current().id() {
        return;
    }
    if thread.join().is_err() {
        log::error!("thread {name} panicked");
    }
}
