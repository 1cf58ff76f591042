//! `[log]`: what is written to standard error.

use super::profile::Profile;
use super::section::Section;

/// `[log]`
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// `off`, `error`, `warn`, `info`, `debug`, `trace`, or a filter in env_logger's form.
    pub level: String,
}

impl Log {
    pub(super) fn read(section: &mut Section<'_>, profile: Profile) -> Self {
        let default = if profile == Profile::Test {
            "warn"
        } else {
            "info"
        };
        let accepted = "off, error, warn, info, debug or trace, or such levels by module: \
                        \"info,pointsman::engine=debug\"";
        let level = section.knob("level", accepted, |value| {
            value
                .as_text()
                .filter(|text| is_filter(text))
                .map(str::to_owned)
        });
        Log {
            level: level.unwrap_or_else(|| default.to_owned()),
        }
    }
}

/// env_logger takes a mistyped level for a module's name and says nothing. Hence a module needs its level here.
fn is_filter(text: &str) -> bool {
    text.split(',')
        .all(|directive| match directive.trim().split_once('=') {
            Some((module, level)) => is_module(module) && is_level(level),
            None => is_level(directive.trim()),
        })
}

fn is_module(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-');
    !text.is_empty() && text.chars().all(fits)
}

fn is_level(text: &str) -> bool {
    ["off", "error", "warn", "info", "debug", "trace"]
        .iter()
        .any(|level| level.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_told_from_typing_errors() {
        for text in [
            "warn",
            "off",
            "INFO",
            "info,pointsman::engine=debug",
            "warn, ureq=off",
        ] {
            assert!(is_filter(text), "{text}");
        }
        for text in [
            "",
            "wran",
            "info,",
            "pointsman",
            "=debug",
            "pointsman=loud",
            "5",
        ] {
            assert!(!is_filter(text), "{text}");
        }
    }
}
