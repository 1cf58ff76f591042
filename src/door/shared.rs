//! What all threads of a door share, and the two things that are counted as guards: connections and turns.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};
use slab::Slab;

use super::Handler;
use super::budget::Budget;
use super::crew::Crew;
use super::encode::{self, After, Framing};
use super::message::{Head, Response};
use super::parking::Parking;
use super::socket::Socket;
use crate::clock::{SharedClock, Time};
use crate::config::Server;

/// One door's common ground.
pub(super) struct Shared {
    pub(super) config: Server,
    pub(super) clock: SharedClock,
    pub(super) handler: Arc<dyn Handler>,
    /// Bytes of bodies.
    pub(super) budget: Arc<Budget>,
    /// The threads that serve connections.
    pub(super) crew: Crew,
    /// The connections that have none.
    pub(super) parking: Parking,
    /// Said once, by `quiesce`; it never goes back.
    quiet: AtomicBool,
    /// Requests that may be on their way, and those that have come and are not taken up yet: see [`Expected`].
    expected: AtomicUsize,
    /// Whether first requests are waited for, although it is quiet.
    waits_for_fresh: AtomicBool,
    places: Mutex<Places>,
    /// Turns under way. A turn begins with the first byte of a head and ends with the last of its answer.
    turns: AtomicUsize,
    /// For whoever waits for `turns` or `expected` to become zero; the counters themselves are not under it.
    last_turn: (Mutex<()>, Condvar),
    pub(super) tallies: Tallies,
}

