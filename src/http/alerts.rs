//! `/api/alerts`: what is worth knowing, what was, and who was told.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::{Api, Visit};
use crate::telemetry::{Alert, AlertBook, Told};

impl Api {
    /// `GET /api/alerts`: those that are active, the oldest first; those that are over, the latest first; the figure of
    /// each rule; and what became of telling the webhooks.
    pub(super) fn alerts(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let book = self.alert_book()?;
        let all = |alerts: Vec<Alert>| alerts.iter().map(Alert::json).collect::<Vec<Value>>();
        let figures = book.figures().into_iter();
        let figures: Map<String, Value> = figures
            .map(|(kind, figure)| (kind.to_string(), figure.into()))
            .collect();
        let looked = book.last_look();
        let body = json!({
            "active": all(book.active()),
            "history": all(book.history()),
            "figures": figures,
            "looked_s_ago": looked.map(|at| self.clock.now().since(at).as_secs_f64()),
            "webhooks": book.told().iter().map(told).collect::<Vec<Value>>(),
        });
        visit.json(200, &body)
    }

    /// Those that are active; `None` where nobody looks for any.
    pub(super) fn active_alerts(&self) -> Option<Vec<Value>> {
        let book = self.alerts.as_ref()?;
        Some(book.active().iter().map(Alert::json).collect())
    }

    /// `POST /api/alerts/{id}/acknowledge`: somebody looks after it. With keys configured, for an admin's.
    pub(super) fn acknowledge_alert(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        if !visit.caller.is_admin() {
            return Err(ApiError::admin_only());
        }
        let Some(id) = visit.rest().strip_suffix("/acknowledge") else {
            return Err(ApiError::not_found(format!(
                "there is no /api/alerts/{}; an alert is acknowledged at /api/alerts/ID/acknowledge",
                visit.rest()
            )));
        };
        let by = visit.caller.key().unwrap_or("anyone");
        let alert = self.alert_book()?.acknowledge(id, by);
        let alert =
            alert.ok_or_else(|| ApiError::not_found(format!("no alert {id:?} is active")))?;
        visit.json(200, &alert.json())
    }

    fn alert_book(&self) -> Result<&Arc<AlertBook>, ApiError> {
        let book = self.alerts.as_ref();
        book.ok_or_else(|| ApiError::not_found("nobody looks for alerts: alerts.enabled is false"))
    }
}

fn told(told: &Told) -> Value {
    json!({
        "kind": told.kind.to_string(),
        "host": told.host,
        "sent": told.sent,
        "failed": told.failed,
        "left_out": told.left_out,
        "waiting": told.waiting,
    })
}
