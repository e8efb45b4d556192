//! Hostile programs, each a real one, and how they end.
//!
//! `Run` is one run of a Python program; `end` runs it, and fails if anything is left of it. Each
//! run has a unique word in its command line, by which its processes are found.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::*;

static SANDBOX: LazyLock<Result<Sandbox, NoSandbox>> = LazyLock::new(Sandbox::find);

/// Whether a test has no sandbox to run in, which this reports. If `CI` is set, it is a failure.
pub(crate) fn is_skipped() -> bool {
    let Err(reason) = &*SANDBOX else {
        return false;
    };
    assert!(env::var_os("CI").is_none(), "{reason}");
    let test = thread::current();
    // Not by a macro: what those print is shown for failures only.
    let _ = writeln!(
        io::stderr(),
        "skipped: {} needs a sandbox, and {reason}",
        test.name().unwrap_or_default()
    );
    true
}

fn sandbox() -> &'static Sandbox {
    SANDBOX.as_ref().unwrap()
}

/// The real path of Python, and the folder with everything that belongs to it.
static PYTHON: LazyLock<(String, PathBuf)> = LazyLock::new(|| {
    let tell = "import os, sys; print(os.path.realpath(sys.executable)); print(sys.base_prefix)";
    let output = Command::new("python3").args(["-c", tell]).output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let (path, folder) = output.trim().split_once('\n').unwrap();
    (path.to_owned(), folder.into())
});

struct Run<'a> {
    text: &'a str,
    arguments: Vec<&'a str>,
    stdin: Vec<u8>,
    limits: Limits,
}

/// A program in Python, with enough time for a slow machine.
fn python(text: &str) -> Run<'_> {
    Run {
        text,
        arguments: Vec::new(),
        stdin: Vec::new(),
        limits: Limits {
            time: Duration::from_secs(60),
            ..Limits::default()
        },
    }
}

impl<'a> Run<'a> {
    fn with(mut self, arguments: &[&'a str]) -> Self {
        self.arguments.extend(arguments);
        self
    }

    fn stdin(mut self, stdin: impl Into<Vec<u8>>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// For programs that should reach the time limit after they have started.
    fn short(mut self) -> Self {
        self.limits.time = Duration::from_secs(1);
        self
    }

    fn end(self) -> Outcome {
        self.end_when(|_| false)
    }

    /// `cancelled` gets the word by which the run's processes are found.
    fn end_when(self, cancelled: impl Fn(&str) -> bool) -> Outcome {
        self.end_in(sandbox(), cancelled)
    }

    fn end_in(self, sandbox: &Sandbox, cancelled: impl Fn(&str) -> bool) -> Outcome {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mark = format!("sandboxed-{}-{number}", std::process::id());
        let mut command = vec![PYTHON.0.as_str(), "-I", "main.py"];
        command.extend(&self.arguments);
        command.push(&mark);
        let program = Program {
            command: &command,
            files: &[("main.py", self.text)],
            folders: &[&PYTHON.1],
            stdin: &self.stdin,
        };
        let outcome = sandbox.run(&program, &self.limits, || cancelled(&mark));
        assert_eq!(living(&mark), Vec::<String>::new(), "left by {}", self.text);
        outcome.unwrap()
    }
}

/// The command lines of the processes with this word in it.
fn living(mark: &str) -> Vec<String> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(mark))
        .collect()
}

