//! Time is handed in: this is the only file that reads it.
//!
//! Everything else works on [`Time`], a point on one process's monotonic clock, and on `Duration`s. A deadline
//! is a [`Time`] and is passed down; a timeout is a `Duration` and lives in the configuration. Wall time is for
//! people (log lines, `created` fields) and never decides anything.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// A point in time: nanoseconds since the clock that gave it was made.
///
/// Arithmetic saturates, so that no configuration and no hostile header can make a deadline wrap around.
///
/// ```
/// use pointsman::clock::Time;
/// use std::time::Duration;
///
/// let start = Time::ZERO + Duration::from_secs(3);
/// assert_eq!(start.since(Time::ZERO), Duration::from_secs(3));
/// assert_eq!(Time::ZERO.since(start), Duration::ZERO);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// When the clock was made.
    pub const ZERO: Time = Time(0);
    /// Later than everything: the deadline of what has none.
    pub const NEVER: Time = Time(u64::MAX);

    /// The point `nanos` nanoseconds after the clock was made.
    pub const fn from_nanos(nanos: u64) -> Self {
        Time(nanos)
    }

    /// Nanoseconds since the clock was made.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// How long from `now` until this; zero if it has passed.
    pub const fn until(self, now: Time) -> Duration {
        self.since(now)
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, length: Duration) -> Time {
        let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;
    fn sub(self, length: Duration) -> Time {
        let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Time(self.0.saturating_sub(nanos))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Time::NEVER => f.write_str("never"),
            Time(nanos) => write!(f, "+{:?}", Duration::from_nanos(nanos)),
        }
    }
}

/// Where the time comes from. The real one is [`SystemClock`]; tests hand in a [`ManualClock`].
pub trait Clock: fmt::Debug + Send + Sync {
    /// The present, which never goes back.
    fn now(&self) -> Time;

    /// What the clock on the wall says, for people.
    fn wall(&self) -> SystemTime;

    /// Whole seconds since 1970, as the `created` fields of the OpenAI wire have it.
    fn unix_seconds(&self) -> u64 {
        self.wall()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs())
    }
}

/// The clock on the wall, as it stood at one moment: for the wall time of other moments. All that is told of one answer
/// is told by one of these, so that a wall clock that is set meanwhile tears nothing apart.
#[derive(Debug, Clone, Copy)]
pub struct Calendar {
    now: Time,
    wall: SystemTime,
}

impl Calendar {
    /// As `clock` has it now.
    pub fn of(clock: &dyn Clock) -> Self {
        Calendar {
            now: clock.now(),
            wall: clock.wall(),
        }
    }

    /// What the clock on the wall said at `at`, or will say, as far as is known now.
    ///
    /// ```
    /// use pointsman::clock::{Calendar, Clock, ManualClock, Time};
    /// use std::time::{Duration, SystemTime};
    ///
    /// let clock = ManualClock::new();
    /// clock.advance(Duration::from_secs(9));
    /// let second = Time::ZERO + Duration::from_secs(2);
    /// assert_eq!(Calendar::of(&clock).at(second), SystemTime::UNIX_EPOCH + Duration::from_secs(2));
    /// ```
    pub fn at(&self, at: Time) -> SystemTime {
        let moment = match at < self.now {
            true => self.wall.checked_sub(self.now.since(at)),
            false => self.wall.checked_add(at.since(self.now)),
        };
        moment.unwrap_or(self.wall)
    }
}

/// A clock that several parts share.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock that starts now.
    #[expect(
        clippy::new_without_default,
        reason = "two clocks made at different moments are not equal"
    )]
    pub fn new() -> Self {
        SystemClock {
            start: Instant::now(),
        }
    }

    /// The same as [`SystemClock::new`], ready to be shared.
    pub fn shared() -> SharedClock {
        Arc::new(SystemClock::new())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that stands still until it is told to move.
///
/// ```
/// use pointsman::clock::{Clock, ManualClock, Time};
/// use std::time::Duration;
///
/// let clock = ManualClock::new();
/// clock.advance(Duration::from_secs(5));
/// assert_eq!(clock.now(), Time::ZERO + Duration::from_secs(5));
/// ```
#[derive(Debug, Default)]
pub struct ManualClock {
    nanos: AtomicU64,
}

impl ManualClock {
    /// A clock at [`Time::ZERO`].
    pub fn new() -> Self {
        ManualClock::default()
    }

    /// Moves the clock on.
    pub fn advance(&self, length: Duration) {
        let next = self.now() + length;
        self.nanos.store(next.as_nanos(), Ordering::Release);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        Time(self.nanos.load(Ordering::Acquire))
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.now().as_nanos())
    }
}
