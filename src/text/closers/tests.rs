use proptest::prelude::*;

use super::*;

fn at(language_id: &str, around: &str) -> Closers {
    let (before, after) = around.split_once("$0").unwrap();
    Closers::between(before, true, after, language_id)
}

/// Checks how much of `text` is kept.
fn check(language_id: &str, around: &str, text: &str, expected: &str) {
    let kept = &text[..at(language_id, around).keep(text)];
    assert_eq!(kept, expected, "{text:?} in {around:?} ({language_id})");
}

/// Checks that all of `text` is kept.
fn check_whole(language_id: &str, around: &str, text: &str) {
    check(language_id, around, text, text);
}

fn closed(language_id: &str, around: &str) -> Vec<String> {
    at(language_id, around).closed().to_vec()
}

#[test]
fn the_rest_of_the_line_tells_what_is_closed() {
    assert_eq!(closed("javascript", "log(\"a $0\");"), ["\"", ")"]);
    assert_eq!(closed("python", "f(x[$0], 1)"), ["]", ")"]);
    assert_eq!(closed("python", "f(x[$0], g(1))"), ["]", ")"]);
    assert_eq!(closed("python", "f($0"), [""; 0]);
    assert_eq!(closed("python", "x = $0  # \")"), [""; 0]);
    assert_eq!(closed("python", "f\"{$0}\""), ["}", "\""]);
    assert_eq!(closed("javascript", "`a ${$0}`"), ["}", "`"]);
    assert_eq!(closed("rust", "Vec<$0>"), [">"]);
    assert_eq!(closed("rust", "r#\"$0\"#"), ["\"#"]);
    assert_eq!(closed("markdown", "a **$0** b"), ["**"]);
    assert_eq!(closed("html", "<input name=\"$0\">"), ["\"", ">"]);
}

#[test]
fn a_string_is_not_closed_again() {
    for (language_id, before, close, after) in [
        ("javascript", "console.log(\"", "\"", ")"),
        ("javascript", "console.log('", "'", ")"),
        ("javascript", "console.log(`", "`", ")"),
        ("python", "logging.warning(\"", "\"", ")"),
        ("python", "logging.warning(f'", "'", ")"),
        ("rust", "    println!(\"", "\"", ");"),
        ("rust", "    s.starts_with(b\"", "\"", ")"),
        ("rust", "let s = r#\"", "\"#", ";"),
        ("go", "\tfmt.Println(\"", "\"", ")"),
        ("go", "\tfmt.Println(`", "`", ")"),
        ("java", "System.out.println(\"", "\"", ");"),
        ("c", "printf(\"", "\"", ");"),
        ("cpp", "std::cout << \"", "\"", ";"),
        ("cpp", "auto s = R\"(", ")\"", ";"),
        ("csharp", "Console.WriteLine($\"", "\"", ");"),
        ("ruby", "puts \"", "\"", ""),
        ("shellscript", "echo \"", "\"", ""),
        ("shellscript", "echo '", "'", ""),
        ("json", "{\"a\": \"", "\"", "}"),
        ("toml", "title = \"", "\"", ""),
        ("yaml", "title: '", "'", ""),
        ("html", "<p title=\"", "\"", ">"),
        ("sql", "SELECT '", "'", ";"),
        ("cobol", "DISPLAY \"", "\"", "."),
    ] {
        let around = format!("{before}Total: $0{close}{after}");
        check(language_id, &around, &format!("none{close}, more)"), "none");
        check(language_id, &around, &format!("none{close}"), "none");
        check_whole(language_id, &around, "none at all");
    }
}

#[test]
fn a_string_may_be_closed_and_another_opened() {
    check_whole("python", "add(\"--$0\")", "size\", help=\"the size");
    check(
        "python",
        "add(\"--$0\")",
        "size\", help=\"the size\")",
        "size\", help=\"the size",
    );
    check_whole("javascript", "let a = [\"$0\"]", "x\", \"y");
    check("javascript", "log(\"$0\")", "a\"); log(x", "a");
}

#[test]
fn a_bracket_is_not_closed_again() {
    check("rust", "let a = vec![$0];", "1, 2];", "1, 2");
    check("python", "print(a[$0])", "0], b[1])", "0], b[1");
    check("python", "print(a[$0])", "0])", "0");
    check("javascript", "if ($0) {", "a.b(c)) {", "a.b(c)");
    check(
        "javascript",
        "xs.map(x => {$0});",
        " return x; });",
        " return x;",
    );
    check("rust", "fn f() {$0}", "\n    g();\n}\n", "\n    g();\n");
    check("python", "f($0)", "a, (b", "a,");
    check("python", "x = $0 + f(a)", "g(b", "g");
    check_whole("python", "x = $0 + f(a)", "g(b)");
    check_whole("python", "f(a$0", ", [b");
}

