//! The filter of system calls, as a program for the kernel (classic BPF, see `seccomp(2)`).
//!
//! It refuses what evades the limits or leaves the namespaces and is not needed by small programs:
//! memory that cannot be counted from outside, more of the processor, other namespaces, all sockets
//! except those between the sandbox's own processes, the user's keys, and parts of the kernel with
//! a history of vulnerabilities. Everything else is allowed; the namespaces limit what it can
//! reach.
//!
//! What is refused fails with `ENOSYS`, so that programs fall back as on an old kernel. The C
//! library, for one, uses `clone` instead of `clone3`, whose arguments no filter can see.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

/// The calls that are refused whatever their arguments.
const REFUSED: &[c_long] = &[
    // Memory that belongs to no process and is in no file system with a size limit.
    libc::SYS_fanotify_init,
    libc::SYS_inotify_init1,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_inotify_init,
    libc::SYS_io_setup,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_shmget,
    // Pages that a pipe or a socket keeps after the process has released them.
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_vmsplice,
    // Other namespaces.
    libc::SYS_clone3,
    libc::SYS_setns,
    libc::SYS_unshare,
    // More of the processor: another core, or a session, to which some kernels give its own share.
    libc::SYS_sched_setaffinity,
    libc::SYS_setsid,
    // Keys, and parts of the kernel with a history of vulnerabilities.
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_ptrace,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
];

/// The calls that are refused if an argument (counted from zero) meets the test.
const REFUSED_IF: &[(c_long, u8, Test)] = &[
    // Shared memory that is not a file's: once a process unmaps it, no process shows it.
    (
        libc::SYS_mmap,
        3,
        Test::Has(libc::MAP_SHARED | libc::MAP_ANONYMOUS),
    ),
    // Any number of byte ranges of a file can be locked.
    (libc::SYS_fcntl, 1, Test::Is(libc::F_SETLK)),
    (libc::SYS_fcntl, 1, Test::Is(libc::F_SETLKW)),
    (libc::SYS_fcntl, 1, Test::Is(libc::F_OFD_SETLK)),
    (libc::SYS_fcntl, 1, Test::Is(libc::F_OFD_SETLKW)),
    // Each socket is counted with its default buffer, which must not grow.
    (libc::SYS_setsockopt, 2, Test::Is(libc::SO_SNDBUF)),
    (libc::SYS_setsockopt, 2, Test::Is(libc::SO_SNDBUFFORCE)),
    // Some reach outside the network namespace (`AF_VSOCK`).
    (libc::SYS_socket, 0, Test::IsNot(libc::AF_UNIX)),
    (libc::SYS_socketpair, 0, Test::IsNot(libc::AF_UNIX)),
    (libc::SYS_clone, 0, Test::Has(libc::CLONE_NEWCGROUP)),
    (libc::SYS_clone, 0, Test::Has(libc::CLONE_NEWIPC)),
    (libc::SYS_clone, 0, Test::Has(libc::CLONE_NEWNET)),
    (libc::SYS_clone, 0, Test::Has(libc::CLONE_NEWNS)),
    (libc::SYS_clone, 0, Test::Has(libc::CLONE_NEWPID)),
    (libc::SYS_clone, 0, Test::Has(libc::CLONE_NEWUSER)),
    (libc::SYS_clone, 0, Test::Has(libc::CLONE_NEWUTS)),
];

/// What an argument is tested for. The kernel only looks at the lower 32 bits of these arguments.
#[derive(Clone, Copy)]
enum Test {
    Is(i32),
    IsNot(i32),
    /// All these bits are set.
    Has(i32),
}

/// The filter as an array of `struct sock_filter`; `None` on a machine without one.
pub(super) fn filter() -> Option<Vec<u8>> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    for (call, argument, test) in REFUSED_IF {
        let rule = rule(*argument, *test)?;
        rules.entry(*call).or_default().push(rule);
    }
    let machine = ARCH.try_into().ok()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse(), machine).ok()?;
    let listed: BpfProgram = filter.try_into().ok()?;
    let program = refuse_x32().into_iter().chain(listed);
    let bytes = program.flat_map(|sock_filter { code, jt, jf, k }| {
        let ([a, b], [c, d, e, f]) = (code.to_ne_bytes(), k.to_ne_bytes());
        [a, b, jt, jf, c, d, e, f]
    });
    Some(bytes.collect())
}

fn refuse() -> SeccompAction {
    SeccompAction::Errno(libc::ENOSYS as u32)
}

fn rule(argument: u8, test: Test) -> Option<SeccompRule> {
    let (operator, value) = match test {
        Test::Is(value) => (SeccompCmpOp::Eq, value),
        Test::IsNot(value) => (SeccompCmpOp::Ne, value),
        Test::Has(bits) => (SeccompCmpOp::MaskedEq(u64::from(bits as u32)), bits),
    };
    let value = u64::from(value as u32);
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value);
    SeccompRule::new(vec![condition.ok()?]).ok()
}

/// Refuses the second numbering of x86-64 (x32), which would evade the list. A kernel without it
/// returns the same error.
fn refuse_x32() -> [sock_filter; 3] {
    const LOAD_NUMBER: (u16, u32) = (0x20, 0);
    const SKIP_ONE_UNLESS_GREATER_OR_EQUAL: (u16, u32) = (0x35, 0x4000_0000);
    let refuse = (0x06, u32::from(refuse()));
    [
        (LOAD_NUMBER, 0),
        (SKIP_ONE_UNLESS_GREATER_OR_EQUAL, 1),
        (refuse, 0),
    ]
    .map(|((code, k), jf)| sock_filter { code, jt: 0, jf, k })
}
