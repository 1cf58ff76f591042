//! The load of the box: what was seen of it last, and what of the global limit it leaves.
//!
//! The [governor](Governor) decides under its own lock; what it decides is applied after that lock is released, since a
//! limit that rises starts jobs. So two who decide at once (the monitor, and somebody who forces something) could apply
//! their targets in the wrong order. Therefore whoever has applied a target asks whether it is still the latest, and
//! applies the next one if not: the last to apply has always asked.

use std::sync::Arc;
use std::time::Duration;

use log::Level as LogLevel;
use parking_lot::Mutex;

use super::Engine;
use crate::admission::{Event, Throttle};
use crate::config::{self, Config};
use crate::telemetry::ResourceView;
use crate::throttle::{Change, Force, Governor, Level, Readings, Sample, ThrottleView};

/// What the engine knows of the box.
#[derive(Debug)]
pub(super) struct Load {
    governor: Mutex<Governor>,
    seen: Mutex<Option<Arc<ResourceView>>>,
}

impl Load {
    pub(super) fn new(config: &Config, now: crate::clock::Time) -> Self {
        let governor = Governor::new(config.throttle.clone(), config.limits.global, now);
        Load {
            governor: Mutex::new(governor),
            seen: Mutex::new(None),
        }
    }
}

impl Engine {
    /// Takes what was seen of the box, and lets the throttle heed it.
    pub fn heed(&self, seen: ResourceView) {
        let readings = Readings {
            cpu: seen.host.cpu_busy,
            memory: seen.memory_used(),
            files: seen.files_used(),
        };
        *self.load.seen.lock() = Some(Arc::new(seen));
        self.govern(|governor, global, now| governor.sample(readings, global, now));
    }

    /// What was seen of the box and of this process last, if anybody looks.
    pub fn resources(&self) -> Option<Arc<ResourceView>> {
        self.load.seen.lock().clone()
    }

    /// The throttle at this moment.
    pub fn throttle(&self) -> ThrottleView {
        let global = self.configured_global();
        let now = self.shell.clock.now();
        self.load.governor.lock().view(global, now)
    }

    /// The throttle's latest samples, the last one last.
    pub fn throttle_samples(&self) -> Vec<Sample> {
        self.load.governor.lock().samples()
    }

    /// How loaded the box is.
    pub fn box_level(&self) -> Level {
        self.load.governor.lock().level()
    }

    /// Holds this limit or level for so long, whatever the box's load; `None`: the load decides again. It counts when this
    /// returns, within `throttle.min` and `throttle.max`, and no longer than `throttle.force_max`.
    pub fn force_throttle(&self, force: Option<(Force, Duration)>) {
        self.govern(|governor, global, now| governor.force(force, global, now));
    }

    /// Puts other settings of the throttle in force.
    pub fn configure_throttle(&self, settings: config::Throttle) {
        self.govern(|governor, global, now| governor.configure(settings, global, now));
    }

    fn govern(
        &self,
        decide: impl FnOnce(&mut Governor, usize, crate::clock::Time) -> Option<Change>,
    ) {
        let global = self.configured_global();
        let (change, before) = {
            let mut governor = self.load.governor.lock();
            let before = governor.target();
            let change = decide(&mut governor, global, self.shell.clock.now());
            (change, before)
        };
        if let Some(change) = change {
            log::log!(log_level(&change, global), "{}", line(&change, global));
        }
        let mut applied = before;
        loop {
            let target = self.load.governor.lock().target();
            if target == applied {
                return;
            }
            let throttle = Throttle {
                most: target.most,
                refuses_low: target.refuses_low,
            };
            self.shell.step(Event::Throttle(throttle), None);
            applied = target;
        }
    }

    /// The global limit as it is configured.
    fn configured_global(&self) -> usize {
        self.shell.look(|core, now| core.view(now).limit)
    }
}

/// Loud where the load begins to cost something, quiet on the steps of the way back.
fn log_level(change: &Change, global: usize) -> LogLevel {
    let (level, limit) = (change.level, change.limit);
    if level.1 > level.0 && level.1 >= Level::High {
        LogLevel::Warn
    } else if level.1 != level.0 || limit.1 < limit.0 || limit.1 == global {
        LogLevel::Info
    } else {
        LogLevel::Debug
    }
}

fn line(change: &Change, global: usize) -> String {
    let Change {
        level, limit, why, ..
    } = change;
    let level = match level.0 == level.1 {
        true => format!("level {}", level.1),
        false => format!("level {} after {}", level.1, level.0),
    };
    format!(
        "throttle: {level}, global limit {} of {global}: {why}",
        limit.1
    )
}
