//! Translates code from one language to another, an item at a time.

use std::collections::BTreeSet;

use super::excerpt::{Excerpt, Wanted, words};
use super::question::{Answer, Question};
use super::{Desk, NoCode, Outcome, Output, Progress, Source, parse_notes};
use crate::engine::EngineError;
use crate::engine::request::likely_tokens;
use crate::text::language::Language;
use crate::text::syntax::{Item, ItemKind, Parsed};

/// Tokens that an answer may have beyond three times those of its input: a language with types and
/// braces says the same at greater length. Most answers end by themselves.
const SLACK: usize = 64;

/// The most errors of the source that are named.
const MAX_ERRORS: usize = 3;

/// Translates the selected code, or all of it, into `to`.
///
/// Each function or type is a question of its own, with the file's imports above it and the heads
/// of what is translated already, so that an answer is about as long as its input and calls what
/// exists. What an item uses is translated before it. Of an answer only what was asked for is kept,
/// and what that needs.
///
/// # Errors
///
/// See [`TranslateError`]. An item that does not fit the model, or gets no answer, is left out and
/// named in the outcome's notes.
pub fn translate(
    desk: &mut Desk<'_>,
    source: &Source,
    to: Language,
) -> Result<Outcome, TranslateError> {
    let code = source.code()?;
    let from = source.language;
    let first_line = match source.selection.is_empty() {
        true => 1,
        false => source.line(source.selection.start),
    };
    let parsed = Parsed::new(code, from);
    let items = parsed.items();
    let mut notes = Vec::new();
    notes.extend(
        parsed
            .gave_up()
            .map(|why| format!("the source is translated in one piece: {why}")),
    );
    let errors = parsed.errors().into_iter().take(MAX_ERRORS);
    notes.extend(errors.map(|mut error| {
        error.line += first_line - 1;
        format!("the source does not parse: {error}")
    }));

    let is_import = |item: &&Item| item.kind == ItemKind::Imports;
    let imports: String = items
        .iter()
        .filter(is_import)
        .map(|item| &code[item.range.clone()])
        .collect();
    let parts: Vec<Part<'_>> = items
        .iter()
        .filter(|item| !is_import(item))
        .map(|item| Part {
            item,
            code: code[item.range.clone()].trim_matches('\n').trim_end(),
            line: first_line + code[..item.range.start].matches('\n').count(),
        })
        .filter(|part| !part.code.is_empty())
        .collect();
    if parts.is_empty() {
        return Err(NoCode.into());
    }
    let mut translation = Translation {
        from,
        to,
        imports: &imports,
        names: parts.iter().filter_map(Part::name).collect(),
        written: vec![Excerpt::default(); parts.len()],
        notes,
        complete: true,
    };
    for (done, index) in callees_first(&parts).into_iter().enumerate() {
        report_progress(desk, done, parts.len());
        translation.written[index] = translation.part(desk, &parts[index])?;
    }
    report_progress(desk, parts.len(), parts.len());
    let text = translation.text();
    let mut notes = translation.notes;
    notes.extend(parse_notes(&text, to, "the translation"));
    Ok(Outcome {
        output: Output::Text {
            language_id: to.id(),
            file_name: format!("{}.{}", source.stem(), to.extension()),
            text,
        },
        complete: translation.complete,
        notes,
    })
}

fn report_progress(desk: &mut Desk<'_>, done: usize, all: usize) {
    let message = &format!("{done} of {all} parts");
    (desk.observer)(Progress::Done { done, all, message });
}

/// A part of the source that is translated by itself.
struct Part<'a> {
    item: &'a Item,
    code: &'a str,
    /// Its first line, counted from 1.
    line: usize,
}

impl Part<'_> {
    fn name(&self) -> Option<&str> {
        self.item.name.as_deref()
    }

    /// Whether it is a function without parameters.
    fn takes_nothing(&self) -> bool {
        let signature = self.item.signature.as_deref().unwrap_or_default();
        signature.contains("()")
    }

    /// What the user knows it by.
    fn title(&self) -> String {
        let name = self.name().unwrap_or("the code");
        format!("{name} (line {})", self.line)
    }
}

