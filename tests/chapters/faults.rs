//! Faults: whatever a provider does on its socket, the answer is a clear error, and nothing is left of it afterwards.
//!
//! Each fault has a provider of its own, and is met twice: by a whole answer and by a stream. Then a healthy provider
//! answers, the same provider does once it is well, all permits are back, the books agree, and the program has no more file
//! handles and threads than before. Other chapters have the rest: `failures` what a provider says in words, `deadlines`
//! and `silence` what it does to time, `faulty_answers` the tables of odd bytes, `retries` and `storms` how it is asked again, `tls` who it is.

use std::io::Write;
use std::net::TcpStream;

use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, json};

use crate::support::{
    Ask, Broken, Event, Peer, Response, Script, Server, Stream, Upstream, eventually, text,
};

/// How long a request waits for a provider that will never come to an end.
const PATIENCE: &str = "400ms";
/// What a provider that is well says.
pub(crate) const WELL: &str = "all is well";

/// A fault, and what its caller is told.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) script: Script,
    pub(crate) told: Told,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Told {
    /// It is none: an odd answer, and whole.
    Answer,
    /// A status and a code; in a stream that has begun, the code alone.
    Error(u16, &'static str),
    /// The same, at the deadline.
    Late,
}

pub(crate) const MALFORMED: Told = Told::Error(502, "provider_malformed");
pub(crate) const INCOMPLETE: Told = Told::Error(502, "provider_incomplete");
pub(crate) const FAILED: Told = Told::Error(502, "provider_failed");

/// A provider under `name`, of whom nothing is remembered.
fn provider(name: &str, url: &str) -> String {
    format!(
        "providers.{name}.kind = \"openai\"\nproviders.{name}.base_url = \"{url}\"\n\
         providers.{name}.retry.attempts = 1\nproviders.{name}.breaker.enabled = false\n"
    )
}

/// A server with providers `f0`, `f1`, ... at these addresses, and one that is well.
struct Rig {
    server: Server,
    well: Upstream,
    before: Before,
}

/// What a process has beside the connections that wait for the next call.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    sockets: usize,
    /// Threads that serve no clients.
    staying: usize,
    handles: usize,
    threads: usize,
}

impl Rig {
    fn new(urls: &[String]) -> Rig {
        let well = Upstream::start(Script::text("hello from {id}"));
        let named = |(index, url): (usize, &String)| provider(&format!("f{index}"), url);
        let faulty: String = urls.iter().enumerate().map(named).collect();
        let config = format!(
            "limits.global = 16\n{faulty}{}",
            provider("well", &well.url())
        );
        let mut rig = Rig {
            server: Server::start(&config),
            well,
            before: Before::default(),
        };
        rig.assert_others_are_served("before");
        rig.before = rig.settled();
        rig
    }

    /// Whoever asks another provider is answered, and by that one.
    fn assert_others_are_served(&self, what: &str) {
        let answer = Ask::of("well/m").answer(&self.server);
        let expected = format!("hello from up-{}", self.well.requests().len());
        assert_eq!(text(&answer), expected, "{what}");
    }

    /// Sockets, and threads but for those that serve clients: these stay for a while, each with a handle of its own.
    fn held(&self) -> (usize, usize) {
        let is_socket = |handle: &std::fs::DirEntry| {
            let what = std::fs::read_link(handle.path()).unwrap_or_default();
            what.to_string_lossy().starts_with("socket:")
        };
        let stays = |task: &std::fs::DirEntry| {
            let name = std::fs::read_to_string(task.path().join("comm"));
            name.is_ok_and(|name| !name.starts_with("pointsman-door-"))
        };
        let handles = self.list("fd");
        let tasks = self.list("task");
        (
            handles.iter().filter(|handle| is_socket(handle)).count(),
            tasks.iter().filter(|task| stays(task)).count(),
        )
    }

