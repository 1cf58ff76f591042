//! Where the time goes: one request told the same in headers, body, log, pages and timeline; who waits for whom.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::figures::{FIGURES, Figures, adds_up, header, same, told};
use crate::support::{
    Answer, Ask, Client, Event, Gate, Response, Script, Server, Timeline, Upstream, eventually,
};

/// A server whose provider `mine` is an upstream that answers when the gate opens for the model `held`.
struct Rig {
    gate: Gate,
    upstream: Upstream,
    server: Server,
}

impl Rig {
    fn new(config: &str) -> Rig {
        Rig::with(config, &[])
    }

    fn with(config: &str, environment: &[(&str, &str)]) -> Rig {
        let gate = Gate::new();
        let upstream = Upstream::start(Script::text("hello"));
        upstream.on_model("held", Script::gated(&gate));
        let url = upstream.url();
        let config = format!(
            "profile = \"test\"\nlog.level = \"info\"\nproviders.mine.kind = \"openai\"\n\
             providers.mine.base_url = \"{url}\"\nproviders.mine.retry.base = \"1ms\"\n{config}\n"
        );
        Rig {
            server: Server::start_with(&config, environment),
            gate,
            upstream,
        }
    }

    /// The caller's active requests, oldest first.
    fn active(&self) -> Vec<Value> {
        let page = self.server.page("/api/requests");
        page["active"].as_array().expect("a list").clone()
    }

    fn wait_until_active(&self, id: &str, what: &str, cond: impl Fn(&Value) -> bool) -> Value {
        let mut found = Value::Null;
        eventually(what, || {
            let mut active = self.active().into_iter();
            found = active
                .find(|request| request["request_id"] == id)
                .unwrap_or_default();
            cond(&found)
        });
        found
    }

    fn story(&self, id: &str) -> Value {
        self.server.page(&format!("/api/requests/{id}"))
    }

    fn trace(&self) -> Timeline {
        Timeline::read(&self.server.page("/api/trace?last=5m"))
    }

    /// What the log line of a request says.
    fn logged(&self, id: &str) -> Figures {
        let line = self.server.wait_for_log(&format!("request {id} "));
        FIGURES.map(|name| {
            let mut words = line.split(' ');
            let word = words.find_map(|word| word.strip_prefix(&format!("{name}=")));
            let seconds = word.and_then(|word| word.strip_suffix('s')?.parse().ok());
            seconds.unwrap_or_else(|| panic!("no {name} in {line}"))
        })
    }
}

/// A length in nanoseconds as figures have it: in tenths of a millisecond, cut off.
fn cut(nanos: u64) -> u64 {
    nanos / 100_000
}

/// What the metrics say of all requests so far.
fn measured(rig: &Rig) -> Figures {
    let page = rig.server.client().get("/metrics").body;
    let page = String::from_utf8(page).expect("text");
    FIGURES.map(|name| {
        let series = format!("pointsman_phase_seconds_sum{{phase=\"{name}\"}} ");
        let sum = page.lines().find_map(|line| line.strip_prefix(&series));
        let sum = sum.and_then(|sum| sum.parse().ok());
        sum.unwrap_or_else(|| panic!("no {series} in {page}"))
    })
}

/// Sees that log, story and timeline have the same figures as `figures`.
fn is_told_everywhere(rig: &Rig, id: &str, figures: Figures) {
    adds_up(figures);
    same(rig.logged(id), figures, "the log");
    let story = rig.story(id);
    same(told(&story["phases"]), figures, "the story");
    rig.server.wait_until_idle();
    let trace = rig.trace();
    let request = trace.request(id);
    same(told(&request.args["phases"]), figures, "the timeline");
    // The spans are as long as the figures say.
    let seconds = [("queue", 0), ("backoff", 1), ("call", 4)];
    for (name, index) in seconds {
        let tenths = (figures[index] * 10_000.0).round() as u64;
        assert_eq!(
            cut(trace.sum(request, name)),
            tenths,
            "{name} of {request:?}"
        );
    }
    assert_eq!(
        cut(request.to - request.from),
        (figures[6] * 10_000.0).round() as u64
    );
}

