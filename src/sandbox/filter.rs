//! The filter of system calls, as a program for the kernel (classic BPF, see `seccomp(2)`).
//!
//! It forbids what gets around the limits or out of the namespaces and no small program needs:
//! memory that belongs to no process and is not in a sized file system (`memfd_create`, System V),
//! more of the processor (another core; a session, which some kernels give a share of its own), the
//! user's keys, and parts of the kernel with a record of holes. All else is allowed; what may be
//! reached by it is the namespaces' business.

/// `AUDIT_ARCH` of this machine and the numbers of the forbidden calls.
#[cfg(target_arch = "x86_64")]
const MACHINE: Option<(u32, &[u32])> = Some((
    0xC000_003E,
    &[
        29,  // shmget
        68,  // msgget
        101, // ptrace
        112, // setsid
        203, // sched_setaffinity
        248, // add_key
        249, // request_key
        250, // keyctl
        298, // perf_event_open
        319, // memfd_create
        321, // bpf
        323, // userfaultfd
        425, // io_uring_setup
        447, // memfd_secret
    ],
));
#[cfg(target_arch = "aarch64")]
const MACHINE: Option<(u32, &[u32])> = Some((
    0xC000_00B7,
    &[
        117, // ptrace
        122, // sched_setaffinity
        157, // setsid
        186, // msgget
        194, // shmget
        217, // add_key
        218, // request_key
        219, // keyctl
        241, // perf_event_open
        279, // memfd_create
        280, // bpf
        282, // userfaultfd
        425, // io_uring_setup
        447, // memfd_secret
    ],
));
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const MACHINE: Option<(u32, &[u32])> = None;

/// Loads a word of `struct seccomp_data`.
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

const OFFSET_OF_NUMBER: u32 = 0;
const OFFSET_OF_ARCHITECTURE: u32 = 4;

const ALLOW: u32 = 0x7FFF_0000;
/// Fails with `ENOSYS`: programs take another way then, as on an old kernel.
const UNKNOWN: u32 = 0x0005_0000 | 38;

/// Where the second numbering of x86-64 begins (x32), which would get around the list.
const SECOND_NUMBERING: u32 = 0x4000_0000;

/// The filter as an array of `struct sock_filter`; nothing for a machine it is not known for.
pub(super) fn filter() -> Option<Vec<u8>> {
    let (architecture, forbidden) = MACHINE?;
    let mut program = Vec::new();
    let mut push = |code: u16, if_true: u8, if_false: u8, value: u32| {
        program.extend(code.to_ne_bytes());
        program.extend([if_true, if_false]);
        program.extend(value.to_ne_bytes());
    };
    push(LOAD, 0, 0, OFFSET_OF_ARCHITECTURE);
    push(JUMP_IF_EQUAL, 1, 0, architecture);
    push(RETURN, 0, 0, UNKNOWN);
    push(LOAD, 0, 0, OFFSET_OF_NUMBER);
    push(JUMP_IF_GREATER_OR_EQUAL, 0, 1, SECOND_NUMBERING);
    push(RETURN, 0, 0, UNKNOWN);
    for &number in forbidden {
        push(JUMP_IF_EQUAL, 0, 1, number);
        push(RETURN, 0, 0, UNKNOWN);
    }
    push(RETURN, 0, 0, ALLOW);
    Some(program)
}
