//! Slots: in flight never exceeds a limit, whoever waits holds nothing, and each permit comes back.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{
    Answer, Ask, Client, Gate, Script, Server, Upstream, at_once, eventually, text,
};

/// What is answered without waiting for anybody is answered within this, however busy the machine is.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A provider named `name` at `upstream`, with so many slots.
fn provider(name: &str, upstream: &Upstream, slots: usize) -> String {
    let url = upstream.url();
    format!(
        "providers.{name}.kind = \"openai\"\nproviders.{name}.base_url = \"{url}\"\nproviders.{name}.max_inflight = {slots}\n"
    )
}

fn profile(name: &str) -> String {
    format!("profile = \"{name}\"\n")
}

/// Answers that take so long.
fn slow(millis: u64) -> Script {
    Script::Answer(Answer {
        delay: Duration::from_millis(millis),
        ..Answer::default()
    })
}

fn in_use(status: &Value) -> u64 {
    status["slots"]["global"]["in_use"]
        .as_u64()
        .expect("a count")
}

fn peak(server: &Server) -> u64 {
    let status = server.page("/api/status");
    status["slots"]["global"]["peak"].as_u64().expect("a count")
}

/// All are answered, and well.
fn read_all(clients: Vec<Client>) {
    for (index, mut client) in clients.into_iter().enumerate() {
        let response = client.response().expect("an answer");
        assert_eq!(response.status, 200, "{index}: {:#}", response.json());
    }
}

/// Fifty callers stand before a provider that says nothing; a call to another provider does not notice.
fn a_silent_provider(own_limit: usize, held: u64, of_session: fn(Ask, usize) -> Ask) {
    let (silent, other) = (
        Upstream::start(Script::Silent),
        Upstream::start(Script::text("well")),
    );
    let config = profile("dev") + &provider("a", &silent, own_limit) + &provider("b", &other, 5);
    let server = Server::start(&config);
    let stuck: Vec<Client> = (0..50)
        .map(|index| of_session(Ask::of("a/m"), index).send(&server))
        .collect();
    server.wait_for_status("all stand there", |status| {
        in_use(status) == held && status["queue"]["waiting"] == 50 - held
    });
    silent.wait_for_in_flight(held as usize);
    let start = Instant::now();
    let answer = Ask::of("b/m").session("another").answer(&server);
    assert_eq!(text(&answer), "well");
    assert!(start.elapsed() < AT_ONCE, "it waited");
    assert_eq!(silent.in_flight() as u64, held, "the others still stand");
    drop(stuck);
    server.wait_until_idle();
}

#[test]
fn a_silent_provider_keeps_nobody_from_another_provider() {
    a_silent_provider(2, 2, |ask, _| ask);
    a_silent_provider(2, 2, |ask, index| ask.session(&index.to_string()));
}

#[test]
fn a_silent_provider_whose_limit_is_the_global_one_keeps_nobody_from_another_provider() {
    // One of the five global slots is kept for the other provider.
    a_silent_provider(5, 4, |ask, _| ask);
    a_silent_provider(5, 4, |ask, index| ask.session(&index.to_string()));
}

/// Whose the requests are.
type Dress = fn(Ask, usize) -> Ask;

/// Fifty callers at once before an upstream that takes 200 ms: all are answered, and the upstream never sees more
/// than `limit` of them together, nor fewer than that at the busiest.
fn fifty_callers(config: &str, slots: usize, limit: usize, dress: Dress) {
    let upstream = Upstream::start(slow(200));
    let server = Server::start(&(config.to_owned() + &provider("mine", &upstream, slots)));
    let callers: Vec<Client> = (0..50)
        .map(|index| dress(Ask::of("mine/m"), index).send(&server))
        .collect();
    read_all(callers);
    assert_eq!(upstream.peak(), limit);
    assert_eq!(upstream.requests().len(), 50, "one call each");
    assert_eq!(peak(&server), limit as u64);
    server.wait_until_idle();
    let refused = &server.page("/api/status")["requests"]["refused"];
    assert_eq!(refused, 0);
}

/// The cases of a profile side by side, each with a server of its own: the provider's slots, the limit that counts, and
/// whose the requests are.
fn check_limits(name: &str, cases: &[(usize, usize, Dress)]) {
    at_once(cases.len(), |case| {
        let (slots, limit, dress) = cases[case];
        fifty_callers(&profile(name), slots, limit, dress);
    });
}

fn nameless(ask: Ask, _: usize) -> Ask {
    ask
}

fn each_a_session(ask: Ask, index: usize) -> Ask {
    ask.session(&format!("agent-{index}"))
}

fn one_session(ask: Ask, _: usize) -> Ask {
    ask.session("agent")
}

#[test]
fn no_limit_is_exceeded_and_nobody_is_refused_in_dev() {
    let cases: [(_, _, Dress); 3] = [(50, 5, nameless), (50, 5, each_a_session), (4, 4, nameless)];
    check_limits("dev", &cases);
}

