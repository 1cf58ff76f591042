//! The load of the box, and what is admitted for it: the box is a folder that looks like `/proc`.

use std::fs;
use std::time::Duration;

use pointsman::config::Loader;
use pointsman::{Call, ExecuteError, Gateway, Level};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Ask, Client, Gate, Response, Script, Server, Upstream, code, eventually, text,
};

/// A box that is as loaded as a test wants it.
struct Proc(TempDir);

impl Proc {
    fn new() -> Proc {
        let proc = Proc(tempfile::tempdir().expect("a directory"));
        proc.memory_used(10);
        proc
    }

    /// So many hundredths of its memory are used from now on.
    fn memory_used(&self, percent: u64) {
        let available = 100_000 - 1_000 * percent;
        let text = format!("MemTotal: 100000 kB\nMemAvailable: {available} kB\n");
        // Nobody finds half of it.
        let [new, place] = ["new", "meminfo"].map(|name| self.0.path().join(name));
        fs::write(&new, text).expect("it is written");
        fs::rename(&new, &place).expect("it is there");
    }

    /// A throttle that looks at this box many times a second and believes what it sees.
    fn config(&self) -> String {
        let path = self.0.path().to_str().expect("a name in UTF-8");
        format!(
            "throttle.enabled = true\nthrottle.proc = \"{path}\"\nthrottle.interval = \"20ms\"\n\
             throttle.smoothing = \"0s\"\nthrottle.rise_after = \"0s\"\nthrottle.fall_after = \"0s\"\n\
             throttle.raise_every = \"10ms\"\nthrottle.history = 100000\n"
        )
    }
}

/// Eight slots, all of them for one provider, and time enough.
fn eight_slots(upstream: &Upstream) -> String {
    format!(
        "providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"{}\"\nproviders.mine.max_inflight = 8\n\
         limits.global = 8\ntimeouts.normal = \"5m\"\nqueue.timeout = \"5m\"\n",
        upstream.url()
    )
}

/// A call whose answer waits for its gate.
struct Held {
    gate: Gate,
    client: Client,
}

impl Held {
    fn start(upstream: &Upstream, server: &Server, name: &str) -> Held {
        let gate = Gate::new();
        upstream.on_model(name, Script::gated(&gate));
        let client = Ask::of(&format!("mine/{name}")).send(server);
        Held { gate, client }
    }

    fn start_all(upstream: &Upstream, server: &Server, names: &[&str]) -> Vec<Held> {
        let start = |name: &&str| Held::start(upstream, server, name);
        names.iter().map(start).collect()
    }

    /// Lets it go, and sees that it is answered whole.
    fn finish(mut self) {
        self.gate.release();
        let response = self.client.response().expect("an answer");
        assert_eq!(response.status, 200, "{:#}", response.json());
    }
}

fn limit_now(status: &Value) -> &Value {
    &status["slots"]["global"]["limit_now"]
}

fn wait_for_limit(server: &Server, limit: u64) -> Value {
    server.wait_for_status("the limit follows", |status| *limit_now(status) == limit)
}

fn force(server: &Server, wish: &Value) -> Response {
    server
        .client()
        .post("/api/throttling/force-adjustment", wish)
}

#[test]
fn a_loaded_box_admits_less_cuts_nothing_and_recovers() {
    let upstream = Upstream::start(Script::text("well"));
    let proc = Proc::new();
    let server = Server::start(&(eight_slots(&upstream) + &proc.config()));
    let mut running = Held::start_all(&upstream, &server, &["a", "b", "c", "d", "e", "f"]);
    upstream.wait_for_in_flight(6);

    proc.memory_used(99);
    let status = wait_for_limit(&server, 2);
    assert_eq!(status["slots"]["global"]["limit"], 8);
    assert_eq!(status["throttle"]["level"], "emergency", "{status:#}");
    let waiting = Held::start_all(&upstream, &server, &["x", "y", "z"]);
    server.wait_for_status("they wait", |status| status["queue"]["waiting"] == 3);
    let page = server.page("/api/throttling/concurrency");
    assert_eq!(page["held_by"], "throttle", "{page:#}");
    assert_eq!((&page["in_use"], &page["draining"]), (&json!(6), &json!(4)));

    let last = running.pop().expect("six");
    let next = running.pop().expect("five");
    running.into_iter().for_each(Held::finish);
    server.wait_for_status("four are gone", |status| {
        status["slots"]["global"]["in_use"] == 2
    });
    // An answer may be read whole before its upstream counts it as given.
    upstream.wait_for_in_flight(2);
    assert_eq!(
        upstream.requests().len(),
        6,
        "nobody started above the limit"
    );
    next.finish();
    upstream.wait_for_requests(7);
    upstream.wait_for_in_flight(2);

    proc.memory_used(10);
    wait_for_limit(&server, 8);
    upstream.wait_for_requests(9);
    last.finish();
    waiting.into_iter().for_each(Held::finish);
    server.wait_until_idle();
    assert_eq!(upstream.peak(), 6);
    server.wait_for_log("throttle: level emergency after low, global limit 2 of 8: memory 99 %");
    server.wait_for_log("global limit 8 of 8");
}