/// A request waits for its session's slot, backs off after a refusal, and is answered; each for so long at least. Run with
/// 3, 2 and 4 s it is the example of the README.
fn waits_backs_off_and_is_answered(
    queue: Duration,
    retry_after: &str,
    upstream: Duration,
) -> Figures {
    let backoff = Duration::from_secs(retry_after.parse().expect("seconds"));
    let rig = Rig::new("limits.session = 1\nqueue.timeout = \"60s\"\ntimeouts.normal = \"60s\"");
    let mut holder = Ask::of("mine/held")
        .session("agent")
        .id("holder")
        .send(&rig.server);
    rig.upstream.wait_for_in_flight(1);
    let mut waiter = Ask::of("mine/m")
        .session("agent")
        .id("waiter")
        .send(&rig.server);
    rig.wait_until_active("waiter", "it has waited for so long", |request| {
        request["phases"]["queue_s"].as_f64() >= Some(queue.as_secs_f64())
    });
    rig.upstream.next(Script::rate_limited(retry_after));
    rig.upstream.on_model(
        "m",
        Script::Answer(Answer {
            delay: upstream,
            ..Answer::default()
        }),
    );
    rig.gate.release();
    assert_eq!(holder.response().expect("an answer").status, 200);
    let answer = waiter.response().expect("an answer");
    assert_eq!(answer.status, 200, "{:#}", answer.json());
    assert_eq!(answer.header("x-attempts"), Some("2"));
    let figures = header(&answer);
    for (figure, least) in [(0, queue), (1, backoff), (3, upstream), (4, upstream)] {
        assert!(figures[figure] >= least.as_secs_f64(), "{figures:?}");
    }
    same(
        told(&answer.json()["pointsman"]["phases"]),
        figures,
        "the body",
    );
    is_told_everywhere(&rig, "waiter", figures);
    let holder = told(&rig.story("holder")["phases"]);
    let both: Figures = std::array::from_fn(|index| holder[index] + figures[index]);
    same(measured(&rig), both, "the metrics of both requests");
    let steps = rig.story("waiter")["steps"].clone();
    let steps = steps.as_array().expect("a list").iter();
    let steps: Vec<&str> = steps.filter_map(|step| step["step"].as_str()).collect();
    let call = "DEQUEUED SESSION_ALLOCATED PROVIDER_CALL_START PROVIDER_CALL_END SESSION_RELEASED";
    assert_eq!(
        steps.join(" "),
        format!("RECEIVED QUEUED {call} BACKING_OFF QUEUED {call} COMPLETED"),
    );
    figures
}

/// `POINTSMAN_STORY=long` makes the wait 3 s, the backoff 2 s and the call 4 s long.
#[test]
fn a_wait_a_backoff_and_an_answer_are_told_the_same_everywhere() {
    let (queue, backoff, upstream) = match std::env::var("POINTSMAN_STORY").as_deref() {
        Ok("long") => (3_000, "2", 4_000),
        _ => (150, "1", 120),
    };
    let millis = Duration::from_millis;
    let figures = waits_backs_off_and_is_answered(millis(queue), backoff, millis(upstream));
    let line = format!("{FIGURES:?}: {figures:?}\n");
    std::io::stderr()
        .write_all(line.as_bytes())
        .expect("standard error is open");
}

