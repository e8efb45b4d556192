//! Cuts an item that does not parse where the next one begins.
//!
//! A bracket that is not closed swallows the functions and types after it. They begin on unindented
//! lines, as people write code, and parse by themselves.

use std::ops::Range;
use std::time::Instant;

use tree_sitter::Tree;

use super::{Item, TIME_LIMIT, parse, top_level};
use crate::text::language::Language;

/// The most lines of a text that are tried.
const MAX_TRIES: usize = 64;

/// `items` of `text`, with the broken ones cut.
pub(super) fn of(text: &str, language: Language, items: Vec<Item>) -> Vec<Item> {
    let mut pieces = Pieces {
        text,
        language,
        deadline: Instant::now() + TIME_LIMIT,
        tries: MAX_TRIES,
    };
    items
        .into_iter()
        .flat_map(|item| pieces.of_item(item))
        .collect()
}

struct Pieces<'a> {
    text: &'a str,
    language: Language,
    deadline: Instant,
    /// Lines that may still be tried.
    tries: usize,
}

impl Pieces<'_> {
    fn of_item(&mut self, item: Item) -> Vec<Item> {
        let range = item.range.clone();
        match self.parse(range.clone()) {
            Some(tree) if tree.root_node().has_error() => {}
            _ => return vec![item],
        }
        let mut cuts = Vec::new();
        let mut next = range.start;
        for line in unindented_lines(&self.text[range.clone()]) {
            let at = range.start + line;
            if at <= next || self.tries == 0 {
                continue;
            }
            self.tries -= 1;
            if let Some(length) = self.definition(at..range.end) {
                cuts.push(at);
                next = at + length - 1;
            }
        }
        if cuts.is_empty() {
            return vec![item];
        }
        cuts.push(range.end);
        let mut start = range.start;
        let mut items = Vec::new();
        for end in cuts {
            items.extend(self.items(start..end));
            start = end;
        }
        items
    }

    fn parse(&self, range: Range<usize>) -> Option<Tree> {
        parse(&self.text[range], self.language, self.deadline)
    }

    /// The items of a part of the text, at their places in all of it.
    fn items(&self, range: Range<usize>) -> Vec<Item> {
        let tree = self.parse(range.clone());
        let root = tree.as_ref().map(Tree::root_node);
        let mut items = top_level::of(&self.text[range.clone()], self.language, root);
        for item in &mut items {
            item.range = range.start + item.range.start..range.start + item.range.end;
        }
        items
    }

    /// The length of the function or type that the part of the text begins with, if that parses.
    fn definition(&self, range: Range<usize>) -> Option<usize> {
        let first = self.items(range).into_iter().next()?;
        let tree = self.parse(first.range.clone())?;
        let is_whole = first.signature.is_some() && !tree.root_node().has_error();
        is_whole.then_some(first.range.len())
    }
}

/// The offsets of lines that are neither blank nor indented, and do not close a bracket.
fn unindented_lines(text: &str) -> impl Iterator<Item = usize> {
    let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1));
    starts.filter(|&at| {
        let first = text[at..].chars().next();
        first.is_some_and(|first| !first.is_whitespace() && !matches!(first, ')' | ']' | '}'))
    })
}
