//! Start-time fair queueing: the virtual clock of one set of competitors, and the memory of those who left.
//!
//! Each competitor (a class of a line, a flow of a class) has a virtual time: the service that it has had. Of those
//! who could start, who has had least goes next, and the virtual clock stands where that one stood. Five rules make
//! this fair over time:
//!
//! * Who begins to compete starts no earlier than the clock: idling earns no credit. Who stood at a limit of its own
//!   keeps a little, [`CREDIT`], since it stands there between any two of its calls; without it a session whose
//!   limit is just above its fair share had 4 % less than that (simulated), with it 0.1 %.
//! * Only starts move the clock. (Were it the least time of all who are *present*, one flow that can't use its share
//!   would hold it back until all others had hit the bound below, and there they would be equals, whatever their
//!   weights.)
//! * Who was never seen starts level with the one that is next: it does not go before those who waited longer, so a
//!   stream of newcomers starves nobody.
//! * Nobody is more than [`MAX_BEHIND`] above the clock: one long call does not shut a session out for ever.
//! * Service is charged while it happens: by an estimate at the start, by the second when it runs over, and
//!   corrected at the end. (Charged only at the end, a flow of long calls looks as if it had had nothing.)
//!
//! A flow that leaves is remembered until the clock has passed it by [`MEMORY`]; otherwise leaving and coming back
//! would wipe its slate.

use std::collections::{BTreeSet, HashMap};

use super::FlowId;

/// How far a flow may lie behind the others, in nanoseconds of service: 600 s.
pub(super) const MAX_BEHIND: u64 = 600_000_000_000;

/// How far a flow that stands at its own limit may fall behind the clock, in nanoseconds of service: 60 s.
const CREDIT: u64 = 60_000_000_000;

/// For how long a flow is remembered after the clock has passed it, in nanoseconds of service: 60 s.
const MEMORY: u64 = 60_000_000_000;

/// How many remembered flows one step may forget: so that no step grows with what was.
const FORGET_PER_STEP: usize = 4;

/// The virtual clock of one set of competitors.
#[derive(Debug, Default)]
pub(super) struct VirtualClock {
    now: u64,
}

impl VirtualClock {
    /// The virtual time of one that was never seen, where `next` is the time of the one that is next, if any competes.
    pub(super) fn newcomer(&self, next: Option<u64>) -> u64 {
        next.unwrap_or(self.now)
    }

    /// The virtual time of one that was away, or had nothing to start, and had come to `time`.
    pub(super) fn rejoin(&self, time: u64, next: Option<u64>) -> u64 {
        let floor = next.map_or(self.now, |next| next.min(self.now));
        time.max(floor)
    }

    /// The virtual time of one that stood at its own limit, and had come to `time`.
    pub(super) fn resume(&self, time: u64, next: Option<u64>) -> u64 {
        time.max(self.rejoin(0, next).saturating_sub(CREDIT))
    }

    /// One whose virtual time is `time` starts.
    pub(super) fn start(&mut self, time: u64) {
        self.now = self.now.max(time);
    }

    /// Charges `delta` nanoseconds of service to one whose virtual time is `before`, or gives back what was charged too
    /// much. Returns the new virtual time and what was really charged: less than asked for where [`MAX_BEHIND`] bounds it.
    pub(super) fn charge(&self, before: u64, delta: i64) -> (u64, i64) {
        let bound = self.now.saturating_add(MAX_BEHIND).max(before);
        let after = before.saturating_add_signed(delta).min(bound);
        (after, signed_difference(after, before))
    }
}

/// The virtual times of flows that have left.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    times: HashMap<FlowId, u64>,
    order: BTreeSet<(u64, FlowId)>,
}

impl Remembered {
    /// The flow has left; some whom the clock has passed by far are forgotten.
    pub(super) fn remember(&mut self, flow: FlowId, time: u64, clock: &VirtualClock) {
        self.times.insert(flow, time);
        self.order.insert((time, flow));
        for _ in 0..FORGET_PER_STEP {
            match self.order.first() {
                Some(&(time, flow)) if time.saturating_add(MEMORY) <= clock.now => {
                    self.order.pop_first();
                    self.times.remove(&flow);
                }
                _ => return,
            }
        }
    }

    /// The flow is back: its virtual time, if it is remembered.
    pub(super) fn recall(&mut self, flow: FlowId) -> Option<u64> {
        let time = self.times.remove(&flow)?;
        self.order.remove(&(time, flow));
        Some(time)
    }
}

/// `a - b`. Virtual times differ by far less than 292 years.
pub(super) fn signed_difference(a: u64, b: u64) -> i64 {
    a.wrapping_sub(b) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn clock_at(time: u64) -> VirtualClock {
        let mut clock = VirtualClock::default();
        clock.start(time);
        clock
    }

    #[test]
    fn idling_earns_no_credit_and_debts_are_kept() {
        let clock = clock_at(100 * SECOND);
        assert_eq!(clock.rejoin(40 * SECOND, None), 100 * SECOND);
        assert_eq!(clock.rejoin(130 * SECOND, None), 130 * SECOND);
    }

    #[test]
    fn who_stood_at_its_limit_keeps_a_little_credit() {
        let clock = clock_at(100 * SECOND);
        assert_eq!(clock.resume(90 * SECOND, None), 90 * SECOND);
        assert_eq!(clock.resume(0, None), 100 * SECOND - CREDIT);
    }

    #[test]
    fn who_comes_is_never_put_behind_the_one_that_is_next() {
        let clock = clock_at(100 * SECOND);
        let next = Some(70 * SECOND);
        assert_eq!(clock.rejoin(0, next), 70 * SECOND);
        assert_eq!(clock.newcomer(next), 70 * SECOND);
        assert_eq!(clock.newcomer(None), 100 * SECOND);
    }

    #[test]
    fn who_was_never_seen_does_not_go_before_the_one_that_is_next() {
        let clock = clock_at(100 * SECOND);
        assert_eq!(clock.newcomer(Some(130 * SECOND)), 130 * SECOND);
    }

    #[test]
    fn the_clock_does_not_go_back() {
        let mut clock = clock_at(100 * SECOND);
        clock.start(20 * SECOND);
        assert_eq!(clock.now, 100 * SECOND);
    }

    #[test]
    fn nobody_lies_more_than_the_bound_behind() {
        let clock = VirtualClock::default();
        let (time, charged) = clock.charge(0, 10_000 * SECOND as i64);
        assert_eq!((time, charged), (MAX_BEHIND, MAX_BEHIND as i64));
        let back = -(SECOND as i64);
        assert_eq!(clock.charge(time, back), (MAX_BEHIND - SECOND, back));
    }

    #[test]
    fn a_flow_is_forgotten_once_the_clock_has_passed_it_by_far() {
        let mut clock = VirtualClock::default();
        let mut remembered = Remembered::default();
        for flow in 0..1_000 {
            clock.start(flow * SECOND);
            remembered.remember(FlowId(flow), flow * SECOND, &clock);
        }
        assert!(
            remembered.times.len() <= 61,
            "{} are known",
            remembered.times.len()
        );
        assert_eq!(remembered.times.len(), remembered.order.len());
        assert_eq!(remembered.recall(FlowId(999)), Some(999 * SECOND));
        assert_eq!(remembered.recall(FlowId(999)), None, "it is back");
    }
}
