//! A connection played on one thread, read by read as a script has it.
//!
//! The client is the door's own clock. The door looks at it whenever it is about to wait for bytes, has no room for
//! an answer, or writes one; and each time the client takes what was answered, and sends its next part if the door
//! has read all before. So each read of the door brings exactly one part, without a second thread and without a wait.
//! When everything is sent the client says so, and from then on each look costs an hour: a door that waits for more
//! comes to its deadline instead of hanging.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType};

use super::reference::Seen;
use super::{MAX_BODY, MAX_HEAD, MAX_HEADERS};
use crate::clock::{Clock, Time};
use crate::config::{Listen, Server};
use crate::door::bell::Bell;
use crate::door::connection::{self, Connection};
use crate::door::parking::Parking;
use crate::door::shared::Shared;
use crate::door::socket::Socket;
use crate::door::{Exchange, Handler, Head, Request, Response};

/// What became of a connection.
#[derive(Debug)]
pub(super) struct Played {
    /// What the handler saw, in order.
    pub(super) seen: Vec<Seen>,
    /// All bytes that the client was sent.
    pub(super) heard: Vec<u8>,
}

/// Plays a connection on which `parts` are sent, each in a write of its own, and then the end.
///
/// # Panics
/// When the door leaves anything behind: an open socket, a turn, a byte that still counts as held.
pub(super) fn play(parts: impl IntoIterator<Item = Vec<u8>>) -> Played {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .expect("a pair of sockets");
    let config = config();
    let socket = Arc::new(Socket::new(theirs, config.park_after).expect("a live socket"));
    let client = Arc::new(Client {
        door: Arc::downgrade(&socket),
        end: ours,
        state: Mutex::new(State {
            parts: parts.into_iter().filter(|part| !part.is_empty()).collect(),
            heard: Vec::new(),
            said_all: false,
            hours: 0,
            saw_end: false,
        }),
    });
    let handler = Arc::new(Recorder::default());
    let parking = Parking::new().expect("file handles");
    let door = Arc::new(Shared::new(
        config,
        client.clone(),
        handler.clone(),
        parking,
    ));
    let place = door.admit(&socket).expect("the first has a place");
    let bell = Arc::new(Bell::new().expect("file handles"));
    client.look();
    connection::serve(&door, Connection::new(socket, place, None), &bell);

    assert_eq!(
        door.parking.parked(),
        0,
        "parked with bytes or an end at hand"
    );
    assert_eq!(door.turns(), 0, "a turn never ended");
    assert_eq!(door.budget.used(), 0, "bytes are still held");
    door.parking.close();
    door.parking.poll(&door);
    assert_eq!(door.connections(), 0, "a place is still taken");
    client.look();
    let heard = {
        let mut state = client.state.lock();
        assert!(state.saw_end, "the connection was not closed");
        std::mem::take(&mut state.heard)
    };
    let seen = std::mem::take(&mut *handler.seen.lock());
    Played { seen, heard }
}

/// Small sizes, so that a short script reaches every limit.
fn config() -> Server {
    let second = Duration::from_secs(1);
    Server {
        listen: Listen::Tcp("127.0.0.1:0".into()),
        max_connections: 1,
        operation_connections: 0,
        max_head: MAX_HEAD,
        max_headers: MAX_HEADERS,
        max_body: MAX_BODY,
        max_body_total: MAX_BODY,
        json_depth: 8,
        head_timeout: second,
        body_timeout: second,
        idle_timeout: second,
        park_after: Duration::from_millis(1),
        write_timeout: second,
        stream_keepalive: second,
        resend_grace: second,
        hand_over: second,
        drain: second,
    }
}

/// See the story above.
#[derive(Debug)]
struct Client {
    door: Weak<Socket>,
    end: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    parts: VecDeque<Vec<u8>>,
    heard: Vec<u8>,
    said_all: bool,
    hours: u64,
    saw_end: bool,
}

impl Client {
    /// Takes what was answered; sends the next part if the one before was read. Returns the time.
    fn look(&self) -> Time {
        let mut state = self.state.lock();
        self.listen(&mut state);
        if self.is_read() && !state.said_all {
            match state.parts.pop_front() {
                Some(part) => self.say(&part),
                None => {
                    state.said_all = true;
                    let _ = rustix::net::shutdown(&self.end, Shutdown::Write);
                }
            }
        } else if state.said_all {
            state.hours += 1;
        }
        Time::ZERO + Duration::from_secs(3600 * state.hours)
    }

    fn listen(&self, state: &mut State) {
        let flags = RecvFlags::DONTWAIT;
        while !state.saw_end {
            state.heard.reserve(4096);
            match rustix::net::recv(&self.end, spare_capacity(&mut state.heard), flags) {
                Ok((0, _)) => state.saw_end = true,
                Ok(_) => {}
                // Nothing is there, or the door closed with bytes of ours unread: then an end follows.
                Err(rustix::io::Errno::CONNRESET) => {}
                Err(_) => break,
            }
        }
    }

    fn is_read(&self) -> bool {
        let door = self.door.upgrade();
        let unread = |socket: Arc<Socket>| rustix::io::ioctl_fionread(&*socket);
        door.is_some_and(|socket| unread(socket).is_ok_and(|bytes| bytes == 0))
    }

    /// A part is smaller than the kernel's buffer; a door that has closed hears nothing.
    fn say(&self, part: &[u8]) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if let Ok(sent) = rustix::net::send(&self.end, part, flags) {
            assert_eq!(sent, part.len(), "a part is too large to be one");
        }
    }
}

impl Clock for Client {
    fn now(&self) -> Time {
        self.look()
    }

    fn wall(&self) -> SystemTime {
        self.look();
        SystemTime::UNIX_EPOCH
    }
}

/// Writes down what it is asked, and answers with the number of the request. Declines what begins with
/// `/declined`.
#[derive(Debug, Default)]
struct Recorder {
    seen: Mutex<Vec<Seen>>,
}

impl Handler for Recorder {
    fn admit(&self, head: &Head) -> Result<(), Response> {
        match head.path.starts_with("/declined") {
            true => Err(Response::new(404).with_body("text/plain", "not wanted")),
            false => Ok(()),
        }
    }

    fn handle(&self, request: Request, exchange: &Exchange) {
        assert_eq!(request.held_bytes(), request.body.len(), "held bytes");
        let number = {
            let mut seen = self.seen.lock();
            seen.push(seen_of(&request.head, request.body));
            seen.len()
        };
        let answer = Response::new(200).with_body("text/plain", number.to_string());
        // A client that has gone is none of the handler's business.
        let _ = exchange.reply(answer);
    }
}

pub(super) fn seen_of(head: &Head, body: Vec<u8>) -> Seen {
    let headers = head.headers.iter();
    Seen {
        method: head.method.to_string(),
        path: head.path.clone(),
        query: head.query.clone(),
        minor: head.version.1,
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        body,
    }
}
