//! The resource monitor: what the box and this process have, and have left, seen once per `throttle.interval`.
//!
//! A thread (`pointsman-monitor`) reads a few small files of `/proc` (`throttle.proc`) and tells whoever it was given:
//! the engine, which keeps the latest [`ResourceView`] for pages and metrics and lets its throttle heed it. The first look
//! is taken before [`Monitor::start`] returns, so that nobody finds nothing. What can't be read is not known, and said in
//! the log once; nothing else depends on it.

mod reader;
#[cfg(test)]
mod tests;
mod view;

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use self::reader::Reader;
use crate::clock::{SharedClock, Time};
use crate::config::Throttle;

pub use view::{HostView, ProcessView, ResourceView};

/// The thread that looks. It ends when this is dropped.
#[derive(Debug)]
pub struct Monitor {
    bell: Arc<Bell>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Rung when the thread is to go home.
#[derive(Debug, Default)]
struct Bell {
    stopped: Mutex<bool>,
    rung: Condvar,
}

impl Monitor {
    /// Looks once, tells that, and goes on to look and tell on a thread of its own. `tell` should not take long.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(
        settings: &Throttle,
        clock: SharedClock,
        mut tell: impl FnMut(ResourceView) + Send + 'static,
    ) -> io::Result<Monitor> {
        let bell = Arc::<Bell>::default();
        let mut reader = Reader::new(settings);
        let first = reader.read(clock.now());
        if first.is_blank() {
            let place = settings.proc.display();
            log::warn!(
                "nothing of the box can be read below {place} (throttle.proc): its load is not known, and not heeded"
            );
        }
        tell(first);
        let (watched, interval) = (Arc::clone(&bell), settings.interval);
        let thread = Builder::new()
            .name("pointsman-monitor".into())
            .spawn(move || {
                while watched.sleep(interval, &clock) {
                    tell(reader.read(clock.now()));
                }
            })?;
        Ok(Monitor {
            bell,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Ends the thread and waits for it. Further calls do nothing.
    pub fn stop(&self) {
        *self.bell.stopped.lock() = true;
        self.bell.rung.notify_all();
        let Some(thread) = self.thread.lock().take() else {
            return;
        };
        // Whoever is told might drop the last handle of us.
        let is_itself = thread.thread().id() == std::thread::current().id();
        if !is_itself && thread.join().is_err() {
            log::error!("thread pointsman-monitor panicked");
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Bell {
    /// Sleeps for so long. `false`: go home.
    fn sleep(&self, length: Duration, clock: &SharedClock) -> bool {
        let until: Time = clock.now() + length;
        let mut stopped = self.stopped.lock();
        loop {
            let left = until.since(clock.now());
            if *stopped || left.is_zero() {
                return !*stopped;
            }
            self.rung.wait_for(&mut stopped, left);
        }
    }
}