#[test]
fn no_limit_is_exceeded_and_nobody_is_refused_in_demo() {
    let cases: [(_, _, Dress); 4] = [
        (50, 15, nameless),
        (50, 15, each_a_session),
        (8, 8, each_a_session),
        (50, 5, one_session),
    ];
    check_limits("demo", &cases);
}

#[test]
fn no_limit_is_exceeded_and_nobody_is_refused_in_prod() {
    let cases: [(_, _, Dress); 4] = [
        (50, 24, nameless),
        (50, 24, each_a_session),
        (8, 8, nameless),
        (50, 8, one_session),
    ];
    check_limits("prod", &cases);
}

/// So many agents at once before the embedded provider of a demo: all are answered under half a second, and all at once.
fn agents_of_a_demo(count: usize) {
    let config = profile("demo")
        + "providers.embedded.latency = \"50ms\"\nproviders.embedded.pace = \"0ms\"\n";
    let server = Server::start(&config);
    eventually("all of them are in flight at once", || {
        let callers: Vec<Client> = (0..count)
            .map(|index| each_a_session(Ask::of("embedded"), index).send(&server))
            .collect();
        let start = Instant::now();
        read_all(callers);
        assert!(start.elapsed() < AT_ONCE);
        peak(&server) == count as u64
    });
    let requests = &server.page("/api/status")["requests"];
    assert_eq!(requests["refused"], 0);
    assert_eq!(requests["completed"], requests["received"]);
}

#[test]
fn ten_twelve_and_fifteen_agents_of_a_demo_are_served_at_once() {
    [10, 12, 15].into_iter().for_each(agents_of_a_demo);
}

#[test]
fn a_session_that_runs_for_longer_than_sessions_are_remembered_keeps_its_limit() {
    let gate = Gate::new();
    let upstream = Upstream::start(Script::text("quick"));
    upstream.on_model("slow", Script::gated(&gate));
    let config = profile("test")
        + &provider("mine", &upstream, 5)
        + "limits.session = 1\nlimits.session_idle = \"1s\"\n";
    let server = Server::start(&config);
    let ask = Ask::of("mine/slow").session("long");
    let mut first = ask.send(&server);
    upstream.wait_for_in_flight(1);
    eventually("the session is older than a session may idle", || {
        let requests = server.page("/api/requests");
        requests["active"][0]["age_s"]
            .as_f64()
            .is_some_and(|age| age > 1.1)
    });
    // Idle sessions are forgotten when others come.
    for name in ["b", "c", "d"] {
        let answer = Ask::of("mine/quick").session(name).answer(&server);
        assert_eq!(text(&answer), "quick");
    }
    let mut second = ask.send(&server);
    server.wait_for_status("the second call waits", |status| {
        status["queue"]["waiting"] == 1
    });
    assert_eq!(upstream.in_flight(), 1);
    gate.release();
    for client in [&mut first, &mut second] {
        assert_eq!(client.response().expect("an answer").status, 200);
    }
}

#[test]
fn one_session_too_many_waits_and_is_served_when_a_place_is_free() {
    let gate = Gate::new();
    let upstream = Upstream::start(Script::text("quick"));
    upstream.on_model("slow", Script::gated(&gate));
    let config = profile("test") + &provider("mine", &upstream, 5) + "limits.sessions = 2\n";
    let server = Server::start(&config);
    let holders = ["a", "b"].map(|name| Ask::of("mine/slow").session(name).send(&server));
    upstream.wait_for_in_flight(2);
    let mut third = Ask::of("mine/quick").session("c").send(&server);
    let status =
        server.wait_for_status("the third waits", |status| status["queue"]["waiting"] == 1);
    assert_eq!(status["sessions"]["active"], 2, "{status:#}");
    // Those that have a place, and those without a name, go on.
    let known = Ask::of("mine/quick").session("a").answer(&server);
    let nameless = Ask::of("mine/quick").answer(&server);
    assert_eq!([known.status, nameless.status], [200, 200]);
    gate.release();
    assert_eq!(third.response().expect("an answer").status, 200);
    read_all(holders.into());
}

#[test]
fn sessions_that_never_pause_do_not_starve_one_too_many() {
    let upstream = Upstream::start(slow(5));
    let config = profile("test")
        + &provider("mine", &upstream, 4)
        + "limits.sessions = 2\nlimits.session_turn = \"100ms\"\n";
    let server = Server::start(&config);
    let served = AtomicBool::new(false);
    // Two callers more than the session's limit keep its line from running empty.
    at_once(9, |caller| {
        if caller == 8 {
            let _over = SetOnDrop(&served);
            upstream.wait_for_requests(20);
            let answer = Ask::of("mine/m").session("newcomer").answer(&server);
            return assert_eq!(answer.status, 200);
        }
        let ask = Ask::of("mine/m").session(["a", "b"][caller % 2]);
        let mut client = server.client();
        while !served.load(Ordering::SeqCst) {
            ask.on(&mut client);
            assert_eq!(client.response().expect("an answer").status, 200);
        }
    });
    server.wait_until_idle();
}

/// The ids of a process's threads.
fn threads(server: &Server) -> BTreeSet<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).expect("it lives");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.expect("it lives").file_name();
        name.to_string_lossy().into_owned()
    };
    tasks.map(name).collect()
}

