//! A handler made of a closure, and a client that says raw bytes.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::config::{Listen, Server};
use crate::door::{Door, DoorSnapshot, Exchange, Handler, Head, Request, Response};

/// No test waits longer for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Generous times and small sizes; a test makes short what it wants to see pass.
pub(super) fn config() -> Server {
    Server {
        listen: Listen::Tcp("127.0.0.1:0".into()),
        max_connections: 64,
        operation_connections: 2,
        max_head: 1024,
        max_headers: 16,
        max_body: 64 * 1024,
        max_body_total: 256 * 1024,
        json_depth: 128,
        head_timeout: PATIENCE,
        body_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        park_after: Duration::from_millis(20),
        write_timeout: PATIENCE,
        stream_keepalive: PATIENCE,
        resend_grace: PATIENCE,
        hand_over: PATIENCE,
        drain: PATIENCE,
    }
}

type Answer = Box<dyn Fn(Request, &Exchange) + Send + Sync>;

/// A handler made of a closure. `/gone` is declined with 404; below `/ops/` are operation routes.
pub(super) struct Scripted(Answer);

impl Scripted {
    pub(super) fn new(answer: impl Fn(Request, &Exchange) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Scripted(Box::new(answer)))
    }

    /// Answers with what was asked: method, path, query and body.
    pub(super) fn echo() -> Arc<Self> {
        Scripted::new(echo)
    }
}

/// Answers with what was asked: method, path, query and body.
pub(super) fn echo(request: Request, exchange: &Exchange) {
    let Request { head, body, .. } = request;
    let query = head.query.as_deref().unwrap_or("-");
    let body = String::from_utf8_lossy(&body);
    let text = format!("{} {} {query} {body}", head.method, head.path);
    let sent = exchange.reply(Response::new(200).with_body("text/plain", text));
    sent.expect("the client listens");
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

impl Handler for Scripted {
    fn admit(&self, head: &Head) -> Result<(), Response> {
        match head.path.as_str() {
            "/gone" => Err(Response::new(404).with_body("text/plain", "no such route")),
            _ => Ok(()),
        }
    }

    fn is_operation(&self, head: &Head) -> bool {
        head.path.starts_with("/ops/")
    }

    fn handle(&self, request: Request, exchange: &Exchange) {
        (self.0)(request, exchange);
    }

    fn framing_error(&self, status: u16, message: &str, head: Option<&Head>) -> Response {
        let path = head.map_or("-", |head| &head.path);
        Response::new(status)
            .with_body("text/x-shaped", message)
            .with_header("X-Path", path)
    }
}

pub(super) fn open(config: &Server, handler: Arc<dyn Handler>) -> Door {
    Door::open(config, SystemClock::shared(), handler).expect("the door opens")
}

/// A client that says exactly what the test tells it to.
pub(super) struct Client {
    stream: BufReader<TcpStream>,
}

/// What it heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Client {
    pub(super) fn connect(door: &Door) -> Self {
        let stream = TcpStream::connect(door.address()).expect("the door listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a live socket");
        stream.set_nodelay(true).expect("a live socket");
        Client {
            stream: BufReader::new(stream),
        }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// Says bytes; a door that has closed already is the test's business when it listens.
    pub(super) fn say(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.stream.get_mut().write_all(bytes.as_ref());
        self
    }

    pub(super) fn get(&mut self, path: &str) -> Heard {
        self.say(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        self.hear()
    }

    /// One answer with a `Content-Length`.
    pub(super) fn hear(&mut self) -> Heard {
        let head = self.hear_head();
        let length = field(&head, "content-length").map_or(0, |v| v.parse().expect("digits"));
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("the whole body");
        let status = head.split(' ').nth(1).expect("a status line");
        Heard {
            status: status.parse().expect("a status"),
            head,
            body: String::from_utf8(body).expect("text"),
        }
    }

    /// The head of an answer, with its empty line.
    pub(super) fn hear_head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let count = self.stream.read_line(&mut head).expect("a head in time");
            assert!(count > 0, "the door closed after {head:?}");
        }
        head
    }

    /// Exactly these bytes come next.
    pub(super) fn expect(&mut self, bytes: &str) {
        let mut heard = vec![0; bytes.len()];
        self.stream.read_exact(&mut heard).expect("bytes in time");
        assert_eq!(String::from_utf8_lossy(&heard), bytes);
    }

    /// Everything until the door closes.
    pub(super) fn rest(&mut self) -> io::Result<String> {
        let mut rest = String::new();
        self.stream.read_to_string(&mut rest).map(|_| rest)
    }

    /// Waits until the door closes, and expects no further byte.
    pub(super) fn expect_close(&mut self) {
        match self.rest() {
            Ok(rest) => assert_eq!(rest, "", "only the end is left"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }
}

/// A header of an answer's head.
pub(super) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Waits until a door's counters say something; the one thing that has no signal of its own.
pub(super) fn eventually(door: &Door, what: &str, is_so: impl Fn(&DoorSnapshot) -> bool) {
    let clock = SystemClock::new();
    loop {
        let snapshot = door.snapshot();
        if is_so(&snapshot) {
            return;
        }
        assert!(
            clock.now().since(crate::clock::Time::ZERO) < PATIENCE,
            "{what}: {snapshot:?}"
        );
        std::thread::yield_now();
    }
}
