//! The leave to use a slot, as a guard.

use std::sync::Arc;

use super::shell::Shell;
use crate::admission::{Cause, Event, JobId, Outcome, PermitKey, Report};

/// The leave to make one call. Dropping it gives the slot back, whatever happened; nothing else does.
///
/// What became of the call goes back with it, so that freeing the slot, ending the job and starting the next one are
/// one step under the core's lock. A permit whose holder panicked was never told, and says that the call failed.
#[must_use = "dropping the permit gives the slot back"]
#[derive(Debug)]
pub(super) struct Permit {
    shell: Arc<Shell>,
    key: PermitKey,
    job: JobId,
    report: Report,
}

impl Permit {
    pub(super) fn new(shell: Arc<Shell>, key: PermitKey, job: JobId) -> Self {
        Permit {
            shell,
            key,
            job,
            report: Outcome::Failed(Cause::Own).into(),
        }
    }

    pub(super) fn key(&self) -> PermitKey {
        self.key
    }

    /// What became of the call.
    pub(super) fn report(&mut self, report: Report) {
        self.report = report;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shell
            .step(Event::GiveBack(self.key, self.report), Some(self.job));
    }
}
