//! The dashboard: what it is made of, what it is sent, and what a real browser makes of both; `pointsman status`.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Ask, BOUND, Browser, Client, Errand, Event, Gate, Response, Script, Server, Stream, Upstream,
    eventually, spawn,
};

/// An address that no other test listens on, so that a port of it stays free between two servers.
const OURS: &str = "127.77.1.1:0";
/// One where nobody ever listens.
const NOBODY: &str = "http://127.77.2.2:9";

const FILES: [(&str, &str); 4] = [
    ("/", "text/html; charset=utf-8"),
    ("/dashboard.css", "text/css; charset=utf-8"),
    ("/dashboard.js", "text/javascript; charset=utf-8"),
    ("/dashboard.svg", "image/svg+xml"),
];

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const KEYS: [(&str, &str); 3] = [
    ("ONE_KEY", "pk-one"),
    ("TWO_KEY", "pk-two"),
    ("OPS_KEY", "pk-ops"),
];
const WITH_KEYS: &str = "server.keys = [{ name = \"one\", key_env = \"ONE_KEY\" }, { name = \"two\", key_env = \"TWO_KEY\" }, \
                         { name = \"ops\", key_env = \"OPS_KEY\", admin = true }]\n";

/// A provider `mine` at `upstream`, one named `down` where nobody is, and pictures in quick succession.
fn config(upstream: &Upstream, more: &str) -> String {
    format!(
        "profile = \"test\"\ntelemetry.live_interval = \"100ms\"\n{more}\n\
         providers.mine = {{ kind = \"openai\", base_url = \"{}\" }}\n\
         providers.down = {{ kind = \"openai\", base_url = \"{NOBODY}\", retry = {{ attempts = 1 }}, \
         breaker = {{ connects = 1, wait = \"10m\", max_wait = \"10m\" }} }}\n",
        upstream.url()
    )
}

/// Asks for a page or a stream with a key; the answer is still to be read.
fn look(server: &Server, path: &str, key: &str) -> Client {
    let mut client = server.client();
    let bearer = format!("Bearer {key}");
    client.request("GET", path, &[("Authorization", &bearer)], None);
    client
}

fn live(server: &Server, key: &str) -> Stream {
    let stream = look(server, "/api/live", key).into_stream();
    stream.expect("an answer")
}

fn shot(stream: &mut Stream) -> Value {
    loop {
        let event = stream.event().expect("unbroken").expect("one more");
        if !matches!(event, Event::Comment(_)) {
            return event.json().expect("JSON");
        }
    }
}

/// Waits for a picture that is as `cond` wants it.
fn wait_for_shot(stream: &mut Stream, what: &str, cond: impl Fn(&Value) -> bool) -> Value {
    let mut found = Value::Null;
    eventually(what, || {
        found = shot(stream);
        cond(&found)
    });
    found
}

#[test]
fn the_page_comes_whole_from_the_binary_under_a_strict_policy() {
    let server = Server::start("profile = \"test\"");
    for (path, kind) in FILES {
        let answer = server.client().get(path);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some(kind))
        );
        for (name, value) in [
            ("content-security-policy", POLICY),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        let text = String::from_utf8(answer.body).expect("text");
        let text = text.replace("http://www.w3.org/2000/svg", "");
        for word in ["http:", "https:", "//cdn", "@import", "url("] {
            assert!(!text.contains(word), "{path} has {word:?}");
        }
        let forbidden: &[&str] = match path {
            // The policy would not let them act.
            "/" => &["<style", " style=", " onclick=", "javascript:"],
            // What comes from outside is put in as text.
            "/dashboard.js" => &[
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "localStorage",
            ],
            _ => &[],
        };
        for word in forbidden {
            assert!(!text.contains(word), "{path} has {word:?}");
        }
    }
}

