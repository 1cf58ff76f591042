//! The rules, each a function from a file to its complaints (`path:line: what`).

use crate::names::{By, mentions};
use crate::source::Source;
use crate::{FOREIGN, TABLE};

/// The most lines of a file.
const MAX_FILE_LINES: usize = 600;
/// The most lines of a function, from its `fn` to its closing brace.
const MAX_FUNCTION_LINES: usize = 70;
/// The only file that reads a clock or sleeps.
const CLOCK: &str = "src/clock.rs";

/// What the row of a part lets it use; `None` for a part without a row.
pub(crate) fn row(part: &str) -> Option<&'static [&'static str]> {
    let row = TABLE.iter().find(|(name, _)| *name == part);
    row.map(|(_, may_use)| *may_use)
}

fn parts() -> Vec<&'static str> {
    TABLE.iter().map(|(name, _)| *name).collect()
}

/// A part uses only the parts of its row. Tests inside of a part may use more.
pub(crate) fn edges(source: &Source) -> Vec<String> {
    let Some(part) = source.part() else {
        return Vec::new();
    };
    let Some(may_use) = row(part) else {
        return vec![source.complain(1, format!("`{part}` has no row in the table"))];
    };
    let mut complaints = Vec::new();
    for mention in mentions(source, &parts()) {
        let Some(used) = mention.part() else { continue };
        // `pub(crate)` speaks of the root, and a `use` of it is a way around the table.
        let counts = mention.by == By::Import || mention.by == By::Path && !used.is_empty();
        if !counts || part == "lib" || used == part || source.is_test(mention.line) {
            continue;
        }
        if row(used).is_none() {
            let what = format!("`crate::{used}` is no part: name the part that it comes from");
            complaints.push(source.complain(mention.line, what));
        } else if !may_use.contains(&used) {
            let row = may_use.join(", ");
            let what = format!("{part} -> {used} is forbidden by the row `{part} | {row}`");
            complaints.push(source.complain(mention.line, what));
        }
    }
    // Two leaves of one `use` are one fault.
    complaints.dedup();
    complaints
}

