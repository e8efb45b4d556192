//! The loop that writes: texts that go on from one prompt, a token in each with every pass.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::decoder::Decoder;
use super::request::{Draws, Generation, Limits};
use super::stop::{Scope, StopCriteria};
use super::writer::{Step, Writer};
use crate::model::tokenizer::Tokenizer;
use crate::model::{ForwardError, KvCache};

/// What is common to the texts of one request.
#[derive(Clone, Debug)]
pub struct Texts {
    /// What each must begin with, and is not part of it.
    pub healed: Vec<u8>,
    /// The tokens that end one.
    pub end: Vec<u32>,
    /// How much to write.
    pub scope: Scope,
    /// What comes after them.
    pub suffix: String,
    /// How long one may become.
    pub limits: Limits,
    /// How many, and how they are chosen.
    pub draws: Draws,
}

/// Texts at work, several of them in one batch. To write 16 takes seven times as long as to write
/// one (`benches/model.rs`, default model): the weights are read once for all.
///
/// A lane whose text is done goes back to the end of the prompt, which costs nothing, and draws the
/// next one.
#[derive(Debug)]
pub struct Lanes {
    texts: Texts,
    /// Copies of the prompt's cache, one for each lane; `None` where the only lane writes in the
    /// decoder itself.
    fork: Option<Box<dyn KvCache>>,
    lanes: Vec<Lane>,
    /// Tokens of the prompt, which are in each lane's cache.
    prompt: usize,
    /// Tokens that fit a lane.
    capacity: usize,
    /// The logits at the end of the prompt, one row.
    first: Vec<f32>,
    /// The logits of the latest pass, a row for each lane.
    logits: Vec<f32>,
    /// The draws that have not begun.
    waiting: Range<usize>,
    /// Spent in the model's passes over forks.
    model_time: Duration,
}

#[derive(Debug)]
struct Lane {
    /// The number of the draw, and its text.
    writer: Option<(usize, Writer)>,
    /// Tokens in the cache.
    past: usize,
    /// What goes into the next pass.
    token: u32,
}

impl Lanes {
    /// One lane that writes in `decoder` itself, from the end of its sequence, whose logits must be
    /// current. Nothing else may use the decoder until it is done.
    #[must_use]
    pub fn in_place(decoder: &Decoder, texts: Texts) -> Self {
        Self::new(decoder, texts, None, 1, decoder.capacity())
    }

    /// `most` lanes at most, each in a copy of `decoder`'s cache, that go on from the end of its
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

    /// Writes one token in each lane, and hands over each text that is done then, with the number of
    /// its draw. Answers whether there is more to write.
    ///
    /// # Errors
    ///
    /// When the model fails; what is not done is lost then.
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
            limits,
            draws,
        } = &self.texts;
        let width = self.first.len();
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            loop {
                let (logits, (_, writer)) = match &mut lane.writer {
                    Some(writer) => (&self.logits[index * width..][..width], writer),
                    None => {
                        lane.past = self.prompt;
                        lane.token = 0;
                        let Some(draw) = self.waiting.next() else {
                            // The lane idles: its pass writes after the prompt, where nobody reads.
                            break;
                        };
                        if self.fork.is_none() {
                            decoder.truncate(self.prompt);
                        }
                        let stop = StopCriteria::new(*scope, suffix);
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
            decoder.step(self.lanes[0].token)?;
            self.logits.clear();
            self.logits.extend_from_slice(decoder.logits());
            return Ok(());
        };
        let pasts: Vec<_> = self.lanes.iter().map(|lane| lane.past).collect();
        let tokens: Vec<_> = self.lanes.iter().map(|lane| lane.token).collect();
        let start = Instant::now();
        let passed = fork.forward(&pasts, &tokens, 1, &mut self.logits);
        self.model_time += start.elapsed();
        passed
    }

    /// The text so far, where only one is written.
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

    /// The time spent in the model since this was last asked, without that of the decoder.
    pub fn take_model_time(&mut self) -> Duration {
        std::mem::take(&mut self.model_time)
    }
}