fn said(outcome: &Outcome) -> String {
    let said = [&*outcome.stdout, &*outcome.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

#[track_caller]
fn check(run: Run<'_>, ending: Ending, expected: &str) {
    let outcome = run.end();
    assert_eq!(
        (said(&outcome).as_str(), outcome.ending),
        (expected, ending)
    );
}

#[test]
fn a_program_reads_prints_and_exits() {
    if is_skipped() {
        return;
    }
    check(
        python("print(input()[::-1])").stdin("abc\n"),
        Ending::Exited(0),
        "cba\n",
    );
    check(python("raise SystemExit(3)"), Ending::Exited(3), "");
    check(
        python("import os; os.kill(os.getpid(), 11)"),
        Ending::Killed(11),
        "",
    );
    let imports = python("import json, decimal, ssl, multiprocessing as m; m.Lock(); print(1)");
    check(imports, Ending::Exited(0), "1\n");
    // The working folder is its own, and so is the folder for temporary files.
    let writes =
        "import os; open('/tmp/a', 'w').close(); os.remove('main.py'); print(os.listdir())";
    check(python(writes), Ending::Exited(0), "['a']\n");
}

#[test]
fn files_are_put_into_the_folder() {
    if is_skipped() {
        return;
    }
    let files = [("a b/c.txt", "deep"), ("ü", "wide")];
    let program = Program {
        command: &["cat", "a b/c.txt", "ü"],
        files: &files,
        ..Program::default()
    };
    let outcome = sandbox()
        .run(&program, &Limits::default(), || false)
        .unwrap();
    assert_eq!(said(&outcome), "deepwide");
    for name in ["", "/etc/passwd", "../a", "a/../../b", "."] {
        let files = [(name, "")];
        let program = Program {
            files: &files,
            ..program
        };
        let error = sandbox()
            .run(&program, &Limits::default(), || false)
            .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{name:?}");
    }
}

#[test]
fn a_program_and_a_sandbox_that_cannot_start_differ() {
    if is_skipped() {
        return;
    }
    let nothing = Program {
        command: &["no-such-program"],
        ..Program::default()
    };
    let outcome = sandbox()
        .run(&nothing, &Limits::default(), || false)
        .unwrap();
    assert_eq!(outcome.ending, Ending::Exited(127));
    let nowhere = Program {
        command: &["true"],
        folders: &[Path::new("/no/such/folder")],
        ..Program::default()
    };
    let error = sandbox()
        .run(&nowhere, &Limits::default(), || false)
        .unwrap_err();
    assert!(error.to_string().contains("/no/such/folder"), "{error}");
}

#[test]
fn too_many_processes_are_ended() {
    if is_skipped() {
        return;
    }
    for text in [
        "import os\nwhile True: os.fork()",
        "import os\nos.execv('/bin/sh', ['sh', '-c', 'f() { f | f; }; f', *os.sys.argv])",
        // Each in its own session, to which some kernels give its own share of the processor.
        "import os\nwhile True:\n  try: os.fork() or os.setsid()\n  except OSError: pass",
        // Threads, and processes whose parents are gone.
        "import threading, signal\nwhile True: threading.Thread(target=signal.pause).start()",
        "import os, signal\nwhile True:\n  if os.fork() == 0:\n    if os.fork(): os._exit(0)\n    signal.pause()",
    ] {
        // Its time is short, so that it does not take down the machine if the limit fails.
        let mut run = python(text);
        run.limits.time = Limits::default().time;
        assert_eq!(run.end().ending, Ending::Processes, "{text}");
    }
}

#[test]
fn time_has_a_limit() {
    if is_skipped() {
        return;
    }
    let stubborn = "
import os, signal
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(number, signal.SIG_IGN)
os.fork()
try: os.setsid()
except OSError: pass
while True: pass";
    for text in [
        "while True: pass",
        "import signal; signal.pause()",
        "import os; os.close(0); os.close(1); os.close(2)\nwhile True: pass",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        stubborn,
    ] {
        // More than a pipe holds, and it is never read.
        let run = python(text).stdin(vec![b'a'; 1 << 20]).short();
        check(run, Ending::Time, "");
    }
}

#[test]
fn the_kernel_limits_processor_time_too() {
    if is_skipped() {
        return;
    }
    let text = "import resource; print(resource.getrlimit(resource.RLIMIT_CPU))";
    check(python(text), Ending::Exited(0), "(122, 122)\n");
}

#[test]
fn background_processes_end_with_the_program() {
    if is_skipped() {
        return;
    }
    let text = "
import os, signal
reader, writer = os.pipe()
if os.fork() == 0:
    try: os.setsid()
    except OSError: pass
    if os.fork(): os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(writer, b'x')
    while True: signal.pause()
os.read(reader, 1)
print('done')";
    check(python(text), Ending::Exited(0), "done\n");
}

#[test]
fn output_has_a_limit() {
    if is_skipped() {
        return;
    }
    for stream in ["stdout", "stderr"] {
        let text = format!("import sys\nfor _ in range(1024): sys.{stream}.write('a' * (1 << 20))");
        let outcome = python(&text).end();
        assert_eq!(outcome.ending, Ending::Output);
        let length = outcome.stdout.len() + outcome.stderr.len();
        assert_eq!(length, Limits::default().output);
    }
    let all = format!("print('a' * {})", Limits::default().output - 1);
    assert_eq!(python(&all).end().ending, Ending::Exited(0));
}

#[test]
fn memory_has_a_limit() {
    if is_skipped() {
        return;
    }
    for text in [
        "kept = []\nwhile True: kept.append(bytes(1 << 20) + b'a')",
        "import mmap\nm = mmap.mmap(-1, 800 << 20, mmap.MAP_PRIVATE)\nfor i in range(0, 800 << 20, 4096): m[i] = 1",
        // Each process alone stays below the limit.
        "import os, signal
for _ in range(9):
  if os.fork() == 0: kept = b'a' * (80 << 20); signal.pause()
signal.pause()",
    ] {
        assert_eq!(python(text).end().ending, Ending::Memory, "{text}");
    }
    // Memory that is not among the pages of any process.
    let mut evading = Vec::new();
    for text in [
        // Page tables: all that is read is the one page of zeros.
        "import mmap
m = mmap.mmap(-1, 1 << 40, mmap.MAP_PRIVATE, mmap.PROT_READ)
for i in range(0, 1 << 40, 1 << 21): m[i]",
        // The records of mappings.
        "import mmap
kept = []
while True: kept.append(mmap.mmap(-1, 4096, mmap.MAP_PRIVATE, len(kept) % 2 + 1))",
        // The buffers of sockets, and of those whose other end is closed.
        "import os, socket
kept = []
while True:
  if len(kept) > 200: os.fork() or kept.clear()
  a, b = socket.socketpair(); a.setblocking(False); kept.append(b)
  try:
    while True: a.send(bytes(1 << 16))
  except BlockingIOError: kept.append(a)",
        "import os, socket
kept = []
while True:
  if len(kept) > 200: os.fork() or kept.clear()
  b = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); b.bind(''); kept.append(b)
  for _ in range(10):
    a = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); a.setblocking(False); a.connect(b.getsockname())
    a.send(bytes(200_000)); a.close()",
        // Names in the folders that are in memory.
        "import os\ni = 0\nwhile True: os.symlink('a', str(i)); i += 1",
        "import os\ni = 0\nwhile True: os.symlink('a' * 100, '/dev/shm/' + 'b' * 200 + str(i)); i += 1",
        "i = 0\nwhile True: open(str(i), 'w').close(); i += 1",
        "import os\ni = 0\nwhile True: os.mkdir(str(i)); i += 1",
        "import os\nopen('a', 'w').close()\ni = 0\nwhile True: os.link('a', 'b' * 200 + str(i)); i += 1",
        "import os, signal
if os.fork() == 0: os.chdir('/dev/shm')
i = 0
while True: os.symlink('a', str(i)); i += 1",
    ] {
        let mut run = python(text);
        run.limits.memory = 128 << 20;
        let ending = run.end().ending;
        if ending != Ending::Memory {
            evading.push((ending, text));
        }
    }
    assert_eq!(evading, []);
    // Too much at once is refused, which is an error for the program.
    let outcome = python("bytearray(4 << 30)").end();
    assert_eq!(outcome.ending, Ending::Exited(1));
    assert!(said(&outcome).contains("MemoryError"), "{outcome:?}");
}

