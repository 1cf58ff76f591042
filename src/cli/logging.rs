//! The log of the program: to standard error, without what must not be in a log.
//!
//! At `trace` the HTTP client dumps what goes over the wire, byte by byte: the providers' keys in the `Authorization`
//! header, and every prompt. That is never logged, whatever level is asked for.

use env_logger::Logger;
use log::{Log, Metadata, Record};

/// Where the HTTP client dumps the wire; it says nothing else there.
const WIRE: &str = "ureq_proto::util";

/// Logs to standard error. `RUST_LOG` wins over the configuration, as with every program that uses env_logger.
pub(super) fn start(level: &str) {
    let environment = env_logger::Env::default().default_filter_or(level);
    let logger = env_logger::Builder::from_env(environment)
        .format_timestamp_millis()
        .build();
    let max = logger.filter();
    // Fails only if a host program has set up its own log: then that one is to be used.
    if log::set_boxed_logger(Box::new(Discreet(logger))).is_ok() {
        log::set_max_level(max);
    }
}

/// A log without the wire.
#[derive(Debug)]
struct Discreet(Logger);

impl Log for Discreet {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() != WIRE && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}
