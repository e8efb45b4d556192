//! Fetches the ONNX Runtime library: pip brings the official wheel, the library in it is checked
//! against a pinned hash and moved into the cache in one step.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

/// The release that is fetched.
pub(super) const VERSION: &str = "1.32.0";

/// A command that runs Python: the program and its first arguments.
pub(super) type Python = Vec<OsString>;

/// The official build for one kind of machine.
#[derive(Clone, Debug)]
pub(super) struct Pin {
    os: &'static str,
    arch: &'static str,
    /// The platform tag of the wheel.
    pub(super) platform: &'static str,
    /// The library's name in the wheel.
    pub(super) member: &'static str,
    /// The library's size in bytes.
    pub(super) size: u64,
    /// The library's SHA-256 in lower case hex.
    pub(super) sha256: &'static str,
}

const PINS: [Pin; 5] = [
    Pin {
        os: "linux",
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        member: "onnxruntime/capi/libonnxruntime.so.1.32.0",
        size: 34_824_680,
        sha256: "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f",
    },
    Pin {
        os: "linux",
        arch: "aarch64",
        platform: "manylinux_2_28_aarch64",
        member: "onnxruntime/capi/libonnxruntime.so.1.32.0",
        size: 27_165_936,
        sha256: "49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a",
    },
    Pin {
        os: "macos",
        arch: "aarch64",
        platform: "macosx_14_0_arm64",
        member: "onnxruntime/capi/libonnxruntime.1.32.0.dylib",
        size: 35_272_344,
        sha256: "fa585fabbea65b823b9a8f7e27d46aee3989d1be7e36b528203d3a1fd613aae7",
    },
    Pin {
        os: "windows",
        arch: "x86_64",
        platform: "win_amd64",
        member: "onnxruntime/capi/onnxruntime.dll",
        size: 22_668_640,
        sha256: "443c0065fcdba17618ddef05050308f4b471893c5c7da0337d6957c9073ad8a7",
    },
    Pin {
        os: "windows",
        arch: "aarch64",
        platform: "win_arm64",
        member: "onnxruntime/capi/onnxruntime.dll",
        size: 20_798_776,
        sha256: "a5c1951a7d495fa0c22a0865fe36981fe67f9d5dc7ba3893c20fa7266dd1e994",
    },
];

impl Pin {
    /// The build for this machine, if there is an official one.
    pub(super) fn for_this_machine() -> Option<Self> {
        // The Linux builds need glibc.
        if cfg!(target_env = "musl") {
            return None;
        }
        Self::for_machine(std::env::consts::OS, std::env::consts::ARCH)
    }

    pub(super) fn for_machine(os: &str, arch: &str) -> Option<Self> {
        PINS.iter()
            .find(|pin| pin.os == os && pin.arch == arch)
            .cloned()
    }

    /// The library's file name.
    pub(super) fn file_name(&self) -> &'static str {
        self.member.rsplit('/').next().unwrap_or(self.member)
    }
}

/// The commands that may run Python, the best first.
pub(super) fn pythons() -> Vec<Python> {
    let mut pythons = vec![vec!["python3".into()], vec!["python".into()]];
    if cfg!(windows) {
        pythons.push(vec!["py".into(), "-3".into()]);
    }
    pythons
}

/// Fetches the library into `directory`, which need not exist, and answers its path.
pub(super) fn fetch(
    pin: &Pin,
    directory: &Path,
    pythons: &[Python],
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    remove_stale(directory);
    // All work is done under a name of its own on the same file system: what a killed run leaves
    // is never taken for the library, and two runs at once do not meet before the final rename.
    let work = tempfile::Builder::new()
        .prefix(WORK_PREFIX)
        .tempdir_in(directory)
        .with_context(|| format!("cannot write to {}", directory.display()))?;

    let python = find_pip(pythons, work.path())?;
    progress(&format!(
        "fetching ONNX Runtime {VERSION} with pip (about 30 MB, once)"
    ));
    download(pin, &python, work.path())?;
    let wheel = sole_wheel(work.path())?;
    let fresh = work.path().join("library");
    unpack(pin, &wheel, &fresh)
        .with_context(|| format!("the wheel for {} is not as expected", pin.platform))?;

    let path = directory.join(pin.file_name());
    if let Err(error) = fs::rename(&fresh, &path) {
        // Windows does not replace a library in use; another run has put the same one there.
        let there = fs::metadata(&path).is_ok_and(|metadata| metadata.len() == pin.size);
        ensure!(there, "cannot create {}: {error}", path.display());
    }
    progress(&format!(
        "verified ONNX Runtime {VERSION}, kept as {}",
        path.display()
    ));
    Ok(path)
}

