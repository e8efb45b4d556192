//! One token sequence and its key/value cache.

use std::time::{Duration, Instant};

use super::cancel::Cancel;
use crate::model::{CausalLm, ForwardError};

/// Tokens of one forward pass while a prompt is read: long enough to cost nothing
/// (`benches/model.rs`), short enough that a cancel is heard within a tenth of a second.
const CHUNK: usize = 64;

/// The fewest tokens with which a prompt ends. One token goes through another kernel than a batch
/// and its logits differ a little; with two, a prompt's logits do not depend on what was reused.
const LAST_BATCH: usize = 2;

/// The owner of one token sequence.
///
/// Law (cache truth): `tokens` always equals what is in `cache`. Both are extended only after a
/// forward pass succeeded, shortened together, and cleared together after a failure.
#[derive(Debug)]
pub struct Decoder<M: CausalLm> {
    cache: M::Cache,
    capacity: usize,
    tokens: Vec<u32>,
    logits: Vec<f32>,
    model_time: Duration,
}

/// What a prefill did, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefill {
    /// Were in the cache already.
    pub reused: usize,
    /// Went through the model.
    pub computed: usize,
    /// Whether the whole prompt is in the cache now, and the logits are those of its end.
    pub complete: bool,
}

impl<M: CausalLm> Decoder<M> {
    /// An empty sequence of up to `capacity` tokens.
    ///
    /// # Errors
    ///
    /// When there is no memory for the cache.
    pub fn new(model: &M, capacity: usize) -> Result<Self, ForwardError> {
        Ok(Self {
            cache: model.new_cache(capacity)?,
            capacity,
            tokens: Vec::new(),
            logits: Vec::new(),
            model_time: Duration::ZERO,
        })
    }