/// The parts in an order in which each comes after those that it mentions, where that is possible.
fn callees_first(parts: &[Part<'_>]) -> Vec<usize> {
    fn visit(index: usize, parts: &[Part<'_>], seen: &mut BTreeSet<usize>, order: &mut Vec<usize>) {
        if !seen.insert(index) {
            return;
        }
        let words: BTreeSet<&str> = words(parts[index].code).collect();
        for (other, part) in parts.iter().enumerate() {
            if part.name().is_some_and(|name| words.contains(name)) {
                visit(other, parts, seen, order);
            }
        }
        order.push(index);
    }
    let mut order = Vec::with_capacity(parts.len());
    let mut seen = BTreeSet::new();
    for index in 0..parts.len() {
        visit(index, parts, &mut seen, &mut order);
    }
    order
}

/// A translation in the making.
struct Translation<'a> {
    from: Language,
    to: Language,
    /// Those of the source.
    imports: &'a str,
    /// The names of all parts.
    names: Vec<&'a str>,
    /// For each part what was kept of its answer.
    written: Vec<Excerpt>,
    notes: Vec<String>,
    complete: bool,
}

impl Translation<'_> {
    /// Translates a part.
    fn part(&mut self, desk: &mut Desk<'_>, part: &Part<'_>) -> Result<Excerpt, EngineError> {
        let (from, to) = (self.from, self.to);
        if let Some(lines) = comment(part.code, from) {
            let code = commented(&lines, to);
            return Ok(Excerpt {
                code,
                ..Excerpt::default()
            });
        }
        if begins_by_itself(to) && calls_main(part.code, from) && self.names.contains(&"main") {
            return Ok(Excerpt::default());
        }
        let name = part.name();
        let what = match (part.item.kind, name) {
            (ItemKind::Function, Some(name)) => format!("function `{name}`"),
            (ItemKind::Type, Some(name)) => format!("type `{name}`"),
            _ => "code".to_owned(),
        };
        let start = match (part.item.kind, name) {
            (ItemKind::Function, Some(name)) => head(to, name, part.takes_nothing()),
            _ => String::new(),
        };
        let question = Question {
            instruction: format!("Translate this {} {what} to {}.", from.name(), to.name()),
            details: self.details(),
            code: Some((from, format!("{}{}", self.imports, part.code))),
            answer: Answer::Code {
                language: to,
                start: start.clone(),
            },
        };
        let elsewhere: Vec<&str> = self
            .names
            .iter()
            .copied()
            .filter(|other| Some(*other) != name)
            .collect();
        let wanted = Wanted {
            kind: part.item.kind,
            name,
            elsewhere: &elsewhere,
        };
        let is_written = |text: &str| wanted.is_written(&format!("{start}{text}"), to);
        let budget = 3 * likely_tokens(part.code) + SLACK;
        let title = part.title();
        let why = match desk.ask_until(&question, budget, is_written) {
            Ok(written) if written.text.trim().is_empty() => "the model wrote nothing".to_owned(),
            Ok(written) => {
                let excerpt = wanted.excerpt(&format!("{start}{}", written.text), to);
                if !excerpt.left_out.is_empty() {
                    let names = excerpt.left_out.join(", ");
                    self.notes.push(format!(
                        "{title}: the model also wrote {names}; it is left out"
                    ));
                }
                if !written.complete && excerpt.ends_answer {
                    self.complete = false;
                    self.notes.push(format!("{title} was cut short"));
                }
                return Ok(excerpt);
            }
            Err(error @ EngineError::TooLong { .. }) => error.to_string(),
            Err(error) => return Err(error),
        };
        self.complete = false;
        self.notes.push(format!("{title} is left out: {why}"));
        let name = name.unwrap_or("the code");
        let line = format!("Not translated: {name}, from line {} on.", part.line);
        Ok(Excerpt {
            code: commented(&[&line], to),
            ..Excerpt::default()
        })
    }

    fn details(&self) -> String {
        let signatures = self.written.iter().flat_map(|part| &part.signatures);
        let signatures: Vec<&str> = signatures.map(String::as_str).collect();
        match signatures.is_empty() {
            true => String::new(),
            false => format!(
                " These are translated already and can be called:\n\n{}",
                signatures.join("\n")
            ),
        }
    }

    fn text(&self) -> String {
        let mut imports: Vec<&str> = Vec::new();
        for import in self.written.iter().flat_map(|part| &part.imports) {
            if !imports.contains(&import.as_str()) {
                imports.push(import);
            }
        }
        // A package clause and `from __future__` come first.
        imports.sort_by_key(|import| {
            let first = import.starts_with("package ") || import.starts_with("from __future__");
            (!first, *import)
        });
        let imports = imports.join("\n");
        let parts = self.written.iter().map(|part| part.code.as_str());
        let blocks = std::iter::once(imports.as_str()).chain(parts);
        let blocks: Vec<&str> = blocks.filter(|block| !block.is_empty()).collect();
        format!("{}\n", blocks.join("\n\n"))
    }
}

/// How a function begins, in languages that put its name first: a small model then writes that
/// function and nothing else.
fn head(language: Language, name: &str, takes_nothing: bool) -> String {
    let open = if takes_nothing { "()" } else { "(" };
    match language {
        Language::Python | Language::Ruby => format!("def {name}{open}"),
        Language::JavaScript | Language::TypeScript => format!("function {name}{open}"),
        Language::Rust => format!("fn {name}{open}"),
        Language::Go => format!("func {name}{open}"),
        Language::Java | Language::C | Language::Cpp | Language::CSharp => String::new(),
    }
}

