//! The families of models that fill in the middle, told apart by their tokens.
//!
//! The tokens decide and not the model's name, which users change. Families that share spellings
//! are told apart by other tokens, and at last by the architecture.

use super::manifest::Layout;
use super::tokenizer::Tokenizer;

/// A family: its order, its markers and what tells it from others.
pub(super) struct Family {
    /// Its best known member.
    pub(super) name: &'static str,
    /// The order of the parts.
    pub(super) layout: Layout,
    /// Comes before the file's name.
    pub(super) file: Option<&'static str>,
    pub(super) prefix: &'static str,
    pub(super) suffix: &'static str,
    pub(super) middle: &'static str,
    /// The token that ends the middle, without which the family is another.
    pub(super) end: &'static str,
    /// What else may come after the middle.
    pub(super) also_ends: &'static [&'static str],
    /// Tokens that tell the family from another with the same markers.
    pub(super) told_by: &'static [&'static str],
    /// Its architectures, if they tell it from another with the same tokens.
    pub(super) architectures: &'static [&'static str],
}

/// The markers of Qwen and others.
const BARRED: [&str; 3] = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"];
/// The markers of StarCoder and others.
const PLAIN: [&str; 3] = ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"];

impl Family {
    const fn new(
        name: &'static str,
        layout: Layout,
        [prefix, suffix, middle]: [&'static str; 3],
        end: &'static str,
    ) -> Self {
        Self {
            name,
            layout,
            file: None,
            prefix,
            suffix,
            middle,
            end,
            also_ends: &[],
            told_by: &[],
            architectures: &[],
        }
    }

    /// Whether a model with these tokens and of this architecture, if it is known, belongs to it.
    fn has(&self, tokenizer: &Tokenizer, architecture: Option<&str>) -> bool {
        let markers = [self.prefix, self.suffix, self.middle, self.end];
        let tokens = markers.iter().chain(self.told_by);
        let has_tokens = tokens
            .copied()
            .all(|token| tokenizer.special_id(token).is_some());
        let is_one = architecture.is_none_or(|it| self.architectures.contains(&it));
        has_tokens && (is_one || self.architectures.is_empty())
    }
}

/// The first family that has a model's tokens is the model's.
const FAMILIES: [Family; 8] = [
    // README of the model. The layout is the one that scored best
    // (docs/decisions/001-prompt-layout.md).
    Family {
        also_ends: &["<|im_end|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"],
        ..Family::new("Qwen", Layout::SpmV2, BARRED, "<|endoftext|>")
    },
    Family::new("Granite 4", Layout::Psm, BARRED, "<|end_of_text|>"),
    // Report of Mellum, JetBrains 2025. Its tokens are StarCoder's and those of a conversation; its
    // order is the opposite.
    Family {
        file: Some("<filename>"),
        also_ends: &["<filename>", "<reponame>"],
        told_by: &["<filename>", "<|im_start|>"],
        architectures: &["llama", "mellum"],
        ..Family::new("Mellum", Layout::Spm, PLAIN, "<|endoftext|>")
    },
    // arXiv 2305.06161 and 2402.19173: StarCoder, StarCoder2, Refact, StableCode, Granite Code.
    Family {
        also_ends: &["<file_sep>", "<filename>", "<repo_name>", "<reponame>"],
        ..Family::new("StarCoder", Layout::Psm, PLAIN, "<|endoftext|>")
    },
    Family::new("Granite 3", Layout::Psm, PLAIN, "<|end_of_text|>"),
    // arXiv 2301.03988.
    Family {
        also_ends: &["<|filename|>"],
        ..Family::new(
            "SantaCoder",
            Layout::Psm,
            ["<fim-prefix>", "<fim-suffix>", "<fim-middle>"],
            "<|endoftext|>",
        )
    },
    // arXiv 2401.14196.
    Family {
        also_ends: &["<|EOT|>"],
        ..Family::new(
            "DeepSeek-Coder",
            Layout::Psm,
            [
                "<｜fim\u{2581}begin｜>",
                "<｜fim\u{2581}hole｜>",
                "<｜fim\u{2581}end｜>",
            ],
            "<｜end\u{2581}of\u{2581}sentence｜>",
        )
    },
    // arXiv 2506.03524.
    Family::new(
        "Seed-Coder",
        Layout::Spm,
        ["<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>"],
        "<[end\u{2581}of\u{2581}sentence]>",
    ),
];

/// The family of a model, by its tokens and its architecture (`model_type` of `config.json`).
pub(super) fn family_of(
    tokenizer: &Tokenizer,
    architecture: Option<&str>,
) -> Option<&'static Family> {
    FAMILIES
        .iter()
        .find(|family| family.has(tokenizer, architecture))
}

