//! What a GGUF file computes: the sizes of its decoder, and which tensor is what.

use std::collections::BTreeSet;

use super::gguf::{Gguf, GgufError, Tensor};
use super::quantize::BLOCK;

/// The longest sequence an imported model is made for, in tokens. The tables of rotary angles have
/// a row for each.
const MAX_CONTEXT: usize = 8192;

/// No model has larger attention heads, or wider layers. False sizes would allocate gigabytes.
const MAX_HEAD_DIM: usize = 1024;
const MAX_WIDTH: usize = 1 << 20;

/// A decoder of the Llama family: RMS norms, rotary attention with grouped heads, a gated feed
/// forward network.
#[derive(Debug)]
pub(super) struct Architecture<'a> {
    /// Elements of a hidden state.
    pub(super) width: usize,
    /// Query heads.
    pub(super) heads: usize,
    /// Key/value heads.
    pub(super) key_value_heads: usize,
    /// Elements of a head.
    pub(super) head_dim: usize,
    /// Rows of the embedding.
    pub(super) vocabulary: usize,
    /// The longest sequence, in tokens.
    pub(super) context_length: usize,
    /// What the norms add to the mean square.
    pub(super) epsilon: f32,
    /// The base of the rotary frequencies.
    pub(super) rotary_base: f64,
    /// By what positions are divided.
    pub(super) rotary_scale: f64,
    /// By what each rotary frequency is divided, `[head_dim / 2]`.
    pub(super) rotary_factors: Option<&'a Tensor>,
    /// Whether the rows of queries and keys alternate between the two halves of a rotation.
    pub(super) alternates: bool,
    /// `[vocabulary, width]`
    pub(super) embedding: &'a Tensor,
    /// `[vocabulary, width]`; without it the embedding is used.
    pub(super) head: Option<&'a Tensor>,
    /// `[width]`
    pub(super) norm: &'a Tensor,
    /// In order.
    pub(super) layers: Vec<Layer<'a>>,
}

