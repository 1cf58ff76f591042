//! What is counted, and how it reads.

use super::*;
use crate::config::{Config, Profile};

fn metrics() -> Metrics {
    let config = Config::builtin(Profile::Dev).telemetry;
    Metrics::new(&["kimi".into(), "glm".into()], &config)
}

fn text(metrics: &Metrics) -> String {
    let page = metrics.page().expect("they are on");
    String::from_utf8(page.text()).expect("UTF-8")
}

/// The value of a line that begins with this.
fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find(|line| {
        line.strip_prefix(series)
            .is_some_and(|rest| rest.starts_with(' '))
    });
    let line = line.unwrap_or_else(|| panic!("no {series} in {page}"));
    let value = line.rsplit(' ').next().expect("a value");
    value.parse().expect("a number")
}

#[test]
fn every_name_has_the_prefix_and_only_counters_end_in_total() {
    let page = text(&metrics());
    let mut families = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a kind");
        assert!(name.starts_with("pointsman_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
        families += 1;
    }
    assert!(families > 20, "{families}");
}

#[test]
fn a_request_that_ends_is_counted_once_where_it_belongs() {
    let metrics = metrics();
    let ended = Ended {
        class: Priority::High,
        provider: 2,
        end: Step::Error,
        phases: Phases {
            total: Duration::from_millis(40),
            ..Phases::default()
        },
    };
    metrics.record_end(&ended);
    // Nobody's.
    metrics.record_end(&Ended {
        provider: 9,
        ..ended
    });
    let page = text(&metrics);
    let series = "pointsman_requests_total{class=\"high\",outcome=\"error\",provider=\"glm\"}";
    assert_eq!(value(&page, series), 1.0);
    let totals = metrics.totals().expect("they are on");
    assert_eq!((totals.ended, totals.errors, totals.timeouts), (1, 1, 0));
    let bucket =
        "pointsman_request_duration_seconds_bucket{class=\"high\",provider=\"glm\",le=\"0.05\"}";
    assert_eq!(value(&page, bucket), 1.0);
}

#[test]
fn a_call_is_timed_as_far_as_it_came() {
    let metrics = metrics();
    metrics.record_call(&CallTimes {
        provider: 1,
        connect: Some(Duration::from_millis(20)),
        first_byte: None,
    });
    let page = text(&metrics);
    let count = |name: &str, labels: &str| value(&page, &format!("pointsman_{name}_count{labels}"));
    assert_eq!(count("pool_wait_seconds", "{provider=\"kimi\"}"), 1.0);
    assert_eq!(count("first_byte_seconds", "{provider=\"kimi\"}"), 0.0);
}

#[test]
fn a_leak_its_repair_and_the_values_around_it_are_seen() {
    let metrics = metrics();
    let kind = SemaphoreType::Provider;
    metrics.update_semaphore_values(kind, 2, 1, 2);
    metrics.update_quarantined(kind, 2, 1);
    metrics.record_semaphore_leak(kind, 2, 1);
    metrics.record_semaphore_recovery(kind, Recovery::Success, 1);
    metrics.record_semaphore_leak(SemaphoreType::Global, 3, 2);
    metrics.record_semaphore_recovery(SemaphoreType::Global, Recovery::Success, 1);
    let page = text(&metrics);
    let glm = "{provider=\"glm\",semaphore_type=\"provider\"}";
    for (series, expected) in [
        (format!("semaphore_current_value{glm}"), 1.0),
        (format!("semaphore_expected_value{glm}"), 2.0),
        (format!("slots_quarantined{glm}"), 1.0),
        (
            "semaphore_recoveries_total{semaphore_type=\"provider\",status=\"success\"}".into(),
            1.0,
        ),
        ("permits_reclaimed_total".into(), 1.0),
    ] {
        assert_eq!(
            value(&page, &format!("pointsman_{series}")),
            expected,
            "{series}"
        );
    }
    let totals = metrics.totals().expect("they are on");
    let sums = (totals.leaks, totals.recoveries);
    assert_eq!(sums, (1, 1), "one slot, whichever semaphores it is of");
}

#[test]
fn want_of_room_and_calls_that_were_cut_are_told_from_the_rest() {
    let metrics = metrics();
    metrics.record_rejection(Some(Priority::Low), Rejection::QueueFull);
    metrics.record_rejection(None, Rejection::Door);
    metrics.record_rejection(None, Rejection::NoKey);
    metrics.record_time_up(TimeUp::QueueTimeout, None);
    metrics.record_time_up(TimeUp::FirstByte, Some(Duration::from_millis(2)));
    metrics.record_response(1, Some(200));
    metrics.record_response(1, Some(429));
    metrics.record_response(2, None);
    metrics.record_retry(1, "rate_limited");
    let totals = metrics.totals().expect("they are on");
    assert_eq!((totals.refused, totals.cut), (2, 1));
    assert_eq!((totals.calls, totals.retries), (3, 1));
    let codes = [("kimi".into(), "429", 1), ("glm".into(), "none", 1)];
    assert_eq!(totals.codes, codes);
    let page = text(&metrics);
    assert_eq!(
        value(&page, "pointsman_deadline_overshoot_seconds_count"),
        1.0
    );
}

#[test]
fn a_provider_that_comes_is_counted_and_what_was_counted_stays() {
    let metrics = metrics();
    metrics.record_response(2, Some(200));
    // Nobody's yet.
    metrics.record_response(3, Some(429));
    metrics.know(&["kimi".into(), "glm".into(), "new".into()]);
    metrics.record_response(2, Some(200));
    metrics.record_response(3, Some(200));
    metrics.update_concurrent_requests(0, 7);
    metrics.record_tokens(
        3,
        "m",
        TokensUsed {
            prompt: 5,
            ..TokensUsed::default()
        },
    );
    let page = text(&metrics);
    let answers = |provider: &str, code: u16| {
        let labels = format!("{{code=\"{code}\",provider=\"{provider}\"}}");
        value(
            &page,
            &format!("pointsman_upstream_responses_total{labels}"),
        )
    };
    assert_eq!((answers("glm", 200), answers("new", 200)), (2.0, 1.0));
    assert_eq!(answers("new", 429), 0.0);
    let tokens = "pointsman_tokens_total{kind=\"prompt\",model=\"m\",provider=\"new\"}";
    assert_eq!(value(&page, tokens), 5.0);
    let nobody = "pointsman_concurrent_requests{provider=\"none\"}";
    assert_eq!(value(&page, nobody), 7.0);
    assert_eq!(metrics.totals().expect("they are on").calls, 3);
}

#[test]
fn a_source_is_asked_for_every_page() {
    let metrics = metrics();
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    metrics.add_source(move |page| {
        let before = counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        page.gauge("load_level", "How busy the box is.", before as f64);
    });
    for expected in [0.0, 1.0] {
        assert_eq!(value(&text(&metrics), "pointsman_load_level"), expected);
    }
}

#[test]
fn switched_off_they_take_everything_and_say_nothing() {
    let config = Telemetry {
        metrics: false,
        ..Config::builtin(Profile::Dev).telemetry
    };
    let metrics = Metrics::new(&["kimi".into()], &config);
    metrics.record_tick_delay(Duration::ZERO);
    assert!(metrics.page().is_none() && metrics.totals().is_none());
}
