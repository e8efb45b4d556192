//! Fixes code in which the editor has found problems.

use super::question::{Answer, Question};
use super::{Desk, NoCode, NothingWritten, Outcome, Output, Source};
use crate::engine::EngineError;
use crate::engine::request::likely_tokens;
use crate::text::syntax::{self, Parsed, SyntaxError};

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it begins, in bytes of the source.
    pub offset: usize,
    /// What the editor says.
    pub message: String,
}

/// Has the model fix the function or the selection that contains the problems.
///
/// # Errors
///
/// See [`FixError`]; if the answer adds syntax errors, nothing is changed.
pub fn fix(
    desk: &mut Desk<'_>,
    source: &Source,
    problems: &[Problem],
) -> Result<Outcome, FixError> {
    let Some(first) = problems.first() else {
        return Err(FixError::NoProblem);
    };
    let (text, language) = (&source.text, source.language);
    let parsed = Parsed::new(text, language);
    // An editor often selects only the word that it underlines.
    let several_lines = text[source.selection.clone()].trim_end().contains('\n');
    let range = match several_lines {
        true => source.selection.clone(),
        false => parsed
            .item_at(first.offset.min(text.len()))
            .map_or(0..text.len(), |item| item.range),
    };
    let code = &text[range.clone()];
    if code.trim().is_empty() {
        return Err(NoCode.into());
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
    let budget = likely_tokens(code) * 3 / 2 + 64;
    let written = desk.ask(&question, budget)?;
    if !written.complete {
        return Err(FixError::CutShort);
    }
    let fixed = written.text.trim_end();
    if fixed.trim().is_empty() {
        return Err(NothingWritten.into());
    }
    let fixed = format!("{fixed}{}", &code[code.trim_end().len()..]);
    let before = parsed.errors().len();
    let after = format!("{}{fixed}{}", &text[..range.start], &text[range.end..]);
    let errors = syntax::errors(&after, language);
    if errors.len() > before
        && let Some(error) = errors.into_iter().next()
    {
        return Err(FixError::Broken(error));
    }
    let notes = match fixed == code {
        true => vec!["the model changed nothing".to_owned()],
        false => Vec::new(),
    };
    Ok(Outcome {
        output: Output::Edit(range, fixed),
        complete: true,
        notes,
    })
}

/// Why nothing is fixed.
#[derive(Debug, thiserror::Error)]
pub enum FixError {
    /// No problem was given.
    #[error("nothing is known to be wrong here; there are no diagnostics in the selection")]
    NoProblem,
    /// There is nothing to work on.
    #[error(transparent)]
    NoCode(#[from] NoCode),
    /// The answer is empty.
    #[error(transparent)]
    Nothing(#[from] NothingWritten),
    /// The answer is incomplete.
    #[error("the model's answer was cut short, and nothing was changed")]
    CutShort,
    /// The answer would break the file.
    #[error("the model's answer does not parse ({0}), and nothing was changed")]
    Broken(SyntaxError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
