//! One client that waits for a shared call, on its connection's own thread.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::call::{Ended, SharedCall};
use super::guest::Guest;
use super::table::Left;
use crate::cancel::CancelReason;
use crate::clock::{SharedClock, Time};
use crate::door::{Exchange, Held, Wake};
use crate::engine::{JobEnd, Owner, Phase, Verdict};
use crate::http::error::ApiError;
use crate::http::meta::Meta;

/// A client that waits.
#[derive(Debug)]
pub(in crate::http) struct Ear {
    exchange: Exchange,
    clock: SharedClock,
    meta: Arc<Meta>,
    /// What a joiner has of its own; `None` for the client that the call was made for.
    guest: Option<Guest>,
    /// What the connection's thread has to tell.
    word: Mutex<Option<Arc<Ended>>>,
}

/// How the wait for a shared call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Stay {
    /// The client is answered, or has left.
    Over,
    /// The call ran out of time, and this client has some left.
    TimeLeft,
}

/// What a stay needs.
pub(in crate::http) struct Manner<'a> {
    /// How long a client may take to read its answer.
    pub(in crate::http) write_timeout: Duration,
    /// Finds room for an answer of so many bytes.
    pub(in crate::http) reserve: &'a dyn Fn(usize) -> Option<Held>,
}

impl Ear {
    pub(in crate::http) fn new(
        exchange: Exchange,
        clock: SharedClock,
        meta: Meta,
        guest: Option<Guest>,
    ) -> Self {
        Ear {
            exchange,
            clock,
            meta: Arc::new(meta),
            guest,
            word: Mutex::new(None),
        }
    }

    pub(super) fn meta(&self) -> &Arc<Meta> {
        &self.meta
    }

    pub(in crate::http) fn guest(&self) -> Option<&Guest> {
        self.guest.as_ref()
    }

    pub(super) fn is_joiner(&self, request_id: &str, meant: impl Fn(&Owner) -> bool) -> bool {
        let guest = self.guest.as_ref();
        *self.meta.request_id == *request_id && guest.is_some_and(|guest| meant(&guest.owner))
    }

    /// Stays with the client until it is answered, or leaves. For the connection's own thread.
    pub(in crate::http) fn stay(self: &Arc<Self>, call: &SharedCall, manner: &Manner<'_>) -> Stay {
        // The deadline of the call's own client is its job's.
        let deadline = self
            .guest
            .as_ref()
            .map_or(Time::NEVER, |guest| guest.deadline);
        let mut until = deadline;
        loop {
            match self.exchange.wait(until) {
                Wake::Notified => {
                    let word = self.word.lock().take();
                    match word {
                        Some(word) if self.has_time_left(&word) => return Stay::TimeLeft,
                        Some(word) => self.tell(&word),
                        None => {}
                    }
                }
                Wake::TimedOut => {
                    let left = call.resends().part(call.place(), self);
                    match left {
                        // Its word is on the way.
                        Left::Told if until == deadline => until = deadline + manner.write_timeout,
                        Left::Told | Left::ToOthers => self.tell(&self.expired(call)),
                        Left::ToNobody(_) => {
                            self.tell(&self.expired(call));
                            call.cancel(CancelReason::ClientLeft);
                        }
                    }
                }
                Wake::ClientLeft => {
                    self.leave(call, manner);
                    return Stay::Over;
                }
            }
            if self.exchange.progress().is_over() {
                return Stay::Over;
            }
        }
    }

    /// The client has left.
    fn leave(self: &Arc<Self>, call: &SharedCall, manner: &Manner<'_>) {
        let left = call.resends().leave(call.place(), self);
        if left == Left::Told {
            return self.hear_out(call, manner.write_timeout);
        }
        // Before anything else: so that a client that only shut its side knows.
        self.exchange.abort();
        self.close_story(&Verdict::Cancelled(CancelReason::ClientLeft));
        if let Left::ToNobody(absence) = left {
            let resends = call.resends();
            if resends.stay_behind(call.place(), absence, manner.reserve) {
                call.cancel(CancelReason::ClientLeft);
            }
        }
    }

    /// The last word was being said when the client left: one that only shut its side reads it.
    fn hear_out(&self, call: &SharedCall, write_timeout: Duration) {
        let word = self.word.lock().take().or_else(|| {
            // The end is kept after everybody was told.
            call.job().and_then(|job| job.wait_timeout(write_timeout));
            self.word.lock().take()
        });
        match word {
            Some(word) => self.tell(&word),
            None => self.close_story(&Verdict::Cancelled(CancelReason::ClientLeft)),
        }
        self.exchange.abort();
    }

    /// The call ended at the deadline of the request that it was made for, and this one's comes later.
    fn has_time_left(&self, word: &Ended) -> bool {
        let guest = self.guest.as_ref();
        matches!(word.end.verdict, Verdict::Expired(_))
            && guest.is_some_and(|guest| self.clock.now() < guest.deadline)
    }

    fn expired(&self, call: &SharedCall) -> Arc<Ended> {
        let phase = call.job().map_or(Phase::Queue, |job| job.phase());
        Ended::of(Verdict::Expired(phase.into()))
    }

    /// Leaves a word for the connection's own thread.
    pub(super) fn hand(&self, word: Arc<Ended>) {
        *self.word.lock() = Some(word);
        self.exchange.notify();
    }

    /// Says the last word. May block for as long as a client may take to read.
    pub(in crate::http) fn tell(&self, word: &Ended) {
        let end = self.own_end(&word.end);
        if let Some(guest) = &self.guest {
            guest.end(&end, &self.meta, self.clock.now());
        }
        let response = match ApiError::of_verdict(&end.verdict) {
            None => self.meta.whole(&end, &word.reply),
            Some(error) => self.meta.refusal(&end, &error),
        };
        if let Err(error) = self.exchange.reply(response) {
            let id = &self.meta.request_id;
            log::debug!("request {id}: the answer could not be sent: {error}");
        }
    }

    fn close_story(&self, verdict: &Verdict) {
        if let Some(guest) = &self.guest {
            let end = self.own_end(&Ended::of(verdict.clone()).end);
            guest.end(&end, &self.meta, self.clock.now());
        }
    }

    /// The end as this client sees it: of the call's time only what was also its own.
    fn own_end(&self, end: &JobEnd) -> JobEnd {
        let mut end = end.clone();
        if let Some(guest) = &self.guest {
            end.phases = guest.phases(self.clock.now());
        }
        end
    }
}
