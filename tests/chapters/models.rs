//! Models: those that the configuration names, and those that a provider lists itself, fetched behind everybody's back.

use std::net::TcpListener;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Ask, Errand, Gate, Script, Server, Upstream, code, eventually, text};

/// How often lists are asked for where a test says nothing else.
const REFRESH: (&str, &str) = ("POINTSMAN_ROUTING__MODEL_LIST_REFRESH", "1h");
const KEYS: [(&str, &str); 2] = [REFRESH, ("KIMI_API_KEY", "sk-kimi")];

/// An endpoint of one's own at `url`.
fn mine(url: &str) -> String {
    format!("providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"{url}\"\n")
}

/// Kimi at `url`, and nobody else but the embedded provider.
fn kimi(url: &str) -> String {
    format!("providers.kimi.base_url = \"{url}\"\nproviders.glm.enabled = false\n")
}

fn ids(server: &Server) -> Vec<String> {
    let list = server.page("/v1/models");
    let models = list["data"].as_array().expect("a list").iter();
    models
        .map(|model| model["id"].as_str().expect("an id").to_owned())
        .collect()
}

fn wait_for_model(server: &Server, id: &str) {
    eventually(id, || ids(server).iter().any(|listed| listed == id));
}

fn message(answer: &Value) -> &str {
    answer["error"]["message"].as_str().expect("a message")
}

#[test]
fn a_model_that_only_the_provider_lists_is_listed_called_and_asked_for_by_both_names() {
    let upstream = Upstream::start(Script::text("hello"));
    upstream.on_list(Script::models([
        json!({"id": "kimi-k3", "context_length": 5}),
        json!({"id": "kimi-k9", "context_length": 2_000_000, "supports_reasoning": true}),
    ]));
    let server = Server::start_with(&kimi(&upstream.url()), &KEYS);
    wait_for_model(&server, "kimi-k9");
    for name in ["kimi-k9", "kimi/kimi-k9"] {
        let page = server.page(&format!("/v1/models/{name}"));
        assert_eq!(
            (&page["id"], &page["context_length"]),
            (&json!(name), &json!(2_000_000))
        );
        assert_eq!(page["owned_by"], "kimi");
        let answer = Ask::of(name).answer(&server);
        assert_eq!(text(&answer), "hello");
        assert_eq!(answer.header("x-model"), Some("kimi-k9"));
        let timeout = answer.header("x-timeout").expect("a timeout");
        assert!(timeout.contains("thinking=true"), "{timeout}");
    }
    let models: Vec<String> = upstream
        .requests()
        .iter()
        .map(|it| it.model().to_owned())
        .collect();
    assert_eq!(models, ["kimi-k9", "kimi-k9"]);
    let k3 = server.page("/v1/models/kimi-k3");
    assert_eq!(k3["context_length"], 1_048_576, "what is configured counts");
    server.wait_for_log(
        "models of kimi: 4 configured, 1 more listed by it; not listed by it: kimi-k2.7-code",
    );
    let gone = Ask::of("kimi-k2.6").answer(&server);
    assert_eq!(gone.status, 200, "what is configured stays");
}

#[test]
fn every_name_that_chat_takes_has_a_page_and_auto_is_listed() {
    let server = Server::start("providers.embedded.pace = \"0ms\"");
    assert_eq!(ids(&server)[0], "auto");
    for name in ["auto", "embedded", "embedded/embedded"] {
        let page = server.page(&format!("/v1/models/{name}"));
        assert_eq!(
            (&page["id"], &page["object"]),
            (&json!(name), &json!("model"))
        );
        assert_eq!(Ask::of(name).answer(&server).status, 200, "{name}");
    }
    for (name, status) in [("kimi-k3", 503), ("kimi/kimi-k3", 503), ("nobody", 404)] {
        let page = server.client().get(&format!("/v1/models/{name}"));
        let chat = Ask::of(name).answer(&server);
        assert_eq!((page.status, chat.status), (status, status), "{name}");
        assert_eq!(message(&page.json()), message(&chat.json()));
    }
    assert!(
        !ids(&server).iter().any(|id| id.starts_with("kimi")),
        "without a key"
    );
}