#[test]
fn the_stream_sends_a_picture_now_and_then_one_in_each_interval() {
    let (gate, upstream) = (Gate::new(), Upstream::start(Script::text("hello")));
    upstream.on_model("slow", Script::gated(&gate));
    let server = Server::start(&config(&upstream, "limits.global = 1"));
    let mut stream = live(&server, "none");
    assert_eq!(
        stream.head.header("content-type"),
        Some("text/event-stream")
    );
    assert_eq!(stream.head.header("cache-control"), Some("no-store"));
    let idle = shot(&mut stream);
    assert_eq!(idle["slots"], json!([]));
    assert_eq!(idle["viewer"], json!({ "key": null, "admin": true }));
    assert_eq!(idle["hour"].as_array().map(Vec::len), Some(60));

    let slow = Ask::of("mine/slow")
        .session("agent-1")
        .id("r-1")
        .send(&server);
    let busy = wait_for_shot(&mut stream, "it runs", |shot| {
        shot["slots"][0]["phase"] == "first byte"
    });
    let slot = &busy["slots"][0];
    assert_eq!(
        (
            &slot["request_id"],
            &slot["session_id"],
            &slot["model"],
            &slot["state"]
        ),
        (
            &json!("r-1"),
            &json!("agent-1"),
            &json!("slow"),
            &json!("held")
        )
    );
    assert_eq!(busy["running"][0]["request_id"], "r-1");
    assert_eq!(busy["status"]["slots"]["global"]["in_use"], 1);
    let waits = Ask::of("mine/fast")
        .session("agent-1")
        .id("r-2")
        .send(&server);
    let both = wait_for_shot(&mut stream, "one waits", |shot| {
        shot["waiting"][0]["request_id"] == "r-2"
    });
    let session = &both["sessions"][0];
    assert_eq!(
        (
            &session["session_id"],
            &session["running"],
            &session["waiting"]
        ),
        (&json!("agent-1"), &json!(1), &json!(1))
    );
    gate.release();
    for mut client in [slow, waits] {
        assert_eq!(client.response().expect("an answer").status, 200);
    }
    let after = wait_for_shot(&mut stream, "both have ended", |shot| {
        let completed = shot["hour"].as_array().into_iter().flatten();
        completed
            .filter_map(|minute| minute[0].as_u64())
            .sum::<u64>()
            == 2
    });
    assert_eq!(after["status"]["requests"]["completed"], 2);
    server.wait_until_idle();
}

#[test]
fn all_who_look_in_one_interval_are_shown_the_same_picture() {
    let server = Server::start("profile = \"test\"\ntelemetry.live_interval = \"60s\"");
    // A minute may end between two of them, once.
    eventually("eight are shown the same", || {
        let shots: Vec<Value> = (0..8).map(|_| shot(&mut live(&server, "none"))).collect();
        let page = server.page("/api/overview");
        shots.iter().all(|shot| *shot == page)
    });
}

#[test]
fn a_picture_has_as_many_rows_as_it_may_and_counts_the_rest() {
    let (gate, upstream) = (Gate::new(), Upstream::start(Script::text("hello")));
    upstream.on_model("slow", Script::gated(&gate));
    let rows = "limits = { global = 4, session = 4 }\ntelemetry.live_rows = 2";
    let server = Server::start(&config(&upstream, rows));
    let clients: Vec<Client> = (0..9)
        .map(|index| {
            let session = format!("agent-{}", index % 3);
            Ask::of("mine/slow").session(&session).send(&server)
        })
        .collect();
    // One slot is left for the other providers.
    server.wait_for_status("three run and six wait", |status| {
        status["slots"]["global"]["in_use"] == 3 && status["queue"]["waiting"] == 6
    });
    upstream.wait_for_in_flight(3);
    let mut stream = live(&server, "none");
    let busy = wait_for_shot(&mut stream, "all of it is shown", |shot| {
        shot["running_more"] == 1 && shot["waiting_more"] == 4
    });
    for list in ["slots", "running", "waiting", "sessions"] {
        assert_eq!(busy[list].as_array().map(Vec::len), Some(2), "{list}");
    }
    assert_eq!(
        (&busy["slots_more"], &busy["sessions_more"]),
        (&json!(1), &json!(1))
    );
    gate.release();
    drop(clients);
    server.wait_until_idle();
}

