//! The connection under a script: a socket, or TLS over one.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::{ServerConnection, StreamOwned};

use super::super::tls::Identity;

/// A connection as its server sees it.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Wire {
    /// A connection over TLS where somebody is to be shown.
    pub(super) fn new(stream: TcpStream, identity: Option<Identity>) -> Wire {
        let Some(identity) = identity else {
            return Wire::Plain(stream);
        };
        let connection = ServerConnection::new(Arc::clone(&identity.0)).expect("a connection");
        Wire::Tls(Box::new(StreamOwned::new(connection, stream)))
    }

    /// The socket itself.
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Wire::Plain(stream) => stream,
            Wire::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.read(buffer),
            Wire::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.write(bytes),
            Wire::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Wire::Plain(stream) => stream.flush(),
            Wire::Tls(stream) => stream.flush(),
        }
    }
}
