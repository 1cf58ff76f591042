//! What can be wrong with a configuration, and where.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why there is no configuration to start with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read, or isn't text.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It was read and is not accepted: every problem that was found, in the order of the file, then those of the
    /// environment and the command line. Never empty.
    #[error("{}", one_a_line(.0))]
    Refused(Vec<Problem>),
}

fn one_a_line(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it was said.
    pub place: Place,
    /// The knob, as in `limits.global`; empty where the text is no TOML at all.
    pub key: String,
    /// What was found, and what is accepted.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Where a value was said. The order is the order in which the sources are laid over each other: the last wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Nowhere: it is the default.
    Default,
    /// In a file.
    File {
        /// Its name, as it was given.
        name: Arc<str>,
        /// From 1.
        line: usize,
    },
    /// In the environment variable of this name.
    Variable(String),
    /// As this option of the command line.
    Option(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Default => f.write_str("built-in defaults"),
            Place::File { name, line } => write!(f, "{name}:{line}"),
            Place::Variable(name) => write!(f, "environment variable {name}"),
            Place::Option(option) => write!(f, "command line {option}"),
        }
    }
}

/// A text that is none of the accepted ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found {found:?}, accepted is {accepted}")]
pub struct NotAccepted {
    /// The text.
    pub found: String,
    /// What would do, in words.
    pub accepted: String,
}
