//! The lifecycle log: each step of each request, for as long as the configuration says.
//!
//! # Order
//!
//! The admission core numbers its decisions under its lock, but what follows from them is carried out, and recorded
//! here, by different threads in any order. So an [`Event`] carries the number of the decision that it follows from,
//! and whoever reads is given the events of a request by number; events of one decision (a start is a
//! [`Step::Dequeued`], a [`Step::SessionAllocated`] and a [`Step::ProviderCallStart`]) by the order of the steps; and
//! those that are still equal by time. What comes before the first decision ([`Step::Received`]) has number 0.
//!
//! Clients choose the ids of their requests, and may choose one twice. So each event also carries the number of its
//! job, and the stories of requests of one id are told one after the other, never mixed.
//!
//! # Cost
//!
//! Every request pushes some ten events from the threads that carry it, so a push takes one short lock, for all steps
//! that come together: it writes their entries, takes at most [`EVICT`] old ones out for each, and drops those after the
//! lock is released. Nothing is allocated but the ring itself as it first fills. A reader walks the ring in slices of [`SLICE`] entries and lets go of the lock
//! between them; entries are numbered from the first that was ever pushed, so a slice that was evicted meanwhile is
//! skipped, and none is read twice.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::Thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::hour::{Ends, Hour};
use crate::clock::{SharedClock, Time};
use crate::config::Telemetry;
use crate::telemetry::Phases;
use crate::telemetry::journal::{FileStatistics, Journal};
use crate::telemetry::quantiles::{PhaseQuantiles, Quantiles};

/// How many old events each new one takes out: more than one, so that what is too old goes although only pushes do it.
const EVICT: usize = 2;
/// How many events a reader looks at under one lock.
const SLICE: u64 = 256;
/// Events for which the ring has room from the start; a larger ring grows into its size.
const PREALLOCATED: usize = 16_384;

/// A step in the life of a request. The order of the variants is the order of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Its head was read.
    Received,
    /// It shares the call of another request, which runs already: it takes no slot.
    Joined,
    /// It waits in line, holding nothing.
    Queued,
    /// Its turn came: all of its slots were taken together.
    Dequeued,
    /// The slot of its session, among them, is taken.
    SessionAllocated,
    /// A call to the provider begins.
    ProviderCallStart,
    /// The call is over, to the last byte.
    ProviderCallEnd,
    /// The slot of its session is free again, with all the others.
    SessionReleased,
    /// Its call failed and will be tried again; until then it holds nothing.
    BackingOff,
    /// It ended well.
    Completed,
    /// Its deadline passed, or the queue timeout.
    Timeout,
    /// It failed.
    Error,
    /// Somebody cancelled it.
    Cancelled,
    /// It was not taken in.
    Refused,
}

impl Step {
    /// All, in order.
    pub const ALL: [Step; 14] = [
        Step::Received,
        Step::Joined,
        Step::Queued,
        Step::Dequeued,
        Step::SessionAllocated,
        Step::ProviderCallStart,
        Step::ProviderCallEnd,
        Step::SessionReleased,
        Step::BackingOff,
        Step::Completed,
        Step::Timeout,
        Step::Error,
        Step::Cancelled,
        Step::Refused,
    ];

    /// Its name in pages and exports: `RECEIVED`, `PROVIDER_CALL_START`, ...
    pub const fn name(self) -> &'static str {
        match self {
            Step::Received => "RECEIVED",
            Step::Joined => "JOINED",
            Step::Queued => "QUEUED",
            Step::Dequeued => "DEQUEUED",
            Step::SessionAllocated => "SESSION_ALLOCATED",
            Step::ProviderCallStart => "PROVIDER_CALL_START",
            Step::ProviderCallEnd => "PROVIDER_CALL_END",
            Step::SessionReleased => "SESSION_RELEASED",
            Step::BackingOff => "BACKING_OFF",
            Step::Completed => "COMPLETED",
            Step::Timeout => "TIMEOUT",
            Step::Error => "ERROR",
            Step::Cancelled => "CANCELLED",
            Step::Refused => "REFUSED",
        }
    }

    /// Whether nothing comes after it: a request has exactly one such step.
    pub const fn is_end(self) -> bool {
        match self {
            Step::Received
            | Step::Joined
            | Step::Queued
            | Step::Dequeued
            | Step::SessionAllocated
            | Step::ProviderCallStart
            | Step::ProviderCallEnd
            | Step::SessionReleased
            | Step::BackingOff => false,
            Step::Completed | Step::Timeout | Step::Error | Step::Cancelled | Step::Refused => true,
        }
    }
}

