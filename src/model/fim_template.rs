//! The fill-in-the-middle format of a model, as token ids.

use std::fmt;

use super::fim_families::{Family, family_of};
use super::manifest::{Fim, Layout};
use super::tokenizer::Tokenizer;

/// How a model is given a text with a hole in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FimTemplate {
    /// What tells the parts of the text apart. Without it the model is given only the text before
    /// the hole, which it goes on with.
    pub markers: Option<Markers>,
    /// Comes before the file's name, at the very beginning.
    pub file: Option<u32>,
    /// Any of these ends the middle.
    pub end: Vec<u32>,
}

/// The order and the special tokens of a model's fill-in-the-middle format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Markers {
    /// The order of the parts.
    pub layout: Layout,
    /// Comes before the prefix.
    pub prefix: u32,
    /// Comes before the suffix.
    pub suffix: u32,
    /// Comes before the middle, which the model writes.
    pub middle: u32,
}

/// The tokens that end a text in models that do not fill holes. A model may have several.
const ENDS: [&str; 7] = [
    "<|endoftext|>",
    "</s>",
    "<eos>",
    "<|end_of_text|>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
    "<|im_end|>",
    "<|eot_id|>",
];

impl FimTemplate {
    /// The format that the manifest names, else that of the family that the tokenizer's tokens and
    /// the model's `architecture` (`model_type` of `config.json`) identify, else the one without
    /// markers.
    ///
    /// # Errors
    ///
    /// See [`FimTemplateError`].
    pub fn resolve(
        tokenizer: &Tokenizer,
        manifest: Option<&Fim>,
        architecture: Option<&str>,
    ) -> Result<Self, FimTemplateError> {
        match manifest {
            Some(fim) => Self::named(tokenizer, fim),
            None => Ok(family_of(tokenizer, architecture)
                .and_then(|family| Self::of_family(tokenizer, family))
                .unwrap_or_else(|| Self::plain(tokenizer))),
        }
    }

    fn named(tokenizer: &Tokenizer, fim: &Fim) -> Result<Self, FimTemplateError> {
        let id = |token: &String| {
            tokenizer
                .special_id(token)
                .ok_or_else(|| FimTemplateError::NotSpecial(token.clone()))
        };
        Ok(Self {
            markers: Some(Markers {
                layout: fim.order,
                prefix: id(&fim.prefix)?,
                suffix: id(&fim.suffix)?,
                middle: id(&fim.middle)?,
            }),
            file: fim.file.as_ref().map(id).transpose()?,
            end: fim.end.iter().map(id).collect::<Result<_, _>>()?,
        })
    }

    fn of_family(tokenizer: &Tokenizer, family: &Family) -> Option<Self> {
        let id = |token| tokenizer.special_id(token);
        let also_ends = family.also_ends.iter().filter_map(|end| id(end));
        Some(Self {
            markers: Some(Markers {
                layout: family.layout,
                prefix: id(family.prefix)?,
                suffix: id(family.suffix)?,
                middle: id(family.middle)?,
            }),
            file: family.file.and_then(id),
            end: std::iter::once(id(family.end)?).chain(also_ends).collect(),
        })
    }

    fn plain(tokenizer: &Tokenizer) -> Self {
        let ends = ENDS.iter().filter_map(|end| tokenizer.special_id(end));
        Self {
            markers: None,
            file: None,
            end: ends.collect(),
        }
    }
}

impl fmt::Display for FimTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(markers) = self.markers else {
            return f.write_str("only the text before the cursor");
        };
        let layout = match markers.layout {
            Layout::Psm => "prefix, suffix, middle",
            Layout::Spm => "suffix, prefix, middle",
            Layout::SpmV2 => "empty prefix, suffix, middle that begins with the prefix",
        };
        let Markers {
            prefix,
            suffix,
            middle,
            ..
        } = markers;
        write!(
            f,
            "{layout} (prefix token {prefix}, suffix token {suffix}, middle token {middle})"
        )
    }
}

/// Why a model cannot be used in the format that its manifest names.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FimTemplateError {
    /// The manifest names a token the tokenizer does not have.
    #[error(
        "the manifest names {0:?}, which is not a special token of the tokenizer; \
         correct [fim] in model.toml or use the model's own tokenizer"
    )]
    NotSpecial(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::{manifest, tokenizer};
    use crate::model::tokenizer::tests::byte_tokenizer;

    #[test]
    fn the_manifest_decides() {
        let template = FimTemplate::resolve(tokenizer(), manifest().fim.as_ref(), None).unwrap();
        let expected = FimTemplate {
            markers: Some(Markers {
                layout: Layout::Spm,
                prefix: 8,
                suffix: 9,
                middle: 10,
            }),
            file: Some(6),
            end: vec![0],
        };
        assert_eq!(template, expected);
    }

    #[test]
    fn without_a_manifest_the_tokens_decide() {
        for (architecture, layout) in [("gpt_bigcode", Layout::Psm), ("llama", Layout::Spm)] {
            let template = FimTemplate::resolve(tokenizer(), None, Some(architecture)).unwrap();
            let markers = template.markers.unwrap();
            assert_eq!((markers.layout, markers.prefix), (layout, 8));
        }
    }

    #[test]
    fn without_markers_the_end_tokens_are_found() {
        for (added, expected) in [
            (&["</s>", "<s>"][..], &["</s>"][..]),
            (
                &["<|im_end|>", "<|endoftext|>"],
                &["<|endoftext|>", "<|im_end|>"],
            ),
            (&["<fim_prefix>", "<fim_suffix>", "</s>"], &["</s>"]),
            (&[], &[]),
        ] {
            let tokenizer = byte_tokenizer(added, "null");
            let template = FimTemplate::resolve(&tokenizer, None, None).unwrap();
            assert_eq!(template.markers, None);
            let end: String = expected.concat();
            assert_eq!(tokenizer.show(&template.end), end);
            assert_eq!(template.to_string(), "only the text before the cursor");
        }
    }

    #[test]
    fn a_token_the_tokenizer_lacks_is_named() {
        let mut fim = manifest().fim.unwrap();
        fim.middle = "<fim_center>".to_owned();
        let error = FimTemplate::resolve(tokenizer(), Some(&fim), None).unwrap_err();
        assert_eq!(
            error,
            FimTemplateError::NotSpecial("<fim_center>".to_owned())
        );
    }
}
