//! Resends: a client that loses patience and sends the same again gets the answer of the call that runs, and no second call is made.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    Ask, Client, Gate, Response, Script, Server, Upstream, code, eventually, text,
};

/// No grace in a test that uses it ends by itself.
const LONG: &str = "server.resend_grace = \"60s\"";

/// A server whose provider `mine` is an upstream that answers when the gate opens.
struct Rig {
    gate: Gate,
    upstream: Upstream,
    server: Server,
}

impl Rig {
    fn new(config: &str) -> Rig {
        let gate = Gate::new();
        let upstream = Upstream::start(Script::gated(&gate));
        let url = upstream.url();
        let server = Server::start(&format!(
            "log.level = \"info\"\nproviders.mine.kind = \"openai\"\nproviders.mine.base_url = \"{url}\"\n{config}\n"
        ));
        Rig {
            gate,
            upstream,
            server,
        }
    }

    /// Sends what makes the first call, and waits until it runs.
    fn begin(&self, ask: &Ask) -> Client {
        let client = ask.send(&self.server);
        self.upstream.wait_for_in_flight(1);
        client
    }

    /// Sends what shares a call, and waits until that is on record.
    fn join(&self, ask: &Ask, id: &str) -> Client {
        let client = ask.clone().id(id).send(&self.server);
        eventually("it joins", || {
            steps(&self.server, id).contains(&"JOINED".into())
        });
        client
    }

    /// Hangs up, and waits until that is noticed.
    fn leave(&self, client: Client, id: &str) {
        drop(client);
        eventually("nobody waits for it", || {
            let request = self.server.page(&format!("/api/requests/{id}"));
            request["active"]["clients"] == 0
        });
    }

    fn calls(&self) -> usize {
        self.upstream.requests().len()
    }

    /// Sends what is no resend of anything, and sees that it makes a call of its own: the upstream's second.
    fn makes_its_own_call(&self, ask: &Ask) {
        let mut client = ask.send(&self.server);
        self.upstream.wait_for_in_flight(2);
        self.gate.release();
        let answer = client.response().expect("an answer");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-joined"), None);
        assert_eq!(self.calls(), 2);
    }
}

/// What OpenAI's client for Python sends, the `retry`th time.
fn sdk(retry: u32) -> Ask {
    Ask::of("mine/m")
        .session("agent-1")
        .header("Authorization", "Bearer none")
        .header("User-Agent", "OpenAI/Python 3.52.0")
        .header("X-Stainless-Lang", "python")
        .header("X-Stainless-Async", "false")
        .header("x-stainless-read-timeout", "600")
        .header("x-stainless-retry-count", &retry.to_string())
}

/// A request under the key `again-1`.
fn keyed() -> Ask {
    Ask::of("mine/m")
        .session("agent-1")
        .header("Idempotency-Key", "again-1")
}

/// The names of the steps of a request's story so far.
fn steps(server: &Server, id: &str) -> Vec<String> {
    let story = server.page(&format!("/api/requests/{id}"));
    let steps = story["steps"].as_array().cloned().unwrap_or_default();
    let name = |step: &Value| step["step"].as_str().map(str::to_owned);
    steps.iter().filter_map(name).collect()
}

/// An answer that came from the call of the request `host`.
fn assert_joined(answer: &Response, host: &str, own: &str, said: &str) {
    assert_eq!((answer.status, text(answer).as_str()), (200, said));
    assert_eq!(answer.header("x-joined"), Some(host));
    assert_eq!(answer.header("x-request-id"), Some(own));
    assert_eq!(answer.header("x-attempts"), Some("1"));
    let ours = answer.json()["pointsman"].clone();
    assert_eq!(
        (&ours["joined"], &ours["request_id"]),
        (&host.into(), &own.into())
    );
}

#[test]
fn what_openais_client_sends_again_joins_the_call_that_runs() {
    let rig = Rig::new("");
    let mut first = rig.begin(&sdk(0).id("r-1"));
    let mut again = rig.join(&sdk(1), "r-2");
    let mut once_more = rig.join(&sdk(2), "r-3");
    let status = rig.server.page("/api/status");
    assert_eq!(status["slots"]["global"]["in_use"], 1, "{status:#}");
    assert_eq!(status["queue"]["waiting"], 0);
    rig.gate.release();
    let answer = first.response().expect("an answer");
    assert_eq!((answer.status, answer.header("x-joined")), (200, None));
    assert_eq!(answer.json()["pointsman"].get("joined"), None);
    let said = text(&answer);
    assert_joined(&again.response().expect("an answer"), "r-1", "r-2", &said);
    assert_joined(
        &once_more.response().expect("an answer"),
        "r-1",
        "r-3",
        &said,
    );
    rig.server.wait_until_idle();
    assert_eq!(rig.calls(), 1);
    let status = rig.server.page("/api/status");
    assert_eq!(status["slots"]["taken"], 1);
    assert_eq!(
        status["requests"]["completed"], 3,
        "each is a request of its own"
    );
}

