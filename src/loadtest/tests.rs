//! Load on servers: scripted ones, which lie in every way that a test has to see through, and one of our own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Extent, Form, LoadError, Outcome, Plan, Report, run};
use crate::cancel::{CancelReason, CancelToken};
use crate::client::testing::{peer, spawn};
use crate::clock::SystemClock;
use crate::config::{Config, Priority};
use crate::gateway::Gateway;

/// Nothing here takes longer, unless it hangs.
const BOUND: Duration = Duration::from_secs(20);

fn plan(url: &str) -> Plan {
    Plan {
        url: url.into(),
        key: None,
        model: "m".into(),
        callers: 3,
        extent: Extent::Requests(10),
        rate: None,
        form: Form::Whole,
        sessions: 0,
        priorities: Vec::new(),
        timeout: BOUND,
    }
}

fn load(plan: Plan) -> Report {
    let cancel = CancelToken::new();
    run(plan, &SystemClock::shared(), &cancel, &mut |_| ()).expect("somebody is there")
}

/// An answer with a length.
fn http(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

fn whole(text: &str) -> Vec<u8> {
    let message = json!({"role": "assistant", "content": text});
    let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
    http(200, &json!({"id": "c", "choices": [choice]}).to_string())
}

fn stream(texts: &[&str], end: &str) -> Vec<u8> {
    let chunk = |text: &&str| {
        let delta = json!({"index": 0, "delta": {"content": text}});
        format!("data: {}\n\n", json!({"id": "c", "choices": [delta]}))
    };
    let body: String = texts.iter().map(chunk).collect();
    http(200, &(body + end))
}

const PROPER_END: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// The question in a request; none in the greeting.
fn question(request: &str) -> Option<String> {
    let (_, body) = request.split_once("\r\n\r\n")?;
    let body: Value = serde_json::from_str(body).ok()?;
    Some(body["messages"][0]["content"].as_str()?.to_owned())
}

/// A server that answers questions with `answer`, and the greeting with an empty list.
fn server(answer: impl Fn(&str) -> Vec<u8> + Clone + Send + 'static) -> String {
    let (url, _) = peer(move |request| match question(request) {
        Some(question) => answer(&question),
        None => http(200, "{\"data\":[]}"),
    });
    url
}

/// All ten requests end in this way, for this reason.
fn check(
    form: Form,
    answer: impl Fn(&str) -> Vec<u8> + Clone + Send + 'static,
    end: Outcome,
    why: &str,
) {
    let form = Plan {
        form,
        ..plan(&server(answer))
    };
    let report = load(form);
    assert_eq!(report.count(end), 10, "{report}");
    assert_eq!(report.sent(), 10, "{report}");
    let failures = if end.is_failure() { 10 } else { 0 };
    assert_eq!(report.failures(), failures);
    let text = report.to_string();
    assert!(text.contains(why), "{text}");
}

#[test]
fn only_an_answer_with_its_own_id_counts_as_one() {
    check(
        Form::Whole,
        |q| whole(&format!("You said: {q}")),
        Outcome::Answered,
        "answered",
    );
    check(
        Form::Whole,
        |_| whole("from a cache"),
        Outcome::Unproven,
        "10 x the answer lacks",
    );
    let other = |q: &str| whole(&q.replace("-000000000", "-100000000"));
    check(
        Form::Whole,
        other,
        Outcome::Unproven,
        "10 x the answer lacks",
    );
}

#[test]
fn refusals_failures_and_lack_of_time_are_told_apart() {
    let error = |status, code: &str| {
        let body = json!({"error": {"message": "m", "code": code}}).to_string();
        move |_: &str| http(status, &body)
    };
    let whole = Form::Whole;
    check(
        whole,
        error(503, "over_capacity"),
        Outcome::Refused,
        "10 x 503 over_capacity",
    );
    check(
        whole,
        error(429, "provider_rate_limited"),
        Outcome::Refused,
        "10 x 429 provider",
    );
    check(
        whole,
        error(503, "queue_timeout"),
        Outcome::TimedOut,
        "10 x 503 queue_timeout",
    );
    check(
        whole,
        error(504, "deadline_exceeded"),
        Outcome::TimedOut,
        "10 x 504 deadline",
    );
    check(
        whole,
        error(502, "provider_failed"),
        Outcome::Failed,
        "10 x 502 provider_failed",
    );
    check(
        whole,
        |_| http(200, "<html>"),
        Outcome::Failed,
        "10 x the answer is not of the",
    );
}

#[test]
fn a_stream_that_breaks_off_or_ends_in_an_error_is_no_answer() {
    let proper = |q: &str| stream(&["You", " said: ", q], PROPER_END);
    check(Form::Stream, proper, Outcome::Answered, "first piece");
    let broken = |q: &str| stream(&[q], "");
    check(
        Form::Stream,
        broken,
        Outcome::Failed,
        "10 x the stream broke off",
    );
    let error = "data: {\"error\":{\"message\":\"m\",\"code\":\"deadline_exceeded\"}}\n\n";
    let late = move |q: &str| stream(&[q], error);
    check(
        Form::Stream,
        late,
        Outcome::TimedOut,
        "10 x 200 deadline_exceeded",
    );
}

#[test]
fn a_server_that_says_nothing_runs_out_of_its_time() {
    let silent = Plan {
        extent: Extent::Requests(3),
        timeout: Duration::from_millis(50),
        ..plan(&server(|_| Vec::new()))
    };
    let report = load(silent);
    assert_eq!(report.count(Outcome::TimedOut), 3, "{report}");
    let took = report.took(Outcome::TimedOut).expect("they took some");
    assert!(took.min >= Duration::from_millis(49), "{took:?}");
}

#[test]
fn sessions_priorities_and_the_key_are_said_with_each_request() {
    let (url, told) = peer(|request| match question(request) {
        Some(question) => whole(&question),
        None => http(200, "{}"),
    });
    let said = Plan {
        sessions: 2,
        priorities: vec![Priority::High, Priority::Low],
        key: Some("secret".into()),
        ..plan(&format!("{url}/v1/"))
    };
    let report = load(said);
    assert_eq!(report.count(Outcome::Answered), 10, "{report}");
    assert!(!format!("{report}{report:?}{}", report.to_json()).contains("secret"));
    let requests: Vec<String> = told
        .try_iter()
        .map(|(_, text)| text.to_lowercase())
        .collect();
    let saying = |what: &str| requests.iter().filter(|text| text.contains(what)).count();
    assert_eq!(saying("post /v1/chat/completions "), 10);
    assert_eq!(saying("\r\nauthorization: bearer secret\r\n"), 10);
    assert_eq!(
        (
            saying("\r\nx-priority: high\r\n"),
            saying("\r\nx-priority: low\r\n")
        ),
        (5, 5)
    );
    let sessions = saying("\r\nx-session-id: load-1\r\n") + saying("\r\nx-session-id: load-2\r\n");
    assert_eq!(sessions, 10);
    let times = &report.to_json()["times_ms"];
    assert_eq!(
        (&times["high"]["count"], &times["low"]["count"]),
        (&json!(5), &json!(5))
    );
}

#[test]
fn a_rate_is_kept_by_a_server_that_keeps_up() {
    let steady = Plan {
        extent: Extent::Duration(Duration::from_millis(200)),
        rate: Some(100.0),
        ..plan(&server(whole))
    };
    let report = load(steady);
    // However busy the machine is: what was not sent in time is said.
    assert_eq!(report.sent() + report.unsent(), 20, "{report}");
    assert!(report.sent() > 0 && report.failures() == 0, "{report}");
    let json = report.to_json();
    assert!(json["lasted_s"].as_f64() >= Some(0.18), "{json}");
    assert_eq!(json["times_ms"]["sent_late"]["count"], report.sent());
}

#[test]
fn a_word_ends_a_test_early_with_what_is_known() {
    let asked = Arc::new(AtomicUsize::new(0));
    let cancel = CancelToken::new();
    let (seen, word) = (Arc::clone(&asked), cancel.clone());
    // Two are answered; the others get nothing, and the last caller to ask says the word.
    let url = server(move |question| match seen.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => whole(question),
        4 => {
            word.cancel(CancelReason::Requested);
            Vec::new()
        }
        _ => Vec::new(),
    });
    let (plan, clock) = (plan(&url), SystemClock::shared());
    let testing = spawn(move || run(plan, &clock, &cancel, &mut |_| ()));
    let report = testing
        .join()
        .expect("no panic")
        .expect("somebody is there");
    assert!(report.is_interrupted());
    assert_eq!(report.count(Outcome::Answered), 2, "{report}");
    assert_eq!(report.count(Outcome::Unfinished), 3, "{report}");
    assert_eq!((report.failures(), report.unsent()), (0, 5), "{report}");
}

