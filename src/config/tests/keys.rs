//! Keys of providers: where they are found, what is said when they aren't, and that nobody gets to see them.

use std::fs;
use std::path::Path;

use super::shown;
use crate::config::{Config, Environment, Loader, Provider};

const SECRET: &str = "sk-very-secret";

fn read(variables: &[(&str, &str)], text: &str) -> Config {
    let environment: Environment = variables.iter().copied().collect();
    Loader::new(environment)
        .from_toml(text, "test.toml")
        .expect("accepted")
}

fn kimi(variables: &[(&str, &str)], text: &str) -> Provider {
    read(variables, text).providers["kimi"].clone()
}

fn key_file(path: &Path) -> String {
    format!(
        "providers.kimi.api_key_file = {:?}",
        path.display().to_string()
    )
}

#[test]
fn a_missing_key_is_no_error_and_says_which_variable_to_set() {
    for (name, advice) in [
        (
            "kimi",
            "set the environment variable KIMI_API_KEY, or name a file in providers.kimi.api_key_file",
        ),
        (
            "glm",
            "set the environment variable GLM_API_KEY, or name a file in providers.glm.api_key_file",
        ),
    ] {
        let config = read(&[("KIMI_API_KEY", "  "), ("GLM_API_KEY", "")], "");
        assert!(!config.providers[name].is_available());
        assert_eq!(
            config.providers[name].missing_key().as_deref(),
            Some(advice)
        );
        assert_eq!(config.providers["embedded"].missing_key(), None);
    }
}

#[test]
fn a_key_comes_from_the_variable_then_the_file_then_the_credentials() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file.key");
    fs::write(&file, "from-file\n").expect("written");
    fs::write(directory.path().join("kimi"), "from-credential\n").expect("written");
    let credentials = directory.path().display().to_string();
    let variable = ("KIMI_API_KEY", "from-variable");
    let credential = ("CREDENTIALS_DIRECTORY", credentials.as_str());
    let both = format!(
        "providers.kimi.api_key_env = \"KIMI_API_KEY\"\n{}",
        key_file(&file)
    );
    for (variables, text, key) in [
        (vec![variable, credential], both.as_str(), "from-variable"),
        (
            vec![variable, credential],
            key_file(&file).as_str(),
            "from-file",
        ),
        (vec![credential], both.as_str(), "from-file"),
        (vec![credential], "", "from-credential"),
    ] {
        assert_eq!(kimi(&variables, text).api_key.as_deref(), Some(key));
    }
    assert_eq!(read(&[credential], "").providers["glm"].api_key, None);
}

#[test]
fn a_file_that_gives_no_key_makes_the_provider_unavailable_in_words() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("kimi.key");
    let problem = || {
        kimi(&[], &key_file(&path))
            .missing_key()
            .expect("unavailable")
    };
    assert!(problem().starts_with(&format!("cannot read the key from {}: ", path.display())));
    fs::write(&path, " \n").expect("written");
    assert_eq!(problem(), format!("the file {} is empty", path.display()));
    fs::write(&path, format!("{SECRET}\n{SECRET}\n")).expect("written");
    assert_eq!(
        problem(),
        format!(
            "the file {} holds characters that no key has, or more than one line",
            path.display()
        )
    );
    fs::write(&path, "x".repeat(70_000)).expect("written");
    assert!(problem().ends_with("it has more than 65536 bytes"));
}

#[test]
fn an_openai_provider_needs_a_key_only_if_it_says_where_it_is() {
    let mine = "[providers.mine]\nkind = \"openai\"\nbase_url = \"http://localhost:1\"\n";
    assert!(read(&[], mine).providers["mine"].is_available());
    let keyed = format!("{mine}api_key_env = \"MINE_KEY\"");
    let without = &read(&[], &keyed).providers["mine"];
    assert_eq!(
        without.missing_key().as_deref(),
        Some(
            "set the environment variable MINE_KEY, or name a file in providers.mine.api_key_file"
        )
    );
    assert!(read(&[("MINE_KEY", "k")], &keyed).providers["mine"].is_available());
}

#[test]
fn a_key_is_in_no_debug_form() {
    let config = read(&[("KIMI_API_KEY", SECRET)], "");
    assert_eq!(config.providers["kimi"].api_key.as_deref(), Some(SECRET));
    assert!(!format!("{config:?}").contains(SECRET));
    assert!(!format!("{config:#?}").contains(SECRET));
}

#[test]
fn a_key_in_the_wrong_place_is_refused_without_being_shown() {
    for text in [
        format!("providers.kimi.api_key = \"{SECRET}\""),
        format!("providers.kimi.api_key = {SECRET}"),
        format!("providers.kimi.api_key_env = \"{SECRET}\""),
        format!("providers.kimi.api_key_file = [\"{SECRET}\"]"),
        format!("providers.kimi = \"{SECRET}\""),
        format!("providers.kimi.base_url = \"https://{SECRET}@host/v1\""),
    ] {
        let problems = shown(Config::from_toml(&text, "test.toml"));
        assert!(!problems.is_empty(), "{text}");
        assert!(
            problems
                .iter()
                .all(|problem| problem.starts_with("test.toml:1: ")),
            "{problems:?}"
        );
        assert!(!problems.concat().contains(SECRET), "{problems:?}");
    }
    let environment: Environment = [("POINTSMAN_PROVIDERS__KIMI__API_KEY", SECRET)]
        .into_iter()
        .collect();
    let problems = shown(Loader::new(environment).from_toml("", "test.toml"));
    assert_eq!(
        problems,
        [
            "environment variable POINTSMAN_PROVIDERS__KIMI__API_KEY: providers.kimi.api_key: unknown key, did you mean \
          `api_key_env`?"
        ]
    );
}

#[test]
fn a_variable_that_no_header_can_carry_is_named_not_shown() {
    let provider = kimi(&[("KIMI_API_KEY", "sk-\u{fffd}\u{e9}")], "");
    assert_eq!(
        provider.missing_key().as_deref(),
        Some(
            "the environment variable KIMI_API_KEY holds characters that no key has, or more than one line"
        )
    );
}
