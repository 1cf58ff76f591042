//! Values as they were written, and what they can be read as.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::Place;

/// A value and where it was said.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// Keys and their values.
pub(super) type Table = BTreeMap<String, Node>;

/// A value as it was written.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// From the environment or the command line: not yet known to be a number, a flag or a string.
    Untyped(String),
    String(String),
    Integer(i128),
    Float(f64),
    Boolean(bool),
    /// A date or time of day: no knob takes one.
    Date,
    Array(Vec<Node>),
    Table(Table),
}

impl Value {
    /// For people: what was found. Tables and lists are named, not shown.
    pub(super) fn describe(&self) -> String {
        match self {
            Value::Untyped(text) | Value::String(text) => {
                let shown: String = text.chars().take(80).collect();
                format!("{shown:?}")
            }
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => format!("{number:?}"),
            Value::Boolean(flag) => flag.to_string(),
            Value::Date | Value::Array(_) | Value::Table(_) => self.kind().to_owned(),
        }
    }

    /// For people: what sort of thing was found, without the thing.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Untyped(_) | Value::String(_) => "a string",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::Boolean(_) => "a flag",
            Value::Date => "a date",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Value::Untyped(text) | Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_whole(&self) -> Option<i128> {
        match self {
            Value::Integer(number) => Some(*number),
            Value::Untyped(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    pub(super) fn as_fraction(&self) -> Option<f64> {
        match self {
            Value::Integer(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            Value::Untyped(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    pub(super) fn as_flag(&self) -> Option<bool> {
        match self {
            Value::Boolean(flag) => Some(*flag),
            Value::Untyped(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// A text with its unit. A bare number is refused even from the environment: nobody could say of what.
    pub(super) fn as_duration(&self) -> Option<Duration> {
        let text = self.as_text()?.trim();
        humantime::parse_duration(text).ok()
    }

    /// A text with its unit, or a number of bytes.
    pub(super) fn as_size(&self) -> Option<usize> {
        match self {
            Value::Integer(number) => usize::try_from(*number).ok(),
            _ => parse_size(self.as_text()?),
        }
    }

    /// A list of strings; from the environment also words with commas between them.
    pub(super) fn as_words(&self) -> Option<Vec<String>> {
        match self {
            Value::Array(items) => items.iter().map(|item| word(&item.value)).collect(),
            Value::Untyped(text) => Some(split_words(text)),
            _ => None,
        }
    }
}

fn word(value: &Value) -> Option<String> {
    value.as_text().map(str::to_owned)
}

fn split_words(text: &str) -> Vec<String> {
    let words = text.split(',').map(str::trim);
    words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Largest first, so that a size is shown in the largest unit that divides it.
const UNITS: [(&str, usize); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

fn parse_size(text: &str) -> Option<usize> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" => 1,
        unit => {
            UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))?
                .1
        }
    };
    number.parse::<usize>().ok()?.checked_mul(factor)
}

/// A size as a person would write it.
pub(super) fn show_size(bytes: usize) -> String {
    let binary = UNITS.iter().filter(|(name, _)| name.ends_with("iB"));
    let fits = binary
        .clone()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    match fits {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("16MiB", Some(16 << 20)),
            ("16 mib", Some(16 << 20)),
            ("1GB", Some(1_000_000_000)),
            ("512", Some(512)),
            ("512B", Some(512)),
            ("", None),
            ("MiB", None),
            ("1.5MiB", None),
            ("-1", None),
            ("16 MiBs", None),
            ("99999999999999GiB", None),
        ] {
            assert_eq!(Value::String(text.to_owned()).as_size(), bytes, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_unit_that_divides_them() {
        assert_eq!(show_size(16 << 20), "16MiB");
        assert_eq!(show_size(1536), "1536B");
        assert_eq!(show_size(3 << 10), "3KiB");
    }

    #[test]
    fn durations_need_a_unit() {
        let read = |text: &str| Value::Untyped(text.to_owned()).as_duration();
        assert_eq!(read("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(read("4m"), Some(Duration::from_secs(240)));
        assert_eq!(read("1m 30s"), Some(Duration::from_secs(90)));
        assert_eq!(read("30"), None);
        assert_eq!(read("soon"), None);
        assert_eq!(Value::Integer(30).as_duration(), None);
    }
}
