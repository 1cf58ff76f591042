//! An HTTP/1.1 server for blocking handlers, and nothing else: it knows no route, no engine, no JSON.
//!
//! ```text
//!                         +-> crew: a thread per active connection -- reads, calls the handler, waits in it
//!   acceptor --(place)----+      |          ^
//!     |                          | idle     | first byte
//!     | no place                 v          |
//!     +----> 503 --> parking: one poller for all that wait or linger
//! ```
//!
//! * [`Door`] owns the sockets and all threads: `pointsman-door-accept` (one for each listening socket), `-poll`, and `-0`,
//!   `-1`, ... for the crew.
//! * [`Handler`] is asked about a head before the body is read, and then answers whole requests.
//! * [`Exchange`] is the client's side of one request; any thread may answer through it.
//!
//! What holds here:
//!
//! 1. Everything from outside has a bound: connections, heads, headers, bodies one by one and all together, the
//!    time for each, and the time a client may take to read. Each is a knob of [`config::Server`].
//!    Beyond the bound on connections the one that has been idle for the longest is closed for the next one; where none
//!    is idle, a few more are served operation routes, if they say quickly what they want, one request each.
//! 2. A connection that waits for its next request costs no thread, and a client that does not read or not
//!    write harms its own exchange only.
//! 3. A request that can be read in two ways is refused and its connection closed.
//! 4. An answer that was not finished never looks finished.
//! 5. A handler may stay after its client has left; when the door closes it is told to come back ([`Handler::let_go`]).
//! 6. No error of a client, of `accept` or of a handler ends a thread of the door.
//!
//! On a kept-alive connection a small request costs one `recv`, one parse and one `sendmsg`, and no hand-off
//! between threads but those that the handler makes.
//!
//! The door decides only the statuses of framing (400, 408, 413, 417, 431, 503, 505), and 500 for a handler
//! that panics or returns without an answer; [`Handler::framing_error`] gives them their body.
//!
//! Known limits: no TLS, no HTTP/2, no `Upgrade`, no trailers for handlers; a body that drips within
//! `body_timeout` may take for ever, at the price of one connection.

mod bell;
mod body;
mod budget;
mod connection;
mod crew;
mod encode;
mod floor;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod head;
mod inbox;
mod listener;
mod message;
mod parking;
mod receive;
mod reply;
mod shared;
mod socket;
#[cfg(test)]
mod tests;

pub use budget::Held;
pub use floor::Floor;
pub use listener::Inherited;
pub use message::{Head, Headers, Request, Response};
pub use reply::{Exchange, Progress, Wake};
pub use tiny_http::{HTTPVersion, Header, Method, StatusCode};

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use self::bell::Bell;
use self::listener::{Listener, Source};
use self::parking::Parking;
use self::shared::Shared;
use crate::clock::SharedClock;
use crate::config;

/// File handles that the rest of the process needs: logs, upstream connections, the store.
const OTHER_HANDLES: usize = 64;

/// How long [`Door::stop`] waits for threads after all sockets were shut.
const JOIN_MARGIN: Duration = Duration::from_secs(1);

/// Answers requests. One handler serves all connections of a door, on many threads at once.
///
/// A panic in any of these costs the one connection, not the thread.
pub trait Handler: fmt::Debug + Send + Sync {
    /// Whether a request with this head may send its body: the place for 404, 405 and the like, which then cost
    /// no body. Must not block.
    ///
    /// # Errors
    /// The answer to send instead. The connection is kept only if the body is at hand already.
    fn admit(&self, head: &Head) -> Result<(), Response> {
        let _ = head;
        Ok(())
    }

    /// Whether the request is served even when more than `max_connections` are open. Must not block.
    fn is_operation(&self, head: &Head) -> bool {
        let _ = head;
        false
    }

    /// Answers the request, on the connection's own thread, which it may keep: it waits with [`Exchange::wait`]
    /// while another thread answers. When it returns the exchange is over: without an answer the client gets a
    /// 500, with half an answer a broken stream.
    fn handle(&self, request: Request, exchange: &Exchange);

    /// No further request is taken ([`Door::quiesce`]): an answer that has no end of its own comes to one now. Must not block.
    fn quiet(&self) {}

    /// Every connection is about to be shut: a handler that stays after its client has left, for whatever it still has to
    /// do, comes back now. Must not block.
    fn let_go(&self) {}

    /// Shapes an error that the door decided; see the module's story for the statuses. `head` is the request's where it
    /// was read. Must not block.
    fn framing_error(&self, status: u16, message: &str, head: Option<&Head>) -> Response {
        let _ = head;
        Response::new(status).with_body("text/plain", format!("{message}\n"))
    }
}

