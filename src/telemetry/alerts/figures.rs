//! From a sample to the figure of each rule.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Time;
use crate::config::{self, AlertKind, AlertRule};
use crate::telemetry::Totals;

/// A window is remembered in so many parts.
const PARTS: u32 = 60;
/// For how long an error that is new counts as one.
const NEWS: Duration = Duration::from_secs(300);

/// The gateway at one moment, as alerts see it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// Requests in line.
    pub waiting: usize,
    /// How many may be.
    pub capacity: usize,
    /// How long the oldest of them has been there.
    pub oldest: Duration,
    /// The limits that are full while somebody waits for them, by name.
    pub saturated: Vec<String>,
    /// The providers whose breaker is open, with the reason.
    pub broken: Vec<String>,
    /// What becomes of connections.
    pub pools: Vec<PoolUse>,
    /// How busy the box is, 0 to 4; `None` where nobody looks.
    pub load: Option<u8>,
    /// Audits of the books that found a difference, since the start.
    pub audit_mismatches: u64,
    /// What was counted since the start.
    pub totals: Totals,
}

/// What became of the connections to one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolUse {
    /// The provider.
    pub provider: Arc<str>,
    /// Calls ended.
    pub ended: u64,
    /// Of these, those that left no connection that can be used again.
    pub failed: u64,
}

/// What a rule goes by.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figure {
    pub(super) value: f64,
    /// Who or what is concerned; may be empty.
    pub(super) detail: String,
}

impl Figure {
    fn of(value: f64) -> Figure {
        let detail = String::new();
        Figure { value, detail }
    }

    fn count(names: &[String]) -> Figure {
        Figure {
            value: names.len() as f64,
            detail: names.join(", "),
        }
    }
}

/// Two counts as they were at some moments of the last while.
#[derive(Debug, Default)]
struct Window {
    marks: VecDeque<(Time, [u64; 2])>,
    latest: [u64; 2],
}

impl Window {
    fn take(&mut self, counts: [u64; 2], length: Duration, now: Time) {
        // A count that has begun anew has nothing to do with what was before.
        let fell = self.latest.iter().zip(counts).any(|(old, new)| new < *old);
        if fell {
            self.marks.clear();
        }
        self.latest = counts;
        // Every count begins at nothing.
        let first = self.marks.is_empty().then_some((now, [0; 2]));
        let is_due = |last: &(Time, [u64; 2])| now.since(last.0) >= length / PARTS;
        if first.is_some() || self.marks.back().is_some_and(is_due) {
            self.marks.extend(first);
            self.marks.push_back((now, counts));
        }
        // The mark that is just outside says what was at the beginning of the window.
        while let Some((next, _)) = self.marks.get(1)
            && now.since(*next) >= length
        {
            self.marks.pop_front();
        }
    }

    /// What was added over the window.
    fn added(&self) -> [u64; 2] {
        let before = self.marks.front().map_or(self.latest, |mark| mark.1);
        std::array::from_fn(|at| self.latest[at].saturating_sub(before[at]))
    }
}

/// What was counted over the windows of all rules.
#[derive(Debug)]
pub(super) struct Figures {
    windows: Vec<(AlertKind, Duration, Window)>,
    pools: BTreeMap<Arc<str>, Window>,
    news: News,
    min_calls: u64,
}

impl Figures {
    pub(super) fn new(config: &config::Alerts) -> Figures {
        let windows = config.rules.iter();
        let window = |rule: &AlertRule| Some((rule.kind, rule.window?, Window::default()));
        Figures {
            windows: windows.filter_map(window).collect(),
            pools: BTreeMap::new(),
            news: News::default(),
            min_calls: config.min_calls,
        }
    }

    /// Takes in what was counted.
    pub(super) fn take(&mut self, sample: &Sample, now: Time) {
        for (kind, length, window) in &mut self.windows {
            window.take(counted(*kind, sample), *length, now);
            match kind {
                AlertKind::Pool => {
                    for pool in &sample.pools {
                        let window = self.pools.entry(Arc::clone(&pool.provider)).or_default();
                        window.take([pool.failed, pool.ended], *length, now);
                    }
                }
                AlertKind::NewError => self.news.take(&sample.totals, *length, now),
                _ => {}
            }
        }
    }

