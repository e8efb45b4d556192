//! Finds, fetches, verifies and loads the ONNX Runtime shared library, and what else it runs on than
//! the CPU.
//!
//! The library is looked for where the user says, then beside the executable, then in the user's
//! cache. If it is in none of them, the official build ([`release`]) is downloaded once and kept in
//! the cache, where it is checked against its pinned hash. Everything here is blocking.

pub mod locate;
pub mod plugin;
pub mod probe;
pub mod provider;
pub mod release;
pub mod telemetry;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::device::Device;
use ort::environment::Environment;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, DeviceType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::session::builder::SessionBuilder;

use crate::download::Waiter;
use locate::{Located, Source, locate, origin};
use plugin::{Plugin, PluginError};
use provider::{Provider, ProviderError};
use release::VERSION;

/// Where the library may come from, and what it should run on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// A library named by the user (flag or configuration). If there is one, nothing else is tried.
    pub library: Option<PathBuf>,
    /// Never fetch anything.
    pub offline: bool,
    /// The wanted execution provider.
    pub provider: Provider,
}

/// Why there is no ONNX Runtime, and what the user can do about it.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The user named a library that cannot be used.
    #[error(
        "{origin} names {path}, which {problem}; name the shared library of ONNX Runtime 1.{} or \
         newer, or leave it out to have {VERSION} fetched",
        ort::MINOR_VERSION
    )]
    Named {
        /// `--runtime` or `ORT_DYLIB_PATH`.
        origin: &'static str,
        /// The named path.
        path: PathBuf,
        /// What is wrong with it, as the end of a sentence.
        problem: String,
    },
    /// No library was found, and none could be fetched.
    #[error(
        "found no ONNX Runtime library; tried {}; to continue, {advice}, or name an ONNX Runtime \
         library with --runtime PATH or ORT_DYLIB_PATH",
        tried.join("; ")
    )]
    Missing {
        /// Each place with its outcome.
        tried: Vec<String>,
        /// What helps other than naming a library.
        advice: &'static str,
    },
    /// A library that the user did not name was found, but it does not load.
    #[error(
        "cannot load {path} as ONNX Runtime: {problem}; delete it to have {VERSION} fetched, or \
         name another library with --runtime PATH or ORT_DYLIB_PATH"
    )]
    Unusable {
        /// The library.
        path: PathBuf,
        /// What the loader said.
        problem: String,
    },
    /// This process has already loaded another library.
    #[error(
        "cannot load {requested}: this process has loaded ONNX Runtime from {loaded} and can load \
         only one; restart it to change the library"
    )]
    AlreadyLoaded {
        /// The library in use.
        loaded: PathBuf,
        /// The library requested now.
        requested: PathBuf,
    },
    /// The library was loaded, but does not start.
    #[error(
        "ONNX Runtime at {path} does not start: {problem}; name another library with --runtime PATH"
    )]
    Start {
        /// The library.
        path: PathBuf,
        /// What ONNX Runtime said.
        problem: String,
    },
}

/// The loaded ONNX Runtime.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// Sessions are made in it; there is one for the life of the process.
    pub environment: Environment,
    /// The loaded library.
    pub path: PathBuf,
    /// The version, if it can be told from the file, else `unknown`.
    pub version: String,
    /// What the user wants sessions to run on.
    pub wanted: Provider,
    /// What sessions run on: never [`Provider::Auto`], and the CPU until [`Runtime::run_on`].
    pub provider: Provider,
    /// Why sessions run on what they run on, if there was a choice.
    pub reason: Option<String>,
}

/// One line: the version, what sessions run on, where the library is, and why they do not run on
/// something else.
impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            provider,
            path,
            reason,
            ..
        } = self;
        write!(
            f,
            "ONNX Runtime {version} on {provider} from {}",
            path.display()
        )?;
        match reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

impl Runtime {
    /// Finds and loads the library. Any number of calls may load the same library, in any thread.
    ///
    /// # Errors
    ///
    /// When the library cannot be found, fetched or loaded, or when another one is loaded.
    pub fn load(options: &RuntimeOptions, waiter: &mut dyn Waiter) -> Result<Self, RuntimeError> {
        Self::load_located(locate(options, waiter)?, options)
    }

