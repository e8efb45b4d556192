//! Byte-level BPE, as in GPT-2: how GGUF stores it, in the words of a `tokenizer.json`.

use serde_json::{Value, json};

use super::source::Source;
use super::vocabulary::{Scheme, VocabularyError};

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

/// Reads the merges, and how texts are taken apart before them.
///
/// # Errors
///
/// See [`VocabularyError`].
pub(super) fn scheme<'a>(
    source: &'a Source,
    is_token: impl Fn(&str) -> bool,
) -> Result<Scheme<'a>, VocabularyError> {
    const MERGES: &str = "tokenizer.ggml.merges";
    let pre = source.text("tokenizer.ggml.pre")?.unwrap_or("default");
    let pre_tokenizer = PreTokenizer::named(pre);
    let pre_tokenizer = pre_tokenizer.ok_or_else(|| VocabularyError::Pre(pre.to_owned()))?;
    let merges = source
        .texts(MERGES)?
        .ok_or(VocabularyError::Missing(MERGES))?;
    let merges = merges.iter().map(|merge| {
        let parts = merge.split_once(' ');
        parts
            .filter(|(left, right)| is_token(left) && is_token(right))
            .filter(|(left, right)| is_token(&format!("{left}{right}")))
            .ok_or_else(|| VocabularyError::Merge(merge.clone()))
    });
    Ok(Scheme {
        normalizer: match pre_tokenizer.composes {
            true => json!({ "type": "NFC" }),
            false => Value::Null,
        },
        pre_tokenizer: pre_tokenizer.json(),
        decoder: byte_level(),
        takes_whole_pieces: pre_tokenizer.takes_whole_pieces,
        unknown: None,
        merges: merges.collect::<Result<_, _>>()?,
    })
}
