//! Reload: another configuration while requests run and wait.

use std::path::Path;

use pointsman::config::{Environment, Loader};
use pointsman::{ChatRequest, Config, ConfigSource, Gateway, ReloadError};
use serde_json::{Value, json};

use crate::support::{
    Ask, Client, Done, Errand, Gate, Response, Script, Server, Upstream, at_once, code, eventually,
    text,
};

const PROFILE: &str = "profile = \"test\"\nlog.level = \"info\"\n";

/// A provider named `name` at `upstream`.
fn provider(name: &str, upstream: &Upstream) -> String {
    let url = upstream.url();
    format!("providers.{name}.kind = \"openai\"\nproviders.{name}.base_url = \"{url}\"\n")
}

/// Writes another configuration where the server reads its own.
fn write(server: &Server, config: &str) {
    std::fs::write(server.directory().join("config.toml"), config).expect("a file");
}

/// Has the server read it.
fn reload(server: &Server, config: &str) -> Response {
    write(server, config);
    server.client().post("/api/reload", &json!({}))
}

/// Has the server read it, and returns what changed and what needs a restart.
fn reloaded(server: &Server, config: &str) -> (Vec<String>, Vec<String>) {
    let answer = reload(server, config);
    assert_eq!(answer.status, 200, "{:#}", answer.json());
    let list = |name: &str| {
        let list = answer.json()[name].as_array().expect("a list").clone();
        let knobs = list.iter().filter_map(Value::as_str);
        knobs.map(str::to_owned).collect()
    };
    (list("changed"), list("needs_restart"))
}

fn in_use(status: &Value) -> u64 {
    status["slots"]["global"]["in_use"]
        .as_u64()
        .expect("a count")
}

fn waiting(status: &Value) -> u64 {
    status["queue"]["waiting"].as_u64().expect("a count")
}

fn all_answered(clients: Vec<Client>) {
    for mut client in clients {
        let answer = client.response().expect("an answer");
        assert_eq!(answer.status, 200, "{:#}", answer.json());
    }
}

#[test]
fn a_limit_that_is_lowered_drains_and_one_that_is_raised_starts_who_waits() {
    let (gate, upstream) = (Gate::new(), Upstream::start(Script::text("ok")));
    upstream.on_model("held", Script::gated(&gate));
    let with = |global: u64| {
        format!(
            "{PROFILE}limits.global = {global}\n{}",
            provider("mine", &upstream)
        ) + "providers.mine.max_inflight = 4\n"
    };
    let server = Server::start(&with(4));
    let held: Vec<Client> = (0..4).map(|_| Ask::of("mine/held").send(&server)).collect();
    upstream.wait_for_in_flight(4);
    let (changed, needs_restart) = reloaded(&server, &with(1));
    assert_eq!(
        changed,
        ["limits.global", "providers.embedded.max_inflight"]
    );
    assert_eq!(needs_restart, [""; 0]);
    let late: Vec<Client> = (0..3).map(|_| Ask::of("mine/m").send(&server)).collect();
    let status = server.wait_for_status("they wait", |status| waiting(status) == 3);
    assert_eq!(
        (in_use(&status), upstream.in_flight()),
        (4, 4),
        "nobody was cut"
    );
    assert_eq!(status["slots"]["global"]["limit"], 1);
    reloaded(&server, &with(4));
    assert_eq!(upstream.requests().len(), 4, "four are in flight still");
    gate.release();
    all_answered(held);
    all_answered(late);
    server.wait_until_idle();
}

#[test]
fn a_limit_that_is_raised_starts_who_waits_at_once_on_workers_that_were_not_there() {
    let (gate, upstream) = (Gate::new(), Upstream::start(Script::text("ok")));
    upstream.on_model("held", Script::gated(&gate));
    let with = |limit: u64| {
        format!(
            "{PROFILE}limits.global = {limit}\n{}",
            provider("mine", &upstream)
        ) + &format!("providers.mine.max_inflight = {limit}\n")
    };
    let server = Server::start(&with(1));
    let held: Vec<Client> = (0..6).map(|_| Ask::of("mine/held").send(&server)).collect();
    server.wait_for_status("they wait", |status| waiting(status) == 5);
    reloaded(&server, &with(6));
    upstream.wait_for_in_flight(6);
    server.wait_for_status("six workers", |status| status["threads"]["workers"] == 6);
    gate.release();
    all_answered(held);
    server.wait_until_idle();
}

