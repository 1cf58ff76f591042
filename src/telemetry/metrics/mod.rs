//! Metrics for Prometheus: what happened is counted where it happens, what is so is read when somebody asks.
//!
//! ```text
//!  worker, watchdog, submitter --record_...--> handles (atomics) --+
//!                                                                  +--> Page --> GET /metrics
//!  engine's snapshot, pools, sources ------ read at the scrape ----+
//! ```
//!
//! * **Nothing is counted twice.** What the core, the pools or the lifecycle log count already is read from them when a
//!   page is made; a gauge that is read can't be left behind by a path that forgot to lower it.
//! * **No look-up per request.** Every handle is made beforehand and found by index: providers, classes and fixed words are
//!   all the labels there are, so no client can make a page grow. The one exception is tokens by model, which are
//!   bounded by `telemetry.metric_models`; there is one look-up for each call that ends well. Only a reload that brings
//!   a new provider makes further handles, and exchanges them under a lock that records share.
//! * **No global.** Each gateway has its own registry, so several live in one process.
//! * **Switched off** (`telemetry.metrics = false`) a record is one comparison.
//!
//! Times are in seconds, names begin with `pointsman_`, and only what never goes down ends in `_total`.

mod handles;
mod page;
mod table;
mod tokens;
mod totals;
mod words;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{RwLock, RwLockReadGuard};

use self::handles::Handles;
use crate::config::{Priority, Telemetry};
use crate::telemetry::{Phases, Step};

pub use page::{CONTENT_TYPE, Page, Row};
pub use tokens::TokensUsed;
pub use totals::Totals;
pub use words::{Recovery, Rejection, SemaphoreType, TimeUp, WaitEnd, class_word};

/// Where the provider's name stands for none.
const NONE: &str = "none";

/// Puts values on a page when it is made.
type Source = Box<dyn Fn(&mut Page) + Send + Sync>;

/// Everything that is counted of one gateway. Providers are named by their row: 0 stands for none, then come those of
/// [`Metrics::new`], and then those that [`Metrics::know`] brought. A row that nobody has is counted nowhere.
///
/// ```
/// use pointsman::config::{Config, Profile};
/// use pointsman::telemetry::{Metrics, SemaphoreType};
///
/// let metrics = Metrics::new(&["kimi".into()], &Config::builtin(Profile::Dev).telemetry);
/// metrics.record_semaphore_leak(SemaphoreType::Global, 24, 23);
/// let page = metrics.page().expect("they are on").text();
/// let page = String::from_utf8(page)?;
/// assert!(page.contains("pointsman_semaphore_leaks_detected_total{semaphore_type=\"global\"} 1\n"));
/// # Ok::<(), std::string::FromUtf8Error>(())
/// ```
pub struct Metrics {
    handles: Option<RwLock<Handles>>,
    sources: RwLock<Vec<Source>>,
}

/// What became of a request.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Its class.
    pub class: Priority,
    /// The provider that it was last meant for, by row.
    pub provider: usize,
    /// How: a step that [is an end](Step::is_end).
    pub end: Step,
    /// Where its time went.
    pub phases: Phases,
}

/// Where the time of a call went.
#[derive(Debug, Clone, Copy)]
pub struct CallTimes {
    /// The provider, by row.
    pub provider: usize,
    /// Until its connection stood; `None` if it never did, or none was needed.
    pub connect: Option<Duration>,
    /// From then to the first byte; `None` if there was none.
    pub first_byte: Option<Duration>,
}

impl Metrics {
    /// Metrics of a gateway with these providers.
    pub fn new(providers: &[Arc<str>], config: &Telemetry) -> Metrics {
        let handles = || RwLock::new(Handles::new(&rows(providers), config.metric_models));
        Metrics {
            handles: config.metrics.then(handles),
            sources: RwLock::default(),
        }
    }

    /// There are these providers from now on: those that there were, in the same order, and others after them. What was
    /// counted stays, of those who are gone too.
    pub fn know(&self, providers: &[Arc<str>]) {
        let Some(handles) = &self.handles else { return };
        let names = rows(providers);
        if handles.read().names != names {
            let grown = handles.read().grown(&names);
            *handles.write() = grown;
        }
    }

