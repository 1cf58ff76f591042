//! What alerts look at: a sample of the engine, every so often.

use std::io;
use std::sync::{Arc, Weak};

use crate::clock::SharedClock;
use crate::config::Config;
use crate::engine::{Engine, PoolStats, Snapshot};
use crate::telemetry::{AlertBook, PoolUse, Sample, Watch};

/// The book of alerts and whoever writes into it.
#[derive(Debug)]
pub(super) struct Alerts {
    // The order of fields is the order of drop: who looks goes before what is looked into.
    watch: Watch,
    book: Arc<AlertBook>,
}

impl Alerts {
    /// Starts to look, unless nobody wants to.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(
        config: &Config,
        clock: &SharedClock,
        engine: &Arc<Engine>,
    ) -> io::Result<Option<Alerts>> {
        if !config.alerts.enabled {
            return Ok(None);
        }
        let book = AlertBook::new(&config.alerts, SharedClock::clone(clock))?;
        let book = Arc::new(book);
        let shown = Arc::clone(&book);
        let metrics = engine.metrics();
        metrics.add_source(move |page| shown.collect(page));
        // Whoever looks does not keep the gateway alive.
        let engine: Weak<Engine> = Arc::downgrade(engine);
        let sample = move || Some(sample(&*engine.upgrade()?));
        let watch = Watch::start(Arc::clone(&book), config.alerts.interval, sample)?;
        Ok(Some(Alerts { watch, book }))
    }

    pub(super) fn book(&self) -> &Arc<AlertBook> {
        &self.book
    }

    /// Nobody looks any more, and nobody is told.
    pub(super) fn stop(&self) {
        self.watch.stop();
        self.book.stop();
    }
}

fn sample(engine: &Engine) -> Sample {
    let snapshot = engine.snapshot();
    let core = &snapshot.core;
    let oldest = core.classes.iter().map(|class| class.oldest).max();
    Sample {
        waiting: core.waiting,
        capacity: core.capacity,
        oldest: oldest.unwrap_or_default(),
        saturated: saturated(&snapshot),
        broken: broken(&snapshot),
        pools: engine.pools().into_iter().map(pool).collect(),
        load: engine.resources().map(|_| engine.box_level() as u8),
        audit_mismatches: snapshot.health.mismatches,
        totals: engine.metrics().totals().unwrap_or_default(),
    }
}

/// The limits that are full while somebody waits for them.
fn saturated(snapshot: &Snapshot) -> Vec<String> {
    let core = &snapshot.core;
    let mut full = Vec::new();
    if core.in_use >= core.limit_now && core.waiting > 0 {
        full.push("limits.global".to_owned());
    }
    let targets = core.providers.iter().zip(&core.targets);
    for (name, (provider, target)) in snapshot.providers.iter().zip(targets) {
        if provider.waiting > 0 && target.in_use >= target.limit {
            full.push(name.to_string());
        }
    }
    full
}

fn broken(snapshot: &Snapshot) -> Vec<String> {
    let targets = snapshot.providers.iter().zip(&snapshot.core.targets);
    let open = targets.filter(|(_, target)| target.breaker == "open");
    let words = open.map(|(name, target)| match target.breaker_reason {
        Some(why) => format!("{name}: {why}"),
        None => name.to_string(),
    });
    words.collect()
}

fn pool((provider, stats): (Arc<str>, PoolStats)) -> PoolUse {
    PoolUse {
        provider,
        ended: stats.checkins,
        failed: stats.failed,
    }
}