#[test]
fn a_joiner_has_a_story_and_a_line_of_its_own() {
    let rig = Rig::new("");
    let mut first = rig.begin(&keyed().id("r-1"));
    let mut again = rig.join(&keyed(), "r-2");
    let active = rig.server.page("/api/requests")["active"].clone();
    assert_eq!(active[0]["request_id"], "r-1", "{active:#}");
    assert_eq!(
        (&active[0]["state"], &active[0]["clients"]),
        (&"PROCESSING".into(), &2.into())
    );
    assert_eq!(
        (&active[1]["state"], &active[1]["joined"]),
        (&"JOINED".into(), &"r-1".into())
    );
    rig.gate.release();
    for client in [&mut first, &mut again] {
        assert_eq!(client.response().expect("an answer").status, 200);
    }
    assert_eq!(
        steps(&rig.server, "r-2"),
        ["RECEIVED", "JOINED", "COMPLETED"]
    );
    let story = rig.server.page("/api/requests/r-2");
    let last = &story["steps"][2];
    assert_eq!(
        (&last["joined"], &last["session"]),
        (&"r-1".into(), &"agent-1".into())
    );
    let line = rig.server.wait_for_log("request r-2 completed");
    assert!(
        line.contains("attempts=0") && line.contains("reason=\"joined r-1: "),
        "{line}"
    );
}

#[test]
fn a_resend_under_the_same_key_gets_the_call_whose_client_has_left() {
    for (first, again) in [(keyed(), keyed()), (sdk(0), sdk(1))] {
        let rig = Rig::new(LONG);
        let client = rig.begin(&first.id("r-1"));
        rig.leave(client, "r-1");
        let mut again = rig.join(&again, "r-2");
        rig.gate.release();
        let answer = again.response().expect("an answer");
        assert_joined(&answer, "r-1", "r-2", "hello from up-1");
        rig.server.wait_until_idle();
        assert_eq!(rig.calls(), 1);
    }
}

#[test]
fn an_answer_that_nobody_waited_for_is_there_for_the_resend() {
    let rig = Rig::new(LONG);
    let client = rig.begin(&sdk(0).id("r-1"));
    rig.leave(client, "r-1");
    rig.gate.release();
    rig.server.wait_until_idle();
    let answer = sdk(1).id("r-2").answer(&rig.server);
    assert_joined(&answer, "r-1", "r-2", "hello from up-1");
    assert_eq!(
        steps(&rig.server, "r-2"),
        ["RECEIVED", "JOINED", "COMPLETED"]
    );
    assert_eq!(rig.calls(), 1);
}

#[test]
fn a_failure_that_nobody_waited_for_is_tried_again() {
    let rig = Rig::new(LONG);
    let broken = Script::error(400, "invalid_request_error", "broken");
    rig.upstream
        .next(Script::Gate(rig.gate.clone(), Box::new(broken)));
    let client = rig.begin(&sdk(0).id("r-1"));
    rig.leave(client, "r-1");
    rig.gate.release();
    rig.server.wait_until_idle();
    let answer = sdk(1).answer(&rig.server);
    assert_eq!(
        (text(&answer).as_str(), answer.header("x-joined")),
        ("hello from up-2", None)
    );
}

#[test]
fn a_failure_is_told_to_all_who_wait() {
    let rig = Rig::new("");
    let broken = Script::error(400, "invalid_request_error", "broken");
    rig.upstream
        .next(Script::Gate(rig.gate.clone(), Box::new(broken)));
    let mut clients = [rig.begin(&sdk(0)), rig.join(&sdk(1), "r-2")];
    rig.gate.release();
    for client in &mut clients {
        let answer = client.response().expect("an answer");
        assert_eq!(
            (answer.status, code(&answer).as_str()),
            (400, "invalid_request")
        );
    }
    assert_eq!(steps(&rig.server, "r-2"), ["RECEIVED", "JOINED", "ERROR"]);
    assert_eq!(rig.calls(), 1);
}

