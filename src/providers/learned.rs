//! What follows for the next call from how long calls took.
//!
//! # What may follow, and what must not
//!
//! A call that is silent tells nobody whether it thinks or hangs. So no rule that looks at other calls can cut a silent
//! call before its time without, some day, cutting a healthy one: the first slow one after a thousand fast ones. Where
//! silence may be healthy nothing is therefore ever shortened:
//!
//! | what | bounds | moves when |
//! |---|---|---|
//! | the deadline | its row of the table, to the longest row (and kind) | calls come near to it, or are cut while they speak: up; they don't any more: back down, to the row |
//! | silence before the first byte of an answer | `timeouts.learn.floor`, to the deadline | answers begin late: up; they begin soon: down. Only where a healthy answer *begins* soon ([`Demand::speaks_soon`]) |
//!
//! So a call that thinks or searches in silence has at least its row, whatever the calls before it took; an answer that
//! has begun has at least its row, however long it is; and what the caller asked for is not touched at all. What
//! is cut sooner is a streamed, plain, short question to a model that doesn't think, of which not one byte came back in
//! many times the time that all of its like needed: the ones that hang.
//!
//! # The rule
//!
//! Per [`Sort`] (provider, model, operation, kind), over the last `window`: **the slowest, times `factor`**.
//!
//! The slowest and not a percentile, because a percentile is made to be exceeded by healthy calls. Of calls that are alike,
//! the next is slower than the slowest of *n* with probability 1 / (n + 1), whatever their distribution: Wilks'
//! tolerance limit ("Determination of sample sizes for setting tolerance limits", 1941); with 100 of them and
//! nothing further that is 1 %, and a factor of 3 makes it a third of that for a tail as heavy as 1/x. Until there are
//! `samples` of them nothing is shortened.
//!
//! Calls that were ended before they ended themselves say *at least*:
//!
//! | ended | deadline | first byte |
//! |---|---|---|
//! | while it spoke, by us | it was healthy and needed more: counts at once, without further samples | as any other |
//! | while it spoke, by its client | at least so long | as any other |
//! | in silence | nothing: it may have hung | at least so long; was that all the patience there was, the count of samples begins anew, and until it is full nothing is cut but by the table (as RFC 6298 backs off a timer that fired) |
//! | with an error | nothing | nothing |
//!
//! A sort of which one answer had reasoning in it is no longer held for one that begins soon.
//!
//! Bounds: `keys` sorts, some 700 bytes each; the one that was not called for longest gives way. One short lock for each
//! request and one for each call. What was learned is forgotten with the process.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::cancel::CancelReason;
use crate::chat::Piece;
use crate::clock::{SharedClock, Time};
use crate::config::Learn;

use super::operation::Length;
use super::{ChosenTimeout, Demand, ErrorClass, Kind, Operation, ProviderError};

/// In how many parts the window moves on: as many as are remembered at once.
const SLICES: u64 = 8;

/// Calls that are alike as far as time goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sort {
    provider: Arc<str>,
    model: Arc<str>,
    operation: Operation,
    kind: Kind,
    is_long: bool,
}

impl Sort {
    /// What `demand` is at this model of this provider.
    pub fn new(provider: Arc<str>, model: Arc<str>, demand: &Demand) -> Self {
        Sort {
            provider,
            model,
            operation: demand.operation,
            kind: demand.kind,
            is_long: demand.is_long,
        }
    }
}

/// What calls took, by their sort.
#[derive(Debug)]
pub struct Learner {
    settings: Learn,
    clock: SharedClock,
    book: Mutex<HashMap<Sort, Trend>>,
}

impl Learner {
    /// One that knows nothing yet.
    pub fn new(settings: Learn, clock: SharedClock) -> Self {
        Learner {
            settings,
            clock,
            book: Mutex::default(),
        }
    }

    /// What is known of this sort, and the place for what its next call takes.
    pub fn lesson(self: &Arc<Self>, sort: Sort) -> Lesson {
        Lesson {
            learner: Arc::clone(self),
            sort,
        }
    }

    /// Whether it goes by these settings.
    pub fn learns_by(&self, settings: &Learn) -> bool {
        self.settings == *settings
    }

    /// Forgets what the calls of these providers took.
    pub fn forget(&self, providers: &[Arc<str>]) {
        let mut book = self.book.lock();
        book.retain(|sort, _| !providers.contains(&sort.provider));
    }