#[test]
fn sessions_and_shares_of_a_line_follow_the_configuration() {
    let (gate, upstream) = (Gate::new(), Upstream::start(Script::text("ok")));
    upstream.on_model("held", Script::gated(&gate));
    let with = |rest: &str| {
        format!(
            "{PROFILE}limits.global = 4\n{}",
            provider("mine", &upstream)
        ) + rest
    };
    let server = Server::start(&with("limits.session = 1\n"));
    let ask = || Ask::of("mine/held").session("one").send(&server);
    let held: Vec<Client> = (0..4).map(|_| ask()).collect();
    server.wait_for_status("one runs", |status| {
        in_use(status) == 1 && waiting(status) == 3
    });
    let (changed, _) = reloaded(&server, &with("limits.session = 3\nqueue.capacity = 1\n"));
    // What a session's places in line are follows their number.
    assert_eq!(
        changed,
        ["limits.session", "queue.capacity", "queue.per_session"]
    );
    upstream.wait_for_in_flight(3);
    let refused = Ask::of("mine/held").session("one").answer(&server);
    assert_eq!(
        (refused.status, code(&refused).as_str()),
        (429, "over_capacity")
    );
    reloaded(
        &server,
        &with("limits.session = 3\nqueue.capacity = 1\nqueue.timeout = \"1ms\"\n"),
    );
    gate.release();
    all_answered(held);
    server.wait_until_idle();
}

#[test]
fn a_provider_that_is_added_is_called_and_one_that_is_taken_out_ends_nobodys_call() {
    let (gate, old) = (Gate::new(), Upstream::start(Script::text("old")));
    old.on_model("held", Script::gated(&gate));
    let new = Upstream::start(Script::text("new"));
    let before = PROFILE.to_owned() + &provider("old", &old) + "providers.old.max_inflight = 1\n";
    let server = Server::start(&before);
    assert_eq!(code(&Ask::of("new/m").answer(&server)), "model_not_found");
    let mut held = Ask::of("old/held").send(&server);
    old.wait_for_in_flight(1);
    let mut waits = Ask::of("old/held").send(&server);
    server.wait_for_status("it waits", |status| waiting(status) == 1);

    let answer = reload(&server, &(PROFILE.to_owned() + &provider("new", &new))).json();
    assert_eq!(
        answer["changed"],
        json!(["providers.new", "providers.old", "routing.auto"])
    );
    assert_eq!(answer["providers_added"], json!(["new"]));
    assert_eq!(answer["providers_removed"], json!(["old"]));

    let refused = waits.response().expect("an answer");
    assert_eq!(
        (refused.status, code(&refused).as_str()),
        (503, "provider_unavailable")
    );
    let message = refused.json()["error"]["message"].to_string();
    assert!(
        message.contains("taken out of the configuration"),
        "{message}"
    );
    assert_eq!(text(&Ask::of("new/m").answer(&server)), "new");
    assert_eq!(code(&Ask::of("old/m").answer(&server)), "model_not_found");
    let providers = || server.page("/api/status")["slots"]["providers"].clone();
    assert_eq!(
        providers()["old"]["in_use"],
        1,
        "until its last call is back"
    );
    gate.release();
    assert_eq!(held.response().expect("an answer").status, 200);
    eventually("it is gone", || providers()["old"].is_null());
    server.wait_until_idle();

    // Back again, in its own row.
    reloaded(&server, &before);
    assert_eq!(text(&Ask::of("old/m").answer(&server)), "old");
    assert_eq!(code(&Ask::of("new/m").answer(&server)), "model_not_found");
    server.wait_until_idle();
}

