//! What knobs mean together.

use std::time::Duration;

use crate::config::{Config, OperationTimeouts, Profile, ProviderKind, Thinking};

fn config(text: &str) -> Config {
    Config::from_toml(text, "test.toml").expect("accepted")
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn explicit_keys_win_over_the_profile_and_the_rest_follows_it() {
    let config =
        config("profile = \"prod\"\n[limits]\nglobal = 7\n[providers.kimi]\nmax_inflight = 20");
    assert_eq!((config.limits.global, config.limits.session), (7, 8));
    assert_eq!(config.providers["kimi"].max_inflight, 20);
    assert_eq!(
        config.providers["kimi"].pool.max_connections, 20,
        "never below max_inflight"
    );
    assert_eq!(config.providers["glm"].max_inflight, 4);
    assert_eq!(
        config.providers["embedded"].max_inflight, 7,
        "as the global limit"
    );
}

#[test]
fn the_built_in_defaults_are_those_of_the_requirements() {
    let config = Config::builtin(Profile::Dev);
    let timeouts = &config.timeouts;
    let kinds = [
        timeouts.normal,
        timeouts.streaming,
        timeouts.continuation,
        timeouts.connect,
        timeouts.idle,
    ];
    assert_eq!(kinds, [30, 300, 120, 10, 60].map(secs));
    assert_eq!(config.queue.timeout, secs(60));
    assert_eq!(config.limits.session_idle, secs(3600));
    for (name, rows) in [
        ("kimi", [240, 300, 360, 420]),
        ("glm", [120, 300, 300, 420]),
    ] {
        let [plain, web_search, thinking, web_search_thinking] = rows.map(secs);
        let expected = OperationTimeouts {
            plain,
            web_search,
            thinking,
            web_search_thinking,
        };
        assert_eq!(config.providers[name].timeouts, expected, "{name}");
    }
}

#[test]
fn a_provider_without_a_table_leaves_its_deadline_to_the_kind_of_request() {
    let text = "timeouts.streaming = \"20s\"\n[providers.mine]\nkind = \"openai\"\nbase_url = \"http://localhost:1/v1/\"";
    let config = config(text);
    let mine = &config.providers["mine"];
    assert_eq!(
        (mine.kind, mine.base_url.as_str()),
        (ProviderKind::OpenAi, "http://localhost:1/v1")
    );
    assert_eq!(mine.timeouts.web_search_thinking, secs(20));
    assert_eq!((mine.max_inflight, mine.models.len()), (4, 0));
}

#[test]
fn a_second_account_of_a_built_in_kind_has_its_defaults() {
    let config = config(
        "[providers.kimi-china]\nkind = \"kimi\"\nbase_url = \"https://api.moonshot.cn/v1\"",
    );
    let china = &config.providers["kimi-china"];
    assert_eq!(china.models, config.providers["kimi"].models);
    assert_eq!(china.api_key_env.as_deref(), Some("KIMI_API_KEY"));
    assert_eq!(config.routing.auto, ["kimi", "kimi-china", "glm"]);
}

#[test]
fn auto_goes_to_kimi_then_glm_then_the_others_by_name() {
    let local = "kind = \"openai\"\nbase_url = \"http://localhost:1\"\n";
    let text = format!("[providers.zeta]\n{local}[providers.alpha]\n{local}");
    assert_eq!(config(&text).routing.auto, ["kimi", "glm", "alpha", "zeta"]);
    let chosen = format!("routing.auto = [\"zeta\", \"kimi\"]\n{text}");
    assert_eq!(config(&chosen).routing.auto, ["zeta", "kimi"]);
}

#[test]
fn a_provider_can_be_switched_off_and_auto_passes_it_over() {
    let config = config("providers.kimi.enabled = false\nrouting.auto = [\"kimi\", \"glm\"]");
    assert_eq!(
        config.providers.keys().collect::<Vec<_>>(),
        ["embedded", "glm"]
    );
    assert_eq!(config.routing.auto, ["glm"]);
}

#[test]
fn the_test_profile_keeps_providers_at_loopback_addresses() {
    let text = "profile = \"test\"\nproviders.kimi.base_url = \"http://127.0.0.1:9/v1\"\nproviders.glm.enabled = true";
    let config = config(text);
    assert_eq!(
        config.providers.keys().collect::<Vec<_>>(),
        ["embedded", "glm", "kimi"]
    );
}

#[test]
fn models_of_the_file_replace_the_built_in_ones() {
    let config = config(
        "[[providers.glm.models]]\nname = \"glm-6\"\n[[providers.glm.models]]\nname = \"vendor/other\"\ncontext = 8000\n\
         max_output = 1000\nthinking = \"optional\"\nefforts = [\"low\"]\ndrop = [\"seed\"]",
    );
    let models = &config.providers["glm"].models;
    assert_eq!(
        (
            models[0].name.as_str(),
            models[0].context,
            models[0].max_output
        ),
        ("glm-6", 131_072, None)
    );
    assert_eq!(
        (models[1].thinking, models[1].max_output),
        (Thinking::Optional, Some(1000))
    );
    assert_eq!(
        (models[1].efforts.as_slice(), models[1].drop.as_slice()),
        (
            ["low".to_owned()].as_slice(),
            ["seed".to_owned()].as_slice()
        )
    );
}

#[test]
fn no_built_in_model_stands_twice_or_answers_more_than_it_holds() {
    for provider in Config::builtin(Profile::Dev).providers.values() {
        let mut names: Vec<&str> = provider
            .models
            .iter()
            .map(|model| model.name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), provider.models.len(), "{}", provider.name);
        assert!(
            provider
                .models
                .iter()
                .all(|model| model.max_output.unwrap_or(0) <= model.context)
        );
    }
}