/// A layer's tensors. Norms are `[width]`.
#[derive(Debug)]
pub(super) struct Layer<'a> {
    /// Before the attention.
    pub(super) attention_norm: &'a Tensor,
    /// `[heads * head_dim, width]`
    pub(super) query: &'a Tensor,
    /// `[key_value_heads * head_dim, width]`
    pub(super) key: &'a Tensor,
    /// `[key_value_heads * head_dim, width]`
    pub(super) value: &'a Tensor,
    /// What is added to queries, keys and values.
    pub(super) bias: Option<[&'a Tensor; 3]>,
    /// Norms of each query head and of each key head, `[head_dim]`.
    pub(super) head_norms: Option<[&'a Tensor; 2]>,
    /// `[width, heads * head_dim]`
    pub(super) output: &'a Tensor,
    /// Before the feed forward network.
    pub(super) feed_forward_norm: &'a Tensor,
    /// `[feed_forward, width]`
    pub(super) gate: &'a Tensor,
    /// `[feed_forward, width]`
    pub(super) up: &'a Tensor,
    /// `[width, feed_forward]`
    pub(super) down: &'a Tensor,
}

impl<'a> Architecture<'a> {
    /// Reads the sizes from the metadata, and compares each tensor with them.
    ///
    /// # Errors
    ///
    /// See [`ArchitectureError`].
    pub(super) fn read(gguf: &'a Gguf) -> Result<Self, ArchitectureError> {
        let architecture = gguf.text("general.architecture")?;
        let architecture = architecture.ok_or_else(|| missing("general.architecture"))?;
        if !["llama", "qwen2", "qwen3"].contains(&architecture) {
            return Err(ArchitectureError::Unknown(architecture.to_owned()));
        }
        let key = |key: &str| format!("{architecture}.{key}");
        let size = |suffix: &str, limit: usize| {
            let key = key(suffix);
            match gguf.count(&key)?.ok_or_else(|| missing(&key))? {
                size if (1..=limit).contains(&size) => Ok(size),
                size => Err(ArchitectureError::Size { key, size, limit }),
            }
        };
        let width = size("embedding_length", MAX_WIDTH)?;
        let feed_forward = size("feed_forward_length", MAX_WIDTH)?;
        let heads = size("attention.head_count", width)?;
        let key_value_heads = match gguf.count(&key("attention.head_count_kv"))? {
            None => heads,
            Some(_) => size("attention.head_count_kv", heads)?,
        };
        let head_dim = match gguf.count(&key("attention.key_length"))? {
            None => width / heads,
            Some(_) => size("attention.key_length", MAX_HEAD_DIM)?,
        };
        let blocks = size("block_count", MAX_WIDTH)?;
        let context_length = size("context_length", usize::MAX)?.min(MAX_CONTEXT);

        let unsupported = |problem: String| Err(ArchitectureError::Unsupported(problem));
        if !heads.is_multiple_of(key_value_heads) {
            return unsupported(format!(
                "{heads} query heads for {key_value_heads} key/value heads"
            ));
        }
        if !head_dim.is_multiple_of(8) || head_dim > MAX_HEAD_DIM {
            return unsupported(format!("attention heads of {head_dim} elements"));
        }
        for same in ["attention.value_length", "rope.dimension_count"] {
            let other = gguf.count(&key(same))?;
            if let Some(other) = other.filter(|other| *other != head_dim) {
                return unsupported(format!(
                    "a {same} of {other} for heads of {head_dim} elements"
                ));
            }
        }
        if let Some(files @ 2..) = gguf.count("split.count")? {
            return unsupported(format!("its weights in {files} files"));
        }
        if let Some(experts @ 1..) = gguf.count(&key("expert_count"))? {
            return unsupported(format!("{experts} experts"));
        }
        for columns in [width, heads * head_dim, feed_forward] {
            if !columns.is_multiple_of(BLOCK) {
                return unsupported(format!("matrices of {columns} columns"));
            }
        }
        let rotary_scale = match gguf.text(&key("rope.scaling.type"))? {
            None | Some("none") => 1.0,
            Some("linear") => gguf.number(&key("rope.scaling.factor"))?.unwrap_or(1.0),
            Some(other) => return unsupported(format!("rotary scaling of type {other}")),
        };
        let rotary_base = gguf.number(&key("rope.freq_base"))?.unwrap_or(10_000.0);
        let epsilon = key("attention.layer_norm_rms_epsilon");
        let epsilon = gguf.number(&epsilon)?.ok_or_else(|| missing(&epsilon))?;
        if [rotary_scale, rotary_base]
            .iter()
            .any(|number| *number <= 0.0)
            || epsilon < 0.0
        {
            return unsupported("negative scales".to_owned());
        }

        let mut tensors = Tensors {
            gguf,
            used: BTreeSet::new(),
        };
        let embedding = tensors.open_matrix("token_embd.weight", width)?;
        let vocabulary = embedding.rows();
        let query_width = heads * head_dim;
        let key_width = key_value_heads * head_dim;
        let layers = (0..blocks).map(|layer| {
            let name = |suffix: &str| format!("blk.{layer}.{suffix}");
            let bias = match gguf.tensor(&name("attn_q.bias")) {
                None => None,
                Some(_) => Some([
                    tensors.vector(&name("attn_q.bias"), query_width)?,
                    tensors.vector(&name("attn_k.bias"), key_width)?,
                    tensors.vector(&name("attn_v.bias"), key_width)?,
                ]),
            };
            let head_norms = match architecture == "qwen3" {
                false => None,
                true => Some([
                    tensors.vector(&name("attn_q_norm.weight"), head_dim)?,
                    tensors.vector(&name("attn_k_norm.weight"), head_dim)?,
                ]),
            };
            Ok(Layer {
                attention_norm: tensors.vector(&name("attn_norm.weight"), width)?,
                query: tensors.matrix(&name("attn_q.weight"), width, query_width)?,
                key: tensors.matrix(&name("attn_k.weight"), width, key_width)?,
                value: tensors.matrix(&name("attn_v.weight"), width, key_width)?,
                bias,
                head_norms,
                output: tensors.matrix(&name("attn_output.weight"), query_width, width)?,
                feed_forward_norm: tensors.vector(&name("ffn_norm.weight"), width)?,
                gate: tensors.matrix(&name("ffn_gate.weight"), width, feed_forward)?,
                up: tensors.matrix(&name("ffn_up.weight"), width, feed_forward)?,
                down: tensors.matrix(&name("ffn_down.weight"), feed_forward, width)?,
            })
        });
        let layers = layers.collect::<Result<_, ArchitectureError>>()?;
        let head = match gguf.tensor("output.weight") {
            None => None,
            Some(_) => Some(tensors.matrix("output.weight", width, vocabulary)?),
        };
        let rotary_factors = match gguf.tensor("rope_freqs.weight") {
            None => None,
            Some(_) => Some(tensors.vector("rope_freqs.weight", head_dim / 2)?),
        };
        let norm = tensors.vector("output_norm.weight", width)?;
        // What is not used here would be missing from what the model computes.
        let unused = gguf
            .tensors()
            .find(|tensor| !tensors.used.contains(&*tensor.name));
        if let Some(tensor) = unused {
            return unsupported(format!("a tensor {}", tensor.name));
        }
        Ok(Self {
            width,
            heads,
            key_value_heads,
            head_dim,
            vocabulary,
            context_length,
            epsilon: epsilon as f32,
            rotary_base,
            rotary_scale,
            rotary_factors,
            // The converter from PyTorch's order does it for this architecture only.
            alternates: architecture == "llama",
            embedding,
            head,
            norm,
            layers,
        })
    }
}

/// Finds tensors, and keeps a list of those that were found.
struct Tensors<'a> {
    gguf: &'a Gguf,
    used: BTreeSet<&'a str>,
}