#[test]
fn who_waits_for_a_provider_that_is_taken_out_goes_to_its_stand_in() {
    let (gate, first) = (Gate::new(), Upstream::start(Script::text("first")));
    first.on_model("held", Script::gated(&gate));
    let second = Upstream::start(Script::text("second"));
    let rest = provider("second", &second)
        + "providers.second.models = [{ name = \"m\", context = 1000 }]\nrouting.fallback = [\"second/m\"]\n";
    let whole =
        PROFILE.to_owned() + &provider("first", &first) + "providers.first.max_inflight = 1\n";
    let server = Server::start(&(whole + &rest));
    let mut held = Ask::of("first/held").send(&server);
    first.wait_for_in_flight(1);
    let mut waits = Ask::of("first/m").send(&server);
    server.wait_for_status("it waits", |status| waiting(status) == 1);
    reloaded(&server, &(PROFILE.to_owned() + &rest));
    assert_eq!(text(&waits.response().expect("an answer")), "second");
    gate.release();
    assert_eq!(held.response().expect("an answer").status, 200);
    server.wait_until_idle();
}

/// A server with these keys of clients; `ops` is an admin.
fn with_keys(one: &str) -> String {
    format!(
        "{PROFILE}[[server.keys]]\nname = \"one\"\nkey_env = \"{one}\"\n\
         [[server.keys]]\nname = \"ops\"\nkey_env = \"OPS\"\nadmin = true\n"
    )
}

const KEYS: [(&str, &str); 3] = [("OLD", "pk-old"), ("NEW", "pk-new"), ("OPS", "pk-ops")];

/// What the holder of a key is answered.
fn call(server: &Server, key: &str, method: &str, path: &str) -> Response {
    let mut client = server.client();
    client.request(method, path, &[("x-api-key", key)], None);
    client.response().expect("an answer")
}

#[test]
fn the_key_of_a_client_changes_and_only_an_admin_may_reload() {
    let server = Server::start_with(&with_keys("OLD"), &KEYS);
    let models = |key: &str| call(&server, key, "GET", "/v1/models").status;
    assert_eq!((models("pk-old"), models("pk-new")), (200, 401));
    write(&server, &with_keys("NEW"));
    for (key, status) in [("pk-old", 403), ("pk-none", 401)] {
        assert_eq!(
            call(&server, key, "POST", "/api/reload").status,
            status,
            "{key}"
        );
    }
    assert_eq!(
        (models("pk-old"), models("pk-new")),
        (200, 401),
        "nothing has changed"
    );
    let answer = call(&server, "pk-ops", "POST", "/api/reload");
    assert_eq!(answer.json()["changed"], json!(["server.keys.one"]));
    assert_eq!((models("pk-old"), models("pk-new")), (401, 200));
    let log = server.log().join("\n");
    assert!(
        log.contains("reloaded: server.keys.one") && !log.contains("pk-"),
        "{log}"
    );
}

#[test]
fn the_next_call_shows_a_provider_its_new_key_and_goes_to_its_new_address() {
    let [here, there] = [(); 2].map(|()| Upstream::start(Script::text("ok")));
    let with = |upstream: &Upstream, key: &str| {
        PROFILE.to_owned()
            + &provider("mine", upstream)
            + &format!("providers.mine.api_key_env = \"{key}\"\n")
    };
    let server = Server::start_with(&with(&here, "OLD"), &KEYS);
    let shown = |upstream: &Upstream| {
        assert_eq!(text(&Ask::of("mine/m").answer(&server)), "ok");
        let last = upstream.requests().pop().expect("a call");
        last.head.header("authorization").expect("a key").to_owned()
    };
    assert_eq!(shown(&here), "Bearer pk-old");
    let (changed, _) = reloaded(&server, &with(&here, "NEW"));
    assert_eq!(
        changed,
        ["providers.mine.api_key", "providers.mine.api_key_env"]
    );
    assert_eq!(shown(&here), "Bearer pk-new");
    reloaded(&server, &with(&there, "NEW"));
    assert_eq!(shown(&there), "Bearer pk-new");
    assert_eq!(here.requests().len(), 2);
}

