//! When alerts are raised and resolved, and what is said of them. The clock is moved by hand.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::evaluate::Evaluator;
use super::hook;
use super::*;
use crate::client::testing::peer;
use crate::clock::ManualClock;
use crate::config::{Alerts, Config, Environment, Loader, Profile};
use crate::telemetry::Totals;

const WALL: u64 = 1_763_749_838;

/// The rules of this configuration, and no webhooks.
fn alerts(text: &str) -> Alerts {
    let config = Config::from_toml(text, "test.toml");
    config.expect("accepted").alerts
}

/// An evaluator and the moment of its last look.
struct Bench {
    evaluator: Evaluator,
    seconds: u64,
}

impl Bench {
    fn new(text: &str) -> Bench {
        Bench {
            evaluator: Evaluator::new(&alerts(text)),
            seconds: 0,
        }
    }

    /// What changed by a look so many seconds later.
    fn look(&mut self, later: u64, sample: &Sample) -> Vec<(Change, AlertKind)> {
        self.seconds += later;
        let now = Time::ZERO + Duration::from_secs(self.seconds);
        let changes = self.evaluator.look(sample, now, WALL + self.seconds);
        changes
            .iter()
            .map(|change| (change.change, change.alert.kind))
            .collect()
    }

    fn is_active(&self, kind: AlertKind) -> bool {
        self.evaluator
            .active()
            .iter()
            .any(|alert| alert.kind == kind)
    }
}

fn waiting(waiting: usize) -> Sample {
    Sample {
        waiting,
        capacity: 100,
        ..Sample::default()
    }
}

fn counted(totals: Totals) -> Sample {
    Sample {
        totals,
        ..waiting(0)
    }
}

const DEPTH: &str = "alerts.rules.queue_depth = { threshold = 0.8, clear = 0.3, for = \"30s\", cooldown = \"10m\" }";

#[test]
fn an_alert_is_raised_when_its_figure_has_been_too_high_for_long_enough() {
    let mut bench = Bench::new(DEPTH);
    assert_eq!(bench.look(5, &waiting(81)), []);
    assert_eq!(bench.look(29, &waiting(99)), []);
    assert_eq!(
        bench.look(1, &waiting(85)),
        [(Change::Raised, AlertKind::QueueDepth)]
    );
    assert_eq!(bench.look(5, &waiting(90)), [], "it is told once");
    let alert = &bench.evaluator.active()[0];
    assert_eq!((alert.value, alert.peak), (0.9, 0.9));
    assert_eq!(alert.raised, WALL + 35);
}

#[test]
fn a_figure_that_drops_in_between_begins_anew() {
    let mut bench = Bench::new(DEPTH);
    for (later, count) in [(5, 90), (20, 90), (5, 80), (5, 90), (25, 90)] {
        assert_eq!(bench.look(later, &waiting(count)), []);
    }
    assert_eq!(bench.look(5, &waiting(90)).len(), 1);
}

#[test]
fn it_is_over_when_the_figure_has_been_low_enough_for_long_enough_and_then_it_is_quiet() {
    let mut bench = Bench::new(DEPTH);
    bench.look(0, &waiting(90));
    assert_eq!(bench.look(30, &waiting(90)).len(), 1);
    for (later, count) in [(5, 50), (100, 31), (5, 30), (29, 30), (5, 40), (5, 30)] {
        assert_eq!(bench.look(later, &waiting(count)), [], "hysteresis");
    }
    assert_eq!(
        bench.look(30, &waiting(0)),
        [(Change::Resolved, AlertKind::QueueDepth)]
    );
    assert!(!bench.is_active(AlertKind::QueueDepth));
    let over = &bench.evaluator.history()[0];
    assert_eq!(
        (over.resolved, over.peak),
        (Some(WALL + bench.seconds), 0.9)
    );
    // The cool-down of ten minutes: it is due long before, and raised right after.
    for _ in 0..19 {
        assert_eq!(bench.look(30, &waiting(90)), []);
    }
    assert_eq!(bench.look(30, &waiting(90)).len(), 1);
}

#[test]
fn the_ids_of_two_alerts_differ_and_the_history_is_bounded() {
    let rule = "alerts.history = 2\nalerts.rules.queue_depth = { for = \"0s\", cooldown = \"0s\" }";
    let mut bench = Bench::new(rule);
    let mut ids = Vec::new();
    for _ in 0..3 {
        bench.look(0, &waiting(90));
        ids.push(bench.evaluator.active()[0].id.clone());
        bench.look(0, &waiting(0));
    }
    ids.dedup();
    assert_eq!(ids.len(), 3);
    let remembered = bench.evaluator.history();
    let remembered: Vec<&str> = remembered.iter().map(|alert| &*alert.id).collect();
    assert_eq!(remembered, [&*ids[2], &*ids[1]]);
}

