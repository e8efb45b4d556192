//! Takes out of an answer what was asked for, and what that needs.
//!
//! A model that is asked for one function likes to write a whole program: its imports, helpers, the
//! function, a `main` and examples.

use crate::text::language::Language;
use crate::text::syntax::{Item, ItemKind, Parsed};

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted<'a> {
    /// A function, a type, or with [`ItemKind::Other`] statements.
    pub(super) kind: ItemKind,
    /// The name of the function or type, perhaps by the conventions of another language.
    pub(super) name: Option<&'a str>,
    /// Names of what is written elsewhere.
    pub(super) elsewhere: &'a [&'a str],
}

/// The part of an answer that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Excerpt {
    /// The imports, each a statement; in Go with its package clause.
    pub(super) imports: Vec<String>,
    /// The code without them.
    pub(super) code: String,
    /// The signatures of its functions and types.
    pub(super) signatures: Vec<String>,
    /// The names of the functions and types that were left out.
    pub(super) left_out: Vec<String>,
    /// Whether the end of the answer is kept.
    pub(super) ends_answer: bool,
}

impl Wanted<'_> {
    /// The part of `answer`, code in `language`, that was asked for. If nothing in it looks like
    /// that, all of it.
    pub(super) fn excerpt(&self, answer: &str, language: Language) -> Excerpt {
        let items = Parsed::new(answer, language).items();
        let text = |item: &Item| &answer[item.range.clone()];
        let mut kept: Vec<bool> = items.iter().map(|item| self.is(item)).collect();
        if !kept.contains(&true) {
            let first = items.iter().position(|item| self.may_be(item));
            match first {
                Some(first) => kept[first] = true,
                None => kept.fill(true),
            }
        }
        // What the kept code names is kept too, until nothing is added.
        while let Some(needed) = items.iter().enumerate().position(|(index, item)| {
            let before = kept[index + 1..].contains(&true);
            let is_used = |name: &str| {
                let mut code = items.iter().zip(&kept);
                code.any(|(item, kept)| *kept && mentions(text(item), name))
            };
            !kept[index]
                && match (item.kind, &item.name) {
                    (ItemKind::Imports, _) => false,
                    (ItemKind::Other, _) => before && constant_names(text(item)).any(is_used),
                    (_, Some(name)) => !self.is_elsewhere(name) && is_used(name),
                    (_, None) => false,
                }
        }) {
            kept[needed] = true;
        }
        let mut excerpt = Excerpt {
            ends_answer: kept.last() == Some(&true),
            ..Excerpt::default()
        };
        for (item, kept) in items.iter().zip(kept) {
            if item.kind == ItemKind::Imports {
                excerpt.imports.extend(statements(text(item), language));
            } else if kept {
                excerpt.code.push_str(text(item));
                excerpt.signatures.extend(item.signature.clone());
            } else if let Some(name) = &item.name
                && !excerpt.left_out.contains(name)
            {
                excerpt.left_out.push(name.clone());
            }
        }
        excerpt.code = excerpt.code.trim_matches('\n').trim_end().to_owned();
        excerpt
    }

    /// Whether `so_far`, the beginning of an answer, has all that was asked for, and goes on with
    /// something else.
    pub(super) fn is_written(&self, so_far: &str, language: Language) -> bool {
        let Some((whole, last)) = last_unindented_line(so_far) else {
            return false;
        };
        let parsed = Parsed::new(whole, language);
        let items = parsed.items();
        if !items.iter().any(|item| self.is(item)) || !parsed.errors().is_empty() {
            return false;
        }
        let is_comment = last.starts_with(['#', '@', '/', '*', '[']);
        match self.kind {
            ItemKind::Function => !is_comment,
            // Its methods may come after it.
            ItemKind::Type => words(last).any(|word| self.is_elsewhere(word)),
            ItemKind::Other | ItemKind::Imports => false,
        }
    }

    /// Whether it is certainly what was asked for, or a part of that.
    fn is(&self, item: &Item) -> bool {
        let same = |name: &str| self.name.is_some_and(|wanted| fold(wanted) == fold(name));
        let named = item.name.as_deref().is_some_and(same);
        let signature = item.signature.as_deref().unwrap_or_default();
        match (self.kind, item.kind) {
            (ItemKind::Function, ItemKind::Function) | (ItemKind::Type, ItemKind::Type) => named,
            // Some languages have no function outside a class.
            (ItemKind::Function, ItemKind::Type) => {
                let methods = signature.split_once('\n').map(|(_, methods)| methods);
                words(methods.unwrap_or_default()).any(same)
            }
            // Some languages have methods outside their type.
            (ItemKind::Type, ItemKind::Function) => {
                self.may_be_named(item) && words(signature).any(same)
            }
            (ItemKind::Other, ItemKind::Other) => true,
            _ => false,
        }
    }

    /// Whether it could be what was asked for, by another name.
    fn may_be(&self, item: &Item) -> bool {
        item.kind == self.kind && self.may_be_named(item)
    }

    /// Whether its name, if it has one, is not that of something written elsewhere.
    fn may_be_named(&self, item: &Item) -> bool {
        let name = item.name.as_deref();
        !name.is_some_and(|name| self.is_elsewhere(name))
    }

    /// Whether a function or type of this name is none of ours.
    fn is_elsewhere(&self, name: &str) -> bool {
        let is_main = fold(name) == "main" && self.name.map(fold).as_deref() != Some("main");
        is_main || self.elsewhere.iter().any(|other| fold(other) == fold(name))
    }
}

