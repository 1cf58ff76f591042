//! The two ends of the HTTP client's chain of transports: our socket at the bottom, our ear at the top.
//!
//! ```text
//!  HTTP client -> Ear -> TLS (for https) -> Socket -> TCP
//! ```
//!
//! *Socket* is where every wait happens: it knows the exchange's bounds and its grip. *Ear* is above TLS, because only
//! there bytes are the answer's and not a handshake's or a session ticket's; it moves the exchange from phase to phase.
//!
//! Connections outlive exchanges, and the client hands its transports no word of the call they serve. So both
//! ends share a [`Slot`] that says which exchange is under way. It is unambiguous because each slot has a client
//! of its own, which keeps one connection at most (see `pool.rs`): one connection, one exchange at a time.
//!
//! What the client sends is held back until it wants to read, or until it is [`HELD_BYTES`]: it sends head and body
//! apart, and together they are one packet and wake the peer once.
//!
//! The client asks `is_open` twice in a connection's round: when it gives the connection back, and when it takes it up again.
//! Giving back, the socket is held; then the exchange is ended first, which takes the socket from under the
//! cancel hook, and a connection that the hook has cut is refused. Taking up, the next exchange holds nothing yet.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::event::PollFlags;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, RustlsConnector, Transport,
};

use crate::clock::Time;

use super::dial::dial;
use super::error::TransportError;
use super::exchange::Exchange;
use super::names::Names;

/// How much of a request is held back at most.
const HELD_BYTES: usize = 16 * 1024;

/// What a connection and the exchange that uses it share.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<Seat>);

#[derive(Debug, Default)]
struct Seat {
    exchange: Option<Arc<Exchange>>,
    /// When the connection that waits for its next exchange was made.
    kept: Option<Time>,
    /// When the connection in use was made.
    opened: Option<Time>,
}

impl Slot {
    /// `exchange` uses the connection from now on.
    pub(super) fn begin(&self, exchange: &Arc<Exchange>) {
        let mut seat = self.0.lock();
        seat.exchange = Some(Arc::clone(exchange));
    }

    /// When the connection was made, if it waits for its next exchange.
    pub(super) fn kept(&self) -> Option<Time> {
        self.0.lock().kept
    }

    fn exchange(&self) -> Result<Arc<Exchange>, TransportError> {
        let exchange = self.0.lock().exchange.clone();
        exchange.ok_or_else(|| TransportError::connect("the connection is not in use"))
    }

    fn opened(&self, at: Time) {
        let mut seat = self.0.lock();
        seat.opened = Some(at);
        seat.kept = None;
    }

    /// Ends the exchange; whether its connection may serve another.
    fn end(&self) -> bool {
        let exchange = self.0.lock().exchange.take();
        exchange.is_some_and(|exchange| exchange.grip().end())
    }

    fn keep(&self) {
        let mut seat = self.0.lock();
        seat.kept = seat.opened;
    }
}

/// Makes [`Socket`]s.
#[derive(Debug)]
pub(super) struct SocketConnector {
    /// Whose exchange it is.
    pub(super) slot: Arc<Slot>,
    /// Where to connect to.
    pub(super) names: Names,
}

impl Connector for SocketConnector {
    type Out = Socket;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _chained: Option<()>,
    ) -> Result<Option<Socket>, ureq::Error> {
        let exchange = self.slot.exchange()?;
        let addresses = self.names.addresses(&exchange)?;
        let stream = dial(&addresses, &exchange)?;
        self.slot.opened(exchange.now());
        Ok(Some(Socket {
            stream,
            buffers: LazyBuffers::new(
                details.config.input_buffer_size(),
                details.config.output_buffer_size(),
            ),
            held: Vec::new(),
            slot: Arc::clone(&self.slot),
        }))
    }
}

