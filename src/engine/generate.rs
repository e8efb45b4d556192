//! The loop that writes: sample, push, check, step.

use std::time::{Duration, Instant};

use super::cancel::Cancel;
use super::decoder::Decoder;
use super::sampler::{Sampler, Sampling};
use super::stop::{FinishReason, StopCriteria};
use crate::model::tokenizer::{Detokenizer, Tokenizer};
use crate::model::{CausalLm, ForwardError, Model};

/// How long a generation may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens at most.
    pub max_new_tokens: usize,
    /// Time for writing them, after the prompt has been read.
    pub time: Duration,
}

/// What the model wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The text, up to where it was stopped.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens the model wrote, with those that were cut off again.
    pub tokens: usize,
}

/// What follows from a row of logits.
#[derive(Debug)]
pub enum Step {
    /// The model must read this token, and then be asked again.
    Token(u32),
    /// The text is done.
    Done(Generation),
}

/// Writes one text, token by token.
#[derive(Debug)]
pub struct Writer<'a> {
    /// What the text must still begin with, and what is not part of the answer.
    healing: Vec<u8>,
    sampler: Sampler,
    stop: StopCriteria<'a>,
    limits: Limits,
    start: Instant,
    text: Detokenizer,
    tokens: usize,
}

impl<'a> Writer<'a> {
    /// Begins. `healed` is what the text must begin with, and is not part of the answer.
    #[must_use]
    pub fn new(
        healed: Vec<u8>,
        sampling: Sampling,
        stop: StopCriteria<'a>,
        limits: Limits,
    ) -> Self {
        Self {
            healing: healed,
            sampler: Sampler::new(sampling),
            stop,
            limits,
            start: Instant::now(),
            text: Detokenizer::default(),
            tokens: 0,
        }
    }

    /// Chooses the next token by `logits`, one row. Any of the tokens `end` ends the text, and so does
    /// a sequence that has no `room` for another token.
    pub fn step(
        &mut self,
        logits: &[f32],
        tokenizer: &Tokenizer,
        end: &[u32],
        room: usize,
        cancel: &Cancel,
    ) -> Step {
        // Law (special tokens never leak): they cannot be chosen, but for the end.
        let token = match &self.healing[..] {
            [] => self.sampler.sample(logits, |token| {
                !tokenizer.bytes(token).is_empty() || end.contains(&token)
            }),
            start => self
                .sampler
                .sample_among(logits, tokenizer.beginning(start)),
        };
        let Some(token) = token.filter(|token| !end.contains(token)) else {
            let keep = self.stop.keep_at_end(self.text());
            return self.done(FinishReason::End, keep);
        };
        self.tokens += 1;
        let bytes = tokenizer.bytes(token);
        let healing_done = bytes.len().min(self.healing.len());
        self.healing.drain(..healing_done);
        self.text.push(&bytes[healing_done..]);
        if let Some((reason, keep)) = self.stop.check(self.text.text()) {
            return self.done(reason, keep);
        }
        let early = if cancel.is_cancelled() {
            FinishReason::Cancelled
        } else if self.tokens >= self.limits.max_new_tokens || room == 0 {
            FinishReason::Length
        } else if self.start.elapsed() >= self.limits.time {
            FinishReason::Deadline
        } else {
            return Step::Token(token);
        };
        self.done(early, whole_lines(self.text()))
    }

    /// The text so far.
    #[must_use]
    pub fn text(&self) -> &str {
        self.text.text()
    }

    fn done(&self, finish_reason: FinishReason, keep: usize) -> Step {
        Step::Done(Generation {
            text: self.text()[..keep].to_owned(),
            finish_reason,
            tokens: self.tokens,
        })
    }
}

/// Lets `writer` write on from the end of `decoder`'s sequence, whose logits must be current.
///
/// # Errors
///
/// When the model fails; the decoder is empty then.
pub fn generate<M: CausalLm>(
    model: &mut Model<M>,
    decoder: &mut Decoder<M>,
    mut writer: Writer<'_>,
    cancel: &Cancel,
) -> Result<Generation, ForwardError> {
    loop {
        let Model { tokenizer, fim, .. } = &*model;
        let room = decoder.room();
        match writer.step(decoder.logits(), tokenizer, &fim.end, room, cancel) {
            Step::Done(generation) => return Ok(generation),
            Step::Token(token) => decoder.step(&mut model.causal_lm, token)?,
        }
    }
}

/// How much of a text that ended too early to show: its whole lines, or if there is only one, all.
fn whole_lines(text: &str) -> usize {
    text.trim_start()
        .rfind('\n')
        .map_or(text.len(), |end| text.len() - text.trim_start().len() + end)
}
