//! Which models a provider offers: those that its configuration names, and those that it lists itself.
//!
//! The configuration has the first word and the last: its models stand first, keep what it says of them, and stay when
//! the provider doesn't list them. What the provider lists beside them comes behind, in its order; what is not said of
//! such a model comes from the table that is built in for the provider's kind, else from what is usual for that kind.
//!
//! ```text
//!  Unasked (never is asked)      Awaited --answers--> Read --answers--> Read, anew
//!                                   |  ^               (a failure leaves what was read)
//!                                 fails answers
//!                                   v  |
//!                                  Failed
//! ```
//!
//! [`Models`] is shared by the router, which looks at it for each request, by the provider, and by whoever asks for the
//! list. Readers take the whole state at once and keep it as long as they like; it never changes under them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::config::{self, Model, ProviderKind, Thinking};
use crate::wire::ListedModel;

use super::embedded::fault_models;

/// Models of one list that are taken. The longest lists of companies have some hundred.
const MAX_LISTED: usize = 4_096;

/// The models of one provider: what is known of them now, and the way to know more.
#[derive(Debug, Clone)]
pub struct Models {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    kind: ProviderKind,
    known: RwLock<Arc<Known>>,
}

/// What is known of a provider's models at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The configured ones first, its default at their head; then those that it only lists.
    pub models: Vec<Arc<Offered>>,
    /// What became of its own list.
    pub list: List,
    /// Where each stands in `models`, by name.
    places: HashMap<String, usize>,
}

/// A model that a provider offers.
#[derive(Debug, Clone, PartialEq)]
pub struct Offered {
    /// Its name, and what it takes.
    pub model: Model,
    /// Tokens of question and answer together; `None` where nobody says (then `model.context` is an assumption).
    pub context: Option<u64>,
    /// Whether the configuration names it.
    pub is_configured: bool,
}

/// What became of a provider's own list of models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum List {
    /// It isn't asked for one.
    Unasked,
    /// It has not answered yet.
    Awaited,
    /// It could not be read, and why; it will be asked again.
    Failed(String),
    /// It was read. The configured models that were not on it, by name.
    Read(Vec<String>),
}

impl Models {
    /// What `provider`'s configuration names. Nobody has been asked yet.
    pub fn new(provider: &config::Provider) -> Self {
        let faults = match provider.kind {
            ProviderKind::Embedded => fault_models(provider),
            ProviderKind::Kimi | ProviderKind::Glm | ProviderKind::OpenAi => Vec::new(),
        };
        let configured = provider.models.iter().cloned().chain(faults);
        let models = configured.map(|model| {
            Arc::new(Offered {
                context: Some(model.context),
                model,
                is_configured: true,
            })
        });
        let known = Known::new(models.collect());
        Models {
            shared: Arc::new(Shared {
                kind: provider.kind,
                known: RwLock::new(Arc::new(known)),
            }),
        }
    }

    /// What another configuration names, and behind it what the provider was found to list beside that.
    pub fn renewed(&self, provider: &config::Provider) -> Self {
        let renewed = Models::new(provider);
        let known = self.known();
        renewed.change(|new| {
            let listed = known.models.iter().filter(|offered| !offered.is_configured);
            for offered in listed {
                new.push(Arc::clone(offered));
            }
            new.list = match &known.list {
                List::Read(missing) => {
                    let missing = missing.iter().filter(|name| new.find(name).is_some());
                    List::Read(missing.cloned().collect())
                }
                list => list.clone(),
            };
        });
        renewed
    }

    /// What is known now.
    pub fn known(&self) -> Arc<Known> {
        Arc::clone(&self.shared.known.read())
    }

    /// The provider will be asked for its list. One that was read counts until then.
    pub fn await_list(&self) {
        self.change(|known| match &mut known.list {
            List::Read(_) => {}
            list => *list = List::Awaited,
        });
    }

    /// The provider listed these.
    pub fn read(&self, listed: Vec<ListedModel>) {
        let kind = self.shared.kind;
        self.change(|known| known.merge(kind, listed));
    }

