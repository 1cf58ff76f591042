//! The watchdog: sleeps until the core's next deadline, and tells the core that time has passed.
//!
//! It does no I/O but the `shutdown` of a socket (the cancel hook of an interrupted call), runs nobody's callback that
//! may block, and never waits for a client.
//!
//! # The alarm
//!
//! Every step of the core may bring its next deadline forward. [`Alarm::set`] is called after each step with the new
//! deadline, and must cost next to nothing when nothing changes, which is almost always: so the deadline that the
//! watchdog sleeps on is mirrored in an atomic, and the lock is taken only to bring it forward.
//!
//! No deadline is missed: before the watchdog asks the core for its next deadline it puts the alarm to *never*. A step
//! that comes after the question therefore sees *never*, or a deadline set since, and brings it forward; a step that
//! came before is in the answer.
//!
//! # Is it alive?
//!
//! Whoever wants to know sets the alarm to *now* and waits until the watchdog has been through a step, which takes the
//! core's lock: a watchdog that hangs, or a core that somebody does not let go of, gives no answer ([`Alarm::answers`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::shell::Shell;
use crate::admission::Event;
use crate::clock::{SharedClock, Time};

/// When the watchdog has to wake up.
#[derive(Debug)]
pub(super) struct Alarm {
    at: Mutex<Setting>,
    /// `at.time`, for those who only look.
    mirror: AtomicU64,
    changed: Condvar,
    /// A step is over, or the watchdog has gone home.
    beaten: Condvar,
}

#[derive(Debug)]
struct Setting {
    time: Time,
    stopped: bool,
    /// Steps that are over.
    beats: u64,
}

impl Alarm {
    pub(super) fn new() -> Self {
        Alarm {
            at: Mutex::new(Setting {
                time: Time::NEVER,
                stopped: false,
                beats: 0,
            }),
            mirror: AtomicU64::new(Time::NEVER.as_nanos()),
            changed: Condvar::new(),
            beaten: Condvar::new(),
        }
    }

    /// Wakes the watchdog at `time` at the latest.
    pub(super) fn set(&self, time: Time) {
        if time.as_nanos() >= self.mirror.load(Ordering::SeqCst) {
            return;
        }
        let mut at = self.at.lock();
        if time < at.time {
            self.put(&mut at, time);
            self.changed.notify_one();
        }
    }

    /// Lets the watchdog go home.
    pub(super) fn stop(&self) {
        self.at.lock().stopped = true;
        self.changed.notify_one();
        self.beaten.notify_all();
    }

    /// Wakes the watchdog, and says whether it ends a step before `limit`. One that was told to go home has nothing to do,
    /// and counts as alive.
    pub(super) fn answers(&self, clock: &SharedClock, limit: Time) -> bool {
        let before = self.at.lock().beats;
        self.set(clock.now());
        let mut at = self.at.lock();
        while at.beats == before && !at.stopped {
            let left = limit.since(clock.now());
            if left.is_zero() {
                return false;
            }
            self.beaten.wait_for(&mut at, left);
        }
        true
    }

    fn beat(&self) {
        self.at.lock().beats += 1;
        self.beaten.notify_all();
    }

    /// Sleeps until the alarm goes off, and puts it to never; how late that was. `None`: go home.
    fn sleep(&self, clock: &SharedClock) -> Option<Duration> {
        let mut at = self.at.lock();
        loop {
            if at.stopped {
                return None;
            }
            let now = clock.now();
            let left = at.time.since(now);
            match at.time {
                Time::NEVER => self.changed.wait(&mut at),
                _ if left.is_zero() => {
                    let late = now.since(at.time);
                    self.put(&mut at, Time::NEVER);
                    return Some(late);
                }
                _ => drop(self.changed.wait_for(&mut at, left)),
            }
        }
    }

    fn put(&self, at: &mut Setting, time: Time) {
        at.time = time;
        self.mirror.store(time.as_nanos(), Ordering::SeqCst);
    }
}

/// The watchdog's thread.
pub(super) fn run(shell: &Arc<Shell>) {
    while let Some(late) = shell.alarm.sleep(&shell.clock) {
        shell.metrics.record_tick_delay(late);
        shell.step(Event::Tick, None);
        shell.alarm.beat();
    }
}
