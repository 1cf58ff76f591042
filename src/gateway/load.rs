//! How loaded a gateway is, and who looks at its box.

use std::io;
use std::sync::Arc;

use crate::clock::SharedClock;
use crate::config::Config;
use crate::engine::{CoreView, Engine, Level};
use crate::telemetry::Monitor;

/// By its own slots and lines.
pub(super) fn own(core: &CoreView, capacity: usize) -> Level {
    if core.waiting >= capacity {
        Level::Critical
    } else if core.pressure {
        Level::High
    } else if core.waiting > 0 || core.in_use >= core.limit_now {
        Level::Normal
    } else {
        Level::Low
    }
}

/// Looks at the box for the engine, for as long as somebody has the engine.
pub(super) fn watch(
    config: &Config,
    clock: &SharedClock,
    engine: &Arc<Engine>,
) -> io::Result<Monitor> {
    let engine = Arc::downgrade(engine);
    Monitor::start(&config.throttle, Arc::clone(clock), move |seen| {
        if let Some(engine) = engine.upgrade() {
            engine.heed(seen);
        }
    })
}
