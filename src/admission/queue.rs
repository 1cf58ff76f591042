//! A waiting line: the jobs that wait for the targets of one stage.
//!
//! Inside a line the order is class, then flow, then first come, first served. Class and flow are each chosen by
//! fair queueing (see [`super::fair`]): classes by their weights, flows as equals. A flow is a named session, or all
//! requests without a name that share an API key.
//!
//! A flow whose session may not start another job must not hide the flows behind it, and must not cost a search
//! either. So each flow has a [`Standing`] that the core keeps up to date, and only flows that could start stand in
//! the sets that the choice looks at: finding the next job takes the same few look-ups however many wait. A flow
//! *competes* while it stands there, and a class while one of its flows does.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::fair::{Remembered, VirtualClock, signed_difference};
use super::{CLASSES, ClassId, FlowId, JobId, TargetId};

/// A job's place: given at its arrival and kept for life, so that a job that comes back stands where it stood.
pub(super) type Place = u64;

/// Whether a flow's session could start a job now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It runs jobs and may run more, or it is no session and has no limit.
    Active,
    /// It runs none: it needs one of the places for sessions.
    Fresh,
    /// It is at its limit, or has to make room for another session.
    Blocked,
}

/// What has been charged for one running job, in nanoseconds of virtual time, at each level.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Billed {
    flow: u64,
    class: u64,
}

/// The job that would be next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) class: ClassId,
    pub(super) flow: FlowId,
    pub(super) place: Place,
    pub(super) job: JobId,
}

/// The jobs that wait for, or run on, the targets of one stage.
#[derive(Debug)]
pub(super) struct Line {
    /// Any of these will do.
    pub(super) targets: Vec<TargetId>,
    weights: [u64; CLASSES],
    /// Of the classes.
    clock: VirtualClock,
    classes: [ClassLine; CLASSES],
}

#[derive(Debug, Default)]
struct ClassLine {
    /// Its virtual time among the classes.
    time: u64,
    /// Of its flows.
    clock: VirtualClock,
    remembered: Remembered,
    flows: HashMap<FlowId, FlowLine>,
    active: BTreeSet<(u64, Place, FlowId)>,
    fresh: BTreeSet<(u64, Place, FlowId)>,
    waiting: usize,
}

#[derive(Debug)]
struct FlowLine {
    jobs: BTreeMap<Place, JobId>,
    running: usize,
    /// Its virtual time among the flows of its class.
    time: u64,
    standing: Standing,
    /// Where it stands in `active` or `fresh`, if it does.
    listed: Option<(Standing, u64, Place)>,
}

impl Line {
    pub(super) fn new(targets: Vec<TargetId>, weights: [u32; CLASSES]) -> Self {
        Line {
            targets,
            weights: weights.map(u64::from),
            clock: VirtualClock::default(),
            classes: Default::default(),
        }
    }

    /// Other shares are in force. What runs is charged by them to its end.
    pub(super) fn set_weights(&mut self, weights: [u32; CLASSES]) {
        self.weights = weights.map(u64::from);
    }

    /// Jobs that wait, of all classes.
    pub(super) fn waiting(&self) -> usize {
        self.classes.iter().map(|class| class.waiting).sum()
    }

    /// Jobs that wait, of one class.
    pub(super) fn waiting_in(&self, class: ClassId) -> usize {
        self.classes[class].waiting
    }

    /// Jobs of one flow that wait, of all classes.
    pub(super) fn waiting_of_flow(&self, flow: FlowId) -> usize {
        (0..CLASSES).map(|class| self.waiting_of(class, flow)).sum()
    }

    /// Jobs of one flow that wait, of one class.
    pub(super) fn waiting_of(&self, class: ClassId, flow: FlowId) -> usize {
        self.classes[class]
            .flows
            .get(&flow)
            .map_or(0, |line| line.jobs.len())
    }

    /// Jobs of one flow before this place, of one class; `most` are counted.
    pub(super) fn rank(&self, class: ClassId, flow: FlowId, place: Place, most: usize) -> usize {
        let line = self.classes[class].flows.get(&flow);
        line.map_or(0, |line| line.jobs.range(..place).take(most).count())
    }