    /// As [`Runtime::load`], but an unknown library is first loaded in a child process, so that a
    /// library that crashes the process is an error instead ([`probe`]). For the program itself
    /// only, since the child is this program too.
    ///
    /// # Errors
    ///
    /// As for [`Runtime::load`], and when loading the library ends the child.
    pub fn load_probed(
        options: &RuntimeOptions,
        waiter: &mut dyn Waiter,
    ) -> Result<Self, RuntimeError> {
        let located = locate(options, waiter)?;
        probe::check(&located, waiter).map_err(|problem| unusable(&located, options, problem))?;
        Self::load_located(located, options)
    }

    fn load_located(located: Located, options: &RuntimeOptions) -> Result<Self, RuntimeError> {
        let environment = PROCESS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .environment(&located, options)?;
        Ok(Self {
            environment,
            version: version_of(&located.path),
            path: located.path,
            wanted: options.provider,
            provider: Provider::Cpu,
            reason: None,
        })
    }

    /// The providers worth a trial, the best first: those that the user wants, as far as they are
    /// on this machine.
    #[must_use]
    pub fn candidates(&self) -> Vec<Provider> {
        match self.wanted {
            Provider::Cpu => Vec::new(),
            Provider::Auto => [Provider::Cuda, Provider::Webgpu]
                .into_iter()
                .filter(|provider| match self.find(*provider) {
                    // A damaged plugin is a candidate, so that the user learns of it.
                    Ok(_) | Err(ProviderError::Plugin(PluginError::Damaged { .. })) => true,
                    Err(_) => false,
                })
                .collect(),
            wanted => vec![wanted],
        }
    }

    /// Whether `provider` is here: the plugin library that adds it, if that takes one.
    ///
    /// # Errors
    ///
    /// See [`ProviderError`].
    pub fn find(&self, provider: Provider) -> Result<Option<PathBuf>, ProviderError> {
        match provider.built_in() {
            Some(built_in) if !(built_in.is_there)().map_err(ProviderError::Start)? => {
                Err(ProviderError::NotBuiltIn {
                    provider,
                    library: self.path.clone(),
                    remedy: built_in.remedy,
                })
            }
            None if provider != Provider::Cpu => Ok(Some(Plugin::of(provider)?.find()?)),
            _ => Ok(None),
        }
    }

    /// Runs later sessions on `provider`. It may still turn out to be unusable when a session is
    /// made: call [`Runtime::fall_back`] then and make the session again.
    ///
    /// # Errors
    ///
    /// See [`ProviderError`]. Sessions run on what they ran on before.
    pub fn run_on(&mut self, provider: Provider) -> Result<(), ProviderError> {
        if let Some(path) = self.find(provider)? {
            let plugin = Plugin::of(provider)?;
            let mut process = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
            if !process.plugins.contains(&path) {
                let registered = (self.environment).register_ep_library(plugin.package, &path);
                registered.map_err(|problem| ProviderError::Load {
                    path: path.clone(),
                    problem,
                })?;
                process.plugins.push(path);
            }
            if self.device(&plugin).is_none() {
                let remedy = plugin.needs;
                return Err(ProviderError::NoDevice { remedy });
            }
        }
        let before = std::mem::replace(&mut self.provider, provider);
        // Registering loads what the provider needs.
        let started = self.builder().map(drop);
        started.map_err(|problem| {
            self.provider = before;
            ProviderError::Start(problem)
        })
    }

    /// A session builder for the provider that [`Runtime::run_on`] set.
    ///
    /// # Errors
    ///
    /// When ONNX Runtime refuses.
    pub fn session_builder(&self) -> Result<SessionBuilder, RuntimeError> {
        self.builder().map_err(|error| RuntimeError::Start {
            path: self.path.clone(),
            problem: error.to_string(),
        })
    }

    fn builder(&self) -> ort::Result<SessionBuilder> {
        let builder = Session::builder(&self.environment)?;
        if let Some(built_in) = self.provider.built_in() {
            let dispatch = (built_in.dispatch)().error_on_failure();
            return builder
                // DirectML refuses a session with it, and no other provider gains from it here.
                .with_memory_pattern(self.provider != Provider::Directml)?
                .with_execution_providers([dispatch])
                .map_err(ort::Error::from);
        }
        match Plugin::of(self.provider) {
            Ok(plugin) => builder
                .with_devices(self.device(&plugin), None)
                .map_err(ort::Error::from),
            Err(_) => Ok(builder),
        }
    }

