//! The embedded provider: a first run without a key or a network, and things that go wrong on request.

use serde_json::{Value, json};

use crate::support::{Ask, Broken, Client, Event, Script, Server, Upstream, code, text};

fn server() -> Server {
    Server::start("providers.embedded.faults = true\nproviders.embedded.pace = \"0ms\"\n")
}

/// The chunks of a stream that ended as it should.
fn chunks(ask: Ask, server: &Server) -> Vec<Value> {
    let events = ask
        .streamed()
        .stream(server)
        .events()
        .expect("a proper end");
    let (done, chunks) = events.split_last().expect("events");
    assert_eq!(done, &Event::Data("[DONE]".into()));
    chunks
        .iter()
        .map(|event| event.json().expect("JSON"))
        .collect()
}

fn joined(chunks: &[Value], key: &str) -> String {
    let bit = |chunk: &Value| {
        chunk["choices"][0]["delta"][key]
            .as_str()
            .map(str::to_owned)
    };
    chunks.iter().filter_map(bit).collect()
}

#[test]
fn without_a_key_auto_is_answered_offline_and_says_so() {
    let server = Server::start("");
    server.wait_for_log("no provider has a key");
    let answer = Ask::of("auto").saying("is anybody there?").answer(&server);
    assert!(
        text(&answer).contains("is anybody there?"),
        "{}",
        text(&answer)
    );
    assert_eq!(answer.header("x-provider"), Some("embedded"));
    let route = answer.json()["pointsman"]["route"].to_string();
    assert!(
        route.contains("since no other provider has a key"),
        "{route}"
    );
}

#[test]
fn where_a_provider_has_a_key_auto_is_never_answered_by_the_embedded_one() {
    let upstream = Upstream::start(Script::Reset);
    let url = upstream.url();
    let config = format!(
        "providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"{url}\"\nproviders.mine.models = [{{ name = \"m\" }}]\n"
    );
    let server = Server::start(&config);
    let failed = Ask::of("auto").answer(&server);
    assert_eq!(
        (failed.status, failed.header("x-provider")),
        (502, Some("mine")),
        "it is no fallback"
    );
    upstream.next(Script::text("hello"));
    let answer = Ask::of("auto").answer(&server);
    assert_eq!(
        (text(&answer).as_str(), answer.header("x-model")),
        ("hello", Some("m"))
    );
}

#[test]
fn it_answers_whole_and_in_pieces_and_twice_the_same() {
    let server = server();
    let ask = Ask::of("embedded").saying("one two three");
    let [first, second] = [ask.answer(&server), ask.answer(&server)].map(|answer| answer.json());
    assert_eq!(
        (&first["id"], &first["choices"]),
        (&second["id"], &second["choices"])
    );
    assert_eq!(
        (&first["object"], &first["model"]),
        (&json!("chat.completion"), &json!("embedded"))
    );
    assert_eq!(first["choices"][0]["finish_reason"], "stop");
    let whole = first["choices"][0]["message"]["content"]
        .as_str()
        .expect("text");
    assert!(whole.ends_with("one two three"), "{whole}");
    let usage = &first["usage"];
    assert_eq!(usage["completion_tokens"], whole.split_whitespace().count());
    let streamed = chunks(ask, &server);
    assert!(streamed.len() > 3, "in pieces");
    assert_eq!(joined(&streamed, "content"), whole);
}

#[test]
fn it_thinks_aloud_unless_told_not_to() {
    let server = server();
    let ask = Ask::of("embedded-reasoning");
    let message = ask.answer(&server).json()["choices"][0]["message"].clone();
    let thought = message["reasoning_content"].as_str().expect("a thought");
    assert_eq!(
        joined(&chunks(ask.clone(), &server), "reasoning_content"),
        thought
    );
    let quiet = ask
        .with("pointsman", json!({"thinking": false}))
        .answer(&server)
        .json();
    assert_eq!(
        quiet["choices"][0]["message"].get("reasoning_content"),
        None
    );
    assert_eq!(
        quiet["choices"][0]["message"]["content"],
        message["content"]
    );
}

