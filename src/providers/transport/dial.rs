//! Connecting: one address after the other, each a non-blocking `connect` that a cancel hook can end.
//!
//! The socket is held (see `grip.rs`) after `connect(2)` began and before we wait for it. A hook that came
//! earlier is seen at `hold`; one that comes later shuts the connecting socket, which ends the poll at once.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with};

use super::error::TransportError;
use super::exchange::Exchange;

/// Connects to the first of `addresses` that lets us. Each but the last may take an even share of the time that is left.
/// The socket is non-blocking, without Nagle's delay, and held by the exchange's grip.
///
/// # Errors
/// [`TransportError::Connect`] with the last address's reason, `Deadline` or `Cancelled`.
pub(super) fn dial(
    addresses: &[SocketAddr],
    exchange: &Exchange,
) -> Result<Arc<TcpStream>, TransportError> {
    let mut failure = TransportError::connect("the name has no address");
    for (index, address) in addresses.iter().enumerate() {
        exchange.admit()?;
        let left = u32::try_from(addresses.len() - index).expect("few addresses");
        let now = exchange.now();
        let until = now + exchange.until().until(now) / left;
        match dial_one(*address, exchange, until)? {
            Ok(socket) => return Ok(socket),
            Err(reason) => failure = TransportError::connect(format!("{address}: {reason}")),
        }
        exchange.grip().let_go();
    }
    // When the time is up, that is the reason, and whose time it was.
    exchange.admit()?;
    Err(failure)
}

/// The outer error ends the call, the inner one only this address.
fn dial_one(
    address: SocketAddr,
    exchange: &Exchange,
    until: crate::clock::Time,
) -> Result<std::io::Result<Arc<TcpStream>>, TransportError> {
    let socket = match begin(address) {
        Ok(socket) => Arc::new(socket),
        Err(error) => return Ok(Err(error)),
    };
    exchange.hold(&socket)?;
    if !exchange.wait_until(&socket, PollFlags::OUT, until)? {
        return Ok(Err(std::io::ErrorKind::TimedOut.into()));
    }
    Ok(conclude(&socket).map(|()| socket))
}

fn begin(address: SocketAddr) -> std::io::Result<TcpStream> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

fn conclude(socket: &TcpStream) -> std::io::Result<()> {
    match socket.take_error()? {
        Some(error) => Err(error),
        None => socket.set_nodelay(true),
    }
}
