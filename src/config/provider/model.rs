//! What a provider offers, and what each model takes.

use std::collections::BTreeSet;

use super::{ProviderKind, catalogue};
use crate::config::section::Section;
use crate::config::word::{Word, written_as_word};

/// An entry of `models = [ ... ]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// As clients name it, and the provider.
    pub name: String,
    /// Tokens of question and answer together.
    pub context: u64,
    /// Tokens of an answer.
    pub max_output: Option<u64>,
    /// Whether it thinks.
    pub thinking: Thinking,
    /// Words that `reasoning_effort` may be; empty: any.
    pub efforts: Vec<String>,
    /// Parameters that it refuses or ignores, by their OpenAI names; dropped before sending.
    pub drop: Vec<String>,
}

/// Whether a model thinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Thinking {
    /// It can't.
    #[default]
    Never,
    /// When asked to.
    Optional,
    /// Unless switched off.
    Default,
    /// Always.
    Always,
}

impl Word for Thinking {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("never", Thinking::Never),
        ("optional", Thinking::Optional),
        ("default", Thinking::Default),
        ("always", Thinking::Always),
    ];
}

written_as_word!(Thinking);

/// Names of models die every few months, so a list in the file replaces the built-in one as a whole.
pub(super) fn read_list(section: &mut Section<'_>, kind: ProviderKind) -> Vec<Model> {
    let Some(models) = section.sections("models", Model::read) else {
        return catalogue::models(kind);
    };
    if models.is_empty() && kind != ProviderKind::OpenAi {
        section.refuse(
            "models",
            "found an empty list, accepted is at least one model",
        );
    }
    let mut names = BTreeSet::new();
    for model in models.iter().filter(|model| !model.name.is_empty()) {
        if !names.insert(&model.name) {
            section.refuse(
                "models",
                format!("the model {:?} stands there twice", model.name),
            );
        }
    }
    models
}

impl Model {
    /// The context of a model of which nobody says how long it is, in tokens.
    pub const CONTEXT: u64 = 131_072;

    /// What is built in about the model that a kind of provider calls so.
    pub fn builtin(kind: ProviderKind, name: &str) -> Option<Model> {
        let mut models = catalogue::models(kind).into_iter();
        models.find(|model| model.name == name)
    }

    /// Whether a model can be called so: the name goes into headers and metrics as it is.
    pub fn is_name(name: &str) -> bool {
        (1..=256).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_graphic())
            && name != "auto"
    }

    fn read(section: &mut Section<'_>) -> Self {
        let model = Model {
            name: section.name(
                "name",
                "a name without spaces, of at most 256 bytes, not \"auto\"",
                Model::is_name,
            ),
            context: section
                .count("context", 1..=1_000_000_000)
                .unwrap_or(Model::CONTEXT),
            max_output: section.count("max_output", 1..=1_000_000_000),
            thinking: section.parsed("thinking").unwrap_or_default(),
            efforts: section.words("efforts").unwrap_or_default(),
            drop: section.words("drop").unwrap_or_default(),
        };
        if let Some(output) = model.max_output.filter(|output| *output > model.context) {
            let message = format!(
                "{output} is more than the model's context ({}) holds",
                model.context
            );
            section.refuse_pair("max_output", "context", message);
        }
        model
    }
}