#[test]
fn no_folder_holds_more_than_its_limit() {
    if is_skipped() {
        return;
    }
    let text = "
import errno, sys
for path in '/work/a', '/dev/shm/a', '/dev/a', '/a':
    try:
        for number in range(64): open(path + str(number), 'wb', 0).write(bytes(1 << 20))
        print(path)
    except OSError as error: print(path, errno.errorcode[error.errno])
import os
try: os.memfd_create('a')
except OSError as error: print(errno.errorcode[error.errno])
try: os.ftruncate(os.open('/work/a', os.O_CREAT | os.O_RDWR), 1 << 40)
except OSError as error: print(errno.errorcode[error.errno])";
    let said = said(&python(text).end());
    let expected = "/work/a ENOSPC\n/dev/shm/a ENOSPC\n/dev/a EROFS\n/a EROFS\nENOSYS\nEFBIG\n";
    assert_eq!(said, expected);
}

/// Python whose `tell` prints how a call of the C library failed.
const TELL: &str = "
import ctypes, errno, fcntl, mmap, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def tell(name, call, *arguments):
    ctypes.set_errno(0)
    try: failed = call(*arguments) == -1
    except OSError as error: print(name, errno.errorcode[error.errno])
    else: print(name, errno.errorcode[ctypes.get_errno()] if failed else 'works')
