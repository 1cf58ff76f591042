//! Named sessions: their limit, their places, and their turns.
//!
//! At most `session` calls of one session are in flight (fewer, where its jobs say so), and at most `sessions` sessions have calls in flight at once.
//! One session too many waits in line. Since a busy session never has to stop by itself, waiting alone would starve
//! the newcomer; so sessions take turns: once somebody has waited for a place, the session that has kept one
//! longest, for at least a *turn*, starts nothing more until it has run empty. Every turn one more session has to
//! make room, until there are places for all who wait for one.
//!
//! A place that is free goes to the session that has waited longest for one, of those that are next in their lines. A
//! session that has run empty waits anew: however old its jobs are, it comes after those that waited meanwhile.
//!
//! Who need not make room any more is told so at the choice of the next job ([`Core::relax`]) and not before: while a
//! place passes from one session to another it looks free, as if nobody had to.

use std::collections::{BTreeSet, HashMap};

use super::queue::Standing;
use super::state::Core;
use super::{ClassId, FlowId, StageId};
use crate::clock::Time;

/// The sessions that wait or run.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    known: HashMap<FlowId, Session>,
    /// Sessions with calls in flight that were not told to make room, by since when.
    keeping: BTreeSet<(Time, FlowId)>,
    /// Sessions told to make room.
    yielding: BTreeSet<FlowId>,
    /// Sessions that run nothing and have jobs in line.
    newcomers: usize,
    /// The ticket of the last of them.
    tickets: u64,
    /// When a session was last told to make room, or the first newcomer began to wait.
    last_turn: Time,
}

#[derive(Debug)]
struct Session {
    /// Calls in flight, where this is less than the limit of all sessions. Not looked at while it runs nothing: a session
    /// that may call at all may make one call.
    limit: Option<usize>,
    /// Since when it has calls in flight.
    active_since: Option<Time>,
    /// While it waits for a place: who has the lower number came first.
    ticket: Option<u64>,
    /// Lines in which it has jobs.
    lines: Vec<(StageId, ClassId)>,
}

impl Sessions {
    /// The session's place among those who wait for one; `None` if it does not wait for one.
    pub(super) fn ticket(&self, flow: FlowId) -> Option<u64> {
        self.known.get(&flow)?.ticket
    }

    fn session(&mut self, flow: FlowId) -> &mut Session {
        self.known.entry(flow).or_insert(Session {
            limit: None,
            active_since: None,
            ticket: None,
            lines: Vec::new(),
        })
    }

    /// Brings it up to date who waits for a place.
    fn queue_for_a_place(&mut self, flow: FlowId, now: Time) {
        let Some(session) = self.known.get_mut(&flow) else {
            return;
        };
        let waits = session.active_since.is_none() && !session.lines.is_empty();
        match (session.ticket, waits) {
            (None, true) => {
                self.tickets += 1;
                session.ticket = Some(self.tickets);
                if self.newcomers == 0 {
                    self.last_turn = now;
                }
                self.newcomers += 1;
            }
            (Some(_), false) => {
                session.ticket = None;
                self.newcomers -= 1;
            }
            _ => {}
        }
    }
}

impl Core {
    /// When the next session has to make room.
    pub(super) fn next_turn(&self) -> Time {
        let sessions = &self.sessions;
        match sessions.keeping.first() {
            Some(&(since, _)) if sessions.newcomers > 0 && !self.has_session_place() => {
                since.max(sessions.last_turn) + self.settings.session_turn
            }
            _ => Time::NEVER,
        }
    }

    /// Whether a flow's session allows another start now.
    pub(super) fn may_start(&self, flow: FlowId, session: bool) -> bool {
        match self.standing(flow, session) {
            Standing::Active => true,
            Standing::Fresh => self.has_session_place(),
            Standing::Blocked => false,
        }
    }

    /// Whether one more session may have calls in flight.
    pub(super) fn has_session_place(&self) -> bool {
        self.books.sessions() < self.settings.sessions
    }

