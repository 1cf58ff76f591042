//! The operation routes about single requests: who waits, and for whom; the story of one request; its end.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::error::ApiError;
use super::status::seconds;
use super::{Api, Visit};
use crate::cancel::CancelReason;
use crate::clock::{Calendar, Time};
use crate::engine::{Obstacle, Owner, Phase, RequestView, Slots, Whereabouts};
use crate::telemetry::{Event, Figure, PhaseQuantiles};

/// Requests that are named as holders of slots; the others are counted.
const NAMED: usize = 16;

impl Api {
    /// `GET /api/requests`: the caller's requests that have not ended, oldest first, and how long requests took lately.
    pub(super) fn requests(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let active = self.active(visit, |_| true);
        let mut body = json!({ "active": null, "lately": self.lately() });
        // A macro would copy what it is given: here thousands of rows with the names of those that they wait for.
        body["active"] = active.into_iter().map(Active::into_json).collect();
        visit.json(200, &body)
    }

    /// How long requests took lately.
    pub(super) fn lately(&self) -> Value {
        let phases = self.lifecycle.phases(self.clock.now());
        let phases = phases
            .iter()
            .map(|one| (one.phase.to_owned(), quantiles(one)));
        json!({
            "window_s": seconds(self.window),
            "phases": Value::Object(phases.collect()),
        })
    }

    /// `GET /api/requests/{id}`: the story of one of the caller's requests, as far as it is remembered. Clients choose ids:
    /// one of another key may have the same, and is not shown; of several of the caller's the latest is told, and the
    /// others are under `earlier`.
    pub(super) fn request(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let id = visit.rest();
        // First: what was decided of an active request is on record once it is listed.
        let mut active = self.active(visit, |view| *view.request_id == *id);
        let calendar = Calendar::of(&*self.clock);
        let now = self.clock.now();
        let mut events = self.lifecycle.of_request(id, now);
        events.retain(|event| visit.caller.may_see(event.subject.key.as_deref()));
        let story = |events: &[Event]| {
            let job = events.first().map(|event| event.subject.job);
            let place = active
                .iter()
                .position(|active| Some(active.view.job) == job);
            let active = place.map(|place| active.swap_remove(place));
            story(id, events, active, &calendar, now)
        };
        let mut stories: Vec<Value> = events
            .chunk_by(|one, next| one.subject.job == next.subject.job)
            .map(story)
            .collect();
        let Some(mut latest) = stories.pop() else {
            return Err(ApiError::not_found(format!(
                "no request {id:?} is remembered"
            )));
        };
        latest["earlier"] = Value::Array(stories);
        visit.json(200, &latest)
    }

    /// `DELETE /api/requests/{id}`: ends the caller's requests of this id, in line or in their calls, with all who share
    /// these; and those who share another's, which goes on while somebody waits for it.
    pub(super) fn cancel(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let meant = |owner: &Owner| visit.caller.owns(owner);
        let (id, reason) = (visit.rest(), CancelReason::Requested);
        let count = self.engine.cancel(id, meant, reason) + self.resends.cancel(id, meant, reason);
        if count == 0 {
            return Err(ApiError::not_found(format!(
                "no request {:?} is active",
                visit.rest()
            )));
        }
        visit.json(
            200,
            &json!({ "request_id": visit.rest(), "cancelled": count }),
        )
    }

    /// The requests that have not ended and that the caller may see; what they wait for, for those that are `meant`.
    fn active(&self, visit: &Visit<'_>, meant: impl Fn(&RequestView) -> bool) -> Vec<Active> {
        let jobs = self.jobs(visit);
        let holders = Holders::among(&jobs);
        let waits = |view| match meant(view) {
            true => holders.waits(view),
            false => Value::Null,
        };
        let waits: Vec<Value> = jobs.iter().map(waits).collect();
        drop(holders);
        self.active_among(visit, jobs.into_iter().zip(waits))
    }

    /// The same without a word on what they wait for, which is long where many wait.
    pub(super) fn active_in_brief(&self, visit: &Visit<'_>) -> Vec<Active> {
        let jobs = self.jobs(visit).into_iter();
        self.active_among(visit, jobs.map(|view| (view, Value::Null)))
    }

    fn jobs(&self, visit: &Visit<'_>) -> Vec<RequestView> {
        let mut jobs = self.engine.requests();
        jobs.retain(|view| visit.caller.owns(&view.owner));
        jobs
    }

