//! The global limit, as it is configured and as the load of the box leaves it: what is in force is kept, and nobody pays
//! for a change but who comes later.

use pointsman::admission::{Action, CoreView, Ending, RefusalReason, Step, Throttle, Throttled};

use super::Inner;
use crate::record::LimitSet;

impl Inner {
    /// The global limit in force.
    pub(super) fn limit(&self) -> usize {
        self.configured.min(self.throttle.most.max(1))
    }

    /// Calls that may be in flight: the limit, or what is left of those that were when it was set.
    pub(super) fn most(&self) -> usize {
        self.limit().max(self.debt)
    }

    /// The core is about to be told of another limit.
    pub(super) fn set_limit(&mut self, configured: usize, throttle: Throttle) {
        // The load changes with each throttle that is played.
        let (from, is_configured) = (self.limit(), throttle == self.throttle);
        self.configured = configured.max(1);
        self.throttle = throttle;
        self.debt = self.out.len();
        self.setting = Some(LimitSet {
            configured: is_configured,
            from,
            to: self.limit(),
            throttled: self.limit() < self.configured,
            in_flight: self.debt,
            started: 0,
        });
    }

    /// Nothing starts above the limit in force or without a worker, and a limit that is set interrupts nobody.
    pub(super) fn limit_is_kept(&mut self, actions: &[Action], view: &CoreView) {
        assert_eq!(view.limit_now, self.limit());
        let starts = actions
            .iter()
            .filter(|action| matches!(action.step, Step::Start { .. }));
        let started = starts.count();
        if started > 0 {
            assert!(view.in_use <= self.limit(), "above the limit: {view:?}");
            assert!(self.at_work() <= self.workers(), "nobody is idle: {view:?}");
        }
        if let Some(set) = self.setting.take() {
            let mut actions = actions.iter();
            let told = actions.find(|action| matches!(action.step, Step::Interrupt(_)));
            assert_eq!(told, None, "a limit was set, and nothing else");
            self.record.limits.push(LimitSet { started, ..set });
        }
    }

    /// A refusal tells of the throttle, and none is for a load that is not there, or for workers who are.
    pub(super) fn refuses_rightly(&self, ending: &Ending) {
        let Ending::Refused(refusal) = ending else {
            return;
        };
        let loaded = refusal.reason == RefusalReason::BoxLoaded;
        assert!(!loaded || self.throttle.refuses_low, "no load refuses it");
        if let RefusalReason::WorkersLost { lost } = refusal.reason {
            assert_eq!(lost, self.lost());
        }
        let tells = !matches!(
            refusal.reason,
            RefusalReason::Shut(_) | RefusalReason::Stopping
        );
        let (to, of) = (self.limit(), self.configured);
        let throttled = (tells && to < of).then_some(Throttled { to, of });
        assert_eq!(refusal.throttled, throttled);
    }

    /// No job waits that could start: where nothing else holds it back, no slot is free.
    pub(super) fn nobody_waits_in_vain(&self, view: &CoreView) {
        let idle = self.scenario.is_open() && self.vacant() > 0;
        assert!(!idle || view.waiting == 0, "one could start: {view:?}");
    }
}