/// `mod` lines of `lib.rs` name parts, in the order of the table.
pub(crate) fn layer_order(source: &Source) -> Vec<String> {
    if source.path != "src/lib.rs" {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    let mut highest = 0;
    for (name, line, test) in &source.layout.declared {
        match parts().iter().position(|part| part == name) {
            _ if *test => {}
            None => {
                complaints.push(source.complain(*line, format!("`{name}` has no row in the table")))
            }
            Some(layer) if layer < highest => {
                let what = format!("`mod {name}` stands below `mod {}`", parts()[highest]);
                complaints.push(source.complain(*line, what));
            }
            Some(layer) => highest = layer,
        }
    }
    complaints
}

/// Crates that only some parts may know.
pub(crate) fn foreign_crates(source: &Source) -> Vec<String> {
    let Some(part) = source.part() else {
        return Vec::new();
    };
    let mut complaints = Vec::new();
    for mention in mentions(source, &parts()) {
        let rule = FOREIGN.iter().find(|(name, _)| *name == mention.path[0]);
        if let Some((name, may)) = rule
            && mention.by != By::Alias
            && !may.contains(&part)
            && !source.is_test(mention.line)
        {
            let what = format!("{name} belongs to {} alone", may.join(" and "));
            complaints.push(source.complain(mention.line, what));
        }
    }
    complaints
}

/// No file is too long.
pub(crate) fn file_length(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let what = format!("{lines} lines, {MAX_FILE_LINES} at most");
    let too_long = lines > MAX_FILE_LINES;
    Vec::from_iter(too_long.then(|| source.complain(lines, what)))
}

/// No function is too long.
pub(crate) fn function_length(source: &Source) -> Vec<String> {
    let length = |lines: &std::ops::RangeInclusive<usize>| lines.end() - lines.start() + 1;
    let functions = source.layout.functions.iter();
    functions
        .filter(|(lines, _)| length(lines) > MAX_FUNCTION_LINES)
        .map(|(lines, name)| {
            let long = length(lines);
            let what = format!("`{name}` has {long} lines, {MAX_FUNCTION_LINES} at most");
            source.complain(*lines.start(), what)
        })
        .collect()
}

/// Every file says what it is.
pub(crate) fn opening(source: &Source) -> Vec<String> {
    let first = source.text.lines().next().unwrap_or_default();
    let says = first.strip_prefix("//!").map(str::trim);
    let silent = says.is_none_or(str::is_empty);
    Vec::from_iter(silent.then(|| source.complain(1, "opens without a `//!` that says what it is")))
}

/// Only `clock.rs` reads the clock; and it alone sleeps, so that neither tests do.
pub(crate) fn clock(source: &Source) -> Vec<String> {
    const READS: [&[&str]; 2] = [&["Instant", "now"], &["SystemTime", "now"]];
    const SLEEPS: [&[&str]; 3] = [
        &["thread", "sleep"],
        &["thread", "sleep_ms"],
        &["thread", "sleep_until"],
    ];
    if source.path == CLOCK {
        return Vec::new();
    }
    // Outside of `src` a test may measure how long something took.
    let may_read = |line| source.part().is_none() || source.is_test(line);
    let mut complaints = Vec::new();
    for mention in mentions(source, &parts()) {
        let reads = READS.iter().any(|name| mention.ends_with(name));
        let sleeps = SLEEPS.iter().any(|name| mention.ends_with(name));
        if reads && !may_read(mention.line) {
            complaints
                .push(source.complain(mention.line, format!("reads a clock outside {CLOCK}")));
        }
        if sleeps {
            complaints.push(source.complain(mention.line, format!("sleeps outside {CLOCK}")));
        }
    }
    for line in calls(source, "elapsed").filter(|line| !may_read(*line)) {
        complaints
            .push(source.complain(line, format!("`.elapsed()` reads a clock outside {CLOCK}")));
    }
    complaints
}

/// No `.unwrap()` outside of tests.
pub(crate) fn unwraps(source: &Source) -> Vec<String> {
    let lines =
        calls(source, "unwrap").filter(|line| source.part().is_some() && !source.is_test(*line));
    lines
        .map(|line| {
            source.complain(
                line,
                "`.unwrap()`: say why it can't fail with `expect`, or pass the error on",
            )
        })
        .collect()
}

/// Lines with a call of `.method()`, without arguments.
fn calls<'a>(source: &'a Source, method: &'a str) -> impl Iterator<Item = usize> + 'a {
    let places = 0..source.tokens.len();
    places
        .filter(move |&at| {
            [0, 1, 2, 3].map(|next| source.word(at + next)) == [".", method, "(", ")"]
        })
        .map(|at| source.tokens[at + 1].line)
}

/// No state outside of a value that somebody owns.
pub(crate) fn globals(source: &Source) -> Vec<String> {
    const MACROS: [&str; 2] = ["thread_local", "lazy_static"];
    const TYPES: [&str; 4] = ["LazyLock", "LazyCell", "once_cell", "lazy_static"];
    if source.part().is_none() {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        let lifetime = at > 0 && source.word(at - 1) == "'";
        let a_static = token.is_ident && token.text == "static" && !lifetime;
        let a_macro = MACROS.contains(&token.text.as_str()) && source.word(at + 1) == "!";
        if (a_static || a_macro) && !source.is_test(token.line) {
            complaints.push(source.complain(token.line, format!("`{}` is a global", token.text)));
        }
    }
    for mention in mentions(source, &parts()) {
        let lazy = mention
            .path
            .iter()
            .find(|name| TYPES.contains(&name.as_str()));
        if let Some(name) = lazy
            && mention.by != By::Alias
            && !source.is_test(mention.line)
        {
            complaints.push(source.complain(mention.line, format!("`{name}` is a lazy global")));
        }
    }
    complaints
}

/// Every thread has a name: it is made by a `Builder` that was given one in the same chain of calls.
pub(crate) fn threads(source: &Source) -> Vec<String> {
    if source.part().is_none() {
        return Vec::new();
    }
    let what = "starts a thread without a name: `thread::Builder::new().name(...).spawn(...)`";
    let plain = mentions(source, &parts()).into_iter();
    let plain = plain
        .filter(|mention| mention.ends_with(&["thread", "spawn"]))
        .map(|mention| mention.line);
    let chained = (0..source.tokens.len()).filter(|&at| {
        source.word(at) == "."
            && matches!(source.word(at + 1), "spawn" | "spawn_scoped")
            && !is_named(source, at)
    });
    let lines = plain.chain(chained.map(|at| source.tokens[at + 1].line));
    lines
        .filter(|line| !source.is_test(*line))
        .map(|line| source.complain(line, what))
        .collect()
}

/// Whether the chain of calls before the `.` at `dot` names a thread, starts a process, or is the author's own `self`.
fn is_named(source: &Source, dot: usize) -> bool {
    let chain = chain_before(source, dot);
    chain == ["self"] || chain.iter().any(|word| matches!(*word, "name" | "Command"))
}

/// The names of a chain of calls and fields that ends before the token at `at`, last first, without arguments.
fn chain_before(source: &Source, mut at: usize) -> Vec<&str> {
    let mut chain = Vec::new();
    while at > 0 {
        at -= 1;
        match source.word(at) {
            ")" | "]" => at = opening_of(source, at),
            "." | "::" | "?" => {}
            _ if source.tokens[at].is_ident => {
                chain.push(source.word(at));
                if !matches!(source.word(at.wrapping_sub(1)), "." | "::") {
                    break;
                }
            }
            _ => break,
        }
    }
    chain
}

/// Where the bracket was opened that closes at `at`.
fn opening_of(source: &Source, mut at: usize) -> usize {
    let mut depth = 1;
    while depth > 0 && at > 0 {
        at -= 1;
        match source.word(at) {
            ")" | "]" | "}" => depth += 1,
            "(" | "[" | "{" => depth -= 1,
            _ => {}
        }
    }
    at
}
