//! `/metrics`, as Prometheus reads it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{
    Ask, Client, Gate, Script, Server, Upstream, approves, code, eventually, installed, text,
};

/// Every name, whatever has happened.
const NAMES: &[&str] = &[
    "abandoned_calls",
    "audit_mismatch_total",
    "audit_runs_total",
    "backing_off",
    "breaker_state",
    "breaker_transitions_total",
    "build_info",
    "concurrent_requests",
    "deadline_exceeded_total",
    "deadline_overshoot_seconds",
    "first_byte_seconds",
    "gate_open",
    "late_releases_total",
    "limit_events_total",
    "load_level",
    "permits_acquired_total",
    "permits_reclaimed_total",
    "permits_released_total",
    "phase_seconds",
    "pool_checkins_total",
    "pool_checkouts_total",
    "pool_connections",
    "pool_failed_total",
    "pool_max_connections",
    "pool_recycled_total",
    "pool_reused_total",
    "pool_wait_seconds",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_threads",
    "queue_capacity",
    "queue_length",
    "queue_oldest_seconds",
    "queue_wait_seconds",
    "rejected_total",
    "request_duration_seconds",
    "requests_in_flight_peak",
    "requests_total",
    "retries_total",
    "retry_budget_tokens",
    "semaphore_acquisition_failures_total",
    "semaphore_current_value",
    "semaphore_expected_value",
    "semaphore_leaks_detected_total",
    "semaphore_recoveries_total",
    "semaphore_wait_seconds",
    "sessions",
    "slots_in_use",
    "slots_limit",
    "slots_quarantined",
    "throttle_limit",
    "tokens_total",
    "upstream_responses_total",
    "watchdog_tick_delay_seconds",
    "workers",
    "workers_lost",
    "workers_replaced_total",
];

/// What one scrape found.
#[derive(Debug)]
struct Page(String);

impl Page {
    fn of(server: &Server) -> Page {
        let response = server.client().get("/metrics");
        assert_eq!(response.status, 200);
        let kind = response.header("content-type").expect("a type");
        assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
        Page(String::from_utf8(response.body).expect("UTF-8"))
    }

    /// The sum of all series of this name (without the prefix) that have these labels.
    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let lines = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix("pointsman_")?.strip_prefix(name)?;
            let is_whole = rest.starts_with(['{', ' ']);
            let has = |label: &&str| {
                let (name, value) = label.split_once('=').expect("name=value");
                let label = format!("{name}=\"{value}\"");
                rest.contains(&format!("{{{label}")) || rest.contains(&format!(",{label}"))
            };
            (is_whole && labels.iter().all(has)).then_some(rest)
        });
        let values = lines.map(|line| {
            let value = line.rsplit(' ').next().expect("a value");
            value.parse::<f64>().expect("a number")
        });
        values.sum()
    }
}

struct Rig {
    upstream: Upstream,
    server: Server,
}

impl Rig {
    fn new(more: &str) -> Rig {
        let upstream = Upstream::start(Script::text("hello"));
        let server = Server::start(&format!(
            "profile = \"test\"\n{more}\nproviders.mine.kind = \"openai\"\n\
             providers.mine.retry.base = \"1ms\"\nproviders.mine.base_url = \"{}\"\n",
            upstream.url()
        ));
        Rig { upstream, server }
    }

    fn page(&self) -> Page {
        Page::of(&self.server)
    }

    /// Waits for a page that has this value: what a client has read is counted, but not always before it was read.
    fn wait_for(&self, name: &str, labels: &[&str], value: f64) -> Page {
        let mut page = self.page();
        eventually(&format!("{name}{labels:?} is {value}"), || {
            page = self.page();
            page.sum(name, labels) == value
        });
        page
    }
}

