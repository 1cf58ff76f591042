//! The rules of the house, as tests: who may use whom, and what no file does.
//!
//! The rules read the sources as text; nothing of the crate is called. A complaint names the file, the line, and the
//! rule. The rules themselves are tested in `architecture/planted.rs` on small snippets with a fault planted in each.

#[path = "architecture/names.rs"]
mod names;
#[path = "architecture/planted.rs"]
mod planted;
#[path = "architecture/rules.rs"]
mod rules;
#[path = "architecture/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use source::Source;

/// Who may use whom, lowest layer first: a part, and the parts that it may use. A part that isn't built yet may have
/// a row. `cuts` and `fuzz` are for tests. `main` is the program's root, `lib.rs` is the map and may name everything.
const TABLE: &[(&str, &[&str])] = &[
    ("cuts", &[]),
    ("clock", &[]),
    ("cancel", &[]),
    ("chat", &[]),
    ("config", &[]),
    ("wire", &["chat"]),
    ("client", &["clock", "cancel", "config"]),
    ("door", &["clock", "cancel", "config"]),
    // `cancel`, because a client's requests end by a token.
    ("telemetry", &["clock", "cancel", "config", "client"]),
    ("admission", &["clock", "cancel", "config"]),
    // Of time it knows the type alone: it is told what was read, and when.
    ("throttle", &["clock", "config"]),
    (
        "providers",
        &["clock", "cancel", "chat", "config", "wire", "telemetry"],
    ),
    (
        "routing",
        &["clock", "chat", "config", "telemetry", "providers"],
    ),
    (
        "engine",
        &[
            "clock",
            "cancel",
            "chat",
            "config",
            "telemetry",
            "admission",
            "throttle",
            "providers",
            "routing",
        ],
    ),
    ("store", &["clock", "chat", "config", "telemetry"]),
    (
        "workflow",
        &["clock", "cancel", "chat", "config", "telemetry", "engine"],
    ),
    (
        "http",
        &[
            "clock",
            "cancel",
            "chat",
            "config",
            "wire",
            "door",
            "telemetry",
            "engine",
            "workflow",
        ],
    ),
    (
        "mcp",
        &[
            "clock",
            "cancel",
            "chat",
            "config",
            "telemetry",
            "engine",
            "workflow",
        ],
    ),
    (
        "gateway",
        &[
            "clock",
            "cancel",
            "chat",
            "config",
            "wire",
            "client",
            "door",
            "telemetry",
            "admission",
            "providers",
            "routing",
            "engine",
            "store",
            "workflow",
            "http",
            "mcp",
        ],
    ),
    (
        "loadtest",
        &[
            "clock",
            "cancel",
            "chat",
            "config",
            "wire",
            "client",
            "telemetry",
        ],
    ),
    (
        "cli",
        &[
            "clock",
            "cancel",
            "chat",
            "config",
            "client",
            "telemetry",
            "gateway",
            "loadtest",
        ],
    ),
    ("fuzz", &["wire", "door"]),
    ("main", &["cli"]),
    ("lib", &[]),
];

/// Crates of others that only some parts may know.
const FOREIGN: &[(&str, &[&str])] = &[
    ("ureq", &["client", "providers"]),
    ("tiny_http", &["door", "http"]),
];

/// Everything in `src`, `tests` and `benches`.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches"] {
        find_rust(&root.join(folder), &mut files);
    }
    let mut sources: Vec<Source> = files.iter().map(|file| read(root, file)).collect();
    mark_test_files(&mut sources);
    sources
}

fn find_rust(folder: &Path, files: &mut Vec<PathBuf>) {
    // A folder that isn't there yet breaks no rule.
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            // What cargo built there is nobody's source.
            if !path.ends_with("target") {
                find_rust(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(root: &Path, file: &Path) -> Source {
    let text = fs::read_to_string(file).expect("a readable file");
    let path = file.strip_prefix(root).expect("a file below the root");
    let path = path.to_str().expect("a name in UTF-8").replace('\\', "/");
    Source::parse(&path, &text).expect("Rust")
}

/// Files behind `#[cfg(test)] mod name;` are tests, with all that hangs below them.
fn mark_test_files(sources: &mut [Source]) {
    let mut tests = BTreeSet::new();
    for source in sources.iter().filter(|source| source.part().is_some()) {
        for (name, line, test) in &source.layout.declared {
            if *test {
                let mut module = source.module_at(*line);
                module.push(name.clone());
                tests.insert(module);
            }
        }
    }
    for source in sources.iter_mut().filter(|source| source.part().is_some()) {
        source.test_only = tests.iter().any(|test| source.module.starts_with(test));
    }
}

/// Fails with all complaints of a rule.
fn check(rule: fn(&Source) -> Vec<String>) {
    let mut complaints: Vec<String> = sources().iter().flat_map(rule).collect();
    complaints.sort();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn a_part_uses_only_the_parts_of_its_row() {
    check(rules::edges);
}

#[test]
fn a_row_names_only_rows_above_it() {
    for (at, (part, may_use)) in TABLE.iter().enumerate() {
        for used in *may_use {
            let lower = TABLE[..at].iter().any(|(name, _)| name == used);
            assert!(lower, "{part} may use {used}, which is not below it");
        }
    }
}

#[test]
fn the_modules_of_the_map_stand_in_layer_order() {
    check(rules::layer_order);
}

#[test]
fn foreign_crates_stay_in_their_parts() {
    check(rules::foreign_crates);
}

#[test]
fn no_file_is_too_long() {
    check(rules::file_length);
}

#[test]
fn no_function_is_too_long() {
    check(rules::function_length);
}

#[test]
fn every_file_says_what_it_is() {
    check(rules::opening);
}

#[test]
fn only_the_clock_reads_the_time_and_sleeps() {
    check(rules::clock);
}

#[test]
fn every_thread_has_a_name() {
    check(rules::threads);
}

#[test]
fn nothing_is_global() {
    check(rules::globals);
}

#[test]
fn nothing_is_unwrapped_outside_of_tests() {
    check(rules::unwraps);
}

#[test]
fn the_sources_are_found() {
    let sources = sources();
    for path in [
        "src/lib.rs",
        "src/main.rs",
        "src/clock.rs",
        "tests/architecture.rs",
    ] {
        assert!(sources.iter().any(|source| source.path == path), "{path}");
    }
}
