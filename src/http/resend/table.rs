//! Who attends which call: the table under its lock. See the folder's story.

use std::collections::HashMap;
use std::sync::Arc;

use super::call::{Ended, SharedCall};
use super::ear::Ear;
use super::{Fingerprint, Identity, Resends, Sent};
use crate::cancel::CancelReason;
use crate::door::Held;
use crate::engine::{Owner, Verdict};
use crate::http::error::ApiError;

/// The calls that can be joined, oldest first for each identity: two requests that look alike, neither of them a resend,
/// are two.
#[derive(Debug, Default)]
pub(super) struct Table {
    calls: HashMap<Identity, Vec<Entry>>,
    next: u64,
    /// Nobody stays any more for a client that has left.
    closed: bool,
}

/// Where a call is in the table.
#[derive(Debug, Clone)]
pub(in crate::http) struct Place {
    identity: Identity,
    number: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    body: Fingerprint,
    call: Arc<SharedCall>,
    /// Those who wait for its end.
    ears: Vec<Arc<Ear>>,
    /// How often the last of them left: so that whoever stays behind knows whether it is still the one who does.
    absences: u64,
    /// The answer that came while nobody waited.
    kept: Option<Arc<Ended>>,
}

/// How a request came in.
#[derive(Debug)]
pub(in crate::http) enum Entered {
    /// It makes a call of its own, which others can join.
    First(Arc<SharedCall>, Arc<Ear>),
    /// It waits for the end of this call.
    Joined(Arc<SharedCall>, Arc<Ear>),
    /// The answer is here.
    Kept(Arc<Ear>, Arc<Ended>),
}

/// What it means that an ear is not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Somebody else has taken it out, and tells it.
    Told,
    /// Others wait for the call.
    ToOthers,
    /// Nobody does; the number of the absence that begins.
    ToNobody(u64),
}

impl Resends {
    /// Joins the call that `sent` is a resend for, or begins one. `first` and `joiner` make the ears; they must call nobody.
    ///
    /// # Errors
    /// 422 where the key of `sent` stands for another body.
    pub(in crate::http) fn enter(
        self: &Arc<Self>,
        sent: &Sent,
        first: impl FnOnce() -> Ear,
        joiner: impl FnOnce(&SharedCall) -> Ear,
    ) -> Result<Entered, ApiError> {
        let mut table = self.table.lock();
        table.next += 1;
        let number = table.next;
        let entries = table.calls.entry(sent.identity.clone()).or_default();
        if let Some(entry) = sent.may_join.then(|| nearest(entries)).flatten() {
            if entry.body != sent.body {
                return Err(sent.conflict(entry.call.request_id()));
            }
            let (ear, call) = (Arc::new(joiner(&entry.call)), Arc::clone(&entry.call));
            if let Some(ended) = &entry.kept {
                return Ok(Entered::Kept(ear, Arc::clone(ended)));
            }
            entry.ears.push(Arc::clone(&ear));
            if entry.ears.len() == 1 {
                self.changed.notify_all();
            }
            return Ok(Entered::Joined(call, ear));
        }
        let ear = Arc::new(first());
        let place = Place {
            identity: sent.identity.clone(),
            number,
        };
        let call = Arc::new(SharedCall::new(Arc::clone(self), place, &ear));
        entries.push(Entry {
            number,
            body: sent.body,
            call: Arc::clone(&call),
            ears: vec![Arc::clone(&ear)],
            absences: 0,
            kept: None,
        });
        Ok(Entered::First(call, ear))
    }

    /// The client behind `ear` has left; its call stays.
    pub(super) fn leave(&self, place: &Place, ear: &Arc<Ear>) -> Left {
        self.table.lock().leave(place, ear)
    }

    /// The client behind `ear` is told that it need not wait. Nobody expects it again: a call that nobody else waits for
    /// is not in the table any more.
    pub(super) fn part(&self, place: &Place, ear: &Arc<Ear>) -> Left {
        let mut table = self.table.lock();
        let left = table.leave(place, ear);
        if let Left::ToNobody(_) = left {
            table.remove(place);
        }
        left
    }

    /// The call has ended: those who wait for it, to be told. Where nobody does, an answer is kept.
    pub(super) fn over(&self, place: &Place, ended: &Arc<Ended>) -> Vec<Arc<Ear>> {
        let mut table = self.table.lock();
        let Some(entry) = table.entry(place) else {
            return Vec::new();
        };
        let ears = std::mem::take(&mut entry.ears);
        if ears.is_empty() && ended.end.verdict == Verdict::Completed {
            entry.kept = Some(Arc::clone(ended));
        } else {
            table.remove(place);
        }
        drop(table);
        if ears.is_empty() {
            self.changed.notify_all();
        }
        ears
    }

