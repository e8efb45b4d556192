//! What a text is made of: its functions and types, and its syntax errors.
//!
//! A grammar is not a compiler: a text without errors here may still not compile, and C or C++ that
//! relies on macros may show errors and be correct. So compare a text's errors with those it had
//! before.

mod body;
mod definition;
mod enclosing;
mod error;
mod node;
mod recovery;
#[cfg(test)]
mod tests;
mod top_level;

use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use tree_sitter::{ParseOptions, Parser, Tree};

pub use self::enclosing::Enclosing;
pub use self::error::SyntaxError;
use crate::text::language::Language;

/// Texts above this, in bytes, are not parsed: they are not handwritten.
const MAX_BYTES: usize = 1 << 20;

/// Some texts take a parser minutes, some of them on purpose.
const TIME_LIMIT: Duration = Duration::from_secs(1);

/// Texts with brackets nested deeper than this are not parsed. The parser frees its memory
/// recursively, so that a hundred thousand overflow the stack, and ten thousand may take seconds in
/// which it never checks the time.
const MAX_NESTING: usize = 1000;

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its range, in bytes. It begins at the start of a line where it can, and ends where the next
    /// item begins: blank lines belong to the item before them.
    pub range: Range<usize>,
    /// Its kind.
    pub kind: ItemKind,
    /// The name of a function or a type.
    pub name: Option<String>,
    /// The head of a function or a type as it is written, without the comments and attributes above
    /// it. A type's head is followed by those of its methods, one a line and indented by four
    /// spaces.
    pub signature: Option<String>,
}

/// What a piece of a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// Imports, uses or includes, and the package's name.
    Imports,
    /// A function or a method, or only its declaration.
    Function,
    /// A class, struct, enum, interface, trait, implementation or module.
    Type,
    /// Statements, constants, standalone comments.
    Other,
}

/// Why nothing is known about a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GaveUp {
    /// Parsing is not worth trying.
    #[error("the text is larger than {} MiB", MAX_BYTES >> 20)]
    TooLarge,
    /// The parser might not survive it.
    #[error("more than {MAX_NESTING} brackets are open at once")]
    TooDeep,
    /// The parser did not finish in time.
    #[error("parsing takes longer than {} s", TIME_LIMIT.as_secs())]
    TooSlow,
}

/// A parsed text, for asking more than one thing about it.
#[derive(Clone, Debug)]
pub struct Parsed<'a> {
    text: &'a str,
    language: Language,
    tree: Result<Tree, GaveUp>,
}

impl<'a> Parsed<'a> {
    /// Parses `text`, within a second. A text that cannot be parsed is one item without errors; see
    /// [`Self::gave_up`].
    #[must_use]
    pub fn new(text: &'a str, language: Language) -> Self {
        Self::within(TIME_LIMIT, text, language)
    }

    fn within(limit: Duration, text: &'a str, language: Language) -> Self {
        let tree = if text.len() > MAX_BYTES {
            Err(GaveUp::TooLarge)
        } else if nesting(text) > MAX_NESTING {
            Err(GaveUp::TooDeep)
        } else {
            parse(text, language, Instant::now() + limit).ok_or(GaveUp::TooSlow)
        };
        Self {
            text,
            language,
            tree,
        }
    }

    /// Why nothing is known about the text, if so.
    #[must_use]
    pub fn gave_up(&self) -> Option<GaveUp> {
        self.tree.as_ref().err().copied()
    }

    /// See [`items`].
    #[must_use]
    pub fn items(&self) -> Vec<Item> {
        let root = self.tree.as_ref().ok().map(Tree::root_node);
        let items = top_level::of(self.text, self.language, root);
        match root.is_some_and(|root| root.has_error()) {
            true => recovery::of(self.text, self.language, items),
            false => items,
        }
    }

    /// See [`errors`].
    #[must_use]
    pub fn errors(&self) -> Vec<SyntaxError> {
        match &self.tree {
            Ok(tree) => error::all(self.text, tree.root_node()),
            Err(_) => Vec::new(),
        }
    }

