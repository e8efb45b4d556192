//! The processes of a sandbox, as `/proc` shows them from outside.
//!
//! `bwrap` has one child, the first process of the sandbox's own process namespace. All others
//! descend from it, since orphans become its children, and the kernel ends them with it.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// What the processes of a sandbox use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Processes, each thread counted.
    pub(super) processes: usize,
    /// Bytes in memory that are no file's; what two processes share counts twice.
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
        usage.memory += (field(&status, "RssAnon:") + field(&status, "RssShmem:")) << 10;
        if usage.processes > limit {
            break;
        }
        waiting.extend(children(process));
    }
    usage
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
fn children(process: Pid) -> Vec<Pid> {
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