#[test]
fn every_name_is_there_before_anything_has_happened() {
    let rig = Rig::new("");
    let page = rig.page();
    let types = page.0.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("# TYPE pointsman_")?.split_once(' ')?;
        Some(name)
    });
    let found: Vec<&str> = types.collect();
    assert!(found.is_sorted(), "{found:?}");
    for name in NAMES {
        assert!(found.contains(name), "{name} is missing: {found:?}");
    }
    let others = page.0.lines().filter(|line| !line.starts_with('#'));
    for line in others {
        assert!(line.starts_with("pointsman_"), "{line}");
    }
}

#[test]
fn answers_are_counted_and_timed_and_their_tokens_too() {
    let rig = Rig::new("");
    for class in ["high", "low", "low"] {
        let ask = Ask::of("mine/m").priority(class).session("agent");
        assert_eq!(text(&ask.answer(&rig.server)), "hello");
    }
    rig.server.wait_until_idle();
    let page = rig.wait_for("requests_total", &[], 3.0);
    let completed = ["provider=mine", "outcome=completed", "class=low"];
    assert_eq!(page.sum("requests_total", &completed), 2.0);
    for (name, labels, value) in [
        (
            "request_duration_seconds_count",
            vec!["class=high", "provider=mine"],
            1.0,
        ),
        ("first_byte_seconds_count", vec!["provider=mine"], 3.0),
        ("phase_seconds_count", vec!["phase=queue"], 3.0),
        ("phase_seconds_count", vec!["phase=upstream"], 3.0),
        ("phase_seconds_count", vec!["phase=total"], 3.0),
        (
            "queue_wait_seconds_count",
            vec!["result=started", "class=low"],
            2.0,
        ),
        (
            "semaphore_wait_seconds_count",
            vec!["semaphore_type=global"],
            3.0,
        ),
        (
            "semaphore_wait_seconds_count",
            vec!["semaphore_type=provider"],
            3.0,
        ),
        (
            "semaphore_wait_seconds_count",
            vec!["semaphore_type=session"],
            3.0,
        ),
        (
            "upstream_responses_total",
            vec!["provider=mine", "code=200"],
            3.0,
        ),
        ("pool_checkouts_total", vec!["provider=mine"], 3.0),
        ("pool_wait_seconds_count", vec!["provider=mine"], 3.0),
        ("permits_acquired_total", vec![], 3.0),
        ("permits_released_total", vec![], 3.0),
        ("late_releases_total", vec![], 0.0),
        ("retries_total", vec![], 0.0),
        ("requests_in_flight_peak", vec![], 1.0),
        ("sessions", vec!["state=idle"], 1.0),
    ] {
        assert_eq!(page.sum(name, &labels), value, "{name} {labels:?}");
    }
    let tokens = page.sum(
        "tokens_total",
        &["provider=mine", "model=m", "kind=completion"],
    );
    assert!(tokens > 0.0, "the upstream says what it used");
}

#[test]
fn a_retry_is_counted_with_its_reason_and_the_answers_with_their_codes() {
    let rig = Rig::new("");
    rig.upstream
        .next(Script::error(503, "engine_overloaded_error", "busy"));
    let answer = Ask::of("mine/m").answer(&rig.server);
    assert_eq!(text(&answer), "hello");
    let page = rig.wait_for("upstream_responses_total", &["code=200"], 1.0);
    let codes = page.sum("upstream_responses_total", &["code=503"]);
    assert_eq!(codes, 1.0);
    let retries = page.sum("retries_total", &["provider=mine", "reason=overloaded"]);
    assert_eq!((retries, page.sum("retries_total", &[])), (1.0, 1.0));
    let waits = page.sum("queue_wait_seconds_count", &["result=started"]);
    assert_eq!(waits, 1.0, "the wait for the retry is none in line");
}

