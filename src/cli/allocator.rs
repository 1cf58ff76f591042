//! How much free memory the threads of a server keep for themselves: none.
//!
//! glibc lets each thread keep up to seven free pieces of each of 64 small sizes, some 200 KB. A server with a thread for
//! each call fills these caches for hours: with 200 calls in flight, half of them streams, its memory grew from 62 MB
//! after a minute to 72 MB after ten. Without them it stays at 39 MB, and a request costs as much time as the noise of ten
//! paired runs lets one see. The allocator reads the number before anything of ours runs, from the environment alone; so
//! a server that is started without it starts itself once more, in the same process, before it has read anything.

use std::env;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

const VARIABLE: &str = "GLIBC_TUNABLES";
const NONE: &str = "glibc.malloc.tcache_count=0";
/// That it was started once more. The loader takes the other one away from a program with capabilities of its own.
const AGAIN: &str = "_POINTSMAN_STARTED_AGAIN";

/// Starts this program once more, with the arguments it has, unless somebody has set the variable: they know better. Comes
/// back only where that is so, where another allocator or a loader of its own is in use, or with why it can't be started;
/// then it serves as it is.
pub(super) fn keep_none() -> io::Result<()> {
    let is_decided = [VARIABLE, AGAIN]
        .iter()
        .any(|name| env::var_os(name).is_some());
    if cfg!(not(target_env = "gnu")) || is_decided {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    let Some(program) = program(name.clone().into())? else {
        return Ok(());
    };
    let mut again = Command::new(program);
    again.arg0(name).args(arguments);
    Err(again.env(VARIABLE, NONE).env(AGAIN, "1").exec())
}

/// This program, by the `name` that it was called by where that is a path: so its process keeps that name. None where what
/// runs is a loader that was told of it.
fn program(name: PathBuf) -> io::Result<Option<PathBuf>> {
    let real = env::current_exe()?;
    let file = real.file_name().unwrap_or_default().to_string_lossy();
    if file.starts_with("ld") && file.contains(".so") {
        return Ok(None);
    }
    let is_path = name.components().count() > 1;
    let is_same = is_path && fs::canonicalize(&name).is_ok_and(|place| place == real);
    Ok(Some(if is_same { name } else { real }))
}
