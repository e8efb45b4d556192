//! Finds `bwrap` and runs programs in it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::{FdFlags, fcntl_setfd};

use super::cores;
use super::filter::filter;
use super::process_bound::ProcessBound;
use super::processes;
use super::watch::watch;
use super::{Ending, Limits, NoSandbox, Outcome, Program, on_path};

/// Runs programs in a `bwrap` that has been tried and works.
#[derive(Clone, Debug)]
pub struct Sandbox {
    bwrap: PathBuf,
    bash: PathBuf,
    taskset: PathBuf,
    filter: Vec<u8>,
    /// Whether `bwrap` can forbid further user namespaces inside, as it can since 0.8.
    pub(super) disables_userns: bool,
}

/// The working folder, which is `/tmp` too.
const WORK: &str = "/work";

/// Where the C library keeps semaphores, in memory too.
const SHARED: &str = "/dev/shm";

/// The parts of the system that programs need. Of `/etc` only what links lead through and what
/// lists the libraries: the rest is about this machine and its users.
const SYSTEM: [&str; 8] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/alternatives",
    "/etc/ld.so.cache",
];

/// All that a program finds in its environment, except for what a shell adds (`PWD`).
const ENVIRONMENT: [(&str, &str); 4] = [
    ("PATH", "/usr/bin:/bin"),
    ("HOME", WORK),
    ("TMPDIR", WORK),
    ("LANG", "C.UTF-8"),
];

/// Enters the control group of `$2`, if there is one, while it is the only process. Closes all
/// descriptors but the standard ones and those named in `$1`, then becomes the command. `bwrap` passes
/// on what it gets, and a C library or an editor may have left us one that survives `exec`. If it is
/// a folder's, it would be a way out.
const PREPARE: &str = r#"
if [ -n "$2" ]; then echo $$ 2>&- >"$2"; fi
for fd in /proc/self/fd/*; do
    fd=${fd##*/}
    case " 0 1 2 $1 " in *" $fd "*) ;; *) exec {fd}>&- ;; esac
done
shift 2
exec "$@""#;

/// Sets the limits that the kernel enforces (for each process `$1` of data in KiB, `$2` of a file
/// in KiB and `$3` of processor time in seconds; `$4` of processes) and prints `READY`. Then it
/// becomes the program, with a lower priority than ours, so that we get to run while it forks.
///
/// The limit of processes has no effect for root, which is why we also count them. Before Linux
/// 5.14 it counted everything the user runs.
const LIMIT: &str = r#"
ulimit -c 0 && ulimit -n 256 && ulimit -d "$1" && ulimit -f "$2" && ulimit -t "$3" && ulimit -u "$4" || exit
shift 4
echo
exec nice -n 5 "$@""#;

/// What standard output begins with once the sandbox is set up. The exit code cannot show it:
/// `bwrap` itself fails with code 1, which many programs use.
const READY: &[u8] = b"\n";

impl Sandbox {
    /// Finds `bwrap` and checks that it works.
    pub fn find() -> Result<Self, NoSandbox> {
        Self::find_on(&env::var_os("PATH").unwrap_or_default())
    }

    pub(super) fn find_on(path: &OsStr) -> Result<Self, NoSandbox> {
        let filter = filter().ok_or(NoSandbox::Machine)?;
        let find = |program, package| {
            on_path(program, path).ok_or(NoSandbox::Missing { program, package })
        };
        let mut sandbox = Self {
            bwrap: find("bwrap", "bubblewrap")?,
            bash: find("bash", "bash")?,
            taskset: find("taskset", "util-linux")?,
            filter,
            disables_userns: true,
        };
        let broken = |reason: String| NoSandbox::Broken { reason };
        if !processes::can_be_listed() {
            return Err(broken(
                "the kernel does not list the children of a process".to_owned(),
            ));
        }
        if sandbox.check().is_err() {
            sandbox.disables_userns = false;
            sandbox.check().map_err(broken)?;
        }
        Ok(sandbox)
    }

