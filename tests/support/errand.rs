//! The program on an errand: a command that ends by itself.

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::server::program;
use super::{BOUND, eventually, spawn};

/// A running command; it is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Errand {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
    _directory: TempDir,
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Done {
    /// Its exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it wrote to standard output.
    pub(crate) out: String,
    /// What it wrote to standard error.
    pub(crate) err: String,
}

impl Errand {
    /// Starts `arguments`, a command first, with `config`, environment variables, and `input` as its standard input.
    pub(crate) fn start(
        config: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
        input: &str,
    ) -> Errand {
        let directory = tempfile::tempdir().expect("a directory");
        let (errand, arguments) = arguments.split_first().expect("a command");
        let mut command = program(&directory, errand, config, arguments, environment);
        let mut child = command
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        // A command that does not read its input closes it.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        Errand {
            out: all_of(child.stdout.take().expect("it is piped")),
            err: all_of(child.stderr.take().expect("it is piped")),
            child,
            _directory: directory,
        }
    }

    /// Starts a command and waits for its end.
    ///
    /// # Panics
    /// As [`Errand::done`].
    pub(crate) fn run(config: &str, arguments: &[&str]) -> Done {
        Errand::start(config, arguments, &[], "").done()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal)
            .expect("it is ours and not yet waited for");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end within [`BOUND`].
    pub(crate) fn done(mut self) -> Done {
        let mut status = None;
        eventually("the command ends", || {
            status = self.child.try_wait().expect("it is ours");
            status.is_some()
        });
        Done {
            code: status.expect("it has ended").code(),
            out: self.out.recv_timeout(BOUND).expect("it is closed"),
            err: self.err.recv_timeout(BOUND).expect("it is closed"),
        }
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that comes, once it is closed.
fn all_of(mut from: impl Read + Send + 'static) -> Receiver<String> {
    let (say, said) = channel();
    spawn("errand-output", move || {
        let mut bytes = Vec::new();
        let read = from.read_to_end(&mut bytes);
        if read.is_ok() {
            let _ = say.send(String::from_utf8_lossy(&bytes).into_owned());
        }
    });
    said
}
