//! `GET /v1/models` and `GET /v1/models/{id}`: what can be asked for.

use super::error::ApiError;
use super::{Api, Visit};
use crate::wire::{ModelEntry, model_json, models_json};

impl Api {
    /// All models of available providers, `auto` first.
    pub(super) fn models(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        visit.bytes(200, models_json(&self.entries()))
    }

    /// One of them.
    pub(super) fn model(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let entries = self.entries();
        let found = entries.iter().find(|entry| entry.id == visit.rest());
        let entry = found.ok_or_else(|| ApiError::not_found(format!("there is no model {:?}", visit.rest())))?;
        visit.bytes(200, model_json(entry))
    }

    fn entries(&self) -> Vec<ModelEntry> {
        let models = self.engine.models().into_iter().filter(|model| model.available);
        models.map(|model| ModelEntry { id: model.id, owned_by: model.provider, context: model.context }).collect()
    }
}
