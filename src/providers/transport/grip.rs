//! A call's grip on its socket: what lets another thread cut it, and never the next call's.
//!
//! ```text
//!         hold                 end
//!  Free ---------> Held -----------------> Over      the connection may go back to the pool
//!   |  ^            |  |
//!   |  +--let_go----+  |
//!   |                  | cut (shuts the socket)
//!   +-----------> Cut <+                             the connection is never used again
//!       cut
//! ```
//!
//! `cut` is the cancel hook, on the thread that cancels; all other edges are the calling thread's. Both take the
//! one lock, so one of them is first, and there are only these cases:
//!
//! * *The hook before the socket.* It finds `Free` and leaves `Cut`; `hold` sees that and the call ends before
//!   it blocks. Hence "hold, then block" misses no word, as connecting and taking up a pooled connection do.
//! * *The hook while the call blocks.* It finds the socket and shuts it, which wakes whoever polls it.
//! * *The hook at the end of the call.* If it is first, `end` finds `Cut` and says that the connection is spent.
//!   If `end` is first, the hook finds `Over`, and nothing to shut, however late it comes: the socket belongs to
//!   the next call, whose grip is another.
//!
//! The grip owns the socket (an `Arc`, never a number), so a hook can't shut a stranger's socket that was given
//! the same number. `shutdown(2)` does not block, so the hook may call it under the lock.

use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;

/// Shared between a call and its cancel hook.
#[derive(Debug, Default)]
pub(super) struct Grip(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    /// No socket yet.
    #[default]
    Free,
    /// A socket that the call may block on.
    Held(Arc<TcpStream>),
    /// The hook was here.
    Cut,
    /// The call is done with its socket.
    Over,
}

/// The hook was there first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WasCut;

impl Grip {
    /// Puts a socket under the hook; to be called before the call blocks on it.
    ///
    /// # Errors
    /// [`WasCut`] when the call was cancelled already: it must not block.
    pub(super) fn hold(&self, socket: &Arc<TcpStream>) -> Result<(), WasCut> {
        let mut state = self.0.lock();
        match *state {
            State::Cut => Err(WasCut),
            State::Free | State::Held(_) | State::Over => {
                *state = State::Held(Arc::clone(socket));
                Ok(())
            }
        }
    }

    /// Takes a socket that came to nothing from under the hook: another one may be held.
    pub(super) fn let_go(&self) {
        let mut state = self.0.lock();
        if matches!(*state, State::Held(_)) {
            *state = State::Free;
        }
    }

    /// Ends the hook's power over the socket. Returns whether the socket may be used again.
    pub(super) fn end(&self) -> bool {
        let mut state = self.0.lock();
        let reusable = !matches!(*state, State::Cut);
        if reusable {
            *state = State::Over;
        }
        reusable
    }

    /// Whether a socket is held.
    pub(super) fn is_held(&self) -> bool {
        matches!(*self.0.lock(), State::Held(_))
    }

    /// The cancel hook: shuts the socket, if the call has one.
    pub(super) fn cut(&self) {
        let mut state = self.0.lock();
        match std::mem::replace(&mut *state, State::Cut) {
            // An error means that the peer was faster.
            State::Held(socket) => drop(socket.shutdown(Shutdown::Both)),
            State::Over => *state = State::Over,
            State::Free | State::Cut => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (Arc<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        (Arc::new(ours), listener.accept().expect("accepts").0)
    }

    #[test]
    fn a_cut_shuts_the_socket_and_spoils_it_for_the_pool() {
        let (ours, mut theirs) = pair();
        let grip = Grip::default();
        grip.hold(&ours).expect("nobody cut it");
        grip.cut();
        assert_eq!(theirs.read(&mut [0]).expect("a clean end"), 0);
        assert!(!grip.end());
    }

    #[test]
    fn a_cut_before_the_socket_is_seen_when_it_comes() {
        let grip = Grip::default();
        grip.cut();
        assert_eq!(grip.hold(&pair().0), Err(WasCut));
    }

    #[test]
    fn a_cut_after_the_end_leaves_the_socket_alone() {
        let (ours, mut theirs) = pair();
        let grip = Grip::default();
        grip.hold(&ours).expect("nobody cut it");
        assert!(grip.end());
        grip.cut();
        std::io::Write::write_all(&mut &*ours, b"!").expect("still open");
        assert_eq!(theirs.read(&mut [0]).expect("still open"), 1);
    }
}
