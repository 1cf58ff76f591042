//! Where a provider's key is, and what to say when it isn't there.
//!
//! A key is looked for in the environment variable, then in the file, then among systemd's credentials under the
//! provider's name. That there is none is no error: the provider is listed as unavailable, with what to do. Texts made
//! here name variables and files, never what is in them.

use std::path::PathBuf;

use super::{Provider, ProviderKind};
use crate::config::environment::Environment;
use crate::config::secret;
use crate::config::section::Section;

/// `api_key_env` and `api_key_file`. The default variable of a kind counts only where no file is named.
pub(super) fn read(
    section: &mut Section<'_>,
    kind: ProviderKind,
) -> (Option<String>, Option<PathBuf>) {
    let (variable, file) = secret::read(section, "api_key_env", "api_key_file");
    let variable = variable.or_else(|| default_variable(kind).filter(|_| file.is_none()));
    if let Some(name) = &variable {
        section.report.holds_a_key(name);
    }
    (variable, file)
}

fn default_variable(kind: ProviderKind) -> Option<String> {
    match kind {
        ProviderKind::Kimi => Some("KIMI_API_KEY".to_owned()),
        ProviderKind::Glm => Some("GLM_API_KEY".to_owned()),
        ProviderKind::OpenAi | ProviderKind::Embedded => None,
    }
}

/// Whether a provider of the built-in names looks for its key where it does by default.
pub(super) fn is_default(provider: &Provider) -> bool {
    let is_built_in = matches!(
        (provider.name.as_str(), provider.kind),
        ("kimi", ProviderKind::Kimi) | ("glm", ProviderKind::Glm)
    );
    is_built_in
        && provider.api_key_file.is_none()
        && provider.api_key_env == default_variable(provider.kind)
}

/// The key, or `None` where there is none.
///
/// # Errors
/// What is wrong with the place where it should be, in words.
pub(super) fn find(
    provider: &Provider,
    environment: &Environment,
) -> Result<Option<String>, String> {
    if provider.kind == ProviderKind::Embedded {
        return Ok(None);
    }
    let (variable, file) = (&provider.api_key_env, &provider.api_key_file);
    if let Some(key) = secret::find(variable.as_deref(), file.as_deref(), environment)? {
        return Ok(Some(key));
    }
    secret::from_credential(&provider.name, environment)
}

/// What to do about a missing key.
pub(super) fn advice(provider: &Provider) -> String {
    if let Some(problem) = &provider.api_key_problem {
        return problem.clone();
    }
    let name = &provider.name;
    match &provider.api_key_env {
        Some(variable) => {
            format!(
                "set the environment variable {variable}, or name a file in providers.{name}.api_key_file"
            )
        }
        None => format!(
            "name a variable in providers.{name}.api_key_env, or a file in providers.{name}.api_key_file"
        ),
    }
}