#[test]
fn connections_and_what_was_learned_stay_with_a_provider_that_is_configured_as_before() {
    let [bad, good] = [(); 2].map(|()| Upstream::start(Script::text("ok")));
    let with =
        |rest: &str| PROFILE.to_owned() + &provider("bad", &bad) + &provider("good", &good) + rest;
    let server = Server::start(&with(""));
    Ask::of("good/m").answer(&server);
    bad.next(Script::error(401, "invalid_authentication_error", "no"));
    assert_eq!(code(&Ask::of("bad/m").answer(&server)), "provider_auth");
    let breaker = || server.page("/api/status")["slots"]["providers"]["bad"]["breaker"].clone();
    server.wait_for_status("it is open", |_| breaker() == "open");
    reloaded(
        &server,
        &with("queue.capacity = 60\nproviders.good.max_inflight = 2\n"),
    );
    assert_eq!(breaker(), "open");
    Ask::of("good/m").answer(&server);
    assert_eq!(good.connections(), 1);
    reloaded(&server, &with("providers.bad.api_key_env = \"PATH\"\n"));
    assert_eq!(breaker(), "closed", "another key may do");
    assert_eq!(text(&Ask::of("bad/m").answer(&server)), "ok");
}

#[test]
fn timeouts_and_models_follow_the_configuration() {
    let upstream = Upstream::start(Script::text("ok"));
    let with = |rest: &str| PROFILE.to_owned() + &provider("mine", &upstream) + rest;
    let server = Server::start(&with(""));
    let timeout = |answer: &Response| answer.header("x-timeout").expect("it is told").to_owned();
    let before = timeout(&Ask::of("mine/m").within("2h").answer(&server));
    assert!(before.starts_with("3600s"), "{before}");
    reloaded(
        &server,
        &with(
            "timeouts.max = \"100s\"\nproviders.mine.models = [{ name = \"n\", context = 1000 }]\n",
        ),
    );
    let after = timeout(&Ask::of("mine/n").within("2h").answer(&server));
    assert!(after.starts_with("100s"), "{after}");
    assert_eq!(code(&Ask::of("mine/m").answer(&server)), "model_not_found");
}

#[test]
fn a_configuration_that_is_refused_changes_nothing_and_says_why() {
    let server = Server::start(&format!("{PROFILE}limits.global = 4\n"));
    let wrong = format!("{PROFILE}limits.global = 8\nlimits.session = 0\n");
    let answer = reload(&server, &wrong);
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (422, "configuration_refused")
    );
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    let told = answer.json()["error"]["message"]
        .as_str()
        .expect("a text")
        .to_owned();
    let refusal = Server::fail(&wrong, &[], &[]).text;
    let why = refusal
        .lines()
        .find(|line| line.contains("limits.session"))
        .expect("a line");
    let (_, why) = why.split_once("config.toml:4: ").expect("its place");
    assert!(
        told.contains("config.toml:4: ") && told.contains(why),
        "{told}\n{why}"
    );
    assert_eq!(server.page("/api/status")["slots"]["global"]["limit"], 4);
    server.wait_for_log("not reloaded: the configuration is refused");
    for wrong in ["limits.global = [", "no_such_knob = 1\n"] {
        let answer = reload(&server, wrong);
        assert_eq!(answer.status, 422, "{:#}", answer.json());
    }
    std::fs::remove_file(server.directory().join("config.toml")).expect("it was there");
    let answer = server.client().post("/api/reload", &json!({}));
    assert_eq!(code(&answer), "configuration_refused");
    assert_eq!(server.page("/api/status")["slots"]["global"]["limit"], 4);
}

