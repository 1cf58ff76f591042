//! What every job says of itself beside its work: whose it is, how urgent, until when.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::cancel::CancelToken;
use crate::config::Priority;
use crate::engine::{JobSpec, Owner};

/// Whose job it is, how urgent, until when.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub(super) session: Option<Arc<str>>,
    pub(super) priority: Priority,
    pub(super) timeout: Option<Duration>,
    pub(super) request_id: Option<Arc<str>>,
    pub(super) cancel: Option<CancelToken>,
}

impl Options {
    /// The caller's own id, else a new one.
    pub(super) fn id(&self) -> Arc<str> {
        match &self.request_id {
            Some(id) => Arc::clone(id),
            None => Uuid::now_v7().to_string().into(),
        }
    }

    /// The job with what was said here.
    pub(super) fn fill(self, spec: JobSpec) -> JobSpec {
        JobSpec {
            owner: self
                .session
                .map_or(spec.owner, |name| Owner::Session(name.into())),
            priority: self.priority,
            cancel: self.cancel.unwrap_or(spec.cancel),
            ..spec
        }
    }
}

/// The setters that all builders with a field `options` share.
macro_rules! option_setters {
    () => {
        /// The session whose job it is: it has a limit of its own and its fair share of the line. By default all jobs
        /// without one share a line and have no such limit.
        #[must_use]
        pub fn session(mut self, name: impl Into<std::sync::Arc<str>>) -> Self {
            self.options.session = Some(name.into());
            self
        }

        /// How urgent it is; medium by default.
        #[must_use]
        pub fn priority(mut self, priority: crate::config::Priority) -> Self {
            self.options.priority = priority;
            self
        }

        /// From now until the answer is due, waiting in line included; at most `timeouts.max`.
        #[must_use]
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.options.timeout = Some(timeout);
            self
        }

        /// The id that the log and `/api/requests` know it by; made up by default.
        #[must_use]
        pub fn request_id(mut self, id: impl Into<std::sync::Arc<str>>) -> Self {
            self.options.request_id = Some(id.into());
            self
        }

        /// A token that ends it, in line or under way, when somebody cancels the token.
        #[must_use]
        pub fn cancelled_by(mut self, token: &crate::cancel::CancelToken) -> Self {
            self.options.cancel = Some(token.clone());
            self
        }
    };
}

pub(super) use option_setters;
