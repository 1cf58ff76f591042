//! `GET /v1/models` and `GET /v1/models/{id}`: what can be asked for.

use serde_json::json;

use super::error::ApiError;
use super::{Api, Visit};
use crate::chat::Extra;
use crate::engine::ModelInfo;
use crate::wire::{ModelEntry, model_json, models_json};

impl Api {
    /// All models of available providers.
    pub(super) fn models(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        visit.bytes(200, models_json(&self.entries()))
    }

    /// One of them, by any name that a request could give: `auto`, `provider/name`, and such as are not listed too.
    pub(super) fn model(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let model = self.engine.model(visit.rest())?;
        visit.bytes(200, model_json(&entry(model)))
    }

    fn entries(&self) -> Vec<ModelEntry> {
        let models = self.engine.models().into_iter();
        let available = models.filter(|model| model.available);
        available.map(entry).collect()
    }
}

fn entry(model: ModelInfo) -> ModelEntry {
    let context = model
        .context
        .map(|tokens| ("context_length".to_owned(), json!(tokens)));
    ModelEntry {
        id: model.id,
        owned_by: model.provider,
        created: 0,
        extra: Extra::from_iter(context),
    }
}
