//! Functions and types in the tree of any grammar: their kind, name, head and body.

use std::ops::Range;

use tree_sitter::Node;

use super::ItemKind;
use super::body::Body;
use super::node::{is_comment, is_lead, is_transparent};
use crate::text::language::Language;

/// The most wrappers around a definition (export, declare, template, decorator): real code has
/// fewer.
const MAX_WRAPPERS: usize = 6;

/// Methods of nested types are listed down to this depth.
const MAX_DEPTH: usize = 3;

/// The most lines of a type's signature.
const MAX_LINES: usize = 100;

/// A function or a type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Definition<'t> {
    pub(super) kind: ItemKind,
    /// The node with what is wrapped around it: `export`, `template <class T>`, decorators.
    outer: Node<'t>,
    /// The node that has the body.
    pub(super) inner: Node<'t>,
    name: Option<Node<'t>>,
    language: Language,
}

impl<'t> Definition<'t> {
    /// What `node` defines.
    pub(super) fn of(node: Node<'t>, language: Language) -> Option<Self> {
        let mut inner = node;
        let mut name = None;
        for _ in 0..MAX_WRAPPERS {
            if let Some(kind) = kind(inner, name.is_some(), language) {
                return Some(Self {
                    kind,
                    outer: node,
                    inner,
                    name: name.or_else(|| declared_name(inner)),
                    language,
                });
            }
            (inner, name) = unwrap(inner)?;
        }
        None
    }

    pub(super) fn name(&self, text: &str) -> Option<String> {
        Some(text[self.name?.byte_range()].to_owned())
    }

    /// Its head, and for a type those of its methods.
    pub(super) fn signature(&self, text: &str) -> String {
        let mut lines = vec![self.head(text).to_owned()];
        self.add_methods(text, 1, &mut lines);
        lines.join("\n")
    }

    fn head<'a>(&self, text: &'a str) -> &'a str {
        let start = head_start(self.outer);
        let end = match (Body::of(self.inner), self.language) {
            (Some(body), _) => body.head_end(),
            // Without a body, `end` comes next.
            (None, Language::Ruby) => ["superclass", "parameters", "name", "value"]
                .iter()
                .filter_map(|field| self.inner.child_by_field_name(field))
                .map(|child| child.end_byte())
                .max()
                .unwrap_or(start),
            (None, _) => self.outer.end_byte(),
        };
        let head = text[start..end.max(start)].trim_end_matches([';', ' ', '\t', '\r', '\n']);
        match self.language {
            // def twice(x) = x * 2
            Language::Ruby => head.strip_suffix(" =").unwrap_or(head),
            _ => head,
        }
    }

    /// The range of its body, in bytes: with its braces, or from its first statement on.
    pub(super) fn body(&self) -> Option<Range<usize>> {
        Body::of(self.inner).map(|body| body.range())
    }

    fn add_methods(&self, text: &str, depth: usize, lines: &mut Vec<String>) {
        if self.kind != ItemKind::Type || depth > MAX_DEPTH {
            return;
        }
        let Some(body) = Body::of(self.inner) else {
            return;
        };
        let mut open = vec![body.members()];
        while let Some(node) = open.pop() {
            let mut cursor = node.walk();
            let mut inside = Vec::new();
            for child in node.named_children(&mut cursor) {
                if lines.len() == MAX_LINES {
                    return;
                }
                if let Some(member) = Self::of(child, self.language) {
                    lines.push(format!("{}{}", "    ".repeat(depth), member.head(text)));
                    member.add_methods(text, depth + 1, lines);
                } else if is_transparent(child, self.language) {
                    inside.push(child);
                }
            }
            inside.reverse();
            open.append(&mut inside);
        }
    }

    /// Whether its body begins with a docstring.
    pub(super) fn has_docstring(&self) -> bool {
        let Some(body) = self.inner.child_by_field_name("body") else {
            return false;
        };
        let mut cursor = body.walk();
        let first = body
            .named_children(&mut cursor)
            .find(|child| !is_comment(*child));
        first
            .filter(|first| first.kind() == "expression_statement")
            .and_then(|first| first.named_child(0))
            .is_some_and(|first| matches!(first.kind(), "string" | "concatenated_string"))
    }
}

