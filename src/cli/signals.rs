//! The signals that end us: SIGINT, SIGTERM and SIGHUP (ctrlc's `termination` feature takes all three).
//!
//! HUP ends us like the others: a terminal that closes takes the server that runs in it along.

use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::channel::{Receiver, bounded};

/// The exit code of a process that was told twice: 128 + SIGINT, as shells have it.
const TOLD_TWICE: i32 = 130;

/// The first signal, when it comes.
#[derive(Debug)]
pub(super) struct Signals {
    first: Receiver<()>,
}

impl Signals {
    /// Takes the signals. The first one ends [`Signals::wait`]; the second one ends the process, whatever it is at.
    ///
    /// # Errors
    /// If the system refuses, or somebody in this process has taken them already.
    pub(super) fn install() -> Result<Self, ctrlc::Error> {
        let (told, first) = bounded(1);
        let told_before = AtomicBool::new(false);
        ctrlc::set_handler(move || {
            if told_before.swap(true, Ordering::SeqCst) {
                log::warn!("told twice: stopping at once");
                process::exit(TOLD_TWICE);
            }
            // There is room for one word, and one is sent.
            let _ = told.try_send(());
        })?;
        Ok(Signals { first })
    }

    /// Waits for the first signal.
    pub(super) fn wait(&self) {
        // An error means that the handler is gone, and with it any word to wait for.
        let _ = self.first.recv();
    }
}
