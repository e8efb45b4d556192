//! `model.toml`: what Interline must be told about a model folder and cannot read from its files.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

/// The name of the manifest in a model folder.
pub const FILE_NAME: &str = "model.toml";

/// A model folder's `model.toml`.
#[derive(Clone, Debug, Deserialize)]
pub struct Manifest {
    /// What people call the model.
    pub name: String,
    /// The licence of the weights, as an SPDX expression.
    pub license: Option<String>,
    /// The graph, a file of the folder.
    pub graph: PathBuf,
    /// The tokenizer, a file of the folder.
    pub tokenizer: PathBuf,
    /// The longest sequence the model was made for, in tokens.
    pub context_length: usize,
    /// The fill-in-the-middle format. Without it the tokenizer's special tokens decide.
    pub fim: Option<Fim>,
    /// The template of a conversation, a file of the folder. Without it tasks are put as documents to
    /// be continued.
    pub chat_template: Option<PathBuf>,
    /// What else belongs to a conversation.
    pub chat: Option<Chat>,
}

/// The format of a conversation, beside its template.
#[derive(Clone, Debug, Deserialize)]
pub struct Chat {
    /// The special tokens that end an answer.
    pub end: Vec<String>,
}

/// The fill-in-the-middle format, as text. Each token must be one special token of the tokenizer.
#[derive(Clone, Debug, Deserialize)]
pub struct Fim {
    /// The order of the parts.
    pub order: Layout,
    /// The token before the file's name, for models that want it.
    pub file: Option<String>,
    /// The token before the text that precedes the hole.
    pub prefix: String,
    /// The token before the text that follows the hole.
    pub suffix: String,
    /// The token after which the model writes.
    pub middle: String,
    /// The tokens that end the middle.
    pub end: Vec<String>,
}

/// The order of a prompt's parts, by the names of arXiv 2207.14255.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Prefix, suffix, middle: each key moves the suffix, which is read anew.
    Psm,
    /// Suffix, prefix, middle: typing only appends, so the cache keeps nearly all.
    Spm,
    /// In the markers of prefix, suffix, middle: an empty prefix, the suffix, and after the middle
    /// marker the text before the cursor, as the beginning of the middle. Typing only appends, and it
    /// suits models that were trained on the first order alone (docs/decisions/001-prompt-layout.md).
    #[serde(rename = "spm-v2")]
    SpmV2,
}

impl Manifest {
    /// Reads the manifest of the model folder `directory`.
    ///
    /// # Errors
    ///
    /// See [`ManifestError`].
    pub fn read(directory: &Path) -> Result<Self, ManifestError> {
        let path = directory.join(FILE_NAME);
        let text = std::fs::read_to_string(&path).map_err(|source| ManifestError::Read {
            path: path.clone(),
            source,
        })?;
        let manifest: Self = toml::from_str(&text).map_err(|source| ManifestError::Parse {
            path: path.clone(),
            source,
        })?;
        let files = [&manifest.graph, &manifest.tokenizer];
        for file in files.into_iter().chain(&manifest.chat_template) {
            // A model folder is a stranger's input: it names files of its own and no others.
            let mut components = file.components();
            let plain = matches!(components.next(), Some(Component::Normal(_)));
            if !plain || components.next().is_some() {
                return Err(ManifestError::Outside {
                    path,
                    file: file.clone(),
                });
            }
            let file = directory.join(file);
            if !file.is_file() {
                return Err(ManifestError::Missing { path, file });
            }
        }
        Ok(manifest)
    }
}

/// Why a model folder has no usable manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}; name a folder that holds a {FILE_NAME}")]
    Read {
        /// The manifest.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not the TOML that is expected.
    #[error("{path} is not a model manifest: {source}")]
    Parse {
        /// The manifest.
        path: PathBuf,
        /// Where and what.
        source: toml::de::Error,
    },
    /// A name in it leads out of the folder.
    #[error("{path} names {file}, which is not the plain name of a file in its folder")]
    Outside {
        /// The manifest.
        path: PathBuf,
        /// The name.
        file: PathBuf,
    },
    /// A file it names is not there.
    #[error("{path} names {file}, which is missing; copy the model folder again")]
    Missing {
        /// The manifest.
        path: PathBuf,
        /// The file.
        file: PathBuf,
    },
}
