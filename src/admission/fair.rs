//! Start-time fair queueing for one set of competitors: who is served next.
//!
//! Each competitor (a *flow*) has a virtual time: the service that it has had. Who has had least goes next. Three
//! rules make that fair over time:
//!
//! * A flow that joins starts at the *floor*, the least virtual time of those present: idling earns no credit.
//! * It is never more than [`MAX_BEHIND`] above the floor: one long call does not shut a session out for ever.
//! * Service is charged while it happens, by an estimate at the start, by the second when it runs over, and
//!   corrected at the end. (Charged only at the end, a flow of long calls looks as if it had had nothing.)
//!
//! A flow that leaves with more than the floor is remembered until the floor has passed it; otherwise leaving and
//! coming back would wipe its slate.

use std::collections::{BTreeSet, HashMap};

use super::FlowId;

/// How far a flow may lie behind the others, in nanoseconds of service: 600 s.
pub(super) const MAX_BEHIND: u64 = 600_000_000_000;

/// How many remembered flows one step may forget: so that no step grows with what was.
const FORGET_PER_STEP: usize = 4;

/// The virtual times of the flows that compete in one class of one line.
#[derive(Debug, Default)]
pub(super) struct Fairness {
    /// Virtual time of the flows present (waiting or running) and of those remembered.
    times: HashMap<FlowId, u64>,
    present: BTreeSet<(u64, FlowId)>,
    remembered: BTreeSet<(u64, FlowId)>,
    /// The floor while nobody is present.
    last_floor: u64,
}

impl Fairness {
    /// The least virtual time of those present.
    pub(super) fn floor(&self) -> u64 {
        self.present
            .first()
            .map_or(self.last_floor, |&(time, _)| time)
    }

    /// The flow's virtual time; the floor for one that is not known.
    pub(super) fn time(&self, flow: FlowId) -> u64 {
        self.times
            .get(&flow)
            .copied()
            .unwrap_or_else(|| self.floor())
    }

    /// The flow has work again. Returns its virtual time.
    pub(super) fn join(&mut self, flow: FlowId) -> u64 {
        let floor = self.floor();
        let before = self.times.get(&flow).copied();
        if let Some(time) = before {
            self.remembered.remove(&(time, flow));
        }
        let time = before
            .unwrap_or(floor)
            .clamp(floor, floor.saturating_add(MAX_BEHIND));
        self.times.insert(flow, time);
        self.present.insert((time, flow));
        time
    }

    /// The flow has no work any more: none waiting, none running.
    pub(super) fn leave(&mut self, flow: FlowId) {
        let Some(&time) = self.times.get(&flow) else {
            return;
        };
        self.present.remove(&(time, flow));
        self.last_floor = self
            .last_floor
            .max(self.present.first().map_or(time, |&(least, _)| least));
        self.remembered.insert((time, flow));
        self.forget_some();
    }

    /// Charges the flow `delta` nanoseconds of service, or gives it back what was charged too much. Returns the new
    /// virtual time and what was really charged: less than asked for where [`MAX_BEHIND`] bounds it.
    pub(super) fn charge(&mut self, flow: FlowId, delta: i64) -> (u64, i64) {
        let Some(&before) = self.times.get(&flow) else {
            return (self.floor(), 0);
        };
        let wanted = before.saturating_add_signed(delta);
        let bound = self.floor().saturating_add(MAX_BEHIND).max(before);
        let after = wanted.min(bound);
        if self.present.remove(&(before, flow)) {
            self.present.insert((after, flow));
        } else if self.remembered.remove(&(before, flow)) {
            self.remembered.insert((after, flow));
        }
        self.times.insert(flow, after);
        (after, signed_difference(after, before))
    }

    /// Flows known, present or remembered.
    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.times.len()
    }

    fn forget_some(&mut self) {
        let floor = self.floor();
        for _ in 0..FORGET_PER_STEP {
            match self.remembered.first() {
                Some(&(time, flow)) if time <= floor => {
                    self.remembered.pop_first();
                    self.times.remove(&flow);
                }
                _ => return,
            }
        }
    }
}

/// `a - b`. Virtual times differ by far less than 292 years.
pub(super) fn signed_difference(a: u64, b: u64) -> i64 {
    a.wrapping_sub(b) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: FlowId = FlowId(1);
    const B: FlowId = FlowId(2);
    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn idling_earns_no_credit() {
        let mut fair = Fairness::default();
        fair.join(A);
        fair.charge(A, 100 * SECOND);
        assert_eq!(fair.join(B), 100 * SECOND as u64);
    }

    #[test]
    fn leaving_and_coming_back_does_not_wipe_the_slate() {
        let mut fair = Fairness::default();
        fair.join(A);
        fair.join(B);
        fair.charge(A, 30 * SECOND);
        fair.leave(A);
        assert_eq!(fair.join(A), 30 * SECOND as u64);
    }

    #[test]
    fn nobody_lies_more_than_the_bound_behind() {
        let mut fair = Fairness::default();
        fair.join(A);
        fair.join(B);
        let (time, charged) = fair.charge(A, 10_000 * SECOND);
        assert_eq!((time, charged), (MAX_BEHIND, MAX_BEHIND as i64));
        assert_eq!(
            fair.charge(A, -SECOND),
            (MAX_BEHIND - SECOND as u64, -SECOND)
        );
    }

    #[test]
    fn what_the_floor_has_passed_is_forgotten() {
        let mut fair = Fairness::default();
        fair.join(A);
        for flow in 10..1_000 {
            fair.join(FlowId(flow));
            fair.charge(FlowId(flow), SECOND);
            fair.leave(FlowId(flow));
            fair.charge(A, 2 * SECOND);
        }
        assert!(fair.known() < 10, "{} flows are still known", fair.known());
    }
}
