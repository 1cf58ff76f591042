//! What a provider offers, as far as routing needs it: no key, no address.

use std::sync::Arc;

use crate::config::{Provider, ProviderKind};
use crate::providers::{Known, List, Models, Offered};
use crate::routing::{Route, RouteError, Stage, TargetRef};

/// Words in the names of models that answer no chat. A server lists them among the others.
const NO_CHAT: [&str; 7] = [
    "embed",
    "rerank",
    "whisper",
    "tts",
    "moderation",
    "dall-e",
    "transcribe",
];

/// What the configuration says of one provider; this doesn't change.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) provider: String,
    pub(super) is_embedded: bool,
    /// Its place in `routing.auto`; `None` where it may not answer `auto` beside others.
    pub(super) auto_place: Option<usize>,
    /// What to do before it can be called; `None` where it can.
    pub(super) advice: Option<String>,
    /// Whether it takes models that it doesn't list from a client that names it: the endpoint knows its models, we don't.
    takes_any: bool,
    models: Models,
}

impl Source {
    pub(super) fn new(provider: &Provider, auto_place: Option<usize>, models: Models) -> Self {
        let is_embedded = provider.kind == ProviderKind::Embedded;
        Source {
            provider: provider.name.clone(),
            is_embedded,
            auto_place: auto_place.filter(|_| !is_embedded),
            advice: (!provider.is_available()).then(|| advice(provider)),
            takes_any: provider.kind == ProviderKind::OpenAi && provider.models.is_empty(),
            models,
        }
    }

    /// What it offers at this moment.
    pub(super) fn offer(&self) -> Offer<'_> {
        Offer {
            source: self,
            known: self.models.known(),
        }
    }
}

/// One provider, with what is known of its models at one moment.
#[derive(Debug, Clone)]
pub(super) struct Offer<'a> {
    pub(super) source: &'a Source,
    pub(super) known: Arc<Known>,
}

impl Offer<'_> {
    pub(super) fn provider(&self) -> &str {
        &self.source.provider
    }

    pub(super) fn is_available(&self) -> bool {
        self.source.advice.is_none()
    }

    /// Whether it may answer `auto` beside others.
    pub(super) fn is_auto(&self) -> bool {
        self.source.auto_place.is_some()
    }

    /// Whether its own list of models is still to come.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_available() && self.known.list == List::Awaited
    }

    /// Whether the configuration names the model.
    pub(super) fn configures(&self, model: &str) -> bool {
        let found = self.known.find(model);
        found.is_some_and(|offered| offered.is_configured)
    }

    /// Whether a client that says nothing but the model's name can mean this provider.
    pub(super) fn lists(&self, model: &str) -> bool {
        self.known.find(model).is_some()
    }

    /// Whether it takes the model from a client that names the provider too.
    pub(super) fn takes(&self, model: &str) -> bool {
        self.source.takes_any && !model.is_empty() || self.lists(model)
    }

    /// The models that `auto` may choose: all that are configured, and of the others those that chat.
    pub(super) fn for_auto(&self) -> impl Iterator<Item = &Offered> {
        let chats = |offered: &&Offered| {
            let name = offered.model.name.to_ascii_lowercase();
            offered.is_configured || !NO_CHAT.iter().any(|word| name.contains(word))
        };
        self.known.models.iter().map(|model| &**model).filter(chats)
    }

    /// Its first model whose context holds `tokens`; where nobody says how long it is, as long as is assumed.
    pub(super) fn first_fitting(&self, tokens: u64) -> Option<&str> {
        let mut fitting = self.for_auto().filter(|it| it.model.context >= tokens);
        fitting.next().map(|offered| offered.model.name.as_str())
    }

    /// Its first model of whose context nobody says how long it is.
    pub(super) fn first_unmeasured(&self) -> Option<&str> {
        let mut unmeasured = self.for_auto().filter(|it| it.context.is_none());
        unmeasured.next().map(|offered| offered.model.name.as_str())
    }

    /// Whether the model's context holds `tokens`, as far as it is known.
    pub(super) fn holds(&self, model: &str, tokens: u64) -> bool {
        let context = self.known.find(model).and_then(|offered| offered.context);
        context.is_none_or(|context| context >= tokens)
    }

    /// The route to one of its models.
    ///
    /// # Errors
    /// [`RouteError::Unavailable`]
    pub(super) fn route(&self, model: &str, reason: String) -> Result<Route, RouteError> {
        let provider = self.source.provider.clone();
        match self.source.advice.clone() {
            Some(advice) => Err(RouteError::Unavailable { provider, advice }),
            None => Ok(Route {
                stages: vec![Stage {
                    targets: vec![TargetRef {
                        provider: provider.clone(),
                    }],
                    model: model.to_string(),
                }],
                model: model.to_string(),
                known: self.known.find(model).cloned(),
                provider,
                reason,
            }),
        }
    }
}

/// What to do about a missing key. Names the variable and the knob, but not the file: clients read it.
fn advice(provider: &Provider) -> String {
    let knobs = format!("providers.{}", provider.name);
    match (&provider.api_key_env, &provider.api_key_file) {
        (Some(variable), None) => format!("set {variable}"),
        (Some(variable), Some(_)) => {
            format!("set {variable}, or put its key into the file of {knobs}.api_key_file")
        }
        (None, Some(_)) => format!("put its key into the file of {knobs}.api_key_file"),
        (None, None) => format!("say in {knobs}.api_key_env which variable holds its key"),
    }
}
