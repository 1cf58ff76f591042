//! What the pages see of the engine at one moment.

use std::sync::Arc;
use std::time::Duration;

use super::crew::CrewView;
use super::health::{self, HealthCounts, SemaphoreView};
use super::job::{CallInfo, Owner, Phase, Phases};
use super::live::LiveJob;
use super::shell::{NOBODY, Shell};
use crate::admission::{CoreView, ProviderView, SlotView, Whereabouts};
use crate::clock::Time;
use crate::config::Priority;

/// The engine at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Slots and lines. Each provider has one target. One that was taken out of the configuration is there until its last
    /// call is back.
    pub core: CoreView,
    /// The names of the providers, in the order of `core.providers`.
    pub providers: Vec<Arc<str>>,
    /// Jobs that need no provider.
    pub without_provider: ProviderView,
    /// Workers.
    pub workers: CrewView,
    /// What audits and health checks found.
    pub health: HealthCounts,
    /// Named sessions that are remembered.
    pub sessions_known: usize,
}

/// A job that has not ended, at one moment.
#[derive(Debug, Clone)]
pub struct RequestView {
    /// The id that the caller and the log know it by.
    pub request_id: Arc<str>,
    /// The number of its job, which no other has.
    pub job: u64,
    /// Whose it is.
    pub owner: Owner,
    /// Its class.
    pub priority: Priority,
    /// Where it is called, or will be; `None` for a job that needs no provider.
    pub provider: Option<Arc<str>>,
    /// The model's name at the provider, if one is asked.
    pub model: Option<Arc<str>>,
    /// The call that is, or was last, under way.
    pub call: Option<CallInfo>,
    /// How far it has come.
    pub phase: Phase,
    /// Where it is while it has not started.
    pub whereabouts: Option<Whereabouts>,
    /// How long ago its request was received.
    pub age: Duration,
    /// How long until its deadline.
    pub left: Duration,
    /// Where the time went so far.
    pub phases: Phases,
}

pub(super) fn take(shell: &Shell) -> Snapshot {
    // In this order: what the core knows has its row in a table that is taken later.
    let mut core = shell.look(|core, now| core.view(now));
    let table = shell.targets();
    let rows = std::mem::take(&mut core.providers);
    let without_provider = rows[NOBODY];
    let targets = std::mem::take(&mut core.targets);
    let mut names = Vec::new();
    for (target, (row, view)) in table.iter().zip(rows.into_iter().zip(targets)) {
        let is_there = !target.is_gone || row.in_use > 0 || row.waiting > 0;
        if let Some(name) = target.name.clone().filter(|_| is_there) {
            names.push(name);
            core.providers.push(row);
            core.targets.push(view);
        }
    }
    Snapshot {
        core,
        providers: names,
        without_provider,
        workers: shell.crew.view(shell),
        health: shell.health.counts(),
        sessions_known: shell.sessions.known(),
    }
}

/// A slot that is taken, or a call that goes on without the slot that was taken from it.
#[derive(Debug, Clone)]
pub struct SlotHolding {
    /// The slot.
    pub slot: SlotView,
    /// The provider's name.
    pub provider: Option<Arc<str>>,
    /// The request's id and whose it is, as far as anybody still knows: the job of an interrupted call has ended.
    pub holder: Option<(Arc<str>, Owner)>,
    /// How long ago it was taken.
    pub age: Duration,
    /// How long until its job's deadline.
    pub left: Duration,
    /// How long until its holder is given up on, or it is reclaimed.
    pub due: Option<Duration>,
}

/// All semaphores, and who holds what.
pub(super) fn semaphores(shell: &Shell) -> (Vec<SemaphoreView>, Vec<SlotHolding>) {
    let (now, view, ledger) = shell.look(|core, now| (now, core.view(now), core.ledger()));
    let semaphores = health::semaphores(shell, &view, &ledger);
    let mut slots: Vec<_> = ledger
        .into_iter()
        .map(|slot| holding(shell, slot, now))
        .collect();
    slots.sort_by_key(|holding| holding.slot.since);
    (semaphores, slots)
}

fn holding(shell: &Shell, slot: SlotView, now: Time) -> SlotHolding {
    let in_hand = |worker| shell.crew.job_in_hand(worker, slot.permit);
    let job = slot.worker.and_then(in_hand);
    let job = job.or_else(|| shell.live_job(slot.job));
    SlotHolding {
        provider: shell.name_of(slot.provider),
        holder: job.map(|job| (Arc::clone(&job.request_id), job.owner.clone())),
        age: now.since(slot.since),
        left: slot.until.since(now),
        due: (slot.due != Time::NEVER).then(|| slot.due.since(now)),
        slot,
    }
}
/// How many jobs are looked up under one lock.
const AT_ONCE: usize = 32;

/// The jobs that have not ended, oldest first.
pub(super) fn requests(shell: &Shell) -> Vec<RequestView> {
    let mut live = shell.live();
    live.sort_by_key(|job| (job.received, job.id));
    let mut views = Vec::with_capacity(live.len());
    for jobs in live.chunks(AT_ONCE) {
        let whereabouts: Vec<_> = shell.look(|core, now| {
            let of = |job: &Arc<LiveJob>| core.whereabouts(job.id, now);
            jobs.iter().map(of).collect()
        });
        let now = shell.clock.now();
        let jobs = jobs.iter().zip(whereabouts);
        views.extend(jobs.map(|(job, whereabouts)| view(job, whereabouts, now)));
    }
    views
}

fn view(job: &LiveJob, whereabouts: Option<Whereabouts>, now: Time) -> RequestView {
    let leg = job.leg();
    RequestView {
        request_id: job.request_id.clone(),
        job: job.id.0,
        owner: job.owner.clone(),
        priority: job.priority,
        provider: leg.provider.clone(),
        model: leg.model.clone(),
        call: job.call(),
        phase: job.moments.phase(),
        whereabouts,
        age: now.since(job.received),
        left: job.deadline.since(now),
        phases: job.moments.phases(job.received, now),
    }
}
