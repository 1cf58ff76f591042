//! Failures: what goes wrong at a provider is told as what it is, to the one who asked, without a word too much.

use serde_json::{Value, json};

use crate::support::{Ask, Broken, Event, Response, Script, Server, Upstream, code, text};

/// Keys that must not be seen anywhere.
const KEYS: [(&str, &str); 2] = [
    ("KIMI_API_KEY", "sk-kimi-0123456789secret"),
    ("GLM_API_KEY", "glmid.0123456789secret"),
];

fn server(upstream: &Upstream, more: &str) -> Server {
    let url = upstream.url();
    let alone = |name: &str| {
        // How a failure is told is not to depend on what failed before.
        format!("providers.{name}.retry.attempts = 1\nproviders.{name}.breaker.enabled = false\n")
    };
    let alone = ["mine", "kimi", "glm"].map(alone).concat();
    let config = format!(
        "{alone}providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"{url}\"\n\
         providers.kimi.base_url = \"{url}\"\nproviders.glm.base_url = \"{url}\"\n{more}\n"
    );
    Server::start_with(&config, &KEYS)
}

/// How a failure is told.
#[derive(Debug, Clone, Copy)]
struct Told {
    status: u16,
    kind: &'static str,
    code: &'static str,
    retry_after: Option<&'static str>,
    /// `x-should-retry: false`
    is_final: bool,
}

const fn told(status: u16, kind: &'static str, code: &'static str) -> Told {
    Told {
        status,
        kind,
        code,
        retry_after: None,
        is_final: false,
    }
}

impl Told {
    const fn after(self, seconds: &'static str) -> Told {
        Told {
            retry_after: Some(seconds),
            ..self
        }
    }

    const fn never(self) -> Told {
        Told {
            is_final: true,
            ..self
        }
    }

    fn check(self, what: &str, answer: &Response) {
        let error = answer.json()["error"].clone();
        assert_eq!(
            (answer.status, code(answer).as_str()),
            (self.status, self.code),
            "{what}: {error:#}"
        );
        assert_eq!(error["type"], self.kind, "{what}: {error:#}");
        assert_eq!(answer.header("retry-after"), self.retry_after, "{what}");
        let should = self.is_final.then_some("false");
        assert_eq!(answer.header("x-should-retry"), should, "{what}");
        assert_eq!(
            (
                answer.header("x-attempts"),
                &answer.json()["pointsman"]["attempts"]
            ),
            (Some("1"), &json!(1)),
            "{what}"
        );
    }
}

/// Each failure, streamed and not, from a provider of its own dialect, and how it is told.
fn check(cases: &[(&str, Script, Told)]) {
    for (model, script, told) in cases {
        for ask in [Ask::of(model), Ask::of(model).streamed()] {
            // A provider that asks us to wait takes no more calls: so each has a server of its own.
            let upstream = Upstream::start(Script::Silent);
            let server = server(&upstream, "");
            upstream.next(script.clone());
            told.check(&format!("{model}: {script:?}"), &ask.answer(&server));
            server.wait_until_idle();
            assert_eq!(upstream.requests().len(), 1, "one call each");
        }
    }
}

fn rate_limited(seconds: &str) -> Script {
    Script::rate_limited(seconds)
}

fn glm(status: u16, code: &str, message: &str) -> Script {
    Script::Status(
        status,
        json!({"error": {"code": code, "message": message}}),
        vec![],
    )
}

/// What Kimi answers to `kimi-k3`: its errors have a type and no code.
fn kimi(status: u16, kind: &str, message: &str, told: Told) -> (&'static str, Script, Told) {
    ("kimi-k3", Script::error(status, kind, message), told)
}

#[test]
fn what_kimi_says_is_told_as_what_it_is() {
    let provider = |status, code| told(status, "provider_error", code);
    let limited = provider(429, "provider_rate_limited").after("2");
    let wait = "max RPM: 3, please try again after 2 seconds";
    let no_money = provider(429, "insufficient_quota").never();
    // Some gateways put the header on every 429.
    let no_balance = Script::Status(
        429,
        json!({"error": {"message": "no balance", "type": "exceeded_current_quota_error"}}),
        vec![("Retry-After".into(), "60".into())],
    );
    let auth = |status| provider(status, "provider_auth").never();
    check(&[
        kimi(
            401,
            "invalid_authentication_error",
            "Invalid Authentication",
            auth(401),
        ),
        kimi(403, "permission_denied_error", "not yours", auth(403)),
        kimi(
            404,
            "resource_not_found_error",
            "Not found the model",
            provider(404, "model_not_found").never(),
        ),
        kimi(429, "rate_limit_reached_error", wait, limited),
        kimi(
            429,
            "engine_overloaded_error",
            "busy",
            provider(503, "provider_overloaded").after("5"),
        ),
        kimi(429, "exceeded_current_quota_error", "no balance", no_money),
        ("kimi-k3", no_balance, no_money),
        kimi(
            500,
            "server_error",
            "oops",
            provider(502, "provider_failed"),
        ),
    ]);
}

