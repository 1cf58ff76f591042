//! Waiting lines: who is served when, who is refused, who leaves, and what everybody can see of it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Answer, Ask, Client, Gate, Response, Script, Server, Upstream, code, eventually,
};

/// A server with one slot, behind which a request stands until the gate opens.
struct Rig {
    gate: Gate,
    upstream: Upstream,
    server: Server,
    /// Whoever has the slot.
    first: Client,
}

impl Rig {
    fn new(config: &str) -> Rig {
        let gate = Gate::new();
        let upstream = Upstream::start(Script::Answer(Answer {
            text: "{prompt}".into(),
            delay: Duration::from_millis(10),
            ..Answer::default()
        }));
        upstream.on_model("held", Script::gated(&gate));
        let url = upstream.url();
        let server = Server::start(&format!(
            "profile = \"test\"\nlog.level = \"info\"\nlimits.global = 1\n{config}\n\
             [providers.mine]\nkind = \"openai\"\nbase_url = \"{url}\"\n"
        ));
        let first = Ask::of("mine/held").id("first").send(&server);
        upstream.wait_for_in_flight(1);
        Rig {
            gate,
            upstream,
            server,
            first,
        }
    }

    /// Sends a request, and waits until it stands in line with `waiting` others before it.
    fn line_up(&self, ask: &Ask, waiting: usize) -> Client {
        let client = ask.send(&self.server);
        self.wait_for_waiting(waiting + 1);
        client
    }

    fn wait_for_waiting(&self, count: usize) {
        self.server
            .wait_for_status("so many wait", |status| status["queue"]["waiting"] == count);
    }

    /// Opens the gate and sees that everybody is answered well.
    fn release(&mut self, waiting: &mut [Client]) {
        self.gate.release();
        for client in waiting.iter_mut().chain([&mut self.first]) {
            let response = client.response().expect("an answer");
            assert_eq!(response.status, 200, "{:#}", response.json());
        }
        self.server.wait_until_idle();
    }

    /// What was asked after the first request, in the order in which the upstream heard it.
    fn served(&self) -> Vec<String> {
        let requests = self.upstream.requests();
        let prompts = requests[1..].iter().map(|request| request.prompt());
        prompts.map(str::to_owned).collect()
    }

    /// The steps of a request, once it has ended.
    fn story(&self, id: &str) -> Vec<String> {
        let path = format!("/api/requests/{id}");
        let mut steps = Vec::new();
        eventually("the story has its end and no slot is held", || {
            let told = self.server.page(&path);
            let told = told["steps"].as_array().expect("steps");
            let step = |step: &Value| step["step"].as_str().expect("a step").to_owned();
            steps = told.iter().map(step).collect();
            let has = |name: &str| steps.iter().any(|step| step == name);
            let ended = ["COMPLETED", "TIMEOUT", "ERROR", "CANCELLED", "REFUSED"];
            ended.into_iter().any(has) && has("SESSION_ALLOCATED") == has("SESSION_RELEASED")
        });
        steps
    }
}

fn ask(prompt: &str) -> Ask {
    Ask::of("mine/m").saying(prompt)
}

fn refused(client: &mut Client) -> Response {
    let response = client.response().expect("an answer");
    assert!(response.status >= 400, "{:#}", response.json());
    response
}

/// The seconds of a `Retry-After`, which must be there.
fn retry_after(response: &Response) -> u64 {
    let header = response.header("retry-after");
    let seconds = header.and_then(|text| text.parse().ok());
    seconds.unwrap_or_else(|| panic!("no Retry-After: {:?}", response.head))
}

#[test]
fn a_queued_request_whose_time_is_up_leaves_the_line_and_the_next_one_runs() {
    let mut rig = Rig::new("");
    let mut late = rig.line_up(&ask("late").within("500ms").id("late"), 0);
    let next = ask("next").send(&rig.server);
    let response = refused(&mut late);
    assert_eq!(
        (response.status, &*code(&response)),
        (504, "deadline_exceeded")
    );
    let message = response.json()["error"]["message"].clone();
    assert!(
        message.as_str().is_some_and(|text| text.contains("queue")),
        "{message}"
    );
    assert_eq!(response.header("x-should-retry"), Some("false"));
    rig.wait_for_waiting(1);
    rig.release(&mut [next]);
    assert_eq!(rig.served(), ["next"], "nothing runs for nobody");
    assert_eq!(rig.story("late"), ["RECEIVED", "QUEUED", "TIMEOUT"]);
}