#[test]
fn with_keys_the_page_is_open_and_each_is_shown_its_own() {
    let (gate, upstream) = (Gate::new(), Upstream::start(Script::text("hello")));
    upstream.on_model("slow", Script::gated(&gate));
    let server = Server::start_with(&config(&upstream, WITH_KEYS), &KEYS);
    for (path, _) in FILES {
        assert_eq!(server.client().get(path).status, 200, "{path}");
    }
    for path in ["/api/live", "/api/overview"] {
        assert_eq!(server.client().get(path).status, 401, "{path}");
    }
    let mut asking = Ask::of("mine/slow")
        .header("Authorization", "Bearer pk-one")
        .session("agent-1")
        .id("r-1")
        .send(&server);
    upstream.wait_for_in_flight(1);
    for (key, sees) in [("pk-one", true), ("pk-two", false), ("pk-ops", true)] {
        let mut stream = live(&server, key);
        let shot = wait_for_shot(&mut stream, "the slot is taken", |shot| {
            shot["slots"][0]["state"] == "held"
        });
        let id = sees.then_some("r-1");
        assert_eq!(shot["slots"][0]["request_id"], json!(id), "{key}");
        assert_eq!(
            shot["running"].as_array().map(Vec::len),
            Some(sees.into()),
            "{key}"
        );
        assert_eq!(
            shot["sessions"].as_array().map(Vec::len),
            Some(sees.into()),
            "{key}"
        );
        assert_eq!(shot["viewer"]["admin"], key == "pk-ops");
    }
    gate.release();
    assert_eq!(asking.response().expect("an answer").status, 200);
}

#[test]
fn dashboards_beyond_their_bound_are_refused_in_words_and_others_are_served() {
    let server = Server::start("profile = \"test\"\ntelemetry.live_max = 1");
    let mut first = live(&server, "none");
    shot(&mut first);
    let refused: Response = look(&server, "/api/live", "none")
        .response()
        .expect("an answer");
    assert_eq!(refused.status, 503);
    let message = refused.json()["error"]["message"].to_string();
    assert!(message.contains("telemetry.live_max"), "{message}");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(Ask::of("embedded").answer(&server).status, 200);
    assert_eq!(server.client().get("/api/overview").status, 200);
    drop(first);
    eventually("its place is free again", || {
        live(&server, "none").status == 200
    });
}

#[test]
fn when_connections_run_out_dashboards_are_lent_some_and_the_others_are_left() {
    let (gate, upstream) = (Gate::new(), Upstream::start(Script::text("hello")));
    upstream.on_model("slow", Script::gated(&gate));
    let few = "server = { max_connections = 1, operation_connections = 4 }";
    let server = Server::start(&config(&upstream, few));
    let mut asking = Ask::of("mine/slow").send(&server);
    upstream.wait_for_in_flight(1);
    let mut lent = [live(&server, "none"), live(&server, "none")];
    for stream in &mut lent {
        assert_eq!(stream.status, 200);
        shot(stream);
    }
    assert_eq!(
        live(&server, "none").status,
        503,
        "half of them are not lent"
    );
    assert_eq!(server.client().get("/healthz").status, 200);
    gate.release();
    assert_eq!(asking.response().expect("an answer").status, 200);
}

#[test]
fn a_gateway_that_stops_waits_for_no_dashboard_and_ends_its_stream_properly() {
    let mut server = Server::start("profile = \"test\"\nserver.drain = \"1h\"");
    let mut stream = live(&server, "none");
    shot(&mut stream);
    server.signal(Signal::TERM);
    stream.events().expect("a proper end");
    assert!(server.wait().success());
}

