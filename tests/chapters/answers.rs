//! Answers: whatever a provider's own way of speaking, a client hears OpenAI's, and hears who answered, how and when.

use serde_json::{Value, json};

use crate::support::{Answer, Ask, Event, Request, Script, Server, Stream, Upstream, text};

/// The program in front of `upstream`, which is Kimi, GLM and an endpoint of OpenAI's wire in one.
fn server(upstream: &Upstream) -> Server {
    let url = upstream.url();
    let config = format!(
        "providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"{url}\"\n\
         providers.kimi.base_url = \"{url}\"\nproviders.glm.base_url = \"{url}\"\n"
    );
    Server::start_with(
        &config,
        &[("KIMI_API_KEY", "sk-kimi"), ("GLM_API_KEY", "id.glm")],
    )
}

/// A chunk of a provider's stream.
fn chunk(delta: Value, finish: Value) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_788_000_000, "model": "theirs",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "system_fingerprint": "fp_1",
    })
}

fn usage() -> Value {
    json!({
        "prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13, "cached_tokens": 8,
        "completion_tokens_details": {"reasoning_tokens": 2}, "prompt_tokens_details": {"cached_tokens": 8},
    })
}

fn events(chunks: impl IntoIterator<Item = Value>) -> Script {
    let data = chunks.into_iter().map(|chunk| chunk.to_string());
    Script::Events(data.chain(["[DONE]".to_owned()]).collect())
}

/// A stream as Kimi sends it: a role, then `deltas`, and the usage twice.
fn kimi(deltas: &[Value], finish: &str) -> Script {
    let role = chunk(json!({"role": "assistant", "content": ""}), Value::Null);
    let middle = deltas.iter().map(|delta| chunk(delta.clone(), Value::Null));
    let mut end = chunk(json!({}), finish.into());
    end["choices"][0]["usage"] = usage();
    let mut last = chunk(json!({}), Value::Null);
    last["choices"] = json!([]);
    last["usage"] = usage();
    events([role].into_iter().chain(middle).chain([end, last]))
}

/// A stream as GLM sends it: the role in each piece, no reason but in the last, which has the usage too.
fn glm(deltas: &[Value], finish: &str) -> Script {
    let piece = |delta: &Value| {
        let mut delta = delta.clone();
        delta["role"] = "assistant".into();
        json!({
            "id": "2026", "created": 1_788_000_000, "object": "chat.completion.chunk", "model": "theirs",
            "choices": [{"index": 0, "delta": delta}],
        })
    };
    let mut last = piece(&json!({"content": ""}));
    last["choices"][0]["finish_reason"] = finish.into();
    last["usage"] = usage();
    events(deltas.iter().map(piece).chain([last]))
}

/// A client's stream, seen to be of OpenAI's shape and put together.
#[derive(Debug, Default)]
struct Heard {
    content: String,
    reasoning: String,
    calls: Vec<Value>,
    finish: Vec<String>,
    usage: Vec<Value>,
    pointsman: Value,
}

fn hear(stream: &mut Stream) -> Heard {
    assert_eq!(stream.status, 200);
    let events = stream.events().expect("a proper end");
    let (done, chunks) = events.split_last().expect("events");
    assert_eq!(done, &Event::Data("[DONE]".into()));
    let chunks: Vec<Value> = chunks
        .iter()
        .map(|event| event.json().expect("JSON"))
        .collect();
    let mut heard = Heard::default();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    for (number, chunk) in chunks.iter().enumerate() {
        assert_eq!(chunk["object"], "chat.completion.chunk", "{chunk:#}");
        assert_eq!(chunk["id"], chunks[0]["id"], "{chunk:#}");
        assert!(
            chunk["created"].is_u64() && chunk["model"].is_string(),
            "{chunk:#}"
        );
        let is_last = number + 1 == chunks.len();
        assert_eq!(chunk.get("pointsman").is_some(), is_last, "{chunk:#}");
        heard.take(chunk);
    }
    heard
}

