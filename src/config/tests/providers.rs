//! What is refused under `[providers]` and `[routing]`.

use super::{check, refusals};
use crate::config::Config;

#[test]
fn a_provider_of_ones_own_must_say_what_it_is() {
    let url = "http:// or https://, a host, maybe a port and a path, and nothing else";
    assert_eq!(
        refusals("[providers.mine]\n"),
        [
            format!("test.toml:1: providers.mine.base_url: missing, accepted is {url}"),
            "test.toml:1: providers.mine.kind: missing, accepted is kimi | glm | openai".to_owned(),
        ]
    );
    let kind = "kind: found \"llama\", accepted is kimi | glm | openai | embedded";
    check(
        "[providers.mine]\nkind = \"llama\"\nbase_url = \"http://h\"",
        &format!("test.toml:2: providers.mine.{kind}"),
    );
    check(
        "providers.kimi.base_url = \"ftp://h\"",
        &format!(
            "test.toml:1: providers.kimi.base_url: found a string that is not accepted here, accepted is {url}"
        ),
    );
    let together = "kind: the provider `embedded` and the kind `embedded` belong together";
    check(
        "providers.mine.kind = \"embedded\"",
        &format!("test.toml:1: providers.mine.{together}"),
    );
}

#[test]
fn names_that_would_mean_two_things_are_refused() {
    let url = "kind = \"openai\"\nbase_url = \"http://h\"\n";
    check(
        &format!("[providers.a-b]\n{url}[providers.a_b]\n{url}"),
        "test.toml:4: providers.a_b: differs from providers.a-b only in case or in - and _: a duplicate name",
    );
    for name in ["auto", "\"a/b\"", "\"\"", "a__b", "1a", "Mine"] {
        let problems = refusals(&format!("[providers.{name}]\n{url}"));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].contains("found a name that is not accepted"),
            "{problems:?}"
        );
    }
}

#[test]
fn models_that_nobody_could_call_are_refused() {
    let name = "accepted is a name without spaces, of at most 256 bytes, not \"auto\"";
    for (models, problem) in [
        (
            "[]",
            "models: found an empty list, accepted is at least one model".to_owned(),
        ),
        (
            "[{ name = \"a\" }, { name = \"a\" }]",
            "models: the model \"a\" stands there twice".to_owned(),
        ),
        (
            "[{ name = \"\" }]",
            format!("models[0].name: found \"\", {name}"),
        ),
        (
            "[{ name = \"auto\" }]",
            format!("models[0].name: found \"auto\", {name}"),
        ),
        (
            "[{ context = 9 }]",
            format!("models[0].name: missing, {name}"),
        ),
        (
            "[\"a\"]",
            "models[0]: found a string, accepted is a table".to_owned(),
        ),
        (
            "\"a\"",
            "models: found a string, accepted is a list of tables".to_owned(),
        ),
        (
            "[{ name = \"a\", context = 9, max_output = 10 }]",
            "models[0].max_output: 10 is more than the model's context (9) holds".to_owned(),
        ),
        (
            "[{ name = \"a\", thinking = \"maybe\" }]",
            "models[0].thinking: found \"maybe\", accepted is never | optional | default | always"
                .to_owned(),
        ),
    ] {
        check(
            &format!("providers.kimi.models = {models}"),
            &format!("test.toml:1: providers.kimi.{problem}"),
        );
    }
}

#[test]
fn auto_can_only_go_to_providers_that_are_there() {
    for (auto, problem) in [
        (
            "[]",
            "found an empty list, accepted is at least one provider",
        ),
        (
            "[\"kimmi\"]",
            "found \"kimmi\", accepted are the names of providers: kimi, glm",
        ),
        ("[\"kimi\", \"kimi\"]", "\"kimi\" stands there twice"),
        (
            "[\"embedded\"]",
            "\"embedded\" is embedded: it answers `auto` only when no other provider has a key",
        ),
    ] {
        check(
            &format!("routing.auto = {auto}"),
            &format!("test.toml:1: routing.auto: {problem}"),
        );
    }
}

#[test]
fn somebody_must_be_left_to_answer() {
    let off = "enabled = false";
    let problems = refusals(&format!(
        "[providers]\nkimi.{off}\nglm.{off}\nembedded.{off}"
    ));
    assert_eq!(
        problems,
        [
            "test.toml:1: providers: all of them are switched off, accepted is at least one that is on"
        ]
    );
}