";

#[test]
fn what_cannot_be_counted_is_refused() {
    if is_skipped() {
        return;
    }
    let text = [
        TELL,
        "
tell('shared', mmap.mmap, -1, 4096)
tell('shared, read', mmap.mmap, -1, 4096, mmap.MAP_SHARED, mmap.PROT_READ)
tell('zero', lambda: mmap.mmap(os.open('/dev/zero', os.O_RDONLY), 4096, mmap.MAP_SHARED, mmap.PROT_READ))
tell('semget', libc.semget, 0, 32000, 0o1600)
tell('msgget', libc.msgget, 0, 0o1600)
reader, writer = os.pipe()
os.write(writer, b'aaa')
file = os.open('a', os.O_CREAT | os.O_RDWR)
tell('splice', os.splice, reader, file, 1)
tell('sendfile', os.sendfile, writer, file, 0, 1)
tell('tee', libc.tee, reader, writer, 1, 0)
tell('vmsplice', libc.vmsplice, writer, None, 0, 0)
for lock in fcntl.F_SETLK, fcntl.F_SETLKW, fcntl.F_OFD_SETLK, fcntl.F_OFD_SETLKW:
    tell('lock', fcntl.fcntl, file, lock, bytes(32))
a, b = socket.socketpair()
for option in socket.SO_SNDBUF, 32: tell('buffer', a.setsockopt, socket.SOL_SOCKET, option, 1 << 20)
tell('inotify', libc.inotify_init1, 0)",
    ];
    let expected = "\
shared ENOSYS
shared, read ENOSYS
zero EACCES
semget ENOSYS
msgget ENOSYS
splice ENOSYS
sendfile ENOSYS
tee ENOSYS
vmsplice ENOSYS
lock ENOSYS
lock ENOSYS
lock ENOSYS
lock ENOSYS
buffer ENOSYS
buffer ENOSYS
inotify ENOSYS
";
    check(python(&text.concat()), Ending::Exited(0), expected);
}

#[test]
fn programs_can_share_memory_and_sockets() {
    if is_skipped() {
        return;
    }
    let text = "
import asyncio, multiprocessing as m, os, socket
a = m.get_context('fork').Array('i', 1000)
def write(): a[7] = 7
p = m.get_context('fork').Process(target=write); p.start(); p.join()
print(a[7])
async def double(x): await asyncio.sleep(0); return 2 * x
async def main(): return await asyncio.gather(*map(double, range(3)))
print(asyncio.run(main()))
with m.get_context('fork').Pool(3) as pool: print(pool.map(abs, [-1, -2]))
server = socket.socket(socket.AF_UNIX); server.bind('socket'); server.listen()
client = socket.socket(socket.AF_UNIX); client.connect('socket'); print(os.path.exists('socket'))
import shutil; open('a', 'w').write('a'); shutil.copyfile('a', 'b'); print(open('b').read())
import subprocess; print(subprocess.run(['cat', 'b'], capture_output=True).stdout)";
    let expected = "7\n[0, 2, 4]\n[1, 2]\nTrue\na\nb'a'\n";
    check(python(text), Ending::Exited(0), expected);
}

#[test]
fn there_are_no_other_sockets() {
    if is_skipped() {
        return;
    }
    let text = "
import socket
for family in range(64):
    for kind in range(8):
        for make in socket.socket, socket.socketpair:
            try: make(family, kind); print(make.__name__, socket.AddressFamily(family))
            except OSError: pass";
    let said = said(&python(text).end());
    let mut made: Vec<&str> = said.lines().collect();
    made.dedup();
    made.sort_unstable();
    made.dedup();
    assert_eq!(made, ["socket 1", "socketpair 1"]);
}

