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
//! The thread that reads a request also calls the handler, and the handler's return ends the exchange: what was
//! not answered then gets a 500, what was half answered is broken off. Parking moves the connection to another
//! owner; it is never in two hands.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tiny_http::Method;

use super::bell::Bell;
use super::body::BodyFraming;
use super::inbox::Inbox;
use super::message::{Head, Request};
use super::receive::Stop;
use super::reply::{Exchange, Manners, Progress};
use super::shared::{NextRequest, Place, Shared, Turn};
use super::socket::{Received, Socket};

/// A client's connection, in the hands of whoever owns this.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Arc<Socket>,
    pub(super) place: Place,
    peer: Option<SocketAddr>,
    pub(super) inbox: Inbox,
    next: NextRequest,
    /// Whether that is its first request.
    fresh: bool,
}

/// How the handler came out of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handled {
    Returned,
    Panicked,
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

impl Connection {
    pub(super) fn new(socket: Arc<Socket>, place: Place, peer: Option<SocketAddr>) -> Self {
        let next = place.first_request();
        Connection {
            socket,
            place,
            peer,
            inbox: Inbox::default(),
            next,
            fresh: true,
        }
    }

    /// Whether its first request has not begun.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }
}

/// Told to those for whom there is no general place.
pub(super) const FULL: &str = "too many connections are open";

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
                Ok(Received::Timeout) if connection.is_unwanted(door) => return,
                Ok(Received::Timeout) if !connection.place.is_general() => {
                    let Connection { socket, place, .. } = connection;
                    drop(place);
                    return turn_away(door, socket, None, FULL);
                }
                Ok(Received::Timeout) => {
                    connection.inbox.shrink();
                    if !connection.is_fresh() {
                        connection.next.settle();
                    }
                    return door.parking.park(door, connection);
                }
            }
        }
        match connection.turn(door, bell) {
            Next::Request => {}
            Next::Close => return,
            Next::Linger => {
                let Connection {
                    socket, mut place, ..
                } = connection;
                // The places for operation routes are too few to be lingered in.
                let place = place.is_general().then_some(place);
                return door.parking.linger(door, socket, place);
            }
        }
    }
}

impl Connection {
    /// Whether nobody waits for its next request any more.
    fn is_unwanted(&self, door: &Shared) -> bool {
        door.is_quiet() && !(self.is_fresh() && door.waits_for_fresh())
    }

    /// One request and its answer.
    fn turn(&mut self, door: &Arc<Shared>, bell: &Arc<Bell>) -> Next {
        let turn = door.begin_turn(&self.next);
        self.fresh = false;
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
                return self.decline(door, &exchange, None, stop);
            }
        };
        door.tallies.requests.fetch_add(1, Ordering::Relaxed);
        let mut manners = manners(&head);
        manners.keep_alive &= self.place.is_general();
        let exchange = self.exchange(door, bell, turn, manners);
        match self.read_body(door, &head) {
            Ok((body, held)) => {
                let request = Request {
                    head,
                    body,
                    received,
                    peer: self.peer,
                    held,
                };
                if !self.inbox.is_empty() {
                    exchange.ring_when_over();
                }
                let handled = match door.guarded(|| door.handler.handle(request, &exchange)) {
                    Some(()) => Handled::Returned,
                    None => Handled::Panicked,
                };
                conclude(door, &exchange, handled)
            }
            Err(stop) => self.decline(door, &exchange, Some(&head), stop),
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

    /// Answers what was not received. The connection survives only where it is plain where the next request
    /// begins.
    fn decline(
        &mut self,
        door: &Shared,
        exchange: &Exchange,
        head: Option<&Head>,
        stop: Stop,
    ) -> Next {
        let response = match stop {
            Stop::Gone => return Next::Close,
            Stop::Declined(response, framing) if self.skip(framing) => response,
            Stop::Declined(response, _) => response.with_header("Connection", "close"),
            Stop::Refused(refusal) => door
                .error(refusal.status(), &refusal.to_string(), head)
                .with_header("Connection", "close"),
            Stop::Panicked => return conclude(door, exchange, Handled::Panicked),
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
}

/// After the handler: makes sure that the exchange is over, and says what follows.
fn conclude(door: &Shared, exchange: &Exchange, handled: Handled) -> Next {
    if !exchange.progress().is_over() {
        end_for(door, exchange, handled);
    }
    match (exchange.progress(), handled) {
        (Progress::Finished, Handled::Returned) if exchange.stays() => Next::Request,
        (Progress::Finished, _) => Next::Linger,
        (Progress::Unsent | Progress::Streaming | Progress::Broken, _) => Next::Close,
    }
}

/// The last word for a handler that said none. Whoever is in the middle of a write then is cut off.
fn end_for(door: &Shared, exchange: &Exchange, handled: Handled) {
    if handled == Handled::Returned {
        log::error!("a handler returned before its answer was over");
    }
    let spoken = exchange.seize().is_some_and(|mut floor| {
        let response = door
            .error(500, "the request could not be handled", None)
            .with_header("Connection", "close");
        floor.reply(response).is_ok()
    });
    if !spoken {
        exchange.abort();
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
