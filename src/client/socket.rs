//! The connection under the HTTP client: TCP or a Unix socket, under the client's token.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use super::error::{ClientError, left};
use crate::cancel::{CancelToken, Hook};

/// Where to connect to.
#[derive(Debug)]
pub(super) enum Target {
    Tcp(String, Vec<SocketAddr>),
    Unix(PathBuf),
}

impl Target {
    /// The target of an address, and what a request's URL begins with.
    pub(super) fn of_url(url: &str) -> Result<(Target, String), ClientError> {
        if let Some(path) = url.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok((Target::Unix(path.into()), "http://localhost".into()));
        }
        let base = url.trim_end_matches('/');
        let wrong = || ClientError::Url(url.into());
        let uri: Uri = base.parse().map_err(|_| wrong())?;
        let default_port = match uri.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            Some(_) | None => return Err(wrong()),
        };
        let host = uri.host().ok_or_else(wrong)?;
        let name = format!("{host}:{}", uri.port_u16().unwrap_or(default_port));
        let addresses = name.to_socket_addrs();
        let addresses = addresses.map_err(|error| ClientError::connect(&name, error))?;
        Ok((Target::Tcp(name, addresses.collect()), base.into()))
    }

    fn connect(&self, timeout: Duration) -> Result<Stream, ClientError> {
        match self {
            Target::Tcp(name, addresses) => connect_tcp(addresses, timeout)
                .map(Stream::Tcp)
                .map_err(|error| ClientError::connect(name, error)),
            Target::Unix(path) => connect_unix(path, timeout)
                .map(Stream::Unix)
                .map_err(|error| ClientError::connect(path.display(), error)),
        }
    }
}

/// Tries one address after the other, each for an even share of the time.
fn connect_tcp(addresses: &[SocketAddr], timeout: Duration) -> io::Result<TcpStream> {
    let share = timeout / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut failure = io::Error::other("the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(address, left(share)) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// A Unix socket's connect waits while the server's backlog is full, for as long as a send may wait.
fn connect_unix(path: &PathBuf, timeout: Duration) -> io::Result<UnixStream> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    set_socket_timeout(&socket, Timeout::Send, Some(left(timeout)))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn read(&self, room: &mut [u8], timeout: Duration) -> io::Result<usize> {
        let timeout = Some(left(timeout));
        match self {
            Stream::Tcp(stream) => {
                stream.set_read_timeout(timeout)?;
                (&mut &*stream).read(room)
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(timeout)?;
                (&mut &*stream).read(room)
            }
        }
    }

    fn write(&self, bytes: &[u8], timeout: Duration) -> io::Result<usize> {
        let timeout = Some(left(timeout));
        match self {
            Stream::Tcp(stream) => {
                stream.set_write_timeout(timeout)?;
                (&mut &*stream).write(bytes)
            }
            Stream::Unix(stream) => {
                stream.set_write_timeout(timeout)?;
                (&mut &*stream).write(bytes)
            }
        }
    }

    /// An error means that the connection is over already.
    fn shut(&self) {
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    /// Whether an idle connection is alive: neither closed by the peer nor full of bytes that nobody asked for.
    fn is_silent(&self) -> bool {
        use rustix::net::{RecvFlags, recv};
        let look = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let seen = match self {
            Stream::Tcp(stream) => recv(stream, &mut [0u8; 1][..], look),
            Stream::Unix(stream) => recv(stream, &mut [0u8; 1][..], look),
        };
        matches!(seen, Err(rustix::io::Errno::AGAIN))
    }
}

/// Makes [`Socket`]s.
#[derive(Debug)]
pub(super) struct SocketConnector {
    pub(super) target: Target,
    pub(super) cancel: CancelToken,
}

impl Connector for SocketConnector {
    type Out = Socket;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _chained: Option<()>,
    ) -> Result<Option<Socket>, ureq::Error> {
        let stream = self.target.connect(*details.timeout.after);
        let stream = Arc::new(stream.map_err(io::Error::other)?);
        let shut = Arc::clone(&stream);
        Ok(Some(Socket {
            _hook: self.cancel.on_cancel(move |_| shut.shut()),
            stream,
            buffers: LazyBuffers::new(
                details.config.input_buffer_size(),
                details.config.output_buffer_size(),
            ),
        }))
    }
}

/// A blocking connection whose waits are bounded by what the HTTP client says.
#[derive(Debug)]
pub(super) struct Socket {
    /// Goes first: the hook holds the connection open.
    _hook: Hook,
    stream: Arc<Stream>,
    buffers: LazyBuffers,
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let mut rest = &self.buffers.output()[..amount];
        while !rest.is_empty() {
            let sent = attempt(timeout, |after| self.stream.write(rest, after))?;
            rest = &rest[sent..];
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let room = self.buffers.input_append_buf();
        let read = attempt(timeout, |after| self.stream.read(room, after))?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.is_silent()
    }
}

/// One read or write within the time that is left.
fn attempt(
    timeout: NextTimeout,
    mut operation: impl FnMut(Duration) -> io::Result<usize>,
) -> Result<usize, ureq::Error> {
    loop {
        match operation(*timeout.after) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(ureq::Error::Timeout(timeout.reason));
            }
            result => return Ok(result?),
        }
    }
}

/// Addresses are known before; the HTTP client would look them up for every request.
#[derive(Debug)]
pub(super) struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(
        &self,
        _: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}
