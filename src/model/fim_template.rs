//! The fill-in-the-middle format of a model, as token ids.

use std::fmt;

use super::manifest::{Fim, Layout};
use super::tokenizer::Tokenizer;

/// The order and the special tokens of a model's fill-in-the-middle format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FimTemplate {
    /// The order of the parts.
    pub layout: Layout,
    /// Comes before the file's name, at the very beginning.
    pub file: Option<u32>,
    /// Comes before the prefix.
    pub prefix: u32,
    /// Comes before the suffix.
    pub suffix: u32,
    /// Comes before the middle, which the model writes.
    pub middle: u32,
    /// Any of these ends the middle.
    pub end: Vec<u32>,
}

/// The spellings that identify a format by themselves: layout, prefix, suffix, middle, end. The
/// first format whose tokens the tokenizer has wins. The tokens decide and not the model's name,
/// which users change. If two formats share a spelling (Mellum and StarCoder2), the manifest must
/// decide.
const KNOWN: [(Layout, &str, &str, &str, &str); 4] = [
    // Qwen2.5-Coder, Qwen3-Coder; README of the model. The layout is the one that scored best
    // (docs/decisions/001-prompt-layout.md).
    (
        Layout::SpmV2,
        "<|fim_prefix|>",
        "<|fim_suffix|>",
        "<|fim_middle|>",
        "<|endoftext|>",
    ),
    // StarCoder and its relatives; arXiv 2305.06161.
    (
        Layout::Psm,
        "<fim_prefix>",
        "<fim_suffix>",
        "<fim_middle>",
        "<|endoftext|>",
    ),
    // SantaCoder; arXiv 2301.03988.
    (
        Layout::Psm,
        "<fim-prefix>",
        "<fim-suffix>",
        "<fim-middle>",
        "<|endoftext|>",
    ),
    // Seed-Coder; arXiv 2506.03524.
    (
        Layout::Spm,
        "<[fim-prefix]>",
        "<[fim-suffix]>",
        "<[fim-middle]>",
        "<[end\u{2581}of\u{2581}sentence]>",
    ),
];

/// The markers of all known formats.
pub(super) fn spellings() -> impl Iterator<Item = &'static str> {
    let formats = KNOWN.into_iter();
    formats.flat_map(|(_, prefix, suffix, middle, end)| [prefix, suffix, middle, end])
}

impl FimTemplate {
    /// The format that the manifest names, else the one that the tokenizer's special tokens
    /// identify.
    ///
    /// # Errors
    ///
    /// See [`FimTemplateError`].
    pub fn resolve(
        tokenizer: &Tokenizer,
        manifest: Option<&Fim>,
    ) -> Result<Self, FimTemplateError> {
        let id = |token: &str| {
            tokenizer
                .special_id(token)
                .ok_or_else(|| FimTemplateError::NotSpecial(token.to_owned()))
        };
        if let Some(fim) = manifest {
            return Ok(Self {
                layout: fim.order,
                file: fim.file.as_deref().map(id).transpose()?,
                prefix: id(&fim.prefix)?,
                suffix: id(&fim.suffix)?,
                middle: id(&fim.middle)?,
                end: fim
                    .end
                    .iter()
                    .map(|end| id(end))
                    .collect::<Result<_, _>>()?,
            });
        }
        KNOWN
            .iter()
            .find_map(|(layout, prefix, suffix, middle, end)| {
                Some(Self {
                    layout: *layout,
                    file: None,
                    prefix: tokenizer.special_id(prefix)?,
                    suffix: tokenizer.special_id(suffix)?,
                    middle: tokenizer.special_id(middle)?,
                    end: vec![tokenizer.special_id(end)?],
                })
            })
            .ok_or(FimTemplateError::Unknown)
    }
}

impl fmt::Display for FimTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layout = match self.layout {
            Layout::Psm => "prefix, suffix, middle",
            Layout::Spm => "suffix, prefix, middle",
            Layout::SpmV2 => "empty prefix, suffix, middle that begins with the prefix",
        };
        let Self {
            prefix,
            suffix,
            middle,
            ..
        } = self;
        write!(
            f,
            "{layout} (prefix token {prefix}, suffix token {suffix}, middle token {middle})"
        )
    }
}

/// Why a model cannot fill in the middle.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FimTemplateError {
    /// The manifest names a token the tokenizer does not have.
    #[error(
        "the manifest names {0:?}, which is not a special token of the tokenizer; \
         correct [fim] in model.toml or use the model's own tokenizer"
    )]
    NotSpecial(String),
    /// The manifest names no format, and the tokens identify none.
    #[error(
        "the tokenizer has the special tokens of no known fill-in-the-middle format; \
         if the model was trained for one, describe it under [fim] in model.toml"
    )]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::{manifest, tokenizer};

    #[test]
    fn the_manifest_decides() {
        let template = FimTemplate::resolve(tokenizer(), manifest().fim.as_ref()).unwrap();
        let expected = FimTemplate {
            layout: Layout::Spm,
            file: Some(6),
            prefix: 8,
            suffix: 9,
            middle: 10,
            end: vec![0],
        };
        assert_eq!(template, expected);
    }

    #[test]
    fn without_a_manifest_the_tokens_decide() {
        let template = FimTemplate::resolve(tokenizer(), None).unwrap();
        assert_eq!((template.layout, template.prefix), (Layout::Psm, 8));
    }

    #[test]
    fn a_token_the_tokenizer_lacks_is_named() {
        let mut fim = manifest().fim.unwrap();
        fim.middle = "<fim_center>".to_owned();
        let error = FimTemplate::resolve(tokenizer(), Some(&fim)).unwrap_err();
        assert_eq!(
            error,
            FimTemplateError::NotSpecial("<fim_center>".to_owned())
        );
    }
}
