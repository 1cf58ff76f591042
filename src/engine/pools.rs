//! The connections to the providers: what there is, and whether new ones can be made.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::job::{JobEnd, JobSpec};
use super::task::{Task, TaskContext, TaskError};
use super::{Engine, JobHandle};
use crate::config::Priority;
use crate::providers::{PoolStats, Probe};

/// What became of asking a provider whether it is there.
#[derive(Debug, Clone)]
pub struct ProbeEnd {
    /// The provider's name.
    pub provider: Arc<str>,
    /// What it answered; `None` where the job did not come to that, as `end` says.
    pub found: Option<Probe>,
    /// How the job ended that asked.
    pub end: JobEnd,
}

impl Engine {
    /// The connections to each provider that is reached over some, by name.
    pub fn pools(&self) -> Vec<(Arc<str>, PoolStats)> {
        let targets = self.shell.targets();
        let pools = targets.iter().filter_map(|target| {
            let stats = target.provider.pool_stats()?;
            Some((target.name.clone()?, stats))
        });
        pools.collect()
    }

    /// Begins to count anew what becomes of connections.
    pub fn reset_pools(&self) {
        for target in &*self.shell.targets() {
            target.provider.reset_pool_stats();
        }
    }

    /// Asks each provider that is reached over connections whether it is there, all at once, and waits for at most
    /// `within`. Each is asked by a job of low priority, under its slots; those of `skip` are not asked.
    pub fn probe(
        &self,
        request_id: &str,
        within: Duration,
        skip: impl Fn(&str) -> bool,
    ) -> Vec<ProbeEnd> {
        let pools = self.pools().into_iter().map(|(name, _)| name);
        let asked: Vec<_> = pools
            .filter(|name| !skip(name))
            .filter_map(|name| self.ask(request_id, name, within))
            .collect();
        let ended = asked.into_iter().map(|(provider, found, job)| {
            let end = job.wait();
            let found = found.lock().take();
            ProbeEnd {
                provider,
                found,
                end,
            }
        });
        ended.collect()
    }

    fn ask(&self, request_id: &str, provider: Arc<str>, within: Duration) -> Option<Asked> {
        let now = self.shell.clock.now();
        let found = Arc::new(Mutex::new(None));
        let task = ProbeTask(Arc::clone(&found));
        let id: Arc<str> = format!("{request_id}/{provider}").into();
        let spec = JobSpec {
            provider: Some(Arc::clone(&provider)),
            priority: Priority::Low,
            deadline_reason: "a test of connections".into(),
            ..JobSpec::new(id, task, now, now + within)
        };
        let job = self.submit(spec).ok()?;
        Some((provider, found, job))
    }
}

/// A provider, what it will have answered, and the job that asks it.
type Asked = (Arc<str>, Arc<Mutex<Option<Probe>>>, JobHandle);

#[derive(Debug)]
struct ProbeTask(Arc<Mutex<Option<Probe>>>);

impl Task for ProbeTask {
    fn call(&mut self, context: &TaskContext<'_>) -> Result<(), TaskError> {
        let found = context.provider.probe(context.cancel, context.deadline)?;
        *self.0.lock() = Some(found);
        Ok(())
    }
}
