//! API keys: who may come in, and whose is what.

use std::net::SocketAddr;

use pointsman::Gateway;
use pointsman::config::{Environment, Loader};
use serde_json::{Value, json};

use crate::support::{Client, Gate, Response, Script, Server, Upstream, eventually};

/// The keys of agent-1 (high priority, one call per session), agent-2, and ops (an admin).
const KEYS: [(&str, &str); 3] = [
    ("AGENT_1_KEY", ONE),
    ("AGENT_2_KEY", TWO),
    ("OPS_KEY", ADMIN),
];
const ONE: &str = "pk-one-secret";
const TWO: &str = "pk-two-secret";
const ADMIN: &str = "pk-ops-secret";

const WITH_KEYS: &str = r#"
[[server.keys]]
name = "agent-1"
key_env = "AGENT_1_KEY"
priority = "high"
session_limit = 1

[[server.keys]]
name = "agent-2"
key_env = "AGENT_2_KEY"

[[server.keys]]
name = "ops"
key_env = "OPS_KEY"
admin = true
"#;

/// A server with those keys, whose provider `mine` is `upstream`.
fn server(upstream: &Upstream) -> Server {
    let url = upstream.url();
    let config = format!(
        "profile = \"test\"\nlog.level = \"info\"\nproviders.mine = {{ kind = \"openai\", base_url = \"{url}\" }}\n\
         {WITH_KEYS}"
    );
    Server::start_with(&config, &KEYS)
}

/// A server with those keys that answers by itself.
fn offline() -> Server {
    Server::start_with(&format!("profile = \"test\"\n{WITH_KEYS}"), &KEYS)
}

fn question(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hello"}]})
}

/// Asks with a key and further headers, on a connection of its own; the answer is still to be read.
fn ask(server: &Server, key: &str, headers: &[(&str, &str)]) -> Client {
    let mut client = server.client();
    let bearer = format!("Bearer {key}");
    let mut all = vec![("Authorization", bearer.as_str())];
    all.extend(headers);
    let body = question("mine/m");
    client.request("POST", "/v1/chat/completions", &all, Some(&body));
    client
}

/// What a key's holder is answered.
fn call(server: &Server, key: &str, method: &str, path: &str) -> Response {
    let mut client = server.client();
    client.request(method, path, &[("x-api-key", key)], None);
    client.response().expect("an answer")
}

/// The ids of the active requests that a key's holder is shown, oldest first.
fn shown(server: &Server, key: &str) -> Vec<String> {
    let page = call(server, key, "GET", "/api/requests").json();
    let active = page["active"].as_array().expect("a list");
    let id = |request: &Value| request["request_id"].as_str().expect("an id").to_owned();
    active.iter().map(id).collect()
}

/// Waits until so many requests are in flight, and until pages show them: a call may reach its provider a moment before
/// its request is shown.
fn wait_for_active(server: &Server, upstream: &Upstream, count: usize) {
    upstream.wait_for_in_flight(count);
    eventually("they are shown", || shown(server, ADMIN).len() == count);
}

#[test]
fn every_route_but_health_and_the_empty_dashboard_needs_a_key() {
    let server = offline();
    for (method, path) in [
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/embedded"),
        ("GET", "/api/status"),
        ("GET", "/api/requests"),
        ("GET", "/api/semaphores"),
        ("POST", "/api/semaphores/check"),
        ("GET", "/api/requests/x"),
        ("DELETE", "/api/requests/x"),
        ("GET", "/api/overview"),
        ("GET", "/api/live"),
        ("POST", "/"),
        ("GET", "/nowhere"),
        ("POST", "/healthz"),
    ] {
        for headers in [
            &[][..],
            &[("Authorization", "Bearer none")],
            &[("x-api-key", "none")],
            &[("Authorization", ONE)],
        ] {
            let mut client = server.client();
            client.request(method, path, headers, None);
            let answer = client.response().expect("an answer");
            assert_eq!(answer.status, 401, "{method} {path} {headers:?}");
            assert_eq!(answer.json()["error"]["code"], "invalid_api_key");
            assert_eq!(answer.json()["error"]["type"], "caller_error");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            assert_eq!(answer.header("x-should-retry"), Some("false"));
        }
    }
    for path in ["/healthz", "/health", "/readyz", "/"] {
        assert_eq!(server.client().get(path).status, 200, "{path}");
    }
    assert_eq!(call(&server, TWO, "GET", "/nowhere").status, 404);
}

#[test]
fn a_key_opens_the_gateway_in_either_header() {
    let server = offline();
    let bearer = format!("Bearer {ONE}");
    for header in [("Authorization", bearer.as_str()), ("x-api-key", TWO)] {
        let mut client = server.client();
        let body = question("auto");
        client.request("POST", "/v1/chat/completions", &[header], Some(&body));
        let answer = client.response().expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.json());
    }
    assert_eq!(call(&server, TWO, "GET", "/v1/models").status, 200);
    let status = call(&server, TWO, "GET", "/api/status");
    assert_eq!(status.json()["requests"]["completed"], 2);
}