#[test]
fn an_alert_is_acknowledged_once_and_still_has_to_be_over() {
    let mut bench = Bench::new("alerts.rules.queue_depth = { for = \"0s\" }");
    bench.look(0, &waiting(90));
    let id = bench.evaluator.active()[0].id.clone();
    assert!(
        bench
            .evaluator
            .acknowledge("another", "ops", WALL)
            .is_none()
    );
    let (alert, told) = bench
        .evaluator
        .acknowledge(&id, "ops", WALL)
        .expect("it is active");
    assert_eq!(alert.acknowledged, Some(("ops".into(), WALL)));
    assert_eq!(told.expect("news").change, Change::Acknowledged);
    let (alert, told) = bench
        .evaluator
        .acknowledge(&id, "else", WALL + 1)
        .expect("it is active");
    assert_eq!(
        alert.acknowledged,
        Some(("ops".into(), WALL)),
        "whoever was first"
    );
    assert!(told.is_none());
    assert_eq!(
        bench.look(5, &waiting(0)),
        [(Change::Resolved, AlertKind::QueueDepth)]
    );
}

#[test]
fn a_rule_that_is_off_is_never_raised() {
    let mut bench = Bench::new("alerts.rules.queue_depth = { enabled = false, for = \"0s\" }");
    assert_eq!(bench.look(0, &waiting(100)), []);
    assert!(
        bench
            .evaluator
            .figures()
            .iter()
            .all(|(kind, _)| *kind != AlertKind::QueueDepth)
    );
}

#[test]
fn what_is_counted_counts_for_its_window_and_no_longer() {
    let rule = "alerts.rules.refusals = { threshold = 9, window = \"5m\" }";
    let mut bench = Bench::new(rule);
    let refused = |refused| {
        counted(Totals {
            refused,
            ..Totals::default()
        })
    };
    assert_eq!(
        bench.look(5, &refused(9)),
        [],
        "all of them since the start"
    );
    assert_eq!(
        bench.look(60, &refused(10)),
        [(Change::Raised, AlertKind::Refusals)]
    );
    // Five minutes after the ninth one is left; five after that, none.
    assert_eq!(bench.look(241, &refused(10)), []);
    let figure = bench.evaluator.figures();
    let found = figure.iter().find(|(kind, _)| *kind == AlertKind::Refusals);
    assert_eq!(found.map(|found| found.1), Some(1.0));
    let mut over = Vec::new();
    for _ in 0..12 {
        over.extend(bench.look(10, &refused(10)));
    }
    assert_eq!(over, [(Change::Resolved, AlertKind::Refusals)]);
}

#[test]
fn more_than_one_recovery_in_an_hour_is_worth_an_alert() {
    let mut bench = Bench::new("");
    let recovered = |recoveries| {
        counted(Totals {
            recoveries,
            ..Totals::default()
        })
    };
    assert_eq!(bench.look(5, &recovered(1)), []);
    assert_eq!(bench.look(3700, &recovered(2)), [], "an hour later");
    assert_eq!(
        bench.look(1000, &recovered(3)),
        [(Change::Raised, AlertKind::Recoveries)]
    );
}

#[test]
fn a_share_of_few_calls_is_chance() {
    let mut bench = Bench::new("alerts.rules.errors = { for = \"0s\" }");
    let failed = |errors, ended| {
        counted(Totals {
            errors,
            ended,
            ..Totals::default()
        })
    };
    assert_eq!(bench.look(5, &failed(19, 19)), []);
    assert_eq!(
        bench.look(5, &failed(20, 20)),
        [(Change::Raised, AlertKind::Errors)]
    );
}

#[test]
fn a_limit_that_is_full_for_five_minutes_with_waiters_is_named() {
    let mut bench = Bench::new("");
    let full = Sample {
        saturated: vec!["limits.global".into(), "kimi".into()],
        ..waiting(1)
    };
    assert_eq!(bench.look(5, &full), []);
    assert_eq!(bench.look(299, &full), []);
    assert_eq!(
        bench.look(1, &full),
        [(Change::Raised, AlertKind::Saturation)]
    );
    let alert = &bench.evaluator.active()[0];
    assert_eq!(
        alert.summary(),
        "2 limits are full while somebody waits (limits.global, kimi); raised above 0"
    );
}

#[test]
fn the_worst_pool_is_named_and_one_that_was_reset_begins_anew() {
    let mut bench = Bench::new("alerts.rules.pool = { for = \"0s\" }");
    let pools = |failed: u64| Sample {
        pools: [("glm", 0), ("kimi", failed)]
            .map(|(name, failed)| PoolUse {
                provider: name.into(),
                ended: failed.max(30),
                failed,
            })
            .into(),
        ..waiting(0)
    };
    assert_eq!(
        bench.look(5, &pools(25)),
        [(Change::Raised, AlertKind::Pool)]
    );
    assert_eq!(bench.evaluator.active()[0].detail, "kimi");
    assert_eq!(
        bench.look(5, &pools(0)),
        [(Change::Resolved, AlertKind::Pool)]
    );
}

