//! Socket activation: listening sockets that the service manager hands over.
//!
//! It keeps them while we are stopped or start, so nobody who connects meanwhile is refused: they wait in the backlog.

use std::io;

use listenfd::ListenFd;

use crate::config::Environment;
use crate::gateway::Inherited;

/// Sockets that were handed over, and what to call them.
#[derive(Debug, Default)]
pub(in crate::cli) struct Given {
    pub(in crate::cli) sockets: Vec<Inherited>,
    /// Their names (`FileDescriptorName=`), where the manager said any; for people to read.
    pub(in crate::cli) names: String,
}

/// The sockets that were handed over to this process (`LISTEN_PID` says so); none is no error. Takes them: a second call
/// finds none. To be called before anything else, and before there are threads: it changes the environment.
///
/// # Errors
/// In words, what was handed over in place of a stream socket.
pub(in crate::cli) fn given() -> Result<Given, String> {
    let environment = Environment::of_process();
    if environment.get("LISTEN_PID").is_none() {
        // Without it they were meant for somebody else: a variable that was passed on.
        return Ok(Given::default());
    }
    let mut handles = ListenFd::from_env();
    let names = environment.get("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<&str> = names.split(':').collect();
    let sockets = (0..handles.len()).map(|index| {
        take(&mut handles, index).map_err(|error| {
            let name = names.get(index).copied().unwrap_or_default();
            format!("what the service manager handed over as {name:?} is no stream socket: {error}")
        })
    });
    let sockets = sockets.collect::<Result<Vec<_>, _>>()?;
    Ok(Given {
        sockets,
        names: names.join(", "),
    })
}

fn take(handles: &mut ListenFd, index: usize) -> io::Result<Inherited> {
    if let Ok(Some(listener)) = handles.take_tcp_listener(index) {
        return Ok(listener.into());
    }
    let taken = handles.take_unix_listener(index)?;
    let gone = || io::Error::other("it was taken before");
    taken.map(Inherited::from).ok_or_else(gone)
}
