//! Alerts, from what goes wrong to who is told; and the same rules and metrics as other programs take them.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{
    Ask, Gate, Request, Script, Server, Upstream, approves, code, eventually, installed,
};

/// Looks often, and only at what a test is about.
const QUICK: &str = "alerts.enabled = true\nalerts.interval = \"100ms\"\nalerts.webhook_wait = \"1ms\"\n\
                     alerts.rules.saturation.for = \"0s\"\n";

struct Rig {
    gate: Gate,
    upstream: Upstream,
    server: Server,
}

/// One slot, which is held until the gate opens.
fn rig(more: &str, environment: &[(&str, &str)]) -> Rig {
    let gate = Gate::new();
    let upstream = Upstream::start(Script::text("hello"));
    upstream.on_model("held", Script::gated(&gate));
    let config = format!(
        "profile = \"test\"\nlog.level = \"info\"\n{QUICK}limits.global = 1\n{more}\n\
         providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"{}\"\n",
        upstream.url()
    );
    let server = Server::start_with(&config, environment);
    Rig {
        gate,
        upstream,
        server,
    }
}

/// Waits for the alerts to be as `cond` wants them.
fn wait_for(server: &Server, what: &str, cond: impl Fn(&Value) -> bool) -> Value {
    let mut page = Value::Null;
    eventually(what, || {
        page = server.page("/api/alerts");
        cond(&page)
    });
    page
}

fn active(page: &Value) -> Vec<&str> {
    let alerts = page["active"].as_array().expect("a list");
    let rules = alerts.iter().map(|alert| alert["rule"].as_str());
    rules.map(|rule| rule.expect("a rule")).collect()
}

/// Where a webhook of the test listens: whatever it is asked it answers well, and remembers.
fn hooked() -> (Upstream, String) {
    let hook = Upstream::start(Script::text("thanks"));
    let url = format!("http://{}/v1/chat/completions", hook.address());
    (hook, url)
}

fn bodies(hook: &Upstream) -> Vec<Value> {
    let body = |request: &Request| request.body.clone();
    hook.requests().iter().map(body).collect()
}

#[test]
fn a_full_limit_with_waiters_is_told_acknowledged_and_over_when_they_have_run() {
    let (hook, url) = hooked();
    let hooks = format!(
        "alerts.webhooks = [{{ kind = \"json\", url = \"{url}\" }}, \
         {{ kind = \"pagerduty\", url = \"{url}\", key_env = \"ROUTING\" }}]"
    );
    let rig = rig(&hooks, &[("ROUTING", "r-1")]);
    let mut first = Ask::of("mine/held").send(&rig.server);
    rig.upstream.wait_for_in_flight(1);
    let mut second = Ask::of("mine/m").send(&rig.server);
    let page = wait_for(&rig.server, "it is raised", |page| !active(page).is_empty());
    assert_eq!(active(&page), ["saturation"], "{page:#}");
    let alert = &page["active"][0];
    assert_eq!(alert["detail"], "limits.global");
    assert!(alert["advice"].to_string().contains("/api/requests"));
    let id = alert["id"].as_str().expect("an id").to_owned();
    let line = rig.server.wait_for_log(&format!("alert {id}: "));
    assert!(
        line.contains("1 limits are full") && line.contains("what to do"),
        "{line}"
    );
    let metrics = rig.server.client().get("/metrics").body;
    let metrics = String::from_utf8(metrics).expect("UTF-8");
    assert!(metrics.contains("pointsman_alerts_active{rule=\"saturation\"} 1\n"));

    let path = format!("/api/alerts/{id}/acknowledge");
    let answer = rig.server.client().post(&path, &json!({}));
    assert_eq!(
        (answer.status, &answer.json()["acknowledged_by"]),
        (200, &json!("anyone"))
    );
    rig.gate.release();
    for client in [&mut first, &mut second] {
        assert_eq!(client.response().expect("an answer").status, 200);
    }
    let page = wait_for(&rig.server, "it is over", |page| active(page).is_empty());
    assert_eq!(page["history"][0]["id"], id.as_str());
    assert!(page["history"][0]["resolved"].is_u64(), "{page:#}");

    eventually("both are told of all three", || hook.requests().len() == 6);
    let bodies = bodies(&hook);
    let of = |field: &str| -> Vec<&str> {
        bodies
            .iter()
            .filter_map(|body| body[field].as_str())
            .collect()
    };
    assert_eq!(of("event"), ["raised", "acknowledged", "resolved"]);
    assert_eq!(of("event_action"), ["trigger", "acknowledge", "resolve"]);
    assert_eq!(of("routing_key"), ["r-1"; 3]);
    let page = wait_for(&rig.server, "it is counted", |page| {
        page["webhooks"][0]["sent"] == 3 && page["webhooks"][1]["sent"] == 3
    });
    assert_eq!(page["webhooks"][0]["host"], "127.0.0.1");
}