    fn list(&self, what: &str) -> Vec<std::fs::DirEntry> {
        let place = format!("/proc/{}/{what}", self.server.pid());
        let entries = std::fs::read_dir(place).expect("it lives");
        entries.map_while(Result::ok).collect()
    }

    /// All of it: file handles and threads.
    fn assert_all_is_back(&self) {
        let idle = self.idle();
        eventually("no more handles and threads than before", || {
            self.list("fd").len() <= self.before.handles + idle
                && self.list("task").len() <= self.before.threads
        });
    }

    /// Connections that wait for their next call, once none serves one any more: a permit is back before its connection.
    fn idle(&self) -> usize {
        let mut idle = 0;
        eventually("no connection is in use", || {
            let pools = self.server.page("/api/connection-pool/status");
            let pools = pools["providers"].as_object().expect("a table");
            let sum = |what: &str| -> u64 {
                let figure = |pool: &Value| pool[what].as_u64().expect("a figure");
                pools.values().map(figure).sum()
            };
            idle = sum("idle").try_into().expect("few");
            sum("active") == 0
        });
        idle
    }

    /// What it has beside idle connections, once that does not change any more.
    fn settled(&self) -> Before {
        let idle = self.idle();
        let (mut last, mut same) = ((0, 0), 0);
        eventually("it comes to rest", || {
            let held = self.held();
            same = if held == last { same + 1 } else { 0 };
            last = held;
            same >= 20
        });
        Before {
            sockets: last.0 - idle,
            staying: last.1,
            handles: self.list("fd").len() - idle,
            threads: self.list("task").len(),
        }
    }

    /// Nothing is left of what was.
    fn assert_nothing_is_left(&self, what: &str) {
        self.assert_others_are_served(what);
        self.server.wait_until_idle();
        let idle = self.idle();
        let Before {
            sockets, staying, ..
        } = self.before;
        eventually(
            &format!("{what}: no more than before: {:?}", self.before),
            || {
                let held = self.held();
                held.0 <= sockets + idle && held.1 <= staying
            },
        );
    }
}

