//! The loop that writes: texts that continue one prompt, each by one token per pass.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::decoder::Decoder;
use super::request::{Draws, Generation, Limits};
use super::stop::{Scope, StopCriteria};
use super::writer::{Step, Writer};
use crate::model::tokenizer::Tokenizer;
use crate::model::{ForwardError, KvCache};

/// What the texts of one request have in common.
#[derive(Clone, Debug)]
pub struct Texts {
    /// What the model must write before each text. It is not part of it.
    pub healed: Vec<u8>,
    /// The tokens that end a text.
    pub end: Vec<u32>,
    /// How much to write.
    pub scope: Scope,
    /// What comes after them.
    pub suffix: String,
    /// See [`Hole::closed`](super::request::Hole::closed).
    pub closed: Vec<String>,
    /// How long a text may become.
    pub limits: Limits,
    /// How many, and how they are chosen.
    pub draws: Draws,
}

/// Texts being written, several of them in one batch. Writing 16 takes seven times as long as
/// writing one (`benches/model.rs`, default model): each pass reads the weights once for all of
/// them.
///
/// A lane whose text is done goes back to the end of the prompt, which costs nothing, and draws the
/// next one.
#[derive(Debug)]
pub struct Lanes {
    texts: Texts,
    /// Copies of the prompt's cache, one for each lane; `None` when the only lane writes in the
    /// decoder itself.
    fork: Option<Box<dyn KvCache>>,
    lanes: Vec<Lane>,
    /// Tokens of the prompt, which are in each lane's cache.
    prompt: usize,
    /// Tokens that fit a lane.
    capacity: usize,
    /// The logits at the end of the prompt, one row.
    first: Vec<f32>,
    /// The logits of the latest pass over the forks, a row for each lane.
    logits: Vec<f32>,
    /// The draws that have not begun.
    waiting: Range<usize>,
    /// The time spent in the model's passes over forks.
    model_time: Duration,
}

#[derive(Debug)]
struct Lane {
    /// The number of the draw, and its text.
    writer: Option<(usize, Writer)>,
    /// Tokens in the cache.
    past: usize,
    /// The token for the next pass.
    token: u32,
}

impl Lanes {
    /// One lane that writes in `decoder` itself, from the end of its sequence, whose logits must be
    /// current. Nothing else may use the decoder until it is done.
    #[must_use]
    pub fn in_place(decoder: &Decoder, texts: Texts) -> Self {
        Self::new(decoder, texts, None, 1, decoder.capacity())
    }

    /// Up to `most` lanes, each in a copy of `decoder`'s cache, that continue from the end of its
    /// sequence, whose logits must be current.
    ///
    /// # Errors
    ///
    /// When there is no memory for the copies.
    pub fn fork(decoder: &Decoder, texts: Texts, most: usize) -> Result<Self, ForwardError> {
        let count = texts.draws.count.min(most);
        let capacity = decoder.tokens().len() + texts.limits.tokens;
        let fork = decoder.fork(count, capacity)?;
        Ok(Self::new(decoder, texts, Some(fork), count, capacity))
    }

    fn new(
        decoder: &Decoder,
        texts: Texts,
        fork: Option<Box<dyn KvCache>>,
        lanes: usize,
        capacity: usize,
    ) -> Self {
        let prompt = decoder.tokens().len();
        let lane = || Lane {
            writer: None,
            past: prompt,
            token: 0,
        };
        Self {
            waiting: 0..texts.draws.count,
            texts,
            fork,
            lanes: (0..lanes).map(|_| lane()).collect(),
            prompt,
            capacity,
            first: decoder.logits().to_vec(),
            logits: Vec::new(),
            model_time: Duration::ZERO,
        }
    }

    /// Writes one token in each lane, and passes each finished text to `done` with the number of
    /// its draw. Returns whether there is more to write.
    ///
    /// # Errors
    ///
    /// When the model fails; unfinished texts are lost then.
    pub fn step(
        &mut self,
        tokenizer: &Tokenizer,
        decoder: &mut Decoder,
        mut done: impl FnMut(usize, Generation),
    ) -> Result<bool, ForwardError> {
        let Texts {
            healed,
            end,
            scope,
            suffix,
            closed,
            limits,
            draws,
        } = &self.texts;
        let width = self.first.len();
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            loop {
                let (logits, (_, writer)) = match &mut lane.writer {
                    Some(writer) => {
                        let logits = match self.fork {
                            Some(_) => &self.logits[index * width..][..width],
                            None => decoder.logits(),
                        };
                        (logits, writer)
                    }
                    None => {
                        lane.past = self.prompt;
                        lane.token = 0;
                        let Some(draw) = self.waiting.next() else {
                            // The lane is idle: its pass writes after the prompt, where nothing is
                            // read.
                            break;
                        };
                        if self.fork.is_none() {
                            decoder.truncate(self.prompt);
                        }
                        let stop = StopCriteria::new(*scope, suffix, closed);
                        let writer =
                            Writer::new(healed.clone(), draws.sampling(draw), stop, *limits);
                        (&self.first[..], lane.writer.insert((draw, writer)))
                    }
                };
                let room = self.capacity - lane.past;
                match writer.step(logits, tokenizer, end, room) {
                    Step::Token(token) => {
                        lane.token = token;
                        break;
                    }
                    Step::Done(generation) => {
                        if let Some((draw, _)) = lane.writer.take() {
                            done(draw, generation);
                        }
                    }
                }
            }
        }
        if self.lanes.iter().all(|lane| lane.writer.is_none()) {
            return Ok(false);
        }
        self.forward(decoder)?;
        for lane in &mut self.lanes {
            lane.past += 1;
        }
        Ok(true)
    }

    fn forward(&mut self, decoder: &mut Decoder) -> Result<(), ForwardError> {
        let Some(fork) = &mut self.fork else {
            return decoder.step(self.lanes[0].token);
        };
        let pasts: Vec<_> = self.lanes.iter().map(|lane| lane.past).collect();
        let tokens: Vec<_> = self.lanes.iter().map(|lane| lane.token).collect();
        let start = Instant::now();
        let passed = fork.forward(&pasts, &tokens, 1, &mut self.logits);
        self.model_time += start.elapsed();
        passed
    }

    /// The text so far, if only one is written.
    #[must_use]
    pub fn single_text(&self) -> Option<&str> {
        match (self.texts.draws.count, &self.lanes[..]) {
            (1, [lane]) => lane.writer.as_ref().map(|(_, writer)| writer.text()),
            _ => None,
        }
    }

    /// How many texts are written in one pass.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lanes.len()
    }

    /// The time spent in the model since the last call, without that of the decoder.
    pub fn take_model_time(&mut self) -> Duration {
        std::mem::take(&mut self.model_time)
    }
}
