//! Tasks: what the model does on request, beside completing.
//!
//! A task is plain code that asks the [`Desk`] and waits for the answers, on a thread of its own; the
//! engine lets completions come between at each pass.

pub mod doc_comment;
pub mod examples;
pub mod explain;
pub mod fix;
pub mod generate;
pub mod question;
pub mod solve;
pub mod test;
pub mod translate;

use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use crate::engine::cancel::Cancel;
use crate::engine::generate::Generation;
use crate::engine::prompt::{Hole, PromptBuilder};
use crate::engine::sampler::Sampling;
use crate::engine::stop::{FinishReason, Scope};
use crate::engine::task::{TaskEvent, TaskRequest};
use crate::engine::{Engine, EngineError, Ready};
use crate::model::chat_template::ChatTemplateError;
use crate::text::exclusion::Exclusion;
use crate::text::language::Language;
use crate::text::syntax::{Parsed, SyntaxError};
use examples::{Example, neighbours};
use fix::Problem;
use question::Question;

/// Within this time a cancelled task ends, wherever it waits.
pub const HEARD: Duration = Duration::from_millis(100);

/// What can be done on request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Translate to this language.
    Translate(Language),
    /// Write what is described at the cursor.
    Generate,
    /// Write what this text describes, in the source's language.
    Write(String),
    /// Say what the code does.
    Explain,
    /// Write the comment of the function or type at the cursor.
    Document,
    /// Write a test for the function or type at the cursor.
    Test,
    /// Mend these problems.
    Fix(Vec<Problem>),
    /// Solve the problem that the source states, with programs in the source's language.
    Solve {
        /// How many programs to draw.
        draws: usize,
        /// How many to answer with, at most.
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

    /// What it can learn from, the nearest first: the workspace's examples, and for a translation what
    /// stands beside the file in both languages. What goes on in a file has the file.
    ///
    /// # Errors
    ///
    /// When the workspace's examples are not as they must be.
    pub fn examples(
        &self,
        source: &Source,
        file: Option<&Path>,
        workspace: Option<&Path>,
        exclusion: &Exclusion,
    ) -> Result<Vec<Example>, TaskError> {
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

    /// Does it.
    ///
    /// # Errors
    ///
    /// See [`TaskError`].
    pub fn perform(&self, desk: &mut Desk<'_>, source: &Source) -> Result<Outcome, TaskError> {
        match self {
            Self::Translate(to) => translate::translate(desk, source, *to),
            Self::Generate => generate::at_cursor(desk, source),
            Self::Write(prompt) => generate::from_prompt(desk, prompt, source.language),
            Self::Explain => explain::explain(desk, source),
            Self::Document => doc_comment::document(desk, source),
            Self::Test => test::test(desk, source),
            Self::Fix(problems) => fix::fix(desk, source, problems),
            Self::Solve { draws, best } => solve::solve(desk, source, *draws, *best),
        }
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
    /// The part that is meant, in bytes; empty where only a cursor stands.
    pub selection: Range<usize>,
}

impl Source {
    /// The file's name without its extension.
    fn stem(&self) -> &str {
        let name = self.file_name.as_str();
        name.rsplit_once('.').map_or(name, |(stem, _)| stem)
    }

    /// The selected text, or where none is selected, all of it. Blank text is an error.
    fn code(&self) -> Result<&str, TaskError> {
        let code = match self.selection.is_empty() {
            true => &self.text,
            false => &self.text[self.selection.clone()],
        };
        match code.trim().is_empty() {
            true => Err(TaskError::Blank),
            false => Ok(code),
        }
    }
}

/// What came of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What to do with it.
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
        /// What a file of it would be called.
        file_name: String,
        /// The text.
        text: String,
    },
    /// A change of the source: this range of bytes becomes this text.
    Edit(Range<usize>, String),
}

/// What happens while a task is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A part of an answer, as the model writes it.
    Text(&'a str),
    /// So much is done.
    Done {
        /// Parts that are done.
        done: usize,
        /// Parts there are.
        all: usize,
        /// The same in words, or what is known of them.
        message: &'a str,
    },
}

