//! The health check: whether what the ledger says is held is held, and whether the books agree.
//!
//! Every `watchdog.audit` the books are audited and the slots in use are looked through for *leaks*: those that no worker
//! has in hand, though their call has begun. Every `watchdog.health_check`, and on demand, the same is done and said in the
//! log, whatever comes of it, with the waiting lines audited as well.
//!
//! # No living request loses its slot
//!
//! The ledger is read first, and the hands after it. A permit that the ledger had as begun was in its worker's hand by
//! then; where it no longer is, the worker has let go, which it does after it gave back: so the core knows a newer
//! generation of the slot, and [`Core::recover`](crate::admission::Core::recover), which compares it under the lock, finds
//! nothing to do. Only where the guard was lost the generation is the same. Age plays no part in it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;

use super::measure;
use super::shell::Shell;
use crate::admission::{CoreView, FlowId, ProviderId, SlotState, SlotView};
use crate::clock::Time;

/// What became of the last audits and checks.
#[derive(Debug, Default)]
pub(super) struct Health {
    audits: AtomicU64,
    mismatches: AtomicU64,
    leaks: AtomicU64,
    last: Mutex<Option<HealthCheck>>,
    /// What the last audit found, so that it is said once.
    trouble: Mutex<Option<String>>,
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HealthCounts {
    /// Audits of the books.
    pub audits: u64,
    /// Those of them that found the books wrong.
    pub mismatches: u64,
    /// Slots that were found held by nobody.
    pub leaks: u64,
}

/// One semaphore at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SemaphoreView {
    /// `global`, `provider` or `session`.
    pub kind: &'static str,
    /// The provider's name.
    pub provider: Option<Arc<str>>,
    /// Calls that may be in flight; of a session: in each of them.
    pub limit: usize,
    /// Calls in flight; of sessions: in the one that has most.
    pub in_use: usize,
    /// Slots that are free or have a living owner.
    pub current: usize,
    /// What that should be: the limit, or what is in flight while a lowered limit drains.
    pub expected: usize,
}

/// How a health check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckEnd {
    /// Nothing was wrong.
    Passed,
    /// Something was wrong, and all of it was put right.
    Success,
    /// A part of it was put right.
    Partial,
    /// Nothing of it could be put right.
    Failed,
}

impl CheckEnd {
    /// In one word, as metrics and pages have it.
    pub const fn word(self) -> &'static str {
        match self {
            CheckEnd::Passed => "passed",
            CheckEnd::Success => "success",
            CheckEnd::Partial => "partial",
            CheckEnd::Failed => "failed",
        }
    }
}

/// What a health check found.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheck {
    /// When it was made.
    pub at: Time,
    /// How it ended.
    pub end: CheckEnd,
    /// The semaphores, the global one first.
    pub semaphores: Vec<SemaphoreView>,
    /// Slots that were found held by nobody.
    pub leaks: Vec<SlotView>,
    /// How many of these were recovered.
    pub recovered: usize,
    /// What the audit found wrong, in words.
    pub mismatch: Option<String>,
}

impl fmt::Display for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            CheckEnd::Passed => f.write_str("semaphore health check passed:")?,
            end => {
                write!(
                    f,
                    "semaphore recovery: {}, {} of {} slots without a holder recovered",
                    end.word(),
                    self.recovered,
                    self.leaks.len()
                )?;
                match &self.mismatch {
                    Some(what) => write!(f, ", books counted anew ({what});")?,
                    None => f.write_str(";")?,
                }
            }
        }
        for semaphore in &self.semaphores {
            let name = semaphore.provider.as_deref().unwrap_or(semaphore.kind);
            write!(f, " {name} {}/{}", semaphore.in_use, semaphore.limit)?;
        }
        Ok(())
    }
}

impl Health {
    pub(super) fn counts(&self) -> HealthCounts {
        HealthCounts {
            audits: self.audits.load(Ordering::Relaxed),
            mismatches: self.mismatches.load(Ordering::Relaxed),
            leaks: self.leaks.load(Ordering::Relaxed),
        }
    }