    /// The device of a plugin that is used: a GPU if there is one.
    fn device(&self, plugin: &Plugin) -> Option<Device<'_>> {
        let offered = || {
            let devices = self.environment.devices();
            devices.filter(|device| device.ep().is_ok_and(|ep| ep == plugin.devices))
        };
        let is_gpu = |device: &Device<'_>| device.hardware_device().ty() == DeviceType::GPU;
        offered().find(is_gpu).or_else(|| offered().next())
    }

    /// An allocator of the memory of the device that `session`, made by [`Self::session_builder`],
    /// runs on; `None` if that is the host's memory.
    ///
    /// # Errors
    ///
    /// When ONNX Runtime refuses.
    pub fn device_memory(&self, session: &Session) -> ort::Result<Option<Allocator>> {
        if let Some(built_in) = self.provider.built_in() {
            let Some(name) = built_in.memory else {
                return Ok(None);
            };
            let device = AllocationDevice::new(name);
            let memory = MemoryInfo::new(device, 0, AllocatorType::Device, MemoryType::Default)?;
            return Allocator::new(session, memory).map(Some);
        }
        let plugin = Plugin::of(self.provider).ok();
        match plugin.filter(|plugin| plugin.has_memory) {
            Some(plugin) => (self.device(&plugin))
                .map(|device| Allocator::new(session, device.memory_info(false)))
                .transpose(),
            None => Ok(None),
        }
    }

    /// Runs later sessions on the CPU, and warns the user if another provider was requested.
    pub fn fall_back(&mut self, reason: impl Into<String>) {
        self.provider = Provider::Cpu;
        self.reason = Some(reason.into());
        if let Some(warning) = self.warning() {
            tracing::warn!("{warning}");
        }
    }

    /// Why sessions do not run on the provider that was requested.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let reason = self.reason.as_ref()?;
        let asked = !matches!(self.wanted, Provider::Auto | Provider::Cpu);
        (asked && self.provider == Provider::Cpu).then(|| reason.clone())
    }

    /// Drops the environment that this module keeps for later loads. To be called at the end of
    /// `main`: on macOS ONNX Runtime aborts at exit while its environment lives. Once the last
    /// `Runtime` and session are dropped too, this process cannot load ONNX Runtime again.
    pub fn release() {
        let mut process = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
        process.environment = None;
    }
}

/// What this process has loaded: ort keeps the first library forever and makes only one
/// environment, so later loads must share it.
struct Process {
    library: Option<PathBuf>,
    environment: Option<Environment>,
    /// The plugin libraries that the environment has.
    plugins: Vec<PathBuf>,
}

static PROCESS: Mutex<Process> = Mutex::new(Process {
    library: None,
    environment: None,
    plugins: Vec::new(),
});

impl Process {
    /// The environment, in the located library.
    fn environment(
        &mut self,
        located: &Located,
        options: &RuntimeOptions,
    ) -> Result<Environment, RuntimeError> {
        let path = &located.path;
        let unusable = |problem| unusable(located, options, problem);
        let canonical = fs::canonicalize(path).map_err(|error| unusable(error.to_string()))?;
        if let Some(loaded) = &self.library
            && *loaded != canonical
        {
            return Err(RuntimeError::AlreadyLoaded {
                loaded: loaded.clone(),
                requested: path.clone(),
            });
        }
        if let Some(environment) = &self.environment {
            return Ok(environment.clone());
        }
        let builder = ort::init_from(path).map_err(|error| unusable(error.to_string()))?;
        // From here on ort uses this library, even if the next step fails.
        self.library = Some(canonical);
        let environment = builder
            .with_name("interline")
            .with_telemetry(false)
            .build()
            .map_err(|error| RuntimeError::Start {
                path: path.clone(),
                problem: error.to_string(),
            })?;
        Ok(self.environment.insert(environment).clone())
    }
}

