//! The books: which job holds which slots, and the counters that follow from it.
//!
//! A slot stands for one call in flight. It is taken together with a place at its provider, a place in its session
//! (if it has one) and a worker: all of them or none. The ledger is the truth; the counters are derived from it,
//! kept beside it so that admission need not count, and compared with it by [`Books::audit`].
//!
//! Each row of the ledger goes round this circle, always under the core's lock:
//!
//! ```text
//!          take (the core starts a job)
//!   Free ------------------------------> Held
//!    ^                                    | interrupt (deadline, cancel): the job has its end,
//!    |                                    v the worker has yet to come back
//!    |  give_back (generation + 1)   Interrupted
//!    +------------------------------------+   (from Held as well)
//! ```
//!
//! A [`PermitKey`] names a row *and its generation*. The generation moves on whenever the row becomes free, so a
//! key can give back only what it was made for: a second return, or one that comes after the row was given to
//! another, finds another generation, changes nothing and is counted as late.

use std::collections::HashMap;

use super::planted::{Fault, Planted};
use super::queue::Billed;
use super::target::Badge;
use super::{ClassId, FlowId, JobId, ProviderId, StageId, TargetId};
use crate::clock::Time;

/// Names one slot during one use of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PermitKey {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// What a slot is held for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holding {
    pub(super) job: JobId,
    pub(super) target: TargetId,
    pub(super) provider: ProviderId,
    pub(super) flow: FlowId,
    /// Whether the flow is a named session, which has a limit of its own.
    pub(super) session: bool,
    pub(super) stage: StageId,
    pub(super) class: ClassId,
    pub(super) since: Time,
    /// What has been charged for it so far.
    pub(super) billed: Billed,
    /// How its target stood when it started.
    pub(super) badge: Badge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Held,
    Interrupted,
}

#[derive(Debug)]
struct Row {
    generation: u32,
    state: State,
    holding: Option<Holding>,
}

/// The ledger with its counters.
#[derive(Debug, Default)]
pub(super) struct Books {
    rows: Vec<Row>,
    /// Indices of the free rows; the last one is taken first, so that the ledger stays short.
    free: Vec<u32>,
    in_use: usize,
    by_provider: Vec<usize>,
    by_target: Vec<usize>,
    by_session: HashMap<FlowId, usize>,
    /// Returns that came too late to change anything.
    late_returns: u64,
    taken: u64,
    given_back: u64,
    pub(super) planted: Planted,
}

impl Books {
    pub(super) fn new(providers: usize, targets: usize) -> Self {
        Books {
            by_provider: vec![0; providers],
            by_target: vec![0; targets],
            ..Books::default()
        }
    }

    /// There are so many providers and targets from now on; never fewer than before.
    pub(super) fn grow(&mut self, providers: usize, targets: usize) {
        self.by_provider.resize(providers, 0);
        self.by_target.resize(targets, 0);
    }

    /// Calls in flight in all.
    pub(super) fn in_use(&self) -> usize {
        self.in_use
    }

    /// Calls in flight at one provider.
    pub(super) fn in_use_at(&self, provider: ProviderId) -> usize {
        self.by_provider[provider.index()]
    }

    /// Calls in flight at one target.
    pub(super) fn in_use_of_target(&self, target: TargetId) -> usize {
        self.by_target[target.index()]
    }

    /// Calls in flight of one named session.
    pub(super) fn in_use_of(&self, session: FlowId) -> usize {
        self.by_session.get(&session).copied().unwrap_or(0)
    }

    /// Named sessions with calls in flight.
    pub(super) fn sessions(&self) -> usize {
        self.by_session.len()
    }

    pub(super) fn late_returns(&self) -> u64 {
        self.late_returns
    }

    /// Slots taken and given back since the start.
    pub(super) fn turnover(&self) -> (u64, u64) {
        (self.taken, self.given_back)
    }