const WORK_PREFIX: &str = ".fetch-";

/// Killed runs leave their work behind; no fetch takes a day, so what is older may go.
fn remove_stale(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(WORK_PREFIX);
        let age = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok();
        let age = age.and_then(|modified| modified.elapsed().ok());
        if ours && age.is_some_and(|age| age > Duration::from_hours(24)) {
            // Only tidiness: a failure must not stop the fetch.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The first Python with pip. Asked first, so that a later failure is about the download.
fn find_pip(pythons: &[Python], work: &Path) -> anyhow::Result<Python> {
    let mut problems = Vec::new();
    for python in pythons {
        let name = display(python);
        match run_pip(python, work, &["--version".into()]) {
            Ok(output) if output.status.success() => return Ok(python.clone()),
            Ok(output) => problems.push(format!("{name}: {}", last_words(&output))),
            Err(error) => problems.push(format!("{name}: {error}")),
        }
    }
    bail!("found no Python with pip ({})", problems.join(", "))
}

fn download(pin: &Pin, python: &Python, work: &Path) -> anyhow::Result<()> {
    // Fixed tags, so that the wheel is the same whatever Python runs pip.
    let mut arguments: Vec<OsString> = [
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--implementation=cp",
        "--python-version=3.12",
        "--abi=cp312",
        "--disable-pip-version-check",
        "--no-input",
        "--platform",
        pin.platform,
        "-d",
    ]
    .map(OsString::from)
    .to_vec();
    arguments.push(work.into());
    arguments.push(format!("onnxruntime=={VERSION}").into());
    let output = run_pip(python, work, &arguments)
        .with_context(|| format!("cannot run {}", display(python)))?;
    ensure!(
        output.status.success(),
        "{} -m pip download failed: {}",
        display(python),
        last_words(&output)
    );
    Ok(())
}

/// Runs pip with its output captured: our own standard output may be a protocol stream.
fn run_pip(python: &Python, work: &Path, arguments: &[OsString]) -> io::Result<Output> {
    let Some((program, first)) = python.split_first() else {
        return Err(io::ErrorKind::NotFound.into());
    };
    Command::new(program)
        .args(first)
        .args(["-m", "pip"])
        .args(arguments)
        // Python imports from the current directory, which may hold a stranger's project.
        .current_dir(work)
        .stdin(Stdio::null())
        .output()
}

fn display(python: &Python) -> String {
    python.join(" ".as_ref()).to_string_lossy().into_owned()
}

/// The end of what a command said, in one line.
fn last_words(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let end = lines[lines.len().saturating_sub(3)..].join(" / ");
    let end: String = end.chars().take(500).collect();
    match end.is_empty() {
        true => output.status.to_string(),
        false => end.trim_end_matches('.').to_owned(),
    }
}

fn sole_wheel(directory: &Path) -> anyhow::Result<PathBuf> {
    fs::read_dir(directory)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip brought no wheel")
}

/// Copies the library out of the wheel, and fails unless it is the pinned one.
fn unpack(pin: &Pin, wheel: &Path, target: &Path) -> anyhow::Result<()> {
    let mut archive = zip::ZipArchive::new(File::open(wheel)?)?;
    let member = archive
        .by_name(pin.member)
        .with_context(|| format!("no {}", pin.member))?;
    let mut file = File::create_new(target)?;
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 1 << 16];
    // One byte more than pinned is enough to see that the size is wrong.
    let mut member = member.take(pin.size + 1);
    loop {
        let count = match member.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot unpack {}", pin.member));
            }
        };
        hash.update(&buffer[..count]);
        file.write_all(&buffer[..count])?;
        size += count as u64;
    }
    ensure!(
        size == pin.size,
        "{} does not have the pinned size of {} bytes",
        pin.member,
        pin.size
    );
    let digest: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    ensure!(
        digest == pin.sha256,
        "{} has SHA-256 {digest} instead of the pinned {}",
        pin.member,
        pin.sha256
    );
    file.sync_all()?;
    Ok(())
}
