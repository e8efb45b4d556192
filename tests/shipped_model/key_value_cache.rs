//! Law (cache truth), on the shipped model: logits after any reuse equal those of a cold prompt:
//! exactly, because a prompt always ends with a batch, and within a margin if tokens that were
//! written one at a time are kept as a part of it.

use interline::engine::cancel::Cancel;
use interline::engine::decoder::Decoder;
use interline::model::CausalLm;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::support;

/// Logits of a prefill that kept tokens of one-token steps may differ from a cold prompt's by this
/// much. Measured: see the assertion's message; `MatMulNBits` uses another kernel for one row.
const MARGIN: f32 = 2.0;

/// Tokens in one pass.
const CHUNK: usize = 64;

fn cold(lm: &dyn CausalLm, prompt: &[u32]) -> Vec<f32> {
    let mut decoder = Decoder::new(lm, 512).unwrap();
    decoder.prefill(prompt, CHUNK, &Cancel::default()).unwrap();
    decoder.logits().to_vec()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

/// One edit of a text and its cursor: type, delete, jump or undo.
fn edit(text: &mut Vec<u32>, undo: &mut Vec<Vec<u32>>, source: &[u32], rng: &mut SmallRng) {
    let before = text.clone();
    match rng.random_range(0..5) {
        // Type one token, or several.
        0 => text.push(source[rng.random_range(0..source.len())]),
        1 => {
            let start = rng.random_range(0..source.len() - 20);
            text.extend_from_slice(&source[start..start + rng.random_range(2..20)]);
        }
        // Delete.
        2 => text.truncate(text.len() - rng.random_range(1..4).min(text.len() - 1)),
        // Jump: the prompt ends somewhere else.
        3 => {
            let end = rng.random_range(2..source.len().min(300));
            *text = source[..end].to_vec();
        }
        _ => {
            if let Some(earlier) = undo.pop() {
                *text = earlier;
                return;
            }
        }
    }
    text.truncate(400);
    undo.push(before);
}

#[test]
fn reuse_equals_a_cold_prompt() {
    let model = support::model();
    let source = model
        .tokenizer
        .encode(include_str!("../../src/engine/stop.rs"));
    let middle = model.fim.markers.unwrap().middle;
    let lm = &*model.causal_lm;
    let mut rng = SmallRng::seed_from_u64(1);
    let mut decoder = Decoder::new(lm, 512).unwrap();
    let (mut reused, mut computed) = (0, 0);
    for script in 0..4 {
        let mut text = source[script * 50..script * 50 + 100].to_vec();
        let mut undo = Vec::new();
        for _ in 0..12 {
            edit(&mut text, &mut undo, &source, &mut rng);
            // The marker after the text is what keeps written tokens out of the next prompt.
            let prompt = [text.as_slice(), &[middle]].concat();
            let prefill = decoder.prefill(&prompt, CHUNK, &Cancel::default()).unwrap();
            reused += prefill.reused;
            computed += prefill.computed;
            let warm = decoder.logits().to_vec();
            // Writing dirties the cache after the prompt.
            for token in &source[..rng.random_range(0..6)] {
                decoder.step(*token).unwrap();
            }
            assert_eq!(
                difference(&warm, &cold(lm, &prompt)),
                0.0,
                "after {prefill:?}"
            );
        }
    }
    assert!(
        reused > 2 * computed,
        "{reused} reused, {computed} computed"
    );
}

#[test]
fn kept_steps_stay_within_the_margin() {
    let model = support::model();
    let source = model
        .tokenizer
        .encode(include_str!("../../src/engine/stop.rs"));
    let lm = &*model.causal_lm;
    let mut decoder = Decoder::new(lm, 512).unwrap();
    let mut worst = 0.0_f32;
    for (batch, steps) in [(100, 20), (60, 64), (128, 8)] {
        decoder
            .prefill(&source[..batch], CHUNK, &Cancel::default())
            .unwrap();
        for token in &source[batch..batch + steps] {
            decoder.step(*token).unwrap();
        }
        let prompt = &source[..batch + steps + 10];
        let prefill = decoder.prefill(prompt, CHUNK, &Cancel::default()).unwrap();
        assert_eq!(prefill.reused, batch + steps);
        worst = worst.max(difference(decoder.logits(), &cold(lm, prompt)));
    }
    assert!(
        worst > 0.0,
        "steps and batches agree to the bit: the margin is no longer needed"
    );
    assert!(worst < MARGIN, "the logits differ by up to {worst}");
}

#[test]
fn the_cache_refuses_more_than_it_holds() {
    let lm = support::model().causal_lm;
    let mut cache = lm.new_cache(16).unwrap();
    let mut logits = Vec::new();
    let error = cache.forward(&[10], &[1; 7], 1, &mut logits).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the sequence does not fit a cache of 16 tokens"
    );
    cache.forward(&[0], &[1; 16], 1, &mut logits).unwrap();
    assert_eq!(logits.len(), lm.vocabulary());
}
