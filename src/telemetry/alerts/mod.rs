//! Alerts: what is worth telling somebody about, said once, with what to do, and taken back when it is over.
//!
//! ```text
//!            above its threshold              for so long                 at `clear` or below for as long
//!   Quiet -----------------------> Pending ----------------> Active ----------------------------------> Quiet
//!     ^                              |                        (acknowledged or not)       none again for the cool-down
//!     +--- not above any more -------+
//! ```
//!
//! * `evaluate.rs` is a pure evaluator: figures and the time go in, transitions come out. No clock, no thread, no I/O.
//! * `figures.rs` makes the figures of a [`Sample`]: what is so now, and what was counted over each rule's window.
//! * `words.rs` says what, how much, since when and what to do.
//! * [`AlertBook`] is the evaluator under its lock; the thread `pointsman-alerts` gives it a sample every
//!   `alerts.interval`, and each webhook has a thread `pointsman-webhook-N` with a bounded queue (`tell.rs`), so that one
//!   that is slow holds up neither the others nor any work.
//!
//! At most one alert of a rule is active: what concerns several providers names them in its text.

mod evaluate;
mod figures;
mod hook;
mod rules_file;
mod tell;
#[cfg(test)]
mod tests;
mod watch;
mod words;

use std::fmt;

use parking_lot::Mutex;

use self::evaluate::Evaluator;
use self::tell::Teller;
use crate::clock::{SharedClock, Time};
use crate::config::{self, AlertKind};
use crate::telemetry::Page;

pub use evaluate::{Alert, Change, Transition};
pub use figures::{PoolUse, Sample};
pub use rules_file::prometheus_rules;
pub use tell::Told;
pub use watch::Watch;

impl Alert {
    /// As pages and `json` webhooks have it.
    pub fn json(&self) -> serde_json::Value {
        hook::alert(self)
    }
}

/// All alerts of a gateway: those that are active, those that are over, and who is told.
pub struct AlertBook {
    clock: SharedClock,
    evaluator: Mutex<Evaluator>,
    teller: Teller,
}

impl AlertBook {
    /// A book without alerts. Threads start for the webhooks, if there are any.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn new(config: &config::Alerts, clock: SharedClock) -> std::io::Result<AlertBook> {
        Ok(AlertBook {
            clock,
            evaluator: Mutex::new(Evaluator::new(config)),
            teller: Teller::start(config)?,
        })
    }

    /// Takes a look, and tells everybody what has changed.
    pub fn look(&self, sample: &Sample) {
        let (now, wall) = (self.clock.now(), self.clock.unix_seconds());
        let changes = self.evaluator.lock().look(sample, now, wall);
        self.tell(&changes);
    }

    /// Somebody has seen an alert and looks after it; `by` is who, as log and pages have it. `None`: no such alert is
    /// active.
    pub fn acknowledge(&self, id: &str, by: &str) -> Option<Alert> {
        let wall = self.clock.unix_seconds();
        let (alert, change) = self.evaluator.lock().acknowledge(id, by, wall)?;
        self.tell(change.as_slice());
        Some(alert)
    }

    fn tell(&self, changes: &[Transition]) {
        for change in changes {
            words::log(change);
            self.teller.tell(change);
        }
    }

    /// Those that are active, the oldest first.
    pub fn active(&self) -> Vec<Alert> {
        self.evaluator.lock().active()
    }

    /// Those that are over, the latest first.
    pub fn history(&self) -> Vec<Alert> {
        self.evaluator.lock().history()
    }

    /// The figure of each rule at the last look, where it had one.
    pub fn figures(&self) -> Vec<(AlertKind, f64)> {
        self.evaluator.lock().figures()
    }

    /// When somebody last looked.
    pub fn last_look(&self) -> Option<Time> {
        self.evaluator.lock().last_look()
    }

    /// What became of telling each webhook.
    pub fn told(&self) -> Vec<Told> {
        self.teller.told()
    }

    /// Puts which alerts are active on a page of metrics.
    pub fn collect(&self, page: &mut Page) {
        let active = self.active();
        let rows = AlertKind::ALL.map(|kind| {
            let count = active.iter().filter(|alert| alert.kind == kind).count();
            ([kind.word()], count as f64)
        });
        page.gauges(
            "alerts_active",
            "1 while the rule has an active alert.",
            ["rule"],
            rows,
        );
    }

    /// Ends the threads of the webhooks; what they had not told by then is not told.
    pub fn stop(&self) {
        self.teller.stop();
    }
}

impl Drop for AlertBook {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for AlertBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlertBook")
            .field("active", &self.active().len())
            .finish_non_exhaustive()
    }
}
