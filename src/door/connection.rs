//! One connection's life on a thread: request after request, until it idles, is refused, or ends.
//!
//! ```text
//!            first byte             whole request            answer over, may stay
//!     idle --------------> reading ----------------> handled -----------------------> idle
//!      |                      |                         |
//!      | park_after           | refused                 | must close
//!      v                      v                         v
//!    parked                lingering                 closed or lingering
//! ```
//!
//! The thread that reads a request also calls the handler, and the handler's return ends the exchange: what was not
//! answered then gets a 500, what was half answered is broken off. Parking moves the connection to another owner; it is never in
//! two hands.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tiny_http::Method;

use super::bell::Bell;
use super::body::{BodyFraming, Chunks};
use super::budget::Held;
use super::head::{self, Refusal, Scanner};
use super::inbox::Inbox;
use super::message::{Head, Request, Response};
use super::reply::{Exchange, Manners, Progress};
use super::shared::{Place, Shared, Turn};
use super::socket::{Received, Socket};

/// Memory set aside for an announced body before its bytes come; the kernel gives pages only to what is written.
const BODY_RESERVE: usize = 1024 * 1024;

/// The least room made for each further read of a body.
const BODY_READ: usize = 64 * 1024;

/// A client's connection, in the hands of whoever owns this.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Arc<Socket>,
    place: Place,
    peer: Option<SocketAddr>,
    inbox: Inbox,
}

/// What becomes of a connection after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Another request may come.
    Request,
    /// Nothing is left to be said or heard.
    Close,
    /// The client may still be sending; see [`Parking`](super::parking::Parking).
    Linger,
}

/// Why a request was not received.
#[derive(Debug)]
enum Stop {
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
    pub(super) fn new(socket: Arc<Socket>, place: Place, peer: Option<SocketAddr>) -> Self {
        Connection {
            socket,
            place,
            peer,
            inbox: Inbox::default(),
        }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }
}

/// Gives a connection a thread, or turns it away where none can be started.
pub(super) fn resume(door: &Arc<Shared>, connection: Connection) {
    if let Err(Connection { socket, place, .. }) = door.crew.serve(door, connection) {
        turn_away(
            door,
            socket,
            Some(place),
            "no thread is left to serve this connection",
        );
    }
}

/// Answers 503 without waiting for the request, and without waiting for the client.
pub(super) fn turn_away(
    door: &Arc<Shared>,
    socket: Arc<Socket>,
    place: Option<Place>,
    why: &'static str,
) {
    door.tallies.refused.fetch_add(1, Ordering::Relaxed);
    let bytes = door.plain_error(503, why);
    // A fresh socket has room for it; where it has not, the client gets a plain end.
    let _ = socket.send(
        &mut [IoSlice::new(&bytes)],
        &*door.clock,
        std::time::Duration::ZERO,
    );
    door.parking.linger(door, socket, place);
}

/// Serves a connection until it is parked, lingers or is closed.
pub(super) fn serve(door: &Arc<Shared>, mut connection: Connection, bell: &Arc<Bell>) {
    loop {
        if connection.inbox.is_empty() {
            match connection.inbox.fill_idle(&connection.socket, &*door.clock) {
                Ok(Received::Bytes) => {}
                Ok(Received::End) | Err(_) => return,
                Ok(Received::Timeout) if door.is_quiet() => return,
                Ok(Received::Timeout) => {
                    connection.inbox.shrink();
                    return door.parking.park(door, connection);
                }
            }
        }
        match connection.turn(door, bell) {
            Next::Request => {}
            Next::Close => return,
            Next::Linger => {
                let Connection { socket, place, .. } = connection;
                return door.parking.linger(door, socket, Some(place));
            }
        }
    }
}

impl Connection {
    /// One request and its answer.
    fn turn(&mut self, door: &Arc<Shared>, bell: &Arc<Bell>) -> Next {
        let turn = door.begin_turn();
        let received = self.inbox.read_at();
        let head = match self.read_head(door) {
            Ok(head) => head,
            Err(stop) => {
                let unknown = Manners {
                    old: false,
                    head_only: false,
                    keep_alive: false,
                };
                let exchange = self.exchange(door, bell, turn, unknown);
                return self.decline(door, &exchange, stop);
            }
        };
        door.tallies.requests.fetch_add(1, Ordering::Relaxed);
        let exchange = self.exchange(door, bell, turn, manners(&head));
        match self.read_body(door, &head) {
            Ok((body, held)) => {
                let request = Request {
                    head,
                    body,
                    received,
                    peer: self.peer,
                    held,
                };
                let handled = door.guarded(|| door.handler.handle(request, &exchange));
                self.conclude(door, &exchange, handled.is_some())
            }
            Err(stop) => self.decline(door, &exchange, stop),
        }
    }

    fn exchange(
        &self,
        door: &Arc<Shared>,
        bell: &Arc<Bell>,
        turn: Turn,
        manners: Manners,
    ) -> Exchange {
        Exchange::new(door.clone(), &self.socket, bell.clone(), turn, manners)
    }

