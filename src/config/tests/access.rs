//! Keys of clients: where they are found, what is refused and in which words, and that nobody gets to see them.

use std::fs;

use super::{check, shown};
use crate::config::{Config, Listen, Loader, Priority};

const SECRET: &str = "pk-very-secret";

fn with(variables: &[(&str, &str)]) -> Loader {
    Loader::new(variables.iter().copied().collect())
}

fn read(variables: &[(&str, &str)], text: &str) -> Config {
    with(variables)
        .from_toml(text, "test.toml")
        .expect("accepted")
}

/// `text` is refused for one thing, in these words, though `A` and `B` hold keys.
#[track_caller]
fn refused(text: &str, expected: &str) {
    let loader = with(&[
        ("A", SECRET),
        ("B", "other"),
        ("BLANK", "  "),
        ("BAD", "a b"),
    ]);
    let problems = shown(loader.from_toml(text, "test.toml"));
    assert_eq!(problems, [expected], "{text}");
}

#[test]
fn a_key_says_who_comes_and_what_its_requests_are() {
    let text = "[[server.keys]]\nname = \"agent-1\"\nkey_env = \"A\"\n\
                [[server.keys]]\nname = \"ops\"\nkey_env = \"B\"\npriority = \"high\"\nsession_limit = 1\nadmin = true";
    let config = read(&[("A", " one\n"), ("B", "two")], text);
    let [agent, ops] = config.access.keys.as_slice() else {
        panic!("two keys: {:?}", config.access);
    };
    assert_eq!(
        (agent.name.as_str(), agent.key.as_str()),
        ("agent-1", "one")
    );
    assert_eq!(
        (agent.priority, agent.session_limit, agent.admin),
        (Priority::Medium, None, false)
    );
    assert_eq!(
        (ops.priority, ops.session_limit, ops.admin),
        (Priority::High, Some(1), true)
    );
}

#[test]
fn a_key_comes_from_the_variable_then_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("agent.key");
    fs::write(&file, "from-file\n").expect("written");
    let path = file.display();
    let text =
        format!("server.keys = [{{ name = \"a\", key_env = \"A\", key_file = \"{path}\" }}]");
    for (variables, key) in [
        (&[("A", "from-variable")][..], "from-variable"),
        (&[("A", " ")], "from-file"),
        (&[], "from-file"),
    ] {
        assert_eq!(read(variables, &text).access.keys[0].key, key);
    }
}

#[test]
fn a_key_comes_from_a_credential_of_its_own_name_and_never_from_that_of_a_provider() {
    let directory = tempfile::tempdir().expect("a directory");
    let credentials = directory.path().display().to_string();
    let variables = |key| {
        [
            ("CREDENTIALS_DIRECTORY", credentials.clone()),
            ("A", String::from(key)),
        ]
    };
    let load =
        |text: &str, key| Loader::new(variables(key).into_iter().collect()).from_toml(text, "");
    let (bare, named) = (
        "server.keys = [{ name = \"kimi\" }]",
        "server.keys = [{ name = \"kimi\", key_env = \"A\" }]",
    );
    fs::write(directory.path().join("kimi"), "sk-provider\n").expect("written");
    assert!(load(bare, "").is_err(), "a provider's key is no client's");
    fs::write(directory.path().join("server.keys.kimi"), "pk-client\n").expect("written");
    for (text, variable, key) in [
        (bare, "", "pk-client"),
        (named, "", "pk-client"),
        (named, "from-variable", "from-variable"),
    ] {
        let config = load(text, variable).expect("accepted");
        assert_eq!(config.access.keys[0].key, key);
        let provider = config.providers["kimi"].api_key.as_deref();
        assert_eq!(provider, Some("sk-provider"));
    }
}

#[test]
fn a_key_that_is_not_there_stops_the_start_in_words() {
    refused(
        "[[server.keys]]\nname = \"a\"\nkey_env = \"NOWHERE\"",
        "test.toml:3: server.keys[0].key_env: the environment variable NOWHERE is not set",
    );
    refused(
        "[[server.keys]]\nname = \"a\"\nkey_env = \"BLANK\"",
        "test.toml:3: server.keys[0].key_env: the environment variable BLANK is not set",
    );
    refused(
        "[[server.keys]]\nname = \"a\"\nkey_env = \"BAD\"",
        "test.toml:3: server.keys[0].key_env: the environment variable BAD holds characters that no key has, or more \
         than one line",
    );
    refused(
        "[[server.keys]]\nname = \"a\"",
        "test.toml:1: server.keys[0].key_env: missing, accepted is the name of an environment variable, a file in \
         key_file, or a systemd credential server.keys.NAME",
    );
    let text = "server.keys = [{ name = \"a\", key_file = \"/nowhere/a.key\" }]";
    let problems = shown(Config::from_toml(text, "test.toml"));
    let start =
        "test.toml:1: server.keys[0].key_file: cannot read the key from /nowhere/a.key: No such";
    assert!(problems[0].starts_with(start), "{problems:?}");
}

