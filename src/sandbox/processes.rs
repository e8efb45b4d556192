//! The processes of a sandbox, as `/proc` shows them from outside.
//!
//! `bwrap` has one child, the first process of the sandbox's own process namespace. All others
//! descend from it, since orphans become its children, and the kernel ends them with it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// What the processes of a sandbox use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Processes, each thread counted.
    pub(super) processes: usize,
    /// Bytes: the pages of the processes that are no file's, also where they are swapped out, the
    /// tables of pages and the records of mappings. What two processes share counts twice.
    pub(super) memory: u64,
}

/// Whether the kernel tells the children of a process (`CONFIG_PROC_CHILDREN`).
pub(super) fn can_be_listed() -> bool {
    Path::new("/proc/thread-self/children").exists()
}

/// What the program in the sandbox of `bwrap` uses. It stops to count over `limit` processes: a
/// program that makes them faster than they can be counted would keep it for ever.
pub(super) fn usage(bwrap: Pid, limit: usize) -> Usage {
    let mut usage = Usage::default();
    let mut waiting: Vec<Pid> = children(bwrap).into_iter().flat_map(children).collect();
    while let Some(process) = waiting.pop() {
        // A process that has ended in the meantime uses nothing.
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        usage.processes += field(&status, "Threads:") as usize;
        let pages = [
            "RssAnon:",
            "RssShmem:",
            "VmSwap:",
            "HugetlbPages:",
            "VmPTE:",
        ];
        let kib: u64 = pages.iter().map(|name| field(&status, name)).sum();
        let bytes = (kib << 10).saturating_add(mappings(process));
        usage.memory = usage.memory.saturating_add(bytes);
        if usage.processes > limit {
            break;
        }
        waiting.extend(children(process));
    }
    usage
}

/// Bytes that the kernel needs to know a process's mappings. It allows 65,530, which with a limit of
/// 64 processes is a gigabyte that nothing else shows; more than any program here has reason for is
/// no end of bytes.
fn mappings(process: Pid) -> u64 {
    /// Of a `vm_area_struct` and its places in the trees, rounded up.
    const EACH: u64 = 384;
    const REASON: usize = 16 << 10;
    let Ok(maps) = File::open(format!("/proc/{process}/maps")) else {
        return 0;
    };
    // Not all at once: a long list would keep us from looking at what else there is.
    let lines = BufReader::new(maps).split(b'\n').take(REASON + 1);
    match lines.map_while(Result::ok).count() {
        count if count > REASON => u64::MAX,
        count => count as u64 * EACH,
    }
}

/// Ends all processes in the sandbox of `bwrap`, after which `bwrap` ends by itself. Does nothing
/// while there is none yet: `bwrap` itself must not be killed, since a child that it has just begun
/// would wait for it for ever.
///
/// `bwrap` must not have been waited for.
pub(super) fn kill(bwrap: Pid) {
    for first in children(bwrap) {
        // A number may be given anew, a descriptor is not: the child is the one meant if it still
        // is the child once the descriptor is open.
        let Ok(descriptor) = pidfd_open(first, PidfdFlags::empty()) else {
            continue;
        };
        if children(bwrap).contains(&first) {
            // It may have ended in the meantime.
            let _ = pidfd_send_signal(descriptor, Signal::KILL);
        }
    }
}

/// The children of all threads of a process.
pub(super) fn children(process: Pid) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    threads
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|children| pids(&children))
        .collect()
}

fn pids(text: &str) -> Vec<Pid> {
    let words = text.split_ascii_whitespace();
    words
        .filter_map(|word| word.parse().ok().and_then(Pid::from_raw))
        .collect()
}

/// The number in a line of `/proc/PID/status`; zero where there is none.
fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}
