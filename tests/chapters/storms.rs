//! When providers push back or die: what a caller gets, and what the others notice of it (nothing).

use std::net::TcpListener;
use std::time::{Duration, SystemTime};

use crate::support::{Ask, Client, Script, Server, Upstream, code, text};

fn provider(name: &str, url: &str) -> String {
    format!("providers.{name}.kind = \"openai\"\nproviders.{name}.base_url = \"{url}\"\n")
}

/// An address where nobody listens any more.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    format!("http://{address}/v1")
}

#[test]
fn behind_a_dead_and_a_slow_provider_a_third_answers_within_the_one_deadline() {
    let slow = Upstream::start(Script::Silent);
    let third = Upstream::start(Script::text("hello"));
    let config = provider("dead", &nobody())
        + &provider("slow", &slow.url())
        + &provider("third", &third.url())
        + "providers.dead.retry = { attempts = 2, base = \"5ms\" }\n\
           routing.fallback = [\"slow/b\", \"third/c\"]\n";
    let server = Server::start(&config);
    let answer = Ask::of("dead/a").id("chain").within("3s").answer(&server);
    assert_eq!(text(&answer), "hello");
    let provider = answer.header("x-provider");
    assert_eq!(
        (provider, answer.header("x-model")),
        (Some("third"), Some("c"))
    );
    // Twice where nobody listens, once where nobody answers, once where somebody does.
    assert_eq!(answer.header("x-attempts"), Some("4"));
    let story = server.page("/api/requests/chain");
    let calls = story["steps"].as_array().expect("its steps").iter();
    let calls = calls.filter(|step| step["step"] == "PROVIDER_CALL_START");
    let called: Vec<_> = calls.map(|step| step["provider"].as_str()).collect();
    assert_eq!(called, ["dead", "dead", "slow", "third"].map(Some));
    let total = answer.json()["pointsman"]["phases"]["total_s"].as_f64();
    assert!(total < Some(3.0), "{total:?}");
    // The slow one saw its call broken off, and no slot is left behind.
    slow.wait_for_closed(1);
    server.wait_until_idle();
}

#[test]
fn a_storm_at_one_provider_is_nothing_to_the_callers_of_another() {
    const CALLERS: usize = 30;
    let first = Upstream::start(Script::rate_limited("30"));
    let second = Upstream::start(Script::text("hello"));
    let config = provider("first", &first.url()) + &provider("second", &second.url());
    let server = Server::start(&(config + "limits.global = 4\nlimits.adaptive.enabled = true\n"));
    let callers: Vec<Client> = (0..CALLERS)
        .map(|_| Ask::of("first/a").within("90s").send(&server))
        .collect();
    // Some were refused and back off, the others wait for the provider to open: none holds anything.
    server.wait_for_status("the storm is over", |status| {
        let held = status["slots"]["global"]["in_use"].as_u64();
        let of = |state: &str| status["queue"][state].as_u64().unwrap_or_default();
        held == Some(0) && of("backing_off") + of("waiting") == CALLERS as u64
    });
    for _ in 0..20 {
        let answer = Ask::of("second/b").answer(&server);
        assert_eq!(text(&answer), "hello");
        assert_eq!(answer.header("x-attempts"), Some("1"));
    }
    let asked = first.requests().len();
    assert!(
        asked <= 4,
        "{asked} calls at a provider that said when to come again"
    );
    drop(callers);
    server.wait_until_idle();
}

#[test]
fn a_retry_after_that_is_a_date_is_waited_for() {
    let upstream = Upstream::start(Script::text("hello"));
    let date = SystemTime::now() + Duration::from_secs(2);
    upstream.next(Script::rate_limited(&httpdate::fmt_http_date(date)));
    let server = Server::start(&provider("first", &upstream.url()));
    let answer = Ask::of("first/a").within("20s").answer(&server);
    assert_eq!(text(&answer), "hello");
    assert_eq!(answer.header("x-attempts"), Some("2"));
    // A date has whole seconds: what was two seconds away may be a little more than one.
    let arrived = SystemTime::now().duration_since(date);
    let before = arrived.map_or_else(|early| early.duration(), |_| Duration::ZERO);
    assert!(before < Duration::from_secs(1), "{before:?} too soon");
}

#[test]
fn a_quota_that_is_used_up_costs_one_call_and_no_client_is_told_to_come_again() {
    for (status, kind) in [(429, "insufficient_quota"), (402, "insufficient_balance")] {
        let upstream = Upstream::start(Script::error(status, kind, "no money"));
        let server = Server::start(&provider("first", &upstream.url()));
        for attempts in ["1", "0"] {
            // Before the breaker lets the next one try.
            let answer = Ask::of("first/a").within("3s").answer(&server);
            assert_eq!(code(&answer), "insufficient_quota", "{kind}");
            assert_eq!(answer.header("x-attempts"), Some(attempts), "{kind}");
            assert_eq!(answer.header("x-should-retry"), Some("false"), "{kind}");
            assert_eq!(answer.header("retry-after"), None, "{kind}");
        }
        assert_eq!(upstream.requests().len(), 1, "{kind}");
    }
}
