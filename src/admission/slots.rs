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
//!    +<-----------------------------------+   (from Held as well, and from Quarantined)
//!    |                                    | quarantine: the worker is lost
//!    |  reclaim (generation + 1)          v
//!    +<------------------------------ Quarantined
//! ```
//!
//! A [`PermitKey`] names a row *and its generation*. The generation moves on whenever the row becomes free, so a
//! key can give back only what it was made for: a second return, or one that comes after the row was reclaimed or given
//! to another, finds another generation, changes nothing and is counted as late. When the watchdog quarantines and
//! reclaims is said in `orphans.rs`.

mod audit;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::planted::{Fault, Planted};
use super::queue::Billed;
use super::target::Badge;
use super::{ClassId, FlowId, JobId, ProviderId, StageId, TargetId, WorkerId};
use crate::clock::Time;

/// Names one slot during one use of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// Its job ends by then.
    pub(super) deadline: Time,
    /// Whether the slot may be taken from a holder that does not come back.
    pub(super) reclaim: bool,
    /// Who makes the call, once it has begun.
    pub(super) worker: Option<WorkerId>,
    /// What has been charged for it so far.
    pub(super) billed: Billed,
    /// How its target stood when it started.
    pub(super) badge: Badge,
}

/// How a row of the ledger stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotState {
    /// Nobody has it.
    Free,
    /// A job has it.
    Held,
    /// Its job has ended; the holder was told to give it back.
    Interrupted,
    /// Its job has ended, the holder was told and has not come back: it is given up on.
    Quarantined,
}

#[derive(Debug)]
struct Row {
    generation: u32,
    state: SlotState,
    holding: Option<Holding>,
    /// When the watchdog looks after it, if its holder has not come back by then.
    due: Time,
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
    /// Rows that the watchdog looks after next.
    orphans: BTreeSet<(Time, u32)>,
    quarantined: usize,
    /// Slots that were taken from holders that have not come back yet.
    abandoned: BTreeMap<PermitKey, Holding>,
    /// Workers that are with a quarantined slot or an abandoned call.
    lost: usize,
    /// Returns that came too late to change anything.
    late_returns: u64,
    taken: u64,
    given_back: u64,
    reclaimed: u64,
    recovered: u64,
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

    /// Slots whose holders are given up on.
    pub(super) fn quarantined(&self) -> usize {
        self.quarantined
    }

    /// Workers that are with a quarantined slot or an abandoned call.
    pub(super) fn lost(&self) -> usize {
        self.lost
    }

    pub(super) fn turnover(&self) -> Turnover {
        Turnover {
            taken: self.taken,
            given_back: self.given_back,
            reclaimed: self.reclaimed,
            recovered: self.recovered,
            late_returns: self.late_returns,
        }
    }