#[test]
fn there_are_no_other_namespaces() {
    if is_skipped() {
        return;
    }
    let text = "
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
SYSTEM = {'x86_64': (56, 272, 308), 'aarch64': (220, 97, 268)}[os.uname().machine]
def made(number, *arguments):
    process = libc.syscall(number, *(ctypes.c_long(argument) for argument in arguments))
    if process == 0 and number in (SYSTEM[0], 435): os._exit(0)
    return process != -1
for flag in 0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000:
    if made(SYSTEM[1], flag): print('unshare', hex(flag))
    if made(SYSTEM[1], flag | 0x10000000): print('unshare', hex(flag), 'with a user namespace')
    if flag > 0x80 and made(SYSTEM[0], flag | 17, 0, 0, 0, 0): print('clone', hex(flag))
    if flag > 0x80 and made(SYSTEM[0], flag | 0x10000000 | 17, 0, 0, 0, 0): print('clone', hex(flag), 'with a user namespace')
    arguments = (ctypes.c_ulong * 11)(flag | 0x10000000, 0, 0, 0, 17)
    if made(435, ctypes.addressof(arguments), 88): print('clone3', hex(flag))
for name in os.listdir('/proc/self/ns'):
    if made(SYSTEM[2], os.open('/proc/self/ns/' + name, os.O_RDONLY), 0): print('setns', name)
print('tried')";
    // As with a `bwrap` that cannot forbid them.
    let mut old = sandbox().clone();
    old.disables_userns = false;
    for sandbox in [sandbox(), &old] {
        let outcome = python(text).end_in(sandbox, |_| false);
        let said = said(&outcome);
        assert_eq!((&*said, outcome.ending), ("tried\n", Ending::Exited(0)));
    }
}

#[test]
fn nothing_of_ours_can_be_read() {
    if is_skipped() {
        return;
    }
    let home = std::env::home_dir().unwrap();
    let places = [
        home,
        "/root".into(),
        std::env::temp_dir(),
        std::env::current_dir().unwrap(),
    ];
    let folders: Vec<_> = places
        .iter()
        .filter_map(|place| tempfile::tempdir_in(place).ok())
        .collect();
    assert!(!folders.is_empty());
    let secrets: Vec<_> = folders
        .iter()
        .map(|folder| folder.path().join("secret").to_str().unwrap().to_owned())
        .collect();
    for secret in &secrets {
        fs::write(secret, "secret").unwrap();
    }
    let text = "
import os, sys
for path in sys.argv[1:-1]:
    os.path.lexists('link') and os.remove('link')
    os.symlink(path, 'link')
    up = '../' * 20
    for way in path, 'link', up + path, '/proc/1/root' + path, '/proc/1/cwd/' + up + path, '/proc/self/root/..' + path:
        try: print(way, open(way).read())
        except OSError: pass
for path in '/etc/passwd', '/etc/hostname', '/etc/shadow', '/var', '/sys', '/boot', '/run', '/home', '/mnt':
    if os.path.exists(path): print(path)
print('tried')";
    let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
    check(python(text).with(&secrets), Ending::Exited(0), "tried\n");
}

#[test]
fn nothing_of_ours_can_be_written() {
    if is_skipped() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "ours").unwrap();
    let text = "
import os, sys
for path in '/usr/a', '/usr/bin/env', '/usr/lib/a', '/bin/a', '/etc/a', '/etc/ld.so.cache', '/a', '/proc/a', \
    '/proc/sys/kernel/core_pattern', '/proc/sys/vm/drop_caches', '/proc/self/oom_score_adj', sys.executable, \
    sys.prefix + '/a', *sys.argv[1:3]:
    for way in path, '/proc/1/root' + path:
        try: os.close(os.open(way, os.O_WRONLY | os.O_CREAT)); print(way)
        except OSError: pass
for path in '/', '/usr', '/proc', '/dev':
    # MS_REMOUNT | MS_BIND
    if __import__('ctypes').CDLL(None).mount(None, path.encode(), None, 4128, None) == 0: print('mount', path)
print('tried')";
    let new = folder.path().join("new");
    let paths = [file.to_str().unwrap(), new.to_str().unwrap()];
    check(python(text).with(&paths), Ending::Exited(0), "tried\n");
    assert_eq!(fs::read(&file).unwrap(), b"ours");
    assert!(!new.exists());
}

#[test]
fn nothing_can_be_connected_to() {
    if is_skipped() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let text = "
import socket, sys
for address in ('127.0.0.1', int(sys.argv[1])), ('1.1.1.1', 53):
    try: socket.create_connection(address); print('connected')
    except OSError as error: print(error.strerror)";
    let expected = "Function not implemented\nFunction not implemented\n";
    check(
        python(text).with(&[&port.to_string()]),
        Ending::Exited(0),
        expected,
    );
    let none = listener.accept().unwrap_err();
    assert_eq!(none.kind(), std::io::ErrorKind::WouldBlock);
    // The listener was there all the time.
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    listener.accept().unwrap();
}

