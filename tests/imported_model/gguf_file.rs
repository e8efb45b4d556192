//! Writes GGUF files, good ones and bad ones.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Weights that share a scale in [`Stored::Q8_0`] and [`Stored::Q4_0`].
const BLOCK: usize = 32;

/// A value of the metadata.
#[derive(Clone)]
pub(crate) enum Value {
    U32(u32),
    F32(f32),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    Flag(bool),
    F32s(Vec<f32>),
}

/// How a tensor is stored.
#[derive(Clone, Copy)]
pub(crate) enum Stored {
    F32,
    Q4_0,
    Q8_0,
}

/// A tensor: `dimensions` with the innermost one first, and its weights.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dimensions: Vec<u64>,
    pub(crate) block_type: u32,
    pub(crate) bytes: Vec<u8>,
    /// The weights that the bytes stand for.
    pub(crate) weights: Vec<f32>,
}

/// What a GGUF file holds.
#[derive(Clone)]
pub(crate) struct GgufFile {
    pub(crate) metadata: Vec<(String, Value)>,
    pub(crate) tensors: Vec<Tensor>,
}

/// The sizes of a small decoder.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) width: usize,
    pub(crate) feed_forward: usize,
    pub(crate) heads: usize,
    pub(crate) key_value_heads: usize,
    pub(crate) layers: usize,
}

impl Sizes {
    pub(crate) fn head_dim(self) -> usize {
        self.width / self.heads
    }
}

/// Small sizes, with heads in groups of two.
pub(crate) const SIZES: Sizes = Sizes {
    width: 64,
    feed_forward: 96,
    heads: 4,
    key_value_heads: 2,
    layers: 2,
};

/// The characters that stand for the 256 bytes in a byte-level vocabulary.
pub(crate) fn byte_tokens() -> Vec<String> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = '\u{100}'..;
    let token = |byte| match printable(byte) {
        true => char::from(byte),
        false => others.next().unwrap(),
    };
    (0..=255).map(token).map(String::from).collect()
}

/// The metadata of a vocabulary: the bytes, the results of `merges`, and special tokens.
pub(crate) fn vocabulary(pre: &str, merges: &[&str]) -> Vec<(String, Value)> {
    let mut tokens = byte_tokens();
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    let mut kinds = vec![1; tokens.len()];
    for (token, kind) in [
        ("<|endoftext|>", 3),
        ("<|im_end|>", 3),
        ("<|fim_prefix|>", 3),
        ("<|fim_middle|>", 4),
        // Files exist that have a marker as a normal token.
        ("<|fim_suffix|>", 1),
        ("[PAD]", 5),
    ] {
        tokens.push(token.to_owned());
        kinds.push(kind);
    }
    let end = tokens.len() as u32 - 6;
    let merges = merges.iter().map(|merge| (*merge).to_owned()).collect();
    [
        ("model", Value::Text("gpt2".to_owned())),
        ("pre", Value::Text(pre.to_owned())),
        ("tokens", Value::Texts(tokens)),
        ("token_type", Value::I32s(kinds)),
        ("merges", Value::Texts(merges)),
        ("eos_token_id", Value::U32(end)),
    ]
    .map(|(key, value)| (format!("tokenizer.ggml.{key}"), value))
    .into()
}

