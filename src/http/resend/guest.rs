//! What a joiner has of its own: its deadline, and its story in the lifecycle log, as a job has one.

use std::sync::{Arc, OnceLock};

use crate::clock::Time;
use crate::config::Priority;
use crate::engine::{JobEnd, JobHandle, Owner, Phase, Phases, RequestView, Verdict, last_step};
use crate::http::meta::Meta;
use crate::http::resend::SharedCall;
use crate::telemetry::{Event, LifecycleLog, RequestLine, Step, Subject};

/// A request that shares another's call.
#[derive(Debug)]
pub(in crate::http) struct Guest {
    pub(in crate::http) owner: Owner,
    pub(in crate::http) priority: Priority,
    pub(in crate::http) received: Time,
    pub(in crate::http) deadline: Time,
    subject: Arc<Subject>,
    /// The job whose answer it waits for.
    host: Arc<OnceLock<JobHandle>>,
    lifecycle: Arc<LifecycleLog>,
}

/// Whose request it is, how urgent, and until when.
#[derive(Debug, Clone)]
pub(in crate::http) struct Asked {
    pub(in crate::http) owner: Owner,
    pub(in crate::http) priority: Priority,
    pub(in crate::http) received: Time,
    pub(in crate::http) deadline: Time,
}

impl Guest {
    /// The request number `number`, whose answer will be that of the request which `call` was made for.
    pub(in crate::http) fn new(
        asked: Asked,
        request_id: &Arc<str>,
        number: u64,
        call: &SharedCall,
        lifecycle: &Arc<LifecycleLog>,
    ) -> Self {
        let (host, plan) = (call.meta(), call.meta().plan());
        let subject = Subject {
            request: Arc::clone(request_id),
            job: number,
            key: asked.owner.key().cloned(),
            session: asked.owner.session().cloned(),
            provider: Some(Arc::clone(&plan.provider)),
            model: Some(Arc::clone(&plan.model)),
            joined: Some(Arc::clone(&host.request_id)),
        };
        Guest {
            owner: asked.owner,
            priority: asked.priority,
            received: asked.received,
            deadline: asked.deadline,
            subject: Arc::new(subject),
            host: call.job_place(),
            lifecycle: Arc::clone(lifecycle),
        }
    }

    /// Records its receipt.
    pub(in crate::http) fn receive(&self) {
        self.record(Step::Received, self.received, None);
    }

    /// Records that it has joined.
    pub(in crate::http) fn join(&self, now: Time) {
        self.record(Step::Joined, now, None);
    }

    /// Records its end, and leaves its line in the log.
    pub(super) fn end(&self, end: &JobEnd, meta: &Meta, now: Time) {
        let step = last_step(&end.verdict);
        self.record(step, now, Some(end.phases));
        if !RequestLine::is_wanted() {
            return;
        }
        let joined = self.subject.joined.as_deref().unwrap_or_default();
        let why = match &end.verdict {
            Verdict::Completed => meta.plan().timeout_text.to_string(),
            other => other.reason(),
        };
        let line = RequestLine {
            end: step,
            provider: self.subject.provider.as_deref(),
            model: self.subject.model.as_deref(),
            key: self.subject.key.as_deref(),
            session: self.subject.session.as_deref(),
            priority: self.priority,
            status: end.verdict.word(),
            phases: end.phases,
            reason: &format!("joined {joined}: {why}"),
            ..RequestLine::new(&self.subject.request)
        };
        line.log();
    }

    /// Where its own time went until `now`: it is in line, or in a call, while the job is whose answer it waits for.
    pub(super) fn phases(&self, now: Time) -> Phases {
        let of_host = self.host.get().map(|job| job.phases(self.received, now));
        of_host.unwrap_or_else(|| Phases {
            total: now.since(self.received),
            ..Phases::default()
        })
    }

    /// The id of the request whose call it shares.
    pub(in crate::http) fn joined(&self) -> Option<&Arc<str>> {
        self.subject.joined.as_ref()
    }

    /// As the pages show it.
    pub(in crate::http) fn view(&self, call: &SharedCall, now: Time) -> RequestView {
        let total = now.since(self.received);
        RequestView {
            request_id: Arc::clone(&self.subject.request),
            job: self.subject.job,
            owner: self.owner.clone(),
            priority: self.priority,
            provider: self.subject.provider.clone(),
            model: self.subject.model.clone(),
            call: None,
            phase: call.job().map_or(Phase::Queue, |job| job.phase()),
            whereabouts: None,
            age: total,
            left: self.deadline.since(now),
            phases: self.phases(now),
        }
    }

    fn record(&self, step: Step, at: Time, phases: Option<Phases>) {
        self.lifecycle.push([Event {
            seq: 0,
            at,
            step,
            subject: Arc::clone(&self.subject),
            thread: std::thread::current(),
            took: phases.map(|phases| phases.total),
            phases: phases.map(Box::new),
        }]);
    }
}
