//! The vocabulary of a GGUF file, and the `tokenizer.json` that gives the same ids.

use std::collections::HashSet;

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use serde_json::{Value, json};

use super::source::{FactError, Source};
use super::{byte_pairs, sentencepiece};
use crate::model::chat_template::ENDS_OF_TURN;
use crate::model::fim_families;

/// What a token is, by GGUF's number.
pub(super) const NORMAL: i32 = 1;
pub(super) const UNKNOWN: i32 = 2;
pub(super) const USER_DEFINED: i32 = 4;
pub(super) const UNUSED: i32 = 5;
pub(super) const BYTE: i32 = 6;

/// How texts become tokens, in the words of a `tokenizer.json`.
pub(super) struct Scheme<'a> {
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    pub(super) decoder: Value,
    /// Whether a piece that is a token is taken as such, without merging.
    pub(super) takes_whole_pieces: bool,
    /// What a character becomes of which not even the bytes are tokens. Only vocabularies with
    /// tokens for bytes have it.
    pub(super) unknown: Option<&'a str>,
    pub(super) merges: Vec<(&'a str, &'a str)>,
}

/// The vocabulary of a GGUF file.
pub(super) struct Vocabulary<'a> {
    scheme: Scheme<'a>,
    /// By id. Unused ids at the end are left out.
    tokens: &'a [String],
    /// The tokens that merging does not make, by id, and whether they are special.
    added: Vec<(usize, bool)>,
    /// The ids of the tokens that end what the model writes, as the metadata name them.
    pub(super) ends: Vec<u32>,
    /// The id of the token that every text must begin with, if there is one.
    beginning: Option<u32>,
}

impl<'a> Vocabulary<'a> {
    /// Reads the tokens and merges of `source`.
    ///
    /// # Errors
    ///
    /// See [`VocabularyError`].
    pub(super) fn read(source: &'a Source) -> Result<Self, VocabularyError> {
        const TOKENS: &str = "tokenizer.ggml.tokens";
        const KINDS: &str = "tokenizer.ggml.token_type";
        let model = source.text("tokenizer.ggml.model")?.unwrap_or("unknown");
        if !["gpt2", "llama"].contains(&model) {
            return Err(VocabularyError::Model(model.to_owned()));
        }
        let tokens = source
            .texts(TOKENS)?
            .ok_or(VocabularyError::Missing(TOKENS))?;
        let kinds = source
            .integers(KINDS)?
            .ok_or(VocabularyError::Missing(KINDS))?;
        if tokens.len() != kinds.len() {
            return Err(VocabularyError::Kinds(tokens.len(), kinds.len()));
        }
        let used = kinds.iter().rposition(|kind| *kind != UNUSED);
        let tokens = &tokens[..used.map_or(0, |last| last + 1)];
        let mut seen = HashSet::new();
        if let Some(token) = tokens.iter().find(|token| !seen.insert(token.as_str())) {
            return Err(VocabularyError::Twice(token.clone()));
        }
        let id = |key| -> Result<Option<u32>, VocabularyError> {
            let Some(id) = source.count(key)? else {
                return Ok(None);
            };
            let id = u32::try_from(id).ok();
            let known = id.filter(|id| (*id as usize) < tokens.len());
            known.map(Some).ok_or(VocabularyError::Id(key))
        };
        let ends = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eos_token_id"];
        let ends = ends.into_iter().filter_map(|key| id(key).transpose());
        let ends = ends.collect::<Result<Vec<_>, _>>()?;
        let beginning = match begins_texts(source, model)? {
            true => id("tokenizer.ggml.bos_token_id")?,
            false => None,
        };
        // Files exist whose markers have the type of a normal token.
        let is_marker = |id: usize, token: &str| {
            fim_families::spellings().any(|spelling| spelling == token)
                || ENDS_OF_TURN.contains(&token)
                || ends.contains(&(id as u32))
                || beginning == Some(id as u32)
        };
        let added = kinds.iter().zip(tokens).enumerate();
        let added = added.filter_map(|(id, (kind, token))| match *kind {
            BYTE => None,
            NORMAL | USER_DEFINED if is_marker(id, token) => Some((id, true)),
            NORMAL => None,
            USER_DEFINED => Some((id, false)),
            _ => Some((id, true)),
        });
        let added = added.collect();
        let scheme = match model {
            "llama" => sentencepiece::scheme(source, tokens, kinds)?,
            _ => byte_pairs::scheme(source, |text| seen.contains(text))?,
        };
        Ok(Self {
            scheme,
            tokens,
            added,
            ends,
            beginning,
        })
    }

