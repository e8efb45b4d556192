//! What a model computes, in plain floats, as llama.cpp does it: on the file's own order of rows.

use crate::gguf_file::{GgufFile, SIZES};

const EPSILON: f32 = 1e-5;
const ROTARY_BASE: f32 = 10_000.0;

fn product(weights: &[f32], input: &[f32]) -> Vec<f32> {
    let rows = weights.chunks_exact(input.len());
    rows.map(|row| row.iter().zip(input).map(|(a, b)| a * b).sum())
        .collect()
}

fn norm(weights: &[f32], input: &[f32]) -> Vec<f32> {
    let square = input.iter().map(|x| x * x).sum::<f32>() / input.len() as f32;
    let scale = (square + EPSILON).sqrt().recip();
    input
        .iter()
        .zip(weights)
        .map(|(x, w)| x * scale * w)
        .collect()
}

/// Rotates each head by its position. Rows of `llama` are in pairs; others pair halves of a head.
fn rotate(heads: &mut [f32], position: usize, in_pairs: bool) {
    let dim = SIZES.head_dim();
    for head in heads.chunks_exact_mut(dim) {
        for index in 0..dim / 2 {
            let exponent = -2.0 * index as f32 / dim as f32;
            let (sin, cos) = (position as f32 * ROTARY_BASE.powf(exponent)).sin_cos();
            let (a, b) = match in_pairs {
                true => (2 * index, 2 * index + 1),
                false => (index, index + dim / 2),
            };
            let (x, y) = (head[a], head[b]);
            (head[a], head[b]) = (x * cos - y * sin, x * sin + y * cos);
        }
    }
}

/// The logits after each of the tokens.
pub(crate) fn logits(file: &GgufFile, in_pairs: bool, tokens: &[u32]) -> Vec<Vec<f32>> {
    let weights = |name: &str| {
        let tensor = file.tensors.iter().find(|tensor| tensor.name == name);
        tensor.map(|tensor| tensor.weights.clone())
    };
    let dim = SIZES.head_dim();
    let embedding = weights("token_embd.weight").unwrap();
    let lookup = |token: &u32| {
        let start = *token as usize * SIZES.width;
        embedding[start..start + SIZES.width].to_vec()
    };
    let mut states: Vec<Vec<f32>> = tokens.iter().map(lookup).collect();
    for layer in 0..SIZES.layers {
        let of_layer = |name: &str| weights(&format!("blk.{layer}.{name}"));
        let attention_norm = of_layer("attn_norm.weight").unwrap();
        let projections = ["attn_q", "attn_k", "attn_v"].map(|name| {
            let matrix = of_layer(&format!("{name}.weight")).unwrap();
            (matrix, of_layer(&format!("{name}.bias")))
        });
        let output = of_layer("attn_output.weight").unwrap();
        let [feed_forward_norm, gate, up, down] = ["ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]
            .map(|name| of_layer(&format!("{name}.weight")).unwrap());
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (position, state) in states.iter_mut().enumerate() {
            let normed = norm(&attention_norm, state);
            let [mut query, mut key, value] = projections.each_ref().map(|(matrix, bias)| {
                let mut result = product(matrix, &normed);
                for (x, bias) in result.iter_mut().zip(bias.iter().flatten()) {
                    *x += bias;
                }
                result
            });
            for (heads, norm_of_head) in [(&mut query, "attn_q_norm"), (&mut key, "attn_k_norm")] {
                if let Some(weights) = of_layer(&format!("{norm_of_head}.weight")) {
                    let normed = heads
                        .chunks_exact(dim)
                        .flat_map(|head| norm(&weights, head));
                    *heads = normed.collect();
                }
            }
            rotate(&mut query, position, in_pairs);
            rotate(&mut key, position, in_pairs);
            keys.push(key);
            values.push(value);
            let mut attention = Vec::new();
            for (head, query) in query.chunks_exact(dim).enumerate() {
                let group = head / (SIZES.heads / SIZES.key_value_heads);
                let of_head = group * dim..(group + 1) * dim;
                let scores = keys.iter().map(|key: &Vec<f32>| {
                    product(&key[of_head.clone()], query)[0] / (dim as f32).sqrt()
                });
                let scores: Vec<f32> = scores.collect();
                let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let scores: Vec<f32> = scores.iter().map(|score| (score - max).exp()).collect();
                let sum: f32 = scores.iter().sum();
                attention.extend((0..dim).map(|index| {
                    let values = values
                        .iter()
                        .map(|value: &Vec<f32>| value[group * dim + index]);
                    values
                        .zip(&scores)
                        .map(|(v, score)| v * score / sum)
                        .sum::<f32>()
                }));
            }
            add(state, &product(&output, &attention));
            let normed = norm(&feed_forward_norm, state);
            let gate = product(&gate, &normed);
            let silu = gate.iter().map(|x| x / (1.0 + (-x).exp()));
            let up = product(&up, &normed);
            let gated: Vec<f32> = silu.zip(up).map(|(a, b)| a * b).collect();
            add(state, &product(&down, &gated));
        }
    }
    let last = weights("output_norm.weight").unwrap();
    let head = weights("output.weight").unwrap_or(embedding);
    let logits = states
        .iter()
        .map(|state| product(&head, &norm(&last, state)));
    logits.collect()
}

fn add(state: &mut [f32], change: &[f32]) {
    for (x, change) in state.iter_mut().zip(change) {
        *x += change;
    }
}
