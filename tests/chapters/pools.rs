//! The connections to the providers, as `/api/connection-pool/...` shows them.

use std::net::TcpListener;

use serde_json::json;

use crate::support::{Ask, Script, Server, Upstream, code, text};

fn server(upstream: &Upstream, more: &str) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let nobody = listener.local_addr().expect("it is bound");
    Server::start(&format!(
        "providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"{}\"\n\
         providers.mine.pool.max_connections = 4\nproviders.mine.max_inflight = 4\n\
         providers.dead.kind = \"openai\"\nproviders.dead.base_url = \"http://{nobody}/v1\"\n\
         providers.dead.retry.attempts = 1\n{more}\n",
        upstream.url(),
    ))
}

#[test]
fn connections_are_counted_and_the_counts_begin_anew_when_asked() {
    let upstream = Upstream::start(Script::text("hello"));
    let server = server(&upstream, "");
    for _ in 0..3 {
        assert_eq!(text(&Ask::of("mine/m").answer(&server)), "hello");
    }
    server.wait_until_idle();
    let status = server.page("/api/connection-pool/status");
    let expected = json!({
        "active": 0, "idle": 1, "max": 4, "peak": 1, "utilisation": 0.0,
        "checkouts": 3, "reused": 2, "checkins": 3, "failed": 0, "recycled": 0,
    });
    assert_eq!(status["providers"]["mine"], expected);
    assert!(status["providers"].get("embedded").is_none(), "{status:#}");
    let health = server.page("/healthz");
    assert_eq!(health["connections"], json!({"active": 0, "idle": 1}));

    let answer = server
        .client()
        .post("/api/connection-pool/reset-metrics", &json!({}));
    assert_eq!(
        (answer.status, answer.json()["reset"].as_bool()),
        (200, Some(true))
    );
    let status = server.page("/api/connection-pool/status");
    let mine = &status["providers"]["mine"];
    assert_eq!((&mine["idle"], &mine["checkouts"]), (&json!(1), &json!(0)));
}

#[test]
fn calls_that_ruin_their_connections_stand_out() {
    let upstream = Upstream::start(Script::HalfClose);
    let server = server(&upstream, "providers.mine.breaker.enabled = false");
    let health = server.page("/api/connection-pool/health");
    assert_eq!(health["status"], "ok", "{health:#}");
    for _ in 0..10 {
        assert_eq!(
            code(&Ask::of("mine/m").answer(&server)),
            "provider_incomplete"
        );
    }
    server.wait_until_idle();
    let health = server.page("/api/connection-pool/health");
    assert_eq!(health["status"], "attention", "{health:#}");
    let advice = health["providers"]["mine"]["recommendations"].to_string();
    assert!(advice.contains("10 of 10 calls"), "{advice}");
}

#[test]
fn a_test_asks_each_provider_whether_it_is_there() {
    let upstream = Upstream::start(Script::text("hello"));
    let server = server(&upstream, "");
    let answer = server
        .client()
        .post("/api/connection-pool/test", &json!({}));
    assert_eq!(answer.status, 200);
    let providers = answer.json()["providers"].clone();
    assert_eq!(providers["mine"]["reachable"], true, "{providers:#}");
    assert_eq!(providers["dead"]["reachable"], false, "{providers:#}");
    let why = providers["dead"]["detail"].to_string();
    assert!(why.contains("dead can't be reached"), "{why}");
    assert!(
        upstream.requests().is_empty(),
        "nothing is asked that costs"
    );
    server.wait_until_idle();
}

#[test]
fn with_keys_only_an_admin_resets_the_counts() {
    let upstream = Upstream::start(Script::text("hello"));
    let keys = "server.keys = [{ name = \"agent\", key_env = \"AGENT\" }, \
                { name = \"ops\", key_env = \"OPS\", admin = true }]";
    let config = format!(
        "providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"{}\"\n{keys}\n",
        upstream.url()
    );
    let server = Server::start_with(&config, &[("AGENT", "one"), ("OPS", "root")]);
    let reset = |key: &str| {
        let key = format!("Authorization: Bearer {key}\r\n");
        let mut client = server.client();
        client.send(format!(
            "POST /api/connection-pool/reset-metrics HTTP/1.1\r\nHost: localhost\r\n{key}Content-Length: 0\r\n\r\n"
        ));
        client.response().expect("an answer").status
    };
    assert_eq!(
        (reset("one"), reset("root"), reset("none")),
        (403, 200, 401)
    );
}