/// A non-blocking TCP connection; every wait is the exchange's.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    buffers: LazyBuffers,
    /// What is to be sent before the next read.
    held: Vec<u8>,
    slot: Arc<Slot>,
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let exchange = self.slot.exchange()?;
        // Taken up from the pool: nothing of this exchange has blocked on the socket before.
        if !exchange.grip().is_held() {
            exchange.hold(&self.stream)?;
        }
        self.held
            .extend_from_slice(&self.buffers.output()[..amount]);
        if self.held.len() >= HELD_BYTES {
            self.flush(&exchange)?;
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let exchange = self.slot.exchange()?;
        if !self.held.is_empty() {
            self.flush(&exchange)?;
            // The answer to what went out a moment ago is not there yet: to try and read it would be a call for nothing.
            exchange.admit()?;
            exchange.wait(&self.stream, PollFlags::IN)?;
        }
        let room = self.buffers.input_append_buf();
        if room.is_empty() {
            return Err(
                TransportError::Malformed("a head or chunk line without end".into()).into(),
            );
        }
        let read = attempt(&exchange, &self.stream, PollFlags::IN, |mut stream| {
            stream.read(room)
        })?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        let gives_back = self
            .slot
            .exchange()
            .is_ok_and(|exchange| exchange.stood().is_some());
        if !gives_back {
            return is_silent(&self.stream);
        }
        // Whether it is still alive is asked when it is taken up.
        let reusable = self.slot.end() && self.held.is_empty();
        if reusable {
            self.slot.keep();
        }
        reusable
    }
}

impl Socket {
    /// Sends what was held back.
    fn flush(&mut self, exchange: &Exchange) -> Result<(), TransportError> {
        let mut rest = self.held.as_slice();
        while !rest.is_empty() {
            let sent = attempt(exchange, &self.stream, PollFlags::OUT, |mut stream| {
                stream.write(rest)
            })?;
            rest = &rest[sent..];
        }
        self.held.clear();
        Ok(())
    }
}

impl Drop for Socket {
    /// Closes the connection at once: the grip lets go of its share.
    fn drop(&mut self) {
        let exchange = {
            let mut seat = self.slot.0.lock();
            seat.kept = None;
            seat.exchange.clone()
        };
        if let Some(exchange) = exchange {
            exchange.grip().let_go();
        }
    }
}

/// One read or write, as soon as it can be done.
fn attempt(
    exchange: &Exchange,
    stream: &TcpStream,
    events: PollFlags,
    mut operation: impl FnMut(&TcpStream) -> io::Result<usize>,
) -> Result<usize, TransportError> {
    loop {
        exchange.admit()?;
        match operation(stream) {
            // A socket that the hook shut reads as a clean end, so the token is asked before it is believed.
            Ok(amount) => return exchange.check().map(|()| amount),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                exchange.wait(stream, events)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                exchange.check()?;
                return Err(exchange.closed(error));
            }
        }
    }
}

/// Whether an idle connection is alive: neither closed by the peer nor full of bytes that nobody asked for.
fn is_silent(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// The TLS connector, shared by all clients of a provider, so that they resume each other's sessions.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedTls(Arc<RustlsConnector>);

impl<In: Transport> Connector<In> for SharedTls {
    type Out = <RustlsConnector as Connector<In>>::Out;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        self.0.connect(details, chained)
    }
}

/// Puts an [`Ear`] on top of a connection.
#[derive(Debug)]
pub(super) struct EarConnector {
    /// Whose exchange it is.
    pub(super) slot: Arc<Slot>,
}

impl<In: Transport> Connector<In> for EarConnector {
    type Out = Ear<In>;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Ear<In>>, ureq::Error> {
        self.slot.exchange()?.stands(false);
        Ok(chained.map(|below| Ear {
            below,
            slot: Arc::clone(&self.slot),
        }))
    }
}

/// Hears when the connection is taken up again, and when the answer begins.
#[derive(Debug)]
pub(super) struct Ear<T> {
    below: T,
    slot: Arc<Slot>,
}

impl<T: Transport> Transport for Ear<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.below.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        // No effect on a new connection: it stands since it was made.
        self.slot.exchange()?.stands(true);
        self.below.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let came = self.below.await_input(timeout)?;
        if came {
            self.slot.exchange()?.received();
        }
        Ok(came)
    }

    fn is_open(&mut self) -> bool {
        self.below.is_open()
    }

    fn is_tls(&self) -> bool {
        self.below.is_tls()
    }
}
