//! Makes a model folder of a model file that others published: GGUF, as llama.cpp reads it.
//!
//! The file is untrusted. It is read in parts, so a model may be larger than the memory.

mod architecture;
mod blocks;
mod gguf;
mod graph;
pub(super) mod protobuf;
mod quantize;
mod vocabulary;
mod weights;

use std::io;
use std::path::{Path, PathBuf};

use super::chat_template::ChatTemplate;
use super::manifest::{self, Chat, Manifest};
use super::tokenizer::Tokenizer;
use architecture::{Architecture, ArchitectureError};
use gguf::{Gguf, GgufError};
use vocabulary::{Vocabulary, VocabularyError};
use weights::WeightsError;

/// The importer's version, which is raised when its output changes.
pub const VERSION: u32 = 2;

const TOKENIZER: &str = "tokenizer.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// The longest name a model may give itself, in characters.
const MAX_NAME: usize = 100;

/// How far an import is, in bytes of the source's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What was read.
    pub done: u64,
    /// All there is.
    pub total: u64,
}

/// Imports the model file `source` (GGUF) into the folder `target`, which must exist and be empty.
/// After an error the folder holds a part of a model, which has no manifest.
///
/// # Errors
///
/// See [`ImportError`]: each message names the file and the remedy.
pub fn import(
    source: &Path,
    target: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), ImportError> {
    let write = |error: io::Error| ImportError::Write {
        path: target.to_path_buf(),
        source: error,
    };
    if target.read_dir().map_err(write)?.next().is_some() {
        return Err(ImportError::NotEmpty(target.to_path_buf()));
    }
    let gguf = Gguf::open(source).map_err(|error| ImportError::Gguf {
        path: source.to_path_buf(),
        source: error,
    })?;
    let architecture = Architecture::read(&gguf).map_err(|error| ImportError::Architecture {
        path: source.to_path_buf(),
        source: error,
    })?;
    // First what takes no time and can be wrong.
    let manifest = write_formats(source, target, &gguf, &architecture)?;
    let written = graph::write(&gguf, &architecture, target, progress);
    written.map_err(|error| match error {
        WeightsError::Write(error) => write(error),
        error => ImportError::Weights {
            path: source.to_path_buf(),
            source: error,
        },
    })?;
    let manifest = toml::to_string(&manifest).map_err(|error| write(io::Error::other(error)))?;
    std::fs::write(target.join(manifest::FILE_NAME), manifest).map_err(write)
}

/// Writes the tokenizer and the chat template, and reads them as they will be read. Returns the
/// manifest.
fn write_formats(
    source: &Path,
    target: &Path,
    gguf: &Gguf,
    architecture: &Architecture<'_>,
) -> Result<Manifest, ImportError> {
    let wrong = |error: VocabularyError| ImportError::Vocabulary {
        path: source.to_path_buf(),
        source: error,
    };
    let write = |error: io::Error| ImportError::Write {
        path: target.to_path_buf(),
        source: error,
    };
    let text = |key: &str| gguf.text(key).map_err(|error| wrong(error.into()));
    let vocabulary = Vocabulary::read(gguf).map_err(wrong)?;
    if vocabulary.len() > architecture.vocabulary {
        return Err(ImportError::Mismatch {
            path: source.to_path_buf(),
            tokens: vocabulary.len(),
            rows: architecture.vocabulary,
        });
    }
    let path = target.join(TOKENIZER);
    let json = vocabulary.json().map_err(|error| write(error.into()))?;
    std::fs::write(&path, json).map_err(write)?;
    let tokenizer = Tokenizer::load(&path).map_err(|error| ImportError::Tokenizer {
        path: source.to_path_buf(),
        problem: error.problem,
    })?;

    let stem = source.file_stem().unwrap_or_default().to_string_lossy();
    let name = text("general.name")?.map(plain);
    let name = name.filter(|name| !name.is_empty());
    let mut manifest = Manifest {
        name: name.unwrap_or_else(|| plain(&stem)),
        license: text("general.license")?.map(plain),
        graph: graph::FILE_NAME.into(),
        tokenizer: TOKENIZER.into(),
        context_length: architecture.context_length,
        fim: None,
        chat_template: None,
        chat: None,
    };
    if let Some(template) = text("tokenizer.chat_template")? {
        let path = target.join(CHAT_TEMPLATE);
        std::fs::write(&path, template).map_err(write)?;
        let with_chat = Manifest {
            chat_template: Some(CHAT_TEMPLATE.into()),
            chat: Some(Chat {
                end: vocabulary.ends_of_turn(template),
            }),
            ..manifest.clone()
        };
        // Without a template that can be used, the model still completes.
        match ChatTemplate::read(target, &with_chat, &tokenizer) {
            Ok(_) => manifest = with_chat,
            Err(error) => {
                tracing::warn!(%error, "the model is imported without its chat template");
                std::fs::remove_file(&path).map_err(write)?;
            }
        }
    }
    Ok(manifest)
}

/// A short text in one line.
fn plain(text: &str) -> String {
    let chars = text.chars().filter(|char| !char.is_control());
    let text: String = chars.take(MAX_NAME).collect();
    text.trim().to_owned()
}

/// Why a model file is not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("cannot import {path}: {source}")]
    Gguf {
        /// The file.
        path: PathBuf,
        /// Why.
        source: GgufError,
    },
    /// The model is of a kind that is not supported.
    #[error("cannot import {path}: {source}")]
    Architecture {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ArchitectureError,
    },
    /// The vocabulary is of a kind that is not supported.
    #[error("cannot import {path}: {source}")]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// Why.
        source: VocabularyError,
    },
    /// The vocabulary does not work.
    #[error(
        "cannot import {path}: its tokenizer is unusable: {problem}; \
         get the file from the model's publisher"
    )]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The vocabulary is larger than the embedding.
    #[error(
        "cannot import {path}: it has {tokens} tokens and an embedding of {rows} rows; \
         get the file from the model's publisher"
    )]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Tokens of the vocabulary.
        tokens: usize,
        /// Rows of the embedding.
        rows: usize,
    },
    /// The weights cannot be read.
    #[error("cannot import {path}: {source}")]
    Weights {
        /// The file.
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
