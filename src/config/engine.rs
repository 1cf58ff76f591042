//! `[engine]`: the pool of workers.

use super::MAX_IN_FLIGHT;
use super::section::Section;

/// `[engine]`
#[derive(Debug, Clone, PartialEq)]
pub struct Engine {
    /// Threads that run jobs; `None`: as many as the global limit.
    pub workers: Option<usize>,
}

impl Engine {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Engine {
            workers: section.count("workers", 1..=MAX_IN_FLIGHT),
        }
    }
}
