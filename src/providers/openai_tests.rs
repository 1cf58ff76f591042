//! Calls over real sockets to peers that follow a script.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::cancel::{CancelReason, CancelToken};
use crate::chat::ChatRequest;
use crate::clock::{ManualClock, SystemClock};
use crate::config::ProviderKind;
use crate::providers::dialect::Plain;
use crate::providers::glm::Glm;
use crate::providers::kimi::Kimi;
use crate::providers::testing::{Deaf, answer, provider, run, run_until, timeouts};

const KIMI: &str = include_str!("../../tests/fixtures/wire/kimi.sse");
const SEARCH: &str = include_str!("../../tests/fixtures/wire/kimi-search.sse");
const GLM: &str = include_str!("../../tests/fixtures/wire/glm.sse");
const WHOLE: &str = include_str!("../../tests/fixtures/wire/kimi.json");
/// Nothing here may take longer.
const BOUND: Duration = Duration::from_secs(30);

/// What a peer does with a request.
enum Reply {
    /// Sends this; the connection stays.
    Send(String),
    /// Sends this, and closes.
    Close(String),
    /// Sends this, and waits for the client to go.
    Hold(String),
    /// Sends the first, then the second for as long as somebody reads.
    Flood(String, &'static str),
}

/// What a peer saw.
#[derive(Debug)]
enum Seen {
    Connection,
    Request { head: String, body: Value },
    Gone,
}

struct Peer {
    url: String,
    seen: Receiver<Seen>,
}

impl Peer {
    /// A peer that answers the n-th request, counted from 0, as `script` says.
    fn new(script: impl Fn(usize) -> Reply + Send + 'static) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/v1", listener.local_addr().expect("bound"));
        let (say, seen) = channel();
        let serve = move || {
            let mut count = 0;
            // One connection at a time is all that these calls need.
            while let Ok((stream, _)) = listener.accept() {
                let _ = say.send(Seen::Connection);
                converse(stream, &say, &script, &mut count);
                let _ = say.send(Seen::Gone);
            }
        };
        std::thread::Builder::new()
            .name("test-peer".into())
            .spawn(serve)
            .expect("thread starts");
        Peer { url, seen }
    }

    fn always(reply: impl Fn() -> Reply + Send + 'static) -> Peer {
        Peer::new(move |_| reply())
    }

    fn openai(&self, dialect: Box<dyn Dialect>) -> OpenAi {
        self.with_idle(dialect, BOUND)
    }

    fn with_idle(&self, dialect: Box<dyn Dialect>, idle: Duration) -> OpenAi {
        let mut config = provider("peer", ProviderKind::OpenAi);
        config.base_url = self.url.clone();
        config.api_key = Some("sk-secret".into());
        let timeouts = Timeouts { idle, ..timeouts() };
        OpenAi::new(
            &config,
            Models::new(&config),
            &timeouts,
            SystemClock::shared(),
            dialect,
        )
    }

    fn next(&self) -> Seen {
        self.seen.recv_timeout(BOUND).expect("the peer sees it")
    }

    fn request(&self) -> (String, Value) {
        loop {
            if let Seen::Request { head, body } = self.next() {
                return (head, body);
            }
        }
    }

    fn wait_until_gone(&self) {
        while !matches!(self.next(), Seen::Gone) {}
    }

