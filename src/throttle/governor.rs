//! From readings to a level, and from the level to a limit: see the story of this folder.

use std::collections::VecDeque;
use std::time::Duration;

use super::readings::percent;
use super::{Change, Force, Level, Readings, Resource, Sample, Target, ThrottleView};
use crate::clock::Time;
use crate::config::Throttle;

/// Why a throttle does nothing that is not to.
const OFF: &str = "it is switched off (throttle.enabled)";

/// The throttle of one gateway.
#[derive(Debug)]
pub struct Governor {
    settings: Throttle,
    /// The global limit that is configured.
    global: usize,
    raw: Readings,
    smoothed: Readings,
    read_at: Option<Time>,
    /// By the readings.
    level: Level,
    /// Since when the level (or what is forced instead) holds, and why.
    since: Time,
    why: String,
    /// The readings stand above the level since then, and never stood lower than there meanwhile.
    rising: Option<(Time, Level)>,
    /// They stand below it since then.
    falling: Option<Time>,
    forced: Option<(Force, Time)>,
    /// Calls that may be in flight, as far as the load is concerned: `throttle.max` while there is none.
    limit: usize,
    /// When the limit last rose, or stood where it belongs.
    stood: Time,
    edition: u64,
    samples: VecDeque<Sample>,
    changes: VecDeque<Change>,
}

impl Governor {
    /// A throttle that holds nothing down yet.
    pub fn new(settings: Throttle, global: usize, now: Time) -> Self {
        Governor {
            limit: settings.max,
            why: if settings.enabled {
                "nothing was read yet".into()
            } else {
                OFF.into()
            },
            settings,
            global,
            raw: Readings::default(),
            smoothed: Readings::default(),
            read_at: None,
            level: Level::Low,
            since: now,
            rising: None,
            falling: None,
            forced: None,
            stood: now,
            edition: 0,
            samples: VecDeque::new(),
            changes: VecDeque::new(),
        }
    }

    /// Other settings are in force from now on. Bounds and shares count at once, thresholds and times from the next
    /// reading.
    pub fn configure(&mut self, settings: Throttle, global: usize, now: Time) -> Option<Change> {
        self.change(global, now, |governor| {
            let is_held = governor.limit < governor.settings.max;
            governor.settings = settings;
            governor.limit = match is_held {
                true => governor.bounded(governor.limit),
                false => governor.settings.max,
            };
        })
    }

    /// Takes what was read just now. `global` is the limit that is configured.
    pub fn sample(&mut self, raw: Readings, global: usize, now: Time) -> Option<Change> {
        let after = self.read_at.map_or(Duration::ZERO, |at| now.since(at));
        let smoothing = self.settings.smoothing;
        self.smoothed = self.smoothed.follow(&raw, after, smoothing);
        (self.raw, self.read_at) = (raw, Some(now));
        let change = self.change(global, now, |governor| {
            if governor.forced.is_some_and(|(_, until)| until <= now) {
                (governor.forced, governor.stood) = (None, now);
                governor.say("what was forced is over", now);
            }
            governor.judge(now);
        });
        let sample = Sample {
            at: now,
            raw,
            smoothed: self.smoothed,
            level: self.level(),
            limit: self.in_force(),
        };
        remember(&mut self.samples, sample, self.settings.history);
        change
    }

    /// Holds what somebody wants, instead of what the readings say, for so long but no longer than `throttle.force_max`;
    /// `None`: the readings decide again.
    pub fn force(
        &mut self,
        force: Option<(Force, Duration)>,
        global: usize,
        now: Time,
    ) -> Option<Change> {
        self.change(global, now, |governor| {
            let was_forced = governor.forced.take().is_some();
            governor.stood = now;
            if let Some((force, length)) = force {
                let length = length.min(governor.settings.force_max);
                governor.forced = Some((force, now + length));
                let what = match force {
                    Force::Limit(limit) => format!("limit {limit}"),
                    Force::Level(level) => format!("level {level}"),
                };
                let length = humantime::format_duration(length);
                governor.say(&format!("somebody forces {what} for {length}"), now);
            } else if was_forced {
                governor.say("what was forced is released", now);
            }
        })
    }

    /// What is to be admitted.
    pub fn target(&self) -> Target {
        Target {
            most: self.limit,
            refuses_low: self.refuses_low(),
            edition: self.edition,
        }
    }

    /// The level: what is forced, else what the readings say.
    pub fn level(&self) -> Level {
        match self.forced {
            Some((Force::Level(level), _)) => level,
            _ => self.level,
        }
    }

    /// The limits that can be forced.
    pub fn bounds(&self) -> (usize, usize) {
        (self.settings.min, self.settings.max)
    }