#[test]
fn the_first_look_at_a_loaded_box_lowers_the_limit_and_later_ones_raise_it_step_by_step() {
    let upstream = Upstream::start(Script::text("well"));
    let proc = Proc::new();
    let server = Server::start(&(eight_slots(&upstream) + &proc.config()));
    proc.memory_used(96);
    wait_for_limit(&server, 4);
    proc.memory_used(10);
    wait_for_limit(&server, 8);
    let page = server.page("/api/throttling/metrics");
    assert_eq!(
        page["resources"]["box"]["memory_bytes"], 102_400_000,
        "{page:#}"
    );
    let samples = page["samples"].as_array().expect("a list");
    let loaded = |sample: &&Value| sample["raw"]["memory"] == 0.96;
    let first = samples.iter().find(loaded).expect("it was seen");
    assert_eq!(
        (&first["limit"], &first["level"]),
        (&json!(4), &json!("critical"))
    );
    let status = server.page("/api/throttling/status");
    let changes = status["changes"].as_array().expect("a list");
    assert_eq!(
        changes[0]["limit"],
        json!({"from": 8, "to": 4}),
        "{status:#}"
    );
    let rises = changes[1..]
        .iter()
        .all(|change| change["limit"]["to"].as_u64() >= change["limit"]["from"].as_u64());
    assert!(rises, "{status:#}");
    assert_eq!(changes.last().expect("some")["limit"]["to"], 8);
}

#[test]
fn a_refusal_says_that_the_throttle_holds_the_limit_down() {
    let upstream = Upstream::start(Script::text("well"));
    let proc = Proc::new();
    let more = "queue.capacity = 1\nqueue.per_session = 1\n";
    let server = Server::start(&(eight_slots(&upstream) + &proc.config() + more));
    proc.memory_used(99);
    wait_for_limit(&server, 2);
    let running = Held::start_all(&upstream, &server, &["a", "b"]);
    upstream.wait_for_in_flight(2);
    let waiting = Held::start(&upstream, &server, "c");
    server.wait_for_status("one waits", |status| status["queue"]["waiting"] == 1);
    let refused = Ask::of("mine/d").session("other").answer(&server);
    assert_eq!((refused.status, &*code(&refused)), (503, "over_capacity"));
    let message = refused.json()["error"]["message"].to_string();
    assert!(
        message.contains("the throttle holds the global limit at 2 of 8"),
        "{message}"
    );
    assert!(refused.header("retry-after").is_some());

    let low = Ask::of("mine/d").priority("low").answer(&server);
    assert_eq!((low.status, &*code(&low)), (503, "over_capacity"));
    let message = low.json()["error"]["message"].to_string();
    assert!(message.contains("low priority"), "{message}");

    running.into_iter().for_each(Held::finish);
    waiting.finish();
    proc.memory_used(10);
    wait_for_limit(&server, 8);
    let low = Ask::of("mine/d").priority("low").answer(&server);
    assert_eq!(text(&low), "well");
    server.wait_until_idle();
}

#[test]
fn a_limit_can_be_forced_for_a_while_and_released() {
    let upstream = Upstream::start(Script::text("well"));
    let more =
        "throttle.enabled = false\nthrottle.interval = \"20ms\"\nthrottle.raise_every = \"10ms\"\n";
    let server = Server::start(&(eight_slots(&upstream) + more));
    let answer = force(&server, &json!({"limit": 3, "for": "10m"}));
    assert_eq!(answer.status, 200);
    let page = answer.json();
    assert_eq!(
        page["limit"],
        json!({"now": 3, "configured": 8, "min": 2, "max": 10})
    );
    assert_eq!(page["forced"]["limit"], 3, "{page:#}");
    let calls = Held::start_all(&upstream, &server, &["a", "b", "c", "d"]);
    upstream.wait_for_in_flight(3);
    server.wait_for_status("one waits", |status| status["queue"]["waiting"] == 1);

    let answer = force(&server, &json!({"level": "emergency"}));
    assert_eq!(answer.json()["limit"]["now"], 2, "{:#}", answer.json());
    assert_eq!(answer.json()["refuses_low"], true);
    let answer = force(&server, &json!({"release": true}));
    assert_eq!(
        (answer.status, &answer.json()["forced"]),
        (200, &Value::Null)
    );
    upstream.wait_for_in_flight(4);
    wait_for_limit(&server, 8);
    calls.into_iter().for_each(Held::finish);

    force(&server, &json!({"limit": 2, "for": "30ms"}));
    let status = wait_for_limit(&server, 8);
    assert_eq!(status["throttle"]["enabled"], false);
    let changes = server.page("/api/throttling/status")["changes"].to_string();
    assert!(
        changes.contains("somebody forces limit 2 for 30ms"),
        "{changes}"
    );
    assert!(changes.contains("what was forced is over"), "{changes}");
    server.wait_until_idle();
}