#[test]
fn a_hole_in_a_string_is_not_closed_again() {
    check("python", "print(f\"{$0}\")", "name}!\")", "name");
    check("python", "print(f\"{$0}\")", "name\")", "name");
    check("python", "print(f\"a {$0} b\")", "x:.2f} b\")", "x:.2f");
    check("javascript", "log(`a ${$0}`)", "name}`)", "name");
    check("ruby", "puts \"a #{$0}\"", "name}\"", "name");
    check("kotlin", "println(\"a ${$0}\")", "name}\")", "name");
    check("swift", "print(\"a \\($0)\")", "name)\")", "name");
    check("swift", "print(\"a \\($0)\")", "name\\)\")", "name");
    check("csharp", "Log($\"a {$0}\");", "name}\");", "name");
    check("shellscript", "echo \"$($0)\"", "date)\"", "date");
    check_whole("python", "print(\"{$0}\")", "} {");
}

#[test]
fn escaped_quotes_close_nothing() {
    check_whole("rust", "f(\"$0\")", "a \\\"b\\\" c");
    check("rust", "f(\"$0\")", "a\\", "a");
    check("python", "f('$0')", "it\\'s', x)", "it\\'s");
    check_whole("sql", "SELECT '$0'", "it''s");
}

#[test]
fn a_character_in_quotes_is_no_string() {
    check("rust", "x.contains(&b'\"'); f($0)", "a\")", "a");
    check("rust", "if c == b'\"' { f($0) }", "a) }", "a");
    check("rust", "fn f<'a>(x: &'a str, y: \"$0\")", "a\")", "a");
    check("rust", "x.split('$0')", ",').map(", ",");
    check("rust", "x.split('$0')", "\\n')", "\\n");
    check("cpp", "long n = 1'000'000; f(\"$0\");", "a\");", "a");
    check("c", "if (c == '$0') {", "a') {", "a");
}

#[test]
fn type_arguments_are_not_closed_again() {
    check(
        "rust",
        "fn f(x: Vec<$0>) {}",
        "String>) -> bool {",
        "String",
    );
    check(
        "rust",
        "fn f(x: Vec<$0>) {}",
        "Option<u8>>) {",
        "Option<u8>",
    );
    check(
        "typescript",
        "const a: Array<$0> = [];",
        "string> = [];",
        "string",
    );
    check("cpp", "std::vector<$0> a;", "int> a;", "int");
    check(
        "java",
        "List<$0> a;",
        "Map<String, Integer>> a;",
        "Map<String, Integer>",
    );
    check("c", "#include <$0>", "stdio.h>", "stdio.h");
    check("cpp", "#include <$0>", "vector>", "vector");
    check_whole("c", "if ($0) {", "a < b && c->d > e");
    check_whole("rust", "if ($0) {", "a > b && c < d");
    check_whole("javascript", "xs.map($0)", "x => x + 1");
}

#[test]
fn marks_in_prose_are_not_closed_again() {
    check(
        "markdown",
        "Run `npm $0` first.",
        "install` to install.",
        "install",
    );
    check("markdown", "This is **$0** now.", "very** bad", "very");
    check("markdown", "Let $x = $0$ be", "y$ and", "y");
    check(
        "markdown",
        "See [$0](a.md).",
        "the guide](b.md).",
        "the guide",
    );
    check("markdown", "_$0_", "so_ it", "so");
    check("markdown", "***$0***", "so*** it", "so");
    check("markdown", "``$0``", "a `b` c`` d", "a `b` c");
    check("markdown", "$$$0$$", "a + b$$", "a + b");
    check("markdown", "*$0*", "so*", "so");
    check("markdown", "See <$0>.", "https://a.b> now", "https://a.b");
    check_whole("markdown", "(it's $0)", "what you don't know");
    check("latex", "where $$0$ is", "a^2$ is", "a^2");
    check("html", "<p class=\"$0\">text</p>", "note\">Hello", "note");
    check_whole("html", "<input type=\"$0\">", "text\" name=\"user");
}

#[test]
fn brackets_in_strings_and_comments_count() {
    check("python", "print(\"a ($0)\")", "b) c\")", "b");
    check("rust", "// see [$0]", "`Vec`] for more", "`Vec`");
    check("c", "/* see ($0) */", "below) */", "below");
    check("c", "/* see $0 */", "below */ int a;", "below");
    check("html", "<!-- $0 -->", "see --> <p>", "see");
    check_whole("python", "# it isn't $0 (so)", "what you'd think");
    check("python", "x = '<a href=\"$0\">'", "b\">c</a>'", "b");
}

#[test]
fn strings_over_lines_are_known() {
    check(
        "python",
        "def f():\n    \"\"\"Return $0\"\"\"",
        "the \"sum\" of it.\"\"\"",
        "the \"sum\" of it.",
    );
    check_whole("python", "\"\"\"\nSay \"x\nand $0\" so\n\"\"\"", "(this)");
    check("javascript", "`\n${a[0]} it's ${$0}\n`", "b} or", "b");
    check("rust", "f(\"a \\\n    b $0\")", "c\")", "c");
    // An apostrophe in prose or an unfinished string does not reach the next line.
    check("python", "# don't\nx = \"a\ny = f(\"$0\")", "b\")", "b");
    check("javascript", "x = /[\"'/]/; f(\"$0\")", "b\")", "b");
}

