//! `[routing]`: who answers `auto`, who steps in for whom, and how often providers are asked for their models.

use std::collections::BTreeMap;
use std::time::Duration;

use super::provider::{Provider, ProviderKind};
use super::section::Section;
use super::{HOUR, millis, secs};

/// `[routing]`
#[derive(Debug, Clone, PartialEq)]
pub struct Routing {
    /// Names of the providers that may answer `auto`, the preferred first. Without embedded ones: they answer `auto`
    /// only when none of these has a key.
    pub auto: Vec<String>,
    /// How often each provider with `model_list` is asked which models it has; zero: never.
    pub model_list_refresh: Duration,
    /// Who is asked when whoever was meant fails, the preferred first.
    pub fallback: Vec<Fallback>,
    /// A provider that takes nothing for longer than this is passed over where there is a fallback.
    pub fallback_after: Duration,
    /// A provider that does not have a model is not asked for it again for so long.
    pub model_away: Duration,
}

/// A model that steps in: `provider/model`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// The provider's name.
    pub provider: String,
    /// Its name of the model.
    pub model: String,
}

impl Routing {
    /// `off` are the names of providers that are configured and switched off: they may be named and are passed over.
    pub(super) fn read(
        section: &mut Section<'_>,
        providers: &BTreeMap<String, Provider>,
        off: &[String],
    ) -> Self {
        let refresh = section.duration("model_list_refresh", Duration::ZERO..=24 * HOUR);
        Routing {
            auto: read_auto(section, providers, off),
            model_list_refresh: refresh.unwrap_or(secs(300)),
            fallback: read_fallback(section, providers, off),
            fallback_after: section
                .duration("fallback_after", Duration::ZERO..=HOUR)
                .unwrap_or(secs(5)),
            model_away: section
                .duration("model_away", millis(1)..=24 * HOUR)
                .unwrap_or(secs(300)),
        }
    }
}

fn read_auto(
    section: &mut Section<'_>,
    providers: &BTreeMap<String, Provider>,
    off: &[String],
) -> Vec<String> {
    let Some(mut auto) = section.words("auto") else {
        return by_kind(providers);
    };
    if let Some(problem) = problem_of(&auto, providers, off) {
        section.refuse("auto", problem);
    }
    auto.retain(|name| providers.contains_key(name));
    auto
}

/// Providers that are switched off are passed over.
fn read_fallback(
    section: &mut Section<'_>,
    providers: &BTreeMap<String, Provider>,
    off: &[String],
) -> Vec<Fallback> {
    let names = section.words("fallback").unwrap_or_default();
    let mut fallback: Vec<Fallback> = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let problem = match name.split_once('/') {
            _ if names[..index].contains(name) => Some(format!("{name:?} stands there twice")),
            Some((provider, _)) if off.iter().any(|off| off == provider) => None,
            Some((provider, model)) => match providers.get(provider) {
                Some(entry) if entry.kind == ProviderKind::Embedded => Some(format!(
                    "{name:?} is embedded: nobody takes a made-up answer for a model's"
                )),
                Some(entry) if lists(entry, model) => {
                    let (provider, model) = (provider.to_owned(), model.to_owned());
                    fallback.push(Fallback { provider, model });
                    None
                }
                Some(_) | None => Some(unknown(name)),
            },
            None => Some(unknown(name)),
        };
        if let Some(problem) = problem {
            section.refuse("fallback", problem);
        }
    }
    fallback
}

fn unknown(name: &str) -> String {
    format!("found {name:?}, accepted is \"provider/model\", a model that the provider lists")
}

/// Whether the provider has the model; one without a list may have any.
fn lists(provider: &Provider, model: &str) -> bool {
    let any = provider.models.is_empty() && !model.is_empty();
    any || provider.models.iter().any(|listed| listed.name == model)
}

/// The order in which nobody has to say anything: kimi, glm, then the others; by name within a kind.
fn by_kind(providers: &BTreeMap<String, Provider>) -> Vec<String> {
    [ProviderKind::Kimi, ProviderKind::Glm, ProviderKind::OpenAi]
        .into_iter()
        .flat_map(|kind| {
            providers
                .values()
                .filter(move |provider| provider.kind == kind)
        })
        .map(|provider| provider.name.clone())
        .collect()
}

fn problem_of(
    auto: &[String],
    providers: &BTreeMap<String, Provider>,
    off: &[String],
) -> Option<String> {
    if auto.is_empty() {
        return Some("found an empty list, accepted is at least one provider".to_owned());
    }
    auto.iter().enumerate().find_map(|(index, name)| {
        let kind = providers.get(name).map(|provider| provider.kind);
        if kind == Some(ProviderKind::Embedded) {
            Some(format!(
                "{name:?} is embedded: it answers `auto` only when no other provider has a key"
            ))
        } else if kind.is_none() && !off.contains(name) {
            let known: Vec<String> = by_kind(providers);
            Some(format!(
                "found {name:?}, accepted are the names of providers: {}",
                known.join(", ")
            ))
        } else if auto[..index].contains(name) {
            Some(format!("{name:?} stands there twice"))
        } else {
            None
        }
    })
}
