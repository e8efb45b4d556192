//! Which processor core a program runs on.
//!
//! It gets only one. Otherwise a program that forks as fast as it can would occupy all cores, and
//! we would not get to count its processes. The editor and the model have the others.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The core for the next program. Programs use the cores in turn, because programs that run at once
/// would slow each other down on the same one.
pub(super) fn next() -> u32 {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let cores = cores(list.unwrap_or_default().trim());
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    // Without a list it is the first, which all machines have.
    let turn = turn.checked_rem(cores.len()).unwrap_or_default();
    cores.get(turn).copied().unwrap_or_default()
}

/// The numbers in a list like `0-3,8`.
fn cores(list: &str) -> Vec<u32> {
    list.split(',')
        .filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse().ok()?..=last.parse().ok()?)
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read() {
        for (list, expected) in [
            ("0", vec![0]),
            ("0-3,8", vec![0, 1, 2, 3, 8]),
            ("5,7-8", vec![5, 7, 8]),
            ("", vec![]),
        ] {
            assert_eq!(cores(list), expected, "{list:?}");
        }
    }
}