    /// Stays with a call after its last client has left, until somebody comes or the grace is over. `true`: nobody came,
    /// the call is to be cut, and is not in the table any more. `reserve` finds room for an answer that is kept.
    pub(super) fn stay_behind(
        &self,
        place: &Place,
        absence: u64,
        reserve: &dyn Fn(usize) -> Option<Held>,
    ) -> bool {
        let until = self.clock.now() + self.grace;
        let mut room = None;
        let mut table = self.table.lock();
        loop {
            let closed = table.closed;
            let Some(entry) = table.entry(place) else {
                return false;
            };
            if entry.absences != absence || !entry.ears.is_empty() {
                return false;
            }
            let left = until.since(self.clock.now());
            match entry.kept.clone() {
                _ if closed || left.is_zero() => return table.remove(place),
                Some(ended) if room.is_none() => {
                    drop(table);
                    room = reserve(ended.size());
                    table = self.table.lock();
                    if room.is_none() {
                        return table.remove(place);
                    }
                }
                _ => drop(self.changed.wait_for(&mut table, left)),
            }
        }
    }

    /// Ends the joiners under this request id whose owner is `meant`, and calls that nobody waits for then. Returns how
    /// many joiners there were.
    pub(in crate::http) fn cancel(
        &self,
        request_id: &str,
        meant: impl Fn(&Owner) -> bool,
        reason: CancelReason,
    ) -> usize {
        let mut found = self.joiners();
        found.retain(|(_, ear)| ear.is_joiner(request_id, &meant));
        let mut count = 0;
        for (call, ear) in found {
            match self.part(call.place(), &ear) {
                Left::Told => continue,
                Left::ToOthers => {}
                Left::ToNobody(_) => call.cancel(reason),
            }
            count += 1;
            ear.hand(Ended::of(Verdict::Cancelled(reason)));
        }
        count
    }

    /// All who share another's call and still wait.
    pub(in crate::http) fn joiners(&self) -> Vec<(Arc<SharedCall>, Arc<Ear>)> {
        let table = self.table.lock();
        let entries = table.calls.values().flatten();
        let all = entries.flat_map(|entry| entry.ears.iter().map(|ear| (&entry.call, ear)));
        all.filter(|(_, ear)| ear.guest().is_some())
            .map(|(call, ear)| (Arc::clone(call), Arc::clone(ear)))
            .collect()
    }

    /// By the number of its job: how many clients wait for each call that can be joined and has not ended.
    pub(in crate::http) fn attendance(&self) -> HashMap<u64, usize> {
        let table = self.table.lock();
        let entries = table.calls.values().flatten();
        entries
            .filter_map(|entry| Some((entry.call.job()?.number(), entry.ears.len())))
            .collect()
    }

    /// Lets everybody go who stays for a client that has left, from now on.
    pub(in crate::http) fn close(&self) {
        self.table.lock().closed = true;
        self.changed.notify_all();
    }
}

/// The one of several that look alike whose client has left, else the oldest.
fn nearest(entries: &mut [Entry]) -> Option<&mut Entry> {
    entries
        .iter_mut()
        .min_by_key(|entry| !entry.ears.is_empty())
}

impl Table {
    fn entry(&mut self, place: &Place) -> Option<&mut Entry> {
        let entries = self.calls.get_mut(&place.identity)?;
        entries
            .iter_mut()
            .find(|entry| entry.number == place.number)
    }

    fn leave(&mut self, place: &Place, ear: &Arc<Ear>) -> Left {
        let Some(entry) = self.entry(place) else {
            return Left::Told;
        };
        let Some(at) = entry.ears.iter().position(|other| Arc::ptr_eq(other, ear)) else {
            return Left::Told;
        };
        entry.ears.remove(at);
        if !entry.ears.is_empty() {
            return Left::ToOthers;
        }
        entry.absences += 1;
        Left::ToNobody(entry.absences)
    }

    /// Whether it was there, and its call had not ended.
    fn remove(&mut self, place: &Place) -> bool {
        let Some(entries) = self.calls.get_mut(&place.identity) else {
            return false;
        };
        let Some(at) = entries
            .iter()
            .position(|entry| entry.number == place.number)
        else {
            return false;
        };
        let was_running = entries.remove(at).kept.is_none();
        if entries.is_empty() {
            self.calls.remove(&place.identity);
        }
        was_running
    }
}
