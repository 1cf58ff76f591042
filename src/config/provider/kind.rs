//! Which dialect a provider speaks.

use crate::config::section::Section;
use crate::config::word::{Word, written_as_word};

/// Which dialect a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProviderKind {
    /// Kimi by Moonshot.
    Kimi,
    /// GLM by Zhipu.
    Glm,
    /// Any endpoint that speaks OpenAI's wire.
    OpenAi,
    /// Offline, deterministic, in this process.
    Embedded,
}

impl Word for ProviderKind {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("kimi", ProviderKind::Kimi),
        ("glm", ProviderKind::Glm),
        ("openai", ProviderKind::OpenAi),
        ("embedded", ProviderKind::Embedded),
    ];
}

written_as_word!(ProviderKind);

impl ProviderKind {
    /// The built-in names need not say their kind. There is one embedded provider, of that name: its models' names
    /// would mean two things otherwise.
    pub(super) fn read(section: &mut Section<'_>, name: &str) -> Self {
        let given = section.parsed("kind");
        let kind = given.or_else(|| {
            name.parse()
                .ok()
                .filter(|kind| *kind != ProviderKind::OpenAi)
        });
        let Some(kind) = kind else {
            if !section.keys().iter().any(|key| key == "kind") {
                section.refuse("kind", "missing, accepted is kimi | glm | openai");
            }
            return ProviderKind::OpenAi;
        };
        if (kind == ProviderKind::Embedded) != (name == "embedded") {
            section.refuse(
                "kind",
                "the provider `embedded` and the kind `embedded` belong together",
            );
        }
        kind
    }
}