/// One step of one request. What the steps of a request have in common is shared, so that an event costs no allocation.
#[derive(Debug, Clone)]
pub struct Event {
    /// The number of the decision that it follows from, given by the admission core; 0 before the first.
    pub seq: u64,
    /// When it happened.
    pub at: Time,
    /// What happened.
    pub step: Step,
    /// Whose step it is.
    pub subject: Arc<Subject>,
    /// The thread that it happened on.
    pub thread: Thread,
    /// How long that took which ends with this step: the wait in line, the call, at an end the whole request.
    pub took: Option<Duration>,
    /// Where that time went: of a call at its end, and of the whole request at its own.
    pub phases: Option<Box<Phases>>,
}

/// A request as its steps know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The request's id. Clients choose ids, so several requests may have the same.
    pub request: Arc<str>,
    /// The number of the request's job: no two have the same, and a later one has a higher.
    pub job: u64,
    /// The name of the API key that it came under, if it came under one.
    pub key: Option<Arc<str>>,
    /// The client session, where it names one.
    pub session: Option<Arc<str>>,
    /// The provider, once it is chosen.
    pub provider: Option<Arc<str>>,
    /// The provider's name of the model, once it is chosen.
    pub model: Option<Arc<str>>,
    /// The id of the request whose call it shares, if it has none of its own.
    pub joined: Option<Arc<str>>,
}

/// The latest steps of all requests, and counts of all that ever were.
#[derive(Debug)]
pub struct LifecycleLog {
    max_events: usize,
    max_age: Duration,
    ring: Mutex<Ring>,
    quantiles: Quantiles,
    journal: Option<Journal>,
}

/// What happened in all, since the log was made; forgotten events count on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Requests received.
    pub received: u64,
    /// Requests received that have not ended.
    pub active: u64,
    /// Requests that ended well.
    pub completed: u64,
    /// Requests whose time ran out.
    pub timeout: u64,
    /// Requests that failed.
    pub error: u64,
    /// Requests that were cancelled.
    pub cancelled: u64,
    /// Requests that were not taken in.
    pub refused: u64,
    /// Events recorded.
    pub recorded: u64,
    /// Events forgotten, by count or by age.
    pub forgotten: u64,
}

impl LifecycleLog {
    /// An empty log that keeps as much, and for as long, as `config` says, and writes no file.
    pub fn new(config: &Telemetry) -> Self {
        LifecycleLog {
            max_events: config.max_events,
            max_age: config.max_age,
            ring: Mutex::new(Ring {
                events: VecDeque::with_capacity(config.max_events.min(PREALLOCATED)),
                ..Ring::default()
            }),
            quantiles: Quantiles::new(config.window),
            journal: None,
        }
    }

    /// The same, and what is recorded is written to the file that `config` names, if it names one.
    ///
    /// # Errors
    /// When the file can't be opened, or the system gives no thread to write it.
    pub fn open(config: &Telemetry, clock: SharedClock) -> io::Result<Self> {
        let start = |path: &PathBuf| Journal::start(path, config, clock);
        let journal = config.lifecycle_file.as_ref().map(start).transpose()?;
        Ok(LifecycleLog {
            journal,
            ..LifecycleLog::new(config)
        })
    }

