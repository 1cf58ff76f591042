//! `POST /api/reload`: reads the configuration anew, and puts it in force.

use std::sync::Arc;

use serde_json::json;

use super::error::ApiError;
use super::terms::Terms;
use super::{Api, Visit};
use crate::config::{Changes, Config};

/// Reads the configuration anew and puts it in force. A gateway is one.
pub trait Reloader: Send + Sync {
    /// Returns when all of it is in force; says what is different.
    ///
    /// # Errors
    /// [`NotReloaded`]; nothing has changed then.
    fn reload(&self) -> Result<Changes, NotReloaded>;
}

/// Why everything is as it was, in words for whoever asked for the reload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReloaded {
    /// The configuration is refused.
    #[error("{0}")]
    Refused(String),
    /// There is nothing to read.
    #[error("{0}")]
    Nothing(String),
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
    /// Something else went wrong.
    #[error("{0}")]
    Failed(String),
}

impl Api {
    /// `POST /api/reload`. With keys configured, for an admin's.
    pub(super) fn reload(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        if !visit.caller.is_admin() {
            return Err(ApiError::admin_only());
        }
        let changes = self.reloader.reload().map_err(ApiError::not_reloaded)?;
        let body = json!({
            "changed": changes.changed,
            "needs_restart": changes.needs_restart,
            "providers_added": changes.added,
            "providers_removed": changes.removed,
        });
        visit.json(200, &body)
    }

    /// Serves by another configuration from now on; a request that is under way is served by the one that it came under.
    pub fn serve_by(&self, config: &Config) {
        let terms = Terms::new(config, &self.listens);
        *self.terms.write() = Arc::new(terms);
        self.live.look_again();
    }
}