    /// The provider did not list anything, and why. What it listed before stays.
    pub fn failed(&self, why: &str) {
        self.change(|known| match &mut known.list {
            List::Read(_) => {}
            list => *list = List::Failed(why.to_owned()),
        });
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.shared.known.write();
        change(Arc::make_mut(&mut known));
    }
}

impl Known {
    fn new(models: Vec<Arc<Offered>>) -> Self {
        let names = models.iter().map(|offered| offered.model.name.clone());
        Known {
            places: names.enumerate().map(|(at, name)| (name, at)).collect(),
            models,
            list: List::Unasked,
        }
    }

    /// The model of that name.
    pub fn find(&self, name: &str) -> Option<&Arc<Offered>> {
        self.models.get(*self.places.get(name)?)
    }

    /// The configured models that are not on the provider's list; none where there is no list.
    pub fn missing(&self) -> &[String] {
        match &self.list {
            List::Read(missing) => missing,
            List::Unasked | List::Awaited | List::Failed(_) => &[],
        }
    }

    fn merge(&mut self, kind: ProviderKind, listed: Vec<ListedModel>) {
        let mut configured = std::mem::take(&mut self.models);
        configured.retain(|offered| offered.is_configured);
        *self = Known::new(configured);
        let names: HashSet<&str> = listed.iter().map(|model| model.id.as_str()).collect();
        let configured = self.models.iter().map(|offered| &offered.model.name);
        let missing = configured.filter(|name| !names.contains(name.as_str()));
        self.list = List::Read(missing.cloned().collect());
        let usable = listed
            .into_iter()
            .take(MAX_LISTED)
            .filter(|model| Model::is_name(&model.id));
        for model in usable {
            if !self.places.contains_key(&model.id) {
                self.push(Arc::new(listed_only(kind, model)));
            }
        }
    }

    /// Behind the others, unless one of its name is there.
    fn push(&mut self, offered: Arc<Offered>) {
        let name = &offered.model.name;
        if !self.places.contains_key(name) {
            self.places.insert(name.clone(), self.models.len());
            self.models.push(offered);
        }
    }
}

/// A model that no configuration names: what the list says of it, else what is built in under its name, else what is
/// usual for the kind.
fn listed_only(kind: ProviderKind, listed: ListedModel) -> Offered {
    let builtin = Model::builtin(kind, &listed.id);
    let context = listed
        .context
        .or(builtin.as_ref().map(|model| model.context));
    let mut model = builtin.unwrap_or_else(|| Model {
        name: listed.id.clone(),
        context: Model::CONTEXT,
        max_output: None,
        thinking: usual_thinking(kind),
        efforts: Vec::new(),
        drop: Vec::new(),
    });
    model.context = context.unwrap_or(model.context);
    model.max_output = model.max_output.map(|output| output.min(model.context));
    match listed.thinks {
        Some(false) => model.thinking = Thinking::Never,
        Some(true) if listed.only_thinks => model.thinking = Thinking::Always,
        Some(true) | None => {}
    }
    if !listed.efforts.is_empty() {
        model.efforts = listed.efforts;
    }
    Offered {
        model,
        context,
        is_configured: false,
    }
}

