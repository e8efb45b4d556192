//! Finds, fetches, verifies and loads the ONNX Runtime shared library.
//!
//! The library is looked for where the user named it, then beside the executable, then in the
//! user's cache; when it is nowhere, the official wheel is fetched once with pip (`fetch`) and
//! the library inside it is checked against a pinned hash. Everything here blocks.

mod fetch;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::{CUDA, ExecutionProvider};
use ort::session::Session;
use ort::session::builder::SessionBuilder;

use fetch::{Pin, Python, VERSION};

/// Where the library may come from and what it shall run on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// A library named by the user (flag or configuration); nothing else is tried then.
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
    /// CUDA where the loaded library has it and it works, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA, with a warning where only the CPU can be had.
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

impl FromStr for Provider {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        clap::ValueEnum::from_str(text, true)
            .map_err(|_| format!("unknown provider {text:?}, expected auto, cpu or cuda"))
    }
}

/// How a library was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Named by an option or by `ORT_DYLIB_PATH`.
    Explicit,
    /// Beside the executable.
    Beside,
    /// Fetched by an earlier run.
    Cache,
    /// Fetched by this call.
    Fetched,
}

/// A library file that exists; nothing has been loaded yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its absolute path.
    pub path: PathBuf,
    /// How it was found.
    pub source: Source,
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
        "found no ONNX Runtime library; tried {}; to go on, {advice}, or name an ONNX Runtime \
         library with --runtime PATH or ORT_DYLIB_PATH",
        tried.join("; ")
    )]
    Missing {
        /// Each place with its outcome.
        tried: Vec<String>,
        /// What helps here besides naming a library.
        advice: &'static str,
    },
    /// A library that nobody named by hand was found, but it does not load.
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
    /// This process has loaded another library before.
    #[error(
        "cannot load {requested}: this process has loaded ONNX Runtime from {loaded} and can load \
         only one; restart it to change the library"
    )]
    AlreadyLoaded {
        /// The library in use.
        loaded: PathBuf,
        /// The library asked for now.
        requested: PathBuf,
    },
    /// The library was loaded, but refuses to work.
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

/// Finds the library, fetching it if need be, without loading it.
///
/// # Errors
///
/// When a named library is not a file, or when there is none and none can be fetched.
pub fn locate(
    options: &RuntimeOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<Located, RuntimeError> {
    locate_in(options, &Surroundings::of_process(), progress)
}

/// The loaded ONNX Runtime.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// Sessions are made in it; there is one for the life of the process.
    pub environment: Environment,
    /// The loaded library.
    pub path: PathBuf,
    /// How it was found.
    pub source: Source,
    /// The version as far as the file tells it, else `unknown`.
    pub version: String,
    /// What sessions run on: never [`Provider::Auto`].
    pub provider: Provider,
    /// Why sessions run on the CPU although CUDA was asked for, or could have been had.
    pub fallback: Option<String>,
    wanted: Provider,
}