impl<'a> Tensors<'a> {
    fn find(
        &mut self,
        name: &str,
        is_right: impl Fn(&[usize]) -> bool,
        expected: &str,
    ) -> Result<&'a Tensor, ArchitectureError> {
        let tensor = self.gguf.tensor(name);
        let tensor = tensor.ok_or_else(|| ArchitectureError::NoTensor(name.to_owned()))?;
        if !is_right(&tensor.dimensions) {
            return Err(ArchitectureError::Shape {
                tensor: name.to_owned(),
                dimensions: tensor.dimensions.clone(),
                expected: expected.to_owned(),
            });
        }
        self.used.insert(&tensor.name);
        Ok(tensor)
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<&'a Tensor, ArchitectureError> {
        self.find(name, |dimensions| dimensions == [len], &format!("[{len}]"))
    }

    fn matrix(
        &mut self,
        name: &str,
        columns: usize,
        rows: usize,
    ) -> Result<&'a Tensor, ArchitectureError> {
        let expected = format!("[{columns}, {rows}]");
        self.find(name, |dimensions| dimensions == [columns, rows], &expected)
    }

    /// A matrix with any number of rows.
    fn open_matrix(&mut self, name: &str, columns: usize) -> Result<&'a Tensor, ArchitectureError> {
        let is_right = |dimensions: &[usize]| dimensions.len() == 2 && dimensions[0] == columns;
        self.find(name, is_right, &format!("[{columns}, _]"))
    }
}

fn missing(key: &str) -> ArchitectureError {
    ArchitectureError::Missing(key.to_owned())
}

/// Why a GGUF file is not a model that can be imported. The caller puts the file's name before this.
#[derive(Debug, thiserror::Error)]
pub enum ArchitectureError {
    /// A value of the metadata is of the wrong kind.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// It is of another architecture.
    #[error(
        "its architecture is {0}, and only llama, qwen2 and qwen3 are supported; use another model"
    )]
    Unknown(String),
    /// It computes something that the imported graph does not.
    #[error("it has {0}, which is not supported; use another model")]
    Unsupported(String),
    /// The metadata lack a value.
    #[error("its metadata have no {0}; get the file from the model's publisher")]
    Missing(String),
    /// A size is wrong.
    #[error("its {key} is {size}, not 1 to {limit}; the file is damaged, download it again")]
    Size {
        /// Where the size stands.
        key: String,
        /// The size.
        size: usize,
        /// The largest that can be.
        limit: usize,
    },
    /// A tensor is missing.
    #[error("it has no tensor {0}; get the file from the model's publisher")]
    NoTensor(String),
    /// A tensor does not fit the sizes.
    #[error(
        "its tensor {tensor} has the dimensions {dimensions:?}, and {expected} fits its metadata; \
         the file is damaged, download it again"
    )]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its dimensions, the innermost one first.
        dimensions: Vec<usize>,
        /// What they should be.
        expected: String,
    },
}