#[test]
fn what_a_breaker_became_is_counted() {
    // It opens for longer than anybody waits.
    let wait = "providers.mine.breaker.wait = \"1h\"\nproviders.mine.breaker.max_wait = \"1h\"";
    let rig = Rig::new(wait);
    rig.upstream.on_model(
        "m",
        Script::error(401, "invalid_authentication_error", "no"),
    );
    assert_eq!(
        code(&Ask::of("mine/m").answer(&rig.server)),
        "provider_auth"
    );
    let page = rig.wait_for("breaker_state", &["provider=mine"], 2.0);
    let opened = page.sum("breaker_transitions_total", &["provider=mine", "to=open"]);
    assert_eq!(opened, 1.0);
    assert_eq!(page.sum("gate_open", &["provider=mine"]), 0.0);
    assert_eq!(
        code(&Ask::of("mine/m").answer(&rig.server)),
        "provider_auth"
    );
    let page = rig.wait_for("rejected_total", &["reason=provider_shut"], 1.0);
    let labels = ["semaphore_type=provider", "provider=mine"];
    assert_eq!(
        page.sum("semaphore_acquisition_failures_total", &labels),
        1.0
    );
}

#[test]
fn refusals_timeouts_and_cancels_are_told_apart_and_every_gauge_returns_to_zero() {
    let gate = Gate::new();
    let rig = Rig::new("limits.global = 1\nqueue.capacity = 2\nqueue.per_session = 2");
    rig.upstream.on_model("held", Script::gated(&gate));
    let mut first = Ask::of("mine/held").send(&rig.server);
    rig.upstream.wait_for_in_flight(1);
    let line_up = |ask: &Ask, waiting: f64| -> Client {
        let client = ask.send(&rig.server);
        rig.wait_for("queue_length", &[], waiting);
        client
    };
    let ask = || Ask::of("mine/m").priority("low");
    let late = ask().within("300ms").answer(&rig.server);
    assert_eq!(code(&late), "deadline_exceeded");
    let mut cancelled = line_up(&ask().id("unwanted"), 1.0);
    let mut second = line_up(&ask().session("another"), 2.0);
    assert_eq!(code(&ask().answer(&rig.server)), "over_capacity");
    let page = rig.page();
    assert_eq!(page.sum("slots_in_use", &["semaphore_type=global"]), 1.0);
    assert_eq!(page.sum("concurrent_requests", &["provider=mine"]), 1.0);
    assert_eq!(page.sum("workers", &["state=busy"]), 1.0);
    assert!(page.sum("queue_oldest_seconds", &["class=low"]) > 0.0);
    let mut admin = rig.server.client();
    admin.request("DELETE", "/api/requests/unwanted", &[], None);
    assert_eq!(admin.response().expect("an answer").status, 200);
    assert_eq!(cancelled.response().expect("an answer").status, 499);
    gate.release();
    for client in [&mut first, &mut second] {
        assert_eq!(client.response().expect("an answer").status, 200);
    }
    rig.server.wait_until_idle();

    let page = rig.wait_for("requests_total", &[], 5.0);
    let outcome = |word: &str| page.sum("requests_total", &[&format!("outcome={word}")]);
    let words = ["completed", "timeout", "cancelled", "refused", "error"];
    assert_eq!(words.map(outcome), [2.0, 1.0, 1.0, 1.0, 0.0]);
    let waits = |word: &str| page.sum("queue_wait_seconds_count", &[&format!("result={word}")]);
    let words = ["started", "timeout", "cancelled", "refused"];
    assert_eq!(words.map(waits), [2.0, 1.0, 1.0, 0.0]);
    assert_eq!(
        page.sum("rejected_total", &["class=low", "reason=queue_full"]),
        1.0
    );
    assert_eq!(page.sum("deadline_exceeded_total", &["phase=queue"]), 1.0);
    assert_eq!(page.sum("deadline_overshoot_seconds_count", &[]), 1.0);
    let global = ["semaphore_type=global"];
    let failures = page.sum("semaphore_acquisition_failures_total", &global);
    assert_eq!(failures, 2.0, "the late one and the refused one");
    for gauge in [
        "slots_in_use",
        "concurrent_requests",
        "queue_length",
        "queue_oldest_seconds",
        "backing_off",
        "abandoned_calls",
        "slots_quarantined",
    ] {
        assert_eq!(page.sum(gauge, &[]), 0.0, "{gauge}");
    }
    let value = |name: &str| page.sum(name, &global);
    assert_eq!(
        value("semaphore_current_value"),
        value("semaphore_expected_value")
    );
    assert_eq!(value("semaphore_expected_value"), 1.0);
}

