//! Memory of a sandbox that belongs to no process: files in memory and their names, and the buffers
//! of sockets.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, fstatvfs, open};
use rustix::process::Pid;

use super::processes::{children, has_ended};

/// Bytes that the kernel needs for an empty file, link or folder with its name, rounded up.
const NAME: u64 = 1 << 10;

/// The memory of one sandbox. It can be measured while the sandbox exists.
#[derive(Debug)]
pub(super) struct KernelMemory {
    folders: Vec<OwnedFd>,
    sockets: File,
    /// The most bytes that one socket can keep.
    socket: u64,
}

impl KernelMemory {
    /// Opens the in-memory folders of the sandbox of `bwrap`, whose program must have been started:
    /// earlier they would be ours. `None` if the program has ended in the meantime.
    ///
    /// # Errors
    ///
    /// When they cannot be opened, so that it could not be known when the limit is reached.
    pub(super) fn open(bwrap: Pid, folders: &[&str]) -> io::Result<Option<Self>> {
        // The first process can be inaccessible if `bwrap` is installed setuid root.
        let first = children(bwrap);
        let processes = first
            .iter()
            .copied()
            .chain(first.iter().copied().flat_map(children));
        let mut result = Ok(None);
        for process in processes {
            let opened = Self::of(process, folders);
            // If it still exists, its number has not been reused for another.
            if children(bwrap) != first {
                return Ok(None);
            }
            match opened {
                Ok(opened) => return Ok(Some(opened)),
                // A process that has ended has no folders any more, although it still has a number.
                Err(_) if has_ended(process) => {}
                Err(error) => result = Err(error),
            }
        }
        result
    }

    fn of(process: Pid, folders: &[&str]) -> io::Result<Self> {
        let folder = |path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            open(format!("/proc/{process}/root{path}"), flags, Mode::empty())
        };
        let buffer = fs::read_to_string("/proc/sys/net/core/wmem_default")?;
        let buffer: u64 = buffer.trim().parse().map_err(io::Error::other)?;
        Ok(Self {
            folders: folders
                .iter()
                .map(|path| folder(*path))
                .collect::<Result<_, _>>()?,
            sockets: File::open(format!("/proc/{process}/net/sockstat"))?,
            // A message is accepted as long as the buffer is not full, and can be as large as the
            // buffer.
            socket: 2 * buffer + (4 << 10),
        })
    }

    /// Bytes in use.
    pub(super) fn used(&mut self) -> io::Result<u64> {
        let mut bytes = 0;
        for folder in &self.folders {
            let found = fstatvfs(folder)?;
            bytes += (found.f_blocks - found.f_bfree) * found.f_frsize;
            bytes += (found.f_files - found.f_ffree) * NAME;
        }
        let mut text = String::new();
        self.sockets.rewind()?;
        self.sockets.read_to_string(&mut text)?;
        let sockets = text.strip_prefix("sockets: used ").unwrap_or_default();
        let sockets = sockets.lines().next().unwrap_or_default().parse::<u64>();
        Ok(bytes + sockets.map_err(io::Error::other)? * self.socket)
    }
}