    /// These jobs, each with what it waits for, and those who share their calls.
    fn active_among(
        &self,
        visit: &Visit<'_>,
        jobs: impl Iterator<Item = (RequestView, Value)>,
    ) -> Vec<Active> {
        let attendance = self.resends.attendance();
        let of_job = |(view, waits): (RequestView, Value)| Active {
            clients: attendance.get(&view.job).copied(),
            joined: None,
            view,
            waits,
        };
        let mut active: Vec<Active> = jobs.map(of_job).collect();
        let now = self.clock.now();
        let joiners = self.resends.joiners();
        active.extend(joiners.iter().filter_map(|(call, ear)| {
            let guest = ear.guest()?;
            visit.caller.owns(&guest.owner).then(|| Active {
                view: guest.view(call, now),
                joined: guest.joined().cloned(),
                clients: None,
                waits: Value::Null,
            })
        }));
        active.sort_by_key(|active| std::cmp::Reverse(active.view.age));
        active
    }
}

/// The story of one request: its steps, when and for how long, and where its time went.
fn story(
    id: &str,
    events: &[Event],
    active: Option<Active>,
    calendar: &Calendar,
    now: Time,
) -> Value {
    let received = events.first().map_or(now, |event| event.at);
    let steps: Vec<Value> = events
        .iter()
        .map(|event| step(event, received, calendar, now))
        .collect();
    let end = events.iter().rfind(|event| event.step.is_end());
    let phases = end
        .and_then(|event| event.phases.as_deref().copied())
        .or(active.as_ref().map(|active| active.view.phases));
    json!({
        "request_id": id,
        "received_at": time(calendar, received),
        "ended": end.map(|event| event.step.name()),
        "phases": phases,
        "steps": steps,
        "active": active.map(Active::into_json),
    })
}

fn step(event: &Event, received: Time, calendar: &Calendar, now: Time) -> Value {
    let figure = |length: Duration| Figure::of(length).seconds();
    let mut step = json!({
        "seq": event.seq,
        "step": event.step.name(),
        "at": time(calendar, event.at),
        "offset_s": figure(event.at.since(received)),
        "ago_s": figure(now.since(event.at)),
        "took_s": event.took.map(figure),
        "thread": event.thread.name(),
        "key": event.subject.key.as_deref(),
        "session": event.subject.session.as_deref(),
        "provider": event.subject.provider.as_deref(),
        "model": event.subject.model.as_deref(),
        "joined": event.subject.joined.as_deref(),
    });
    if let Some(call) = event.phases.as_ref().filter(|_| !event.step.is_end()) {
        step["connect_s"] = json!(figure(call.connect));
        step["first_byte_s"] = json!(figure(call.first_byte));
    }
    step
}

/// A moment as people and programs read it: RFC 3339, in UTC.
pub(super) fn time(calendar: &Calendar, at: Time) -> String {
    humantime::format_rfc3339_micros(calendar.at(at)).to_string()
}

fn quantiles(one: &PhaseQuantiles) -> Value {
    let figure = |length: Duration| Figure::of(length).seconds();
    json!({
        "count": one.count,
        "p50_s": figure(one.p50),
        "p95_s": figure(one.p95),
        "p99_s": figure(one.p99),
        "max_s": figure(one.max),
    })
}

/// Who of the caller's own requests holds which slots. Others' are only counted, by what is in use in all.
struct Holders<'a> {
    all: Vec<&'a str>,
    by_provider: HashMap<Option<&'a str>, Vec<&'a str>>,
    by_owner: HashMap<&'a Owner, Vec<&'a str>>,
    /// With a named session.
    in_sessions: Vec<&'a str>,
    /// Of them, how many sessions.
    sessions: HashSet<&'a Owner>,
}

impl<'a> Holders<'a> {
    fn among(views: &'a [RequestView]) -> Self {
        let mut holders = Holders {
            all: Vec::new(),
            by_provider: HashMap::new(),
            by_owner: HashMap::new(),
            in_sessions: Vec::new(),
            sessions: HashSet::new(),
        };
        // Whoever is nowhere else has started.
        for view in views.iter().filter(|view| view.whereabouts.is_none()) {
            let (id, provider) = (&*view.request_id, view.provider.as_deref());
            holders.all.push(id);
            holders.by_provider.entry(provider).or_default().push(id);
            if view.owner.session().is_some() {
                holders.by_owner.entry(&view.owner).or_default().push(id);
                holders.in_sessions.push(id);
                holders.sessions.insert(&view.owner);
            }
        }
        holders
    }