#[test]
fn what_cannot_change_while_it_runs_is_told_and_stays_as_it_was() {
    let server = Server::start(PROFILE);
    let other = format!(
        "{PROFILE}server.max_body = \"1KiB\"\ntelemetry.max_events = 2000\nalerts.interval = \"9s\"\nalerts.rules.box.threshold = 3\nserver.json_depth = 8\n"
    );
    for _ in 0..2 {
        let (changed, needs_restart) = reloaded(&server, &other);
        assert!(
            changed == ["server.json_depth"] || changed.is_empty(),
            "{changed:?}"
        );
        let fixed = [
            "alerts.interval",
            "alerts.rules.box",
            "server.max_body",
            "telemetry.max_events",
        ];
        assert_eq!(needs_restart, fixed);
    }
    let long = "x".repeat(4096);
    assert_eq!(
        Ask::of("embedded").saying(&long).answer(&server).status,
        200
    );
    let deep = json!([[[[[[[[[["x"]]]]]]]]]]);
    let answer = Ask::of("embedded").with("metadata", deep).answer(&server);
    assert_eq!(answer.status, 400, "{:#}", answer.json());
    let line = server.wait_for_log("reloaded: ");
    assert!(
        line.contains("needs a restart, and is as it was: alerts.interval"),
        "{line}"
    );
}

