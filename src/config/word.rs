//! Enums that are written as words, in files, headers and on the command line.
//!
//! Case does not matter on the way in; the way out is always the first spelling of a value.

use std::fmt;

use super::error::NotAccepted;

/// An enum whose values are written as words.
pub(super) trait Word: Copy + PartialEq + 'static {
    /// Each accepted word with its value; a value's first word is how it is shown.
    const WORDS: &'static [(&'static str, Self)];
}

/// The value that `text` stands for.
pub(super) fn parse<W: Word>(text: &str) -> Result<W, NotAccepted> {
    let text = text.trim();
    let found = W::WORDS
        .iter()
        .find(|(word, _)| word.eq_ignore_ascii_case(text));
    found.map(|(_, value)| *value).ok_or_else(|| NotAccepted {
        found: text.to_owned(),
        accepted: accepted::<W>(),
    })
}

/// Writes the word of `value`.
pub(super) fn show<W: Word>(value: W, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let word = W::WORDS.iter().find(|(_, known)| *known == value);
    f.pad(word.expect("every value has a word").0)
}

fn accepted<W: Word>() -> String {
    let words: Vec<&str> = W::WORDS.iter().map(|(word, _)| *word).collect();
    words.join(" | ")
}

/// Ties a [`Word`] to the standard traits that clients of the type use.
macro_rules! written_as_word {
    ($type:ty) => {
        impl std::str::FromStr for $type {
            type Err = $crate::config::NotAccepted;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $crate::config::word::parse(text)
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::config::word::show(*self, f)
            }
        }
    };
}

pub(super) use written_as_word;
