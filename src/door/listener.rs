//! Where clients come in: the listening socket and the thread that accepts.
//!
//! *Nothing ends the acceptor but the word to stop.* A client that gave up before it was accepted is the next
//! one's turn; when the process has no file handle left, the one kept in reserve is spent to accept the client,
//! tell it 503 and close; after any other error the thread waits a little. So a flood can make the door deny,
//! and never deaf.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, sockopt};

use super::bell::Bell;
use super::connection::{self, Connection};
use super::shared::Shared;
use super::socket::{Socket, poll_for};
use crate::clock::Time;
use crate::config::Listen;

/// Connections that the kernel may keep for us; it is cut to the machine's own bound.
const BACKLOG: i32 = 1024;

/// The pause after an error that may last.
const PAUSE: Duration = Duration::from_millis(50);

/// How often the want of file handles is said while it lasts.
const COMPLAINTS: Duration = Duration::from_secs(1);

/// Where clients come from. The door accepts from a [`Listener`]; a test from a script.
pub(super) trait Source: Send {
    /// What to poll for the next client.
    fn fd(&self) -> BorrowedFd<'_>;

    /// The next client; `WouldBlock` if there is none.
    fn accept(&mut self) -> io::Result<(OwnedFd, Option<SocketAddr>)>;
}

/// A listening socket that somebody else made and that whoever comes after may go on with: a service manager's.
///
/// ```
/// use pointsman::door::Inherited;
///
/// let socket = Inherited::from(std::net::TcpListener::bind("127.0.0.1:0")?);
/// assert!(socket.listen()?.is_loopback());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub enum Inherited {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A Unix socket. Its file is left alone.
    Unix(UnixListener),
}

impl Inherited {
    /// Where it listens, in the words of `server.listen`. An abstract name stands behind an `@`.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen(&self) -> io::Result<Listen> {
        Ok(match self {
            Inherited::Tcp(listener) => Listen::Tcp(listener.local_addr()?.to_string()),
            Inherited::Unix(listener) => Listen::Unix(path_of(&listener.local_addr()?)),
        })
    }
}

impl From<TcpListener> for Inherited {
    fn from(listener: TcpListener) -> Self {
        Inherited::Tcp(listener)
    }
}

impl From<UnixListener> for Inherited {
    fn from(listener: UnixListener) -> Self {
        Inherited::Unix(listener)
    }
}

fn path_of(address: &UnixAddr) -> PathBuf {
    let abstract_name = || {
        let name = address.as_abstract_name().unwrap_or_default();
        format!("@{}", String::from_utf8_lossy(name)).into()
    };
    address
        .as_pathname()
        .map_or_else(abstract_name, Path::to_owned)
}

/// A listening socket.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Where it is ours, it goes with the listener.
        _file: Option<SocketFile>,
    },
}

/// A Unix socket's file. It goes with the listener, unless somebody else's has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Listener {
    /// # Errors
    /// When the address is not ours to listen on: in use, not local, not permitted, or the path is something
    /// else than a socket.
    pub(super) fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address.as_str())?;
                listener.set_nonblocking(true)?;
                // The standard library asks for a short backlog; asking again makes it longer.
                rustix::net::listen(&listener, BACKLOG)?;
                Ok(Listener::Tcp(listener))
            }
            Listen::Unix(path) => {
                remove_stale(path)?;
                let listener = bind_private(path)?;
                listener.set_nonblocking(true)?;
                let file = SocketFile {
                    path: path.clone(),
                    inode: inode(path)?,
                };
                Ok(Listener::Unix {
                    listener,
                    _file: Some(file),
                })
            }
        }
    }

    /// Takes over a socket as it is, its backlog and the mode of its file too.
    ///
    /// # Errors
    /// When it does not listen: it is a client's connection, or not yet bound.
    pub(super) fn inherit(socket: Inherited) -> io::Result<Self> {
        let listens = match &socket {
            Inherited::Tcp(listener) => sockopt::socket_acceptconn(listener)?,
            Inherited::Unix(listener) => sockopt::socket_acceptconn(listener)?,
        };
        if !listens {
            let why = "the socket does not listen (a socket unit needs Accept=no)";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Ok(match socket {
            Inherited::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Listener::Tcp(listener)
            }
            Inherited::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Listener::Unix {
                    listener,
                    _file: None,
                }
            }
        })
    }

    /// `host:port` with the port in use, or `unix:PATH`.
    pub(super) fn address(&self) -> io::Result<String> {
        match self {
            Listener::Tcp(listener) => Ok(listener.local_addr()?.to_string()),
            Listener::Unix { listener, .. } => Ok(format!(
                "unix:{}",
                path_of(&listener.local_addr()?).display()
            )),
        }
    }
}