/// What has happened since the door was opened.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    /// Connections accepted, refused ones too.
    pub(super) accepted: AtomicU64,
    /// Connections turned away: no place, or no thread.
    pub(super) refused: AtomicU64,
    /// Whole heads read.
    pub(super) requests: AtomicU64,
    /// Requests that the door itself answered with an error.
    pub(super) rejected: AtomicU64,
    /// `accept` failed.
    pub(super) accept_errors: AtomicU64,
    /// Handlers that panicked.
    pub(super) panics: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        config: Server,
        clock: SharedClock,
        handler: Arc<dyn Handler>,
        parking: Parking,
    ) -> Self {
        Shared {
            budget: Budget::new(config.max_body_total),
            config,
            clock,
            handler,
            crew: Crew::default(),
            parking,
            quiet: AtomicBool::new(false),
            expected: AtomicUsize::new(0),
            waits_for_fresh: AtomicBool::new(false),
            places: Mutex::default(),
            turns: AtomicUsize::new(0),
            last_turn: (Mutex::new(()), Condvar::new()),
            tallies: Tallies::default(),
        }
    }

    /// Whether connections are to close after their answers.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::SeqCst)
    }

    pub(super) fn set_quiet(&self) {
        self.quiet.store(true, Ordering::SeqCst);
    }

    /// Whether a connection that has not begun its first request is waited for, although it is quiet.
    pub(super) fn waits_for_fresh(&self) -> bool {
        self.waits_for_fresh.load(Ordering::SeqCst)
    }

    pub(super) fn set_waits_for_fresh(&self, waits: bool) {
        self.waits_for_fresh.store(waits, Ordering::SeqCst);
    }

    /// A place for a new connection, or `None` when even those for operation routes are taken.
    pub(super) fn admit(self: &Arc<Self>, socket: &Arc<Socket>) -> Option<Place> {
        let mut places = self.places.lock();
        let kind = match places.general < self.config.max_connections {
            true => PlaceKind::General,
            false => PlaceKind::Operation,
        };
        let bound = self.config.max_connections + self.config.operation_connections;
        if places.sockets.len() >= bound {
            return None;
        }
        places.general += usize::from(kind == PlaceKind::General);
        Some(Place {
            key: places.sockets.insert(socket.clone()),
            kind,
            door: self.clone(),
        })
    }

    /// Whether a new connection would have a general place.
    pub(super) fn has_general_place(&self) -> bool {
        self.places.lock().general < self.config.max_connections
    }

    /// Connections that have a place.
    pub(super) fn connections(&self) -> usize {
        self.places.lock().sockets.len()
    }

    /// Ends every connection, whatever it is at. The sockets are shut outside the lock.
    pub(super) fn shut_all(&self) {
        let sockets: Vec<_> = {
            let places = self.places.lock();
            places
                .sockets
                .iter()
                .map(|(_, socket)| socket.clone())
                .collect()
        };
        for socket in sockets {
            socket.shut();
        }
    }

    /// Counts a turn as under way until it is ended or dropped. It goes on to count as expected what `next` does.
    pub(super) fn begin_turn(self: &Arc<Self>, next: &NextRequest) -> Turn {
        self.turns.fetch_add(1, Ordering::SeqCst);
        Turn {
            door: self.clone(),
            over: AtomicBool::new(false),
            request: next.0.clone(),
            taken_up: AtomicBool::new(false),
        }
    }

    /// Turns under way.
    pub(super) fn turns(&self) -> usize {
        self.turns.load(Ordering::SeqCst)
    }

    /// Waits until no turn is under way, or until `limit`.
    ///
    /// Call it only when the door is quiet: only then is the last turn announced. The order (quiet is set, then
    /// the counter is read; the counter falls, then quiet is read) makes one side see the other, and the
    /// announcer takes the lock, so its word can't fall between the waiter's look and its wait.
    pub(super) fn await_turns(&self, limit: Time) {
        self.await_none(&self.turns, limit);
    }

    /// Waits until no request is [`Expected`], or until `limit`; as [`Shared::await_turns`].
    pub(super) fn await_expected(&self, limit: Time) {
        self.await_none(&self.expected, limit);
    }

    fn await_none(&self, count: &AtomicUsize, limit: Time) {
        let (lock, last) = &self.last_turn;
        let mut guard = lock.lock();
        while count.load(Ordering::SeqCst) > 0 {
            let now = self.clock.now();
            if now >= limit {
                return;
            }
            last.wait_for(&mut guard, limit.until(now));
        }
    }

    /// Takes one from a counter, and tells whoever waits for the last.
    fn count_down(&self, count: &AtomicUsize) {
        let last = count.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && self.is_quiet() {
            let (lock, word) = &self.last_turn;
            drop(lock.lock());
            word.notify_all();
        }
    }

    /// The body of an error that the door decides, shaped by the handler; plain where the handler panics.
    pub(super) fn error(&self, status: u16, message: &str, head: Option<&Head>) -> Response {
        self.tallies.rejected.fetch_add(1, Ordering::Relaxed);
        self.guarded(|| self.handler.framing_error(status, message, head))
            .unwrap_or_else(|| Response::new(status).with_body("text/plain", message))
    }

    /// A whole answer as bytes, for a client that is told off without an exchange. It ends the connection.
    pub(super) fn plain_error(&self, status: u16, message: &str) -> Vec<u8> {
        let response = self.error(status, message, None);
        let framing = Framing::Length(response.body.len());
        let mut bytes = encode::head(
            response.status,
            &response.headers,
            framing,
            After::Close,
            self.clock.wall(),
        );
        bytes.extend_from_slice(&response.body);
        bytes
    }

    /// Runs code of the handler; `None` when it panicked. The handler is behind a shared reference, and its
    /// locks don't poison: keeping what lies under them whole is its own duty.
    pub(super) fn guarded<T>(&self, call: impl FnOnce() -> T) -> Option<T> {
        let result = catch_unwind(AssertUnwindSafe(call));
        if result.is_err() {
            self.tallies.panics.fetch_add(1, Ordering::Relaxed);
            log::error!("a handler panicked; its connection is closed");
        }
        result.ok()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("quiet", &self.is_quiet())
            .field("connections", &self.connections())
            .field("turns", &self.turns())
            .finish_non_exhaustive()
    }
}

/// The connections that are open, and how many of them have a general place.
#[derive(Debug, Default)]
struct Places {
    sockets: Slab<Arc<Socket>>,
    general: usize,
}

