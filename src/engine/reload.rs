//! Another configuration for an engine that runs: who is called, under which limits and rules.
//!
//! In this order, so that no request meets half of it:
//!
//! 1. The core takes the change in one step: from then on nothing starts at a provider that is gone, and one that is new may
//!    be called. Under the same lock the table of targets is exchanged.
//! 2. What requests are planned by is exchanged: new requests go by it. A request that was planned a moment before, for a
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
        let change = self.change(&reload, &targets);
        self.shell.change(change, targets);
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

    fn change(&self, reload: &Reload<'_>, targets: &[Target]) -> Change {
        let mut settings = settings::settings(reload.config, targets);
        // More would find no thread to run on.
        settings.workers = settings.workers.min(self.workers);
        let those = |which: &dyn Fn(&Target) -> bool| {
            let rows = targets.iter().enumerate();
            let rows = rows.filter(|(_, target)| which(target));
            rows.map(|(index, _)| TargetId(index as u32)).collect()
        };
        Change {
            anew: those(&|target| {
                let name = target.name.as_ref();
                name.is_some_and(|name| reload.anew.contains(name))
            }),
            gone: those(&|target| target.is_gone),
            settings,
        }
    }
}

impl fmt::Debug for Reload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload")
            .field("anew", &self.anew)
            .finish_non_exhaustive()
    }
}
