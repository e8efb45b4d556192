//! Cuts the model's text down to what is shown.
//!
//! The filters run in the order of [`FILTERS`]. Each only cuts from the end, so that what is shown
//! is how the model's text began. One that leaves nothing drops the text, and gives the reason.

use crate::engine::stop::Scope;
use crate::text::closers::Closers;
use crate::text::context::{Context, only_closes};

/// Returns how much of the text to keep, in bytes.
type Filter = fn(&str, &Context, &Closers) -> usize;

/// The filters, and the reason that each gives when it leaves nothing.
pub const FILTERS: &[(&str, Filter)] = &[
    ("the line is complete", only_the_scope),
    ("it repeats what follows the cursor", before_following_line),
    (
        "it repeats what is before the cursor",
        before_repeated_context,
    ),
    ("it repeats the rest of the line", before_rest_of_line),
    (
        "there is nothing but whitespace",
        without_trailing_whitespace,
    ),
    (
        "it closes what is not open, or closed already",
        before_closed_again,
    ),
    (
        "there is nothing but closing punctuation",
        more_than_closers,
    ),
];

/// Runs the filters over what the model wrote.
///
/// # Errors
///
/// The reason of the filter that left nothing.
pub fn filtered(
    mut text: String,
    context: &Context,
    closers: &Closers,
) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("the model wrote nothing");
    }
    for (name, filter) in FILTERS {
        let keep = filter(&text, context, closers);
        text.truncate(keep);
        if text.is_empty() {
            return Err(name);
        }
    }
    Ok(text)
}

/// With the scope of a line, a text that begins with a line end says that the cursor's line is
/// complete.
fn only_the_scope(text: &str, context: &Context, _: &Closers) -> usize {
    match context.scope {
        Scope::Line => text.find('\n').unwrap_or(text.len()),
        _ => text.len(),
    }
}

/// Where each line of the text begins, with the line.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split('\n').scan(0, |next, line| {
        let start = *next;
        *next += line.len() + 1;
        Some((start, line))
    })
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// A small model tends to repeat the next lines of the suffix: the first or the second of them.
fn before_following_line(text: &str, context: &Context, _: &Closers) -> usize {
    let following = context.suffix.split('\n').skip(1);
    let following = following.filter(|line| !line.trim().is_empty());
    let following: Vec<&str> = following.take(2).collect();
    let repeats = |line: &str, (index, following): (usize, &&str)| {
        let wordless = !following.contains(char::is_alphanumeric);
        // A lone bracket may well come before one that closes another block.
        let same_place = !wordless || index == 0 && indentation(line) == indentation(following);
        line.trim() == following.trim() && same_place
    };
    let repeated = lines(text).find(|(start, line)| {
        let whole;
        let line = match start {
            0 => {
                whole = format!("{}{line}", context.line_prefix());
                &whole
            }
            _ => *line,
        };
        following
            .iter()
            .enumerate()
            .any(|following| repeats(line, following))
    });
    repeated.map_or(text.len(), |(start, _)| start.saturating_sub(1))
}

/// Small models copy the lines above. A line that equals the one before the cursor's adds nothing,
/// nor do two lines that equal the two before.
fn before_repeated_context(text: &str, context: &Context, _: &Closers) -> usize {
    let said = |line: &&str| line.trim().len() > 3;
    let mut above = context.prefix.rsplit('\n').skip(1).filter(said);
    let (last, second_last) = (above.next(), above.next());
    let text_said = match context.scope {
        Scope::FreshLine => text.trim_start(),
        _ => text,
    };
    let mut written = text_said.split('\n');
    let first = written.next().unwrap_or_default();
    let first = format!("{}{first}", context.line_prefix());
    let same = |above: Option<&str>, line: &str| above.is_some_and(|it| it.trim() == line.trim());
    let one = same(last, &first);
    let two = same(second_last, &first) && written.next().is_some_and(|line| same(last, line));
    if one || two { 0 } else { text.len() }
}

/// `let a = 1$0;` needs no second `;`: where the text ends with what the line continues with, that
/// is there already.
fn before_rest_of_line(text: &str, context: &Context, closers: &Closers) -> usize {
    let rest = context.line_suffix().trim();
    let end = text.trim_end();
    if rest.is_empty() || end.contains('\n') {
        return text.len();
    }
    // The whole rest, with what the model wrote after it.
    if rest.contains(char::is_alphanumeric)
        && let Some(start) = end.find(rest)
    {
        return start;
    }
    let overlaps = (1..=rest.len())
        .rev()
        .filter(|length| rest.is_char_boundary(*length));
    let mut overlaps = overlaps.filter(|length| end.ends_with(&rest[..*length]));
    // Closing brackets of what the text itself opened stay.
    let start = overlaps.find_map(|length| {
        let start = end.len() - length;
        closers.allows(&end[..start]).then_some(start)
    });
    start.unwrap_or(text.len())
}

