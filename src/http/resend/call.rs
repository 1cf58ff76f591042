//! A call that others can join: the sink of its job.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::Resends;
use super::ear::Ear;
use super::table::Place;
use crate::cancel::CancelReason;
use crate::chat::{ChatReply, Piece, ReplyBuilder};
use crate::engine::{CallInfo, JobEnd, JobHandle, Phases, Sink, SinkGone, Speaker, Verdict};
use crate::http::meta::Meta;
use crate::wire::reply_json;

/// Collects the answer of one call for all who wait for it.
///
/// The worker writes the answer to the client that the call was made for, as it does for calls that nobody can
/// join; the joiners' own threads write theirs, so that a slow joiner holds up nobody.
#[derive(Debug)]
pub(in crate::http) struct SharedCall {
    resends: Arc<Resends>,
    place: Place,
    /// Of the request that it was made for.
    meta: Arc<Meta>,
    builder: Mutex<ReplyBuilder>,
    /// Set with the end: no piece is taken afterwards.
    over: AtomicBool,
    /// Its guests have it as well, to see where their time goes.
    job: Arc<OnceLock<JobHandle>>,
}

/// The end of a call, with what was answered; nothing where it failed.
#[derive(Debug)]
pub(in crate::http) struct Ended {
    pub(super) end: JobEnd,
    pub(super) reply: ChatReply,
}

impl Ended {
    /// The end of somebody who waited for a call, which goes on.
    pub(super) fn of(verdict: Verdict) -> Arc<Self> {
        let end = JobEnd {
            verdict,
            call: None,
            phases: Phases::default(),
        };
        let reply = ChatReply::default();
        Arc::new(Ended { end, reply })
    }

    /// How many bytes the answer has.
    pub(super) fn size(&self) -> usize {
        reply_json(&self.reply, None::<&()>).len()
    }
}

impl SharedCall {
    pub(super) fn new(resends: Arc<Resends>, place: Place, first: &Ear) -> Self {
        SharedCall {
            resends,
            place,
            meta: Arc::clone(first.meta()),
            builder: Mutex::default(),
            over: AtomicBool::new(false),
            job: Arc::default(),
        }
    }

    /// Its job, once there is one. Whoever is in the table beside the first client may look for it before that.
    pub(in crate::http) fn set_job(&self, job: JobHandle) {
        let _ = self.job.set(job);
    }

    /// Where its job will be.
    pub(super) fn job_place(&self) -> Arc<OnceLock<JobHandle>> {
        Arc::clone(&self.job)
    }

    pub(in crate::http) fn job(&self) -> Option<&JobHandle> {
        self.job.get()
    }

    /// The call could not be made at all.
    pub(in crate::http) fn fail(&self, why: String) {
        self.end(&Ended::of(Verdict::Erred(why)).end, Speaker::Other);
    }

    pub(in crate::http) fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(super) fn request_id(&self) -> &str {
        &self.meta.request_id
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn resends(&self) -> &Resends {
        &self.resends
    }

    /// Ends it: nobody waits for it.
    pub(super) fn cancel(&self, reason: CancelReason) {
        // Without a job its first client is in the table still, and then nobody says this.
        if let Some(job) = self.job.get() {
            job.cancel(reason);
        }
    }
}

impl Sink for SharedCall {
    fn call(&self, call: &CallInfo) {
        // What an earlier call brought was told to nobody.
        *self.builder.lock() = ReplyBuilder::default();
        self.meta.begin(call);
    }

    fn piece(&self, piece: Piece) -> Result<(), SinkGone> {
        if self.over.load(Ordering::Acquire) {
            return Err(SinkGone);
        }
        self.meta.hear(&piece);
        self.builder.lock().push(piece);
        Ok(())
    }

    fn end(&self, end: &JobEnd, speaker: Speaker) {
        self.over.store(true, Ordering::Release);
        let reply = match end.verdict {
            Verdict::Completed => std::mem::take(&mut *self.builder.lock()).finish(),
            _ => ChatReply::default(),
        };
        let end = end.clone();
        let ended = Arc::new(Ended { end, reply });
        let ears = self.resends.over(&self.place, &ended);
        let is_own = |ear: &&Arc<Ear>| speaker == Speaker::Worker && ear.guest().is_none();
        ears.iter()
            .filter(|ear| !is_own(ear))
            .for_each(|ear| ear.hand(Arc::clone(&ended)));
        ears.iter().filter(is_own).for_each(|ear| ear.tell(&ended));
    }
}
