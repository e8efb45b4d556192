//! Where a text does not parse.

use tree_sitter::Node;

/// The most errors that are reported: one mistake often shows in many places.
const MAX_ERRORS: usize = 20;

/// The most characters of the text that a message quotes.
const MAX_QUOTE: usize = 40;

/// A place that does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct SyntaxError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong: "missing `)`".
    pub message: String,
}

/// The outermost places, in order.
pub(super) fn all(text: &str, root: Node<'_>) -> Vec<SyntaxError> {
    let mut errors = Vec::new();
    let mut cursor = root.walk();
    loop {
        let node = cursor.node();
        let whole = node == root && has_inner_error(root);
        if !whole && let Some(error) = error(text, node) {
            errors.push(error);
            if errors.len() == MAX_ERRORS {
                return errors;
            }
        } else if node.has_error() && cursor.goto_first_child() {
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return errors;
            }
        }
    }
}

/// When nothing parses, the whole file is one error, and only the errors inside it say where.
fn has_inner_error(root: Node<'_>) -> bool {
    let mut cursor = root.walk();
    root.children(&mut cursor).any(|child| child.has_error())
}

fn error(text: &str, node: Node<'_>) -> Option<SyntaxError> {
    if node.is_missing() {
        // The C preprocessor may cut through any block: `#ifdef __cplusplus` does.
        return (node.kind() != "#endif").then(|| at(text, node, missing(node)));
    }
    if !node.is_error() {
        return None;
    }
    let quote = text[node.byte_range()].trim();
    if quote.lines().nth(1).is_some()
        && let Some(opener) = unclosed(node)
    {
        let message = format!("`{}` is not closed", opener.kind());
        return Some(at(text, opener, message));
    }
    let line = quote.lines().next().unwrap_or_default();
    let message = match line.char_indices().nth(MAX_QUOTE) {
        Some((end, _)) => format!("unexpected `{}…`", &line[..end]),
        None if line.is_empty() => "unexpected end".to_owned(),
        None => format!("unexpected `{line}`"),
    };
    Some(at(text, node, message))
}

fn missing(node: Node<'_>) -> String {
    let kind = node.kind();
    match node.is_named() || kind.starts_with('_') {
        true => format!("missing {}", kind.trim_matches('_').replace('_', " ")),
        false => format!("missing `{kind}`"),
    }
}

/// The last unclosed bracket in an error.
fn unclosed(error: Node<'_>) -> Option<Node<'_>> {
    let mut cursor = error.walk();
    let mut open = Vec::new();
    for child in error.children(&mut cursor) {
        match child.kind() {
            "(" | "[" | "{" => open.push(child),
            ")" | "]" | "}" => drop(open.pop()),
            _ => {}
        }
    }
    open.pop()
}

fn at(text: &str, node: Node<'_>, message: String) -> SyntaxError {
    // An error may begin with the blanks before it.
    let own = &text[node.byte_range()];
    let blanks = match own.trim_start() {
        "" => 0,
        code => own.len() - code.len(),
    };
    let before = &text[..node.start_byte() + blanks];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    SyntaxError {
        line: before.bytes().filter(|&byte| byte == b'\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message,
    }
}
