//! Timelines of made-up logs: where spans stand, how long they are, and what leads where.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::clock::ManualClock;
use crate::telemetry::{Phases, Step, Subject};

fn at(ms: u64) -> Time {
    Time::ZERO + Duration::from_millis(ms)
}

fn event(job: u64, seq: u64, ms: u64, step: Step) -> Event {
    let subject = Subject {
        request: format!("r-{job}").into(),
        job,
        key: None,
        session: Some("agent".into()),
        provider: Some("kimi".into()),
        model: Some("k3".into()),
        joined: None,
    };
    Event {
        seq,
        at: at(ms),
        step,
        subject: Arc::new(subject),
        thread: std::thread::current(),
        took: None,
        phases: None,
    }
}

fn millis(queue: u64, backoff: u64, [connect, first_byte, upstream]: [u64; 3]) -> Box<Phases> {
    let of = Duration::from_millis;
    Box::new(Phases {
        queue: of(queue),
        backoff: of(backoff),
        connect: of(connect),
        first_byte: of(first_byte),
        upstream: of(upstream),
        total: of(queue + backoff + upstream),
    })
}

/// Received at 0 ms; in line until 30; a call until 50; backing off until 70; in line until 90; a call until 130.
fn twice() -> Vec<Event> {
    let mut events = vec![
        event(1, 0, 0, Step::Received),
        event(1, 1, 0, Step::Queued),
        event(1, 2, 29, Step::Dequeued),
        event(1, 2, 30, Step::SessionAllocated),
        event(1, 2, 30, Step::ProviderCallStart),
        event(1, 2, 50, Step::ProviderCallEnd),
        event(1, 2, 50, Step::SessionReleased),
        event(1, 5, 50, Step::BackingOff),
        event(1, 6, 70, Step::Queued),
        event(1, 7, 85, Step::Dequeued),
        event(1, 7, 90, Step::ProviderCallStart),
        event(1, 7, 130, Step::ProviderCallEnd),
        event(1, 9, 130, Step::Completed),
    ];
    events[5].phases = Some(millis(0, 0, [4, 6, 20]));
    events[11].phases = Some(millis(0, 0, [0, 10, 40]));
    events[12].phases = Some(millis(50, 20, [4, 16, 60]));
    events
}

fn timeline(events: &[Event], since: u64, now: u64) -> Vec<Value> {
    let calendar = Calendar::of(&ManualClock::new());
    let trace = json!(Trace::of(events, at(since), at(now), &calendar));
    trace["traceEvents"].as_array().expect("a list").clone()
}

/// Spans of this process: lane, name, from and to in milliseconds.
fn slices(events: &[Value], pid: u32) -> Vec<(u64, String, f64, f64)> {
    let of = |event: &&Value| event["ph"] == "X" && event["pid"] == pid;
    let slice = |event: &Value| {
        let from = event["ts"].as_f64().expect("a time");
        let to = from + event["dur"].as_f64().expect("a length");
        let name = event["name"].as_str().expect("a name").to_owned();
        let tid = event["tid"].as_u64().expect("a lane");
        (tid, name, from / 1000.0, to / 1000.0)
    };
    events.iter().filter(of).map(slice).collect()
}

fn names(events: &[Value], ph: &str) -> Vec<String> {
    let of = |event: &&Value| event["ph"] == ph;
    let name = |event: &Value| event["name"].as_str().expect("a name").to_owned();
    events.iter().filter(of).map(name).collect()
}

#[test]
fn waits_and_calls_stand_in_their_lanes_with_the_lengths_of_the_log() {
    let events = timeline(&twice(), 0, 1_000);
    let slice = |name: &str, from: f64, to: f64| (1, name.to_owned(), from, to);
    assert_eq!(
        slices(&events, LINES),
        [slice("queue", 0.0, 30.0), slice("queue", 70.0, 90.0)]
    );
    assert_eq!(
        slices(&events, WORKERS),
        [
            slice("call", 30.0, 50.0),
            slice("connect", 30.0, 34.0),
            slice("first_byte", 34.0, 40.0),
            slice("body", 40.0, 50.0),
            slice("call", 90.0, 130.0),
            slice("first_byte", 90.0, 100.0),
            slice("body", 100.0, 130.0),
        ]
    );
    assert_eq!(
        slices(&events, UPSTREAM),
        [slice("k3", 30.0, 50.0), slice("k3", 90.0, 130.0)]
    );
}

