//! The shell around the admission core: workers, watchdog, jobs and their handles.

mod job;

pub use job::{Call, JobEnd, JobSpec, Phases, Refusal, Sink, SinkGone, Speaker, Verdict};
