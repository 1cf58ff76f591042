//! The log of the program: to standard error, without what must not be in a log.
//!
//! Where standard error is the journal each line begins with its priority, as `<4>`, which the journal takes off and files;
//! it has a clock of its own, so the time is left out.
//!
//! At `trace` the HTTP client dumps what goes over the wire, byte by byte: the providers' keys in the `Authorization`
//! header, and every prompt. That is never logged, whatever level is asked for.

use std::io::{self, Write};
use std::sync::Arc;

use env_logger::Logger;
use log::{Level, Log, Metadata, Record};
use parking_lot::RwLock;

use crate::config::Environment;

/// Where the HTTP client dumps the wire; it says nothing else there.
const WIRE: &str = "ureq_proto::util";

/// Logs to standard error. `RUST_LOG` wins over the configuration, as with every program that uses env_logger.
pub(super) fn start(level: &str) -> Dial {
    let logger = logger(level);
    let max = logger.filter();
    let shared = Shared::new(RwLock::new(Arc::new(logger)));
    // Fails only if a host program has set up its own log: then that one is to be used.
    let ours = log::set_boxed_logger(Box::new(Discreet(Arc::clone(&shared)))).is_ok();
    if ours {
        log::set_max_level(max);
    }
    Dial(ours.then_some(shared))
}

fn logger(level: &str) -> Logger {
    let environment = env_logger::Env::default().default_filter_or(level);
    let mut builder = env_logger::Builder::from_env(environment);
    match is_journal() {
        true => builder.format(|out, record| {
            write_for_journal(
                out,
                record.level(),
                record.target(),
                &record.args().to_string(),
            )
        }),
        false => builder.format_timestamp_millis(),
    };
    builder.build()
}

/// What is logged of all that is said; may be changed while it is.
#[derive(Debug)]
pub(super) struct Dial(Option<Shared>);

/// Taken for each record, and not held while it is written.
type Shared = Arc<RwLock<Arc<Logger>>>;

impl Dial {
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

/// Whether standard error is the journal: `JOURNAL_STREAM` names its device and inode. One that was passed on to us by
/// somebody whose standard error it is names another.
pub(super) fn is_journal() -> bool {
    let environment = Environment::of_process();
    let Some(named) = environment.get("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(io::stderr())
        .is_ok_and(|ours| named == format!("{}:{}", ours.st_dev, ours.st_ino))
}

/// A record of the journal for each line. The priorities are those of syslog.
fn write_for_journal(
    out: &mut impl Write,
    level: Level,
    target: &str,
    text: &str,
) -> io::Result<()> {
    let priority = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    for line in text.lines() {
        writeln!(out, "<{priority}>{target}: {line}")?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_a_record_has_its_priority() {
        for (level, priority) in [
            (Level::Error, 3),
            (Level::Warn, 4),
            (Level::Info, 6),
            (Level::Debug, 7),
            (Level::Trace, 7),
        ] {
            let mut out = Vec::new();
            write_for_journal(&mut out, level, "a::b", "one\ntwo").expect("room");
            let expected = format!("<{priority}>a::b: one\n<{priority}>a::b: two\n");
            assert_eq!(String::from_utf8(out).expect("text"), expected);
        }
    }
}
