//! What happened, for those who look: the lifecycle log in memory, the line that each request leaves in the log, metrics.
//!
//! Telemetry is told and never asks: it knows no engine and no provider, takes plain values, and decides nothing. The
//! [`LifecycleLog`] keeps the latest steps of all requests, to be asked for by request id; it is bounded by count and
//! by age, and may be written to a file as well. A [`RequestLine`] is the one line that a request leaves at `info`.
//! [`Phases`] are where its time went, wherever that is told. A [`Trace`] is the lifecycle log as a timeline. The
//! [`Monitor`] looks at the box and at this process, once per interval, and tells what it sees. [`Metrics`] count for
//! Prometheus. An [`AlertBook`] says what of all that is worth telling somebody.

mod alerts;
mod grafana;
mod hour;
mod journal;
mod lifecycle;
mod log_line;
mod metrics;
mod monitor;
mod phases;
mod quantiles;
mod rotation;
mod trace;

pub use alerts::{
    Alert, AlertBook, Change, PoolUse, Sample, Told, Transition, Watch, prometheus_rules,
};
pub use grafana::grafana_dashboard;
pub use hour::Ends;
pub use journal::FileStatistics;
pub use lifecycle::{Event, LifecycleLog, Statistics, Step, Subject};
pub use log_line::RequestLine;
pub use metrics::{
    CONTENT_TYPE, CallTimes, Ended, Metrics, Page, Recovery, Rejection, Row, SemaphoreType, TimeUp,
    TokensUsed, Totals, WaitEnd, class_word,
};
pub use monitor::{HostView, Monitor, ProcessView, ResourceView};
pub use phases::{Figure, Phases};
pub use quantiles::PhaseQuantiles;
pub use trace::Trace;
