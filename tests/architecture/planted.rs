//! Each rule against snippets with a fault planted in them, and against ones that only look like it.

use crate::rules;
use crate::source::Source;

type Rule = fn(&Source) -> Vec<String>;

fn parse(path: &str, text: &str) -> Source {
    Source::parse(path, text).expect("Rust")
}

/// The rule complains once, about this line, in these words.
fn catches(rule: Rule, path: &str, text: &str, line: usize, words: &str) {
    let complaints = rule(&parse(path, text));
    let [complaint] = complaints.as_slice() else {
        panic!("{text}\n=> {complaints:?}");
    };
    let place = format!("{path}:{line}: ");
    assert!(complaint.starts_with(&place), "{text}\n=> {complaint}");
    assert!(complaint.contains(words), "{text}\n=> {complaint}");
}

/// The rule has nothing to say.
fn passes(rule: Rule, path: &str, text: &str) {
    assert_eq!(rule(&parse(path, text)), Vec::<String>::new(), "{text}");
}

#[test]
fn a_forbidden_edge_is_caught_however_it_is_written() {
    let words = "engine -> http is forbidden by the row `engine | clock, cancel, chat";
    for text in [
        "use crate::http::Reply;",
        "use crate::http;",
        "use crate::{clock::Time, http::{self, Reply}};",
        "use crate::{clock::{self, Time}, http as front};",
        "pub use super::http::Reply;",
        "pub(crate) use self::super::http::*;",
        "fn f() -> crate::http::Reply { g() }",
        "fn f() { let x: Vec<super::http::Reply> = g(); }",
        "fn f() { log::info!(\"{}\", crate::http::name()); }",
        "macro_rules! m { () => { $crate::http::name() }; }",
        "mod inner { use super::super::http::Reply; }",
        "fn f() { pointsman::http::serve(); }",
        "impl crate::http::Handler for X {}",
        "#[cfg(any(test, unix))] use crate::http::Reply;",
    ] {
        catches(rules::edges, "src/engine/mod.rs", text, 1, words);
    }
    let deep = "\nmod a { mod b {\n fn f() { super::super::super::super::http::x() } } }";
    catches(rules::edges, "src/engine/worker.rs", deep, 3, words);
}

#[test]
fn an_allowed_edge_passes_and_so_does_what_only_looks_like_one() {
    for text in [
        "use crate::{admission::Core, clock::Time};",
        "use self::job::Verdict as V; use super::clock::Time; pub(crate) struct X; pub(super) struct Y;",
        "//! See [`crate::http`].\n/// crate::http\nfn f() { let http = \"crate::http\"; http.x(); }",
        "#[cfg(test)]\nmod tests {\n use crate::http::Reply;\n fn f() { crate::cli::main() }\n}",
        "#[cfg(all(test, unix))]\nuse crate::http::Reply;",
        "#[cfg(any(test, fuzzing))]\nuse crate::http::Reply;",
        "#[test]\nfn f() { crate::http::x() }",
        "mod http { pub fn x() {} }\nuse self::http::x;\nfn f() { http::x() }",
    ] {
        passes(rules::edges, "src/engine/mod.rs", text);
    }
}

#[test]
fn a_test_only_import_lends_no_meaning_to_the_rest() {
    let text =
        "fn f() { Reply::spawn() }\n#[cfg(test)]\nmod tests {\n use std::thread as Reply;\n}";
    passes(rules::threads, "src/engine/mod.rs", text);
}

#[test]
fn a_name_taken_from_the_root_is_caught() {
    for text in [
        "use crate::Gateway;",
        "use crate::*;",
        "use super::*;",
        "fn f() { crate::Gateway::start() }",
    ] {
        catches(rules::edges, "src/http.rs", text, 1, "is no part");
    }
    catches(
        rules::edges,
        "src/http.rs",
        "use crate as root;",
        1,
        "is no part",
    );
}