#[test]
fn nobody_waits_for_longer_than_the_queue_timeout() {
    let mut rig = Rig::new("queue.timeout = \"150ms\"");
    let mut late = ask("late").id("late").send(&rig.server);
    let response = refused(&mut late);
    assert_eq!((response.status, &*code(&response)), (503, "queue_timeout"));
    let message = "the request waited in line for longer than the queue timeout (queue.timeout): 1 of 1 slots in use";
    assert_eq!(response.json()["error"]["message"], message);
    assert!(retry_after(&response) >= 1);
    assert_eq!(response.header("x-should-retry"), Some("false"));
    assert_eq!(rig.story("late"), ["RECEIVED", "QUEUED", "TIMEOUT"]);
    rig.release(&mut []);
    assert!(rig.served().is_empty());
}

/// Whoever waits for a limit starts as soon as it is free: a missed wake-up would leave it in line for good.
fn wakes_up(config: &str, holder: &Ask, waiter: &Ask) {
    let gate = Gate::new();
    let upstream = Upstream::start(Script::text("well"));
    upstream.on_model("held", Script::gated(&gate));
    let url = upstream.url();
    let text = format!(
        "profile = \"test\"\n{config}\n\
         [providers.mine]\nkind = \"openai\"\nbase_url = \"{url}\"\nmax_inflight = 2\n"
    );
    let server = Server::start(&text);
    let mut holders = [holder.send(&server), holder.send(&server)];
    upstream.wait_for_in_flight(2);
    let mut waiter = waiter.send(&server);
    server.wait_for_status("it waits", |status| status["queue"]["waiting"] == 1);
    gate.release();
    for client in holders.iter_mut().chain([&mut waiter]) {
        assert_eq!(
            client.response().expect("an answer").status,
            200,
            "{config}"
        );
    }
}

#[test]
fn whoever_waits_for_a_limit_is_woken_when_it_is_free() {
    let held = Ask::of("mine/held").session("a");
    let elsewhere = Ask::of("embedded").session("b");
    wakes_up("limits.global = 2", &held, &elsewhere);
    wakes_up("limits.global = 4", &held, &Ask::of("mine/m"));
    wakes_up(
        "limits.session = 2",
        &held,
        &Ask::of("embedded").session("a"),
    );
    wakes_up("limits.sessions = 1", &held, &elsewhere);
}

#[test]
fn no_wake_up_is_missed_in_a_thousand_hand_overs() {
    let mut rig = Rig::new("");
    rig.release(&mut []);
    // Four callers on one slot: every answer wakes somebody, and every caller waits nearly every time.
    crate::support::at_once(4, |_| {
        let mut client = rig.server.client();
        for _ in 0..250 {
            Ask::of("mine/held").on(&mut client);
            assert_eq!(client.response().expect("an answer").status, 200);
        }
    });
    assert_eq!(rig.upstream.peak(), 1);
}

#[test]
fn low_is_served_within_a_bound_under_a_flood_of_high_and_high_gets_more() {
    let mut rig = Rig::new("");
    let mut waiting = Vec::new();
    for (count, class) in [(45, "high"), (2, "low")] {
        for _ in 0..count {
            let next = rig.line_up(&ask(class).priority(class), waiting.len());
            waiting.push(next);
        }
    }
    rig.release(&mut waiting);
    let served = rig.served();
    let lows: Vec<usize> = (0..served.len())
        .filter(|&at| served[at] == "low")
        .collect();
    // By the weights one call in seventeen is low's. Calls differ in length, so the bounds are wide; without weights the
    // two would take turns, and with a strict order low would come last.
    assert!(lows[0] < 20, "low was served at {lows:?}");
    assert!(lows[1] - lows[0] > 2, "as if they were equal: {lows:?}");
}

#[test]
fn a_priority_is_read_from_header_and_body_and_the_header_wins() {
    let mut rig = Rig::new("");
    let body = |class: &str| json!({"priority": class});
    let asks = [
        (ask("1"), "medium"),
        (ask("2").priority("high"), "high"),
        (ask("3").priority("3"), "low"),
        (ask("4").with("pointsman", body("low")), "low"),
        (ask("5").with("pointsman", body("1")), "high"),
        (
            ask("6").with("pointsman", body("low")).priority("high"),
            "high",
        ),
    ];
    let mut waiting = Vec::new();
    for (index, (ask, class)) in asks.iter().enumerate() {
        waiting.push(rig.line_up(&ask.clone().id(&format!("r{index}")), index));
        let active = rig.server.page("/api/requests")["active"][index + 1].clone();
        assert_eq!(active["request_id"], format!("r{index}"));
        assert_eq!(
            (&active["priority"], &active["phase"]),
            (&json!(class), &json!("queue"))
        );
    }
    let classes = rig.server.page("/api/status")["queue"]["classes"].clone();
    let count = |class: &str| classes[class]["waiting"].clone();
    assert_eq!([count("high"), count("medium"), count("low")], [3, 1, 2]);
    let wrong = ask("7").priority("urgent").answer(&rig.server);
    assert_eq!((wrong.status, &*code(&wrong)), (400, "invalid_request"));
    rig.release(&mut waiting);
}

