//! The part as a whole: what is accepted, what is refused and in which words, and what `config.toml` says.

mod access;
mod keys;
mod knobs;
mod providers;
mod refusals;
mod shipped;
mod sources;
mod throttle;

use super::{Config, ConfigError, Problem};

/// What a text is refused for, as it is shown.
fn refusals(text: &str) -> Vec<String> {
    shown(Config::from_toml(text, "test.toml"))
}

/// `text` is refused for one thing, in these words.
#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(refusals(text), [expected], "{text}");
}

fn shown(result: Result<Config, ConfigError>) -> Vec<String> {
    match result {
        Ok(_) => Vec::new(),
        Err(ConfigError::Refused(problems)) => problems.iter().map(Problem::to_string).collect(),
        Err(other) => panic!("{other}"),
    }
}