    pub(super) fn last(&self) -> Option<HealthCheck> {
        self.last.lock().clone()
    }
}

/// What is wrong with a gateway.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unhealthy {
    /// The books of the slots don't agree with the ledger, in words.
    #[error("the books of the slots are wrong: {0}")]
    Books(String),
    /// The watchdog does not answer: it hangs, or somebody does not let go of the core.
    #[error("the watchdog does not answer")]
    Watchdog,
    /// Too many workers don't come back from calls that were interrupted: nothing new is taken until some do. Whoever can
    /// start the process anew should.
    #[error(
        "{lost} workers don't come back from calls that were interrupted, watchdog.max_lost_workers is {max}"
    )]
    WorkersLost {
        /// How many.
        lost: usize,
        /// How many may.
        max: usize,
    },
}

/// See [`Engine::health`](super::Engine::health).
pub(super) fn verdict(shell: &Shell) -> Result<(), Unhealthy> {
    let (books, lost) = shell.look(|core, now| (core.audit_books(), core.view(now).lost_workers));
    books.map_err(Unhealthy::Books)?;
    let max = shell.crew.max_lost();
    match lost > max {
        true => Err(Unhealthy::WorkersLost { lost, max }),
        false => Ok(()),
    }
}

/// The thread that audits and checks; it goes home when `bell` is closed.
pub(super) fn run(shell: &Arc<Shell>, audit: Duration, check: Duration, bell: &Receiver<()>) {
    let mut next_check = shell.clock.now() + check;
    while bell.recv_timeout(audit) == Err(RecvTimeoutError::Timeout) {
        let now = shell.clock.now();
        if now >= next_check {
            next_check = now + check;
            let found = make_check(shell);
            if found.end == CheckEnd::Passed {
                log::info!("{found}");
            }
        } else {
            look_round(shell);
        }
    }
}

/// The audit of every second: silent unless something is wrong, and then put right as a health check would.
fn look_round(shell: &Arc<Shell>) {
    shell.crew.muster_or_say(shell);
    let (ledger, in_flight, books) =
        shell.look(|core, now| (core.ledger(), core.view(now).in_use, core.audit_books()));
    shell.crew.dismiss_surplus(shell, in_flight);
    shell.health.audits.fetch_add(1, Ordering::Relaxed);
    if books.is_err() || !held_by_nobody(shell, ledger).is_empty() {
        make_check(shell);
    }
}

/// A health check, with what it recovers. What was wrong is said in the log; that nothing was is the caller's to say.
pub(super) fn make_check(shell: &Arc<Shell>) -> HealthCheck {
    let health = &shell.health;
    let (ledger, audit) = shell.look(|core, _| (core.ledger(), core.audit()));
    health.audits.fetch_add(1, Ordering::Relaxed);
    let mut held = ledger.clone();
    held.retain(|slot| slot.state != SlotState::Free);
    let lost = held_by_nobody(shell, ledger);
    let (ghosts, mut leaks): (Vec<_>, Vec<_>) = lost
        .into_iter()
        .partition(|slot| slot.state == SlotState::Free);
    // Their slots were reclaimed before: that they never come back is all there is to note.
    for ghost in &ghosts {
        shell.recover(ghost.permit);
    }
    leaks.retain(|leak| is_still_held(shell, leak));
    let told: Vec<String> = leaks.iter().map(|leak| describe(shell, leak)).collect();
    let recovered = leaks.iter().filter(|leak| shell.recover(leak.permit));
    let recovered: Vec<_> = recovered.collect();
    measure::leaked(shell, &held, &leaks, &recovered);
    let recovered = recovered.len();
    health
        .leaks
        .fetch_add(leaks.len() as u64, Ordering::Relaxed);
    for leak in told {
        log::error!("semaphore leak: {leak} is held by nobody");
    }
    let repaired = audit.is_err() && shell.recount().is_ok();
    let mismatch = audit.err();
    health
        .mismatches
        .fetch_add(u64::from(mismatch.is_some()), Ordering::Relaxed);
    let found = leaks.len() + usize::from(mismatch.is_some());
    let mended = recovered + usize::from(repaired);
    let end = match (found, mended) {
        (0, _) => CheckEnd::Passed,
        (found, mended) if found == mended => CheckEnd::Success,
        (_, 0) => CheckEnd::Failed,
        _ => CheckEnd::Partial,
    };
    let (at, view, ledger) = shell.look(|core, now| (now, core.view(now), core.ledger()));
    let check = HealthCheck {
        at,
        end,
        semaphores: semaphores(shell, &view, &ledger),
        leaks,
        recovered,
        mismatch,
    };
    say_once(health, &check);
    *health.last.lock() = Some(check.clone());
    check
}

