//! Where jobs that may run wait for a worker, and workers for a job.
//!
//! A channel for each class holds the jobs; a stack holds the workers that found none. Whoever pushes a job wakes the
//! worker that lay down last: its memory and its caches are warm, and the others stay asleep and cold. (Waiting on the
//! channels themselves wakes the one that has slept longest: an eighth more processor time for a small request at 64
//! at once, and half as much memory again.)
//!
//! *No wake-up is lost.* The pusher sends first and looks at the stack then; the worker lies down on the stack first and
//! looks at the channels again then. The stack's lock orders the two: one of them sees the other. A worker that
//! finds a job in its second look takes itself off the stack; where a pusher was faster, it waits for that wake-up, which
//! is under way, so that none is left over to end a later sleep. `tests/shuttle` tries it.

use super::parking::{Backoff, Mutex, Parker, Receiver, Sender, TrySendError, Unparker, bounded};

/// The most urgent first; each holds as many as there are workers, so that sending never blocks.
#[derive(Debug)]
pub(super) struct ReadyQueue<T> {
    classes: [(Sender<T>, Receiver<T>); 3],
    rest: Mutex<Rest>,
}

/// The workers that have nothing to do.
#[derive(Debug, Default)]
struct Rest {
    /// By their numbers; the one that lay down last is the last.
    asleep: Vec<(usize, Unparker)>,
    /// Whoever finds no job goes home.
    closing: bool,
}

impl<T> ReadyQueue<T> {
    /// A queue for `workers` workers, and as many jobs.
    pub(super) fn new(workers: usize) -> Self {
        ReadyQueue {
            classes: std::array::from_fn(|_| bounded(workers)),
            rest: Mutex::default(),
        }
    }

    /// Gives a job of this class to a worker.
    ///
    /// # Errors
    /// The job, when there are more than workers.
    pub(super) fn push(&self, class: usize, job: T) -> Result<(), T> {
        let sent = self.classes[class].0.try_send(job);
        sent.map_err(TrySendError::into_inner)?;
        // Woken outside of the lock, which the woken one may want at once.
        let woken = self.rest.lock().asleep.pop();
        if let Some((_, worker)) = woken {
            worker.unpark();
        }
        Ok(())
    }

    /// The most urgent job, once there is one; `None`: go home. For worker number `worker`, which sleeps in `parker`.
    pub(super) fn next(&self, worker: usize, parker: &Parker) -> Option<T> {
        loop {
            if let Some(job) = self.seek() {
                return Some(job);
            }
            {
                let mut rest = self.rest.lock();
                if rest.closing {
                    drop(rest);
                    // What was pushed before the close may have come after the first look.
                    return self.take();
                }
                rest.asleep.push((worker, parker.unparker().clone()));
            }
            let found = self.take();
            if found.is_none() || !self.get_up(worker) {
                parker.park();
            }
            if found.is_some() {
                return found;
            }
        }
    }

    /// Sends the workers home, once they have done what was pushed.
    pub(super) fn close(&self) {
        let asleep = {
            let mut rest = self.rest.lock();
            rest.closing = true;
            std::mem::take(&mut rest.asleep)
        };
        asleep.iter().for_each(|(_, worker)| worker.unpark());
    }

    /// Looks a few times, as the channels of crossbeam do: under load the next job comes sooner than a thread falls asleep
    /// and wakes up again.
    fn seek(&self) -> Option<T> {
        let backoff = Backoff::new();
        loop {
            let job = self.take();
            if job.is_some() || backoff.is_completed() {
                return job;
            }
            backoff.snooze();
        }
    }

    fn take(&self) -> Option<T> {
        let mut classes = self.classes.iter();
        classes.find_map(|(_, jobs)| jobs.try_recv().ok())
    }

    /// Takes a worker off the stack; `false` when somebody has done so already, and wakes it.
    fn get_up(&self, worker: usize) -> bool {
        let asleep = &mut self.rest.lock().asleep;
        let place = asleep.iter().rposition(|(number, _)| *number == worker);
        place.map(|place| asleep.remove(place)).is_some()
    }

    /// Workers that have lain down.
    #[cfg(test)]
    pub(super) fn asleep(&self) -> usize {
        self.rest.lock().asleep.len()
    }
}
