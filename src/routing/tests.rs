//! Routing as tables: what a client asks for, and where it goes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::{ModelInfo, Route, RouteError, Router};
use crate::chat::ChatRequest;
use crate::config::{
    Breaker, Fallback, Model, OperationTimeouts, Pool, Provider, ProviderKind, Retry, Thinking,
};

fn provider(name: &str, kind: ProviderKind, models: &[(&str, u64)]) -> Provider {
    let time = Duration::from_secs(1);
    let model = |(name, context): &(&str, u64)| Model {
        name: name.to_string(),
        context: *context,
        max_output: None,
        thinking: Thinking::Never,
        efforts: Vec::new(),
        drop: Vec::new(),
    };
    Provider {
        name: name.into(),
        kind,
        base_url: String::new(),
        ca_file: None,
        api_key_env: None,
        api_key_file: None,
        api_key: None,
        api_key_problem: None,
        max_inflight: 1,
        pool: Pool {
            max_connections: 1,
            max_idle_age: time,
            max_age: time,
        },
        timeouts: OperationTimeouts {
            plain: time,
            web_search: time,
            thinking: time,
            web_search_thinking: time,
        },
        retry: Retry::default(),
        breaker: Breaker::default(),
        models: models.iter().map(model).collect(),
        model_list: false,
        faults: false,
        latency: time,
        pace: time,
    }
}

pub(super) fn kimi() -> Provider {
    let models = [("kimi-k3", 1_000), ("kimi-k2.6", 200), ("shared", 100)];
    Provider {
        api_key_env: Some("KIMI_API_KEY".into()),
        ..provider("kimi", ProviderKind::Kimi, &models)
    }
}

pub(super) fn glm() -> Provider {
    let models = [("glm-4.5", 100), ("glm-5.3", 2_000), ("shared", 100)];
    Provider {
        api_key_env: Some("GLM_API_KEY".into()),
        ..provider("glm", ProviderKind::Glm, &models)
    }
}

fn embedded() -> Provider {
    let models = [("embedded", 500), ("kimi-k3", 500)];
    provider("embedded", ProviderKind::Embedded, &models)
}

/// Takes any model, and lists none.
pub(super) fn open() -> Provider {
    provider("open", ProviderKind::OpenAi, &[])
}

pub(super) fn with_key(provider: Provider) -> Provider {
    Provider {
        api_key: Some("secret".into()),
        ..provider
    }
}

fn router(providers: impl IntoIterator<Item = Provider>, auto: &[&str]) -> Router {
    let named = providers
        .into_iter()
        .map(|provider| (provider.name.clone(), provider));
    let auto: Vec<String> = auto.iter().map(|name| name.to_string()).collect();
    Router::over(&BTreeMap::from_iter(named), &auto, |_| None)
}

/// A request whose prompt has `tokens` tokens.
pub(super) fn request(model: &str, tokens: usize) -> ChatRequest {
    ChatRequest::new(model).user("x".repeat(tokens * 4))
}

