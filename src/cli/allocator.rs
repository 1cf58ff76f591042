//! How much free memory the threads of a server keep for themselves: none.
//!
//! glibc lets each thread keep up to seven free pieces of each of 64 small sizes, some 200 KB. A server with a thread for
//! each call fills these caches for hours: with 200 calls in flight, half of them streams, its memory grew from 62 MB
//! after a minute to 72 MB after ten. Without them it stays at 38 MB, and a request costs as much time as the noise of ten
//! paired runs lets one see. The allocator reads the number before anything of ours runs, from the environment alone; so
//! a server that is started without it starts itself once more, in the same process.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

const VARIABLE: &str = "GLIBC_TUNABLES";
const NONE: &str = "glibc.malloc.tcache_count=0";

/// Starts this program once more, with the arguments it has, unless somebody has set the variable: they know better. Comes
/// back only where that is so, where another allocator is in use, or with why it can't be started; then it serves as it is.
pub(super) fn keep_none() -> io::Result<()> {
    if cfg!(not(target_env = "gnu")) || env::var_os(VARIABLE).is_some() {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let mut again = Command::new(env::current_exe()?);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    Err(again.args(arguments).env(VARIABLE, NONE).exec())
}