impl GgufFile {
    /// A model with random weights and this vocabulary, whose embedding has a row for each token.
    pub(crate) fn random(
        architecture: &str,
        sizes: Sizes,
        has_bias: bool,
        vocabulary: Vec<(String, Value)>,
    ) -> Self {
        let mut file = Self {
            metadata: vec![(
                "general.architecture".to_owned(),
                Value::Text(architecture.to_owned()),
            )],
            tensors: Vec::new(),
        };
        for (key, number) in [
            ("block_count", sizes.layers),
            ("context_length", 64),
            ("embedding_length", sizes.width),
            ("feed_forward_length", sizes.feed_forward),
            ("attention.head_count", sizes.heads),
            ("attention.head_count_kv", sizes.key_value_heads),
        ] {
            file.set(&format!("{architecture}.{key}"), Value::U32(number as u32));
        }
        let has_layer_norms = architecture == "starcoder2";
        let epsilon = match has_layer_norms {
            true => "layer_norm_epsilon",
            false => "layer_norm_rms_epsilon",
        };
        let epsilon = format!("{architecture}.attention.{epsilon}");
        file.set(&epsilon, Value::F32(1e-5));
        if architecture == "granite" {
            for (key, scale) in [
                ("attention.scale", 0.125),
                ("embedding_scale", 3.0),
                ("residual_scale", 0.5),
                ("logit_scale", 4.0),
            ] {
                file.set(&format!("granite.{key}"), Value::F32(scale));
            }
        }
        file.metadata.extend(vocabulary);
        let rows = match file.get("tokenizer.ggml.tokens") {
            Value::Texts(tokens) => tokens.len(),
            _ => unreachable!("tokens are texts"),
        };

        let mut rng = SmallRng::seed_from_u64(22);
        let mut matrix = |name: &str, columns: usize, rows: usize, size: f32| {
            let size = size / (columns as f32).sqrt();
            let weights = (0..rows * columns).map(|_| rng.random_range(-size..size));
            let weights: Vec<f32> = weights.collect();
            let dimensions = [columns as u64, rows as u64];
            Tensor::new(name, &dimensions, Stored::Q8_0, &weights)
        };
        // Some multiply the embeddings.
        let size = match architecture {
            "gemma" => 1.0,
            "granite" => 2.0,
            _ => 8.0,
        };
        let mut tensors = vec![matrix("token_embd.weight", sizes.width, rows, size)];
        if !["gemma", "starcoder2"].contains(&architecture) {
            tensors.push(matrix("output.weight", sizes.width, rows, 4.0));
        }
        let query = sizes.width;
        let key = sizes.key_value_heads * sizes.head_dim();
        for layer in 0..sizes.layers {
            for (part, columns, rows, size) in [
                // Large, so that attention looks at few positions.
                ("attn_q", sizes.width, query, 3.0),
                ("attn_k", sizes.width, key, 3.0),
                ("attn_v", sizes.width, key, 2.0),
                ("attn_output", query, sizes.width, 2.0),
                ("ffn_gate", sizes.width, sizes.feed_forward, 2.0),
                ("ffn_up", sizes.width, sizes.feed_forward, 2.0),
                ("ffn_down", sizes.feed_forward, sizes.width, 2.0),
            ] {
                if part == "ffn_gate" && architecture == "starcoder2" {
                    continue;
                }
                let name = format!("blk.{layer}.{part}.weight");
                tensors.push(matrix(&name, columns, rows, size));
            }
        }
        let mut vector = |name: &str, len: usize, around: f32| {
            let weights = (0..len).map(|_| around + rng.random_range(-0.5..0.5));
            let weights: Vec<f32> = weights.collect();
            Tensor::new(name, &[len as u64], Stored::F32, &weights)
        };
        let mut norms = vec!["output_norm".to_owned()];
        for layer in 0..sizes.layers {
            norms.extend(["attn_norm", "ffn_norm"].map(|norm| format!("blk.{layer}.{norm}")));
        }
        for norm in norms {
            tensors.push(vector(&format!("{norm}.weight"), sizes.width, 1.0));
            if has_layer_norms {
                tensors.push(vector(&format!("{norm}.bias"), sizes.width, 0.0));
            }
        }
        for layer in 0..sizes.layers {
            if architecture == "qwen3" {
                for norm in ["attn_q_norm", "attn_k_norm"] {
                    let name = format!("blk.{layer}.{norm}.weight");
                    tensors.push(vector(&name, sizes.head_dim(), 1.0));
                }
            }
            let attention = [("attn_q", query), ("attn_k", key), ("attn_v", key)];
            let others = [
                ("attn_output", sizes.width),
                ("ffn_up", sizes.feed_forward),
                ("ffn_down", sizes.width),
            ];
            let others = others.into_iter().filter(|_| has_layer_norms);
            let biases = attention.into_iter().chain(others);
            for (part, len) in biases.filter(|_| has_bias) {
                tensors.push(vector(&format!("blk.{layer}.{part}.bias"), len, 0.0));
            }
        }
        file.tensors = tensors;
        file
    }

    pub(crate) fn get(&self, key: &str) -> &Value {
        let entry = self.metadata.iter().find(|(other, _)| other == key);
        &entry.unwrap().1
    }

    /// Sets or adds a value of the metadata.
    pub(crate) fn set(&mut self, key: &str, value: Value) {
        self.metadata.retain(|(other, _)| other != key);
        self.metadata.push((key.to_owned(), value));
    }

    /// The tensor with this name.
    pub(crate) fn tensor(&mut self, name: &str) -> &mut Tensor {
        let tensor = self.tensors.iter_mut().find(|tensor| tensor.name == name);
        tensor.unwrap()
    }

