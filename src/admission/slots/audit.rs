//! The counters beside the ledger, compared with it and counted anew from it.

use super::{Books, Holding, SlotState};
use crate::clock::Time;

impl Books {
    /// Compares the counters with the ledger. `Err` says which one is wrong, in words.
    pub(in crate::admission) fn audit(&self) -> Result<(), String> {
        let held: Vec<&Holding> = self
            .rows
            .iter()
            .filter_map(|row| row.holding.as_ref())
            .collect();
        same("global", self.in_use, held.len())?;
        same("free rows", self.free.len(), self.rows.len() - held.len())?;
        for (index, &counted) in self.by_provider.iter().enumerate() {
            let real = held
                .iter()
                .filter(|holding| holding.provider.index() == index)
                .count();
            same(&format!("provider {index}"), counted, real)?;
        }
        for (index, &counted) in self.by_target.iter().enumerate() {
            let real = held.iter().filter(|held| held.target.index() == index);
            same(&format!("target {index}"), counted, real.count())?;
        }
        for (flow, &counted) in &self.by_session {
            let real = held
                .iter()
                .filter(|holding| holding.session && holding.flow == *flow)
                .count();
            same(&format!("session {flow:?}"), counted, real)?;
        }
        let in_sessions = held.iter().filter(|holding| holding.session).count();
        same("sessions", self.by_session.values().sum(), in_sessions)?;
        self.audit_orphans()?;
        match self
            .rows
            .iter()
            .find(|row| (row.state == SlotState::Free) != row.holding.is_none())
        {
            Some(row) => Err(format!(
                "a row is {:?} and holds {:?}",
                row.state, row.holding
            )),
            None => Ok(()),
        }
    }

    /// Counts anew what is counted beside the ledger, which is the truth.
    pub(in crate::admission) fn recount(&mut self) {
        self.by_provider.fill(0);
        self.by_target.fill(0);
        self.by_session.clear();
        self.orphans.clear();
        (self.in_use, self.quarantined) = (0, 0);
        self.free.clear();
        let with_worker = |holding: &Holding| usize::from(holding.worker.is_some());
        self.lost = self.abandoned.values().map(with_worker).sum();
        for (index, row) in self.rows.iter().enumerate() {
            let index = index as u32;
            let Some(holding) = &row.holding else {
                self.free.push(index);
                continue;
            };
            self.in_use += 1;
            self.by_provider[holding.provider.index()] += 1;
            self.by_target[holding.target.index()] += 1;
            if holding.session {
                *self.by_session.entry(holding.flow).or_default() += 1;
            }
            if row.due != Time::NEVER {
                self.orphans.insert((row.due, index));
            }
            if row.state == SlotState::Quarantined {
                self.quarantined += 1;
                self.lost += with_worker(holding);
            }
        }
    }

    /// Makes a counter wrong, on purpose.
    #[cfg(test)]
    pub(in crate::admission) fn spoil(&mut self) {
        self.by_provider[0] += 1;
    }

    fn audit_orphans(&self) -> Result<(), String> {
        let quarantined = self
            .rows
            .iter()
            .filter(|row| row.state == SlotState::Quarantined);
        let (mut count, mut lost) = (0, 0);
        for row in quarantined {
            count += 1;
            lost += usize::from(row.holding.is_some_and(|held| held.worker.is_some()));
        }
        same("quarantined", self.quarantined, count)?;
        let abandoned = self.abandoned.values().filter(|held| held.worker.is_some());
        same("lost workers", self.lost, lost + abandoned.count())?;
        let due = self.rows.iter().filter(|row| row.due != Time::NEVER);
        same("rows to look after", self.orphans.len(), due.count())
    }
}

fn same(what: &str, counted: usize, real: usize) -> Result<(), String> {
    if counted == real {
        return Ok(());
    }
    Err(format!("{what}: counted {counted}, the ledger has {real}"))
}
