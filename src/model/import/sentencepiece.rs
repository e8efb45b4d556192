//! SentencePiece's BPE: how GGUF stores it, in the words of a `tokenizer.json`.
//!
//! SentencePiece joins the two neighbours that make the token of the highest score. A
//! `tokenizer.json` has a list of merges instead, which follows from the scores.
//!
//! Source: `generate_merges` and `LlamaConverter` in transformers; `llm_tokenizer_spm` in llama.cpp.

use std::collections::HashMap;

use serde_json::json;

use super::source::Source;
use super::vocabulary::{BYTE, NORMAL, Scheme, UNKNOWN, USER_DEFINED, VocabularyError};

/// What stands for a space.
const SPACE: &str = "\u{2581}";

/// Two tokens that make a third.
struct Merge<'a> {
    pair: (&'a str, &'a str),
    /// Of the third.
    score: f32,
    /// In characters.
    lengths: [usize; 2],
}

/// Reads the scores. The space that publishers put before each text is left out: texts are not
/// always the beginning of one.
///
/// # Errors
///
/// See [`VocabularyError`].
pub(super) fn scheme<'a>(
    source: &'a Source,
    tokens: &'a [String],
    kinds: &[i32],
) -> Result<Scheme<'a>, VocabularyError> {
    const SCORES: &str = "tokenizer.ggml.scores";
    let scores = source
        .numbers(SCORES)?
        .ok_or(VocabularyError::Missing(SCORES))?;
    if scores.len() != kinds.len() {
        return Err(VocabularyError::Kinds(kinds.len(), scores.len()));
    }
    let with_kind = |wanted: i32| {
        let pairs = kinds.iter().zip(tokens);
        pairs.filter(move |(kind, _)| **kind == wanted)
    };
    if with_kind(BYTE).count() != 256 {
        return Err(VocabularyError::Incomplete("token for each byte"));
    }
    let unknown = with_kind(UNKNOWN).next();
    let (_, unknown) = unknown.ok_or(VocabularyError::Incomplete("unknown token"))?;
    let replace = |from: &str, to: &str| json!({ "type": "Replace", "pattern": { "String": from }, "content": to });
    Ok(Scheme {
        normalizer: replace(" ", SPACE),
        pre_tokenizer: serde_json::Value::Null,
        decoder: json!({ "type": "Sequence", "decoders": [
            replace(SPACE, " "),
            { "type": "ByteFallback" },
            { "type": "Fuse" },
        ] }),
        takes_whole_pieces: false,
        unknown: Some(unknown),
        merges: merges(tokens, kinds, scores),
    })
}

/// All pairs of tokens that make a third, in the order in which they are tried.
fn merges<'a>(tokens: &'a [String], kinds: &[i32], scores: &[f32]) -> Vec<(&'a str, &'a str)> {
    let pieces = tokens.iter().zip(kinds).zip(scores);
    let pieces = pieces.filter(|((_, kind), _)| [NORMAL, USER_DEFINED].contains(kind));
    let pieces: Vec<(&str, f32)> = pieces
        .map(|((token, _), score)| (token.as_str(), *score))
        .collect();
    let ids = pieces.iter().enumerate();
    let ids: HashMap<&str, usize> = ids.map(|(id, (piece, _))| (*piece, id)).collect();
    let mut merges = Vec::new();
    for (piece, score) in &pieces {
        let mut of_piece: Vec<_> = piece
            .char_indices()
            .enumerate()
            .skip(1)
            .filter_map(|(chars, (at, _))| {
                let (left, right) = piece.split_at(at);
                let order = (*ids.get(left)?, *ids.get(right)?);
                let lengths = [chars, right.chars().count()];
                let (pair, score) = ((left, right), *score);
                let merge = Merge {
                    pair,
                    score,
                    lengths,
                };
                Some((order, merge))
            })
            .collect();
        of_piece.sort_by_key(|(order, _)| *order);
        merges.extend(of_piece.into_iter().map(|(_, merge)| merge));
    }
    merges.sort_by(|one: &Merge<'_>, other| {
        let by_score = other.score.total_cmp(&one.score);
        by_score.then_with(|| other.lengths.cmp(&one.lengths))
    });
    merges.into_iter().map(|merge| merge.pair).collect()
}