    /// Takes a slot with all that belongs to it. The caller has seen that the limits allow it.
    pub(super) fn take(&mut self, holding: Holding) -> PermitKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.rows.push(Row {
                generation: 0,
                state: State::Free,
                holding: None,
            });
            u32::try_from(self.rows.len() - 1).expect("fewer slots than u32 can count")
        });
        let row = &mut self.rows[index as usize];
        debug_assert_eq!(row.state, State::Free);
        row.state = State::Held;
        row.holding = Some(holding);
        self.in_use += 1;
        self.taken += 1;
        self.by_provider[holding.provider.index()] += 1;
        self.by_target[holding.target.index()] += 1;
        if holding.session {
            *self.by_session.entry(holding.flow).or_default() += 1;
        }
        PermitKey {
            index,
            generation: row.generation,
        }
    }

    /// What the slot is held for, if `key` is its present generation.
    pub(super) fn holding(&mut self, key: PermitKey) -> Option<&mut Holding> {
        self.row(key).and_then(|row| row.holding.as_mut())
    }

    /// Whether the slot is held and its job still wants it.
    pub(super) fn is_held(&mut self, key: PermitKey) -> bool {
        self.row(key).is_some_and(|row| row.state == State::Held)
    }

    /// The holder's job has its end; the slot stays taken until the holder gives it back.
    pub(super) fn interrupt(&mut self, key: PermitKey) {
        if let Some(row) = self.row(key) {
            row.state = State::Interrupted;
        }
    }

    /// Frees the slot with all that belongs to it. `None`, and counted, if `key` is of an earlier generation.
    pub(super) fn give_back(&mut self, key: PermitKey) -> Option<Holding> {
        let leaks = self.planted.is(Fault::InterruptedLeaks);
        let Some(row) = self.row(key) else {
            self.late_returns += 1;
            return None;
        };
        if leaks && row.state == State::Interrupted {
            return None;
        }
        let holding = row.holding.take().expect("a row in use has a holding");
        row.state = State::Free;
        row.generation = row.generation.wrapping_add(1);
        self.free.push(key.index);
        self.in_use -= 1;
        self.given_back += 1;
        self.by_provider[holding.provider.index()] -= 1;
        self.by_target[holding.target.index()] -= 1;
        if holding.session {
            self.drop_from_session(holding.flow);
        }
        Some(holding)
    }

    /// All that is held now.
    pub(super) fn held(&mut self) -> impl Iterator<Item = &mut Holding> {
        self.rows.iter_mut().filter_map(|row| row.holding.as_mut())
    }

    /// Compares the counters with the ledger. `Err` says which one is wrong, in words.
    pub(super) fn audit(&self) -> Result<(), String> {
        let held: Vec<&Holding> = self
            .rows
            .iter()
            .filter_map(|row| row.holding.as_ref())
            .collect();
        same("global", self.in_use, held.len())?;
        same("free rows", self.free.len(), self.rows.len() - held.len())?;
        for (index, &counted) in self.by_provider.iter().enumerate() {
            let real = held
                .iter()
                .filter(|holding| holding.provider.index() == index)
                .count();
            same(&format!("provider {index}"), counted, real)?;
        }
        for (index, &counted) in self.by_target.iter().enumerate() {
            let real = held.iter().filter(|held| held.target.index() == index);
            same(&format!("target {index}"), counted, real.count())?;
        }
        for (flow, &counted) in &self.by_session {
            let real = held
                .iter()
                .filter(|holding| holding.session && holding.flow == *flow)
                .count();
            same(&format!("session {flow:?}"), counted, real)?;
        }
        let in_sessions = held.iter().filter(|holding| holding.session).count();
        same("sessions", self.by_session.values().sum(), in_sessions)?;
        match self
            .rows
            .iter()
            .find(|row| (row.state == State::Free) != row.holding.is_none())
        {
            Some(row) => Err(format!(
                "a row is {:?} and holds {:?}",
                row.state, row.holding
            )),
            None => Ok(()),
        }
    }

    fn row(&mut self, key: PermitKey) -> Option<&mut Row> {
        let stale = self.planted.is(Fault::StaleReturnFrees);
        let row = self.rows.get_mut(key.index as usize)?;
        ((row.generation == key.generation || stale) && row.state != State::Free).then_some(row)
    }

    fn drop_from_session(&mut self, flow: FlowId) {
        let count = self
            .by_session
            .get_mut(&flow)
            .expect("a session with a slot is counted");
        *count -= 1;
        if *count == 0 {
            self.by_session.remove(&flow);
        }
    }
}

fn same(what: &str, counted: usize, real: usize) -> Result<(), String> {
    if counted == real {
        return Ok(());
    }
    Err(format!("{what}: counted {counted}, the ledger has {real}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(job: u64, provider: u32, session: Option<u64>) -> Holding {
        Holding {
            job: JobId(job),
            target: TargetId(provider),
            provider: ProviderId(provider),
            flow: FlowId(session.unwrap_or(0)),
            session: session.is_some(),
            stage: StageId(0),
            class: 0,
            since: Time::ZERO,
            billed: Billed::default(),
            badge: Badge::default(),
        }
    }

    #[test]
    fn a_slot_taken_and_given_back_leaves_every_counter_at_zero() {
        let mut books = Books::new(2, 2);
        let keys = [
            books.take(holding(1, 0, Some(7))),
            books.take(holding(2, 1, Some(7))),
            books.take(holding(3, 1, None)),
        ];
        assert_eq!(
            (
                books.in_use(),
                books.in_use_at(ProviderId(1)),
                books.in_use_of(FlowId(7))
            ),
            (3, 2, 2)
        );
        books.audit().expect("books agree");
        for key in keys {
            assert!(books.give_back(key).is_some());
        }
        assert_eq!(
            (
                books.in_use(),
                books.in_use_at(ProviderId(1)),
                books.sessions()
            ),
            (0, 0, 0)
        );
        assert_eq!((books.turnover(), books.late_returns()), ((3, 3), 0));
        books.audit().expect("books agree");
    }

    #[test]
    fn a_second_return_changes_nothing_and_is_counted() {
        let mut books = Books::new(1, 1);
        let key = books.take(holding(1, 0, None));
        assert!(books.give_back(key).is_some());
        let other = books.take(holding(2, 0, None));
        assert_eq!(other.index, key.index, "the row is used again");
        assert!(books.give_back(key).is_none());
        assert_eq!((books.in_use(), books.late_returns()), (1, 1));
        assert_eq!(books.give_back(other).map(|held| held.job), Some(JobId(2)));
    }

    #[test]
    fn an_interrupted_slot_stays_taken_until_it_is_given_back() {
        let mut books = Books::new(1, 1);
        let key = books.take(holding(1, 0, None));
        books.interrupt(key);
        assert!(!books.is_held(key));
        assert_eq!(books.in_use(), 1);
        assert!(books.give_back(key).is_some());
        books.audit().expect("books agree");
    }

    #[test]
    fn the_audit_finds_a_counter_that_is_off() {
        let mut books = Books::new(1, 1);
        books.take(holding(1, 0, Some(9)));
        books.by_provider[0] = 2;
        assert_eq!(
            books.audit(),
            Err("provider 0: counted 2, the ledger has 1".into())
        );
    }
}