    /// Connections and requests so far.
    fn counts(&self) -> (usize, usize) {
        let mut counts = (0, 0);
        for seen in self.seen.try_iter() {
            match seen {
                Seen::Connection => counts.0 += 1,
                Seen::Request { .. } => counts.1 += 1,
                Seen::Gone => {}
            }
        }
        counts
    }
}

fn converse(
    stream: TcpStream,
    say: &Sender<Seen>,
    script: &impl Fn(usize) -> Reply,
    count: &mut usize,
) {
    let mut stream = BufReader::new(stream);
    while let Some((head, body)) = read_request(&mut stream) {
        let _ = say.send(Seen::Request { head, body });
        *count += 1;
        let mut write = |text: &str| stream.get_mut().write_all(text.as_bytes());
        match script(*count - 1) {
            Reply::Send(text) => drop(write(&text)),
            Reply::Close(text) => return drop(write(&text)),
            Reply::Hold(text) => {
                let _ = write(&text);
                let _ = stream.read(&mut [0]);
                return;
            }
            Reply::Flood(text, more) => {
                let _ = write(&text);
                while write(more).is_ok() {}
                return;
            }
        }
    }
}

fn read_request(stream: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        stream.read_line(&mut head).ok().filter(|read| *read > 0)?;
    }
    let head = head.to_ascii_lowercase();
    let (_, length) = head.split_once("content-length: ")?;
    let mut body = vec![0; length.lines().next()?.parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    Some((head, serde_json::from_slice(&body).ok()?))
}

/// A stream that is whole.
fn events(stream: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{stream}",
        stream.len()
    )
}

/// A stream whose end nobody knows.
fn endless(stream: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{stream}")
}

