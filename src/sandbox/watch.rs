//! Watches a running sandbox: reads its output and ends it at the first limit.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use rustix::io::retry_on_intr;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::kernel_memory::KernelMemory;
use super::process_bound::ProcessBound;
use super::processes;
use super::{Ending, Limits, Outcome};

/// How often the limits are checked. A program that forks as fast as it can starts some hundred
/// processes in that time.
const TICK: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    /// The process has ended.
    Ended,
    /// It wrote more than it may.
    Full,
}

/// Waits for the end of `bwrap`, which has pipes for all its standard streams, and ends it at the
/// first limit. No process is left then. `bound` is the control group it is in. `folders` are those in the sandbox that are in memory;
/// they exist once something has been written to standard output.
pub(super) fn watch(
    mut bwrap: Child,
    stdin: &[u8],
    limits: &Limits,
    bound: Option<&ProcessBound>,
    folders: &[&str],
    cancelled: impl Fn() -> bool,
) -> io::Result<Outcome> {
    let begun = Instant::now();
    let pid = Pid::from_child(&bwrap);
    let pipes = (bwrap.stdin.take(), bwrap.stdout.take(), bwrap.stderr.take());
    let (Some(mut input), Some(stdout), Some(stderr)) = pipes else {
        return Err(io::Error::other("a standard stream of bwrap is not a pipe"));
    };
    let left = &AtomicUsize::new(limits.output);
    let started = &AtomicBool::new(false);
    let mut sandbox = Sandbox {
        bwrap: pid,
        bound,
        folders,
        memory: None,
    };
    let (events, received) = mpsc::channel();

    // None of these threads outlives the processes: the pipes close with the last of them.
    thread::scope(|scope| {
        let mut bwrap = Running(bwrap);
        // A program need not read what it is given.
        spawn(scope, move || input.write_all(stdin).is_ok())?;
        let full = events.clone();
        let start = || started.store(true, Ordering::Relaxed);
        let stdout = spawn(scope, move || read(stdout, left, &full, start))?;
        let full = events.clone();
        let stderr = spawn(scope, move || read(stderr, left, &full, || ()))?;
        spawn(scope, move || {
            // `NOWAIT` keeps its number in use, so that no signal goes to another process.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let _ = retry_on_intr(|| waitid(WaitId::Pid(pid), options));
            let _ = events.send(Event::Ended);
        })?;

        let mut stopped = None;
        loop {
            let event = received.recv_timeout(TICK);
            if event == Ok(Event::Full) {
                stopped.get_or_insert(Ending::Output);
            }
            if matches!(
                event,
                Ok(Event::Ended) | Err(RecvTimeoutError::Disconnected)
            ) {
                break;
            }
            if stopped.is_none() {
                let has_started = started.load(Ordering::Relaxed);
                stopped = sandbox.over(limits, begun, has_started, &cancelled)?;
            }
            // Again and again, since the first process may not be there yet.
            if stopped.is_some() {
                processes::kill(pid);
            }
        }
        let status = bwrap.0.wait()?;
        // A program that ends when it cannot start another process has reached the limit all the same.
        if stopped.is_none() && sandbox.is_bound_exceeded()? {
            stopped = Some(Ending::Processes);
        }
        let joined = |reader: ScopedJoinHandle<'_, io::Result<Vec<u8>>>| {
            let failed = |_| Err(io::Error::other("a reader failed"));
            reader.join().unwrap_or_else(failed)
        };
        Ok(Outcome {
            stdout: joined(stdout)?,
            stderr: joined(stderr)?,
            ending: stopped.unwrap_or_else(|| ending(status)),
        })
    })
}

/// Ends the processes when dropped, whatever goes wrong here.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.0);
        while let Ok(None) = self.0.try_wait() {
            processes::kill(pid);
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A thread that the scope waits for; an error if the system has no room for another thread.
fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    thread::Builder::new().spawn_scoped(scope, work)
}

/// A sandbox that is watched.
struct Sandbox<'a> {
    bwrap: Pid,
    bound: Option<&'a ProcessBound>,
    folders: &'a [&'a str],
    /// Set once its program has started.
    memory: Option<KernelMemory>,
}

impl Sandbox<'_> {
    /// The limit that is reached, if any.
    fn over(
        &mut self,
        limits: &Limits,
        begun: Instant,
        has_started: bool,
        cancelled: impl Fn() -> bool,
    ) -> io::Result<Option<Ending>> {
        if cancelled() {
            return Ok(Some(Ending::Cancelled));
        }
        let is_late = || begun.elapsed() >= limits.time;
        let is_over = || is_late() || self.is_bound_exceeded().unwrap_or(true);
        let usage = processes::usage(self.bwrap, limits.processes, is_over);
        if usage.processes > limits.processes || self.is_bound_exceeded()? {
            return Ok(Some(Ending::Processes));
        }
        if has_started && self.memory.is_none() {
            self.memory = KernelMemory::open(self.bwrap, self.folders)?;
        }
        let kernel = match &mut self.memory {
            Some(memory) => memory.used()?,
            None => 0,
        };
        let memory = usage.memory.saturating_add(kernel);
        if memory > limits.memory {
            return Ok(Some(Ending::Memory));
        }
        // Last, because each of the others can be why it takes so long.
        Ok(is_late().then_some(Ending::Time))
    }

    fn is_bound_exceeded(&self) -> io::Result<bool> {
        self.bound.map_or(Ok(false), ProcessBound::is_exceeded)
    }
}

/// Reads to the end, or until nothing is `left` of the allowed output. Calls `heard` whenever it has
/// read something.
fn read(
    mut pipe: impl Read,
    left: &AtomicUsize,
    full: &Sender<Event>,
    heard: impl Fn(),
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 8 << 10];
    loop {
        let count = match pipe.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        heard();
        let take = |left: usize| Some(left.saturating_sub(count));
        let (Ok(had) | Err(had)) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        bytes.extend(&buffer[..count.min(had)]);
        if count > had {
            // Sent before the pipe closes, since that may end the program by itself.
            let _ = full.send(Event::Full);
            return Ok(bytes);
        }
    }
}

/// `bwrap` exits with the program's code, or with 128 more than the signal that killed it.
fn ending(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code @ 129..=192), _) => Ending::Killed(code - 128),
        (Some(code), _) => Ending::Exited(code),
        (None, signal) => Ending::Killed(signal.unwrap_or_default()),
    }
}
