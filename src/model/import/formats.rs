//! What surrounds the weights of a model: its tokenizer, its chat template, its manifest.

use std::io;
use std::path::Path;

use serde_json::Value;

use super::architecture::Architecture;
use super::graph;
use super::safetensors::{self, SafetensorsError};
use super::source::{FactError, Format, Source};
use super::vocabulary::{Vocabulary, VocabularyError};
use crate::model::chat_template::ChatTemplate;
use crate::model::chat_template::ENDS_OF_TURN;
use crate::model::manifest::{Chat, Manifest};
use crate::model::tokenizer::Tokenizer;

const TOKENIZER: &str = "tokenizer.json";
const CONFIGURATION: &str = "tokenizer_config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// The longest name a model may give itself, in characters.
const MAX_NAME: usize = 100;

/// The largest `tokenizer.json`, and the largest of the other files, that are read, in bytes. Those
/// of Gemma 3 have 33 MB and 1.2 MB.
const MAX_TOKENIZER: u64 = 256 << 20;
const MAX_CONFIG: u64 = 16 << 20;

/// What a model says about texts.
struct Formats {
    name: Option<String>,
    license: Option<String>,
    /// As a `tokenizer.json`.
    tokenizer: Vec<u8>,
    /// What else is known of it, as a `tokenizer_config.json`.
    configuration: Option<Vec<u8>>,
    chat_template: Option<String>,
    /// The ids of the tokens that end what the model writes.
    ends: Vec<u32>,
}

/// Writes the tokenizer and the chat template, and reads them as they will be read. Returns the
/// manifest.
///
/// # Errors
///
/// See [`FormatsError`].
pub(super) fn write(
    path: &Path,
    source: &Source,
    architecture: &Architecture<'_>,
    target: &Path,
) -> Result<Manifest, FormatsError> {
    let formats = match source.format {
        Format::Gguf => of_gguf(source)?,
        Format::Folder => of_folder(path)?,
    };
    let tokenizer = target.join(TOKENIZER);
    std::fs::write(&tokenizer, &formats.tokenizer)?;
    if let Some(configuration) = &formats.configuration {
        std::fs::write(target.join(CONFIGURATION), configuration)?;
    }
    let tokenizer = Tokenizer::load(&tokenizer);
    let tokenizer = tokenizer.map_err(|error| FormatsError::Tokenizer(error.problem))?;
    if tokenizer.len() > architecture.vocabulary {
        return Err(FormatsError::Mismatch {
            tokens: tokenizer.len(),
            rows: architecture.vocabulary,
        });
    }
    let name = formats.name.as_deref().map(plain);
    let name = name.filter(|name| !name.is_empty());
    let mut manifest = Manifest {
        name: name.unwrap_or_else(|| plain(&super::name_of(path))),
        license: formats.license.as_deref().map(plain),
        graph: graph::FILE_NAME.into(),
        tokenizer: TOKENIZER.into(),
        context_length: architecture.context_length,
        fim: None,
        chat_template: None,
        chat: None,
    };
    if let Some(template) = &formats.chat_template {
        let path = target.join(CHAT_TEMPLATE);
        std::fs::write(&path, template)?;
        let with_chat = Manifest {
            chat_template: Some(CHAT_TEMPLATE.into()),
            chat: Some(Chat {
                end: ends_of_turn(template, &tokenizer, &formats.ends),
            }),
            ..manifest.clone()
        };
        // Without a template that can be used, the model still completes.
        match ChatTemplate::read(target, &with_chat, &tokenizer) {
            Ok(_) => manifest = with_chat,
            Err(error) => {
                tracing::warn!(%error, "the model is imported without its chat template");
                std::fs::remove_file(&path)?;
            }
        }
    }
    Ok(manifest)
}

fn of_gguf(source: &Source) -> Result<Formats, FormatsError> {
    let text = |key: &str| source.text(key).map(|text| text.map(str::to_owned));
    let vocabulary = Vocabulary::read(source)?;
    Ok(Formats {
        name: text("general.name")?,
        license: text("general.license")?,
        tokenizer: vocabulary.json().map_err(io::Error::from)?,
        configuration: None,
        chat_template: text("tokenizer.chat_template")?,
        ends: vocabulary.ends,
    })
}

