//! The model's input: token ids within a budget, laid out so that typing changes only their end.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;

use crate::model::fim_template::FimTemplate;
use crate::model::manifest::Order;
use crate::model::tokenizer::Tokenizer;

/// The text around the place where the model shall write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hole {
    /// The file's base name.
    pub file_name: String,
    /// The text before the hole, or its end.
    pub prefix: String,
    /// Where `prefix` begins in the file, in bytes.
    pub prefix_start: usize,
    /// The text after the hole, or its beginning.
    pub suffix: String,
}

/// Token ids for the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The ids, in the order of the model's template.
    pub ids: Vec<u32>,
    /// The bytes at the end of the prefix that are not in `ids`: the model must write them first.
    ///
    /// This is token healing: the cursor may stand within what the model knows as one token
    /// (`retu|`), so the last token before it is left to the model to complete.
    pub healed: Vec<u8>,
}

/// The suffix takes at most one part in this many of the budget.
const SUFFIX_SHARE: usize = 4;

/// When the prefix outgrows the budget its left edge moves on by this many bytes for each token of the
/// budget at once, about a third of the prompt, because every move costs a whole prefill.
const EDGE_STEP: usize = 1;

/// Builds prompts, and remembers the tokens of the pieces of text it has seen: a keystroke tokenizes
/// a few lines and not the whole window.
#[derive(Debug)]
pub struct PromptBuilder {
    pieces: LruCache<Box<str>, Arc<[u32]>>,
}

impl Default for PromptBuilder {
    fn default() -> Self {
        const PIECES: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
        Self {
            pieces: LruCache::new(PIECES),
        }
    }
}

impl PromptBuilder {
    /// The prompt for `hole` in at most `budget` tokens, of which markers take a few.
    #[must_use]
    pub fn build(
        &mut self,
        tokenizer: &Tokenizer,
        fim: &FimTemplate,
        hole: &Hole,
        budget: usize,
    ) -> Prompt {
        let mut file = Vec::new();
        if let Some(marker) = fim.file {
            file.push(marker);
            let name = format!("{}\n", hole.file_name);
            file.extend_from_slice(&self.piece(tokenizer, &name));
        }
        let markers = file.len() + 3;
        let suffix = self.suffix(tokenizer, &hole.suffix, budget / SUFFIX_SHARE);
        let left = budget.saturating_sub(markers + suffix.len());
        let mut prefix = self.prefix(tokenizer, hole, left);
        let healed = heal(tokenizer, &mut prefix);

        let mut ids = file;
        match fim.order {
            Order::Spm => {
                ids.push(fim.suffix);
                ids.extend(suffix);
                ids.push(fim.prefix);
                ids.extend(prefix);
            }
            Order::Psm => {
                ids.push(fim.prefix);
                ids.extend(prefix);
                ids.push(fim.suffix);
                ids.extend(suffix);
            }
        }
        ids.push(fim.middle);
        Prompt { ids, healed }
    }

    /// The beginning of `suffix`, cut behind a line, so that it stands still while the cursor stays
    /// on its line.
    fn suffix(&mut self, tokenizer: &Tokenizer, suffix: &str, budget: usize) -> Vec<u32> {
        let mut ids = Vec::new();
        for piece in pieces(suffix) {
            ids.extend_from_slice(&self.piece(tokenizer, piece));
            if ids.len() > budget {
                ids.truncate(budget);
                let line_end = |id: &u32| tokenizer.bytes(*id).contains(&b'\n');
                if let Some(last) = ids.iter().rposition(line_end) {
                    ids.truncate(last + 1);
                }
                break;
            }
        }
        ids
    }

    /// The end of the prefix, from the first edge from which it fits the budget.
    fn prefix(&mut self, tokenizer: &Tokenizer, hole: &Hole, budget: usize) -> Vec<u32> {
        let mut segments = Vec::new();
        let (mut start, mut left) = (hole.prefix.len(), budget);
        // From the cursor on, so that nothing is read that the prompt has no room for.
        for edge in edges(hole, budget * EDGE_STEP) {
            let mut ids = Vec::new();
            for piece in pieces(&hole.prefix[edge.min(start)..start]) {
                ids.extend_from_slice(&self.piece(tokenizer, piece));
            }
            if ids.len() > left {
                // Even one step is too dense. This moves with each key, but only in such a text.
                if left == budget {
                    return ids.split_off(ids.len() - budget);
                }
                break;
            }
            left -= ids.len();
            start = edge.min(start);
            segments.push(ids);
        }
        segments.into_iter().rev().flatten().collect()
    }

