//! Named sessions: their limit, their places, and their turns.
//!
//! At most `session` calls of one session are in flight, and at most `sessions` sessions have calls in flight at once.
//! One session too many waits in line. Since a busy session never has to stop by itself, waiting alone would starve
//! the newcomer; so sessions take turns: once somebody has waited for a place, the session that has kept one
//! longest, for at least a *turn*, starts nothing more until it has run empty. Every turn one more session has to
//! make room, as long as anyone still waits for a place.

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
    newcomers: BTreeSet<FlowId>,
    /// When a session was last told to make room, or the first newcomer began to wait.
    last_turn: Time,
}

#[derive(Debug)]
struct Session {
    /// Since when it has calls in flight.
    active_since: Option<Time>,
    /// Lines in which it has jobs.
    lines: Vec<(StageId, ClassId)>,
}

impl Core {
    /// When the next session has to make room.
    pub(super) fn next_turn(&self) -> Time {
        let sessions = &self.sessions;
        match sessions.keeping.first() {
            Some(&(since, _)) if self.is_crowded() => {
                since.max(sessions.last_turn) + self.settings.session_turn
            }
            _ => Time::NEVER,
        }
    }

    /// Whether a session waits for a place.
    fn is_crowded(&self) -> bool {
        !self.sessions.newcomers.is_empty() && !self.has_session_place()
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
            running if running >= self.settings.session => Standing::Blocked,
            _ => Standing::Active,
        }
    }

    /// A session has a job in a line where it had none, or has one more there.
    pub(super) fn session_waits(
        &mut self,
        flow: FlowId,
        stage: StageId,
        class: ClassId,
        now: Time,
    ) {
        let session = self.sessions.known.entry(flow).or_insert(Session {
            active_since: None,
            lines: Vec::new(),
        });
        if !session.lines.contains(&(stage, class)) {
            session.lines.push((stage, class));
        }
        self.session_changed(flow, now);
    }

    /// A session has no job any more in a line where it had one.
    pub(super) fn session_waits_no_more(&mut self, flow: FlowId, stage: StageId, class: ClassId) {
        if let Some(session) = self.sessions.known.get_mut(&flow) {
            session.lines.retain(|&line| line != (stage, class));
            if session.lines.is_empty() {
                self.sessions.newcomers.remove(&flow);
                self.forget_session_if_idle(flow);
            }
        }
        self.relax();
    }

    /// A session's calls in flight, or its jobs in line, have changed.
    pub(super) fn session_changed(&mut self, flow: FlowId, now: Time) {
        let running = self.books.in_use_of(flow) > 0;
        let session = self.sessions.known.entry(flow).or_insert(Session {
            active_since: None,
            lines: Vec::new(),
        });
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
        if session.active_since.is_none() && !session.lines.is_empty() {
            if self.sessions.newcomers.is_empty() {
                self.sessions.last_turn = now;
            }
            self.sessions.newcomers.insert(flow);
        } else {
            self.sessions.newcomers.remove(&flow);
        }
        self.stand(flow);
        self.relax();
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

    /// While nobody waits for a place, nobody has to make room.
    fn relax(&mut self) {
        if self.is_crowded() {
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

    fn forget_session_if_idle(&mut self, flow: FlowId) {
        let idle = |session: &Session| session.active_since.is_none() && session.lines.is_empty();
        if self.sessions.known.get(&flow).is_some_and(idle) {
            self.sessions.known.remove(&flow);
        }
    }
}
