//! The model's input: token ids within a budget, laid out so that typing changes only their end.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;

use super::EngineError;
use super::request::{Chat, Hole, Input, Part, Priority, Request};
use super::stop::Scope;
use crate::model::Model;
use crate::model::chat_template::{Message, Role};
use crate::model::fim_template::{FimTemplate, Markers};
use crate::model::manifest::Layout;
use crate::model::tokenizer::Tokenizer;

/// Token ids for the model, and what belongs to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// The ids, in the order of the model's template.
    pub ids: Vec<u32>,
    /// The bytes at the end of the text before the hole that are not in `ids`: the model must write
    /// them first.
    ///
    /// This is token healing: the cursor may be within what the model knows as one token
    /// (`retu|`), so the last token before it is left to the model to complete.
    pub healed: Vec<u8>,
    /// The tokens that end a text.
    pub end: Vec<u32>,
    /// How many parts or examples it holds.
    pub parts: usize,
}

/// The room for a prompt, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// For a text with a hole of which nothing is in the cache.
    pub hole: usize,
    /// For a text with a hole that goes on where the last one was.
    pub grown: usize,
    /// For any prompt and its answer together.
    pub all: usize,
}

/// The suffix takes at most the budget divided by this.
const SUFFIX_SHARE: usize = 4;

/// Parts of other files take at most the budget divided by this.
const PARTS_SHARE: usize = 2;

/// When the prefix outgrows the budget, its left edge moves by this many bytes for each token of
/// the budget, about a third of the prompt in one step, because every move costs a whole prefill.
const EDGE_STEP: usize = 1;

/// Builds prompts, and remembers the tokens of the pieces of text it has seen, so that a keystroke
/// tokenizes a few lines and not the whole window.
#[derive(Debug)]
pub struct PromptBuilder {
    pieces: LruCache<Box<str>, Arc<[u32]>>,
    /// Where the last prefix began.
    edge: Option<Edge>,
    /// The line that is typed.
    line: Option<Line>,
}

/// A line that is typed, and the room for its prompts.
#[derive(Debug)]
struct Line {
    /// The file's base name.
    file_name: String,
    /// Where it begins in the file, in bytes.
    offset: usize,
    /// In tokens.
    budget: usize,
}

/// The left edge of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Edge {
    /// The file's base name.
    file_name: String,
    /// In the file, in bytes.
    offset: usize,
    /// How the text goes on there, by which the edge is known again.
    text: String,
}

impl Default for PromptBuilder {
    fn default() -> Self {
        const PIECES: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
        Self {
            pieces: LruCache::new(PIECES),
            edge: None,
            line: None,
        }
    }
}

impl PromptBuilder {
    /// The prompt for `request`.
    ///
    /// # Errors
    ///
    /// [`EngineError::TooLong`] when a conversation does not fit, and [`EngineError::Template`]
    /// when the model's chat template does not render it.
    pub fn build(
        &mut self,
        model: &Model,
        request: &Request,
        room: Room,
    ) -> Result<Prompt, EngineError> {
        let bos = model.tokenizer.beginning_of_text();
        let left = room.all.saturating_sub(request.limits.tokens);
        let left = left.saturating_sub(usize::from(bos.is_some()));
        let around = request
            .limits
            .prompt
            .map_or(room.hole, |tokens| tokens.min(left));
        let mut prompt = match &request.input {
            Input::Hole(hole) if request.priority >= Priority::Invoked => {
                let line = self.line(hole, around);
                let budget = line.budget;
                self.line = Some(line);
                let growth = room.grown.min(left).saturating_sub(budget);
                self.hole(model, hole, &request.parts, budget, growth)
            }
            Input::Hole(hole) => {
                // The edge and the line are those of the text that is typed.
                let edge = self.edge.take();
                let budget = self.line(hole, around).budget;
                let prompt = self.hole(model, hole, &request.parts, budget, 0);
                self.edge = edge;
                prompt
            }
            Input::Continue { file_name, text } => {
                let end = match request.scope {
                    Scope::Text => model.fim.end.clone(),
                    _ => Vec::new(),
                };
                Prompt {
                    ids: self.beginning(model, file_name, text, left),
                    end,
                    ..Prompt::default()
                }
            }
            Input::Chat(chat) => conversation(model, chat, left)?,
        };
        match bos {
            // A chat template may have written it.
            Some(bos) if prompt.ids.first() != Some(&bos) => prompt.ids.insert(0, bos),
            // As texts begin in training: after the end of another.
            None if prompt.ids.is_empty() => prompt.ids.extend(model.fim.end.first()),
            _ => {}
        }
        Ok(prompt)
    }

