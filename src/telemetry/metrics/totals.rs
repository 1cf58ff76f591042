//! What was counted so far, in sum: what alerts go by.

use std::sync::Arc;

use prometheus::IntCounter;

use super::handles::Handles;
use super::words::{CODES, OUTCOMES, Recovery, Rejection, SemaphoreType, TimeUp};
use crate::config::Priority;

/// What was counted since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests that ended, refused ones included.
    pub ended: u64,
    /// Of these, those that failed.
    pub errors: u64,
    /// Of these, those whose time was over.
    pub timeouts: u64,
    /// Requests that were turned away because there was no room for them.
    pub refused: u64,
    /// Requests whose call was cut by a timeout of ours.
    pub cut: u64,
    /// Chat calls that are over.
    pub calls: u64,
    /// Of these, those that were made again.
    pub retries: u64,
    /// Slots whose holder was gone.
    pub leaks: u64,
    /// Repairs of that.
    pub recoveries: u64,
    /// Answers of providers that are errors, where there were any: the provider, the code and how many.
    pub codes: Vec<(Arc<str>, &'static str, u64)>,
}

impl Totals {
    pub(super) fn of(handles: &Handles) -> Totals {
        let names = &handles.names;
        // Every slot is one of the global semaphore's, whose else it may be.
        let global = SemaphoreType::Global.index();
        let repairs = Recovery::ALL.iter();
        let repairs = repairs.filter_map(|end| handles.slots.recoveries.at([global, end.index()]));
        let mut totals = Totals {
            calls: sum(handles.requests.upstream.iter()),
            retries: sum(handles.requests.retries.iter()),
            leaks: sum(handles.slots.leaks.at([global]).into_iter()),
            recoveries: sum(repairs),
            ended: sum(handles.requests.ended.iter()),
            ..Totals::default()
        };
        let outcome = |word: &str| {
            let place = OUTCOMES.iter().position(|known| *known == word);
            let at = move |class, provider| Some([class, provider, place?]);
            let all = (0..Priority::ALL.len())
                .flat_map(|class| (0..names.len()).map(move |provider| (class, provider)));
            let found =
                all.filter_map(|(class, provider)| handles.requests.ended.at(at(class, provider)?));
            sum(found)
        };
        totals.errors = outcome("error");
        totals.timeouts = outcome("timeout");
        totals.refused = no_room(handles);
        totals.cut = cut(handles);
        for (provider, name) in names.iter().enumerate() {
            for (place, code) in CODES.iter().enumerate().filter(|(_, code)| **code != "200") {
                let counter = handles.requests.upstream.at([provider, place]);
                let count = counter.map_or(0, IntCounter::get);
                if count > 0 {
                    totals.codes.push((Arc::clone(name), code, count));
                }
            }
        }
        totals
    }
}

fn sum<'a>(counters: impl Iterator<Item = &'a IntCounter>) -> u64 {
    counters.map(IntCounter::get).sum()
}

/// What the caller did wrong, and a gateway that stops, are no want of room.
fn no_room(handles: &Handles) -> u64 {
    let counts = Rejection::ALL.iter().filter(|why| match why {
        Rejection::QueueFull
        | Rejection::SessionQueueFull
        | Rejection::QueueBytes
        | Rejection::ProviderQueueFull
        | Rejection::WaitTooLong
        | Rejection::Displaced
        | Rejection::ProviderShut
        | Rejection::WorkersLost
        | Rejection::BoxLoaded
        | Rejection::Door => true,
        Rejection::Stopping
        | Rejection::NoKey
        | Rejection::NotAllowed
        | Rejection::Malformed
        | Rejection::NoModel => false,
    });
    let classes = 0..=Priority::ALL.len();
    let at = |(class, why): (usize, &Rejection)| handles.requests.rejected.at([class, why.index()]);
    let all = counts.flat_map(|why| classes.clone().map(move |class| (class, why)));
    sum(all.filter_map(at))
}

/// Waits in line are no calls.
fn cut(handles: &Handles) -> u64 {
    let calls = TimeUp::ALL.iter().filter(|which| match which {
        TimeUp::Connect
        | TimeUp::FirstByte
        | TimeUp::Body
        | TimeUp::ConnectTimeout
        | TimeUp::FirstByteTimeout
        | TimeUp::IdleTimeout => true,
        TimeUp::QueueTimeout | TimeUp::Queue | TimeUp::BackOff => false,
    });
    sum(calls.filter_map(|which| handles.requests.time_up.at([which.index()])))
}
