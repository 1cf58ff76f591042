//! The library in a program of others: chats, streams and handles, several gateways, who keeps them running.

use std::time::Duration;

use pointsman::chat::ReplyBuilder;
use pointsman::engine::Phase;
use pointsman::{
    Call, CallContext, CancelReason, CancelToken, ChatError, ChatRequest, Config, ExecuteError,
    Gateway, Job, Level, Piece, Priority,
};

use crate::support::{Answer, BOUND, Client, Gate, Script, Upstream, eventually};

/// A gateway with one provider, `mine`, at `upstream`; `global` slots, and what else `more` says.
pub(crate) fn gateway(upstream: &Upstream, global: usize, more: &str) -> Gateway {
    let text = format!(
        "profile = \"test\"\nlimits.global = {global}\nproviders.mine.kind = \"openai\"\n\
         providers.mine.base_url = \"{}\"\n{more}\n",
        upstream.url()
    );
    let config = Config::from_toml(&text, "test.toml").expect("a good configuration");
    Gateway::start(config).expect("threads start")
}

fn question() -> ChatRequest {
    ChatRequest::new("mine/model").user("Say hello")
}

/// A function that does nothing, for its slots.
fn nothing(_: &CallContext) -> Result<(), String> {
    Ok(())
}

#[test]
fn a_chat_brings_the_whole_answer() {
    let upstream = Upstream::start(Script::text("you said: {prompt}"));
    let gateway = gateway(&upstream, 2, "");
    let reply = gateway.chat(question()).expect("an answer");
    assert_eq!(reply.text(), "you said: Say hello");
    assert_eq!(reply.model, "model");
}

#[test]
fn a_chat_with_a_model_that_nobody_has_is_refused_before_anything_is_submitted() {
    let upstream = Upstream::start(Script::Silent);
    let gateway = gateway(&upstream, 2, "");
    let refused = gateway.chat(ChatRequest::new("embeded").user("x"));
    let error = refused.expect_err("there is no such model");
    assert!(matches!(error, ChatError::Plan(_)), "{error:?}");
    assert!(
        error.to_string().contains("the nearest are embedded"),
        "{error}"
    );
}

#[test]
fn what_a_provider_says_comes_back_with_its_advice() {
    let upstream = Upstream::start(Script::rate_limited("7"));
    let error = gateway(&upstream, 2, "").chat(question());
    let error = error.expect_err("it is rate limited");
    assert_eq!(error.to_string(), "slow down");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
}

#[test]
fn a_chat_ends_at_its_own_deadline_and_says_how_far_it_had_come() {
    let upstream = Upstream::start(Script::Silent);
    let gateway = gateway(&upstream, 2, "");
    let job = Job::chat(question()).timeout(Duration::from_millis(300));
    let error = gateway.chat(job).expect_err("nobody answers");
    assert!(
        matches!(error, ChatError::DeadlineExceeded(expiry) if expiry.phase != Phase::Queue),
        "{error:?}"
    );
}

#[test]
fn a_stream_brings_the_same_answer_piece_by_piece() {
    let upstream = Upstream::start(Script::text("you said: {prompt}"));
    let gateway = gateway(&upstream, 2, "");
    let mut reply = ReplyBuilder::default();
    let mut deltas = 0;
    for piece in gateway.stream(question()).expect("it begins") {
        let piece = piece.expect("a piece");
        deltas += usize::from(matches!(piece, Piece::Delta(_)));
        reply.push(piece);
    }
    assert_eq!(reply.finish().text(), "you said: Say hello");
    assert!(deltas >= 3, "{deltas}");
}

#[test]
fn a_stream_that_breaks_off_says_so_at_its_end_and_only_once() {
    let upstream = Upstream::start(Script::WrongLength);
    let gateway = gateway(&upstream, 2, "");
    let mut stream = gateway.stream(question()).expect("it begins");
    let error = stream.by_ref().find_map(Result::err);
    assert!(matches!(error, Some(ChatError::Provider(_))), "{error:?}");
    assert_eq!(stream.next(), None);
}

#[test]
fn dropping_a_stream_ends_its_call() {
    let upstream = Upstream::start(Script::StallAfterFirst);
    let gateway = gateway(&upstream, 1, "");
    let mut stream = gateway.stream(question()).expect("it begins");
    stream.next().expect("one piece comes").expect("a piece");
    drop(stream);
    upstream.wait_for_closed(1);
    assert_eq!(
        gateway.execute(Call::new(), nothing),
        Ok(()),
        "its slot is free"
    );
}

