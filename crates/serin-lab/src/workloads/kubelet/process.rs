//! A container's process: started with its pipe, stopped in order, and killed with all it has started.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;

use super::super::{guard, sample};
use super::env::Env;
use super::logs::{Writer, pump};
use crate::store::Clock;

/// How long a guard may take to kill its group before it is killed itself.
const GUARD_PATIENCE: Duration = Duration::from_secs(2);

/// How long output may still come after the process has ended: from its pipe, not from the process.
const OUTPUT_PATIENCE: Duration = Duration::from_millis(200);

/// What runs.
pub enum Program<'a> {
    /// The built-in sample app.
    Sample,
    /// A command under the guard; never empty.
    Command(&'a [String]),
}

/// A running process.
pub struct Process {
    child: Child,
    /// The pipe whose end ends it.
    hold: Option<ChildStdin>,
    guarded: bool,
    output: Vec<JoinHandle<()>>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 + N for signal N.
    pub code: i32,
    /// The signal.
    pub signal: Option<i32>,
}

impl Process {
    /// Starts a process with exactly this environment (the sample app) or this on top of the lab's own (commands).
    ///
    /// # Errors
    /// When the lab's binary cannot be started.
    pub fn start(self_exe: &Path, program: &Program<'_>, env: &Env, log: &Writer, clock: &Clock) -> io::Result<Self> {
        let mut command = match program {
            Program::Sample => {
                let mut command = Command::new(self_exe);
                command.arg(sample::SUBCOMMAND).env_clear().stdin(Stdio::piped()).process_group(0);
                command
            }
            Program::Command(words) => {
                let (program, args) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
                guard::guarded(self_exe, Path::new(program), args.iter().map(OsStr::new))
            }
        };
        command.envs(env.iter()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(false);
        let mut child = command.spawn()?;
        let hold = child.stdin.take();
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            output.push(tokio::spawn(pump(stdout, "stdout", log.clone(), clock.clone())));
        }
        if let Some(stderr) = child.stderr.take() {
            output.push(tokio::spawn(pump(stderr, "stderr", log.clone(), clock.clone())));
        }
        Ok(Self { child, hold, guarded: matches!(program, Program::Command(_)), output })
    }

    /// Waits for its end. May be dropped and called again.
    pub async fn wait(&mut self) -> Exit {
        let status = loop {
            match self.child.wait().await {
                Ok(status) => break status,
                // The child cannot be waited for: nobody else may do so. It is taken as killed.
                Err(error) if error.kind() != io::ErrorKind::Interrupted => break std::process::ExitStatus::from_raw(9),
                Err(_) => {}
            }
        };
        let reading = std::mem::take(&mut self.output);
        let _ = tokio::time::timeout(OUTPUT_PATIENCE, async {
            for task in reading {
                // A pump that panicked has lost lines, not the process.
                let _ = task.await;
            }
        })
        .await;
        let code = i32::from(guard::exit_code(status));
        // A guard reports a signal as a code, as shells do.
        let signal = status.signal().or((self.guarded && code > 128 && code <= 128 + 64).then_some(code - 128));
        Exit { code, signal }
    }

    /// Asks it to end: SIGTERM.
    pub fn terminate(&self) {
        self.send(Signal::TERM);
    }

    /// Ends it and all it has started, and waits for that.
    pub async fn kill(&mut self) -> Exit {
        if self.guarded {
            drop(self.hold.take());
            if let Ok(exit) = tokio::time::timeout(GUARD_PATIENCE, self.wait()).await {
                return exit;
            }
        }
        self.send(Signal::KILL);
        self.wait().await
    }

    fn send(&self, signal: Signal) {
        // No id any more once it has been waited for: then the number may be another's.
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // Ended a moment ago is as good.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}
