//! Loads a library in a child process first. A damaged one can end the process that loads it
//! without a word; the child's end is told as an error.

use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use super::locate::{Located, Source};
use super::release::Build;
use super::{Runtime, RuntimeError, RuntimeOptions};
use crate::cache_folder::cache_folder;
use crate::verified::Record;

/// The hidden subcommand that the child is: the path of a library follows it. Its `run` is [`load`].
pub const SUBCOMMAND: &str = "probe-runtime";

/// Loads the library, and nothing else: the child's part.
///
/// # Errors
///
/// When it does not load.
pub fn load(library: &Path) -> Result<(), RuntimeError> {
    let options = RuntimeOptions {
        library: Some(library.to_path_buf()),
        offline: true,
        provider: super::Provider::Cpu,
    };
    Runtime::load(&options, &mut |_: &str| {}).map(drop)
}

/// Answers why the library cannot be loaded, if loading it ends a process. A library that was loaded
/// so once is not again until it changes, and the official build, whose hash was verified, never.
pub(super) fn check(located: &Located) -> Result<(), String> {
    let official = Build::for_this_machine().is_some_and(|build| build.has_size_of(&located.path));
    if official || matches!(located.source, Source::Cache | Source::Fetched) {
        return Ok(());
    }
    let record = Record::in_folder(cache_folder().as_deref());
    let held = record.holds(&located.path, "loads as ONNX Runtime", || {
        let status = Command::new(std::env::current_exe()?)
            .arg(SUBCOMMAND)
            .arg(&located.path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        outcome(status)
    });
    held.or_else(|problem| match problem {
        Problem::Crash(problem) => Err(problem),
        // This process can find out by itself, and says more.
        Problem::Unknown => Ok(()),
    })
}

/// Why it is not known that the library loads.
#[derive(Debug, PartialEq, Eq)]
enum Problem {
    /// It does not.
    Crash(String),
    /// The child could not say so.
    Unknown,
}

impl From<io::Error> for Problem {
    fn from(_: io::Error) -> Self {
        Self::Unknown
    }
}

fn outcome(status: ExitStatus) -> Result<(), Problem> {
    match status.code() {
        Some(0) => Ok(()),
        // An error, or a usage error of an embedding program: both are said in words.
        Some(1 | 2) => Err(Problem::Unknown),
        // Windows has codes for what is a signal elsewhere.
        _ => Err(Problem::Crash(format!(
            "loading it ends the process with {status}: it is damaged, or made for another machine"
        ))),
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn only_a_crash_is_a_verdict() {
        let check = |raw: i32, expected: Result<(), Option<&str>>| {
            let actual = outcome(ExitStatus::from_raw(raw));
            let actual = actual
                .as_ref()
                .map(|&()| ())
                .map_err(|problem| match problem {
                    Problem::Crash(problem) => {
                        problem.split_once(": it is").map(|(start, _)| start)
                    }
                    Problem::Unknown => None,
                });
            assert_eq!(actual, expected);
        };
        check(0, Ok(()));
        check(1 << 8, Err(None));
        check(2 << 8, Err(None));
        check(
            7,
            Err(Some("loading it ends the process with signal: 7 (SIGBUS)")),
        );
    }
}