#[test]
fn a_timeout_is_read_alike_from_header_and_body() {
    let server = Server::start("providers.embedded.pace = \"0ms\"");
    let body = |timeout: Value| Ask::of("embedded").with("pointsman", json!({"timeout": timeout}));
    for (timeout, expected) in [("7", "7s"), ("7s", "7s"), ("2000ms", "2s"), ("90", "90s")] {
        let header = Ask::of("embedded").within(timeout);
        for ask in [header, body(json!(timeout))] {
            let answer = ask.answer(&server);
            let expected = format!("{expected} (asked for)");
            assert_eq!(answer.header("x-timeout"), Some(&*expected), "{ask:?}");
        }
    }
    let bare = body(json!(7)).answer(&server);
    assert_eq!(bare.header("x-timeout"), Some("7s (asked for)"));
    for timeout in ["0", "-7", "7.5", "7 apples", "99999999999999999999"] {
        let header = Ask::of("embedded").within(timeout);
        for ask in [header, body(json!(timeout))] {
            let answer = ask.answer(&server);
            assert_eq!((answer.status, &*code(&answer)), (400, "invalid_request"));
            let message = answer.json()["error"]["message"].to_string();
            assert!(message.contains("whole seconds such as 30"), "{message}");
        }
    }
}

#[test]
fn requests_of_one_id_have_each_a_story_of_its_own() {
    let mut rig = Rig::new("");
    let mut waiting: Vec<Client> = Vec::new();
    for at in 0..2 {
        let next = rig.line_up(&ask("x").id("same").session(&format!("s{at}")), at);
        waiting.push(next);
    }
    let told = rig.server.page("/api/requests/same");
    let names = |story: &Value| -> Vec<String> {
        let steps = story["steps"].as_array().expect("steps").iter();
        steps
            .map(|step| step["step"].as_str().expect("a name").to_owned())
            .collect()
    };
    assert_eq!(names(&told), ["RECEIVED", "QUEUED"]);
    assert_eq!(told["active"]["session_id"], "s1", "the latest is told");
    assert_eq!(names(&told["earlier"][0]), ["RECEIVED", "QUEUED"]);
    assert_eq!(told["earlier"][0]["active"]["session_id"], "s0");
    rig.release(&mut waiting);
    let mut whole = story_with_a_call("COMPLETED");
    whole.insert(1, "QUEUED".into());
    assert_eq!(rig.story("same"), whole);
    let told = rig.server.page("/api/requests/same");
    assert_eq!(told["earlier"].as_array().map(Vec::len), Some(1));
    assert_eq!(names(&told["earlier"][0]), whole);
    assert_eq!(told["earlier"][0]["active"], Value::Null);
}

#[test]
fn a_session_that_asks_a_lot_does_not_shut_out_one_that_asks_a_little() {
    let mut rig = Rig::new("");
    let mut waiting = Vec::new();
    for (count, session) in [(20, "greedy"), (5, "modest")] {
        for _ in 0..count {
            let next = rig.line_up(&ask(session).session(session), waiting.len());
            waiting.push(next);
        }
    }
    rig.release(&mut waiting);
    let served = rig.served();
    let last = served.iter().rposition(|session| session == "modest");
    // Taking turns it would be served by place 10, in the order of arrival by 24. Calls differ in length.
    assert!(last.is_some_and(|last| last < 20), "{served:?}");
}