    fn piece(&mut self, tokenizer: &Tokenizer, piece: &str) -> Arc<[u32]> {
        if let Some(ids) = self.pieces.get(piece) {
            return ids.clone();
        }
        let ids: Arc<[u32]> = tokenizer.encode(piece).into();
        self.pieces.put(piece.into(), ids.clone());
        ids
    }
}

/// Where the prefix may begin, the last first: at each multiple of `step` in the file, moved to where
/// the next line begins.
fn edges(hole: &Hole, step: usize) -> impl Iterator<Item = usize> {
    let step = step.max(1);
    let first = step - hole.prefix_start % step;
    let steps = (first..hole.prefix.len() + 1).step_by(step).rev();
    let steps = steps.map(move |edge| {
        let edge = hole.prefix.ceil_char_boundary(edge);
        match cut(&hole.prefix[edge..], is_line_border).next() {
            Some(line) if line.len() < step => edge + line.len(),
            // A file of one long line has no better place.
            _ => edge,
        }
    });
    steps.chain(std::iter::once(0))
}

/// Cuts a text where its tokens would be cut anyway, so that the pieces' tokens are the text's.
///
/// The pre-tokenizers of byte-level vocabularies (GPT-2's pattern and those after it) join neither a
/// letter or digit with a line end behind it, nor a single line end with what is no space behind it,
/// nor what stands before a single space with that space.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    cut(text, |before, after| {
        is_line_border(before, after) || is_word_border(before, after)
    })
}

fn is_line_border(before: &str, after: &str) -> bool {
    if after.starts_with('\n') {
        return before.ends_with(char::is_alphanumeric);
    }
    let line = before.strip_suffix('\n');
    line.is_some_and(|line| line.ends_with(|end: char| !end.is_whitespace()))
        && !after.starts_with(char::is_whitespace)
}

fn is_word_border(before: &str, after: &str) -> bool {
    let word = after.strip_prefix(' ');
    word.is_some_and(|word| word.starts_with(|start: char| !start.is_whitespace()))
        && !before.ends_with(char::is_whitespace)
}

/// Cuts a text at each place where `border` says so of what stands before it, from the last cut on,
/// and what stands after it.
fn cut(text: &str, border: impl Fn(&str, &str) -> bool) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut places = rest.char_indices().skip(1).map(|(at, _)| at);
        let end = places.find(|at| {
            let (before, after) = rest.split_at(*at);
            border(before, after)
        });
        let piece;
        (piece, rest) = rest.split_at(end.unwrap_or(rest.len()));
        (!piece.is_empty()).then_some(piece)
    })
}