    /// Takes a slot with all that belongs to it. The caller has seen that the limits allow it.
    pub(super) fn take(&mut self, holding: Holding) -> PermitKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.rows.push(Row {
                generation: 0,
                state: SlotState::Free,
                holding: None,
                due: Time::NEVER,
            });
            u32::try_from(self.rows.len() - 1).expect("fewer slots than u32 can count")
        });
        let ages = self.planted.is(Fault::ReclaimsTheLiving);
        let row = &mut self.rows[index as usize];
        debug_assert_eq!(row.state, SlotState::Free);
        row.state = SlotState::Held;
        row.holding = Some(holding);
        if ages {
            row.due = holding.since + std::time::Duration::from_secs(20);
            self.orphans.insert((row.due, index));
        }
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
        self.row(key)
            .is_some_and(|row| row.state == SlotState::Held)
    }

    /// The holder's job has its end; the slot stays taken until the holder gives it back, or the watchdog, who looks after
    /// it at `due`, takes it.
    pub(super) fn interrupt(&mut self, key: PermitKey, due: Time) {
        let Some(row) = self.row(key) else { return };
        row.state = SlotState::Interrupted;
        if row.holding.is_some_and(|holding| holding.reclaim) {
            row.due = due;
            self.orphans.insert((due, key.index));
        }
    }

    /// When the watchdog looks after a slot next.
    pub(super) fn next_orphan(&self) -> Time {
        self.orphans.first().map_or(Time::NEVER, |&(due, _)| due)
    }

    /// The slot that the watchdog has to look after now, with how it stands.
    pub(super) fn orphan(&self, now: Time) -> Option<(PermitKey, SlotState)> {
        let &(due, index) = self.orphans.first()?;
        let row = &self.rows[index as usize];
        let key = PermitKey {
            index,
            generation: row.generation,
        };
        (due <= now).then_some((key, row.state))
    }

    /// The holder is given up on; the slot is looked after again at `due`.
    pub(super) fn quarantine(&mut self, key: PermitKey, due: Time) -> Option<Holding> {
        let row = self.row(key)?;
        let before = std::mem::replace(&mut row.due, due);
        row.state = SlotState::Quarantined;
        let holding = row.holding?;
        self.orphans.remove(&(before, key.index));
        self.orphans.insert((due, key.index));
        self.quarantined += 1;
        self.lost += usize::from(holding.worker.is_some());
        Some(holding)
    }

    /// Takes the slot from a holder that does not come back.
    pub(super) fn reclaim(&mut self, key: PermitKey) -> Option<Holding> {
        let holding = self.free(key)?;
        self.reclaimed += 1;
        self.lost += usize::from(holding.worker.is_some());
        self.abandoned.insert(key, holding);
        Some(holding)
    }

    /// Frees a slot that nobody holds any more, whatever its ledger says. `None` if `key` is of an earlier generation; a
    /// holder that was to come back late is not waited for any more.
    pub(super) fn recover(&mut self, key: PermitKey) -> Option<Holding> {
        self.forget_abandoned(key);
        let holding = self.free(key)?;
        self.recovered += 1;
        Some(holding)
    }

    /// Frees the slot with all that belongs to it. `None`, and counted, if `key` is of an earlier generation.
    pub(super) fn give_back(&mut self, key: PermitKey) -> Option<Holding> {
        let leaks = self.planted.is(Fault::InterruptedLeaks);
        if leaks
            && self
                .row(key)
                .is_some_and(|row| row.state != SlotState::Held)
        {
            return None;
        }
        let Some(holding) = self.free(key) else {
            self.late_returns += 1;
            self.forget_abandoned(key);
            return None;
        };
        self.given_back += 1;
        Some(holding)
    }

    fn forget_abandoned(&mut self, key: PermitKey) {
        let back = self.abandoned.remove(&key);
        let worker = back.and_then(|holding| holding.worker);
        self.lost -= usize::from(worker.is_some());
    }

    fn free(&mut self, key: PermitKey) -> Option<Holding> {
        let keeps = self.planted.is(Fault::ReclaimKeepsGeneration);
        let row = self.row(key)?;
        let holding = row.holding.take().expect("a row in use has a holding");
        let state = std::mem::replace(&mut row.state, SlotState::Free);
        let due = std::mem::replace(&mut row.due, Time::NEVER);
        if !(keeps && state == SlotState::Quarantined) {
            row.generation = row.generation.wrapping_add(1);
        }
        self.orphans.remove(&(due, key.index));
        if state == SlotState::Quarantined {
            self.quarantined -= 1;
            self.lost -= usize::from(holding.worker.is_some());
        }
        self.free.push(key.index);
        self.in_use -= 1;
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

    /// All slots that are taken, with how they stand; then those that were taken from holders who are not back yet.
    pub(super) fn ledger(&self) -> impl Iterator<Item = (PermitKey, SlotState, Time, &Holding)> {
        let rows = self.rows.iter().enumerate();
        let taken = rows.filter_map(|(index, row)| {
            let key = PermitKey {
                index: index as u32,
                generation: row.generation,
            };
            Some((key, row.state, row.due, row.holding.as_ref()?))
        });
        let abandoned = self.abandoned.iter();
        taken.chain(abandoned.map(|(&key, holding)| (key, SlotState::Free, Time::NEVER, holding)))
    }

    fn row(&mut self, key: PermitKey) -> Option<&mut Row> {
        let stale = self.planted.is(Fault::StaleReturnFrees);
        let row = self.rows.get_mut(key.index as usize)?;
        ((row.generation == key.generation || stale) && row.state != SlotState::Free).then_some(row)
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

/// What went through the ledger since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turnover {
    /// Slots taken.
    pub taken: u64,
    /// Slots given back by whoever had them.
    pub given_back: u64,
    /// Slots taken from holders that did not come back from an interrupted call.
    pub reclaimed: u64,
    /// Slots that were found held by nobody: leaks.
    pub recovered: u64,
    /// Returns that came too late to change anything.
    pub late_returns: u64,
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
            deadline: Time::NEVER,
            reclaim: true,
            worker: None,
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
        let turnover = Turnover {
            taken: 3,
            given_back: 3,
            ..Turnover::default()
        };
        assert_eq!(books.turnover(), turnover);
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
        assert_eq!((books.in_use(), books.turnover().late_returns), (1, 1));
        assert_eq!(books.give_back(other).map(|held| held.job), Some(JobId(2)));
    }

    #[test]
    fn an_interrupted_slot_stays_taken_until_it_is_given_back() {
        let mut books = Books::new(1, 1);
        let key = books.take(holding(1, 0, None));
        books.interrupt(key, Time::from_nanos(5));
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
        books.recount();
        books.audit().expect("what was counted anew agrees");
        assert_eq!(books.in_use_at(ProviderId(0)), 1);
    }

    #[test]
    fn a_slot_that_was_reclaimed_is_another_s_and_its_late_return_finds_nothing() {
        let mut books = Books::new(1, 1);
        let held = Holding {
            worker: Some(WorkerId(4)),
            ..holding(1, 0, Some(7))
        };
        let key = books.take(held);
        books.interrupt(key, Time::from_nanos(5));
        assert_eq!(books.orphan(Time::from_nanos(4)), None);
        let due = books.orphan(Time::from_nanos(5));
        assert_eq!(due, Some((key, SlotState::Interrupted)));
        assert!(books.quarantine(key, Time::from_nanos(9)).is_some());
        assert_eq!(
            (books.quarantined(), books.lost(), books.in_use()),
            (1, 1, 1)
        );
        books.audit().expect("books agree");
        assert!(books.reclaim(key).is_some());
        assert_eq!(
            (books.quarantined(), books.lost(), books.in_use()),
            (0, 1, 0)
        );
        let other = books.take(holding(2, 0, Some(7)));
        books.audit().expect("books agree");
        assert!(books.give_back(key).is_none());
        assert_eq!((books.lost(), books.in_use()), (0, 1));
        assert!(books.is_held(other));
        books.audit().expect("books agree");
    }

    #[test]
    fn who_comes_back_from_quarantine_gives_its_slot_back_itself() {
        let mut books = Books::new(1, 1);
        let key = books.take(Holding {
            worker: Some(WorkerId(4)),
            ..holding(1, 0, None)
        });
        books.interrupt(key, Time::from_nanos(5));
        books.quarantine(key, Time::from_nanos(9));
        assert!(books.give_back(key).is_some());
        assert_eq!(
            (books.lost(), books.quarantined(), books.in_use()),
            (0, 0, 0)
        );
        assert_eq!(books.next_orphan(), Time::NEVER);
        books.audit().expect("books agree");
    }

    #[test]
    fn who_may_keep_its_slot_is_not_looked_after() {
        let mut books = Books::new(1, 1);
        let key = books.take(Holding {
            reclaim: false,
            ..holding(1, 0, None)
        });
        books.interrupt(key, Time::from_nanos(5));
        assert_eq!(books.next_orphan(), Time::NEVER);
        books.audit().expect("books agree");
    }
}
