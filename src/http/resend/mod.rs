//! Resends: who loses patience and sends the same again joins the call that runs for it, instead of making a second one.
//!
//! The clients of OpenAI's API send a request again by themselves when it takes them too long. Without care, each such
//! resend is one more call at a provider that is slow already.
//!
//! # What joins what
//!
//! A request *can be joined* when it names a session, wants no stream, and says that it may come again: it has an
//! `Idempotency-Key`, or the `x-stainless-retry-count` (0 the first time) that OpenAI's clients send. A request joins a
//! call that can be joined, of the same API key and session, when it has the same `Idempotency-Key` and an equal body
//! (with another body it is refused), or no key, a retry count above 0, and an equal body. All others make a call of their
//! own. Of several calls that look alike, the one whose client has left is joined.
//!
//! # Who stays, and how long
//!
//! ```text
//!   enter --> attended --the last client leaves--> unattended --grace is over--> cut: the call is cancelled
//!                ^   \                               |     \
//!                |    +--the call ends--> over       |      +--the call is answered--> kept until grace is over
//!                +-------------- a resend -----------+
//! ```
//!
//! * Each client's own connection thread stays with it, with its own deadline. The call has the deadline of the request
//!   that made it. A joiner whose deadline comes first is told so, and the call goes on for the others; one whose deadline
//!   comes later goes on alone when the call runs out of time, with a call of its own, which others can join again.
//! * A client that leaves as the last one leaves its connection's thread behind, for `server.resend_grace` at most: it
//!   takes no timer and no further thread, and what it holds is bounded by the bounds on connections and on held bytes.
//!   It goes when a resend comes, and else cuts the call. (A client that was *told* that its time is over is not expected
//!   again: a call that nobody else waits for is then cut at once.)
//! * An answer that nobody waits for is kept for the rest of the grace, as long as there is room for it in
//!   `server.max_body_total`. A failure is not kept: a resend tries again.
//! * A joiner is no job and takes no slot. It has a number, a story in the lifecycle log and a line in the log, as a job
//!   has. If it goes on alone its job takes over the number, so that the request has one story.
//!
//! # Locks
//!
//! Who attends which call is under one lock ([`Resends::table`]), and so is the end: whoever takes an [`Ear`] out of the
//! table, be it the call's end, its own client's leaving, its deadline or a cancel, has the right and the duty to say its
//! last word, so it is said once. Nobody is called under that lock.

mod call;
mod ear;
mod guest;
mod table;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use self::table::Table;
use super::error::ApiError;
use crate::clock::SharedClock;
use crate::door::Headers;
use crate::engine::{Owner, SessionName};

pub(super) use call::SharedCall;
pub(super) use ear::{Ear, Manner, Stay};
pub(super) use guest::{Asked, Guest};
pub(super) use table::Entered;

/// Characters of an `Idempotency-Key`.
const MAX_KEY: usize = 255;

/// The calls that can be joined.
#[derive(Debug)]
pub(super) struct Resends {
    clock: SharedClock,
    grace: Duration,
    /// Two, for a fingerprint of 128 bits; their keys are random, so that no client can make two bodies look alike.
    hashers: [RandomState; 2],
    table: Mutex<Table>,
    /// Told of whatever ends the grace of an unattended call.
    changed: Condvar,
}

/// What tells a resend from other requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Identity {
    session: SessionName,
    mark: Mark,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Mark {
    Key(Arc<str>),
    Body(Fingerprint),
}

/// Equal for equal bodies, and for no others that anybody will ever see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Fingerprint {
    length: usize,
    hashes: [u64; 2],
}

/// A request that can be joined.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    identity: Identity,
    body: Fingerprint,
    /// It may itself be a resend.
    may_join: bool,
}

impl Resends {
    /// No calls yet; each that comes outlives its client by `grace`.
    pub(super) fn new(grace: Duration, clock: SharedClock) -> Self {
        Resends {
            clock,
            grace,
            hashers: [RandomState::new(), RandomState::new()],
            table: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Whether a request (no stream) of this owner can be joined, and what it would join.
    ///
    /// # Errors
    /// 400 for an `Idempotency-Key` that is empty or too long.
    pub(super) fn read(
        &self,
        headers: &Headers,
        owner: &Owner,
        body: &[u8],
    ) -> Result<Option<Sent>, ApiError> {
        let Owner::Session(session) = owner else {
            return Ok(None);
        };
        if self.grace.is_zero() {
            return Ok(None);
        }
        let key = headers.get("Idempotency-Key").map(key).transpose()?;
        let count = headers.get("x-stainless-retry-count");
        let count = count.and_then(|text| text.trim().parse::<u32>().ok());
        if key.is_none() && count.is_none() {
            return Ok(None);
        }
        let body = Fingerprint {
            length: body.len(),
            hashes: [0, 1].map(|index| self.hashers[index].hash_one(body)),
        };
        let (mark, may_join) = match (key, count) {
            (Some(key), _) => (Mark::Key(key.into()), true),
            (None, count) => (Mark::Body(body), count > Some(0)),
        };
        let session = session.clone();
        Ok(Some(Sent {
            identity: Identity { session, mark },
            body,
            may_join,
        }))
    }
}

impl Sent {
    /// Its body is not that of the request which its key stands for.
    fn conflict(&self, request_id: &str) -> ApiError {
        let key = match &self.identity.mark {
            Mark::Key(key) => key,
            Mark::Body(_) => "",
        };
        ApiError::idempotency_key_reused(key, request_id)
    }
}

/// A key that a client may give.
fn key(text: &str) -> Result<&str, ApiError> {
    let text = text.trim();
    match text.chars().count() {
        1..=MAX_KEY => Ok(text),
        length => Err(ApiError::invalid(
            format!("the header Idempotency-Key has {length} characters; accepted: 1 to {MAX_KEY}"),
            None,
        )),
    }
}