#[test]
fn a_full_queue_refuses_at_once_and_says_when_to_come_again() {
    let mut rig = Rig::new("queue.capacity = 2");
    let ask = |name: &str| ask(name).session(name);
    let waiting = [rig.line_up(&ask("1"), 0), rig.line_up(&ask("2"), 1)];
    let mut one_too_many = ask("3").id("third").send(&rig.server);
    let response = refused(&mut one_too_many);
    assert_eq!((response.status, &*code(&response)), (503, "over_capacity"));
    assert!(retry_after(&response) >= 1);
    let message = response.json()["error"]["message"].clone();
    assert!(
        message
            .as_str()
            .is_some_and(|text| text.contains("queue.capacity")),
        "{message}"
    );
    assert_eq!(rig.story("third"), ["RECEIVED", "REFUSED"]);
    rig.release(&mut Vec::from(waiting));
    assert_eq!(rig.served(), ["1", "2"]);
}

#[test]
fn one_session_does_not_fill_the_whole_queue() {
    let mut rig = Rig::new("queue.per_session = 2");
    let greedy = |prompt: &str| ask(prompt).session("greedy");
    let mut waiting = vec![rig.line_up(&greedy("1"), 0), rig.line_up(&greedy("2"), 1)];
    let response = greedy("3").answer(&rig.server);
    assert_eq!((response.status, &*code(&response)), (429, "over_capacity"));
    assert!(retry_after(&response) >= 1);
    waiting.push(rig.line_up(&ask("4").session("modest"), 2));
    rig.release(&mut waiting);
}

#[test]
fn a_full_queue_makes_room_for_a_session_that_has_less_than_its_share() {
    let mut rig = Rig::new("queue.capacity = 3");
    let greedy = |prompt: &str| ask(prompt).session("greedy");
    let mut waiting: Vec<Client> = (0..3)
        .map(|index| rig.line_up(&greedy(&index.to_string()), index))
        .collect();
    let modest = ask("modest").session("modest").send(&rig.server);
    let response = refused(&mut waiting.pop().expect("the newest of three"));
    assert_eq!((response.status, &*code(&response)), (503, "over_capacity"));
    waiting.push(modest);
    rig.release(&mut waiting);
    let mut served = rig.served();
    served.sort();
    assert_eq!(served, ["0", "1", "modest"]);
}

#[test]
fn readiness_ends_under_pressure_and_returns_when_the_line_is_short() {
    let mut rig = Rig::new("queue.capacity = 10");
    let ready = |rig: &Rig| rig.server.client().get("/readyz").status;
    let mut waiting = Vec::new();
    for index in 0..8 {
        assert_eq!(ready(&rig), 200, "with {index} in line");
        waiting.push(rig.line_up(&ask("x"), index));
    }
    assert_eq!(ready(&rig), 503);
    assert_eq!(
        rig.server.client().get("/healthz").status,
        200,
        "busy is not ill"
    );
    // Pressure ends at three, not at seven: or it would flap.
    for left in (3..8).rev() {
        assert_eq!(ready(&rig), 503, "with {} in line", left + 1);
        drop(waiting.pop());
        rig.wait_for_waiting(left);
    }
    assert_eq!(ready(&rig), 200);
    rig.release(&mut waiting);
}

#[test]
fn the_wait_is_told_to_the_client_and_in_the_log() {
    let mut rig = Rig::new("");
    let mut waiting = rig.line_up(&ask("x").id("waiter"), 0);
    eventually("it has waited for a while", || {
        let age = rig.server.page("/api/requests")["active"][1]["age_s"].clone();
        age.as_f64().is_some_and(|age| age >= 0.2)
    });
    rig.gate.release();
    let response = waiting.response().expect("an answer");
    let timing = response
        .header("server-timing")
        .expect("it is there")
        .to_owned();
    let queue = timing
        .strip_prefix("queue;dur=")
        .and_then(|text| text.split(',').next());
    let queue_ms: f64 = queue
        .and_then(|text| text.parse().ok())
        .expect("milliseconds");
    assert!(queue_ms >= 200.0, "{timing}");
    let told = response.json()["pointsman"]["phases"]["queue_s"].as_f64();
    assert!(told.is_some_and(|queue| queue >= 0.2), "{told:?}");
    let line = rig.server.wait_for_log("request waiter completed");
    let logged = line
        .split("queue=")
        .nth(1)
        .and_then(|rest| rest.split('s').next());
    let logged: f64 = logged.and_then(|text| text.parse().ok()).expect("seconds");
    assert!(logged >= 0.2, "{line}");
    assert_eq!(rig.first.response().expect("an answer").status, 200);
}

