//! The program seen from outside, over real sockets: a chapter per feature, and what the chapters share.

mod support;

#[path = "chapters/alerts.rs"]
mod alerts;
#[path = "chapters/answers.rs"]
mod answers;
#[path = "chapters/clients.rs"]
mod clients;
#[path = "chapters/commands.rs"]
mod commands;
#[path = "chapters/dashboard.rs"]
mod dashboard;
#[path = "chapters/deadlines.rs"]
mod deadlines;
#[path = "chapters/embedded.rs"]
mod embedded;
#[path = "chapters/embedding.rs"]
mod embedding;
#[path = "chapters/execute.rs"]
mod execute;
#[path = "chapters/failures.rs"]
mod failures;
#[path = "chapters/faults.rs"]
mod faults;
#[path = "chapters/faulty_answers.rs"]
mod faulty_answers;
#[path = "chapters/floods.rs"]
mod floods;
#[path = "chapters/keys.rs"]
mod keys;
#[path = "chapters/learning.rs"]
mod learning;
#[path = "chapters/lifecycle.rs"]
mod lifecycle;
#[path = "chapters/limits.rs"]
mod limits;
#[path = "chapters/lines.rs"]
mod lines;
#[path = "chapters/live.rs"]
mod live;
#[path = "chapters/metrics.rs"]
mod metrics;
#[path = "chapters/models.rs"]
mod models;
#[path = "chapters/orphans.rs"]
mod orphans;
#[path = "chapters/pools.rs"]
mod pools;
#[path = "chapters/processes.rs"]
mod processes;
#[path = "chapters/reloading.rs"]
mod reloading;
#[path = "chapters/resends.rs"]
mod resends;
#[path = "chapters/retries.rs"]
mod retries;
#[path = "chapters/service.rs"]
mod service;
#[path = "chapters/silence.rs"]
mod silence;
#[path = "chapters/stopping.rs"]
mod stopping;
#[path = "chapters/stories.rs"]
mod stories;
#[path = "chapters/storms.rs"]
mod storms;
#[path = "chapters/throttling.rs"]
mod throttling;
#[path = "chapters/tls.rs"]
mod tls;
