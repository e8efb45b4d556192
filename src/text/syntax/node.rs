//! What nodes have in common across grammars.

use tree_sitter::Node;

use crate::text::language::Language;

/// Whether it is a comment.
pub(super) fn is_comment(node: Node<'_>) -> bool {
    matches!(node.kind(), "comment" | "line_comment" | "block_comment")
}

/// Whether it comes before a definition and belongs to it.
pub(super) fn is_lead(node: Node<'_>) -> bool {
    is_comment(node) || matches!(node.kind(), "attribute_item" | "decorator")
}

/// Whether its contents count as if they were outside it: blocks that wrap whole files, and errors.
pub(super) fn is_transparent(node: Node<'_>, language: Language) -> bool {
    use Language::{C, CSharp, Cpp, Go, Java};
    match (node.kind(), language) {
        ("ERROR", _)
        | (
            "preproc_if"
            | "preproc_ifdef"
            | "preproc_else"
            | "preproc_elif"
            | "preproc_elifdef"
            | "linkage_specification"
            | "namespace_definition"
            | "namespace_declaration"
            | "declaration_list",
            C | Cpp | CSharp,
        )
        | ("enum_body_declarations", Java) => true,
        ("type_declaration", Go) => {
            let mut cursor = node.walk();
            node.children(&mut cursor).any(|child| child.kind() == "(")
        }
        _ => false,
    }
}
