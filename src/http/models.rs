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

    /// One of them.
    pub(super) fn model(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let entries = self.entries();
        let found = entries.iter().find(|entry| entry.id == visit.rest());
        let entry = found.ok_or_else(|| ApiError::model_not_found(visit.rest()))?;
        visit.bytes(200, model_json(entry))
    }

    fn entries(&self) -> Vec<ModelEntry> {
        let models = self
            .engine
            .models()
            .into_iter()
            .filter(|model| model.available);
        let entry = |model: ModelInfo| ModelEntry {
            id: model.id,
            owned_by: model.provider,
            created: 0,
            extra: Extra::from_iter([("context_length".to_owned(), json!(model.context))]),
        };
        models.map(entry).collect()
    }
}
