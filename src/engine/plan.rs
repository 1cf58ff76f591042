//! Before a chat becomes a job: where it goes, until when, and why.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::job::Alternative;
use crate::chat::ChatRequest;
use crate::config::{Config, Model, Provider, Timeouts};
use crate::providers::{ChosenTimeout, Kind, choose_timeout};
use crate::routing::{ModelInfo, RouteError, Router, Stage};

/// What the caller wants besides an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ask {
    /// The deadline that the caller named.
    pub timeout: Option<Duration>,
    /// Whether it is a further turn of a kept conversation.
    pub continues: bool,
}

/// Where a chat goes, until when, and why.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is asked, under the provider's own name of the model.
    pub request: Arc<ChatRequest>,
    /// The provider's name.
    pub provider: Arc<str>,
    /// The provider's name of the model.
    pub model: Arc<str>,
    /// Who is asked when that one fails or takes nothing.
    pub fallback: Vec<Alternative>,
    /// Why it goes there.
    pub route_reason: Arc<str>,
    /// From the receipt of the request to its end.
    pub timeout: Duration,
    /// The timeout and how it was chosen: `420s (web=true, thinking=true)`.
    pub timeout_text: Arc<str>,
}

/// Router and tables of timeouts.
#[derive(Debug)]
pub(super) struct Planner {
    router: Router,
    timeouts: Timeouts,
    providers: BTreeMap<String, Provider>,
}

impl Planner {
    pub(super) fn new(config: &Config, router: Router) -> Self {
        Planner {
            router,
            timeouts: config.timeouts.clone(),
            providers: config.providers.clone(),
        }
    }

    pub(super) fn plan(&self, mut request: ChatRequest, ask: &Ask) -> Result<Plan, RouteError> {
        let route = self.router.route(&request)?;
        let fallback = route.stages.into_iter().skip(1).filter_map(alternative);
        let fallback = fallback.collect();
        request.model = route.model;
        let known = route.known.as_ref().map(|offered| &offered.model);
        let timeout = self.timeout(&request, known, &route.provider, ask);
        let model = request.model.as_str().into();
        Ok(Plan {
            request: Arc::new(request),
            provider: route.provider.into(),
            model,
            fallback,
            route_reason: route.reason.into(),
            timeout: timeout.value,
            timeout_text: timeout.to_string().into(),
        })
    }

    pub(super) fn models(&self) -> Vec<ModelInfo> {
        self.router.models()
    }

    pub(super) fn model(&self, name: &str) -> Result<ModelInfo, RouteError> {
        self.router.model(name)
    }

    fn timeout(
        &self,
        request: &ChatRequest,
        model: Option<&Model>,
        provider: &str,
        ask: &Ask,
    ) -> ChosenTimeout {
        let kind = match (ask.continues, request.stream) {
            (true, _) => Kind::Continuation,
            (false, true) => Kind::Streaming,
            (false, false) => Kind::Normal,
        };
        let provider = &self.providers[provider];
        let chosen = choose_timeout(request, model, kind, ask.timeout, provider, &self.timeouts);
        log::info!("{}", chosen.log_line(&provider.name));
        chosen
    }
}

fn alternative(stage: Stage) -> Option<Alternative> {
    let target = stage.targets.into_iter().next()?;
    Some(Alternative {
        provider: target.provider.into(),
        model: stage.model.into(),
    })
}
