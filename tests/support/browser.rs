//! A real browser without a window: Chromium, told what to do over two pipes (its DevTools protocol, JSON between zeros).
//!
//! It reaches nothing but the loopback addresses that tests serve on. One on a loaded box may take its time, so there is
//! more patience with it than with our own program.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::spawn;

/// Nothing that is waited for in a browser takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// The names under which it is installed.
const NAMES: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// The pipes of the child become the handles 3 and 4, where the browser looks for them.
const HAND_OVER: &str = r#"exec 3<&0 4>&1 </dev/null >/dev/null; exec "$0" "$@""#;

const OPTIONS: [&str; 15] = [
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-pings",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE 127.77.1.1",
];

/// A browser with one page; it is ended when it is dropped.
#[derive(Debug)]
pub(crate) struct Browser {
    child: Child,
    commands: Option<ChildStdin>,
    said: Receiver<Value>,
    sent: u64,
    /// Of the page.
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// Starts it. `None`, said aloud, where none is installed, or the box lets none run: then `what` is not tested.
    pub(crate) fn start(what: &str) -> Option<Browser> {
        let browser = match installed() {
            None => Err("no Chromium is installed".to_owned()),
            Some(program) => Browser::run(&program),
        };
        let why = match browser {
            Ok(browser) => return Some(browser),
            Err(why) => why,
        };
        // Past the capture of tests' output: a test that was skipped must not look like one that passed.
        let line = format!("SKIPPED: {what}: {why}\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
        None
    }

    fn run(program: &Path) -> Result<Browser, String> {
        let profile = tempfile::tempdir().expect("a directory");
        let mut child = command(program, profile.path())
            .spawn()
            .expect("a shell starts");
        let stdout = child.stdout.take().expect("it is piped");
        let commands = child.stdin.take();
        let (say, said) = channel();
        spawn("browser", move || listen(stdout, &say));
        let mut browser = Browser {
            child,
            commands,
            said,
            sent: 0,
            session: String::new(),
            _profile: profile,
        };
        let does_not_run = |why| format!("Chromium is installed and does not run here: {why}");
        browser
            .try_call("Browser.getVersion", json!({}))
            .map_err(does_not_run)?;
        let page = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": page["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach);
        session["sessionId"]
            .as_str()
            .expect("a session")
            .clone_into(&mut browser.session);
        Ok(browser)
    }

    /// Goes to a page; does not wait for it.
    pub(crate) fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
    }

    /// What a script on the page comes to.
    ///
    /// # Panics
    /// When it throws.
    pub(crate) fn evaluate(&mut self, script: &str) -> Value {
        let wish = json!({ "expression": script, "returnByValue": true, "awaitPromise": true, "userGesture": true });
        let found = self.call("Runtime.evaluate", wish);
        assert!(
            found["exceptionDetails"].is_null(),
            "{script}\n{:#}",
            found["exceptionDetails"]
        );
        found["result"]["value"].clone()
    }

    /// Waits until a script comes to `true`.
    ///
    /// # Panics
    /// When that does not happen within [`PATIENCE`]; with the text of the page.
    pub(crate) fn wait_for(&mut self, what: &str, script: &str) {
        let start = Instant::now();
        // While a page loads there may be no document, or no such element.
        let script = format!("(() => {{ try {{ return {script} }} catch {{ return false }} }})()");
        while self.evaluate(&script) != json!(true) {
            if start.elapsed() > PATIENCE {
                let page = self.evaluate("document.documentElement.innerText");
                panic!(
                    "never happened: {what}\n{}",
                    page.as_str().unwrap_or_default()
                );
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        let answer = self.try_call(method, params);
        answer.unwrap_or_else(|why| panic!("{why}"))
    }

    fn try_call(&mut self, method: &str, params: Value) -> Result<Value, String> {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let commands = self.commands.as_mut().expect("it is open until the end");
        let sent = commands.write_all(format!("{message}\0").as_bytes());
        sent.and_then(|()| commands.flush())
            .map_err(|why| format!("{method} can't be said: {why}"))?;
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let said = self.said.recv_timeout(left);
            let said = said.map_err(|why| format!("no answer to {method}: {why}"))?;
            // The others are events.
            if said["id"] == self.sent {
                return match said["error"].is_null() {
                    true => Ok(said["result"].clone()),
                    false => Err(format!("{method}: {said:#}")),
                };
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Without its pipe it ends by itself, and takes its helpers along.
        drop(self.commands.take());
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn installed() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&folders).collect();
    let places = NAMES
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    places.into_iter().find(|place| place.is_file())
}

fn command(program: &Path, profile: &Path) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(HAND_OVER).arg(program).args(OPTIONS);
    command.arg(format!("--user-data-dir={}", profile.display()));
    command.arg("about:blank");
    // Neither what the developer has set up nor what that would leave behind.
    command.env("HOME", profile).env_remove("DISPLAY");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// Hands on what it says, message by message, until it says no more.
fn listen(stdout: impl Read, say: &Sender<Value>) {
    let mut stdout = BufReader::new(stdout);
    let mut text = Vec::new();
    while matches!(stdout.read_until(0, &mut text), Ok(1..)) {
        text.pop();
        let Ok(message) = serde_json::from_slice(&text) else {
            return;
        };
        if say.send(message).is_err() {
            return;
        }
        text.clear();
    }
}