    /// Makes the sequence equal `prompt`, keeping the longest common prefix. Between chunks it looks
    /// at `cancel`; what was computed until then stays for the next prompt.
    ///
    /// # Errors
    ///
    /// When the prompt does not fit or the model fails; the sequence is empty then.
    pub fn prefill(
        &mut self,
        model: &mut M,
        prompt: &[u32],
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
            prefill.computed += self.read(model, prompt)?;
        }
        prefill.complete = !prompt.is_empty();
        Ok(prefill)
    }

    /// Keeps the longest beginning that the sequence and `prompt` have in common, but for the end of
    /// `prompt`, whose logits must be computed anew. Answers how many tokens it keeps.
    pub fn keep(&mut self, prompt: &[u32]) -> usize {
        let common = self.tokens.iter().zip(prompt);
        let common = common.take_while(|(cached, wanted)| cached == wanted);
        let reused = common.count().min(prompt.len().saturating_sub(LAST_BATCH));
        self.truncate(reused);
        reused
    }

    /// Reads the next chunk of `prompt`, of which the sequence is a beginning. Answers how many tokens
    /// that were.
    ///
    /// # Errors
    ///
    /// When the prompt does not fit or the model fails; the sequence is empty then.
    pub fn read(&mut self, model: &mut M, prompt: &[u32]) -> Result<usize, ForwardError> {
        let rest = &prompt[self.tokens.len()..];
        let chunk = match rest.len() {
            all if all <= CHUNK => all,
            // No single token may be left for the last pass.
            most if most < CHUNK + LAST_BATCH => CHUNK - LAST_BATCH,
            _ => CHUNK,
        };
        self.forward(model, &rest[..chunk])?;
        Ok(chunk)
    }

    /// Appends one token.
    ///
    /// # Errors
    ///
    /// When the sequence is full or the model fails; the sequence is empty then.
    pub fn step(&mut self, model: &mut M, token: u32) -> Result<(), ForwardError> {
        self.forward(model, &[token])
    }

    /// Forgets what stands behind the first `len` tokens. The logits stay what they were.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
    }

    /// Goes back to the first `len` tokens, of which `logits` were the logits.
    pub fn rewind(&mut self, len: usize, logits: &[f32]) {
        self.truncate(len);
        self.logits.clear();
        self.logits.extend_from_slice(logits);
    }

    /// The logits behind the last forward pass, one row.
    #[must_use]
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// The keys and values of [`tokens`](Self::tokens).
    pub(super) fn cache(&self) -> &M::Cache {
        &self.cache
    }

    /// The tokens in the cache.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many more tokens fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.capacity - self.tokens.len()
    }

    /// The time spent in the model since this was last asked.
    pub fn take_model_time(&mut self) -> Duration {
        std::mem::take(&mut self.model_time)
    }

    fn forward(&mut self, model: &mut M, tokens: &[u32]) -> Result<(), ForwardError> {
        let start = Instant::now();
        let past = self.tokens.len();
        let done = model.forward(&mut self.cache, past, tokens, 1, &mut self.logits);
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
    use crate::engine::tests::Scripted;

    fn prompt(text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    /// What a prompt costs after another one: tokens kept, then each forward pass's tokens.
    fn check(before: &str, after: &str, reused: usize, passes: &[usize]) {
        let mut model = Scripted::default();
        let mut decoder = Decoder::new(&model, 512).unwrap();
        let cancel = Cancel::default();
        decoder
            .prefill(&mut model, &prompt(before), &cancel)
            .unwrap();
        model.passes.clear();
        let prefill = decoder
            .prefill(&mut model, &prompt(after), &cancel)
            .unwrap();
        assert_eq!((prefill.reused, model.passes.as_slice()), (reused, passes));
        assert_eq!(prefill.computed, passes.iter().sum::<usize>());
        assert!(prefill.complete);
        assert_eq!(decoder.tokens(), prompt(after));
        assert_eq!(decoder.tokens(), model.cached(&decoder.cache));
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
        let mut model = Scripted::default();
        let mut decoder = Decoder::new(&model, 512).unwrap();
        let cancel = Cancel::default();
        model.cancel_after = Some((2, cancel.clone()));
        let text = prompt(&"x".repeat(200));
        let prefill = decoder.prefill(&mut model, &text, &cancel).unwrap();
        assert_eq!((prefill.computed, prefill.complete), (128, false));
        assert_eq!(decoder.tokens(), model.cached(&decoder.cache));
        let prefill = decoder
            .prefill(&mut model, &text, &Cancel::default())
            .unwrap();
        assert_eq!((prefill.reused, prefill.computed), (128, 72));
    }

    #[test]
    fn a_failure_empties_the_sequence() {
        let mut model = Scripted::default();
        let mut decoder = Decoder::new(&model, 8).unwrap();
        let cancel = Cancel::default();
        decoder
            .prefill(&mut model, &prompt("abc"), &cancel)
            .unwrap();
        let error = decoder.prefill(&mut model, &prompt("abcdefghi"), &cancel);
        assert_eq!(error, Err(ForwardError::Full(8)));
        assert_eq!(decoder.tokens(), [0; 0]);
        decoder
            .prefill(&mut model, &prompt("abc"), &cancel)
            .unwrap();
        assert_eq!(decoder.tokens(), model.cached(&decoder.cache));
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
            let mut model = Scripted::default();
            let mut decoder = Decoder::new(&model, 100).unwrap();
            for act in acts {
                // A failure (the sequence is full) is one more thing after which the law holds.
                let _ = match act {
                    Act::Prefill(text) => decoder
                        .prefill(&mut model, &prompt(&text), &Cancel::default())
                        .map(|_| ()),
                    Act::Step(token) => decoder.step(&mut model, token.into()),
                    Act::Truncate(len) => {
                        decoder.truncate(len);
                        Ok(())
                    }
                };
                let cached = model.cached(&decoder.cache);
                prop_assert_eq!(decoder.tokens(), &cached[..decoder.tokens().len()]);
            }
        }
    }
}
