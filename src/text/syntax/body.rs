//! The body of a function or a type, in the tree of any grammar.

use std::ops::Range;

use tree_sitter::Node;

use super::node::is_comment;

/// The place of a body in the tree.
pub(super) struct Body<'t> {
    /// The node whose child it is.
    parent: Node<'t>,
    /// The node that it begins with: all of it, or only its brace.
    first: Node<'t>,
}

impl<'t> Body<'t> {
    pub(super) fn of(node: Node<'t>) -> Option<Self> {
        let body = Self::in_field(node).or_else(|| Self::in_type(node))?;
        (!body.range().is_empty()).then_some(body)
    }

    fn in_field(node: Node<'t>) -> Option<Self> {
        let first = node.child_by_field_name("body")?;
        // The fields of `struct Meters(f64);` count as part of its head.
        (first.kind() != "ordered_field_declaration_list").then_some(Self {
            parent: node,
            first,
        })
    }

    /// `typedef struct { … } Name`, `type Name struct { … }`
    fn in_type(node: Node<'t>) -> Option<Self> {
        let parent = match node.kind() {
            "type_definition" | "type_spec" => node.child_by_field_name("type")?,
            _ => return None,
        };
        let mut cursor = parent.walk();
        let first = parent.children(&mut cursor).find(|child| {
            matches!(
                child.kind(),
                "field_declaration_list" | "enumerator_list" | "{"
            )
        })?;
        Some(Self { parent, first })
    }

    pub(super) fn range(&self) -> Range<usize> {
        let end = match self.first.is_named() {
            true => self.first.end_byte(),
            false => self.parent.end_byte(),
        };
        self.first.start_byte()..end
    }

    /// The node whose children are the methods.
    pub(super) fn members(&self) -> Node<'t> {
        match self.first.is_named() {
            true => self.first,
            false => self.parent,
        }
    }

    /// Where the head before it ends, comments and initializers not counted.
    pub(super) fn head_end(&self) -> usize {
        let mut cursor = self.parent.walk();
        self.parent
            .children(&mut cursor)
            .take_while(|child| child.start_byte() < self.first.start_byte())
            .filter(|child| {
                let kind = child.kind();
                !is_comment(*child)
                    && !matches!(
                        kind,
                        "field_initializer_list" | "constructor_initializer" | ";"
                    )
            })
            .last()
            .map_or(self.first.start_byte(), |child| child.end_byte())
    }
}
