//! The thread `pointsman-alerts`: takes a sample every so often and gives it to the book.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use super::{AlertBook, Sample};

/// Whoever looks, until it is stopped or dropped.
#[derive(Debug)]
pub struct Watch {
    /// Nothing is ever sent: its drop is the word to stop.
    stop: Mutex<Option<Sender<()>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Watch {
    /// Starts to look every `interval`. `sample` may hold nothing that keeps the gateway alive; once it has nothing to
    /// give, the thread goes home.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(
        book: Arc<AlertBook>,
        interval: Duration,
        sample: impl Fn() -> Option<Sample> + Send + 'static,
    ) -> io::Result<Watch> {
        let (stop, stopped) = bounded::<()>(0);
        let thread = Builder::new()
            .name("pointsman-alerts".into())
            .spawn(move || {
                while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                    let Some(sample) = sample() else { return };
                    book.look(&sample);
                }
            })?;
        Ok(Watch {
            stop: Mutex::new(Some(stop)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Ends the thread. Further calls do nothing.
    pub fn stop(&self) {
        drop(self.stop.lock().take());
        let thread = self.thread.lock().take();
        let Some(thread) = thread else { return };
        // The last handle of a gateway may be dropped by the sample that was just taken.
        let is_own = thread.thread().id() == std::thread::current().id();
        if !is_own && thread.join().is_err() {
            log::error!("thread pointsman-alerts panicked");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}