/// What the rest of the line closes is not closed again, and a closing bracket needs an open one
/// before it. Where the text opens what it does not close, it is cut before the line or the
/// punctuation that leads there. Punctuation that is left over is not worth showing.
fn before_closed_again(text: &str, _: &Context, closers: &Closers) -> usize {
    let keep = closers.keep(text);
    let (kept, cut) = text.split_at(keep);
    if cut.trim().is_empty() {
        return keep;
    }
    let mut kept = kept;
    if cut.trim_start().starts_with(['(', '[', '{']) {
        let leads = |char: char| char.is_whitespace() || ",:=".contains(char);
        let earlier = match kept.rfind('\n') {
            Some(line_end) => &kept[..line_end],
            None => kept.trim_end_matches(leads),
        };
        if closers.allows(earlier) {
            kept = earlier;
        }
    }
    let punctuation = |char: char| char.is_whitespace() || ")]}>,;:.".contains(char);
    match kept.chars().all(punctuation) {
        true => 0,
        false => kept.len(),
    }
}

fn without_trailing_whitespace(text: &str, _: &Context, _: &Closers) -> usize {
    text.trim_end().len()
}

/// A closing bracket is quicker to type than to read, and editors add it by themselves.
fn more_than_closers(text: &str, context: &Context, _: &Closers) -> usize {
    let line = matches!(context.scope, Scope::Line | Scope::FreshLine);
    match only_closes(text) && line && text.trim().len() < 2 {
        true => 0,
        false => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn context(text: &str, scope: Scope) -> Context {
        let (prefix, suffix) = text.split_once("$0").unwrap();
        Context {
            file_name: "a".to_owned(),
            prefix: prefix.to_owned(),
            prefix_start: 0,
            dropped: Vec::new(),
            suffix: suffix.to_owned(),
            scope,
        }
    }

    const BLOCK: Scope = Scope::Block { indent: 0 };

    fn closers(context: &Context, language_id: &str) -> Closers {
        let whole = context.prefix_start == 0;
        Closers::between(&context.prefix, whole, &context.suffix, language_id)
    }

    fn kept(text: &str, context: &Context, language_id: &str) -> Result<String, &'static str> {
        filtered(text.to_owned(), context, &closers(context, language_id))
    }

    fn check(around: &str, text: &str, expected: Result<&str, &str>) {
        check_in("rust", around, text, expected);
    }

    fn check_in(language_id: &str, around: &str, text: &str, expected: Result<&str, &str>) {
        let scope = if text.trim_end().contains('\n') {
            BLOCK
        } else {
            Scope::Line
        };
        let kept = kept(text, &context(around, scope), language_id);
        assert_eq!(
            kept.as_deref().map_err(|rule| *rule),
            expected,
            "{text:?} at {around:?}"
        );
    }

    #[test]
    fn a_line_is_cut_at_its_end() {
        check("let a = $0", "1;\n", Ok("1;"));
        check("let a = 1;$0", "\n", Err("the line is complete"));
        check("let a = 1;$0", "", Err("the model wrote nothing"));
    }

    #[test]
    fn what_follows_is_not_written_again() {
        let rule = Err("it repeats what follows the cursor");
        check("a = 1\n$0\nb = 2\n", "b = 2", rule);
        check("a = 1\nb =$0\n\n  b = 2\n", " 2", rule);
        check(
            "def f():$0\n    b = 2\n",
            "\n    a = 1\n    b = 2\n    c = 3",
            Ok("\n    a = 1"),
        );
        check("a = 1\n$0\nb = 2\n", "c = 2", Ok("c = 2"));
        check("a = 1\n$0\nb = 2\n\nc = 3\nd = 4\n", "c = 3", rule);
        check("a = 1\n$0\nb = 2\n\nc = 3\nd = 4\n", "d = 4", Ok("d = 4"));
    }

    #[test]
    fn a_bracket_may_close_before_the_one_of_an_outer_block() {
        let around = "{\n    if a {$0\n}\n";
        check(around, "\n        b();\n    }", Ok("\n        b();\n    }"));
        check(
            around,
            "\n        b();\n    }\n}",
            Ok("\n        b();\n    }"),
        );
    }

    #[test]
    fn the_line_above_is_not_written_again() {
        let rule: Result<&str, _> = Err("it repeats what is before the cursor");
        check("total += 1\n$0", "total += 1", rule);
        check("total += 1\ntot$0", "al += 1", rule);
        check("total += 1\n$0", "total += 2", Ok("total += 2"));
        check("first()\nsecond()\n$0", "first()\nsecond()", rule);
        check(
            "first()\nsecond()\n$0",
            "first()\nthird()",
            Ok("first()\nthird()"),
        );
        let below = context("total += 1\n$0", Scope::FreshLine);
        assert_eq!(kept("\ntotal += 1", &below, ""), rule.map(str::to_owned));
        let new = "\ntotal += 2";
        assert_eq!(kept(new, &below, ""), Ok(new.to_owned()));
    }

    #[test]
    fn the_rest_of_the_line_is_not_written_again() {
        check("print($0)", "x)", Ok("x"));
        check("print($0)", "f(x)", Ok("f(x)"));
        check("print($0)", "f(x))", Ok("f(x)"));
        check("print($0, end)", "x, end)", Ok("x"));
        check("a[$0];", "0];", Ok("0"));
        check("print($0)", ")", Err("it repeats the rest of the line"));
        check("say $0over", "it over\n", Ok("it"));
        check(
            "say $0over",
            "over and out",
            Err("it repeats the rest of the line"),
        );
    }

    #[test]
    fn what_the_line_closes_is_not_closed_again() {
        let rule = Err("it closes what is not open, or closed already");
        check_in(
            "javascript",
            "log(\"hello $0\")",
            "world\", name);",
            Ok("world"),
        );
        check_in("javascript", "log(\"hello $0\")", "\", name);", rule);
        check_in("javascript", "log(\"hello $0\")", ".\", name);", rule);
        check_in("rust", "    s.starts_with(b\"$0\")", "# \")", Ok("#"));
        check_in("rust", "fn f() {$0}", "\n    g();\n}", Ok("\n    g();\n"));
        check_in("swift", "print(\"a \\($0)\")", "name\\)", Ok("name"));
    }

    #[test]
    fn nothing_is_opened_in_a_closed_bracket_and_left_open() {
        let rule = Err("it closes what is not open, or closed already");
        check_in("json", "{$0}", "{{{{{{{{{{{{{{{{{{", rule);
        let nested = "\n  \"a\": {\n    \"b\": {\n      \"c\": {";
        check_in("json", "{$0}", nested, rule);
        let more = format!("\n  \"x\": 1,{nested}");
        check_in("json", "{$0}", &more, Ok("\n  \"x\": 1,"));
        check_in("python", "f($0)", "a, b=[c", Ok("a, b"));
    }

    #[test]
    fn nothing_closes_that_is_not_open() {
        check("x = f(a$0", ", b))", Ok(", b)"));
        check(
            "x = a$0",
            ")",
            Err("it closes what is not open, or closed already"),
        );
        check("x = {\"(\": a$0", ", b: ')'}", Ok(", b: ')'}"));
        check("fn f<'a>(x: &'a str$0", ") {", Ok(") {"));
    }

    #[test]
    fn a_window_that_begins_inside_the_file_allows_any_closer() {
        let mut context = context("a$0", Scope::Line);
        context.prefix_start = 1024;
        assert_eq!(kept(") b", &context, "rust"), Ok(") b".to_owned()));
    }

    #[test]
    fn there_must_be_something_to_show() {
        check("a =$0", " \t", Err("there is nothing but whitespace"));
        check(
            "f(a$0",
            ")",
            Err("there is nothing but closing punctuation"),
        );
        check("f(g(a$0", "));", Ok("));"));
        check("a =$0", " 1  ", Ok(" 1"));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_how_the_text_began(
            around in r#"[a-c(){}\[\]'"\n ]{0,30}\$0[a-c(){}\n ]{0,20}"#,
            text in r#"([a-c(){}\[\]'"\\\n ]|é|漢|😀){0,40}"#,
            block in any::<bool>(),
        ) {
            let context = context(&around, if block { BLOCK } else { Scope::Line });
            if let Ok(kept) = kept(&text, &context, "rust") {
                prop_assert!(text.starts_with(&kept) && !kept.trim().is_empty());
            }
        }
    }
}