#[test]
fn auto_is_answered_by_what_an_endpoint_lists_where_nothing_is_configured() {
    let upstream = Upstream::start(Script::text("hello"));
    upstream.on_list(Script::models([
        json!({"id": "nomic-embed-text"}),
        json!({"id": "llama-4"}),
    ]));
    let server = Server::start_with(&mine(&upstream.url()), &[REFRESH]);
    wait_for_model(&server, "auto");
    let answer = Ask::of("auto").answer(&server);
    assert_eq!(
        (text(&answer).as_str(), answer.header("x-model")),
        ("hello", Some("llama-4"))
    );
    assert_eq!(
        Ask::of("llama-4").answer(&server).header("x-provider"),
        Some("mine")
    );
    assert_eq!(
        Ask::of("mine/unlisted").answer(&server).status,
        200,
        "the endpoint knows its models"
    );
}

#[test]
fn while_a_list_is_not_there_yet_nothing_waits_for_it_and_whoever_needs_it_is_told_so() {
    let upstream = Upstream::start(Script::text("hello"));
    let gate = Gate::new();
    let list = Script::models([json!({"id": "llama-4"})]);
    upstream.on_list(Script::Gate(gate.clone(), Box::new(list)));
    let config = mine(&upstream.url()) + "limits.global = 1\nproviders.mine.max_inflight = 1\n";
    let server = Server::start_with(&config, &[REFRESH]);
    upstream.wait_for_lists(1);
    let status = server.page("/api/status");
    assert_eq!(status["slots"]["global"]["in_use"], 0, "it takes no slot");
    assert_eq!(text(&Ask::of("mine/m").answer(&server)), "hello");
    let unknown = Ask::of("llama-4").answer(&server);
    assert_eq!(
        (unknown.status, code(&unknown).as_str()),
        (404, "model_not_found")
    );
    assert_eq!(
        unknown.header("x-should-retry"),
        None,
        "it may help to ask again"
    );
    assert!(unknown.header("retry-after").is_some());
    let words = "mine has not yet said which models it has: ask again in a moment";
    assert!(
        message(&unknown.json()).ends_with(words),
        "{}",
        unknown.json()
    );
    let auto = Ask::of("auto").answer(&server);
    assert_eq!(auto.status, 503);
    assert!(message(&auto.json()).contains("or list models in providers.mine.models"));
    gate.release();
    wait_for_model(&server, "llama-4");
    assert_eq!(text(&Ask::of("llama-4").answer(&server)), "hello");
    let unknown = Ask::of("llama-5").answer(&server);
    assert_eq!(
        unknown.header("x-should-retry"),
        Some("false"),
        "now it is known"
    );
}

#[test]
fn a_list_that_can_not_be_read_is_said_once_and_takes_nothing_away() {
    let upstream = Upstream::start(Script::text("hello"));
    // The provider's own id of a request goes to the log, and is another one each time.
    let out = |id: &str| {
        let body = json!({"error": {"message": "the list is out", "type": "server_error"}});
        Script::Status(500, body, vec![("x-request-id".into(), id.into())])
    };
    upstream.on_list(out("a"));
    let config = mine(&upstream.url()) + "providers.mine.models = [{ name = \"m\" }]\n";
    let often = (REFRESH.0, "10ms");
    let server = Server::start_with(&config, &[often]);
    upstream.wait_for_lists(2);
    upstream.on_list(out("b"));
    upstream.wait_for_lists(6);
    assert_eq!(text(&Ask::of("m").answer(&server)), "hello");
    let unknown = Ask::of("x").answer(&server);
    let words = "mine does not say which models it has, the log says why";
    assert!(
        message(&unknown.json()).ends_with(words),
        "{}",
        unknown.json()
    );
    upstream.on_list(Script::models([json!({"id": "m"}), json!({"id": "new"})]));
    wait_for_model(&server, "new");
    upstream.on_list(Script::models([json!({"id": "newer"})]));
    wait_for_model(&server, "newer");
    assert!(
        !ids(&server).contains(&"new".to_owned()),
        "what is no longer listed is gone"
    );
    upstream.on_list(Script::Reset);
    let seen = upstream.lists();
    upstream.wait_for_lists(seen + 2);
    assert_eq!(
        text(&Ask::of("newer").answer(&server)),
        "hello",
        "a failure takes nothing away"
    );
    let log = server.log();
    let told = log
        .iter()
        .filter(|line| line.contains("the list is out") || line.contains("status 500"));
    assert_eq!(told.count(), 1, "{log:#?}");
}

