//! The threads that serve connections: one for each active connection, kept for a while when it has none.
//!
//! *The queue is never a waiting line.* A connection is pushed together with the promise of a thread for it: an
//! idle one that has nothing promised yet, or else a new one. Under the lock `queue.len() <= idle + starting`
//! always holds, and every idle or starting thread looks at the queue before it waits or leaves. So there are
//! never more threads than connections that were active at once, and the bound on connections bounds them.
//!
//! *Joining.* A thread that leaves puts its own handle among the `ended`, as its last act under the lock;
//! whoever comes next joins those, which is a matter of microseconds.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::bell::Bell;
use super::connection::{self, Connection};
use super::shared::Shared;
use crate::clock::Time;

/// A handler's code parses bodies and waits; it keeps no large things on the stack.
const STACK_BYTES: usize = 256 * 1024;

/// A thread without a connection leaves after so long.
const IDLE: Duration = Duration::from_secs(5);

/// See the module's story.
#[derive(Debug, Default)]
pub(super) struct Crew {
    roster: Mutex<Roster>,
    work: Condvar,
    gone: Condvar,
}

#[derive(Debug, Default)]
struct Roster {
    queue: VecDeque<Connection>,
    idle: usize,
    threads: HashMap<u64, JoinHandle<()>>,
    ended: Vec<JoinHandle<()>>,
    spawned: u64,
    closed: bool,
}

impl Crew {
    /// Gives a connection a thread; gives it back if none can be started. After [`Crew::close`] it is dropped.
    pub(super) fn serve(
        &self,
        door: &Arc<Shared>,
        connection: Connection,
    ) -> Result<(), Connection> {
        let mut roster = self.roster.lock();
        if roster.closed {
            return Ok(());
        }
        roster.queue.push_back(connection);
        let enough = roster.queue.len() <= roster.idle;
        let started = match enough {
            true => Ok(()),
            false => roster.start(door),
        };
        let rejected = match started {
            Ok(()) => None,
            Err(error) => {
                log::error!("no thread for a connection: {error}");
                roster.queue.pop_back()
            }
        };
        let ended = std::mem::take(&mut roster.ended);
        drop(roster);
        self.work.notify_one();
        join(ended);
        rejected.map_or(Ok(()), Err)
    }

    /// Threads alive, and how many of them have no connection.
    pub(super) fn threads(&self) -> (usize, usize) {
        let roster = self.roster.lock();
        (roster.threads.len(), roster.idle)
    }

    /// Lets every thread leave that has no connection, and takes no further connection.
    pub(super) fn close(&self) {
        let orphans = {
            let mut roster = self.roster.lock();
            roster.closed = true;
            std::mem::take(&mut roster.queue)
        };
        drop(orphans);
        self.work.notify_all();
    }

    /// Joins the threads as they leave, until `limit`. Returns how many did not.
    pub(super) fn join(&self, door: &Shared, limit: Time) -> usize {
        let mut roster = self.roster.lock();
        while !roster.threads.is_empty() {
            let now = door.clock.now();
            if now >= limit {
                break;
            }
            self.gone.wait_for(&mut roster, limit.until(now));
        }
        let abandoned = roster.threads.len();
        let ended = std::mem::take(&mut roster.ended);
        drop(roster);
        join(ended);
        abandoned
    }

    /// A thread's life.
    fn work(&self, door: &Arc<Shared>, bell: &Arc<Bell>) {
        while let Some(connection) = self.next() {
            // The door's own code is meant not to panic; if it does, one connection pays for it.
            let served = catch_unwind(AssertUnwindSafe(|| {
                connection::serve(door, connection, bell);
            }));
            if served.is_err() {
                log::error!("a connection's thread panicked");
            }
        }
    }

    /// Waits for the next connection; `None` when it is time to leave.
    fn next(&self) -> Option<Connection> {
        let mut roster = self.roster.lock();
        loop {
            if let Some(connection) = roster.queue.pop_front() {
                return Some(connection);
            }
            if roster.closed {
                return None;
            }
            roster.idle += 1;
            let waited = self.work.wait_for(&mut roster, IDLE);
            roster.idle -= 1;
            if waited.timed_out() && roster.queue.is_empty() {
                return None;
            }
        }
    }

    fn leave(&self, id: u64) {
        let mut roster = self.roster.lock();
        if let Some(own) = roster.threads.remove(&id) {
            roster.ended.push(own);
        }
        drop(roster);
        self.gone.notify_all();
    }
}

impl Roster {
    /// Starts a thread under the lock, so that its handle is there before it can leave.
    fn start(&mut self, door: &Arc<Shared>) -> io::Result<()> {
        let bell = Arc::new(Bell::new()?);
        let id = self.spawned;
        let door = door.clone();
        let handle = Builder::new()
            .name(format!("pointsman-door-{id}"))
            .stack_size(STACK_BYTES)
            .spawn(move || {
                door.crew.work(&door, &bell);
                door.crew.leave(id);
            })?;
        self.spawned += 1;
        self.threads.insert(id, handle);
        Ok(())
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        // Its panics are caught inside; one here would be in the last lines of its life, and harm nobody.
        let _ = thread.join();
    }
}