#[test]
fn what_the_caller_asked_for_in_vain_is_told_as_the_callers_fault() {
    let caller = |code| told(400, "caller_error", code).never();
    let refused = "invalid_request_error";
    let too_long = "Your request exceeded model token limit : 262144";
    check(&[
        kimi(
            400,
            refused,
            "tool_choice 'required' is incompatible",
            caller("invalid_request"),
        ),
        kimi(400, refused, too_long, caller("context_length_exceeded")),
        kimi(400, "content_filter", "high risk", caller("content_filter")),
    ]);
}

#[test]
fn what_glm_says_is_told_as_what_it_is() {
    let provider = |status, code| told(status, "provider_error", code);
    check(&[
        (
            "glm-5",
            glm(429, "1113", "Insufficient balance"),
            provider(429, "insufficient_quota").never(),
        ),
        (
            "glm-5",
            glm(429, "1302", "too many at once"),
            provider(429, "provider_rate_limited").after("5"),
        ),
        (
            "glm-5",
            glm(429, "1305", "overloaded"),
            provider(503, "provider_overloaded").after("5"),
        ),
        (
            "glm-5",
            glm(429, "1308", "usage limit reached"),
            provider(429, "provider_rate_limited").never(),
        ),
        (
            "glm-5",
            glm(401, "401", "token expired or incorrect"),
            provider(401, "provider_auth").never(),
        ),
        (
            "glm-5",
            glm(400, "1214", "modelCode: does not exist"),
            provider(404, "model_not_found").never(),
        ),
        (
            "glm-5",
            glm(400, "1301", "sensitive"),
            told(400, "caller_error", "content_filter").never(),
        ),
    ]);
}

#[test]
fn what_is_no_answer_at_all_is_told_as_a_providers_failure() {
    let provider = |status, code| told(status, "provider_error", code);
    for model in ["mine/m", "kimi-k3", "glm-5"] {
        check(&[
            (
                model,
                Script::HtmlGateway504,
                provider(502, "provider_failed"),
            ),
            (
                model,
                Script::ErrorBodyWith200,
                provider(502, "provider_failed"),
            ),
            (model, Script::Garbage, provider(502, "provider_malformed")),
            (model, Script::Reset, provider(502, "provider_incomplete")),
            (
                model,
                Script::HalfClose,
                provider(502, "provider_incomplete"),
            ),
            (
                model,
                rate_limited("7"),
                provider(429, "provider_rate_limited").after("7"),
            ),
            (
                model,
                rate_limited("3600"),
                provider(429, "provider_rate_limited").after("3600").never(),
            ),
        ]);
    }
}