    /// The innermost function or type around `offset`, in bytes. The comments and attributes above
    /// it belong to it, and so does the rest of its last line.
    #[must_use]
    pub fn item_at(&self, offset: usize) -> Option<Enclosing> {
        let root = self.tree.as_ref().ok()?.root_node();
        enclosing::at(self.text, self.language, root, offset)
    }
}

/// The items at the top level of a text, in order. Each byte belongs to exactly one.
///
/// Comments, attributes and decorators go with what follows them on the next line. Imports in a row
/// are one item, and so are other statements with no blank line between them. What is in a C++ or
/// C# namespace, between `#if` and `#endif`, in `extern "C"` or in a group of Go types counts as
/// top level, because such blocks wrap whole files. A function or a type that does not parse ends
/// where an unindented line begins one that does.
#[must_use]
pub fn items(text: &str, language: Language) -> Vec<Item> {
    Parsed::new(text, language).items()
}

/// What does not parse, in order: the first twenty places.
#[must_use]
pub fn errors(text: &str, language: Language) -> Vec<SyntaxError> {
    Parsed::new(text, language).errors()
}

fn parse(text: &str, language: Language, deadline: Instant) -> Option<Tree> {
    let tree = parse_with(&grammar(language), text, deadline)?;
    // `<T>value` is a cast in TypeScript and an element in TSX, so each has a grammar.
    if language == Language::TypeScript && tree.root_node().has_error() {
        let tsx = tree_sitter_typescript::LANGUAGE_TSX.into();
        let tsx = parse_with(&tsx, text, deadline)?;
        if error::all(text, tsx.root_node()).len() < error::all(text, tree.root_node()).len() {
            return Some(tsx);
        }
    }
    Some(tree)
}

fn parse_with(grammar: &tree_sitter::Language, text: &str, deadline: Instant) -> Option<Tree> {
    let mut parser = Parser::new();
    parser
        .set_language(grammar)
        .expect("a test loads each grammar");
    let mut watch = |_: &_| match Instant::now() < deadline {
        true => ControlFlow::Continue(()),
        false => ControlFlow::Break(()),
    };
    parser.parse_with_options(
        &mut |offset, _| &text.as_bytes()[offset.min(text.len())..],
        None,
        Some(ParseOptions::new().progress_callback(&mut watch)),
    )
}

fn grammar(language: Language) -> tree_sitter::Language {
    match language {
        Language::Python => tree_sitter_python::LANGUAGE,
        Language::JavaScript => tree_sitter_javascript::LANGUAGE,
        Language::TypeScript => tree_sitter_typescript::LANGUAGE_TYPESCRIPT,
        Language::Rust => tree_sitter_rust::LANGUAGE,
        Language::Go => tree_sitter_go::LANGUAGE,
        Language::Java => tree_sitter_java::LANGUAGE,
        Language::C => tree_sitter_c::LANGUAGE,
        Language::Cpp => tree_sitter_cpp::LANGUAGE,
        Language::CSharp => tree_sitter_c_sharp::LANGUAGE,
        Language::Ruby => tree_sitter_ruby::LANGUAGE,
    }
    .into()
}

/// The most brackets open at once, including those in strings and comments.
fn nesting(text: &str) -> usize {
    let mut open: usize = 0;
    let mut most = 0;
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

/// Where the line of `offset` begins, if only blanks are between; else `offset`.
fn line_start(text: &str, offset: usize) -> usize {
    let before = text[..offset].trim_end_matches([' ', '\t', '\u{feff}']);
    match before.is_empty() || before.ends_with(['\n', '\r']) {
        true => before.len(),
        false => offset,
    }
}

/// Whether only blanks are before `offset` on its line.
fn begins_line(text: &str, offset: usize) -> bool {
    let start = line_start(text, offset);
    start == 0 || text[..start].ends_with(['\n', '\r'])
}

/// Whether there is an empty line in `gap`, which begins at the end of a line's text.
fn has_blank_line(gap: &str) -> bool {
    gap.replace("\r\n", "\n")
        .matches(['\n', '\r'])
        .nth(1)
        .is_some()
}