#[test]
fn two_keys_alike_and_two_of_one_name_are_refused() {
    refused(
        "server.keys = [{ name = \"a\", key_env = \"A\" }, { name = \"b\", key_env = \"A\" }]",
        "test.toml:1: server.keys: the keys of \"a\" and \"b\" are alike, accepted are different ones: nobody could \
         tell whose a request is",
    );
    refused(
        "server.keys = [{ name = \"a\", key_env = \"A\" }, { name = \"a\", key_env = \"B\" }]",
        "test.toml:1: server.keys: the name \"a\" stands there twice",
    );
}

#[test]
fn a_name_is_a_plain_word() {
    let accepted = "accepted is letters, digits, - _ and ., at most 64";
    for name in ["", "a b", "a\\nb", "\u{e9}"] {
        refused(
            &format!("server.keys = [{{ name = \"{name}\", key_env = \"A\" }}]"),
            &format!(
                "test.toml:1: server.keys[0].name: found a string that is not accepted here, {accepted}"
            ),
        );
    }
    refused(
        "server.keys = [{ key_env = \"A\" }]",
        &format!("test.toml:1: server.keys[0].name: missing, {accepted}"),
    );
}

#[test]
fn with_keys_other_machines_may_reach_the_server() {
    let text = "server.listen = \"0.0.0.0:8787\"\n[[server.keys]]\nname = \"a\"\nkey_env = \"A\"";
    let config = read(&[("A", SECRET)], text);
    assert_eq!(config.server.listen, Listen::Tcp("0.0.0.0:8787".to_owned()));
    let problems = shown(Config::from_toml(
        "server.listen = \"0.0.0.0:8787\"\nserver.keys = []",
        "test.toml",
    ));
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn hosts_and_origins_are_lists_that_a_browser_would_send() {
    let text = "[server]\nallowed_hosts = [\"box.lan\", \"192.168.1.7\"]\nallowed_origins = [\"https://dash.example\"]";
    let access = read(&[("POINTSMAN_SERVER__ALLOWED_HOSTS", "a.lan, b.lan")], text).access;
    assert_eq!(access.allowed_hosts, ["a.lan", "b.lan"]);
    assert_eq!(access.allowed_origins, ["https://dash.example"]);
    check(
        "server.allowed_hosts = [\"box.lan:8787\"]",
        "test.toml:1: server.allowed_hosts: found a list, accepted is a list of host names and IP addresses, without ports",
    );
    check(
        "server.allowed_origins = [\"*\"]",
        "test.toml:1: server.allowed_origins: found a list, accepted is a list of origins as browsers send them: \
         scheme://host or scheme://host:port",
    );
}

#[test]
fn a_client_s_key_is_in_no_debug_form_and_no_refusal() {
    let good = "server.keys = [{ name = \"a\", key_env = \"A\" }]";
    let config = read(&[("A", SECRET)], good);
    assert_eq!(config.access.keys[0].key, SECRET);
    assert!(!format!("{config:?}{config:#?}").contains(SECRET));
    for entry in [
        format!("{{ name = \"a\", key = \"{SECRET}\" }}"),
        format!("{{ name = \"a\", key_env = \"{SECRET}\" }}"),
        format!("{{ name = \"a\", key_file = [\"{SECRET}\"] }}"),
        format!("{{ name = \"{SECRET} \", key_env = \"A\" }}"),
        format!("\"{SECRET}\""),
        "{ name = \"a\", key_env = \"A\" }, { name = \"b\", key_env = \"A\" }".to_owned(),
    ] {
        let text = format!("server.keys = [{entry}]");
        let problems = shown(with(&[("A", SECRET)]).from_toml(&text, "test.toml"));
        assert!(!problems.is_empty(), "{text}");
        assert!(!problems.concat().contains(SECRET), "{problems:?}");
    }
}

#[test]
fn keys_can_come_from_the_environment_and_be_appended_to_the_shipped_file() {
    let variables = [
        (
            "POINTSMAN_SERVER__KEYS",
            "[{ name = \"a\", key_env = \"POINTSMAN_A\" }]",
        ),
        ("POINTSMAN_A", SECRET),
    ];
    assert_eq!(read(&variables, "").access.keys[0].key, SECRET);
    let shipped = include_str!("../../../config.toml");
    let text = format!("{shipped}\n[[server.keys]]\nname = \"a\"\nkey_env = \"A\"\n");
    assert_eq!(read(&[("A", SECRET)], &text).access.keys.len(), 1);
}
