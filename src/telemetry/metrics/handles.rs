//! Every handle: what is counted where it happens.

use std::sync::Arc;

use prometheus::{Histogram, IntCounter, IntGauge};

use super::table::{Label, Maker, Table};
use super::tokens::Tokens;
use super::words::{
    CLASSES, CLASSES_OR_NONE, CODES, OUTCOMES, PHASES, Recovery, Rejection, SemaphoreType,
    TROUBLES, TimeUp, WaitEnd,
};

/// As they were asked for: of waits for slots.
const SEMAPHORE_WAITS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
/// From a local answer in a millisecond to one that thinks for minutes.
const DURATIONS: &[f64] = &[
    0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 240.0, 420.0,
];
/// Up to the longest wait in line that is usual.
const QUEUE_WAITS: &[f64] = &[0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0];
/// Of what should take no time at all.
const DELAYS: &[f64] = &[0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// Where a semaphore's own name of a provider stands for none in particular.
const ALL: &str = "all";

/// One handle for each semaphore.
#[derive(Debug)]
pub(super) struct BySemaphore<M>(Vec<M>);

impl<M> BySemaphore<M> {
    /// The handle; `provider` counts for those of providers alone.
    pub(super) fn at(&self, kind: SemaphoreType, provider: usize) -> Option<&M> {
        self.0.get(match kind {
            SemaphoreType::Global => 0,
            SemaphoreType::Session => 1,
            // The first row stands for no provider.
            SemaphoreType::Provider => 2 + provider.checked_sub(1)?,
        })
    }
}

/// See the story of this folder. Indices of providers are rows, as in [`Metrics`](super::Metrics).
#[derive(Debug)]
pub(super) struct Handles {
    pub(super) make: Arc<Maker>,
    /// By row.
    pub(super) names: Vec<Arc<str>>,
    pub(super) requests: Requests,
    pub(super) slots: Slots,
    pub(super) times: Times,
}

/// What became of requests and calls.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) ended: Table<IntCounter, 3>,
    pub(super) rejected: Table<IntCounter, 2>,
    pub(super) time_up: Table<IntCounter, 1>,
    pub(super) retries: Table<IntCounter, 2>,
    pub(super) upstream: Table<IntCounter, 2>,
    pub(super) tokens: Arc<Tokens>,
}

/// Slots and those who look after them.
#[derive(Debug)]
pub(super) struct Slots {
    pub(super) leaks: Table<IntCounter, 1>,
    pub(super) recoveries: Table<IntCounter, 2>,
    pub(super) acquisition_failures: BySemaphore<IntCounter>,
    pub(super) current: BySemaphore<IntGauge>,
    pub(super) expected: BySemaphore<IntGauge>,
    pub(super) quarantined: BySemaphore<IntGauge>,
    pub(super) concurrent: Table<IntGauge, 1>,
    pub(super) reclaimed: IntCounter,
    pub(super) abandoned: IntGauge,
    pub(super) workers_lost: IntGauge,
}

/// How long things take.
#[derive(Debug)]
pub(super) struct Times {
    pub(super) semaphore_wait: Table<Histogram, 1>,
    pub(super) request: Table<Histogram, 2>,
    pub(super) first_byte: Table<Histogram, 1>,
    pub(super) phases: Table<Histogram, 1>,
    pub(super) queue_wait: Table<Histogram, 3>,
    pub(super) pool_wait: Table<Histogram, 1>,
    pub(super) overshoot: Histogram,
    pub(super) tick_delay: Histogram,
}

const CLASS: Label<'_> = ("class", CLASSES);
const SEMAPHORE: Label<'_> = ("semaphore_type", SemaphoreType::WORDS);

impl Handles {
    /// `names` of rows; the first one stands for no provider. `models`: how many get counters of their own.
    pub(super) fn new(names: &[Arc<str>], models: usize) -> Handles {
        let make = Arc::<Maker>::default();
        let tokens = Arc::new(Tokens::new(&make, models));
        Handles::over(make, names, tokens)
    }

    /// The same, with other rows after the first ones; what was counted stays.
    pub(super) fn grown(&self, names: &[Arc<str>]) -> Handles {
        Handles::over(
            Arc::clone(&self.make),
            names,
            Arc::clone(&self.requests.tokens),
        )
    }

    fn over(make: Arc<Maker>, names: &[Arc<str>], tokens: Arc<Tokens>) -> Handles {
        tokens.grow(names);
        let words: Vec<&str> = names.iter().map(|name| &**name).collect();
        Handles {
            requests: Requests::new(&make, &words, tokens),
            slots: Slots::new(&make, &words),
            times: Times::new(&make, &words),
            names: names.to_vec(),
            make,
        }
    }
}

