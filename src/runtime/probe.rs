//! Does in a child process what may end the process that does it, or never finish. A damaged
//! library can silently end the process that loads it; the end of the child is reported as an error.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::locate::{Located, Source};
use super::provider::Provider;
use super::release;
use super::{Runtime, RuntimeError, RuntimeOptions};
use crate::cache_folder::cache_folder;
use crate::download::Waiter;
use crate::verified::Record;

/// The hidden subcommand that the child runs, before the path of a library. It calls [`load`].
pub const SUBCOMMAND: &str = "probe-runtime";

/// Loading takes far less than a second from a warm disk.
const LIMIT: Duration = Duration::from_secs(60);

/// How often the child is checked. Loading takes some 30 ms.
const TICK: Duration = Duration::from_millis(2);

/// The child's part: from now on this process ends when its standard input is closed, which also
/// happens when the parent ends.
pub fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        // Not an orderly exit, which would wait for the loader.
        std::process::abort();
    });
}

/// Loads the library and does nothing else: the child's part.
///
/// # Errors
///
/// When it does not load.
pub fn load(library: &Path) -> Result<(), RuntimeError> {
    end_with_parent();
    let options = RuntimeOptions {
        library: Some(library.to_path_buf()),
        offline: true,
        provider: Provider::Cpu,
    };
    Runtime::load(&options, &mut |_: &str| {}).map(drop)
}

/// Returns why the library cannot be loaded, if loading it ends a process. A library that has
/// loaded in a child once is not checked again until it changes, and the official build, whose hash
/// was verified, never is.
pub(super) fn check(located: &Located, waiter: &dyn Waiter) -> Result<(), String> {
    if release::is_official(&located.path)
        || matches!(located.source, Source::Cache | Source::Fetched)
    {
        return Ok(());
    }
    let record = Record::in_folder(cache_folder().as_deref());
    let held = record.holds(&located.path, "loads as ONNX Runtime", || {
        let arguments = [SUBCOMMAND.as_ref(), located.path.as_os_str()];
        in_child(&arguments, LIMIT, waiter).map(drop)
    });
    held.or_else(|problem| match problem {
        Problem::Fatal(problem) => Err(format!("loading it {problem}")),
        // This process can try it itself, and its error says more.
        Problem::Unknown => Ok(()),
    })
}

/// Runs this program with `arguments`, and returns what it prints, which must be short. The child
/// calls [`end_with_parent`]; it is ended at the limit, and when its work is no longer wanted.
///
/// # Errors
///
/// See [`Problem`].
pub fn in_child(
    arguments: &[&OsStr],
    limit: Duration,
    waiter: &dyn Waiter,
) -> Result<String, Problem> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let printed = child.stdout.take();
    watch(child, limit, waiter)?;
    let mut text = String::new();
    if let Some(printed) = printed {
        printed.take(MOST_PRINTED).read_to_string(&mut text)?;
    }
    Ok(text)
}

/// A pipe holds more, so that the child need not wait for its reader.
const MOST_PRINTED: u64 = 4096;

/// Why the child's work is not known to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Problem {
    /// It ends the process that does it, or does not finish. The text goes on after its subject:
    /// `takes more than 60 s`.
    Fatal(String),
    /// The child could not tell.
    Unknown,
}

impl From<io::Error> for Problem {
    fn from(_: io::Error) -> Self {
        Self::Unknown
    }
}

/// Waits for the child, and ends it at the limit or when the library is no longer wanted.
fn watch(mut child: Child, limit: Duration, waiter: &dyn Waiter) -> Result<(), Problem> {
    let begun = Instant::now();
    let problem = loop {
        match child.try_wait() {
            Ok(Some(status)) => return outcome(status),
            Ok(None) if !waiter.is_wanted() => break "is no longer wanted".to_owned(),
            Ok(None) if begun.elapsed() < limit => std::thread::sleep(TICK),
            Ok(None) => break format!("takes more than {limit:?}"),
            Err(_) => return Err(Problem::Unknown),
        }
    };
    // This fails if the child has just ended.
    let _ = child.kill();
    let _ = child.wait();
    Err(Problem::Fatal(problem))
}

fn outcome(status: ExitStatus) -> Result<(), Problem> {
    match status.code() {
        Some(0) => Ok(()),
        // An error, or a usage error of an embedding program: neither is a crash.
        Some(1 | 2) => Err(Problem::Unknown),
        // Windows has exit codes for what is a signal elsewhere.
        _ => Err(Problem::Fatal(format!(
            "ends the process with {status}: it is damaged, or made for another machine"
        ))),
    }
}

#[cfg(all(test, unix))]
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
                    Problem::Fatal(problem) => {
                        problem.split_once(": it is").map(|(start, _)| start)
                    }
                    Problem::Unknown => None,
                });
            assert_eq!(actual, expected);
        };
        check(0, Ok(()));
        check(1 << 8, Err(None));
        check(2 << 8, Err(None));
        check(7, Err(Some("ends the process with signal: 7 (SIGBUS)")));
    }

    #[test]
    fn a_child_is_not_waited_for_forever() {
        struct Never;
        impl Waiter for Never {
            fn say(&mut self, _: &str) {}
            fn is_wanted(&self) -> bool {
                false
            }
        }
        let check = |limit, waiter: &dyn Waiter, expected: &str| {
            let child = Command::new("sleep").arg("1000").spawn().unwrap();
            let pid = rustix::process::Pid::from_child(&child);
            let problem = watch(child, limit, waiter).unwrap_err();
            assert_eq!(problem, Problem::Fatal(expected.to_owned()));
            let there = rustix::process::test_kill_process(pid);
            assert_eq!(there, Err(rustix::io::Errno::SRCH));
        };
        let short = Duration::from_millis(100);
        check(short, &|_: &str| {}, "takes more than 100ms");
        check(LIMIT, &Never, "is no longer wanted");
    }
}