    /// Waits until what was recorded before is in the file, if there is one; a second or two at most.
    pub fn flush(&self) {
        if let Some(journal) = &self.journal {
            journal.flush();
        }
    }

    /// What became of the lines for the file; `None` where none is written.
    pub fn file(&self) -> Option<FileStatistics> {
        self.journal.as_ref().map(Journal::statistics)
    }

    /// Records events that come together, and forgets old ones: whatever no longer has room, and a few of those that are
    /// too old.
    pub fn push<const N: usize>(&self, events: [Event; N]) {
        for event in &events {
            if let Some(journal) = &self.journal {
                journal.put(event);
            }
            if let Some(phases) = event.phases.as_ref().filter(|_| event.step.is_end()) {
                self.quantiles.record(phases, event.at);
            }
        }
        // Declared before the guard, so that what is forgotten is dropped after the lock is released.
        let mut forgotten = [const { [const { None }; EVICT] }; N];
        let mut ring = self.ring.lock();
        for (event, places) in events.into_iter().zip(&mut forgotten) {
            let horizon = event.at - self.max_age;
            ring.statistics.count(event.step);
            ring.hour.count(event.step, event.at);
            ring.events.push_back(event);
            places.fill_with(|| ring.evict(self.max_events, horizon));
        }
    }

    /// The events of the requests of this id that are not too old at `now`: one request after the other, the oldest
    /// first, and each one's in order.
    pub fn of_request(&self, id: &str, now: Time) -> Vec<Event> {
        let mut found = self.select(now, |event| &*event.subject.request == id);
        found.sort_by_key(|event| (event.subject.job, event.seq, event.step, event.at));
        found
    }

    /// All events that are not too old at `now`, as they were recorded: for an export.
    pub fn events(&self, now: Time) -> Vec<Event> {
        self.select(now, |_| true)
    }

    /// How long each phase of the requests took that ended lately (`telemetry.window`).
    pub fn phases(&self, now: Time) -> Vec<PhaseQuantiles> {
        self.quantiles.view(now)
    }

    /// Counts of all that happened.
    pub fn statistics(&self) -> Statistics {
        self.ring.lock().statistics
    }

    /// How requests ended in each of the last sixty minutes, the oldest first; forgotten events count on.
    pub fn hour(&self, now: Time) -> [Ends; 60] {
        self.ring.lock().hour.view(now)
    }

    fn select(&self, now: Time, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        let horizon = now - self.max_age;
        let wanted = |event: &&Event| event.at >= horizon && wanted(event);
        let mut found = Vec::new();
        let mut next = 0;
        // What is pushed while we read is left out, or a busy log would be read for ever.
        let end = self.ring.lock().statistics.recorded;
        while next < end {
            let ring = self.ring.lock();
            let from = ring.statistics.forgotten.max(next);
            next = (from + SLICE).min(end);
            let events = (from..next).filter_map(|number| ring.get(number));
            found.extend(events.filter(wanted).cloned());
        }
        found
    }
}

#[derive(Debug, Default)]
struct Ring {
    /// Oldest first. The first has the number `statistics.forgotten`, the next one to come `statistics.recorded`.
    events: VecDeque<Event>,
    statistics: Statistics,
    hour: Hour,
}

impl Ring {
    fn get(&self, number: u64) -> Option<&Event> {
        let at = number.checked_sub(self.statistics.forgotten)?;
        self.events.get(usize::try_from(at).ok()?)
    }

    /// Takes the oldest event out if there is no room for it or it is from before `horizon`.
    fn evict(&mut self, max_events: usize, horizon: Time) -> Option<Event> {
        let oldest = self.events.front()?;
        if self.events.len() <= max_events && oldest.at >= horizon {
            return None;
        }
        self.statistics.forgotten += 1;
        self.events.pop_front()
    }
}

