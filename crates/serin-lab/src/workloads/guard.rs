//! A tiny supervisor that makes sure no process outlives the lab, whatever ends the lab.
//!
//! The lab starts each foreign program as `SELF_EXE lab-guard -- PROGRAM ARGS` and holds the write end of the guard's
//! standard input. The kernel closes that pipe when the lab ends, also on SIGKILL; the guard then kills the program's
//! process group. The program itself asks the kernel to be killed with its guard, so that killing the guard leaves
//! nothing behind either. It deliberately restarts nothing, and it knows neither pods nor Envoy.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};

use rustix::process::{Pid, Signal};

/// The hidden subcommand of the product's binary that runs [`main`].
pub const SUBCOMMAND: &str = "lab-guard";

/// First argument of the second stage: asks for the parent-death signal and becomes the program.
const BECOME: &str = "--become";

/// The shell's code for a program that cannot be found or started.
const NOT_STARTED: u8 = 127;

/// The command that runs `program` under a guard. `self_exe` is a binary that hands `lab-guard` to [`main`]
/// (on Linux `/proc/self/exe` survives that the file is replaced while the lab runs).
///
/// Standard input is a pipe that the caller must keep: take `child.stdin` out before `child.wait()`, which closes it.
/// Closing it kills the program's whole process group at once; SIGTERM to the guard's pid is passed on to the program.
/// The exit status is the program's: its code, or 128 plus the number of the signal that ended it; 127 if it
/// could not be started (the reason is then on standard error).
pub fn guarded<I, A>(self_exe: &Path, program: &Path, args: I) -> tokio::process::Command
where
    I: IntoIterator<Item = A>,
    A: AsRef<OsStr>,
{
    let mut command = tokio::process::Command::new(self_exe);
    command.arg(SUBCOMMAND).arg("--").arg(program).args(args).stdin(Stdio::piped());
    // A group of its own: Ctrl-C in the terminal reaches the lab alone, which then ends its children in order.
    command.process_group(0);
    command
}

/// What `SELF_EXE lab-guard ARGS` does; `args` are those after the subcommand. Returns when the program has ended.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args: Vec<OsString> = args.into_iter().collect();
    if args.first().is_some_and(|a| a == BECOME) {
        args.remove(0);
        return become_program(&args);
    }
    if args.first().is_some_and(|a| a == "--") {
        args.remove(0);
    }
    if args.is_empty() {
        complain("usage: lab-guard -- PROGRAM [ARGS]");
        return ExitCode::from(2);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(supervise(&args))) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&format!("cannot start {}: {error}", args[0].display()));
            ExitCode::from(NOT_STARTED)
        }
    }
}

/// The second stage, already in its own process group: `PARENT-PID PROGRAM ARGS`.
fn become_program(args: &[OsString]) -> ExitCode {
    let [parent, program, args @ ..] = args else {
        complain("usage: lab-guard --become PARENT PROGRAM [ARGS]");
        return ExitCode::from(2);
    };
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        complain(&format!("the parent-death signal is refused: {error}"));
    }
    // The guard may have died before the signal was asked for: then this process has another parent by now.
    let now = rustix::process::getppid().map_or(0, Pid::as_raw_pid);
    if parent.to_str().and_then(|p| p.parse().ok()) != Some(now) {
        return ExitCode::from(NOT_STARTED);
    }
    let error = std::process::Command::new(program).args(args).exec();
    complain(&format!("cannot start {}: {error}", program.display()));
    ExitCode::from(NOT_STARTED)
}

/// Runs the program until it ends, passing signals on; kills its group when the lab's pipe closes or the program ended.
async fn supervise(args: &[OsString]) -> std::io::Result<u8> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hup = signal(SignalKind::hangup())?;
    let mut usr1 = signal(SignalKind::user_defined1())?;
    let mut usr2 = signal(SignalKind::user_defined2())?;

    // The parent-death signal is bound to the thread that forks: this one, which lives as long as the process.
    // On Linux the link leads to this very program, even when the file has been replaced since.
    let itself = if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { std::env::current_exe()? };
    let mut child = tokio::process::Command::new(itself)
        .arg(SUBCOMMAND)
        .arg(BECOME)
        .arg(std::process::id().to_string())
        .args(args)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()?;
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));

    let (closed, mut lab_gone) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
        wait_for_end_of_input();
        // The receiver is gone only when the process is ending anyway.
        let _ = closed.send(());
    })?;

    let pass_on = |signal| {
        if let Some(pid) = pid {
            // It may just have ended: then there is nobody to tell.
            let _ = rustix::process::kill_process(pid, signal);
        }
    };
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            _ = term.recv() => pass_on(Signal::TERM),
            _ = int.recv() => pass_on(Signal::INT),
            _ = hup.recv() => pass_on(Signal::HUP),
            _ = usr1.recv() => pass_on(Signal::USR1),
            _ = usr2.recv() => pass_on(Signal::USR2),
            _ = &mut lab_gone => {
                kill_group(pid);
                break child.wait().await?;
            }
        }
    };
    // As in a container, what the first process leaves behind ends with it.
    kill_group(pid);
    Ok(exit_code(status))
}

fn kill_group(pid: Option<Pid>) {
    if let Some(pid) = pid {
        // No such group means that nothing is left of it.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
}

/// Blocks until standard input ends. Whatever comes before is no message and is thrown away.
pub(super) fn wait_for_end_of_input() {
    let mut buffer = [0; 64];
    let mut input = std::io::stdin().lock();
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// An exit status as one number, as shells and container runtimes print it: 128 + N for signal N.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|n| 128 + n)).unwrap_or(i32::from(NOT_STARTED));
    u8::try_from(code & 0xff).unwrap_or(NOT_STARTED)
}

fn complain(what: &str) {
    // Nobody to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "lab-guard: {what}");
}
