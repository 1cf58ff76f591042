//! Commands: `ask`, `check` and `load`, as people and scripts use them.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Answer, Done, Errand, Gate, Script, Server, Upstream, spawn};

/// A provider named `mine` at `url`, without a key.
fn mine(url: &str) -> String {
    format!("providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"{url}\"\n")
}

/// A server that answers everything with a status and a body, over one connection each.
fn always(status: &'static str, body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    spawn("always", move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = BufReader::new(stream);
            let mut line = String::from("x");
            while !line.trim().is_empty() {
                line.clear();
                if !matches!(stream.read_line(&mut line), Ok(1..)) {
                    break;
                }
            }
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n");
            let answer = format!("{head}Connection: close\r\n\r\n{body}");
            let _ = stream.get_mut().write_all(answer.as_bytes());
        }
    });
    address
}

fn assert_code(done: &Done, code: i32) {
    assert_eq!(done.code, Some(code), "{done:#?}");
}

#[test]
fn a_question_is_answered_on_standard_output_and_timed_on_standard_error() {
    let answer = Answer {
        text: "asked: {prompt}".into(),
        reasoning: "hm".into(),
        ..Answer::default()
    };
    let upstream = Upstream::start(Script::Answer(answer));
    let config = mine(&upstream.url());
    let done = Errand::run(&config, &["ask", "-m", "mine/m", "-s", "Be brief", "why?"]);
    assert_code(&done, 0);
    assert_eq!(done.out, "asked: why?\n", "reasoning is for terminals");
    let err = done.err.trim_end();
    assert!(err.starts_with("mine/m: in line 0."), "{err}");
    assert!(err.ends_with("tokens 7 + 5"), "{err}");
    let requests = upstream.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].body["messages"][0]["content"], "Be brief");
}

#[test]
fn a_question_comes_from_standard_input_where_none_is_named() {
    let done = Errand::start(
        "providers.embedded.pace = \"0ms\"",
        &["ask"],
        &[],
        "from a pipe\n",
    );
    let done = done.done();
    assert_code(&done, 0);
    assert!(
        done.out.ends_with("You said: from a pipe\n"),
        "{}",
        done.out
    );
    assert!(done.err.starts_with("embedded/embedded: "), "{}", done.err);
    let done = Errand::run("", &["ask"]);
    assert_code(&done, 1);
    assert!(done.err.contains("there is no question"), "{}", done.err);
}

#[test]
fn a_question_without_an_answer_says_why_in_words_and_fails() {
    let upstream = Upstream::start(Script::error(
        401,
        "invalid_authentication_error",
        "bad key",
    ));
    let config = mine(&upstream.url());
    for (model, words) in [
        ("mine/m", "bad key"),
        ("nobody", "no model is called \"nobody\""),
    ] {
        let done = Errand::run(&config, &["ask", "-m", model, "why?"]);
        assert_code(&done, 1);
        assert!(
            done.err.starts_with("pointsman: ") && done.err.contains(words),
            "{}",
            done.err
        );
        assert_eq!(
            (done.out.as_str(), done.err.lines().count()),
            ("", 1),
            "{}",
            done.err
        );
    }
    upstream.next(Script::Silent);
    let done = Errand::run(
        &config,
        &["ask", "-m", "mine/m", "--timeout", "50ms", "why?"],
    );
    assert_code(&done, 1);
    assert!(done.err.contains("deadline"), "{}", done.err);
}

#[test]
fn an_interrupted_question_ends_its_call() {
    let upstream = Upstream::start(Script::StallAfterFirst);
    let errand = Errand::start(
        &mine(&upstream.url()),
        &["ask", "-m", "mine/m", "why?"],
        &[],
        "",
    );
    upstream.wait_for_in_flight(1);
    errand.signal(Signal::INT);
    let done = errand.done();
    assert_code(&done, 130);
    assert_eq!(done.err, "");
    upstream.wait_for_in_flight(0);
}

#[test]
fn a_configuration_that_is_refused_is_told_by_every_command() {
    for (command, code) in [("ask", 2), ("check", 1), ("load", 2)] {
        let done = Errand::start("limits.globul = 5", &[command], &[], "x").done();
        assert_code(&done, code);
        assert!(done.err.contains("limits.globul"), "{}", done.err);
    }
}