#[test]
fn a_request_is_cancelled_by_its_id_in_line_and_in_its_call() {
    let mut rig = Rig::new("");
    let mut queued = rig.line_up(&ask("x").id("queued"), 0);
    let delete = |id: &str| {
        let mut client = rig.server.client();
        client.request("DELETE", &format!("/api/requests/{id}"), &[], None);
        client.response().expect("an answer").status
    };
    assert_eq!(delete("queued"), 200);
    let response = refused(&mut queued);
    assert_eq!((response.status, &*code(&response)), (499, "cancelled"));
    rig.wait_for_waiting(0);
    assert_eq!(rig.upstream.in_flight(), 1, "the other one was not meant");
    assert_eq!(delete("first"), 200);
    let response = refused(&mut rig.first);
    assert_eq!((response.status, &*code(&response)), (499, "cancelled"));
    rig.upstream.wait_for_closed(1);
    rig.upstream.wait_for_in_flight(0);
    rig.server.wait_until_idle();
    assert_eq!([delete("first"), delete("nobody")], [404, 404]);
    assert_eq!(rig.story("queued"), ["RECEIVED", "QUEUED", "CANCELLED"]);
    assert_eq!(rig.story("first"), story_with_a_call("CANCELLED"));
}

/// What becomes of a request that did not wait.
fn story_with_a_call(end: &str) -> Vec<String> {
    let steps = [
        "RECEIVED",
        "DEQUEUED",
        "SESSION_ALLOCATED",
        "PROVIDER_CALL_START",
        "PROVIDER_CALL_END",
        "SESSION_RELEASED",
        end,
    ];
    steps.map(str::to_owned).into()
}

#[test]
fn active_requests_are_shown_with_phase_age_and_deadline() {
    let mut rig = Rig::new("");
    let waiting = rig.line_up(&ask("x").session("s").id("waiter").within("20s"), 0);
    let active = rig.server.page("/api/requests")["active"].clone();
    let (runs, waits) = (&active[0], &active[1]);
    assert_eq!(
        (&runs["request_id"], &runs["state"]),
        (&json!("first"), &json!("PROCESSING"))
    );
    assert_eq!(
        (&runs["phase"], &runs["attempt"]),
        (&json!("first byte"), &json!(1))
    );
    assert_eq!(
        (&runs["provider"], &runs["model"]),
        (&json!("mine"), &json!("held"))
    );
    assert_eq!(
        (&waits["request_id"], &waits["state"]),
        (&json!("waiter"), &json!("IDLE"))
    );
    assert_eq!(
        (&waits["phase"], &waits["session_id"]),
        (&json!("queue"), &json!("s"))
    );
    let seconds = |request: &Value, key: &str| request[key].as_f64().expect("seconds");
    let (age, left) = (seconds(waits, "age_s"), seconds(waits, "deadline_in_s"));
    assert!((age + left - 20.0).abs() < 0.1, "{age} and {left}");
    assert!(seconds(runs, "age_s") >= age, "the oldest comes first");
    rig.release(&mut [waiting]);
    assert_eq!(rig.server.page("/api/requests")["active"], json!([]));
}

#[test]
fn every_story_is_told_whole_and_in_order() {
    let mut rig = Rig::new("");
    let waiting = rig.line_up(&ask("x").id("waited"), 0);
    rig.release(&mut [waiting]);
    assert_eq!(rig.story("first"), story_with_a_call("COMPLETED"));
    let mut waited = story_with_a_call("COMPLETED");
    waited.insert(1, "QUEUED".into());
    assert_eq!(rig.story("waited"), waited);
    rig.upstream.on_model("silent", Script::Silent);
    rig.upstream.on_model("broken", Script::Reset);
    let late = Ask::of("mine/silent")
        .within("300ms")
        .id("late")
        .answer(&rig.server);
    // The answer comes at the deadline; the slot comes back when the interrupted call has let go of it.
    rig.server.wait_until_idle();
    let broken = Ask::of("mine/broken").id("broken").answer(&rig.server);
    assert_eq!([late.status, broken.status], [504, 502]);
    assert_eq!(rig.story("late"), story_with_a_call("TIMEOUT"));
    assert_eq!(rig.story("broken"), story_with_a_call("ERROR"));
    let told = rig.server.page("/api/requests/waited");
    assert_eq!(told["active"], Value::Null);
    for step in told["steps"].as_array().expect("steps") {
        assert_eq!(
            (&step["provider"], &step["model"]),
            (&json!("mine"), &json!("m"))
        );
        assert!(
            step["thread"]
                .as_str()
                .is_some_and(|name| name.starts_with("pointsman-"))
        );
    }
    assert_eq!(rig.server.client().get("/api/requests/nobody").status, 404);
}
