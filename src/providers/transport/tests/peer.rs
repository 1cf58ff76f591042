//! Peers: a listener whose connections are each served by a script.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::BOUND;

/// A listener with a script; its threads end with their connections.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    said: Receiver<Said>,
}

/// What a peer saw.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It took a connection.
    Accepted,
    /// It read a request, of so many bytes of body.
    Request(usize),
    /// Its client closed the connection.
    Gone,
}

/// A connection as a script sees it.
pub(super) struct Line {
    stream: BufReader<TcpStream>,
    said: Sender<Said>,
}

impl Peer {
    pub(super) fn new(script: impl Fn(Line) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (say, said) = channel();
        let script = Arc::new(script);
        // Ends when the test's process does.
        spawn("accept", move || {
            while let Ok((stream, _)) = listener.accept() {
                let _ = say.send(Said::Accepted);
                let line = Line {
                    stream: BufReader::new(stream),
                    said: say.clone(),
                };
                let script = Arc::clone(&script);
                spawn("connection", move || script(line));
            }
        });
        Peer { address, said }
    }

    /// A peer that answers every request with `reply` and then waits for the client to go.
    pub(super) fn replying(reply: impl Into<Vec<u8>>) -> Self {
        let reply = reply.into();
        Peer::new(move |mut line| {
            while line.request().is_some() {
                line.write(&reply);
            }
            line.see_off();
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Waits until the peer says `what`, whatever it says before.
    pub(super) fn wait_for(&self, what: &Said) {
        while self.said.recv_timeout(BOUND).expect("the peer says it") != *what {}
    }

    /// What it has said so far.
    pub(super) fn all(&self) -> Vec<Said> {
        self.said.try_iter().collect()
    }
}

impl Line {
    /// Reads a head, in lower case; empty at the end of the connection.
    pub(super) fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(self.stream.read_line(&mut head), Ok(1..)) {
                return String::new();
            }
        }
        head.replace("\r\n", "\n").to_ascii_lowercase()
    }

    /// Reads a request; `None` at the end of the connection.
    pub(super) fn request(&mut self) -> Option<Vec<u8>> {
        let head = self.head();
        if head.is_empty() {
            return None;
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().expect("a length"));
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        let _ = self.said.send(Said::Request(length));
        Some(body)
    }

    /// Writes, whether or not there is anybody to read; false when there is not.
    pub(super) fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.get_mut().write_all(bytes).is_ok()
    }

    /// Writes `bytes` again and again, with a pause, until the client goes.
    pub(super) fn trickle(mut self, bytes: &[u8]) {
        let (_keep, never) = channel::<()>();
        while self.write(bytes) {
            let _ = never.recv_timeout(Duration::from_millis(5));
        }
        let _ = self.said.send(Said::Gone);
    }

    /// Waits for the client to go. A reset is an end too.
    pub(super) fn see_off(mut self) {
        let _ = std::io::copy(&mut self.stream, &mut std::io::sink());
        let _ = self.said.send(Said::Gone);
    }

    /// The connection itself, and whom to tell.
    pub(super) fn into_parts(self) -> (TcpStream, Sender<Said>) {
        (self.stream.into_inner(), self.said)
    }

    /// Closes so that the client gets a reset.
    pub(super) fn reset(self) {
        let socket = self.stream.into_inner();
        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).expect("a socket");
    }
}

/// A listener whose queue is full: nobody who comes later gets in. Whoever is in the queue is in the tuple.
pub(super) fn full_listener() -> (TcpListener, TcpStream) {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
    let raw = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&raw, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    listen(&raw, 0).expect("listens");
    let listener = TcpListener::from(raw);
    let first = TcpStream::connect(listener.local_addr().expect("bound")).expect("one fits in");
    (listener, first)
}

/// An address that refuses connections, for as long as the socket is kept.
pub(super) fn closed_port() -> (OwnedFd, SocketAddr) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    let raw = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&raw, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let address = getsockname(&raw).expect("bound");
    (raw, address.try_into().expect("an internet address"))
}

/// Whether this machine has a connection under way to `port` that was not answered.
pub(super) fn is_connecting_to(port: u16) -> bool {
    const SYN_SENT: &str = "02";
    let remote = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[2].ends_with(&remote) && fields[3] == SYN_SENT
    })
}

pub(super) fn spawn(name: &str, f: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .name(format!("test-{name}"))
        .spawn(f)
        .expect("thread starts");
}

/// A whole answer with a length.
pub(super) fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
