use std::fmt::Write as _;
use std::time::Duration;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

fn sample(language: Language) -> &'static str {
    match language {
        Language::Python => include_str!("../../../tests/samples/shapes.py"),
        Language::JavaScript => include_str!("../../../tests/samples/shapes.js"),
        Language::TypeScript => include_str!("../../../tests/samples/shapes.ts"),
        Language::Rust => include_str!("../../../tests/samples/shapes.rs"),
        Language::Go => include_str!("../../../tests/samples/shapes.go"),
        Language::Java => include_str!("../../../tests/samples/shapes.java"),
        Language::C => include_str!("../../../tests/samples/shapes.c"),
        Language::Cpp => include_str!("../../../tests/samples/shapes.cpp"),
        Language::CSharp => include_str!("../../../tests/samples/shapes.cs"),
        Language::Ruby => include_str!("../../../tests/samples/shapes.rb"),
    }
}

/// First and last line, kind, and signature or first line of each item.
fn show(text: &str, items: &[Item]) -> String {
    let mut shown = String::new();
    for item in items {
        let line = |offset| text[..offset].matches('\n').count() + 1;
        let own = &text[item.range.clone()];
        let end = line(item.range.start + own.trim_end().len());
        let what = match (&item.name, &item.signature) {
            (Some(name), Some(signature)) => format!("{name}: {signature}"),
            (None, None) => own
                .trim_start()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
            _ => format!("{:?} {:?}", item.name, item.signature),
        };
        let start = line(item.range.start);
        writeln!(shown, "{start}-{end} {:?} {what}", item.kind).unwrap();
    }
    shown
}

fn check_tiles(text: &str, language: Language) {
    let mut end = 0;
    for item in items(text, language) {
        assert_eq!(item.range.start, end, "{language} {text:?}");
        assert!(!item.range.is_empty(), "{language} {text:?}");
        end = item.range.end;
    }
    assert_eq!(end, text.len(), "{language} {text:?}");
}

fn check(language: Language, expected: Expect) {
    let text = sample(language);
    assert_eq!(errors(text, language), [], "{language}");
    check_tiles(text, language);
    let shown = show(text, &items(text, language));
    expected.assert_eq(&shown);
    // Line ends make no difference.
    let windows = text.replace('\n', "\r\n");
    let as_shown = show(&windows, &items(&windows, language)).replace('\r', "");
    assert_eq!(as_shown, shown, "{language}");
}

fn check_broken(language: Language, from: &str, to: &str, expected: &[&str]) {
    let sample = sample(language);
    assert!(sample.contains(from), "{language} {from}");
    let text = sample.replacen(from, to, 1);
    check_tiles(&text, language);
    let errors: Vec<String> = errors(&text, language)
        .iter()
        .map(|error| format!("{}:{} {}", error.line, error.column, error.message))
        .collect();
    assert_eq!(errors, expected, "{language}");
}

/// `$0` is the cursor; what is expected is the signature's first line, the range's first and last
/// lines, the body's first, the indentation, and whether it is documented.
fn check_at(
    language: Language,
    text: &str,
    expected: Option<(&str, &str, &str, &str, &str, bool)>,
) {
    let offset = text.find("$0").unwrap();
    let text = text.replacen("$0", "", 1);
    let found = Parsed::new(&text, language).item_at(offset);
    let shown = found.as_ref().map(|found| {
        let own = &text[found.range.clone()];
        let body = found.body.clone().map_or("", |body| &text[body]);
        (
            found.signature.lines().next().unwrap_or_default(),
            own.lines().next().unwrap_or_default().trim_start(),
            own.lines().last().unwrap_or_default().trim_start(),
            body.lines().next().unwrap_or_default(),
            found.indentation.as_str(),
            found.documented,
        )
    });
    assert_eq!(shown, expected, "{language} {text:?}");
}

