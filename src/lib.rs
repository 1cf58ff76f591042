//! Pointsman: one local server between many agents and their language-model providers.
//!
//! A *pointsman* sets the points on a railway and works the semaphores, so that no two trains meet on one block. This
//! program does that for calls to language models. It is a synchronous thread-pool server and library: no async
//! runtime, no globals, and nothing that waits without a deadline.
//!
//! ```no_run
//! use pointsman::{Call, ChatRequest, Config, Gateway};
//!
//! let gateway = Gateway::start(Config::find(None)?)?;
//!
//! // In this process:
//! let reply = gateway.chat(ChatRequest::new("auto").user("Say hello"))?;
//! let entry = gateway.execute(Call::on("kimi"), |ctx| look_up(7, ctx.time_left()))?;
//! # let _ = (reply, entry);
//!
//! // For others on this box:
//! let server = gateway.serve()?;
//! println!("listening on http://{}", server.address());
//! # std::thread::park();
//! # fn look_up(_: u32, _: std::time::Duration) -> Result<(), std::io::Error> { Ok(()) }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The picture
//!
//! ```text
//!  client -> http ---+                                                          +-> kimi
//!  library call -----+-> Engine::submit(JobSpec) -> admission core -> ready ----+-> glm      (ureq, cancellable
//!                             |                     (one lock:         channels |-> any OpenAI-wire endpoint   socket)
//!                             |                      lines, slots)     high/    +-> embedded
//!                             v                          ^             medium/       |
//!                         JobHandle                      |              low          |
//!                       wait / cancel                    |               v           |
//!                             ^                          |          N workers: run ONE call under its permit
//!                             +--- pieces and end -------+-------------- outcome <---+
//!                                                        |
//!                                                    watchdog: ticks the core at its next deadline
//! ```
//!
//! # The house
//!
//! Lowest first; the `mod` lines below stand in this order. A part uses only parts below it, and of those only the ones
//! that its row in `tests/architecture.rs` names.
//!
//! | part | what |
//! |---|---|
//! | [`clock`] | the only place that reads the time |
//! | [`cancel`] | a word said once and heard everywhere below |
//! | [`chat`] | the neutral vocabulary of questions, answers and pieces |
//! | [`config`] | every knob, with unit, default and range |
//! | [`wire`] | OpenAI's JSON and event streams, both ways: the only place that knows them |
//! | [`client`] | a small HTTP client for our own errands |
//! | [`door`] | an HTTP/1.1 server for blocking handlers; knows no route and no engine |
//! | [`telemetry`] | the lifecycle log, in memory and as a file; the phases of each request, its log line, the timeline; metrics and alerts; what is seen of the box |
//! | [`admission`] | the core: who runs, who waits, who is refused. A plain state machine |
//! | [`throttle`] | how much of the global limit the load of the box leaves. A plain state machine |
//! | [`providers`] | those who answer, and the transport to them |
//! | [`routing`] | from the name of a model to where the call goes |
//! | [`engine`] | workers, watchdog and jobs around the core |
//! | [`http`] | the API: routes, errors, status codes; resends that join a running call |
//! | [`gateway`] | all of it as one value: built bottom-up, stopped top-down |
//! | [`loadtest`] | load on a running server, and what became of it. A client: never sees the engine |
//! | [`cli`] | the program |
//! | `cuts` (the lowest), `fuzz` | for tests and fuzzers only: what must hold whatever anybody sends |
//!
//! # Invariants
//!
//! 1. **In flight never exceeds a limit**: global, provider, session. Slots are taken under one lock, after the limits
//!    were looked at, and counted by a ledger.
//! 2. **Whoever waits holds nothing.** Slots are taken all or none, at the moment of the start; a waiting job is only data. So
//!    a provider that stands still can't take slots from another's callers.
//! 3. **Each permit is freed exactly once**, by its guard's drop. A ledger row has a generation: a late return changes
//!    nothing and is counted.
//! 4. **Every job ends exactly once**: completed, error, timeout, cancelled or refused. The first event under the lock
//!    wins, and each step is in the lifecycle log before anyone can see it.
//! 5. **Nothing starts after its deadline**: it is looked at when a job starts, and again when its worker begins. Nor
//!    through a gate that is shut or a breaker that is open, and nothing is tried again without budget, or after content.
//! 6. **Work is conserved**: after each step of the core no idle worker meets an eligible job.
//! 7. **Every wait has a deadline and a cancel token**, everything has a bound, and every bound is a knob.
//! 8. **Every thread has a name and an owner** and is joined; one that doesn't come back is counted and said. A panic ends one
//!    job, not one thread.
//! 9. **Stopping has two stages**: quiet, then stop by deadline; nothing accepted is lost silently.
//! 10. **The books can be audited** at any moment ([`engine::Engine::audit`]), and `/healthz` does.

#[cfg(any(test, fuzzing))]
mod cuts;

pub mod clock;

pub mod cancel;

pub mod chat;

pub mod config;

pub mod wire;

pub mod client;

pub mod door;

pub mod telemetry;

pub mod admission;

pub mod throttle;

pub mod providers;

pub mod routing;

pub mod engine;

pub mod http;

pub mod gateway;

pub mod loadtest;

pub mod cli;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;

pub use cancel::{CancelReason, CancelToken};
pub use chat::{ChatReply, ChatRequest, Piece};
pub use config::{Changes, Config, Priority, Profile};
pub use gateway::{
    Call, CallContext, ChatError, ChatHandle, ChatStream, ConfigSource, ExecuteError, Gateway, Job,
    Level, ReloadError, Server, StartError, Unhealthy,
};