#[test]
fn a_call_that_nobody_comes_back_for_is_cut_when_its_grace_is_over() {
    let rig = Rig::new("server.resend_grace = \"200ms\"");
    let client = rig.begin(&sdk(0).id("r-1"));
    let left = Instant::now();
    drop(client);
    rig.upstream.wait_for_closed(1);
    let took = left.elapsed();
    assert!(took >= Duration::from_millis(200), "{took:?}");
    rig.server.wait_until_idle();
    assert_eq!(
        steps(&rig.server, "r-1").last().map(String::as_str),
        Some("CANCELLED")
    );
    // Whoever comes now is too late to join it.
    rig.gate.release();
    assert_eq!(text(&sdk(1).answer(&rig.server)), "hello from up-2");
}

#[test]
fn the_grace_begins_anew_with_each_client_that_leaves() {
    let rig = Rig::new("server.resend_grace = \"500ms\"");
    let first = rig.begin(&sdk(0).id("r-1"));
    let again = rig.join(&sdk(1), "r-2");
    drop(first);
    let left = Instant::now();
    drop(again);
    rig.upstream.wait_for_closed(1);
    let took = left.elapsed();
    assert!(took >= Duration::from_millis(500), "{took:?}");
    rig.server.wait_until_idle();
    assert_eq!(
        steps(&rig.server, "r-2"),
        ["RECEIVED", "JOINED", "CANCELLED"]
    );
}

#[test]
fn a_joiner_has_its_own_deadline_and_ends_nobody_elses_call() {
    let rig = Rig::new("");
    let mut first = rig.begin(&sdk(0));
    let (start, hasty) = (Instant::now(), sdk(1).within("300ms").id("r-2"));
    let answer = hasty.answer(&rig.server);
    let took = start.elapsed();
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (504, "deadline_exceeded")
    );
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    assert_eq!(answer.header("x-timeout"), Some("300ms (asked for)"));
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert_eq!(steps(&rig.server, "r-2"), ["RECEIVED", "JOINED", "TIMEOUT"]);
    rig.gate.release();
    assert_eq!(
        text(&first.response().expect("an answer")),
        "hello from up-1"
    );
    rig.server.wait_until_idle();
    assert_eq!(rig.calls(), 1);
}

#[test]
fn a_call_whose_last_joiner_is_out_of_time_runs_for_nobody_and_is_cut() {
    let rig = Rig::new(LONG);
    let first = rig.begin(&sdk(0).id("r-1"));
    rig.leave(first, "r-1");
    let answer = sdk(1).within("300ms").answer(&rig.server);
    assert_eq!(answer.status, 504);
    rig.upstream.wait_for_closed(1);
    rig.server.wait_until_idle();
}

#[test]
fn a_joiner_with_time_left_goes_on_alone_when_the_call_has_none() {
    let rig = Rig::new("");
    rig.upstream.next(Script::Silent);
    let mut first = rig.begin(&sdk(0).within("1500ms").id("r-1"));
    let mut patient = rig.join(&sdk(1).within("20s"), "r-2");
    let mut another = rig.join(&sdk(2).within("20s"), "r-3");
    assert_eq!(first.response().expect("an answer").status, 504);
    eventually("one of them makes a call, and the other joins it", || {
        let page = rig.server.page("/api/requests");
        let active = page["active"].as_array().expect("a list");
        let joined = |id: &str| active.iter().any(|request| request["joined"] == id);
        active.len() == 2 && (joined("r-2") || joined("r-3"))
    });
    // The upstream may see the end of the first call later than the beginning of the next one.
    rig.upstream.wait_for_requests(2);
    rig.upstream.wait_for_in_flight(1);
    rig.gate.release();
    let answers = [&mut patient, &mut another].map(|client| client.response().expect("an answer"));
    rig.server.wait_until_idle();
    assert_eq!(rig.upstream.requests().len(), 2, "one call for both");
    let [patient, another] = &answers;
    for answer in &answers {
        assert_eq!(answer.status, 200, "{:#}", answer.json());
    }
    assert!(patient.header("x-joined") != Some("r-1") && another.header("x-joined") != Some("r-1"));
    let status = rig.server.page("/api/status");
    let counts = &status["requests"];
    assert_eq!(
        (&counts["received"], &counts["timeout"]),
        (&3.into(), &1.into()),
        "{counts:#}"
    );
    for id in ["r-2", "r-3"] {
        let story = rig.server.page(&format!("/api/requests/{id}"));
        assert_eq!(story["earlier"], Value::Array(vec![]), "one story");
        let steps = steps(&rig.server, id);
        assert_eq!(steps[..2], ["RECEIVED", "JOINED"], "{steps:?}");
        assert_eq!(steps.iter().filter(|step| *step == "RECEIVED").count(), 1);
        assert_eq!(steps.last().map(String::as_str), Some("COMPLETED"));
    }
}

