//! Under a service manager: what it is told, the sockets and keys that it hands over, the journal, and its units.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    Answer, Ask, BOUND, Failure, Gate, Script, Server, Upstream, eventually, text,
};

/// Makes standard input the first handle that is handed over.
const HAND_OVER: &str =
    r#"exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_FDNAMES=http LISTEN_PID=$$ exec "$@""#;
/// Tells the program that its standard error is the journal.
const JOURNAL: &str = r#"JOURNAL_STREAM=$(stat -Lc %d:%i /dev/fd/2) exec "$@""#;

const QUIET: &str = "profile = \"test\"\nlog.level = \"info\"\nserver.hand_over = \"1m\"\n\
                     providers.embedded.pace = \"0ms\"\n";

/// Whom the program tells how it is.
struct Manager {
    socket: UnixDatagram,
    directory: TempDir,
}

impl Manager {
    fn new() -> Manager {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(directory.path().join("notify")).expect("a socket");
        socket.set_read_timeout(Some(BOUND)).expect("a live socket");
        Manager { socket, directory }
    }

    fn address(&self) -> String {
        self.directory.path().join("notify").display().to_string()
    }

    /// The next word.
    fn hear(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("a word in time");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// The next word that says this.
    fn hear_of(&self, what: &str) -> String {
        let words = std::iter::repeat_with(|| self.hear());
        let found = words.take(10_000).find(|word| says(word, what));
        found.unwrap_or_else(|| panic!("never heard of {what}"))
    }
}

fn says(word: &str, what: &str) -> bool {
    word.lines().any(|line| line == what)
}

#[test]
fn the_manager_hears_when_clients_can_come_in_that_it_lives_and_when_it_stops() {
    let manager = Manager::new();
    let (gate, upstream) = (Gate::new(), Upstream::start(Script::text("well")));
    upstream.on_model("held", Script::gated(&gate));
    let url = upstream.url();
    let config = format!(
        "{QUIET}server.drain = \"10m\"\n[providers.mine]\nkind = \"openai\"\nbase_url = \"{url}\"\n"
    );
    let address = manager.address();
    let environment = [("NOTIFY_SOCKET", &*address), ("WATCHDOG_USEC", "200000")];
    let mut server = Server::start_with(&config, &environment);
    let ready = manager.hear();
    let listening = format!("READY=1\nSTATUS=listening on {}", server.address);
    assert_eq!(ready, listening, "the first word");
    assert_eq!(server.client().get("/readyz").status, 200);
    let mut client = Ask::of("mine/held").send(&server);
    upstream.wait_for_in_flight(1);
    eventually("the status shows the call", || {
        manager.hear_of("WATCHDOG=1") == "WATCHDOG=1\nSTATUS=1 calls run, 0 jobs wait"
    });
    server.signal(Signal::TERM);
    let stopping = manager.hear_of("STOPPING=1");
    assert!(
        says(&stopping, "EXTEND_TIMEOUT_USEC=610000000"),
        "{stopping}"
    );
    manager.hear_of("WATCHDOG=1");
    gate.release();
    assert_eq!(client.response().expect("an answer").status, 200);
    assert_eq!(server.wait().code(), Some(0), "{:#?}", server.log());
}

#[test]
fn a_manager_that_is_not_there_does_no_harm() {
    let environment = [
        ("NOTIFY_SOCKET", "/nowhere/notify"),
        ("WATCHDOG_USEC", "200000"),
    ];
    let mut server = Server::start_with(QUIET, &environment);
    server.wait_for_log("the service manager can't be told");
    assert_eq!(server.client().get("/healthz").status, 200);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

/// A duplicate to hand over.
fn handle(socket: &TcpListener) -> Stdio {
    Stdio::from(OwnedFd::from(socket.try_clone().expect("a duplicate")))
}

#[test]
fn a_socket_that_is_handed_over_is_served_in_place_of_the_configured_one() {
    let (socket, address) = listener();
    let mut server = Server::start_by(HAND_OVER, QUIET, &[], handle(&socket));
    assert_eq!(server.address, address);
    assert!(text(&Ask::of("embedded").answer(&server)).contains("hello"));
    server.wait_for_log("as handed over by the service manager (named \"http\")");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    TcpStream::connect(address).expect("the socket is as it was");
}

#[test]
fn a_unix_socket_that_is_handed_over_is_served_and_its_file_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("given");
    let socket = UnixListener::bind(&path).expect("a socket");
    let input = Stdio::from(OwnedFd::from(socket));
    let mut server = Server::start_by(HAND_OVER, QUIET, &[], input);
    assert_eq!(server.said, format!("listening on unix:{}", path.display()));
    let mut client = UnixStream::connect(&path).expect("it listens");
    let answer = ask_over(&mut client).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(path.exists());
}

#[test]
fn sockets_that_were_meant_for_another_process_are_left_alone() {
    let (socket, address) = listener();
    for script in [
        r#"exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=1 exec "$@""#,
        r#"exec 3<&0 </dev/null; LISTEN_FDS=1 exec "$@""#,
    ] {
        let server = Server::start_by(script, QUIET, &[], handle(&socket));
        assert_ne!(server.address, address, "{script}");
    }
}

/// It ends with exit code 1 and all of these words.
fn assert_fails(failure: &Failure, words: &[&str]) {
    assert_eq!(failure.code, Some(1), "{}", failure.text);
    for word in words {
        assert!(
            failure.text.contains(word),
            "no {word:?} in {}",
            failure.text
        );
    }
}

#[test]
fn what_can_not_be_served_is_refused_in_words() {
    let datagrams = UnixDatagram::unbound().expect("a socket");
    let input = Stdio::from(OwnedFd::from(datagrams));
    let failure = Server::fail_by(HAND_OVER, QUIET, &[], input);
    assert_fails(&failure, &["handed over as \"http\"", "no stream socket"]);
    let failure = Server::fail_by(HAND_OVER, QUIET, &[], Stdio::null());
    assert_fails(&failure, &["no stream socket"]);
    let (socket, address) = listener();
    let connection = TcpStream::connect(address).expect("it listens");
    let input = Stdio::from(OwnedFd::from(connection));
    let failure = Server::fail_by(HAND_OVER, QUIET, &[], input);
    assert_fails(&failure, &["handed over", "does not listen"]);
    drop(socket);
}

#[test]
fn a_socket_that_other_machines_can_reach_needs_keys_whoever_made_it() {
    // Nobody is ever let in.
    let socket = TcpListener::bind("0.0.0.0:0").expect("a free port");
    let failure = Server::fail_by(HAND_OVER, QUIET, &[], handle(&socket));
    assert_fails(
        &failure,
        &["0.0.0.0:", "clients have no keys", "server.keys"],
    );
}

/// A chat with the embedded provider that closes its connection: the whole answer.
fn ask_over(stream: &mut (impl Read + Write)) -> std::io::Result<String> {
    let body = json!({"model": "embedded", "messages": [{"role": "user", "content": "hello"}]});
    let body = body.to_string();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let length = body.len();
    stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the socket is there");
    stream.set_read_timeout(Some(BOUND)).expect("a live socket");
    stream
}

#[test]
fn a_client_that_comes_between_two_servers_is_served_by_the_second() {
    let (socket, address) = listener();
    let mut first = Server::start_by(HAND_OVER, QUIET, &[], handle(&socket));
    first.signal(Signal::TERM);
    assert_eq!(first.wait().code(), Some(0));
    let mut client = connect(address);
    std::thread::scope(|scope| {
        let asking = std::thread::Builder::new().name("test-client".into());
        let asking = asking.spawn_scoped(scope, move || ask_over(&mut client));
        let asking = asking.expect("thread starts");
        let _second = Server::start_by(HAND_OVER, QUIET, &[], handle(&socket));
        let answer = asking.join().expect("no panic").expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    });
}

#[test]
fn under_load_a_restart_drops_no_connection_and_refuses_nobody() {
    const CALLERS: usize = 8;
    let (socket, address) = listener();
    let start = || Server::start_by(HAND_OVER, QUIET, &[], handle(&socket));
    let mut server = start();
    let (answered, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let wait_for_more = |what: &str| {
        let wanted = answered.load(Ordering::SeqCst) + 5 * CALLERS;
        eventually(what, || answered.load(Ordering::SeqCst) >= wanted);
    };
    std::thread::scope(|scope| {
        // Also where this thread panics: the callers would go on for ever.
        let _over = Over(&is_over);
        for caller in 0..CALLERS {
            let ask = || {
                while !is_over.load(Ordering::SeqCst) {
                    let answer = ask_over(&mut connect(address)).expect("an answer");
                    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            };
            let thread = std::thread::Builder::new().name(format!("test-caller-{caller}"));
            thread.spawn_scoped(scope, ask).expect("thread starts");
        }
        wait_for_more("the first server answers");
        for _ in 0..2 {
            server.signal(Signal::TERM);
            assert_eq!(server.wait().code(), Some(0), "{:#?}", server.log());
            server = start();
            wait_for_more("the next server answers");
        }
    });
}

/// Says that it is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn in_the_journal_a_line_has_its_priority_and_no_time() {
    let server = Server::start_by(JOURNAL, QUIET, &[], Stdio::null());
    let line = server.wait_for_log("profile test");
    assert!(
        line.starts_with("<6>pointsman::cli::serve: profile test: "),
        "{line}"
    );
    let line = server.wait_for_log("no provider has a key");
    assert!(
        line.starts_with("<4>pointsman::cli::serve: no provider"),
        "{line}"
    );
    let failure = Server::fail_by(JOURNAL, "limits.global = 0", &[], Stdio::null());
    let lines = failure.text.lines();
    assert!(lines.clone().count() > 1, "{}", failure.text);
    for line in lines {
        assert!(line.starts_with("<3>pointsman: "), "{}", failure.text);
    }
}

#[test]
fn a_journal_that_is_somebody_elses_changes_nothing() {
    let server = Server::start_with(QUIET, &[("JOURNAL_STREAM", "8:1")]);
    let line = server.wait_for_log("profile test");
    assert!(line.starts_with('[') && line.contains("INFO"), "{line}");
}

/// What `pointsman print systemd` says.
fn print(arguments: &[&str]) -> String {
    let program = env!("CARGO_BIN_EXE_pointsman");
    let done = Command::new(program)
        .args(["print", "systemd"])
        .args(arguments)
        .output()
        .expect("the program starts");
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).expect("text")
}

/// The units in a directory, with this program in them.
fn units(user: &[&str]) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let program = env!("CARGO_BIN_EXE_pointsman");
    let service = [&["service", "--program", program], user].concat();
    for (name, arguments) in [("service", &service[..]), ("socket", &["socket"])] {
        let file = directory.path().join(format!("pointsman.{name}"));
        std::fs::write(file, print(arguments)).expect("a file");
    }
    directory
}

