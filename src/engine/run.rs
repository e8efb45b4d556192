//! The execution of a request: build the prompt, read it, write; one pass of the model at a time.

use std::time::{Duration, Instant};

use super::EngineError;
use super::decoder::Decoder;
use super::lanes::{Lanes, Texts};
use super::pace::Pace;
use super::prompt::{Prompt, PromptBuilder, Room};
use super::request::{Event, Input, Job, Priority, Request, Started, Stats};
use super::stop::Scope;
use crate::model::Model;

/// Tokens of all lanes of a batch together: with the default model 46 KB each.
const LANE_TOKENS: usize = 8192;

/// The execution of a request. Each [`advance`](Self::advance) is one pass of the model, so that
/// more urgent runs come in between.
#[derive(Debug)]
pub(super) struct Run {
    job: Job,
    stage: Stage,
    stats: Stats,
}

#[derive(Debug)]
enum Stage {
    Build,
    Read(Prompt),
    Write { lanes: Box<Lanes>, sent: usize },
}

/// What a run works with.
pub(super) struct Tools<'a> {
    pub(super) model: &'a Model,
    pub(super) prompts: &'a mut PromptBuilder,
    pub(super) decoder: &'a mut Decoder,
    pub(super) pace: &'a mut Pace,
    pub(super) room: Room,
}

impl Run {
    pub(super) fn new(job: Job) -> Self {
        let stats = Stats {
            queued: job.submitted.elapsed(),
            ..Stats::default()
        };
        Self {
            job,
            stage: Stage::Build,
            stats,
        }
    }

    pub(super) fn priority(&self) -> Priority {
        self.job.request.priority
    }

    /// Does one pass, or builds the prompt. Returns whether there is more to do.
    ///
    /// # Errors
    ///
    /// Why the run has to end before it is done.
    pub(super) fn advance(&mut self, tools: &mut Tools<'_>) -> Result<bool, EngineError> {
        if self.job.request.cancel.is_cancelled() {
            return Err(EngineError::Cancelled);
        }
        tools.decoder.take_model_time();
        let start = Instant::now();
        let spent = |time: &mut Duration, decoder: &mut Decoder| {
            *time += start.elapsed();
            decoder.take_model_time()
        };
        let Self { job, stage, stats } = self;
        match stage {
            Stage::Build => {
                let prompt = tools.prompts.build(tools.model, &job.request, tools.room)?;
                stats.prompt = start.elapsed();
                stats.reused = tools.decoder.keep(&prompt.ids);
                job.send(Event::Started(Started {
                    tokens: prompt.ids.len(),
                    reused: stats.reused,
                    parts: prompt.parts,
                    text: (job.request.echo).then(|| tools.model.tokenizer.show(&prompt.ids)),
                }));
                *stage = Stage::Read(prompt);
                Ok(true)
            }
            Stage::Read(prompt) => {
                // A more urgent run may have used the decoder since the last pass.
                tools.decoder.keep_whole(&prompt.ids);
                if tools.decoder.tokens().len() < prompt.ids.len() {
                    let read = tools.decoder.read(&prompt.ids, tools.pace.chunk)?;
                    let time = spent(&mut stats.prefill, tools.decoder);
                    tools.pace.observe_reading(read, time);
                    stats.computed += read;
                    stats.model += time;
                }
                if tools.decoder.tokens().len() == prompt.ids.len() {
                    let lanes = Box::new(lanes(&job.request, std::mem::take(prompt), tools)?);
                    *stage = Stage::Write { lanes, sent: 0 };
                }
                Ok(true)
            }
            Stage::Write { lanes, sent } => {
                let tokenizer = &tools.model.tokenizer;
                let more = lanes.step(tokenizer, tools.decoder, |draw, generation| {
                    stats.generated += generation.tokens;
                    job.send(Event::Drawn(draw, generation));
                })?;
                let time = spent(&mut stats.decode, tools.decoder) + lanes.take_model_time();
                if more {
                    tools.pace.observe_writing(lanes.count(), time);
                }
                stats.model += time;
                if let Some(text) = lanes.single_text() {
                    let end = match job.request.scope {
                        Scope::Fence => text.rfind('\n').map_or(0, |line| line + 1),
                        _ => text.len(),
                    };
                    if more && end > *sent {
                        job.send(Event::Text(text[*sent..end].to_owned()));
                        *sent = end;
                    }
                }
                Ok(more)
            }
        }
    }

    /// Ends the request with this result.
    pub(super) fn end(self, result: Result<(), EngineError>) {
        self.job.end(result.map(|()| self.stats));
    }
}

/// The lanes in which a request is written, after its prompt has been read.
///
/// A run that no other run on its decoder interrupts writes in the decoder itself, which saves a
/// copy.
fn lanes(request: &Request, prompt: Prompt, tools: &Tools<'_>) -> Result<Lanes, EngineError> {
    let mut limits = request.limits;
    limits.tokens = limits
        .tokens
        .min(tools.room.all.saturating_sub(prompt.ids.len()));
    let (suffix, closed) = match &request.input {
        Input::Hole(hole) => (hole.suffix.clone(), hole.closed.clone()),
        _ => Default::default(),
    };
    let tokens = prompt.ids.len() + limits.tokens;
    let texts = Texts {
        healed: prompt.healed,
        end: prompt.end,
        scope: request.scope,
        suffix,
        closed,
        limits,
        draws: request.draws,
    };
    let undisturbed = matches!(request.priority, Priority::Keystroke | Priority::Task);
    if request.draws.count == 1 && undisturbed {
        return Ok(Lanes::in_place(tools.decoder, texts));
    }
    let most = (LANE_TOKENS / tokens.max(1)).clamp(1, tools.pace.lanes());
    Ok(Lanes::fork(tools.decoder, texts, most)?)
}
