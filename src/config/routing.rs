//! `[routing]`: who answers `auto`, and how often providers are asked for their models.

use std::collections::BTreeMap;
use std::time::Duration;

use super::provider::{Provider, ProviderKind};
use super::section::Section;
use super::{HOUR, secs};

/// `[routing]`
#[derive(Debug, Clone, PartialEq)]
pub struct Routing {
    /// Names of the providers that may answer `auto`, the preferred first. Without embedded ones: they answer `auto`
    /// only when none of these has a key.
    pub auto: Vec<String>,
    /// How often each provider with `model_list` is asked which models it has; zero: never.
    pub model_list_refresh: Duration,
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
