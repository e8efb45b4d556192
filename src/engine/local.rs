//! The inference thread: it owns the model, and always advances the most urgent run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::decoder::Decoder;
use super::pace::{LONGEST_PROMPT, Pace};
use super::prompt::{PromptBuilder, Room};
use super::queue::{Next, Queue};
use super::request::Priority;
use super::run::{Run, Tools};
use super::{EngineError, MAX_NEW_TOKENS, Ready};
use crate::model::{ForwardError, Model};

/// A prompt that is typed on may become this many times as long as one that is read at once.
const GROWTH: usize = 2;

/// The longest prompt and answer of a completion together, in tokens.
const COMPLETION_TOKENS: usize = LONGEST_PROMPT + MAX_NEW_TOKENS;

/// The longest prompt and answer of a task together, in tokens.
const TASK_TOKENS: usize = 2048;

/// How many tokens the caches of an engine hold together.
pub const CACHED_TOKENS: usize = COMPLETION_TOKENS + TASK_TOKENS;

/// What the inference thread owns.
pub(super) struct Worker {
    model: Model,
    prompts: PromptBuilder,
    pace: Pace,
    /// The completions' decoder.
    completions: Decoder,
    /// The tasks' own decoder, made for the first task. It keeps what the prompts of tasks begin
    /// with.
    tasks: Option<Decoder>,
    /// The runs in progress, at most one of each priority, the most urgent last.
    runs: Vec<Run>,
}

impl Worker {
    /// Makes the cache and measures the model's speed, which also warms it up.
    ///
    /// # Errors
    ///
    /// When there is no memory for the cache, or the model fails.
    pub(super) fn new(model: Model) -> Result<Self, ForwardError> {
        let capacity = COMPLETION_TOKENS.min(model.context_length);
        let mut completions = Decoder::new(&*model.causal_lm, capacity)?;
        let start = Instant::now();
        let pace = Pace::measure(&mut completions)?;
        tracing::debug!(elapsed = ?start.elapsed(), "the speed is measured");
        Ok(Self {
            model,
            prompts: PromptBuilder::default(),
            pace,
            completions,
            tasks: None,
            runs: Vec::new(),
        })
    }

    /// The model and what is known of its speed so far.
    pub(super) fn ready(&self) -> Ready {
        let Self { model, pace, .. } = self;
        Ready {
            model: model.name.clone(),
            runs_on: model.runs_on.clone(),
            warning: model.warning.clone(),
            prompt_format: model.fim.to_string(),
            fills_holes: model.fim.markers.is_some(),
            prompt_tokens: pace.prompt_tokens(self.completions.capacity()),
            chunk_tokens: pace.chunk,
            lanes: pace.lanes(),
            line_time: pace.line_time(),
            prefill_speed: pace.prefill,
            decode_speed: pace.decode,
        }
    }

    /// Works until the queue is closed. Calls `learned` when more is known of the model's speed.
    pub(super) fn run(mut self, queue: &Queue, mut learned: impl FnMut(Ready)) {
        let mut known = self.pace;
        loop {
            if self.pace != known && self.runs.is_empty() {
                known = self.pace;
                learned(self.ready());
            }
            match queue.next(self.runs.last().map(Run::priority)) {
                Next::Start(job) => {
                    // Any request drops an idle run.
                    if let Some(idle) = self.runs.pop_if(|run| run.priority() == Priority::Idle) {
                        idle.end(Err(EngineError::Superseded));
                    }
                    self.runs.push(Run::new(*job));
                }
                Next::Continue => self.advance(),
                Next::End => return,
            }
        }
    }

    /// Advances the most urgent run by one pass.
    fn advance(&mut self) {
        let Some(mut run) = self.runs.pop() else {
            return;
        };
        let advanced = catch_unwind(AssertUnwindSafe(|| self.pass(&mut run)));
        let ended = match advanced {
            Ok(Ok(true)) => return self.runs.push(run),
            Ok(Ok(false)) => Ok(()),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                tracing::error!(priority = ?run.priority(), "the engine panicked");
                // Law (cache truth): after a panic it is unknown what the cache holds.
                match run.priority() {
                    Priority::Task => self.tasks = None,
                    _ => self.completions.truncate(0),
                }
                Err(EngineError::Panicked)
            }
        };
        run.end(ended);
    }

    fn pass(&mut self, run: &mut Run) -> Result<bool, EngineError> {
        let hole = self.pace.prompt_tokens(self.completions.capacity());
        let decoder = match (run.priority(), &mut self.tasks) {
            (Priority::Task, Some(decoder)) => decoder,
            (Priority::Task, none) => {
                let capacity = TASK_TOKENS.min(self.model.context_length);
                none.insert(Decoder::new(&*self.model.causal_lm, capacity)?)
            }
            _ => &mut self.completions,
        };
        let room = Room {
            hole,
            grown: GROWTH * hole,
            all: decoder.capacity(),
        };
        run.advance(&mut Tools {
            model: &self.model,
            prompts: &mut self.prompts,
            decoder,
            pace: &mut self.pace,
            room,
        })
    }
}
