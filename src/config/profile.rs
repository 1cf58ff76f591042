//! Sets of defaults.

use super::word::{Word, written_as_word};

/// A set of defaults.
///
/// ```
/// use pointsman::config::Profile;
///
/// assert_eq!("prod".parse(), Ok(Profile::Prod));
/// assert_eq!(Profile::Prod.to_string(), "prod");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Profile {
    /// One developer's box.
    #[default]
    Dev,
    /// Several agents at once, before an audience.
    Demo,
    /// A shared box.
    Prod,
    /// A free port and nothing that leaves this box: the defaults of `Dev`, but only the embedded provider and those
    /// at a loopback address are on.
    Test,
}

impl Profile {
    /// All of them.
    pub const ALL: [Profile; 4] = [Profile::Dev, Profile::Demo, Profile::Prod, Profile::Test];
}

impl Word for Profile {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("dev", Profile::Dev),
        ("demo", Profile::Demo),
        ("prod", Profile::Prod),
        ("test", Profile::Test),
    ];
}

written_as_word!(Profile);

/// A default that depends on the profile.
#[derive(Debug, Clone, Copy)]
pub(super) struct PerProfile<T> {
    /// Of [`Profile::Dev`], and of [`Profile::Test`].
    pub(super) dev: T,
    /// Of [`Profile::Demo`].
    pub(super) demo: T,
    /// Of [`Profile::Prod`].
    pub(super) prod: T,
}

impl<T> PerProfile<T> {
    pub(super) fn of(self, profile: Profile) -> T {
        match profile {
            Profile::Dev | Profile::Test => self.dev,
            Profile::Demo => self.demo,
            Profile::Prod => self.prod,
        }
    }
}