#[test]
fn nothing_closes_that_is_not_open() {
    check("python", "x = f(a$0", ", b))", ", b)");
    check("python", "x = {\"(\": a$0", ", b: ')'}", ", b: ')'}");
    check("rust", "fn f<'a>(x: &'a str$0", ") {", ") {");
    // What came before is not known.
    let closers = Closers::between("a", false, "", "python");
    assert_eq!(closers.keep(") b"), 3);
}

/// The numbers of quotes and brackets of a line that has no escapes.
fn counts(line: &str, kinds: &str) -> Vec<usize> {
    kinds
        .chars()
        .map(|kind| line.matches(kind).count())
        .collect()
}

/// Whether quotes come in pairs and brackets are nested, by counting: it knows no strings.
fn is_balanced(line: &str, quotes: &str) -> bool {
    let mut open = Vec::new();
    let pairs = counts(line, quotes).iter().all(|count| count % 2 == 0);
    let nested = line.chars().all(|char| match char {
        '(' => {
            open.push(')');
            true
        }
        '[' => {
            open.push(']');
            true
        }
        '{' => {
            open.push('}');
            true
        }
        ')' | ']' | '}' => open.pop() == Some(char),
        _ => true,
    });
    pairs && nested && open.is_empty()
}

/// Languages with the quotes that auto-close in them.
const LANGUAGES: [(&str, &str); 24] = [
    ("python", "\"'"),
    ("javascript", "\"'`"),
    ("typescript", "\"'`"),
    ("rust", "\""),
    ("go", "\"`"),
    ("java", "\""),
    ("c", "\""),
    ("cpp", "\""),
    ("csharp", "\""),
    ("ruby", "\"'"),
    ("php", "\"'"),
    ("kotlin", "\""),
    ("swift", "\""),
    ("dart", "\"'"),
    ("lua", "\"'"),
    ("shellscript", "\"'"),
    ("json", "\""),
    ("toml", "\"'"),
    ("yaml", "\"'"),
    ("css", "\"'"),
    ("sql", "\"'"),
    ("html", "\""),
    ("markdown", "\"`"),
    ("", "\"'"),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Accepting what is kept leaves a balanced line balanced, as one sees it who only counts.
    #[test]
    fn a_balanced_line_stays_balanced(
        language in prop::sample::select(&LANGUAGES[..]),
        which in any::<prop::sample::Index>(),
        brackets in prop::collection::vec(prop::sample::select(vec!["(", "[", "{"]), 0..3),
        in_string in any::<bool>(),
        before in "[a-c ]{0,4}",
        tail in prop::sample::select(vec!["", ";", " + c", ", b(c)", " [c]"]),
        text in prop::collection::vec(
            prop::sample::select(vec![
                "a", "b ", " ", "é", "(", ")", "[", "]", "{", "}", "Q", "Q", ", ", ";", ".", "+",
            ]),
            0..14,
        ),
    ) {
        let (language_id, quotes) = language;
        let quotes_in: Vec<char> = quotes.chars().collect();
        let quote = which.get(&quotes_in).to_string();
        let mut line = format!("x {}", brackets.concat());
        let mut rest = String::new();
        if in_string {
            line.push_str(&quote);
            rest.push_str(&quote);
        }
        line.push_str(&before);
        for bracket in brackets.iter().rev() {
            rest.push(match *bracket { "(" => ')', "[" => ']', _ => '}' });
        }
        rest.push_str(tail);
        let text = text.concat().replace('Q', &quote);
        let closers = Closers::between(&line, true, &rest, language_id);
        prop_assume!(!rest.trim().is_empty() && is_balanced(&format!("{line}{rest}"), quotes));
        // In Lua that is a string, in which quotes need no pairs.
        prop_assume!(language_id != "lua" || !line.contains("[["));
        let kept = &text[..closers.keep(&text)];
        let accepted = format!("{line}{kept}{rest}");
        prop_assert!(is_balanced(&accepted, quotes), "{accepted} of {text} in {language_id}");
        // A text that is balanced by itself is kept.
        if text.chars().all(|char| char.is_alphanumeric()) {
            prop_assert_eq!(kept, text.as_str());
        }
    }

    #[test]
    fn any_text_is_read(
        language in prop::sample::select(&LANGUAGES[..]),
        before in r#"([a-c(){}<>\[\]'"`\\\n$#*/ fr_-]|é|漢|😀){0,40}"#,
        after in r#"([a-c(){}<>\[\]'"`\\\n$#*/ ]|é|漢|😀){0,20}"#,
        text in r#"([a-c(){}<>\[\]'"`\\\n$#*/ ]|é|漢|😀){0,30}"#,
    ) {
        let closers = Closers::between(&before, true, &after, language.0);
        let keep = closers.keep(&text);
        prop_assert!(text.is_char_boundary(keep));
        prop_assert!(keep == 0 || closers.allows(&text[..keep]));
    }
}