#[test]
fn a_wish_that_is_not_accepted_changes_nothing_and_says_what_is() {
    let server = Server::start("profile = \"test\"");
    for (wish, param) in [
        (json!({}), Value::Null),
        (json!({"limit": 1}), json!("limit")),
        (json!({"limit": 11}), json!("limit")),
        (json!({"limit": 3, "for": "1day"}), json!("for")),
        (json!({"level": "loud"}), json!("level")),
        (json!({"limits": 3}), json!("limits")),
        (json!({"release": 1}), json!("release")),
    ] {
        let answer = force(&server, &wish);
        assert_eq!(
            (answer.status, &*code(&answer)),
            (400, "invalid_request"),
            "{wish}"
        );
        assert_eq!(answer.json()["error"]["param"], param, "{wish}");
    }
    let page = server.page("/api/throttling/status");
    assert_eq!(
        (&page["forced"], &page["changes"]),
        (&Value::Null, &json!([]))
    );
}

#[test]
fn with_keys_only_an_admin_forces_anything() {
    let keys = "profile = \"test\"\nserver.keys = [{ name = \"agent\", key_env = \"AGENT\" }, \
                { name = \"ops\", key_env = \"OPS\", admin = true }]\n";
    let server = Server::start_with(keys, &[("AGENT", "one"), ("OPS", "root")]);
    let call = |method: &str, path: &str, key: &str, body: Option<&Value>| {
        let mut client = server.client();
        client.request(method, path, &[("x-api-key", key)], body);
        client.response().expect("an answer")
    };
    let wish = json!({"limit": 3});
    for (key, status) in [("one", 403), ("none", 401), ("root", 200)] {
        let path = "/api/throttling/force-adjustment";
        assert_eq!(call("POST", path, key, Some(&wish)).status, status, "{key}");
    }
    for page in ["status", "metrics", "concurrency"] {
        let path = format!("/api/throttling/{page}");
        assert_eq!(call("GET", &path, "one", None).status, 200, "{page}");
        assert_eq!(call("GET", &path, "none", None).status, 401, "{page}");
    }
}

#[test]
fn what_the_process_and_its_box_have_is_shown() {
    let server = Server::start("profile = \"test\"");
    let seen = server.page("/api/status")["resources"].clone();
    let process = &seen["process"];
    assert!(process["threads"].as_u64() > Some(1), "{seen:#}");
    assert!(process["open_files"].as_u64() > Some(2), "{seen:#}");
    let memory = &seen["box"];
    assert!(memory["memory_available_bytes"].as_u64() <= memory["memory_bytes"].as_u64());
}

#[test]
fn a_box_of_which_nothing_can_be_read_holds_nothing_down() {
    let upstream = Upstream::start(Script::text("well"));
    let proc = Proc::new();
    let empty = proc.0.path().join("empty");
    let config = proc.config().replace("throttle.proc", "# ");
    let config = format!("{config}throttle.proc = \"{}\"\n", empty.display());
    let server = Server::start(&(eight_slots(&upstream) + &config));
    server.wait_for_log("nothing of the box can be read");
    assert_eq!(text(&Ask::of("mine/m").answer(&server)), "well");
    let page = server.page("/api/throttling/status");
    assert_eq!(
        (&page["level"], &page["limit"]["now"]),
        (&json!("low"), &json!(8))
    );
    assert_eq!(
        page["raw"],
        json!({"cpu": null, "memory": null, "files": null})
    );
}

#[test]
fn a_call_unless_loaded_heeds_the_box_too() {
    let proc = Proc::new();
    let text = format!("profile = \"test\"\n{}", proc.config());
    let config = Loader::default().from_toml(&text, "test.toml");
    let gateway = Gateway::start(config.expect("accepted")).expect("threads");
    let wary = |level| {
        let call = Call::new()
            .unless_load(level)
            .timeout(Duration::from_secs(60));
        gateway.execute(call, |_| Ok::<_, ()>(()))
    };
    assert_eq!(wary(Level::High), Ok(()));
    proc.memory_used(96);
    eventually("the box is loaded", || gateway.load() == Level::Critical);
    assert_eq!(
        wary(Level::High),
        Err(ExecuteError::Loaded(Level::Critical))
    );
    assert_eq!(wary(Level::Emergency), Ok(()));
    proc.memory_used(10);
    eventually("it has recovered", || gateway.load() == Level::Low);
    assert_eq!(wary(Level::Normal), Ok(()));
}