#[test]
fn an_error_is_new_when_it_was_not_seen_for_a_day() {
    let mut bench = Bench::new("");
    let codes = |counts: &[(&'static str, u64)]| {
        let codes = counts
            .iter()
            .map(|(code, count)| ("kimi".into(), *code, *count));
        counted(Totals {
            codes: codes.collect(),
            ..Totals::default()
        })
    };
    let day = 86_400;
    let raised = [(Change::Raised, AlertKind::NewError)];
    assert_eq!(bench.look(5, &codes(&[("503", 1)])), raised);
    assert_eq!(bench.evaluator.active()[0].detail, "kimi: 503");
    assert_eq!(
        bench.look(300, &codes(&[("503", 1)])).len(),
        1,
        "it is old news"
    );
    assert_eq!(bench.look(day / 2, &codes(&[("503", 2)])), []);
    assert_eq!(
        bench.look(day - 1, &codes(&[("503", 3)])),
        [],
        "seen within a day"
    );
    assert_eq!(bench.look(5, &codes(&[("503", 3), ("none", 1)])), raised);
    assert_eq!(bench.evaluator.active()[0].detail, "kimi: no answer");
    bench.look(300, &codes(&[("503", 3), ("none", 1)]));
    assert_eq!(
        bench.look(day, &codes(&[("503", 4), ("none", 1)])),
        raised,
        "a day later"
    );
}

#[test]
fn a_box_that_nobody_looks_at_is_no_reason_for_an_alert() {
    let mut bench = Bench::new("alerts.rules.box = { for = \"0s\" }");
    assert_eq!(bench.look(0, &waiting(0)), []);
    let critical = Sample {
        load: Some(3),
        ..waiting(0)
    };
    assert_eq!(bench.look(0, &critical), [(Change::Raised, AlertKind::Box)]);
    let summary = bench.evaluator.active()[0].summary();
    assert_eq!(
        summary,
        "the load of the box is critical; raised above high"
    );
}

/// A transition of an alert, as it is told.
fn transition(change: Change) -> Transition {
    let mut bench = Bench::new(DEPTH);
    bench.look(0, &waiting(90));
    bench.look(30, &waiting(85));
    let mut alert = bench.evaluator.active().remove(0);
    alert.detail = "<85 & more>".into();
    alert.acknowledged = Some(("ops".into(), WALL));
    Transition { change, alert }
}

fn webhook(text: &str) -> crate::config::Webhook {
    let environment = Environment::from_iter([("KEY", "r-1")]);
    let config = Loader::new(environment).from_toml(&format!("alerts.webhooks = [{text}]"), "");
    config.expect("accepted").alerts.webhooks.remove(0)
}

fn body(webhook: &crate::config::Webhook, change: Change) -> Value {
    let body = hook::body(webhook, &transition(change), "box-1");
    serde_json::from_slice(&body).expect("JSON")
}

#[test]
fn slack_is_told_what_how_much_since_when_and_what_to_do() {
    let slack = webhook("{ kind = \"slack\", url = \"http://127.0.0.1:9/\" }");
    let text = body(&slack, Change::Raised)["text"].to_string();
    for part in [
        "box-1",
        "85 % of the places in line are taken (&lt;85 &amp; more&gt;)",
        "raised above 80 %",
        "since 2025-11-21T",
        "What to do: ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(
        body(&slack, Change::Acknowledged)["text"]
            .to_string()
            .contains("seen by ops")
    );
    assert!(
        body(&slack, Change::Resolved)["text"]
            .to_string()
            .contains("is over")
    );
}

#[test]
fn pagerduty_is_told_the_three_events_of_one_incident() {
    let pagerduty = webhook("{ kind = \"pagerduty\", key_env = \"KEY\" }");
    let events = [Change::Raised, Change::Acknowledged, Change::Resolved];
    let events = events.map(|change| body(&pagerduty, change));
    let actions = events.each_ref().map(|event| event["event_action"].clone());
    assert_eq!(actions, ["trigger", "acknowledge", "resolve"]);
    for event in &events {
        assert_eq!(event["routing_key"], "r-1");
        assert_eq!(event["dedup_key"], events[0]["dedup_key"]);
    }
    let payload = &events[0]["payload"];
    assert_eq!(
        (payload["source"].as_str(), payload["class"].as_str()),
        (Some("box-1"), Some("queue_depth"))
    );
    assert!(payload["summary"].is_string() && payload["severity"] == "warning");
}

#[test]
fn an_answer_says_whether_the_same_again_may_help() {
    for (status, verdict) in [
        (200, hook::Verdict::Told),
        (202, hook::Verdict::Told),
        (302, hook::Verdict::Refused),
        (400, hook::Verdict::Refused),
        (404, hook::Verdict::Refused),
        (429, hook::Verdict::Again),
        (503, hook::Verdict::Again),
    ] {
        assert_eq!(hook::verdict(status), verdict, "{status}");
    }
}

/// A book that tells one webhook at `url`, whose clock stands still.
fn book(url: &str, more: &str) -> AlertBook {
    let text = format!(
        "alerts.webhooks = [{{ kind = \"json\", url = \"{url}\", key_env = \"KEY\" }}]\n\
         alerts.webhook_wait = \"1ms\"\nalerts.rules.queue_depth = {{ for = \"0s\", cooldown = \"0s\" }}\n{more}"
    );
    let environment = Environment::from_iter([("KEY", "r-1")]);
    let config = Loader::new(environment).from_toml(&text, "test.toml");
    let clock = Arc::new(ManualClock::new());
    AlertBook::new(&config.expect("accepted").alerts, clock).expect("threads start")
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const BUSY: &[u8] = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
const NO: &[u8] = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n";

/// What a webhook was told, in order.
fn heard(told: &std::sync::mpsc::Receiver<(usize, String)>) -> Value {
    let (_, request) = told
        .recv_timeout(Duration::from_secs(30))
        .expect("it is told");
    assert!(
        request.contains("uthorization: Bearer r-1\r\n"),
        "{request}"
    );
    let (_, body) = request.split_once("\r\n\r\n").expect("a body");
    serde_json::from_str(body).expect("JSON")
}

#[test]
fn a_webhook_hears_of_an_alert_from_its_beginning_to_its_end() {
    let (url, told) = peer(|_| OK.to_vec());
    let book = book(&url, "");
    book.look(&waiting(90));
    let id = book.active()[0].id.clone();
    book.acknowledge(&id, "ops").expect("it is active");
    book.look(&waiting(0));
    for event in ["raised", "acknowledged", "resolved"] {
        let message = heard(&told);
        assert_eq!(
            (&message["event"], &message["alert"]["id"]),
            (&event.into(), &id.clone().into())
        );
    }
    book.stop();
    assert_eq!(book.history().len(), 1);
}

#[test]
fn a_webhook_that_is_busy_is_told_again_and_one_that_refuses_is_not() {
    let tries = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (url, told) = peer(move |_| {
        let before = tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        [BUSY, BUSY, OK, NO, OK][before.min(4)].to_vec()
    });
    let book = book(&url, "");
    book.look(&waiting(90));
    book.look(&waiting(0));
    book.look(&waiting(90));
    let events: Vec<Value> = (0..5).map(|_| heard(&told)["event"].clone()).collect();
    assert_eq!(events, ["raised", "raised", "raised", "resolved", "raised"]);
}

#[test]
fn a_webhook_that_is_dead_holds_nobody_up_and_what_finds_no_place_is_counted() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    // It is connected to, and never answers.
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let book = book(
        &url,
        "alerts.webhook_queue = 1\nalerts.webhook_timeout = \"1h\"",
    );
    for _ in 0..3 {
        book.look(&waiting(90));
        book.look(&waiting(0));
    }
    let told = book.told().remove(0);
    assert_eq!((told.sent, told.failed), (0, 0));
    // One may be under way, one waits, and the other four or five are left out.
    assert!(told.left_out >= 4, "{told:?}");
    book.stop();
}

#[test]
fn the_page_of_metrics_says_which_rules_have_an_alert() {
    let (url, _told) = peer(|_| OK.to_vec());
    let book = book(&url, "");
    book.look(&waiting(90));
    let mut page = Page::default();
    book.collect(&mut page);
    let text = String::from_utf8(page.text()).expect("UTF-8");
    assert!(
        text.contains("pointsman_alerts_active{rule=\"queue_depth\"} 1\n"),
        "{text}"
    );
    assert!(
        text.contains("pointsman_alerts_active{rule=\"audit\"} 0\n"),
        "{text}"
    );
}

#[test]
fn prometheus_is_given_every_rule_that_is_on_with_its_threshold() {
    let config =
        alerts("alerts.rules.leaks.enabled = false\nalerts.rules.queue_age.threshold = 33.5");
    let file = prometheus_rules(&config);
    assert_eq!(
        file.matches("- alert: Pointsman").count(),
        AlertKind::ALL.len() - 1
    );
    assert!(!file.contains("PointsmanLeaks"), "{file}");
    assert!(
        file.contains("max(pointsman_queue_oldest_seconds) > 33.5"),
        "{file}"
    );
    assert!(file.contains("        for: 300s\n"), "{file}");
    let every = Config::builtin(Profile::Dev).alerts;
    assert!(every.enabled && every.rules.iter().all(|rule| rule.enabled));
}
