//! Timeouts that learn: what calls took decides what the next one gets, and the answer says so.

use std::time::{Duration, Instant};

use crate::support::{Answer, Ask, Response, Script, Server, Upstream, at_once, code, text};

/// The program in front of `upstream`, as a Kimi with a plain model and one that thinks, and as plain OpenAI. Three
/// calls are enough to know, and the floor is low.
fn server(upstream: &Upstream, more: &str) -> Server {
    let url = upstream.url();
    let config = format!(
        "providers.moon.kind = \"kimi\"\nproviders.moon.base_url = \"{url}\"\nproviders.moon.api_key_env = \"MOON\"\n\
         providers.moon.models = [{{ name = \"plain\" }}, {{ name = \"thinker\", thinking = \"always\" }}]\n\
         providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"{url}\"\n\
         timeouts.learn.samples = 3\ntimeouts.learn.floor = \"400ms\"\n{more}\n"
    );
    Server::start_with(&config, &[("MOON", "sk-moon")])
}

fn timeout(answer: &Response) -> String {
    let header = answer.header("x-timeout");
    header.expect("every answer says its timeout").to_owned()
}

/// The timeouts of `count` calls that go well.
fn well(server: &Server, ask: &Ask, count: usize) -> Vec<String> {
    let calls = (0..count).map(|_| {
        let answer = ask.answer(server);
        assert_eq!(answer.status, 200, "{:#}", answer.json());
        timeout(&answer)
    });
    calls.collect()
}

/// The bound on the first byte that `timeout` names.
fn patience(timeout: &str) -> Option<Duration> {
    let (_, rest) = timeout.split_once("first byte within ")?;
    let (bound, _) = rest.split_once(", learned: slowest of ")?;
    Some(humantime::parse_duration(bound).expect("a duration"))
}

fn silent_first(delay: Duration) -> Script {
    Script::Answer(Answer {
        text: "a whole answer".into(),
        delay,
        ..Answer::default()
    })
}

#[test]
fn a_plain_call_that_hangs_is_given_up_on_sooner_and_the_next_one_has_all_its_time_again() {
    let upstream = Upstream::start(Script::text("hello"));
    let server = server(&upstream, "");
    let ask = Ask::of("moon/plain");
    let table = "240s (web=false, thinking=false)";
    assert_eq!(well(&server, &ask, 3), [table; 3], "not enough is known");
    let learned = well(&server, &ask, 1).remove(0);
    let bound = patience(&learned).unwrap_or_else(|| panic!("{learned}"));
    assert!(learned.starts_with("240s (web=false, thinking=false, first byte within"));
    assert!(
        learned.contains("learned: slowest of 3 calls "),
        "{learned}"
    );
    server.wait_for_log(&format!("moon timeout: {learned}"));

    upstream.on_model("plain", Script::Silent);
    let start = Instant::now();
    let answer = ask.answer(&server);
    let took = start.elapsed();
    assert_eq!((answer.status, &*code(&answer)), (504, "provider_timeout"));
    // It is a bound of its own: the deadline is minutes away.
    let bound = patience(&timeout(&answer)).unwrap_or(bound);
    assert!(
        took >= bound && took < bound + Duration::from_secs(10),
        "{took:?}"
    );

    // Slower than all that was known: it would have been cut, and isn't.
    upstream.on_model("plain", silent_first(bound + Duration::from_millis(200)));
    let answer = ask.answer(&server);
    assert_eq!(
        (text(&answer).as_str(), &*timeout(&answer)),
        ("a whole answer", table)
    );
    server.wait_until_idle();
}

#[test]
fn what_may_think_in_silence_is_not_cut_however_quick_the_calls_before_it_were() {
    let upstream = Upstream::start(Script::text("hello"));
    let server = server(&upstream, "");
    let silence = silent_first(Duration::from_millis(1_500));
    // One thinks, one searches, one is unknown, one says nothing until all is written: any of them may be silent.
    let cases = [
        (Ask::of("moon/thinker"), "360s (web=false, thinking=true)"),
        (
            Ask::of("moon/plain").with("pointsman", serde_json::json!({"web_search": true})),
            "300s (web=true, thinking=false)",
        ),
        (
            Ask::of("mine/any").streamed(),
            "300s (web=false, thinking=false, streaming)",
        ),
        (Ask::of("mine/any"), "30s (web=false, thinking=false)"),
    ];
    for (ask, expected) in &cases {
        assert_eq!(well(&server, ask, 6), [*expected; 6]);
    }
    ["thinker", "plain", "any"]
        .iter()
        .for_each(|model| upstream.on_model(model, silence.clone()));
    at_once(cases.len(), |index| {
        let (ask, expected) = &cases[index];
        assert_eq!(well(&server, ask, 1), [*expected]);
    });
}

#[test]
fn what_the_caller_asked_for_is_not_touched() {
    let upstream = Upstream::start(Script::text("hello"));
    let server = server(&upstream, "");
    well(&server, &Ask::of("moon/plain"), 4);
    upstream.on_model("plain", silent_first(Duration::from_millis(1_500)));
    let timeouts = well(&server, &Ask::of("moon/plain").within("20s"), 1);
    assert_eq!(timeouts, ["20s (asked for)"]);
}

#[test]
fn an_answer_that_is_cut_while_it_comes_in_makes_room_for_the_next() {
    let slow = Answer {
        text: "a whole answer".into(),
        pieces: 10,
        pace: Duration::from_millis(150),
        ..Answer::default()
    };
    let upstream = Upstream::start(Script::Answer(slow));
    let rows = "timeouts = { plain = \"700ms\", web_search = \"30s\", thinking = \"30s\", web_search_thinking = \"30s\" }";
    let kinds = "timeouts.normal = \"300ms\"\ntimeouts.streaming = \"400ms\"\ntimeouts.continuation = \"300ms\"\n\
                 timeouts.connect = \"250ms\"\ntimeouts.learn.factor = 10";
    let server = server(&upstream, &format!("{kinds}\nproviders.moon.{rows}"));
    let ask = Ask::of("moon/plain");
    let cut = ask.answer(&server);
    assert_eq!((cut.status, &*code(&cut)), (504, "deadline_exceeded"));
    assert_eq!(timeout(&cut), "700ms (web=false, thinking=false)");
    server.wait_until_idle();
    let whole = ask.answer(&server);
    assert_eq!(text(&whole), "a whole answer");
    let said = timeout(&whole);
    assert!(said.contains("learned: cut in mid-answer at "), "{said}");
    assert!(said.ends_with(" x 10, table 700ms)"), "{said}");
}

#[test]
fn learning_can_be_switched_off() {
    let upstream = Upstream::start(Script::text("hello"));
    let server = server(&upstream, "timeouts.learn.enabled = false");
    let timeouts = well(&server, &Ask::of("moon/plain"), 6);
    assert_eq!(timeouts, ["240s (web=false, thinking=false)"; 6]);
}
