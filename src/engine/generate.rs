//! The loop that writes: sample, push, check, step.

use std::time::{Duration, Instant};

use super::cancel::Cancel;
use super::decoder::Decoder;
use super::sampler::Sampler;
use super::stop::{FinishReason, StopCriteria};
use crate::model::tokenizer::Detokenizer;
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

/// Writes on from the end of `decoder`'s sequence, whose logits must be current. `healed` is what the
/// text must begin with, and is not part of the answer.
///
/// # Errors
///
/// When the model fails; the decoder is empty then.
pub fn generate<M: CausalLm>(
    model: &mut Model<M>,
    decoder: &mut Decoder<M>,
    healed: &[u8],
    sampler: &mut Sampler,
    mut stop: StopCriteria<'_>,
    limits: Limits,
    cancel: &Cancel,
) -> Result<Generation, ForwardError> {
    let start = Instant::now();
    let mut healing = healed;
    let mut text = Detokenizer::default();
    let mut tokens = 0;
    let (reason, keep) = loop {
        let Model { tokenizer, fim, .. } = &*model;
        // Law (special tokens never leak): they cannot be chosen, but for the end.
        let token = match healing {
            [] => sampler.sample(decoder.logits(), |token| {
                !tokenizer.bytes(token).is_empty() || fim.end.contains(&token)
            }),
            start => sampler.sample_among(decoder.logits(), tokenizer.beginning(start)),
        };
        let Some(token) = token.filter(|token| !fim.end.contains(token)) else {
            break (FinishReason::End, text.text().len());
        };
        tokens += 1;
        let bytes = tokenizer.bytes(token);
        let healing_done = bytes.len().min(healing.len());
        healing = &healing[healing_done..];
        text.push(&bytes[healing_done..]);
        if let Some(stop) = stop.check(text.text()) {
            break stop;
        }
        let early = if cancel.is_cancelled() {
            Some(FinishReason::Cancelled)
        } else if tokens >= limits.max_new_tokens || decoder.room() == 0 {
            Some(FinishReason::Length)
        } else if start.elapsed() >= limits.time {
            Some(FinishReason::Deadline)
        } else {
            None
        };
        if let Some(reason) = early {
            break (reason, whole_lines(text.text()));
        }
        decoder.step(&mut model.causal_lm, token)?;
    };
    Ok(Generation {
        text: text.text()[..keep].to_owned(),
        finish_reason: reason,
        tokens,
    })
}

/// How much of a text that ended too early to show: its whole lines, or if there is only one, all.
fn whole_lines(text: &str) -> usize {
    text.trim_start()
        .rfind('\n')
        .map_or(text.len(), |end| text.len() - text.trim_start().len() + end)
}