    /// The line of the cursor. Its budget is that of the last prompt on the same line, because
    /// another one would move the edges, and `budget` where there was none.
    fn line(&self, hole: &Hole, budget: usize) -> Line {
        let start = hole.prefix.rfind('\n').map_or(0, |end| end + 1);
        let offset = offset_in_file(hole, start);
        let last = self
            .line
            .as_ref()
            .filter(|line| (&line.file_name, line.offset) == (&hole.file_name, offset));
        Line {
            file_name: hole.file_name.clone(),
            offset,
            budget: last.map_or(budget, |line| line.budget),
        }
    }

    /// The prompt for `hole` in at most `budget` tokens, of which markers take a few, and in `growth`
    /// more where it goes on from the last one.
    ///
    /// The shares of prefix and suffix are fixed: neither edge depends on how long the other side is.
    fn hole(
        &mut self,
        model: &Model,
        hole: &Hole,
        parts: &[Part],
        budget: usize,
        growth: usize,
    ) -> Prompt {
        let Model { tokenizer, fim, .. } = model;
        let (mut ids, parts) = self.parts(tokenizer, fim, parts, budget / PARTS_SHARE);
        let budget = budget - ids.len();
        let file = self.file(tokenizer, fim, &hole.file_name);
        let (suffix_budget, markers) = match fim.markers {
            Some(_) => (budget / SUFFIX_SHARE, 3),
            None => (0, 0),
        };
        let prefix_budget = budget.saturating_sub(suffix_budget + file.len() + markers);
        let suffix = self.suffix(tokenizer, &hole.suffix, suffix_budget);
        let mut prefix = self.prefix(tokenizer, hole, prefix_budget, growth);
        let healed = heal(tokenizer, &mut prefix);

        ids.extend(file);
        match fim.markers {
            None => ids.extend(prefix),
            Some(markers) => ids.extend(parted(markers, &prefix, &suffix)),
        }
        Prompt {
            ids,
            healed,
            end: fim.end.clone(),
            parts,
        }
    }

    /// The nearest parts that fit `budget`, in the order of their files' names, which stays the
    /// same while the cursor moves, and how many there are.
    fn parts(
        &mut self,
        tokenizer: &Tokenizer,
        fim: &FimTemplate,
        parts: &[Part],
        budget: usize,
    ) -> (Vec<u32>, usize) {
        let mut left = budget;
        let mut fitting = Vec::new();
        for Part { file_name, text } in parts {
            let mut ids = match fim.file {
                Some(_) => self.file(tokenizer, fim, file_name),
                None => tokenizer.encode(&format!("# {file_name}\n")),
            };
            ids.extend(tokenizer.encode(&format!("{}\n", text.trim_end_matches('\n'))));
            if ids.len() > left {
                break;
            }
            left -= ids.len();
            fitting.push((file_name, ids));
        }
        fitting.sort_by_key(|(file_name, _)| *file_name);
        let count = fitting.len();
        (
            fitting.into_iter().flat_map(|(_, ids)| ids).collect(),
            count,
        )
    }

    /// The file's name after its marker, if the model's family has one.
    fn file(&mut self, tokenizer: &Tokenizer, fim: &FimTemplate, name: &str) -> Vec<u32> {
        let Some(marker) = fim.file else {
            return Vec::new();
        };
        let name = self.piece(tokenizer, &format!("{name}\n"));
        std::iter::once(marker)
            .chain(name.iter().copied())
            .collect()
    }