#[test]
fn an_error_tells_where_the_time_went_as_an_answer_does() {
    let rig = Rig::new("limits.global = 1");
    rig.upstream.on_model("silent", Script::Silent);
    let late = Ask::of("mine/silent")
        .within("200ms")
        .id("late")
        .answer(&rig.server);
    assert_eq!(late.status, 504);
    let figures = header(&late);
    same(
        told(&late.json()["pointsman"]["phases"]),
        figures,
        "the body",
    );
    is_told_everywhere(&rig, "late", figures);
    // It never got further than to wait for a first byte.
    let [_, _, connect, first_byte, upstream, _, total] = figures;
    assert!(
        (connect + first_byte - upstream).abs() < 0.000_25,
        "{figures:?}"
    );
    assert!(total >= 0.2, "{figures:?}");
    let _holder = Ask::of("mine/held").send(&rig.server);
    rig.upstream.wait_for_in_flight(1);
    let waits = Ask::of("mine/m")
        .within("150ms")
        .id("waits")
        .answer(&rig.server);
    let figures = header(&waits);
    assert_eq!((waits.status, figures[4]), (504, 0.0));
    same(
        told(&waits.json()["pointsman"]["phases"]),
        figures,
        "the body",
    );
    same(rig.logged("waits"), figures, "the log");
    same(told(&rig.story("waits")["phases"]), figures, "the story");
    rig.gate.release();
}

#[test]
fn a_stream_tells_it_in_its_last_chunk_and_as_it_breaks_off() {
    let rig = Rig::new("");
    rig.upstream.on_model("broken", Script::WrongLength);
    for (model, id) in [("mine/m", "good"), ("mine/broken", "bad")] {
        let mut stream = Ask::of(model).streamed().id(id).stream(&rig.server);
        let mut phases = Value::Null;
        while let Ok(Some(event)) = stream.event() {
            let object = event.json().unwrap_or_default()["pointsman"]["phases"].clone();
            if object.is_object() {
                phases = object;
            }
        }
        is_told_everywhere(&rig, id, told(&phases));
    }
}

#[test]
fn a_joiner_is_told_its_own_part_of_the_call() {
    let rig = Rig::new("");
    let ask = |count: &str| {
        let ask = Ask::of("mine/held").session("agent");
        ask.header("x-stainless-retry-count", count)
    };
    let mut first = ask("0").id("first").send(&rig.server);
    rig.upstream.wait_for_in_flight(1);
    rig.wait_until_active("first", "it has run for a while", |request| {
        request["phases"]["upstream_s"].as_f64() >= Some(0.2)
    });
    let mut joiner = ask("1").id("joiner").send(&rig.server);
    rig.wait_until_active("joiner", "it joins", |request| request["state"] == "JOINED");
    rig.gate.release();
    let answers = [&mut first, &mut joiner].map(|client| client.response().expect("an answer"));
    let [first, joiner] = answers.map(|answer| {
        let figures = header(&answer);
        same(
            told(&answer.json()["pointsman"]["phases"]),
            figures,
            "the body",
        );
        adds_up(figures);
        figures
    });
    assert!(joiner[4] + 0.1999 <= first[4], "{joiner:?} of {first:?}");
    same(rig.logged("joiner"), joiner, "the log");
    same(told(&rig.story("joiner")["phases"]), joiner, "the story");
    assert!(rig.trace().sum(rig.trace().request("joiner"), "joined") > 0);
}

/// The comments of a stream, until one is as `cond` wants it.
fn comment(client: Client, cond: impl Fn(&str) -> bool) -> String {
    let mut stream = client.into_stream().expect("a head");
    assert_eq!(stream.status, 200);
    loop {
        match stream.event() {
            Ok(Some(Event::Comment(text))) if cond(&text) => return text,
            Ok(Some(Event::Comment(_))) => {}
            other => panic!("no such comment, but {other:?}"),
        }
    }
}

#[test]
fn a_stream_that_waits_says_its_position_and_the_wait_to_expect() {
    let rig = Rig::new("limits.global = 1\nserver.stream_keepalive = \"1s\"");
    // From now on it is known what calls take.
    assert_eq!(Ask::of("mine/m").answer(&rig.server).status, 200);
    let _holder = Ask::of("mine/held").streamed().send(&rig.server);
    rig.upstream.wait_for_in_flight(1);
    let waits = |count: usize| {
        rig.server
            .wait_for_status("so many wait", |status| status["queue"]["waiting"] == count);
    };
    let _first = Ask::of("mine/m").send(&rig.server);
    waits(1);
    let second = Ask::of("mine/m").streamed().send(&rig.server);
    waits(2);
    let text = comment(second, |text| text.starts_with("waiting"));
    let expected = text.strip_prefix("waiting, position 2, expected ");
    let seconds = expected.and_then(|rest| rest.strip_suffix('s')?.parse::<u64>().ok());
    assert!(seconds.is_some_and(|seconds| seconds >= 1), "{text}");
    rig.gate.release();
}