/// The error for a library that does not load.
fn unusable(located: &Located, options: &RuntimeOptions, problem: String) -> RuntimeError {
    let path = located.path.clone();
    match located.source {
        Source::Explicit => RuntimeError::Named {
            origin: origin(options),
            path,
            problem: format!("is not a loadable ONNX Runtime library ({problem})"),
        },
        Source::Beside | Source::Cache | Source::Fetched => {
            RuntimeError::Unusable { path, problem }
        }
    }
}

/// ort has no safe call for the version, and the build information of official libraries does not
/// contain it. So it is told from the official size, else from the file name that any links lead
/// to.
fn version_of(path: &Path) -> String {
    if release::is_official(path) {
        return VERSION.to_owned();
    }
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let name = real.file_name().unwrap_or_default().to_string_lossy();
    let numbers: Vec<&str> = name
        .split('.')
        .filter(|part| part.parse::<u32>().is_ok())
        .collect();
    match numbers[..] {
        // A single number is that of the interface, not of the release.
        [] | [_] => "unknown".to_owned(),
        _ => numbers.join("."),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::locate::tests::Home;
    use super::release::Build;
    use super::*;

    #[test]
    fn a_file_that_is_not_a_library_does_not_load() {
        let home = Home::new();
        let options = RuntimeOptions {
            library: Some(home.write("text", "no library")),
            ..RuntimeOptions::default()
        };
        let error = Runtime::load(&options, &mut |_: &str| {})
            .unwrap_err()
            .to_string();
        let start = "--runtime names HOME/text, which is not a loadable ONNX Runtime library (";
        let error = home.normal(error);
        assert!(error.starts_with(start), "{error}");
        // The attempt does not prevent the next one.
        let again = Runtime::load(&options, &mut |_: &str| {})
            .unwrap_err()
            .to_string();
        assert_eq!(home.normal(again), error);
    }

    #[test]
    fn an_unusable_library_that_was_not_named_should_be_deleted() {
        for source in [Source::Beside, Source::Cache, Source::Fetched] {
            let home = Home::new();
            let located = Located {
                path: home.write("text", "no library"),
                source,
            };
            let mut process = Process {
                library: None,
                environment: None,
                plugins: Vec::new(),
            };
            let error = process
                .environment(&located, &RuntimeOptions::default())
                .unwrap_err();
            assert!(matches!(error, RuntimeError::Unusable { .. }), "{error}");
            assert!(
                error.to_string().contains("; delete it to have "),
                "{error}"
            );
            assert_eq!(process.library, None);
        }
    }

    #[test]
    fn one_process_loads_one_library() {
        let home = Home::new();
        let mut process = Process {
            library: Some(home.write("first", "")),
            environment: None,
            plugins: Vec::new(),
        };
        let located = Located {
            path: home.write("second", ""),
            source: Source::Explicit,
        };
        let error = process
            .environment(&located, &RuntimeOptions::default())
            .unwrap_err();
        expect![[r#"
            cannot load HOME/second: this process has loaded ONNX Runtime from HOME/first and can load only one;
            restart it to change the library
        "#]].assert_eq(&home.normal(error));
    }

    #[test]
    fn a_version_is_told_from_the_file() {
        let official = Build::for_this_machine().map(|build| ("renamed", build.size, VERSION));
        let table = [
            ("libonnxruntime.so.1.32.0", 1, "1.32.0"),
            ("libonnxruntime.1.27.1.dylib", 1, "1.27.1"),
            ("libonnxruntime.so.1", 1, "unknown"),
            ("libonnxruntime.so", 1, "unknown"),
            ("onnxruntime.dll", 1, "unknown"),
            ("nothing", 0, "unknown"),
        ];
        for (name, size, expected) in table.into_iter().chain(official) {
            let home = Home::new();
            if size > 0 {
                let file = fs::File::create(home.path(name)).unwrap();
                file.set_len(size).unwrap();
            }
            assert_eq!(version_of(&home.path(name)), expected, "{name}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_version_is_told_through_links() {
        let home = Home::new();
        let link = home.path("libonnxruntime.so");
        let library = home.write("libonnxruntime.so.1.30.2", "");
        std::os::unix::fs::symlink(library, &link).unwrap();
        assert_eq!(version_of(&link), "1.30.2");
    }
}