#[test]
fn the_environment_and_the_descriptors_are_its_own() {
    if is_skipped() {
        return;
    }
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    // A folder that something else left open, which would be a way out.
    let folder = File::open("/").unwrap();
    rustix::io::fcntl_setfd(&folder, rustix::io::FdFlags::empty()).unwrap();
    let text = "
import glob, os
for path in sorted(glob.glob('/proc/[0-9]*/')):
    for line in open(path + 'environ').read().split('\\0'): print(line)
    for fd in os.listdir(path + 'fd'):
        try: print(os.readlink(path + 'fd/' + fd).split(':')[0])
        except OSError: pass";
    let said = said(&python(text).end());
    let mut lines: Vec<&str> = said.split_whitespace().collect();
    lines.sort_unstable();
    lines.dedup();
    lines.retain(|line| !matches!(*line, "SHLVL=0" | "SHLVL=1") && !line.starts_with("_="));
    let expected = [
        "HOME=/work",
        "LANG=C.UTF-8",
        "PATH=/usr/bin:/bin",
        "PWD=/",
        "PWD=/work",
        "TMPDIR=/work",
        "anon_inode",
        "pipe",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn no_privileges_are_left() {
    if is_skipped() {
        return;
    }
    let text = "
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for line in open('/proc/self/status'):
    if line.startswith(('CapEff', 'CapBnd', 'NoNewPrivs', 'Seccomp:')): print(*line.split())
# CLONE_NEWUSER, PTRACE_TRACEME, System V memory, a session, a parent to signal, a terminal
print(libc.unshare(0x10000000), libc.ptrace(0, 0, 0, 0), libc.shmget(0, 4096, 0o1600), libc.setsid())
print(len(os.sched_getaffinity(0)))
print(len([name for name in os.listdir('/proc') if name.isdigit()]))
try: open('/dev/tty')
except OSError as error: print(error.strerror)";
    let expected = "CapBnd: 0000000000000000
CapEff: 0000000000000000
NoNewPrivs: 1
Seccomp: 2
-1 -1 -1 -1
1
2
No such device or address
";
    let said = said(&python(text).end());
    let (mut powers, rest): (Vec<_>, Vec<_>) = said.lines().partition(|line| line.contains(": "));
    powers.sort_unstable();
    assert_eq!([powers, rest].concat().join("\n") + "\n", expected);
}

#[test]
fn a_cancelled_run_is_ended() {
    if is_skipped() {
        return;
    }
    let text = "import os, signal; os.fork(); signal.pause()";
    // Two of `bwrap`, two of the program: this shows that `living` finds the processes there are.
    let outcome = python(text).end_when(|mark| living(mark).len() == 4);
    assert_eq!(outcome.ending, Ending::Cancelled);
    let outcome = python(text).end_when(|_| true);
    assert_eq!(outcome.ending, Ending::Cancelled);
}

#[test]
fn nothing_is_left_after_a_panic_of_ours() {
    if is_skipped() {
        return;
    }
    let seen = Mutex::new(String::new());
    let fail = |mark: &str| {
        mark.clone_into(&mut seen.lock().unwrap());
        // Without a panic message in the output of the tests.
        resume_unwind(Box::new(()))
    };
    let run = || python("while True: pass").end_when(fail);
    catch_unwind(AssertUnwindSafe(run)).unwrap_err();
    let mark = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(!mark.is_empty());
    assert_eq!(living(&mark), Vec::<String>::new());
}

#[test]
fn the_error_says_why_there_is_no_sandbox() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().as_os_str();
    let message = || Sandbox::find_on(path).unwrap_err().to_string();
    assert!(message().contains("`apt install bubblewrap`"));
    let bwrap = folder.path().join("bwrap");
    fs::write(
        &bwrap,
        "#!/bin/sh\necho No permissions to create a new namespace >&2\nexit 1",
    )
    .unwrap();
    fs::set_permissions(&bwrap, fs::Permissions::from_mode(0o755)).unwrap();
    for tool in ["bash", "taskset"] {
        symlink(Path::new("/usr/bin").join(tool), folder.path().join(tool)).unwrap();
    }
    let said = message();
    assert!(
        said.contains("(No permissions to create a new namespace)"),
        "{said}"
    );
    // Not in the current folder.
    assert!(Sandbox::find_on("usr/bin:.:".as_ref()).is_err());
}
