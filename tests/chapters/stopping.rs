//! Starting and stopping: signals under load, addresses, and configurations that are refused.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Answer, Ask, BOUND, Client, Event, Failure, Gate, Response, Script, Server, Upstream, at_once,
    code, eventually,
};

/// A server with two slots at a provider whose model `held` answers when the gate opens.
struct Rig {
    gate: Gate,
    upstream: Upstream,
    server: Server,
}

impl Rig {
    fn new(config: &str) -> Rig {
        let (gate, upstream) = (Gate::new(), Upstream::start(Script::text("well")));
        upstream.on_model("held", Script::gated(&gate));
        upstream.on_model("stalls", Script::StallAfterFirst);
        let url = upstream.url();
        let server = Server::start(&format!(
            "profile = \"test\"\nlog.level = \"info\"\n{config}\n\
             [providers.mine]\nkind = \"openai\"\nbase_url = \"{url}\"\nmax_inflight = 2\n"
        ));
        Rig {
            gate,
            upstream,
            server,
        }
    }

    /// Two requests that run and one that waits.
    fn load(&self) -> [Client; 3] {
        let send = || Ask::of("mine/held").send(&self.server);
        let (first, second) = (send(), send());
        self.upstream.wait_for_in_flight(2);
        let third = send();
        self.server
            .wait_for_status("the third waits", |status| status["queue"]["waiting"] == 1);
        [first, second, third]
    }

    /// Sends the signal, and waits until it was heard.
    fn tell_to_stop(&self, signal: Signal) {
        self.server.signal(signal);
        eventually("it is stopping", || {
            self.server.page("/readyz")["status"] == "stopping"
        });
    }

    /// Waits for the end, which is a good one.
    fn ends_well(&mut self) {
        assert_eq!(
            self.server.wait().code(),
            Some(0),
            "{:#?}",
            self.server.log()
        );
        let log = self.server.whole_log().join("\n");
        assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
    }
}

/// Told so in time: 503, with the reason, and when to come again.
fn assert_stopping(response: &Response) {
    assert_eq!((response.status, &*code(response)), (503, "stopping"));
    let after = response.header("retry-after");
    assert!(
        after.is_some_and(|text| text.parse::<u64>().is_ok_and(|s| s >= 1)),
        "{after:?}"
    );
}

/// What runs and waits is answered, what comes is told to come again, and the end is a good one.
fn drains_after(signal: Signal) {
    let mut rig = Rig::new("");
    let clients = rig.load();
    rig.tell_to_stop(signal);
    assert_stopping(&Ask::of("mine/m").answer(&rig.server));
    assert_eq!(rig.upstream.in_flight(), 2, "nothing that ran was cut off");
    rig.gate.release();
    for mut client in clients {
        assert_eq!(client.response().expect("an answer").status, 200);
    }
    rig.ends_well();
    assert_eq!(rig.upstream.requests().len(), 3, "nothing new was begun");
}

#[test]
fn what_runs_and_waits_is_answered_after_a_signal_and_what_comes_is_told_so() {
    drains_after(Signal::TERM);
    drains_after(Signal::INT);
    drains_after(Signal::HUP);
}

/// Asks on a connection of its own: the status and the whole answer; `None` if there is no answer at all.
fn ask_or_be_turned_away(address: SocketAddr) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(BOUND)).expect("a socket");
    stream.write_all(request("mine/m").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer))
}

#[test]
fn every_call_that_was_made_is_answered_when_it_is_stopped_under_load() {
    let mut rig = Rig::new("");
    let address = rig.server.address;
    let answered = at_once(9, |caller| {
        if caller == 8 {
            rig.upstream.wait_for_requests(100);
            rig.server.signal(Signal::TERM);
            return 0;
        }
        // Until nobody listens any more.
        let answers = std::iter::from_fn(|| ask_or_be_turned_away(address));
        let answers = answers.inspect(|(status, answer)| {
            let expected = match status {
                200 => "\"well\"",
                _ => "\"stopping\"",
            };
            assert!(answer.contains(expected), "{answer}");
        });
        answers.filter(|(status, _)| *status == 200).count()
    });
    rig.ends_well();
    let answered: usize = answered.into_iter().sum();
    assert_eq!(rig.upstream.requests().len(), answered);
}

#[test]
fn the_end_does_not_wait_for_idle_connections_or_for_the_rest_of_the_drain() {
    let mut rig = Rig::new("server.drain = \"1h\"");
    let mut idle = rig.server.client();
    assert_eq!(idle.get("/healthz").status, 200);
    let fresh = rig.server.client();
    let start = Instant::now();
    rig.server.signal(Signal::TERM);
    idle.wait_for_end();
    rig.ends_well();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    drop(fresh);
}

