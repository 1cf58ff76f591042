//! Where the time of a request went, as each place tells it.

use serde_json::Value;

use super::Response;

/// The figures that each place tells.
pub(crate) const FIGURES: [&str; 7] = [
    "queue",
    "backoff",
    "connect",
    "first_byte",
    "upstream",
    "rest",
    "total",
];

/// Where the time of a request went, in seconds.
pub(crate) type Figures = [f64; 7];

/// What a `phases` object says.
pub(crate) fn told(phases: &Value) -> Figures {
    FIGURES.map(|name| {
        let figure = phases[format!("{name}_s")].as_f64();
        figure.unwrap_or_else(|| panic!("no {name} in {phases:#}"))
    })
}

/// What `Server-Timing` says.
pub(crate) fn header(answer: &Response) -> Figures {
    let header = answer.header("server-timing").expect("a header");
    let mut parts = header.split(", ");
    FIGURES.map(|name| {
        let part = parts
            .next()
            .and_then(|part| part.strip_prefix(&format!("{name};dur=")));
        let milliseconds: Option<f64> = part.and_then(|part| part.parse().ok());
        milliseconds.unwrap_or_else(|| panic!("no {name} in its place in {header}")) / 1_000.0
    })
}

/// Equal to the last digit: each figure has four of them, and no sum of theirs more.
pub(crate) fn same(one: Figures, other: Figures, place: &str) {
    let tenths = |figures: Figures| figures.map(|seconds| (seconds * 10_000.0).round() as i64);
    assert_eq!(tenths(one), tenths(other), "{place}");
}

/// Queue, backoff, upstream and rest are the whole, to the last digit.
pub(crate) fn adds_up(figures: Figures) {
    let [queue, backoff, connect, first_byte, upstream, rest, total] = figures;
    let off = queue + backoff + upstream + rest - total;
    assert!(off.abs() < 0.000_05, "{figures:?}");
    assert!(connect + first_byte < upstream + 0.000_05, "{figures:?}");
}