impl Source for Listener {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix { listener, .. } => listener.as_fd(),
        }
    }

    fn accept(&mut self) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                stream.set_nodelay(true)?;
                Ok((stream.into(), Some(peer)))
            }
            Listener::Unix { listener, .. } => {
                let (stream, _) = listener.accept()?;
                Ok((stream.into(), None))
            }
        }
    }
}

/// Removes the socket file of a server that is gone: one that nobody answers on. Anything else is left alone.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let why = format!("{} exists and is not a socket", path.display());
            Err(io::Error::new(io::ErrorKind::AlreadyExists, why))
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)
            }
            Err(error) => Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A socket file for its owner alone. The mode is set on the socket before it is bound, and Linux gives it to
/// the file: there is no moment in which others could connect.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|found| found == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Accepts until `stop` rings, then closes the listening socket.
pub(super) fn accept_all(door: &Arc<Shared>, mut source: impl Source, stop: &Bell) {
    let mut reserve = Reserve {
        handle: Bell::new().ok(),
        silent_until: door.clock.now(),
    };
    while !wait(Some(source.fd()), stop, Duration::from_secs(3600)) {
        match source.accept() {
            Ok((fd, peer)) => welcome(door, fd, peer),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                door.tallies.accept_errors.fetch_add(1, Ordering::Relaxed);
                if recover(door, &mut source, &error, &mut reserve) {
                    continue;
                }
                if wait(None, stop, PAUSE) {
                    break;
                }
            }
        }
        reserve.restore();
    }
}

/// A file handle that is kept to be spent when there is no other, and when the want of one was last said.
#[derive(Debug)]
struct Reserve {
    handle: Option<Bell>,
    silent_until: Time,
}

impl Reserve {
    /// Takes a handle again if there is one.
    fn restore(&mut self) {
        if self.handle.is_none() {
            self.handle = Bell::new().ok();
        }
    }

    /// Says what is wrong, but not for each client of a flood.
    fn complain(&mut self, now: Time, error: &io::Error) {
        if now >= self.silent_until {
            log::error!("no file handle is left for new connections: {error}");
            self.silent_until = now + COMPLAINTS;
        }
    }
}

/// Waits for a client, the word to stop (`true`), or so long.
fn wait(source: Option<BorrowedFd<'_>>, stop: &Bell, timeout: Duration) -> bool {
    let word = PollFd::new(stop, PollFlags::IN);
    let client = source.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    let mut fds: Vec<_> = std::iter::once(word).chain(client).collect();
    let _ = poll_for(&mut fds, timeout);
    !fds[0].revents().is_empty()
}

/// After a failed `accept`: `true` where the next one can be tried at once.
fn recover(
    door: &Arc<Shared>,
    source: &mut impl Source,
    error: &io::Error,
    reserve: &mut Reserve,
) -> bool {
    match Errno::from_io_error(error) {
        // The client's own end, or a signal.
        Some(Errno::CONNABORTED | Errno::INTR | Errno::PROTO) => true,
        Some(Errno::MFILE | Errno::NFILE) => {
            reserve.complain(door.clock.now(), error);
            let spent = reserve.handle.take().is_some();
            let denied = spent && source.accept().is_ok_and(|(fd, _)| deny(door, fd));
            // The handle of whoever was denied: without it the next one would have to wait.
            reserve.restore();
            denied && reserve.handle.is_some()
        }
        Some(_) | None => {
            log::error!("accepting a connection failed: {error}");
            false
        }
    }
}

/// Tells a client that there is no handle for it, and closes to have the reserve back.
fn deny(door: &Arc<Shared>, fd: OwnedFd) -> bool {
    door.tallies.refused.fetch_add(1, Ordering::Relaxed);
    let bytes = door.plain_error(503, "no file handle is left for this connection");
    if let Ok(socket) = Socket::new(fd, door.config.park_after) {
        let _ = socket.send(
            &mut [io::IoSlice::new(&bytes)],
            &*door.clock,
            Duration::ZERO,
        );
        socket.shut_write();
    }
    true
}

fn welcome(door: &Arc<Shared>, fd: OwnedFd, peer: Option<SocketAddr>) {
    door.tallies.accepted.fetch_add(1, Ordering::Relaxed);
    let Ok(socket) = Socket::new(fd, door.config.park_after) else {
        // It broke before it was looked at.
        return;
    };
    let socket = Arc::new(socket);
    if !door.has_general_place() {
        door.parking.evict();
    }
    match door.admit(&socket) {
        Some(place) => connection::resume(door, Connection::new(socket, place, peer)),
        None => connection::turn_away(door, socket, None, connection::FULL),
    }
}