    /// The bytes of the file, and how many of them come before the tensors.
    pub(crate) fn bytes(&self) -> (Vec<u8>, usize) {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            write_text(&mut bytes, key);
            write_value(&mut bytes, value);
        }
        let mut data: Vec<u8> = Vec::new();
        for tensor in &self.tensors {
            write_text(&mut bytes, &tensor.name);
            bytes.extend((tensor.dimensions.len() as u32).to_le_bytes());
            for dimension in &tensor.dimensions {
                bytes.extend(dimension.to_le_bytes());
            }
            bytes.extend(tensor.block_type.to_le_bytes());
            data.resize(data.len().next_multiple_of(32), 0);
            bytes.extend((data.len() as u64).to_le_bytes());
            data.extend(&tensor.bytes);
        }
        let header = bytes.len();
        bytes.resize(header.next_multiple_of(32), 0);
        bytes.extend(data);
        (bytes, header)
    }
}

impl Tensor {
    pub(crate) fn new(name: &str, dimensions: &[u64], stored: Stored, weights: &[f32]) -> Self {
        let (block_type, bytes, weights) = match stored {
            Stored::F32 => {
                let bytes = weights.iter().flat_map(|weight| weight.to_le_bytes());
                (0, bytes.collect(), weights.to_vec())
            }
            Stored::Q4_0 => {
                let (bytes, weights) = blocks(weights, 7.0, |numbers, bytes| {
                    let (low, high) = numbers.split_at(BLOCK / 2);
                    let pairs = low.iter().zip(high);
                    bytes
                        .extend(pairs.map(|(low, high)| (low + 8) as u8 | ((high + 8) as u8) << 4));
                });
                (2, bytes, weights)
            }
            Stored::Q8_0 => {
                let (bytes, weights) = blocks(weights, 127.0, |numbers, bytes| {
                    bytes.extend(numbers.iter().map(|number| *number as u8));
                });
                (8, bytes, weights)
            }
        };
        Self {
            name: name.to_owned(),
            dimensions: dimensions.to_vec(),
            block_type,
            bytes,
            weights,
        }
    }
}

/// Blocks of a half-precision scale and 32 numbers, the largest of which is `largest`. Returns their
/// bytes and the weights that they stand for.
fn blocks(weights: &[f32], largest: f32, write: fn(&[i8], &mut Vec<u8>)) -> (Vec<u8>, Vec<f32>) {
    let mut bytes = Vec::new();
    let mut stored = Vec::new();
    for block in weights.chunks_exact(BLOCK) {
        let max = block
            .iter()
            .fold(0.0_f32, |max, weight| max.max(weight.abs()));
        // As many bits as half precision has.
        let scale = f32::from_bits((max / largest).to_bits() & !0x1FFF);
        bytes.extend(half_of(scale).to_le_bytes());
        let numbers = block.iter().map(|weight| (weight / scale).round());
        let numbers: Vec<i8> = numbers
            .map(|number| number.clamp(-largest, largest) as i8)
            .collect();
        write(&numbers, &mut bytes);
        stored.extend(numbers.iter().map(|number| f32::from(*number) * scale));
    }
    (bytes, stored)
}

/// A positive number of half precision, neither very large nor very small.
fn half_of(scale: f32) -> u16 {
    let bits = scale.to_bits();
    let exponent = (bits >> 23) as i32 - 127 + 15;
    assert!((1..31).contains(&exponent), "{scale}");
    (exponent << 10) as u16 | (bits >> 13) as u16 & 0x3FF
}

pub(crate) fn write_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.bytes());
}

fn write_value(bytes: &mut Vec<u8>, value: &Value) {
    let code = |bytes: &mut Vec<u8>, code: u32| bytes.extend(code.to_le_bytes());
    match value {
        Value::U32(number) => {
            code(bytes, 4);
            bytes.extend(number.to_le_bytes());
        }
        Value::F32(number) => {
            code(bytes, 6);
            bytes.extend(number.to_le_bytes());
        }
        Value::Flag(flag) => {
            bytes.extend(7_u32.to_le_bytes());
            bytes.push(u8::from(*flag));
        }
        Value::Text(text) => {
            code(bytes, 8);
            write_text(bytes, text);
        }
        Value::Texts(texts) => {
            code(bytes, 9);
            code(bytes, 8);
            bytes.extend((texts.len() as u64).to_le_bytes());
            for text in texts {
                write_text(bytes, text);
            }
        }
        Value::F32s(numbers) => {
            code(bytes, 9);
            code(bytes, 6);
            bytes.extend((numbers.len() as u64).to_le_bytes());
            for number in numbers {
                bytes.extend(number.to_le_bytes());
            }
        }
        Value::I32s(numbers) => {
            code(bytes, 9);
            code(bytes, 5);
            bytes.extend((numbers.len() as u64).to_le_bytes());
            for number in numbers {
                bytes.extend(number.to_le_bytes());
            }
        }
    }
}
