//! How urgent a job is.

use super::word::{Word, written_as_word};

/// How urgent a job is. The order of the variants is the order of urgency.
///
/// ```
/// use pointsman::config::Priority;
///
/// assert_eq!("high".parse(), Ok(Priority::High));
/// assert_eq!("3".parse(), Ok(Priority::Low));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Somebody waits for it (1).
    High,
    /// Background work (2).
    #[default]
    Medium,
    /// Maintenance (3).
    Low,
}

impl Priority {
    /// All, most urgent first.
    pub const ALL: [Priority; 3] = [Priority::High, Priority::Medium, Priority::Low];

    /// 0 for the most urgent.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl Word for Priority {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("high", Priority::High),
        ("medium", Priority::Medium),
        ("low", Priority::Low),
        ("1", Priority::High),
        ("2", Priority::Medium),
        ("3", Priority::Low),
    ];
}

written_as_word!(Priority);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_name_the_same_priorities() {
        for (word, number, priority) in [
            ("high", "1", Priority::High),
            ("medium", "2", Priority::Medium),
            ("low", "3", Priority::Low),
        ] {
            assert_eq!(word.parse(), Ok(priority));
            assert_eq!(number.parse(), Ok(priority));
            assert_eq!(word.to_uppercase().parse(), Ok(priority));
            assert_eq!(priority.to_string(), word);
        }
    }

    #[test]
    fn an_unknown_priority_says_what_is_accepted() {
        let error = "urgent".parse::<Priority>().expect_err("no priority");
        assert_eq!(
            error.to_string(),
            "found \"urgent\", accepted is high | medium | low | 1 | 2 | 3"
        );
    }
}
