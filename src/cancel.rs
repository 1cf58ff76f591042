//! Cancellation: one word, said once, heard everywhere below.
//!
//! A [`CancelToken`] is cancelled at most once, with a [`CancelReason`]; the first word wins. Whoever can be
//! blocked hangs a hook on it ([`CancelToken::on_cancel`]) that ends the blocking: a socket's hook shuts the socket.
//!
//! The protocol of hooks, and the two races in it:
//!
//! * *Registering against cancelling.* Both take the token's lock. A hook that comes after the word runs at once,
//!   on the thread that registers it; so "register, then block" never misses the word.
//! * *Running against dropping.* Hooks run outside the lock, on the thread that cancels. [`Hook`]'s drop removes
//!   a hook that has not been taken yet, and does **not** wait for one that is running. A hook that must not act
//!   after its owner moved on (a connection that goes back to a pool) therefore owns what it acts on in a
//!   `Mutex<Option<_>>` that the owner empties first.
//!
//! A child is cancelled with its parent and for the same reason; cancelling a child leaves the parent alone.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use slab::Slab;

/// Why something was cancelled. It decides what the caller is told and what is counted against whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CancelReason {
    /// Somebody asked for it: `JobHandle::cancel`, `DELETE`.
    Requested,
    /// The client closed its connection.
    ClientLeft,
    /// The job's deadline passed.
    Deadline,
    /// The gateway is stopping.
    Stopping,
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CancelReason::Requested => "cancelled on request",
            CancelReason::ClientLeft => "the client left",
            CancelReason::Deadline => "the deadline passed",
            CancelReason::Stopping => "the gateway is stopping",
        })
    }
}

type Callback = Box<dyn FnOnce(CancelReason) + Send>;

/// A word that can be said once and heard by everyone who holds a clone.
///
/// ```
/// use pointsman::cancel::{CancelReason, CancelToken};
///
/// let job = CancelToken::new();
/// let call = job.child();
/// assert!(job.cancel(CancelReason::Requested));
/// assert!(!job.cancel(CancelReason::Deadline), "the first word wins");
/// assert_eq!(call.reason(), Some(CancelReason::Requested));
/// ```
#[derive(Clone)]
pub struct CancelToken {
    shared: Arc<Shared>,
}

struct Shared {
    /// Set once, before any hook runs; read without the lock.
    reason: OnceLock<CancelReason>,
    hooks: Mutex<Slab<Callback>>,
    said: Condvar,
    /// A child's hook on its parent; it goes when the last clone of the child goes.
    parent: OnceLock<Hook>,
}

impl CancelToken {
    /// A token that nobody has cancelled.
    #[expect(
        clippy::new_without_default,
        reason = "a default token would suggest that it can stand for no token"
    )]
    pub fn new() -> Self {
        CancelToken {
            shared: Arc::new(Shared {
                reason: OnceLock::new(),
                hooks: Mutex::new(Slab::new()),
                said: Condvar::new(),
                parent: OnceLock::new(),
            }),
        }
    }

    /// A token that is cancelled with this one, and can be cancelled alone.
    #[must_use]
    pub fn child(&self) -> CancelToken {
        let child = CancelToken::new();
        let weak = Arc::downgrade(&child.shared);
        let hook = self.on_cancel(move |reason| {
            if let Some(shared) = weak.upgrade() {
                CancelToken { shared }.cancel(reason);
            }
        });
        let _ = child.shared.parent.set(hook);
        child
    }

    /// Says the word. Runs the hooks on this thread and returns whether this call was the first.
    pub fn cancel(&self, reason: CancelReason) -> bool {
        let hooks = {
            let mut hooks = self.shared.hooks.lock();
            if self.shared.reason.set(reason).is_err() {
                return false;
            }
            std::mem::take(&mut *hooks)
        };
        self.shared.said.notify_all();
        for (_, hook) in hooks {
            hook(reason);
        }
        true
    }

    /// Whether the word was said.
    pub fn is_cancelled(&self) -> bool {
        self.shared.reason.get().is_some()
    }

    /// Why, if the word was said.
    pub fn reason(&self) -> Option<CancelReason> {
        self.shared.reason.get().copied()
    }

    /// Runs `hook` when the word is said, on the thread that says it; at once, on this thread, if it was said already.
    /// The hook is taken off again when the returned [`Hook`] is dropped. A hook must not block.
    pub fn on_cancel(&self, hook: impl FnOnce(CancelReason) + Send + 'static) -> Hook {
        let mut hooks = self.shared.hooks.lock();
        if let Some(&reason) = self.shared.reason.get() {
            drop(hooks);
            hook(reason);
            return Hook {
                token: Weak::new(),
                key: 0,
            };
        }
        let key = hooks.insert(Box::new(hook));
        Hook {
            token: Arc::downgrade(&self.shared),
            key,
        }
    }

    /// Waits until the word is said, at most `timeout`. Returns why, or `None` when the time ran out.
    pub fn wait(&self, timeout: Duration) -> Option<CancelReason> {
        let mut hooks = self.shared.hooks.lock();
        self.shared.said.wait_while_for(
            &mut hooks,
            |_| self.shared.reason.get().is_none(),
            timeout,
        );
        drop(hooks);
        self.reason()
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken")
            .field("reason", &self.reason())
            .finish_non_exhaustive()
    }
}

