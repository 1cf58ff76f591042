//! When what happened to a job, and from that: how far it has come, and where its time went.
//!
//! The core's decisions about a job are carried out, and marked here, by different threads in any order. So each mark has
//! the number of its decision, and the marks stand by number; what the worker marks during a call has the number of the
//! call's start, and the order of [`What`].
//!
//! A mark has the very moment that the lifecycle log has for the same step, so whoever adds up the steps gets the same
//! figures.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::job::{Phase, Phases};
use crate::clock::{SharedClock, Time};
use crate::providers::CallWatch;

/// Marks of a job that is called once.
const USUAL: usize = 8;

/// What happened, in the order of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// It goes into line.
    Waits,
    /// Its call failed, and will be tried again.
    BacksOff,
    /// Its turn came.
    Starts,
    /// A worker begins the call.
    Begun,
    Connected,
    FirstByte,
    /// The call is over.
    Returned,
    /// The job has ended, maybe before its call returns.
    Ended,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    seq: u64,
    what: What,
    at: Time,
}

/// What happened to one job: at most a handful of marks for each of its calls and for each line that it stood in.
#[derive(Debug)]
pub(super) struct Moments {
    clock: SharedClock,
    submitted: Time,
    attempt: AtomicU32,
    /// By number, and then in order.
    marks: Mutex<Vec<Mark>>,
}

impl Moments {
    /// Of a job that is about to be submitted.
    pub(super) fn new(clock: SharedClock) -> Self {
        Moments {
            submitted: clock.now(),
            clock,
            attempt: AtomicU32::new(0),
            marks: Mutex::new(Vec::with_capacity(USUAL)),
        }
    }

    /// The core decided, as number `seq`, what happens at `now`.
    pub(super) fn decided(&self, seq: u64, what: What, now: Time) {
        put(&mut self.marks.lock(), seq, what, now);
    }

    /// A worker begins call number `attempt`.
    pub(super) fn begin(&self, attempt: u32, now: Time) {
        self.attempt.store(attempt, Ordering::Release);
        self.mark(What::Begun, now);
    }

    /// The call is over.
    pub(super) fn end_call(&self, now: Time) {
        self.mark(What::Returned, now);
    }

    /// Which call is, or was last, under way; 0 before the first.
    pub(super) fn attempt(&self) -> u32 {
        self.attempt.load(Ordering::Acquire)
    }

    /// The number of the decision that its last call follows from.
    pub(super) fn last_start(&self) -> u64 {
        last_start(&self.marks.lock())
    }

    /// Whether this ever happened.
    pub(super) fn has(&self, what: What) -> bool {
        self.marks.lock().iter().any(|mark| mark.what == what)
    }

    /// Whether the connection of its last call stood, and whether the answer began.
    pub(super) fn reached(&self) -> (bool, bool) {
        let marks = self.marks.lock();
        let call = marks.iter().rev();
        let call = call.take_while(|mark| mark.what != What::Begun);
        call.fold((false, false), |(stood, began), mark| {
            let (stands, begins) = (What::Connected, What::FirstByte);
            (stood || mark.what == stands, began || mark.what == begins)
        })
    }

    /// For how long it had been in line when its start was decided as number `seq`, at `now`.
    pub(super) fn waited(&self, seq: u64, now: Time) -> Duration {
        let marks = self.marks.lock();
        let before = marks.iter().rev().skip_while(|mark| mark.seq >= seq);
        let in_line = before.take_while(|mark| mark.what == What::Waits).last();
        in_line.map_or(Duration::ZERO, |mark| now.since(mark.at))
    }

    /// How far it has come; after its end, how far it had come.
    pub(super) fn phase(&self) -> Phase {
        let marks = self.marks.lock();
        for mark in marks.iter().rev() {
            return match mark.what {
                What::Returned | What::Ended => continue,
                What::Waits | What::Starts => Phase::Queue,
                What::BacksOff => Phase::BackOff,
                What::Begun => Phase::Connect,
                What::Connected => Phase::FirstByte,
                What::FirstByte => Phase::Body,
            };
        }
        Phase::Queue
    }

    /// Where the time from `since` to `until` went.
    pub(super) fn phases(&self, since: Time, until: Time) -> Phases {
        let marks = self.marks.lock();
        walk(&marks, self.submitted, since, until)
    }

    /// Where the time of its last call went, until `now` if that is under way; its total is the call's.
    pub(super) fn last_call(&self, now: Time) -> Phases {
        let marks = self.marks.lock();
        let begun = marks.iter().rposition(|mark| mark.what == What::Begun);
        begun.map_or_else(Phases::default, |first| {
            let call = walk(&marks[first..], now, marks[first].at, now);
            Phases {
                total: call.upstream,
                ..call
            }
        })
    }

