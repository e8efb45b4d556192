//! Makes a model folder of a file that holds a model.

use std::path::{Path, PathBuf};

/// Changes whenever the same file gives another folder.
pub const VERSION: u32 = 1;

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What has been done.
    pub done: u64,
    /// What there is to do.
    pub total: u64,
}

/// Imports the file `source` into the folder `target`, which exists and is empty.
///
/// # Errors
///
/// Always, for now.
pub fn import(
    source: &Path,
    _target: &Path,
    _progress: &mut dyn FnMut(Progress),
) -> Result<(), ImportError> {
    Err(ImportError {
        source_file: source.to_path_buf(),
    })
}

/// Why a file is not imported.
#[derive(Debug, thiserror::Error)]
#[error("cannot import {source_file}: this is not built yet")]
pub struct ImportError {
    source_file: PathBuf,
}
