//! Routing by what providers list themselves.

use std::collections::BTreeMap;

use super::tests::{glm, kimi, open, request, went, with_key};
use super::{RouteError, Router};
use crate::config::Provider;
use crate::providers::Models;
use crate::wire::ListedModel;

/// A router, and the models of each of its providers to say more about.
struct Rig {
    router: Router,
    models: BTreeMap<String, Models>,
}

impl Rig {
    fn new<const N: usize>(providers: [Provider; N], auto: &[&str]) -> Rig {
        let models = providers.each_ref().map(|provider| {
            let models = Models::new(provider);
            models.await_list();
            (provider.name.clone(), models)
        });
        let models = BTreeMap::from(models);
        let providers = providers.map(|provider| (provider.name.clone(), provider));
        let auto: Vec<String> = auto.iter().map(|name| name.to_string()).collect();
        let router = Router::over(&providers.into(), &auto, |provider| {
            models.get(&provider.name).cloned()
        });
        Rig { router, models }
    }

    fn listing<const N: usize>(self, provider: &str, listed: [(&str, Option<u64>); N]) -> Rig {
        let listed = listed.map(|(id, context)| ListedModel {
            id: id.into(),
            context,
            ..ListedModel::default()
        });
        self.models[provider].read(listed.into());
        self
    }

    fn went(&self, model: &str, tokens: usize) -> String {
        went(self.router.route(&request(model, tokens)))
    }
}

fn local() -> Provider {
    let mut local = open();
    local.name = "local".into();
    local
}

#[test]
fn a_model_that_only_its_provider_names_goes_by_both_its_names() {
    let rig = Rig::new([with_key(kimi())], &["kimi"]);
    assert!(rig.went("kimi-k9", 1).starts_with("no model is called"));
    let rig = rig.listing("kimi", [("kimi-k3", None), ("kimi-k9", Some(9_000))]);
    assert_eq!(rig.went("kimi-k9", 1), "kimi <- kimi-k9");
    assert_eq!(rig.went("kimi/kimi-k9", 1), "kimi <- kimi-k9");
    assert_eq!(
        rig.went("kimi-k2.6", 1),
        "kimi <- kimi-k2.6",
        "configured, though not listed"
    );
    let info = rig.router.model("kimi/kimi-k9").expect("it is there");
    assert_eq!(
        (info.id.as_str(), info.context),
        ("kimi/kimi-k9", Some(9_000))
    );
    let listed = rig.router.models().into_iter().map(|model| model.id);
    let expected = ["auto", "kimi-k3", "kimi-k2.6", "shared", "kimi-k9"];
    assert_eq!(Vec::from_iter(listed), expected);
}

#[test]
fn whoever_configures_a_model_is_asked_before_whoever_lists_it() {
    let rig = || {
        let providers = [local(), with_key(kimi())];
        Rig::new(providers, &["local", "kimi"])
            .listing("local", [("kimi-k3", None), ("kimi-k9", None)])
            .listing("kimi", [("kimi-k9", None)])
    };
    assert_eq!(rig().went("kimi-k3", 1), "kimi <- kimi-k3");
    assert_eq!(rig().went("kimi-k9", 1), "local <- kimi-k9");
    assert_eq!(rig().went("local/kimi-k3", 1), "local <- kimi-k3");
    let keyless = Rig::new([local(), kimi()], &["local", "kimi"]);
    let keyless = keyless.listing("local", [("kimi-k3", None)]);
    assert_eq!(keyless.went("kimi-k3", 1), "local <- kimi-k3");
}

#[test]
fn auto_takes_what_an_endpoint_lists_where_nothing_is_configured() {
    let rig = Rig::new([local()], &["local"]);
    let rig = rig.listing(
        "local",
        [
            ("nomic-embed-text", None),
            ("small", Some(100)),
            ("llama", None),
            ("large", Some(400_000)),
        ],
    );
    for (tokens, expected) in [
        (50, "local <- small"),
        // As much as is assumed where nobody says.
        (131_072, "local <- llama"),
        (300_000, "local <- large"),
        // Too long for all that is known: who knows of the others?
        (500_000, "local <- llama"),
    ] {
        assert_eq!(rig.went("auto", tokens), expected, "{tokens}");
    }
    let info = rig.router.model("auto").expect("somebody answers");
    assert_eq!(
        (info.provider.as_str(), info.context),
        ("pointsman", Some(400_000))
    );
}

#[test]
fn where_auto_finds_no_model_it_says_what_to_do() {
    let rig = || Rig::new([local()], &["local"]);
    let says = |rig: Rig| rig.went("auto", 1);
    let start = "auto is not available: ";
    assert_eq!(
        says(rig()),
        format!(
            "{start}ask again in a moment, when local has said which models it has, or list models in \
             providers.local.models"
        )
    );
    let failed = rig();
    failed.models["local"].failed("no connection");
    assert_eq!(
        says(failed),
        format!(
            "{start}list models in providers.local.models, since local does not say which it has: no connection"
        )
    );
    assert_eq!(
        says(rig().listing("local", [])),
        format!("{start}list models in providers.local.models, since local says that it has none")
    );
}

#[test]
fn an_unknown_name_is_told_whose_models_are_not_known_yet() {
    let rig = Rig::new(
        [with_key(kimi()), with_key(glm()), local()],
        &["kimi", "glm"],
    );
    let unknown = |rig: &Rig, name: &str| match rig.router.route(&request(name, 1)) {
        Err(RouteError::UnknownModel {
            awaited, unread, ..
        }) => (awaited, unread),
        other => panic!("{other:?}"),
    };
    let all = ["kimi", "glm", "local"].map(String::from).to_vec();
    assert_eq!(unknown(&rig, "gpt-9"), (all, vec![]));
    assert_eq!(unknown(&rig, "kimi/gpt-9"), (vec!["kimi".into()], vec![]));
    rig.models["glm"].failed("no");
    let rig = rig.listing("kimi", []);
    assert_eq!(
        unknown(&rig, "gpt-9"),
        (vec!["local".into()], vec!["glm".into()])
    );
    let words = rig.went("gpt-9", 1);
    let end = "; local has not yet said which models it has: ask again in a moment; glm does not say which models it \
               has, the log says why";
    assert!(words.ends_with(end), "{words}");
    assert_eq!(unknown(&rig, "kimi/gpt-9"), (vec![], vec![]));
    // Whoever can't be asked is not waited for.
    let keyless = Rig::new([kimi()], &["kimi"]);
    assert_eq!(unknown(&keyless, "gpt-9"), (vec![], vec![]));
}