    fn mark(&self, what: What, now: Time) {
        let mut marks = self.marks.lock();
        let seq = last_start(&marks);
        put(&mut marks, seq, what, now);
    }
}

impl CallWatch for Moments {
    fn connected(&self, _reused: bool) {
        self.mark(What::Connected, self.clock.now());
    }

    fn first_byte(&self) {
        self.mark(What::FirstByte, self.clock.now());
    }
}

fn last_start(marks: &[Mark]) -> u64 {
    let last = marks.iter().rev().find(|mark| mark.what == What::Starts);
    last.map_or(0, |mark| mark.seq)
}

/// Puts a mark in its place. What happens twice in a call (a connection that was closed as it was taken, and the next one)
/// counts as it happened last.
fn put(marks: &mut Vec<Mark>, seq: u64, what: What, at: Time) {
    let mark = Mark { seq, what, at };
    match marks.binary_search_by_key(&(seq, what), |mark| (mark.seq, mark.what)) {
        Ok(index) => marks[index] = mark,
        Err(index) => marks.insert(index, mark),
    }
}

/// What goes on between two marks, and since when.
#[derive(Debug, Clone, Copy)]
enum Span {
    Rest,
    Queue(Time),
    BackOff(Time),
    Call {
        begun: Time,
        connected: Option<Time>,
        first_byte: Option<Time>,
    },
}

/// Adds up what went on from `since` to `until`. A job of which nothing is marked yet is in line since `submitted`.
fn walk(marks: &[Mark], submitted: Time, since: Time, until: Time) -> Phases {
    let mut phases = Phases {
        total: until.since(since),
        ..Phases::default()
    };
    let last = marks.last().filter(|mark| mark.what == What::Ended);
    let end = last.map_or(until, |mark| mark.at.min(until));
    let within = |at: Time| at.min(end).max(since);
    let mut span = match marks {
        [] => Span::Queue(within(submitted)),
        _ => Span::Rest,
    };
    for &Mark { what, at, .. } in marks {
        let at = within(at);
        span = match (what, span) {
            (What::Waits | What::Starts, Span::Queue(from)) => Span::Queue(from),
            (What::Connected, Span::Call { begun, .. }) => Span::Call {
                begun,
                connected: Some(at),
                first_byte: None,
            },
            (
                What::FirstByte,
                Span::Call {
                    begun, connected, ..
                },
            ) => Span::Call {
                begun,
                connected,
                first_byte: Some(at),
            },
            (next, span) => {
                span.close(at, &mut phases);
                match next {
                    What::Waits | What::Starts => Span::Queue(at),
                    What::BacksOff => Span::BackOff(at),
                    What::Begun => Span::Call {
                        begun: at,
                        connected: None,
                        first_byte: None,
                    },
                    What::Connected | What::FirstByte | What::Returned | What::Ended => Span::Rest,
                }
            }
        };
    }
    span.close(end.max(since), &mut phases);
    phases
}

