//! The models that come built in, as the vendors list them.
//!
//! Sizes that a vendor gives as "1M", "200k" or "128k" are taken as decimal thousands: a prompt that the vendor would
//! refuse is better refused here. `drop` names what a model answers with an error (Kimi: any sampling parameter) or
//! ignores in silence (GLM: what is not in its schema), so that the client can be told.

use super::{Model, ProviderKind, Thinking};

/// A model as it stands in the tables below.
struct Row {
    name: &'static str,
    context: u64,
    max_output: Option<u64>,
    thinking: Thinking,
    efforts: &'static [&'static str],
    drop: &'static [&'static str],
}

/// The built-in models of a kind, its default first.
pub(super) fn models(kind: ProviderKind) -> Vec<Model> {
    let rows = match kind {
        ProviderKind::Kimi => KIMI,
        ProviderKind::Glm => GLM,
        ProviderKind::OpenAi => &[],
        ProviderKind::Embedded => EMBEDDED,
    };
    rows.iter().map(Row::model).collect()
}

impl Row {
    fn model(&self) -> Model {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Model {
            name: self.name.to_owned(),
            context: self.context,
            max_output: self.max_output,
            thinking: self.thinking,
            efforts: owned(self.efforts),
            drop: owned(self.drop),
        }
    }
}

const LOW_HIGH_MAX: &[&str] = &["low", "high", "max"];

/// Frozen by Kimi on all its models: any other value is an error there.
const KIMI_FROZEN: &[&str] = &[
    "temperature",
    "top_p",
    "n",
    "presence_penalty",
    "frequency_penalty",
];

/// The models before k3 take no effort either.
const KIMI_K2_DROP: &[&str] = &[
    "temperature",
    "top_p",
    "n",
    "presence_penalty",
    "frequency_penalty",
    "reasoning_effort",
];

const KIMI: &[Row] = &[
    Row {
        name: "kimi-k3",
        context: 1_048_576,
        max_output: Some(1_048_576),
        thinking: Thinking::Always,
        efforts: LOW_HIGH_MAX,
        drop: KIMI_FROZEN,
    },
    kimi_k2("kimi-k2.7-code", Thinking::Always),
    kimi_k2("kimi-k2.7-code-highspeed", Thinking::Always),
    kimi_k2("kimi-k2.6", Thinking::Default),
];

const fn kimi_k2(name: &'static str, thinking: Thinking) -> Row {
    Row {
        name,
        context: 262_144,
        max_output: Some(262_144),
        thinking,
        efforts: &[],
        drop: KIMI_K2_DROP,
    }
}

/// The models before 5.2 take no effort. (What no model of GLM's takes is its dialect's affair.)
const GLM_OLD_DROP: &[&str] = &["reasoning_effort"];

const GLM_EFFORTS: &[&str] = &["none", "minimal", "low", "medium", "high", "xhigh", "max"];

const GLM: &[Row] = &[
    glm_new("glm-5.3", Thinking::Always, LOW_HIGH_MAX),
    glm_new("glm-5.3-flash", Thinking::Always, LOW_HIGH_MAX),
    glm_new("glm-5.2", Thinking::Default, GLM_EFFORTS),
    glm_old("glm-5.1", 200_000, 131_072),
    glm_old("glm-5", 200_000, 131_072),
    glm_old("glm-5-turbo", 200_000, 131_072),
    glm_old("glm-4.7", 200_000, 131_072),
    glm_old("glm-4.6", 200_000, 131_072),
    glm_old("glm-4.5", 128_000, 98_304),
    glm_old("glm-4.5-air", 128_000, 98_304),
];

const fn glm_new(name: &'static str, thinking: Thinking, efforts: &'static [&'static str]) -> Row {
    Row {
        name,
        context: 1_000_000,
        max_output: Some(131_072),
        thinking,
        efforts,
        drop: &[],
    }
}

const fn glm_old(name: &'static str, context: u64, max_output: u64) -> Row {
    Row {
        name,
        context,
        max_output: Some(max_output),
        thinking: Thinking::Default,
        efforts: &[],
        drop: GLM_OLD_DROP,
    }
}

const EMBEDDED: &[Row] = &[
    embedded("embedded", Thinking::Never),
    embedded("embedded-reasoning", Thinking::Always),
    embedded("embedded-tools", Thinking::Never),
];

const fn embedded(name: &'static str, thinking: Thinking) -> Row {
    Row {
        name,
        context: 131_072,
        max_output: None,
        thinking,
        efforts: &[],
        drop: &[],
    }
}
