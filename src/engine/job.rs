//! What a job is, how it ends, and who is told.

use std::fmt;
use std::sync::Arc;

use super::plan::Plan;
use super::task::{ChatTask, Task};
use crate::admission::{Obstacle, Refusal};
use crate::cancel::{CancelReason, CancelToken};
use crate::chat::Piece;
use crate::clock::Time;
use crate::config::Priority;
use crate::providers::{ErrorClass, ProviderError};

pub use crate::telemetry::Phases;

/// A run to submit. [`JobSpec::new`] and [`JobSpec::chat`] fill in what most jobs don't say:
///
/// ```
/// use std::sync::Arc;
/// use pointsman::clock::{Clock, SystemClock};
/// use pointsman::config::Priority;
/// use pointsman::engine::{FnTask, JobSpec, TaskContext};
/// use std::time::Duration;
///
/// let now = SystemClock::new().now();
/// let task = FnTask(|_: &TaskContext<'_>| Ok(()));
/// let spec = JobSpec {
///     priority: Priority::Low,
///     ..JobSpec::new("r-1".into(), task, now, now + Duration::from_secs(30))
/// };
/// assert!(spec.provider.is_none() && spec.owner.session().is_none());
/// ```
#[derive(Debug)]
pub struct JobSpec {
    /// What is run, once per call.
    pub task: Box<dyn Task>,
    /// The name of the provider whose slots it needs; `None`: it needs no provider's, only a global one and its session's.
    pub provider: Option<Arc<str>>,
    /// The model that it asks for.
    pub model: Option<Arc<str>>,
    /// Who is asked when the provider fails or takes nothing, one after the other.
    pub fallback: Vec<Alternative>,
    /// The id that the caller and the log know it by.
    pub request_id: Arc<str>,
    /// The number that [`Engine::number`](super::Engine::number) gave it, where its receipt is on record already.
    pub number: Option<u64>,
    /// Whose job it is.
    pub owner: Owner,
    /// How urgent it is.
    pub priority: Priority,
    /// When its request was received: its phases count from here.
    pub received: Time,
    /// When its answer is due.
    pub deadline: Time,
    /// How that deadline was chosen, for the log.
    pub deadline_reason: Arc<str>,
    /// Said when the answer is not wanted any more.
    pub cancel: CancelToken,
    /// Who is told.
    pub sink: Arc<dyn Sink>,
    /// How many bytes it holds while it waits.
    pub bytes: usize,
    /// Whether its slot may be taken from a task that does not come back from an interrupted call.
    pub reclaim: bool,
}

impl JobSpec {
    /// A job of nobody in particular, of middle priority, at no provider, that tells nobody.
    pub fn new(
        request_id: Arc<str>,
        task: impl Task + 'static,
        received: Time,
        deadline: Time,
    ) -> Self {
        JobSpec {
            task: Box::new(task),
            provider: None,
            model: None,
            fallback: Vec::new(),
            request_id,
            number: None,
            owner: Owner::Anonymous("".into()),
            priority: Priority::default(),
            received,
            deadline,
            deadline_reason: "".into(),
            cancel: CancelToken::new(),
            sink: Arc::new(NullSink),
            bytes: 0,
            reclaim: true,
        }
    }

    /// A chat that goes where `plan` says, and until when it says.
    pub fn chat(request_id: Arc<str>, plan: &Plan, received: Time) -> Self {
        let task = ChatTask::of(plan);
        JobSpec {
            provider: Some(Arc::clone(&plan.provider)),
            model: Some(Arc::clone(&plan.model)),
            fallback: plan.fallback.clone(),
            deadline_reason: Arc::clone(&plan.timeout_text),
            ..JobSpec::new(request_id, task, received, received + plan.timeout)
        }
    }
}

/// Who is asked when whoever was meant fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternative {
    /// The provider's name.
    pub provider: Arc<str>,
    /// The provider's name of the model.
    pub model: Arc<str>,
}

/// Whose job it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A named session: it has a limit of its own, and takes one of the places for sessions.
    Session(SessionName),
    /// Nobody in particular: one line for all such jobs under this name (an API key's, or the empty one).
    Anonymous(Arc<str>),
}

impl Owner {
    /// A job under the API key of this name (`None`: under none), of this session if it names one.
    pub fn of(key: Option<&str>, session: Option<Arc<str>>) -> Self {
        let key = key.unwrap_or_default().into();
        match session {
            Some(name) => Owner::Session(SessionName { key, name }),
            None => Owner::Anonymous(key),
        }
    }

    /// The session's name, if there is one.
    pub fn session(&self) -> Option<&Arc<str>> {
        match self {
            Owner::Session(session) => Some(&session.name),
            Owner::Anonymous(_) => None,
        }
    }

    /// The name of the API key that it came under, if it came under one.
    pub fn key(&self) -> Option<&Arc<str>> {
        let (Owner::Session(SessionName { key, .. }) | Owner::Anonymous(key)) = self;
        Some(key).filter(|key| !key.is_empty())
    }
}

/// The name of a session, among those of one API key: two keys that say the same name mean two sessions.
///
/// ```
/// use pointsman::engine::Owner;
///
/// let mine = Owner::of(Some("agent-1"), Some("work".into()));
/// assert_ne!(mine, Owner::of(Some("agent-2"), Some("work".into())));
/// assert_ne!(mine, Owner::Session("work".into())); // under no key
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionName {
    /// The name of the API key; empty where there is none.
    pub key: Arc<str>,
    /// As the client says it.
    pub name: Arc<str>,
}

impl From<Arc<str>> for SessionName {
    fn from(name: Arc<str>) -> Self {
        let key = "".into();
        SessionName { key, name }
    }
}