/// An open door: a listening socket and all threads behind it. Dropping it is [`Door::stop`] without grace.
///
/// ```
/// # use std::io::{Read, Write};
/// # use std::sync::Arc;
/// # use pointsman::clock::SystemClock;
/// # use pointsman::config::{Listen, Server};
/// use pointsman::door::{Door, Exchange, Handler, Request, Response};
///
/// #[derive(Debug)]
/// struct Hello;
/// impl Handler for Hello {
///     fn handle(&self, request: Request, exchange: &Exchange) {
///         let text = format!("hello from {}", request.head.path);
///         let _ = exchange.reply(Response::new(200).with_body("text/plain", text));
///     }
/// }
///
/// # fn config() -> Server {
/// #     let second = std::time::Duration::from_secs(1);
/// #     Server {
/// #         listen: Listen::Tcp("127.0.0.1:0".into()), max_connections: 8, operation_connections: 2,
/// #         max_head: 16384, max_headers: 100, max_body: 65536, max_body_total: 65536, json_depth: 8,
/// #         head_timeout: second, body_timeout: second, idle_timeout: second, park_after: second,
/// #         write_timeout: second, stream_keepalive: second, resend_grace: second, drain: second, hand_over: second,
/// #     }
/// # }
/// let door = Door::open(&config(), SystemClock::shared(), Arc::new(Hello))?;
/// let mut client = std::net::TcpStream::connect(door.address())?;
/// client.write_all(b"GET /you HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")?;
/// let mut answer = String::new();
/// client.read_to_string(&mut answer)?;
/// assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello from /you"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Door {
    shared: Arc<Shared>,
    addresses: Vec<String>,
    /// Rings when accepting is to end. Nobody clears it, so every acceptor hears it.
    stop: Arc<Bell>,
    acceptors: Vec<JoinHandle<()>>,
    poller: Option<JoinHandle<()>>,
}

/// A door's state at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DoorSnapshot {
    /// Connections that have a place; all below but `refused` are among them.
    pub connections: usize,
    /// Requests being read, handled or answered.
    pub active: usize,
    /// Connections that wait for a request without a thread.
    pub parked: usize,
    /// Connections that got their last answer and are about to close.
    pub lingering: usize,
    /// Threads for connections, the idle ones too.
    pub threads: usize,
    /// Threads without a connection; each leaves after a few seconds of that.
    pub idle_threads: usize,
    /// Bytes of bodies being read or held.
    pub held_bytes: usize,
    /// Connections accepted since the start, refused ones too.
    pub accepted: u64,
    /// Connections turned away for want of a place, a thread or a file handle.
    pub refused: u64,
    /// Requests whose whole head was read.
    pub requests: u64,
    /// Requests that the door itself answered with an error.
    pub rejected: u64,
    /// Failures of `accept`.
    pub accept_errors: u64,
    /// Handlers that panicked.
    pub panics: u64,
}

impl Door {
    /// Listens and serves. The bound on connections is lowered where the process may not open so many files.
    ///
    /// # Errors
    /// When the address can't be listened on, or the first threads or file handles can't be had.
    pub fn open(
        config: &config::Server,
        clock: SharedClock,
        handler: Arc<dyn Handler>,
    ) -> io::Result<Door> {
        let listener = Listener::bind(&config.listen)?;
        let address = listener.address()?;
        Door::serve(config, clock, handler, vec![(address, listener)])
    }

