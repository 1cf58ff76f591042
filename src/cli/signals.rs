//! The signals that end us: SIGINT, SIGTERM and SIGHUP (ctrlc's `termination` feature takes all three).
//!
//! HUP ends us like the others: a terminal that closes takes what runs in it along. The first signal asks nicely; the
//! second one ends the process, whatever it is at.

use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};

use crate::cancel::{CancelReason, CancelToken};

/// The exit code of a process that was told to stop before it was done: 128 + SIGINT, as shells have it.
pub(super) const INTERRUPTED: u8 = 130;

/// The first signal, when it comes.
#[derive(Debug)]
pub(super) struct Signals {
    first: Receiver<()>,
}

impl Signals {
    /// Takes the signals. The first one ends [`Signals::wait_for`].
    ///
    /// # Errors
    /// If the system refuses, or somebody in this process has taken them already.
    pub(super) fn install() -> Result<Self, ctrlc::Error> {
        let (told, first) = bounded(1);
        // There is room for one word, and one is sent.
        on_first(move || {
            let _ = told.try_send(());
        })?;
        Ok(Signals { first })
    }

    /// Such that come when the other end says so, or is dropped.
    #[cfg(test)]
    pub(super) fn told() -> (Signals, crossbeam::channel::Sender<()>) {
        let (told, first) = bounded(1);
        (Signals { first }, told)
    }

    /// Waits for the first signal, so long; whether it came.
    pub(super) fn wait_for(&self, most: Duration) -> bool {
        // A closed channel means that the handler is gone, and with it any word to wait for.
        self.first.recv_timeout(most) != Err(RecvTimeoutError::Timeout)
    }
}

/// A token that the first signal cancels.
///
/// # Errors
/// As [`Signals::install`].
pub(super) fn cancelled_by_signal() -> Result<CancelToken, ctrlc::Error> {
    let token = CancelToken::new();
    let cancelled = token.clone();
    // The handler runs on a thread of its own, where hooks may run.
    on_first(move || {
        cancelled.cancel(CancelReason::Requested);
    })?;
    Ok(token)
}

fn on_first(tell: impl Fn() + Send + 'static) -> Result<(), ctrlc::Error> {
    let told_before = AtomicBool::new(false);
    ctrlc::set_handler(move || {
        if told_before.swap(true, Ordering::SeqCst) {
            log::warn!("told twice: stopping at once");
            process::exit(INTERRUPTED.into());
        }
        tell();
    })
}
