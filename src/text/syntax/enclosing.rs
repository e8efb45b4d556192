//! The function or type around a place in the text.

use std::ops::Range;

use tree_sitter::Node;

use super::definition::Definition;
use super::node::{is_comment, is_lead};
use super::{ItemKind, begins_line, has_blank_line, line_start};
use crate::text::language::Language;

/// A function or a type, at any depth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enclosing {
    /// [`ItemKind::Function`] or [`ItemKind::Type`].
    pub kind: ItemKind,
    /// Its name.
    pub name: Option<String>,
    /// Its range, in bytes: from the start of its line, or of the comments and attributes above it,
    /// to its last character.
    pub range: Range<usize>,
    /// The blanks before it on its line.
    pub indentation: String,
    /// As in [`Item`](super::Item).
    pub signature: String,
    /// The range of its body, in bytes: with its braces if it has any, else from its first
    /// statement on.
    pub body: Option<Range<usize>>,
    /// Whether it has a docstring, or a doc comment above it.
    pub documented: bool,
}

/// What was found on the way down the tree.
struct Found<'t> {
    definition: Definition<'t>,
    range: Range<usize>,
    documented: bool,
}

/// Comments and attributes in a row.
struct Lead {
    start: usize,
    /// Where what they belong to begins.
    target: usize,
    documents: bool,
}

/// The innermost function or type around `offset`.
pub(super) fn at(
    text: &str,
    language: Language,
    root: Node<'_>,
    offset: usize,
) -> Option<Enclosing> {
    let mut found: Option<Found<'_>> = None;
    let mut lead: Option<Lead> = None;
    let mut cursor = root.walk();
    loop {
        let node = cursor.node();
        if is_lead(node) {
            lead = Lead::with(lead, text, language, node);
        } else {
            let above = lead.as_ref().filter(|it| it.target == node.start_byte());
            let start = above.map_or(node.start_byte(), |it| it.start);
            let range = line_start(text, start)..node.end_byte();
            if contains(text, &range, offset) {
                if let Some(definition) = Definition::of(node, language)
                    && !found
                        .as_ref()
                        .is_some_and(|it| it.rules_out(node, &definition))
                {
                    found = Some(Found {
                        definition,
                        range,
                        documented: above.is_some_and(|it| it.documents),
                    });
                }
                if cursor.goto_first_child() {
                    continue;
                }
            }
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return Some(found?.enclosing(text, language));
            }
        }
    }
}

impl Found<'_> {
    fn rules_out(&self, node: Node<'_>, other: &Definition<'_>) -> bool {
        // A decorated definition is not found again without its decorator.
        self.definition.inner == other.inner
            // `Shape shape(name);` in a function looks like the declaration of one.
            || (self.definition.kind == ItemKind::Function && node.kind() == "declaration")
    }

    fn enclosing(self, text: &str, language: Language) -> Enclosing {
        let Self {
            definition,
            range,
            documented,
        } = self;
        let own = &text[range.clone()];
        let code = own.trim_start_matches([' ', '\t']);
        Enclosing {
            kind: definition.kind,
            name: definition.name(text),
            indentation: own[..own.len() - code.len()].to_owned(),
            signature: definition.signature(text),
            body: definition.body(),
            documented: match language {
                Language::Python => definition.has_docstring(),
                _ => documented,
            },
            range,
        }
    }
}

/// Whether `offset` is in `range`, or after it with only blanks, `;` or `,` between.
fn contains(text: &str, range: &Range<usize>, offset: usize) -> bool {
    let blank = |char| matches!(char, ' ' | '\t' | ';' | ',');
    range.start <= offset
        && (offset <= range.end
            || text
                .get(range.end..offset)
                .is_some_and(|between| between.chars().all(blank)))
}

impl Lead {
    /// `before`, if there is one and `node` follows it, extended by `node`.
    fn with(before: Option<Self>, text: &str, language: Language, node: Node<'_>) -> Option<Self> {
        let start = node.start_byte();
        let before = before.filter(|lead| lead.target == start);
        if before.is_none() && !begins_line(text, start) {
            return None;
        }
        let own = &text[node.byte_range()];
        let end = start + own.trim_end().len();
        let rest = &text[end..];
        let gap = &rest[..rest.len() - rest.trim_start().len()];
        let documents = documents(own, language, node);
        (!has_blank_line(gap)).then(|| Self {
            start: before.as_ref().map_or(start, |lead| lead.start),
            target: end + gap.len(),
            documents: documents || before.is_some_and(|lead| lead.documents),
        })
    }
}

/// Whether a comment or an attribute is documentation. Some languages have no marker for that.
fn documents(own: &str, language: Language, node: Node<'_>) -> bool {
    let begins = |marks: &[&str]| marks.iter().any(|mark| own.starts_with(mark));
    match language {
        Language::Rust => begins(&["///", "/**", "#[doc"]),
        Language::CSharp => begins(&["///", "/**"]),
        Language::Java | Language::JavaScript | Language::TypeScript => begins(&["/**"]),
        Language::Go | Language::C | Language::Cpp | Language::Ruby => is_comment(node),
        Language::Python => false,
    }
}
