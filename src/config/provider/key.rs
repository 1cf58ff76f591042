//! Where a provider's key is, and what to say when it isn't there.
//!
//! A key is looked for in the environment variable, then in the file, then among systemd's credentials under the
//! provider's name. That there is none is no error: the provider is listed as unavailable, with what to do. Texts made
//! here name variables and files, never what is in them.

use std::io;
use std::path::{Path, PathBuf};

use super::{Provider, ProviderKind};
use crate::config::environment::Environment;
use crate::config::file::read_text;
use crate::config::section::Section;

/// No key is longer; a file that is, is no key.
const MAX_KEY_BYTES: usize = 64 * 1024;

/// Where systemd puts what `LoadCredential=` names.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// `api_key_env` and `api_key_file`. The default variable of a kind counts only where no file is named.
pub(super) fn read(
    section: &mut Section<'_>,
    kind: ProviderKind,
) -> (Option<String>, Option<PathBuf>) {
    let accepted =
        "the name of an environment variable (the key itself does not belong into this file)";
    let variable = section.unshown_knob("api_key_env", accepted, |value| {
        value
            .as_text()
            .filter(|name| is_variable(name))
            .map(str::to_owned)
    });
    let file = section.unshown_knob("api_key_file", "the path of a file", |value| {
        value
            .as_text()
            .filter(|path| is_path(path))
            .map(PathBuf::from)
    });
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

/// Keys have `-` or `.` in them and names of variables don't, so most keys in the wrong place are noticed.
fn is_variable(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(fits)
}

fn is_path(path: &str) -> bool {
    !path.is_empty() && !path.contains('\0')
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
    if let Some(name) = &provider.api_key_env
        && let Some(text) = environment
            .get(name)
            .map(str::trim)
            .filter(|text| !text.is_empty())
    {
        return checked(text, &format!("the environment variable {name}")).map(Some);
    }
    if let Some(path) = &provider.api_key_file {
        return from_file(path).map(Some);
    }
    match environment.get(CREDENTIALS) {
        Some(directory) => from_credential(&Path::new(directory).join(&provider.name)),
        None => Ok(None),
    }
}

fn from_file(path: &Path) -> Result<String, String> {
    match read_text(path, MAX_KEY_BYTES) {
        Ok(text) => checked(text.trim(), &format!("the file {}", path.display())),
        Err(error) => Err(format!(
            "cannot read the key from {}: {error}",
            path.display()
        )),
    }
}

fn from_credential(path: &Path) -> Result<Option<String>, String> {
    match read_text(path, MAX_KEY_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        _ => from_file(path).map(Some),
    }
}

/// A key goes into a header, which carries visible ASCII.
fn checked(key: &str, place: &str) -> Result<String, String> {
    if key.is_empty() {
        Err(format!("{place} is empty"))
    } else if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        Err(format!(
            "{place} holds characters that no key has, or more than one line"
        ))
    } else {
        Ok(key.to_owned())
    }
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