    /// Flows whose turn comes before this one's, of one class; `None` where that is not known, or more than `most`.
    pub(super) fn flows_before(&self, class: ClassId, flow: FlowId, most: usize) -> Option<usize> {
        let class = &self.classes[class];
        let (standing, time, place) = class.flows.get(&flow)?.listed?;
        let key = (time, place, flow);
        let before = match standing {
            Standing::Fresh => class.active.len() + class.fresh.range(..key).take(most).count(),
            Standing::Active | Standing::Blocked => class.active.range(..key).take(most).count(),
        };
        (before < most).then_some(before)
    }

    /// Flows with jobs that wait or run, of one class.
    pub(super) fn flows_in(&self, class: ClassId) -> usize {
        self.classes[class].flows.len()
    }

    /// A job goes to its place in line.
    pub(super) fn push(&mut self, job: Candidate, standing: Standing) {
        let class = &mut self.classes[job.class];
        let line = class.join(job.flow, standing);
        line.standing = standing;
        line.jobs.insert(job.place, job.job);
        class.waiting += 1;
        self.list(job.class, job.flow);
    }

    /// A job leaves the line without having run.
    pub(super) fn remove(&mut self, class: ClassId, flow: FlowId, place: Place) -> bool {
        let found = self.take(class, flow, place);
        self.classes[class].leave_if_idle(flow);
        found
    }

    /// A job leaves the line to run.
    pub(super) fn start(&mut self, class: ClassId, flow: FlowId, place: Place) {
        let taken = self.take(class, flow, place);
        debug_assert!(taken, "the job that starts was in line");
        self.run(class, flow);
    }

    /// A job runs that never had to wait.
    pub(super) fn start_at_once(&mut self, class: ClassId, flow: FlowId, standing: Standing) {
        let next = self.next_class_time();
        let line = &mut self.classes[class];
        if !line.competes() {
            line.time = self.clock.rejoin(line.time, next);
        }
        line.join(flow, standing);
        line.resume(flow);
        self.run(class, flow);
    }

    /// A job runs no more.
    pub(super) fn finish(&mut self, class: ClassId, flow: FlowId) {
        let class = &mut self.classes[class];
        if let Some(line) = class.flows.get_mut(&flow) {
            line.running -= 1;
        }
        class.leave_if_idle(flow);
    }

    /// What the flow's session may do has changed.
    pub(super) fn set_standing(&mut self, class: ClassId, flow: FlowId, standing: Standing) {
        if let Some(line) = self.classes[class].flows.get_mut(&flow) {
            line.standing = standing;
            self.list(class, flow);
        }
    }

    /// Brings what was charged for a running job up to `service`, in nanoseconds; down to it, if it was too much.
    pub(super) fn bill(&mut self, class: ClassId, flow: FlowId, billed: &mut Billed, service: u64) {
        let line = &mut self.classes[class];
        let owed = signed_difference(service / self.weights[class], billed.class);
        let charged;
        (line.time, charged) = self.clock.charge(line.time, owed);
        billed.class = billed.class.saturating_add_signed(charged);

        let owed = signed_difference(service, billed.flow);
        if let Some(present) = line.flows.get_mut(&flow) {
            let charged;
            (present.time, charged) = line.clock.charge(present.time, owed);
            billed.flow = billed.flow.saturating_add_signed(charged);
            line.list(flow);
        }
    }

    /// The next job by fair choice. `open` says whether a session that runs nothing yet may begin to.
    pub(super) fn candidate(&self, open: bool) -> Option<Candidate> {
        let eligible = self
            .classes
            .iter()
            .enumerate()
            .filter_map(|(class, line)| Some((class, line.first(open)?)));
        let (class, (_, place, flow)) =
            eligible.min_by_key(|&(class, _)| (self.classes[class].time, class))?;
        let job = self.classes[class].flows[&flow].jobs[&place];
        Some(Candidate {
            class,
            flow,
            place,
            job,
        })
    }

    /// The waiting jobs of a flow, newest first.
    pub(super) fn newest(&self, class: ClassId, flow: FlowId) -> impl Iterator<Item = JobId> {
        let line = self.classes[class].flows.get(&flow);
        line.into_iter()
            .flat_map(|line| line.jobs.values().rev().copied())
    }

