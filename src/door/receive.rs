//! From the client's bytes to a whole request: the head, what is checked between it and the body, the body.

use std::io::{self, IoSlice};
use std::time::Duration;

use super::body::{BodyFraming, Chunks};
use super::budget::Held;
use super::connection::{self, Connection};
use super::head::{self, Refusal, Scanner};
use super::message::{Head, Response};
use super::shared::Shared;
use super::socket::Received;

/// Memory set aside for an announced body before its bytes come; the kernel gives pages only to what is
/// written.
const BODY_RESERVE: usize = 1024 * 1024;

/// The least room made for each further read of a body.
const BODY_READ: usize = 64 * 1024;

/// How long a connection beyond `max_connections` may take to say what it wants: with a flood's slow clients in the
/// few places for operation routes nobody else would come in.
const OPERATION_PATIENCE: Duration = Duration::from_secs(1);

const FULL: Refusal = Refusal::Overloaded("too many bytes of requests are held");

/// Why a request was not received.
#[derive(Debug)]
pub(super) enum Stop {
    /// The client is gone.
    Gone,
    /// The door refuses it.
    Refused(Refusal),
    /// The handler refuses it, having seen the head.
    Declined(Response, BodyFraming),
    /// The handler panicked.
    Panicked,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::Refused(refusal)
    }
}

impl Connection {
    /// Reads the next head, from its first byte on.
    pub(super) fn read_head(&mut self, door: &Shared) -> Result<Head, Stop> {
        let mut scanner = Scanner::new(door.config.max_head);
        let mut deadline = None;
        loop {
            if let Some(range) = scanner.find(self.inbox.bytes())? {
                let length = range.end;
                let head = head::parse(&self.inbox.bytes()[range], door.config.max_headers);
                self.inbox.consume(length);
                return Ok(head?);
            }
            let deadline = *deadline.get_or_insert_with(|| {
                let usual = door.config.head_timeout;
                let patience = match self.place.is_general() {
                    true => usual,
                    false => usual.min(OPERATION_PATIENCE),
                };
                door.clock.now() + patience
            });
            match self.inbox.fill_until(&self.socket, &*door.clock, deadline) {
                Ok(Received::Bytes) => {}
                Ok(Received::Timeout) => return Err(Refusal::TooSlow("its head").into()),
                Ok(Received::End) | Err(_) => return Err(Stop::Gone),
            }
        }
    }

    /// All that is between a head and its handler: may it be asked, is it announced well, is it wanted, and the
    /// body.
    pub(super) fn read_body(
        &mut self,
        door: &Shared,
        head: &Head,
    ) -> Result<(Vec<u8>, Held), Stop> {
        self.check_place(door, head)?;
        let framing = BodyFraming::announced(head, door.config.max_body)?;
        if !framing.is_empty() && !self.place.is_general() {
            return Err(Refusal::Overloaded(connection::FULL).into());
        }
        let awaits_word = awaits_word(head)? && !framing.is_empty() && self.inbox.is_empty();
        match door.guarded(|| door.handler.admit(head)) {
            Some(Ok(())) => {}
            Some(Err(response)) => return Err(Stop::Declined(response, framing)),
            None => return Err(Stop::Panicked),
        }
        let mut held = door.budget.share();
        if let BodyFraming::Length(length) = framing
            && !door.budget.fits(length)
        {
            return Err(FULL.into());
        }
        if awaits_word {
            let mut word = [IoSlice::new(b"HTTP/1.1 100 Continue\r\n\r\n")];
            let sent = self
                .socket
                .send(&mut word, &*door.clock, door.config.write_timeout);
            sent.map_err(|_| Stop::Gone)?;
        }
        let body = match framing {
            BodyFraming::Length(0) => Vec::new(),
            BodyFraming::Length(length) => self.read_length(door, length, &mut held)?,
            BodyFraming::Chunked => self.read_chunks(door, &mut held)?,
        };
        Ok((body, held))
    }

    fn check_place(&mut self, door: &Shared, head: &Head) -> Result<(), Refusal> {
        let welcome = self.place.is_general()
            || door.guarded(|| door.handler.is_operation(head)) == Some(true);
        match welcome {
            true => Ok(()),
            false => Err(Refusal::Overloaded(connection::FULL)),
        }
    }

    fn read_length(
        &mut self,
        door: &Shared,
        length: usize,
        held: &mut Held,
    ) -> Result<Vec<u8>, Stop> {
        let mut body = Vec::with_capacity(length.min(BODY_RESERVE));
        self.inbox.pour(&mut body, length);
        charge(held, body.len())?;
        while body.len() < length {
            if body.len() == body.capacity() {
                body.reserve((length - body.len()).min(BODY_READ));
            }
            let deadline = door.clock.now() + door.config.body_timeout;
            let received = self.socket.recv_until(&mut body, &*door.clock, deadline);
            body_progress(received)?;
            charge(held, body.len().min(length))?;
        }
        if body.len() > length {
            // The vector had more room than was asked for: the rest is the next request's.
            self.inbox.put_back(&body[length..], door.clock.now());
            body.truncate(length);
        }
        Ok(body)
    }

    fn read_chunks(&mut self, door: &Shared, held: &mut Held) -> Result<Vec<u8>, Stop> {
        let mut chunks = Chunks::new(door.config.max_body, door.config.max_head);
        let mut body = Vec::new();
        loop {
            let taken = chunks.feed(self.inbox.bytes(), &mut body)?;
            self.inbox.consume(taken);
            charge(held, body.len())?;
            if chunks.is_done() {
                return Ok(body);
            }
            let deadline = door.clock.now() + door.config.body_timeout;
            body_progress(self.inbox.fill_until(&self.socket, &*door.clock, deadline))?;
        }
    }
}

fn charge(held: &mut Held, bytes: usize) -> Result<(), Refusal> {
    match held.grow_to(bytes) {
        true => Ok(()),
        false => Err(FULL),
    }
}

fn body_progress(received: io::Result<Received>) -> Result<(), Stop> {
    match received {
        Ok(Received::Bytes) => Ok(()),
        Ok(Received::Timeout) => Err(Refusal::TooSlow("its body").into()),
        Ok(Received::End) => Err(Refusal::Malformed("the body is shorter than announced").into()),
        Err(_) => Err(Stop::Gone),
    }
}

/// Whether the client waits for a word before it sends its body. HTTP/1.0 knows no such thing (RFC 9110,
/// 10.1.1).
fn awaits_word(head: &Head) -> Result<bool, Refusal> {
    let mut expectations = head
        .headers
        .all("expect")
        .filter(|_| head.version == (1, 1));
    match (expectations.next(), expectations.next()) {
        (None, _) => Ok(false),
        (Some(one), None) if one.eq_ignore_ascii_case("100-continue") => Ok(true),
        (Some(_), _) => Err(Refusal::Expectation),
    }
}