#[test]
fn the_map_may_name_everything_and_the_program_little() {
    passes(
        rules::edges,
        "src/lib.rs",
        "pub use crate::gateway::Gateway; pub use http::X;",
    );
    passes(
        rules::edges,
        "src/main.rs",
        "fn main() { pointsman::cli::run() }",
    );
    passes(
        rules::edges,
        "src/main.rs",
        "mod cli; fn main() { cli::run() }",
    );
    let text = "fn main() { pointsman::engine::run() }";
    catches(rules::edges, "src/main.rs", text, 1, "main -> engine");
    catches(
        rules::edges,
        "src/main.rs",
        "use pointsman::{engine::Engine};",
        1,
        "main -> engine",
    );
}

#[test]
fn a_part_without_a_row_is_caught() {
    catches(
        rules::edges,
        "src/misc/mod.rs",
        "fn f() {}",
        1,
        "`misc` has no row",
    );
    catches(
        rules::layer_order,
        "src/lib.rs",
        "mod clock;\nmod misc;",
        2,
        "`misc` has no row",
    );
}

#[test]
fn modules_out_of_layer_order_are_caught() {
    let words = "`mod chat` stands below `mod engine`";
    catches(
        rules::layer_order,
        "src/lib.rs",
        "pub mod engine;\npub mod chat;",
        2,
        words,
    );
    passes(
        rules::layer_order,
        "src/lib.rs",
        "pub mod clock;\npub mod engine;\npub mod cli;",
    );
}

#[test]
fn a_foreign_crate_is_caught_outside_of_its_parts() {
    for text in [
        "use ureq::Agent;",
        "fn f() { ::ureq::get(x) }",
        "fn f() { vec![ureq::agent()]; }",
    ] {
        catches(
            rules::foreign_crates,
            "src/engine/mod.rs",
            text,
            1,
            "ureq belongs to client and providers",
        );
        passes(rules::foreign_crates, "src/client.rs", text);
    }
    catches(
        rules::foreign_crates,
        "src/cli/mod.rs",
        "use tiny_http::Method;",
        1,
        "tiny_http belongs",
    );
    passes(
        rules::foreign_crates,
        "src/door/reply.rs",
        "use tiny_http::Method;",
    );
}

#[test]
fn lengths_are_counted_to_the_line() {
    let file = |lines: usize| "\n".repeat(lines);
    passes(rules::file_length, "tests/x.rs", &file(600));
    catches(
        rules::file_length,
        "tests/x.rs",
        &file(601),
        601,
        "601 lines",
    );
    let function = |lines: usize| {
        format!(
            "/// Doc.\n#[inline]\nfn long() {{{}}}",
            "\n".repeat(lines - 1)
        )
    };
    passes(rules::function_length, "benches/x.rs", &function(70));
    catches(
        rules::function_length,
        "benches/x.rs",
        &function(71),
        3,
        "`long` has 71 lines",
    );
    let method = format!("impl X {{\nfn long() {{{}}} }}", "\n".repeat(70));
    catches(rules::function_length, "src/x.rs", &method, 2, "71 lines");
    let inner = format!(
        "mod m {{ trait T {{\nfn long() {{{}}} }} }}",
        "\n".repeat(70)
    );
    catches(rules::function_length, "src/x.rs", &inner, 2, "71 lines");
}

#[test]
fn a_file_that_says_nothing_is_caught() {
    passes(rules::opening, "src/x.rs", "//! What it is.\n");
    for text in ["", "//!\n//! Late.", "// What it is.\n", "use std::fmt;\n"] {
        catches(rules::opening, "src/x.rs", text, 1, "opens without");
    }
}

#[test]
fn a_clock_read_is_caught_outside_of_the_clock() {
    for text in [
        "fn f() { std::time::Instant::now(); }",
        "fn f() { Instant::now(); }",
        "use std::time::Instant as I; fn f() { I::now(); }",
        "use std::time; fn f() { g(time::SystemTime::now) }",
        "fn f() { format!(\"{:?}\", Instant::now()); }",
        "fn f(start: Instant) { start.elapsed(); }",
    ] {
        catches(
            rules::clock,
            "src/engine/mod.rs",
            text,
            1,
            "reads a clock outside src/clock.rs",
        );
        passes(rules::clock, "src/clock.rs", text);
        passes(rules::clock, "tests/x.rs", text);
    }
    passes(
        rules::clock,
        "src/engine/mod.rs",
        "fn f(now: Time) { clock.now(); x.elapsed(now); }",
    );
}

