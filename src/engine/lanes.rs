//! Several texts written at once, all going on from one prompt.

use super::cancel::Cancel;
use super::decoder::Decoder;
use super::generate::{Generation, Limits, Step, Writer};
use super::sampler::Sampling;
use super::stop::{Scope, StopCriteria};
use crate::model::{CausalLm, ForwardError, Model};

/// Texts that are written in one batch. To write 16 takes seven times as long as to write one
/// (`benches/model.rs`): the weights are read once for all.
///
/// A lane whose text is done goes back to the prompt's end, which costs nothing, and draws the next.
#[derive(Debug)]
pub struct Lanes<M: CausalLm> {
    cache: M::Cache,
    lanes: Vec<Lane>,
    /// Tokens of the prompt, which is in each lane's cache.
    prompt: usize,
    /// Tokens that fit a lane.
    capacity: usize,
    /// The logits behind the prompt, one row.
    first: Vec<f32>,
    /// The logits of the latest pass, a row a lane.
    logits: Vec<f32>,
    draws: std::iter::Enumerate<std::vec::IntoIter<Sampling>>,
    healed: Vec<u8>,
    scope: Scope,
    limits: Limits,
}

#[derive(Debug)]
struct Lane {
    /// The text that is being written here, and the how manieth draw it is.
    writer: Option<(usize, Writer<'static>)>,
    /// Tokens in the cache.
    past: usize,
    /// What goes into the next pass.
    token: u32,
}

impl<M: CausalLm> Lanes<M> {
    /// Lanes that go on from the end of `decoder`'s sequence, whose logits must be current: as many as
    /// there are draws, and `most` at most. Each text must begin with `healed`, which is not part of
    /// it.
    ///
    /// # Errors
    ///
    /// When there is no memory for the cache.
    pub fn fork(
        model: &M,
        decoder: &Decoder<M>,
        draws: Vec<Sampling>,
        most: usize,
        healed: Vec<u8>,
        scope: Scope,
        limits: Limits,
    ) -> Result<Self, ForwardError> {
        let prompt = decoder.tokens().len();
        let capacity = prompt + limits.max_new_tokens;
        let lane = || Lane {
            writer: None,
            past: prompt,
            token: 0,
        };
        let lanes: Vec<_> = (0..draws.len().min(most)).map(|_| lane()).collect();
        Ok(Self {
            cache: model.fork(decoder.cache(), prompt, lanes.len(), capacity)?,
            lanes,
            prompt,
            capacity,
            first: decoder.logits().to_vec(),
            logits: Vec::new(),
            draws: draws.into_iter().enumerate(),
            healed,
            scope,
            limits,
        })
    }

    /// Writes one token in each lane, and hands over what is done then, with the how manieth draw it
    /// is. Answers whether there is more to write.
    ///
    /// # Errors
    ///
    /// When the model fails; what is not done is lost then.
    pub fn step(
        &mut self,
        model: &mut Model<M>,
        end: &[u32],
        cancel: &Cancel,
        mut done: impl FnMut(usize, Generation),
    ) -> Result<bool, ForwardError> {
        let vocabulary = model.causal_lm.vocabulary();
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let row = index * vocabulary..(index + 1) * vocabulary;
            loop {
                let (logits, (_, writer)) = match &mut lane.writer {
                    Some(writer) => (&self.logits[row.clone()], writer),
                    None => {
                        lane.past = self.prompt;
                        lane.token = 0;
                        let Some((draw, sampling)) = self.draws.next() else {
                            // The lane idles: its pass writes behind the prompt, where nobody reads.
                            break;
                        };
                        let stop = StopCriteria::new(self.scope, "");
                        let writer = Writer::new(self.healed.clone(), sampling, stop, self.limits);
                        (&self.first[..], lane.writer.insert((draw, writer)))
                    }
                };
                let room = self.capacity - lane.past;
                match writer.step(logits, &model.tokenizer, end, room, cancel) {
                    Step::Token(token) => {
                        lane.token = token;
                        break;
                    }
                    Step::Done(generation) => {
                        if let Some((draw, _)) = lane.writer.take() {
                            done(draw, generation);
                        }
                        if cancel.is_cancelled() {
                            break;
                        }
                    }
                }
            }
        }
        if self.lanes.iter().all(|lane| lane.writer.is_none()) {
            return Ok(false);
        }
        let pasts: Vec<_> = self.lanes.iter().map(|lane| lane.past).collect();
        let tokens: Vec<_> = self.lanes.iter().map(|lane| lane.token).collect();
        let lm = &mut model.causal_lm;
        lm.forward_lanes(&mut self.cache, &pasts, &tokens, &mut self.logits)?;
        for lane in &mut self.lanes {
            lane.past += 1;
        }
        Ok(true)
    }

    /// Whether one text is written at a time.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.lanes.len() == 1
    }

    /// The text of the first lane so far.
    #[must_use]
    pub fn text(&self) -> &str {
        let writer = self.lanes.first().and_then(|lane| lane.writer.as_ref());
        writer.map_or("", |(_, writer)| writer.text())
    }
}