    /// The last lines of `text`, the beginning of a file, in at most `budget` tokens. The name
    /// comes before it, as in a prompt with a hole: without it the default model hardly writes at
    /// all.
    fn beginning(&mut self, model: &Model, file_name: &str, text: &str, budget: usize) -> Vec<u32> {
        let tokenizer = &model.tokenizer;
        let mut ids = self.file(tokenizer, &model.fim, file_name);
        let text = tokenizer.encode(text);
        let over = (ids.len() + text.len())
            .saturating_sub(budget)
            .min(text.len());
        let ends_line = |id: &u32| tokenizer.bytes(*id).contains(&b'\n');
        let start = match over {
            0 => 0,
            over => {
                let line = text[over..].iter().position(ends_line);
                line.map_or(over, |at| over + at + 1)
            }
        };
        ids.extend_from_slice(&text[start..]);
        ids
    }

    /// The beginning of `suffix`, cut after a line, so that it does not change while the cursor
    /// stays on its line.
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
    ///
    /// Typing on only appends, which costs nothing to read anew. So the last edge stays while the
    /// prefix is not more than `growth` tokens over the budget: the model sees more, and the prompt
    /// is read anew less often.
    fn prefix(
        &mut self,
        tokenizer: &Tokenizer,
        hole: &Hole,
        budget: usize,
        growth: usize,
    ) -> Vec<u32> {
        let mut segments = Vec::new();
        let (mut start, mut left) = (hole.prefix.len(), budget);
        // Backwards from the cursor, so that nothing is tokenized that does not fit the prompt.
        for edge in edges(hole, budget * EDGE_STEP) {
            let ids = self.tokens(tokenizer, &hole.prefix[edge.min(start)..start]);
            if ids.len() > left {
                // Even one step has too many tokens. This edge moves with each key, but only in
                // such a text.
                if left == budget {
                    self.edge = None;
                    return ids[ids.len() - budget..].to_vec();
                }
                break;
            }
            left -= ids.len();
            start = edge.min(start);
            segments.push(ids);
        }
        let last = self.edge.as_ref().and_then(|edge| edge.find(hole));
        if let Some(earlier) = last.filter(|earlier| *earlier < start) {
            let more = self.tokens(tokenizer, &hole.prefix[earlier..start]);
            if more.len() <= left + growth {
                segments.push(more);
                start = earlier;
            }
        }
        self.edge = Some(Edge {
            file_name: hole.file_name.clone(),
            offset: offset_in_file(hole, start),
            text: beginning(&hole.prefix[start..]).to_owned(),
        });
        segments.into_iter().rev().flatten().collect()
    }