fn status(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

fn ask() -> ChatRequest {
    ChatRequest::new("m").user("Hi")
}

/// How a call ends that is answered with `reply`.
fn end(dialect: Box<dyn Dialect>, reply: Reply) -> ProviderError {
    let reply = std::sync::Mutex::new(Some(reply));
    let take = move || reply.lock().expect("no panic").take().expect("one call");
    let peer = Peer::always(take);
    run(&peer.openai(dialect), &ask()).1.expect_err("an error")
}

#[test]
fn kimi_is_asked_for_a_stream_and_its_answer_arrives_whole() {
    let peer = Peer::always(|| Reply::Send(events(KIMI)));
    let mut request = ask();
    request.extra.insert("temperature".into(), 0.2.into());
    let (pieces, ended) = run(&peer.openai(Box::new(Kimi)), &request);
    assert_eq!(ended, Ok(()));
    let Some(Piece::Head(head)) = pieces.first() else {
        panic!("a head comes first: {pieces:?}");
    };
    assert_eq!(head.dropped, ["temperature"]);
    assert!(matches!(pieces.last(), Some(Piece::Usage(usage)) if usage.total == 75));
    let (head, body) = peer.request();
    assert!(head.starts_with("post /v1/chat/completions "), "{head}");
    assert!(head.contains("authorization: bearer sk-secret"), "{head}");
    assert_eq!(
        (&body["stream"], &body["model"]),
        (&true.into(), &"m".into())
    );
}

#[test]
fn glms_stream_arrives_whole_and_its_own_ends_are_translated() {
    let peer = Peer::always(|| Reply::Send(events(&GLM.replace("\"stop\"", "\"sensitive\""))));
    let reply = answer(&peer.openai(Box::new(Glm::at(""))), &ask());
    assert_eq!(reply.text(), "All clear");
    assert_eq!(reply.choices[0].finish, Some(FinishReason::ContentFilter));
    let broken = GLM.replace("\"stop\"", "\"network_error\"");
    let error = end(Box::new(Glm::at("")), Reply::Send(events(&broken)));
    assert_eq!(error.class, ErrorClass::ServerError);
}

#[test]
fn a_stream_without_its_proper_end_is_incomplete_however_it_ends() {
    let class = |reply| end(Box::new(Kimi), reply).class;
    let without_done = KIMI.replace("data: [DONE]\n\n", "");
    assert_eq!(
        class(Reply::Send(events(&without_done))),
        ErrorClass::Incomplete
    );
    let unfinished = KIMI.replace("\"stop\"", "null");
    assert_eq!(
        class(Reply::Send(events(&unfinished))),
        ErrorClass::Incomplete
    );
    let half = &KIMI[..KIMI.len() / 2];
    assert_eq!(class(Reply::Close(endless(half))), ErrorClass::Incomplete);
    let cut = events(KIMI);
    let cut = cut[..cut.len() - 100].to_string();
    assert_eq!(class(Reply::Close(cut)), ErrorClass::Incomplete);
    assert_eq!(class(Reply::Send(events(""))), ErrorClass::Incomplete);
}

#[test]
fn a_body_that_is_neither_json_nor_events_is_malformed_and_not_cut_off() {
    for body in ["Welcome", "\"hello\"", "\u{1f}\u{8}\u{0}", "<html></html>"] {
        let error = end(Box::new(Kimi), Reply::Send(status("200 OK", "", body)));
        assert_eq!(error.class, ErrorClass::Malformed, "{body:?}");
    }
}

#[test]
fn a_last_event_without_line_ends_is_an_end_all_the_same() {
    let peer = Peer::always(|| Reply::Close(endless(KIMI.trim_end())));
    assert_eq!(run(&peer.openai(Box::new(Kimi)), &ask()).1, Ok(()));
}

#[test]
fn an_error_is_an_error_wherever_it_stands() {
    let busy = r#"{"error":{"code":"1305","message":"busy"}}"#;
    let error = end(
        Box::new(Glm::at("")),
        Reply::Send(status("200 OK", "", busy)),
    );
    assert_eq!(
        (error.class, error.status),
        (ErrorClass::Overloaded, Some(200))
    );
    let overloaded = r#"{"error":{"message":"m","type":"engine_overloaded_error"}}"#;
    let event = format!("data: {overloaded}\n\n");
    let stream = KIMI.replacen("data: {\"id\"", &format!("{event}data: {{\"id\""), 4);
    assert_eq!(
        end(Box::new(Kimi), Reply::Send(events(&stream))).class,
        ErrorClass::Overloaded
    );
    let quota = r#"{"error":{"message":"pay","type":"exceeded_current_quota_error"}}"#;
    let error = end(
        Box::new(Kimi),
        Reply::Send(status("429 Too Many", "", quota)),
    );
    assert_eq!(
        (error.class, error.message.as_str()),
        (ErrorClass::Quota, "pay")
    );
    let page = status(
        "504 Gateway Time-out",
        "content-type: text/html\r\n",
        "<html>504</html>",
    );
    let error = end(Box::new(Kimi), Reply::Send(page));
    assert_eq!(
        (error.class, error.status),
        (ErrorClass::ServerError, Some(504))
    );
    let page = status("200 OK", "", "<html>log in</html>");
    assert_eq!(
        end(Box::new(Kimi), Reply::Send(page)).class,
        ErrorClass::Malformed
    );
}

#[test]
fn the_wait_that_a_header_asks_for_is_kept() {
    let body = r#"{"error":{"message":"slow down","type":"rate_limit_reached_error"}}"#;
    let reply = status("429 Too Many", "Retry-After: 7\r\n", body);
    let error = end(Box::new(Kimi), Reply::Send(reply));
    assert_eq!(error.class, ErrorClass::RateLimited);
    assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
}

#[test]
fn a_plain_endpoint_answers_in_one_body_when_the_client_wants_one() {
    let peer = Peer::always(|| Reply::Send(status("200 OK", "", WHOLE)));
    let reply = answer(&peer.openai(Box::new(Plain)), &ask());
    assert_eq!(reply.text(), "Points are set.");
    assert_eq!(reply.usage.expect("usage").total, 101);
    assert_eq!(peer.request().1.get("stream"), None);
    let cut = status("200 OK", "", WHOLE);
    let cut = cut[..cut.len() - 50].to_string();
    assert_eq!(
        end(Box::new(Plain), Reply::Close(cut)).class,
        ErrorClass::Incomplete
    );
    let half = &WHOLE[..WHOLE.len() / 2];
    let cut = format!("HTTP/1.1 200 OK\r\n\r\n{half}");
    assert_eq!(
        end(Box::new(Plain), Reply::Close(cut)).class,
        ErrorClass::Incomplete
    );
}

#[test]
fn a_search_is_echoed_and_the_client_sees_only_the_answer() {
    let peer = Peer::new(|n| Reply::Send(events(if n == 0 { SEARCH } else { KIMI })));
    let mut request = ask();
    request.web_search = true;
    let (pieces, ended) = run(&peer.openai(Box::new(Kimi)), &request);
    assert_eq!(ended, Ok(()));
    let heads = pieces
        .iter()
        .filter(|piece| matches!(piece, Piece::Head(_)));
    assert_eq!(heads.count(), 1);
    let mut builder = crate::chat::ReplyBuilder::default();
    pieces.into_iter().for_each(|piece| builder.push(piece));
    let reply = builder.finish();
    let choice = &reply.choices[0];
    assert_eq!(
        (
            choice.message.text().as_str(),
            choice.message.tool_calls.len()
        ),
        ("Good day", 0)
    );
    assert_eq!(choice.finish, Some(FinishReason::Stop));
    assert_eq!(reply.usage.expect("usage").total, 150, "of both rounds");
    peer.request();
    let (_, second) = peer.request();
    let turns = second["messages"].as_array().expect("messages");
    let arguments = "{\"search_result\":{\"search_id\":\"s1\"},\"usage\":{\"total_tokens\":900}}";
    assert_eq!(turns.len(), 3);
    assert_eq!(turns[1]["tool_calls"][0]["type"], "builtin_function");
    assert_eq!(
        turns[1]["tool_calls"][0]["function"]["arguments"],
        arguments
    );
    assert_eq!(turns[1]["reasoning_content"], "Look it up.");
    assert_eq!(
        (&turns[2]["content"], &turns[2]["name"]),
        (&arguments.into(), &"$web_search".into())
    );
}

#[test]
fn a_model_that_never_stops_searching_is_stopped() {
    let peer = Peer::always(|| Reply::Send(events(SEARCH)));
    let mut request = ask();
    request.web_search = true;
    let (_, ended) = run(&peer.openai(Box::new(Kimi)), &request);
    assert_eq!(ended.expect_err("enough").class, ErrorClass::Incomplete);
    assert_eq!(peer.counts().1, MAX_ROUNDS);
}

#[test]
fn a_connection_serves_the_next_call_after_a_whole_stream() {
    let peer = Peer::always(|| Reply::Send(events(KIMI)));
    let openai = peer.openai(Box::new(Kimi));
    for _ in 0..3 {
        assert_eq!(run(&openai, &ask()).1, Ok(()));
    }
    assert_eq!(peer.counts(), (1, 3));
}

#[test]
fn a_reused_connection_that_dies_unanswered_is_replaced_once_and_a_new_one_is_not() {
    let peer = Peer::new(|n| match n {
        1 => Reply::Close(String::new()),
        _ => Reply::Send(events(KIMI)),
    });
    let openai = peer.openai(Box::new(Kimi));
    assert_eq!(run(&openai, &ask()).1, Ok(()));
    assert_eq!(run(&openai, &ask()).1, Ok(()), "nobody noticed");
    assert_eq!(peer.counts(), (2, 3));
    let peer = Peer::always(|| Reply::Close(String::new()));
    let error = run(&peer.openai(Box::new(Kimi)), &ask()).1;
    assert_eq!(error.expect_err("closed").class, ErrorClass::Incomplete);
    assert_eq!(peer.counts(), (1, 1));
}

#[test]
fn a_cancelled_call_ends_as_cancelled_and_hangs_up() {
    let half = &KIMI[..KIMI.find("\"Good\"").expect("text") + 60];
    let peer = Peer::always(move || Reply::Hold(endless(half)));
    let cancel = CancelToken::new();
    let openai = peer.openai(Box::new(Kimi));
    let call = Call {
        request: &ask(),
        cancel: &cancel,
        deadline: Time::NEVER,
        first_byte_by: Time::NEVER,
        first_byte: None,
        watch: &Deaf,
    };
    let other = cancel.clone();
    let (say, heard) = channel();
    let canceller = std::thread::Builder::new().name("test-canceller".into());
    let canceller = canceller
        .spawn(move || {
            heard.recv_timeout(BOUND).expect("a piece");
            other.cancel(CancelReason::ClientLeft)
        })
        .expect("thread starts");
    let ended = openai.chat(&call, &mut |_| {
        let _ = say.send(());
        ControlFlow::Continue(())
    });
    let cancelled = ErrorClass::Cancelled(CancelReason::ClientLeft);
    assert_eq!(ended.expect_err("cancelled").class, cancelled);
    canceller.join().expect("no panic");
    peer.wait_until_gone();
}

#[test]
fn nothing_more_is_read_for_one_who_has_had_enough() {
    let peer = Peer::always(|| Reply::Hold(endless(KIMI)));
    let openai = peer.openai(Box::new(Kimi));
    let cancel = CancelToken::new();
    let call = Call {
        request: &ask(),
        cancel: &cancel,
        deadline: Time::NEVER,
        first_byte_by: Time::NEVER,
        first_byte: None,
        watch: &Deaf,
    };
    let mut heard = 0;
    let ended = openai.chat(&call, &mut |_| {
        heard += 1;
        ControlFlow::Break(())
    });
    let cancelled = ErrorClass::Cancelled(CancelReason::ClientLeft);
    assert_eq!((ended.expect_err("ended").class, heard), (cancelled, 1));
    peer.wait_until_gone();
}

#[test]
fn a_stream_that_falls_silent_ends_with_the_deadline_or_the_idle_timeout() {
    let half = &KIMI[..KIMI.find("\"Good\"").expect("text") + 60];
    let peer = Peer::always(move || Reply::Hold(endless(half)));
    let openai = peer.openai(Box::new(Kimi));
    let deadline = openai.clock.now() + Duration::from_millis(50);
    let (_, ended) = run_until(&openai, &ask(), &CancelToken::new(), deadline);
    let expired = ErrorClass::Cancelled(CancelReason::Deadline);
    assert_eq!(ended.expect_err("expired").class, expired);
    let openai = peer.with_idle(Box::new(Kimi), Duration::from_millis(50));
    assert_eq!(
        run(&openai, &ask()).1.expect_err("idle").class,
        ErrorClass::IdleTimeout
    );
}

#[test]
fn comments_do_not_keep_an_answer_alive_that_has_stalled() {
    let end_of_text = KIMI.find("\"Good\"").expect("text");
    let whole_events = KIMI[..end_of_text].rfind("data:").expect("an event");
    let begun = &KIMI[..whole_events];
    let peer = Peer::always(move || Reply::Flood(endless(begun), ": still here\n\n"));
    let openai = peer.with_idle(Box::new(Kimi), Duration::from_millis(50));
    let (pieces, ended) = run(&openai, &ask());
    assert!(pieces.iter().any(Piece::is_content));
    assert_eq!(ended.expect_err("idle").class, ErrorClass::IdleTimeout);
}

#[test]
fn silence_counts_from_the_first_content_on() {
    let manual = Arc::new(ManualClock::new());
    let clock: SharedClock = manual.clone();
    let timeouts = timeouts();
    let mut quiet = Quiet::new(&clock, &timeouts);
    let long = timeouts.idle + Duration::from_millis(1);
    assert!(!quiet.is_too_long(&[Piece::Head(Head::default())]));
    manual.advance(long);
    assert!(!quiet.is_too_long(&[]), "it thinks in silence");
    assert!(!quiet.is_too_long(&[Piece::Delta(Delta::text("x"))]));
    manual.advance(timeouts.idle);
    assert!(!quiet.is_too_long(&[]));
    manual.advance(Duration::from_millis(1));
    assert!(quiet.is_too_long(&[]));
}

#[test]
fn nobody_there_is_no_connection_and_says_nothing_of_the_key() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut config = provider("peer", ProviderKind::OpenAi);
    config.base_url = format!("http://{}", listener.local_addr().expect("bound"));
    config.api_key = Some("sk-secret".into());
    drop(listener);
    let openai = OpenAi::new(
        &config,
        Models::new(&config),
        &timeouts(),
        SystemClock::shared(),
        Box::new(Plain),
    );
    let error = run(&openai, &ask()).1.expect_err("nobody");
    assert_eq!(error.class, ErrorClass::Connect);
    assert!(!format!("{error:?} {openai:?}").contains("sk-secret"));
}