#[test]
fn a_slow_consumer_holds_up_its_own_call_and_not_past_the_deadline() {
    let pieces = Answer {
        text: "x".repeat(100),
        pieces: 100,
        ..Answer::default()
    };
    let upstream = Upstream::start(Script::Answer(pieces));
    let gateway = gateway(&upstream, 1, "");
    let job = Job::chat(question()).buffer(2);
    let mut stream = gateway
        .stream(job.timeout(Duration::from_millis(1500)))
        .expect("it begins");
    stream.next().expect("one piece comes").expect("a piece");
    // The answer is in, but nobody takes it: the call waits, and keeps its slot.
    let short = Call::new().timeout(Duration::from_millis(50));
    assert_eq!(
        gateway.execute(short, nothing),
        Err(ExecuteError::DeadlineExceeded { started: false })
    );
    // At the stream's deadline the slot is free.
    assert_eq!(gateway.execute(Call::new(), nothing), Ok(()));
    let rest: Vec<_> = stream.collect();
    let (last, kept) = rest.split_last().expect("an error comes");
    assert!(
        matches!(last, Err(ChatError::DeadlineExceeded(_))),
        "{last:?}"
    );
    assert_eq!(kept.len(), 2, "what was kept is still the consumer's");
}

#[test]
fn a_submitted_job_can_be_waited_for_a_while_and_again() {
    let gate = Gate::new();
    let upstream = Upstream::start(Script::gated(&gate));
    let gateway = gateway(&upstream, 2, "");
    let job = gateway.submit(question()).expect("it is taken");
    let early = job.wait_timeout(Duration::from_millis(20));
    assert_eq!(early, Ok(None));
    gate.release();
    let reply = job.wait_timeout(BOUND).expect("it succeeds");
    let reply = reply.expect("it has come");
    assert!(reply.text().starts_with("hello from"), "{}", reply.text());
    assert_eq!(job.wait(), Ok(reply), "it stays");
}

#[test]
fn a_submitted_job_ends_when_it_is_cancelled() {
    let upstream = Upstream::start(Script::Silent);
    let gateway = gateway(&upstream, 2, "");
    let job = gateway.submit(question()).expect("it is taken");
    upstream.wait_for_requests(1);
    job.cancel();
    assert_eq!(
        job.wait(),
        Err(ChatError::Cancelled(CancelReason::Requested))
    );
    upstream.wait_for_closed(1);
}

#[test]
fn a_token_of_the_callers_ends_all_that_hang_on_it() {
    let upstream = Upstream::start(Script::Silent);
    let gateway = gateway(&upstream, 1, "");
    let token = CancelToken::new();
    let jobs = [(); 2].map(|()| {
        let job = Job::chat(question()).cancelled_by(&token);
        gateway.submit(job).expect("it is taken")
    });
    upstream.wait_for_requests(1);
    token.cancel(CancelReason::ClientLeft);
    for job in jobs {
        assert_eq!(
            job.wait(),
            Err(ChatError::Cancelled(CancelReason::ClientLeft))
        );
    }
}

#[test]
fn a_job_says_whose_it_is_how_urgent_and_under_which_id() {
    let upstream = Upstream::start(Script::Silent);
    let gateway = gateway(&upstream, 1, "");
    let server = gateway.serve().expect("it listens");
    let job = Job::chat(question())
        .session("agent-1")
        .priority(Priority::Low)
        .request_id("mine-1");
    let job = gateway.submit(job).expect("it is taken");
    upstream.wait_for_requests(1);
    let mut client = Client::connect(server.address().parse().expect("an address"));
    let page = client.get("/api/requests").json();
    let seen = &page["active"][0];
    assert_eq!(
        [&seen["request_id"], &seen["session_id"], &seen["priority"]],
        ["mine-1", "agent-1", "low"]
    );
    assert_eq!(&**job.request_id(), "mine-1");
}

#[test]
fn a_session_has_a_limit_of_its_own_and_others_pass_it() {
    let upstream = Upstream::start(Script::Silent);
    upstream.on_model("quick", Script::text("here"));
    let gateway = gateway(&upstream, 3, "limits.session = 1");
    let slow = Job::chat(question()).session("one");
    let slow = gateway.submit(slow).expect("it is taken");
    upstream.wait_for_requests(1);
    let quick = || Job::chat(ChatRequest::new("mine/quick").user("x"));
    let waits = gateway.submit(quick().session("one")).expect("it is taken");
    let other = gateway.chat(quick().session("two")).expect("an answer");
    assert_eq!(other.text(), "here");
    assert_eq!(waits.wait_timeout(Duration::ZERO), Ok(None));
    assert_eq!(
        upstream.requests().len(),
        2,
        "the first session waits for itself"
    );
    slow.cancel();
    assert_eq!(waits.wait().expect("an answer").text(), "here");
}

