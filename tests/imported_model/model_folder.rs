//! Writes folders in the layout of Hugging Face, good ones and bad ones.

use std::fs;
use std::path::Path;

use half::{bf16, f16};
use serde_json::{Map, Value as Json, json};

use crate::gguf_file::{GgufFile, Value, byte_tokens};

/// How the tensors are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dtype {
    F32,
    F16,
    Bf16,
}

/// What a folder holds.
#[derive(Clone)]
pub(crate) struct ModelFolder {
    pub(crate) config: Json,
    pub(crate) tokenizer: Json,
    pub(crate) tensors: Vec<FolderTensor>,
}

/// A tensor, its outermost dimension first.
#[derive(Clone)]
pub(crate) struct FolderTensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) dtype: &'static str,
    pub(crate) bytes: Vec<u8>,
}

/// What a folder calls a part of a GGUF file.
fn name_of(architecture: &str, gguf: &str) -> String {
    let [up, down] = match architecture {
        "starcoder2" => ["c_fc", "c_proj"],
        _ => ["up_proj", "down_proj"],
    };
    let (part, end) = gguf.rsplit_once('.').unwrap();
    let part = match part.strip_prefix("blk.") {
        None => match part {
            "token_embd" => "model.embed_tokens".to_owned(),
            "output" => "lm_head".to_owned(),
            "output_norm" => "model.norm".to_owned(),
            other => panic!("{other}"),
        },
        Some(part) => {
            let (layer, part) = part.split_once('.').unwrap();
            let part = match part {
                "attn_norm" => "input_layernorm".to_owned(),
                "ffn_norm" => "post_attention_layernorm".to_owned(),
                "attn_output" => "self_attn.o_proj".to_owned(),
                "ffn_gate" => "mlp.gate_proj".to_owned(),
                "ffn_up" => format!("mlp.{up}"),
                "ffn_down" => format!("mlp.{down}"),
                attention => match attention.strip_suffix("_norm") {
                    Some(part) => format!("self_attn.{}_norm", &part[5..]),
                    None => format!("self_attn.{}_proj", &attention[5..]),
                },
            };
            format!("model.layers.{layer}.{part}")
        }
    };
    format!("{part}.{end}")
}

/// What `config.json` calls a key of a GGUF file.
const KEYS: [(&str, &str); 12] = [
    ("block_count", "num_hidden_layers"),
    ("context_length", "max_position_embeddings"),
    ("embedding_length", "hidden_size"),
    ("feed_forward_length", "intermediate_size"),
    ("attention.head_count", "num_attention_heads"),
    ("attention.head_count_kv", "num_key_value_heads"),
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ("attention.layer_norm_epsilon", "norm_epsilon"),
    ("attention.scale", "attention_multiplier"),
    ("embedding_scale", "embedding_multiplier"),
    ("residual_scale", "residual_multiplier"),
    ("logit_scale", "logits_scaling"),
];

impl ModelFolder {
    /// The model of a GGUF file, whose weights are rounded to what the folder stores.
    pub(crate) fn of(file: &mut GgufFile, dtype: Dtype) -> Self {
        let Value::Text(architecture) = file.get("general.architecture").clone() else {
            unreachable!("it is a text");
        };
        let mut config = Map::new();
        config.insert("model_type".to_owned(), json!(architecture));
        for (gguf, folder) in KEYS {
            let key = format!("{architecture}.{gguf}");
            let value = match file.metadata.iter().find(|(other, _)| *other == key) {
                Some((_, Value::U32(number))) => json!(number),
                Some((_, Value::F32(number))) => json!(number),
                _ => continue,
            };
            config.insert(folder.to_owned(), value);
        }
        config.insert(
            "hidden_act".to_owned(),
            match architecture.as_str() {
                "starcoder2" | "gemma" => json!("gelu_pytorch_tanh"),
                _ => json!("silu"),
            },
        );
        let is_tied = !file
            .tensors
            .iter()
            .any(|tensor| tensor.name == "output.weight");
        config.insert("tie_word_embeddings".to_owned(), json!(is_tied));
        let tensors = file.tensors.iter_mut().map(|tensor| {
            // Gemma's norms are stored less one.
            let offset = match architecture == "gemma" && tensor.name.contains("norm") {
                true => 1.0,
                false => 0.0,
            };
            let mut bytes = Vec::new();
            for weight in &mut tensor.weights {
                let stored = *weight - offset;
                let rounded = match dtype {
                    Dtype::F32 => {
                        bytes.extend(stored.to_le_bytes());
                        stored
                    }
                    Dtype::F16 => {
                        bytes.extend(f16::from_f32(stored).to_le_bytes());
                        f16::from_f32(stored).to_f32()
                    }
                    Dtype::Bf16 => {
                        bytes.extend(bf16::from_f32(stored).to_le_bytes());
                        bf16::from_f32(stored).to_f32()
                    }
                };
                *weight = rounded + offset;
            }
            FolderTensor {
                name: name_of(&architecture, &tensor.name),
                shape: tensor.dimensions.iter().rev().copied().collect(),
                dtype: match dtype {
                    Dtype::F32 => "F32",
                    Dtype::F16 => "F16",
                    Dtype::Bf16 => "BF16",
                },
                bytes,
            }
        });
        Self {
            tensors: tensors.collect(),
            config: Json::Object(config),
            tokenizer: tokenizer(),
        }
    }

