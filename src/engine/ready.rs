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
//!
//! # How many workers
//!
//! Who is counted here, and how many are wanted, is under the same lock, so that never one too many is hired or goes home.
//! A worker goes home when it finds nothing to do and there are more than are wanted; it looks once more after it has
//! signed off, as above. Whoever lowers what is wanted sees to it that no more jobs are under way or ready than that:
//! then whatever is pushed afterwards finds one of those who stay.

use super::parking::{Backoff, Mutex, Parker, Receiver, Sender, Unparker, unbounded};

/// The most urgent first. What is ready has its slot, so that there are never more than slots.
#[derive(Debug)]
pub(super) struct ReadyQueue<T> {
    classes: [(Sender<T>, Receiver<T>); 3],
    rest: Mutex<Rest>,
}

/// The workers that have nothing to do.
#[derive(Debug)]
struct Rest {
    /// By their numbers; the one that lay down last is the last.
    asleep: Vec<(u32, Unparker)>,
    /// Workers that are there, or about to be.
    count: usize,
    /// How many there should be.
    wanted: usize,
    /// Whoever finds no job goes home.
    closing: bool,
}

impl<T> ReadyQueue<T> {
    /// A queue for `wanted` workers, of whom none is [hired](ReadyQueue::hire) yet.
    pub(super) fn new(wanted: usize) -> Self {
        ReadyQueue {
            classes: std::array::from_fn(|_| unbounded()),
            rest: Mutex::new(Rest {
                asleep: Vec::new(),
                count: 0,
                wanted,
                closing: false,
            }),
        }
    }

    /// Gives a job of this class to a worker.
    pub(super) fn push(&self, class: usize, job: T) {
        // The other end is kept here, so nothing can be lost.
        let _ = self.classes[class].0.send(job);
        // Woken outside of the lock, which the woken one may want at once.
        let woken = self.rest.lock().asleep.pop();
        if let Some((_, worker)) = woken {
            worker.unpark();
        }
    }

    /// The most urgent job, once there is one; `None`: go home. For worker number `worker`, which sleeps in `parker`.
    pub(super) fn next(&self, worker: u32, parker: &Parker) -> Option<T> {
        loop {
            if let Some(job) = self.seek() {
                return Some(job);
            }
            {
                let mut rest = self.rest.lock();
                if rest.closing || rest.count > rest.wanted {
                    rest.count = rest.count.saturating_sub(1);
                    drop(rest);
                    // What was pushed before may have come after the first look.
                    let job = self.take()?;
                    self.rest.lock().count += 1;
                    return Some(job);
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

    /// Counts in whoever is missing; says how many, to be started.
    pub(super) fn hire(&self) -> usize {
        let mut rest = self.rest.lock();
        if rest.closing {
            return 0;
        }
        let missing = rest.wanted.saturating_sub(rest.count);
        rest.count += missing;
        missing
    }

    /// Counts out a worker that does not come back, or never came.
    pub(super) fn lose(&self) {
        let mut rest = self.rest.lock();
        rest.count = rest.count.saturating_sub(1);
    }

    /// How many workers are wanted.
    pub(super) fn wanted(&self) -> usize {
        self.rest.lock().wanted
    }

    /// So many workers are wanted from now on: see [`ReadyQueue::hire`]. Those who are too many are woken, and go home.
    pub(super) fn want(&self, wanted: usize) {
        let woken = {
            let mut rest = self.rest.lock();
            rest.wanted = wanted;
            let surplus = rest.count.saturating_sub(wanted).min(rest.asleep.len());
            let stay = rest.asleep.len() - surplus;
            rest.asleep.split_off(stay)
        };
        woken.iter().for_each(|(_, worker)| worker.unpark());
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
    fn get_up(&self, worker: u32) -> bool {
        let asleep = &mut self.rest.lock().asleep;
        let place = asleep.iter().rposition(|(number, _)| *number == worker);
        place.map(|place| asleep.remove(place)).is_some()
    }

    /// Workers that are there or about to be, and how many of them have lain down.
    pub(super) fn roll(&self) -> (usize, usize) {
        let rest = self.rest.lock();
        (rest.count, rest.asleep.len())
    }
}
