//! The right to speak in an exchange, and what is said with it: heads, pieces, ends.

use std::io::{self, IoSlice};
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use tiny_http::StatusCode;

use super::encode::{self, After, Framing};
use super::message::{Headers, Response};
use super::reply::{Inner, Progress};

/// The right to speak, given back on drop. See [`Exchange::seize`](super::Exchange::seize).
#[derive(Debug)]
pub struct Floor<'a> {
    pub(super) inner: &'a Inner,
    /// How the body under way is framed.
    pub(super) framing: MutexGuard<'a, Framing>,
}

impl Floor<'_> {
    /// How far the answer is. Only an abort can change it while the floor is held.
    pub fn progress(&self) -> Progress {
        self.inner.progress()
    }

    /// As [`Exchange::reply`](super::Exchange::reply).
    ///
    /// # Errors
    /// As [`Exchange::reply`](super::Exchange::reply).
    pub fn reply(&mut self, response: Response) -> io::Result<()> {
        let body: &[u8] = &response.body;
        let framing = match encode::is_bodiless(response.status) {
            true => Framing::Nothing,
            false => Framing::Length(body.len()),
        };
        let silent = self.inner.manners.head_only || framing == Framing::Nothing;
        let body = if silent { &[] } else { body };
        self.begin(response.status, &response.headers, framing, body)?;
        self.end()
    }

    /// As [`Exchange::start`](super::Exchange::start).
    ///
    /// # Errors
    /// As [`Exchange::reply`](super::Exchange::reply).
    pub fn start(&mut self, status: StatusCode, headers: &Headers) -> io::Result<()> {
        let framing = match encode::is_bodiless(status) {
            true => Framing::Nothing,
            false if self.inner.manners.old => Framing::UntilClose,
            false => Framing::Chunked,
        };
        self.begin(status, headers, framing, &[])
    }

    /// As [`Exchange::write`](super::Exchange::write).
    ///
    /// # Errors
    /// As [`Exchange::write`](super::Exchange::write).
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.inner
            .advance(Progress::Streaming, Progress::Streaming)?;
        if piece.is_empty() || self.inner.manners.head_only {
            return Ok(());
        }
        match *self.framing {
            Framing::Chunked => {
                let size = format!("{:x}\r\n", piece.len());
                self.send(&[size.as_bytes(), piece, b"\r\n"])
            }
            Framing::UntilClose => self.send(&[piece]),
            Framing::Nothing | Framing::Length(_) => Ok(()),
        }
    }

    /// As [`Exchange::finish`](super::Exchange::finish).
    ///
    /// # Errors
    /// As [`Exchange::write`](super::Exchange::write).
    pub fn finish(&mut self) -> io::Result<()> {
        self.inner
            .advance(Progress::Streaming, Progress::Streaming)?;
        if *self.framing == Framing::Chunked && !self.inner.manners.head_only {
            self.send(&[b"0\r\n\r\n"])?;
        }
        self.end()
    }

    fn begin(
        &mut self,
        status: StatusCode,
        headers: &Headers,
        framing: Framing,
        body: &[u8],
    ) -> io::Result<()> {
        self.inner.advance(Progress::Unsent, Progress::Streaming)?;
        *self.framing = framing;
        let after = self.after(headers, framing);
        self.inner
            .stays
            .store(after != After::Close, Ordering::Relaxed);
        let head = encode::head(
            status,
            headers,
            framing,
            after,
            self.inner.door.clock.wall(),
        );
        self.send(&[&head, body])
    }

    fn after(&self, headers: &Headers, framing: Framing) -> After {
        let manners = self.inner.manners;
        let closes = !manners.keep_alive
            || framing == Framing::UntilClose
            || self.inner.door.is_quiet()
            || encode::asks_to_close(headers);
        match (closes, manners.old) {
            (true, _) => After::Close,
            (false, true) => After::StayAloud,
            (false, false) => After::Stay,
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.inner
            .advance(Progress::Streaming, Progress::Finished)?;
        self.inner.after_finish();
        Ok(())
    }

    fn send(&self, parts: &[&[u8]]) -> io::Result<()> {
        let door = &self.inner.door;
        let mut slices = [IoSlice::new(&[]); 3];
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
        }
        let slices = &mut slices[..parts.len()];
        let sent = self
            .inner
            .socket()
            .and_then(|socket| socket.send(slices, &*door.clock, door.config.write_timeout));
        if sent.is_err() {
            self.inner.break_off();
        }
        sent
    }
}
