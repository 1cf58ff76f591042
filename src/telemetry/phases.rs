//! Where the time of a request went: the one set of figures that header, body, log, pages and trace all show.

use std::time::Duration;

use serde::{Serialize, Serializer};

/// Where the time of one request went, over all of its calls. Zero where a phase was not reached.
///
/// Queue, backoff, upstream and [rest](Phases::rest) together are the total; connect and first byte are parts of
/// upstream.
///
/// ```
/// use pointsman::telemetry::Phases;
/// use std::time::Duration;
///
/// let phases = Phases {
///     queue: Duration::from_secs(3),
///     backoff: Duration::from_secs(2),
///     upstream: Duration::from_secs(4),
///     total: Duration::from_millis(9_010),
///     ..Phases::default()
/// };
/// assert_eq!(phases.rest(), Duration::from_millis(10));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// In line, and then until a worker began the call.
    pub queue: Duration,
    /// After a call that failed, until it went back into line.
    pub backoff: Duration,
    /// From the start of a call until its connection stood, or until it was over without one.
    pub connect: Duration,
    /// From then until the first byte of the answer, or until the call was over without one.
    pub first_byte: Duration,
    /// In calls, connect and first byte included.
    pub upstream: Duration,
    /// From the receipt of the request to the end.
    pub total: Duration,
}

impl Phases {
    /// The names of the [figures](Phases::figures), in their order.
    pub const NAMES: [&'static str; 7] = [
        "queue",
        "backoff",
        "connect",
        "first_byte",
        "upstream",
        "rest",
        "total",
    ];

    /// What is left of the total: reading the request, finding out where it goes, and handing on its end.
    pub fn rest(&self) -> Duration {
        let parts = self.queue + self.backoff + self.upstream;
        self.total.saturating_sub(parts)
    }

    /// As they are, in the order of [the names](Phases::NAMES).
    pub fn lengths(&self) -> [Duration; 7] {
        [
            self.queue,
            self.backoff,
            self.connect,
            self.first_byte,
            self.upstream,
            self.rest(),
            self.total,
        ]
    }

    /// As they are shown, each under its name. The rest is what is left of the figures, so that they add up to the last
    /// digit.
    pub fn figures(&self) -> [(&'static str, Figure); 7] {
        let [queue, backoff, upstream, total] =
            [self.queue, self.backoff, self.upstream, self.total].map(Figure::of);
        let rest = Figure(total.0.saturating_sub(queue.0 + backoff.0 + upstream.0));
        let [connect, first_byte] = [self.connect, self.first_byte].map(Figure::of);
        let figures = [queue, backoff, connect, first_byte, upstream, rest, total];
        std::array::from_fn(|index| (Self::NAMES[index], figures[index]))
    }
}

/// In JSON: each figure in seconds, under its name and `_s`.
impl Serialize for Phases {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let figures = self.figures();
        serializer
            .collect_map(figures.map(|(name, figure)| (format!("{name}_s"), figure.seconds())))
    }
}

/// A length of time as it is shown: in whole tenths of a millisecond. What is below is cut off, so that parts never look
/// longer than their whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Figure(u64);

impl Figure {
    /// `length`, cut off.
    pub fn of(length: Duration) -> Self {
        Figure(u64::try_from(length.as_micros() / 100).unwrap_or(u64::MAX / 8))
    }

    /// In seconds: at most four digits after the point.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 10_000.0
    }

    /// In milliseconds: at most one digit after the point.
    pub fn milliseconds(self) -> f64 {
        self.0 as f64 / 10.0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    fn phases() -> Phases {
        Phases {
            queue: MICRO * 3_000_199,
            backoff: MICRO * 2_000_099,
            connect: MICRO * 1_050,
            first_byte: MICRO * 99,
            upstream: MICRO * 4_000_999,
            total: MICRO * 9_002_000,
        }
    }

    #[test]
    fn figures_are_cut_to_tenths_of_a_millisecond_and_add_up() {
        let expected = json!({
            "queue_s": 3.0001, "backoff_s": 2.0, "connect_s": 0.001, "first_byte_s": 0.0, "upstream_s": 4.0009,
            "rest_s": 0.001, "total_s": 9.002,
        });
        assert_eq!(json!(phases()), expected);
        let milliseconds = phases().figures().map(|(_, figure)| figure.milliseconds());
        assert_eq!(
            milliseconds,
            [3000.1, 2000.0, 1.0, 0.0, 4000.9, 1.0, 9002.0]
        );
    }

    #[test]
    fn what_is_left_is_never_below_zero() {
        let short = Phases {
            total: Duration::ZERO,
            ..phases()
        };
        assert_eq!(short.rest(), Duration::ZERO);
        assert_eq!(short.figures()[5], ("rest", Figure(0)));
        let forever = Phases {
            queue: Duration::MAX,
            total: Duration::MAX,
            ..Phases::default()
        };
        assert_eq!(forever.figures()[0].1, forever.figures()[6].1);
    }
}
