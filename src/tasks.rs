//! Tasks: what the model does on request, besides completing.
//!
//! A task is plain code that asks the model through the [`Desk`] and waits for the answers, on a
//! thread of its own. The engine lets completions go first at each pass.

pub mod desk;
pub mod doc_comment;
pub mod examples;
pub mod explain;
pub mod fix;
pub mod generate;
pub mod question;
pub mod solve;
pub mod test;
pub mod translate;

mod excerpt;

use std::ops::Range;
use std::path::Path;

use crate::text::exclusion::Exclusion;
use crate::text::language::Language;
use crate::text::syntax::Parsed;
use desk::Desk;
use examples::{Example, ExamplesError, neighbours};
use fix::Problem;

/// A task with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Translate to this language.
    Translate(Language),
    /// Write what is described at the cursor.
    Generate,
    /// Write what this text describes, in the source's language.
    Write(String),
    /// Explain what the code does.
    Explain,
    /// Write the doc comment of the function or type at the cursor.
    Document,
    /// Write a test for the function or type at the cursor.
    Test,
    /// Fix these problems.
    Fix(Vec<Problem>),
    /// Solve the problem that the source states, with programs in the source's language.
    Solve {
        /// How many programs to draw.
        draws: usize,
        /// How many to return, at most.
        best: usize,
    },
}

impl Task {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Translate(_) => "translate",
            Self::Generate | Self::Write(_) => "generate",
            Self::Explain => "explain",
            Self::Document => "document",
            Self::Test => "test",
            Self::Fix(_) => "fix",
            Self::Solve { .. } => "solve",
        }
    }

    /// The examples that it can learn from, the nearest first: the workspace's, and for a
    /// translation what exists in both languages beside the file. A task that continues a file
    /// learns from the file.
    ///
    /// # Errors
    ///
    /// If the workspace's examples cannot be used.
    pub fn examples(
        &self,
        source: &Source,
        file: Option<&Path>,
        workspace: Option<&Path>,
        exclusion: &Exclusion,
    ) -> Result<Vec<Example>, ExamplesError> {
        let mut found = match (self, workspace) {
            (Self::Generate | Self::Document | Self::Solve { .. }, _) | (_, None) => Vec::new(),
            (_, Some(workspace)) => examples::examples(workspace, exclusion, self.name())?,
        };
        if let (Self::Translate(to), Some(file)) = (self, file) {
            found.extend(neighbours(file, source.language, *to, exclusion));
        }
        examples::sort(&mut found, &source.text);
        Ok(found)
    }

    /// Performs it.
    ///
    /// # Errors
    ///
    /// See [`TaskError`].
    pub fn perform(&self, desk: &mut Desk<'_>, source: &Source) -> Result<Outcome, TaskError> {
        Ok(match self {
            Self::Translate(to) => translate::translate(desk, source, *to)?,
            Self::Generate => generate::at_cursor(desk, source)?,
            Self::Write(prompt) => generate::from_prompt(desk, prompt, source.language)?,
            Self::Explain => explain::explain(desk, source)?,
            Self::Document => doc_comment::document(desk, source)?,
            Self::Test => test::test(desk, source)?,
            Self::Fix(problems) => fix::fix(desk, source, problems)?,
            Self::Solve { draws, best } => solve::solve(desk, source, *draws, *best)?,
        })
    }
}

/// The text a task is about.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file's base name.
    pub file_name: String,
    /// Its language.
    pub language: Language,
    /// All of it; line ends are `\n`.
    pub text: String,
    /// The selected part, in bytes; empty if there is only a cursor.
    pub selection: Range<usize>,
}

impl Source {
    /// The file's name without its extension.
    fn stem(&self) -> &str {
        let name = self.file_name.as_str();
        name.rsplit_once('.').map_or(name, |(stem, _)| stem)
    }

    /// The line of an offset, counted from 1.
    fn line(&self, offset: usize) -> usize {
        self.text[..offset].matches('\n').count() + 1
    }

    /// The selected text, or if none is selected, all of it. Blank text is an error.
    fn code(&self) -> Result<&str, NoCode> {
        let code = match self.selection.is_empty() {
            true => &self.text,
            false => &self.text[self.selection.clone()],
        };
        match code.trim().is_empty() {
            true => Err(NoCode),
            false => Ok(code),
        }
    }
}

/// The result of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the task made.
    pub output: Output,
    /// Whether nothing is missing.
    pub complete: bool,
    /// What the user should know: what is missing, what does not parse.
    pub notes: Vec<String>,
}

/// What a task makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A new text.
    Text {
        /// The language's identifier: `rust`, `markdown`.
        language_id: &'static str,
        /// The name that a file of it would have.
        file_name: String,
        /// The text.
        text: String,
    },
    /// A change of the source: this range of bytes becomes this text.
    Edit(Range<usize>, String),
}

/// What a task reports while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A part of an answer, as the model writes it.
    Text(&'a str),
    /// Some parts are done.
    Done {
        /// The number of parts that are done.
        done: usize,
        /// The number of parts.
        all: usize,
        /// The same in words, or what is known about the parts.
        message: &'a str,
    },
}

/// Why a task has no outcome: the task's own error.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum TaskError {
    /// The examples cannot be used.
    Examples(#[from] ExamplesError),
    /// From `translate`.
    Translate(#[from] translate::TranslateError),
    /// From `generate`.
    Generate(#[from] generate::GenerateError),
    /// From `explain`.
    Explain(#[from] explain::ExplainError),
    /// From `document`.
    Document(#[from] doc_comment::DocumentError),
    /// From `test`.
    Test(#[from] test::TestError),
    /// From `fix`.
    Fix(#[from] fix::FixError),
    /// From `solve`.
    Solve(#[from] solve::SolveError),
}

/// There is nothing to work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no code here; select some, or put the cursor into it")]
pub struct NoCode;

/// There is no function or type at this line, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no function or type begins or goes on at line {0}")]
pub struct NoItem(pub usize);

/// The model wrote nothing of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model wrote nothing that can be used")]
pub struct NothingWritten;

/// Notes on where `text`, called `what` in them, does not parse.
fn parse_notes(text: &str, language: Language, what: &str) -> impl Iterator<Item = String> {
    let errors = Parsed::new(text, language).errors().into_iter();
    errors.map(move |error| format!("{what} does not parse: {error}"))
}
