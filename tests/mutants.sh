#!/usr/bin/env bash
# Which faults in src/admission the tests there don't notice.
#
#     tests/mutants.sh [ARGUMENTS OF cargo mutants]
#
# The core needs nothing of this crate but the clock, the reasons of a cancel and the classes, so it is copied with them
# into a crate of its own below target/mutants: a mutant then takes seconds, not minutes. The figures and the names of
# the survivors are left in target/mutants/mutants.out. Run again with --iterate to try only those that survived.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
core=$root/target/mutants
mkdir -p "$core/src/config"
rm -rf "$core/src/admission"
cp -r "$root/src/admission" "$root/src/clock.rs" "$root/src/cancel.rs" "$core/src/"
cp "$root/src/config/priority.rs" "$root/src/config/word.rs" "$core/src/config/"
cp "$root/Cargo.lock" "$core/"
sed -i 's/use super::error::NotAccepted/use super::NotAccepted/' "$core/src/config/word.rs"

cat > "$core/src/lib.rs" <<'END'
//! The core of pointsman and the little that it stands on.
#![allow(dead_code)]
pub mod admission;
pub mod cancel;
pub mod clock;
pub mod config;
END

cat > "$core/src/config/mod.rs" <<'END'
//! The values of the configuration that the core knows.
mod priority;
mod word;
pub use priority::Priority;
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found {found:?}, accepted is {accepted}")]
pub struct NotAccepted {
    pub found: String,
    pub accepted: String,
}
END

cat > "$core/Cargo.toml" <<'END'
[package]
name = "pointsman"
version = "0.0.0"
edition = "2024"

[dependencies]
fastrand = "2.5"
parking_lot = "0.12"
slab = "0.4"
thiserror = "2.0"

[profile.test]
debug = false

[workspace]
END

cd "$core"
CARGO_INCREMENTAL=1 exec cargo mutants --dir "$core" --exclude 'src/c*.rs' --exclude 'src/config/**' --timeout 20 "$@" \
    -- --lib admission::
