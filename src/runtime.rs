//! Finds, fetches, verifies and loads the ONNX Runtime shared library.
//!
//! The library is looked for where the user says, then beside the executable, then in the user's
//! cache. If it is in none of them, the official build ([`release`]) is downloaded once and kept in
//! the cache, where it is checked against its pinned hash. Everything here is blocking.

pub mod locate;
pub mod probe;
pub mod release;
pub mod telemetry;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::{CUDA, ExecutionProvider};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::session::builder::SessionBuilder;

use crate::download::Waiter;
use locate::{Located, Source, locate, origin};
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

/// An execution provider of ONNX Runtime.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Deserialize,
    serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// CUDA if the loaded library has it and it works, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA, with a warning if only the CPU is available.
    Cuda,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        })
    }
}

impl Provider {
    /// The memory for what stays on the device: keys and values.
    ///
    /// # Errors
    ///
    /// When ONNX Runtime refuses.
    pub fn memory(self) -> ort::Result<MemoryInfo<'static>> {
        let device = match self {
            Self::Cuda => AllocationDevice::CUDA,
            Self::Auto | Self::Cpu => AllocationDevice::CPU,
        };
        MemoryInfo::new(device, 0, AllocatorType::Device, MemoryType::Default)
    }
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
    /// What sessions run on: never [`Provider::Auto`].
    pub provider: Provider,
    /// Why sessions run on the CPU although CUDA was requested or seemed to be available.
    pub fallback: Option<String>,
    wanted: Provider,
}

/// One line: the version, what sessions run on, where the library is, and why they do not run on
/// the GPU.
impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            provider,
            path,
            fallback,
            ..
        } = self;
        write!(
            f,
            "ONNX Runtime {version} on {provider} from {}",
            path.display()
        )?;
        match fallback {
            Some(reason) => write!(f, " (not on the GPU: {reason})"),
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
        let mut runtime = Self {
            environment,
            version: version_of(&located.path),
            path: located.path,
            provider: Provider::Cpu,
            fallback: None,
            wanted: options.provider,
        };
        if options.provider != Provider::Cpu {
            runtime.choose_cuda();
        }
        Ok(runtime)
    }

    /// A session builder with the execution provider set.
    ///
    /// CUDA may still turn out to be unusable when the session is made: call
    /// [`Runtime::fall_back`] then and make the session again.
    ///
    /// # Errors
    ///
    /// When ONNX Runtime refuses.
    pub fn session_builder(&self) -> Result<SessionBuilder, RuntimeError> {
        let builder = match self.provider {
            Provider::Cuda => self.cuda_builder(),
            Provider::Cpu | Provider::Auto => Session::builder(&self.environment),
        };
        builder.map_err(|error| RuntimeError::Start {
            path: self.path.clone(),
            problem: error.to_string(),
        })
    }

    /// Runs later sessions on the CPU, and warns the user if CUDA was requested.
    pub fn fall_back(&mut self, reason: impl Into<String>) {
        let reason = reason.into();
        if self.wanted == Provider::Cuda {
            tracing::warn!("CUDA was requested, but {reason}; running on the CPU");
        } else {
            tracing::debug!("running on the CPU: {reason}");
        }
        self.provider = Provider::Cpu;
        self.fallback = Some(reason);
    }

    /// Drops the environment that this module keeps for later loads. To be called at the end of
    /// `main`: on macOS ONNX Runtime aborts at exit while its environment lives. Once the last
    /// `Runtime` and session are dropped too, this process cannot load ONNX Runtime again.
    pub fn release() {
        let mut process = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
        process.environment = None;
    }

    fn choose_cuda(&mut self) {
        match CUDA::is_available() {
            // Registering loads the provider's own library, which is where a machine without
            // CUDA or cuDNN fails.
            Ok(true) => match self.cuda_builder() {
                Ok(_) => self.provider = Provider::Cuda,
                Err(error) => self.fall_back(format!("it does not start: {error}")),
            },
            Ok(false) if self.wanted == Provider::Auto => {}
            Ok(false) => self.fall_back(format!("{} is built without it", self.path.display())),
            Err(error) => self.fall_back(format!("the providers cannot be listed: {error}")),
        }
    }

    fn cuda_builder(&self) -> ort::Result<SessionBuilder> {
        Session::builder(&self.environment)?
            .with_execution_providers([CUDA::default().build().error_on_failure()])
            .map_err(ort::Error::from)
    }
}

/// What this process has loaded: ort keeps the first library forever and makes only one
/// environment, so later loads must share it.
struct Process {
    library: Option<PathBuf>,
    environment: Option<Environment>,
}

static PROCESS: Mutex<Process> = Mutex::new(Process {
    library: None,
    environment: None,
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

    #[test]
    fn a_provider_has_one_name() {
        for provider in <Provider as clap::ValueEnum>::value_variants() {
            let name = provider.to_string();
            let flag = clap::ValueEnum::to_possible_value(provider).unwrap();
            assert_eq!(flag.get_name(), name);
            assert_eq!(serde_json::to_value(provider).unwrap(), *name);
        }
    }
}
