//! Where clients come in, and what `accept` may say.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::io::Errno;

use super::support::{Client, PATIENCE, Scripted, config, eventually, field, open};
use crate::clock::SystemClock;
use crate::config::{Listen, Server};
use crate::door::Door;
use crate::door::listener::{Inherited, Listener, Source};

/// A listener whose first calls fail as the script says.
struct Failing {
    listener: Listener,
    script: VecDeque<Errno>,
}

impl Source for Failing {
    fn fd(&self) -> BorrowedFd<'_> {
        self.listener.fd()
    }

    fn accept(&mut self) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
        match self.script.pop_front() {
            Some(error) => Err(error.into()),
            None => self.listener.accept(),
        }
    }
}

fn failing(script: impl IntoIterator<Item = Errno>) -> Door {
    let listener = Listener::bind(&config().listen).expect("a free port");
    let address = listener.address().expect("a bound socket");
    let source = Failing {
        listener,
        script: script.into_iter().collect(),
    };
    let opened = Door::serve(
        &config(),
        SystemClock::shared(),
        Scripted::echo(),
        vec![(address, source)],
    );
    opened.expect("the door opens")
}

#[test]
fn no_error_of_accept_makes_the_door_deaf() {
    let script = [
        Errno::CONNABORTED,
        Errno::INTR,
        Errno::PROTO,
        Errno::INVAL,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::PERM,
    ];
    let door = failing(script);
    let mut client = Client::connect(&door);
    assert_eq!(client.get("/").status, 200);
    assert_eq!(door.snapshot().accept_errors, 7);
}

#[test]
fn without_file_handles_a_client_is_told_so_and_the_next_is_served() {
    let door = failing([Errno::MFILE]);
    let mut denied = Client::connect(&door);
    assert_eq!(denied.hear().status, 503);
    denied.expect_close();
    let mut client = Client::connect(&door);
    assert_eq!(client.get("/").status, 200);
    let snapshot = door.snapshot();
    assert_eq!((snapshot.accept_errors, snapshot.refused), (1, 1));
}

#[test]
fn without_file_handles_even_for_the_reserve_the_door_waits_for_some() {
    let door = failing([Errno::MFILE, Errno::NFILE, Errno::MFILE, Errno::MFILE]);
    let mut client = Client::connect(&door);
    assert_eq!(client.get("/").status, 200);
    assert_eq!(
        door.snapshot().accept_errors,
        2,
        "each spent the reserve and tried again"
    );
}

fn unix(path: &std::path::Path) -> Server {
    Server {
        listen: Listen::Unix(path.to_owned()),
        ..config()
    }
}

#[test]
fn a_unix_socket_is_for_its_owner_and_goes_with_the_door() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("door.sock");
    let door = open(&unix(&path), Scripted::echo());
    assert_eq!(door.address(), format!("unix:{}", path.display()));
    let mode = std::fs::metadata(&path)
        .expect("the file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = UnixStream::connect(&path).expect("the door listens");
    client
        .write_all(b"GET /u HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut heard = String::new();
    client.read_to_string(&mut heard).expect("an answer");
    assert!(heard.ends_with("GET /u - "), "{heard}");
    door.stop(std::time::Duration::ZERO);
    assert!(!path.exists());
}

#[test]
fn a_stale_socket_file_is_replaced_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("door.sock");
    drop(UnixListener::bind(&path).expect("a socket"));
    assert!(path.exists(), "the listener left its file behind");
    let door = open(&unix(&path), Scripted::echo());
    let again = Door::open(&unix(&path), SystemClock::shared(), Scripted::echo());
    assert_eq!(
        again.expect_err("it is served").kind(),
        io::ErrorKind::AddrInUse
    );
    drop(door);
    std::fs::write(&path, "precious").expect("written");
    let file = Door::open(&unix(&path), SystemClock::shared(), Scripted::echo());
    assert_eq!(
        file.expect_err("a plain file").kind(),
        io::ErrorKind::AlreadyExists
    );
    assert_eq!(std::fs::read(&path).expect("still there"), b"precious");
}

#[test]
fn a_port_in_use_is_an_error_of_opening() {
    let door = open(&config(), Scripted::echo());
    let mut same = config();
    same.listen = Listen::Tcp(door.address());
    let again = Door::open(&same, SystemClock::shared(), Scripted::echo());
    assert_eq!(
        again.expect_err("it is taken").kind(),
        io::ErrorKind::AddrInUse
    );
}