impl Statistics {
    fn count(&mut self, step: Step) {
        self.recorded += 1;
        match step {
            Step::Received => self.received += 1,
            Step::Joined
            | Step::Queued
            | Step::Dequeued
            | Step::SessionAllocated
            | Step::ProviderCallStart
            | Step::ProviderCallEnd
            | Step::SessionReleased
            | Step::BackingOff => {}
            Step::Completed => self.completed += 1,
            Step::Timeout => self.timeout += 1,
            Step::Error => self.error += 1,
            Step::Cancelled => self.cancelled += 1,
            Step::Refused => self.refused += 1,
        }
        // An end may be recorded before its receipt, by another thread: never below zero meanwhile.
        self.active = self.received.saturating_sub(self.ended());
    }

    fn ended(&self) -> u64 {
        self.completed + self.timeout + self.error + self.cancelled + self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Profile};

    const SECOND: Duration = Duration::from_secs(1);

    fn log(max_events: usize, max_age: Duration) -> LifecycleLog {
        LifecycleLog::new(&Telemetry {
            max_events,
            max_age,
            ..Config::builtin(Profile::Test).telemetry
        })
    }

    fn event(request: &str, seq: u64, at_s: u32, step: Step) -> Event {
        Event {
            seq,
            at: Time::ZERO + SECOND * at_s,
            step,
            subject: Arc::new(Subject {
                request: request.into(),
                job: 1,
                key: None,
                session: None,
                provider: None,
                model: None,
                joined: None,
            }),
            thread: std::thread::current(),
            took: None,
            phases: None,
        }
    }

    fn steps(events: &[Event]) -> Vec<Step> {
        events.iter().map(|event| event.step).collect()
    }

    fn seconds(events: &[Event]) -> Vec<u64> {
        let at = |event: &Event| event.at.since(Time::ZERO).as_secs();
        events.iter().map(at).collect()
    }

    #[test]
    fn steps_of_one_request_come_back_in_the_order_of_decisions() {
        let log = log(100, SECOND * 60);
        // Two threads recorded in another order than the core decided: the canceller was faster than the worker.
        for (seq, step) in [
            (9, Step::Cancelled),
            (4, Step::ProviderCallStart),
            (4, Step::Dequeued),
            (0, Step::Received),
            (4, Step::ProviderCallEnd),
            (2, Step::Queued),
            (4, Step::SessionReleased),
            (4, Step::SessionAllocated),
        ] {
            log.push([event("a", seq, 1, step)]);
            log.push([event("b", seq, 1, step)]);
        }
        let found = log.of_request("a", Time::ZERO);
        assert!(found.iter().all(|event| &*event.subject.request == "a"));
        let expected = [
            Step::Received,
            Step::Queued,
            Step::Dequeued,
            Step::SessionAllocated,
            Step::ProviderCallStart,
            Step::ProviderCallEnd,
            Step::SessionReleased,
            Step::Cancelled,
        ];
        assert_eq!(steps(&found), expected);
    }