/// What `systemd-analyze` says and whether it is content; `None` where there is none that can look, which is said aloud.
fn analyze(what: &str, arguments: &[&str], files: &[&Path]) -> Option<(bool, String)> {
    let mut command = Command::new("systemd-analyze");
    let why = match command.args(arguments).args(files).output() {
        Ok(done) => {
            let said = [done.stdout, done.stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            if !said.contains("unrecognized option") {
                return Some((done.status.success(), said));
            }
            said
        }
        Err(error) => error.to_string(),
    };
    // Past the capture of tests' output: a test that was skipped must not look like one that passed.
    let line = format!("SKIPPED: {what}: systemd-analyze: {why}\n");
    let told = std::io::stderr().write_all(line.as_bytes());
    told.expect("standard error is open");
    None
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    for user in [&[][..], &["--user"]] {
        let directory = units(user);
        let files =
            ["service", "socket"].map(|name| directory.path().join(format!("pointsman.{name}")));
        let files = files.each_ref().map(|file| file.as_path());
        let Some((is_well, said)) = analyze("the units", &["verify", "--man=no"], &files) else {
            return;
        };
        // It looks at the units of this machine too.
        let ours: Vec<_> = said
            .lines()
            .filter(|line| line.contains("pointsman"))
            .collect();
        assert!(is_well && ours.is_empty(), "{said}");
    }
}

#[test]
fn the_service_is_hardly_exposed() {
    let directory = units(&[]);
    let file = directory.path().join("pointsman.service");
    // In tenths.
    let arguments = ["security", "--offline=true", "--threshold=20", "--no-pager"];
    if let Some((is_well, said)) = analyze("the sandbox", &arguments, &[&file]) {
        let overall = said.lines().find(|line| line.contains("exposure level"));
        assert!(is_well && overall.is_some(), "{said}");
    }
}

#[test]
fn keys_come_from_the_managers_credentials() {
    let upstream = Upstream::start(Script::Answer(Answer::default()));
    let directory = tempfile::tempdir().expect("a directory");
    let credential = |name: &str, key: &str| {
        std::fs::write(directory.path().join(name), key).expect("a file");
    };
    credential("mine", "sk-from-credential\n");
    credential("server.keys.agent", "pk-agent\n");
    let url = upstream.url();
    let config = format!(
        "{QUIET}server.keys = [{{ name = \"agent\" }}]\n\
         [providers.mine]\nkind = \"openai\"\nbase_url = \"{url}\"\n"
    );
    let place = directory.path().display().to_string();
    let server = Server::start_with(&config, &[("CREDENTIALS_DIRECTORY", &place)]);
    let ask = Ask::of("mine/m");
    assert_eq!(ask.answer(&server).status, 401);
    let ask = ask.header("Authorization", "Bearer pk-agent");
    assert_eq!(ask.answer(&server).status, 200);
    let requests = upstream.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(
        requests[0].head.header("authorization"),
        Some("Bearer sk-from-credential")
    );
}
