//! A client that sees everything: bytes, heads, events, and whether a stream ended or broke off.

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::Value;

use super::BOUND;
use super::http::{Framing, Head};

/// One connection. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Response {
    /// The status.
    pub(crate) status: u16,
    /// Status line and headers.
    pub(crate) head: Head,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// An answer as it comes.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The status.
    pub(crate) status: u16,
    /// Status line and headers.
    pub(crate) head: Head,
    client: Client,
    framing: Framing,
    unread: Vec<u8>,
}

/// A server-sent event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Its data.
    Data(String),
    /// An event with a name, and its data.
    Named(String, String),
    /// A comment.
    Comment(String),
}

/// The connection ended before its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

impl Client {
    /// Connects.
    pub(crate) fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect_timeout(&address, BOUND).expect("connects");
        stream.set_read_timeout(Some(BOUND)).expect("a socket");
        stream.set_write_timeout(Some(BOUND)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Client {
            stream: BufReader::new(stream),
        }
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let stream = self.stream.get_mut();
        stream.write_all(bytes.as_ref()).expect("the peer reads");
    }

    /// Sends a request; a body is JSON.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        let body = body.map(Value::to_string);
        if let Some(body) = &body {
            let length = body.len();
            text += &format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
        }
        self.send(format!("{text}\r\n{}", body.unwrap_or_default()));
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// [`Broken`] when the connection ended first.
    ///
    /// # Panics
    /// When it takes longer than [`BOUND`].
    pub(crate) fn response(&mut self) -> Result<Response, Broken> {
        let (status, head) = self.head()?;
        let body = head.framing(Framing::Close).read_all(&mut self.stream);
        Ok(Response {
            status,
            head,
            body: body.map_err(broken)?,
        })
    }

    /// Gets `path`.
    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, &[], None);
        self.response().expect("an answer")
    }

    /// Posts `body` to `path`.
    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Response {
        self.request("POST", path, &[], Some(body));
        self.response().expect("an answer")
    }

    /// Posts `body` to `path` and gives the answer as it comes.
    ///
    /// # Errors
    /// [`Broken`] when the connection ended before the answer's head.
    pub(crate) fn stream(mut self, path: &str, body: &Value) -> Result<Stream, Broken> {
        self.request("POST", path, &[], Some(body));
        self.into_stream()
    }

    /// Gives the answer to what was sent as it comes.
    ///
    /// # Errors
    /// [`Broken`] when the connection ended before the answer's head.
    pub(crate) fn into_stream(mut self) -> Result<Stream, Broken> {
        let (status, head) = self.head()?;
        let framing = head.framing(Framing::Close);
        Ok(Stream {
            status,
            head,
            client: self,
            framing,
            unread: Vec::new(),
        })
    }

    /// Reads the head of an answer, such as all that HEAD gets, and no more.
    ///
    /// # Errors
    /// [`Broken`] when the connection ended first.
    pub(crate) fn head(&mut self) -> Result<(u16, Head), Broken> {
        let head = Head::read(&mut self.stream)
            .map_err(broken)?
            .ok_or(Broken)?;
        let status = head.start.split(' ').nth(1).and_then(|s| s.parse().ok());
        Ok((status.expect("a status line"), head))
    }

    /// Waits for the server to close the connection; what it said before that is dropped.
    pub(crate) fn wait_for_end(&mut self) {
        match std::io::copy(&mut self.stream, &mut std::io::sink()) {
            Ok(_) => {}
            Err(error) => drop(broken(error)),
        }
    }
}

impl Response {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("not JSON ({e}): {text}"))
    }

    /// The header of that (lower-case) name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }
}

impl Stream {
    /// The next event; `None` at the proper end.
    ///
    /// # Errors
    /// [`Broken`] when the connection ended first.
    ///
    /// # Panics
    /// When it takes longer than [`BOUND`].
    pub(crate) fn event(&mut self) -> Result<Option<Event>, Broken> {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < BOUND, "no end of an event");
            if let Some(at) = self.unread.windows(2).position(|w| w == b"\n\n") {
                let event: Vec<u8> = self.unread.drain(..at + 2).collect();
                return Ok(Some(Event::parse(&String::from_utf8_lossy(&event))));
            }
            match self.framing.read(&mut self.client.stream).map_err(broken)? {
                Some(piece) => self.unread.extend(piece.iter().filter(|b| **b != b'\r')),
                None if self.unread.is_empty() => return Ok(None),
                None => return Err(Broken),
            }
        }
    }

    /// All events to come.
    ///
    /// # Errors
    /// [`Broken`] when the connection ended before the stream.
    pub(crate) fn events(&mut self) -> Result<Vec<Event>, Broken> {
        let mut events = Vec::new();
        while let Some(event) = self.event()? {
            events.push(event);
        }
        Ok(events)
    }

    /// What it is when it is no stream: a whole answer.
    ///
    /// # Panics
    /// When the connection ends first.
    pub(crate) fn rest(&mut self) -> Response {
        let body = self.framing.read_all(&mut self.client.stream);
        Response {
            status: self.status,
            head: self.head.clone(),
            body: body.expect("a whole answer"),
        }
    }

    /// The connection again, once the answer is read.
    pub(crate) fn into_client(self) -> Client {
        self.client
    }
}

impl Event {
    fn parse(text: &str) -> Event {
        let field = |name: &str| -> Vec<&str> {
            let lines = text.lines().filter_map(|line| line.strip_prefix(name));
            lines.map(|v| v.strip_prefix(' ').unwrap_or(v)).collect()
        };
        let (name, data) = (field("event:"), field("data:").join("\n"));
        match (name.first(), text.starts_with(':')) {
            (Some(name), _) => Event::Named((*name).to_owned(), data),
            (None, true) => Event::Comment(field(":").join("\n")),
            (None, false) => Event::Data(data),
        }
    }

    /// Its data as JSON, if it has such.
    pub(crate) fn json(&self) -> Option<Value> {
        match self {
            Event::Data(data) | Event::Named(_, data) => serde_json::from_str(data).ok(),
            Event::Comment(_) => None,
        }
    }
}

/// An end is an end; silence is the test's failure.
fn broken(error: std::io::Error) -> Broken {
    let silent = matches!(
        error.kind(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
    );
    assert!(!silent, "nothing came for {BOUND:?}");
    Broken
}
