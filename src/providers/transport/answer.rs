//! An answer: its status, its headers, and its body as it comes in.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{HeaderMap, Response};
use ureq::{Body, BodyReader};

use crate::cancel::Hook;

use super::error::TransportError;
use super::exchange::Exchange;
use super::pool::Lease;

/// Bytes of one read.
const BUFFER_BYTES: usize = 4 * 1024;
/// Bytes of a body that are taken; the rest is malformed. The longest answers are a few MiB.
const MAX_BODY_BYTES: u64 = 64 << 20;
/// How long, and for how many bytes, [`Answer::finish`] waits for the body's end.
const FINISH: Duration = Duration::from_millis(100);
const FINISH_BYTES: u64 = 64 * 1024;

/// The answer to a request: read its body through [`Read`] or [`BufRead`].
///
/// Reads are bounded by the call's deadline, the first one by `timeouts.first_byte` too, those after
/// [`Answer::content_began`] by `timeouts.idle`; and they end as soon as the call is cancelled. Their errors carry a
/// [`TransportError`], which `TransportError::from` finds. An error is for good: later reads return it again.
///
/// The connection goes back to the pool when the body was read to its end (a read that returns nothing);
/// when the answer is dropped before, the connection is closed, which tells the provider to stop.
pub(crate) struct Answer {
    /// The HTTP status, whatever it is.
    pub(crate) status: u16,
    headers: HeaderMap,
    body: Result<Option<Source>, TransportError>,
    exchange: Arc<Exchange>,
    buffer: Box<[u8]>,
    unread: std::ops::Range<usize>,
    taken_bytes: u64,
}

/// What an answer needs while there may be more of it.
/// Dropped in this order: the reader gives the connection back or closes it, then the pool is told.
struct Source {
    reader: BodyReader<'static>,
    _hook: Hook,
    _lease: Lease,
}

impl Answer {
    pub(super) fn new(
        response: Response<Body>,
        exchange: Arc<Exchange>,
        hook: Hook,
        lease: Lease,
    ) -> Self {
        let (head, body) = response.into_parts();
        exchange.head_is_in();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: Ok(Some(Source {
                reader: body.into_reader(),
                _hook: hook,
                _lease: lease,
            })),
            exchange,
            buffer: vec![0; BUFFER_BYTES].into(),
            unread: 0..0,
            taken_bytes: 0,
        }
    }

    /// The first header of that name, in any case; `None` also where it isn't ASCII.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What was read says something: from here on silence is a stall, and no longer a model that thinks.
    pub(crate) fn content_began(&self) {
        self.exchange.content_began();
    }

    /// Lets the connection be used again when the answer's meaning ended before its bytes: after the last event of
    /// a stream the body's own end is usually there already. It is waited for at most 100 ms, within the deadline.
    pub(crate) fn finish(mut self) {
        self.exchange.finish_by(self.exchange.now() + FINISH);
        let limit = self.taken_bytes + FINISH_BYTES;
        while self.taken_bytes < limit {
            self.unread = 0..0;
            match self.fill_buf() {
                Ok([]) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// Reads on, and ends the body at its end or at its first error.
    fn refill(&mut self) -> Result<(), TransportError> {
        let Some(source) = self.body.as_mut().map_err(|error| error.clone())? else {
            return Ok(());
        };
        let read = self
            .exchange
            .admit()
            .and_then(|()| read(&mut source.reader, &mut self.buffer, &self.exchange));
        match read {
            Ok(0) => self.body = Ok(None),
            Ok(amount) => {
                self.exchange.body_began();
                self.unread = 0..amount;
                self.taken_bytes += amount as u64;
                if self.taken_bytes > MAX_BODY_BYTES {
                    return self.fail(TransportError::Malformed("the body is too long".into()));
                }
            }
            Err(error) => return self.fail(error),
        }
        Ok(())
    }

    fn fail(&mut self, error: TransportError) -> Result<(), TransportError> {
        self.unread = 0..0;
        self.body = Err(error.clone());
        Err(error)
    }
}

fn read(
    reader: &mut BodyReader<'static>,
    buffer: &mut [u8],
    exchange: &Exchange,
) -> Result<usize, TransportError> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => {
                return result.map_err(|error| TransportError::classify(error.into(), exchange));
            }
        }
    }
}

impl BufRead for Answer {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.unread.is_empty() {
            self.refill()?;
        }
        Ok(&self.buffer[self.unread.clone()])
    }

    fn consume(&mut self, amount: usize) {
        self.unread.start = self.unread.end.min(self.unread.start + amount);
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let amount = available.read(buffer)?;
        self.consume(amount);
        Ok(amount)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("taken_bytes", &self.taken_bytes)
            .finish_non_exhaustive()
    }
}
