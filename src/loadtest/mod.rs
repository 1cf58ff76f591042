//! Load on a running server, and the truth about what became of it.
//!
//! ```text
//!  Schedule --ticket--> caller 1..N: exchange (client, wire) --Outcome--> Recorder, one per caller --merge--> Report
//! ```
//!
//! | file | what it answers for |
//! |---|---|
//! | `plan.rs` | what is asked for |
//! | `schedule.rs` | which request is due when; pure |
//! | `exchange.rs` | one request and its answer, over the wire |
//! | `outcome.rs` | what a request's end counts as; pure |
//! | `recorder.rs` | counts and histograms |
//! | `driver.rs` | the callers' threads |
//! | `report.rs` | text and JSON |
//!
//! **What is proven.** Each question carries an id of its own, which nobody could know before, and asks for it back. An
//! answer counts as *answered* only if the id stands in its text: so the question reached whoever wrote the answer. A cache,
//! a mix-up between two requests or an answer from nowhere counts as *unproven*, which is a failure.
//!
//! **What is measured.** In a closed loop each caller sends its next request when it has its last answer, and times run from the sending.
//! At a fixed rate requests are due at their times whether or not the server keeps up, and times run from when a
//! request was *due*: a server that stalls can't hide the requests that it kept from being sent. The callers are then the
//! bound on what is outstanding; how late they were is reported.
//!
//! **Threads.** `pointsman-load-N` is a caller: it owns its client, with one connection, and its recorder, and shares
//! the schedule and a few counters. `pointsman-merge-N` adds up the recorders where there are many. The thread that
//! runs the test waits for the callers, tells of the progress, and joins them all. Cancelling the token ends every
//! wait of theirs: between two requests and, by shutting its socket, in one.

mod driver;
mod exchange;
mod outcome;
mod plan;
mod recorder;
mod report;
mod schedule;
#[cfg(test)]
mod tests;

pub use driver::{LoadError, Progress, run};
pub use outcome::Outcome;
pub use plan::{Extent, Form, Plan};
pub use recorder::Quantiles;
pub use report::Report;