impl Heard {
    fn take(&mut self, chunk: &Value) {
        self.pointsman = chunk["pointsman"].clone();
        if chunk["usage"].is_object() {
            assert_eq!(chunk["choices"], json!([]), "{chunk:#}");
            self.usage.push(chunk["usage"].clone());
            return;
        }
        let choice = &chunk["choices"][0];
        assert_eq!(choice["index"], 0, "{chunk:#}");
        let bit = |key: &str| choice["delta"][key].as_str().unwrap_or_default();
        self.content += bit("content");
        self.reasoning += bit("reasoning_content");
        self.finish
            .extend(choice["finish_reason"].as_str().map(str::to_owned));
        for call in choice["delta"]["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
        {
            self.take_call(call);
        }
    }

    /// As OpenAI's clients put calls together: name and id from the first bit, arguments from all.
    fn take_call(&mut self, bit: &Value) {
        let index = usize::try_from(bit["index"].as_u64().expect("an index")).expect("small");
        let arguments = bit["function"]["arguments"].as_str().expect("a string");
        if index == self.calls.len() {
            assert!(
                bit["id"].is_string() && bit["function"]["name"].is_string(),
                "{bit:#}"
            );
            self.calls.push(bit.clone());
        } else {
            let known = &mut self.calls[index]["function"]["arguments"];
            *known = format!("{}{arguments}", known.as_str().expect("a string")).into();
        }
    }
}

fn tool() -> Value {
    json!([{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}])
}

fn last_request(upstream: &Upstream) -> Request {
    upstream.requests().pop().expect("a request")
}

#[test]
fn an_answer_of_an_openai_endpoint_passes_whole_and_what_nobody_knows_passes_with_it() {
    let body = json!({
        "id": "chatcmpl-9", "object": "chat.completion", "created": 7, "model": "theirs", "their_field": [1],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi", "refusal": "their way"},
            "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "their_count": 4},
    });
    let upstream = Upstream::start(Script::Status(200, body.clone(), vec![]));
    let server = server(&upstream);
    let ask = Ask::of("mine/m")
        .with("top_k", json!(5))
        .with("pointsman", json!({"priority": 1}));
    let answer = ask.answer(&server);
    let mut told = answer.json();
    let ours = told
        .as_object_mut()
        .and_then(|fields| fields.shift_remove("pointsman"));
    assert_eq!(told, body);
    assert_eq!(ours.expect("our object")["provider"], "mine");
    let sent = last_request(&upstream);
    assert_eq!(
        (sent.model(), sent.wants_stream()),
        ("m", false),
        "as the client asked"
    );
    assert_eq!(
        (&sent.body["top_k"], sent.body.get("pointsman")),
        (&json!(5), None)
    );
    assert_eq!(
        sent.head.header("authorization"),
        None,
        "no key, none made up"
    );
}

#[test]
fn a_stream_of_an_openai_endpoint_passes_and_tells_its_usage_only_when_asked() {
    let upstream = Upstream::start(Script::Answer(Answer {
        text: "one two three".into(),
        ..Answer::default()
    }));
    let server = server(&upstream);
    let ask = Ask::of("mine/m").streamed();
    let heard = hear(&mut ask.stream(&server));
    assert_eq!(
        (heard.content.as_str(), heard.finish, heard.usage),
        ("one two three", vec!["stop".to_owned()], vec![])
    );
    let asked = ask.with("stream_options", json!({"include_usage": true}));
    let heard = hear(&mut asked.stream(&server));
    assert_eq!(heard.content, "one two three");
    assert_eq!(heard.usage[0]["total_tokens"], 12);
    assert_eq!((heard.usage.len(), heard.finish.len()), (1, 1));
}

#[test]
fn kimi_is_asked_in_its_words_and_heard_in_openais() {
    let deltas = [
        json!({"reasoning_content": "Let me "}),
        json!({"reasoning_content": "think."}),
        json!({"content": "It is "}),
        json!({"content": "so."}),
    ];
    let upstream = Upstream::start(kimi(&deltas, "stop"));
    let server = server(&upstream);
    let ask = Ask::of("kimi-k3")
        .with("temperature", json!(0.2))
        .with("user", json!("ann"));
    let answer = ask.answer(&server);
    let message = &answer.json()["choices"][0]["message"];
    assert_eq!(
        (&message["content"], &message["reasoning_content"]),
        (&json!("It is so."), &json!("Let me think."))
    );
    assert_eq!(
        answer.json()["usage"]["completion_tokens_details"]["reasoning_tokens"],
        2
    );
    assert_eq!(answer.header("x-dropped-params"), Some("temperature"));
    let sent = last_request(&upstream);
    assert_eq!(sent.head.header("authorization"), Some("Bearer sk-kimi"));
    assert_eq!(
        (
            &sent.body["stream"],
            &sent.body["stream_options"]["include_usage"]
        ),
        (&json!(true), &json!(true))
    );
    assert_eq!(
        (
            &sent.body["safety_identifier"],
            sent.body.get("temperature")
        ),
        (&json!("ann"), None)
    );
    let heard = hear(&mut ask.streamed().stream(&server));
    assert_eq!(
        (heard.reasoning.as_str(), heard.content.as_str()),
        ("Let me think.", "It is so.")
    );
    assert_eq!(
        (heard.finish, heard.usage),
        (vec!["stop".to_owned()], vec![]),
        "nobody asked"
    );
    assert_eq!(heard.pointsman["dropped_params"], json!(["temperature"]));
}

#[test]
fn a_call_of_a_tool_in_fragments_is_one_call_streamed_or_not() {
    let bit = |function: Value| json!({"tool_calls": [{"index": 0, "function": function}]});
    let first = json!({"tool_calls": [{"index": 0, "id": "get_weather_0", "type": "function",
        "function": {"name": "get_weather", "arguments": ""}}]});
    let rest = ["{\"city\":\"", "Paris", "\"}"].map(|bits| bit(json!({"arguments": bits})));
    let deltas: Vec<Value> = [first].into_iter().chain(rest).collect();
    let upstream = Upstream::start(kimi(&deltas, "tool_calls"));
    let whole = json!({"tool_calls": [{"id": "get_weather_0", "index": 0, "type": "function",
        "function": {"name": "get_weather", "arguments": "{\"city\":\"Paris\"}"}}]});
    upstream.on_model("glm-5", glm(&[whole], "tool_calls"));
    let server = server(&upstream);
    for model in ["kimi-k3", "glm-5"] {
        let ask = Ask::of(model).with("tools", tool());
        let heard = hear(&mut ask.clone().streamed().stream(&server));
        assert_eq!(heard.finish, ["tool_calls"], "{model}");
        let answer = ask.answer(&server).json();
        assert_eq!(
            answer["choices"][0]["finish_reason"], "tool_calls",
            "{model}"
        );
        let calls = answer["choices"][0]["message"]["tool_calls"].as_array();
        for calls in [&heard.calls, calls.expect("calls")] {
            assert_eq!(calls.len(), 1, "{model}: {calls:#?}");
            assert_eq!(
                (&calls[0]["id"], &calls[0]["type"]),
                (&json!("get_weather_0"), &json!("function"))
            );
            let function = json!({"name": "get_weather", "arguments": "{\"city\":\"Paris\"}"});
            assert_eq!(calls[0]["function"], function, "{model}");
        }
    }
}

#[test]
fn glm_is_asked_in_its_words_and_its_ends_are_told_in_openais() {
    let upstream = Upstream::start(glm(&[json!({"content": "so"})], "stop"));
    upstream.on_model("glm-4.6", glm(&[json!({"content": "no"})], "sensitive"));
    upstream.on_model(
        "glm-4.7",
        glm(
            &[json!({"content": "so much"})],
            "model_context_window_exceeded",
        ),
    );
    let server = server(&upstream);
    for (model, finish) in [
        ("glm-5", "stop"),
        ("glm-4.6", "content_filter"),
        ("glm-4.7", "length"),
    ] {
        let heard = hear(&mut Ask::of(model).streamed().stream(&server));
        assert_eq!(
            (heard.finish, heard.usage),
            (vec![finish.to_owned()], vec![]),
            "{model}"
        );
        let answer = Ask::of(model).answer(&server).json();
        assert_eq!(answer["choices"][0]["finish_reason"], finish, "{model}");
        assert_eq!(answer["usage"]["total_tokens"], 13, "{model}");
    }
    let sent = last_request(&upstream);
    assert_eq!(sent.head.header("authorization"), Some("Bearer id.glm"));
    assert_eq!(sent.head.header("accept-language"), Some("en-US,en"));
    assert_eq!(
        (&sent.body["stream"], sent.body.get("stream_options")),
        (&json!(true), None)
    );
    let refused = Ask::of("glm-5")
        .with("tool_choice", json!("required"))
        .with("tools", tool());
    let refused = refused.answer(&server);
    assert_eq!(
        (refused.status, &refused.json()["error"]["param"]),
        (400, &json!("tool_choice"))
    );
}

#[test]
fn a_search_is_echoed_to_kimi_and_the_client_hears_only_the_answer() {
    let search = json!({"tool_calls": [{"index": 0, "id": "s_0", "type": "builtin_function",
        "function": {"name": "$web_search", "arguments": "{\"q\":\"x\"}"}}]});
    let upstream = Upstream::start(Script::Silent);
    let server = server(&upstream);
    for ask in [Ask::of("kimi-k3"), Ask::of("kimi-k3").streamed()] {
        upstream.next(kimi(std::slice::from_ref(&search), "tool_calls"));
        upstream.next(kimi(&[json!({"content": "found"})], "stop"));
        let ask = ask.with("pointsman", json!({"web_search": true}));
        let answer = ask.answer(&server);
        let told = String::from_utf8(answer.body).expect("text");
        assert_eq!(answer.status, 200, "{told}");
        assert!(
            told.contains("found") && !told.contains("$web_search"),
            "{told}"
        );
        let requests = upstream.requests();
        let [.., first, second] = requests.as_slice() else {
            panic!("two rounds")
        };
        assert_eq!(first.body["tools"][0]["function"]["name"], "$web_search");
        let messages = second.body["messages"].as_array().expect("messages");
        let echo = messages.last().expect("an echo");
        assert_eq!(
            (&echo["role"], &echo["content"]),
            (&json!("tool"), &json!("{\"q\":\"x\"}"))
        );
        assert_eq!(echo["tool_call_id"], "s_0");
    }
    assert_eq!(upstream.requests().len(), 4);
    server.wait_until_idle();
}

#[test]
fn an_answer_says_who_gave_it_and_how_in_its_headers_and_in_its_body() {
    let upstream = Upstream::start(Script::text("hello"));
    let server = server(&upstream);
    let ask = Ask::of("mine/m")
        .session("agent-1")
        .id("my-own.id:7")
        .within("30s");
    let answer = ask.answer(&server);
    let header = |name: &str| answer.header(name).map(str::to_owned);
    let ours = answer.json()["pointsman"].clone();
    for (name, key, expected) in [
        ("x-request-id", "request_id", "my-own.id:7"),
        ("x-session-id", "session_id", "agent-1"),
        ("x-provider", "provider", "mine"),
        ("x-model", "model", "m"),
        ("x-timeout", "timeout", "30s (asked for)"),
    ] {
        assert_eq!(
            (header(name).as_deref(), &ours[key]),
            (Some(expected), &json!(expected)),
            "{name}"
        );
    }
    assert_eq!(
        (header("x-attempts").as_deref(), &ours["attempts"]),
        (Some("1"), &json!(1))
    );
    let timing = header("server-timing").expect("a header");
    for part in ["queue", "connect", "first_byte", "upstream", "total"] {
        assert!(timing.contains(&format!("{part};dur=")), "{timing}");
        assert!(ours["phases"][format!("{part}_s")].is_number(), "{ours:#}");
    }
    let mut stream = ask.streamed().stream(&server);
    assert_eq!(stream.head.header("x-provider"), Some("mine"));
    assert_eq!(stream.head.header("x-request-id"), Some("my-own.id:7"));
    let heard = hear(&mut stream);
    assert_eq!(
        (&heard.pointsman["request_id"], &heard.pointsman["attempts"]),
        (&json!("my-own.id:7"), &json!(1))
    );
    assert!(heard.pointsman["phases"]["total_s"].is_number());
}

#[test]
fn an_id_that_is_not_sane_is_replaced_and_no_two_requests_share_one() {
    let upstream = Upstream::start(Script::text("hello"));
    let server = server(&upstream);
    let long = "x".repeat(129);
    let mut ids = Vec::new();
    for given in ["", "two words", "quo\"te", &long] {
        let answer = Ask::of("mine/m").id(given).answer(&server);
        let id = answer.header("x-request-id").expect("an id").to_owned();
        assert_ne!(id, given);
        let session = answer.header("x-session-id").expect("a session").to_owned();
        assert_eq!(session, format!("anon-{id}"));
        ids.push(id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[test]
fn models_are_listed_under_the_names_that_can_be_asked_for() {
    let upstream = Upstream::start(kimi(&[json!({"content": "hello"})], "stop"));
    let server = server(&upstream);
    let list = server.page("/v1/models");
    assert_eq!(list["object"], "list");
    let ids: Vec<&str> = list["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|model| model["id"].as_str().expect("an id"))
        .collect();
    for id in ["kimi-k3", "glm-5", "embedded"] {
        assert!(ids.contains(&id), "{ids:?}");
        assert_eq!(server.page(&format!("/v1/models/{id}"))["id"], id);
        assert_eq!(Ask::of(id).answer(&server).status, 200, "{id}");
    }
    assert_eq!(server.client().get("/v1/models/nobody").status, 404);
    let full = Ask::of("kimi/kimi-k3").answer(&server);
    assert_eq!(
        (text(&full).as_str(), full.header("x-model")),
        ("hello", Some("kimi-k3"))
    );
}
