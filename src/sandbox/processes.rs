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
    /// Bytes: the pages of the processes that do not belong to files, even if swapped out, the page
    /// tables and the records of mappings. What two processes share counts twice.
    pub(super) memory: u64,
}

/// Whether the kernel lists the children of a process (`CONFIG_PROC_CHILDREN`).
pub(super) fn can_be_listed() -> bool {
    Path::new("/proc/thread-self/children").exists()
}

/// What the program in the sandbox of `bwrap` uses. It stops counting above `limit` processes: a
/// program that starts them faster than they can be counted would keep it busy forever. `is_over`
/// ends it earlier.
pub(super) fn usage(bwrap: Pid, limit: usize, is_over: impl Fn() -> bool) -> Usage {
    let mut usage = Usage::default();
    let mut waiting: Vec<Pid> = children(bwrap).into_iter().flat_map(children).collect();
    let mut counted = Vec::new();
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
        usage.memory = usage.memory.saturating_add(kib << 10);
        if usage.processes > limit {
            return usage;
        }
        counted.push(process);
        waiting.extend(children(process));
    }
    // Only now: reading the mappings of processes that fork waits for their forks, and meanwhile there
    // would be thousands more.
    for process in counted {
        if is_over() {
            break;
        }
        usage.memory = usage.memory.saturating_add(mappings(process));
    }
    usage
}

/// Bytes that the kernel needs to record a process's mappings. It allows 65,530, which with a limit
/// of 64 processes is a gigabyte that nothing else shows. More than any program here has reason for
/// counts as the largest number of bytes.
fn mappings(process: Pid) -> u64 {
    /// For a `vm_area_struct` and its tree nodes, rounded up.
    const EACH: u64 = 384;
    const REASON: usize = 16 << 10;
    let Ok(maps) = File::open(format!("/proc/{process}/maps")) else {
        return 0;
    };
    // Only up to a limit: a long list would keep us from checking everything else.
    let lines = BufReader::new(maps).split(b'\n').take(REASON + 1);
    match lines.map_while(Result::ok).count() {
        count if count > REASON => u64::MAX,
        count => count as u64 * EACH,
    }
}

/// Ends all processes in the sandbox of `bwrap`, after which `bwrap` ends by itself. Does nothing
/// while there is none yet: `bwrap` itself must not be killed, since a child that it has just
/// started would wait for it forever.
///
/// `bwrap` must not have been reaped.
pub(super) fn kill(bwrap: Pid) {
    for first in children(bwrap) {
        // A process number may be reused, a descriptor is not: if this is still the child once the
        // descriptor is open, the descriptor is the child's.
        let Ok(descriptor) = pidfd_open(first, PidfdFlags::empty()) else {
            continue;
        };
        if children(bwrap).contains(&first) {
            // It may have ended in the meantime.
            let _ = pidfd_send_signal(descriptor, Signal::KILL);
        }
    }
}

/// Whether a process has ended: it is a zombie, or nothing.
pub(super) fn has_ended(process: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.is_none_or(|state| state.trim_start().starts_with(['Z', 'X']))
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

/// The number in a line of `/proc/PID/status`; zero if there is none.
fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}