    fn check(&self) -> Result<(), String> {
        let program = Program {
            command: &["true"],
            ..Program::default()
        };
        match self.run(&program, &Limits::default(), || false) {
            Ok(outcome) if outcome.ending == Ending::Exited(0) => Ok(()),
            Ok(outcome) => {
                let said = String::from_utf8_lossy(&outcome.stderr);
                Err(format!("`true`: {:?} {}", outcome.ending, said.trim()))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Runs a program to its end. `cancelled` is called again and again, and ends it by returning
    /// true.
    ///
    /// # Errors
    ///
    /// When the sandbox cannot be set up. Whatever the program does is not an error.
    pub fn run(
        &self,
        program: &Program<'_>,
        limits: &Limits,
        cancelled: impl Fn() -> bool,
    ) -> io::Result<Outcome> {
        // Files without a name, which need not be removed.
        let filter = inherited(&self.filter)?;
        let files = program
            .files
            .iter()
            .map(|(name, text)| Ok((inside(name)?, inherited(text.as_bytes())?)))
            .collect::<io::Result<Vec<_>>>()?;
        let mut kept = vec![filter.as_raw_fd().to_string()];
        kept.extend(files.iter().map(|(_, file)| file.as_raw_fd().to_string()));

        let bound = ProcessBound::new(limits.processes);
        let entrance = bound.as_ref().map(ProcessBound::entrance);

        let child = Command::new(&self.bash)
            .args(["--norc", "--noprofile", "-c", PREPARE, "bash"])
            .arg(kept.join(" "))
            .arg(entrance.unwrap_or_default())
            .arg(&self.taskset)
            .args(["-c", &cores::next().to_string()])
            .arg(&self.bwrap)
            .args(self.view(program, limits))
            .args(["--seccomp", &filter.as_raw_fd().to_string()])
            .args(files.iter().flat_map(|(name, file)| {
                let descriptor = file.as_raw_fd().to_string().into();
                [
                    "--perms".into(),
                    "0644".into(),
                    "--file".into(),
                    descriptor,
                    name.clone(),
                ]
            }))
            .args([
                "--",
                "/bin/bash",
                "--norc",
                "--noprofile",
                "-c",
                LIMIT,
                "bash",
            ])
            .args(limits_of_each(limits))
            .args(program.command)
            // The program can see the environment and folder of the first process inside.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = limits.output.saturating_add(READY.len());
        let limits = Limits { output, ..*limits };
        let folders = &[WORK, SHARED];
        let bound = bound.as_ref();
        let mut outcome = watch(child, program.stdin, &limits, bound, folders, cancelled)?;

        if outcome.stdout.starts_with(READY) {
            outcome.stdout.drain(..READY.len());
        } else if let Ending::Exited(_) | Ending::Killed(_) = outcome.ending {
            let said = String::from_utf8_lossy(&outcome.stderr);
            return Err(io::Error::other(said.trim().to_owned()));
        }
        Ok(outcome)
    }

    /// The arguments for `bwrap` that say what a program sees.
    fn view(&self, program: &Program<'_>, limits: &Limits) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |words: &str| arguments.extend(words.split(' ').map(Into::into));
        // Its own session keeps it from typing into our terminal.
        add("--unshare-all --unshare-user --uid 1000 --gid 1000 --hostname sandbox --cap-drop ALL");
        add("--new-session --die-with-parent");
        if self.disables_userns {
            add("--disable-userns");
        }
        for (name, value) in ENVIRONMENT {
            add(&format!("--setenv {name} {value}"));
        }
        let files = limits.files;
        add(&format!(
            "--size {files} --tmpfs {WORK} --symlink .{WORK} /tmp"
        ));
        // Read-only, since for the files in `/proc/sys` root inside is root outside.
        add("--proc /proc --remount-ro /proc");
        // The rest of `/dev` would be a folder without a limit, so it is read-only. A mapping of
        // `/dev/zero` is memory that cannot be counted, so it exists but cannot be opened.
        add(&format!(
            "--dev /dev --size {files} --tmpfs {SHARED} --ro-bind /dev/null /dev/zero --remount-ro /dev"
        ));
        for path in SYSTEM {
            if let Ok(target) = fs::read_link(path) {
                arguments.extend(["--symlink".into(), target.into(), path.into()]);
            } else {
                arguments.extend(["--ro-bind-try", path, path].map(Into::into));
            }
        }
        for path in program.folders {
            arguments.extend(["--ro-bind".into(), path.into(), path.into()]);
        }
        arguments.extend(["--remount-ro", "/", "--chdir", WORK].map(Into::into));
        arguments
    }
}

/// The arguments of `LIMIT`. Memory, time and processes are doubled, so that we notice which limit
/// is reached before the program does. That of time is for when we cannot watch, because we are
/// stopped.
fn limits_of_each(limits: &Limits) -> [String; 4] {
    let data = limits.memory.saturating_mul(2) >> 10;
    let file = limits.files >> 10;
    let seconds = limits.time.as_secs().saturating_add(1).saturating_mul(2);
    let processes = limits.processes.saturating_mul(2) as u64;
    [data, file, seconds, processes].map(|number| number.to_string())
}

/// The path of a file in the working folder. Fails for a name that leads out of it.
fn inside(name: &str) -> io::Result<OsString> {
    let path = Path::new(name);
    let mut components = path.components().peekable();
    let there = components.peek().is_some();
    if there && components.all(|part| matches!(part, Component::Normal(_))) {
        Ok(Path::new(WORK).join(path).into())
    } else {
        let message = format!("{name:?} is not a name for a file in the working folder");
        Err(io::Error::new(io::ErrorKind::InvalidInput, message))
    }
}

/// A file with these bytes that the next process inherits.
fn inherited(bytes: &[u8]) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    file.rewind()?;
    fcntl_setfd(&file, FdFlags::empty())?;
    Ok(file)
}
