//! The desk, through which a task asks the model and waits for what it writes.

use std::time::Duration;

use super::Progress;
use super::examples::Example;
use super::question::Question;
use crate::engine::cancel::Cancel;
use crate::engine::request::{
    Draws, Event, Events, Generation, Hole, Input, Limits, Priority, Request,
};
use crate::engine::stop::{FinishReason, Scope};
use crate::engine::{Engine, EngineError};
use crate::text::language::Language;
use crate::text::syntax::Parsed;

/// A cancelled task ends within this time, wherever it waits.
pub const HEARD: Duration = Duration::from_millis(100);

/// What a task works with.
pub struct Desk<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// Cancels the task.
    pub cancel: &'a Cancel,
    /// Pairs to learn from, the nearest first.
    pub examples: Vec<Example>,
    /// Receives the task's progress.
    pub observer: &'a mut dyn FnMut(Progress<'_>),
    /// Receives each prompt, as the model gets it.
    pub show_prompt: Option<&'a mut dyn FnMut(&str)>,
}

/// A text the model wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The text.
    pub text: String,
    /// Whether the model finished it and was not cut short.
    pub complete: bool,
}

impl Desk<'_> {
    /// Asks a question, with as many examples as there is room for. The answer has at most `tokens`
    /// tokens.
    ///
    /// # Errors
    ///
    /// See [`EngineError`].
    pub fn ask(&mut self, question: &Question, tokens: usize) -> Result<Written, EngineError> {
        self.ask_until(question, tokens, |_| false)
    }

    /// As [`Self::ask`], but ends the answer as soon as it is `enough`, which is asked at the end of
    /// each line about the answer so far, without the beginning that was given.
    ///
    /// # Errors
    ///
    /// See [`EngineError`].
    pub fn ask_until(
        &mut self,
        question: &Question,
        tokens: usize,
        mut enough: impl FnMut(&str) -> bool,
    ) -> Result<Written, EngineError> {
        let input = Input::Chat(question.chat(&self.examples));
        let mut so_far = String::new();
        let mut is_enough = |text: &str| {
            so_far.push_str(text);
            text.contains('\n') && enough(&so_far)
        };
        self.write(input, question.scope(), tokens, &mut is_enough)
    }

    /// Fills a hole in a text with at most `tokens` tokens.
    ///
    /// # Errors
    ///
    /// See [`EngineError`].
    pub fn fill(
        &mut self,
        hole: Hole,
        scope: Scope,
        tokens: usize,
    ) -> Result<Written, EngineError> {
        self.write(Input::Hole(hole), scope, tokens, &mut |_| false)
    }

    /// Continues `text`, the beginning of a file, as far as `scope` goes: given a hole, a model
    /// trained to fill holes with lines would stop too early.
    ///
    /// # Errors
    ///
    /// See [`EngineError`].
    pub fn go_on(
        &mut self,
        file_name: &str,
        text: &str,
        scope: Scope,
        tokens: usize,
    ) -> Result<Written, EngineError> {
        let input = Input::Continue {
            file_name: file_name.to_owned(),
            text: text.to_owned(),
        };
        self.write(input, scope, tokens, &mut |_| false)
    }

    /// Writes the likeliest text, or as much of it as is enough.
    fn write(
        &mut self,
        input: Input,
        scope: Scope,
        tokens: usize,
        is_enough: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Written, EngineError> {
        let mut events = self.submit(input, scope, tokens, Draws::GREEDY);
        let mut so_far = String::new();
        let mut written = None;
        loop {
            match self.next(&mut events)? {
                Event::Text(text) => {
                    (self.observer)(Progress::Text(&text));
                    so_far.push_str(&text);
                    if is_enough(&so_far) {
                        // Dropping the events ends the request.
                        return Ok(Written {
                            text: so_far,
                            complete: true,
                        });
                    }
                }
                Event::Drawn(_, generation) => written = Some(generation.into()),
                Event::Finished(_) => return written.ok_or(EngineError::Ended),
                Event::Started(_) | Event::Failed(_) => {}
            }
        }
    }

    /// Has texts of at most `tokens` tokens written, and passes each to `done` when it is finished,
    /// with the observer and the number of its draw.
    ///
    /// # Errors
    ///
    /// See [`EngineError`], and those of `done`.
    pub fn draw<E: From<EngineError>>(
        &mut self,
        input: Input,
        scope: Scope,
        tokens: usize,
        draws: Draws,
        mut done: impl FnMut(&mut dyn FnMut(Progress<'_>), usize, Written) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut events = self.submit(input, scope, tokens, draws);
        loop {
            match self.next(&mut events)? {
                Event::Text(text) => (self.observer)(Progress::Text(&text)),
                Event::Drawn(draw, generation) => done(self.observer, draw, generation.into())?,
                Event::Finished(_) => return Ok(()),
                Event::Started(_) | Event::Failed(_) => {}
            }
        }
    }

    fn submit(&self, input: Input, scope: Scope, tokens: usize, draws: Draws) -> Events {
        self.engine.submit(Request {
            input,
            parts: Vec::new(),
            scope,
            limits: Limits {
                prompt: None,
                tokens,
                time: None,
            },
            draws,
            priority: Priority::Task,
            cancel: self.cancel.clone(),
            echo: self.show_prompt.is_some(),
        })
    }

    /// The next event. A failure is returned as an error.
    fn next(&mut self, events: &mut Events) -> Result<Event, EngineError> {
        loop {
            let event = match events.next_within(HEARD) {
                Ok(event) => event.unwrap_or(Event::Failed(EngineError::Ended)),
                // It may still be waiting for other tasks.
                Err(_) if self.cancel.is_cancelled() => return Err(EngineError::Cancelled),
                Err(_) => continue,
            };
            match &event {
                Event::Started(started) => {
                    if let (Some(show), Some(text)) = (&mut self.show_prompt, &started.text) {
                        show(text);
                    }
                }
                Event::Drawn(_, generation) => {
                    let Generation {
                        finish_reason,
                        tokens,
                        ..
                    } = generation;
                    tracing::debug!(?finish_reason, tokens, "the model has written");
                }
                Event::Failed(error) => return Err(error.clone()),
                Event::Text(_) | Event::Finished(_) => {}
            }
            return Ok(event);
        }
    }
}

impl Written {
    /// The code, which begins with `start`, as a file of its own, without a broken end if it was
    /// cut short.
    pub(super) fn as_file(&self, start: &str, language: Language) -> String {
        let text = format!("{start}{}", self.text);
        let text = match self.complete {
            true => &text,
            false => without_broken_end(&text, language),
        };
        format!("{}\n", text.trim_end())
    }

    /// The note that `what` was cut short, if it was.
    pub(super) fn cut_short(&self, what: &str) -> Vec<String> {
        match self.complete {
            true => Vec::new(),
            false => vec![format!("{what} was cut short")],
        }
    }
}

impl From<Generation> for Written {
    fn from(generation: Generation) -> Self {
        let cut = [FinishReason::Length, FinishReason::Repetition];
        Self {
            text: generation.text,
            complete: !cut.contains(&generation.finish_reason),
        }
    }
}

/// The text without its last item, if that is broken and not the only one: an answer that was cut
/// short ends in the middle of it.
fn without_broken_end(text: &str, language: Language) -> &str {
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