fn of_folder(folder: &Path) -> Result<Formats, FormatsError> {
    if !safetensors::is_there(folder, TOKENIZER) {
        return Err(FormatsError::NoTokenizer);
    }
    let optional = |name: &str| match safetensors::is_there(folder, name) {
        true => safetensors::json(folder, name, MAX_CONFIG),
        false => Ok(Value::Null),
    };
    let mut ends = Vec::new();
    for file in ["generation_config.json", "config.json"] {
        let end = &optional(file)?["eos_token_id"];
        let list = match end {
            Value::Array(list) => list.as_slice(),
            single => std::slice::from_ref(single),
        };
        let ids = list.iter().filter_map(Value::as_u64);
        ends.extend(ids.filter_map(|id| u32::try_from(id).ok()));
    }
    let chat_template = match safetensors::is_there(folder, CHAT_TEMPLATE) {
        true => {
            let template = safetensors::read(folder, CHAT_TEMPLATE, MAX_CONFIG)?;
            Some(String::from_utf8_lossy(&template).into_owned())
        }
        false => {
            let config = optional(CONFIGURATION)?;
            let template = match &config["chat_template"] {
                // Several, with names.
                Value::Array(list) => {
                    let usual = list.iter().find(|entry| entry["name"] == "default");
                    usual.map_or(&Value::Null, |entry| &entry["template"])
                }
                single => single,
            };
            template.as_str().map(str::to_owned)
        }
    };
    Ok(Formats {
        name: None,
        license: None,
        tokenizer: safetensors::read(folder, TOKENIZER, MAX_TOKENIZER)?,
        configuration: match safetensors::is_there(folder, CONFIGURATION) {
            true => Some(safetensors::read(folder, CONFIGURATION, MAX_CONFIG)?),
            false => None,
        },
        chat_template,
        ends,
    })
}

/// The tokens that end an answer in a conversation with this template.
fn ends_of_turn(template: &str, tokenizer: &Tokenizer, ends: &[u32]) -> Vec<String> {
    let known = ENDS_OF_TURN
        .into_iter()
        .filter(|token| template.contains(token));
    let known = known.map(str::to_owned);
    let named = ends.iter().map(|id| tokenizer.show(&[*id]));
    let mut all: Vec<String> = Vec::new();
    for end in known.chain(named) {
        if tokenizer.special_id(&end).is_some() && !all.contains(&end) {
            all.push(end);
        }
    }
    all
}

/// A short text in one line.
fn plain(text: &str) -> String {
    let chars = text.chars().filter(|char| !char.is_control());
    let text: String = chars.take(MAX_NAME).collect();
    text.trim().to_owned()
}

/// Why a model's tokenizer cannot be used. The caller puts the model's path before this.
#[derive(Debug, thiserror::Error)]
pub enum FormatsError {
    /// A fact is of the wrong kind.
    #[error(transparent)]
    Fact(#[from] FactError),
    /// The vocabulary is of a kind that is not supported.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// A file of the folder cannot be read.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// The folder has no tokenizer of the form that is read.
    #[error(
        "it has no {TOKENIZER}; write one, as `save_pretrained` of transformers' AutoTokenizer does"
    )]
    NoTokenizer,
    /// The vocabulary does not work.
    #[error("its tokenizer is unusable: {0}; get the model from its publisher")]
    Tokenizer(String),
    /// The vocabulary is larger than the embedding.
    #[error(
        "it has {tokens} tokens and an embedding of {rows} rows; get the model from its publisher"
    )]
    Mismatch {
        /// Tokens of the vocabulary.
        tokens: usize,
        /// Rows of the embedding.
        rows: usize,
    },
    /// The target cannot be written.
    #[error("{0}; free some disk space, or name another folder")]
    Write(#[from] io::Error),
}