    /// The ids of a text, piece by piece.
    fn tokens(&mut self, tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        for piece in pieces(text) {
            ids.extend_from_slice(&self.piece(tokenizer, piece));
        }
        ids
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

/// The text before a hole and that after it, told apart by `markers`.
fn parted(markers: Markers, prefix: &[u32], suffix: &[u32]) -> Vec<u32> {
    let (before, after, middle) = ([markers.prefix], [markers.suffix], [markers.middle]);
    match markers.layout {
        Layout::Psm => [&before[..], prefix, &after, suffix, &middle].concat(),
        Layout::Spm => [&after[..], suffix, &before, prefix, &middle].concat(),
        Layout::SpmV2 => [&before[..], &after, suffix, &middle, prefix].concat(),
    }
}

/// The prompt of a conversation, with as many examples as `room` tokens hold.
fn conversation(model: &Model, chat: &Chat, room: usize) -> Result<Prompt, EngineError> {
    let encode = |examples: &[(String, String)]| -> Result<Vec<u32>, EngineError> {
        match &model.chat {
            Some(template) => {
                let mut ids = template
                    .encode(&model.tokenizer, &messages(chat, examples))
                    .map_err(|error| EngineError::Template(error.to_string()))?;
                ids.extend(model.tokenizer.encode(&chat.answer));
                Ok(ids)
            }
            None => Ok(model.tokenizer.encode(&document(chat, examples))),
        }
    };
    let mut ids = encode(&[])?;
    if ids.len() > room {
        let prompt = ids.len();
        return Err(EngineError::TooLong { prompt, room });
    }
    let mut parts = 0;
    // The nearest come first, and what does not fit is left out.
    for count in 1..=chat.examples.len() {
        let longer = encode(&chat.examples[..count])?;
        if longer.len() > room {
            break;
        }
        (ids, parts) = (longer, count);
    }
    let end = match &model.chat {
        Some(template) => template.end.clone(),
        None => model.fim.end.clone(),
    };
    Ok(Prompt {
        ids,
        healed: Vec::new(),
        end,
        parts,
    })
}

/// The turns of a conversation. The nearest example comes last, where a model pays most attention.
fn messages(chat: &Chat, examples: &[(String, String)]) -> Vec<Message> {
    let message = |role, content: &str| Message {
        role,
        content: content.to_owned(),
    };
    let mut messages = vec![message(Role::System, &chat.system)];
    for (question, answer) in examples.iter().rev() {
        messages.push(message(Role::User, question));
        messages.push(message(Role::Assistant, answer));
    }
    messages.push(message(Role::User, &chat.question));
    messages
}

/// The same as a Markdown document, for a model that was not trained on conversations.
fn document(chat: &Chat, examples: &[(String, String)]) -> String {
    let last = (&chat.question, &chat.answer);
    let turns = examples
        .iter()
        .rev()
        .map(|(question, answer)| (question, answer));
    let turns: Vec<String> = turns
        .chain([last])
        .map(|(question, answer)| format!("## Question\n\n{question}\n\n## Answer\n\n{answer}"))
        .collect();
    let document = turns.join("\n\n");
    // The model begins the answer with the line ends that belong to it.
    match chat.answer.is_empty() {
        true => document.trim_end().to_owned(),
        false => document,
    }
}

impl Edge {
    /// Where the edge is in a hole's prefix, if it is the same file and the same text begins there.
    fn find(&self, hole: &Hole) -> Option<usize> {
        let at = offset_in_prefix(hole, self.offset)?;
        let text = hole.prefix.get(at..)?;
        (self.file_name == hole.file_name && text.starts_with(&self.text)).then_some(at)
    }
}

/// Enough of a text to tell it from others.
fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(64)]
}

/// An offset into the hole's prefix as one of the file.
fn offset_in_file(hole: &Hole, at: usize) -> usize {
    let dropped = hole.dropped.partition_point(|dropped| *dropped < at);
    hole.prefix_start + at + dropped
}

