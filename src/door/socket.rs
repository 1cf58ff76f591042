//! One client's socket, TCP or Unix: reads with a deadline, writes with a deadline, three ways to end.
//!
//! The socket is a blocking one with a receive timeout of `park_after`, set once: a connection that waits for
//! its next request needs a single `recv`, without a `poll` before it. All else passes `MSG_DONTWAIT` and polls
//! against the clock only when there is nothing to take or no room: no thread is ever blocked in the kernel's
//! send or receive path where another can't end it, and the fast path of a write reads no clock.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, sockopt};

use crate::clock::{Clock, Time};

/// The longest single `poll`; whoever polls looks at its clock and polls again.
const LONGEST_POLL: Duration = Duration::from_secs(3600);

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// At least one byte, appended.
    Bytes,
    /// The client sends nothing more.
    End,
    /// Nothing came in time.
    Timeout,
}

/// One client's socket. It closes when the last owner drops it.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// Takes over a blocking stream socket.
    ///
    /// # Errors
    /// When the socket takes no options: it broke already.
    pub(super) fn new(fd: OwnedFd, park_after: Duration) -> io::Result<Self> {
        // Zero would mean "for ever" to the kernel.
        let patience = park_after.max(Duration::from_millis(1));
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(patience))?;
        Ok(Socket { fd })
    }

    /// Waits for bytes as long as `park_after`.
    pub(super) fn recv_idle(&self, into: &mut Vec<u8>) -> io::Result<Received> {
        self.recv(into, RecvFlags::empty())
    }

    /// Takes what is there; [`Received::Timeout`] if nothing is.
    pub(super) fn recv_now(&self, into: &mut Vec<u8>) -> io::Result<Received> {
        self.recv(into, RecvFlags::DONTWAIT)
    }

    /// Waits for bytes until `deadline`. What is there already is taken even after it.
    pub(super) fn recv_until(
        &self,
        into: &mut Vec<u8>,
        clock: &dyn Clock,
        deadline: Time,
    ) -> io::Result<Received> {
        loop {
            match self.recv_now(into)? {
                Received::Timeout => {
                    if !self.ready(PollFlags::IN, clock, deadline)? {
                        return Ok(Received::Timeout);
                    }
                }
                done @ (Received::Bytes | Received::End) => return Ok(done),
            }
        }
    }

    fn recv(&self, into: &mut Vec<u8>, flags: RecvFlags) -> io::Result<Received> {
        loop {
            match rustix::net::recv(&self.fd, spare_capacity(into), flags) {
                Ok((0, _)) => return Ok(Received::End),
                Ok(_) => return Ok(Received::Bytes),
                Err(Errno::AGAIN) => return Ok(Received::Timeout),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes all of `parts`, in one system call where there is room.
    ///
    /// # Errors
    /// `TimedOut` when it was not through within `limit`; else what the socket says. Part may have been sent.
    pub(super) fn send(
        &self,
        mut parts: &mut [IoSlice<'_>],
        clock: &dyn Clock,
        limit: Duration,
    ) -> io::Result<()> {
        let mut deadline = None;
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let mut no_control = SendAncillaryBuffer::default();
            match rustix::net::sendmsg(&self.fd, parts, &mut no_control, flags) {
                Ok(sent) => IoSlice::advance_slices(&mut parts, sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let deadline = *deadline.get_or_insert_with(|| clock.now() + limit);
                    if !self.ready(PollFlags::OUT, clock, deadline)? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Polls until the socket is ready or broken (`true`) or the deadline passed.
    fn ready(&self, what: PollFlags, clock: &dyn Clock, deadline: Time) -> io::Result<bool> {
        loop {
            let now = clock.now();
            if now >= deadline {
                return Ok(false);
            }
            let mut fds = [PollFd::new(&self.fd, what)];
            if poll_for(&mut fds, deadline.until(now))? > 0 {
                return Ok(true);
            }
        }
    }

    /// Ends both ways: whoever waits on the socket is woken, the client reads what was sent and then the end.
    pub(super) fn shut(&self) {
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Both);
    }

    /// Says that nothing more will be sent.
    pub(super) fn shut_write(&self) {
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Write);
    }

    /// Ends with a reset, so that the client can't take the end for a clean one. Where there are no resets (a
    /// Unix socket) it is a plain end.
    ///
    /// `connect` to nowhere is how Linux resets a connection that others still have open; a zero linger and
    /// `close` would act only when the last owner lets go.
    pub(super) fn reset(&self) {
        if matches!(sockopt::socket_domain(&self.fd), Ok(domain) if domain != rustix::net::AddressFamily::UNIX)
        {
            let _ = sockopt::set_socket_linger(&self.fd, Some(Duration::ZERO));
            let _ = rustix::net::connect_unspec(&self.fd);
        }
        self.shut();
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `poll` for at most `timeout`; 0 where nothing happened, also after a signal.
pub(super) fn poll_for(fds: &mut [PollFd<'_>], timeout: Duration) -> io::Result<usize> {
    match poll(fds, Some(&timespec(timeout))) {
        Err(Errno::INTR) => Ok(0),
        result => Ok(result?),
    }
}

/// For the kernel, at most an hour.
pub(super) fn timespec(length: Duration) -> Timespec {
    Timespec::try_from(length.min(LONGEST_POLL)).expect("an hour fits")
}