    /// The latest samples, the last one last.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.iter().copied().collect()
    }

    /// The throttle at this moment.
    pub fn view(&self, global: usize, now: Time) -> ThrottleView {
        let aged = |change: &Change| (change.clone(), now.since(change.at));
        ThrottleView {
            enabled: self.settings.enabled,
            level: self.level(),
            for_so_long: now.since(self.since),
            why: self.why.clone(),
            configured: global,
            limit: self.limit.min(global),
            bounds: self.bounds(),
            force_max: self.settings.force_max,
            refuses_low: self.refuses_low(),
            forced: self.forced.map(|(force, until)| (force, until.since(now))),
            raw: self.raw,
            smoothed: self.smoothed,
            rising: self.rising.map(|(since, level)| (level, now.since(since))),
            falling: self.falling.map(|since| now.since(since)),
            changes: self.changes.iter().map(aged).collect(),
        }
    }

    /// Does something, lets the limit follow, and says what changed.
    fn change(
        &mut self,
        global: usize,
        now: Time,
        what: impl FnOnce(&mut Governor),
    ) -> Option<Change> {
        let before = (self.level(), self.in_force(), self.target());
        // A limit that was configured anew is no change of ours.
        let limit = self.limit.min(global);
        self.global = global;
        what(self);
        self.follow(now);
        let after = self.target();
        if (after.most, after.refuses_low) != (before.2.most, before.2.refuses_low) {
            self.edition += 1;
        }
        let change = Change {
            at: now,
            level: (before.0, self.level()),
            limit: (limit, self.in_force()),
            why: self.why.clone(),
        };
        if change.level.0 == change.level.1 && change.limit.0 == change.limit.1 {
            return None;
        }
        remember(&mut self.changes, change.clone(), self.settings.history);
        Some(change)
    }

    /// Moves the level to where the readings stand, if they have stood there for long enough.
    fn judge(&mut self, now: Time) {
        if !self.settings.enabled {
            (self.rising, self.falling) = (None, None);
            if self.level != Level::Low {
                self.level = Level::Low;
                self.say_of_readings(OFF, now);
            }
            return;
        }
        let (reached, reason) = self.highest(0.0);
        let (holds, _) = self.highest(self.settings.margin);
        self.rising = (reached > self.level).then(|| {
            let (since, least) = self.rising.unwrap_or((now, reached));
            (since, least.min(reached))
        });
        if let Some((since, level)) = self.rising
            && now.since(since) >= self.settings.rise_after
        {
            (self.level, self.rising) = (level, None);
            self.say_of_readings(&reason, now);
        }
        self.falling = (holds < self.level).then(|| self.falling.unwrap_or(now));
        if let Some(since) = self.falling
            && now.since(since) >= self.settings.fall_after
        {
            // The next one has to be stood below for as long again.
            self.level = self.level.lower();
            self.falling = (holds < self.level).then_some(now);
            let why = format!("the load is falling: {}", self.smoothed);
            self.say_of_readings(&why, now);
        }
        if self.samples.is_empty() && self.forced.is_none() {
            self.why = self.smoothed.to_string();
        }
    }

    /// The highest level that any resource reaches, or would still hold if its thresholds were lower by the part `margin`; and
    /// why.
    fn highest(&self, margin: f64) -> (Level, String) {
        let mut highest = (Level::Low, String::new());
        for resource in Resource::ALL {
            let Some(reading) = self.smoothed.of(resource) else {
                continue;
            };
            let begins = resource.thresholds(&self.settings).ascending();
            let level = Level::of(reading, begins.map(|begin| begin * (1.0 - margin)));
            if level > highest.0 {
                let (name, begin) = (resource.name(), begins[level as usize - 1]);
                let (reading, begin) = (percent(reading), percent(begin));
                highest.0 = level;
                highest.1 = format!("{name} {reading}, from {begin} on (throttle.{name}.{level})");
            }
        }
        highest
    }

    /// Lowers the limit to where it belongs, or raises it by as much as is due.
    fn follow(&mut self, now: Time) {
        let belongs = match self.forced {
            Some((Force::Limit(limit), _)) => self.bounded(limit),
            _ => self.leaves(self.level()),
        };
        if belongs <= self.limit || self.forced.is_some() {
            (self.limit, self.stood) = (belongs, now);
            return;
        }
        let every = self.settings.raise_every.as_nanos().max(1);
        let due = now.since(self.stood).as_nanos() / every;
        let due = usize::try_from(due).unwrap_or(usize::MAX);
        if due > 0 {
            self.stood = now;
            self.limit = self.limit.saturating_add(due);
        }
        if self.limit >= belongs.min(self.global) {
            self.limit = belongs;
        }
    }

    /// What a level leaves.
    fn leaves(&self, level: Level) -> usize {
        let shares = &self.settings.share;
        let share = match level {
            Level::Low | Level::Normal => return self.settings.max,
            Level::High => shares.high,
            Level::Critical => shares.critical,
            Level::Emergency => shares.emergency,
        };
        // Floating point must not make 4.0000000001 of 4.
        self.bounded((self.global as f64 * share - 1e-9).ceil() as usize)
    }

    fn bounded(&self, limit: usize) -> usize {
        let (min, max) = self.bounds();
        limit.clamp(min, max.max(min))
    }

    fn in_force(&self) -> usize {
        self.limit.min(self.global)
    }

    fn refuses_low(&self) -> bool {
        self.settings.refuse_low && self.level() == Level::Emergency
    }

    /// What is forced was said last, and holds.
    fn say_of_readings(&mut self, why: &str, now: Time) {
        if self.forced.is_none() {
            self.say(why, now);
        }
    }

    fn say(&mut self, why: &str, now: Time) {
        (self.why, self.since) = (why.to_owned(), now);
    }
}

fn remember<T>(list: &mut VecDeque<T>, item: T, most: usize) {
    while list.len() >= most.max(1) {
        list.pop_front();
    }
    list.push_back(item);
}
