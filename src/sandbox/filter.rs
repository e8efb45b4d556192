//! The filter of system calls, as a program for the kernel (classic BPF, see `seccomp(2)`).
//!
//! It forbids what gets around the limits or out of the namespaces and no small program needs:
//! memory that belongs to no process and is not in a sized file system (`memfd_create`, System V),
//! more of the processor (another core; a session, which some kernels give a share of its own), the
//! user's keys, and parts of the kernel with a record of holes. All else is allowed; what may be
//! reached by it is the namespaces' business.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, sock_filter};

/// The calls that are forbidden whatever their arguments.
const FORBIDDEN: [libc::c_long; 14] = [
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_msgget,
    libc::SYS_perf_event_open,
    libc::SYS_ptrace,
    libc::SYS_request_key,
    libc::SYS_sched_setaffinity,
    libc::SYS_setsid,
    libc::SYS_shmget,
    libc::SYS_userfaultfd,
];

/// The filter as an array of `struct sock_filter`; nothing for a machine it is not known for.
pub(super) fn filter() -> Option<Vec<u8>> {
    // Programs take another way then, as on an old kernel.
    let unknown = SeccompAction::Errno(libc::ENOSYS as u32);
    let rules: BTreeMap<i64, Vec<SeccompRule>> =
        FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
    let machine = ARCH.try_into().ok()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, unknown, machine).ok()?;
    let listed: BpfProgram = filter.try_into().ok()?;
    let program = one_numbering().into_iter().chain(listed);
    let bytes = program.flat_map(|sock_filter { code, jt, jf, k }| {
        let ([a, b], [c, d, e, f]) = (code.to_ne_bytes(), k.to_ne_bytes());
        [a, b, jt, jf, c, d, e, f]
    });
    Some(bytes.collect())
}

/// Refuses the second numbering of x86-64 (x32), which would get around the list. A kernel without
/// it says the same.
fn one_numbering() -> [sock_filter; 3] {
    const LOAD_NUMBER: (u16, u32) = (0x20, 0);
    const SKIP_ONE_UNLESS_GREATER_OR_EQUAL: (u16, u32) = (0x35, 0x4000_0000);
    let refuse = (0x06, u32::from(SeccompAction::Errno(libc::ENOSYS as u32)));
    [
        (LOAD_NUMBER, 0),
        (SKIP_ONE_UNLESS_GREATER_OR_EQUAL, 1),
        (refuse, 0),
    ]
    .map(|((code, k), jf)| sock_filter { code, jt: 0, jf, k })
}