/// Keeps a callback registered; dropping it takes the callback off (see the module's story for what it does not promise).
#[must_use = "dropping the hook takes it off at once"]
pub struct Hook {
    token: Weak<Shared>,
    key: usize,
}

impl Drop for Hook {
    fn drop(&mut self) {
        let Some(shared) = self.token.upgrade() else {
            return;
        };
        let removed = {
            let mut hooks = shared.hooks.lock();
            // After the word was said the slab is empty, and stays so: the key can't name another's hook.
            hooks.try_remove(self.key)
        };
        drop(removed);
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_hook_that_comes_after_the_word_runs_at_once() {
        let token = CancelToken::new();
        token.cancel(CancelReason::Deadline);
        let (said, heard) = mpsc::channel();
        let _hook = token.on_cancel(move |reason| said.send(reason).expect("receiver lives"));
        assert_eq!(heard.try_recv(), Ok(CancelReason::Deadline));
    }

    #[test]
    fn a_dropped_hook_is_not_run() {
        let token = CancelToken::new();
        let (said, heard) = mpsc::channel::<CancelReason>();
        drop(token.on_cancel(move |reason| said.send(reason).expect("receiver lives")));
        token.cancel(CancelReason::Requested);
        assert!(heard.recv().is_err(), "the callback went with its hook");
    }

    #[test]
    fn a_child_hears_its_parent_and_not_the_other_way_round() {
        let parent = CancelToken::new();
        let (first, second) = (parent.child(), parent.child());
        first.cancel(CancelReason::ClientLeft);
        assert_eq!((parent.reason(), second.reason()), (None, None));
        parent.cancel(CancelReason::Stopping);
        assert_eq!(second.reason(), Some(CancelReason::Stopping));
        assert_eq!(first.reason(), Some(CancelReason::ClientLeft));
    }

    #[test]
    fn a_child_that_is_gone_leaves_no_hook_behind() {
        let parent = CancelToken::new();
        for _ in 0..100 {
            drop(parent.child());
        }
        assert_eq!(parent.shared.hooks.lock().len(), 0);
    }

    #[test]
    fn a_waiter_is_woken_by_the_word() {
        let token = CancelToken::new();
        let other = token.clone();
        let waiter = std::thread::Builder::new()
            .name("test-waiter".into())
            .spawn(move || other.wait(Duration::from_secs(30)))
            .expect("thread starts");
        token.cancel(CancelReason::Requested);
        assert_eq!(
            waiter.join().expect("no panic"),
            Some(CancelReason::Requested)
        );
        assert_eq!(CancelToken::new().wait(Duration::ZERO), None);
    }
}