/// A name without what conventions change: `low_items` and `lowItems` are the same.
fn fold(name: &str) -> String {
    name.replace('_', "").to_lowercase()
}

/// The words of a text, as most languages write names.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|char: char| !char.is_alphanumeric() && char != '_')
        .filter(|word| !word.is_empty())
}

fn mentions(text: &str, name: &str) -> bool {
    words(text).any(|word| word == name)
}

/// The names that statements give to values: the last word before each `=` or `:`.
fn constant_names(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().filter(|line| !line.starts_with([' ', '\t']));
    lines.filter_map(|line| {
        let (before, _) = line.split_once([':', '='])?;
        words(before).last()
    })
}

/// The last line that is not indented and has ended, if it is neither blank nor closes a bracket,
/// and the text before it.
fn last_unindented_line(text: &str) -> Option<(&str, &str)> {
    let ended = &text[..text.rfind('\n')?];
    let start = ended.rfind('\n').map_or(0, |end| end + 1);
    let line = &ended[start..];
    let first = line.chars().next()?;
    let begins = !first.is_whitespace() && !matches!(first, ')' | ']' | '}' | '{');
    begins.then_some((&text[..start], line))
}

/// The statements of a block of imports, each on lines of its own, without those that do not parse.
fn statements(block: &str, language: Language) -> Vec<String> {
    let mut found = Vec::new();
    let mut statement = String::new();
    for line in block.lines().filter(|line| !line.trim().is_empty()) {
        statement.push_str(line);
        let open = statement.matches(['(', '{']).count();
        if open > statement.matches([')', '}']).count() {
            statement.push('\n');
            continue;
        }
        let statement = std::mem::take(&mut statement);
        match (language, statement.split_once("import (")) {
            (Language::Go, Some((_, specs))) => {
                let specs = specs.trim_end_matches(')').lines().map(str::trim);
                let specs = specs.filter(|spec| !spec.is_empty());
                found.extend(specs.map(|spec| format!("import {spec}")));
            }
            _ => found.push(statement.trim_end().to_owned()),
        }
    }
    found.retain(|statement| Parsed::new(statement, language).errors().is_empty());
    found
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(
        kind: ItemKind,
        name: &str,
        elsewhere: &[&str],
        language: Language,
        answer: &str,
        expected: Expect,
    ) {
        let name = (!name.is_empty()).then_some(name);
        let wanted = Wanted {
            kind,
            name,
            elsewhere,
        };
        let excerpt = wanted.excerpt(answer, language);
        let mut shown = String::new();
        for import in &excerpt.imports {
            shown.push_str(&format!("{import}\n"));
        }
        shown.push_str(&format!("---\n{}\n", excerpt.code));
        shown.push_str(&format!("--- without {:?}\n", excerpt.left_out));
        expected.assert_eq(&shown);
    }

    #[test]
    fn one_function_is_kept() {
        use ItemKind::Function;
        check(
            Function,
            "low_items",
            &["add"],
            Language::JavaScript,
            "const fs = require('fs');\n\nconst LOW = 3;\nconst HIGH = 4;\n\n\
             function isLow(item) {\n  return item < LOW;\n}\n\n\
             function add() {}\n\n\
             function lowItems(items) {\n  add();\n  return items.filter(isLow);\n}\n\n\
             function main() {\n  lowItems([]);\n}\n\nmain();\n",
            expect![[r#"
                const fs = require('fs');
                ---
                const LOW = 3;
                const HIGH = 4;

                function isLow(item) {
                  return item < LOW;
                }

                function lowItems(items) {
                  add();
                  return items.filter(isLow);
                }
                --- without ["add", "main"]
            "#]],
        );
        // By another name, and inside a class where the language wants one.
        check(
            Function,
            "total",
            &[],
            Language::Rust,
            "fn sum_of(a: &[i64]) -> i64 {\n    a.iter().sum()\n}\n\nfn main() {}\n",
            expect![[r#"
                ---
                fn sum_of(a: &[i64]) -> i64 {
                    a.iter().sum()
                }
                --- without ["main"]
            "#]],
        );
        check(
            Function,
            "total",
            &[],
            Language::Java,
            "import java.util.List;\n\nclass Main {\n    static int total(List<Integer> a) {\n        \
             return 0;\n    }\n}\n",
            expect![[r#"
                import java.util.List;
                ---
                class Main {
                    static int total(List<Integer> a) {
                        return 0;
                    }
                }
                --- without []
            "#]],
        );
        check(
            Function,
            "main",
            &["f"],
            Language::Rust,
            "fn f() {}\n\nfn main() {\n    f();\n}\n",
            expect![[r#"
                ---
                fn main() {
                    f();
                }
                --- without ["f"]
            "#]],
        );
        // Nothing is lost of an answer that is not understood.
        check(
            Function,
            "f",
            &[],
            Language::Rust,
            "f(1)\n",
            expect![[r#"
            ---
            f(1)
            --- without []
        "#]],
        );
    }

    #[test]
    fn a_type_is_kept_with_its_methods() {
        use ItemKind::Type;
        check(
            Type,
            "Item",
            &["Inventory"],
            Language::Rust,
            "use std::collections::HashMap;\nuse dataclasses::dataclass, field;\n\n\
             #[derive(Debug)]\nstruct Inventory {\n    items: HashMap<String, Item>,\n}\n\n\
             enum Kind {\n    Tea,\n}\n\n\
             #[derive(Debug)]\nstruct Item {\n    kind: Kind,\n}\n\n\
             impl Item {\n    fn is_low(&self) -> bool {\n        true\n    }\n}\n\n\
             fn main() {\n    let item = Item { kind: Kind::Tea };\n}\n",
            expect![[r#"
                use std::collections::HashMap;
                ---
                enum Kind {
                    Tea,
                }

                #[derive(Debug)]
                struct Item {
                    kind: Kind,
                }

                impl Item {
                    fn is_low(&self) -> bool {
                        true
                    }
                }
                --- without ["Inventory", "main"]
            "#]],
        );
        check(
            Type,
            "Item",
            &[],
            Language::Go,
            "package main\n\nimport (\n\t\"fmt\"\n\t\"os\"\n)\n\n\
             type Item struct {\n\tname string\n}\n\n\
             func (i *Item) Name() string {\n\treturn i.name\n}\n\n\
             func main() {\n\tfmt.Println(Item{})\n}\n",
            expect![[r#"
                package main
                import "fmt"
                import "os"
                ---
                type Item struct {
                	name string
                }

                func (i *Item) Name() string {
                	return i.name
                }
                --- without ["main"]
            "#]],
        );
    }

    #[test]
    fn statements_are_kept_without_definitions() {
        check(
            ItemKind::Other,
            "",
            &[],
            Language::Rust,
            "const MAX: i64 = 10;\n\nfn main() {\n    println!(\"{MAX}\");\n}\n",
            expect![[r#"
                ---
                const MAX: i64 = 10;
                --- without ["main"]
            "#]],
        );
    }

    #[test]
    fn an_answer_is_done_when_something_else_begins() {
        let check = |kind, name, elsewhere: &[&str], language, text: &str| {
            let wanted = Wanted {
                kind,
                name: Some(name),
                elsewhere,
            };
            // Each time a line has been written.
            let ends = text.match_indices('\n').map(|(at, _)| at + 1);
            let done = ends.filter(|end| wanted.is_written(&text[..*end], language));
            let line = |end: usize| text[..end].lines().count();
            done.map(line).next()
        };
        use ItemKind::{Function, Type};
        let function =
            "def f(a):\n    if a:\n        return 1\n\n    return 2\n\n# For example:\nf(1)\n";
        assert_eq!(
            check(Function, "f", &[], Language::Python, function),
            Some(8)
        );
        assert_eq!(check(Function, "g", &[], Language::Python, function), None);
        let item = "struct Item;\n\nenum Kind {}\n\nimpl Item {\n    fn f() {}\n}\n\nfn main() {\n    Item;\n}\n";
        assert_eq!(check(Type, "Item", &[], Language::Rust, item), Some(9));
        let item = "struct Item;\n\nstruct Inventory {\n    a: Item,\n}\n";
        assert_eq!(
            check(Type, "Item", &["Inventory"], Language::Rust, item),
            Some(3)
        );
        let braces = "void f(void)\n{\n    g();\n}\n\nint main(void)\n{\n}\n";
        assert_eq!(check(Function, "f", &[], Language::C, braces), Some(6));
    }
}