    /// Serves on sockets that somebody else made; `server.listen` does not count. Each gets a thread that accepts. Whoever
    /// wants them to outlive this door, and what clients have sent to them by then, keeps duplicates of them, as a service
    /// manager does.
    ///
    /// # Errors
    /// When one does not listen, when there is none, or as [`Door::open`].
    pub fn open_on(
        config: &config::Server,
        clock: SharedClock,
        handler: Arc<dyn Handler>,
        sockets: Vec<Inherited>,
    ) -> io::Result<Door> {
        if sockets.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no socket was handed over",
            ));
        }
        let listeners = sockets.into_iter().map(|socket| {
            let listener = Listener::inherit(socket)?;
            Ok((listener.address()?, listener))
        });
        let listeners = listeners.collect::<io::Result<_>>()?;
        Door::serve(config, clock, handler, listeners)
    }

    fn serve(
        config: &config::Server,
        clock: SharedClock,
        handler: Arc<dyn Handler>,
        sources: Vec<(String, impl Source + 'static)>,
    ) -> io::Result<Door> {
        let config = fit_handles(config.clone());
        let shared = Arc::new(Shared::new(config, clock, handler, Parking::new()?));
        let mut door = Door {
            shared,
            addresses: Vec::new(),
            stop: Arc::new(Bell::new()?),
            acceptors: Vec::new(),
            poller: None,
        };
        let shared = door.shared.clone();
        door.poller = Some(spawn("pointsman-door-poll", move || {
            shared.parking.poll(&shared)
        })?);
        for (address, source) in sources {
            let (shared, stop) = (door.shared.clone(), door.stop.clone());
            let accept = move || listener::accept_all(&shared, source, &stop);
            let acceptor = spawn("pointsman-door-accept", accept)?;
            door.acceptors.push(acceptor);
            door.addresses.push(address);
        }
        Ok(door)
    }

    /// `host:port` with the port that is really used, or `unix:PATH`; of several sockets the first.
    pub fn address(&self) -> String {
        self.addresses.first().cloned().unwrap_or_default()
    }

    /// Where it listens: as [`Door::address`], of every socket.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Takes no further request on the connections that are there: parked ones close at once, idle ones within
    /// `park_after`, the others after their answers, which say `Connection: close`. Accepting goes on, so that
    /// the handler can tell newcomers what is going on.
    pub fn quiesce(&self) {
        self.shared.set_quiet();
        self.shared.guarded(|| self.shared.handler.quiet());
        self.shared.parking.look();
    }

    /// As [`Door::quiesce`], for a door on sockets that a successor goes on with: stops accepting, so that whoever comes
    /// from now on waits in the socket's backlog for the successor; and waits, at most `grace`, for the requests that may be
    /// on their way: the first one of each who was let in before, and the next one of each whose last answer is not older than
    /// `park_after`. Waits until each was answered, or its handler waits for
    /// the answer ([`Exchange::wait`]). They are handled as ever, and their answers say `Connection: close`. Not to be called from a handler.
    pub fn hand_over(&mut self, grace: Duration) {
        let shared = self.shared.clone();
        shared.set_waits_for_fresh(true);
        self.stop_accepting();
        self.quiesce();
        shared.await_expected(shared.clock.now() + grace);
        shared.set_waits_for_fresh(false);
        shared.parking.look();
    }

    fn stop_accepting(&mut self) {
        self.stop.ring();
        self.acceptors.drain(..).for_each(join);
    }

    /// Stops accepting, waits at most `grace` for the requests under way, shuts all sockets and joins all
    /// threads. Returns how many threads did not end in spite of that, because a handler does not return; they
    /// are abandoned. Not to be called from a handler, which would wait for itself.
    pub fn stop(mut self, grace: Duration) -> usize {
        self.shut(grace)
    }

    fn shut(&mut self, grace: Duration) -> usize {
        if self.poller.is_none() {
            // Stopped before, or never begun.
            return 0;
        }
        let shared = self.shared.clone();
        self.stop_accepting();
        self.quiesce();
        shared.await_turns(shared.clock.now() + grace);
        shared.guarded(|| shared.handler.let_go());
        // Whoever comes out of parking from here on finds the crew closed.
        shared.crew.close();
        shared.parking.close();
        self.poller.take().into_iter().for_each(join);
        shared.shut_all();
        let abandoned = shared.crew.join(&shared, shared.clock.now() + JOIN_MARGIN);
        if abandoned > 0 {
            log::error!("{abandoned} handlers did not return; their threads are abandoned");
        }
        abandoned
    }

    /// How things are.
    pub fn snapshot(&self) -> DoorSnapshot {
        let shared = &self.shared;
        let tallies = &shared.tallies;
        let (threads, idle_threads) = shared.crew.threads();
        DoorSnapshot {
            connections: shared.connections(),
            active: shared.turns(),
            parked: shared.parking.parked(),
            lingering: shared.parking.lingering(),
            threads,
            idle_threads,
            held_bytes: shared.budget.used(),
            accepted: tallies.accepted.load(Ordering::Relaxed),
            refused: tallies.refused.load(Ordering::Relaxed),
            requests: tallies.requests.load(Ordering::Relaxed),
            rejected: tallies.rejected.load(Ordering::Relaxed),
            accept_errors: tallies.accept_errors.load(Ordering::Relaxed),
            panics: tallies.panics.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shut(Duration::ZERO);
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.into()).spawn(work)
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        log::error!("a thread of the door panicked");
    }
}

/// Lowers the bound on connections to what the limit on open files allows.
fn fit_handles(mut config: config::Server) -> config::Server {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let room = room(limit.unwrap_or(u64::MAX), config.operation_connections);
    if config.max_connections > room {
        let wanted = config.max_connections;
        log::warn!("the limit on open files allows {room} connections, not {wanted}");
        config.max_connections = room;
    }
    config
}

/// Connections that so many file handles allow beside those reserved for operation routes. An active one takes
/// two: its socket, and its thread's bell. Those that are turned away take one each for as long as they read why.
fn room(handles: u64, reserved: usize) -> usize {
    let handles = usize::try_from(handles).unwrap_or(usize::MAX);
    let all = handles.saturating_sub(OTHER_HANDLES + parking::HOMELESS) / 2;
    all.saturating_sub(reserved).max(1)
}
