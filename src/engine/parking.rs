//! What the queue of ready jobs is made of, in one place: `tests/shuttle` puts locks, channels and parking places of its
//! own under the same file, and tries the interleavings of its threads.

pub(super) use crossbeam::channel::{Receiver, Sender, unbounded};
pub(super) use crossbeam::sync::{Parker, Unparker};
pub(super) use crossbeam::utils::Backoff;
pub(super) use parking_lot::Mutex;
