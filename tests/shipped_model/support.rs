//! What these tests share: the shipped model.

use std::path::{Path, PathBuf};

use interline::model::Model;
use interline::runtime::{Runtime, RuntimeOptions};

/// The shipped model's folder.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/smollm2-135m-fim")
}

/// The shipped model, loaded as the program loads it.
pub(crate) fn model() -> Model {
    let mut progress = |line: &str| eprintln!("{line}");
    let mut runtime = Runtime::load(&RuntimeOptions::default(), &mut progress).unwrap();
    Model::load(&directory(), &mut runtime).unwrap()
}

/// Whether there is no sandbox to run a test in. If so, it prints that the test is skipped; if `CI`
/// is set, it fails.
#[cfg(target_os = "linux")]
pub(crate) fn is_without_sandbox() -> bool {
    use std::io::{Write, stderr};

    let Err(reason) = interline::sandbox::Sandbox::find() else {
        return false;
    };
    assert!(std::env::var_os("CI").is_none(), "{reason}");
    let test = std::thread::current();
    // Not with a macro: their output is shown only for failed tests.
    let _ = writeln!(
        stderr(),
        "skipped: {} needs a sandbox, and {reason}",
        test.name().unwrap_or_default()
    );
    true
}