    fn slice(&self) -> u64 {
        let length = (self.settings.window.as_nanos() / u128::from(SLICES)).max(1);
        let number = u128::from(self.clock.now().as_nanos()) / length;
        u64::try_from(number).unwrap_or(u64::MAX)
    }

    fn known(&self, sort: &Sort) -> Known {
        let slice = self.slice();
        let book = self.book.lock();
        book.get(sort)
            .map_or_else(Known::default, |trend| trend.known(slice))
    }

    fn learn(&self, sort: &Sort, took: &Took) {
        let slice = self.slice();
        let mut book = self.book.lock();
        if let Some(trend) = book.get_mut(sort) {
            return trend.learn(took, slice, &self.settings);
        }
        if book.len() >= self.settings.keys {
            let oldest = book.iter().min_by_key(|(_, trend)| trend.last);
            if let Some(oldest) = oldest.map(|(sort, _)| sort.clone()) {
                book.remove(&oldest);
            }
        }
        let trend = book.entry(sort.clone()).or_default();
        trend.learn(took, slice, &self.settings);
    }
}

/// One sort, with what is known of it.
#[derive(Debug, Clone)]
pub struct Lesson {
    learner: Arc<Learner>,
    sort: Sort,
}

impl Lesson {
    /// `chosen`, as the table has it, with what follows from what calls took. No deadline becomes longer than `most`.
    pub fn apply(&self, chosen: ChosenTimeout, demand: &Demand, most: Duration) -> ChosenTimeout {
        let known = self.learner.known(&self.sort);
        known.apply(chosen, demand, most, &self.learner.settings)
    }

    /// A call of it begins now.
    pub fn begin(&self) -> Timed<'_> {
        Timed {
            lesson: self,
            begun: self.learner.clock.now(),
            first: None,
            thought: false,
        }
    }
}

/// A call that is under way. Dropped without [`Timed::end`] it teaches nothing.
#[derive(Debug)]
pub struct Timed<'a> {
    lesson: &'a Lesson,
    begun: Time,
    first: Option<Time>,
    thought: bool,
}

impl Timed<'_> {
    /// A piece of the answer is in.
    pub fn hear(&mut self, piece: &Piece) {
        if self.first.is_none() {
            self.first = Some(self.lesson.learner.clock.now());
        }
        if let Piece::Delta(delta) = piece {
            self.thought |= delta.reasoning.is_some();
        }
    }

    /// The call is over.
    pub fn end(self, result: &Result<(), ProviderError>) {
        let Some(end) = CallEnd::of(result) else {
            return;
        };
        let learner = &self.lesson.learner;
        let took = Took {
            first: self.first.map(|first| first.since(self.begun)),
            total: learner.clock.now().since(self.begun),
            thought: self.thought,
            end,
        };
        learner.learn(&self.lesson.sort, &took);
    }
}

/// How long a call took.
#[derive(Debug, Clone, Copy)]
struct Took {
    /// Until its first piece; `None`: none came.
    first: Option<Duration>,
    total: Duration,
    /// Whether there was reasoning in its answer.
    thought: bool,
    end: CallEnd,
}

/// Who ended a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CallEnd {
    /// The provider.
    Whole,
    /// We, who had no more time for it.
    Cut,
    /// Somebody who did not want it any more.
    Left,
}

impl CallEnd {
    /// `None` for what went wrong: that says nothing about how long it takes when it goes well.
    fn of(result: &Result<(), ProviderError>) -> Option<CallEnd> {
        match result.as_ref().map_err(|error| error.class) {
            Ok(()) => Some(CallEnd::Whole),
            Err(ErrorClass::FirstByteTimeout | ErrorClass::Cancelled(CancelReason::Deadline)) => {
                Some(CallEnd::Cut)
            }
            Err(ErrorClass::Cancelled(_)) => Some(CallEnd::Left),
            Err(_) => None,
        }
    }
}

/// What calls of one sort took, in the slices of the window.
#[derive(Debug, Clone, Default)]
struct Trend {
    slices: [Slice; SLICES as usize],
    /// The slice of the last call.
    last: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slice {
    number: u64,
    known: Known,
}

/// What is known of a sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Known {
    /// Calls that were answered in whole.
    calls: u32,
    /// The longest of those, and of the ones that were ended while they spoke.
    longest: Duration,
    /// The longest that we cut while it spoke.
    outgrown: Duration,
    /// Answers that began since one was given up on in silence.
    begun: u32,
    /// The longest that an answer was waited for until it began, or until the wait was ended.
    slowest: Duration,
    /// Whether there was reasoning in an answer.
    thought: bool,
}

