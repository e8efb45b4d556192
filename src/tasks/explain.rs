//! Says in words what code does.

use super::question::{Answer, Question};
use super::{Desk, Outcome, Output, Source, TaskError};

/// The longest explanation, in tokens.
const BUDGET: usize = 400;

/// Explains the selected code, or all of it.
///
/// # Errors
///
/// See [`TaskError`].
pub fn explain(desk: &mut Desk<'_>, source: &Source) -> Result<Outcome, TaskError> {
    let name = source.language.name();
    let question = Question {
        instruction: format!("Explain step by step what this {name} code does."),
        details: String::new(),
        code: Some((source.language, source.code()?.to_owned())),
        answer: Answer::Prose,
    };
    let written = desk.ask(&question, BUDGET)?;
    if written.text.trim().is_empty() {
        return Err(TaskError::Nothing);
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