#[test]
fn a_server_without_a_list_and_one_that_is_not_there_are_as_configured() {
    let none = Upstream::start(Script::text("hello"));
    none.on_list(Script::error(404, "not_found", "no such page"));
    let gone = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = gone.local_addr().expect("it is bound");
    drop(gone);
    let config = mine(&none.url())
        + &format!(
            "providers.other.kind = \"openai\"\nproviders.other.base_url = \"http://{address}\"\n"
        );
    let server = Server::start_with(&config, &[REFRESH]);
    server.wait_for_log(
        "models of mine: as configured, for mine does not list them: it has no list of models",
    );
    server.wait_for_log("models of other: as configured, for other does not list them: ");
    assert_eq!(text(&Ask::of("mine/any").answer(&server)), "hello");
    let auto = message(&Ask::of("auto").answer(&server).json()).to_owned();
    let words = "list models in providers.mine.models, since mine does not say which it has: it has no list of models";
    assert!(auto.contains(words), "{auto}");
}

#[test]
fn whoever_is_not_to_be_asked_is_not_asked() {
    let upstream = Upstream::start(Script::text("hello"));
    let off = mine(&upstream.url()) + "providers.mine.model_list = false\n";
    let asked = mine(&upstream.url()) + "profile = \"test\"\n";
    for (config, refresh) in [(&off, "1h"), (&asked, "1h"), (&mine(&upstream.url()), "0s")] {
        let server = Server::start_with(config, &[(REFRESH.0, refresh)]);
        assert_eq!(text(&Ask::of("mine/m").answer(&server)), "hello");
        let auto = message(&Ask::of("auto").answer(&server).json()).to_owned();
        let words = "list models in providers.mine.models";
        assert!(auto.ends_with(words), "{auto}");
    }
    assert_eq!(upstream.lists(), 0);
    let keyless = mine(&upstream.url()) + "providers.mine.api_key_env = \"MINE_API_KEY\"\n";
    let server = Server::start_with(&keyless, &[REFRESH]);
    assert_eq!(Ask::of("mine/m").answer(&server).status, 503);
    assert_eq!(upstream.lists(), 0, "without its key");
}

#[test]
fn a_server_stops_while_it_waits_for_a_list() {
    let upstream = Upstream::start(Script::text("hello"));
    for script in [Script::Silent, Script::TrickleBody, Script::TrickleHeaders] {
        upstream.on_list(script);
        let seen = upstream.lists();
        let mut server = Server::start_with(&mine(&upstream.url()), &[REFRESH]);
        upstream.wait_for_lists(seen + 1);
        server.signal(Signal::TERM);
        assert!(server.wait().success());
        let log = server.whole_log();
        assert!(
            log.last().is_some_and(|line| line.contains("stopped")),
            "{log:#?}"
        );
    }
}

#[test]
fn a_question_at_the_start_waits_for_the_list_that_it_needs() {
    let upstream = Upstream::start(Script::text("hello"));
    upstream.on_list(Script::models([json!({"id": "llama-4"})]));
    for model in ["llama-4", "auto"] {
        let errand = Errand::start(
            &mine(&upstream.url()),
            &["ask", "-m", model, "why?"],
            &[REFRESH],
            "",
        );
        let done = errand.done();
        assert_eq!(
            (done.code, done.out.as_str()),
            (Some(0), "hello\n"),
            "{done:#?}"
        );
        assert!(done.err.starts_with("mine/llama-4: "), "{}", done.err);
    }
    upstream.on_list(Script::Silent);
    let seen = upstream.lists();
    let errand = Errand::start(&mine(&upstream.url()), &["ask", "why?"], &[REFRESH], "");
    upstream.wait_for_lists(seen + 1);
    errand.signal(Signal::INT);
    assert_eq!(errand.done().code, Some(130));
}

#[test]
fn a_check_names_the_configured_models_that_are_not_listed() {
    let upstream = Upstream::start(Script::text("x"));
    upstream.on_list(Script::models([json!({"id": "a"})]));
    let models = "providers.mine.models = [{ name = \"a\" }, { name = \"typo\" }]\n";
    let config = mine(&upstream.url()) + models;
    let done = Errand::run(&config, &["check"]);
    let line = done.out.lines().find(|line| line.starts_with("mine "));
    let words = "answers; it does not list these of the configured models: typo";
    assert!(line.is_some_and(|line| line.ends_with(words)), "{done:#?}");
    assert_eq!(done.code, Some(0));
    upstream.on_list(Script::Status(
        200,
        json!({"error": {"message": "no balance", "code": "1113"}}),
        vec![],
    ));
    let done = Errand::run(&config, &["check"]);
    assert!(
        done.out.contains("no balance"),
        "an error is one, whatever its status: {done:#?}"
    );
    assert_eq!(done.code, Some(1));
}
