//! Writes code from a description.

use super::question::{Answer, Question};
use super::{Desk, NoCode, NothingWritten, Outcome, Output, Source, parse_notes};
use crate::engine::EngineError;
use crate::engine::request::Hole;
use crate::engine::stop::Scope;
use crate::text::language::Language;

/// The longest code, in tokens.
const BUDGET: usize = 384;

/// Writes code as `prompt` describes it.
///
/// # Errors
///
/// See [`GenerateError`].
pub fn from_prompt(
    desk: &mut Desk<'_>,
    prompt: &str,
    language: Language,
) -> Result<Outcome, GenerateError> {
    if prompt.trim().is_empty() {
        return Err(NoCode.into());
    }
    let question = Question {
        instruction: format!("Write {} code:", language.name()),
        details: prompt.to_owned(),
        code: None,
        answer: Answer::Code {
            language,
            start: String::new(),
        },
    };
    let written = desk.ask(&question, BUDGET)?;
    if written.text.trim().is_empty() {
        return Err(NothingWritten.into());
    }
    let text = written.as_file("", language);
    let mut notes = written.cut_short("the code");
    notes.extend(parse_notes(&text, language, "it"));
    Ok(Outcome {
        complete: written.complete,
        output: Output::Text {
            language_id: language.id(),
            file_name: format!("generated.{}", language.extension()),
            text,
        },
        notes,
    })
}

/// Writes the lines below the cursor's line: the code that the comment or docstring ending on that
/// line describes.
///
/// # Errors
///
/// See [`GenerateError`].
pub fn at_cursor(desk: &mut Desk<'_>, source: &Source) -> Result<Outcome, GenerateError> {
    let text = &source.text;
    let cursor = source.selection.end;
    let start = text[..cursor].rfind('\n').map_or(0, |end| end + 1);
    let end = text[cursor..]
        .find('\n')
        .map_or(text.len(), |end| cursor + end);
    let line = &text[start..end];
    if line.trim().is_empty() {
        return Err(NoCode.into());
    }
    let indent = line.len() - line.trim_start().len();
    let hole = |code: &str| Hole {
        file_name: source.file_name.clone(),
        prefix: format!("{}{code}", &text[..end]),
        suffix: text[end..].to_owned(),
        ..Hole::default()
    };
    let mut code = "\n".to_owned();
    let first = desk.fill(hole(&code), Scope::Line, BUDGET)?;
    code.push_str(first.text.trim_end());
    if code.trim().is_empty() {
        return Err(NothingWritten.into());
    }
    let rest = match (code.ends_with([':', '{']), indent.checked_sub(1)) {
        // It opens a block, which is what was requested.
        (true, _) => {
            let before = hole(&code).prefix;
            desk.go_on(&source.file_name, &before, Scope::Block { indent }, BUDGET)?
        }
        // Lines indented as deep as the description belong to it.
        (false, Some(indent)) => desk.fill(hole(&code), Scope::Block { indent }, BUDGET)?,
        (false, None) => desk.fill(hole(&code), Scope::Text, BUDGET)?,
    };
    code.push_str(rest.text.trim_end());
    Ok(Outcome {
        complete: rest.complete,
        notes: rest.cut_short("the code"),
        output: Output::Edit(end..end, code),
    })
}

/// Why nothing is generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// There is nothing to work on.
    #[error(transparent)]
    NoCode(#[from] NoCode),
    /// The answer is empty.
    #[error(transparent)]
    Nothing(#[from] NothingWritten),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
