//! Trace events, as the JSON of the Chrome trace format has them.

use std::time::Duration;

use serde::Serialize;

use super::spans::Story;
use crate::clock::Time;
use crate::telemetry::{Phases, Step, Subject};

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Lane {
    pub(super) pid: u32,
    pub(super) tid: u32,
}

/// One event. Times are in microseconds, with three digits after the point.
#[derive(Debug, Serialize)]
pub(super) struct TraceEvent<'a> {
    /// `M` names a lane, `X` is a span, `b` and `e` begin and end an asynchronous one, `s`, `t` and `f` are a flow.
    pub(super) ph: char,
    pub(super) name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) cat: &'static str,
    #[serde(skip)]
    pub(super) at: Time,
    pub(super) ts: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dur: Option<f64>,
    #[serde(flatten)]
    pub(super) lane: Lane,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<u64>,
    /// A flow ends at the span that is there, not at the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bp: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) args: Option<Args<'a>>,
}

/// What is said of an event.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Args<'a> {
    /// What a lane is called.
    Name { name: String },
    /// Whose span it is.
    Subject {
        request_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        provider: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<&'a str>,
    },
    /// A whole request.
    Request {
        request_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        provider: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        joined: Option<&'a str>,
        /// How it ended, if it has.
        ended: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        phases: Option<&'a Phases>,
    },
}

impl<'a> Args<'a> {
    pub(super) fn of_subject(subject: &'a Subject) -> Option<Self> {
        Some(Args::Subject {
            request_id: &subject.request,
            session: subject.session.as_deref(),
            provider: subject.provider.as_deref(),
            model: subject.model.as_deref(),
        })
    }

    pub(super) fn of_story(story: &Story<'a>) -> Self {
        let subject = story.subject;
        Args::Request {
            request_id: &subject.request,
            key: subject.key.as_deref(),
            session: subject.session.as_deref(),
            provider: subject.provider.as_deref(),
            model: subject.model.as_deref(),
            joined: subject.joined.as_deref(),
            ended: story.end.map(Step::name),
            phases: story.phases,
        }
    }
}

impl<'a> TraceEvent<'a> {
    pub(super) fn new(ph: char, name: &'a str, at: Time, lane: Lane) -> Self {
        TraceEvent {
            ph,
            name,
            cat: "",
            at,
            ts: micros(at.since(Time::ZERO)),
            dur: None,
            lane,
            id: None,
            bp: None,
            args: None,
        }
    }

    /// Says what a lane, or a process, is called.
    pub(super) fn named(what: &'a str, name: String, lane: Lane) -> Self {
        TraceEvent {
            args: Some(Args::Name { name }),
            ..TraceEvent::new('M', what, Time::ZERO, lane)
        }
    }
}

/// Microseconds, with what is below them after the point.
pub(super) fn micros(length: Duration) -> f64 {
    length.as_nanos() as f64 / 1000.0
}