    fn read_head(&mut self, door: &Shared) -> Result<Head, Stop> {
        let mut scanner = Scanner::default();
        let mut deadline = None;
        loop {
            let found = scanner.find(self.inbox.bytes())?;
            let length = found
                .as_ref()
                .map_or(self.inbox.bytes().len(), |head| head.end);
            if length > door.config.max_head {
                return Err(Refusal::HeadTooLarge("too many bytes").into());
            }
            if let Some(range) = found {
                let head = head::parse(&self.inbox.bytes()[range], door.config.max_headers);
                self.inbox.consume(length);
                return Ok(head?);
            }
            let deadline =
                *deadline.get_or_insert_with(|| door.clock.now() + door.config.head_timeout);
            match self.inbox.fill_until(&self.socket, &*door.clock, deadline) {
                Ok(Received::Bytes) => {}
                Ok(Received::Timeout) => return Err(Refusal::TooSlow("its head").into()),
                Ok(Received::End) | Err(_) => return Err(Stop::Gone),
            }
        }
    }

    /// All that is between a head and its handler: may it be asked, is it announced well, is it wanted, and the body.
    fn read_body(&mut self, door: &Shared, head: &Head) -> Result<(Vec<u8>, Held), Stop> {
        self.check_place(door, head)?;
        let framing = BodyFraming::announced(head, door.config.max_body)?;
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
            false => Err(Refusal::Overloaded("too many connections are open")),
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

    /// Answers what was not received. The connection survives only where it is plain where the next request begins.
    fn decline(&mut self, door: &Shared, exchange: &Exchange, stop: Stop) -> Next {
        let response = match stop {
            Stop::Gone => return Next::Close,
            Stop::Declined(response, framing) if self.skip(framing) => response,
            Stop::Declined(response, _) => response.with_header("Connection", "close"),
            Stop::Refused(refusal) => door
                .error(refusal.status(), &refusal.to_string())
                .with_header("Connection", "close"),
            Stop::Panicked => return self.conclude(door, exchange, false),
        };
        match exchange.reply(response) {
            Ok(()) if exchange.stays() => Next::Request,
            Ok(()) => Next::Linger,
            Err(_) => Next::Close,
        }
    }

    /// Passes over a body that nobody wants, if it is at hand already.
    fn skip(&mut self, framing: BodyFraming) -> bool {
        match framing {
            BodyFraming::Length(length) if length <= self.inbox.bytes().len() => {
                self.inbox.consume(length);
                true
            }
            BodyFraming::Length(_) | BodyFraming::Chunked => false,
        }
    }

    /// After the handler: makes sure that the exchange is over, and says what follows.
    fn conclude(&mut self, door: &Shared, exchange: &Exchange, returned: Returned) -> Next {
        if !exchange.progress().is_over() {
            end_for(door, exchange, returned);
        }
        match exchange.progress() {
            Progress::Finished if exchange.stays() && returned => Next::Request,
            Progress::Finished => Next::Linger,
            Progress::Unsent | Progress::Streaming | Progress::Broken => Next::Close,
        }
    }
}

/// Whether the handler came back, or panicked.
type Returned = bool;

const FULL: Refusal = Refusal::Overloaded("too many bytes of requests are held");

/// The last word for a handler that said none. Whoever is in the middle of a write then is cut off.
fn end_for(door: &Shared, exchange: &Exchange, returned: Returned) {
    if returned {
        log::error!("a handler returned before its answer was over");
    }
    let spoken = exchange.seize().is_some_and(|mut floor| {
        let response = door
            .error(500, "the request could not be handled")
            .with_header("Connection", "close");
        floor.reply(response).is_ok()
    });
    if !spoken {
        exchange.abort();
    }
}

fn charge(held: &mut Held, bytes: usize) -> Result<(), Refusal> {
    match held.grow_to(bytes) {
        true => Ok(()),
        false => Err(FULL),
    }
}

fn body_progress(received: std::io::Result<Received>) -> Result<(), Stop> {
    match received {
        Ok(Received::Bytes) => Ok(()),
        Ok(Received::Timeout) => Err(Refusal::TooSlow("its body").into()),
        Ok(Received::End) => Err(Refusal::Malformed("the body is shorter than announced").into()),
        Err(_) => Err(Stop::Gone),
    }
}

/// Whether the client waits for a word before it sends its body. HTTP/1.0 knows no such thing (RFC 9110, 10.1.1).
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

fn manners(head: &Head) -> Manners {
    let old = head.version == (1, 0);
    let says = |word: &str| {
        let mut words = head
            .headers
            .all("connection")
            .flat_map(|value| value.split(','));
        words.any(|given| given.trim().eq_ignore_ascii_case(word))
    };
    Manners {
        old,
        head_only: head.method == Method::Head,
        keep_alive: !says("close") && (!old || says("keep-alive")),
    }
}