/// The markers of all families.
pub(super) fn spellings() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().flat_map(|family| {
        let markers = [family.prefix, family.suffix, family.middle, family.end];
        markers.into_iter().chain(family.also_ends.iter().copied())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tokenizer of bytes, with these tokens in its vocabulary, of which `added` are added ones.
    fn tokenizer(tokens: &[&str], added: &[(&str, bool)]) -> Tokenizer {
        let bytes = (0..256_u32).map(|byte| match byte {
            0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from_u32(byte).unwrap(),
            0..=0x20 => char::from_u32(0x100 + byte).unwrap(),
            0x7f..=0xa0 => char::from_u32(0x121 + byte - 0x7f).unwrap(),
            _ => '\u{143}',
        });
        let bytes: Vec<String> = bytes.map(String::from).collect();
        let all = bytes
            .iter()
            .map(String::as_str)
            .chain(tokens.iter().copied());
        let vocabulary: serde_json::Map<String, serde_json::Value> = all
            .enumerate()
            .map(|(id, token)| (token.to_owned(), id.into()))
            .collect();
        let added: Vec<serde_json::Value> = added
            .iter()
            .map(|(token, special)| {
                serde_json::json!({"id": vocabulary[*token], "content": token, "special": special,
                    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
            })
            .collect();
        let json = serde_json::json!({
            "version": "1.0", "added_tokens": added, "normalizer": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                "use_regex": true},
            "post_processor": null, "decoder": null,
            "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        });
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), json.to_string()).unwrap();
        Tokenizer::load(file.path()).unwrap()
    }

    fn check(tokens: &[&str], architecture: Option<&str>, expected: Option<&str>) {
        // Flagged special, flagged as not, and in the vocabulary without a flag.
        let special: Vec<_> = tokens.iter().map(|token| (*token, true)).collect();
        let plain: Vec<_> = tokens.iter().map(|token| (*token, false)).collect();
        for added in [special, plain, Vec::new()] {
            let tokenizer = tokenizer(tokens, &added);
            let family = family_of(&tokenizer, architecture).map(|family| family.name);
            assert_eq!(family, expected, "{tokens:?} {architecture:?} {added:?}");
            for token in tokens {
                let id = tokenizer.special_id(token).unwrap();
                assert!(!tokenizer.encode(token).contains(&id), "{token} is text");
            }
        }
    }

    #[test]
    fn families_that_share_spellings_are_told_apart() {
        let with = |markers: [&'static str; 3], more: &[&'static str]| [&markers, more].concat();
        let end = "<|endoftext|>";
        check(&with(BARRED, &[end]), None, Some("Qwen"));
        check(&with(BARRED, &["<|end_of_text|>"]), None, Some("Granite 4"));
        check(&with(PLAIN, &[end]), Some("gpt_bigcode"), Some("StarCoder"));
        check(
            &with(PLAIN, &[end, "<repo_name>", "<file_sep>"]),
            Some("starcoder2"),
            Some("StarCoder"),
        );
        check(&with(PLAIN, &["<|end_of_text|>"]), None, Some("Granite 3"));
        let mellum = with(PLAIN, &[end, "<filename>", "<reponame>"]);
        check(&mellum, Some("llama"), Some("StarCoder"));
        check(&[end], Some("llama"), None);
        check(&with(BARRED, &[]), None, None);
    }

    #[test]
    fn a_conversation_and_its_architecture_tell_mellum() {
        let tokens: Vec<&str> =
            [&PLAIN[..], &["<|endoftext|>", "<filename>", "<|im_start|>"]].concat();
        let added: Vec<_> = tokens.iter().map(|token| (*token, true)).collect();
        let tokenizer = tokenizer(&tokens, &added);
        for (architecture, expected) in [
            (None, "Mellum"),
            (Some("llama"), "Mellum"),
            (Some("stablelm"), "StarCoder"),
        ] {
            let family = family_of(&tokenizer, architecture).unwrap();
            assert_eq!(family.name, expected);
        }
    }
}
