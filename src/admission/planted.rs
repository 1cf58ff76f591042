//! Faults planted on purpose, to see whether the simulator finds them.
//!
//! A simulator that finds nothing says nothing until it is known what it would find. So each rule that a slip of the hand
//! could break has its slip here, at the spot where it would be made, and a test plays seeds until it is found. Outside of
//! tests no fault can be planted: [`Planted`] is empty there, and [`Planted::is`] is always `false`.

/// A slip of the hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(test),
    expect(dead_code, unreachable_pub, reason = "tests alone plant them")
)]
pub enum Fault {
    /// A permit of an earlier generation frees the slot of whoever has it now.
    StaleReturnFrees,
    /// The slot of an interrupted call never comes back.
    InterruptedLeaks,
    /// The watchdog takes the slots of those who live, for their age.
    ReclaimsTheLiving,
    /// A slot that was reclaimed is of the same generation as before.
    ReclaimKeepsGeneration,
    /// An interrupted job may make its call.
    EndedJobBegins,
    /// Who waits for a full provider keeps a global slot meanwhile.
    GlobalSlotFirst,
    /// Who backs off keeps its slot meanwhile.
    BackOffKeepsSlot,
    /// A provider that was taken out is called.
    GoneIsCalled,
    /// Calls to what a target was before teach what it is now.
    OldCallsTeach,
    /// Nobody is started when limits have changed.
    LimitsWakeNobody,
    /// What the load of the box leaves of the global limit is computed, and nothing is held to it.
    ThrottleNotApplied,
    /// New limits are taken for the end of the box's load.
    LimitsLiftThrottle,
    /// Nobody is started when the throttle lets go.
    ThrottleWakesNobody,
    /// A job starts although its time is over.
    ExpiredStarts,
    /// Each refusal of a crowd cuts the limit.
    EachRefusalCuts,
    /// A limit that was cut to a single call stays there.
    GrowthSticksAtOne,
    /// The learned limit is computed, and nothing is held to it.
    LimitNotApplied,
    /// What a target asked for is remembered, and nothing is held to it.
    GateIgnored,
    /// Half-open, the breaker lets everybody through.
    EverybodyProbes,
    /// A probe that never answers is waited for without end.
    ProbeWithoutLease,
    /// Calls from before the breaker last changed are judged as if they were of now.
    OldCallsJudged,
    /// A call is tried again though content went to the client.
    RetryAfterContent,
    /// Repetitions cost nothing.
    BudgetNotSpent,
    /// Running calls are charged when they end, and not before.
    BilledAtEnd,
    /// The highest class goes first, always.
    StrictPriority,
}

/// Which fault is planted, if any.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Planted(#[cfg(test)] Option<Fault>);

impl Planted {
    /// Whether it is this one.
    #[cfg(test)]
    pub(super) fn is(self, fault: Fault) -> bool {
        self.0 == Some(fault)
    }

    /// Whether it is this one: never, outside of tests.
    #[cfg(not(test))]
    #[inline(always)]
    pub(super) const fn is(self, _: Fault) -> bool {
        false
    }
}

#[cfg(test)]
impl super::Core {
    /// Makes the books disagree with the ledger.
    pub(crate) fn spoil(&mut self) {
        self.books.spoil();
    }

    /// Plants a fault, before anything has happened.
    pub fn plant(&mut self, fault: Fault) {
        let planted = Planted(Some(fault));
        self.planted = planted;
        self.books.planted = planted;
        for target in &mut self.targets {
            target.plant(planted);
        }
        if planted.is(Fault::StrictPriority) {
            self.settings.queue.weights = [1_000_000, 1_000, 1];
        }
    }
}

impl super::Core {
    /// Slots that are kept by those who don't run.
    pub(super) fn kept_in_vain(&self) -> usize {
        if self.planted.is(Fault::BackOffKeepsSlot) {
            return self.onward.backing();
        }
        if !self.planted.is(Fault::GlobalSlotFirst) {
            return 0;
        }
        let providers = self.settings.providers.iter().enumerate();
        let full = providers.filter(|(index, provider)| {
            self.books.in_use_at(super::ProviderId(*index as u32)) >= provider.limit
        });
        full.map(|(index, _)| self.waiting.by_provider[index]).sum()
    }
}