#[test]
fn a_fallback_names_models_that_are_there() {
    let accepted = "\"provider/model\", a model that the provider lists";
    for (name, problem) in [
        (
            "kimi-k3",
            format!("found \"kimi-k3\", accepted is {accepted}"),
        ),
        (
            "kimi/k0",
            format!("found \"kimi/k0\", accepted is {accepted}"),
        ),
        (
            "gone/m",
            format!("found \"gone/m\", accepted is {accepted}"),
        ),
        (
            "embedded/embedded",
            "\"embedded/embedded\" is embedded: nobody takes a made-up answer for a model's".into(),
        ),
    ] {
        let text = format!("routing.fallback = [\"{name}\"]");
        let expected = format!("test.toml:1: routing.fallback: {problem}");
        assert_eq!(refusals(&text), [expected]);
    }
    let twice = "routing.fallback = [\"glm/glm-5\", \"glm/glm-5\"]";
    assert_eq!(refusals(twice).len(), 1);
    let text =
        "providers.glm.enabled = false\nrouting.fallback = [\"glm/glm-5\", \"kimi/kimi-k3\"]";
    let config = Config::from_toml(text, "test.toml").expect("accepted");
    let found: Vec<&str> = config
        .routing
        .fallback
        .iter()
        .map(|next| &*next.provider)
        .collect();
    assert_eq!(found, ["kimi"], "who is switched off is passed over");
}

#[test]
fn a_budget_that_allows_nothing_is_refused_with_both_keys() {
    let found = refusals("providers.kimi.retry.budget = 5");
    assert!(found[0].contains("providers.kimi.retry.floor"), "{found:?}");
    assert!(
        found[0].contains("providers.kimi.retry.budget"),
        "{found:?}"
    );
}

/// A certificate of an authority, in PEM.
pub(super) fn authority() -> String {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    params.self_signed(&key).expect("a certificate").pem()
}

fn with_ca(path: &std::path::Path) -> String {
    format!(
        "providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"https://mine.example/v1\"\n\
         providers.mine.ca_file = {path:?}"
    )
}

#[test]
fn authorities_of_ones_own_are_read_with_the_configuration() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = format!("Ours\n{}\n\n# the other\n{}", authority(), authority());
    std::fs::write(file.path(), text.replace('\n', "\r\n")).expect("a file");
    let config = Config::from_toml(&with_ca(file.path()), "test.toml").expect("accepted");
    let ca_file = config.providers["mine"].ca_file.clone().expect("it is set");
    assert_eq!(ca_file.path, file.path());
    assert_eq!(ca_file.certificates.len(), 2);
}

#[test]
fn a_file_of_authorities_that_is_none_is_refused_with_its_line() {
    let good = authority();
    let cut = good.replace("-----END CERTIFICATE-----", "");
    let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    let none = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let after = good.lines().count() + 1;
    for (text, expected) in [
        (
            String::new(),
            " holds no certificate, accepted are certificates in PEM".to_owned(),
        ),
        (
            "no PEM".to_owned(),
            " holds no certificate, accepted are certificates in PEM".to_owned(),
        ),
        (
            format!("{good}{cut}"),
            format!(":{after}: the certificate that begins here has no END line"),
        ),
        (
            format!("{cut}{good}"),
            ":1: the certificate that begins here has no END line".to_owned(),
        ),
        (
            format!("{good}{key}"),
            format!(":{after}: found PRIVATE KEY, accepted is CERTIFICATE"),
        ),
        (
            format!("{good}{none}"),
            format!(":{after}: the certificate that begins here is none: "),
        ),
        (
            none.replace("AAAA", "%"),
            ":1: the certificate that begins here is none: ".to_owned(),
        ),
    ] {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &text).expect("a file");
        let shown = file.path().display();
        let start = format!("test.toml:3: providers.mine.ca_file: {shown}{expected}");
        let told = refusals(&with_ca(file.path()));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(&start), "{} is not {start}", told[0]);
    }
}

#[test]
fn authorities_that_are_not_there_or_that_nobody_would_look_at_are_refused() {
    check(
        &with_ca("nowhere/ca.pem".as_ref()),
        "test.toml:3: providers.mine.ca_file: cannot read nowhere/ca.pem: No such file or directory (os error 2)",
    );
    check(
        &with_ca("ca.pem".as_ref()).replace("https:", "http:"),
        "test.toml:3: providers.mine.ca_file: there is no certificate to look at where base_url begins with http://",
    );
}
