//! `[providers.NAME]`: whom to call, with what, how often at once.

use std::path::PathBuf;
use std::time::Duration;

/// `[providers.NAME]`
#[derive(Clone, PartialEq)]
pub struct Provider {
    /// The name under `[providers]`.
    pub name: String,
    /// Which dialect it speaks.
    pub kind: ProviderKind,
    /// Without a slash at the end; empty for [`ProviderKind::Embedded`].
    pub base_url: String,
    /// The environment variable that holds the key.
    pub api_key_env: Option<String>,
    /// The file that holds the key.
    pub api_key_file: Option<PathBuf>,
    /// The key itself, as found at the start; `None` where there is none. Never printed.
    pub api_key: Option<String>,
    /// Calls in flight.
    pub max_inflight: usize,
    /// Connections kept.
    pub pool: Pool,
    /// Deadlines by operation.
    pub timeouts: OperationTimeouts,
    /// What it offers; the first is its default.
    pub models: Vec<Model>,
    /// Embedded only: its faulty models stall, trickle, fail, ... on request.
    pub faults: bool,
    /// Embedded only: silence before its answer.
    pub latency: Duration,
    /// Embedded only: silence between two pieces.
    pub pace: Duration,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Provider {
    /// Whether calls can be made: `kimi` and `glm` need a key, `openai` and `embedded` don't.
    pub fn is_available(&self) -> bool {
        match self.kind {
            ProviderKind::Kimi | ProviderKind::Glm => self.api_key.is_some(),
            ProviderKind::OpenAi => {
                self.api_key.is_some() || self.api_key_env.is_none() && self.api_key_file.is_none()
            }
            ProviderKind::Embedded => true,
        }
    }
}

/// Which dialect a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProviderKind {
    /// Kimi by Moonshot.
    Kimi,
    /// GLM by Zhipu.
    Glm,
    /// Any endpoint that speaks OpenAI's wire.
    OpenAi,
    /// Offline, deterministic, in this process.
    Embedded,
}

/// `pool = { ... }`
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Connections at once; never below `max_inflight`.
    pub max_connections: usize,
    /// An idle connection is closed after so long.
    pub max_idle_age: Duration,
    /// A connection is closed after so long in all.
    pub max_age: Duration,
}

/// `timeouts = { ... }`: the whole request's deadline, by operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationTimeouts {
    /// Neither of the below.
    pub plain: Duration,
    /// With web search.
    pub web_search: Duration,
    /// With thinking.
    pub thinking: Duration,
    /// With both.
    pub web_search_thinking: Duration,
}

/// An entry of `models = [ ... ]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// As clients name it, and the provider.
    pub name: String,
    /// Tokens of question and answer together.
    pub context: u64,
    /// Tokens of an answer.
    pub max_output: Option<u64>,
    /// Whether it thinks.
    pub thinking: Thinking,
    /// Words that `reasoning_effort` may be; empty: any.
    pub efforts: Vec<String>,
    /// Parameters that it refuses or ignores, by their OpenAI names; dropped before sending.
    pub drop: Vec<String>,
}

/// Whether a model thinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thinking {
    /// It can't.
    Never,
    /// When asked to.
    Optional,
    /// Unless switched off.
    Default,
    /// Always.
    Always,
}