#[test]
fn a_broken_item_ends_where_the_next_begins() {
    let check = |language: Language, text: &str, expected: Expect| {
        check_tiles(text, language);
        expected.assert_eq(&show(text, &items(text, language)));
    };
    check(
        Language::Python,
        "@dataclass\nclass A:\n    def a(self):\n        return max(\n\n\n\
         # Of B.\n@dataclass\nclass B:\n    b: int\n\n\n\
         def c():\n    return (\n\n\ndef d():\n    pass\n\n\nif d:\n    d()\n",
        expect![[r#"
            1-7 Type A: class A:
                def a(self):
            8-10 Type B: class B:
            13-14 Function c: def c():
                return (
            17-18 Function d: def d():
            21-22 Other if d:
        "#]],
    );
    check(
        Language::Rust,
        "use std::fmt;\n\nfn a() {\n    b(\n}\n\nfn b() {}\n\nstruct C;\n",
        expect![[r#"
            1-1 Imports use std::fmt;
            3-5 Function a: fn a()
            7-7 Function b: fn b()
            9-9 Type C: struct C
        "#]],
    );
    check(
        Language::JavaScript,
        "function a() {\n  b(;\n\nfunction b() {\n  return 1;\n}\n",
        expect![[r#"
            1-2 Other function a() {
            4-6 Function b: function b()
        "#]],
    );
}

#[test]
fn a_text_is_cut_into_items() {
    check(
        Language::Python,
        expect![[r#"
        1-1 Other """Shapes."""
        2-3 Imports import math
        5-6 Other # Pixels.
        9-15 Function area: def area(width: int,
                 height: int) -> int:
        18-28 Type Shape: class Shape(Base):
            def __init__(self, name):
            def size(self) -> int:
        29-29 Other # after
        31-31 Function go: async def go():
    "#]],
    );
    check(
        Language::JavaScript,
        expect![[r#"
        1-1 Other 'use strict';
        2-3 Imports import fs from 'fs';
        5-5 Other const LIMIT = 10; // pixels
        7-10 Function area: export function area(width, height)
        12-12 Function twice: const twice = (x) =>
        13-13 Function thrice: export const thrice = async function (x)
        15-20 Type Shape: export default class Shape extends Base
            constructor(name)
            get size()
            static of(x)
        21-21 Other module.exports = { area };
    "#]],
    );
    check(
        Language::TypeScript,
        expect![[r#"
        1-1 Imports import { readFile } from 'fs';
        3-3 Other const LIMIT: number = 10;
        5-8 Function area: export function area(width: number): number
        9-9 Function ext: declare function ext(a: string): void
        10-10 Type Sized: interface Sized
            size(): number
        11-11 Type Id: type Id = string | number
        12-12 Type Color: enum Color
        13-13 Type Space: namespace Space
            export function f()
        14-20 Type Shape: export abstract class Shape<T> implements Sized
            constructor(private x: T)
            size(): number
            abstract draw(): void
        21-21 Function c: const c = <T,>(x: T) =>
    "#]],
    );
    check(
        Language::Rust,
        expect![[r#"
        1-2 Other //! Shapes.
        4-8 Imports use std::fmt;
        10-11 Other /// Pixels.
        13-23 Function area: pub fn area<T>(width: T) -> T
        where
            T: Copy,
        25-28 Type Shape: pub struct Shape
        29-29 Type Meters: struct Meters(f64)
        31-36 Type Shape: impl<T> fmt::Display for Shape<T>
            fn fmt(&self) -> fmt::Result
        37-39 Type Sized: pub trait Sized
            fn size(&self) -> usize
        40-40 Other macro_rules! m { () => {}; }
        41-45 Type tests: mod tests
            fn a()
    "#]],
    );
    check(
        Language::Go,
        expect![[r#"
        1-5 Imports package shapes
        7-8 Other // Limit is in pixels.
        10-13 Function Area: func Area(width, height int) (int, error)
        15-18 Type Shape: type Shape struct
        20-22 Type Sized: type Sized interface
            Size() int
        23-23 Other type (
        24-24 Type A: A int
        25-25 Type B: B string
        26-26 Other )
        28-28 Function Size: func (s *Shape) Size() int
    "#]],
    );
    check(
        Language::Java,
        expect![[r#"
        1-4 Imports package shapes;
        6-18 Type Shape: public class Shape<T> extends Base implements Sized
            public Shape(String name)
            public int size() throws IOException
        20-20 Type Sized: interface Sized
            int size()
        21-21 Type Color: enum Color
            int f()
        22-22 Type Point: record Point(int x, int y)
    "#]],
    );
    check(
        Language::C,
        expect![[r#"
        1-2 Other #ifndef SHAPES_H
        3-4 Imports #include <stdio.h>
        6-6 Other #define LIMIT 10
        8-10 Type shape: struct shape
        11-11 Type point_t: typedef struct
        13-17 Function area: static int area(int width, int height)
        18-18 Function size: int size(const struct shape *s)
        19-19 Function name: char *name(void)
        20-23 Other static const int max = 10;
        24-24 Function z: int z(void)
        25-28 Other #ifdef __cplusplus
    "#]],
    );
    check(
        Language::Cpp,
        expect![[r#"
        1-2 Imports #include <vector>
        4-4 Other namespace shapes {
        6-6 Other constexpr int kLimit = 10;
        8-12 Function area: template <typename T>
        [[nodiscard]] T area(T width)
        14-23 Type Shape: class Shape : public Base
            explicit Shape(std::string name)
            virtual ~Shape() = default
            int size() const
            bool operator==(const Shape& o) const
            const Shape& self()
        25-25 Other }  // namespace shapes
        27-27 Other extern "C" {
        28-28 Function c_api: int c_api(void)
        29-29 Other }
        30-30 Function shapes::Shape::size: int shapes::Shape::size() const
        31-31 Function shapes::Shape::self: const Shape& shapes::Shape::self()
        32-32 Type Color: enum class Color
    "#]],
    );
    check(
        Language::CSharp,
        expect![[r#"
        1-2 Imports using System;
        4-5 Other namespace Shapes
        6-16 Type Shape: public class Shape : Base
            public Shape(string name)
            public int Size()
            public static bool operator ==(Shape a, Shape b)
        17-17 Type ISized: interface ISized
            int Size()
        18-18 Other }
    "#]],
    );
    check(
        Language::Ruby,
        expect![[r#"
        1-1 Other # frozen_string_literal: true
        3-4 Imports require 'set'
        6-6 Other LIMIT = 10
        8-11 Function area: def area(width, height = 2)
        13-13 Function empty: def empty
        14-14 Function twice: def twice(x)
        16-35 Type Shapes: module Shapes
            class Shape < Base
                def initialize(name)
                def self.of(x)
                class << self
                    def k
    "#]],
    );
}

#[test]
fn a_broken_text_has_errors() {
    let check = check_broken;
    check(
        Language::Python,
        "return width * height",
        "return (width * height",
        &["15:12 `(` is not closed", "28:17 unexpected end"],
    );
    check(
        Language::JavaScript,
        "area(width, height)",
        "area(width, height",
        &["8:35 missing `)`"],
    );
    check(
        Language::TypeScript,
        "return width;\n}",
        "return width;\n",
        &["21:27 missing `}`"],
    );
    check(Language::Rust, "= 10;", "= 10", &["16:1 missing `;`"]);
    check(
        Language::Go,
        "return width * height, nil",
        "x := return",
        &["12:2 unexpected `x :=`"],
    );
    check(
        Language::Java,
        "return 1;",
        "return 1",
        &["16:17 missing `;`"],
    );
    check(
        Language::C,
        "width * height;",
        "width * ;",
        &["16:19 missing identifier"],
    );
    check(
        Language::Cpp,
        "return width;",
        "return width",
        &["11:17 missing `;`"],
    );
    check(
        Language::CSharp,
        "int Size() => 1;",
        "int Size( => 1;",
        &["14:24 unexpected `(`"],
    );
    check(
        Language::Ruby,
        "width * height\nend",
        "width * height)\nend",
        &["10:17 unexpected `)`"],
    );
}

#[test]
fn errors_are_capped() {
    assert_eq!(
        errors(&"fn f() { ) }\n".repeat(100), Language::Rust).len(),
        20
    );
}

#[test]
fn a_function_is_found_around_the_cursor() {
    let check = check_at;
    check(
        Language::Python,
        "class A:\n    @property\n    def f(self):\n        \"\"\"Doc.\"\"\"\n        return $01\n\nx = 1\n",
        Some((
            "def f(self):",
            "@property",
            "return 1",
            "\"\"\"Doc.\"\"\"",
            "    ",
            true,
        )),
    );
    check(
        Language::Python,
        "class A:\n    x = $01\n    # Not a docstring.\n    def f(self): pass\n",
        Some((
            "class A:",
            "class A:",
            "def f(self): pass",
            "x = 1",
            "",
            false,
        )),
    );
    check(
        Language::Rust,
        "impl A {\n    /// D$0oc.\n    #[inline]\n    fn f(&self) {\n    }\n}\n",
        Some(("fn f(&self)", "/// Doc.", "}", "{", "    ", true)),
    );
    check(
        Language::Rust,
        "// note\nfn f() {}$0\n",
        Some(("fn f()", "// note", "fn f() {}", "{}", "", false)),
    );
    check(
        Language::Rust,
        "/// Doc.\n\nfn f() { let a = |x| x$0; }\n",
        Some((
            "fn f()",
            "fn f() { let a = |x| x; }",
            "fn f() { let a = |x| x; }",
            "{ let a = |x| x; }",
            "",
            false,
        )),
    );
    check(
        Language::Ruby,
        "class A\n  # Doc.\n  def f\n    $0g\n  end\nend\n",
        Some(("def f", "# Doc.", "end", "g", "  ", true)),
    );
    check(
        Language::TypeScript,
        "/** Doc. */\nexport const f = (a: string) => {\n  g($0);\n};\n",
        Some((
            "export const f = (a: string) =>",
            "/** Doc. */",
            "};",
            "{",
            "",
            true,
        )),
    );
    check(
        Language::Cpp,
        "int f() {\n  Shape shape(na$0me);\n}\n",
        Some(("int f()", "int f() {", "}", "{", "", false)),
    );
    check(
        Language::Java,
        "interface A {\n\tint f($0);\n}\n",
        Some(("int f()", "int f();", "int f();", "", "\t", false)),
    );
    check(
        Language::Go,
        "package a\n\nvar x = $01\n\nfunc f() {}\n",
        None,
    );
    check(Language::C, "$0", None);
}

#[test]
fn a_cast_and_an_element_are_typescript() {
    for text in ["const a = <T>b;\n", "const a = <T>{b}</T>;\n"] {
        assert_eq!(errors(text, Language::TypeScript), [], "{text}");
    }
}

#[test]
fn a_text_that_is_not_parsed_is_one_item() {
    let check = |parsed: &Parsed<'_>, expected| {
        assert_eq!(parsed.gave_up(), Some(expected));
        assert_eq!(parsed.errors(), []);
        assert_eq!(parsed.item_at(0), None);
        let items = parsed.items();
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].range, 0..parsed.text.len());
    };
    let large = "x = 1\n".repeat(MAX_BYTES / 6 + 1);
    check(&Parsed::new(&large, Language::Python), GaveUp::TooLarge);
    let deep = "%w(".repeat(100_000);
    check(&Parsed::new(&deep, Language::C), GaveUp::TooDeep);
    let slow = "f(1);\n".repeat(10_000);
    check(
        &Parsed::within(Duration::ZERO, &slow, Language::C),
        GaveUp::TooSlow,
    );
}

proptest! {
    #[test]
    fn items_tile_any_text(text in any::<String>(), language in 0..Language::ALL.len()) {
        check_tiles(&text, Language::ALL[language]);
    }

    /// A sample with pieces cut out and others inserted is nearly code.
    #[test]
    fn items_tile_broken_code(
        language in 0..Language::ALL.len(),
        windows in any::<bool>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..9usize, "[(){}\\[\\];:\"'`#/*@<>=\\\\\r\n\t\0 é漢a]{0,3}"), 0..6),
    ) {
        let language = Language::ALL[language];
        let mut text: Vec<char> = sample(language).chars().collect();
        for (at, cut, insert) in edits {
            let at = at.index(text.len());
            text.splice(at..(at + cut).min(text.len()), insert.chars());
        }
        let mut text = String::from_iter(text);
        if windows {
            text = text.replace('\n', "\r\n");
        }
        check_tiles(&text, language);
        let parsed = Parsed::new(&text, language);
        for error in parsed.errors() {
            prop_assert!(error.line <= text.matches('\n').count() + 1);
        }
        for offset in (0..=text.len()).step_by(7) {
            if let Some(found) = parsed.item_at(offset) {
                prop_assert!(found.range.start <= offset && !text[found.range].is_empty());
            }
        }
    }
}
