//! Fetches the ONNX Runtime library: pip brings the official wheel, the library in it is checked
//! against a pinned hash and moved into the cache in one step.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

/// The release that is fetched.
pub(crate) const VERSION: &str = "1.32.0";

/// A command that runs Python: the program, then its first arguments.
pub(crate) type Python = Vec<String>;

/// The official build for one kind of machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pin {
    /// The machine's [`std::env::consts::OS`].
    pub(crate) os: &'static str,
    /// The machine's [`std::env::consts::ARCH`].
    pub(crate) arch: &'static str,
    /// The platform tag of the wheel.
    pub(crate) platform: &'static str,
    /// The library's name in the wheel.
    pub(crate) member: &'static str,
    /// The library's size in bytes.
    pub(crate) size: u64,
    /// The library's SHA-256 in lower case hex.
    pub(crate) sha256: &'static str,
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
    pub(crate) fn for_this_machine() -> Option<Self> {
        use std::env::consts::{ARCH, OS};
        // The Linux builds need glibc.
        let official = |pin: &Self| pin.os == OS && pin.arch == ARCH && !cfg!(target_env = "musl");
        PINS.into_iter().find(official)
    }

    /// The library's file name.
    pub(crate) fn file_name(&self) -> &'static str {
        self.member.rsplit('/').next().unwrap_or(self.member)
    }
}

/// The commands that may run Python, the best first.
pub(crate) fn pythons() -> Vec<Python> {
    let commands: &[&[&str]] = if cfg!(windows) {
        &[&["python3"], &["python"], &["py", "-3"]]
    } else {
        &[&["python3"], &["python"]]
    };
    let owned = |command: &&[&str]| command.iter().map(ToString::to_string).collect();
    commands.iter().map(owned).collect()
}

/// Fetches the library into `directory`, which need not exist, and answers its path.
pub(crate) fn fetch(
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
    download(pin, python, work.path())?;
    let library = unpack(pin, work.path())
        .with_context(|| format!("the wheel for {} is not as expected", pin.platform))?;
    let fresh = work.path().join("library");
    write_through(&fresh, &library)
        .with_context(|| format!("cannot write to {}", directory.display()))?;

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
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|modified| modified.elapsed().ok());
        if ours && age > Some(Duration::from_hours(24)) {
            // Only tidiness: a failure must not stop the fetch.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The first Python with pip. Asked first, so that a later failure is about the download.
fn find_pip<'a>(pythons: &'a [Python], work: &Path) -> anyhow::Result<&'a Python> {
    let mut problems = Vec::new();
    for python in pythons {
        match run_pip(python, work, &["--version"]) {
            Ok(()) => return Ok(python),
            Err(error) => problems.push(format!("{}: {error}", python.join(" "))),
        }
    }
    bail!("found no Python with pip ({})", problems.join(", "))
}

fn download(pin: &Pin, python: &Python, work: &Path) -> anyhow::Result<()> {
    // Fixed tags, so that the wheel is the same whatever Python runs pip.
    let arguments = [
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
        ".",
        &format!("onnxruntime=={VERSION}"),
    ];
    run_pip(python, work, &arguments)
        .with_context(|| format!("{} -m pip download failed", python.join(" ")))
}

/// Runs pip in the folder `work` with its output captured: our own standard output may be a
/// protocol stream.
fn run_pip(python: &Python, work: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(&python[0])
        .args(&python[1..])
        .args(["-m", "pip"])
        .args(arguments)
        // Python imports from the current directory, which may hold a stranger's project.
        .current_dir(work)
        .stdin(Stdio::null())
        .output()?;
    ensure!(output.status.success(), last_words(&output));
    Ok(())
}

/// The end of what a command said, in one line. Three lines, because when there is no network pip
/// says so before it says that nothing was found.
fn last_words(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said
        .lines()
        .map(|line| line.trim().trim_end_matches('.'))
        .filter(|line| !line.is_empty())
        .collect();
    match &lines[lines.len().saturating_sub(3)..] {
        [] => output.status.to_string(),
        end => end.join(" / "),
    }
}

/// The library out of the only wheel in the folder `work`; fails unless it is the pinned one.
fn unpack(pin: &Pin, work: &Path) -> anyhow::Result<Vec<u8>> {
    let wheel = fs::read_dir(work)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("there is none")?;
    let mut archive = zip::ZipArchive::new(File::open(wheel)?)?;
    let member = archive
        .by_name(pin.member)
        .with_context(|| format!("no {}", pin.member))?;
    ensure!(
        member.size() == pin.size,
        "{} has {} bytes instead of the pinned {}",
        pin.member,
        member.size(),
        pin.size
    );
    let mut library = Vec::new();
    // The size was only claimed so far: the limit keeps a lie from filling the memory.
    member
        .take(pin.size)
        .read_to_end(&mut library)
        .with_context(|| format!("cannot unpack {}", pin.member))?;
    let digest = hex::encode(Sha256::digest(&library));
    ensure!(
        digest == pin.sha256,
        "{} has SHA-256 {digest} instead of the pinned {}",
        pin.member,
        pin.sha256
    );
    Ok(library)
}

/// Writes a file that is whole on the disk before it gets its final name.
fn write_through(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn pins_are_well_formed() {
        let minor = VERSION.split('.').nth(1).unwrap().parse::<u32>().unwrap();
        assert!(minor >= ort::MINOR_VERSION, "ort does not load {VERSION}");
        let machines: HashSet<_> = PINS.iter().map(|pin| (pin.os, pin.arch)).collect();
        assert_eq!(machines.len(), PINS.len());
        for pin in PINS {
            let versioned = pin.file_name().contains(VERSION);
            assert_eq!(versioned, pin.os != "windows", "{pin:?}");
            let hash = hex::decode(pin.sha256).unwrap();
            assert_eq!(hex::encode(&hash), pin.sha256, "not in lower case: {pin:?}");
            assert_eq!(hash.len(), 32, "{pin:?}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn only_old_work_is_removed() {
        use std::time::SystemTime;
        let home = tempfile::tempdir().unwrap();
        let hours = |hours| SystemTime::now() - Duration::from_hours(hours);
        for (name, age, kept) in [
            (".fetch-old", 25, false),
            (".fetch-running", 23, true),
            ("libonnxruntime.so", 25, true),
        ] {
            let directory = home.path().join(name);
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("half.whl"), "half").unwrap();
            let opened = File::open(&directory).unwrap();
            opened.set_modified(hours(age)).unwrap();
            remove_stale(home.path());
            assert_eq!(directory.exists(), kept, "{name}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn last_words_are_short() {
        use std::os::unix::process::ExitStatusExt;
        for (stderr, expected) in [
            ("", "exit status: 2"),
            ("\n  \n", "exit status: 2"),
            ("No module named pip.\n", "No module named pip"),
            ("a\nb\n\n c \r\nd.\n", "b / c / d"),
        ] {
            let output = Output {
                status: std::process::ExitStatus::from_raw(2 << 8),
                stdout: b"said aside".to_vec(),
                stderr: stderr.into(),
            };
            assert_eq!(last_words(&output), expected, "{stderr:?}");
        }
    }
}
