//! The editor's process: the server must not outlive its editor.

use std::time::Duration;

/// How often to check.
const INTERVAL: Duration = Duration::from_secs(2);

/// What can be seen of a process from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Alive,
    /// It has ended, but its parent has not waited for it.
    Zombie,
    Nothing,
}

/// Returns when the process has ended.
///
/// A process that cannot be seen at the start is not watched: an editor outside the container in
/// which the server runs has an id that means nothing here, or names another process. Then this never
/// returns, and only the end of standard input ends the server.
pub async fn gone(id: u32) {
    if see(id) == Seen::Nothing {
        tracing::info!("the client's process {id} cannot be seen from here, and is not watched");
        std::future::pending::<()>().await;
    }
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        interval.tick().await;
        if see(id) != Seen::Alive {
            return;
        }
    }
}

#[cfg(unix)]
fn see(id: u32) -> Seen {
    let pid = i32::try_from(id)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    // Another user's process cannot be signalled, but it exists.
    let is_there = |pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH);
    match pid {
        Some(pid) if is_there(pid) => match is_zombie(id) {
            true => Seen::Zombie,
            false => Seen::Alive,
        },
        _ => Seen::Nothing,
    }
}

/// Whether an existing process has ended. Only Linux has the file that says so. The field after the
/// name in brackets is the state: see proc_pid_stat(5).
#[cfg(unix)]
fn is_zombie(id: u32) -> bool {
    let stat = std::fs::read(format!("/proc/{id}/stat")).unwrap_or_default();
    let name_end = stat.iter().rposition(|byte| *byte == b')');
    let state = name_end.and_then(|end| stat.get(end + 2));
    matches!(state, Some(b'Z' | b'X'))
}

#[cfg(not(unix))]
fn see(_: u32) -> Seen {
    Seen::Alive
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// A process that ends when its input does.
    fn child() -> std::process::Child {
        let mut command = std::process::Command::new("cat");
        let command = command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped());
        command.spawn().unwrap()
    }

    /// Lets the process end and waits until it has, without reaping it.
    fn end(child: &mut std::process::Child) {
        drop(child.stdin.take());
        let mut output = child.stdout.take().unwrap();
        std::io::Read::read_to_end(&mut output, &mut Vec::new()).unwrap();
        while cfg!(target_os = "linux") && see(child.id()) == Seen::Alive {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_process_is_alive_a_zombie_and_gone() {
        assert_eq!(see(std::process::id()), Seen::Alive);
        let mut child = child();
        let id = child.id();
        assert_eq!(see(id), Seen::Alive);
        end(&mut child);
        if cfg!(target_os = "linux") {
            assert_eq!(see(id), Seen::Zombie);
        }
        child.wait().unwrap();
        assert_eq!(see(id), Seen::Nothing);
        for never in [0, i32::MAX as u32 + 1, u32::MAX] {
            assert_eq!(see(never), Seen::Nothing);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_ended_process_is_gone_and_an_unseen_one_is_not_watched() {
        let is_gone = async |id| {
            let day = Duration::from_secs(24 * 3600);
            tokio::time::timeout(day, gone(id)).await.is_ok()
        };
        assert!(!is_gone(u32::MAX).await);
        let mut watched = child();
        let id = watched.id();
        if cfg!(target_os = "linux") {
            let mut zombie = child();
            end(&mut zombie);
            assert!(is_gone(zombie.id()).await);
            zombie.wait().unwrap();
        }
        let mut watch = std::pin::pin!(gone(id));
        let now = tokio::time::timeout(Duration::from_millis(1), &mut watch).await;
        assert!(now.is_err(), "it is alive");
        end(&mut watched);
        watched.wait().unwrap();
        watch.await;
    }
}
