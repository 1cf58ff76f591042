//! What a page of metrics shows of the engine at the moment of the scrape: read from the core, the pools and the
//! sessions, which count it for themselves.

use std::sync::Arc;

use super::{Engine, PoolStats, Snapshot, TargetView};
use crate::config::Priority;
use crate::telemetry::{Page, Row, SemaphoreType, class_word};

/// A family that is read from a value for each provider: its name, what it is, and how it is read.
type Read<'a, T, V> = (&'a str, &'a str, fn(&T) -> V);

impl Engine {
    /// A page of metrics; `None` while they are switched off.
    pub fn metrics_page(&self) -> Option<Page> {
        let metrics = &self.shell.metrics;
        if !metrics.is_on() {
            return None;
        }
        let snapshot = self.snapshot();
        self.update_semaphores(&snapshot);
        let mut page = metrics.page()?;
        slots(&mut page, &snapshot);
        lines(&mut page, &snapshot);
        threads(&mut page, &snapshot);
        targets(&mut page, &snapshot);
        pools(&mut page, &self.pools());
        Some(page)
    }

    /// The values that were asked for by name. Every slot that the ledger holds has a living owner, so far as this looks:
    /// a check that finds one without says so itself.
    fn update_semaphores(&self, snapshot: &Snapshot) {
        let metrics = &self.shell.metrics;
        let core = &snapshot.core;
        let update = |kind, provider, in_use: usize, limit: usize| {
            let expected = limit.max(in_use);
            metrics.update_semaphore_values(kind, provider, expected, expected);
        };
        update(SemaphoreType::Global, 0, core.in_use, core.limit);
        update(
            SemaphoreType::Session,
            0,
            core.sessions,
            core.sessions_limit,
        );
        for (index, view) in core.providers.iter().enumerate() {
            update(SemaphoreType::Provider, index, view.in_use, view.limit);
            metrics.update_concurrent_requests(index, view.in_use);
        }
        let without = snapshot.without_provider.in_use;
        metrics.update_concurrent_requests(core.providers.len(), without);
    }
}

fn slots(page: &mut Page, snapshot: &Snapshot) {
    let core = &snapshot.core;
    let labels = ["semaphore_type", "provider"];
    let row = |kind: SemaphoreType, name, value: usize| ([kind.word(), name], value as f64);
    let views = snapshot.providers.iter().zip(&core.providers);
    let targets = snapshot.providers.iter().zip(&core.targets);
    let mut limits: Vec<Row<'_, 2>> = vec![
        row(SemaphoreType::Global, "all", core.limit),
        row(SemaphoreType::Session, "all", core.sessions_limit),
    ];
    // What the provider takes now, which may be less than what is configured.
    limits.extend(targets.map(|(name, view)| row(SemaphoreType::Provider, &**name, view.limit)));
    page.gauges(
        "slots_limit",
        "Slots; a provider's are as many as it takes now.",
        labels,
        limits,
    );
    let mut in_use: Vec<Row<'_, 2>> = vec![
        row(SemaphoreType::Global, "all", core.in_use),
        row(SemaphoreType::Session, "all", core.sessions),
    ];
    in_use.extend(views.map(|(name, view)| row(SemaphoreType::Provider, &**name, view.in_use)));
    page.gauges("slots_in_use", "Slots that are held.", labels, in_use);
    for (name, help, count) in [
        ("permits_acquired_total", "Permits given out.", core.taken),
        (
            "permits_released_total",
            "Permits that came back.",
            core.given_back,
        ),
        (
            "late_releases_total",
            "Permits that came back after their slot had been taken back; they change nothing.",
            core.late_returns,
        ),
    ] {
        page.counter(name, help, count as f64);
    }
    let help = "The most calls that were ever in flight.";
    page.gauge("requests_in_flight_peak", help, core.peak as f64);
}

fn lines(page: &mut Page, snapshot: &Snapshot) {
    let core = &snapshot.core;
    let class = |class: Priority| (class_word(class), core.classes[class.index()]);
    let classes = Priority::ALL.map(class);
    page.gauges(
        "queue_length",
        "Requests in line.",
        ["class"],
        classes.map(|(name, view)| ([name], view.waiting as f64)),
    );
    page.gauges(
        "queue_oldest_seconds",
        "How long the oldest of them has been there.",
        ["class"],
        classes.map(|(name, view)| ([name], view.oldest.as_secs_f64())),
    );
    let help = "Places in line.";
    page.gauge("queue_capacity", help, core.capacity as f64);
    let help = "Requests whose call failed and will be made again; they hold nothing.";
    page.gauge("backing_off", help, core.backing_off as f64);
}