#[test]
fn a_stranger_is_refused_before_the_body_is_read() {
    let server = offline();
    let mut client = server.client();
    client.send(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n",
    );
    let answer = client
        .response()
        .expect("an answer, though no body was sent");
    assert_eq!(answer.status, 401);
}

#[test]
fn each_key_sees_and_ends_its_own_requests_and_an_admin_all() {
    let (upstream, gate) = (Upstream::start(Script::text("hello")), Gate::new());
    upstream.on_model("m", Script::gated(&gate));
    let server = server(&upstream);
    let mut first = ask(
        &server,
        ONE,
        &[("X-Request-Id", "r-1"), ("X-Session-Id", "s")],
    );
    wait_for_active(&server, &upstream, 1);
    let mut second = ask(&server, TWO, &[("X-Request-Id", "r-2")]);
    wait_for_active(&server, &upstream, 2);

    assert_eq!(shown(&server, ONE), ["r-1"]);
    assert_eq!(shown(&server, TWO), ["r-2"]);
    assert_eq!(shown(&server, ADMIN), ["r-1", "r-2"]);
    for (method, known) in [("GET", "is remembered"), ("DELETE", "is active")] {
        let answer = call(&server, TWO, method, "/api/requests/r-1");
        assert_eq!(answer.status, 404, "{method}");
        let message = &answer.json()["error"]["message"];
        assert_eq!(*message, format!("no request \"r-1\" {known}"));
    }
    let story = call(&server, ONE, "GET", "/api/requests/r-1").json();
    assert_eq!(story["active"]["key"], "agent-1");
    assert_eq!(story["active"]["session_id"], "s");
    assert_eq!(story["steps"][0]["key"], "agent-1");
    let status = call(&server, TWO, "GET", "/api/status");
    let status = String::from_utf8(status.body).expect("text");
    assert!(!status.contains("agent-1"), "{status}");

    assert_eq!(
        call(&server, ONE, "DELETE", "/api/requests/r-1").status,
        200
    );
    assert_eq!(first.response().expect("an answer").status, 499);
    assert_eq!(
        call(&server, ADMIN, "DELETE", "/api/requests/r-2").status,
        200
    );
    assert_eq!(second.response().expect("an answer").status, 499);
    let story = call(&server, ADMIN, "GET", "/api/requests/r-1");
    assert_eq!(story.status, 200, "it is over, and remembered");
    assert_eq!(call(&server, TWO, "GET", "/api/requests/r-1").status, 404);
}

#[test]
fn an_id_that_two_keys_use_names_two_requests() {
    let (upstream, gate) = (Upstream::start(Script::text("hello")), Gate::new());
    upstream.on_model("m", Script::gated(&gate));
    let server = server(&upstream);
    let id = [("X-Request-Id", "same")];
    let mut first = ask(&server, ONE, &id);
    let mut second = ask(&server, TWO, &id);
    wait_for_active(&server, &upstream, 2);
    let ended = call(&server, TWO, "DELETE", "/api/requests/same").json();
    assert_eq!(ended["cancelled"], 1);
    assert_eq!(second.response().expect("an answer").status, 499);
    let story = call(&server, ONE, "GET", "/api/requests/same").json();
    let steps = story["steps"].as_array().expect("a list");
    assert!(steps.iter().all(|step| step["key"] == "agent-1"), "{story}");
    gate.release();
    assert_eq!(first.response().expect("an answer").status, 200);
}

#[test]
fn a_session_is_one_key_s_and_keeps_to_the_key_s_limit() {
    let (upstream, gate) = (Upstream::start(Script::text("hello")), Gate::new());
    upstream.on_model("m", Script::gated(&gate));
    let server = server(&upstream);
    let session = [("X-Session-Id", "work")];
    // The limit of all sessions is 2; agent-1's sessions have 1.
    let mut clients: Vec<Client> = [ONE, ONE, TWO, TWO]
        .map(|key| ask(&server, key, &session))
        .into();
    upstream.wait_for_in_flight(3);
    let status = || call(&server, ADMIN, "GET", "/api/status").json();
    eventually("one waits", || status()["queue"]["waiting"] == 1);
    eventually("both are shown", || shown(&server, ONE).len() == 2);
    assert_eq!(status()["sessions"]["active"], 2, "one name, two sessions");
    let page = call(&server, ONE, "GET", "/api/requests").json();
    let phases: Vec<bool> = page["active"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|request| request["phase"] == "queue")
        .collect();
    assert_eq!(phases.iter().filter(|waits| **waits).count(), 1, "{page}");
    assert_eq!(upstream.peak(), 3);
    gate.release();
    for client in &mut clients {
        assert_eq!(client.response().expect("an answer").status, 200);
    }
}