    /// The figure of a rule; `None` where there is too little to judge by.
    pub(super) fn of(&self, rule: &AlertRule, sample: &Sample, now: Time) -> Option<Figure> {
        match rule.kind {
            AlertKind::QueueDepth => {
                let figure = Figure::of(sample.waiting as f64 / sample.capacity.max(1) as f64);
                let detail = format!("{} of {} places", sample.waiting, sample.capacity);
                Some(Figure { detail, ..figure })
            }
            AlertKind::QueueAge => Some(Figure::of(sample.oldest.as_secs_f64())),
            AlertKind::Refusals
            | AlertKind::Timeouts
            | AlertKind::Leaks
            | AlertKind::Recoveries
            | AlertKind::Audit => Some(Figure::of(self.added(rule.kind)[0] as f64)),
            AlertKind::CutCalls | AlertKind::Retries | AlertKind::Errors => {
                self.share(self.added(rule.kind)).map(Figure::of)
            }
            AlertKind::Saturation => Some(Figure::count(&sample.saturated)),
            AlertKind::BreakerOpen => Some(Figure::count(&sample.broken)),
            AlertKind::Pool => self.worst_pool(),
            AlertKind::NewError => Some(Figure::count(&self.news.fresh(now))),
            AlertKind::Box => sample.load.map(|load| Figure::of(f64::from(load))),
        }
    }

    fn added(&self, kind: AlertKind) -> [u64; 2] {
        let found = self.windows.iter().find(|(known, ..)| *known == kind);
        found.map_or([0; 2], |(.., window)| window.added())
    }

    fn share(&self, [part, all]: [u64; 2]) -> Option<f64> {
        (all >= self.min_calls).then(|| part as f64 / all.max(1) as f64)
    }

    fn worst_pool(&self) -> Option<Figure> {
        let shares = self.pools.iter().filter_map(|(name, window)| {
            let value = self.share(window.added())?;
            let detail = name.to_string();
            Some(Figure { value, detail })
        });
        shares.max_by(|one, other| one.value.total_cmp(&other.value))
    }
}

/// What a rule counts, and out of what.
fn counted(kind: AlertKind, sample: &Sample) -> [u64; 2] {
    let totals = &sample.totals;
    match kind {
        AlertKind::Refusals => [totals.refused, 0],
        AlertKind::Timeouts => [totals.timeouts, 0],
        AlertKind::Leaks => [totals.leaks, 0],
        AlertKind::Recoveries => [totals.recoveries, 0],
        AlertKind::Audit => [sample.audit_mismatches, 0],
        AlertKind::CutCalls => [totals.cut, totals.calls],
        AlertKind::Retries => [totals.retries, totals.calls],
        AlertKind::Errors => [totals.errors, totals.ended],
        AlertKind::QueueDepth
        | AlertKind::QueueAge
        | AlertKind::Saturation
        | AlertKind::BreakerOpen
        | AlertKind::Pool
        | AlertKind::NewError
        | AlertKind::Box => [0; 2],
    }
}

/// Which errors were seen when.
#[derive(Debug, Default)]
struct News {
    /// The last count of each error, and when it last grew.
    seen: BTreeMap<(Arc<str>, &'static str), (u64, Time)>,
    fresh: Vec<(Time, String)>,
}

impl News {
    fn take(&mut self, totals: &Totals, memory: Duration, now: Time) {
        self.fresh.retain(|(since, _)| now.since(*since) < NEWS);
        for (provider, code, count) in &totals.codes {
            let key = (Arc::clone(provider), *code);
            let before = self.seen.get(&key).copied();
            if before.is_some_and(|(known, _)| known == *count) {
                continue;
            }
            if before.is_none_or(|(_, last)| now.since(last) >= memory) {
                let what = match *code {
                    "none" => format!("{provider}: no answer"),
                    code => format!("{provider}: {code}"),
                };
                self.fresh.push((now, what));
            }
            self.seen.insert(key, (*count, now));
        }
    }

    fn fresh(&self, now: Time) -> Vec<String> {
        let fresh = self.fresh.iter();
        fresh
            .filter(|(since, _)| now.since(*since) < NEWS)
            .map(|(_, what)| what.clone())
            .collect()
    }
}