    fn take(&mut self, class: ClassId, flow: FlowId, place: Place) -> bool {
        let line = &mut self.classes[class];
        let Some(jobs) = line.flows.get_mut(&flow).map(|flow| &mut flow.jobs) else {
            return false;
        };
        if jobs.remove(&place).is_none() {
            return false;
        }
        line.waiting -= 1;
        self.list(class, flow);
        true
    }

    /// Counts a start, and sets both clocks to where the class and the flow stand.
    fn run(&mut self, class: ClassId, flow: FlowId) {
        let line = &mut self.classes[class];
        self.clock.start(line.time);
        let flow = line.flows.get_mut(&flow);
        let flow = flow.expect("a flow that starts a job is present");
        flow.running += 1;
        line.clock.start(flow.time);
    }

    /// Puts the flow where the choice finds it, or takes it away from there. A class that begins to compete by that
    /// resumes.
    fn list(&mut self, class: ClassId, flow: FlowId) {
        let next = self.next_class_time();
        let line = &mut self.classes[class];
        let competed = line.competes();
        line.list(flow);
        if !competed && line.competes() {
            line.time = self.clock.rejoin(line.time, next);
        }
    }

    /// The virtual time of the class that would be next.
    fn next_class_time(&self) -> Option<u64> {
        let competing = self.classes.iter().filter(|class| class.competes());
        competing.map(|class| class.time).min()
    }
}

impl ClassLine {
    /// Who is next among the flows that could start.
    fn first(&self, open: bool) -> Option<(u64, Place, FlowId)> {
        let active = self.active.first().copied();
        let fresh = if open {
            self.fresh.first().copied()
        } else {
            None
        };
        active.into_iter().chain(fresh).min()
    }

    /// Whether one of its flows could start a job, places for sessions aside.
    fn competes(&self) -> bool {
        !self.active.is_empty() || !self.fresh.is_empty()
    }

    /// The virtual time of the flow that would be next.
    fn next_time(&self) -> Option<u64> {
        self.first(true).map(|(time, ..)| time)
    }

    fn join(&mut self, flow: FlowId, standing: Standing) -> &mut FlowLine {
        if !self.flows.contains_key(&flow) {
            let (clock, next) = (&self.clock, self.next_time());
            let before = self.remembered.recall(flow);
            let time = before.map_or_else(|| clock.newcomer(next), |time| clock.rejoin(time, next));
            let line = FlowLine {
                jobs: BTreeMap::new(),
                running: 0,
                time,
                standing,
                listed: None,
            };
            self.flows.insert(flow, line);
        }
        self.flows.get_mut(&flow).expect("joined above")
    }

    fn leave_if_idle(&mut self, flow: FlowId) {
        let idle = |flow: &&FlowLine| flow.running == 0 && flow.jobs.is_empty();
        if let Some(time) = self.flows.get(&flow).filter(idle).map(|flow| flow.time) {
            self.flows.remove(&flow);
            self.remembered.remember(flow, time, &self.clock);
        }
    }

    /// A flow that did not compete takes part again.
    fn resume(&mut self, flow: FlowId) {
        let next = self.next_time();
        let line = self.flows.get_mut(&flow);
        let line = line.expect("only flows that are present resume");
        if line.listed.is_none() {
            line.time = self.clock.resume(line.time, next);
        }
    }

    /// Puts the flow where the choice finds it, or takes it away from there.
    fn list(&mut self, flow: FlowId) {
        let line = &self.flows[&flow];
        let head = line.jobs.first_key_value().map(|(&place, _)| place);
        let head = head.filter(|_| line.standing != Standing::Blocked);
        if head.is_some() {
            self.resume(flow);
        }
        let line = self.flows.get_mut(&flow);
        let line = line.expect("only flows that are present are listed");
        let wanted = head.map(|place| (line.standing, line.time, place));
        let before = std::mem::replace(&mut line.listed, wanted);
        if before == wanted {
            return;
        }
        if let Some((standing, time, place)) = before {
            self.set(standing).remove(&(time, place, flow));
        }
        if let Some((standing, time, place)) = wanted {
            self.set(standing).insert((time, place, flow));
        }
    }

