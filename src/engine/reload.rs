//! Another configuration for an engine that runs: who is called, under which limits and rules.
//!
//! In this order, so that no request meets half of it:
//!
//! 1. Workers are added where more are wanted; who is too many goes home after the change, when fewer calls are in flight.
//! 2. The core takes the change in one step: from then on nothing starts at a provider that is gone, and one that is new may
//!    be called. Under the same lock the table of targets is exchanged.
//! 3. What requests are planned by is exchanged: new requests go by it. A request that was planned a moment before, for a
//!    provider that is gone, is refused by the core with these words, or goes on to the next stage of its route.
//!
//! A call that is under way keeps the provider that it began with; a job in line calls whoever stands in the table when its
//! turn comes. Rows of the table are never given to another name: a provider that comes back has the row that it had.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::settings;
use super::shell::Target;
use super::task::Removed;
use super::{Engine, Rules};
use crate::admission::{Change, TargetId};
use crate::config::Config;
use crate::providers::Provider;
use crate::routing::Router;

/// Rows of providers that there ever were; each costs a look at every step of the core.
const MAX_ROWS: usize = 1_000;

/// What an engine goes by from now on.
pub struct Reload<'a> {
    /// The whole of it.
    pub config: &'a Config,
    /// Those who are called, each under its name.
    pub providers: Vec<(Arc<str>, Arc<dyn Provider>)>,
    /// Those of them that are reached otherwise than before: what was learned of them is forgotten.
    pub anew: Vec<Arc<str>>,
    /// From the names of models to them.
    pub router: Router,
}

impl Engine {
    /// Goes by another configuration from now on. Who runs and who waits goes on: see the story of this file.
    ///
    /// # Errors
    /// If there would be more than a thousand providers in the life of this engine; nothing has changed then.
    pub fn reload(&self, reload: Reload<'_>) -> io::Result<()> {
        let _one_at_a_time = self.reloading.lock();
        let mut targets: Vec<Target> = self.shell.targets().to_vec();
        for target in &mut targets {
            target.is_gone = target.name.is_some();
        }
        for (name, provider) in &reload.providers {
            let mut rows = targets.iter_mut();
            match rows.find(|target| target.name.as_ref() == Some(name)) {
                Some(target) => {
                    (target.provider, target.is_gone) = (Arc::clone(provider), false);
                }
                None => targets.push(Target::new(Some(Arc::clone(name)), Arc::clone(provider))),
            }
        }
        if targets.len() > MAX_ROWS {
            return Err(io::Error::other(format!(
                "there were more than {MAX_ROWS} providers since the start"
            )));
        }
        let mut unknown = reload.anew.clone();
        for target in targets.iter_mut().filter(|target| target.is_gone) {
            unknown.extend(target.name.clone());
            // Neither its connections nor its key are kept.
            target.provider = Arc::new(Removed);
        }
        let change = change(&reload, &targets);
        let settings = &change.settings;
        let workers = settings.workers.min(settings.global);
        // Never fewer than the core counts on: more before it knows, fewer after.
        let crew = &self.shell.crew;
        if workers > crew.view(&self.shell).wanted {
            crew.want(&self.shell, workers);
        }
        self.shell.metrics.know(&settings::names(&targets));
        self.shell.change(change, targets);
        crew.want(&self.shell, workers);
        self.shell
            .sessions
            .forget_after(reload.config.limits.session_idle);
        let rules = self.rules();
        let planner = rules
            .planner
            .renewed(reload.config, reload.router, &unknown);
        *self.rules.write() = Arc::new(Rules {
            planner,
            session_limits: settings::session_limits(reload.config),
        });
        Ok(())
    }
}

fn change(reload: &Reload<'_>, targets: &[Target]) -> Change {
    let those = |which: &dyn Fn(&Target) -> bool| {
        let rows = targets.iter().enumerate();
        let rows = rows.filter(|(_, target)| which(target));
        rows.map(|(index, _)| TargetId(index as u32)).collect()
    };
    let is_anew = |target: &Target| {
        let name = target.name.as_ref();
        name.is_some_and(|name| reload.anew.contains(name))
    };
    Change {
        settings: settings::settings(reload.config, targets),
        anew: those(&is_anew),
        gone: those(&|target| target.is_gone),
    }
}