#[test]
fn a_stream_without_its_end_is_never_told_as_whole() {
    let chunk = |delta: Value, finish: Value| {
        json!({"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}).to_string()
    };
    let (begun, ended) = (
        chunk(json!({"content": "half"}), Value::Null),
        chunk(json!({}), json!("stop")),
    );
    let failed =
        json!({"error": {"message": "busy", "type": "engine_overloaded_error"}}).to_string();
    let done = "[DONE]".to_owned();
    let upstream = Upstream::start(Script::Silent);
    let server = server(&upstream, "");
    for (events, expected) in [
        (vec![begun.clone()], "provider_incomplete"),
        (vec![begun.clone(), ended], "provider_incomplete"),
        (vec![begun.clone(), done], "provider_incomplete"),
        (vec![begun.clone(), failed], "provider_overloaded"),
        (vec![begun, "no JSON".to_owned()], "provider_malformed"),
    ] {
        let what = format!("{events:?}");
        upstream.next(Script::Events(events.clone()));
        let mut stream = Ask::of("kimi-k3").streamed().stream(&server);
        let mut seen = Vec::new();
        let end = loop {
            match stream.event() {
                Ok(Some(event)) => seen.push(event),
                end => break end,
            }
        };
        assert_eq!(end, Err(Broken), "{what}");
        assert!(!seen.contains(&Event::Data("[DONE]".into())), "{what}");
        let last = seen.last().and_then(Event::json).expect("an error");
        assert_eq!(last["error"]["code"], expected, "{what}");
        assert_eq!(last["pointsman"]["provider"], "kimi", "{what}");
        upstream.next(Script::Events(events));
        assert_eq!(
            code(&Ask::of("kimi-k3").answer(&server)),
            expected,
            "{what}, whole"
        );
    }
    server.wait_until_idle();
}

#[test]
fn a_provider_without_its_key_is_named_with_what_to_do_and_calls_nobody() {
    let upstream = Upstream::start(Script::Silent);
    let url = upstream.url();
    let server = Server::start(&format!("providers.kimi.base_url = \"{url}\"\n"));
    let answer = Ask::of("kimi-k3").answer(&server);
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (503, "provider_unavailable")
    );
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    assert_eq!(answer.header("retry-after"), None, "no time brings a key");
    let message = answer.json()["error"]["message"].to_string();
    assert!(message.contains("KIMI_API_KEY"), "{message}");
    let kimi = server.page("/api/status")["slots"]["providers"]["kimi"].clone();
    assert_eq!(kimi["available"], false);
    assert!(
        kimi["advice"].to_string().contains("KIMI_API_KEY"),
        "{kimi:#}"
    );
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn a_key_is_seen_by_its_provider_and_by_nobody_else() {
    let repeat = |key: &str| format!("Incorrect API key provided: {key} (Bearer {key})");
    let upstream = Upstream::start(Script::Silent);
    let server = server(&upstream, "log.level = \"trace\"");
    let mut seen = Vec::new();
    for ((_, key), model) in KEYS.into_iter().zip(["kimi-k3", "glm-5"]) {
        for (status, body) in [
            (
                401,
                json!({"error": {"message": repeat(key), "type": key, "code": key, "param": key}}),
            ),
            (500, json!({"message": repeat(key)})),
            (400, json!(repeat(key))),
            (200, json!({"error": {"message": repeat(key), "code": key}})),
        ] {
            let header = ("x-request-id".to_owned(), key.to_owned());
            upstream.next(Script::Status(status, body, vec![header]));
            let answer = Ask::of(model).id("leak").answer(&server);
            assert!(answer.status >= 400);
            seen.push(format!("{:?} {}", answer.head, answer.json()));
        }
        let sent = upstream.requests().pop().expect("a request");
        assert_eq!(
            sent.head.header("authorization"),
            Some(format!("Bearer {key}").as_str())
        );
    }
    for path in [
        "/api/status",
        "/api/requests",
        "/api/requests/leak",
        "/v1/models",
        "/healthz",
    ] {
        seen.push(server.page(path).to_string());
    }
    server.wait_until_idle();
    seen.extend(server.log());
    assert!(seen.len() > 20, "a log that says nothing proves nothing");
    let leaks: Vec<&String> = seen
        .iter()
        .filter(|text| text.contains("0123456789secret"))
        .collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}

#[test]
fn a_key_in_a_file_is_used_and_a_key_that_is_none_is_not_shown() {
    let upstream = Upstream::start(Script::text("hello"));
    let (url, directory) = (upstream.url(), tempfile::tempdir().expect("a directory"));
    let file = directory.path().join("key");
    std::fs::write(&file, "sk-from-a-file\n").expect("a file");
    let config = |name: &str| {
        format!(
            "providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"{url}\"\nproviders.mine.{name}\n"
        )
    };
    let server = Server::start(&config(&format!("api_key_file = {file:?}")));
    assert_eq!(text(&Ask::of("mine/m").answer(&server)), "hello");
    let sent = upstream.requests().pop().expect("a request");
    assert_eq!(
        sent.head.header("authorization"),
        Some("Bearer sk-from-a-file")
    );
    let broken = "sk-two\nlines-secret";
    let server = Server::start_with(&config("api_key_env = \"MINE\""), &[("MINE", broken)]);
    let answer = Ask::of("mine/m").answer(&server);
    assert!(answer.status >= 500, "{}", answer.json());
    let seen = format!(
        "{} {} {:?}",
        answer.json(),
        server.page("/api/status"),
        server.log()
    );
    assert!(!seen.contains("lines-secret"), "{seen}");
    assert_eq!(upstream.requests().len(), 1);
}
