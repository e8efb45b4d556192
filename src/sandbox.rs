//! Runs one generated program where it can do no harm.
//!
//! The model wrote the program, so it is treated as hostile. On Linux it runs in `bubblewrap`
//! (`bubblewrap`), behind a filter of system calls (`filter`) and watched by this process, which
//! ends everything at the first limit (`watch`, `processes`). It sees the system's programs and
//! libraries read-only and an empty working folder in memory: no home, no network, no process and
//! no environment of ours. When a run is over, nothing is left of it. Everything here is blocking.

#[cfg(target_os = "linux")]
mod bubblewrap;
#[cfg(target_os = "linux")]
mod cores;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod filter;
/// There is no filter for other machines.
#[cfg(all(
    target_os = "linux",
    not(any(target_arch = "x86_64", target_arch = "aarch64"))
))]
mod filter {
    pub(super) fn filter() -> Option<Vec<u8>> {
        None
    }
}
#[cfg(target_os = "linux")]
mod kernel_memory;
#[cfg(target_os = "linux")]
mod process_bound;
#[cfg(target_os = "linux")]
mod processes;
#[cfg(target_os = "linux")]
mod watch;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(target_os = "linux")]
pub use bubblewrap::Sandbox;
#[cfg(not(target_os = "linux"))]
pub use elsewhere::Sandbox;

/// What to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Program<'a> {
    /// The command and its arguments as the program sees them; if it has no slash, it is looked for
    /// on `/usr/bin:/bin`.
    pub command: &'a [&'a str],
    /// The files to put into the working folder: names relative to it, and texts.
    pub files: &'a [(&'a str, &'a str)],
    /// Folders it may read besides the system's, at the same paths: for a toolchain that is not
    /// under `/usr`. They are absolute. The interpreter's own path must be the real one, since
    /// links to it do not exist inside.
    pub folders: &'a [&'a Path],
    /// What it can read from its standard input.
    pub stdin: &'a [u8],
}

/// How much a program may use. Exceeding a limit ends it, except for [`Limits::files`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the start to the end, the sandbox's own start (some 15 ms) included.
    pub time: Duration,
    /// Bytes that all processes together keep in memory. This is checked every few milliseconds. A
    /// process cannot allocate more than twice as much either, which the program sees as an error
    /// of its own.
    pub memory: u64,
    /// Bytes written to standard output and standard error together.
    pub output: usize,
    /// Bytes in the working folder, which is in memory too. A full folder is an error for the
    /// program and does not end it.
    pub files: u64,
    /// Processes at the same time, each thread counted.
    pub processes: usize,
}

impl Default for Limits {
    /// For a few small tests of one function: an interpreter starts in far less than a second and
    /// 50 MB; people read no more than a few pages of output; numeric libraries start a
    /// thread for each core.
    fn default() -> Self {
        Self {
            time: Duration::from_secs(5),
            memory: 512 << 20,
            output: 64 << 10,
            files: 16 << 20,
            processes: 64,
        }
    }
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// What it wrote to standard output, up to the limit.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error, up to the limit.
    pub stderr: Vec<u8>,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this code. A command that cannot be started gives 126 or 127, as in a shell.
    /// A program that ends because it cannot allocate memory is here too.
    Exited(i32),
    /// By this signal. As in a shell, this cannot be told from an exit with the signal's number
    /// plus 128.
    Killed(i32),
    /// It was ended at the time limit.
    Time,
    /// It was ended at the output limit.
    Output,
    /// It was ended at the process limit.
    Processes,
    /// It was ended at the memory limit.
    Memory,
    /// It was ended because it was cancelled.
    Cancelled,
}

/// Why there is no sandbox on this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSandbox {
    /// There is none for this kind of machine.
    #[error(
        "there is no sandbox for {} on {}: generated programs are run on Linux only \
         (x86-64 and ARM64)",
        std::env::consts::OS,
        std::env::consts::ARCH
    )]
    Machine,
    /// A program that it needs is not installed.
    #[error(
        "{program} is not on the PATH: install {package} (`apt install {package}`, \
         `dnf install {package}` or `pacman -S {package}`)"
    )]
    Missing {
        /// The name of the program.
        program: &'static str,
        /// The package it is in, the same in the large distributions.
        package: &'static str,
    },
    /// It is installed but does not work.
    #[error(
        "bubblewrap does not work here ({reason}); \
         `sysctl user.max_user_namespaces kernel.unprivileged_userns_clone \
         kernel.apparmor_restrict_unprivileged_userns` shows whether user namespaces are off, \
         and most containers forbid them"
    )]
    Broken {
        /// What it said.
        reason: String,
    },
}

/// The first program of that name in the absolute folders of `path`. Relative ones are skipped:
/// they depend on the current folder, which may be an untrusted project.
pub fn on_path(program: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

#[cfg(all(test, target_os = "linux"))]
pub(crate) mod tests;
