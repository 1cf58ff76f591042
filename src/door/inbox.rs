//! The bytes that a client sent and nobody has taken yet.

use std::io;

use super::socket::{Received, Socket};
use crate::clock::{Clock, Time};

/// Room made for each read; most requests come in one.
const READ_BYTES: usize = 8 * 1024;

/// Bytes from the socket, in order. What follows one request is the start of the next.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    /// When the first of the bytes at hand came.
    read_at: Time,
}

impl Inbox {
    /// The bytes at hand.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// When the bytes at hand began to come.
    pub(super) fn read_at(&self) -> Time {
        self.read_at
    }

    /// Takes bytes away from the front.
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(
            self.start <= self.bytes.len(),
            "more was taken than was there"
        );
        if self.is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Moves bytes from the front to the end of `to`, until that is `length` long or nothing is left.
    pub(super) fn pour(&mut self, to: &mut Vec<u8>, length: usize) {
        let part = self.bytes().len().min(length.saturating_sub(to.len()));
        to.extend_from_slice(&self.bytes()[..part]);
        self.consume(part);
    }

    /// Gives back what was read too far. There must be nothing else at hand.
    pub(super) fn put_back(&mut self, bytes: &[u8], now: Time) {
        debug_assert!(self.is_empty(), "the order of bytes would change");
        self.bytes.extend_from_slice(bytes);
        self.read_at = now;
    }

    /// Lets the memory go while nothing is at hand.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            self.bytes = Vec::new();
        }
    }

    /// Waits for bytes as long as `park_after`.
    pub(super) fn fill_idle(&mut self, socket: &Socket, clock: &dyn Clock) -> io::Result<Received> {
        self.fill(clock, |bytes| socket.recv_idle(bytes))
    }

    /// Waits for more bytes until `deadline`.
    pub(super) fn fill_until(
        &mut self,
        socket: &Socket,
        clock: &dyn Clock,
        deadline: Time,
    ) -> io::Result<Received> {
        self.fill(clock, |bytes| socket.recv_until(bytes, clock, deadline))
    }

    fn fill(
        &mut self,
        clock: &dyn Clock,
        recv: impl FnOnce(&mut Vec<u8>) -> io::Result<Received>,
    ) -> io::Result<Received> {
        let was_empty = self.is_empty();
        self.bytes.drain(..self.start);
        self.start = 0;
        if self.bytes.capacity() - self.bytes.len() < READ_BYTES / 2 {
            self.bytes.reserve(READ_BYTES);
        }
        let received = recv(&mut self.bytes)?;
        if was_empty && received == Received::Bytes {
            self.read_at = clock.now();
        }
        Ok(received)
    }
}
