//! A bound on the processes of a sandbox that the kernel keeps, where control groups let us set one.
//!
//! A program that forks as fast as it can starts processes faster than they can be counted. Where
//! there is no control group for us, the count alone has to end it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The processes of `bwrap`: itself, the first one inside, and one while it starts if it is setuid
/// root.
const OWN: usize = 3;

/// A control group of our own, removed when dropped.
#[derive(Debug)]
pub(super) struct ProcessBound(PathBuf);

impl ProcessBound {
    /// A group that holds `limit` processes besides those of `bwrap`; nothing if there can be no such
    /// group here.
    pub(super) fn new(limit: usize) -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let parent = parent(&fs::read_to_string("/proc/self/cgroup").ok()?)?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let group = parent.join(format!("interline-{}-{number}", std::process::id()));
        fs::create_dir(&group).ok()?;
        let bound = Self(group);
        let most = limit.saturating_add(OWN);
        fs::write(bound.0.join("pids.max"), most.to_string()).ok()?;
        Some(bound)
    }

    /// The file to which a process writes its number to enter the group, before it starts others.
    pub(super) fn entrance(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    /// Whether the kernel has refused a process.
    ///
    /// # Errors
    ///
    /// When the group cannot be read.
    pub(super) fn is_exceeded(&self) -> io::Result<bool> {
        let events = fs::read_to_string(self.0.join("pids.events"))?;
        let refused = events.lines().find_map(|line| line.strip_prefix("max "));
        Ok(refused.is_some_and(|count| count.trim() != "0"))
    }
}

impl Drop for ProcessBound {
    fn drop(&mut self) {
        // The kernel may need a moment to see that the last process has ended.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        tracing::debug!(group = %self.0.display(), "a control group is left");
    }
}

/// The group of this process in which groups with a bound on processes can be made, by the lines of
/// `/proc/self/cgroup`.
fn parent(groups: &str) -> Option<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let first = groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let has_pids = controllers
            .split(',')
            .any(|controller| controller == "pids");
        has_pids.then(|| root.join("pids").join(path.trim_start_matches('/')))
    });
    let second = || {
        let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let group = root.join(path);
        let controllers = fs::read_to_string(group.join("cgroup.subtree_control")).ok()?;
        let has_pids = controllers.split_whitespace().any(|name| name == "pids");
        has_pids.then_some(group)
    };
    first.or_else(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_with_the_controller_is_found() {
        for (groups, expected) in [
            ("9:memory:/a\n8:pids:/\n0::/\n", Some("/sys/fs/cgroup/pids")),
            ("3:cpu,pids:/a/b\n", Some("/sys/fs/cgroup/pids/a/b")),
            ("0::/no/such/group\n", None),
            ("", None),
        ] {
            assert_eq!(
                parent(groups).as_deref(),
                expected.map(Path::new),
                "{groups:?}"
            );
        }
    }
}