    fn set(&mut self, standing: Standing) -> &mut BTreeSet<(u64, Place, FlowId)> {
        match standing {
            Standing::Active => &mut self.active,
            Standing::Fresh => &mut self.fresh,
            Standing::Blocked => unreachable!("blocked flows are not listed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line::new(vec![TargetId(0)], [16, 4, 1])
    }

    fn job(class: ClassId, flow: u64, place: Place) -> Candidate {
        Candidate {
            class,
            flow: FlowId(flow),
            place,
            job: JobId(place),
        }
    }

    /// Serves `count` jobs of one second each and returns how many each flow had, by class.
    fn serve(
        line: &mut Line,
        count: usize,
        key: impl Fn(&Candidate) -> u64,
    ) -> HashMap<u64, usize> {
        let mut served = HashMap::new();
        for place in 0..count {
            let next = line.candidate(true).expect("somebody waits");
            line.start(next.class, next.flow, next.place);
            line.bill(next.class, next.flow, &mut Billed::default(), 1_000_000_000);
            line.push(
                Candidate {
                    place: 10_000 + place as u64,
                    ..next
                },
                Standing::Active,
            );
            line.finish(next.class, next.flow);
            *served.entry(key(&next)).or_default() += 1;
        }
        served
    }

    #[test]
    fn classes_share_by_weight() {
        let mut line = line();
        for class in 0..CLASSES {
            line.push(job(class, class as u64, class as u64), Standing::Active);
        }
        let served = serve(&mut line, 2_100, |next| next.class as u64);
        assert_eq!((served[&0], served[&1], served[&2]), (1_600, 400, 100));
    }

    #[test]
    fn a_session_with_many_jobs_gets_no_more_than_one_with_few() {
        let mut line = line();
        for place in 0..40 {
            line.push(job(1, 1, place), Standing::Active);
        }
        line.push(job(1, 2, 40), Standing::Active);
        let served = serve(&mut line, 100, |next| next.flow.0);
        assert_eq!((served[&1], served[&2]), (50, 50));
    }

    #[test]
    fn a_flow_is_present_while_it_waits_or_runs_and_no_longer() {
        let mut line = line();
        line.push(job(1, 1, 1), Standing::Active);
        line.push(job(1, 1, 2), Standing::Active);
        line.start(1, FlowId(1), 1);
        line.start_at_once(1, FlowId(2), Standing::Active);
        assert_eq!(line.flows_in(1), 2);
        line.finish(1, FlowId(1));
        assert_eq!(line.flows_in(1), 2, "one of its jobs still waits");
        assert!(line.remove(1, FlowId(1), 2));
        assert_eq!(line.flows_in(1), 1);
        line.finish(1, FlowId(2));
        assert_eq!(line.flows_in(1), 0);
        assert_eq!(line.waiting(), 0);
    }

    #[test]
    fn a_blocked_flow_hides_nobody() {
        let mut line = line();
        line.push(job(1, 1, 1), Standing::Blocked);
        line.push(job(1, 2, 2), Standing::Active);
        assert_eq!(line.candidate(true), Some(job(1, 2, 2)));
        line.set_standing(1, FlowId(1), Standing::Active);
        assert_eq!(line.candidate(true), Some(job(1, 1, 1)));
    }

    #[test]
    fn a_fresh_session_waits_while_there_is_no_place_for_it() {
        let mut line = line();
        line.push(job(1, 1, 1), Standing::Fresh);
        assert_eq!(line.candidate(false), None);
        assert_eq!(line.candidate(true), Some(job(1, 1, 1)));
    }

    #[test]
    fn a_job_taken_out_of_the_middle_leaves_the_others_in_order() {
        let mut line = line();
        for place in 0..3 {
            line.push(job(0, 1, place), Standing::Active);
        }
        assert!(line.remove(0, FlowId(1), 1));
        assert!(!line.remove(0, FlowId(1), 1), "it is gone");
        assert_eq!(
            (line.waiting(), line.newest(0, FlowId(1)).next()),
            (2, Some(JobId(2)))
        );
        line.start(0, FlowId(1), 0);
        assert_eq!(line.candidate(true), Some(job(0, 1, 2)));
    }
}
