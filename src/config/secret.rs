//! Where a key is, and what is said when it isn't there.
//!
//! The configuration names an environment variable, a file, or both; never the key itself. Where neither has one, systemd's
//! credentials are looked through (`LoadCredential=NAME:FILE` in a unit). Texts made here name variables
//! and files, never what is in them, and what could be a key in the wrong place is not shown either.

use std::io;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::file::read_text;
use super::section::Section;

/// Where systemd puts what `LoadCredential=` names.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// No key is longer; a file that is, is no key.
const MAX_KEY_BYTES: usize = 64 * 1024;

/// The variable and the file that a section names under these knobs.
pub(super) fn read(
    section: &mut Section<'_>,
    variable_knob: &str,
    file_knob: &str,
) -> (Option<String>, Option<PathBuf>) {
    let accepted =
        "the name of an environment variable (the key itself does not belong into this file)";
    let variable = section.unshown_knob(variable_knob, accepted, |value| {
        value
            .as_text()
            .filter(|name| is_variable(name))
            .map(str::to_owned)
    });
    let file = section.unshown_knob(file_knob, "the path of a file", |value| {
        value
            .as_text()
            .filter(|path| is_path(path))
            .map(PathBuf::from)
    });
    if let Some(name) = &variable {
        section.report.holds_a_key(name);
    }
    (variable, file)
}

/// Keys have `-` or `.` in them and names of variables don't, so most keys in the wrong place are noticed.
fn is_variable(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(fits)
}

fn is_path(path: &str) -> bool {
    !path.is_empty() && !path.contains('\0')
}

/// The key: in the variable, else in the file; `None` where the variable is not set (or blank) and no file is named.
///
/// # Errors
/// What is wrong with the place where it should be, in words.
pub(super) fn find(
    variable: Option<&str>,
    file: Option<&Path>,
    environment: &Environment,
) -> Result<Option<String>, String> {
    if let Some(name) = variable
        && let Some(text) = environment
            .get(name)
            .map(str::trim)
            .filter(|text| !text.is_empty())
    {
        return checked(text, &format!("the environment variable {name}")).map(Some);
    }
    file.map(from_file).transpose()
}

/// The key in a file.
///
/// # Errors
/// As [`find`].
fn from_file(path: &Path) -> Result<String, String> {
    match read_text(path, MAX_KEY_BYTES) {
        Ok(text) => checked(text.trim(), &format!("the file {}", path.display())),
        Err(error) => Err(format!(
            "cannot read the key from {}: {error}",
            path.display()
        )),
    }
}

/// The key in the credential of this name; `None` where systemd gave us none of it. The name is one of a file.
///
/// # Errors
/// As [`find`].
pub(super) fn from_credential(
    name: &str,
    environment: &Environment,
) -> Result<Option<String>, String> {
    let Some(directory) = environment.get(CREDENTIALS) else {
        return Ok(None);
    };
    let path = Path::new(directory).join(name);
    match read_text(&path, MAX_KEY_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        _ => from_file(&path).map(Some),
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