#[test]
fn another_body_is_another_call() {
    let rig = Rig::new("");
    let _first = rig.begin(&sdk(0));
    rig.makes_its_own_call(&sdk(1).saying("something else"));
}

#[test]
fn another_session_is_another_call() {
    for (header, value) in [
        ("Idempotency-Key", "again-1"),
        ("x-stainless-retry-count", "1"),
    ] {
        let rig = Rig::new("");
        let ask = |session: &str| Ask::of("mine/m").session(session).header(header, value);
        let _first = rig.begin(&ask("agent-1"));
        rig.makes_its_own_call(&ask("agent-2"));
    }
}

#[test]
fn no_session_is_nobody_to_join() {
    let rig = Rig::new("");
    let ask = Ask::of("mine/m").header("Idempotency-Key", "again-1");
    let _first = rig.begin(&ask);
    rig.makes_its_own_call(&ask);
}

#[test]
fn a_request_that_is_no_resend_is_a_call_of_its_own() {
    let rig = Rig::new("");
    let _first = rig.begin(&sdk(0));
    rig.makes_its_own_call(&sdk(0));
}

#[test]
fn of_two_that_look_alike_a_resend_takes_the_one_whose_client_has_left() {
    let rig = Rig::new(LONG);
    let _first = rig.begin(&sdk(0).id("r-1"));
    let second = sdk(0).id("r-2").send(&rig.server);
    rig.upstream.wait_for_in_flight(2);
    rig.leave(second, "r-2");
    let mut again = rig.join(&sdk(1), "r-3");
    rig.gate.release();
    let answer = again.response().expect("an answer");
    assert_eq!(answer.header("x-joined"), Some("r-2"));
    assert_eq!(rig.calls(), 2);
}

#[test]
fn a_stream_joins_nothing_and_is_not_joined() {
    let rig = Rig::new("");
    let _first = rig.begin(&sdk(0).streamed());
    rig.makes_its_own_call(&sdk(1).streamed());
    let rig = Rig::new("");
    let _first = rig.begin(&keyed());
    rig.makes_its_own_call(&keyed().streamed());
}

#[test]
fn another_api_key_is_another_call() {
    let keys = "server.keys = [{ name = \"a\", key_env = \"A_KEY\" }, { name = \"b\", key_env = \"B_KEY\" }]";
    let (gate, environment) = (Gate::new(), [("A_KEY", "pk-a"), ("B_KEY", "pk-b")]);
    let upstream = Upstream::start(Script::gated(&gate));
    let url = upstream.url();
    let config =
        format!("{keys}\nproviders.mine = {{ kind = \"openai\", base_url = \"{url}\" }}\n");
    let server = Server::start_with(&config, &environment);
    let ask = |key: &str| keyed().header("Authorization", key).send(&server);
    let mut clients = [ask("Bearer pk-a"), ask("Bearer pk-b")];
    upstream.wait_for_in_flight(2);
    gate.release();
    for client in &mut clients {
        let answer = client.response().expect("an answer");
        assert_eq!((answer.status, answer.header("x-joined")), (200, None));
    }
}

#[test]
fn a_key_that_stands_for_another_body_is_refused_in_words() {
    let rig = Rig::new("");
    let mut first = rig.begin(&keyed().id("r-1"));
    let answer = keyed().saying("something else").answer(&rig.server);
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (422, "idempotency_key_reused")
    );
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    let message = answer.json()["error"]["message"].to_string();
    assert!(
        message.contains("again-1") && message.contains("r-1"),
        "{message}"
    );
    rig.gate.release();
    assert_eq!(first.response().expect("an answer").status, 200);
    // What is over stands in nobody's way.
    rig.server.wait_until_idle();
    assert_eq!(
        keyed().saying("something else").answer(&rig.server).status,
        200
    );
}

