//! The vocabulary of a GGUF file, and the `tokenizer.json` that gives the same ids.

use std::collections::HashSet;

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use serde_json::{Value, json};

use super::gguf::{Gguf, GgufError};
use crate::model::chat_template::ENDS_OF_TURN;
use crate::model::fim_families;

/// What a token is, by GGUF's number.
const NORMAL: i32 = 1;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// How a text is taken apart before byte pairs are merged, by the name in `tokenizer.ggml.pre`.
///
/// Source: `llama-vocab.cpp` of llama.cpp, whose expressions are those of the publishers'
/// `tokenizer.json`.
#[derive(Clone, Copy)]
struct PreTokenizer {
    /// Each takes what the one before it left apart.
    splits: &'static [&'static str],
    /// Whether the text is first brought into Unicode's composed form.
    composes: bool,
    /// Whether a piece that is a token is taken as such, without merging.
    takes_whole_pieces: bool,
}

const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

impl PreTokenizer {
    fn named(name: &str) -> Option<Self> {
        let plain = |splits| Self {
            splits,
            composes: false,
            takes_whole_pieces: false,
        };
        Some(match name {
            "qwen2" => Self {
                composes: true,
                ..plain(&[
                    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
                ])
            },
            "llama-bpe" => Self {
                takes_whole_pieces: true,
                ..plain(&[
                    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
                ])
            },
            "smollm" | "starcoder" | "refact" => plain(&[r"\p{N}", GPT_2]),
            "gpt-2" => plain(&[GPT_2]),
            "default" => plain(&[r"[\p{P}\$\+<=>\^~\|]+", GPT_2, r"\p{N}+", "[0-9][0-9][0-9]"]),
            _ => return None,
        })
    }

    fn json(self) -> Value {
        let split = |pattern: &&str| {
            json!({
                "type": "Split",
                "pattern": { "Regex": pattern },
                "behavior": "Isolated",
                "invert": false,
            })
        };
        let mut steps: Vec<_> = self.splits.iter().map(split).collect();
        steps.push(byte_level());
        json!({ "type": "Sequence", "pretokenizers": steps })
    }
}

fn byte_level() -> Value {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": false,
        "trim_offsets": true,
        "use_regex": false,
    })
}

/// The vocabulary of a GGUF file: byte-level BPE.
pub(super) struct Vocabulary<'a> {
    pre_tokenizer: PreTokenizer,
    /// By id. Unused ids at the end are left out.
    tokens: &'a [String],
    /// The tokens that merging does not make, by id, and whether they are special.
    added: Vec<(usize, bool)>,
    merges: Vec<(&'a str, &'a str)>,
    /// The tokens that end what the model writes, as the metadata name them.
    ends: Vec<&'a str>,
    /// The id of the token that every text must begin with, if there is one.
    beginning: Option<usize>,
}