#[test]
fn an_error_of_a_provider_that_is_new_is_worth_an_alert() {
    let rig = rig("", &[]);
    let broken = Script::error(401, "invalid_authentication_error", "no");
    rig.upstream.on_model("m", broken);
    assert_eq!(
        code(&Ask::of("mine/m").answer(&rig.server)),
        "provider_auth"
    );
    let page = wait_for(&rig.server, "it is raised", |page| {
        active(page).contains(&"new_error")
    });
    let alerts = page["active"].as_array().expect("a list");
    let alert = alerts.iter().find(|alert| alert["rule"] == "new_error");
    assert_eq!(alert.expect("it is there")["detail"], "mine: 401");
}

#[test]
fn only_an_admin_acknowledges_and_only_what_is_active() {
    let keys = "server.keys = [{ name = \"agent\", key_env = \"AGENT\" }, \
                { name = \"ops\", key_env = \"OPS\", admin = true }]";
    let rig = rig(keys, &[("AGENT", "one"), ("OPS", "root")]);
    let post = |key: &str, path: &str| {
        let key = format!("Bearer {key}");
        let mut client = rig.server.client();
        client.request("POST", path, &[("Authorization", &key)], Some(&json!({})));
        client.response().expect("an answer").status
    };
    assert_eq!(post("one", "/api/alerts/x/acknowledge"), 403);
    assert_eq!(post("root", "/api/alerts/x/acknowledge"), 404);
    assert_eq!(post("root", "/api/alerts/x"), 404);
}

#[test]
fn switched_off_nobody_looks_and_the_page_says_so() {
    let server = Server::start("profile = \"test\"");
    let response = server.client().get("/api/alerts");
    assert_eq!(response.status, 404);
    assert!(
        response.json()["error"]["message"]
            .to_string()
            .contains("alerts.enabled")
    );
    let failure = Server::fail("telemetry.metrics = false\nalerts.enabled = true", &[], &[]);
    assert!(
        failure
            .text
            .contains("alerts.enabled: needs telemetry.metrics"),
        "{}",
        failure.text
    );
}

/// What `pointsman print` prints, in a directory without a configuration.
fn printed(what: &str) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let done = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["print", what])
        .current_dir(directory.path())
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    String::from_utf8(done.stdout).expect("UTF-8")
}

/// Names of our metrics in a text, without what a histogram adds to them.
fn metrics_in(text: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !is_name(c));
    let ours = words.filter(|word| word.starts_with("pointsman_"));
    let bare = ours.map(|word| {
        let suffixes = ["_bucket", "_sum", "_count"];
        let bare = suffixes.iter().find_map(|suffix| word.strip_suffix(suffix));
        bare.unwrap_or(word).to_owned()
    });
    bare.collect()
}

#[test]
fn every_metric_of_the_printed_files_is_on_the_page() {
    let server = rig("", &[]).server;
    let page = server.client().get("/metrics").body;
    let page = String::from_utf8(page).expect("UTF-8");
    let has = |name: &String| page.contains(&format!("\n# TYPE {name} "));
    let dashboard = printed("grafana");
    let json: Value = serde_json::from_str(&dashboard).expect("JSON");
    assert!(json["panels"].as_array().expect("panels").len() > 10);
    let rules = printed("prometheus-rules");
    let mut names = metrics_in(&dashboard);
    names.extend(metrics_in(&rules));
    assert!(names.len() > 40, "{names:?}");
    for name in &names {
        assert!(has(name), "{name} is not on the page");
    }
}

#[test]
fn promtool_has_nothing_to_say_against_the_rules() {
    let Some(promtool) = installed("promtool") else {
        return;
    };
    let rules = printed("prometheus-rules");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("rules.yml");
    std::fs::write(&file, rules).expect("a file");
    let file = file.to_str().expect("a name in UTF-8");
    approves(&promtool, &["check", "rules", file], b"");
}
