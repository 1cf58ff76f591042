//! The bytes of all bodies that are being read or held (`max_body_total`).
//!
//! A body is charged as its bytes arrive, not as its head promises: a client that promises much and sends
//! nothing takes nothing from the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bound on bytes that many hold together.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Budget {
            limit,
            used: AtomicUsize::new(0),
        })
    }

    /// Bytes taken at present.
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether `bytes` more would fit at present. It promises nothing: others take meanwhile.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        self.used().saturating_add(bytes) <= self.limit
    }

    /// A share of nothing yet.
    pub(super) fn share(self: &Arc<Self>) -> Held {
        Held {
            budget: self.clone(),
            bytes: 0,
        }
    }
}

/// A share of `max_body_total`: of a body, or of what is made of it. Dropping it gives the bytes back.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Held {
    /// Bytes in this share.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A further share of nothing yet.
    pub(super) fn another(&self) -> Held {
        self.budget.share()
    }

    /// Makes the share at least `bytes` large; `false`, and unchanged, where that would pass the limit.
    pub(super) fn grow_to(&mut self, bytes: usize) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|&more| more > 0) else {
            return true;
        };
        let limit = self.budget.limit;
        let grown = |used: usize| used.checked_add(more).filter(|&sum| sum <= limit);
        let taken = self
            .budget
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown);
        if taken.is_ok() {
            self.bytes = bytes;
        }
        taken.is_ok()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_pass_the_limit_and_come_back() {
        let budget = Budget::new(10);
        let (mut one, mut two) = (budget.share(), budget.share());
        assert!(one.grow_to(6) && two.grow_to(4) && one.grow_to(3));
        assert!(!two.grow_to(5), "eleven are more than ten");
        assert_eq!((one.bytes(), two.bytes(), budget.used()), (6, 4, 10));
        drop(one);
        assert!(two.grow_to(10) && !budget.fits(1));
        drop(two);
        assert_eq!(budget.used(), 0);
    }
}
