//! What happened, for those who look: the lifecycle log in memory, the line that each request leaves in the log, metrics.
//!
//! Telemetry is told and never asks: it knows no engine and no provider, takes plain values, and decides nothing. The
//! [`LifecycleLog`] keeps the latest steps of all requests, to be asked for by request id; it is bounded by count and
//! by age. A [`RequestLine`] is the one line that a request leaves at `info`, with where its time went. [`Metrics`] count for
//! Prometheus. An [`AlertBook`] says what of all that is worth telling somebody.

mod alerts;
mod grafana;
mod lifecycle;
mod log_line;
mod metrics;

pub use alerts::{
    Alert, AlertBook, Change, PoolUse, Sample, Told, Transition, Watch, prometheus_rules,
};
pub use grafana::grafana_dashboard;
pub use lifecycle::{Event, LifecycleLog, Statistics, Step, Subject};
pub use log_line::RequestLine;
pub use metrics::{
    CONTENT_TYPE, CallTimes, Ended, Metrics, Page, Recovery, Rejection, Row, SemaphoreType, TimeUp,
    TokensUsed, Totals, WaitEnd, class_word,
};
