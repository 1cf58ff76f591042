//! The log of the program: to standard error, without what must not be in a log.
//!
//! At `trace` the HTTP client dumps what goes over the wire, byte by byte: the providers' keys in the `Authorization`
//! header, and every prompt. That is never logged, whatever level is asked for.

use std::sync::Arc;

use env_logger::Logger;
use log::{Log, Metadata, Record};
use parking_lot::RwLock;

/// Where the HTTP client dumps the wire; it says nothing else there.
const WIRE: &str = "ureq_proto::util";

/// Logs to standard error. `RUST_LOG` wins over the configuration, as with every program that uses env_logger.
pub(super) fn start(level: &str) -> Level {
    let logger = logger(level);
    let max = logger.filter();
    let shared = Shared::new(RwLock::new(Arc::new(logger)));
    // Fails only if a host program has set up its own log: then that one is to be used.
    let ours = log::set_boxed_logger(Box::new(Discreet(Arc::clone(&shared)))).is_ok();
    if ours {
        log::set_max_level(max);
    }
    Level(ours.then_some(shared))
}

fn logger(level: &str) -> Logger {
    let environment = env_logger::Env::default().default_filter_or(level);
    env_logger::Builder::from_env(environment)
        .format_timestamp_millis()
        .build()
}

/// What is logged of all that is said; may be changed while it is.
#[derive(Debug)]
pub(super) struct Level(Option<Shared>);

/// Taken for each record, and not held while it is written.
type Shared = Arc<RwLock<Arc<Logger>>>;

impl Level {
    /// Logs by this level from now on, unless `RUST_LOG` says otherwise.
    pub(super) fn set(&self, level: &str) {
        if let Some(shared) = &self.0 {
            let logger = logger(level);
            let max = logger.filter();
            *shared.write() = Arc::new(logger);
            log::set_max_level(max);
        }
    }
}

/// A log without the wire.
#[derive(Debug)]
struct Discreet(Shared);

impl Discreet {
    fn logger(&self) -> Arc<Logger> {
        Arc::clone(&self.0.read())
    }
}

impl Log for Discreet {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() != WIRE && self.logger().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.logger().log(record);
        }
    }

    fn flush(&self) {
        self.logger().flush();
    }
}
