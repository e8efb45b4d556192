//! A start that is killed, or whose client exits, while pip fetches the runtime library leaves
//! nothing running, and the next start removes what it leaves in the cache.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failing test should say where")]

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

/// A folder with a cache, and a `python3` on the path whose pip hangs when it downloads.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        let made = Command::new("mkfifo").arg(home.path("life")).status();
        assert!(made.unwrap().success());
        fs::create_dir(home.path("bin")).unwrap();
        // It keeps the pipe open as long as one of its processes is running.
        let life = home.path("life");
        home.python(&format!(
            "exec 9>'{}'; echo begun >&9; sleep 1000 & sleep 1000",
            life.display()
        ));
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn python(&self, download: &str) {
        let path = self.path("bin/python3");
        let script = format!("#!/bin/sh\nif [ \"$3\" = download ]; then {download}\nfi\n");
        fs::write(&path, script).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        Command::new(env!("CARGO_BIN_EXE_interline"))
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("PATH", path)
            .env("INTERLINE_CACHE_DIR", self.path("cache"))
            .env_remove("ORT_DYLIB_PATH")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Reports when pip has begun, and when its last process has ended.
    fn watch(&self) -> mpsc::Receiver<String> {
        let (sender, reports) = mpsc::channel();
        let pipe = self.path("life");
        thread::spawn(move || {
            let mut pipe = BufReader::new(File::open(pipe).unwrap());
            for _ in 0..2 {
                let mut line = String::new();
                pipe.read_line(&mut line).unwrap();
                sender.send(line).unwrap();
            }
        });
        reports
    }

    /// How many entries the folders in the cache have.
    fn left(&self) -> usize {
        let entries = fs::read_dir(self.path("cache")).unwrap();
        let folders = entries.map(|entry| entry.unwrap().path());
        folders
            .map(|path| fs::read_dir(path).unwrap().count())
            .sum()
    }
}

/// A server that has been initialized, so that it loads its engine.
fn serve(home: &Home) -> Child {
    let mut server = home.start(&[]);
    let message = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"capabilities":{}}}"#;
    let input = server.stdin.as_mut().unwrap();
    write!(input, "Content-Length: {}\r\n\r\n{message}", message.len()).unwrap();
    server
}

fn check(start: impl FnOnce(&Home) -> Child, end: impl FnOnce(&mut Child)) {
    let home = Home::new();
    let reports = home.watch();
    let mut process = start(&home);
    assert_eq!(reports.recv_timeout(LONG).unwrap(), "begun\n");
    assert_eq!(home.left(), 1, "there is no working folder");
    end(&mut process);
    assert_eq!(
        reports.recv_timeout(LONG).unwrap(),
        "",
        "pip is still running"
    );
    process.wait().unwrap();

    home.python("exit 1");
    let failed = home
        .start(&["complete", "examples/inventory.py:21:37"])
        .wait();
    assert!(!failed.unwrap().success());
    assert_eq!(home.left(), 0, "a working folder is left");
}

#[test]
fn a_killed_command_leaves_nothing() {
    check(
        |home| home.start(&["complete", "examples/inventory.py:21:37"]),
        |process| process.kill().unwrap(),
    );
}

#[test]
fn a_killed_server_leaves_nothing() {
    check(serve, |process| process.kill().unwrap());
}

#[test]
fn a_server_whose_client_is_gone_leaves_nothing() {
    check(serve, |process| drop(process.stdin.take()));
}