fn threads(page: &mut Page, snapshot: &Snapshot) {
    let busy = snapshot.core.in_use.min(snapshot.workers);
    page.gauges(
        "workers",
        "Threads that run calls.",
        ["state"],
        [
            (["busy"], busy as f64),
            (["idle"], (snapshot.workers - busy) as f64),
        ],
    );
    let active = snapshot.core.sessions;
    page.gauges(
        "sessions",
        "Named sessions: with running calls, and remembered ones without.",
        ["state"],
        [
            (["active"], active as f64),
            (
                ["idle"],
                snapshot.sessions_known.saturating_sub(active) as f64,
            ),
        ],
    );
}

fn targets(page: &mut Page, snapshot: &Snapshot) {
    let targets: Vec<(&str, &TargetView)> = snapshot
        .providers
        .iter()
        .map(|name| &**name)
        .zip(&snapshot.core.targets)
        .collect();
    let gauges: [Read<'_, TargetView, f64>; 3] = [
        (
            "gate_open",
            "1 while the provider takes calls, 0 while it asked us to wait, or its breaker is open.",
            |target| f64::from(u8::from(target.shut.is_none())),
        ),
        (
            "breaker_state",
            "0 closed, 1 half-open, 2 open.",
            |target| match target.breaker {
                "open" => 2.0,
                "half-open" => 1.0,
                _ => 0.0,
            },
        ),
        (
            "retry_budget_tokens",
            "What is left of the budget for calls made again.",
            |target| target.retry_tokens,
        ),
    ];
    for (name, help, value) in gauges {
        let rows = targets
            .iter()
            .map(|(name, target)| ([*name], value(target)));
        page.gauges(name, help, ["provider"], rows);
    }
    let events = targets.iter().flat_map(|(name, target)| {
        [
            ([*name, "cut"], target.cuts as f64),
            ([*name, "raised"], target.raised as f64),
        ]
    });
    page.counters(
        "limit_events_total",
        "How often a provider's limit was cut, and by how many calls it has grown.",
        ["provider", "event"],
        events,
    );
    let changes = targets.iter().flat_map(|(name, target)| {
        let changes = target.breaker_changes;
        [
            ([*name, "closed"], changes.closed as f64),
            ([*name, "half-open"], changes.half_opened as f64),
            ([*name, "open"], changes.opened as f64),
        ]
    });
    page.counters(
        "breaker_transitions_total",
        "How often a provider's breaker has changed, by what it became.",
        ["provider", "to"],
        changes,
    );
}

fn pools(page: &mut Page, pools: &[(Arc<str>, PoolStats)]) {
    let connections = pools.iter().flat_map(|(name, stats)| {
        [
            ([&**name, "active"], stats.active as f64),
            ([&**name, "idle"], stats.idle as f64),
        ]
    });
    page.gauges(
        "pool_connections",
        "Connections to a provider.",
        ["provider", "state"],
        connections,
    );
    let max = pools
        .iter()
        .map(|(name, stats)| ([&**name], stats.max as f64));
    page.gauges(
        "pool_max_connections",
        "Connections that are kept at most.",
        ["provider"],
        max,
    );
    let counters: [Read<'_, PoolStats, u64>; 5] = [
        ("pool_checkouts_total", "Calls begun.", |stats| {
            stats.checkouts
        }),
        (
            "pool_reused_total",
            "Calls that found a connection.",
            |stats| stats.reused,
        ),
        ("pool_checkins_total", "Calls ended.", |stats| {
            stats.checkins
        }),
        (
            "pool_failed_total",
            "Calls that left no connection that can be used again.",
            |stats| stats.failed,
        ),
        (
            "pool_recycled_total",
            "Connections closed for their age, or for want of a place.",
            |stats| stats.recycled,
        ),
    ];
    for (name, help, value) in counters {
        let rows = pools
            .iter()
            .map(|(name, stats)| ([&**name], value(stats) as f64));
        page.counters(name, help, ["provider"], rows);
    }
}