#[test]
fn a_stream_that_is_only_asked_for_its_head_ends_with_it() {
    let server = Server::start("profile = \"test\"");
    let mut client = server.client();
    client.request("HEAD", "/api/live", &[], None);
    assert_eq!(client.head().expect("a head").0, 200);
    assert_eq!(client.get("/healthz").status, 200);
}

#[test]
fn the_page_shows_what_runs_cancels_it_shows_a_breaker_and_survives_a_restart() {
    let Some(mut browser) = Browser::start("the dashboard in a browser") else {
        return;
    };
    let (gate, upstream) = (Gate::new(), Upstream::start(Script::text("hello")));
    upstream.on_model("slow", Script::gated(&gate));
    let config = config(&upstream, "limits.global = 3");
    let server = Server::start_as(&config, &["--listen", OURS], &[]);
    let address = server.address.to_string();
    browser.open(&format!("http://{address}/"));
    browser.wait_for("a picture", "document.body.dataset.pictures > 0");
    browser.wait_for(
        "all slots are free",
        "document.querySelectorAll('#slots li[data-state=free]').length === 3",
    );

    // What a client chooses is shown as text, whatever it is.
    let hostile = "<img src=x onerror=document.title=1>";
    let asking = Ask::of("mine/slow")
        .session(hostile)
        .id("r-1")
        .send(&server);
    browser.wait_for(
        "its slot and its row",
        "document.querySelector('#slots .who').textContent.startsWith('<img') && \
         document.querySelector('#requests tr td').textContent === 'r-1'",
    );
    assert_eq!(
        browser.evaluate("document.querySelectorAll('main img').length"),
        json!(0)
    );
    browser.evaluate("document.querySelector('#requests button').click()");
    let mut asking = asking;
    let answer = asking.response().expect("an answer");
    assert_eq!(answer.status, 499, "{}", answer.json());
    browser.wait_for(
        "its row is gone",
        "document.querySelectorAll('#requests tr').length === 0",
    );
    browser.wait_for(
        "it is said",
        "document.querySelector('#spoken').textContent.includes('r-1')",
    );

    assert!(Ask::of("down/any").answer(&server).status >= 500);
    browser.wait_for(
        "the breaker is shown, with words",
        "document.querySelector('#providers li[data-key=down] .lamp').textContent === 'breaker open' && \
         document.querySelector('#providers li[data-key=down] .why').textContent.includes('opens in')",
    );

    drop(server);
    browser.wait_for(
        "the page says that the gateway is gone",
        "document.body.dataset.stale === 'yes' && !document.querySelector('#banner').hidden",
    );
    let server = Server::start_as(&config, &["--listen", &address], &[]);
    browser.wait_for(
        "it is live again, with what is so now",
        "document.body.dataset.stale === 'no' && document.querySelector('#banner').hidden && \
         document.querySelector('#providers li[data-key=down] .lamp').textContent === 'clear'",
    );
    assert_eq!(browser.evaluate("document.title"), json!("pointsman"));
    drop(server);
}

#[test]
fn the_page_asks_for_a_key_keeps_it_in_its_tab_and_asks_again_for_a_wrong_one() {
    let Some(mut browser) = Browser::start("the dashboard with keys in a browser") else {
        return;
    };
    let upstream = Upstream::start(Script::text("hello"));
    let server = Server::start_with(&config(&upstream, WITH_KEYS), &KEYS);
    browser.open(&format!("http://{}/", server.address));
    let is_asking =
        "!document.querySelector('#door').hidden && document.querySelector('main').hidden";
    let enter = |key: &str| {
        format!(
            "document.querySelector('#key').value = '{key}'; document.querySelector('#door button').click()"
        )
    };
    browser.wait_for("it asks", is_asking);
    browser.evaluate(&enter("pk-none"));
    browser.wait_for(
        "it says that this is none, and asks again",
        &format!("{is_asking} && document.querySelector('#banner').textContent.includes('not one of this gateway')"),
    );
    browser.evaluate(&enter("pk-two"));
    browser.wait_for(
        "a picture",
        "document.body.dataset.pictures > 0 && !document.querySelector('main').hidden && document.querySelector('#door').hidden",
    );
    browser.wait_for(
        "whose it is",
        "document.querySelector('#viewer').textContent.includes('two')",
    );
    let kept = "JSON.stringify([sessionStorage.length, localStorage.length, document.cookie])";
    assert_eq!(browser.evaluate(kept), json!("[1,0,\"\"]"));
}

