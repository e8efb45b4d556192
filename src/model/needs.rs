//! The memory that a model needs, estimated from its files before it is loaded, and what there is.

mod cache_size;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use sysinfo::System;

use super::catalogue::Catalogue;
use super::manifest::{Manifest, ManifestError};

/// What memory is told in, in bytes.
pub const MEGABYTE: u64 = 1_000_000;

/// What ONNX Runtime and the program take beside a model, in bytes: 65 MB of their own, and the
/// parts of their files that are mapped.
const PROGRAM: u64 = 90 * MEGABYTE;

/// How much memory a tokenizer takes for each byte of its file.
const TOKENIZER: u64 = 16;

/// The memory that a model needs, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The weights, which ONNX Runtime copies into the order that its kernels read.
    pub weights: u64,
    /// Keys and values; `None` if the graph does not tell their size.
    pub cache: Option<u64>,
    /// The tokenizer, the library and the program.
    pub rest: u64,
}

impl Needs {
    /// What the model folder `directory` needs with caches of `tokens` tokens
    /// (docs/decisions/014-start.md has it beside what was measured).
    ///
    /// # Errors
    ///
    /// When the folder's manifest or graph cannot be read.
    pub fn estimate(directory: &Path, tokens: usize) -> Result<Self, MemoryError> {
        let manifest = Manifest::read(directory)?;
        let graph = directory.join(&manifest.graph);
        let unreadable = |source: io::Error| MemoryError::Unreadable {
            path: graph.clone(),
            source,
        };
        let tokenizer = directory.join(&manifest.tokenizer).metadata();
        let tokenizer = tokenizer.map_or(0, |file| file.len());
        let per_token = cache_size::bytes_per_token(&graph).map_err(unreadable)?;
        Ok(Self {
            weights: weights(&graph).map_err(unreadable)?,
            cache: per_token.map(|bytes| bytes.saturating_mul(tokens as u64)),
            rest: TOKENIZER.saturating_mul(tokenizer).saturating_add(PROGRAM),
        })
    }

    /// All together, in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        let cache = self.cache.unwrap_or_default();
        self.weights.saturating_add(cache).saturating_add(self.rest)
    }

    /// Whether this machine has that much to give.
    ///
    /// # Errors
    ///
    /// [`MemoryError::TooLittle`] when it has not.
    pub fn check(self) -> Result<(), MemoryError> {
        available().map_or(Ok(()), |available| self.check_in(available))
    }

    fn check_in(self, available: u64) -> Result<(), MemoryError> {
        match self.total() <= available {
            true => Ok(()),
            false => Err(MemoryError::TooLittle {
                needs: self,
                available,
                smaller: smaller_than(self.total().min(available)),
            }),
        }
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { weights, rest, .. } = self;
        let all = self.total() / MEGABYTE;
        write!(f, "about {all} MB: weights {}, ", weights / MEGABYTE)?;
        match self.cache {
            Some(cache) => write!(f, "keys and values {}, ", cache / MEGABYTE)?,
            None => f.write_str("keys and values not known, ")?,
        }
        write!(f, "the rest {}", rest / MEGABYTE)
    }
}

/// Bytes of a graph and of the files of its weights, whose names begin with its own.
fn weights(graph: &Path) -> io::Result<u64> {
    let (Some(folder), Some(name)) = (graph.parent(), graph.file_name()) else {
        return Ok(0);
    };
    let mut bytes = 0_u64;
    for entry in folder.read_dir()? {
        let entry = entry?;
        let file = entry.file_name();
        if file.as_encoded_bytes().starts_with(name.as_encoded_bytes()) {
            let file = entry.path().metadata();
            bytes = bytes.saturating_add(file.map_or(0, |file| file.len()));
        }
    }
    Ok(bytes)
}

/// The largest model of the catalogue that needs less than `bytes`.
fn smaller_than(bytes: u64) -> Option<&'static str> {
    let models = Catalogue::embedded().models.iter();
    let smaller = models.filter(|entry| entry.memory_mb * MEGABYTE < bytes);
    let largest = smaller.max_by_key(|entry| entry.memory_mb);
    largest.map(|entry| entry.name.as_str())
}

/// The memory that this process can get, in bytes: what the system can free without swapping, and
/// in a container no more than what is left of its limit. `None` if the system does not tell.
#[must_use]
pub fn available() -> Option<u64> {
    let mut system = System::new();
    system.refresh_memory();
    let limit = system.cgroup_limits();
    // Files that the container has read count as its memory too, but can be dropped.
    let left = limit.map(|limit| limit.total_memory.saturating_sub(limit.rss));
    let free = Some(system.available_memory()).filter(|free| *free > 0);
    free.into_iter().chain(left).min()
}

/// Why a model is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The manifest is missing or wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The graph cannot be read.
    #[error("cannot use the graph {path}: {source}; copy the model folder again")]
    Unreadable {
        /// The graph.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is too little memory.
    #[error(
        "the model does not fit in memory: it needs {needs}, and {} MB are available; close other \
         programs{}",
        available / MEGABYTE,
        smaller.map(|name| format!(", or name a smaller model, such as {name}")).unwrap_or_default()
    )]
    TooLittle {
        /// What the model needs.
        needs: Needs,
        /// What there is, in bytes.
        available: u64,
        /// A model of the catalogue that fits.
        smaller: Option<&'static str>,
    },
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::model::tests::directory;

    fn needs(weights: u64, cache: Option<u64>) -> Needs {
        Needs {
            weights: weights * MEGABYTE,
            cache: cache.map(|cache| cache * MEGABYTE),
            rest: 100 * MEGABYTE,
        }
    }

    fn check(needs: Needs, available: u64, expected: Expect) {
        let checked = needs.check_in(available * MEGABYTE);
        let shown = checked.err().map(|error| error.to_string());
        expected.assert_eq(&shown.unwrap_or_else(|| "fits".to_owned()));
    }

    #[test]
    fn a_model_that_does_not_fit_is_refused_with_figures() {
        check(needs(558, Some(88)), 746, expect!["fits"]);
        check(
            needs(558, Some(88)),
            745,
            expect![
                "the model does not fit in memory: it needs about 746 MB: weights 558, keys and values 88, the rest 100, and 745 MB are available; close other programs, or name a smaller model, such as qwen2.5-coder-0.5b"
            ],
        );
        check(
            needs(7000, None),
            2000,
            expect![
                "the model does not fit in memory: it needs about 7100 MB: weights 7000, keys and values not known, the rest 100, and 2000 MB are available; close other programs, or name a smaller model, such as qwen2.5-coder-1.5b"
            ],
        );
        check(
            needs(146, Some(100)),
            80,
            expect![
                "the model does not fit in memory: it needs about 346 MB: weights 146, keys and values 100, the rest 100, and 80 MB are available; close other programs"
            ],
        );
    }

    #[test]
    fn the_shipped_model_is_estimated_from_its_files() {
        let needs = Needs::estimate(&directory(), 1000).unwrap();
        assert_eq!(needs.weights / MEGABYTE, 145);
        assert_eq!(needs.cache, Some(30 * 2 * 3 * 64 * 4 * 1000));
        assert_eq!(needs.rest, PROGRAM + TOKENIZER * 1_759_755);
    }

    #[test]
    fn a_folder_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Needs::estimate(folder.path(), 1000).unwrap_err();
        assert!(error.to_string().contains("model.toml"), "{error}");
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(available().is_none_or(|bytes| bytes > MEGABYTE));
    }
}
