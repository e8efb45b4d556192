//! Each exported graph writes what `transformers` writes with the same weights, and reusing,
//! rewinding and forking a cache change nothing.

use std::fs;

use interline::engine::cancel::Cancel;
use interline::engine::decoder::Decoder;
use interline::model::Model;
use serde::Deserialize;

use crate::support::{folder, load, names, samples};

/// Logits that passes of other sizes computed differ by no more than this; those of these models
/// are some tens apart.
const MARGIN: f32 = 0.02;

/// What `transformers` writes.
#[derive(Deserialize)]
struct Reference {
    prompt: Vec<u32>,
    written: Vec<u32>,
}

fn reference(name: &str) -> Reference {
    let json = fs::read(samples().join(name).join("reference.json")).unwrap();
    serde_json::from_slice(&json).unwrap()
}

/// A sequence that has read each part in a pass of its own.
fn read(model: &Model, parts: &[&[u32]]) -> Decoder {
    let mut decoder = Decoder::new(model.causal_lm.as_ref(), 128).unwrap();
    for end in 1..=parts.len() {
        let prompt = parts[..end].concat();
        decoder.prefill(&prompt, 128, &Cancel::default()).unwrap();
    }
    decoder
}

fn best(logits: &[f32]) -> u32 {
    let logits = logits.iter().enumerate();
    logits.max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 as u32
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn write(decoder: &mut Decoder, count: usize) -> Vec<u32> {
    let step = |_| {
        let token = best(decoder.logits());
        decoder.step(token).unwrap();
        token
    };
    (0..count).map(step).collect()
}

#[test]
fn each_writes_what_transformers_writes() {
    let names = names();
    assert!(names.len() >= 10, "only {names:?}");
    for name in names {
        let folder = folder(&name);
        let model = load(folder.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let Reference { prompt, written } = reference(&name);
        assert_eq!(written.len(), 64, "{name}");
        for parts in [&[&prompt[..]][..], &[&prompt[..9], &prompt[9..]]] {
            let mut decoder = read(&model, parts);
            assert_eq!(write(&mut decoder, 64), written, "{name}");
        }
    }
}

#[test]
fn reusing_and_rewinding_change_nothing() {
    for name in names() {
        let folder = folder(&name);
        let model = load(folder.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let Reference { prompt, .. } = reference(&name);
        let cold = read(&model, &[&prompt[..9], &prompt[9..]]);
        let mut used = read(&model, &[&prompt[..9]]);
        for noise in [3, 1, 20] {
            // Something else, some of it written a token at a time, and back again.
            let other: Vec<u32> = (0..noise).map(|id| 30 + id).collect();
            let other = [&prompt[..9], &other].concat();
            used.prefill(&other, 128, &Cancel::default()).unwrap();
            write(&mut used, 5);
            used.truncate(9);
            used.prefill(&prompt, 128, &Cancel::default()).unwrap();
            assert_eq!(used.logits(), cold.logits(), "{name} after {noise}");
        }
        let whole = read(&model, &[&prompt]);
        let apart = difference(whole.logits(), cold.logits());
        assert!(apart < MARGIN, "{name}: {apart}");
    }
}

#[test]
fn lanes_of_different_lengths_are_texts_of_their_own() {
    for name in names() {
        let folder = folder(&name);
        let model = load(folder.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let Reference { prompt, .. } = reference(&name);
        let decoder = read(&model, &[&prompt]);
        let mut lanes = decoder.fork(3, 64).unwrap();
        let mut logits = Vec::new();
        let len = prompt.len();
        let pasts = [len, len - 5, 2];
        // Attention in place takes one token at a time of several texts.
        for (step, tokens) in [[40, 41, 42], [50, 51, 52]].iter().enumerate() {
            let pasts = pasts.map(|past| past + step);
            lanes.forward(&pasts, tokens, 1, &mut logits).unwrap();
        }
        let width = model.causal_lm.vocabulary();
        for (lane, logits) in logits.chunks(width).enumerate() {
            let mut alone = read(&model, &[&prompt[..pasts[lane]]]);
            alone.step(40 + lane as u32).unwrap();
            alone.step(50 + lane as u32).unwrap();
            let apart = difference(logits, alone.logits());
            assert!(apart < MARGIN, "{name}, lane {lane}: {apart}");
        }
        // The sequence that was forked is as it was.
        let mut decoder = decoder;
        let again = [&prompt[..], &[60, 61]].concat();
        decoder.prefill(&again, 128, &Cancel::default()).unwrap();
        let cold = read(&model, &[&prompt, &[60, 61]]);
        assert_eq!(decoder.logits(), cold.logits(), "{name}");
    }
}
