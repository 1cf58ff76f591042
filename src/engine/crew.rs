//! The workers: who there is, what each has in hand, and how many there should be.
//!
//! A worker notes what it has in hand before it asks the core whether it may begin, and lets go after the permit went
//! back. So whatever the ledger says has begun is in somebody's hand, unless its guard was lost: that is how leaks are
//! found (`health.rs`).
//!
//! When the core gives up on a worker, the mark goes to the hand that holds that very permit. A worker that came back in
//! the same moment has let go before, and nothing happens to it; one that finds the mark goes home, since another has
//! taken its place.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::{self, Builder, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use super::live::LiveJob;
use super::shell::Shell;
use super::worker;
use crate::admission::{PermitKey, WorkerId};

/// What a worker has in hand.
#[derive(Debug, Default)]
pub(super) struct Hand(Mutex<Grip>);

#[derive(Debug, Default)]
enum Grip {
    #[default]
    Empty,
    Holds(PermitKey, Arc<LiveJob>),
    /// The same, and its worker was given up on.
    Lost(PermitKey, Arc<LiveJob>),
}

impl Hand {
    pub(super) fn take(&self, permit: PermitKey, job: &Arc<LiveJob>) {
        *self.0.lock() = Grip::Holds(permit, Arc::clone(job));
    }

    /// The permit has gone back. `false`: the worker was given up on meanwhile.
    pub(super) fn let_go(&self) -> bool {
        let grip = std::mem::take(&mut *self.0.lock());
        !matches!(grip, Grip::Lost(..))
    }

    /// Gives up on whoever holds `permit` here. `false`: nobody does.
    fn lose(&self, permit: PermitKey) -> bool {
        let mut grip = self.0.lock();
        match &*grip {
            Grip::Holds(held, job) if *held == permit => {
                *grip = Grip::Lost(permit, Arc::clone(job));
                true
            }
            Grip::Empty | Grip::Holds(..) | Grip::Lost(..) => false,
        }
    }

    fn holds(&self) -> Option<(PermitKey, Arc<LiveJob>)> {
        match &*self.0.lock() {
            Grip::Empty => None,
            Grip::Holds(permit, job) | Grip::Lost(permit, job) => Some((*permit, Arc::clone(job))),
        }
    }
}

/// All workers.
#[derive(Debug)]
pub(super) struct Crew {
    max_lost: usize,
    roll: Mutex<Roll>,
}

#[derive(Debug)]
struct Roll {
    members: BTreeMap<WorkerId, Member>,
    next: u32,
    /// How many there should be, those who are lost aside.
    wanted: usize,
    lost: usize,
    replaced: u64,
    /// Each worker has one; taken when the crew is dismissed.
    alive: Option<Sender<()>>,
    /// Closed when the last worker has gone.
    gone: Receiver<()>,
}

#[derive(Debug)]
struct Member {
    hand: Arc<Hand>,
    thread: JoinHandle<()>,
}

/// The workers at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrewView {
    /// Workers that take jobs, or are about to start.
    pub alive: usize,
    /// Those of them that have nothing to do.
    pub idle: usize,
    /// How many there should be.
    pub wanted: usize,
    /// Workers that don't come back from a call that was interrupted. They are not among those who are alive.
    pub lost: usize,
    /// Workers that were started in the place of one that was lost.
    pub replaced: u64,
}

impl Crew {
    /// A crew that [musters](Crew::muster) `wanted` workers, and replaces at most `max_lost` that don't come back.
    pub(super) fn new(wanted: usize, max_lost: usize) -> Self {
        let (alive, gone) = bounded(0);
        Crew {
            max_lost,
            roll: Mutex::new(Roll {
                members: BTreeMap::new(),
                next: 0,
                wanted,
                lost: 0,
                replaced: 0,
                alive: Some(alive),
                gone,
            }),
        }
    }

    /// How many workers may be lost.
    pub(super) const fn max_lost(&self) -> usize {
        self.max_lost
    }