/// Meets each fault as the chapter says.
pub(crate) fn check(faults: &[Fault]) {
    let upstream = Upstream::start(Script::text(WELL));
    for fault in faults {
        upstream.on_model(fault.name, fault.script.clone());
    }
    let urls = vec![upstream.url(); faults.len()];
    let rig = Rig::new(&urls);
    let mut complaints = Vec::new();
    for (index, fault) in faults.iter().enumerate() {
        let mut complain = |how: &str, told: Result<(), String>| {
            complaints.extend(
                told.err()
                    .map(|what| format!("{}, {how}: {what}", fault.name)),
            );
        };
        let ask = fault.told.ask(&format!("f{index}/{}", fault.name));
        complain("whole", fault.told.whole(&ask.answer(&rig.server)));
        rig.assert_nothing_is_left(fault.name);
        complain(
            "streamed",
            fault.told.stream(&mut ask.streamed().stream(&rig.server)),
        );
        rig.assert_nothing_is_left(fault.name);
        let requests = upstream.requests();
        let asked = requests.iter().filter(|r| r.model() == fault.name);
        complain("calls", equal(asked.count(), 2));
        let again = Ask::of(&format!("f{index}/well")).answer(&rig.server);
        complain("once it is well", Told::Answer.whole(&again));
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
    rig.assert_all_is_back();
}

impl Told {
    /// A question to `model` that has no more time than is needed to be told so.
    fn ask(self, model: &str) -> Ask {
        match self {
            Told::Answer | Told::Error(..) => Ask::of(model),
            Told::Late => Ask::of(model).within(PATIENCE),
        }
    }
}

impl Told {
    /// Whether a whole answer is told so.
    ///
    /// # Errors
    /// How it is told instead.
    fn whole(self, answer: &Response) -> Result<(), String> {
        let (status, expected) = match self {
            Told::Answer => return equal((answer.status, said(&answer.json())), (200, WELL)),
            Told::Error(status, code) => (status, code),
            Told::Late => (504, "deadline_exceeded"),
        };
        let json = answer.json();
        let code = json["error"]["code"].as_str().unwrap_or("no error");
        equal((answer.status, code), (status, expected))?;
        let fault = match self {
            Told::Late => "gateway_error",
            Told::Answer | Told::Error(..) => "provider_error",
        };
        equal(json["error"]["type"].as_str(), Some(fault))?;
        equal(answer.header("x-attempts"), Some("1"))
    }

    /// Whether a stream is told so. One that fails is never told as whole; whether it has begun by then is the provider's
    /// affair.
    ///
    /// # Errors
    /// How it is told instead.
    fn stream(self, stream: &mut Stream) -> Result<(), String> {
        if stream.status != 200 {
            let (status, code) = match self {
                Told::Answer => (200, WELL),
                Told::Error(status, code) => (status, code),
                Told::Late => (504, "deadline_exceeded"),
            };
            let json = stream.rest().json();
            let told = json["error"]["code"].as_str().unwrap_or("no error");
            return equal((stream.status, told), (status, code));
        }
        let (events, end) = read(stream);
        let done = events.contains(&Event::Data("[DONE]".into()));
        let last = events.last().and_then(Event::json).unwrap_or_default();
        let code = match self {
            Told::Answer => {
                equal((end, done), (Ok(()), true))?;
                let pieces = events.iter().filter_map(Event::json);
                return equal(
                    &*pieces
                        .map(|piece| said(&piece).to_owned())
                        .collect::<String>(),
                    WELL,
                );
            }
            Told::Error(_, code) => code,
            Told::Late => "deadline_exceeded",
        };
        equal((end, done), (Err(Broken), false))?;
        equal(last["error"]["code"].as_str(), Some(code))
    }
}

/// What an answer, or a piece of one, says.
fn said(json: &Value) -> &str {
    let choice = &json["choices"][0];
    let content = choice["message"]["content"].as_str();
    content
        .or(choice["delta"]["content"].as_str())
        .unwrap_or_default()
}

fn equal<T: PartialEq + std::fmt::Debug>(told: T, expected: T) -> Result<(), String> {
    match told == expected {
        true => Ok(()),
        false => Err(format!("told as {told:?}, expected is {expected:?}")),
    }
}

/// What there is of a stream, and how it ended; what is no stream has no events.
fn read(stream: &mut Stream) -> (Vec<Event>, Result<(), Broken>) {
    let mut events = Vec::new();
    loop {
        match stream.event() {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return (events, Ok(())),
            Err(broken) => return (events, Err(broken)),
        }
    }
}

#[test]
fn whoever_is_there_and_no_provider() {
    let unread = |stream: TcpStream| {
        // Not a byte is read; the client's end is waited for all the same.
        let _ = poll(&mut [PollFd::new(&stream, PollFlags::RDHUP)], None);
    };
    let hasty = |mut stream: TcpStream| {
        let _ = stream.write_all(b"220 smtp.example ESMTP\r\n");
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    };
    let cases = [
        ("closes at once", Peer::start(drop), INCOMPLETE),
        (
            "reads nothing and says nothing",
            Peer::start(unread),
            Told::Late,
        ),
        ("speaks before it is asked", Peer::start(hasty), MALFORMED),
    ];
    let urls: Vec<String> = cases.iter().map(|(_, peer, _)| peer.url()).collect();
    let rig = Rig::new(&urls);
    // More than any socket takes unread.
    let large = "x".repeat(8 << 20);
    for (index, (what, _, told)) in cases.iter().enumerate() {
        let mut ask = told.ask(&format!("f{index}/m"));
        if let Told::Late = told {
            ask = ask.saying(&large);
        }
        assert_eq!(told.whole(&ask.answer(&rig.server)), Ok(()), "{what}");
        rig.assert_nothing_is_left(what);
        let streamed = told.stream(&mut ask.streamed().stream(&rig.server));
        assert_eq!(streamed, Ok(()), "{what}");
        rig.assert_nothing_is_left(what);
    }
}

#[test]
fn a_redirect_is_not_followed_and_is_told_as_one() {
    let elsewhere = Upstream::start(Script::text("you should not be here"));
    let upstream = Upstream::start(Script::Silent);
    let rig = Rig::new(&[upstream.url()]);
    for status in [301, 302, 303, 307, 308] {
        let target = format!("{}/chat/completions", elsewhere.url());
        let header = ("Location".to_owned(), target);
        upstream.next(Script::Status(status, json!({}), vec![header]));
        let answer = Ask::of("f0/m").answer(&rig.server);
        assert_eq!(MALFORMED.whole(&answer), Ok(()), "{status}");
        let message = answer.json()["error"]["message"].to_string();
        assert!(message.contains("redirect"), "{status}: {message}");
        assert!(
            message.contains("providers.f0.base_url"),
            "{status}: {message}"
        );
        rig.assert_nothing_is_left("a redirect");
    }
    assert_eq!(
        elsewhere.connections(),
        0,
        "with our key, to wherever it said"
    );
}

#[test]
fn a_wait_that_makes_no_sense_is_none() {
    let waits = [
        "-5",
        "soon",
        "",
        "NaN",
        "inf",
        "1e400",
        "99999999999999999999",
        "Fri, 99 Foo 2026 25:00:00 GMT",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "5, 10",
    ];
    let upstream = Upstream::start(Script::text("well again"));
    for wait in waits {
        let model = format!("wait {wait}");
        upstream.on_model(&model, Script::rate_limited(wait));
    }
    let rig = Rig::new(&vec![upstream.url(); waits.len()]);
    for (index, wait) in waits.iter().enumerate() {
        let ask = Ask::of(&format!("f{index}/wait {wait}"));
        let answer = ask.answer(&rig.server);
        assert_eq!(
            Told::Error(429, "provider_rate_limited").whole(&answer),
            Ok(()),
            "{}",
            wait
        );
        let after = answer
            .header("retry-after")
            .and_then(|text| text.parse::<u64>().ok());
        assert!(
            after.is_some_and(|seconds| (1..=60).contains(&seconds)),
            "{wait}: {after:?}"
        );
        rig.assert_nothing_is_left(wait);
    }
}

#[test]
fn a_connection_that_ends_as_it_is_used_again_costs_nothing_and_one_that_is_new_is_not_replaced() {
    let upstream = Upstream::start(Script::text("hello from {id}"));
    let rig = Rig::new(&[upstream.url()]);
    let ask = || Ask::of("f0/m");
    for (number, end) in [Script::HalfClose, Script::Reset].into_iter().enumerate() {
        assert_eq!(ask().answer(&rig.server).status, 200);
        upstream.next(end);
        let answer = ask().answer(&rig.server);
        let expected = format!("hello from up-{}", 3 * (number + 1));
        assert_eq!(
            text(&answer),
            expected,
            "asked once more, on a new connection"
        );
        assert_eq!(answer.header("x-attempts"), Some("1"));
        rig.assert_nothing_is_left("an old connection");
    }
    assert_eq!(upstream.connections(), 3);
    // The second connection in a row that ends is no matter of age.
    upstream.next(Script::HalfClose);
    upstream.next(Script::HalfClose);
    assert_eq!(
        INCOMPLETE.whole(&ask().answer(&rig.server)),
        Ok(()),
        "{}",
        "twice"
    );
    upstream.next(Script::HalfClose);
    assert_eq!(
        INCOMPLETE.whole(&ask().answer(&rig.server)),
        Ok(()),
        "{}",
        "a new one"
    );
    assert_eq!(upstream.requests().len(), 9);
    rig.assert_nothing_is_left("a new connection");
}