impl Span {
    /// Counts it as over at `at`.
    fn close(self, at: Time, phases: &mut Phases) {
        match self {
            Span::Rest => {}
            Span::Queue(from) => phases.queue += at.since(from),
            Span::BackOff(from) => phases.backoff += at.since(from),
            Span::Call {
                begun,
                connected,
                first_byte,
            } => {
                phases.upstream += at.since(begun);
                // Whoever needs no connection says nothing of one.
                let stood = connected.or(first_byte.map(|_| begun)).unwrap_or(at);
                phases.connect += stood.since(begun);
                phases.first_byte += first_byte.unwrap_or(at).since(stood);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::ManualClock;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    /// Marks as threads made them, in that order; each with the number of its decision.
    fn moments(marks: &[(u64, What, u64)]) -> Moments {
        let clock = Arc::new(ManualClock::new());
        clock.advance(Duration::from_secs(1));
        let moments = Moments::new(clock);
        for &(seq, what, second) in marks {
            moments.decided(seq, what, at(second));
        }
        moments
    }

    /// Queue, backoff, connect, first byte, upstream and total, in seconds.
    fn seconds(phases: Phases) -> [u64; 6] {
        [
            phases.queue,
            phases.backoff,
            phases.connect,
            phases.first_byte,
            phases.upstream,
            phases.total,
        ]
        .map(|length| length.as_secs())
    }

    /// Received at 0, submitted at 1, in line at 2; a call from 5 to 12, once more from 20 to 30.
    const TWO_CALLS: &[(u64, What, u64)] = &[
        (3, What::Waits, 2),
        (4, What::Starts, 4),
        (4, What::Begun, 5),
        (4, What::Connected, 7),
        (4, What::FirstByte, 11),
        (4, What::Returned, 12),
        (7, What::BacksOff, 13),
        (8, What::Waits, 17),
        (9, What::Starts, 19),
        (9, What::Begun, 20),
        (9, What::Connected, 21),
        (9, What::FirstByte, 24),
        (9, What::Returned, 30),
        (12, What::Ended, 31),
    ];

    #[test]
    fn the_phases_of_all_calls_are_added_up() {
        let told = moments(TWO_CALLS).phases(at(0), at(31));
        assert_eq!(seconds(told), [3 + 3, 4, 2 + 1, 4 + 3, 7 + 10, 31]);
        assert_eq!(told.rest(), Duration::from_secs(31 - 6 - 4 - 17));
    }

    #[test]
    fn it_does_not_matter_who_was_faster_to_mark() {
        let mut marks = TWO_CALLS.to_vec();
        let whole = moments(&marks).phases(at(0), at(31));
        for _ in 0..marks.len() {
            marks.rotate_left(5);
            let shuffled = moments(&marks).phases(at(0), at(31));
            assert_eq!(seconds(shuffled), seconds(whole), "{marks:?}");
        }
    }

    #[test]
    fn at_any_moment_the_time_so_far_is_where_it_is() {
        let far = |count: usize, now: u64| {
            let moments = moments(&TWO_CALLS[..count]);
            (moments.phase(), seconds(moments.phases(at(0), at(now))))
        };
        assert_eq!(far(0, 9), (Phase::Queue, [8, 0, 0, 0, 0, 9]));
        assert_eq!(far(2, 9), (Phase::Queue, [7, 0, 0, 0, 0, 9]));
        assert_eq!(far(3, 9), (Phase::Connect, [3, 0, 4, 0, 4, 9]));
        assert_eq!(far(4, 9), (Phase::FirstByte, [3, 0, 2, 2, 4, 9]));
        assert_eq!(far(5, 19), (Phase::Body, [3, 0, 2, 4, 14, 19]));
        assert_eq!(far(7, 19), (Phase::BackOff, [3, 6, 2, 4, 7, 19]));
        assert_eq!(far(8, 19), (Phase::Queue, [5, 4, 2, 4, 7, 19]));
    }

    #[test]
    fn an_end_is_the_end_even_if_the_call_returns_later() {
        let moments = moments(&[
            (1, What::Starts, 2),
            (1, What::Begun, 2),
            (1, What::Connected, 3),
            (5, What::Ended, 6),
            (1, What::Returned, 9),
        ]);
        assert_eq!(moments.phase(), Phase::FirstByte);
        assert_eq!(seconds(moments.phases(at(0), at(20))), [0, 0, 1, 3, 4, 20]);
    }

    #[test]
    fn whoever_came_later_is_told_its_own_part() {
        let moments = moments(TWO_CALLS);
        assert_eq!(seconds(moments.phases(at(22), at(31))), [0, 0, 0, 2, 8, 9]);
        assert_eq!(seconds(moments.phases(at(40), at(41))), [0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn the_last_call_is_told_alone() {
        let moments = moments(TWO_CALLS);
        assert_eq!(seconds(moments.last_call(at(40))), [0, 0, 1, 3, 10, 10]);
        assert_eq!(self::moments(&[]).last_call(at(9)), Phases::default());
    }

    #[test]
    fn how_far_the_last_call_came_is_not_mistaken_for_how_far_one_before_did() {
        let reached = |count: usize| moments(&TWO_CALLS[..count]).reached();
        assert_eq!(reached(3), (false, false));
        assert_eq!(reached(4), (true, false));
        assert_eq!(reached(6), (true, true));
        assert_eq!(reached(10), (false, false), "the second has begun");
        assert_eq!(reached(TWO_CALLS.len()), (true, true));
        let moments = moments(&TWO_CALLS[..1]);
        assert!(moments.has(What::Waits) && !moments.has(What::Starts));
    }

    #[test]
    fn a_call_without_a_connection_is_told_by_its_first_byte() {
        let moments = moments(&[
            (1, What::Starts, 2),
            (1, What::Begun, 2),
            (1, What::FirstByte, 4),
            (1, What::Returned, 5),
        ]);
        assert_eq!(seconds(moments.phases(at(2), at(5))), [0, 0, 0, 2, 3, 3]);
    }

    #[test]
    fn whoever_is_led_on_to_another_line_waits_as_before() {
        let moments = moments(&[
            (1, What::Waits, 2),
            (2, What::Waits, 4),
            (3, What::Starts, 9),
        ]);
        assert_eq!(seconds(moments.phases(at(0), at(9)))[0], 7);
        assert_eq!(moments.waited(3, at(9)), Duration::from_secs(7));
        let again = self::moments(TWO_CALLS);
        assert_eq!(again.waited(9, at(19)), Duration::from_secs(2));
        assert_eq!(again.waited(4, at(4)), Duration::from_secs(2));
        assert_eq!(again.waited(3, at(4)), Duration::ZERO);
    }
}
