//! What the load of the box leaves of the global limit.
//!
//! What is configured and what the load leaves of it are kept apart, and the lower of both is in force: so a new
//! configuration doesn't lift the throttle, and a throttle that lets go doesn't bring back an old configuration. As with
//! every limit, raising it starts whoever can start in the same step, and lowering it interrupts nobody.

use super::planted::Fault;
use super::state::Core;
use super::{Throttle, Throttled};

impl Core {
    /// Holds the global limit down, or lets go of it.
    pub(super) fn set_throttle(&mut self, throttle: Throttle) {
        self.debt = self.books.in_use();
        self.throttle = throttle;
    }

    /// The global limit in force.
    pub(super) fn global(&self) -> usize {
        match self.planted.is(Fault::ThrottleNotApplied) {
            true => self.settings.global,
            false => self.settings.global.min(self.throttle.most.max(1)),
        }
    }

    /// By how much the throttle holds the global limit down, if it does.
    pub(super) fn throttled(&self) -> Option<Throttled> {
        let (to, of) = (self.global(), self.settings.global);
        (to < of).then_some(Throttled { to, of })
    }
}
