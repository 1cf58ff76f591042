//! Against the real providers, each only where its key is in the environment; otherwise the test says that it was skipped.
//!
//! ```sh
//! KIMI_API_KEY=... GLM_API_KEY=... cargo test --test pointsman live::
//! ```
//!
//! They cost a few cents. Nothing is compared with a model's words, which differ from day to day.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Ask, Event, Server, code, text};

/// A provider, as far as a live test needs it.
#[derive(Debug, Clone, Copy)]
struct Live {
    name: &'static str,
    /// The variable with its key.
    variable: &'static str,
    /// A model that thinks unless told not to, and calls tools.
    model: &'static str,
}

const PROVIDERS: [Live; 2] = [
    Live {
        name: "kimi",
        variable: "KIMI_API_KEY",
        model: "kimi-k2.6",
    },
    Live {
        name: "glm",
        variable: "GLM_API_KEY",
        model: "glm-4.7",
    },
];

/// Runs `test` for each provider that has a key, and says which have none.
fn live(what: &str, test: impl Fn(Live, &str)) {
    for provider in PROVIDERS {
        match std::env::var(provider.variable) {
            Ok(key) if !key.trim().is_empty() => test(provider, &key),
            _ => skip(what, provider),
        }
    }
}

/// Written past the capture of tests' output: a test that was skipped must not look like one that passed.
fn skip(what: &str, Live { name, variable, .. }: Live) {
    let line = format!("SKIPPED: {what} with {name}: {variable} is not set\n");
    std::io::stderr()
        .write_all(line.as_bytes())
        .expect("standard error is open");
}

impl Live {
    /// A server that has this provider's key and no other.
    fn server(self, key: &str) -> Server {
        // Comments keep the client's bound at bay while a model thinks.
        let config = "profile = \"dev\"\nserver.stream_keepalive = \"2s\"\n";
        Server::start_with(config, &[(self.variable, key)])
    }

    fn ask(self, prompt: &str) -> Ask {
        Ask::of(self.model).saying(prompt)
    }

    /// Without thinking, which takes long and costs more.
    fn quick(self, prompt: &str) -> Ask {
        self.ask(prompt)
            .with("pointsman", json!({"thinking": false}))
    }
}

/// A stream that came to its proper end: the text, the reasoning, and the last finish reason.
#[derive(Debug, Default)]
struct Told {
    text: String,
    reasoning: String,
    finish: String,
    /// Names of functions that were called.
    calls: Vec<String>,
    /// The `X-Timeout` header.
    timeout: String,
}

fn listen(server: &Server, ask: &Ask) -> Told {
    let mut stream = ask.clone().streamed().stream(server);
    let timeout = stream
        .head
        .header("x-timeout")
        .unwrap_or_default()
        .to_owned();
    let events = stream.events().expect("a proper end");
    assert_eq!(stream.status, 200, "{events:#?}");
    let data: Vec<&Event> = events
        .iter()
        .filter(|event| !matches!(event, Event::Comment(_)))
        .collect();
    assert_eq!(
        data.last(),
        Some(&&Event::Data("[DONE]".into())),
        "{data:#?}"
    );
    let mut told = Told {
        timeout,
        ..Told::default()
    };
    for chunk in data.iter().filter_map(|event| event.json()) {
        told.hear(&chunk["choices"][0]);
    }
    told
}

impl Told {
    fn hear(&mut self, choice: &Value) {
        let (delta, text) = (&choice["delta"], |value: &Value| {
            value.as_str().unwrap_or_default().to_owned()
        });
        self.text += &text(&delta["content"]);
        self.reasoning += &text(&delta["reasoning_content"]);
        self.finish += &text(&choice["finish_reason"]);
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let name = text(&call["function"]["name"]);
            self.calls.extend((!name.is_empty()).then_some(name));
        }
    }
}

#[test]
fn a_chat_is_answered() {
    live("a chat", |provider, key| {
        let server = provider.server(key);
        let answer = provider.quick("Say only the word railway.").answer(&server);
        assert!(!text(&answer).trim().is_empty());
        assert_eq!(answer.header("x-provider"), Some(provider.name));
        assert!(answer.json()["usage"]["total_tokens"].as_u64() > Some(0));
        let log = server.wait_for_log("completed provider=");
        assert!(!log.contains(key), "the key is in the log");
    });
}

#[test]
fn a_stream_ends_properly() {
    live("a stream", |provider, key| {
        let ask = provider.quick("Count from one to ten in words.");
        let told = listen(&provider.server(key), &ask);
        assert!(!told.text.trim().is_empty(), "{told:?}");
        assert_eq!(told.finish, "stop", "{told:?}");
    });
}

#[test]
fn a_tool_is_called() {
    live("a tool call", |provider, key| {
        let place = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
        let tool = json!({"type": "function", "function": {
            "name": "weather_now", "description": "Tells the weather of a city now.", "parameters": place,
        }});
        let ask = provider
            .quick("Use the tool: what is the weather in Bern now?")
            .with("tools", json!([tool]));
        let told = listen(&provider.server(key), &ask);
        assert_eq!(told.calls, ["weather_now"], "{told:?}");
        assert_eq!(told.finish, "tool_calls", "{told:?}");
    });
}

#[test]
fn the_web_is_searched() {
    live("a web search", |provider, key| {
        let wish = json!({"web_search": true, "thinking": false});
        let ask = provider
            .ask("Search the web for today's headline about railways, and name its source.")
            .with("pointsman", wish);
        let told = listen(&provider.server(key), &ask);
        assert!(!told.text.trim().is_empty(), "{told:?}");
        assert!(told.timeout.contains("web=true"), "{told:?}");
    });
}

#[test]
fn thinking_is_heard_apart_from_the_answer() {
    live("thinking", |provider, key| {
        let ask = provider
            .ask("What is 17 times 23? Think first.")
            .with("pointsman", json!({"thinking": true}));
        let told = listen(&provider.server(key), &ask);
        assert!(!told.reasoning.trim().is_empty(), "{told:?}");
        assert!(!told.text.trim().is_empty(), "{told:?}");
        assert!(told.timeout.contains("thinking=true"), "{told:?}");
    });
}

#[test]
fn a_deadline_of_a_second_is_kept() {
    live("a deadline of 1 s", |provider, key| {
        let server = provider.server(key);
        let start = Instant::now();
        let answer = provider
            .ask("Write a story of four thousand words.")
            .within("1s")
            .answer(&server);
        assert_eq!((answer.status, &*code(&answer)), (504, "deadline_exceeded"));
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
        server.wait_until_idle();
    });
}

#[test]
fn a_wrong_key_is_told_as_what_it_is() {
    live("a wrong key", |provider, _| {
        let wrong = "sk-0000000000000000000000000000000000000000";
        let answer = provider.quick("Hello").answer(&provider.server(wrong));
        assert_eq!((answer.status, &*code(&answer)), (401, "provider_auth"));
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        assert!(!answer.json().to_string().contains(wrong));
    });
}
