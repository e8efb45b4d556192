//! Nothing leaves the machine.

use std::fs;
use std::process::Command;

use interline::runtime::RuntimeOptions;
use interline::runtime::locate::locate;

/// ONNX Runtime's telemetry keeps an identifier and a queue in the user's cache before it sends
/// anything, so a home that stays empty means that it is off.
#[test]
fn the_program_leaves_no_telemetry_behind() {
    let home = tempfile::tempdir().unwrap();
    // Interline's own cache, which records the libraries it has verified.
    let cache = tempfile::tempdir().unwrap();
    let library = locate(&RuntimeOptions::default(), &mut |_: &str| {}).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_interline"))
        .args(["complete", "examples/inventory.py:21:37", "--offline"])
        .args(["--model", "smollm2-135m-fim"])
        .arg("--runtime")
        .arg(&library.path)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // Not set in a user's shell: tests run with this switch, and `CI` is another one.
        .env_remove("ORT_DISABLE_TELEMETRY")
        .env_remove("CI")
        .env("HOME", home.path())
        .env_remove("XDG_CACHE_HOME")
        .env("INTERLINE_CACHE_DIR", cache.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
