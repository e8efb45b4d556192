//! Cuts a text into the items at its top level.

use tree_sitter::Node;

use super::definition::Definition;
use super::node::{is_comment, is_lead, is_transparent};
use super::{Item, ItemKind, begins_line, has_blank_line, line_start};
use crate::text::language::Language;

/// Nested blocks that count as top level are opened up to this depth.
const MAX_DEPTH: usize = 16;

/// An item in the making.
struct Group<'t> {
    start: usize,
    /// Its end, without the blanks after it.
    end: usize,
    kind: ItemKind,
    definition: Option<Definition<'t>>,
}

/// The items of `text`, or a single item if there is no tree.
pub(super) fn of(text: &str, language: Language, root: Option<Node<'_>>) -> Vec<Item> {
    let mut nodes = Vec::new();
    if let Some(root) = root {
        flatten(root, language, 0, &mut nodes);
    }
    let mut groups = group(text, language, &nodes);
    if groups.is_empty() && !text.is_empty() {
        groups.push(Group::other(0, text.len()));
    }
    let mut items: Vec<Item> = Vec::new();
    for group in groups {
        let start = match items.last_mut() {
            Some(last) => {
                last.range.end = line_start(text, group.start);
                last.range.end
            }
            None => 0,
        };
        items.push(Item {
            range: start..text.len(),
            kind: group.kind,
            name: group.definition.and_then(|it| it.name(text)),
            signature: group.definition.map(|it| it.signature(text)),
        });
    }
    items
}

/// The nodes at the top level, including those in transparent blocks.
fn flatten<'t>(node: Node<'t>, language: Language, depth: usize, nodes: &mut Vec<Node<'t>>) {
    let mut cursor = node.walk();
    for child in node.children(&mut cursor) {
        if depth < MAX_DEPTH && is_transparent(child, language) && child.child_count() > 0 {
            flatten(child, language, depth + 1, nodes);
        } else if !child.byte_range().is_empty() {
            nodes.push(child);
        }
    }
}

fn group<'t>(text: &str, language: Language, nodes: &[Node<'t>]) -> Vec<Group<'t>> {
    let mut groups: Vec<Group<'t>> = Vec::new();
    // Comments and attributes that wait for what follows them.
    let mut lead: Option<Group<'t>> = None;
    for &node in nodes {
        // Some grammars include the end of the line in a comment or a directive.
        let end = node.start_byte() + text[node.byte_range()].trim_end().len();
        if lead.is_none()
            && let Some(last) = groups.last_mut()
            && trails(text, language, node)
        {
            last.end = end;
            continue;
        }
        let mut start = node.start_byte();
        if let Some(before) = lead.take() {
            match before.touches(text, start) {
                true => start = before.start,
                false => push(text, &mut groups, before),
            }
        }
        if is_lead(node) {
            lead = Some(Group::other(start, end));
            continue;
        }
        let definition = Definition::of(node, language);
        let kind = match definition {
            Some(definition) => definition.kind,
            None if is_import(text, node) => ItemKind::Imports,
            None => ItemKind::Other,
        };
        let next = Group {
            start,
            end,
            kind,
            definition,
        };
        push(text, &mut groups, next);
    }
    if let Some(lead) = lead {
        push(text, &mut groups, lead);
    }
    groups
}

impl Group<'_> {
    const fn other(start: usize, end: usize) -> Self {
        Self {
            start,
            end,
            kind: ItemKind::Other,
            definition: None,
        }
    }

    /// Whether what begins at `next` follows without a blank line.
    fn touches(&self, text: &str, next: usize) -> bool {
        !text.get(self.end..next).is_some_and(has_blank_line)
    }
}

/// Adds `next`, merged into the last group if they belong together.
fn push<'t>(text: &str, groups: &mut Vec<Group<'t>>, next: Group<'t>) {
    let last = groups
        .last_mut()
        .filter(|last| match (last.kind, next.kind) {
            (ItemKind::Imports, ItemKind::Imports) => true,
            (ItemKind::Other, ItemKind::Other) => last.touches(text, next.start),
            _ => false,
        });
    match last {
        Some(last) => last.end = next.end,
        None => groups.push(next),
    }
}

/// Whether `node` belongs to what comes before it: a semicolon, a comment on the same line, or in
/// Python an indented comment.
fn trails(text: &str, language: Language, node: Node<'_>) -> bool {
    let start = node.start_byte();
    match node.kind() {
        ";" => true,
        _ if !is_comment(node) => false,
        _ if !begins_line(text, start) => true,
        _ => language == Language::Python && line_start(text, start) < start,
    }
}

fn is_import(text: &str, node: Node<'_>) -> bool {
    match node.kind() {
        "import_statement"
        | "import_from_statement"
        | "future_import_statement"
        | "use_declaration"
        | "extern_crate_declaration"
        | "mod_item"
        | "package_clause"
        | "import_declaration"
        | "package_declaration"
        | "preproc_include"
        | "using_directive"
        | "using_declaration"
        | "extern_alias_directive" => true,
        // const path = require('path');
        "lexical_declaration" | "variable_declaration" => node
            .named_child(0)
            .and_then(|declarator| declarator.child_by_field_name("value"))
            .and_then(|value| value.child_by_field_name("function"))
            .is_some_and(|function| &text[function.byte_range()] == "require"),
        // Ruby imports by a call.
        "call" => node.child_by_field_name("method").is_some_and(|method| {
            matches!(&text[method.byte_range()], "require" | "require_relative")
        }),
        _ => false,
    }
}
