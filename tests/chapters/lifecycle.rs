//! The lifecycle log: the story of a request, percentiles over a window, and the file.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::figures::{header, same, told};
use crate::support::{Answer, Ask, Script, Server, Upstream};

/// A server with a provider `mine`.
struct Rig {
    upstream: Upstream,
    server: Server,
}

fn rig(config: &str) -> Rig {
    let upstream = Upstream::start(Script::text("hello"));
    let url = upstream.url();
    let server = Server::start(&format!(
        "profile = \"test\"\nlog.level = \"info\"\nproviders.mine.kind = \"openai\"\n\
         providers.mine.base_url = \"{url}\"\n{config}\n"
    ));
    Rig { upstream, server }
}

#[test]
fn a_story_has_wall_times_and_offsets_and_no_word_of_what_was_said() {
    let rig = rig("");
    let answer = Ask::of("mine/m")
        .saying("a secret wish")
        .id("told")
        .answer(&rig.server);
    assert_eq!(answer.status, 200);
    let story = rig.server.page("/api/requests/told");
    assert_eq!(story["ended"], "COMPLETED");
    let steps = story["steps"].as_array().expect("a list");
    let mut before = (String::new(), 0.0);
    for step in steps {
        let at = step["at"].as_str().expect("a time").to_owned();
        assert!(humantime::parse_rfc3339(&at).is_ok(), "{at}");
        let offset = step["offset_s"].as_f64().expect("an offset");
        assert!(at >= before.0 && offset >= before.1, "{story:#}");
        before = (at, offset);
    }
    assert_eq!(story["received_at"], steps[0]["at"]);
    let call = steps
        .iter()
        .find(|step| step["step"] == "PROVIDER_CALL_END");
    assert!(
        call.is_some_and(|call| call["first_byte_s"].is_number()),
        "{story:#}"
    );
    assert!(!story.to_string().contains("secret"));
    assert!(!rig.server.page("/api/trace").to_string().contains("secret"));
}

#[test]
fn percentiles_of_each_phase_are_of_the_requests_that_had_it() {
    let rig = rig("");
    rig.upstream.on_model(
        "slow",
        Script::Answer(Answer {
            delay: Duration::from_millis(60),
            ..Answer::default()
        }),
    );
    for _ in 0..4 {
        assert_eq!(Ask::of("mine/slow").answer(&rig.server).status, 200);
    }
    let page = rig.server.page("/api/requests");
    let lately = &page["lately"];
    assert_eq!(lately["window_s"], 600.0);
    let phases = &lately["phases"];
    assert_eq!(
        phases.as_object().map(serde_json::Map::len),
        Some(7),
        "{page:#}"
    );
    assert_eq!(phases["upstream"]["count"], 4);
    assert_eq!(phases["backoff"]["count"], 0);
    let upstream = |name: &str| phases["upstream"][name].as_f64().expect("a figure");
    // A percentile is off by at most one part in a hundred.
    assert!(upstream("p50_s") >= 0.059, "{page:#}");
    assert!(upstream("p50_s") <= upstream("p95_s") && upstream("p95_s") <= upstream("max_s"));
}

/// The lines of the lifecycle file.
fn lines(rig: &Rig) -> Vec<Value> {
    let text = std::fs::read_to_string(rig.server.directory().join("lifecycle.jsonl"));
    let text = text.unwrap_or_default();
    // The last one may be half there.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn the_lifecycle_file_has_the_same_figures_and_all_of_it_when_the_server_has_stopped() {
    let mut rig = rig("telemetry.lifecycle_file = \"lifecycle.jsonl\"");
    let answer = Ask::of("mine/m")
        .saying("a secret wish")
        .id("kept")
        .answer(&rig.server);
    let figures = header(&answer);
    rig.server.wait_until_idle();
    rig.server.signal(Signal::TERM);
    assert!(rig.server.wait().success());
    let mut lines = lines(&rig);
    assert!(
        lines.iter().all(|line| line["request_id"] == "kept"),
        "{lines:#?}"
    );
    let steps = lines.iter().filter_map(|line| line["step"].as_str());
    assert_eq!(steps.filter(|step| *step == "RECEIVED").count(), 1);
    lines.retain(|line| line["step"] == "COMPLETED");
    assert_eq!(lines.len(), 1, "one end");
    same(told(&lines[0]["phases"]), figures, "the file");
    let text = std::fs::read_to_string(rig.server.directory().join("lifecycle.jsonl"));
    assert!(!text.expect("a file").contains("secret"));
}

#[test]
fn a_full_disk_is_said_once_and_stops_nobody() {
    let rig = rig("telemetry.lifecycle_file = \"/dev/full\"");
    for _ in 0..5 {
        assert_eq!(Ask::of("mine/m").answer(&rig.server).status, 200);
    }
    let lost = |status: &Value| status["lifecycle"]["file"]["lost"].as_u64() >= Some(5 * 7);
    let status = rig.server.wait_for_status("what is lost is counted", lost);
    assert_eq!(status["lifecycle"]["file"]["written"], 0);
    rig.server.wait_for_log("lifecycle file /dev/full: ");
    let log = rig.server.log();
    let said = log.iter().filter(|line| line.contains("lifecycle file"));
    assert_eq!(said.count(), 1, "{log:#?}");
}

#[test]
fn a_lifecycle_file_that_cannot_be_is_refused_at_the_start() {
    let config = "profile = \"test\"\ntelemetry.lifecycle_file = \"missing/lifecycle.jsonl\"\n";
    let failure = Server::fail(config, &["--listen", "127.0.0.1:0"], &[]);
    assert!(failure.code.is_some_and(|code| code != 0), "{failure:?}");
    for words in ["missing/lifecycle.jsonl", "telemetry.lifecycle_file"] {
        assert!(failure.text.contains(words), "{failure:?}");
    }
}
