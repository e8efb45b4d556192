//! A library that ends the process that loads it gives an error that says so.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use interline::runtime::RuntimeOptions;
use interline::runtime::locate::locate;
use tempfile::TempDir;

/// A folder for a library and for the record of what was verified.
struct Home(TempDir);

impl Home {
    fn library(&self) -> PathBuf {
        self.0.path().join("library")
    }

    fn complete(&self) -> Output {
        Command::new(env!("CARGO_BIN_EXE_interline"))
            .args(["complete", "examples/inventory.py:21:37", "--offline"])
            .arg("--runtime")
            .arg(self.library())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("INTERLINE_CACHE_DIR", self.0.path().join("cache"))
            .output()
            .unwrap()
    }
}

/// The library that the tests use, changed, in a folder of its own.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Home {
    let good = locate(&RuntimeOptions::default(), &mut |_: &str| {}).unwrap();
    let mut bytes = fs::read(good.path).unwrap();
    change(&mut bytes);
    let home = Home(tempfile::tempdir().unwrap());
    fs::write(home.library(), bytes).unwrap();
    let file = File::options().write(true).open(home.library()).unwrap();
    let hour = Duration::from_hours(1);
    file.set_modified(SystemTime::now() - hour).unwrap();
    home
}

#[test]
fn a_damaged_library_is_an_error_that_names_it() {
    type Change = fn(&mut Vec<u8>);
    let changes: [Change; 4] = [
        |bytes| bytes.truncate(5_000),
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.truncate(0),
        |bytes| {
            let third = bytes.len() / 3;
            bytes[third..third * 2].fill(0xcc);
        },
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let home = changed(change);
        // Twice: a failure must not be remembered as a success.
        for _ in 0..2 {
            let output = home.complete();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{index}: {said}");
            let named = format!("--runtime names {}, which is ", home.library().display());
            assert!(said.contains(&named), "{index}: {said}");
            assert!(said.contains("or leave it out"), "{index}: {said}");
        }
    }
}

#[test]
fn a_library_that_loads_is_remembered() {
    // It is no longer the official one.
    let home = changed(|bytes| bytes.push(0));
    for _ in 0..2 {
        let output = home.complete();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}");
        let record = fs::read_to_string(home.0.path().join("cache/verified.json")).unwrap();
        assert!(record.contains("loads as ONNX Runtime"), "{record}");
    }
}
