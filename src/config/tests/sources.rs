//! File, environment, command line: who wins, and who is named when it goes wrong.

use std::fs;
use std::time::Duration;

use super::shown;
use crate::config::{Config, ConfigError, Environment, Listen, Loader, Overrides, Profile};

fn with(variables: &[(&str, &str)]) -> Loader {
    Loader::new(variables.iter().copied().collect())
}

fn read(variables: &[(&str, &str)], text: &str) -> Config {
    with(variables)
        .from_toml(text, "test.toml")
        .expect("accepted")
}

#[test]
fn the_environment_wins_over_the_file_and_the_command_line_over_both() {
    let text = "profile = \"demo\"\nserver.listen = \"127.0.0.1:1\"\nlimits.global = 3";
    let variables = [
        ("POINTSMAN_PROFILE", "test"),
        ("POINTSMAN_SERVER__LISTEN", "127.0.0.1:2"),
        ("POINTSMAN_LIMITS__GLOBAL", "4"),
    ];
    let config = read(&variables, text);
    assert_eq!(config.profile, Profile::Test);
    assert_eq!(config.server.listen, Listen::Tcp("127.0.0.1:2".to_owned()));
    assert_eq!(config.limits.global, 4);

    let overrides = Overrides {
        profile: Some(Profile::Prod),
        listen: Some(Listen::Unix("/run/p.sock".into())),
    };
    let config = with(&variables)
        .overrides(overrides)
        .from_toml(text, "test.toml")
        .expect("accepted");
    assert_eq!((config.profile, config.limits.session), (Profile::Prod, 8));
    assert_eq!(config.server.listen, Listen::Unix("/run/p.sock".into()));
}

#[test]
fn a_variable_can_say_everything_that_a_line_can() {
    let models = "[{ name = \"a\" }, { name = \"b\", context = 9 }]";
    let config = read(
        &[
            ("POINTSMAN_QUEUE__PROVIDER_SHARE", "0.5"),
            ("POINTSMAN_QUEUE__WEIGHTS__HIGH", "9"),
            ("POINTSMAN_SERVER__MAX_BODY", "1MiB"),
            ("POINTSMAN_TIMEOUTS__FIRST_BYTE", "5s"),
            ("POINTSMAN_PROVIDERS__EMBEDDED__FAULTS", "true"),
            ("POINTSMAN_PROVIDERS__GLM__POOL", "{ max_connections = 9 }"),
            ("POINTSMAN_PROVIDERS__GLM__MODELS", models),
            ("POINTSMAN_ROUTING__AUTO", "glm, kimi"),
            ("HOME", "/nowhere"),
        ],
        "",
    );
    assert_eq!(config.queue.provider_share, 0.5);
    assert_eq!(
        (config.queue.weights.high, config.queue.weights.medium),
        (9, 4)
    );
    assert_eq!(config.server.max_body, 1 << 20);
    assert_eq!(config.timeouts.first_byte, Some(Duration::from_secs(5)));
    assert!(config.providers["embedded"].faults);
    assert_eq!(config.providers["glm"].pool.max_connections, 9);
    assert_eq!(config.providers["glm"].models.len(), 2);
    assert_eq!(config.routing.auto, ["glm", "kimi"]);
}

#[test]
fn a_variable_reaches_a_provider_with_a_hyphen_in_its_name() {
    let text = "[providers.kimi-china]\nkind = \"kimi\"\nmax_inflight = 2";
    let config = read(
        &[("POINTSMAN_PROVIDERS__KIMI_CHINA__MAX_INFLIGHT", "5")],
        text,
    );
    assert_eq!(config.providers["kimi-china"].max_inflight, 5);
    assert!(!config.providers.contains_key("kimi_china"));
}

#[test]
fn errors_name_the_variable() {
    for (variable, value, problem) in [
        (
            "POINTSMAN_LIMITS__GLOBAL",
            "many",
            "limits.global: found \"many\", accepted is a whole number from 1 to 4096",
        ),
        (
            "POINTSMAN_LIMITS__GLOBAL",
            "",
            "limits.global: found \"\", accepted is a whole number from 1 to 4096",
        ),
        (
            "POINTSMAN_LIMITS__GLOBL",
            "4",
            "limits.globl: unknown key, did you mean `global`?",
        ),
        (
            "POINTSMAN_GLOBAL",
            "4",
            "global: unknown key, did you mean `limits.global`?",
        ),
        (
            "POINTSMAN_PROFILE",
            "production",
            "profile: found \"production\", accepted is dev | demo | prod | test",
        ),
        (
            "POINTSMAN_LIMITS",
            "4",
            "limits: found a string, accepted is a table",
        ),
    ] {
        let expected = format!("environment variable {variable}: {problem}");
        assert_eq!(
            shown(with(&[(variable, value)]).from_toml("", "test.toml")),
            [expected]
        );
    }
    let broken =
        shown(with(&[("POINTSMAN_ROUTING__AUTO", "[\"kimi\"")]).from_toml("", "test.toml"));
    assert_eq!(broken.len(), 1, "{broken:?}");
    assert!(
        broken[0].starts_with("environment variable POINTSMAN_ROUTING__AUTO: "),
        "{broken:?}"
    );
}

#[test]
fn errors_name_the_option_of_the_command_line() {
    let overrides = Overrides {
        profile: None,
        listen: Some(Listen::Tcp("0.0.0.0:80".to_owned())),
    };
    let problems = shown(
        Loader::default()
            .overrides(overrides)
            .from_toml("", "test.toml"),
    );
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with("command line --listen: server.listen: 0.0.0.0:80 can be reached"),
        "{problems:?}"
    );
}

#[test]
fn a_variable_that_holds_a_key_is_no_unknown_knob() {
    let text = "providers.kimi.api_key_env = \"POINTSMAN_KIMI_KEY\"";
    let config = read(&[("POINTSMAN_KIMI_KEY", "sk-1")], text);
    assert!(config.providers["kimi"].is_available());
}

#[test]
fn a_file_is_read_and_named_and_a_missing_one_is_an_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("mine.toml");
    fs::write(&path, "limits.global = 9\n").expect("written");
    let loader = Loader::default();
    assert_eq!(loader.find(Some(&path)).expect("accepted").limits.global, 9);

    fs::write(&path, "\n\nlimits.global = 0\n").expect("written");
    let problems = shown(loader.load(&path));
    assert!(
        problems[0].starts_with(&format!("{}:3: limits.global: found 0", path.display())),
        "{problems:?}"
    );

    let missing = directory.path().join("missing.toml");
    let error = loader.find(Some(&missing)).expect_err("not there");
    assert!(matches!(&error, ConfigError::Unreadable { path, .. } if *path == missing));
    assert!(
        error
            .to_string()
            .starts_with(&format!("cannot read {}: ", missing.display()))
    );
}

/// Tests run where `Cargo.toml` is, and `config.toml` is beside it.
#[test]
fn without_a_name_the_file_beside_us_is_read() {
    assert_eq!(Loader::locate(None), Some("config.toml".into()));
    let config = Loader::default().find(None).expect("accepted");
    assert_eq!(config, Config::builtin(Profile::Dev));
}

#[test]
fn the_debug_form_of_an_environment_has_names_alone() {
    let environment: Environment = [("KIMI_API_KEY", "sk-secret")].into_iter().collect();
    assert_eq!(format!("{environment:?}"), "{\"KIMI_API_KEY\"}");
}
