//! A user at a terminal: `crictl attach` or `crictl exec` with a pty.

use crate::node::{Node, only_child};
use crate::wait::wait_for;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A program in a node whose terminal the test types into.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keys: Option<ChildStdin>,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Node {
    /// Runs a command line on a terminal of this many rows and columns.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn terminal(&self, command: &str, rows: u16, columns: u16) -> Result<Terminal> {
        let line = format!("stty rows {rows} cols {columns}; exec {command}");
        let mut script = self.command("script");
        script.args([
            "--quiet",
            "--flush",
            "--return",
            "--command",
            &line,
            "/dev/null",
        ]);
        Terminal::watch(script)
    }

    /// Runs a command whose standard input is held open, without a terminal.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn conversation(&self, program: &str, args: &[&str]) -> Result<Terminal> {
        let mut command = self.command(program);
        command.args(args);
        Terminal::watch(command)
    }
}

impl Terminal {
    pub(crate) fn watch(mut command: std::process::Command) -> Result<Self> {
        let mut child = command
            .env("TERM", "dumb")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let keys = child.stdin.take();
        let mut output = child.stdout.take().context("no output")?;
        let screen = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.extend_from_slice(&buffer[..count]);
            }
        });
        Ok(Self {
            child,
            keys,
            screen,
        })
    }

    /// Types a line.
    ///
    /// # Errors
    /// When the program is gone.
    pub fn types(&mut self, line: &str) -> Result<()> {
        let keys = self.keys.as_mut().context("the input is closed")?;
        writeln!(keys, "{line}")?;
        Ok(keys.flush()?)
    }

    /// Closes the program's standard input.
    pub fn closes_input(&mut self) {
        self.keys = None;
    }

    /// Waits until the screen shows something, and returns the whole screen.
    ///
    /// # Errors
    /// When it does not come.
    pub fn shows(&self, words: &str) -> Result<String> {
        let what = format!("{words:?} on the screen");
        wait_for(&what, Duration::from_secs(20), || {
            let screen = self.screen();
            Ok(screen.contains(words).then_some(screen))
        })
        .with_context(|| format!("it shows {:?}", self.screen()))
    }

    /// Whether the screen shows something now.
    #[must_use]
    pub fn shows_now(&self, words: &str) -> bool {
        self.screen().contains(words)
    }

    /// Waits for the program's end and returns its exit code.
    ///
    /// # Errors
    /// When it does not end.
    pub fn ends(&mut self) -> Result<i32> {
        let status = wait_for("the program's end", Duration::from_secs(20), || {
            Ok(self.child.try_wait()?)
        })?;
        status.code().context("it was killed")
    }

    fn screen(&self) -> String {
        let seen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&seen).into_owned()
    }
}

impl Drop for Terminal {
    /// The connection breaks: what it was connected to sees no end of input.
    fn drop(&mut self) {
        if let Ok(program) = only_child(self.child.id()) {
            kill(program, Signal::SIGKILL).ok();
        }
        self.child.wait().ok();
    }
}
