//! What is counted of the jobs in line, counted once more from the jobs themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use super::queue::Line;
use super::state::{Core, Waiting};

impl Core {
    /// Compares what is counted with what is there. `Err` says in words what does not agree.
    ///
    /// # Errors
    /// If the books, the lines or the timers disagree.
    pub fn audit(&self) -> Result<(), String> {
        self.books.audit()?;
        let in_lines: usize = self.lines.iter().map(Line::waiting).sum();
        let waiting = self
            .jobs
            .values()
            .filter(|job| job.permit.is_none() && job.back_at.is_none())
            .count();
        let aged: usize = self.waiting.ages.iter().map(BTreeSet::len).sum();
        if [in_lines, waiting, aged] != [self.waiting.jobs; 3] {
            return Err(format!(
                "{} wait, the lines have {in_lines}, the jobs {waiting}",
                self.waiting.jobs
            ));
        }
        self.audit_waiting()?;
        self.audit_onward()?;
        if self.timers.len() != self.jobs.len() {
            return Err(format!(
                "{} jobs, {} timers",
                self.jobs.len(),
                self.timers.len()
            ));
        }
        if self.books.in_use() > self.most_in_flight() {
            return Err(format!(
                "{} in flight, the limit is {}",
                self.books.in_use(),
                self.most_in_flight()
            ));
        }
        Ok(())
    }

    /// Compares what the bounds of the waiting lines are judged by with the jobs that wait. `Err` says what does not agree.
    pub(super) fn audit_waiting(&self) -> Result<(), String> {
        let mut real = Waiting::new(self.settings.providers.len());
        let mut lines = BTreeMap::new();
        for (&id, job) in &self.jobs {
            if job.permit.is_some() || job.back_at.is_some() {
                continue;
            }
            let provider = self.first_provider(job.stage()).index();
            real.bytes += job.bytes;
            real.by_provider[provider] += 1;
            real.ages[job.class].insert((job.arrived, id));
            let line = (provider, job.class, job.stage(), job.flow);
            *lines.entry(line).or_default() += 1;
        }
        for ((provider, class, stage, flow), length) in lines {
            real.lengths[provider][class].insert((length, stage, flow));
        }
        let counted = &self.waiting;
        same("bytes in line", &counted.bytes, &real.bytes)?;
        same(
            "in line by provider",
            &counted.by_provider,
            &real.by_provider,
        )?;
        same("in line by age", &counted.ages, &real.ages)?;
        same("lengths of lines", &counted.lengths, &real.lengths)
    }
}

fn same<T: PartialEq + Debug>(what: &str, counted: &T, real: &T) -> Result<(), String> {
    if counted == real {
        return Ok(());
    }
    Err(format!("{what}: counted {counted:?}, there are {real:?}"))
}