/// A check that found something is loud; the same trouble is not said twice.
fn say_once(health: &Health, check: &HealthCheck) {
    let mut trouble = health.trouble.lock();
    let news = check.mismatch != *trouble || !check.leaks.is_empty();
    trouble.clone_from(&check.mismatch);
    drop(trouble);
    if check.end != CheckEnd::Passed && news {
        log::error!("{check}");
    }
}

/// Slots whose call has begun and that no worker has in hand, and calls that go on without a slot and that none has
/// either. Some may have been given back meanwhile.
fn held_by_nobody(shell: &Shell, ledger: Vec<SlotView>) -> Vec<SlotView> {
    let lost = |slot: &SlotView| {
        let nobody = |worker| !shell.crew.has_in_hand(worker, slot.permit);
        slot.worker.is_some_and(nobody)
    };
    ledger.into_iter().filter(lost).collect()
}

/// Whether the same use of the slot is still in the ledger.
fn is_still_held(shell: &Shell, leak: &SlotView) -> bool {
    let ledger = shell.look(|core, _| core.ledger());
    let mut held = ledger.iter().filter(|slot| slot.state != SlotState::Free);
    held.any(|slot| slot.permit == leak.permit)
}

fn describe(shell: &Shell, leak: &SlotView) -> String {
    let request = shell
        .live_job(leak.job)
        .map(|job| Arc::clone(&job.request_id));
    format!(
        "slot {} of job {} (request {}, provider {})",
        leak.permit.slot(),
        leak.job.0,
        request.as_deref().unwrap_or("that has ended"),
        shell.name_of(leak.provider).as_deref().unwrap_or("none"),
    )
}

/// All semaphores: the global one, each provider's, and that of sessions.
pub(super) fn semaphores(
    shell: &Shell,
    view: &CoreView,
    ledger: &[SlotView],
) -> Vec<SemaphoreView> {
    let given_up = |slot: &&SlotView| slot.state == SlotState::Quarantined;
    let semaphore = |kind, provider, limit: usize, in_use: usize, orphans: usize| {
        let expected = limit.max(in_use);
        SemaphoreView {
            kind,
            provider,
            limit,
            in_use,
            current: expected - orphans,
            expected,
        }
    };
    let orphans = ledger.iter().filter(given_up).count();
    let global = semaphore("global", None, view.limit, view.in_use, orphans);
    let providers = view.providers.iter().enumerate();
    let providers = providers.filter_map(|(index, provider)| {
        let id = ProviderId(index as u32);
        let name = shell.name_of(id)?;
        let there = ledger.iter().filter(|slot| slot.provider == id);
        let orphans = there.filter(given_up).count();
        let (limit, in_use) = (provider.limit, provider.in_use);
        Some(semaphore("provider", Some(name), limit, in_use, orphans))
    });
    let mut sessions: HashMap<FlowId, (usize, usize)> = HashMap::new();
    for slot in ledger.iter().filter(|slot| slot.state != SlotState::Free) {
        if let Some(session) = slot.session {
            let (in_use, orphans) = sessions.entry(session).or_default();
            *in_use += 1;
            *orphans += usize::from(given_up(&slot));
        }
    }
    let fullest = sessions.into_values().max().unwrap_or_default();
    let session = semaphore("session", None, view.session_limit, fullest.0, fullest.1);
    [global]
        .into_iter()
        .chain(providers)
        .chain([session])
        .collect()
}
