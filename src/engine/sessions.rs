//! Who is who: the names of sessions and the lines that they stand for.
//!
//! The core knows flows by number. A name keeps its number while any job of it lives, however long ago it was last
//! used: forgetting it earlier would give a session that still runs a second limit. An idle name is forgotten after
//! `limits.session_idle`, and before that only when [`MAX_IDLE`] others have been used since.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::job::Owner;
use crate::admission::FlowId;
use crate::clock::{SharedClock, Time};

/// How many idle names are remembered at most. Forgetting one costs it nothing but its place in fair queueing.
const MAX_IDLE: usize = 10_000;

/// The names in use.
#[derive(Debug)]
pub(super) struct SessionTable {
    table: Mutex<Table>,
    next: AtomicU64,
}

/// Keeps a name's line while a job of it lives.
#[derive(Debug)]
pub(super) struct Seat {
    table: Arc<SessionTable>,
    clock: SharedClock,
    owner: Owner,
    pub(super) flow: FlowId,
}

impl Seat {
    pub(super) fn take(table: &Arc<SessionTable>, owner: &Owner, clock: &SharedClock) -> Seat {
        let flow = table.enter(owner, clock.now());
        Seat {
            table: Arc::clone(table),
            clock: Arc::clone(clock),
            owner: owner.clone(),
            flow,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.table.leave(&self.owner, self.clock.now());
    }
}

#[derive(Debug, Default)]
struct Table {
    /// An idle name is forgotten after so long.
    idle_after: Duration,
    known: HashMap<Owner, Entry>,
    /// Names without a live job, by when they were last used.
    idle: BTreeMap<(Time, FlowId), Owner>,
}

#[derive(Debug)]
struct Entry {
    flow: FlowId,
    live: usize,
    last_used: Time,
}

impl SessionTable {
    pub(super) fn new(idle_after: Duration) -> Self {
        SessionTable {
            table: Mutex::new(Table {
                idle_after,
                ..Table::default()
            }),
            next: AtomicU64::new(1),
        }
    }

    /// Idle names are forgotten after so long from now on.
    pub(super) fn forget_after(&self, idle_after: Duration) {
        self.table.lock().idle_after = idle_after;
    }

    /// A job of `owner` begins to live.
    fn enter(&self, owner: &Owner, now: Time) -> FlowId {
        let mut table = self.table.lock();
        table.forget_idle(now);
        if let Some(entry) = table.known.get_mut(owner) {
            let (flow, last_used, was_idle) = (entry.flow, entry.last_used, entry.live == 0);
            entry.live += 1;
            if was_idle {
                table.idle.remove(&(last_used, flow));
            }
            return flow;
        }
        let flow = FlowId(self.next.fetch_add(1, Ordering::Relaxed));
        table.known.insert(
            owner.clone(),
            Entry {
                flow,
                live: 1,
                last_used: now,
            },
        );
        flow
    }

    /// A job of `owner` has ended and holds nothing any more.
    fn leave(&self, owner: &Owner, now: Time) {
        let mut table = self.table.lock();
        let Some(entry) = table.known.get_mut(owner) else {
            return;
        };
        entry.live -= 1;
        entry.last_used = now;
        if entry.live == 0 {
            let key = (now, entry.flow);
            table.idle.insert(key, owner.clone());
        }
    }

    /// Named sessions that are remembered.
    pub(super) fn known(&self) -> usize {
        self.table
            .lock()
            .known
            .keys()
            .filter(|owner| owner.session().is_some())
            .count()
    }
}

impl Table {
    /// Forgets the longest idle names that are due; few at a time, so that no arrival pays for many.
    fn forget_idle(&mut self, now: Time) {
        for _ in 0..4 {
            let Some((&(last_used, flow), _)) = self.idle.first_key_value() else {
                return;
            };
            if now.since(last_used) < self.idle_after && self.idle.len() <= MAX_IDLE {
                return;
            }
            if let Some(owner) = self.idle.remove(&(last_used, flow)) {
                self.known.remove(&owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(name: &str) -> Owner {
        Owner::Session(name.into())
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_session_that_still_runs_keeps_its_line_however_long_it_runs() {
        let table = SessionTable::new(Duration::from_secs(10));
        let first = table.enter(&session("a"), at(0));
        assert_eq!(table.enter(&session("a"), at(5_000)), first);
    }

    #[test]
    fn an_idle_session_is_forgotten_and_a_busy_one_is_not() {
        let table = SessionTable::new(Duration::from_secs(10));
        table.enter(&session("busy"), at(0));
        let idle = table.enter(&session("idle"), at(0));
        table.leave(&session("idle"), at(1));
        assert_eq!(table.enter(&session("other"), at(10)).0, 3);
        assert_eq!(table.known(), 3);
        table.enter(&session("other"), at(11));
        assert_eq!(table.known(), 2);
        assert_ne!(table.enter(&session("idle"), at(12)), idle);
    }

    #[test]
    fn a_key_and_a_session_of_one_name_are_two() {
        let table = SessionTable::new(Duration::from_secs(10));
        let named = table.enter(&session("x"), at(0));
        assert_ne!(table.enter(&Owner::Anonymous("x".into()), at(0)), named);
    }
}
