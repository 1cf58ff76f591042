//! A submitted job, for the one who submitted it.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::job::{JobEnd, Phase, Phases};
use super::live::LiveJob;
use super::shell::Shell;
use crate::admission::{Event, Whereabouts};
use crate::cancel::CancelReason;
use crate::clock::{SharedClock, Time};

/// A submitted job. Dropping the handle leaves the job alone.
#[derive(Clone)]
pub struct JobHandle {
    pub(super) shell: Weak<Shell>,
    pub(super) clock: SharedClock,
    pub(super) job: Arc<LiveJob>,
}

impl JobHandle {
    /// The id that the caller and the log know it by.
    pub fn request_id(&self) -> &Arc<str> {
        &self.job.request_id
    }

    /// Waits for the end. Every job ends by its deadline, so this does too.
    pub fn wait(&self) -> JobEnd {
        self.job
            .wait(&self.clock, Time::NEVER)
            .expect("a job that is waited for without limit ends")
    }

    /// Waits for the end, at most `timeout`; `None` if it has not come by then.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<JobEnd> {
        self.job.wait(&self.clock, self.clock.now() + timeout)
    }

    /// The number of the job, which no other has.
    pub fn number(&self) -> u64 {
        self.job.id.0
    }

    /// How far it has come.
    pub fn phase(&self) -> Phase {
        self.job.moments.phase()
    }

    /// Where the time from `since` to `until` went: of somebody who came then, and waits for this job.
    pub fn phases(&self, since: Time, until: Time) -> Phases {
        self.job.moments.phases(since, until)
    }

    /// Where it is while it has not started; `None` while it runs, and after its end.
    pub fn whereabouts(&self) -> Option<Whereabouts> {
        let shell = self.shell.upgrade()?;
        shell.look(|core, now| core.whereabouts(self.job.id, now))
    }

    /// Whether this thread is one of the engine's workers: a wait on it could be a wait for itself.
    pub fn is_on_worker(&self) -> bool {
        self.shell.upgrade().is_some_and(|shell| shell.is_worker())
    }

    /// Ends the job, in line or in its call. Returns at once; what ends it first is its verdict.
    pub fn cancel(&self, reason: CancelReason) {
        if let Some(shell) = self.shell.upgrade() {
            shell.step(Event::Cancel(self.job.id, reason), None);
        }
    }
}

impl fmt::Debug for JobHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobHandle")
            .field("request_id", &self.job.request_id)
            .finish_non_exhaustive()
    }
}
