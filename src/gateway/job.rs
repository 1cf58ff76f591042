//! A question with its circumstances, on its way to the engine.

use std::sync::Arc;

use super::Gateway;
use super::error::ChatError;
use super::options::{Options, option_setters};
use crate::chat::ChatRequest;
use crate::engine::{Ask, JobHandle, JobSpec, Sink};
use crate::providers::prompt_tokens;

/// Pieces that are kept for a consumer of a stream who is slower than the model.
const BUFFER: usize = 16;
/// Bytes of a prompt by what is guessed of its tokens.
const BYTES_PER_TOKEN: u64 = 4;

/// A question, whose it is, how urgent, and until when. A [`ChatRequest`] alone is one, too.
///
/// ```
/// use pointsman::{ChatRequest, Job, Priority};
/// use std::time::Duration;
///
/// let job = Job::chat(ChatRequest::new("kimi-k3").user("Why does it not compile?"))
///     .session("agent-1")
///     .priority(Priority::High)
///     .timeout(Duration::from_secs(90));
/// # let _ = job;
/// ```
#[derive(Debug, Clone)]
pub struct Job {
    request: ChatRequest,
    options: Options,
    buffer: usize,
}

impl Job {
    /// Asks `request`. Without a [`timeout`](Job::timeout) it has the one that the configuration has for such requests.
    pub fn chat(request: ChatRequest) -> Job {
        Job {
            request,
            options: Options::default(),
            buffer: BUFFER,
        }
    }

    option_setters!();

    /// How many pieces a stream keeps for a consumer that is slower than the model; 16 by default, at least 1.
    #[must_use]
    pub fn buffer(mut self, pieces: usize) -> Self {
        self.buffer = pieces.max(1);
        self
    }

    /// The pieces that a stream keeps.
    pub(super) fn pieces(&self) -> usize {
        self.buffer
    }

    /// Finds out where it goes, and hands it to the engine. `stream`: it is wanted in pieces, which gives it more time.
    pub(super) fn submit(
        mut self,
        gateway: &Gateway,
        stream: bool,
        sink: Arc<dyn Sink>,
    ) -> Result<JobHandle, ChatError> {
        let received = gateway.clock.now();
        self.request.stream = stream;
        let ask = Ask {
            timeout: self.options.timeout,
            continues: false,
        };
        let plan = gateway.engine.plan(self.request, &ask)?;
        let tokens = prompt_tokens(&plan.request);
        let id = self.options.id();
        let spec = self.options.fill(JobSpec {
            sink,
            bytes: usize::try_from(tokens.saturating_mul(BYTES_PER_TOKEN)).unwrap_or(usize::MAX),
            ..JobSpec::chat(id, &plan, received)
        });
        let handle = gateway.engine.submit(spec);
        handle.map_err(|error| ChatError::Internal {
            detail: error.to_string(),
        })
    }
}

impl From<ChatRequest> for Job {
    fn from(request: ChatRequest) -> Job {
        Job::chat(request)
    }
}