#[test]
fn a_key_of_no_or_too_many_characters_is_refused_in_words() {
    let rig = Rig::new("");
    for key in [String::new(), "x".repeat(256)] {
        let ask = Ask::of("mine/m")
            .session("a")
            .header("Idempotency-Key", &key);
        let answer = ask.answer(&rig.server);
        assert_eq!(
            (answer.status, code(&answer).as_str()),
            (400, "invalid_request")
        );
        let message = answer.json()["error"]["message"].to_string();
        assert!(
            message.contains("Idempotency-Key") && message.contains("1 to 255"),
            "{message}"
        );
    }
    assert_eq!(rig.calls(), 0);
}

#[test]
fn without_grace_nobody_joins_and_nothing_outlives_its_client() {
    let rig = Rig::new("server.resend_grace = \"0s\"");
    let first = rig.begin(&keyed());
    let second = keyed().send(&rig.server);
    rig.upstream.wait_for_in_flight(2);
    drop((first, second));
    rig.upstream.wait_for_closed(2);
    rig.server.wait_until_idle();
}

#[test]
fn a_request_that_says_nothing_of_resends_ends_with_its_client() {
    let rig = Rig::new(LONG);
    drop(rig.begin(&Ask::of("mine/m").session("agent-1")));
    rig.upstream.wait_for_closed(1);
    rig.server.wait_until_idle();
}

/// Ends a request by its id: how many there were.
fn cancel(server: &Server, id: &str) -> Value {
    let mut client = server.client();
    client.request("DELETE", &format!("/api/requests/{id}"), &[], None);
    client.response().expect("an answer").json()["cancelled"].clone()
}

#[test]
fn ending_the_call_ends_all_who_share_it() {
    let rig = Rig::new("");
    let mut clients = [rig.begin(&sdk(0).id("r-1")), rig.join(&sdk(1), "r-2")];
    assert_eq!(cancel(&rig.server, "r-1"), 1);
    for client in &mut clients {
        let answer = client.response().expect("an answer");
        assert_eq!((answer.status, code(&answer).as_str()), (499, "cancelled"));
    }
    rig.upstream.wait_for_closed(1);
    assert_eq!(
        steps(&rig.server, "r-2"),
        ["RECEIVED", "JOINED", "CANCELLED"]
    );
    rig.server.wait_until_idle();
}

#[test]
fn ending_a_joiner_ends_it_alone_and_the_last_one_with_its_call() {
    let rig = Rig::new(LONG);
    let first = rig.begin(&sdk(0).id("r-1"));
    for id in ["r-2", "r-3"] {
        let mut joiner = rig.join(&sdk(1), id);
        assert_eq!(cancel(&rig.server, id), 1);
        assert_eq!(joiner.response().expect("an answer").status, 499);
    }
    assert_eq!(rig.upstream.in_flight(), 1, "it goes on");
    rig.leave(first, "r-1");
    let mut last = rig.join(&sdk(1), "r-4");
    assert_eq!(cancel(&rig.server, "r-4"), 1);
    assert_eq!(last.response().expect("an answer").status, 499);
    rig.upstream.wait_for_closed(1);
    rig.server.wait_until_idle();
}

#[test]
fn whoever_shares_a_call_is_answered_while_it_drains() {
    let mut rig = Rig::new("");
    let mut clients = [rig.begin(&sdk(0)), rig.join(&sdk(1), "r-2")];
    rig.server.signal(Signal::TERM);
    rig.server.wait_for_log("stopping");
    rig.gate.release();
    for client in &mut clients {
        assert_eq!(
            text(&client.response().expect("an answer")),
            "hello from up-1"
        );
    }
    assert_eq!(rig.server.wait().code(), Some(0));
}

#[test]
fn a_grace_holds_up_no_stop() {
    let mut rig = Rig::new(&format!("{LONG}\nserver.drain = \"100ms\""));
    let kept = Gate::new();
    rig.upstream.next(Script::gated(&kept));
    let answered = rig.begin(&sdk(0).id("r-1"));
    rig.leave(answered, "r-1");
    kept.release();
    rig.server.wait_until_idle();
    let running = rig.begin(&sdk(0).id("r-2"));
    rig.leave(running, "r-2");
    let start = Instant::now();
    rig.server.signal(Signal::TERM);
    assert_eq!(rig.server.wait().code(), Some(0));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let log = rig.server.whole_log().join("\n");
    assert!(!log.contains("ERROR"), "{log}");
}