/// The kind of a node by itself. Some nodes count only if they were given a name.
fn kind(node: Node<'_>, named: bool, language: Language) -> Option<ItemKind> {
    use Language::{C, Cpp, Go, JavaScript, Ruby, Rust, TypeScript};
    if !node.is_named() {
        return None;
    }
    let has_body = || node.child_by_field_name("body").is_some();
    match (node.kind(), language) {
        ("declaration" | "field_declaration", C | Cpp) if declares_function(node) => {
            Some(ItemKind::Function)
        }
        (
            "arrow_function" | "function_expression" | "generator_function",
            JavaScript | TypeScript,
        ) if named => Some(ItemKind::Function),
        (
            "function_definition"
            | "function_declaration"
            | "generator_function_declaration"
            | "function_signature"
            | "function_item"
            | "function_signature_item"
            | "method_declaration"
            | "constructor_declaration"
            | "compact_constructor_declaration"
            | "destructor_declaration"
            | "operator_declaration"
            | "conversion_operator_declaration"
            | "local_function_statement"
            | "method_definition"
            | "method_signature"
            | "abstract_method_signature"
            | "method_elem",
            _,
        )
        | ("method" | "singleton_method", Ruby) => Some(ItemKind::Function),
        ("class", JavaScript | TypeScript) if named => Some(ItemKind::Type),
        ("mod_item", Rust) if !has_body() => None,
        (
            "struct_specifier" | "union_specifier" | "enum_specifier" | "class_specifier",
            C | Cpp,
        ) if !has_body() => None,
        (
            "class_definition"
            | "class_declaration"
            | "abstract_class_declaration"
            | "interface_declaration"
            | "type_alias_declaration"
            | "enum_declaration"
            | "internal_module"
            | "struct_item"
            | "enum_item"
            | "union_item"
            | "trait_item"
            | "impl_item"
            | "mod_item"
            | "type_item"
            | "record_declaration"
            | "annotation_type_declaration"
            | "struct_declaration"
            | "delegate_declaration"
            | "struct_specifier"
            | "union_specifier"
            | "enum_specifier"
            | "class_specifier"
            | "type_definition"
            | "alias_declaration"
            | "concept_definition",
            _,
        )
        | ("type_spec" | "type_alias", Go)
        | ("module", TypeScript | Ruby)
        | ("class" | "singleton_class", Ruby) => Some(ItemKind::Type),
        _ => None,
    }
}

/// The definition inside a statement that gives it a name, a keyword or a decorator; and the name.
fn unwrap(node: Node<'_>) -> Option<(Node<'_>, Option<Node<'_>>)> {
    let field = |name| node.child_by_field_name(name);
    let mut cursor = node.walk();
    match node.kind() {
        "decorated_definition" => Some((field("definition")?, None)),
        "export_statement" => Some((field("declaration").or_else(|| field("value"))?, None)),
        "template_declaration" | "ambient_declaration" | "global_statement" => {
            Some((node.named_children(&mut cursor).last()?, None))
        }
        "type_declaration" => Some((node.named_child(0)?, None)),
        "expression_statement" => {
            let inside = node.named_child(0)?;
            matches!(inside.kind(), "internal_module" | "assignment_expression")
                .then_some((inside, None))
        }
        "assignment_expression" => {
            let left = field("left")?;
            let name = left.child_by_field_name("property").unwrap_or(left);
            Some((field("right")?, Some(name)))
        }
        "lexical_declaration" | "variable_declaration" => {
            let inside = node.named_child(0)?;
            let name = inside.child_by_field_name("name");
            Some((inside.child_by_field_name("value")?, name))
        }
        "public_field_definition" | "field_definition" => {
            let name = field("name").or_else(|| field("property"));
            Some((field("value")?, name))
        }
        _ => None,
    }
}

/// Where the head begins: after attributes and decorators.
fn head_start(node: Node<'_>) -> usize {
    let is_attribute = |node: &Node<'_>| {
        is_lead(*node)
            || matches!(
                node.kind(),
                "attribute_list" | "attribute_declaration" | "annotation" | "marker_annotation"
            )
    };
    let mut cursor = node.walk();
    for child in node.children(&mut cursor) {
        if child.kind() == "modifiers" {
            let mut cursor = child.walk();
            let mut modifiers = child.children(&mut cursor);
            if let Some(modifier) = modifiers.find(|modifier| !is_attribute(modifier)) {
                return modifier.start_byte();
            }
        } else if !is_attribute(&child) {
            return child.start_byte();
        }
    }
    node.start_byte()
}

/// `int *f(void);`, and not `int (*f)(void);`.
fn declares_function(node: Node<'_>) -> bool {
    let mut inside = node.child_by_field_name("declarator");
    while let Some(declarator) = inside {
        match declarator.kind() {
            "function_declarator" => {
                return declarator
                    .child_by_field_name("declarator")
                    .is_some_and(|name| name.kind() != "parenthesized_declarator");
            }
            "pointer_declarator" | "reference_declarator" => inside = inner_declarator(declarator),
            _ => return false,
        }
    }
    false
}

fn inner_declarator(node: Node<'_>) -> Option<Node<'_>> {
    match node.kind() {
        "reference_declarator" | "parenthesized_declarator" => node.named_child(0),
        _ => node.child_by_field_name("declarator"),
    }
}

fn declared_name(node: Node<'_>) -> Option<Node<'_>> {
    if let Some(name) = node.child_by_field_name("name") {
        return Some(name);
    }
    if node.kind() == "impl_item" {
        let of = node.child_by_field_name("type")?;
        return Some(of.child_by_field_name("type").unwrap_or(of));
    }
    let mut name = node.child_by_field_name("declarator")?;
    while let Some(inside) = inner_declarator(name) {
        name = inside;
    }
    Some(name)
}
