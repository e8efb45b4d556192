//! Mends code that the editor has found something wrong with.

use super::question::{Answer, Question};
use super::{Desk, Outcome, Output, Source, TaskError};
use crate::text::syntax;

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it begins, in bytes of the source.
    pub offset: usize,
    /// What the editor says.
    pub message: String,
}

/// Has the model mend the function or the selection in which the problems are.
///
/// # Errors
///
/// See [`TaskError`]; where the answer does not parse and the code did, nothing is changed.
pub fn fix(
    desk: &mut Desk<'_>,
    source: &Source,
    problems: &[Problem],
) -> Result<Outcome, TaskError> {
    let Some(first) = problems.first() else {
        return Err(TaskError::NoProblem);
    };
    let (text, language) = (&source.text, source.language);
    // What an editor selects is often only the word it underlines.
    let several_lines = text[source.selection.clone()].trim_end().contains('\n');
    let range = match several_lines {
        true => source.selection.clone(),
        false => syntax::item_at(text, language, first.offset.min(text.len()))
            .map_or(0..text.len(), |item| item.range),
    };
    let code = &text[range.clone()];
    if code.trim().is_empty() {
        return Err(TaskError::Blank);
    }
    let mut details = " It has these problems:\n".to_owned();
    for problem in problems {
        let offset = problem.offset.clamp(range.start, range.end);
        let line = text[range.start..text.floor_char_boundary(offset)]
            .matches('\n')
            .count()
            + 1;
        details.push_str(&format!("\n- line {line}: {}", problem.message));
    }
    let question = Question {
        instruction: format!("Fix this {} code.", language.name()),
        details,
        code: Some((language, code.to_owned())),
        answer: Answer::Code {
            language,
            start: String::new(),
        },
    };
    let budget = desk.count(code) * 3 / 2 + 64;
    let written = desk.ask(&question, budget)?;
    if !written.complete {
        return Err(TaskError::CutShort);
    }
    let mended = written.text.trim_end();
    if mended.trim().is_empty() {
        return Err(TaskError::Nothing);
    }
    let mended = format!("{mended}{}", &code[code.trim_end().len()..]);
    let before = syntax::errors(text, language).len();
    let after = format!("{}{mended}{}", &text[..range.start], &text[range.end..]);
    let errors = syntax::errors(&after, language);
    if errors.len() > before
        && let Some(error) = errors.into_iter().next()
    {
        return Err(TaskError::Broken(error));
    }
    let notes = match mended == code {
        true => vec!["the model changes nothing".to_owned()],
        false => Vec::new(),
    };
    Ok(Outcome {
        output: Output::Edit(range, mended),
        complete: true,
        notes,
    })
}