/// What `check` says of `mine`, and its exit code.
fn check(config: &str, environment: &[(&str, &str)]) -> (String, Option<i32>) {
    let errand = Errand::start(config, &["check", "--timeout", "2s"], environment, "");
    let done = errand.done();
    let line = done.out.lines().find(|line| line.starts_with("mine "));
    let line = line.unwrap_or_else(|| panic!("no line: {done:#?}"));
    (line["mine".len()..].trim().to_owned(), done.code)
}

#[test]
fn a_check_says_of_each_provider_whether_it_works_and_what_to_do() {
    let upstream = Upstream::start(Script::text("x"));
    let url = upstream.url();
    let (line, code) = check(&mine(&url), &[]);
    assert_eq!((line, code), (format!("OK: {url} answers"), Some(0)));
    assert_eq!(upstream.requests().len(), 0, "it costs nothing");

    let keyed = |url: &str| mine(url) + "providers.mine.api_key_env = \"MINE_API_KEY\"\n";
    let (line, code) = check(&keyed(&url), &[]);
    assert!(
        line.starts_with("missing key: set the environment variable MINE_API_KEY"),
        "{line}"
    );
    assert_eq!(code, Some(1));

    let body = r#"{"error":{"message":"no such key: sk-123456","type":"auth"}}"#;
    let url = format!("http://{}/v1", always("401 Unauthorized", body));
    let (line, code) = check(&keyed(&url), &[("MINE_API_KEY", "sk-123456")]);
    assert!(
        line.starts_with(&format!("refused key: {url} says")),
        "{line}"
    );
    assert!(!line.contains("sk-123456"), "{line}");
    assert_eq!(code, Some(1));

    let url = format!("http://{}/v1", always("404 Not Found", "{}"));
    let (line, code) = check(&mine(&url), &[]);
    assert!(
        line.starts_with(&format!("OK: {url} answers; it lists no models")),
        "{line}"
    );
    assert_eq!(code, Some(0));

    let url = format!("http://{}", always("500 Oh", "no"));
    let (line, code) = check(&mine(&url), &[]);
    assert!(
        line.starts_with(&format!("trouble: {url}: mine answered with status 500")),
        "{line}"
    );
    assert_eq!(code, Some(1));
}

#[test]
fn a_check_tells_a_provider_that_is_not_there_from_one_that_is_silent() {
    let gone = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", gone.local_addr().expect("it is bound"));
    drop(gone);
    let (line, code) = check(&mine(&url), &[]);
    let start = format!("cannot connect to {url}: ");
    assert!(
        line.starts_with(&start) && line.contains("refused"),
        "{line}"
    );
    assert_eq!(code, Some(1));

    let silent = Upstream::no_accept();
    let (line, code) = check(&mine(&silent.url()), &[]);
    assert_eq!(
        line,
        format!("cannot connect to {}: no answer in time", silent.url())
    );
    assert_eq!(code, Some(1));
}

#[test]
fn a_fresh_box_passes_its_check_offline() {
    let done = Errand::run("", &["check"]);
    assert_code(&done, 0);
    let says = |start: &str| done.out.lines().any(|line| line.starts_with(start));
    assert!(says("configuration  OK: "), "{}", done.out);
    assert!(says("embedded       OK: in this process"), "{}", done.out);
    assert!(says(
        "kimi           not set up: to use it, set the environment variable KIMI_API_KEY"
    ));
    assert!(
        says("auto           no provider can be called"),
        "{}",
        done.out
    );
    let named = "providers.kimi.api_key_env = \"MY_KEY\"";
    let done = Errand::run(named, &["check"]);
    assert_code(&done, 1);
    assert!(
        done.out
            .contains("missing key: set the environment variable MY_KEY"),
        "{}",
        done.out
    );
}

fn load(server: &Server, more: &[&str]) -> Errand {
    let url = format!("http://{}", server.address);
    let arguments = [&["load", "--url", &url, "--json"], more].concat();
    Errand::start("", &arguments, &[], "")
}

