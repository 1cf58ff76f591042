//! Before a chat becomes a job: where it goes, until when, and why.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::job::Alternative;
use crate::chat::ChatRequest;
use crate::clock::SharedClock;
use crate::config::{Config, Model, Provider, Timeouts};
use crate::providers::{ChosenTimeout, Demand, Kind, Learner, Lesson, Sort, choose_timeout};
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
    /// How long each call may be silent before the answer's first byte, where that was learned.
    pub first_byte: Option<Duration>,
    /// Where what its calls take is kept, for those after it.
    pub lesson: Option<Lesson>,
}

/// Router, tables of timeouts, and what was learned of them.
#[derive(Debug)]
pub(super) struct Planner {
    router: Router,
    timeouts: Timeouts,
    providers: BTreeMap<String, Provider>,
    /// `None`: nothing is to be learned.
    learner: Option<Arc<Learner>>,
    clock: SharedClock,
}

impl Planner {
    pub(super) fn new(config: &Config, router: Router, clock: SharedClock) -> Self {
        let learn = &config.timeouts.learn;
        Planner {
            router,
            timeouts: config.timeouts.clone(),
            providers: config.providers.clone(),
            learner: learn
                .enabled
                .then(|| Arc::new(Learner::new(learn.clone(), Arc::clone(&clock)))),
            clock,
        }
    }

    /// The same under another configuration. What was learned stays, but of those who are `unknown`, and unless other rules
    /// of learning are in force.
    pub(super) fn renewed(&self, config: &Config, router: Router, unknown: &[Arc<str>]) -> Self {
        let mut planner = Planner::new(config, router, Arc::clone(&self.clock));
        if let Some(learner) = &self.learner
            && learner.learns_by(&config.timeouts.learn)
        {
            learner.forget(unknown);
            planner.learner = Some(Arc::clone(learner));
        }
        planner
    }

    pub(super) fn plan(&self, mut request: ChatRequest, ask: &Ask) -> Result<Plan, RouteError> {
        let route = self.router.route(&request)?;
        let fallback = route.stages.into_iter().skip(1).filter_map(alternative);
        let fallback = fallback.collect();
        request.model = route.model;
        let known = route.known.as_ref().map(|offered| &offered.model);
        let provider: Arc<str> = route.provider.into();
        let model: Arc<str> = request.model.as_str().into();
        let demand = self.demand(&request, known, &provider, ask);
        let lesson = self.learner.as_ref().map(|learner| {
            let sort = Sort::new(Arc::clone(&provider), Arc::clone(&model), &demand);
            learner.lesson(sort)
        });
        let timeout = self.timeout(&demand, lesson.as_ref(), &provider, ask);
        Ok(Plan {
            request: Arc::new(request),
            provider,
            model,
            fallback,
            route_reason: route.reason.into(),
            timeout: timeout.value,
            timeout_text: timeout.to_string().into(),
            first_byte: timeout.first_byte,
            lesson,
        })
    }

    pub(super) fn models(&self) -> Vec<ModelInfo> {
        self.router.models()
    }

    pub(super) fn model(&self, name: &str) -> Result<ModelInfo, RouteError> {
        self.router.model(name)
    }

    fn demand(
        &self,
        request: &ChatRequest,
        model: Option<&Model>,
        provider: &str,
        ask: &Ask,
    ) -> Demand {
        let kind = match (ask.continues, request.stream) {
            (true, _) => Kind::Continuation,
            (false, true) => Kind::Streaming,
            (false, false) => Kind::Normal,
        };
        let provider = &self.providers[provider];
        Demand::of(request, model, kind, provider, &self.timeouts)
    }

    fn timeout(
        &self,
        demand: &Demand,
        lesson: Option<&Lesson>,
        provider: &str,
        ask: &Ask,
    ) -> ChosenTimeout {
        let provider = &self.providers[provider];
        let mut chosen = choose_timeout(demand, ask.timeout, provider, &self.timeouts);
        // What the caller named counts, whatever calls usually take.
        if let (Some(lesson), None) = (lesson, ask.timeout) {
            let longest = provider.timeouts.longest().max(self.timeouts.longest());
            let most = longest.min(self.timeouts.max);
            chosen = lesson.apply(chosen, demand, most);
        }
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