#[test]
fn a_server_that_is_not_there_is_said_before_anything_is_measured() {
    for url in ["http://127.0.0.1:1", "nowhere"] {
        let cancel = CancelToken::new();
        let error = run(plan(url), &SystemClock::shared(), &cancel, &mut |_| ());
        assert!(matches!(error, Err(LoadError::Unreachable(_))));
    }
}

#[test]
fn a_gateway_of_our_own_answers_streams_and_says_how_long_they_waited() {
    let config = "profile = \"test\"\nproviders.embedded.pace = \"0ms\"";
    let config = Config::from_toml(config, "test").expect("a configuration");
    let server = Gateway::start(config)
        .expect("starts")
        .serve()
        .expect("listens");
    for form in [Form::Whole, Form::Stream] {
        let own = Plan {
            model: "embedded".into(),
            form,
            sessions: 3,
            ..plan(&format!("http://{}", server.address()))
        };
        let report = load(own);
        assert_eq!(report.count(Outcome::Answered), 10, "{report}");
        assert!(report.answers_per_second() > 0.0);
        let times = &report.to_json()["times_ms"];
        assert_eq!(times["in_line"]["count"], 10, "{times:#}");
        let gaps = times["gap"]["count"].as_u64().unwrap_or_default();
        assert_eq!(gaps > 0, form == Form::Stream, "{times:#}");
    }
    server.stop(Duration::ZERO);
}