impl Requests {
    fn new(make: &Maker, names: &[&str], tokens: Arc<Tokens>) -> Requests {
        let provider: Label<'_> = ("provider", names);
        Requests {
            ended: make.counters(
                "requests_total",
                "Requests that ended, by how.",
                [CLASS, provider, ("outcome", OUTCOMES)],
            ),
            rejected: make.counters(
                "rejected_total",
                "Requests that were turned away, by why.",
                [("class", CLASSES_OR_NONE), ("reason", Rejection::WORDS)],
            ),
            time_up: make.counters(
                "deadline_exceeded_total",
                "Requests whose time was over, by which time and how far they had come.",
                [("phase", TimeUp::WORDS)],
            ),
            retries: make.counters(
                "retries_total",
                "Calls made again, by where the one before had failed and why.",
                [provider, ("reason", TROUBLES)],
            ),
            upstream: make.counters(
                "upstream_responses_total",
                "Chat calls by what the provider answered; none: nothing, or not in time.",
                [provider, ("code", CODES)],
            ),
            tokens,
        }
    }
}

impl Slots {
    fn new(make: &Maker, names: &[&str]) -> Slots {
        let semaphores = semaphores(names);
        let labels = ["semaphore_type", "provider"];
        let gauges =
            |name: &str, help: &str| BySemaphore(make.gauges_of(name, help, labels, &semaphores));
        Slots {
            leaks: make.counters(
                "semaphore_leaks_detected_total",
                "Slots whose holder was gone.",
                [SEMAPHORE],
            ),
            recoveries: make.counters(
                "semaphore_recoveries_total",
                "Repairs of leaks, by what became of them.",
                [SEMAPHORE, ("status", Recovery::WORDS)],
            ),
            acquisition_failures: BySemaphore(make.counters_of(
                "semaphore_acquisition_failures_total",
                "Requests that got no slot, by which had none.",
                labels,
                &semaphores,
            )),
            current: gauges(
                "semaphore_current_value",
                "Slots that are free or have a living owner; less than the expected value is a leak.",
            ),
            expected: gauges(
                "semaphore_expected_value",
                "The limit, or what is in use while a lowered limit drains.",
            ),
            quarantined: gauges(
                "slots_quarantined",
                "Slots of calls that did not end when they should have.",
            ),
            concurrent: make.gauges(
                "concurrent_requests",
                "Calls in flight.",
                [("provider", names)],
            ),
            reclaimed: make.counter(
                "permits_reclaimed_total",
                "Slots taken back from calls that did not end, or found held by nobody.",
            ),
            abandoned: make.gauge(
                "abandoned_calls",
                "Functions that were given up on and still run.",
            ),
            workers_lost: make.gauge(
                "workers_lost",
                "Workers that were lost and have not come back.",
            ),
        }
    }
}

impl Times {
    fn new(make: &Maker, names: &[&str]) -> Times {
        let provider: Label<'_> = ("provider", names);
        Times {
            semaphore_wait: make.histograms(
                "semaphore_wait_seconds",
                "From the receipt of a request until it has its slots, which are taken together.",
                SEMAPHORE_WAITS,
                [SEMAPHORE],
            ),
            request: make.histograms(
                "request_duration_seconds",
                "From the receipt of a request to its end.",
                DURATIONS,
                [CLASS, provider],
            ),
            first_byte: make.histograms(
                "first_byte_seconds",
                "From a connection that stands to the first byte of the answer.",
                DURATIONS,
                [provider],
            ),
            phases: make.histograms(
                "phase_seconds",
                "Where the time of requests went, in the figures of Server-Timing; a request counts for the phases that it had.",
                DURATIONS,
                [("phase", PHASES)],
            ),
            queue_wait: make.histograms(
                "queue_wait_seconds",
                "From the receipt of a request to its first start, or to its end in line.",
                QUEUE_WAITS,
                [CLASS, provider, ("result", WaitEnd::WORDS)],
            ),
            pool_wait: make.histograms(
                "pool_wait_seconds",
                "From the start of a call until its connection stands; next to nothing for one that is reused.",
                SEMAPHORE_WAITS,
                [provider],
            ),
            overshoot: make.histogram(
                "deadline_overshoot_seconds",
                "How long after its deadline a request's end was decided.",
                DELAYS,
            ),
            tick_delay: make.histogram(
                "watchdog_tick_delay_seconds",
                "How much later than it should the watchdog woke up.",
                DELAYS,
            ),
        }
    }
}

/// The labels of each semaphore, in the order of [`BySemaphore`].
fn semaphores<'a>(names: &[&'a str]) -> Vec<[&'a str; 2]> {
    // The first name stands for no provider: there is no semaphore of it.
    let providers = names.iter().skip(1);
    let of_provider = |name: &&'a str| [SemaphoreType::Provider.word(), *name];
    let shared = [SemaphoreType::Global, SemaphoreType::Session].map(|kind| [kind.word(), ALL]);
    shared
        .into_iter()
        .chain(providers.map(of_provider))
        .collect()
}
