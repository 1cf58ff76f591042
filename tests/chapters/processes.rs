//! Faults of the process itself: it is killed, stopped for a while, or has nowhere to write its log to.
//!
//! File handles that run out are in `floods`, signals to stop in `stopping`.

use std::fs::{File, OpenOptions};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::stopping::ask_over;
use crate::support::{Ask, Broken, Gate, Script, Server, Upstream, code, eventually, text};

/// A log of many lines.
const CHATTY: &str =
    "profile = \"test\"\nlog.level = \"debug\"\nproviders.embedded.pace = \"0ms\"\n";

fn config(upstream: &Upstream, more: &str) -> String {
    let url = upstream.url();
    format!(
        "profile = \"test\"\nproviders.mine.kind = \"openai\"\nproviders.mine.base_url = \"{url}\"\n{more}\n"
    )
}

#[test]
fn its_threads_keep_no_memory_for_themselves_unless_somebody_has_decided() {
    let said = |server: &Server| {
        let place = format!("/proc/{}/environ", server.pid());
        let environment = std::fs::read_to_string(place).expect("it lives");
        let mut variables = environment.split('\0').map(str::to_owned);
        variables.find(|variable| variable.starts_with("GLIBC_TUNABLES="))
    };
    let server = Server::start("profile = \"test\"");
    let default = "GLIBC_TUNABLES=glibc.malloc.tcache_count=0";
    assert_eq!(said(&server).as_deref(), Some(default));
    let name = std::fs::read_to_string(format!("/proc/{}/comm", server.pid()));
    assert_eq!(name.expect("it lives").trim(), "pointsman");
    let own = ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2");
    let server = Server::start_with("profile = \"test\"", &[own]);
    let kept = "GLIBC_TUNABLES=glibc.malloc.arena_max=2";
    assert_eq!(said(&server).as_deref(), Some(kept));
}

#[test]
fn a_configuration_may_come_through_a_pipe_which_is_read_once() {
    let script = "exec \"$1\" serve --config /dev/stdin --listen 127.0.0.1:0 <<END\n\
                  profile = 'test'\nlimits.global = 3\nEND\n";
    let server = Server::start_by(script, "profile = \"test\"", &[], Stdio::null());
    assert_eq!(server.page("/api/status")["slots"]["global"]["limit"], 3);
    let answer = server.client().post("/api/reload", &serde_json::json!({}));
    let error = answer.json()["error"]["message"].clone();
    let said = error.as_str().expect("a message");
    assert_eq!(answer.status, 422, "{said}");
    assert!(said.contains("/dev/stdin: it is no regular file"), "{said}");
    assert_eq!(server.page("/api/status")["slots"]["global"]["limit"], 3);
}

#[test]
fn a_file_that_somebody_is_about_to_write_is_not_taken_for_a_configuration() {
    let server = Server::start("profile = \"test\"\nlimits.global = 3");
    let file = server.directory().join("config.toml");
    std::fs::write(&file, "").expect("written");
    let answer = server.client().post("/api/reload", &serde_json::json!({}));
    assert_eq!(answer.status, 422);
    let error = answer.json()["error"]["message"].clone();
    assert!(
        error
            .as_str()
            .is_some_and(|said| said.contains("it is empty")),
        "{error}"
    );
    assert_eq!(server.page("/api/status")["slots"]["global"]["limit"], 3);
}

#[test]
fn killed_its_clients_see_a_broken_answer_and_its_successor_serves_on_the_same_port() {
    let upstream = Upstream::start(Script::text("hello from {id}"));
    upstream.on_model("silent", Script::Silent);
    upstream.on_model("stalls", Script::StallAfterFirst);
    let config = config(&upstream, "limits.session = 4");
    let mut server = Server::start(&config);
    let address = server.address;
    let mut whole = Ask::of("mine/silent").send(&server);
    let mut stream = Ask::of("mine/stalls").streamed().stream(&server);
    stream.event().expect("alive").expect("a piece");
    upstream.wait_for_in_flight(2);
    server.signal(Signal::KILL);
    assert_eq!(whole.response().err(), Some(Broken), "no answer is made up");
    loop {
        match stream.event() {
            Ok(Some(_)) => {}
            end => break assert_eq!(end, Err(Broken), "not as if it were whole"),
        }
    }
    assert_eq!(server.wait().code(), None);
    upstream.wait_for_closed(2);
    let successor = Server::start_as(&config, &["--listen", &address.to_string()], &[]);
    assert_eq!(successor.address, address);
    assert_eq!(
        text(&Ask::of("mine/m").answer(&successor)),
        "hello from up-3"
    );
    successor.wait_until_idle();
}

/// Waits for a moment of the wall clock.
fn wait_until(moment: Instant) {
    eventually("time passes", || Instant::now() >= moment);
}

#[test]
fn stopped_past_their_deadline_its_requests_end_when_it_goes_on_and_none_starts_late() {
    const DEADLINE: Duration = Duration::from_secs(3);
    let gate = Gate::new();
    let upstream = Upstream::start(Script::text("hello from {id}"));
    upstream.on_model("held", Script::gated(&gate));
    let server = Server::start(&config(&upstream, "providers.mine.max_inflight = 1"));
    let ask = |model: &str| Ask::of(model).within("3s").send(&server);
    let mut running = ask("mine/held");
    upstream.wait_for_in_flight(1);
    let mut waiting = ask("mine/m");
    // Where the box is so slow that a deadline has passed by now, there is just nothing to stop any more.
    server.wait_for_status("it waits", |status| {
        status["queue"]["waiting"] == 1 || status["requests"]["timeout"] != 0
    });
    let sent = Instant::now();
    server.signal(Signal::STOP);
    wait_until(sent + DEADLINE);
    // Both a slot and an answer are there by the time that it goes on.
    gate.release();
    server.signal(Signal::CONT);
    let answer = waiting.response().expect("an answer");
    assert_eq!((answer.status, &*code(&answer)), (504, "deadline_exceeded"));
    let answer = running.response().expect("an answer");
    // Its answer lay there: who reads the clock and who the socket first is a matter of luck.
    assert!(matches!(answer.status, 200 | 504), "{}", answer.status);
    server.wait_until_idle();
    assert_eq!(
        upstream.requests().len(),
        1,
        "nothing starts after its deadline"
    );
    assert_eq!(text(&Ask::of("mine/m").answer(&server)), "hello from up-2");
    server.wait_until_idle();
}

/// Serves whoever asks, with a line of the log for each.
fn assert_serves(server: &Server) {
    for ask in [Ask::of("embedded"), Ask::of("embedded").streamed()] {
        assert_eq!(ask.answer(server).status, 200);
    }
    assert_eq!(Ask::of("nobody-knows-it").answer(server).status, 404);
    server.wait_until_idle();
}

fn full() -> File {
    let mut full = OpenOptions::new();
    full.write(true).open("/dev/full").expect("Linux")
}

#[test]
fn a_full_disk_under_its_log_keeps_nobody_from_an_answer() {
    let server = Server::start_logging_to(CHATTY, Stdio::from(full()));
    assert_serves(&server);
}

#[test]
fn a_log_that_nobody_reads_any_more_keeps_nobody_from_an_answer() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let server = Server::start_logging_to(CHATTY, Stdio::from(writer));
    drop(reader);
    assert_serves(&server);
}

#[test]
fn an_output_that_can_not_be_written_is_said_and_keeps_nobody_from_an_answer() {
    let server = Server::start_saying_to(CHATTY, Stdio::from(full()));
    server.wait_for_log("nothing can be written to standard output: No space left on device");
    let answer = ask_over(&server.directory().join("socket"));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