#[test]
fn the_log_and_the_names_of_the_machine_follow_the_configuration() {
    let server = Server::start(PROFILE);
    let from = |host: &str| {
        let mut client = server.client();
        client.send(format!("GET /v1/models HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.response().expect("an answer").status
    };
    assert_eq!(from("box.lan"), 403);
    let quiet = "profile = \"test\"\nlog.level = \"warn\"\nserver.allowed_hosts = [\"box.lan\"]\n";
    let (changed, _) = reloaded(&server, quiet);
    assert_eq!(changed, ["log.level", "server.allowed_hosts"]);
    assert_eq!(from("box.lan"), 200);
    let count = || {
        server
            .log()
            .iter()
            .filter(|line| line.contains("request quiet"))
            .count()
    };
    Ask::of("embedded").id("quiet").answer(&server);
    reloaded(&server, PROFILE);
    Ask::of("embedded").id("loud").answer(&server);
    server.wait_for_log("loud");
    assert_eq!(count(), 0);
}

#[test]
fn reloads_at_once_come_one_after_the_other_while_requests_go_on() {
    let upstream = Upstream::start(Script::text("{id}"));
    let with = |limit: usize| {
        format!(
            "{PROFILE}limits.global = {limit}\n{}",
            provider("mine", &upstream)
        )
    };
    let server = Server::start(&with(4));
    write(&server, &with(2));
    let statuses = at_once(8, |index| match index % 2 {
        0 => server.client().post("/api/reload", &json!({})).status,
        _ => (0..20)
            .map(|_| Ask::of("mine/m").answer(&server).status)
            .max()
            .unwrap_or(0),
    });
    assert_eq!(statuses, [200; 8]);
    assert_eq!(server.page("/api/status")["slots"]["global"]["limit"], 2);
    server.wait_until_idle();
}

/// `pointsman reload` for this server; `{}` stands for its address.
fn command(server: &Server, config: &str, arguments: &[&str]) -> Done {
    let address = format!("http://{}", server.address);
    let arguments: Vec<String> = arguments
        .iter()
        .map(|one| one.replace("{}", &address))
        .collect();
    let arguments: Vec<&str> = ["reload"]
        .into_iter()
        .chain(arguments.iter().map(|one| &**one))
        .collect();
    Errand::start(config, &arguments, &KEYS, "").done()
}

#[test]
fn the_command_says_what_changed_and_its_exit_code_whether_anything_could() {
    let server = Server::start_with(&with_keys("OLD"), &KEYS);
    let other = with_keys("NEW") + "[limits]\nglobal = 3\n[server]\n";
    let other = other.replace("[server]\n", "");
    write(&server, &other);
    let done = command(&server, &other, &["--url", "{}"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(
        done.out,
        "changed         limits.global\nchanged         providers.embedded.max_inflight\nchanged         server.keys.one\n"
    );
    // The address may come from the configuration, and the key from a variable.
    let at = format!("server.listen = \"{}\"\n{other}", server.address);
    let done = command(&server, &at, &["--key-env", "OPS"]);
    assert_eq!(
        (done.code, done.out.as_str()),
        (Some(0), "nothing has changed\n"),
        "{done:?}"
    );
    let done = command(&server, &at, &["--key-env", "NEW"]);
    assert_eq!(done.code, Some(1));
    assert!(done.err.contains("admin = true"), "{done:?}");
    let done = command(&server, "limits.global = 0", &[]);
    assert_eq!(done.code, Some(1));
    assert!(
        done.err.contains("config.toml:1: limits.global"),
        "{done:?}"
    );
    write(&server, "limits.global = 0");
    let done = command(
        &server,
        "limits.global = 0",
        &["--url", "{}", "--key-env", "OPS"],
    );
    assert_eq!(done.code, Some(1));
    assert!(
        done.err.contains("config.toml:1: limits.global"),
        "{done:?}"
    );
    let done = command(&server, PROFILE, &[]);
    assert_eq!(done.code, Some(1), "any free port is no address: {done:?}");
    drop(server);
}

#[test]
fn a_server_on_a_unix_socket_is_found_by_its_configuration() {
    let config = format!("{PROFILE}server.listen = \"unix:p.sock\"\n");
    let server = Server::start_as(&config, &[], &[]);
    let socket = server.directory().join("p.sock");
    let there = config.replace("p.sock", socket.to_str().expect("a name in UTF-8"));
    let done = Errand::run(&there, &["reload"]);
    assert_eq!(
        (done.code, done.out.as_str()),
        (Some(0), "nothing has changed\n"),
        "{done:?}"
    );
}

/// A configuration that a program holds.
struct Held(Config);

impl ConfigSource for Held {
    fn read(&self) -> Result<Config, pointsman::config::ConfigError> {
        Ok(self.0.clone())
    }
}

#[test]
fn a_program_reloads_its_gateway_and_may_say_where_its_front_finds_the_configuration() {
    let upstream = Upstream::start(Script::text("ok"));
    let config = |text: &str| {
        let loader = Loader::new(Environment::default());
        loader
            .from_toml(&(PROFILE.to_owned() + text), "test.toml")
            .expect("accepted")
    };
    let gateway = Gateway::start(config("")).expect("it starts");
    let server = gateway.serve().expect("it listens");
    let mut client = Client::connect(server.address().parse().expect("an address"));
    let answer = client.post("/api/reload", &json!({}));
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (409, "nothing_to_reload")
    );
    gateway.reload_from(Held(config(&provider("mine", &upstream))));
    let answer = client.post("/api/reload", &json!({}));
    assert_eq!(answer.json()["providers_added"], json!(["mine"]));
    let reply = gateway
        .chat(ChatRequest::new("mine/m").user("Hi"))
        .expect("an answer");
    assert_eq!(reply.text(), "ok");
    let changes = gateway
        .reload(config("timeouts.normal = \"9s\"\n"))
        .expect("it reloads");
    assert_eq!(changes.removed, ["mine"]);
    gateway.shutdown(std::time::Duration::ZERO);
    let stopped = gateway.reload(config(""));
    assert!(matches!(stopped, Err(ReloadError::Stopping)), "{stopped:?}");
}

#[test]
fn a_front_that_other_machines_reach_is_never_left_without_keys() {
    let directory = tempfile::tempdir().expect("a directory");
    let key = directory.path().join("key");
    std::fs::write(&key, "pk-one").expect("a file");
    let open = |listen: &str, keys: &Path| {
        let keys = keys.display();
        format!(
            "{PROFILE}server.listen = \"{listen}\"\nserver.keys = [{{ name = \"one\", key_file = \"{keys}\" }}]"
        )
    };
    let before = Config::from_toml(&open("0.0.0.0:0", &key), "test.toml").expect("accepted");
    // It is never opened: what counts is where it would listen.
    let gateway = Gateway::start(before).expect("it starts");
    let after = Config::from_toml(PROFILE, "test.toml").expect("accepted");
    let error = gateway.reload(after).expect_err("it would be open");
    let words = error.to_string();
    assert!(
        words.contains("server.keys") && words.contains("0.0.0.0:0"),
        "{words}"
    );
}