fn report(done: &Done) -> Value {
    serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {done:#?}"))
}

#[test]
fn a_load_reaches_the_upstream_once_for_each_answer_that_it_counts() {
    let upstream = Upstream::start(Script::text("you said {prompt}"));
    let config = mine(&upstream.url()) + "profile = \"demo\"";
    let server = Server::start(&config);
    for form in [&["--stream"][..], &[]] {
        let before = upstream.requests().len();
        let ask = [
            "-m",
            "mine/m",
            "--callers",
            "6",
            "--requests",
            "40",
            "--sessions",
            "3",
        ];
        let done = load(&server, &[&ask, form].concat()).done();
        assert_code(&done, 0);
        let report = report(&done);
        assert_eq!(report["counts"]["answered"], 40, "{report:#}");
        assert_eq!(upstream.requests().len() - before, 40);
        let times = &report["times_ms"];
        assert_eq!(times["in_line"]["count"], 40, "{report:#}");
        let first = &times["first_piece"]["count"];
        assert_eq!(first == 40, !form.is_empty(), "{report:#}");
    }
}

#[test]
fn a_load_that_is_answered_from_a_cache_fails() {
    let upstream = Upstream::start(Script::text("the same for all"));
    let server = Server::start(&mine(&upstream.url()));
    let ask = ["-m", "mine/m", "--requests", "5", "--callers", "1"];
    let done = load(&server, &ask).done();
    assert_code(&done, 1);
    assert_eq!(report(&done)["counts"]["unproven"], 5);
    // Even where so many failures are allowed: nothing was shown.
    let done = load(&server, &[&ask[..], &["--max-failed", "5"]].concat()).done();
    assert_code(&done, 1);
}

#[test]
fn a_load_bears_as_many_failures_and_refusals_as_it_is_told_to() {
    // Straight at a provider: a gateway between might try again.
    let upstream = Upstream::start(Script::text("{prompt}"));
    let url = upstream.url();
    let ask = [
        "load",
        "--url",
        &url,
        "--json",
        "--requests",
        "5",
        "--callers",
        "1",
    ];
    let with = |more: &[&str]| Errand::run("", &[&ask[..], more].concat());
    upstream.next(Script::error(500, "server_error", "oh"));
    assert_code(&with(&[]), 1);
    upstream.next(Script::error(500, "server_error", "oh"));
    assert_code(&with(&["--max-failed", "1"]), 0);
    upstream.next(Script::rate_limited("1"));
    let done = with(&[]);
    assert_code(&done, 0);
    assert_eq!(report(&done)["counts"]["refused"], 1);
    upstream.next(Script::rate_limited("1"));
    assert_code(&with(&["--max-refused", "0"]), 1);
}

#[test]
fn an_interrupted_load_reports_what_is_known() {
    let gate = Gate::new();
    let upstream = Upstream::start(Script::gated(&gate));
    upstream.next(Script::text("{prompt}"));
    let server = Server::start(&mine(&upstream.url()));
    let errand = load(
        &server,
        &["-m", "mine/m", "--callers", "2", "--duration", "1h"],
    );
    upstream.wait_for_requests(3);
    upstream.wait_for_in_flight(2);
    errand.signal(Signal::INT);
    let done = errand.done();
    assert_code(&done, 130);
    let report = report(&done);
    assert_eq!(report["interrupted"], true);
    let counts = &report["counts"];
    assert_eq!(
        (&counts["answered"], &counts["unfinished"]),
        (&1.into(), &2.into()),
        "{report:#}"
    );
    server.wait_until_idle();
}

#[test]
fn a_load_on_nobody_says_so() {
    let done = Errand::run("", &["load", "--url", "http://127.0.0.1:1"]);
    assert_code(&done, 1);
    assert!(
        done.err
            .starts_with("pointsman: no connection to 127.0.0.1:1: "),
        "{}",
        done.err
    );
    let done = Errand::run("", &["load", "--requests", "1", "--duration", "1s"]);
    assert_code(&done, 2);
}

#[test]
fn a_load_finds_its_server_where_the_configuration_listens() {
    let config = "server.listen = \"unix:{}/socket\"\nproviders.embedded.pace = \"0ms\"";
    let server = Server::start_as(
        "providers.embedded.pace = \"0ms\"",
        &["--listen", "unix:{}/s"],
        &[],
    );
    let path = server
        .said
        .strip_prefix("listening on ")
        .expect("an address");
    let config = config.replace("unix:{}/socket", path);
    let done = Errand::run(&config, &["load", "--requests", "5", "--callers", "2"]);
    assert_code(&done, 0);
    assert!(
        done.out.contains("  answered            5\n"),
        "{}",
        done.out
    );
}