#[test]
fn what_can_not_finish_is_told_so_at_the_end_of_the_drain() {
    let mut rig = Rig::new("server.drain = \"300ms\"");
    let mut whole = Ask::of("mine/held").send(&rig.server);
    rig.upstream.wait_for_in_flight(1);
    let mut stream = Ask::of("mine/stalls").streamed().stream(&rig.server);
    assert_eq!(stream.status, 200);
    let mut waiting = Ask::of("mine/held").id("waiter").send(&rig.server);
    rig.server
        .wait_for_status("the third waits", |status| status["queue"]["waiting"] == 1);
    rig.server.signal(Signal::TERM);
    assert_stopping(&whole.response().expect("an answer"));
    assert_stopping(&waiting.response().expect("an answer"));
    let events = read_to_the_break(&mut stream);
    let last = events.last().and_then(Event::json).unwrap_or_default();
    assert_eq!(last["error"]["code"], "stopping", "{events:#?}");
    assert!(
        !events.contains(&Event::Data("[DONE]".into())),
        "{events:#?}"
    );
    rig.upstream.wait_for_in_flight(0);
    assert_eq!(rig.server.wait().code(), Some(0));
    rig.server.wait_for_log("request waiter refused");
}

/// The events of a stream that breaks off instead of ending.
fn read_to_the_break(stream: &mut crate::support::Stream) -> Vec<Event> {
    let mut events = Vec::new();
    while let Ok(event) = stream.event() {
        events.push(event.expect("it breaks off before it ends"));
    }
    events
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut rig = Rig::new("server.drain = \"1h\"");
    let clients = rig.load();
    rig.tell_to_stop(Signal::TERM);
    let start = Instant::now();
    rig.server.signal(Signal::INT);
    assert_eq!(rig.server.wait().code(), Some(130));
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    rig.server.wait_for_log("told twice");
    drop(clients);
}

#[test]
fn the_port_is_free_again_after_the_end() {
    let mut rig = Rig::new("");
    let mut client = rig.server.client();
    assert_eq!(client.get("/healthz").status, 200);
    rig.server.signal(Signal::TERM);
    rig.ends_well();
    let address = rig.server.address.to_string();
    let next = Server::start_as("profile = \"test\"", &["--listen", &address], &[]);
    assert_eq!(next.address, rig.server.address);
    assert_eq!(next.client().get("/healthz").status, 200);
}

#[test]
fn the_first_line_of_output_says_where_it_listens() {
    let server = Server::start("profile = \"test\"");
    assert_eq!(
        server.said,
        format!("listening on http://{}", server.address)
    );
    assert!(server.address.ip().is_loopback() && server.address.port() > 0);
    assert_eq!(
        server.client().get("/readyz").status,
        200,
        "it serves by then"
    );
}

#[test]
fn the_log_begins_with_the_file_and_where_each_provider_is() {
    let key = [("KIMI_API_KEY", "sk-never-shown")];
    let server = Server::start_with("providers.glm.base_url = \"http://127.0.0.1:9/v4/\"", &key);
    let file = server.directory().join("config.toml");
    server.wait_for_log(&format!("configuration: {}", file.display()));
    server.wait_for_log("provider kimi: https://api.moonshot.ai/v1, at most 3 calls in flight");
    server
        .wait_for_log("provider glm (http://127.0.0.1:9/v4) is not available: set the environment");
    server.wait_for_log("provider embedded: in this process, at most 5 calls in flight");
    let log = server.log().join("\n");
    assert!(!log.contains("never-shown"), "{log}");
}

#[test]
fn a_unix_socket_serves_its_owner_and_goes_with_the_server() {
    let arguments = ["--listen", "unix:{}/socket"];
    let mut server = Server::start_as("profile = \"test\"", &arguments, &[]);
    let path = server.directory().join("socket");
    assert_eq!(server.said, format!("listening on unix:{}", path.display()));
    let mode = std::os::unix::fs::MetadataExt::mode(&path.metadata().expect("a socket"));
    assert_eq!(mode & 0o777, 0o600);
    let answer = ask_over(&path);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("hello"), "{answer}");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(!path.exists());
}

/// A request that closes its connection.
fn request(model: &str) -> String {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "hello"}]});
    let body = body.to_string();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A chat with the embedded provider over a Unix socket.
pub(crate) fn ask_over(path: &std::path::Path) -> String {
    let mut stream = UnixStream::connect(path).expect("it listens");
    stream.set_read_timeout(Some(BOUND)).expect("a socket");
    stream
        .write_all(request("embedded").as_bytes())
        .expect("it reads");
    let mut answer = String::new();
    BufReader::new(stream)
        .read_to_string(&mut answer)
        .expect("an answer");
    answer
}