impl<'a> Vocabulary<'a> {
    /// Reads the tokens and merges of `gguf`.
    ///
    /// # Errors
    ///
    /// See [`VocabularyError`].
    pub(super) fn read(gguf: &'a Gguf) -> Result<Self, VocabularyError> {
        const TOKENS: &str = "tokenizer.ggml.tokens";
        const KINDS: &str = "tokenizer.ggml.token_type";
        const MERGES: &str = "tokenizer.ggml.merges";
        match gguf.text("tokenizer.ggml.model")? {
            Some("gpt2") => (),
            other => {
                return Err(VocabularyError::Model(
                    other.unwrap_or("unknown").to_owned(),
                ));
            }
        }
        let pre = gguf.text("tokenizer.ggml.pre")?.unwrap_or("default");
        let pre_tokenizer = PreTokenizer::named(pre);
        let pre_tokenizer = pre_tokenizer.ok_or_else(|| VocabularyError::Pre(pre.to_owned()))?;
        let tokens = gguf
            .texts(TOKENS)?
            .ok_or(VocabularyError::Missing(TOKENS))?;
        let kinds = gguf
            .integers(KINDS)?
            .ok_or(VocabularyError::Missing(KINDS))?;
        let merges = gguf
            .texts(MERGES)?
            .ok_or(VocabularyError::Missing(MERGES))?;
        if tokens.len() != kinds.len() {
            return Err(VocabularyError::Kinds(tokens.len(), kinds.len()));
        }
        let used = kinds.iter().rposition(|kind| *kind != UNUSED);
        let tokens = &tokens[..used.map_or(0, |last| last + 1)];
        let mut seen = HashSet::new();
        if let Some(token) = tokens.iter().find(|token| !seen.insert(token.as_str())) {
            return Err(VocabularyError::Twice(token.clone()));
        }
        let mut ends = Vec::new();
        for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eos_token_id"] {
            if let Some(id) = gguf.count(key)? {
                let token = tokens.get(id).ok_or(VocabularyError::Id(key, id))?;
                ends.push(token.as_str());
            }
        }
        let beginning = beginning(gguf, pre, tokens.len())?;
        // Files exist whose markers have the type of a normal token.
        let is_marker = |token: &str| {
            fim_families::spellings().any(|spelling| spelling == token)
                || ENDS_OF_TURN.contains(&token)
                || ends.contains(&token)
        };
        let added = kinds.iter().zip(tokens).enumerate();
        let added = added.filter(|(id, (kind, token))| {
            **kind != NORMAL || is_marker(token) || beginning == Some(*id)
        });
        let added = added.map(|(id, (kind, _))| (id, *kind != USER_DEFINED));
        let is_token = |text: &str| seen.contains(text);
        let merges = merges.iter().map(|merge| {
            let parts = merge.split_once(' ');
            parts
                .filter(|(left, right)| is_token(left) && is_token(right))
                .filter(|(left, right)| is_token(&format!("{left}{right}")))
                .ok_or_else(|| VocabularyError::Merge(merge.clone()))
        });
        Ok(Self {
            pre_tokenizer,
            tokens,
            added: added.collect(),
            merges: merges.collect::<Result<_, _>>()?,
            ends,
            beginning,
        })
    }

    /// The number of ids.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The tokens that end an answer in a conversation with this template.
    pub(super) fn ends_of_turn(&self, template: &str) -> Vec<String> {
        let tokens: HashSet<_> = self.tokens.iter().map(String::as_str).collect();
        let named = ENDS_OF_TURN.into_iter();
        let named = named.filter(|token| template.contains(token) && tokens.contains(token));
        let mut ends: Vec<String> = Vec::new();
        for end in named.chain(self.ends.iter().copied()) {
            if !ends.iter().any(|other| other == end) {
                ends.push(end.to_owned());
            }
        }
        ends
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
                "normalized": false,
                "special": special,
            })
        });
        serde_json::to_vec(&TokenizerJson {
            version: "1.0",
            truncation: (),
            padding: (),
            added_tokens: added.collect(),
            normalizer: match self.pre_tokenizer.composes {
                true => json!({ "type": "NFC" }),
                false => Value::Null,
            },
            pre_tokenizer: self.pre_tokenizer.json(),
            post_processor: self.beginning.map(|id| puts_before(&self.tokens[id], id)),
            decoder: byte_level(),
            model: Bpe {
                kind: "BPE",
                ignore_merges: self.pre_tokenizer.takes_whole_pieces,
                vocab: Ids(self.tokens),
                merges: &self.merges,
            },
        })
    }
}

/// The id of the token that every text must begin with, if there is one. Where the file does not
/// say whether there is, llama.cpp's rule holds (`llama-vocab.cpp`).
fn beginning(gguf: &Gguf, pre: &str, tokens: usize) -> Result<Option<usize>, VocabularyError> {
    const ID: &str = "tokenizer.ggml.bos_token_id";
    let is_added = gguf.flag("tokenizer.ggml.add_bos_token")?;
    if !is_added.unwrap_or(pre == "llama-bpe") {
        return Ok(None);
    }
    match gguf.count(ID)? {
        Some(id) if id >= tokens => Err(VocabularyError::Id(ID, id)),
        id => Ok(id),
    }
}

/// The post-processor with which publishers put a token before every text.
fn puts_before(token: &str, id: usize) -> Value {
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
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Option<Value>,
    decoder: Value,
    model: Bpe<'a>,
}

#[derive(Serialize)]
struct Bpe<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    ignore_merges: bool,
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
    Gguf(#[from] GgufError),
    /// It is no byte-level BPE.
    #[error("its tokenizer is of the kind {0}, and only gpt2 is supported; use another model")]
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
    #[error("it has {0} tokens and the types of {1}; the file is damaged, download it again")]
    Kinds(usize, usize),
    /// Two tokens are the same text.
    #[error("it has the token {0:?} twice; get the file from the model's publisher")]
    Twice(String),
    /// A merge is not one of two tokens into a third.
    #[error(
        "its merge {0:?} is not two tokens that make a third; the file is damaged, download it again"
    )]
    Merge(String),
    /// A token is named that does not exist.
    #[error("its {0} is {1}, which is no token; the file is damaged, download it again")]
    Id(&'static str, usize),
}
