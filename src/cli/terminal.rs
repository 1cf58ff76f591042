//! What people read: standard output and standard error, which may be a terminal or not.

use std::io::{self, IsTerminal, Write};

use super::logging::is_journal;

/// Says what went wrong, on standard error.
#[expect(
    clippy::print_stderr,
    reason = "commands speak to people, where there is no log or beside it"
)]
pub(super) fn complain(text: &str) {
    match is_journal() {
        true => text
            .lines()
            .for_each(|line| eprintln!("<3>pointsman: {line}")),
        false => eprintln!("pointsman: {text}"),
    }
}

/// Says something beside the answer, on standard error.
#[expect(
    clippy::print_stderr,
    reason = "commands speak to people, where there is no log or beside it"
)]
pub(super) fn remark(text: &str) {
    eprintln!("{text}");
}

/// Says an answer, on standard output.
///
/// # Errors
/// If nobody reads it any more.
pub(super) fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What begins and ends text that is dimmed.
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// Writes a model's answer as it comes: its text, and on a terminal its reasoning, dimmed.
///
/// A model's words are not to be trusted with a terminal: there, control characters are left out. In a pipe the answer
/// is what the model said and nothing else.
#[derive(Debug)]
pub(super) struct Page<W> {
    out: W,
    is_terminal: bool,
    is_dim: bool,
    /// Whether the last line has not ended.
    is_open: bool,
}

impl Page<io::StdoutLock<'static>> {
    pub(super) fn of_stdout() -> Self {
        let out = io::stdout().lock();
        let is_terminal = out.is_terminal();
        Page::new(out, is_terminal)
    }
}

impl<W: Write> Page<W> {
    fn new(out: W, is_terminal: bool) -> Self {
        Page {
            out,
            is_terminal,
            is_dim: false,
            is_open: false,
        }
    }

    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        if self.is_dim && !text.is_empty() {
            self.is_dim = false;
            let end = if self.is_open { "\n\n" } else { "\n" };
            write!(self.out, "{PLAIN}{end}")?;
        }
        self.write(text)
    }

    pub(super) fn reasoning(&mut self, text: &str) -> io::Result<()> {
        if !self.is_terminal || text.is_empty() {
            return Ok(());
        }
        if !self.is_dim {
            self.is_dim = true;
            write!(self.out, "{DIM}")?;
        }
        self.write(text)
    }

    /// Ends the last line, and whatever else is open.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if self.is_dim {
            write!(self.out, "{PLAIN}")?;
        }
        if self.is_open {
            writeln!(self.out)?;
        }
        (self.is_dim, self.is_open) = (false, false);
        self.out.flush()
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        let Some(last) = text.chars().next_back() else {
            return Ok(());
        };
        if self.is_terminal {
            let harmless = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
            let text: String = text.chars().filter(harmless).collect();
            self.out.write_all(text.as_bytes())?;
        } else {
            self.out.write_all(text.as_bytes())?;
        }
        self.is_open = last != '\n';
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(is_terminal: bool, pieces: &[(&str, &str)]) -> String {
        let mut out = Vec::new();
        let mut page = Page::new(&mut out, is_terminal);
        for (reasoning, text) in pieces {
            page.reasoning(reasoning).expect("a Vec takes it");
            page.text(text).expect("a Vec takes it");
        }
        page.end().expect("a Vec takes it");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn reasoning_is_dimmed_on_a_terminal_and_left_out_elsewhere() {
        let pieces = [("let me", ""), (" think", ""), ("", "So: "), ("", "4")];
        let expected = "\x1b[2mlet me think\x1b[0m\n\nSo: 4\n";
        assert_eq!(page(true, &pieces), expected);
        assert_eq!(page(false, &pieces), "So: 4\n");
        assert_eq!(page(true, &[("broken", "")]), "\x1b[2mbroken\x1b[0m\n");
    }

    #[test]
    fn an_answer_ends_with_one_line_end() {
        assert_eq!(page(false, &[("", "a\n")]), "a\n");
        assert_eq!(page(false, &[]), "");
    }

    #[test]
    fn a_model_can_not_command_a_terminal() {
        let hostile = [("", "a\x1b]0;title\x07\tb\n\u{9b}2J")];
        assert_eq!(page(true, &hostile), "a]0;title\tb\n2J\n");
        assert_eq!(page(false, &hostile), "a\x1b]0;title\x07\tb\n\u{9b}2J\n");
    }
}