#[test]
fn a_request_is_one_nest_of_spans_that_says_where_its_time_went() {
    let events = timeline(&twice(), 0, 1_000);
    let begins = "request queue call connect first_byte body backoff queue call first_byte body";
    assert_eq!(names(&events, "b").join(" "), begins);
    let ends = "queue connect first_byte body call backoff queue first_byte body call request";
    assert_eq!(names(&events, "e").join(" "), ends);
    let request = events.iter().find(|event| event["ph"] == "b");
    let args = &request.expect("a request")["args"];
    assert_eq!(args["request_id"], "r-1");
    assert_eq!(args["ended"], "COMPLETED");
    assert_eq!(args["phases"], json!(millis(50, 20, [4, 16, 60])));
}

#[test]
fn a_flow_leads_from_each_wait_to_its_call_and_on_to_the_provider() {
    let events = timeline(&twice(), 0, 1_000);
    let flows: Vec<(String, u64, u64, f64)> = events
        .iter()
        .filter(|event| event["cat"] == "flow")
        .map(|event| {
            let ph = event["ph"].as_str().expect("a kind").to_owned();
            let number = |field: &str| event[field].as_u64().expect("a number");
            let ts = event["ts"].as_f64().expect("a time");
            (ph, number("id"), number("pid"), ts)
        })
        .collect();
    let step = |ph: &str, id: u64, pid: u32, ts: f64| (ph.to_owned(), id, u64::from(pid), ts);
    assert_eq!(
        flows,
        [
            step("s", 1, LINES, 29_999.999),
            step("t", 1, WORKERS, 30_000.0),
            step("f", 1, UPSTREAM, 34_000.0),
            step("s", 2, LINES, 89_999.999),
            step("t", 2, WORKERS, 90_000.0),
            step("f", 2, UPSTREAM, 90_000.0),
        ]
    );
}

#[test]
fn what_has_not_ended_reaches_to_the_present() {
    let events = timeline(&twice()[..5], 0, 60);
    assert_eq!(slices(&events, WORKERS)[0].3, 60.0);
    assert_eq!(names(&events, "b").len(), names(&events, "e").len());
    let waiting = timeline(&twice()[..2], 0, 60);
    assert_eq!(slices(&waiting, LINES)[0].3, 60.0);
    assert!(waiting.iter().all(|event| event["cat"] != "flow"));
}

#[test]
fn a_call_that_was_given_up_is_over_for_its_request_and_goes_on_for_its_worker() {
    let mut events = twice()[..6].to_vec();
    events.push(event(1, 4, 40, Step::Cancelled));
    let events = timeline(&events, 0, 1_000);
    assert_eq!(slices(&events, WORKERS)[0].3, 50.0);
    let end = events.iter().rfind(|event| event["ph"] == "e");
    let end = end.expect("the request's end");
    assert_eq!(
        (&end["name"], &end["ts"]),
        (&json!("request"), &json!(40_000.0))
    );
    // Its worker is not back yet: neither is the call over.
    let mut events = twice()[..5].to_vec();
    events.push(event(1, 4, 40, Step::Cancelled));
    assert_eq!(slices(&timeline(&events, 0, 99), WORKERS)[0].3, 99.0);
}

#[test]
fn waits_and_calls_at_one_time_stand_in_lanes_of_their_own() {
    let mut events = Vec::new();
    for job in 1..=3 {
        events.push(event(job, 0, job, Step::Received));
        events.push(event(job, job, job, Step::Queued));
        events.push(event(job, 10 + job, 20 * job, Step::Dequeued));
        events.push(event(job, 10 + job, 20 * job, Step::ProviderCallStart));
        events.push(event(job, 10 + job, 20 * job + 30, Step::ProviderCallEnd));
    }
    let events = timeline(&events, 0, 1_000);
    let lanes = |pid| -> Vec<u64> {
        let slices = slices(&events, pid);
        slices
            .iter()
            .filter(|slice| slice.1 == "queue" || slice.1 == "k3")
            .map(|slice| slice.0)
            .collect()
    };
    assert_eq!(lanes(LINES), [1, 2, 3]);
    assert_eq!(
        lanes(UPSTREAM),
        [1, 2, 1],
        "a slot that is free is taken again"
    );
    let named = events.iter().filter(|event| event["name"] == "thread_name");
    let named: Vec<&str> = named
        .filter_map(|event| event["args"]["name"].as_str())
        .collect();
    assert!(
        named.contains(&"waiting 3") && named.contains(&"kimi 2"),
        "{named:?}"
    );
}

#[test]
fn what_ended_before_is_left_out_and_what_was_under_way_is_there_in_full() {
    assert_eq!(names(&timeline(&twice(), 131, 1_000), "b"), [""; 0]);
    assert_eq!(names(&timeline(&twice(), 129, 1_000), "b").len(), 11);
    let alone = timeline(&[], 0, 1_000);
    assert!(alone.iter().all(|event| event["ph"] == "M"), "{alone:?}");
}