#[test]
fn a_call_that_is_cut_says_how_far_it_had_come() {
    let rig = Rig::new("");
    rig.upstream.on_model("mute", Script::Silent);
    let answer = Ask::of("mine/mute").within("300ms").answer(&rig.server);
    assert_eq!(code(&answer), "deadline_exceeded");
    rig.server.wait_until_idle();
    let page = rig.wait_for("requests_total", &["outcome=timeout"], 1.0);
    assert_eq!(
        page.sum("deadline_exceeded_total", &["phase=first_byte"]),
        1.0
    );
    assert_eq!(
        page.sum("first_byte_seconds_count", &["provider=mine"]),
        0.0
    );
}

#[test]
fn what_is_turned_away_at_the_door_is_counted_too() {
    let config = "server.keys = [{ name = \"agent\", key_env = \"AGENT\" }]";
    let server = Server::start_with(config, &[("AGENT", "one")]);
    let ask = |key: &str| {
        let mut client = server.client();
        let key = format!("Authorization: Bearer {key}\r\n");
        client.send(format!(
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\n{key}\r\n"
        ));
        client.response().expect("an answer")
    };
    assert_eq!(ask("none").status, 401);
    let mut client = server.client();
    client.send("GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!(client.response().expect("an answer").status, 403);
    let mut client = server.client();
    client.send("GET /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n");
    assert_eq!(client.response().expect("an answer").status, 400);
    let page = ask("one");
    assert_eq!(page.status, 200);
    let page = Page(String::from_utf8(page.body).expect("UTF-8"));
    for reason in ["no_key", "not_allowed", "malformed"] {
        let labels = [&*format!("reason={reason}"), "class=none"];
        assert_eq!(page.sum("rejected_total", &labels), 1.0, "{reason}");
    }
}

#[test]
fn a_chat_that_nobody_can_answer_is_counted_without_being_a_request_that_ended() {
    let rig = Rig::new("");
    let answer = Ask::of("nobody/m").answer(&rig.server);
    assert_eq!(code(&answer), "model_not_found");
    let answer = Ask::of("mine/m")
        .with("messages", json!(7))
        .answer(&rig.server);
    assert_eq!(code(&answer), "invalid_request");
    let page = rig.page();
    let rejected = |reason: &str| page.sum("rejected_total", &[&format!("reason={reason}")]);
    assert_eq!(["no_model", "malformed"].map(rejected), [1.0, 1.0]);
    assert_eq!(page.sum("requests_total", &[]), 0.0);
}

#[test]
fn switched_off_there_is_no_page_and_everything_else_goes_on() {
    let rig = Rig::new("telemetry.metrics = false");
    assert_eq!(text(&Ask::of("mine/m").answer(&rig.server)), "hello");
    let response = rig.server.client().get("/metrics");
    assert_eq!(
        (response.status, code(&response).as_str()),
        (404, "not_found")
    );
    let message = response.json()["error"]["message"].to_string();
    assert!(message.contains("telemetry.metrics"), "{message}");
}

#[test]
fn a_provider_that_a_reload_brings_is_counted_and_one_that_it_takes_leaves_its_counts() {
    let upstream = Upstream::start(Script::text("hello"));
    let of = |name: &str| {
        let url = upstream.url();
        format!(
            "profile = \"test\"\nproviders.{name}.kind = \"openai\"\nproviders.{name}.base_url = \"{url}\"\n"
        )
    };
    let server = Server::start(&of("old"));
    let ask = |name: &str| text(&Ask::of(&format!("{name}/m")).answer(&server));
    assert_eq!(ask("old"), "hello");
    server.wait_until_idle();
    std::fs::write(server.directory().join("config.toml"), of("new")).expect("a file");
    let reloaded = server.client().post("/api/reload", &json!({}));
    assert_eq!(reloaded.status, 200, "{:#}", reloaded.json());
    assert_eq!(ask("new"), "hello");
    server.wait_until_idle();
    let mut page = Page::of(&server);
    eventually("both have been counted", || {
        page = Page::of(&server);
        page.sum("requests_total", &["outcome=completed"]) == 2.0
    });
    for name in ["old", "new"] {
        let provider = &*format!("provider={name}");
        for (family, labels) in [
            ("requests_total", [provider, "outcome=completed"]),
            ("upstream_responses_total", [provider, "code=200"]),
            ("pool_wait_seconds_count", [provider, provider]),
        ] {
            assert_eq!(page.sum(family, &labels), 1.0, "{family} {name}");
        }
        assert!(page.sum("tokens_total", &[provider]) > 0.0, "{name}");
    }
    let slots = |name: &str| page.sum("semaphore_expected_value", &[&format!("provider={name}")]);
    assert_eq!(slots("old"), 0.0, "it has no slots any more");
    assert!(slots("new") > 0.0);
    assert_eq!(page.sum("requests_total", &["provider=none"]), 0.0);
}

/// A server of which a little of everything is to be told.
fn lively() -> Rig {
    let rig = Rig::new("");
    let mut stream = Ask::of("mine/m").streamed().stream(&rig.server);
    stream.events().expect("a proper end");
    assert_eq!(text(&Ask::of("mine/m").answer(&rig.server)), "hello");
    rig.server.wait_until_idle();
    rig
}

#[test]
fn promtool_has_nothing_to_say_against_it() {
    let Some(promtool) = installed("promtool") else {
        return;
    };
    let page = lively().page();
    approves(&promtool, &["check", "metrics"], page.0.as_bytes());
}

/// A Prometheus on a port that was free a moment ago; it is killed when it is dropped.
struct Prometheus {
    child: Child,
    port: u16,
}

impl Prometheus {
    fn start(program: &Path, directory: &Path) -> Prometheus {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
        let at = |name: &str| directory.join(name).display().to_string();
        let child = Command::new(program)
            .arg(format!("--config.file={}", at("prometheus.yml")))
            .arg(format!("--storage.tsdb.path={}", at("data")))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        Prometheus { child, port }
    }

    /// What it answers to a query; nothing while it does not listen.
    fn query(&self, query: &str) -> Option<Value> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        // It takes its time to listen.
        drop(TcpStream::connect(address).ok()?);
        let mut client = Client::connect(address);
        client.request("GET", &format!("/api/v1/query?query={query}"), &[], None);
        let response = client.response().ok()?;
        (response.status == 200).then(|| response.json())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn prometheus_itself_reads_it() {
    let Some(program) = installed("prometheus") else {
        return;
    };
    let rig = lively();
    let directory = tempfile::tempdir().expect("a directory");
    let target = rig.server.address;
    let config = format!(
        "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n  - job_name: pointsman\n    \
         static_configs:\n      - targets: ['{target}']\n"
    );
    std::fs::write(directory.path().join("prometheus.yml"), config).expect("a file");
    let mut prometheus = Prometheus::start(&program, directory.path());
    let mut found = json!(null);
    eventually("it has scraped", || {
        if prometheus.child.try_wait().expect("it is ours").is_some() {
            // Somebody else took the port in the meantime.
            prometheus = Prometheus::start(&program, directory.path());
        }
        let query = "sum(pointsman_requests_total%7Boutcome=%22completed%22%7D)";
        found = prometheus.query(query).unwrap_or_default();
        found["data"]["result"][0]["value"][1] == "2"
    });
}