pub(super) fn went(route: Result<Route, RouteError>) -> String {
    match route {
        Ok(route) => {
            let [stage] = route.stages.as_slice() else {
                panic!("{route:?}");
            };
            let [target] = stage.targets.as_slice() else {
                panic!("{route:?}");
            };
            assert_eq!(target.provider, route.provider);
            format!("{} <- {}", route.provider, route.model)
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_name_leads_to_its_provider() {
    let router = router(
        [with_key(kimi()), glm(), embedded(), open()],
        &["kimi", "glm", "open"],
    );
    for (model, expected) in [
        ("kimi/kimi-k2.6", "kimi <- kimi-k2.6"),
        ("kimi-k2.6", "kimi <- kimi-k2.6"),
        ("open/any", "open <- any"),
        ("open/org/any:free", "open <- org/any:free"),
        ("open/kimi/kimi-k3", "open <- kimi/kimi-k3"),
        ("open/auto", "open <- auto"),
        ("embedded", "embedded <- embedded"),
        ("embedded/kimi-k3", "embedded <- kimi-k3"),
        ("kimi-k3", "kimi <- kimi-k3"),
        ("glm-5.3", "glm is not available: set GLM_API_KEY"),
        ("glm/glm-5.3", "glm is not available: set GLM_API_KEY"),
        ("shared", "kimi <- shared"),
        ("glm/shared", "glm is not available: set GLM_API_KEY"),
    ] {
        // A named model is not refused for the prompt's length, which is only estimated.
        for tokens in [1, 5_000] {
            assert_eq!(
                went(router.route(&request(model, tokens))),
                expected,
                "{model}"
            );
        }
    }
}

#[test]
fn an_unknown_name_is_told_the_nearest_ones() {
    let router = router(
        [with_key(kimi()), glm(), embedded(), open()],
        &["kimi", "glm"],
    );
    for (model, nearest) in [
        ("kimi-k4", "kimi-k3, kimi-k2.6, "),
        ("KIMI-K3", ""),
        ("glm-53", "glm-5.3, glm-4.5, "),
        ("autp", "auto, "),
        ("glm/kimi-k3", "glm/"),
        ("kimi/", "kimi/"),
        ("nobody/kimi-k3", ""),
        ("", ""),
        ("/", ""),
        ("fault-stall", ""),
    ] {
        let error = went(router.route(&request(model, 1)));
        let expected = format!("no model is called {model:?}; the nearest are {nearest}");
        assert!(error.starts_with(&expected), "{error}");
        assert_eq!(error.matches(", ").count(), 2, "three are named: {error}");
    }
}

#[test]
fn whoever_names_a_provider_is_told_of_that_one_only() {
    let router = router([with_key(kimi()), glm(), open()], &[]);
    let error = router.route(&request("glm/glm-5.33", 1));
    let expected = RouteError::UnknownModel {
        name: "glm/glm-5.33".into(),
        suggestions: vec![
            "glm/glm-5.3".into(),
            "glm/glm-4.5".into(),
            "glm/shared".into(),
        ],
        awaited: vec![],
        unread: vec![],
    };
    assert_eq!(error, Err(expected));
    let nothing = "no model is called \"open/\"";
    assert_eq!(went(router.route(&request("open/", 1))), nothing);
}

#[test]
fn a_huge_name_is_cut_before_it_is_looked_at() {
    let router = router([with_key(kimi())], &["kimi"]);
    let error = router.route(&request(&"\u{e4}".repeat(1_000_000), 1));
    let Err(RouteError::UnknownModel { name, .. }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(name, "\u{e4}".repeat(128));
}

#[test]
fn embedded_never_stands_in_for_a_model_of_the_same_name() {
    let router = router([kimi(), embedded()], &["kimi"]);
    let answer = went(router.route(&request("kimi-k3", 1)));
    assert_eq!(answer, "kimi is not available: set KIMI_API_KEY");
}

#[test]
fn of_two_that_list_a_model_the_first_available_answers() {
    for (providers, expected) in [
        ([with_key(kimi()), with_key(glm())], "glm <- shared"),
        ([with_key(kimi()), glm()], "kimi <- shared"),
        ([kimi(), glm()], "glm is not available: set GLM_API_KEY"),
    ] {
        let router = router(providers, &["glm", "kimi"]);
        assert_eq!(went(router.route(&request("shared", 1))), expected);
    }
}

#[test]
fn faulty_models_are_there_where_faults_are_on() {
    let faults = Provider {
        faults: true,
        ..embedded()
    };
    let router = router([with_key(kimi()), faults], &["kimi"]);
    for model in ["fault-stall", "embedded/fault-stall"] {
        assert_eq!(
            went(router.route(&request(model, 1))),
            "embedded <- fault-stall"
        );
    }
    let error = went(router.route(&request("kimi/fault-stall", 1)));
    assert!(error.starts_with("no model is called"), "{error}");
}

#[test]
fn auto_goes_to_the_first_available_provider_that_fits() {
    let both = || vec![with_key(kimi()), with_key(glm()), embedded(), open()];
    let only_glm = || vec![kimi(), with_key(glm()), embedded()];
    let order = ["kimi", "glm"];
    for (providers, auto, tokens, expected) in [
        (both(), &order[..], 10, "kimi <- kimi-k3"),
        (both(), &["glm", "kimi"][..], 10, "glm <- glm-4.5"),
        (both(), &["glm", "kimi"][..], 100, "glm <- glm-4.5"),
        (both(), &["glm", "kimi"][..], 101, "glm <- glm-5.3"),
        (both(), &order[..], 1_001, "glm <- glm-5.3"),
        (both(), &["kimi"][..], 10, "kimi <- kimi-k3"),
        (both(), &["open", "glm"][..], 10, "glm <- glm-4.5"),
        (
            both(),
            &["embedded", "gone", "glm"][..],
            10,
            "glm <- glm-4.5",
        ),
        (only_glm(), &order[..], 10, "glm <- glm-4.5"),
        (
            vec![kimi(), glm(), embedded()],
            &order[..],
            10,
            "embedded <- embedded",
        ),
        (vec![embedded()], &[][..], 10, "embedded <- embedded"),
    ] {
        let router = router(providers, auto);
        assert_eq!(
            went(router.route(&request("auto", tokens))),
            expected,
            "{auto:?} {tokens}"
        );
    }
}

#[test]
fn auto_that_finds_nobody_says_what_to_do() {
    let too_long = |tokens: u64, context: u64| {
        format!(
            "the prompt has about {tokens} tokens, and the largest context that is available holds {context}"
        )
    };
    let order = ["kimi", "glm"];
    for (providers, auto, tokens, expected) in [
        (
            vec![with_key(kimi()), glm()],
            &order[..],
            2_001,
            too_long(2_001, 1_000),
        ),
        (
            vec![with_key(kimi()), with_key(glm())],
            &order[..],
            2_001,
            too_long(2_001, 2_000),
        ),
        (
            vec![kimi(), embedded()],
            &order[..],
            501,
            too_long(501, 500),
        ),
        (
            vec![kimi(), glm()],
            &order[..],
            1,
            "auto is not available: set KIMI_API_KEY, or set GLM_API_KEY".into(),
        ),
        // Another provider has a key, so a made-up answer would be no honest one.
        (
            vec![kimi(), with_key(glm()), embedded()],
            &["kimi"][..],
            1,
            "auto is not available: set KIMI_API_KEY".into(),
        ),
        (
            vec![open(), embedded()],
            &["open"][..],
            1,
            "auto is not available: list models in providers.open.models".into(),
        ),
        (
            vec![kimi(), open(), embedded()],
            &["kimi", "open"][..],
            1,
            "auto is not available: set KIMI_API_KEY, or list models in providers.open.models"
                .into(),
        ),
    ] {
        let router = router(providers, auto);
        assert_eq!(
            went(router.route(&request("auto", tokens))),
            expected,
            "{auto:?}"
        );
    }
}

#[test]
fn a_route_says_its_reason() {
    let order = ["kimi", "glm", "open"];
    for (providers, model, tokens, expected) in [
        (vec![with_key(kimi())], "kimi-k3", 1, "asked for by name"),
        (
            vec![with_key(kimi())],
            "auto",
            3,
            "auto: kimi/kimi-k3, the first that fits about 3 tokens",
        ),
        (
            vec![kimi(), with_key(glm())],
            "auto",
            3,
            "auto: glm/glm-4.5, the first that fits about 3 tokens (kimi: set KIMI_API_KEY)",
        ),
        (
            vec![with_key(kimi()), with_key(glm())],
            "auto",
            1_500,
            "auto: glm/glm-5.3, the first that fits about 1500 tokens (kimi: no model fits)",
        ),
        (
            vec![kimi(), glm(), embedded()],
            "auto",
            3,
            "auto: embedded/embedded, since no other provider has a key (kimi: set KIMI_API_KEY; glm: set GLM_API_KEY)",
        ),
        (
            vec![embedded()],
            "auto",
            3,
            "auto: embedded/embedded, since no other provider is configured",
        ),
    ] {
        let route = router(providers, &order).route(&request(model, tokens));
        assert_eq!(route.map(|route| route.reason), Ok(expected.to_string()));
    }
}

#[test]
fn a_missing_key_is_asked_for_by_the_name_of_its_place() {
    let file = || Some(PathBuf::from("/etc/secret-place"));
    let variable = || Some("MY_KEY".to_string());
    for (api_key_env, api_key_file, expected) in [
        (variable(), None, "set MY_KEY"),
        (
            variable(),
            file(),
            "set MY_KEY, or put its key into the file of providers.kimi.api_key_file",
        ),
        (
            None,
            file(),
            "put its key into the file of providers.kimi.api_key_file",
        ),
        (
            None,
            None,
            "say in providers.kimi.api_key_env which variable holds its key",
        ),
    ] {
        let kimi = Provider {
            api_key_env,
            api_key_file,
            ..kimi()
        };
        let answer = went(router([kimi], &["kimi"]).route(&request("kimi-k3", 1)));
        assert_eq!(answer, format!("kimi is not available: {expected}"));
    }
}

#[test]
fn every_listed_model_can_be_asked_for_by_its_id() {
    let router = router(
        [kimi(), with_key(glm()), embedded(), open()],
        &["kimi", "glm"],
    );
    let models = router.models();
    let listed = models
        .iter()
        .map(|model| (model.id.as_str(), model.context, model.available));
    let expected = [
        ("auto", 2_000, true),
        ("kimi-k3", 1_000, false),
        ("kimi-k2.6", 200, false),
        ("kimi/shared", 100, false),
        ("glm-4.5", 100, true),
        ("glm-5.3", 2_000, true),
        ("shared", 100, true),
        ("embedded", 500, true),
        ("embedded/kimi-k3", 500, true),
    ];
    assert_eq!(
        Vec::from_iter(listed),
        expected.map(|(id, context, available)| (id, Some(context), available))
    );
    for ModelInfo {
        id,
        provider,
        available,
        ..
    } in models.into_iter().skip(1)
    {
        match router.route(&ChatRequest::new(&id)) {
            Ok(route) => assert_eq!((route.provider, true), (provider, available), "{id}"),
            Err(RouteError::Unavailable {
                provider: other, ..
            }) => {
                assert_eq!((other, false), (provider, available), "{id}");
            }
            Err(error) => panic!("{id}: {error}"),
        }
    }
}

fn stages(router: &Router, model: &str, tokens: usize) -> Vec<String> {
    let route = router.route(&request(model, tokens)).expect("a route");
    let name = |stage: &super::Stage| format!("{}/{}", stage.targets[0].provider, stage.model);
    route.stages.iter().map(name).collect()
}

fn fallback(names: &[&str]) -> Vec<Fallback> {
    let fallback = |name: &&str| {
        let (provider, model) = name.split_once('/').expect("provider/model");
        let (provider, model) = (provider.to_string(), model.to_string());
        Fallback { provider, model }
    };
    names.iter().map(fallback).collect()
}

#[test]
fn those_of_the_fallback_stand_behind_whoever_was_asked_for() {
    let names = fallback(&["glm/glm-5.3", "kimi/kimi-k3", "open/any"]);
    let router = router(
        [with_key(kimi()), with_key(glm()), embedded(), open()],
        &["kimi"],
    );
    let router = router.with_fallback(&names);
    assert_eq!(
        stages(&router, "kimi-k2.6", 10),
        ["kimi/kimi-k2.6", "glm/glm-5.3", "kimi/kimi-k3", "open/any"]
    );
    assert_eq!(
        stages(&router, "auto", 10),
        ["kimi/kimi-k3", "glm/glm-5.3", "open/any"],
        "nobody steps in for itself"
    );
    assert_eq!(stages(&router, "embedded", 10), ["embedded/embedded"]);
}

#[test]
fn a_fallback_is_skipped_where_the_prompt_does_not_fit_or_the_key_is_missing() {
    let names = fallback(&["kimi/kimi-k2.6", "glm/glm-5.3", "open/any"]);
    let router = router([with_key(kimi()), glm(), open()], &["kimi"]).with_fallback(&names);
    assert_eq!(
        stages(&router, "kimi-k3", 200),
        ["kimi/kimi-k3", "kimi/kimi-k2.6", "open/any"]
    );
    assert_eq!(
        stages(&router, "kimi-k3", 201),
        ["kimi/kimi-k3", "open/any"],
        "what an unlisted model holds is not known"
    );
}
