//! The memory that a model needs, estimated from its files before it is loaded, and what there is.

use std::fmt;
use std::path::Path;

use sysinfo::System;

use super::catalogue::Catalogue;
use super::describe::{DescribeError, Description};
use super::onnx::{self, OnnxError};

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
    /// Keys and values.
    pub cache: u64,
    /// The tokenizer, the library and the program.
    pub rest: u64,
}

impl Needs {
    /// What the model folder `directory` needs with caches of `tokens` tokens
    /// (docs/decisions/014-start.md has it beside what was measured).
    ///
    /// # Errors
    ///
    /// When the folder's files or its graph cannot be read.
    pub fn estimate(directory: &Path, tokens: usize) -> Result<Self, MemoryError> {
        let Description {
            manifest, sizes, ..
        } = Description::read(directory)?;
        let graph = directory.join(&manifest.graph);
        let outline = onnx::outline(&graph, &sizes)?;
        let size = |file: &Path| file.metadata().map_or(0, |file| file.len());
        let weights = outline.weights.iter();
        let weights = weights.map(|file| size(&graph.with_file_name(file)));
        let tokenizer = size(&directory.join(&manifest.tokenizer));
        Ok(Self {
            weights: weights.fold(size(&graph), u64::saturating_add),
            cache: (outline.token_bytes as u64).saturating_mul(tokens as u64),
            rest: TOKENIZER.saturating_mul(tokenizer).saturating_add(PROGRAM),
        })
    }

    /// All together, in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.weights
            .saturating_add(self.cache)
            .saturating_add(self.rest)
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
        write!(
            f,
            "about {} MB: weights {}, keys and values {}, the rest {}",
            self.total() / MEGABYTE,
            self.weights / MEGABYTE,
            self.cache / MEGABYTE,
            self.rest / MEGABYTE
        )
    }
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
    /// It is not a model folder, or a file of it is wrong.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// The graph cannot be used.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
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

    fn needs(weights: u64, cache: u64) -> Needs {
        Needs {
            weights: weights * MEGABYTE,
            cache: cache * MEGABYTE,
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
        check(needs(558, 88), 746, expect!["fits"]);
        check(
            needs(558, 88),
            745,
            expect![
                "the model does not fit in memory: it needs about 746 MB: weights 558, keys and values 88, the rest 100, and 745 MB are available; close other programs, or name a smaller model, such as qwen2.5-coder-0.5b"
            ],
        );
        check(
            needs(7000, 0),
            2000,
            expect![
                "the model does not fit in memory: it needs about 7100 MB: weights 7000, keys and values 0, the rest 100, and 2000 MB are available; close other programs, or name a smaller model, such as qwen2.5-coder-1.5b"
            ],
        );
        check(
            needs(146, 100),
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
        assert_eq!(needs.cache, 30 * 2 * 3 * 64 * 4 * 1000);
        assert_eq!(needs.rest, PROGRAM + TOKENIZER * 1_759_755);
    }

    #[test]
    fn a_folder_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Needs::estimate(folder.path(), 1000).unwrap_err();
        assert!(error.to_string().contains("not a model folder"), "{error}");
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(available().is_none_or(|bytes| bytes > MEGABYTE));
    }
}
