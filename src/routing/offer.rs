//! What a provider offers, as far as routing needs it: no key, no address.

use crate::config::{Provider, ProviderKind};
use crate::routing::{Route, RouteError, Stage, TargetRef};

/// One provider.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) provider: String,
    pub(super) is_embedded: bool,
    /// Its place in `routing.auto`; `None` where it may not answer `auto` beside others.
    pub(super) auto_place: Option<usize>,
    /// What to do before it can be called; `None` where it can.
    pub(super) advice: Option<String>,
    /// Its models, the default first.
    pub(super) models: Vec<Listed>,
    unlisted: Unlisted,
}

/// A model that a provider lists.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) name: String,
    /// Tokens of question and answer together.
    pub(super) context: u64,
}

/// Which models a provider takes that it doesn't list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unlisted {
    None,
    /// Whatever the client says: the endpoint knows its models, we don't.
    Any,
    /// Those that fail on request.
    Faults,
}

impl Offer {
    pub(super) fn new(provider: &Provider, auto_place: Option<usize>) -> Self {
        let listed = provider.models.iter().map(|model| Listed {
            name: model.name.clone(),
            context: model.context,
        });
        let is_embedded = provider.kind == ProviderKind::Embedded;
        Offer {
            provider: provider.name.clone(),
            is_embedded,
            auto_place: auto_place.filter(|_| !is_embedded),
            advice: (!provider.is_available()).then(|| advice(provider)),
            models: listed.collect(),
            unlisted: match provider.kind {
                ProviderKind::OpenAi if provider.models.is_empty() => Unlisted::Any,
                ProviderKind::Embedded if provider.faults => Unlisted::Faults,
                ProviderKind::OpenAi
                | ProviderKind::Embedded
                | ProviderKind::Kimi
                | ProviderKind::Glm => Unlisted::None,
            },
        }
    }

    pub(super) fn is_available(&self) -> bool {
        self.advice.is_none()
    }

    /// Whether it may answer `auto` beside others.
    pub(super) fn is_auto(&self) -> bool {
        self.auto_place.is_some()
    }

    /// Whether a client that says nothing but the model's name can mean this provider.
    pub(super) fn lists(&self, model: &str) -> bool {
        let fault = self.unlisted == Unlisted::Faults && model.starts_with("fault-");
        fault || self.models.iter().any(|listed| listed.name == model)
    }

    /// Whether it takes the model from a client that names the provider too.
    pub(super) fn takes(&self, model: &str) -> bool {
        self.unlisted == Unlisted::Any && !model.is_empty() || self.lists(model)
    }

    /// Its first model whose context holds `tokens`.
    pub(super) fn first_fitting(&self, tokens: u64) -> Option<&str> {
        let mut fitting = self.models.iter().filter(|model| model.context >= tokens);
        fitting.next().map(|model| model.name.as_str())
    }

    /// Whether the model's context holds `tokens`, as far as it is known.
    pub(super) fn holds(&self, model: &str, tokens: u64) -> bool {
        let listed = self.models.iter().find(|listed| listed.name == model);
        listed.is_none_or(|listed| listed.context >= tokens)
    }

    /// The route to one of its models.
    ///
    /// # Errors
    /// [`RouteError::Unavailable`]
    pub(super) fn route(&self, model: &str, reason: String) -> Result<Route, RouteError> {
        let provider = self.provider.clone();
        match self.advice.clone() {
            Some(advice) => Err(RouteError::Unavailable { provider, advice }),
            None => Ok(Route {
                stages: vec![Stage {
                    targets: vec![TargetRef {
                        provider: provider.clone(),
                    }],
                    model: model.to_string(),
                }],
                model: model.to_string(),
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
