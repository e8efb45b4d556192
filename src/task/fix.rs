//! Mends code that the editor has found something wrong with.

use super::question::{Answer, Question};
use super::{Desk, Outcome, Output, Source, TaskError};
use crate::syntax;

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
    let range = match source.selection.is_empty() {
        false => source.selection.clone(),
        true => syntax::item_at(text, language, first.offset.min(text.len()))
            .map_or(0..text.len(), |item| item.range),
    };
    let code = &text[range.clone()];
    if code.trim().is_empty() {
        return Err(TaskError::Blank);
    }
    let mut instruction = format!(
        "Fix this {} code. It has these problems:\n",
        language.name()
    );
    for problem in problems {
        let offset = problem.offset.clamp(range.start, range.end);
        let line = text[range.start..text.floor_char_boundary(offset)]
            .matches('\n')
            .count()
            + 1;
        instruction.push_str(&format!("\n- line {line}: {}", problem.message));
    }
    let question = Question {
        instruction,
        code: Some((language, code.to_owned())),
        answer: Answer::Code {
            language,
            start: String::new(),
        },
    };
    let budget = desk.count(code) * 3 / 2 + 64;
    let written = desk.ask(&question, budget)?;
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
    let mut notes = written.cut_short("the answer");
    if mended == code {
        notes.push("the model changes nothing".to_owned());
    }
    Ok(Outcome {
        output: Output::Edit(range, mended),
        complete: written.complete,
        notes,
    })
}
