//! What a load test found, as text and as JSON.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::outcome::Outcome;
use super::plan::{Extent, Form, Plan};
use super::recorder::{Durations, Quantiles, Recorder};
use crate::config::Priority;

/// What a load test found. Its `Display` is a page for people.
#[derive(Debug)]
pub struct Report {
    plan: Plan,
    totals: Recorder,
    lasted: Duration,
    unsent: u64,
    interrupted: bool,
}

impl Report {
    pub(super) fn new(
        plan: Plan,
        totals: Recorder,
        lasted: Duration,
        planned: Option<u64>,
        interrupted: bool,
    ) -> Self {
        let report = Report {
            plan,
            totals,
            lasted,
            unsent: 0,
            interrupted,
        };
        let unsent = planned.map_or(0, |planned| planned.saturating_sub(report.sent()));
        Report { unsent, ..report }
    }

    /// How many requests this became of.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.totals.count(outcome)
    }

    /// How many requests were sent.
    pub fn sent(&self) -> u64 {
        Outcome::ALL
            .iter()
            .map(|outcome| self.count(*outcome))
            .sum()
    }

    /// How many requests speak against the server: it was given time and did not answer, or not right.
    pub fn failures(&self) -> u64 {
        let failed = Outcome::ALL.iter().filter(|outcome| outcome.is_failure());
        failed.map(|outcome| self.count(*outcome)).sum()
    }

    /// How many requests the plan had that were not sent: the test was ended, or the callers could not keep up with
    /// its rate.
    pub fn unsent(&self) -> u64 {
        self.unsent
    }

    /// Whether the test was ended before its end.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// How long requests took of which this became; `None` where there was none.
    pub fn took(&self, outcome: Outcome) -> Option<Quantiles> {
        self.totals.took(outcome).quantiles()
    }

    /// Answered requests per second of the whole test.
    pub fn answers_per_second(&self) -> f64 {
        let seconds = self.lasted.as_secs_f64();
        if seconds > 0.0 {
            self.count(Outcome::Answered) as f64 / seconds
        } else {
            0.0
        }
    }

    /// For programs. Times in milliseconds unless their names say otherwise.
    pub fn to_json(&self) -> Value {
        let counts = Outcome::ALL.map(|outcome| (key(outcome.name()), json!(self.count(outcome))));
        let times = self
            .times()
            .into_iter()
            .map(|(name, times)| (key(&name), times.into_json()));
        json!({
            "url": self.plan.url,
            "model": self.plan.model,
            "asked": self.asked_json(),
            "lasted_s": self.lasted.as_secs_f64(),
            "interrupted": self.interrupted,
            "sent": self.sent(),
            "unsent": self.unsent,
            "counts": Map::from_iter(counts),
            "failures": self.failures(),
            "answers_per_second": self.answers_per_second(),
            "times_ms": Map::from_iter(times),
            "reasons": self.totals.reasons,
        })
    }

    fn asked_json(&self) -> Value {
        let plan = &self.plan;
        let (requests, duration_s) = match plan.extent {
            Extent::Requests(count) => (Some(count), None),
            Extent::Duration(length) => (None, Some(length.as_secs_f64())),
        };
        let priorities: Vec<String> = plan.priorities.iter().map(Priority::to_string).collect();
        json!({
            "callers": plan.callers,
            "requests": requests,
            "duration_s": duration_s,
            "rate": plan.rate,
            "stream": plan.form == Form::Stream,
            "sessions": plan.sessions,
            "priorities": priorities,
            "timeout_s": plan.timeout.as_secs_f64(),
        })
    }

    /// Each measured time that there is, by its name.
    fn times(&self) -> Vec<(String, Quantiles)> {
        let totals = &self.totals;
        let by_outcome = Outcome::ALL.map(|o| (o.name().to_owned(), totals.took(o)));
        let priorities = Priority::ALL.map(|p| (p.to_string(), &totals.by_priority[p.index()]));
        let others: [(&str, &Durations); 4] = [
            ("first piece", &totals.first_piece),
            ("gap", &totals.gaps),
            ("in line", &totals.queue),
            ("sent late", &totals.late),
        ];
        let others = others.map(|(name, durations)| (name.to_owned(), durations));
        let all = by_outcome.into_iter().chain(priorities).chain(others);
        all.filter_map(|(name, durations)| Some((name, durations.quantiles()?)))
            .collect()
    }
}

/// A name as a key: `timed out` becomes `timed_out`.
fn key(name: &str) -> String {
    name.replace(' ', "_")
}

impl Quantiles {
    /// The columns of a report.
    const NAMES: [&str; 5] = ["min", "p50", "p90", "p99", "max"];

    fn millis(&self) -> [f64; 5] {
        let all = [self.min, self.p50, self.p90, self.p99, self.max];
        all.map(|length| length.as_secs_f64() * 1000.0)
    }

    fn into_json(self) -> Value {
        let columns = Quantiles::NAMES.into_iter().zip(self.millis());
        let columns = columns.map(|(name, value)| (name.to_owned(), json!(value)));
        let count = ("count".to_owned(), json!(self.count));
        Value::Object(std::iter::once(count).chain(columns).collect())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline())?;
        writeln!(
            f,
            "{} sent in {:.2} s: {:.1} answered per second{}",
            self.sent(),
            self.lasted.as_secs_f64(),
            self.answers_per_second(),
            if self.interrupted {
                "; ended before its end"
            } else {
                ""
            },
        )?;
        for outcome in Outcome::ALL {
            writeln!(f, "  {:<12}{:>9}", outcome.name(), self.count(outcome))?;
        }
        if self.unsent > 0 {
            writeln!(f, "  {:<12}{:>9}", "not sent", self.unsent)?;
        }
        self.write_times(f)?;
        for (reason, count) in &self.totals.reasons {
            writeln!(f, "  {count} x {reason}")?;
        }
        Ok(())
    }
}

impl Report {
    fn headline(&self) -> String {
        let plan = &self.plan;
        let mut text = format!(
            "{}, model {}, {} callers",
            plan.url, plan.model, plan.callers
        );
        if plan.sessions > 0 {
            text += &format!(", {} sessions", plan.sessions);
        }
        if let Some(rate) = plan.rate {
            text += &format!(", {rate} per second");
        }
        if plan.form == Form::Stream {
            text += ", streaming";
        }
        text
    }

    fn write_times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = self.times();
        if times.is_empty() {
            return Ok(());
        }
        write!(f, "  {:<12}{:>9}", "times in ms", "count")?;
        for name in Quantiles::NAMES {
            write!(f, "{name:>10}")?;
        }
        for (name, quantiles) in times {
            write!(f, "\n  {name:<12}{:>9}", quantiles.count)?;
            for value in quantiles.millis() {
                write!(f, "{value:>10.2}")?;
            }
        }
        writeln!(f)
    }
}
