//! Translates code from one language to another, an item at a time.

use super::question::{Answer, Question};
use super::{Desk, NoCode, Outcome, Output, Progress, Source, parse_notes};
use crate::engine::EngineError;
use crate::engine::request::likely_tokens;
use crate::text::language::Language;
use crate::text::syntax::{Item, ItemKind, Parsed};

/// Tokens that an answer may have beyond twice those of its input.
const SLACK: usize = 64;

/// Translates the selected code, or all of it, into `to`.
///
/// Each function or type is a question of its own, with the file's imports above it and the heads
/// of what is translated already, so that an answer is about as long as its input and calls what
/// exists.
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
    let broken = parsed.errors();
    notes.extend(
        broken
            .first()
            .map(|error| format!("the source does not parse: {error}")),
    );

    let (imports, parts): (Vec<&Item>, Vec<&Item>) = items
        .iter()
        .filter(|item| !code[item.range.clone()].trim().is_empty())
        .partition(|item| item.kind == ItemKind::Imports);
    let imports: String = imports
        .iter()
        .map(|item| &code[item.range.clone()])
        .collect();
    if parts.is_empty() {
        return Err(NoCode.into());
    }
    let mut translation = Translation::new(to);
    let mut complete = true;
    for (done, item) in parts.iter().enumerate() {
        report_progress(desk, done, parts.len());
        let part = code[item.range.clone()].trim_matches('\n').trim_end();
        let line = first_line + code[..item.range.start].matches('\n').count();
        let name = item.name.as_deref().unwrap_or("the code");
        let start = match (item.kind, &item.name) {
            (ItemKind::Function, Some(name)) => head(to, name),
            _ => String::new(),
        };
        let question = Question {
            instruction: format!("Translate this {} code to {}.", from.name(), to.name()),
            details: translation.details(),
            code: Some((from, format!("{imports}{part}"))),
            answer: Answer::Code {
                language: to,
                start: start.clone(),
            },
        };
        let budget = 2 * likely_tokens(part) + SLACK;
        let left_out = match desk.ask(&question, budget) {
            Ok(written) if written.text.trim().is_empty() => {
                Some("the model wrote nothing".to_owned())
            }
            Ok(written) => {
                if !written.complete {
                    complete = false;
                    notes.push(format!("{name} (line {line}) was cut short"));
                }
                translation.add(&format!("{start}{}", written.text), !start.is_empty());
                None
            }
            Err(error @ EngineError::TooLong { .. }) => Some(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        if let Some(why) = left_out {
            complete = false;
            notes.push(format!("{name} (line {line}) is left out: {why}"));
            translation.leave_out(name, line);
        }
    }
    report_progress(desk, parts.len(), parts.len());
    let text = translation.text();
    notes.extend(parse_notes(&text, to, "the translation"));
    Ok(Outcome {
        output: Output::Text {
            language_id: to.id(),
            file_name: format!("{}.{}", source.stem(), to.extension()),
            text,
        },
        complete,
        notes,
    })
}

fn report_progress(desk: &mut Desk<'_>, done: usize, all: usize) {
    let message = &format!("{done} of {all} parts");
    (desk.observer)(Progress::Done { done, all, message });
}

/// How a function begins, in languages that put its name first: a small model then writes that
/// function and nothing else.
fn head(language: Language, name: &str) -> String {
    match language {
        Language::Python | Language::Ruby => format!("def {name}("),
        Language::JavaScript | Language::TypeScript => format!("function {name}("),
        Language::Rust => format!("fn {name}("),
        Language::Go => format!("func {name}("),
        Language::Java | Language::C | Language::Cpp | Language::CSharp => String::new(),
    }
}

/// What has been translated so far.
struct Translation {
    language: Language,
    /// Each line once, in the order in which they appeared.
    imports: Vec<String>,
    parts: Vec<String>,
    signatures: Vec<String>,
}

impl Translation {
    fn new(language: Language) -> Self {
        Self {
            language,
            imports: Vec::new(),
            parts: Vec::new(),
            signatures: Vec::new(),
        }
    }

    fn details(&self) -> String {
        match self.signatures.is_empty() {
            true => String::new(),
            false => format!(
                " These are translated already and can be called:\n\n{}",
                self.signatures.join("\n")
            ),
        }
    }

    /// Adds an answer. Its imports go to the top, with those of other answers. If the answer should
    /// be a `single` function, what comes after that is dropped.
    fn add(&mut self, answer: &str, single: bool) {
        let mut part = String::new();
        for item in Parsed::new(answer, self.language).items() {
            let text = &answer[item.range];
            if item.kind == ItemKind::Imports {
                for line in text.lines().filter(|line| !line.trim().is_empty()) {
                    if !self.imports.iter().any(|import| import == line) {
                        self.imports.push(line.to_owned());
                    }
                }
            } else {
                part.push_str(text);
                let defines = item.signature.is_some();
                self.signatures.extend(item.signature);
                if single && defines {
                    break;
                }
            }
        }
        self.parts
            .push(part.trim_matches('\n').trim_end().to_owned());
    }

    fn leave_out(&mut self, name: &str, line: usize) {
        let comment = self.language.line_comment();
        self.parts.push(format!(
            "{comment} Not translated: {name}, from line {line} on."
        ));
    }

    fn text(&self) -> String {
        let mut blocks = vec![self.imports.join("\n")];
        blocks.extend_from_slice(&self.parts);
        blocks.retain(|block| !block.is_empty());
        format!("{}\n", blocks.join("\n\n"))
    }
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