    /// The tensor with this name.
    pub(crate) fn tensor(&mut self, name: &str) -> &mut FolderTensor {
        let tensor = self.tensors.iter_mut().find(|tensor| tensor.name == name);
        tensor.unwrap()
    }

    /// Writes all but the weights.
    pub(crate) fn write_formats(&self, folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        fs::write(folder.join("tokenizer.json"), self.tokenizer.to_string()).unwrap();
    }

    /// Writes the folder, with all weights in one file.
    pub(crate) fn write(&self, folder: &Path) {
        self.write_formats(folder);
        fs::write(folder.join("model.safetensors"), shard(&self.tensors)).unwrap();
    }

    /// Writes the folder, with weights in this many files.
    pub(crate) fn write_shards(&self, folder: &Path, count: usize) {
        self.write_formats(folder);
        let mut map = Map::new();
        let size = self.tensors.len().div_ceil(count);
        for (index, tensors) in self.tensors.chunks(size).enumerate() {
            let file = format!("model-{:05}-of-{count:05}.safetensors", index + 1);
            fs::write(folder.join(&file), shard(tensors)).unwrap();
            map.extend(
                tensors
                    .iter()
                    .map(|tensor| (tensor.name.clone(), json!(file))),
            );
        }
        write_index(folder, map);
    }
}

pub(crate) fn write_index(folder: &Path, map: Map<String, Json>) {
    let index = json!({ "metadata": { "total_size": 1 }, "weight_map": map });
    let path = folder.join("model.safetensors.index.json");
    fs::write(path, index.to_string()).unwrap();
}

/// The table of a file with these tensors.
pub(crate) fn table(tensors: &[FolderTensor]) -> Map<String, Json> {
    let mut at = 0;
    let mut table = Map::new();
    table.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    for tensor in tensors {
        let end = at + tensor.bytes.len();
        let entry = json!({
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": [at, end],
        });
        table.insert(tensor.name.clone(), entry);
        at = end;
    }
    table
}

/// The bytes of a file with this table.
pub(crate) fn with_table(table: &Map<String, Json>, tensors: &[FolderTensor]) -> Vec<u8> {
    let table = Json::Object(table.clone()).to_string();
    let mut bytes = (table.len() as u64).to_le_bytes().to_vec();
    bytes.extend(table.bytes());
    bytes.extend(tensors.iter().flat_map(|tensor| &tensor.bytes));
    bytes
}

/// The bytes of a file with these tensors.
pub(crate) fn shard(tensors: &[FolderTensor]) -> Vec<u8> {
    with_table(&table(tensors), tensors)
}

/// The bytes, one merge, and the markers.
fn tokenizer() -> Json {
    let mut tokens = byte_tokens();
    tokens.push("le".to_owned());
    let mut added = Vec::new();
    for (token, special) in [
        ("<|endoftext|>", true),
        ("<|im_end|>", true),
        ("<|fim_prefix|>", false),
        ("<|fim_middle|>", false),
        ("<|fim_suffix|>", false),
    ] {
        added.push(json!({
            "id": tokens.len(),
            "content": token,
            "single_word": false,
            "lstrip": false,
            "rstrip": false,
            "normalized": false,
            "special": special,
        }));
        tokens.push(token.to_owned());
    }
    let byte_level = json!({
        "type": "ByteLevel",
        "add_prefix_space": false,
        "trim_offsets": true,
        "use_regex": true,
    });
    let vocab: Map<String, Json> = tokens
        .into_iter()
        .enumerate()
        .map(|(id, token)| (token, json!(id)))
        .collect();
    json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": { "type": "BPE", "vocab": vocab, "merges": [["l", "e"]] },
    })
}