    fn handles(&self) -> Option<RwLockReadGuard<'_, Handles>> {
        self.handles.as_ref().map(RwLock::read)
    }

    /// Whether anything is counted.
    pub fn is_on(&self) -> bool {
        self.handles.is_some()
    }

    /// Has `source` put its values on every page. It is called at each scrape, must be quick, and must not hold what
    /// holds these metrics.
    pub fn add_source(&self, source: impl Fn(&mut Page) + Send + Sync + 'static) {
        self.sources.write().push(Box::new(source));
    }

    /// A page with all that was counted and all that the sources say; `None` while metrics are switched off.
    pub fn page(&self) -> Option<Page> {
        let registry = self.handles()?.make.registry().clone();
        let mut page = Page::of(registry.gather());
        let version = [([env!("CARGO_PKG_VERSION")], 1.0)];
        page.gauges(
            "build_info",
            "Which pointsman this is.",
            ["version"],
            version,
        );
        for source in self.sources.read().iter() {
            source(&mut page);
        }
        Some(page)
    }

    /// What alerts go by; `None` while metrics are switched off.
    pub fn totals(&self) -> Option<Totals> {
        let handles = self.handles()?;
        Some(Totals::of(&handles))
    }

    /// A request ended.
    pub fn record_end(&self, ended: &Ended) {
        let Some(handles) = self.handles() else {
            return;
        };
        let (class, provider) = (ended.class.index(), ended.provider);
        if let Some(outcome) = words::place_of_end(ended.end) {
            count(handles.requests.ended.at([class, provider, outcome]));
        }
        let total = ended.phases.total;
        observe(handles.times.request.at([class, provider]), total);
        // The figures that header, log and pages show; a phase that the request did not have is not counted for it.
        let figures = ended.phases.figures().map(|(_, figure)| figure);
        let lengths = ended.phases.lengths();
        for (place, (length, figure)) in lengths.into_iter().zip(figures).enumerate() {
            if let Some(histogram) = handles.times.phases.at([place])
                && !length.is_zero()
            {
                histogram.observe(figure.seconds());
            }
        }
    }

    /// A request was turned away; `class` where that is known.
    pub fn record_rejection(&self, class: Option<Priority>, why: Rejection) {
        let Some(handles) = self.handles() else {
            return;
        };
        let class = class.map_or(words::CLASSES.len(), Priority::index);
        count(handles.requests.rejected.at([class, why.index()]));
    }

    /// A request's time was over; by how much, where it is the deadline that was decided on late.
    pub fn record_time_up(&self, which: TimeUp, overshoot: Option<Duration>) {
        let Some(handles) = self.handles() else {
            return;
        };
        count(handles.requests.time_up.at([which.index()]));
        observe(
            overshoot.and(Some(&handles.times.overshoot)),
            overshoot.unwrap_or_default(),
        );
    }

    /// A wait in line ended, of a request of this class for this provider.
    pub fn record_queue_wait(
        &self,
        class: Priority,
        provider: usize,
        end: WaitEnd,
        waited: Duration,
    ) {
        let Some(handles) = self.handles() else {
            return;
        };
        let at = [class.index(), provider, end.index()];
        observe(handles.times.queue_wait.at(at), waited);
    }

    /// A call is over.
    pub fn record_call(&self, call: &CallTimes) {
        let Some(handles) = self.handles() else {
            return;
        };
        let at = [call.provider];
        let parts = [
            (call.connect, handles.times.pool_wait.at(at)),
            (call.first_byte, handles.times.first_byte.at(at)),
        ];
        for (took, histogram) in parts {
            if let Some(took) = took {
                observe(histogram, took);
            }
        }
    }

    /// A provider answered a chat with this status, or with nothing.
    pub fn record_response(&self, provider: usize, status: Option<u16>) {
        let Some(handles) = self.handles() else {
            return;
        };
        count(
            handles
                .requests
                .upstream
                .at([provider, words::place_of_code(status)]),
        );
    }

    /// A call is made again after one at `provider` failed; `why` in a fixed word, `other` if it is not foreseen.
    pub fn record_retry(&self, provider: usize, why: &str) {
        let Some(handles) = self.handles() else {
            return;
        };
        count(
            handles
                .requests
                .retries
                .at([provider, words::place(words::TROUBLES, why)]),
        );
    }

    /// A provider said how many tokens an answer of `model` took.
    pub fn record_tokens(&self, provider: usize, model: &str, used: TokensUsed) {
        if let Some(handles) = self.handles() {
            handles.requests.tokens.record(provider, model, used);
        }
    }

    /// Slots have no living owner: `actual` are there where `expected` should be.
    pub fn record_semaphore_leak(&self, kind: SemaphoreType, expected: usize, actual: usize) {
        let Some(handles) = self.handles() else {
            return;
        };
        let missing = expected.saturating_sub(actual) as u64;
        if let Some(leaks) = handles.slots.leaks.at([kind.index()]) {
            leaks.inc_by(missing);
        }
    }

    /// A leak was repaired, or not; `recovered` slots are free again. Each of them is one of the global semaphore's, whose
    /// else it may be.
    pub fn record_semaphore_recovery(
        &self,
        kind: SemaphoreType,
        status: Recovery,
        recovered: usize,
    ) {
        let Some(handles) = self.handles() else {
            return;
        };
        count(handles.slots.recoveries.at([kind.index(), status.index()]));
        if kind == SemaphoreType::Global {
            handles.slots.reclaimed.inc_by(recovered as u64);
        }
    }

    /// How many slots are free or have a living owner, and how many there should be. `provider` counts for those of
    /// providers alone.
    pub fn update_semaphore_values(
        &self,
        kind: SemaphoreType,
        provider: usize,
        current: usize,
        expected: usize,
    ) {
        let Some(handles) = self.handles() else {
            return;
        };
        set(handles.slots.current.at(kind, provider), current);
        set(handles.slots.expected.at(kind, provider), expected);
    }

    /// A request has its slots, after so long; they are taken together, so each kind is recorded alike.
    pub fn record_semaphore_wait(&self, kind: SemaphoreType, waited: Duration) {
        if let Some(handles) = self.handles() {
            observe(handles.times.semaphore_wait.at([kind.index()]), waited);
        }
    }

    /// A request got no slot of this kind. `provider` counts for those of providers alone.
    pub fn record_semaphore_acquisition_failure(&self, kind: SemaphoreType, provider: usize) {
        if let Some(handles) = self.handles() {
            count(handles.slots.acquisition_failures.at(kind, provider));
        }
    }

    /// So many calls are in flight at a provider.
    pub fn update_concurrent_requests(&self, provider: usize, calls: usize) {
        if let Some(handles) = self.handles() {
            set(handles.slots.concurrent.at([provider]), calls);
        }
    }

    /// So many slots belong to calls that did not end when they should have. `provider` as in
    /// [`Metrics::update_semaphore_values`].
    pub fn update_quarantined(&self, kind: SemaphoreType, provider: usize, slots: usize) {
        if let Some(handles) = self.handles() {
            set(handles.slots.quarantined.at(kind, provider), slots);
        }
    }

    /// So many functions were given up on and still run.
    pub fn update_abandoned_calls(&self, calls: usize) {
        if let Some(handles) = self.handles() {
            set(Some(&handles.slots.abandoned), calls);
        }
    }

    /// So many workers are lost, and have not come back.
    pub fn update_workers_lost(&self, workers: usize) {
        if let Some(handles) = self.handles() {
            set(Some(&handles.slots.workers_lost), workers);
        }
    }

    /// The watchdog woke up so much later than it should have.
    pub fn record_tick_delay(&self, delay: Duration) {
        if let Some(handles) = self.handles() {
            observe(Some(&handles.times.tick_delay), delay);
        }
    }
}

/// The names of rows: the first one is nobody's.
fn rows(providers: &[Arc<str>]) -> Vec<Arc<str>> {
    let none = [Arc::from(NONE)];
    none.into_iter().chain(providers.iter().cloned()).collect()
}

fn count(counter: Option<&prometheus::IntCounter>) {
    if let Some(counter) = counter {
        counter.inc();
    }
}

fn set(gauge: Option<&prometheus::IntGauge>, value: usize) {
    if let Some(gauge) = gauge {
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    }
}

fn observe(histogram: Option<&prometheus::Histogram>, took: Duration) {
    if let Some(histogram) = histogram {
        histogram.observe(took.as_secs_f64());
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("is_on", &self.is_on())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