#[test]
fn no_thread_and_no_connection_is_made_per_request() {
    let upstream = Upstream::start(Script::text("well"));
    // By its name, so that a lookup per call would be seen.
    let url = upstream.url().replace("127.0.0.1", "localhost");
    let config = format!("providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"{url}\"\n");
    let server = Server::start(&(profile("test") + &config));
    let mut clients: Vec<Client> = (0..8).map(|_| server.client()).collect();
    let mut round = || {
        clients
            .iter_mut()
            .for_each(|client| Ask::of("mine/m").on(client));
        for client in &mut clients {
            assert_eq!(client.response().expect("an answer").status, 200);
        }
    };
    (0..5).for_each(|_| round());
    let (before, connections) = (threads(&server), upstream.connections());
    (0..50).for_each(|_| round());
    let after = threads(&server);
    let new = after.difference(&before).count();
    assert!(new <= 8, "{new} new threads for 400 requests");
    assert!(after.len() < 40, "{} threads", after.len());
    let new = upstream.connections() - connections;
    assert!(new <= 5, "{new} new connections for 400 requests");
}

/// Says that it is over, also when it ends with a panic: those who wait for the word would wait for ever.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One request of the storm: the first third is cut by its client, the second meets a broken upstream, the last is well.
fn storm(server: &Server, number: usize) {
    let streamed = |ask: Ask| match number % 2 {
        0 => ask,
        _ => ask.streamed(),
    };
    let session = format!("agent-{}", number % 7);
    let ask = |model: &str| streamed(Ask::of(model).session(&session));
    match number % 6 {
        0 => drop(ask("mine/silent").send(server)),
        3 => {
            let mut stream = ask("mine/stalls").stream(server);
            assert!(stream.event().expect("an event").is_some());
        }
        1 | 4 => {
            let broken = BROKEN[number / 6 % BROKEN.len()].0;
            let mut stream = ask(&format!("mine/{broken}")).stream(server);
            if stream.status == 200 {
                let events = stream.events().unwrap_or_default();
                let done = events.iter().any(|event| event.json().is_none());
                assert!(!done, "{broken} looks like a proper end: {events:#?}");
            }
        }
        _ => {
            let answer = ask("mine/well").answer(server);
            assert_eq!(answer.status, 200, "{number}");
        }
    }
}

/// Callers of the storm.
const CALLERS: usize = 16;

/// What the upstream breaks with, by model.
const BROKEN: [(&str, Script); 6] = [
    ("resets", Script::Reset),
    ("closes", Script::HalfClose),
    ("babbles", Script::Garbage),
    ("breaks-off", Script::WrongLength),
    ("bad-gateway", Script::HtmlGateway504),
    ("lies", Script::ErrorBodyWith200),
];

#[test]
fn a_thousand_requests_of_which_two_thirds_go_wrong_leave_no_slot_behind() {
    let upstream = Upstream::start(Script::text("well"));
    upstream.on_model("silent", Script::Silent);
    upstream.on_model("stalls", Script::StallAfterFirst);
    for (model, script) in BROKEN {
        upstream.on_model(model, script);
    }
    let server = Server::start(&(profile("demo") + &provider("mine", &upstream, 15)));
    let over = AtomicBool::new(false);
    at_once(2, |side| {
        if side == 0 {
            return look_at_the_gauges(&server, &over);
        }
        let _over = SetOnDrop(&over);
        at_once(CALLERS, |caller| {
            let numbers = (caller..1000).step_by(CALLERS);
            numbers.for_each(|number| storm(&server, number));
        });
    });
    server.wait_until_idle();
    upstream.wait_for_in_flight(0);
    let requests = server.page("/api/status")["requests"].clone();
    let count = |name: &str| requests[name].as_u64().expect("a count");
    let ends = ["completed", "timeout", "error", "cancelled", "refused"];
    let ended: u64 = ends.into_iter().map(count).sum();
    assert_eq!(count("received"), ended, "{requests:#}");
    assert_eq!(
        [count("completed"), count("timeout"), count("refused")],
        [333, 0, 0]
    );
    let start = Instant::now();
    assert_eq!(Ask::of("mine/well").answer(&server).status, 200);
    assert!(start.elapsed() < AT_ONCE);
}

/// No gauge is ever above its limit. (Below zero it would be far above: a count that wraps round is huge.)
fn look_at_the_gauges(server: &Server, over: &AtomicBool) {
    let mut client = server.client();
    while !over.load(Ordering::SeqCst) {
        let status = client.get("/api/status").json();
        let slots = &status["slots"];
        let within = |gauge: &Value, limit: u64| gauge.as_u64().is_some_and(|value| value <= limit);
        assert!(within(&slots["global"]["in_use"], 15), "{status:#}");
        assert!(
            within(&slots["providers"]["mine"]["in_use"], 15),
            "{status:#}"
        );
        assert!(within(&status["sessions"]["active"], 25), "{status:#}");
        assert!(within(&status["queue"]["waiting"], 100), "{status:#}");
        assert!(within(&status["requests"]["active"], 1000), "{status:#}");
    }
}