/// Which requests a connection may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PlaceKind {
    General,
    /// Operation routes only, until a general place is free.
    Operation,
}

/// A connection's place. Dropping it makes room for another.
#[derive(Debug)]
pub(super) struct Place {
    key: usize,
    kind: PlaceKind,
    door: Arc<Shared>,
}

impl Place {
    /// Whether any route may be asked for; takes a general place if one became free.
    pub(super) fn is_general(&mut self) -> bool {
        if self.kind == PlaceKind::Operation {
            let mut places = self.door.places.lock();
            if places.general < self.door.config.max_connections {
                places.general += 1;
                self.kind = PlaceKind::General;
            }
        }
        self.kind == PlaceKind::General
    }

    /// Its connection's first request, which is expected.
    pub(super) fn first_request(&self) -> NextRequest {
        let first = Expected {
            door: self.door.clone(),
            is_counted: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
        };
        first.expect();
        NextRequest(Arc::new(first))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.door.places.lock();
        places.general -= usize::from(self.kind == PlaceKind::General);
        // The socket may close here, under the lock: closing a socket without linger never waits.
        places.sockets.remove(self.key);
    }
}

/// A connection's next request: it is expected from the moment in which the client may send it, until the handler has taken
/// it up ([`Turn::taken_up`]), or until it is plain that it is not on its way (the connection is parked after other
/// requests, or gone). Whoever hands the sockets over to a successor lets it in first.
///
/// The connection's thread and whoever ends an answer may change it at once. So it is counted before it is marked, and
/// taken off after: the counter never falls below what is marked.
#[derive(Debug)]
pub(super) struct Expected {
    door: Arc<Shared>,
    is_counted: AtomicBool,
    /// The connection is gone, and nobody will take off what is counted later.
    is_gone: AtomicBool,
}

impl Expected {
    /// It may be on its way.
    fn expect(&self) {
        self.door.expected.fetch_add(1, Ordering::SeqCst);
        if self.is_counted.swap(true, Ordering::SeqCst) {
            self.door.count_down(&self.door.expected);
        }
        // Whoever ended the answer may come late: either this look sees that the connection went, or its end sees the mark.
        if self.is_gone.load(Ordering::SeqCst) {
            self.settle();
        }
    }

    /// Nobody waits for it.
    fn settle(&self) {
        if self.is_counted.swap(false, Ordering::SeqCst) {
            self.door.count_down(&self.door.expected);
        }
    }
}

/// The connection's own hold on what is [`Expected`] of it.
#[derive(Debug)]
pub(super) struct NextRequest(Arc<Expected>);

impl NextRequest {
    /// It is not on its way.
    pub(super) fn settle(&self) {
        self.0.settle();
    }
}

impl Drop for NextRequest {
    fn drop(&mut self) {
        self.0.is_gone.store(true, Ordering::SeqCst);
        self.0.settle();
    }
}

/// A turn under way: see [`Shared::begin_turn`].
#[derive(Debug)]
pub(super) struct Turn {
    door: Arc<Shared>,
    over: AtomicBool,
    /// The request that it is about; once it is over, the one after it.
    request: Arc<Expected>,
    /// Whether that is no longer [`Expected`] on behalf of this turn.
    taken_up: AtomicBool,
}

impl Turn {
    /// The handler has taken the request up: it waits for its answer, or has given one.
    pub(super) fn taken_up(&self) {
        if !self.taken_up.swap(true, Ordering::AcqRel) {
            self.request.settle();
        }
    }

    /// Ends the turn; the second time nothing happens. Where the client was told that its connection `stays`, its next
    /// request is expected from here on.
    pub(super) fn end(&self, stays: bool) {
        if self.over.swap(true, Ordering::AcqRel) {
            return;
        }
        self.taken_up();
        if stays {
            self.request.expect();
        }
        self.door.count_down(&self.door.turns);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.end(false);
    }
}