    /// Starts whoever is missing, and buries whoever has gone.
    ///
    /// # Errors
    /// If the system gives no thread; those that were started stay.
    pub(super) fn muster(&self, shell: &Arc<Shell>) -> io::Result<()> {
        let gone = {
            let mut roll = self.roll.lock();
            let gone = roll
                .members
                .extract_if(.., |_, member| member.thread.is_finished());
            gone.collect::<Vec<_>>()
        };
        for (_, member) in gone {
            join(member.thread);
        }
        let roll = &mut *self.roll.lock();
        let Some(alive) = &roll.alive else {
            return Ok(());
        };
        let missing = shell.ready.hire();
        for done in 0..missing {
            match hire(shell, WorkerId(roll.next), alive.clone()) {
                Ok(member) => {
                    roll.members.insert(WorkerId(roll.next), member);
                    roll.next += 1;
                }
                Err(error) => {
                    (done..missing).for_each(|_| shell.ready.lose());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// So many workers are wanted from now on. More are there at once; fewer when [`Crew::dismiss_surplus`] is next called.
    pub(super) fn want(&self, shell: &Arc<Shell>, wanted: usize) {
        let target = {
            let mut roll = self.roll.lock();
            roll.wanted = wanted;
            self.target(&roll)
        };
        if target > shell.ready.wanted() {
            shell.ready.want(target);
            self.muster_or_say(shell);
        }
    }

    /// Sends home whoever is too many, once no more calls than that are in flight: see `ready.rs`.
    pub(super) fn dismiss_surplus(&self, shell: &Shell, in_flight: usize) {
        let target = self.target(&self.roll.lock());
        if target < shell.ready.wanted() && in_flight <= target {
            shell.ready.want(target);
        }
    }

    /// Gives up on the worker that has `permit` in hand, and puts another in its place. `false`: it has not.
    pub(super) fn lose(&self, shell: &Arc<Shell>, worker: WorkerId, permit: PermitKey) -> bool {
        {
            let mut roll = self.roll.lock();
            let member = roll.members.get(&worker);
            if !member.is_some_and(|member| member.hand.lose(permit)) {
                return false;
            }
            roll.lost += 1;
            shell.ready.lose();
            let target = self.target(&roll);
            if target == roll.wanted {
                roll.replaced += 1;
            }
            shell.ready.want(target);
        }
        self.muster_or_say(shell);
        true
    }

    /// A worker that was given up on has come back, and goes home.
    fn came_back(&self, shell: &Arc<Shell>) {
        {
            let mut roll = self.roll.lock();
            roll.lost -= 1;
            shell.ready.want(self.target(&roll));
        }
        self.muster_or_say(shell);
    }

    /// As [`Crew::muster`]; where the system gives no thread, the next health check tries again.
    pub(super) fn muster_or_say(&self, shell: &Arc<Shell>) {
        if let Err(error) = self.muster(shell) {
            log::error!("a worker can't be replaced, the system gives no thread: {error}");
        }
    }

    /// Whether this worker has this permit in hand.
    pub(super) fn has_in_hand(&self, worker: WorkerId, permit: PermitKey) -> bool {
        self.job_in_hand(worker, permit).is_some()
    }

    /// The job that the permit in this worker's hand is for.
    pub(super) fn job_in_hand(&self, worker: WorkerId, permit: PermitKey) -> Option<Arc<LiveJob>> {
        let hand = Arc::clone(&self.roll.lock().members.get(&worker)?.hand);
        let (held, job) = hand.holds()?;
        (held == permit).then_some(job)
    }

    pub(super) fn view(&self, shell: &Shell) -> CrewView {
        let (alive, idle) = shell.ready.roll();
        let roll = self.roll.lock();
        CrewView {
            alive,
            idle,
            wanted: roll.wanted,
            lost: roll.lost,
            replaced: roll.replaced,
        }
    }

    /// Sends everybody home; waits at most `grace` for whoever is still at work, and leaves behind whoever is then.
    pub(super) fn dismiss(&self, shell: &Shell, grace: Duration) {
        shell.ready.close();
        let (members, gone) = {
            let mut roll = self.roll.lock();
            roll.alive = None;
            (std::mem::take(&mut roll.members), roll.gone.clone())
        };
        // Nothing is ever sent: the wait ends when the last worker drops its end, or the time is up.
        let all_gone = gone
            .recv_timeout(grace)
            .is_err_and(|error| error.is_disconnected());
        let (home, stuck): (Vec<_>, Vec<_>) = members
            .into_values()
            .partition(|member| all_gone || member.thread.is_finished());
        home.into_iter().for_each(|member| join(member.thread));
        if !stuck.is_empty() {
            log::error!(
                "{} workers did not come back from an interrupted call and are left behind",
                stuck.len()
            );
        }
    }

    /// How many workers there should be: whoever is lost is replaced, but not more than so many.
    fn target(&self, roll: &Roll) -> usize {
        let missing = roll.lost.saturating_sub(self.max_lost);
        roll.wanted.saturating_sub(missing)
    }
}

fn hire(shell: &Arc<Shell>, id: WorkerId, alive: Sender<()>) -> io::Result<Member> {
    let hand = Arc::new(Hand::default());
    let (shell, own) = (Arc::clone(shell), Arc::clone(&hand));
    let thread = Builder::new()
        .name(format!("pointsman-worker-{}", id.0))
        .spawn(move || {
            let leaving = Leaving { shell: &shell, id };
            let at_home = worker::run(&shell, id, &own);
            if !at_home {
                log::info!(
                    "worker {} is back, and goes home: another has its place",
                    id.0
                );
                shell.crew.came_back(&shell);
            }
            drop(leaving);
            drop(alive);
        })?;
    Ok(Member { hand, thread })
}

/// Sees to it that a worker whose thread ends by a panic is replaced. No job of ours does that; a sink might.
struct Leaving<'a> {
    shell: &'a Arc<Shell>,
    id: WorkerId,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        log::error!(
            "worker {} panicked outside of a job, and is replaced",
            self.id.0
        );
        self.shell.ready.lose();
        self.shell.crew.roll.lock().replaced += 1;
        self.shell.crew.muster_or_say(self.shell);
    }
}

/// Joins a thread that is over, or about to be; from that thread itself it does nothing.
pub(super) fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or("unnamed").to_owned();
    if thread.thread().id() == thread::current().id() {
        return;
    }
    if thread.join().is_err() {
        log::error!("thread {name} panicked");
    }
}