#[test]
fn a_sleep_is_caught_in_tests_too() {
    for text in [
        "#[cfg(test)] mod tests { fn f() { std::thread::sleep(x) } }",
        "use std::thread; fn f() { thread::sleep(x) }",
        "use std::thread::{sleep};",
    ] {
        catches(
            rules::clock,
            "src/engine/mod.rs",
            text,
            1,
            "sleeps outside src/clock.rs",
        );
        catches(
            rules::clock,
            "tests/x.rs",
            text,
            1,
            "sleeps outside src/clock.rs",
        );
    }
}

#[test]
fn a_thread_without_a_name_is_caught() {
    for text in [
        "fn f() { std::thread::spawn(g); }",
        "use std::thread; fn f() { thread::spawn(|| g()); }",
        "use std::thread::spawn;",
        "fn f() { thread::scope(|scope| { scope.spawn(|| g()); }); }",
        "fn f() { thread::Builder::new().spawn(g)?; }",
        "fn f() { thread::Builder::new().stack_size(name(1)).spawn(g)?; }",
        "fn f() { thread::Builder::new().spawn_scoped(scope, g)?; }",
    ] {
        catches(
            rules::threads,
            "src/engine/mod.rs",
            text,
            1,
            "without a name",
        );
    }
    for text in [
        "fn f() { thread::Builder::new().name(format!(\"{}\", x)).stack_size(1).spawn(g)?; }",
        "fn f() { let x = Builder::new().name(\"pointsman-x\".into()).spawn_scoped(scope, g); }",
        "fn f() { Command::new(\"true\").arg(x).spawn()?; self.spawn(1); Watchdog::spawn(); }",
        "#[cfg(test)]\nmod tests {\n fn f() { std::thread::spawn(g); }\n}",
    ] {
        passes(rules::threads, "src/engine/mod.rs", text);
    }
}

#[test]
fn a_global_is_caught() {
    for text in [
        "static X: u8 = 0;",
        "fn f() { static COUNT: AtomicU64 = AtomicU64::new(0); }",
        "use std::sync::LazyLock;",
        "fn f() -> once_cell::sync::Lazy<u8> { g() }",
    ] {
        catches(rules::globals, "src/engine/mod.rs", text, 1, "global");
    }
    let local = "thread_local! {\n const X: u8 = 0;\n}";
    catches(
        rules::globals,
        "src/engine/mod.rs",
        local,
        1,
        "`thread_local` is a global",
    );
    passes(
        rules::globals,
        "src/engine/mod.rs",
        "const X: &'static str = \"static\"; // static",
    );
}

#[test]
fn an_unwrap_is_caught_outside_of_tests() {
    for text in [
        "fn f() { g().unwrap(); }",
        "fn f() { assert!(g()\n.unwrap()); }",
    ] {
        let line = text.lines().count();
        catches(
            rules::unwraps,
            "src/engine/mod.rs",
            text,
            line,
            "`.unwrap()`",
        );
        passes(rules::unwraps, "tests/x.rs", text);
    }
    for text in [
        "/// x.unwrap()\nfn f() { g().unwrap_or(1); g().expect(\".unwrap()\"); }",
        "#[cfg(test)]\nmod tests {\n fn f() { g().unwrap(); }\n}",
    ] {
        passes(rules::unwraps, "src/engine/mod.rs", text);
    }
}

#[test]
fn a_file_behind_a_test_module_is_a_test() {
    let mut sources = vec![
        parse("src/engine/mod.rs", "#[cfg(test)]\nmod tests;\nmod worker;"),
        parse("src/engine/tests.rs", "use crate::http::X;"),
        parse("src/engine/tests/deep.rs", "use crate::http::X;"),
        parse("src/engine/worker.rs", "use crate::http::X;"),
    ];
    crate::mark_test_files(&mut sources);
    let counts: Vec<usize> = sources
        .iter()
        .map(|source| rules::edges(source).len())
        .collect();
    assert_eq!(counts, [0, 0, 0, 1]);
}
