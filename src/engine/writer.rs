//! Writes one text: sample, push, check.

use std::time::Instant;

use super::request::{Generation, Limits};
use super::sampler::{Sampler, Sampling};
use super::stop::{FinishReason, StopCriteria};
use crate::model::tokenizer::{Detokenizer, Tokenizer};

/// What to do after a row of logits.
#[derive(Debug)]
pub(super) enum Step {
    /// The model must read this token before the next step.
    Token(u32),
    /// The text is done.
    Done(Generation),
}

/// Writes one text, token by token.
#[derive(Debug)]
pub(super) struct Writer {
    /// What the text must still begin with. It is not part of the answer.
    healing: Vec<u8>,
    sampler: Sampler,
    stop: StopCriteria,
    limits: Limits,
    start: Instant,
    text: Detokenizer,
    tokens: usize,
}

impl Writer {
    /// Begins a text. `healed` is what the text must begin with, and is not part of the answer.
    pub(super) fn new(
        healed: Vec<u8>,
        sampling: Sampling,
        stop: StopCriteria,
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

    /// Chooses the next token from `logits`, one row. Any of the tokens `end` ends the text, and so
    /// does a sequence without `room` for another token.
    pub(super) fn step(
        &mut self,
        logits: &[f32],
        tokenizer: &Tokenizer,
        end: &[u32],
        room: usize,
    ) -> Step {
        // Law (special tokens never leak): they cannot be chosen, except to end the text.
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
        let early = if self.tokens >= self.limits.tokens || room == 0 {
            FinishReason::Length
        } else if self
            .limits
            .time
            .is_some_and(|time| self.start.elapsed() >= time)
        {
            FinishReason::Deadline
        } else {
            return Step::Token(token);
        };
        self.done(early, whole_lines(self.text()))
    }

    /// The text so far.
    pub(super) fn text(&self) -> &str {
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

/// How many bytes to show of a text that ended too early: its whole lines, or everything if there
/// is only one.
fn whole_lines(text: &str) -> usize {
    text.trim_start()
        .rfind('\n')
        .map_or(text.len(), |end| text.len() - text.trim_start().len() + end)
}