    pub(super) fn standing(&self, flow: FlowId, session: bool) -> Standing {
        if !session {
            return Standing::Active;
        }
        match self.books.in_use_of(flow) {
            0 => Standing::Fresh,
            _ if self.sessions.yielding.contains(&flow) => Standing::Blocked,
            running if running >= self.session_limit(flow) => Standing::Blocked,
            _ => Standing::Active,
        }
    }

    /// Calls in flight of one session.
    pub(super) fn session_limit(&self, flow: FlowId) -> usize {
        let own = self
            .sessions
            .known
            .get(&flow)
            .and_then(|session| session.limit);
        own.map_or(self.settings.session, |own| own.min(self.settings.session))
    }

    /// A job of the session, which is about to wait or to run, says what the session's own limit is.
    pub(super) fn limit_session(&mut self, flow: FlowId, limit: Option<usize>) {
        self.sessions.session(flow).limit = limit;
    }

    /// A session has a job in a line where it had none, or has one more there.
    pub(super) fn session_waits(
        &mut self,
        flow: FlowId,
        stage: StageId,
        class: ClassId,
        now: Time,
    ) {
        let session = self.sessions.session(flow);
        if !session.lines.contains(&(stage, class)) {
            session.lines.push((stage, class));
        }
        self.session_changed(flow, now);
    }

    /// A session has no job any more in a line where it had one.
    pub(super) fn session_waits_no_more(
        &mut self,
        flow: FlowId,
        stage: StageId,
        class: ClassId,
        now: Time,
    ) {
        if let Some(session) = self.sessions.known.get_mut(&flow) {
            session.lines.retain(|&line| line != (stage, class));
            self.sessions.queue_for_a_place(flow, now);
            self.forget_session_if_idle(flow);
        }
    }

    /// A session's calls in flight, or its jobs in line, have changed.
    pub(super) fn session_changed(&mut self, flow: FlowId, now: Time) {
        let running = self.books.in_use_of(flow) > 0;
        let session = self.sessions.session(flow);
        match (session.active_since, running) {
            (None, true) => {
                session.active_since = Some(now);
                self.sessions.keeping.insert((now, flow));
            }
            (Some(since), false) => {
                session.active_since = None;
                self.sessions.keeping.remove(&(since, flow));
                self.sessions.yielding.remove(&flow);
            }
            _ => {}
        }
        self.sessions.queue_for_a_place(flow, now);
        self.stand(flow);
        self.forget_session_if_idle(flow);
    }

    /// Tells one session to make room, if its turn is over.
    pub(super) fn sessions_turn(&mut self, now: Time) {
        if self.next_turn() > now {
            return;
        }
        if let Some((_, flow)) = self.sessions.keeping.pop_first() {
            self.sessions.yielding.insert(flow);
            self.sessions.last_turn = now;
            self.stand(flow);
        }
    }

    /// Once there are places for all who wait for one, nobody has to make room.
    pub(super) fn relax(&mut self) {
        if self.books.sessions() + self.sessions.newcomers > self.settings.sessions {
            return;
        }
        while let Some(flow) = self.sessions.yielding.pop_first() {
            let since = self
                .sessions
                .known
                .get(&flow)
                .and_then(|session| session.active_since);
            if let Some(since) = since {
                self.sessions.keeping.insert((since, flow));
            }
            self.stand(flow);
        }
    }

    /// Tells the lines in which the session has jobs where it stands.
    fn stand(&mut self, flow: FlowId) {
        let standing = self.standing(flow, true);
        if let Some(session) = self.sessions.known.get(&flow) {
            for &(stage, class) in &session.lines {
                self.lines[stage.index()].set_standing(class, flow, standing);
            }
        }
    }

    /// Tells all lines anew where each session stands: its limit has changed.
    pub(super) fn stand_all(&mut self) {
        let mut flows: Vec<FlowId> = self.sessions.known.keys().copied().collect();
        // In order: the same events have the same consequences.
        flows.sort_unstable();
        for flow in flows {
            self.stand(flow);
        }
    }

    fn forget_session_if_idle(&mut self, flow: FlowId) {
        let idle = |session: &Session| session.active_since.is_none() && session.lines.is_empty();
        if self.sessions.known.get(&flow).is_some_and(idle) {
            self.sessions.known.remove(&flow);
        }
    }
}