#[test]
fn a_stream_whose_call_is_tried_again_says_so() {
    let rig = Rig::new("server.stream_keepalive = \"1s\"");
    rig.upstream.next(Script::rate_limited("20"));
    let client = Ask::of("mine/m")
        .streamed()
        .within("60s")
        .id("again")
        .send(&rig.server);
    let backs_off = rig.wait_until_active("again", "it backs off", |request| {
        request["state"] == "RETRYING"
    });
    assert_eq!(backs_off["waits"]["for"], "backoff", "{backs_off:#}");
    let text = comment(client, |text| text.starts_with("waiting to try again, in "));
    assert!(text.ends_with('s'), "{text}");
}

#[test]
fn whoever_waits_is_shown_with_its_place_and_with_those_who_hold_its_slots() {
    let rig = Rig::new("limits.session = 1\nlimits.global = 2");
    let held = |session: &str, id: &str| Ask::of("mine/held").session(session).id(id);
    let mut clients = vec![held("a", "first").send(&rig.server)];
    rig.upstream.wait_for_in_flight(1);
    clients.push(held("a", "second").send(&rig.server));
    let waits = |id: &str, what: &str| {
        let shown =
            rig.wait_until_active(id, "it waits", |request| request["waits"]["for"] == what);
        shown["waits"].clone()
    };
    let second = waits("second", "session");
    assert_eq!(
        second,
        json!({"for": "session", "in_use": 1, "limit": 1, "holders": ["first"], "others": 0,
               "position": 1, "expected_s": null})
    );
    clients.push(held("b", "third").send(&rig.server));
    rig.upstream.wait_for_in_flight(2);
    clients.push(held("c", "fourth").send(&rig.server));
    let fourth = waits("fourth", "global");
    assert_eq!(
        (&fourth["in_use"], &fourth["limit"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(fourth["holders"], json!(["first", "third"]));
    assert_eq!(
        fourth["position"], 1,
        "the second waits for its session: {fourth:#}"
    );
    let running = rig.wait_until_active("first", "it runs", |request| !request.is_null());
    assert_eq!(running["waits"], Value::Null);
    rig.gate.release();
    for mut client in clients {
        assert_eq!(client.response().expect("an answer").status, 200);
    }
}

const KEYS: &str = "[[server.keys]]\nname = \"one\"\nkey_env = \"ONE\"\n\
                    [[server.keys]]\nname = \"two\"\nkey_env = \"TWO\"\n\
                    [[server.keys]]\nname = \"ops\"\nkey_env = \"OPS\"\nadmin = true\n";
const ENVIRONMENT: [(&str, &str); 3] = [("ONE", "key-one"), ("TWO", "key-two"), ("OPS", "key-ops")];

fn get(rig: &Rig, key: &str, path: &str) -> Response {
    let mut client = rig.server.client();
    client.request("GET", path, &[("x-api-key", key)], None);
    client.response().expect("an answer")
}

#[test]
fn others_are_counted_and_not_named_unless_for_an_admin() {
    let rig = Rig::with(&format!("limits.global = 1\n{KEYS}"), &ENVIRONMENT);
    let ask = |key: &str, id: &str| Ask::of("mine/held").header("x-api-key", key).id(id);
    let mut holder = ask("key-one", "of-one").send(&rig.server);
    rig.upstream.wait_for_in_flight(1);
    let mut waiter = ask("key-two", "of-two").send(&rig.server);
    let shown = |key: &str| {
        let page = get(&rig, key, "/api/requests").json();
        let mut active = page["active"].as_array().expect("a list").clone();
        active.retain(|request| request["request_id"] == "of-two");
        active.pop().unwrap_or_default()["waits"].clone()
    };
    eventually("it waits", || shown("key-two")["for"] == "global");
    let (own, all) = (shown("key-two"), shown("key-ops"));
    assert_eq!((&own["holders"], &own["others"]), (&json!([]), &json!(1)));
    assert_eq!(
        (&all["holders"], &all["others"]),
        (&json!(["of-one"]), &json!(0))
    );
    rig.gate.release();
    for client in [&mut holder, &mut waiter] {
        assert_eq!(client.response().expect("an answer").status, 200);
    }
    let trace = |key: &str| Timeline::read(&get(&rig, key, "/api/trace").json());
    let ids = |key: &str| {
        let trace = trace(key);
        let requests = trace.spans.iter().filter(|span| span.name == "request");
        let mut ids: Vec<String> = requests
            .filter_map(|span| Some(span.args["request_id"].as_str()?.to_owned()))
            .collect();
        ids.sort();
        ids
    };
    assert_eq!(ids("key-one"), ["of-one"]);
    assert_eq!(ids("key-two"), ["of-two"]);
    assert_eq!(ids("key-ops"), ["of-one", "of-two"]);
    assert_eq!(get(&rig, "key-two", "/api/requests/of-one").status, 404);
    assert!(
        !get(&rig, "key-ops", "/api/trace")
            .json()
            .to_string()
            .contains("key-one")
    );
}

#[test]
fn the_timeline_has_a_lane_for_each_worker_and_each_place_at_a_provider() {
    let rig = Rig::new(
        "limits.global = 3\nproviders.mine.max_inflight = 2\nserver.stream_keepalive = \"10s\"",
    );
    let held = Ask::of("mine/held");
    let mut clients: Vec<Client> = (0..5).map(|_| held.send(&rig.server)).collect();
    rig.upstream.wait_for_in_flight(2);
    rig.server
        .wait_for_status("three wait", |status| status["queue"]["waiting"] == 3);
    eventually("each wait is there while they are under way, too", || {
        rig.trace().of("lines").len() == 5
    });
    rig.gate.release();
    for client in &mut clients {
        assert_eq!(client.response().expect("an answer").status, 200);
    }
    rig.server.wait_until_idle();
    let trace = rig.trace();
    assert_eq!(trace.flows, 5, "one for each call");
    let lanes = |process: &str| {
        let mut lanes: Vec<String> = trace
            .of(process)
            .iter()
            .map(|span| span.lane.1.clone())
            .collect();
        lanes.sort();
        lanes.dedup();
        lanes
    };
    assert_eq!(lanes("upstream"), ["mine 1", "mine 2"]);
    assert!(
        lanes("workers")
            .iter()
            .all(|lane| lane.starts_with("pointsman-worker-")),
        "{:?}",
        lanes("workers")
    );
    assert!(
        (2..=3).contains(&lanes("workers").len()),
        "{:?}",
        lanes("workers")
    );
    let calls = trace.of("workers");
    assert_eq!(calls.iter().filter(|span| span.name == "call").count(), 5);
    assert_eq!(
        calls
            .iter()
            .filter(|span| span.name == "first_byte")
            .count(),
        5
    );
}

#[test]
fn a_timeline_of_a_wrong_length_is_refused_with_what_is_accepted() {
    let rig = Rig::new("telemetry.max_age = \"10m\"");
    for query in ["last=soon", "last=0s", "last=11m", "last=-1s", "first=60s"] {
        let answer = rig.server.client().get(&format!("/api/trace?{query}"));
        assert_eq!(answer.status, 400, "{query}");
        let message = answer.json()["error"]["message"].clone();
        let message = message.as_str().expect("a message");
        assert!(
            message.ends_with("at most 10m (telemetry.max_age)"),
            "{message}"
        );
    }
    let empty = Timeline::read(&rig.server.page("/api/trace?last=1ms"));
    assert_eq!((empty.slices.len(), empty.flows), (0, 0));
}