/// An offset into the file as one of the hole's prefix, if it lies there.
fn offset_in_prefix(hole: &Hole, offset: usize) -> Option<usize> {
    let at = offset.checked_sub(hole.prefix_start)?;
    // Each dropped byte before the offset shifts it by one.
    let (mut low, mut high) = (0, hole.dropped.len());
    while low < high {
        let middle = low.midpoint(high);
        match hole.dropped[middle] + middle < at {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    let at = at - low;
    (at <= hole.prefix.len()).then_some(at)
}

/// Where the prefix may begin, the last place first: at each multiple of `step` in the file, moved
/// on to where the next line begins.
fn edges(hole: &Hole, step: usize) -> impl Iterator<Item = usize> {
    let step = step.max(1);
    let start = hole.prefix_start;
    let end = offset_in_file(hole, hole.prefix.len());
    let first = step - start % step;
    let steps = (start + first..end + 1).step_by(step).rev();
    let steps = steps.map(move |edge| {
        let at = offset_in_prefix(hole, edge).unwrap_or_default();
        let at = hole.prefix.ceil_char_boundary(at);
        match cut(&hole.prefix[at..], is_line_border).next() {
            Some(line) if line.len() < step => at + line.len(),
            // A file of one long line has no better place.
            _ => at,
        }
    });
    steps.chain(std::iter::once(0))
}

/// Cuts a text where the tokenizer would cut it anyway, so that the pieces have the tokens of the
/// text.
///
/// The pre-tokenizers of byte-level vocabularies (GPT-2's pattern and those after it) never join a
/// letter or digit with a line end after it, a single line end with what follows it, unless that is
/// a space, or a single space with what precedes it.
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

/// Cuts a text at each place where `border` accepts the text before it, from the last cut on, and
/// the text after it.
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
/// reopening one only invites blank lines (docs/decisions/003-token-healing.md).
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
    use crate::engine::cancel::Cancel;
    use crate::engine::request::{Draws, Limits};
    use crate::engine::scripted::scripted;
    use crate::model::chat_template::ChatTemplate;
    use crate::model::tests::tokenizer;
    use crate::model::tokenizer::tests::{PUTS_BOS, byte_tokenizer};

    fn build(hole: &Hole, parts: &[Part], budget: usize) -> Prompt {
        PromptBuilder::default().hole(&scripted("").0, hole, parts, budget, 0)
    }

    fn hole(text: &str) -> Hole {
        let (prefix, suffix) = text.split_once("$0").unwrap();
        Hole {
            file_name: "a.py".to_owned(),
            prefix: prefix.to_owned(),
            suffix: suffix.to_owned(),
            ..Hole::default()
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
        let prompt = build(&hole(text), &[], budget);
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
        let prompt = build(&hole, &[], 64);
        let special = |id: &&u32| tokenizer().special().contains(id);
        assert_eq!(prompt.ids.iter().filter(special).count(), 4);
    }

    fn numbered(lines: usize) -> String {
        (0..lines)
            .map(|line| format!("value_{line} = {line}\n"))
            .collect()
    }

    #[test]
    fn the_suffix_is_cut_after_a_line() {
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
        let (model, _) = scripted("");
        let mut builder = PromptBuilder::default();
        let mut firsts = Vec::new();
        // Typing the end of a long file: the beginning of the prompt seldom changes.
        for end in (text.len() - 3000..text.len()).step_by(10) {
            let start = (end - 8192).next_multiple_of(1024);
            let hole = Hole {
                prefix: text[start..end].to_owned(),
                prefix_start: start,
                ..hole("$0")
            };
            let prompt = builder.hole(&model, &hole, &[], 1024, 0);
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

    /// The window of `text` up to `end`, as [`Context`](crate::text::context::Context) cuts it.
    fn window(text: &str, end: usize, suffix: &str) -> Hole {
        let start = end.saturating_sub(8192).next_multiple_of(1024);
        let mut hole = Hole {
            prefix_start: start,
            suffix: suffix.to_owned(),
            ..hole("$0")
        };
        for char in text[start..end].chars() {
            match char {
                '\r' => hole.dropped.push(hole.prefix.len()),
                char => hole.prefix.push(char),
            }
        }
        hole
    }

    /// The first line of each hole's prefix in its prompt.
    fn left_edges(holes: impl IntoIterator<Item = Hole>) -> Vec<String> {
        let (model, _) = scripted("");
        let mut builder = PromptBuilder::default();
        let edges = holes.into_iter().map(|hole| {
            let shown = show(&builder.hole(&model, &hole, &[], 1024, 0));
            let (_, prefix) = shown.split_once("<8>").unwrap();
            prefix.lines().next().unwrap().to_owned()
        });
        edges.collect()
    }

    #[test]
    fn the_left_edge_does_not_depend_on_the_suffix() {
        let text = numbered(2000);
        let ends = || (9000..20_000).step_by(1103);
        let short = left_edges(ends().map(|end| window(&text, end, "\n")));
        let long = left_edges(ends().map(|end| window(&text, end, &numbered(400))));
        assert_eq!(short, long);
    }

    #[test]
    fn the_left_edge_stays_in_place_whatever_the_line_ends() {
        for text in [numbered(2000), numbered(2000).replace('\n', "\r\n")] {
            // Typing on moves the window's start, which must not move the edge.
            let ends = (9024..20_000).step_by(64);
            let ends = ends.filter(|end| !text[..*end].ends_with('\r'));
            let mut edges = left_edges(ends.map(|end| window(&text, end, "\n")));
            edges.dedup();
            let all = edges.len();
            edges.sort_unstable();
            edges.dedup();
            assert_eq!(edges.len(), all, "an edge came again");
            assert!(all <= 11_000 / 700, "{all} edges in 11,000 bytes");
        }
    }

    /// Typing on, in either kind of line ends: the edge stays until the prompt has grown to its limit,
    /// and a jump has the budget of a jump again.
    #[test]
    fn the_left_edge_stays_while_the_prompt_can_grow() {
        let (model, _) = scripted("");
        for text in [numbered(2000), numbered(2000).replace('\n', "\r\n")] {
            let mut builder = PromptBuilder::default();
            let mut build = |end| builder.hole(&model, &window(&text, end, "\n"), &[], 512, 512);
            let mut lengths = Vec::new();
            let mut moves = 0;
            let mut before: Vec<u32> = Vec::new();
            for end in (9000..12_000).step_by(10) {
                let ids = build(end).ids;
                assert!(ids.len() <= 1024, "{} tokens", ids.len());
                moves += usize::from(!before.is_empty() && ids[..16] != before[..16]);
                lengths.push(ids.len());
                before = ids;
            }
            assert!(lengths[0] <= 512, "{lengths:?}");
            assert!(lengths.iter().any(|length| *length > 850), "{lengths:?}");
            assert!(moves <= 3, "{moves} moves in 3,000 bytes");
            assert!(build(20_000).ids.len() <= 512);
        }
    }

    /// What is learned of the machine's speed must not cost a keystroke a whole prompt.
    #[test]
    fn the_budget_stays_while_a_line_is_typed() {
        let mut builder = PromptBuilder::default();
        let mut budget = |text: &str, budget| {
            let line = builder.line(&hole(text), budget);
            builder.line.insert(line).budget
        };
        assert_eq!(budget("f()\nx$0", 128), 128);
        assert_eq!(budget("f()\nx =$0", 512), 128);
        assert_eq!(budget("f()\nx = 1\n$0", 512), 512);
    }

    #[test]
    fn another_file_of_that_name_has_its_own_edge() {
        let (model, _) = scripted("");
        let mut builder = PromptBuilder::default();
        builder.hole(&model, &window(&numbered(2000), 9000, ""), &[], 512, 512);
        let other = window(&"other = 1\n".repeat(2000), 9300, "");
        let fresh = build(&other, &[], 512);
        assert_eq!(builder.hole(&model, &other, &[], 512, 512), fresh);
    }

    #[test]
    fn the_layouts_put_the_same_parts_in_their_order() {
        let (mut model, _) = scripted("");
        let hole = hole("def f():\n    retu$0\n\nf()\n");
        for (layout, expected) in [
            (Layout::Psm, "<8>def f():\n    ret<9>\n\nf()\n<10>|u"),
            (Layout::Spm, "<9>\n\nf()\n<8>def f():\n    ret<10>|u"),
            (Layout::SpmV2, "<8><9>\n\nf()\n<10>def f():\n    ret|u"),
        ] {
            model.fim.markers.as_mut().unwrap().layout = layout;
            let prompt = PromptBuilder::default().hole(&model, &hole, &[], 64, 0);
            assert_eq!(show(&prompt), format!("<6>a.py\n{expected}"));
        }
    }

    /// A model with this vocabulary of bytes and special tokens.
    fn bytes_model(added: &[&str], post_processor: &str) -> Model {
        let (mut model, _) = scripted("");
        model.tokenizer = byte_tokenizer(added, post_processor);
        model.fim = FimTemplate::resolve(&model.tokenizer, None, None).unwrap();
        model
    }

    fn built(model: &Model, input: Input) -> Prompt {
        let request = Request {
            input,
            parts: Vec::new(),
            scope: Scope::Text,
            limits: Limits {
                prompt: None,
                tokens: 8,
                time: None,
            },
            draws: Draws::GREEDY,
            priority: Priority::Keystroke,
            cancel: Cancel::default(),
            echo: false,
        };
        let room = Room {
            hole: 64,
            grown: 64,
            all: 128,
        };
        PromptBuilder::default()
            .build(model, &request, room)
            .unwrap()
    }

    #[test]
    fn without_markers_the_model_gets_what_is_before_the_hole() {
        let model = bytes_model(&["</s>"], "null");
        for (text, expected, healed) in [
            ("a = 1\nb = $0\nc = 3\n", "a = 1\nb =", " "),
            ("a = 1\n$0\nc = 3\n", "a = 1\n", ""),
            // After the end of another text.
            ("$0", "</s>", ""),
        ] {
            let prompt = built(&model, Input::Hole(hole(text)));
            assert_eq!(model.tokenizer.show(&prompt.ids), expected);
            assert_eq!(prompt.healed, healed.as_bytes());
            assert_eq!(prompt.end, [256]);
        }
    }

    #[test]
    fn a_prompt_begins_once_with_the_token_that_begins_texts() {
        let markers = [
            "<s>",
            "<fim_prefix>",
            "<fim_suffix>",
            "<fim_middle>",
            "<|endoftext|>",
        ];
        let chat = |question: &str| {
            Input::Chat(Chat {
                question: question.to_owned(),
                ..Chat::default()
            })
        };
        let continued = Input::Continue {
            file_name: "a.py".to_owned(),
            text: "x = 1\n".to_owned(),
        };
        for (input, expected) in [
            (
                Input::Hole(hole("x\n$0\ny")),
                "<fim_prefix>x\n<fim_suffix>\ny<fim_middle>",
            ),
            (
                Input::Hole(hole("$0")),
                "<fim_prefix><fim_suffix><fim_middle>",
            ),
            (continued, "x = 1\n"),
            // In a file it is text.
            (
                Input::Hole(hole("<s>\n$0")),
                "<fim_prefix><s>\n<fim_suffix><fim_middle>",
            ),
            (chat("Why?"), "## Question\n\nWhy?\n\n## Answer"),
        ] {
            let with = bytes_model(&markers, PUTS_BOS);
            let prompt = built(&with, input.clone());
            assert_eq!(with.tokenizer.show(&prompt.ids), format!("<s>{expected}"));
            assert_eq!(prompt.ids.iter().filter(|id| **id == 256).count(), 1);
            let without = bytes_model(&markers, "null");
            let prompt = built(&without, input);
            assert_eq!(without.tokenizer.show(&prompt.ids), expected);
        }
    }

    #[test]
    fn a_template_may_write_the_token_that_begins_texts() {
        let mut model = bytes_model(&["<s>", "</s>"], PUTS_BOS);
        for template in [
            "{{ bos_token }}{{ messages[1].content }}",
            "<s>{{ messages[1].content }}",
            "{{ messages[1].content }}",
        ] {
            model.chat = Some(ChatTemplate::of(template, &model.tokenizer, "</s>"));
            let question = Input::Chat(Chat {
                question: "<s>?".to_owned(),
                ..Chat::default()
            });
            let ids = built(&model, question).ids;
            assert_eq!(ids[0], 256);
            assert_eq!(model.tokenizer.show(&ids), "<s><s>?");
            assert_eq!(ids.iter().filter(|id| **id == 256).count(), 1);
        }
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let text = "é漢".repeat(3000);
        let mut hole = hole("$0");
        hole.prefix = text;
        let prompt = build(&hole, &[], 256);
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