#[test]
fn a_key_s_priority_counts_where_the_request_does_not_say() {
    let (upstream, gate) = (Upstream::start(Script::text("hello")), Gate::new());
    upstream.on_model("m", Script::gated(&gate));
    let server = server(&upstream);
    let low = [("X-Priority", "low")];
    // Kept: a client that leaves ends its request.
    let mut clients = Vec::new();
    for (key, headers) in [(ONE, &[][..]), (ONE, &low), (TWO, &[])] {
        clients.push(ask(&server, key, headers));
        wait_for_active(&server, &upstream, clients.len());
    }
    let page = call(&server, ADMIN, "GET", "/api/requests").json();
    let priorities: Vec<&Value> = page["active"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|request| &request["priority"])
        .collect();
    assert_eq!(priorities, ["high", "low", "medium"]);
}

#[test]
fn the_log_names_keys_and_shows_none() {
    let upstream = Upstream::start(Script::text("hello"));
    let server = server(&upstream);
    server.wait_for_log("requests need one of the API keys: agent-1, agent-2, ops (admin)");
    let answer = ask(&server, ONE, &[]).response().expect("an answer");
    assert_eq!(answer.status, 200);
    let line = server.wait_for_log(" completed ");
    assert!(line.contains(" key=agent-1 session=- "), "{line}");
    assert_eq!(
        call(&server, "pk-wrong-secret", "GET", "/api/status").status,
        401
    );
    let log = server.log().join("\n");
    assert!(!log.contains("-secret"), "{log}");
    let requests = upstream.requests();
    assert!(!format!("{requests:?}").contains(ONE), "sent upstream");
}

#[test]
fn a_key_that_is_not_there_is_said_at_the_start() {
    let config = format!("profile = \"test\"\n{WITH_KEYS}");
    let failure = Server::fail(&config, &[], &[KEYS[0], KEYS[2]]);
    assert_eq!(failure.code, Some(2), "{}", failure.text);
    let expected =
        "config.toml:11: server.keys[1].key_env: the environment variable AGENT_2_KEY is not set";
    assert!(failure.text.contains(expected), "{}", failure.text);
    assert!(!failure.text.contains("-secret"), "{}", failure.text);
}

/// What a request with these headers, and no body, is answered.
fn status_with(address: SocketAddr, headers: &str) -> u16 {
    let mut client = Client::connect(address);
    client.send(format!("GET /healthz HTTP/1.1\r\n{headers}\r\n"));
    client.response().expect("an answer").status
}

#[test]
fn hosts_and_origins_are_those_that_are_allowed() {
    let config = "profile = \"test\"\nserver.allowed_hosts = [\"box.lan\"]\n\
                  server.allowed_origins = [\"https://dash.example\"]";
    let server = Server::start(config);
    for (headers, status) in [
        ("Host: localhost\r\n", 200),
        ("Host: box.lan:8787\r\n", 200),
        ("Host: evil.example\r\n", 403),
        ("Host: box.lan\r\nOrigin: https://dash.example\r\n", 200),
        ("Host: box.lan\r\nOrigin: http://localhost:3000\r\n", 200),
        ("Host: box.lan\r\nOrigin: http://evil.example\r\n", 403),
    ] {
        assert_eq!(status_with(server.address, headers), status, "{headers}");
    }
}

/// To the configuration `127.1` is a name that may stand for any machine; to the resolver it is 127.0.0.1.
#[test]
fn an_address_of_other_machines_is_served_with_keys_and_under_its_own_name() {
    let loader = Loader::new(Environment::from_iter(KEYS));
    let listen = "profile = \"test\"\nserver.listen = \"127.1:0\"\n";
    let refused = loader.from_toml(listen, "test.toml");
    assert!(refused.is_err(), "without keys");
    let config = loader.from_toml(&format!("{listen}{WITH_KEYS}"), "test.toml");
    let gateway = Gateway::start(config.expect("accepted")).expect("it starts");
    let server = gateway.serve().expect("it listens");
    let address = server.address().parse().expect("an address");
    assert_eq!(status_with(address, "Host: 127.1\r\n"), 200);
    assert_eq!(status_with(address, "Host: evil.example\r\n"), 403);
}

#[test]
fn the_ledger_names_a_key_s_own_requests_alone_and_an_admin_checks_it() {
    let upstream = Upstream::start(Script::Silent);
    let server = server(&upstream);
    let _client = ask(&server, ONE, &[("X-Request-Id", "r-1")]);
    wait_for_active(&server, &upstream, 1);
    let holder = |key| {
        let ledger = call(&server, key, "GET", "/api/semaphores").json();
        ledger["slots"][0]["request_id"].clone()
    };
    assert_eq!(
        [ONE, TWO, ADMIN].map(holder),
        [json!("r-1"), Value::Null, json!("r-1")]
    );
    let check = |key| call(&server, key, "POST", "/api/semaphores/check").status;
    assert_eq!([ONE, ADMIN].map(check), [403, 200]);
}