    #[test]
    fn a_second_try_comes_after_the_first() {
        let log = log(100, SECOND * 60);
        for (seq, step) in [
            (7, Step::ProviderCallStart),
            (3, Step::ProviderCallStart),
            (3, Step::ProviderCallEnd),
        ] {
            log.push([event("a", seq, 1, step)]);
        }
        let found = log.of_request("a", Time::ZERO);
        let seqs: Vec<u64> = found.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, [3, 3, 7]);
    }

    #[test]
    fn the_oldest_events_go_when_there_are_too_many() {
        let log = log(3, SECOND * 60);
        for at in 0..5 {
            log.push([event("a", 0, at, Step::Queued)]);
        }
        assert_eq!(seconds(&log.events(Time::ZERO)), [2, 3, 4]);
        assert_eq!(log.statistics().forgotten, 2);
    }

    #[test]
    fn events_that_are_too_old_go_by_and_by_and_are_never_shown() {
        let log = log(100, SECOND * 10);
        for at in 0..4 {
            log.push([event("a", 0, at, Step::Queued)]);
        }
        log.push([event("a", 0, 100, Step::Queued)]);
        assert_eq!(log.statistics().forgotten, 2, "a push takes out two");
        let now = Time::ZERO + SECOND * 100;
        assert_eq!(seconds(&log.of_request("a", now)), [100]);
        assert_eq!(seconds(&log.events(now)), [100]);
        log.push([event("a", 0, 101, Step::Queued)]);
        assert_eq!(log.statistics().forgotten, 4);
    }

    #[test]
    fn an_event_is_kept_until_it_is_older_than_the_age() {
        let log = log(100, SECOND * 10);
        log.push([event("a", 0, 5, Step::Queued)]);
        let at = |seconds: u32| log.events(Time::ZERO + SECOND * seconds).len();
        assert_eq!((at(15), at(16)), (1, 0));
    }

    #[test]
    fn a_log_without_room_still_counts() {
        let log = log(0, SECOND);
        log.push([event("a", 0, 0, Step::Received)]);
        assert!(log.events(Time::ZERO).is_empty());
        assert_eq!(log.statistics().received, 1);
    }

    #[test]
    fn a_reader_walks_over_more_than_one_slice() {
        let many = 3 * usize::try_from(SLICE).expect("small") + 1;
        let log = log(many, SECOND * 60);
        for seq in 0..many + 5 {
            log.push([event("a", seq as u64, 0, Step::Queued)]);
        }
        let found = log.of_request("a", Time::ZERO);
        let seqs: Vec<u64> = found.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, Vec::from_iter(5..many as u64 + 5));
        assert!(log.of_request("b", Time::ZERO).is_empty());
    }

    #[test]
    fn requests_are_counted_by_their_ends() {
        let log = log(2, SECOND);
        let ends = Step::ALL.into_iter().filter(|step| step.is_end());
        for (at, end) in ends.enumerate() {
            for _ in 0..=at {
                log.push([event("a", 0, 0, Step::Received)]);
                log.push([event("a", 1, 0, Step::Queued)]);
                log.push([event("a", 2, 0, end)]);
            }
        }
        log.push([event("b", 0, 0, Step::Received)]);
        let expected = Statistics {
            received: 16,
            active: 1,
            completed: 1,
            timeout: 2,
            error: 3,
            cancelled: 4,
            refused: 5,
            recorded: 46,
            forgotten: 44,
        };
        assert_eq!(log.statistics(), expected);
    }

    #[test]
    fn an_end_recorded_before_its_receipt_leaves_nothing_active() {
        let log = log(10, SECOND);
        log.push([event("a", 5, 0, Step::Refused)]);
        assert_eq!(log.statistics().active, 0);
        log.push([event("a", 0, 0, Step::Received)]);
        assert_eq!(log.statistics().active, 0);
    }

    #[test]
    fn no_event_is_lost_or_doubled_while_others_push_and_read() {
        let log = log(10_000, SECOND);
        let (threads, each) = (4_u64, 1_000_u64);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let log = &log;
                scope.spawn(move || {
                    for seq in 0..each {
                        log.push([event("a", thread * each + seq, 0, Step::Queued)]);
                    }
                });
            }
            let seen = log.of_request("a", Time::ZERO);
            assert!(seen.windows(2).all(|pair| pair[0].seq < pair[1].seq));
        });
        let found = log.of_request("a", Time::ZERO);
        let seqs = found.iter().map(|event| event.seq);
        assert!(seqs.eq(0..threads * each));
    }

    #[test]
    fn names_are_the_steps_in_capitals() {
        let names = Step::ALL.map(Step::name);
        let expected = "RECEIVED JOINED QUEUED DEQUEUED SESSION_ALLOCATED PROVIDER_CALL_START PROVIDER_CALL_END \
                        SESSION_RELEASED BACKING_OFF COMPLETED TIMEOUT ERROR CANCELLED REFUSED";
        assert_eq!(names.join(" "), expected);
        assert!(Step::ALL.is_sorted());
    }
}
