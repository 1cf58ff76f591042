//! `[providers.NAME]`: whom to call, with what, how often at once.

mod bounds;
mod ca;
mod catalogue;
mod health;
mod key;
mod kind;
mod model;
mod url;

pub use bounds::{OperationTimeouts, Pool};
pub use ca::CaFile;
pub use health::{Breaker, Retry};
pub use kind::ProviderKind;
pub use model::{Model, Thinking};
pub(crate) use url::is_loopback_url;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::document::fold;
use super::environment::Environment;
use super::profile::{PerProfile, Profile};
use super::section::Section;
use super::{HOUR, MAX_IN_FLIGHT, millis};
use url::Url;

/// `[providers.NAME]`
#[derive(Clone, PartialEq)]
pub struct Provider {
    /// The name under `[providers]`.
    pub name: String,
    /// Which dialect it speaks.
    pub kind: ProviderKind,
    /// Without a slash at the end; empty for [`ProviderKind::Embedded`].
    pub base_url: String,
    /// Whose certificates it may show, besides those of the authorities that are built in.
    pub ca_file: Option<CaFile>,
    /// The environment variable that holds the key.
    pub api_key_env: Option<String>,
    /// The file that holds the key.
    pub api_key_file: Option<PathBuf>,
    /// The key itself, as found when the configuration was read; `None` where there is none. Never printed.
    pub api_key: Option<String>,
    /// What was wrong with the place where the key should have been, in words; `None` where it was just not there.
    pub api_key_problem: Option<String>,
    /// Calls in flight.
    pub max_inflight: usize,
    /// Connections kept.
    pub pool: Pool,
    /// Deadlines by operation.
    pub timeouts: OperationTimeouts,
    /// How often a call is tried again.
    pub retry: Retry,
    /// What judges its health.
    pub breaker: Breaker,
    /// What it surely offers; the first is its default. Empty, for [`ProviderKind::OpenAi`] alone: whatever is asked of it
    /// as `NAME/MODEL`.
    pub models: Vec<Model>,
    /// Whether it is asked which models it has; they are then offered beside `models`.
    pub model_list: bool,
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
            .field("base_url", &self.base_url)
            .field("is_available", &self.is_available())
            .field("max_inflight", &self.max_inflight)
            .finish_non_exhaustive()
    }
}

impl Provider {
    /// Whether calls can be made: `kimi` and `glm` need a key, `openai` needs one if it says where its key is, and
    /// `embedded` doesn't.
    pub fn is_available(&self) -> bool {
        match self.kind {
            ProviderKind::Kimi | ProviderKind::Glm => self.api_key.is_some(),
            ProviderKind::OpenAi => {
                self.api_key.is_some() || self.api_key_env.is_none() && self.api_key_file.is_none()
            }
            ProviderKind::Embedded => true,
        }
    }

    /// Whether it is `kimi` or `glm` as they come, and nobody gave it a key: it is there to be used some day, and nobody
    /// counts on it.
    pub fn is_left_alone(&self) -> bool {
        !self.is_available() && self.api_key_problem.is_none() && key::is_default(self)
    }

    /// What to do about a missing key, in words for people; `None` for a provider that is available.
    pub fn missing_key(&self) -> Option<String> {
        (!self.is_available()).then(|| key::advice(self))
    }
}

/// What the defaults of a provider depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings {
    pub(super) profile: Profile,
    /// `limits.global`
    pub(super) global: usize,
    /// The shortest deadline of `[timeouts]`.
    pub(super) shortest: Duration,
}

/// Every provider that is on, and the names of those that are off.
#[derive(Debug, Default)]
pub(super) struct Providers {
    pub(super) on: BTreeMap<String, Provider>,
    pub(super) off: Vec<String>,
}

impl Providers {
    /// The built-in ones, and whatever else `[providers]` has.
    pub(super) fn read(section: &mut Section<'_>, around: Surroundings) -> Self {
        let mut providers = Providers::default();
        for name in Self::names(section) {
            let (provider, is_on) =
                section.section(&name, |section| Provider::read(section, &name, around));
            if is_on {
                providers.on.insert(name, provider);
            } else {
                providers.off.push(name);
            }
        }
        providers
    }

