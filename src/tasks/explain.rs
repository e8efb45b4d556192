//! Explains in words what code does.

use super::question::{Answer, Question};
use super::{Desk, NoCode, NothingWritten, Outcome, Output, Source};
use crate::engine::EngineError;

/// The longest explanation, in tokens.
const BUDGET: usize = 400;

/// Explains the selected code, or all of it.
///
/// # Errors
///
/// See [`ExplainError`].
pub fn explain(desk: &mut Desk<'_>, source: &Source) -> Result<Outcome, ExplainError> {
    let name = source.language.name();
    let question = Question {
        instruction: format!("Explain step by step what this {name} code does."),
        details: String::new(),
        code: Some((source.language, source.code()?.to_owned())),
        answer: Answer::Prose,
    };
    let written = desk.ask(&question, BUDGET)?;
    if written.text.trim().is_empty() {
        return Err(NothingWritten.into());
    }
    Ok(Outcome {
        output: Output::Text {
            language_id: "markdown",
            file_name: format!("{}.md", source.file_name),
            text: format!("{}\n", written.text.trim()),
        },
        complete: written.complete,
        notes: written.cut_short("the explanation"),
    })
}

/// Why nothing is explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
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