/// The program ends with exit code 2 and all of these words.
fn assert_refused(failure: &Failure, words: &[&str]) {
    assert_eq!(failure.code, Some(2), "{}", failure.text);
    for word in words {
        assert!(
            failure.text.contains(word),
            "no {word:?} in {}",
            failure.text
        );
    }
}

#[test]
fn a_wrong_file_is_refused_with_its_name_line_key_and_what_is_accepted() {
    let check = |config: &str, words: &[&str]| {
        let failure = Server::fail(config, &[], &[]);
        assert!(failure.text.contains("config.toml:2: "), "{}", failure.text);
        assert_refused(&failure, words);
    };
    let drain = "\nserver.drain = \"soon\"";
    check(drain, &["server.drain", "soon", "a duration from"]);
    check(
        "\nlimits.globl = 3",
        &["limits.globl", "did you mean `global`"],
    );
    check(
        "\nlimits.global = 0",
        &["limits.global", "found 0", "1 to 4096"],
    );
    check("\nlimits.global = [", &["unclosed"]);
    let ladder = "\ntimeouts.connect = \"10m\"";
    check(
        ladder,
        &["timeouts.connect", "timeouts.streaming", "10m", "5m"],
    );
}

#[test]
fn a_wrong_variable_or_argument_is_refused_by_its_name() {
    let variable = [("POINTSMAN_LIMITS__GLOBAL", "many")];
    let failure = Server::fail("", &[], &variable);
    assert_refused(
        &failure,
        &["POINTSMAN_LIMITS__GLOBAL", "limits.global", "many"],
    );
    let check = |arguments: &[&str], words: &[&str]| {
        assert_refused(&Server::fail("", arguments, &[]), words);
    };
    check(
        &["--profile", "fast"],
        &["--profile", "fast", "dev", "prod"],
    );
    check(&["--listen", "0.0.0.0:0"], &["--listen", "loopback"]);
    check(&["--config", "missing.toml"], &["missing.toml"]);
}

#[test]
fn a_port_in_use_is_said_in_plain_words() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let Failure { code, text } = Server::fail("profile = \"test\"", &["--listen", &address], &[]);
    assert_eq!(code, Some(1), "{text}");
    for word in [&*address, "server.listen", "in use"] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
}

/// The limits that a server started like this shows: global, sessions, kimi, glm.
fn limits(config: &str, arguments: &[&str], environment: &[(&str, &str)]) -> [Value; 4] {
    let listen = ["--listen", "127.0.0.1:0"];
    let server = Server::start_as(config, &[&listen, arguments].concat(), environment);
    let status = server.page("/api/status");
    let slots = &status["slots"];
    let provider = |name: &str| slots["providers"][name]["limit"].clone();
    [
        slots["global"]["limit"].clone(),
        status["sessions"]["limit"].clone(),
        provider("kimi"),
        provider("glm"),
    ]
}

#[test]
fn a_profile_changes_the_limits_of_the_shipped_configuration() {
    let shipped = include_str!("../../config.toml");
    let limits = |arguments: &[&str]| limits(shipped, arguments, &[]);
    assert_eq!(limits(&[]), [5, 5, 3, 2]);
    assert_eq!(limits(&["--profile", "demo"]), [15, 25, 8, 8]);
    assert_eq!(limits(&["--profile", "prod"]), [24, 100, 6, 4]);
}

#[test]
fn a_variable_wins_over_the_file_and_an_argument_over_both() {
    let file = "profile = \"dev\"\nlimits.global = 3";
    assert_eq!(limits(file, &[], &[])[0], 3);
    assert_eq!(
        limits(file, &[], &[("POINTSMAN_LIMITS__GLOBAL", "7")])[0],
        7
    );
    let profile = [("POINTSMAN_PROFILE", "demo")];
    assert_eq!(limits(file, &[], &profile)[..2], [3, 25]);
    let argument = ["--profile", "prod"];
    assert_eq!(limits(file, &argument, &profile)[..2], [3, 100]);
}

#[test]
fn a_signal_in_the_middle_of_a_stream_lets_it_end_properly() {
    let mut rig = Rig::new("");
    let answer = Answer {
        text: "one two three".into(),
        pieces: 3,
        pace: Duration::from_millis(50),
        ..Answer::default()
    };
    rig.upstream.on_model("slow", Script::Answer(answer));
    let mut stream = Ask::of("mine/slow").streamed().stream(&rig.server);
    assert!(stream.event().expect("an event").is_some());
    rig.server.signal(Signal::TERM);
    let events = stream.events().expect("a proper end");
    assert_eq!(events.last(), Some(&Event::Data("[DONE]".into())));
    rig.ends_well();
}
