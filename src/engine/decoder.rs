//! One token sequence and its key/value cache.

use std::time::{Duration, Instant};

use super::cancel::Cancel;
use crate::model::{CausalLm, ForwardError, KvCache};

/// The fewest tokens in the last pass over a prompt. A single token goes through a different kernel
/// than a batch, and its logits differ a little; with two, a prompt's logits do not depend on what
/// was reused.
const LAST_BATCH: usize = 2;

/// The owner of one token sequence.
///
/// Law (cache truth): `tokens` always equals what is in `cache`. Both are extended only after a
/// forward pass succeeded, shortened together, and cleared together after a failure.
#[derive(Debug)]
pub struct Decoder {
    cache: Box<dyn KvCache>,
    capacity: usize,
    tokens: Vec<u32>,
    logits: Vec<f32>,
    model_time: Duration,
}

/// What a prefill did, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefill {
    /// Tokens that were in the cache already.
    pub reused: usize,
    /// Tokens that went through the model.
    pub computed: usize,
    /// Whether the whole prompt is in the cache now, and the logits are those of its end.
    pub complete: bool,
}

impl Decoder {
    /// An empty sequence of up to `capacity` tokens.
    ///
    /// # Errors
    ///
    /// When there is no memory for the cache.
    pub fn new(model: &dyn CausalLm, capacity: usize) -> Result<Self, ForwardError> {
        Ok(Self {
            cache: model.new_cache(capacity)?,
            capacity,
            tokens: Vec::new(),
            logits: Vec::new(),
            model_time: Duration::ZERO,
        })
    }

    /// Makes the sequence equal `prompt`, keeping the longest common prefix and reading the rest in
    /// passes of `chunk` tokens. It checks `cancel` between passes; what was computed by then is
    /// kept for the next prompt.
    ///
    /// # Errors
    ///
    /// When the prompt does not fit or the model fails; the sequence is empty then.
    pub fn prefill(
        &mut self,
        prompt: &[u32],
        chunk: usize,
        cancel: &Cancel,
    ) -> Result<Prefill, ForwardError> {
        let mut prefill = Prefill {
            reused: self.keep(prompt),
            ..Prefill::default()
        };
        while self.tokens.len() < prompt.len() {
            if cancel.is_cancelled() {
                return Ok(prefill);
            }
            prefill.computed += self.read(prompt, chunk)?;
        }
        prefill.complete = !prompt.is_empty();
        Ok(prefill)
    }

    /// Keeps the longest common prefix of the sequence and `prompt`, except for the end of
    /// `prompt`, whose logits must be computed again. Returns how many tokens it keeps.
    pub fn keep(&mut self, prompt: &[u32]) -> usize {
        let common = self.tokens.iter().zip(prompt);
        let common = common.take_while(|(cached, wanted)| cached == wanted);
        let reused = common.count().min(prompt.len().saturating_sub(LAST_BATCH));
        self.truncate(reused);
        reused
    }

    /// As [`keep`](Self::keep), unless the sequence is a prefix of `prompt`, which is kept whole.
    pub fn keep_whole(&mut self, prompt: &[u32]) {
        if !prompt.starts_with(&self.tokens) {
            self.keep(prompt);
        }
    }

    /// Reads the next chunk of `prompt`, of which the sequence is a prefix: `chunk` tokens, but at
    /// least four. Returns how many tokens it read.
    ///
    /// # Errors
    ///
    /// When the prompt does not fit or the model fails; the sequence is empty then.
    pub fn read(&mut self, prompt: &[u32], chunk: usize) -> Result<usize, ForwardError> {
        let chunk = chunk.max(2 * LAST_BATCH);
        let rest = &prompt[self.tokens.len()..];
        let length = match rest.len() {
            all if all <= chunk => all,
            // The last pass must not be left with a single token.
            most if most < chunk + LAST_BATCH => chunk - LAST_BATCH,
            _ => chunk,
        };
        self.forward(&rest[..length])?;
        Ok(length)
    }

    /// Appends one token.
    ///
    /// # Errors
    ///
    /// When the sequence is full or the model fails; the sequence is empty then.
    pub fn step(&mut self, token: u32) -> Result<(), ForwardError> {
        self.forward(&[token])
    }

    /// A cache of `lanes` sequences of up to `max_tokens` tokens that all begin with this one.
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    pub fn fork(&self, lanes: usize, max_tokens: usize) -> Result<Box<dyn KvCache>, ForwardError> {
        self.cache.fork(self.tokens.len(), lanes, max_tokens)
    }