fn open_on(sockets: Vec<Inherited>) -> io::Result<Door> {
    Door::open_on(&config(), SystemClock::shared(), Scripted::echo(), sockets)
}

fn tcp() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

#[test]
fn a_door_serves_on_every_socket_that_it_is_given_and_leaves_their_files_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("given.sock");
    let (first, second) = (tcp(), UnixListener::bind(&path).expect("a socket"));
    let kept = second.try_clone().expect("a duplicate");
    let door = open_on(vec![first.into(), second.into()]).expect("they listen");
    let unix = format!("unix:{}", path.display());
    assert_eq!(door.addresses(), [door.address(), unix]);
    let mut client = Client::connect(&door);
    assert_eq!(client.get("/tcp").body, "GET /tcp - ");
    let mut client = UnixStream::connect(&path).expect("the door listens");
    client
        .write_all(b"GET /unix HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut heard = String::new();
    client.read_to_string(&mut heard).expect("an answer");
    assert!(heard.ends_with("GET /unix - "), "{heard}");
    door.stop(PATIENCE);
    assert!(path.exists());
    UnixStream::connect(&path).expect("whoever comes waits for the next to serve");
    drop(kept);
}

#[test]
fn a_socket_that_does_not_listen_is_refused() {
    let listener = tcp();
    let address = listener.local_addr().expect("it is bound");
    let connected = TcpStream::connect(address).expect("it listens");
    let connection = TcpListener::from(OwnedFd::from(connected));
    for sockets in [vec![connection.into()], vec![]] {
        let refused = open_on(sockets).expect_err("nobody could come in");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{refused}");
    }
}

#[test]
fn whoever_was_let_in_is_served_and_whoever_comes_later_waits_for_the_next_door() {
    let socket = tcp();
    let duplicate = || vec![socket.try_clone().expect("a duplicate").into()];
    let mut door = open_on(duplicate()).expect("it listens");
    let mut used = Client::connect(&door);
    assert_eq!(used.get("/").status, 200);
    let mut early = Client::connect(&door);
    eventually(&door, "both wait", |now| now.parked == 2);
    std::thread::scope(|scope| {
        let leave = std::thread::Builder::new().name("test-leave".into());
        let leaving = leave.spawn_scoped(scope, || door.hand_over(PATIENCE));
        let leaving = leaving.expect("thread starts");
        // Its end shows that the door is quiet; the other, which has not said anything, is waited for.
        used.expect_close();
        assert_eq!(early.get("/early").body, "GET /early - ");
        leaving.join().expect("no panic");
    });
    early.expect_close();
    let mut late = Client::connect(&door);
    late.say("GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(door.stop(PATIENCE), 0);
    let next = open_on(duplicate()).expect("it listens");
    assert_eq!(late.hear().body, "GET /late - ");
    drop(next);
}

#[test]
fn a_client_that_says_nothing_does_not_hold_up_the_hand_over() {
    let socket = tcp();
    let mut door = open_on(vec![socket.into()]).expect("it listens");
    let mut silent = Client::connect(&door);
    eventually(&door, "it waits", |now| now.parked == 1);
    door.hand_over(std::time::Duration::ZERO);
    silent.expect_close();
}

#[test]
fn the_next_request_of_a_client_that_was_just_answered_is_waited_for() {
    let socket = tcp();
    let mut config = config();
    config.park_after = PATIENCE;
    let sockets = vec![socket.into()];
    let door = Door::open_on(&config, SystemClock::shared(), Scripted::echo(), sockets);
    let mut door = door.expect("it listens");
    let shared = door.shared.clone();
    let mut client = Client::connect(&door);
    assert_eq!(client.get("/first").status, 200);
    std::thread::scope(|scope| {
        let leave = std::thread::Builder::new().name("test-leave".into());
        let leaving = leave.spawn_scoped(scope, || door.hand_over(PATIENCE * 10));
        let leaving = leaving.expect("thread starts");
        while !shared.is_quiet() {
            std::thread::yield_now();
        }
        // Long enough for one that does not wait to be seen; one that does waits for as long as it takes.
        std::thread::park_timeout(std::time::Duration::from_millis(30));
        assert!(!leaving.is_finished(), "it does not wait");
        let last = client.get("/next");
        assert_eq!(last.body, "GET /next - ");
        assert_eq!(field(&last.head, "connection"), Some("close"));
        leaving.join().expect("no panic");
    });
    client.expect_close();
}