impl Trend {
    fn learn(&mut self, took: &Took, slice: u64, settings: &Learn) {
        if took.first.is_none() && took.total >= self.known(slice).patience(settings) {
            self.slices
                .iter_mut()
                .for_each(|slice| slice.known.begun = 0);
        }
        let place = &mut self.slices[(slice % SLICES) as usize];
        if place.number != slice {
            *place = Slice {
                number: slice,
                ..Slice::default()
            };
        }
        place.known.learn(took);
        self.last = slice;
    }

    fn known(&self, slice: u64) -> Known {
        let live = self
            .slices
            .iter()
            .filter(|old| old.number + SLICES > slice && old.number <= slice);
        live.fold(Known::default(), |all, slice| all.and(&slice.known))
    }
}

impl Known {
    fn learn(&mut self, took: &Took) {
        self.thought |= took.thought;
        self.slowest = self.slowest.max(took.first.unwrap_or(took.total));
        if took.first.is_none() && took.end != CallEnd::Whole {
            return;
        }
        self.begun = self.begun.saturating_add(1);
        self.longest = self.longest.max(took.total);
        match took.end {
            CallEnd::Whole => self.calls = self.calls.saturating_add(1),
            CallEnd::Cut => self.outgrown = self.outgrown.max(took.total),
            CallEnd::Left => {}
        }
    }

    fn and(self, other: &Known) -> Known {
        Known {
            calls: self.calls.saturating_add(other.calls),
            longest: self.longest.max(other.longest),
            outgrown: self.outgrown.max(other.outgrown),
            begun: self.begun.saturating_add(other.begun),
            slowest: self.slowest.max(other.slowest),
            thought: self.thought || other.thought,
        }
    }

    /// How long the first byte of an answer is waited for, if this is enough to know it.
    fn patience(&self, settings: &Learn) -> Duration {
        times(self.slowest, settings.factor).max(settings.floor)
    }

    fn apply(
        &self,
        mut chosen: ChosenTimeout,
        demand: &Demand,
        most: Duration,
        settings: &Learn,
    ) -> ChosenTimeout {
        let factor = settings.factor;
        let is_enough = |count| count >= settings.samples;
        let is_known = is_enough(self.calls);
        let needed = if is_known {
            self.longest
        } else {
            self.outgrown
        };
        let deadline = times(needed, factor).min(most);
        if deadline > chosen.value {
            let table = Length(chosen.value);
            let what = Brief(needed);
            chosen.reason += &match is_known {
                true => format!(", learned: longest of {} calls {what}", self.calls),
                false => format!(", learned: cut in mid-answer at {what}"),
            };
            chosen.reason += &format!(" x {factor}, table {table}");
            chosen.value = deadline;
        }
        let patience = self.patience(settings);
        let may_shorten = demand.speaks_soon && !self.thought && is_enough(self.begun);
        if may_shorten && patience < chosen.value {
            let (calls, slowest) = (self.begun, Brief(self.slowest));
            chosen.reason += &format!(
                ", first byte within {}, learned: slowest of {calls} calls {slowest} x {factor}",
                Length(patience)
            );
            if patience == settings.floor {
                chosen.reason += ", no less than the floor";
            }
            chosen.first_byte = Some(patience);
        }
        chosen
    }
}

/// `length`, `factor` times: whole seconds, or milliseconds of what is short; rounded up.
fn times(length: Duration, factor: f64) -> Duration {
    let seconds = length.as_secs_f64() * factor;
    let rounded = match seconds < 10.0 {
        true => (seconds * 1000.0).ceil() / 1000.0,
        false => seconds.ceil(),
    };
    Duration::try_from_secs_f64(rounded).unwrap_or(Duration::MAX)
}

/// A length of time as exact as anybody reads: `340ms`, `12.3s`.
struct Brief(Duration);

impl fmt::Display for Brief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            0 => write!(f, "{}ms", self.0.as_millis()),
            _ => write!(f, "{:.1}s", self.0.as_secs_f64()),
        }
    }
}

#[cfg(test)]
#[path = "learned_tests.rs"]
mod tests;
