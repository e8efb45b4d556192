//! `model.toml`: what Interline must know about a model folder. What a folder's manifest leaves out,
//! or all of it, is read from the other files ([`describe`](super::describe)).

use std::io;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::plain_file::{self, PlainFileError};

/// The name of the manifest in a model folder.
pub const FILE_NAME: &str = "model.toml";

/// The largest manifest that is read, in bytes.
const MAX_BYTES: u64 = 256 * 1024;

/// What must be known about a model folder.
#[derive(Clone, Debug, Serialize)]
pub struct Manifest {
    /// The name people know the model by.
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
    /// The template of a conversation, a file of the folder, or a `tokenizer_config.json` that has
    /// one. Without it the model is given tasks as documents to continue.
    pub chat_template: Option<PathBuf>,
    /// What else belongs to a conversation.
    pub chat: Option<Chat>,
}

/// The format of a conversation, beside its template.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Chat {
    /// The special tokens that end an answer.
    pub end: Vec<String>,
}

/// The fill-in-the-middle format, as text. Each token must be one special token of the tokenizer.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Fim {
    /// The order of the parts.
    pub order: Layout,
    /// The token before the file's name, for models that use one.
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
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Prefix, suffix, middle: each key moves the suffix, which is read again.
    Psm,
    /// Suffix, prefix, middle: typing only appends, so nearly everything stays in the cache.
    Spm,
    /// In the markers of prefix, suffix, middle: an empty prefix, the suffix, and after the middle
    /// marker the text before the cursor, as the beginning of the middle. Typing only appends, and
    /// it suits models that were trained on the first order alone
    /// (docs/decisions/001-prompt-layout.md).
    #[serde(rename = "spm-v2")]
    SpmV2,
}

/// A model folder's `model.toml`, each part of which may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ManifestFile {
    pub(super) name: Option<String>,
    pub(super) license: Option<String>,
    pub(super) graph: Option<PathBuf>,
    pub(super) tokenizer: Option<PathBuf>,
    pub(super) context_length: Option<usize>,
    pub(super) fim: Option<Fim>,
    pub(super) chat_template: Option<PathBuf>,
    pub(super) chat: Option<Chat>,
}

impl ManifestFile {
    /// Reads the file of the model folder `directory`, if it has one.
    ///
    /// # Errors
    ///
    /// See [`ManifestError`].
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, ManifestError> {
        let path = directory.join(FILE_NAME);
        let text = match plain_file::read_text(&path, MAX_BYTES) {
            Ok(text) => text,
            Err(PlainFileError::System(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(source) => return Err(ManifestError::Read { path, source }),
        };
        let manifest: Self = toml::from_str(&text).map_err(|source| ManifestError::Parse {
            path: path.clone(),
            source,
        })?;
        let files = [
            &manifest.graph,
            &manifest.tokenizer,
            &manifest.chat_template,
        ];
        for file in files.into_iter().flatten() {
            // A model folder is untrusted input: it may name only files of its own.
            let mut components = file.components();
            let plain = components.all(|part| matches!(part, Component::Normal(_)));
            if !plain || file.as_os_str().is_empty() {
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
        Ok(Some(manifest))
    }
}

/// Why a model folder has no usable manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}; copy the model folder again")]
    Read {
        /// The manifest.
        path: PathBuf,
        /// Why.
        source: PlainFileError,
    },
    /// The file is not the TOML that is expected.
    #[error("{path} is not a model manifest: {source}")]
    Parse {
        /// The manifest.
        path: PathBuf,
        /// Where and what.
        source: toml::de::Error,
    },
    /// A name in it points outside the folder.
    #[error("{path} names {file}, which is not a file in its folder; name one that is")]
    Outside {
        /// The manifest.
        path: PathBuf,
        /// The name.
        file: PathBuf,
    },
    /// A file it names is not there, or it is a folder, a pipe or a device.
    #[error(
        "{path} names {file}, which is missing or not a plain file; copy the model folder again"
    )]
    Missing {
        /// The manifest.
        path: PathBuf,
        /// The file.
        file: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const GOOD: &str = "name = 'a'\ngraph = 'g'\ntokenizer = 't'\ncontext_length = 1\n";

    /// The manifest of a folder that `make` fills, in which the graph and the tokenizer are.
    fn check(make: impl FnOnce(&Path), expected: Expect) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["g", "t"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        make(folder.path());
        let read = ManifestFile::read(folder.path());
        let shown = match read {
            Ok(manifest) => format!("{:?}", manifest.and_then(|manifest| manifest.name)),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&shown.replace(folder.path().to_str().unwrap(), ""));
    }

    fn text(text: &str) -> impl FnOnce(&Path) {
        move |folder| std::fs::write(folder.join(FILE_NAME), text).unwrap()
    }

    #[test]
    fn errors_name_the_problem() {
        check(text(GOOD), expect![[r#"Some("a")"#]]);
        check(|_| (), expect!["None"]);
        check(
            |folder| std::fs::create_dir(folder.join(FILE_NAME)).unwrap(),
            expect!["cannot read /model.toml: it is not a plain file; copy the model folder again"],
        );
        check(
            text(&"#".repeat(MAX_BYTES as usize + 1)),
            expect![
                "cannot read /model.toml: it is larger than 262144 bytes; copy the model folder again"
            ],
        );
        check(
            text(&GOOD.replace("'g'", "'../g'")),
            expect!["/model.toml names ../g, which is not a file in its folder; name one that is"],
        );
        check(
            text(&GOOD.replace("'t'", "'none'")),
            expect![
                "/model.toml names /none, which is missing or not a plain file; copy the model folder again"
            ],
        );
        let deep = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
        let folder = tempfile::tempdir().unwrap();
        text(&deep)(folder.path());
        let error = ManifestFile::read(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("model.toml is not a model manifest: "),
            "{error}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_never_opened() {
        let pipe = |folder: &Path, name: &str| {
            let path = folder.join(name);
            let made = std::process::Command::new("mkfifo").arg(path).status();
            assert!(made.unwrap().success());
        };
        check(
            |folder| pipe(folder, FILE_NAME),
            expect!["cannot read /model.toml: it is not a plain file; copy the model folder again"],
        );
        check(
            |folder| {
                pipe(folder, "p");
                text(&GOOD.replace("'t'", "'p'"))(folder);
            },
            expect![
                "/model.toml names /p, which is missing or not a plain file; copy the model folder again"
            ],
        );
    }
}