    /// What a request waits for; null for one that does not wait.
    fn waits(&self, view: &RequestView) -> Value {
        let (position, expected, obstacle) = match view.whereabouts {
            None => return Value::Null,
            Some(Whereabouts::BackingOff(left)) => {
                return json!({ "for": "backoff", "left_s": seconds(left) });
            }
            Some(Whereabouts::InLine {
                position,
                expected,
                obstacle,
            }) => (position, expected, obstacle),
        };
        let mut waits = match obstacle {
            Obstacle::Full {
                slots,
                in_use,
                limit,
                throttled,
            } => {
                let mut waits = self.full(view, slots, in_use, limit);
                if let Some(throttled) = throttled {
                    waits["throttled_from"] = json!(throttled.of);
                }
                waits
            }
            Obstacle::Shut(left, why) => {
                json!({ "for": "shut", "left_s": seconds(left), "reason": why.to_string() })
            }
            Obstacle::Probing => json!({ "for": "probe" }),
            Obstacle::Turn => json!({ "for": "turn" }),
        };
        waits["position"] = json!(position);
        waits["expected_s"] = json!(expected.map(seconds));
        waits
    }

    fn full(&self, view: &RequestView, slots: Slots, in_use: usize, limit: usize) -> Value {
        let of_provider = self.by_provider.get(&view.provider.as_deref());
        let none = Vec::new();
        let (kind, holders) = match slots {
            Slots::Session => ("session", self.by_owner.get(&view.owner).unwrap_or(&none)),
            Slots::Sessions => ("sessions", &self.in_sessions),
            Slots::Provider | Slots::Learned => ("provider", of_provider.unwrap_or(&none)),
            Slots::Shared => ("shared", of_provider.unwrap_or(&none)),
            Slots::Global => ("global", &self.all),
        };
        let named = &holders[..holders.len().min(NAMED)];
        let own = match slots {
            // Counted are sessions, not their calls.
            Slots::Sessions => self.sessions.len(),
            Slots::Session | Slots::Provider | Slots::Learned | Slots::Shared | Slots::Global => {
                named.len()
            }
        };
        json!({
            "for": kind,
            "in_use": in_use,
            "limit": limit,
            "holders": named,
            "others": in_use.saturating_sub(own),
        })
    }
}

/// A request that has not ended.
pub(super) struct Active {
    pub(super) view: RequestView,
    /// The request whose call it shares.
    joined: Option<Arc<str>>,
    /// How many clients wait for a call that can be joined.
    clients: Option<usize>,
    /// What it waits for.
    waits: Value,
}

impl Active {
    /// Whether it shares the call of another request.
    pub(super) fn has_joined(&self) -> bool {
        self.joined.is_some()
    }

    /// Whether it holds nothing: in line, or before its next try.
    pub(super) fn is_waiting(&self) -> bool {
        match self.view.phase {
            Phase::Queue | Phase::BackOff => true,
            Phase::Connect | Phase::FirstByte | Phase::Body => false,
        }
    }

    fn into_json(self) -> Value {
        let mut row = self.brief();
        row["waits"] = self.waits;
        row
    }

    /// Without a word on what it waits for.
    pub(super) fn brief(&self) -> Value {
        let view = &self.view;
        let state = match (&self.joined, view.phase) {
            (Some(_), _) => "JOINED",
            (None, Phase::Queue) => "IDLE",
            (None, Phase::BackOff) => "RETRYING",
            (None, Phase::Connect | Phase::FirstByte | Phase::Body) => "PROCESSING",
        };
        json!({
            "request_id": &*view.request_id,
            "key": view.owner.key().map(|key| &**key),
            "session_id": view.owner.session().map(|name| &**name),
            "priority": view.priority.to_string(),
            "provider": view.provider.as_deref(),
            "model": view.model.as_deref(),
            "state": state,
            "joined": self.joined.as_deref(),
            "clients": self.clients,
            "phase": view.phase.to_string(),
            "waits": null,
            "attempt": view.call.as_ref().map_or(0, |call| call.attempt),
            "age_s": seconds(view.age),
            "deadline_in_s": seconds(view.left),
            "phases": view.phases,
        })
    }
}