    /// Names become parts of model names, headers, metrics and environment variables, so they are plain.
    fn names(section: &mut Section<'_>) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = ["kimi", "glm", "embedded"].map(str::to_owned).into();
        for name in section.keys() {
            let twin = names
                .iter()
                .find(|known| **known != name && fold(known) == fold(&name));
            if let Some(twin) = twin {
                let message = format!(
                    "differs from providers.{twin} only in case or in - and _: a duplicate name"
                );
                section.refuse(&name, message);
            } else if !is_plain(&name) {
                let message = "found a name that is not accepted, accepted are a to z, 0 to 9, - and single _, a \
                               letter first, at most 64, not \"auto\"";
                section.refuse(&name, message);
            }
            names.insert(name);
        }
        names
    }

    /// Looks for each key where its provider says.
    pub(super) fn find_keys(&mut self, environment: &Environment) {
        for provider in self.on.values_mut() {
            match key::find(provider, environment) {
                Ok(key) => provider.api_key = key,
                Err(problem) => provider.api_key_problem = Some(problem),
            }
        }
    }
}

fn is_plain(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(fits)
        && name.len() <= 64
        && !name.contains("__")
        && name != "auto"
}

impl Provider {
    /// Also says whether it is switched on.
    fn read(section: &mut Section<'_>, name: &str, around: Surroundings) -> (Self, bool) {
        let kind = ProviderKind::read(section, name);
        match kind {
            ProviderKind::Embedded => Self::read_embedded(section, name, around),
            ProviderKind::Kimi | ProviderKind::Glm | ProviderKind::OpenAi => {
                Self::read_remote(section, name, kind, around)
            }
        }
    }

    fn read_remote(
        section: &mut Section<'_>,
        name: &str,
        kind: ProviderKind,
        around: Surroundings,
    ) -> (Self, bool) {
        let url = Url::read(section, kind);
        let (api_key_env, api_key_file) = key::read(section, kind);
        let max_inflight = section
            .count("max_inflight", 1..=MAX_IN_FLIGHT)
            .unwrap_or_else(|| default_max_inflight(kind, around));
        let provider = Provider {
            name: name.to_owned(),
            kind,
            ca_file: CaFile::read(section, &url.text),
            api_key_env,
            api_key_file,
            api_key: None,
            api_key_problem: None,
            max_inflight,
            pool: Pool::read(section, max_inflight, around.profile),
            timeouts: OperationTimeouts::read(section, kind, around.shortest),
            retry: Retry::read(section),
            breaker: Breaker::read(section),
            models: model::read_list(section, kind),
            model_list: section
                .flag("model_list")
                .unwrap_or(around.profile != Profile::Test),
            faults: false,
            latency: Duration::ZERO,
            pace: Duration::ZERO,
            base_url: url.text,
        };
        let default = around.profile != Profile::Test || url.is_loopback;
        let is_on = section.flag("enabled").unwrap_or(default);
        (provider, is_on)
    }

    fn read_embedded(section: &mut Section<'_>, name: &str, around: Surroundings) -> (Self, bool) {
        let range = Duration::ZERO..=HOUR;
        let max_inflight = section
            .count("max_inflight", 1..=MAX_IN_FLIGHT)
            .unwrap_or_else(|| default_max_inflight(ProviderKind::Embedded, around));
        let provider = Provider {
            name: name.to_owned(),
            kind: ProviderKind::Embedded,
            base_url: String::new(),
            ca_file: None,
            api_key_env: None,
            api_key_file: None,
            api_key: None,
            api_key_problem: None,
            max_inflight,
            pool: Pool::default_for(max_inflight, around.profile),
            timeouts: OperationTimeouts::default_for(ProviderKind::Embedded, around.shortest),
            retry: Retry::never(),
            breaker: Breaker::never(),
            models: catalogue::models(ProviderKind::Embedded),
            model_list: false,
            faults: section.flag("faults").unwrap_or(false),
            latency: section
                .duration("latency", range.clone())
                .unwrap_or(Duration::ZERO),
            pace: section.duration("pace", range).unwrap_or(millis(20)),
        };
        (provider, section.flag("enabled").unwrap_or(true))
    }
}

fn default_max_inflight(kind: ProviderKind, around: Surroundings) -> usize {
    let [dev, demo, prod] = match kind {
        ProviderKind::Kimi => [3, 8, 6],
        ProviderKind::Glm => [2, 8, 4],
        ProviderKind::OpenAi => [4, 8, 8],
        ProviderKind::Embedded => [around.global; 3],
    };
    PerProfile { dev, demo, prod }.of(around.profile)
}