impl From<&str> for SessionName {
    fn from(name: &str) -> Self {
        Arc::<str>::from(name).into()
    }
}

impl From<String> for SessionName {
    fn from(name: String) -> Self {
        Arc::<str>::from(name).into()
    }
}

/// Who is told of a job's progress.
///
/// `end` comes exactly once. It may come, from another thread and with [`Speaker::Other`], while `piece` runs on the
/// worker's thread, and a piece that was under way may still come just after it: a sink ignores pieces after the end.
pub trait Sink: fmt::Debug + Send + Sync {
    /// A call begins: told before its first piece, on the worker's thread. A further one has nothing to do with the one
    /// before, which gave no content: what came of that is to be forgotten.
    fn call(&self, call: &CallInfo);

    /// A piece of the answer, on the worker's thread; it may block, for a bounded time.
    ///
    /// # Errors
    /// [`SinkGone`] when nobody takes pieces any more: the call is then ended.
    fn piece(&self, piece: Piece) -> Result<(), SinkGone>;

    /// The end. With [`Speaker::Worker`] it is told on the worker's thread and may block, for a bounded time; with
    /// [`Speaker::Other`] it must not block.
    fn end(&self, end: &JobEnd, speaker: Speaker);
}

/// Whose thread speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The worker that ran the job.
    Worker,
    /// The watchdog, a submitter, whoever cancelled, another job's worker.
    Other,
}

/// Nobody takes pieces any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkGone;

/// Tells nobody: for jobs whose handle is all that anyone looks at.
#[derive(Debug, Clone, Copy)]
pub struct NullSink;

impl Sink for NullSink {
    fn call(&self, _call: &CallInfo) {}

    fn piece(&self, _piece: Piece) -> Result<(), SinkGone> {
        Ok(())
    }

    fn end(&self, _end: &JobEnd, _speaker: Speaker) {}
}

/// One try at a provider, or one run of a function, for those who are told.
#[derive(Debug, Clone, PartialEq)]
pub struct CallInfo {
    /// The provider's name, if there is one.
    pub provider: Option<Arc<str>>,
    /// The model's name at the provider, if one is asked.
    pub model: Option<Arc<str>>,
    /// Which try it is, from 1.
    pub attempt: u32,
}

/// How a job ended.
#[derive(Debug, Clone)]
pub struct JobEnd {
    /// How.
    pub verdict: Verdict,
    /// The last call made, if any.
    pub call: Option<CallInfo>,
    /// Where the time went.
    pub phases: Phases,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// All pieces were delivered.
    Completed,
    /// The provider failed it.
    Failed(ProviderError),
    /// The job's own code failed; why, for the log. It is no provider's fault.
    Erred(String),
    /// The job's own code panicked; the message of the panic, for the log.
    Panicked(String),
    /// It waited in line for longer than the queue timeout, at last for this.
    QueueTimeout(Obstacle),
    /// Its deadline passed.
    Expired(Expiry),
    /// Somebody cancelled it.
    Cancelled(CancelReason),
    /// It was not taken in, or had to give way.
    Refused(Refusal),
}

/// How far a job had come when its deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// Until here.
    pub phase: Phase,
    /// What it waited for, if it was in line.
    pub waited_for: Option<Obstacle>,
}

impl From<Phase> for Expiry {
    fn from(phase: Phase) -> Self {
        Expiry {
            phase,
            waited_for: None,
        }
    }
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "phase: {}", self.phase)?;
        match &self.waited_for {
            None => Ok(()),
            Some(obstacle) => write!(f, "; {obstacle}"),
        }
    }
}

/// How far a job had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It waited in line.
    Queue,
    /// Its call had failed and was to be tried again.
    BackOff,
    /// Its call had no connection yet.
    Connect,
    /// Its call had no answer yet.
    FirstByte,
    /// Its answer was coming in.
    Body,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Queue => "queue",
            Phase::BackOff => "waiting to try again",
            Phase::Connect => "connect",
            Phase::FirstByte => "first byte",
            Phase::Body => "body",
        })
    }
}

impl Verdict {
    /// What a call's failure means for its job: a call that was cancelled did not fail.
    pub(super) fn of_failure(error: ProviderError, phase: Phase) -> Verdict {
        match error.class {
            ErrorClass::Cancelled(CancelReason::Deadline) => Verdict::Expired(phase.into()),
            ErrorClass::Cancelled(reason) => Verdict::Cancelled(reason),
            _ => Verdict::Failed(error),
        }
    }

    /// One word for the log.
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Completed => "completed",
            Verdict::Failed(_) | Verdict::Erred(_) | Verdict::Panicked(_) => "error",
            Verdict::QueueTimeout(_) | Verdict::Expired(_) => "timeout",
            Verdict::Cancelled(_) => "cancelled",
            Verdict::Refused(_) => "refused",
        }
    }

    /// Why, in words for the log; empty for a job that completed.
    pub fn reason(&self) -> String {
        match self {
            Verdict::Completed => String::new(),
            Verdict::Failed(error) => match &error.detail {
                Some(detail) => format!("{error} ({detail})"),
                None => error.to_string(),
            },
            Verdict::Erred(why) => why.clone(),
            Verdict::Panicked(message) => format!("panicked: {message}"),
            Verdict::QueueTimeout(obstacle) => format!("queue timeout: {obstacle}"),
            Verdict::Expired(expiry) => format!("deadline exceeded in {expiry}"),
            Verdict::Cancelled(reason) => reason.to_string(),
            Verdict::Refused(refusal) => refusal.to_string(),
        }
    }
}