/// The lines of a comment or of a docstring, if `code` is nothing else.
fn comment(code: &str, language: Language) -> Option<Vec<&str>> {
    let mark = language.line_comment();
    let lines = code.lines().map(str::trim);
    let lines: Option<Vec<&str>> = lines
        .map(|line| match line {
            "" => Some(line),
            line => line.strip_prefix(mark).map(str::trim_end),
        })
        .collect();
    if lines.is_some() {
        return lines.map(|lines| {
            let plain = |line: &&str| line.is_empty() || line.starts_with(' ');
            match lines.iter().all(plain) {
                true => lines
                    .into_iter()
                    .map(|line| line.get(1..).unwrap_or_default())
                    .collect(),
                false => lines,
            }
        });
    }
    let (open, close) = match language {
        Language::Python => ("\"\"\"", "\"\"\""),
        Language::Ruby => return None,
        _ => ("/*", "*/"),
    };
    let inside = code.trim().strip_prefix(open)?.strip_suffix(close)?;
    if inside.contains(open) || inside.contains(close) {
        return None;
    }
    let lines = inside.trim().lines().map(str::trim);
    Some(
        lines
            .map(|line| line.trim_start_matches(['*', ' ']))
            .collect(),
    )
}

fn commented(lines: &[&str], language: Language) -> String {
    let mark = language.line_comment();
    let lines: Vec<String> = lines
        .iter()
        .map(|line| format!("{mark} {line}").trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// Whether a program begins at its function `main`, without being told to.
fn begins_by_itself(language: Language) -> bool {
    match language {
        Language::Rust | Language::Go | Language::C | Language::Cpp => true,
        Language::Java
        | Language::CSharp
        | Language::Python
        | Language::JavaScript
        | Language::TypeScript
        | Language::Ruby => false,
    }
}

/// Whether `code` does nothing but call `main` when the file is run.
fn calls_main(code: &str, language: Language) -> bool {
    let code = match (language, code.split_once('\n')) {
        (Language::Python, Some((line, block))) if line.starts_with("if __name__ ==") => block,
        _ => code,
    };
    code.trim().trim_end_matches(';') == "main()"
}

/// Why nothing is translated.
#[derive(Debug, thiserror::Error)]
pub enum TranslateError {
    /// There is nothing to work on.
    #[error(transparent)]
    NoCode(#[from] NoCode),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::syntax;

    #[test]
    fn what_is_called_is_translated_first() {
        let check = |code: &str, expected: &[usize]| {
            let items = syntax::items(code, Language::Python);
            let parts = items.iter().map(|item| Part {
                item,
                code: &code[item.range.clone()],
                line: 1,
            });
            let parts: Vec<_> = parts.collect();
            assert_eq!(callees_first(&parts), expected, "{code}");
        };
        check(
            "def a():\n    b()\n\ndef b():\n    c()\n\ndef c(): pass\n",
            &[2, 1, 0],
        );
        check("def a():\n    b()\n\ndef b():\n    a()\n", &[1, 0]);
        check("def a():\n    a()\n\ndef b(): pass\n", &[0, 1]);
    }

    #[test]
    fn comments_need_no_model() {
        let check = |code: &str, from: Language, to: Language, expected: Option<&str>| {
            let translated = comment(code, from).map(|lines| commented(&lines, to));
            assert_eq!(translated.as_deref(), expected, "{code}");
        };
        use Language::{JavaScript, Python, Rust};
        check(
            "\"\"\"A shop.\n\nWhat is there.\n\"\"\"",
            Python,
            Rust,
            Some("// A shop.\n//\n// What is there."),
        );
        check(
            "# a\n#   b\n#\n# c",
            Python,
            JavaScript,
            Some("// a\n//   b\n//\n// c"),
        );
        check("/* a\n * b\n */", JavaScript, Python, Some("# a\n# b"));
        check("//a\n// b", Rust, Python, Some("# a\n#  b"));
        check("# a\nb = 1", Python, Rust, None);
        check("\"\"\"a\"\"\" + \"\"\"b\"\"\"", Python, Rust, None);
    }

    #[test]
    fn a_call_of_main_is_seen() {
        let check = |code: &str, language: Language, expected: bool| {
            assert_eq!(calls_main(code, language), expected, "{code}");
        };
        check(
            "if __name__ == \"__main__\":\n    main()",
            Language::Python,
            true,
        );
        check(
            "if __name__ == \"__main__\":\n    main(1)",
            Language::Python,
            false,
        );
        check("if ready:\n    main()", Language::Python, false);
        check("main();", Language::JavaScript, true);
        check("main();\nother();", Language::JavaScript, false);
    }
}