#[test]
fn two_gateways_in_one_process_share_nothing() {
    let (silent, other) = (
        Upstream::start(Script::Silent),
        Upstream::start(Script::text("well")),
    );
    let (one, two) = (gateway(&silent, 1, ""), gateway(&other, 1, ""));
    let stuck = one.submit(question()).expect("it is taken");
    silent.wait_for_requests(1);
    assert_eq!(two.chat(question()).expect("an answer").text(), "well");
    one.shutdown(Duration::ZERO);
    assert_eq!(
        stuck.wait(),
        Err(ChatError::Cancelled(CancelReason::Stopping))
    );
    assert_eq!(two.chat(question()).expect("an answer").text(), "well");
}

#[test]
fn dropping_the_last_of_a_gateway_stops_it_at_once() {
    let upstream = Upstream::start(Script::Silent);
    let gateway = gateway(&upstream, 1, "");
    let clone = gateway.clone();
    let [running, waiting] = [(); 2].map(|()| gateway.submit(question()).expect("it is taken"));
    upstream.wait_for_requests(1);
    drop(gateway);
    assert_eq!(
        running.wait_timeout(Duration::ZERO),
        Ok(None),
        "a clone is left"
    );
    drop(clone);
    assert_eq!(
        running.wait(),
        Err(ChatError::Cancelled(CancelReason::Stopping))
    );
    assert!(matches!(waiting.wait(), Err(ChatError::Refused(_))));
    upstream.wait_for_closed(1);
}

#[test]
fn shutting_down_lets_what_runs_finish_and_refuses_the_new() {
    let gate = Gate::new();
    let upstream = Upstream::start(Script::gated(&gate));
    let gateway = gateway(&upstream, 2, "");
    let running = gateway.submit(question()).expect("it is taken");
    upstream.wait_for_requests(1);
    let stopping = gateway.clone();
    let stop = std::thread::Builder::new().name("test-stop".into());
    let stop = stop.spawn(move || stopping.shutdown(BOUND));
    let mut refused = None;
    eventually("new jobs are refused", || {
        let probe = Job::chat(ChatRequest::new("embedded").user("x"));
        refused = gateway.chat(probe).err();
        refused.is_some()
    });
    let refused = refused.expect("a refusal");
    assert_eq!(
        refused.to_string(),
        "the request was not taken in: the gateway is stopping"
    );
    assert!(refused.retry_after().is_some());
    gate.release();
    assert!(running.wait().is_ok(), "it had time to finish");
    stop.expect("a thread starts").join().expect("no panic");
}

#[test]
fn a_gateway_serves_and_calls_at_once_under_the_same_limits() {
    let gate = Gate::new();
    let upstream = Upstream::start(Script::gated(&gate));
    let gateway = gateway(&upstream, 1, "");
    let server = gateway.serve().expect("it listens");
    let address = server.address().parse().expect("an address");
    let own = gateway.submit(question()).expect("it is taken");
    upstream.wait_for_requests(1);
    let mut client = Client::connect(address);
    let body =
        serde_json::json!({"model": "mine/model", "messages": [{"role": "user", "content": "x"}]});
    client.request("POST", "/v1/chat/completions", &[], Some(&body));
    eventually("the client's request waits in line", || {
        gateway.load() == Level::Normal && waiting(address) == 1
    });
    gate.release();
    assert!(own.wait().is_ok());
    assert_eq!(client.response().expect("an answer").status, 200);
    assert_eq!(upstream.peak(), 1);
}

fn waiting(address: std::net::SocketAddr) -> u64 {
    let status = Client::connect(address).get("/api/status").json();
    status["queue"]["waiting"].as_u64().expect("a count")
}

#[test]
fn dropping_the_server_closes_the_front_and_leaves_the_gateway() {
    let upstream = Upstream::start(Script::text("well"));
    let gateway = gateway(&upstream, 1, "");
    let server = gateway.serve().expect("it listens");
    let address: std::net::SocketAddr = server.address().parse().expect("an address");
    drop(server);
    assert!(std::net::TcpStream::connect(address).is_err());
    assert_eq!(gateway.chat(question()).expect("an answer").text(), "well");
}

#[test]
fn a_server_keeps_a_gateway_that_nobody_else_has() {
    let upstream = Upstream::start(Script::text("well"));
    let server = gateway(&upstream, 1, "").serve().expect("it listens");
    let mut client = Client::connect(server.address().parse().expect("an address"));
    let body =
        serde_json::json!({"model": "mine/model", "messages": [{"role": "user", "content": "x"}]});
    assert_eq!(client.post("/v1/chat/completions", &body).status, 200);
    server.stop(Duration::ZERO);
}
