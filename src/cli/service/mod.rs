//! Running under a service manager: systemd, or whoever speaks its protocols.
//!
//! ```text
//!  what it gives us                         what we tell it
//!  LISTEN_FDS, LISTEN_PID   sockets.rs      READY=1      when clients can come in
//!  NOTIFY_SOCKET            notify.rs       WATCHDOG=1   while all is well inside (watch.rs)
//!  WATCHDOG_USEC            watch.rs        STATUS=...   what it is doing, for `systemctl status`
//!  JOURNAL_STREAM           ../logging.rs   STOPPING=1   with the time that the drain may take
//!  CREDENTIALS_DIRECTORY    config
//! ```
//!
//! Where the variables are not there nothing of this happens: the program is the same in a terminal.

mod notify;
mod sockets;
mod watch;

pub(super) use notify::Manager;
pub(super) use sockets::{Given, given};
pub(super) use watch::Watch;