/// Why a task has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// There is nothing to work on.
    #[error("there is no code here; select some, or put the cursor into it")]
    Blank,
    /// No function or type stands at the cursor.
    #[error("no function or type begins or goes on at line {0}")]
    NoItem(usize),
    /// The item has a comment of this kind.
    #[error("{0} is documented already")]
    Documented(String),
    /// Nobody said what is wrong.
    #[error("nothing is known to be wrong here; there are no diagnostics in the selection")]
    NoProblem,
    /// The prompt has no room.
    #[error(
        "the text is too long for the model: {prompt} tokens with its prompt, and {room} fit beside the answer; select less"
    )]
    TooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens that would fit.
        room: usize,
    },
    /// The model wrote nothing of use.
    #[error("the model wrote nothing that can be used")]
    Nothing,
    /// The answer would break the file.
    #[error("the model's answer does not parse ({0}), and nothing was changed")]
    Broken(SyntaxError),
    /// The answer is not all there.
    #[error("the model's answer was cut short, and nothing was changed")]
    CutShort,
    /// The user ended it.
    #[error("cancelled")]
    Cancelled,
    /// The model's chat template does not work.
    #[error(transparent)]
    Template(#[from] ChatTemplateError),
    /// The examples in the workspace are not as they must be.
    #[error(transparent)]
    Examples(#[from] examples::ExamplesError),
    /// The source states no problem.
    #[error(transparent)]
    Problem(#[from] solve::problem::ProblemError),
    /// Programs cannot be judged.
    #[error(transparent)]
    Judge(#[from] solve::judge::JudgeError),
    /// Programs cannot be run.
    #[error("cannot run the programs: {0}")]
    Run(#[from] std::io::Error),
    /// The model failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What a task works with.
pub struct Desk<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// What the engine told of its model.
    pub ready: &'a Ready,
    /// Ends the task early.
    pub cancel: &'a Cancel,
    /// Pairs to learn from, the nearest first.
    pub examples: Vec<Example>,
    /// Is told how it goes.
    pub observer: &'a mut dyn FnMut(Progress<'_>),
    /// Is shown each prompt, as the model is given it.
    pub show_prompt: Option<&'a mut dyn FnMut(&str)>,
}

/// A text the model wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The text.
    pub text: String,
    /// Whether the model came to its end, and was not cut short.
    pub complete: bool,
}

/// The text without its last item, if that is broken and not the only one: an answer that was cut short
/// ends in the midst of it.
fn without_stump(text: &str, language: Language) -> &str {
    let parsed = Parsed::new(text, language);
    let Some(error) = parsed.errors().into_iter().last() else {
        return text;
    };
    let start = match parsed.items().as_slice() {
        [_, .., last] => last.range.start,
        _ => return text,
    };
    let first_line = text[..start].matches('\n').count() + 1;
    if error.line >= first_line {
        &text[..start]
    } else {
        text
    }
}

/// The notes of where `what`, which is this text, does not parse.
fn parse_notes(text: &str, language: Language, what: &str) -> impl Iterator<Item = String> {
    let errors = Parsed::new(text, language).errors().into_iter();
    errors.map(move |error| format!("{what} does not parse: {error}"))
}

impl Written {
    /// The code behind `start` as a text of its own, without a stump where it was cut short.
    fn as_file(&self, start: &str, language: Language) -> String {
        let text = format!("{start}{}", self.text);
        let text = match self.complete {
            true => &text,
            false => without_stump(&text, language),
        };
        format!("{}\n", text.trim_end())
    }

    /// The note that `what` was cut short, if it was.
    fn cut_short(&self, what: &str) -> Vec<String> {
        match self.complete {
            true => Vec::new(),
            false => vec![format!("{what} was cut short")],
        }
    }
}

impl From<Generation> for Written {
    fn from(generation: Generation) -> Self {
        let cut = [
            FinishReason::Length,
            FinishReason::Repetition,
            FinishReason::Cancelled,
        ];
        Self {
            text: generation.text,
            complete: !cut.contains(&generation.finish_reason),
        }
    }
}

impl Desk<'_> {
    /// How many tokens a text has.
    #[must_use]
    pub fn count(&self, text: &str) -> usize {
        self.ready.tokenizer.encode(text).len()
    }

    /// Puts a question, with as many examples as there is room for. The answer has `budget` tokens at
    /// most.
    ///
    /// # Errors
    ///
    /// See [`TaskError`].
    pub fn ask(&mut self, question: &Question, budget: usize) -> Result<Written, TaskError> {
        let request = self.question(question, budget)?;
        self.write(request)
    }

    /// The request for an answer to a question.
    fn question(&self, question: &Question, budget: usize) -> Result<TaskRequest, TaskError> {
        let room = self.ready.task_tokens.saturating_sub(budget);
        let mut prompt = question.encode(self.ready, &[])?;
        if prompt.len() > room {
            let prompt = prompt.len();
            return Err(TaskError::TooLong { prompt, room });
        }
        // The nearest come first, and what does not fit is left out.
        for count in 1..=self.examples.len() {
            let longer = question.encode(self.ready, &self.examples[..count])?;
            if longer.len() > room {
                break;
            }
            prompt = longer;
        }
        let end = match &self.ready.chat {
            Some(chat) => chat.end.clone(),
            None => self.ready.fim.end.clone(),
        };
        Ok(TaskRequest {
            end,
            ..self.request(prompt, question.scope(), budget)
        })
    }

    /// Fills a hole in a text, with `budget` tokens at most.
    ///
    /// # Errors
    ///
    /// See [`TaskError`].
    pub fn fill(&mut self, hole: &Hole, scope: Scope, budget: usize) -> Result<Written, TaskError> {
        let Ready {
            tokenizer,
            fim,
            prompt_tokens,
            ..
        } = self.ready;
        let prompt = PromptBuilder::default().build(tokenizer, fim, hole, *prompt_tokens);
        let budget = budget.min(self.ready.task_tokens.saturating_sub(prompt.ids.len()));
        self.write(TaskRequest {
            healed: prompt.healed,
            end: fim.end.clone(),
            ..self.request(prompt.ids, scope, budget)
        })
    }

    /// Goes on from `text`, the beginning of a file, as far as `scope` goes: a model that was taught to
    /// fill holes with lines would end too early.
    ///
    /// # Errors
    ///
    /// See [`TaskError`].
    pub fn go_on(
        &mut self,
        file_name: &str,
        text: &str,
        scope: Scope,
        budget: usize,
    ) -> Result<Written, TaskError> {
        let request = self.continuation(file_name, text, scope, budget);
        self.write(request)
    }

    /// The request for what follows in a file. The name stands before it as in a prompt with a hole:
    /// without it the default model hardly writes at all.
    fn continuation(
        &self,
        file_name: &str,
        text: &str,
        scope: Scope,
        budget: usize,
    ) -> TaskRequest {
        let Ready {
            tokenizer,
            fim,
            task_tokens,
            ..
        } = self.ready;
        let mut prompt = Vec::new();
        if let Some(marker) = fim.file {
            prompt.push(marker);
            prompt.extend(tokenizer.encode(&format!("{file_name}\n")));
        }
        let text = tokenizer.encode(text);
        // Of a long text its last lines count.
        let room = task_tokens.saturating_sub(budget + prompt.len());
        let over = text.len().saturating_sub(room);
        let ends_line = |id: &u32| tokenizer.bytes(*id).contains(&b'\n');
        let line = match over {
            0 => 0,
            over => text[over..]
                .iter()
                .position(ends_line)
                .map_or(over, |at| over + at + 1),
        };
        prompt.extend_from_slice(&text[line..]);
        let end = match scope {
            Scope::Text => fim.end.clone(),
            _ => Vec::new(),
        };
        TaskRequest {
            end,
            ..self.request(prompt, scope, budget)
        }
    }

    /// The likeliest text behind `prompt`.
    fn request(&self, prompt: Vec<u32>, scope: Scope, budget: usize) -> TaskRequest {
        TaskRequest {
            prompt,
            healed: Vec::new(),
            end: Vec::new(),
            scope,
            max_new_tokens: budget,
            draws: vec![Sampling::Greedy],
            cancel: self.cancel.clone(),
        }
    }

    /// The one text of a request.
    fn write(&mut self, request: TaskRequest) -> Result<Written, TaskError> {
        let mut written = None;
        self.draw(request, |_, _, text| {
            written = Some(text);
            Ok(())
        })?;
        // Without a word the engine has ended.
        written.ok_or_else(|| EngineError::Superseded.into())
    }

    /// Has all texts of a request written, and hands each over when it is done, with the
    /// how manieth it is and the observer.
    fn draw(
        &mut self,
        request: TaskRequest,
        mut done: impl FnMut(&mut dyn FnMut(Progress<'_>), usize, Written) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        if let Some(show) = &mut self.show_prompt {
            show(&self.ready.tokenizer.show(&request.prompt));
        }
        let told = self.engine.perform(request);
        loop {
            let event = match told.recv_timeout(HEARD) {
                Ok(event) => event,
                Err(RecvTimeoutError::Disconnected) => break,
                // It may still wait behind other tasks.
                Err(RecvTimeoutError::Timeout) if self.cancel.is_cancelled() => break,
                Err(RecvTimeoutError::Timeout) => continue,
            };
            match event {
                TaskEvent::Text(text) => (self.observer)(Progress::Text(&text)),
                TaskEvent::Drawn(draw, generation) => {
                    let Generation {
                        finish_reason,
                        tokens,
                        ..
                    } = &generation;
                    tracing::debug!(?finish_reason, tokens, "the model has written");
                    if !self.cancel.is_cancelled() {
                        done(self.observer, draw, generation.into())?;
                    }
                }
                TaskEvent::Failed(error) => return Err(error.into()),
            }
        }
        match self.cancel.is_cancelled() {
            true => Err(TaskError::Cancelled),
            false => Ok(()),
        }
    }
}
