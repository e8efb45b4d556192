//! The release of ONNX Runtime that is fetched: the official builds, and the size and hash of their
//! files.

use std::fs;
use std::path::Path;

use crate::download::WheelFile;

/// The release that is fetched.
pub const VERSION: &str = "1.32.0";

/// [`VERSION`] as the user reads it.
const NAME: &str = "ONNX Runtime 1.32.0";

/// The official build for one kind of machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Build {
    /// The machine's [`std::env::consts::OS`].
    pub(super) os: &'static str,
    /// The machine's [`std::env::consts::ARCH`].
    pub(super) arch: &'static str,
    /// The platform tag of the wheel.
    pub(super) platform: &'static str,
    /// The library's path in the wheel.
    pub(super) member: &'static str,
    /// The library's size in bytes.
    pub(super) size: u64,
    /// The library's SHA-256 in lower-case hexadecimal.
    pub(super) sha256: &'static str,
}

const BUILDS: [Build; 5] = [
    Build {
        os: "linux",
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        member: "onnxruntime/capi/libonnxruntime.so.1.32.0",
        size: 34_824_680,
        sha256: "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f",
    },
    Build {
        os: "linux",
        arch: "aarch64",
        platform: "manylinux_2_28_aarch64",
        member: "onnxruntime/capi/libonnxruntime.so.1.32.0",
        size: 27_165_936,
        sha256: "49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a",
    },
    Build {
        os: "macos",
        arch: "aarch64",
        platform: "macosx_14_0_arm64",
        member: "onnxruntime/capi/libonnxruntime.1.32.0.dylib",
        size: 35_272_344,
        sha256: "fa585fabbea65b823b9a8f7e27d46aee3989d1be7e36b528203d3a1fd613aae7",
    },
    Build {
        os: "windows",
        arch: "x86_64",
        platform: "win_amd64",
        member: "onnxruntime/capi/onnxruntime.dll",
        size: 22_668_640,
        sha256: "443c0065fcdba17618ddef05050308f4b471893c5c7da0337d6957c9073ad8a7",
    },
    Build {
        os: "windows",
        arch: "aarch64",
        platform: "win_arm64",
        member: "onnxruntime/capi/onnxruntime.dll",
        size: 20_798_776,
        sha256: "a5c1951a7d495fa0c22a0865fe36981fe67f9d5dc7ba3893c20fa7266dd1e994",
    },
];

/// Whether the file at `path` has the size of the official library for this machine.
pub(super) fn is_official(path: &Path) -> bool {
    Build::for_this_machine().is_some_and(|build| build.has_size_of(path))
}

impl Build {
    /// The build for this machine, if there is an official one.
    pub(super) fn for_this_machine() -> Option<Self> {
        use std::env::consts::{ARCH, OS};
        // The Linux builds need glibc.
        let official =
            |build: &Self| build.os == OS && build.arch == ARCH && !cfg!(target_env = "musl");
        BUILDS.into_iter().find(official)
    }

    /// Whether the file at `path` has the size of the library. No other build is known to have it.
    pub(super) fn has_size_of(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|metadata| metadata.len() == self.size)
    }

    /// The library's file name.
    pub(super) fn file_name(&self) -> &'static str {
        self.member.rsplit('/').next().unwrap_or(self.member)
    }

    /// The library as something to download.
    pub(super) fn library(&self) -> WheelFile<'static> {
        WheelFile {
            name: NAME,
            package: "onnxruntime",
            version: VERSION,
            platform: self.platform,
            member: self.member,
            size: self.size,
            sha256: self.sha256,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_builds_are_well_formed() {
        let minor = VERSION.split('.').nth(1).unwrap().parse::<u32>().unwrap();
        assert!(minor >= ort::MINOR_VERSION, "ort does not load {VERSION}");
        assert!(NAME.ends_with(&format!(" {VERSION}")));
        let machines: HashSet<_> = BUILDS.iter().map(|build| (build.os, build.arch)).collect();
        assert_eq!(machines.len(), BUILDS.len());
        for build in BUILDS {
            let versioned = build.file_name().contains(VERSION);
            assert_eq!(versioned, build.os != "windows", "{build:?}");
            let hash = hex::decode(build.sha256).unwrap();
            let lower = hex::encode(&hash);
            assert_eq!(lower, build.sha256, "not in lower case: {build:?}");
            assert_eq!(hash.len(), 32, "{build:?}");
        }
    }
}