/// Whether a model of which nothing is said thinks. Every model that Kimi and GLM brought out lately does unless it is
/// told not to; a deadline for one that doesn't would cut it off.
fn usual_thinking(kind: ProviderKind) -> Thinking {
    match kind {
        ProviderKind::Kimi | ProviderKind::Glm => Thinking::Default,
        ProviderKind::OpenAi => Thinking::Optional,
        ProviderKind::Embedded => Thinking::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::testing::{model, provider};

    fn listed(id: &str) -> ListedModel {
        ListedModel {
            id: id.into(),
            ..ListedModel::default()
        }
    }

    fn models(kind: ProviderKind, configured: &[&str]) -> Models {
        let mut provider = provider("p", kind);
        provider.models = configured
            .iter()
            .map(|name| model(name, Thinking::Never))
            .collect();
        Models::new(&provider)
    }

    fn names(models: &Models) -> Vec<(String, bool)> {
        let known = models.known();
        let name = |offered: &Arc<Offered>| (offered.model.name.clone(), offered.is_configured);
        known.models.iter().map(name).collect()
    }

    fn named(names: &[(&str, bool)]) -> Vec<(String, bool)> {
        let own = |(name, configured): &(&str, bool)| ((*name).to_owned(), *configured);
        names.iter().map(own).collect()
    }

    #[test]
    fn configured_models_come_first_keep_what_is_said_of_them_and_stay() {
        let models = models(ProviderKind::OpenAi, &["b", "a"]);
        let before = models.known();
        models.read(vec![
            ListedModel {
                context: Some(7),
                ..listed("a")
            },
            listed("c"),
            listed("c"),
        ]);
        let expected = [("b", true), ("a", true), ("c", false)];
        assert_eq!(names(&models), named(&expected));
        let known = models.known();
        assert_eq!(
            known.find("a"),
            before.find("a"),
            "the list takes nothing back"
        );
        assert_eq!(known.missing(), ["b"]);
        assert_eq!(
            before.models.len(),
            2,
            "whoever looked before sees the same"
        );
        models.read(vec![listed("b"), listed("a")]);
        assert_eq!(names(&models), named(&[("b", true), ("a", true)]));
        assert_eq!(models.known().list, List::Read(vec![]));
    }

    #[test]
    fn of_a_model_that_is_only_listed_the_list_knows_most_then_the_table_then_the_kind() {
        let kimi = models(ProviderKind::Kimi, &["kimi-k3"]);
        kimi.read(vec![
            ListedModel {
                context: Some(2_000_000),
                thinks: Some(true),
                only_thinks: true,
                efforts: vec!["low".into()],
                ..listed("kimi-k9")
            },
            listed("kimi-k2.6"),
            listed("kimi-new"),
        ]);
        let known = kimi.known();
        let of = |name: &str| {
            let offered = known.find(name).expect("it is listed");
            (offered.context, offered.model.thinking)
        };
        assert_eq!(of("kimi-k9"), (Some(2_000_000), Thinking::Always));
        assert_eq!(known.find("kimi-k9").expect("it").model.efforts, ["low"]);
        assert_eq!(of("kimi-k2.6"), (Some(262_144), Thinking::Default));
        assert_eq!(of("kimi-new"), (None, Thinking::Default));
        let open = models(ProviderKind::OpenAi, &[]);
        open.read(vec![listed("x")]);
        let offered = open.known().models[0].clone();
        assert_eq!(
            (
                offered.context,
                offered.model.context,
                offered.model.thinking
            ),
            (None, Model::CONTEXT, Thinking::Optional)
        );
    }

    #[test]
    fn what_was_listed_stays_behind_what_another_configuration_names() {
        let models = models(ProviderKind::OpenAi, &["a", "b"]);
        models.read(["b", "c", "d"].map(listed).into());
        let mut other = provider("p", ProviderKind::OpenAi);
        other.models = vec![model("d", Thinking::Never), model("a", Thinking::Never)];
        let renewed = models.renewed(&other);
        let expected = [("d", true), ("a", true), ("c", false)];
        assert_eq!(names(&renewed), named(&expected));
        assert_eq!(renewed.known().missing(), ["a"]);
        renewed.await_list();
        assert_eq!(renewed.known().list, List::Read(vec!["a".into()]));
    }

    #[test]
    fn names_that_no_client_could_say_are_passed_over() {
        let models = models(ProviderKind::OpenAi, &[]);
        let long = "x".repeat(257);
        models.read(
            ["", "auto", "two words", "ä", &long, "org/a:free"]
                .map(listed)
                .into(),
        );
        assert_eq!(names(&models), named(&[("org/a:free", false)]));
    }

    #[test]
    fn a_failure_is_said_until_a_list_was_read_and_takes_nothing_away() {
        let models = models(ProviderKind::OpenAi, &[]);
        assert_eq!(models.known().list, List::Unasked);
        models.await_list();
        assert_eq!(models.known().list, List::Awaited);
        models.failed("gone");
        assert_eq!(models.known().list, List::Failed("gone".into()));
        models.read(vec![listed("a")]);
        models.failed("gone again");
        assert_eq!(models.known().list, List::Read(vec![]));
        assert_eq!(names(&models), named(&[("a", false)]));
    }
}