/// Takes the last token off the prefix, if the model can be made to write it again.
///
/// A token with a line end in it stays: models are trained on holes at the beginning of lines, and
/// to reopen one only invites blank lines (measured in ARCHITECTURE.md).
fn heal(tokenizer: &Tokenizer, prefix: &mut Vec<u32>) -> Vec<u8> {
    let bytes = prefix.last().map_or(&[][..], |last| tokenizer.bytes(*last));
    if bytes.is_empty() || bytes.contains(&b'\n') {
        return Vec::new();
    }
    prefix.pop();
    bytes.to_vec()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;
    use crate::model::tests::{manifest, tokenizer};

    fn template() -> FimTemplate {
        FimTemplate::resolve(tokenizer(), manifest().fim.as_ref()).unwrap()
    }

    fn hole(text: &str) -> Hole {
        let (prefix, suffix) = text.split_once("$0").unwrap();
        Hole {
            file_name: "a.py".to_owned(),
            prefix: prefix.to_owned(),
            prefix_start: 0,
            suffix: suffix.to_owned(),
        }
    }

    /// The prompt as text: special tokens by id, the healed bytes after a bar.
    fn show(prompt: &Prompt) -> String {
        let mut text = String::new();
        for id in &prompt.ids {
            match tokenizer().bytes(*id) {
                b"" => text.push_str(&format!("<{id}>")),
                bytes => text.push_str(&String::from_utf8_lossy(bytes)),
            }
        }
        format!("{text}|{}", String::from_utf8_lossy(&prompt.healed))
    }

    fn check(text: &str, budget: usize, expected: Expect) {
        let prompt = PromptBuilder::default().build(tokenizer(), &template(), &hole(text), budget);
        assert!(prompt.ids.len() <= budget, "{} tokens", prompt.ids.len());
        expected.assert_eq(&show(&prompt));
    }

    #[test]
    fn the_suffix_comes_first_and_the_last_token_is_healed() {
        check(
            "def f():\n    retu$0\n\nf()\n",
            64,
            expect![[r#"
                <6>a.py
                <9>

                f()
                <8>def f():
                    ret<10>|u"#]],
        );
    }

    #[test]
    fn an_empty_file_has_only_markers() {
        check(
            "$0",
            64,
            expect![[r#"
            <6>a.py
            <9><8><10>|"#]],
        );
    }

    #[test]
    fn markers_in_a_file_are_text() {
        let hole = hole("<fim_middle>$0<|endoftext|>");
        let prompt = PromptBuilder::default().build(tokenizer(), &template(), &hole, 64);
        let special = |id: &&u32| tokenizer().special().contains(id);
        assert_eq!(prompt.ids.iter().filter(special).count(), 4);
    }

    fn numbered(lines: usize) -> String {
        (0..lines)
            .map(|line| format!("value_{line} = {line}\n"))
            .collect()
    }

    #[test]
    fn the_suffix_is_cut_behind_a_line() {
        let text = format!("x = $0\n{}", numbered(40));
        check(
            &text,
            100,
            expect![[r#"
                <6>a.py
                <9>
                value_0 = 0
                value_1 = 1
                value_2 = 2
                <8>x =<10>| "#]],
        );
    }

    #[test]
    fn the_left_edge_moves_in_steps() {
        let text = numbered(2000);
        let mut builder = PromptBuilder::default();
        let mut firsts = Vec::new();
        // Typing the end of a long file: the beginning of the prompt stands still for long.
        for end in (text.len() - 3000..text.len()).step_by(10) {
            let start = (end - 8192).next_multiple_of(1024);
            let hole = Hole {
                prefix: text[start..end].to_owned(),
                prefix_start: start,
                ..hole("$0")
            };
            let prompt = builder.build(tokenizer(), &template(), &hole, 1024);
            assert!(prompt.ids.len() <= 1024);
            firsts.push(prompt.ids[..20].to_vec());
        }
        firsts.dedup();
        assert!(
            firsts.len() <= 5,
            "{} edges in 3000 characters",
            firsts.len()
        );
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let text = "é漢".repeat(3000);
        let mut hole = hole("$0");
        hole.prefix = text;
        let prompt = PromptBuilder::default().build(tokenizer(), &template(), &hole, 256);
        assert!(prompt.ids.len() <= 256);
    }

    #[test]
    fn pieces_of_real_code_are_its_tokens() {
        for code in [
            include_str!("prompt.rs"),
            include_str!("../text/document.rs"),
            "def f(a):\n    return a\n\n\nclass B:\n\tx = 1\n  \n  # e\u{301}漢😀\r\n\r\n\u{2028}\n",
        ] {
            let joined: Vec<u32> = pieces(code)
                .flat_map(|piece| tokenizer().encode(piece))
                .collect();
            assert_eq!(joined, tokenizer().encode(code));
        }
    }

    proptest! {
        #[test]
        fn pieces_are_the_text_and_its_tokens(text in "([a-c1-3_(){};: \t\n\r]|é|漢|😀|\\PC){0,60}") {
            prop_assert_eq!(pieces(&text).collect::<String>(), text.as_str());
            let joined: Vec<u32> = pieces(&text).flat_map(|piece| tokenizer().encode(piece)).collect();
            prop_assert_eq!(joined, tokenizer().encode(&text));
        }
    }
}
