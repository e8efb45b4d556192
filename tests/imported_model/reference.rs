//! What a model computes, in plain floats, as llama.cpp does it: on the file's own order of rows.

use crate::gguf_file::{GgufFile, SIZES, Value};

const EPSILON: f32 = 1e-5;
const ROTARY_BASE: f32 = 10_000.0;

/// A file's model.
struct Model<'a> {
    file: &'a GgufFile,
    architecture: &'a str,
}

impl Model<'_> {
    fn weights(&self, name: &str) -> Option<&[f32]> {
        let mut tensors = self.file.tensors.iter();
        let tensor = tensors.find(|tensor| tensor.name == name);
        tensor.map(|tensor| tensor.weights.as_slice())
    }

    /// A number of the metadata, or 1.
    fn scale(&self, key: &str) -> f32 {
        let key = format!("{}.{key}", self.architecture);
        match self.file.metadata.iter().find(|(other, _)| *other == key) {
            Some((_, Value::F32(number))) => *number,
            Some((_, Value::U32(number))) => *number as f32,
            _ => 1.0,
        }
    }

    /// The product with a matrix, and what is added to it.
    fn linear(&self, name: &str, input: &[f32]) -> Vec<f32> {
        let mut result = product(self.weights(&format!("{name}.weight")).unwrap(), input);
        add(
            &mut result,
            self.weights(&format!("{name}.bias")).unwrap_or(&[]),
            1.0,
        );
        result
    }

    fn norm(&self, name: &str, input: &[f32]) -> Vec<f32> {
        let weights = self.weights(&format!("{name}.weight")).unwrap();
        let len = input.len() as f32;
        let Some(bias) = self.weights(&format!("{name}.bias")) else {
            let square = input.iter().map(|x| x * x).sum::<f32>() / len;
            let scale = (square + EPSILON).sqrt().recip();
            let pairs = input.iter().zip(weights);
            return pairs.map(|(x, w)| x * scale * w).collect();
        };
        let mean = input.iter().sum::<f32>() / len;
        let variance = input.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / len;
        let scale = (variance + EPSILON).sqrt().recip();
        let pairs = input.iter().zip(weights).zip(bias);
        pairs
            .map(|((x, w), b)| (x - mean) * scale * w + b)
            .collect()
    }

    /// Normalises each head, if the model does.
    fn head_norms(&self, name: &str, heads: Vec<f32>) -> Vec<f32> {
        if self.weights(&format!("{name}.weight")).is_none() {
            return heads;
        }
        let heads = heads.chunks_exact(SIZES.head_dim());
        heads.flat_map(|head| self.norm(name, head)).collect()
    }

    fn activated(&self, x: f32) -> f32 {
        match self.architecture {
            "starcoder2" | "gemma" => {
                let inner = 0.797_884_6 * (x + 0.044_715 * x.powi(3));
                0.5 * x * (1.0 + inner.tanh())
            }
            _ => x / (1.0 + (-x).exp()),
        }
    }

    fn feed_forward(&self, layer: usize, input: &[f32]) -> Vec<f32> {
        let name = |part: &str| format!("blk.{layer}.ffn_{part}");
        let up = self.linear(&name("up"), input);
        let inner: Vec<f32> = match self.weights(&name("gate.weight")) {
            None => up.iter().map(|x| self.activated(*x)).collect(),
            Some(_) => {
                let gate = self.linear(&name("gate"), input);
                let pairs = gate.iter().zip(&up);
                pairs.map(|(gate, up)| self.activated(*gate) * up).collect()
            }
        };
        self.linear(&name("down"), &inner)
    }
}

fn product(weights: &[f32], input: &[f32]) -> Vec<f32> {
    let rows = weights.chunks_exact(input.len());
    rows.map(|row| row.iter().zip(input).map(|(a, b)| a * b).sum())
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

/// The logits after each of the tokens. Attention sees `window` positions.
pub(crate) fn logits(
    file: &GgufFile,
    in_pairs: bool,
    window: usize,
    tokens: &[u32],
) -> Vec<Vec<f32>> {
    let Value::Text(architecture) = file.get("general.architecture") else {
        unreachable!("it is a text");
    };
    let model = Model { file, architecture };
    let dim = SIZES.head_dim();
    let attention_scale = match architecture.as_str() {
        "granite" => model.scale("attention.scale"),
        _ => (dim as f32).sqrt().recip(),
    };
    let embedding_scale = match architecture.as_str() {
        "gemma" => (SIZES.width as f32).sqrt(),
        _ => model.scale("embedding_scale"),
    };
    let residual_scale = model.scale("residual_scale");
    let embedding = model.weights("token_embd.weight").unwrap();
    let lookup = |token: &u32| {
        let row = embedding.chunks_exact(SIZES.width).nth(*token as usize);
        let row = row.unwrap().iter();
        row.map(|weight| weight * embedding_scale).collect()
    };
    let mut states: Vec<Vec<f32>> = tokens.iter().map(lookup).collect();
    for layer in 0..SIZES.layers {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (position, state) in states.iter_mut().enumerate() {
            let normed = model.norm(&name("attn_norm"), state);
            let project = |part: &str| {
                let heads = model.linear(&name(part), &normed);
                model.head_norms(&name(&format!("{part}_norm")), heads)
            };
            let [mut query, mut key, value] = ["attn_q", "attn_k", "attn_v"].map(project);
            rotate(&mut query, position, in_pairs);
            rotate(&mut key, position, in_pairs);
            keys.push(key);
            values.push(value);
            let first = (position + 1).saturating_sub(window);
            let mut attention = Vec::new();
            for (head, query) in query.chunks_exact(dim).enumerate() {
                let group = head / (SIZES.heads / SIZES.key_value_heads);
                let of_head = group * dim..(group + 1) * dim;
                let scores = keys[first..].iter().map(|key: &Vec<f32>| {
                    product(&key[of_head.clone()], query)[0] * attention_scale
                });
                let scores: Vec<f32> = scores.collect();
                let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let scores: Vec<f32> = scores.iter().map(|score| (score - max).exp()).collect();
                let sum: f32 = scores.iter().sum();
                attention.extend((0..dim).map(|index| {
                    let values = values[first..]
                        .iter()
                        .map(|value: &Vec<f32>| value[group * dim + index]);
                    values
                        .zip(&scores)
                        .map(|(v, score)| v * score / sum)
                        .sum::<f32>()
                }));
            }
            let change = model.linear(&name("attn_output"), &attention);
            add(state, &change, residual_scale);
            let normed = model.norm(&name("ffn_norm"), state);
            add(state, &model.feed_forward(layer, &normed), residual_scale);
        }
    }
    let head = model.weights("output.weight").unwrap_or(embedding);
    let logit_scale = model.scale("logit_scale").recip();
    let logits = states.iter().map(|state| {
        let logits = product(head, &model.norm("output_norm", state));
        logits.iter().map(|logit| logit * logit_scale).collect()
    });
    logits.collect()
}

fn add(state: &mut [f32], change: &[f32], scale: f32) {
    for (x, change) in state.iter_mut().zip(change) {
        *x += change * scale;
    }
}