#[test]
fn the_status_command_shows_the_same_and_fails_where_nobody_is() {
    let (gate, upstream) = (Gate::new(), Upstream::start(Script::text("hello")));
    upstream.on_model("slow", Script::gated(&gate));
    let with_keys = config(&upstream, WITH_KEYS);
    let server = Server::start_with(&with_keys, &KEYS);
    let url = format!("http://{}", server.address);
    let mut asking = Ask::of("mine/slow")
        .header("Authorization", "Bearer pk-two")
        .id("r-1")
        .send(&server);
    upstream.wait_for_in_flight(1);
    let status = |more: &[&str]| {
        let arguments = [&["status", "--url", &url], more].concat();
        Errand::start(&with_keys, &arguments, &KEYS, "").done()
    };
    // The admin's key of the configuration is taken, so r-1 is seen; a picture may be from the interval before.
    eventually("it shows the request", || {
        let done = status(&[]);
        assert_eq!(done.code, Some(0), "{done:#?}");
        assert!(done.out.starts_with("pointsman "), "{}", done.out);
        assert!(!done.out.contains('\x1b'), "no terminal is commanded");
        done.out.contains("\nr-1  ")
    });
    let done = status(&["--json", "--key-env", "ONE_KEY"]);
    let shot: Value = serde_json::from_str(&done.out).expect("JSON");
    assert_eq!(
        (&shot["viewer"]["key"], &shot["running"]),
        (&json!("one"), &json!([]))
    );
    gate.release();
    assert_eq!(asking.response().expect("an answer").status, 200);

    let done = Errand::run("", &["status", "--url", NOBODY]);
    assert_eq!(done.code, Some(1), "{done:#?}");
    assert!(done.err.contains("nobody answers at"), "{}", done.err);
    let done = Errand::run("profile = \"test\"", &["status", "--url", &url]);
    assert_eq!(done.code, Some(1), "{done:#?}");
    assert!(done.err.contains("an API key is needed"), "{}", done.err);
}

/// Answers every request with `body`, and says each time that it did.
fn tally(body: &'static str) -> (SocketAddr, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (say, said) = channel();
    spawn("tally", move || {
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
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n");
            let answer = format!("{head}Connection: close\r\n\r\n{body}");
            let _ = stream.get_mut().write_all(answer.as_bytes());
            if say.send(()).is_err() {
                return;
            }
        }
    });
    (address, said)
}

#[test]
fn a_watcher_is_shown_one_picture_after_the_other_until_it_is_interrupted() {
    let (address, said) = tally("{\"interval_s\":0.05}");
    let url = format!("http://{address}");
    let watcher = Errand::start("", &["status", "--watch", "--json", "--url", &url], &[], "");
    for _ in 0..3 {
        said.recv_timeout(BOUND).expect("one more look");
    }
    watcher.signal(Signal::INT);
    let done = watcher.done();
    assert_eq!(done.code, Some(130), "{}", done.err);
    // The third one may be interrupted before it is shown.
    assert!(done.out.lines().count() >= 2, "{}", done.out);
    for line in done.out.lines() {
        let shot: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(shot["interval_s"], 0.05);
    }
}
