//! The steps of one request as spans of time.

use std::time::Duration;

use crate::clock::Time;
use crate::telemetry::{Event, Phases, Step, Subject};

/// One request.
#[derive(Debug)]
pub(super) struct Story<'a> {
    /// As it was known last.
    pub(super) subject: &'a Subject,
    pub(super) from: Time,
    /// Its end, or the present.
    pub(super) to: Time,
    pub(super) end: Option<Step>,
    /// Where its time went, once it has ended.
    pub(super) phases: Option<&'a Phases>,
    /// One after the other.
    pub(super) parts: Vec<Part<'a>>,
}

/// A span of a request's time.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pub(super) kind: Kind<'a>,
    pub(super) from: Time,
    pub(super) to: Time,
}

/// What a request does meanwhile.
#[derive(Debug)]
pub(super) enum Kind<'a> {
    Queue,
    BackOff,
    /// It shares another's call.
    Joined,
    Call(Call<'a>),
}

/// A call.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) subject: &'a Subject,
    /// The worker's.
    pub(super) thread: &'a str,
    pub(super) from: Time,
    pub(super) to: Time,
    /// Where its time went, once it is over.
    phases: Option<&'a Phases>,
}

impl Kind<'_> {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Kind::Queue => "queue",
            Kind::BackOff => "backoff",
            Kind::Joined => "joined",
            Kind::Call(_) => "call",
        }
    }
}

impl Call<'_> {
    /// When its connection stood.
    pub(super) fn connected(&self) -> Time {
        let connect = self.phases.map_or(Duration::ZERO, |phases| phases.connect);
        (self.from + connect).min(self.to)
    }

    /// What it spent its time on, one after the other, within `from` and `to`; nothing while it is under way.
    pub(super) fn phases(
        &self,
        from: Time,
        to: Time,
    ) -> impl Iterator<Item = (&'static str, Time, Time)> {
        let marks = self.phases.map(|phases| {
            let connected = (from + phases.connect).min(to);
            let first_byte = (connected + phases.first_byte).min(to);
            [
                ("connect", from, connected),
                ("first_byte", connected, first_byte),
                ("body", first_byte, to),
            ]
        });
        let marks = marks.into_iter().flatten();
        marks.filter(|(_, from, to)| from < to)
    }
}

impl<'a> Story<'a> {
    /// The story that these events of one job tell. Never of none.
    pub(super) fn of(mut events: Vec<&'a Event>, now: Time) -> Self {
        events.sort_by_key(|event| (event.seq, event.step, event.at));
        let (first, last) = (events[0], events[events.len() - 1]);
        let end = events.iter().rfind(|event| event.step.is_end());
        let mut story = Story {
            subject: &last.subject,
            from: first.at,
            to: end.map_or(now, |event| event.at).max(first.at),
            end: end.map(|event| event.step),
            phases: end.and_then(|event| event.phases.as_deref()),
            parts: Vec::new(),
        };
        let mut open: Option<Part<'a>> = None;
        for event in events {
            let begins = |kind| Part {
                kind,
                from: event.at,
                to: now,
            };
            let next = match event.step {
                Step::Received | Step::SessionAllocated | Step::SessionReleased => continue,
                Step::Queued | Step::Dequeued => match open {
                    Some(Part {
                        kind: Kind::Queue, ..
                    }) => continue,
                    _ => Some(begins(Kind::Queue)),
                },
                Step::Joined => Some(begins(Kind::Joined)),
                Step::BackingOff => Some(begins(Kind::BackOff)),
                Step::ProviderCallStart => Some(begins(Kind::Call(Call {
                    subject: &event.subject,
                    thread: event.thread.name().unwrap_or("unnamed"),
                    from: event.at,
                    to: now,
                    phases: None,
                }))),
                Step::ProviderCallEnd => None,
                Step::Completed | Step::Timeout | Step::Error | Step::Cancelled | Step::Refused => {
                    match open {
                        // Its worker is not back.
                        Some(Part {
                            kind: Kind::Call(_),
                            ..
                        }) => continue,
                        _ => None,
                    }
                }
            };
            story.close(std::mem::replace(&mut open, next), event);
        }
        story.parts.extend(open);
        story
    }

    /// A part that this event ends.
    fn close(&mut self, part: Option<Part<'a>>, event: &'a Event) {
        let Some(mut part) = part else { return };
        part.to = event.at.max(part.from);
        if let Kind::Call(call) = &mut part.kind {
            call.to = part.to;
            call.phases = event.phases.as_deref();
        }
        self.parts.push(part);
    }
}
