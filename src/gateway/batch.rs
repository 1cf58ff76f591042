//! Many functions at once.
//!
//! A batch may be longer than the line: it would be refused because of itself. So only a few of its calls are with the engine
//! at a time, and the next one is submitted when one of them has ended, whichever that is ([`Turnstile`]).

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::Gateway;
use super::call::{Call, CallContext};
use super::error::ExecuteError;
use super::execute::Running;
use crate::chat::Piece;
use crate::engine::{CallInfo, JobEnd, Sink, SinkGone, Speaker};

impl Gateway {
    /// Runs many functions, as many at once as the slots allow, and gives their results in the order of the calls.
    ///
    /// All deadlines count from now. What has not ended by its deadline has the error in its place, and the others
    /// their results: so the whole returns by the latest deadline, with what is there by then. However many there are,
    /// only a few at a time take places in line.
    ///
    /// ```
    /// # use pointsman::{Call, Config, Gateway, Profile};
    /// # let gateway = Gateway::start(Config::builtin(Profile::Test))?;
    /// let calls = (1..=3).map(|n| (Call::new(), move |_: &pointsman::CallContext| Ok::<u32, String>(n * n)));
    /// assert_eq!(gateway.execute_all(calls), [Ok(1), Ok(4), Ok(9)]);
    /// # Ok::<(), pointsman::StartError>(())
    /// ```
    pub fn execute_all<T, E, F>(
        &self,
        calls: impl IntoIterator<Item = (Call, F)>,
    ) -> Vec<Result<T, ExecuteError<E>>>
    where
        F: FnOnce(&CallContext) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let now = self.clock.now();
        let gate = Arc::new(Turnstile::new(self.batch_window()));
        let begin = |(call, function)| {
            if self.engine.is_on_worker() {
                return Err(ExecuteError::WouldDeadlock);
            }
            gate.enter();
            let begun = self.begin(call, function, now, gate.clone());
            begun.inspect_err(|_| gate.leave())
        };
        let begun: Vec<_> = calls.into_iter().map(begin).collect();
        let results = begun.into_iter().map(|begun| begun.and_then(Running::wait));
        results.collect()
    }

    /// How many calls of one batch are under way or in line at once: enough to keep all slots busy, and no more than
    /// the places in line that one session and one provider have, so that a batch is not refused because of itself.
    fn batch_window(&self) -> usize {
        let config = self.config();
        let (limits, queue) = (&config.limits, &config.queue);
        let share = (queue.capacity as f64 * queue.provider_share) as usize;
        (2 * limits.global).min(queue.per_session).min(share).max(1)
    }
}

/// Lets in so many calls of a batch at once; a call leaves when it ends, in whatever order they do.
#[derive(Debug)]
struct Turnstile {
    places: usize,
    inside: Mutex<usize>,
    left: Condvar,
}

impl Turnstile {
    fn new(places: usize) -> Self {
        Turnstile {
            places,
            inside: Mutex::new(0),
            left: Condvar::new(),
        }
    }

    /// Waits for a place: until the next call ends, which each does by its deadline.
    fn enter(&self) {
        let mut inside = self.inside.lock();
        while *inside >= self.places {
            self.left.wait(&mut inside);
        }
        *inside += 1;
    }

    fn leave(&self) {
        *self.inside.lock() -= 1;
        self.left.notify_one();
    }
}

impl Sink for Turnstile {
    fn call(&self, _call: &CallInfo) {}

    fn piece(&self, _piece: Piece) -> Result<(), SinkGone> {
        Ok(())
    }

    fn end(&self, _end: &JobEnd, _speaker: Speaker) {
        self.leave();
    }
}
