//! What a model runs on: a plugin library that is missing, damaged, wrong or good.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use interline::runtime::RuntimeOptions;
use interline::runtime::locate::locate;
use interline::runtime::plugin::Plugin;
use interline::runtime::provider::Provider;
use tempfile::TempDir;

use crate::gguf_file::Value;
use crate::served::{check_model, folder_of, load, random};

/// Whether there is no GPU that these tests know to be right. If so, it prints that the test is
/// skipped: `tests/swiftshader/run` provides one.
fn is_without_gpu() -> bool {
    use std::io::{Write, stderr};

    if std::env::var_os("INTERLINE_TEST_GPU").is_some() {
        return false;
    }
    let test = std::thread::current();
    // Not with a macro: their output is shown only for failed tests.
    let _ = writeln!(
        stderr(),
        "skipped: {} needs a GPU, which tests/swiftshader/run provides",
        test.name().unwrap_or_default()
    );
    true
}

/// The plugin for this machine, and its library in the user's cache.
fn plugin() -> Option<(Plugin, PathBuf)> {
    // There are machines without one.
    let plugin = Plugin::of(Provider::Webgpu).ok()?;
    let library = plugin.pull(&mut |line: &str| eprintln!("{line}")).unwrap();
    Some((plugin, library))
}

/// A small model, a cache, and a copy of the program, which has nothing beside it.
struct Home {
    folder: TempDir,
}

/// What `interline doctor` printed.
struct Doctor {
    report: String,
    log: String,
}

