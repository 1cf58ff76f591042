//! What a page of metrics shows of the engine at the moment of the scrape: read from the core, the pools and the
//! sessions, which count it for themselves.

use std::sync::Arc;

use super::health;
use super::shell::{NOBODY, Target};
use super::{Engine, PoolStats, SemaphoreView, SlotState, Snapshot, TargetView};
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
        let semaphores = self.update_semaphores();
        metrics.update_workers_lost(snapshot.workers.lost);
        let mut page = metrics.page()?;
        slots(&mut page, &snapshot, &semaphores);
        lines(&mut page, &snapshot);
        threads(&mut page, &snapshot);
        audits(&mut page, &snapshot);
        targets(&mut page, &snapshot);
        changes(&mut page, &self.every_target());
        pools(&mut page, &self.pools());
        self.load(&mut page);
        Some(page)
    }

    /// The values that were asked for by name. A slot whose holder is given up on has no living owner; what is wrong
    /// besides is found, and said, by the health check. One who is gone has nothing once its last call is back.
    fn update_semaphores(&self) -> Vec<SemaphoreView> {
        let (shell, metrics) = (&self.shell, &self.shell.metrics);
        // In this order: what the core knows has its row in a table that is taken later.
        let (view, ledger) = shell.look(|core, now| (core.view(now), core.ledger()));
        let table = shell.targets();
        for (row, provider) in view.providers.iter().enumerate() {
            metrics.update_concurrent_requests(row, provider.in_use);
        }
        let semaphores = health::semaphores(shell, &view, &ledger);
        for semaphore in &semaphores {
            let kinds = SemaphoreType::ALL.iter();
            let Some(kind) = kinds.copied().find(|kind| kind.word() == semaphore.kind) else {
                continue;
            };
            let is_row = |target: &Target| target.name == semaphore.provider;
            let row = table.iter().position(is_row).unwrap_or(NOBODY);
            let is_over = table[row].is_gone && semaphore.in_use == 0;
            let there = |slots: usize| if is_over { 0 } else { slots };
            let (current, expected) = (there(semaphore.current), there(semaphore.expected));
            metrics.update_semaphore_values(kind, row, current, expected);
            metrics.update_quarantined(kind, row, expected - current);
        }
        let abandoned = ledger.iter().filter(|slot| slot.state == SlotState::Free);
        metrics.update_abandoned_calls(abandoned.count());
        semaphores
    }

    /// Whoever could ever be called, with what is counted of it.
    fn every_target(&self) -> Vec<(Arc<str>, TargetView)> {
        let view = self.shell.look(|core, now| core.view(now));
        let table = self.shell.targets();
        let named = table.iter().zip(view.targets);
        let named = named.filter_map(|(target, view)| Some((target.name.clone()?, view)));
        named.collect()
    }

    /// The box and this process, as they were seen last.
    fn load(&self, page: &mut Page) {
        page.gauge(
            "load_level",
            "How loaded the box is: 0 low, 1 normal, 2 high, 3 critical, 4 emergency.",
            f64::from(self.box_level() as u8),
        );
        let help = "The global limit that the load of the box leaves.";
        page.gauge("throttle_limit", help, self.throttle().limit as f64);
        let Some(seen) = self.resources() else { return };
        let process = &seen.process;
        if let Some(seconds) = process.cpu_s {
            let help = "Processor time that this process took.";
            page.counter("process_cpu_seconds_total", help, seconds);
        }
        for (name, help, value) in [
            (
                "process_resident_memory_bytes",
                "Memory that this process has in use.",
                process.resident_bytes,
            ),
            (
                "process_threads",
                "Threads of this process.",
                process.threads,
            ),
            (
                "process_open_fds",
                "File handles that this process has open.",
                process.open_files,
            ),
        ] {
            if let Some(value) = value {
                page.gauge(name, help, value as f64);
            }
        }
    }
}

fn slots(page: &mut Page, snapshot: &Snapshot, semaphores: &[SemaphoreView]) {
    let core = &snapshot.core;
    let labels = ["semaphore_type", "provider"];
    let row = |kind: SemaphoreType, name, value: usize| ([kind.word(), name], value as f64);
    let session = SemaphoreType::Session;
    let session_view = semaphores.iter().find(|one| one.kind == session.word());
    let (session_limit, session_in_use) =
        session_view.map_or((core.session_limit, 0), |view| (view.limit, view.in_use));
    let views = snapshot.providers.iter().zip(&core.providers);
    let targets = snapshot.providers.iter().zip(&core.targets);
    let mut limits: Vec<Row<'_, 2>> = vec![
        row(SemaphoreType::Global, "all", core.limit_now),
        row(session, "all", session_limit),
    ];
    // What the provider takes now, which may be less than what is configured.
    limits.extend(targets.map(|(name, view)| row(SemaphoreType::Provider, &**name, view.limit)));
    page.gauges(
        "slots_limit",
        "Slots that may be held now, for the load of the box and what a provider takes; of each session.",
        labels,
        limits,
    );
    let mut in_use: Vec<Row<'_, 2>> = vec![
        row(SemaphoreType::Global, "all", core.in_use),
        row(session, "all", session_in_use),
    ];
    in_use.extend(views.map(|(name, view)| row(SemaphoreType::Provider, &**name, view.in_use)));
    page.gauges(
        "slots_in_use",
        "Slots that are held; of sessions, in the one that holds most.",
        labels,
        in_use,
    );
    let turnover = core.turnover;
    for (name, help, count) in [
        (
            "permits_acquired_total",
            "Permits given out.",
            turnover.taken,
        ),
        (
            "permits_released_total",
            "Permits that came back.",
            turnover.given_back,
        ),
        (
            "late_releases_total",
            "Permits that came back after their slot had been taken back; they change nothing.",
            turnover.late_returns,
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
    let crew = &snapshot.workers;
    page.gauges(
        "workers",
        "Threads that run calls.",
        ["state"],
        [
            (["busy"], crew.alive.saturating_sub(crew.idle) as f64),
            (["idle"], crew.idle as f64),
            (["lost"], crew.lost as f64),
        ],
    );
    let help = "Workers that were lost and replaced.";
    page.counter("workers_replaced_total", help, crew.replaced as f64);
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

fn audits(page: &mut Page, snapshot: &Snapshot) {
    let health = &snapshot.health;
    let help = "How often the books were audited.";
    page.counter("audit_runs_total", help, health.audits as f64);
    let help = "Audits that found a difference.";
    page.counter("audit_mismatch_total", help, health.mismatches as f64);
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
}

/// What has changed at targets; of those who are gone too, since a counter does not go away.
fn changes(page: &mut Page, targets: &[(Arc<str>, TargetView)]) {
    let events = targets.iter().flat_map(|(name, target)| {
        [
            ([&**name, "cut"], target.cuts as f64),
            ([&**name, "raised"], target.raised as f64),
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
            ([&**name, "closed"], changes.closed as f64),
            ([&**name, "half-open"], changes.half_opened as f64),
            ([&**name, "open"], changes.opened as f64),
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