    /// As a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// None that can be reached: texts and numbers always become JSON.
    pub(super) fn json(&self) -> Result<Vec<u8>, serde_json::Error> {
        // All added tokens are in the vocabulary as well, so that each has its own id.
        let added = self.added.iter().map(|(id, special)| {
            json!({
                "id": id,
                "content": self.tokens[*id],
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                // SentencePiece finds tokens of users where spaces are signs already.
                "normalized": self.scheme.unknown.is_some() && !special,
                "special": special,
            })
        });
        serde_json::to_vec(&TokenizerJson {
            version: "1.0",
            truncation: (),
            padding: (),
            added_tokens: added.collect(),
            normalizer: &self.scheme.normalizer,
            pre_tokenizer: &self.scheme.pre_tokenizer,
            post_processor: self.beginning.map(|id| {
                let token = &self.tokens[id as usize];
                puts_before(token, id)
            }),
            decoder: &self.scheme.decoder,
            model: Bpe {
                kind: "BPE",
                ignore_merges: self.scheme.takes_whole_pieces,
                unk_token: self.scheme.unknown,
                fuse_unk: self.scheme.unknown.is_some(),
                byte_fallback: self.scheme.unknown.is_some(),
                vocab: Ids(self.tokens),
                merges: &self.scheme.merges,
            },
        })
    }
}

/// Whether a token must begin every text. Where the file does not say it, llama.cpp's rule holds
/// (`llama-vocab.cpp`).
fn begins_texts(source: &Source, model: &str) -> Result<bool, VocabularyError> {
    if let Some(flag) = source.flag("tokenizer.ggml.add_bos_token")? {
        return Ok(flag);
    }
    Ok(model == "llama" || source.text("tokenizer.ggml.pre")? == Some("llama-bpe"))
}

/// The post-processor with which publishers put a token before every text.
fn puts_before(token: &str, id: u32) -> Value {
    let token_of = |text: usize| json!({ "SpecialToken": { "id": token, "type_id": text } });
    let text_of = |name: &str, text: usize| json!({ "Sequence": { "id": name, "type_id": text } });
    let single = [token_of(0), text_of("A", 0)];
    let pair = [&single[..], &[token_of(1), text_of("B", 1)]].concat();
    json!({
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": { token: { "id": token, "ids": [id], "tokens": [token] } },
    })
}

#[derive(Serialize)]
struct TokenizerJson<'a> {
    version: &'static str,
    truncation: (),
    padding: (),
    added_tokens: Vec<Value>,
    normalizer: &'a Value,
    pre_tokenizer: &'a Value,
    post_processor: Option<Value>,
    decoder: &'a Value,
    model: Bpe<'a>,
}

#[derive(Serialize)]
struct Bpe<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    ignore_merges: bool,
    unk_token: Option<&'a str>,
    fuse_unk: bool,
    byte_fallback: bool,
    vocab: Ids<'a>,
    merges: &'a [(&'a str, &'a str)],
}

/// A map from each token to its id.
struct Ids<'a>(&'a [String]);

impl Serialize for Ids<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (id, token) in self.0.iter().enumerate() {
            map.serialize_entry(token, &id)?;
        }
        map.end()
    }
}

/// Why a vocabulary cannot be used. The caller puts the file's name before this.
#[derive(Debug, thiserror::Error)]
pub enum VocabularyError {
    /// A value of the metadata is of the wrong kind.
    #[error(transparent)]
    Fact(#[from] FactError),
    /// It is of a kind that is not read.
    #[error(
        "its tokenizer is of the kind {0}, and only gpt2 and llama are supported; use another model"
    )]
    Model(String),
    /// It takes texts apart in a way that is not known.
    #[error(
        "its tokenizer takes text apart as {0} does, and only qwen2, llama-bpe, smollm, starcoder, \
         refact, gpt-2 and default are supported; use another model"
    )]
    Pre(String),
    /// A list is missing.
    #[error("its metadata have no {0}; get the file from the model's publisher")]
    Missing(&'static str),
    /// Two lists do not belong together.
    #[error(
        "it has {0} tokens and the types or scores of {1}; the file is damaged, download it again"
    )]
    Kinds(usize, usize),
    /// Two tokens are the same text.
    #[error("it has the token {0:?} twice; get the file from the model's publisher")]
    Twice(String),
    /// A merge is not one of two tokens into a third.
    #[error(
        "its merge {0:?} is not two tokens that make a third; the file is damaged, download it again"
    )]
    Merge(String),
    /// A SentencePiece vocabulary lacks what encodes any text.
    #[error("its tokenizer has no {0}; get the file from the model's publisher")]
    Incomplete(&'static str),
    /// A token is named that does not exist.
    #[error("its {0} is no token; the file is damaged, download it again")]
    Id(&'static str),
}
