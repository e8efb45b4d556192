//! The editor's process: a server whose editor has died must not live on.

use std::time::Duration;

/// How often to look.
const INTERVAL: Duration = Duration::from_secs(2);

/// Returns when the process is gone. Where that cannot be told it never returns, and the end of
/// standard input is what ends the server.
pub async fn gone(id: u32) {
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        interval.tick().await;
        if !is_alive(id) {
            return;
        }
    }
}

#[cfg(unix)]
fn is_alive(id: u32) -> bool {
    let Some(pid) = i32::try_from(id)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    else {
        return true;
    };
    // Another user's process may not be asked, but it is there.
    rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
}

#[cfg(not(unix))]
fn is_alive(_: u32) -> bool {
    true
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_ended_is_gone() {
        assert!(is_alive(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let id = child.id();
        child.wait().unwrap();
        assert!(!is_alive(id));
    }
}
