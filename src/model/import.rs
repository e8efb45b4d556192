//! Makes a model folder of a model that others published: a GGUF file, as llama.cpp reads it, or a
//! folder in the layout of Hugging Face, as transformers saves it.
//!
//! Both are untrusted. They are read in parts, so a model may be larger than the memory.

mod architecture;
mod blocks;
mod byte_pairs;
mod family;
mod formats;
mod gguf;
mod graph;
mod protobuf;
mod quantize;
mod rotary;
mod safetensors;
mod sentencepiece;
mod source;
mod vocabulary;
mod weights;

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::manifest;
use architecture::{Architecture, ArchitectureError};
use formats::FormatsError;
use gguf::GgufError;
use safetensors::SafetensorsError;
use weights::WeightsError;

/// The importer's version, which is raised when its output changes.
pub const VERSION: u32 = 2;

/// How far an import is, in bytes of the source's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What was read.
    pub done: u64,
    /// All there is.
    pub total: u64,
}

/// Whether the folder `path` holds a model in the layout of Hugging Face, and none in ours.
#[must_use]
pub fn is_source(path: &Path) -> bool {
    let has = |name| safetensors::is_there(path, name);
    !has(manifest::FILE_NAME) && (has(safetensors::WEIGHTS) || has(safetensors::INDEX))
}

/// The name of a model file or folder: that of the file, without its extension; of a snapshot in the
/// cache of a Hub, that of the repository.
#[must_use]
pub fn name_of(path: &Path) -> String {
    let text = |name: Option<&OsStr>| name.unwrap_or_default().to_string_lossy().into_owned();
    let snapshots = path.parent().filter(|parent| parent.ends_with("snapshots"));
    match snapshots.and_then(Path::parent) {
        // `models--OWNER--NAME`
        Some(repository) => {
            let whole = text(repository.file_name());
            let name = whole.rsplit("--").next();
            name.unwrap_or_default().to_owned()
        }
        None if path.is_dir() => text(path.file_name()),
        None => text(path.file_stem()),
    }
}

/// Imports `source`, a GGUF file or a folder in the layout of Hugging Face, into the folder
/// `target`, which must exist and be empty. After an error the folder holds a part of a model, which
/// has no manifest.
///
/// # Errors
///
/// See [`ImportError`]: each message names the source and the remedy.
pub fn import(
    source: &Path,
    target: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), ImportError> {
    let path = || source.to_path_buf();
    let write = |error: io::Error| ImportError::Write {
        path: target.to_path_buf(),
        source: error,
    };
    if target.read_dir().map_err(write)?.next().is_some() {
        return Err(ImportError::NotEmpty(target.to_path_buf()));
    }
    let opened = match source.is_dir() {
        true => safetensors::open(source).map_err(|error| ImportError::Safetensors {
            path: path(),
            source: error,
        })?,
        false => gguf::open(source).map_err(|error| ImportError::Gguf {
            path: path(),
            source: error,
        })?,
    };
    let architecture = Architecture::read(&opened).map_err(|error| ImportError::Architecture {
        path: path(),
        source: error,
    })?;
    // First what takes no time and can be wrong.
    let manifest = formats::write(source, &opened, &architecture, target);
    let manifest = manifest.map_err(|error| match error {
        FormatsError::Write(error) => write(error),
        error => ImportError::Formats {
            path: path(),
            source: error,
        },
    })?;
    let written = graph::write(&opened, &architecture, target, progress);
    written.map_err(|error| match error {
        WeightsError::Write(error) => write(error),
        error => ImportError::Weights {
            path: path(),
            source: error,
        },
    })?;
    let manifest = toml::to_string(&manifest).map_err(|error| write(io::Error::other(error)))?;
    std::fs::write(target.join(manifest::FILE_NAME), manifest).map_err(write)
}

/// Why a model is not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The GGUF file cannot be read.
    #[error("cannot import {path}: {source}")]
    Gguf {
        /// The file.
        path: PathBuf,
        /// Why.
        source: GgufError,
    },
    /// The folder cannot be read.
    #[error("cannot import {path}: {source}")]
    Safetensors {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: SafetensorsError,
    },
    /// The model is of a kind that is not supported.
    #[error("cannot import {path}: {source}")]
    Architecture {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: ArchitectureError,
    },
    /// Its tokenizer cannot be used.
    #[error("cannot import {path}: {source}")]
    Formats {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: FormatsError,
    },
    /// The weights cannot be read.
    #[error("cannot import {path}: {source}")]
    Weights {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: WeightsError,
    },
    /// The folder holds something.
    #[error("{0} is not empty; name an empty folder")]
    NotEmpty(PathBuf),
    /// The folder cannot be written.
    #[error("cannot write to {path}: {source}; free some disk space, or name another folder")]
    Write {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