impl Runtime {
    /// Finds and loads the library. Any number of calls may load the same library, in any thread.
    ///
    /// # Errors
    ///
    /// When the library cannot be found, fetched or loaded, or when another one is loaded.
    pub fn load(
        options: &RuntimeOptions,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self, RuntimeError> {
        let surroundings = Surroundings::of_process();
        let located = locate_in(options, &surroundings, progress)?;
        Self::open(located, options, &surroundings)
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

    /// Runs later sessions on the CPU, and tells the user if CUDA was asked for.
    pub fn fall_back(&mut self, reason: impl Into<String>) {
        let reason = reason.into();
        if self.wanted == Provider::Cuda {
            tracing::warn!("CUDA was asked for, but {reason}; running on the CPU");
        } else {
            tracing::debug!("running on the CPU: {reason}");
        }
        self.provider = Provider::Cpu;
        self.fallback = Some(reason);
    }

    /// Lets go of the environment that this module keeps for later loads, for the end of `main`:
    /// on macOS ONNX Runtime aborts at exit while its environment lives. When the last `Runtime`
    /// and session are dropped too, this process cannot load ONNX Runtime again.
    pub fn release() {
        let kept = {
            let mut process = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
            process.environment.take()
        };
        drop(kept);
    }

    fn open(
        located: Located,
        options: &RuntimeOptions,
        surroundings: &Surroundings,
    ) -> Result<Self, RuntimeError> {
        let environment = load_library(&located.path).map_err(|failure| match failure {
            LoadFailure::Other(error) => error,
            LoadFailure::NotLoadable(problem) if located.source == Source::Explicit => {
                RuntimeError::Named {
                    origin: origin(options),
                    path: located.path.clone(),
                    problem: format!("is not a loadable ONNX Runtime library ({problem})"),
                }
            }
            LoadFailure::NotLoadable(problem) => RuntimeError::Unusable {
                path: located.path.clone(),
                problem,
            },
        })?;
        let mut runtime = Self {
            environment,
            version: version_of(&located.path, surroundings.pin.as_ref()),
            path: located.path,
            source: located.source,
            provider: Provider::Cpu,
            fallback: None,
            wanted: options.provider,
        };
        if options.provider != Provider::Cpu {
            runtime.choose_cuda();
        }
        Ok(runtime)
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

/// What the process finds around it; a value, so that tests can give their own.
struct Surroundings {
    named: Option<PathBuf>,
    beside: Option<PathBuf>,
    cache: Option<PathBuf>,
    pin: Option<Pin>,
    pythons: Vec<Python>,
}

impl Surroundings {
    fn of_process() -> Self {
        let path_variable = |name| {
            std::env::var_os(name)
                .filter(|value: &OsString| !value.is_empty())
                .map(PathBuf::from)
        };
        let beside = std::env::current_exe().ok();
        Self {
            named: path_variable("ORT_DYLIB_PATH"),
            beside: beside.and_then(|exe| exe.parent().map(Path::to_path_buf)),
            cache: path_variable("INTERLINE_CACHE_DIR").or_else(|| {
                directories::ProjectDirs::from("", "", "interline")
                    .map(|dirs| dirs.cache_dir().to_path_buf())
            }),
            pin: Pin::for_this_machine(),
            pythons: fetch::pythons(),
        }
    }
}

fn locate_in(
    options: &RuntimeOptions,
    surroundings: &Surroundings,
    progress: &mut dyn FnMut(&str),
) -> Result<Located, RuntimeError> {
    if let Some(path) = options.library.as_ref().or(surroundings.named.as_ref()) {
        return named(origin(options), path);
    }
    let found = |path: PathBuf, source| Ok(Located { path, source });
    let mut tried = vec!["--runtime and ORT_DYLIB_PATH: not given".to_owned()];

    let plain = format!(
        "{}onnxruntime{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    );
    let mut names: Vec<&str> = surroundings
        .pin
        .as_ref()
        .map(Pin::file_name)
        .into_iter()
        .collect();
    if !names.contains(&plain.as_str()) {
        names.push(&plain);
    }
    if let Some(directory) = &surroundings.beside {
        if let Some(path) = names
            .iter()
            .map(|name| directory.join(name))
            .find(|path| path.is_file())
        {
            return found(path, Source::Beside);
        }
        tried.push(format!(
            "beside the executable: no {} in {}",
            names.join(" or "),
            directory.display()
        ));
    }

    let missing = |mut tried: Vec<String>, last: String, advice| {
        tried.push(last);
        Err(RuntimeError::Missing { tried, advice })
    };
    let Some(pin) = &surroundings.pin else {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        let last = format!("pip: no official build of {VERSION} is known for {os} on {arch}");
        return missing(
            tried,
            last,
            "build or install ONNX Runtime for this machine",
        );
    };
    // Absolute, because pip is run in another directory.
    let cache = surroundings
        .cache
        .as_ref()
        .and_then(|path| std::path::absolute(path).ok());
    let Some(cache) = cache else {
        let last = "cache: this user has no cache directory".to_owned();
        return missing(tried, last, "set INTERLINE_CACHE_DIR");
    };
    let directory = cache.join(format!("onnxruntime-{VERSION}"));
    let path = directory.join(pin.file_name());
    // The hash was checked when the file was unpacked; hashing it at each start takes too long,
    // and a size that is right tells an interrupted copy from a whole one.
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() && metadata.len() == pin.size => {
            return found(path, Source::Cache);
        }
        Ok(metadata) => tried.push(format!(
            "cache: {} is corrupt ({} bytes instead of {})",
            path.display(),
            metadata.len(),
            pin.size
        )),
        Err(error) => tried.push(format!("cache: {}: {error}", path.display())),
    }
    if options.offline {
        let last = "pip: not used, being offline".to_owned();
        return missing(tried, last, "run once without --offline");
    }
    match fetch::fetch(pin, &directory, &surroundings.pythons, progress) {
        Ok(path) => found(path, Source::Fetched),
        Err(error) => missing(
            tried,
            format!("pip: {error:#}"),
            "install Python 3 with pip and try again with a network",
        ),
    }
}

fn origin(options: &RuntimeOptions) -> &'static str {
    match options.library {
        Some(_) => "--runtime",
        None => "ORT_DYLIB_PATH",
    }
}

fn named(origin: &'static str, path: &Path) -> Result<Located, RuntimeError> {
    let problem = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => None,
        Ok(_) => Some("is not a file".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some("does not exist".to_owned()),
        Err(error) => Some(format!("cannot be read ({error})")),
    };
    // Absolute, because ort takes a relative path as one beside the executable.
    match (problem, std::path::absolute(path)) {
        (None, Ok(path)) => Ok(Located {
            path,
            source: Source::Explicit,
        }),
        (problem, absolute) => Err(RuntimeError::Named {
            origin,
            path: path.to_path_buf(),
            problem: problem
                .or_else(|| absolute.err().map(|error| error.to_string()))
                .unwrap_or_default(),
        }),
    }
}

/// What this process has loaded: ort keeps the first library for good and makes one environment
/// only, so that later loads must share it.
struct Process {
    library: Option<PathBuf>,
    environment: Option<Environment>,
}

static PROCESS: Mutex<Process> = Mutex::new(Process {
    library: None,
    environment: None,
});

enum LoadFailure {
    NotLoadable(String),
    Other(RuntimeError),
}

fn load_library(path: &Path) -> Result<Environment, LoadFailure> {
    let not_loadable = |problem: String| LoadFailure::NotLoadable(problem);
    let canonical = fs::canonicalize(path).map_err(|error| not_loadable(error.to_string()))?;
    let mut process = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = process
        .library
        .as_ref()
        .filter(|loaded| **loaded != canonical)
    {
        return Err(LoadFailure::Other(RuntimeError::AlreadyLoaded {
            loaded: loaded.clone(),
            requested: path.to_path_buf(),
        }));
    }
    if let Some(environment) = &process.environment {
        return Ok(environment.clone());
    }
    let builder = guarded(|| ort::init_from(path)).map_err(not_loadable)?;
    // From here on ort uses this library, even if the next step fails.
    process.library = Some(canonical);
    let built = guarded(|| builder.with_name("interline").with_telemetry(false).build());
    let environment = built.map_err(|problem| {
        LoadFailure::Other(RuntimeError::Start {
            path: path.to_path_buf(),
            problem,
        })
    })?;
    process.environment = Some(environment.clone());
    Ok(environment)
}

/// ort asserts what a foreign library should hold: turn such a panic into an error.
fn guarded<T, E: fmt::Display>(call: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("it does not offer the interface of ONNX Runtime".to_owned()),
    }
}

/// ort has no safe call for the version, and the build information of official libraries does not
/// hold it: tell it from the pinned size, else from the file name behind any links.
fn version_of(path: &Path, pin: Option<&Pin>) -> String {
    let size = fs::metadata(path).map(|metadata| metadata.len()).ok();
    if pin.is_some_and(|pin| Some(pin.size) == size) {
        return VERSION.to_owned();
    }
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let name = real.file_name().unwrap_or_default().to_string_lossy();
    let parts: Vec<&str> = name
        .split('.')
        .filter(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
        .collect();
    match parts.len() {
        0 | 1 => "unknown".to_owned(),
        _ => parts.join("."),
    }
}
