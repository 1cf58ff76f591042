//! Which names a file speaks: what its `use` trees import, and every path in its code and its macros.

use crate::source::Source;

/// A name with its path, as far as the file itself tells: `Instant::now()` after `use std::time::Instant` is
/// `std::time::Instant::now`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mention {
    /// From the crate's root where it begins with `crate`, else from an outer crate or a name in scope.
    pub(crate) path: Vec<String>,
    /// From 1.
    pub(crate) line: usize,
    /// How it came into the file.
    pub(crate) by: By,
}

/// How a name came into a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum By {
    /// A `use` brings it in.
    Import,
    /// It is spoken under a name that a `use` brought in.
    Alias,
    /// It is spelled out.
    Path,
}

impl Mention {
    /// The part of the house that is meant: the first name behind `crate`; empty for the root itself.
    pub(crate) fn part(&self) -> Option<&str> {
        match self.path.first().map(String::as_str) {
            Some("crate") => Some(self.path.get(1).map_or("", String::as_str)),
            _ => None,
        }
    }

    /// Whether the path ends with these names.
    pub(crate) fn ends_with(&self, names: &[&str]) -> bool {
        let skip = self.path.len().checked_sub(names.len());
        skip.is_some_and(|skip| self.path.iter().skip(skip).eq(names))
    }
}

/// All names that `source` speaks, in no particular order. `parts` are the modules of the crate's root: there they
/// are in scope without a `crate::`.
pub(crate) fn mentions(source: &Source, parts: &[&str]) -> Vec<Mention> {
    let imports = imports(source);
    let mut all = Vec::new();
    for import in &imports {
        all.push(Mention {
            path: rooted(source, import.line, &import.path, parts),
            line: import.line,
            by: By::Import,
        });
    }
    for (at, path) in paths(source, &imports) {
        let line = source.tokens[at].line;
        let aliases = aliased(source, line, &path, &imports);
        let by = if aliases.is_empty() {
            By::Path
        } else {
            By::Alias
        };
        let spelled = aliases.is_empty().then_some((line, path));
        let meanings = aliases.into_iter().chain(spelled);
        all.extend(meanings.map(|(home, path)| Mention {
            path: rooted(source, home, &path, parts),
            line,
            by,
        }));
    }
    all
}

/// One leaf of a `use` tree.
struct Import {
    path: Vec<String>,
    /// What it is called in this file.
    name: String,
    line: usize,
    /// The tokens of the whole `use`.
    tokens: std::ops::Range<usize>,
}

fn imports(source: &Source) -> Vec<Import> {
    let mut all = Vec::new();
    for start in 0..source.tokens.len() {
        // `impl Trait + use<'a>` is no import.
        if source.tokens[start].is_ident
            && source.word(start) == "use"
            && source.word(start + 1) != "<"
        {
            let mut reader = TreeReader {
                source,
                at: start + 1,
                found: Vec::new(),
            };
            reader.tree(&[]);
            let tokens = start..reader.at;
            all.extend(reader.found.into_iter().map(|import| Import {
                tokens: tokens.clone(),
                ..import
            }));
        }
    }
    all
}

struct TreeReader<'a> {
    source: &'a Source,
    at: usize,
    found: Vec<Import>,
}

impl TreeReader<'_> {
    /// Reads one tree below `prefix`. Always goes on by a token at least, so that odd macros can't hold it up.
    fn tree(&mut self, prefix: &[String]) {
        let mut path = prefix.to_vec();
        loop {
            let word = self.source.word(self.at).to_string();
            self.at += 1;
            match word.as_str() {
                "::" | "$" => {}
                "{" => return self.branches(&path),
                "*" => {
                    path.push(word);
                    return self.leaf(path);
                }
                _ if !self
                    .source
                    .tokens
                    .get(self.at - 1)
                    .is_some_and(|t| t.is_ident) =>
                {
                    return;
                }
                _ => {
                    if word != "self" || path.is_empty() {
                        path.push(word);
                    }
                    if self.source.word(self.at) != "::" {
                        return self.leaf(path);
                    }
                }
            }
        }
    }

    fn branches(&mut self, path: &[String]) {
        while !matches!(self.source.word(self.at), "}" | "") {
            self.tree(path);
            if self.source.word(self.at) == "," {
                self.at += 1;
            }
        }
        self.at += 1;
    }

    fn leaf(&mut self, path: Vec<String>) {
        let line = self.source.tokens[self.at - 1].line;
        let mut name = path.last().cloned().unwrap_or_default();
        if self.source.word(self.at) == "as" {
            name = self.source.word(self.at + 1).into();
            self.at += 2;
        }
        self.found.push(Import {
            path,
            name,
            line,
            tokens: 0..0,
        });
    }
}

/// The paths of the code outside of `use`: the index of the first token, and the names.
fn paths(source: &Source, imports: &[Import]) -> Vec<(usize, Vec<String>)> {
    let mut all = Vec::new();
    let mut skip = 0;
    for at in 0..source.tokens.len() {
        if let Some(import) = imports.iter().find(|import| import.tokens.start == at) {
            skip = import.tokens.end;
        }
        if at >= skip && starts_path(source, at) {
            all.push((at, path_from(source, at)));
        }
    }
    all
}

/// `b` of `a::b`, of `T<U>::b` and of `x.b` begins no path; `b` of `::b` does.
fn starts_path(source: &Source, at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).map_or("", |at| source.word(at));
    let goes_on = match before(1) {
        "." => before(2) != ".",
        "::" => before(2) == ">" || at >= 2 && source.tokens[at - 2].is_ident,
        _ => false,
    };
    source.tokens[at].is_ident && !goes_on
}

fn path_from(source: &Source, mut at: usize) -> Vec<String> {
    let mut path = vec![source.word(at).to_string()];
    while source.word(at + 1) == "::" && source.tokens.get(at + 2).is_some_and(|t| t.is_ident) {
        at += 2;
        path.push(source.word(at).to_string());
    }
    path
}

/// What a path means under the file's imports: each that fits, with the line of the import. What only tests import
/// means nothing to the rest.
fn aliased(
    source: &Source,
    line: usize,
    path: &[String],
    imports: &[Import],
) -> Vec<(usize, Vec<String>)> {
    let visible = |import: &&Import| source.is_test(line) || !source.is_test(import.line);
    let named = imports.iter().filter(|import| import.name == path[0]);
    let whole = |import: &Import| import.path.iter().chain(&path[1..]).cloned().collect();
    named
        .filter(visible)
        .map(|import| (import.line, whole(import)))
        .collect()
}

/// Turns `self`, `super`, the crate's own name, and a bare part in the root, into `crate::...`.
fn rooted(source: &Source, line: usize, path: &[String], parts: &[&str]) -> Vec<String> {
    let mut module = source.module_at(line);
    let mut rest = path;
    match path[0].as_str() {
        "crate" | "pointsman" => {
            module.clear();
            rest = &path[1..];
        }
        "self" | "super" => {
            rest = rest.strip_prefix(&["self".to_string()]).unwrap_or(rest);
            while rest.first().is_some_and(|name| name == "super") {
                module.pop();
                rest = &rest[1..];
            }
        }
        name if module.is_empty() && path.len() > 1 && parts.contains(&name) => {}
        _ => return path.to_vec(),
    }
    let root = std::iter::once("crate".to_string());
    root.chain(module).chain(rest.iter().cloned()).collect()
}