    /// Forgets what comes after the first `len` tokens. The logits stay what they were.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
    }

    /// The logits after the last forward pass, one row.
    #[must_use]
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// The tokens in the cache.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The most tokens that fit.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The time spent in the model since the last call.
    pub fn take_model_time(&mut self) -> Duration {
        std::mem::take(&mut self.model_time)
    }

    fn forward(&mut self, tokens: &[u32]) -> Result<(), ForwardError> {
        let start = Instant::now();
        let past = self.tokens.len();
        let done = self.cache.forward(&[past], tokens, 1, &mut self.logits);
        self.model_time += start.elapsed();
        match done {
            Ok(()) => self.tokens.extend_from_slice(tokens),
            Err(_) => self.tokens.clear(),
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::scripted::Scripted;

    const CHUNK: usize = 64;

    fn prompt(text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    /// What a prompt costs after another one: tokens kept, then each forward pass's tokens.
    fn check(before: &str, after: &str, reused: usize, passes: &[usize]) {
        let model = Scripted::default();
        let mut decoder = Decoder::new(&model, 512).unwrap();
        let cancel = Cancel::default();
        decoder.prefill(&prompt(before), CHUNK, &cancel).unwrap();
        model.script().passes.clear();
        let prefill = decoder.prefill(&prompt(after), CHUNK, &cancel).unwrap();
        assert_eq!(
            (prefill.reused, model.script().passes.as_slice()),
            (reused, passes)
        );
        assert_eq!(prefill.computed, passes.iter().sum::<usize>());
        assert!(prefill.complete);
        assert_eq!(decoder.tokens(), prompt(after));
        assert_eq!(decoder.tokens(), model.cached());
    }

    #[test]
    fn a_typed_character_costs_two_tokens() {
        check("let a = ^", "let a = b^", 8, &[2]);
    }

    #[test]
    fn the_same_prompt_again_costs_its_last_batch() {
        check("let a = ^", "let a = ^", 7, &[2]);
    }

    #[test]
    fn a_deleted_character_truncates() {
        check("let ab^", "let a^", 4, &[2]);
    }

    #[test]
    fn another_file_starts_anew() {
        check("let a", "use b", 0, &[5]);
    }

    #[test]
    fn a_long_prompt_comes_in_chunks_and_never_ends_with_one_token() {
        check("", &"x".repeat(130), 0, &[64, 64, 2]);
        check("", &"x".repeat(129), 0, &[64, 62, 3]);
        check("", &"x".repeat(128), 0, &[64, 64]);
        check("", &"x".repeat(65), 0, &[62, 3]);
    }

    #[test]
    fn a_cancelled_prefill_keeps_what_it_has() {
        let model = Scripted::default();
        let mut decoder = Decoder::new(&model, 512).unwrap();
        let cancel = Cancel::default();
        model.script().cancel_after = Some((2, cancel.clone()));
        let text = prompt(&"x".repeat(200));
        let prefill = decoder.prefill(&text, CHUNK, &cancel).unwrap();
        assert_eq!((prefill.computed, prefill.complete), (128, false));
        assert_eq!(decoder.tokens(), model.cached());
        let prefill = decoder.prefill(&text, CHUNK, &Cancel::default()).unwrap();
        assert_eq!((prefill.reused, prefill.computed), (128, 72));
    }

    #[test]
    fn a_failure_empties_the_sequence() {
        let model = Scripted::default();
        let mut decoder = Decoder::new(&model, 8).unwrap();
        let cancel = Cancel::default();
        decoder.prefill(&prompt("abc"), CHUNK, &cancel).unwrap();
        let error = decoder.prefill(&prompt("abcdefghi"), CHUNK, &cancel);
        assert_eq!(error, Err(ForwardError::Full(8)));
        assert_eq!(decoder.tokens(), [0; 0]);
        decoder.prefill(&prompt("abc"), CHUNK, &cancel).unwrap();
        assert_eq!(decoder.tokens(), model.cached());
    }

    #[derive(Clone, Debug)]
    enum Act {
        Prefill(String),
        Step(u8),
        Truncate(usize),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            "[ab]{0,90}".prop_map(Act::Prefill),
            any::<u8>().prop_map(Act::Step),
            (0_usize..100).prop_map(Act::Truncate),
        ]
    }

    proptest! {
        #[test]
        fn tokens_are_what_the_cache_holds(acts in proptest::collection::vec(act(), 0..30)) {
            let model = Scripted::default();
            let mut decoder = Decoder::new(&model, 100).unwrap();
            for act in acts {
                // The law also holds after a failure (the sequence is full).
                let _ = match act {
                    Act::Prefill(text) => decoder.prefill(&prompt(&text), CHUNK, &Cancel::default())
                        .map(|_| ()),
                    Act::Step(token) => decoder.step(token.into()),
                    Act::Truncate(len) => {
                        decoder.truncate(len);
                        Ok(())
                    }
                };
                let cached = model.cached();
                prop_assert_eq!(decoder.tokens(), &cached[..decoder.tokens().len()]);
            }
        }
    }
}