impl fmt::Debug for Reload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload")
            .field("anew", &self.anew)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::{SharedClock, SystemClock};
    use crate::config::Profile;
    use crate::engine::{FnTask, JobSpec, Refusal, RefusalReason, Shut, TaskContext, Verdict};
    use crate::providers::{Call, OnPiece, ProviderError, Providers};
    use crate::telemetry::LifecycleLog;

    /// A provider that nobody asks: the jobs of these tests are functions.
    #[derive(Debug)]
    struct Unasked;

    impl Provider for Unasked {
        fn chat(&self, _call: &Call<'_>, _on_piece: &mut OnPiece<'_>) -> Result<(), ProviderError> {
            Ok(())
        }
    }

    fn those(names: &[String]) -> Vec<(Arc<str>, Arc<dyn Provider>)> {
        let named = names.iter().map(|name| {
            let provider: Arc<dyn Provider> = Arc::new(Unasked);
            (Arc::from(name.as_str()), provider)
        });
        named.collect()
    }

    fn config(global: usize) -> (Config, Router, SharedClock) {
        let mut config = Config::builtin(Profile::Test);
        config.limits.global = global;
        let clock = SystemClock::shared();
        let router = Router::new(&config, &Providers::new(&config, Arc::clone(&clock)));
        (config, router, clock)
    }

    fn start(names: &[String]) -> Engine {
        let (config, router, clock) = config(1);
        let lifecycle = Arc::new(LifecycleLog::new(&config.telemetry));
        Engine::start(&config, clock, those(names), router, lifecycle).expect("threads start")
    }

    fn reload(engine: &Engine, global: usize, names: &[String]) -> io::Result<()> {
        let (config, router, _) = config(global);
        engine.reload(Reload {
            config: &config,
            providers: those(names),
            anew: Vec::new(),
            router,
        })
    }

    /// How a function ends that is called at `provider`.
    fn run_at(engine: &Engine, provider: &str) -> Verdict {
        let task = FnTask(|_: &TaskContext<'_>| Ok(()));
        let now = engine.shell.clock.now();
        let spec = JobSpec {
            provider: Some(provider.into()),
            ..JobSpec::new("r".into(), task, now, now + Duration::from_secs(30))
        };
        engine
            .submit(spec)
            .expect("it had a row once")
            .wait()
            .verdict
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_provider_that_comes_back_has_the_row_that_it_had() {
        let engine = start(&names(&["a", "b"]));
        let rows = |engine: &Engine| engine.shell.targets().len();
        for there in [&["b"][..], &["a", "b", "c"], &["c"], &["a", "b", "c"]] {
            reload(&engine, 1, &names(there)).expect("it reloads");
            for name in ["a", "b"] {
                let refused = Verdict::Refused(Refusal {
                    reason: RefusalReason::Shut(Shut::Removed),
                    retry_after: Duration::from_secs(1),
                    throttled: None,
                });
                let verdict = match there.contains(&name) {
                    true => Verdict::Completed,
                    false => refused,
                };
                assert_eq!(run_at(&engine, name), verdict, "{name} of {there:?}");
            }
            assert_eq!(engine.snapshot().providers.len(), there.len());
        }
        assert_eq!(rows(&engine), 4, "a, b, c, and nobody");
        engine.audit().expect("the books agree");
    }

    #[test]
    fn as_many_workers_are_wanted_as_calls_may_be_in_flight() {
        let engine = start(&names(&["a"]));
        for global in [3, 2, 5] {
            reload(&engine, global, &names(&["a"])).expect("it reloads");
            let snapshot = engine.snapshot();
            assert_eq!(
                (snapshot.core.limit, snapshot.workers.wanted),
                (global, global)
            );
            assert_eq!(run_at(&engine, "a"), Verdict::Completed);
        }
    }

    #[test]
    fn more_rows_than_there_may_be_change_nothing() {
        let engine = start(&names(&["a"]));
        let many: Vec<String> = (0..MAX_ROWS).map(|number| format!("p{number}")).collect();
        let error = reload(&engine, 3, &many).expect_err("with nobody and a they are too many");
        assert!(error.to_string().contains("since the start"), "{error}");
        let snapshot = engine.snapshot();
        assert_eq!(
            (
                snapshot.providers.len(),
                snapshot.core.limit,
                snapshot.workers.wanted
            ),
            (1, 1, 1)
        );
        assert_eq!(run_at(&engine, "a"), Verdict::Completed);
    }
}