#[test]
fn it_calls_a_tool_and_answers_from_its_result() {
    let server = server();
    let tools = json!([{"type": "function", "function": {"name": "lookup", "parameters": {
        "type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}}}]);
    let ask = Ask::of("embedded-tools")
        .saying("find it")
        .with("tools", tools.clone());
    let asked = ask.answer(&server).json()["choices"][0].clone();
    assert_eq!(asked["finish_reason"], "tool_calls");
    let call = &asked["message"]["tool_calls"][0];
    assert_eq!(call["function"]["name"], "lookup");
    let arguments = call["function"]["arguments"].as_str().expect("a string");
    let arguments: Value = serde_json::from_str(arguments).expect("JSON");
    assert!(arguments["word"].is_string(), "{arguments}");
    let messages = json!([
        {"role": "user", "content": "find it"},
        asked["message"],
        {"role": "tool", "tool_call_id": call["id"], "content": "forty-two"},
    ]);
    let told = Ask::of("embedded-tools")
        .with("messages", messages)
        .with("tools", tools);
    assert!(text(&told.answer(&server)).contains("forty-two"));
}

#[test]
fn it_gives_several_answers_ends_where_it_is_told_to_and_names_what_has_no_effect() {
    let server = server();
    let ask = Ask::of("embedded")
        .saying("one two three")
        .with("n", json!(2))
        .with("stop", json!(["three"]))
        .with("temperature", json!(0.2))
        .with("seed", json!(7));
    let answer = ask.answer(&server);
    assert_eq!(answer.header("x-dropped-params"), Some("temperature"));
    let whole = answer.json();
    let streamed = ask.with("stream_options", json!({"include_usage": true}));
    let streamed = chunks(streamed, &server);
    let of = |index: u64| {
        let choices = streamed.iter().filter_map(|chunk| chunk["choices"].get(0));
        choices.filter(move |choice| choice["index"] == index)
    };
    for index in [0, 1] {
        let message = &whole["choices"][index as usize]["message"];
        let text = message["content"].as_str().expect("text");
        assert!(text.ends_with("one two "), "{text}");
        let bits = of(index).filter_map(|choice| choice["delta"]["content"].as_str());
        assert_eq!(bits.collect::<String>(), text);
        let ends = of(index).filter_map(|choice| choice["finish_reason"].as_str());
        assert_eq!(ends.collect::<Vec<_>>(), ["stop"]);
    }
    let usage = streamed.iter().find(|chunk| chunk["usage"].is_object());
    assert_eq!(usage.expect("usage")["usage"], whole["usage"]);
}

#[test]
fn it_answers_by_a_schema_as_typed_clients_send_it_and_refuses_what_it_can_not_do() {
    let server = server();
    let schema = json!({"name": "Way", "strict": true, "schema": {
        "$defs": {"Step": {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]}},
        "type": "object", "required": ["steps"],
        "properties": {"steps": {"type": "array", "items": {"$ref": "#/$defs/Step"}}}}});
    let format = json!({"type": "json_schema", "json_schema": schema});
    let answer = Ask::of("embedded")
        .with("response_format", format)
        .answer(&server);
    let value: Value = serde_json::from_str(&text(&answer)).expect("JSON");
    assert_eq!(value, json!({"steps": [{"what": "hello"}]}));
    for (field, value) in [
        ("logprobs", json!(true)),
        ("n", json!(100)),
        ("tool_choice", json!("required")),
    ] {
        let refused = Ask::of("embedded").with(field, value).answer(&server);
        assert_eq!(
            (refused.status, code(&refused).as_str()),
            (400, "invalid_request")
        );
        assert_eq!(refused.json()["error"]["param"], field);
    }
}

#[test]
fn it_fails_on_request_as_providers_fail() {
    let server = server();
    for (model, status, expected, is_final) in [
        ("fault-fail-500", 502, "provider_failed", false),
        ("fault-429", 429, "provider_rate_limited", false),
        ("fault-503", 503, "provider_overloaded", false),
        ("fault-401", 401, "provider_auth", true),
        ("fault-quota", 429, "insufficient_quota", true),
        ("fault-garbage", 502, "provider_malformed", false),
        ("fault-broken", 502, "provider_incomplete", false),
        ("fault-panic", 500, "internal_error", false),
    ] {
        let answer = Ask::of(model).answer(&server);
        assert_eq!(
            (answer.status, code(&answer).as_str()),
            (status, expected),
            "{model}"
        );
        let should = is_final.then_some("false");
        assert_eq!(answer.header("x-should-retry"), should, "{model}");
    }
    assert_eq!(
        Ask::of("embedded").answer(&server).status,
        200,
        "nobody died"
    );
    server.wait_until_idle();
}

#[test]
fn it_stalls_and_trickles_on_request_until_its_deadline_or_until_its_client_leaves() {
    let server = server();
    let stalled = Ask::of("fault-stall").within("150ms").answer(&server);
    assert_eq!(
        (stalled.status, code(&stalled).as_str()),
        (504, "deadline_exceeded")
    );
    for model in ["fault-hang-after-first", "fault-trickle", "fault-broken"] {
        let mut stream = Ask::of(model).within("300ms").streamed().stream(&server);
        let mut last = None;
        while let Ok(Some(event)) = stream.event() {
            last = event.json();
        }
        assert_eq!(stream.event(), Err(Broken), "{model}");
        let code = last.expect("an error")["error"]["code"].clone();
        let expected = if model == "fault-broken" {
            "provider_incomplete"
        } else {
            "deadline_exceeded"
        };
        assert_eq!(code, expected, "{model}");
    }
    let left: Vec<Client> = ["fault-stall", "fault-trickle"]
        .map(|model| Ask::of(model).send(&server))
        .into();
    server.wait_for_status("they run", |status| {
        status["slots"]["global"]["in_use"] == 2
    });
    drop(left);
    server.wait_until_idle();
}

#[test]
fn its_faults_are_there_only_where_they_were_asked_for() {
    let server = Server::start("");
    let answer = Ask::of("fault-panic").answer(&server);
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (404, "model_not_found")
    );
    let list = server.page("/v1/models").to_string();
    assert!(!list.contains("fault-"), "{list}");
}