impl Home {
    fn new() -> Self {
        let mut file = random("qwen2", true);
        // An engine measures its speed on long prompts.
        file.set("qwen2.context_length", Value::U32(2048));
        let folder = folder_of(&file);
        let program = folder.path().join("program");
        fs::create_dir(&program).unwrap();
        fs::create_dir(folder.path().join("home")).unwrap();
        let from = env!("CARGO_BIN_EXE_interline");
        let to = program.join("interline");
        fs::hard_link(from, &to)
            .or_else(|_| fs::copy(from, &to).map(drop))
            .unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the plugin is when it was fetched.
    fn cached(&self, library: &Path) -> PathBuf {
        let folder = library.parent().unwrap().file_name().unwrap();
        let cache = self.path("cache").join(folder);
        cache.join(library.file_name().unwrap())
    }

    fn doctor(&self, provider: Provider) -> Doctor {
        let library = locate(&RuntimeOptions::default(), &mut |_: &str| {}).unwrap();
        let mut command = Command::new(self.path("program/interline"));
        command
            .args(["doctor", "--offline", "--provider", &provider.to_string()])
            .arg("--model")
            .arg(self.path("model"))
            .arg("--runtime")
            .arg(library.path)
            .env("INTERLINE_CACHE_DIR", self.path("cache"))
            // As in a user's shell: plugins have telemetry of their own, which would leave a queue.
            .env("HOME", self.path("home"))
            .env_remove("XDG_CACHE_HOME")
            .env_remove("ORT_DISABLE_TELEMETRY")
            .env_remove("CI")
            .env_remove("INTERLINE_LOG");
        if std::env::var_os("INTERLINE_TEST_GPU").is_none() {
            // A GPU that this machine may have is not used.
            command.env("VK_ICD_FILENAMES", "/nowhere");
            command.env("VK_DRIVER_FILES", "/nowhere");
        }
        let output = command.output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        let report = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}\n{report}{log}", output.status);
        let left: Vec<_> = fs::read_dir(self.path("home")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        Doctor { report, log }
    }

    /// Changes what is remembered of the only trial.
    fn remember(&self, outcome: &serde_json::Value) {
        let path = self.path("cache/trials.json");
        let text = fs::read_to_string(&path).unwrap();
        let mut trials: serde_json::Value = serde_json::from_str(&text).unwrap();
        let trials = trials.as_object_mut().unwrap();
        assert_eq!(trials.len(), 1, "{text}");
        for trial in trials.values_mut() {
            trial["outcome"] = outcome.clone();
        }
        fs::write(&path, serde_json::to_string(&trials).unwrap()).unwrap();
    }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

impl Doctor {
    /// The model answers, on the CPU, and the user is told once why. Returns the reason.
    fn fell_back(&self) -> &str {
        let Self { report, log } = self;
        assert!(report.contains("on cpu from "), "{report}");
        let reason = report
            .lines()
            .find(|line| line.starts_with("ok   runtime"))
            .unwrap();
        let (_, reason) = reason.split_once(" (").unwrap();
        let reason = reason.strip_suffix(')').unwrap();
        assert_eq!(log.matches(reason).count(), 1, "{log}");
        reason
    }

    fn has_tried(&self) -> bool {
        self.log.contains("trying webgpu with this model")
    }
}

#[test]
fn a_plugin_that_is_not_there_is_told_with_its_remedy() {
    let Ok(plugin) = Plugin::of(Provider::Webgpu) else {
        return;
    };
    let home = Home::new();
    assert_eq!(
        home.doctor(Provider::Webgpu).fell_back(),
        "webgpu is not used: its plugin library is not here; to get it, run `interline runtime \
         pull webgpu`"
    );
    // Nobody asked for it, so nobody is told.
    let Doctor { report, log } = home.doctor(Provider::Auto);
    assert!(
        report.contains("on cpu from ") && !report.contains("not used"),
        "{report}"
    );
    assert_eq!(log, "");

    let library = home
        .path("cache")
        .join(format!("{}-{}", plugin.package, plugin.version));
    let name = format!(
        "{}onnxruntime_providers_webgpu{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    );
    write(&library.join(name), b"no library");
    for provider in [Provider::Webgpu, Provider::Auto] {
        let doctor = home.doctor(provider);
        assert!(
            doctor.report.contains(" is damaged (its SHA-256 is "),
            "{}",
            doctor.report
        );
        let remedy = "to replace it, run `interline runtime pull webgpu`";
        assert!(doctor.report.contains(remedy), "{}", doctor.report);
    }
}

#[test]
fn a_provider_that_the_library_lacks_is_told_with_its_remedy() {
    let home = Home::new();
    let reason = home.doctor(Provider::Cuda).fell_back().to_owned();
    assert!(
        reason.contains(" was built without cuda; to use it, name the library of "),
        "{reason}"
    );
}

#[test]
#[cfg(target_os = "linux")]
fn a_plugin_that_ends_the_process_does_not_end_the_server() {
    type Change = fn(&mut Vec<u8>);
    let Some((_, library)) = plugin() else {
        return;
    };
    let good = fs::read(&library).unwrap();
    let changes: [(Change, &str); 3] = [
        (|bytes| bytes.truncate(0), "does not load"),
        (|bytes| bytes.truncate(5_000), ""),
        (
            |bytes| {
                let end = bytes.len() / 2;
                bytes[1 << 20..end].fill(0xcc);
            },
            "its trial ends the process with signal",
        ),
    ];
    let home = Home::new();
    let beside = home.path("program").join(library.file_name().unwrap());
    for (change, expected) in changes {
        let mut bytes = good.clone();
        change(&mut bytes);
        write(&beside, &bytes);
        let doctor = home.doctor(Provider::Webgpu);
        let reason = doctor.fell_back();
        assert!(doctor.has_tried() && reason.contains(expected), "{reason}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_device_that_is_missing_or_wrong_is_remembered() {
    if std::env::var_os("INTERLINE_TEST_GPU").is_some() {
        return;
    }
    let Some((_, library)) = plugin() else {
        return;
    };
    let home = Home::new();
    write(&home.cached(&library), &fs::read(&library).unwrap());
    let doctor = home.doctor(Provider::Webgpu);
    let reason = doctor.fell_back();
    assert!(doctor.has_tried(), "{reason}");
    let again = home.doctor(Provider::Webgpu);
    assert!(!again.has_tried(), "{}", again.log);
    assert_eq!(again.fell_back(), reason);

    // A device that lies.
    let trial = serde_json::json!({"Ok": {"difference": 1.4, "cpu": 100.0, "device": 10.0}});
    home.remember(&trial);
    for provider in [Provider::Webgpu, Provider::Auto] {
        let doctor = home.doctor(provider);
        let expected = "(webgpu is not used: it computes something else than the CPU";
        assert!(doctor.report.contains(expected), "{}", doctor.report);
        assert!(!doctor.has_tried());
    }
    // One that was good, and is gone.
    let trial = serde_json::json!({"Ok": {"difference": 0.01, "cpu": 100.0, "device": 10.0}});
    home.remember(&trial);
    let doctor = home.doctor(Provider::Webgpu);
    assert!(doctor.fell_back().contains("webgpu"), "{}", doctor.report);
}

#[test]
fn a_gpu_computes_what_the_file_says() {
    if is_without_gpu() {
        return;
    }
    plugin().unwrap();
    let file = random("qwen2", true);
    let folder = folder_of(&file);
    let model = load(&folder.path().join("model"), Provider::Webgpu);
    assert!(
        model.runs_on.contains(" on webgpu from "),
        "{}",
        model.runs_on
    );
    // No longer passes, as is explained below.
    check_model("qwen2 on a GPU", &model, &file, false);

    // Keys and values are copied for each text, and an earlier place is gone back to.
    let tokens = b"fn main() { let x = 1; }".map(u32::from);
    let logits = |pasts: &[usize], model: &interline::model::Model| {
        let mut logits = Vec::new();
        let mut cache = model.causal_lm.new_cache(40).unwrap();
        cache.forward(&[0], &tokens, 1, &mut logits).unwrap();
        let mut fork = cache.fork(tokens.len(), 2, 48).unwrap();
        // The GPU reads no more than one token of each text.
        fork.forward(pasts, &[5, 6], 1, &mut logits).unwrap();
        logits
    };
    let on_cpu = load(&folder.path().join("model"), Provider::Cpu);
    for pasts in [[tokens.len(), tokens.len()], [tokens.len(), 7]] {
        let (device, cpu) = (logits(&pasts, &model), logits(&pasts, &on_cpu));
        let worst = device.iter().zip(&cpu).map(|(a, b)| (a - b).abs());
        let worst = worst.fold(0.0, f32::max);
        let largest = cpu
            .iter()
            .fold(0.0_f32, |most, logit| most.max(logit.abs()));
        assert!(worst < 0.1 * largest, "{pasts:?}: {worst} of {largest}");
    }
}

/// The plugin's library with another text in place of each `from`.
fn changed(from: &[u8], to: &[u8]) -> (PathBuf, Vec<u8>) {
    assert_eq!(from.len(), to.len());
    let (_, library) = plugin().unwrap();
    let mut bytes = fs::read(&library).unwrap();
    let places: Vec<usize> = bytes
        .windows(from.len())
        .enumerate()
        .filter_map(|(at, window)| (window == from).then_some(at))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    (library, bytes)
}

#[test]
fn a_gpu_is_used_where_it_is_wanted_or_faster() {
    if is_without_gpu() {
        return;
    }
    // The attention for long passes is wrong on SwiftShader, whose subgroups are small
    // (docs/decisions/013). Apple's GPUs get another kernel, without subgroups.
    let (library, bytes) = changed(b"\0google\0", b"\0apple\0\0");
    let home = Home::new();
    write(
        &home.path("program").join(library.file_name().unwrap()),
        &bytes,
    );
    let Doctor { report, log } = home.doctor(Provider::Webgpu);
    assert!(
        report.contains(" on webgpu from ") && report.contains("(logits within "),
        "{report}"
    );
    assert!(log.contains("trying webgpu with this model"), "{log}");
    // SwiftShader never is faster. That is remembered, as is that it works.
    let Doctor { report, log } = home.doctor(Provider::Auto);
    let expected = "(webgpu is not used: it is slower here: logits within ";
    assert!(report.contains(expected) && log.is_empty(), "{report}{log}");
    let trial = serde_json::json!({"Ok": {"difference": 0.01, "cpu": 100.0, "device": 10.0}});
    home.remember(&trial);
    let Doctor { report, log } = home.doctor(Provider::Auto);
    assert!(
        report.contains(" on webgpu from ") && log.is_empty(),
        "{report}{log}"
    );
}

/// With another function in its normalization the plugin starts, and computes nonsense.
#[test]
fn a_gpu_that_lies_is_found_out() {
    if is_without_gpu() {
        return;
    }
    let (library, bytes) = changed(b"inverseSqrt(", b"log2       (");
    let home = Home::new();
    write(
        &home.path("program").join(library.file_name().unwrap()),
        &bytes,
    );
    let doctor = home.doctor(Provider::Webgpu);
    let reason = doctor.fell_back();
    let expected = "webgpu is not used: it computes something else than the CPU";
    assert!(reason.starts_with(expected), "{reason}");
}
