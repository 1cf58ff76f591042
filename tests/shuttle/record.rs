//! What came about in one life of the small gateway, and what is asked of it.

use pointsman::admission::{Action, Ending, Outcome, PermitKey, RefusalReason, Step};
use pointsman::clock::Time;

/// What came about.
#[derive(Default)]
pub(super) struct Record {
    /// What was decided, and when.
    pub(super) actions: Vec<(Time, Action)>,
    /// Returns of permits whose slots had been taken from them.
    pub(super) late: Vec<LateReturn>,
    /// How the global limit was set.
    pub(super) limits: Vec<LimitSet>,
}

impl Record {
    /// What was decided, and when.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, (Time, Action)> {
        self.actions.iter()
    }
}

/// A permit came back after its slot was reclaimed.
pub(super) struct LateReturn {
    /// Whether somebody else had the slot then.
    pub(super) taken: bool,
}

/// The global limit was set.
pub(super) struct LimitSet {
    /// By new settings, and not by the load of the box.
    pub(super) configured: bool,
    /// What was in force before.
    pub(super) from: usize,
    /// What is in force now.
    pub(super) to: usize,
    /// Whether that is less than what is configured.
    pub(super) throttled: bool,
    /// Calls in flight then.
    pub(super) in_flight: usize,
    /// Jobs that were started in the same step.
    pub(super) started: usize,
}

pub(super) fn is_start(action: &Action) -> bool {
    matches!(action.step, Step::Start { .. })
}

/// The permit whose holder is given up on.
pub(super) fn given_up(action: &Action) -> Option<PermitKey> {
    match action.step {
        Step::Quarantine { permit, .. } => Some(permit),
        _ => None,
    }
}

/// Whether it takes the slot from the holder of `of`.
pub(super) fn takes(action: &Action, of: PermitKey) -> bool {
    matches!(action.step, Step::Reclaim { permit, .. } if permit == of)
}

pub(super) fn ends(record: &Record, like: impl Fn(&Ending) -> bool) -> bool {
    let mut actions = record.iter();
    actions.any(|(_, action)| matches!(&action.step, Step::End(ending) if like(ending)))
}

pub(super) fn refused(ending: &Ending, reason: RefusalReason) -> bool {
    matches!(ending, Ending::Refused(refusal) if refusal.reason == reason)
}

pub(super) fn ends_without_interrupt(record: &Record, ending: &Ending) -> bool {
    let end = Step::End(ending.clone());
    record.iter().enumerate().any(|(at, (_, action))| {
        let next = record.actions.get(at + 1).map(|(_, next)| &next.step);
        action.step == end && !matches!(next, Some(Step::Interrupt(_)))
    })
}

pub(super) fn backs_off(record: &Record) -> bool {
    let mut actions = record.iter();
    actions.any(|(_, action)| matches!(action.step, Step::BackOff { .. }))
}

pub(super) fn probes(record: &Record) -> bool {
    let mut actions = record.iter();
    actions.any(|(_, action)| matches!(action.step, Step::Start { probe: true, .. }))
}

/// Whether a job came to its proper end in its second call or a later one.
pub(super) fn serves_again(record: &Record) -> bool {
    let done = Step::End(Ending::Finished(Outcome::Completed));
    record.iter().any(|(_, end)| {
        let again = |(_, start): &(Time, Action)| {
            start.job == end.job && matches!(start.step, Step::Start { attempt, .. } if attempt > 1)
        };
        end.step == done && record.iter().any(again)
    })
}
