//! What a model computes: the sizes of its decoder, and which tensor is what.

use std::collections::BTreeSet;

use super::family::{Activation, Family, Window};
use super::quantize::BLOCK;
use super::rotary::Rotary;
use super::source::{FactError, Format, Source, Spelling, Tensor};

/// The longest sequence an imported model is made for, in tokens. The tables of rotary angles have
/// a row for each.
const MAX_CONTEXT: usize = 8192;

/// No model has larger attention heads, or wider layers. False sizes would allocate gigabytes.
const MAX_HEAD_DIM: usize = 1024;
const MAX_WIDTH: usize = 1 << 20;

/// A decoder: norms, rotary attention with grouped heads, feed forward networks.
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
    /// Whether norms subtract the mean.
    pub(super) subtracts_mean: bool,
    /// What is added to the weights of norms.
    pub(super) norm_offset: f32,
    /// What feed forward networks apply to each element.
    pub(super) activation: Activation,
    /// The angles of the attention.
    pub(super) rotary: Rotary,
    /// By what each rotary frequency is divided, `[head_dim / 2]`.
    pub(super) rotary_factors: Option<&'a Tensor>,
    /// Whether the rows of queries and keys alternate between the two halves of a rotation.
    pub(super) alternates: bool,
    /// By what products of queries and keys are multiplied.
    pub(super) attention_scale: f32,
    /// By what embeddings are multiplied.
    pub(super) embedding_scale: f32,
    /// By what each layer's two additions to the hidden state are multiplied.
    pub(super) residual_scale: f32,
    /// By what logits are multiplied.
    pub(super) logit_scale: f32,
    /// `[vocabulary, width]`
    pub(super) embedding: &'a Tensor,
    /// `[vocabulary, width]`; without it the embedding is used.
    pub(super) head: Option<&'a Tensor>,
    /// After the last layer.
    pub(super) norm: Norm<'a>,
    /// In order.
    pub(super) layers: Vec<Layer<'a>>,
}

/// A layer.
#[derive(Debug)]
pub(super) struct Layer<'a> {
    /// Before the attention.
    pub(super) attention_norm: Norm<'a>,
    /// From `width` to `heads * head_dim`.
    pub(super) query: Linear<'a>,
    /// From `width` to `key_value_heads * head_dim`.
    pub(super) key: Linear<'a>,
    /// From `width` to `key_value_heads * head_dim`.
    pub(super) value: Linear<'a>,
    /// Norms of each query head and of each key head, `[head_dim]`.
    pub(super) head_norms: Option<[Norm<'a>; 2]>,
    /// How many positions the attention sees, the token's own included, if not all.
    pub(super) window: Option<usize>,
    /// From `heads * head_dim` to `width`.
    pub(super) output: Linear<'a>,
    /// Before the feed forward network.
    pub(super) feed_forward_norm: Norm<'a>,
    /// From `width` to `feed_forward`. Without it the activation is applied to `up`.
    pub(super) gate: Option<Linear<'a>>,
    /// From `width` to `feed_forward`.
    pub(super) up: Linear<'a>,
    /// From `feed_forward` to `width`.
    pub(super) down: Linear<'a>,
}

/// A norm: `[width]` each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Norm<'a> {
    pub(super) weight: &'a Tensor,
    pub(super) bias: Option<&'a Tensor>,
}

/// A product with a matrix `[outputs, inputs]`, and `[outputs]` that are added.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linear<'a> {
    pub(super) weight: &'a Tensor,
    pub(super) bias: Option<&'a Tensor>,
}

/// The sizes that tensors are compared with.
#[derive(Clone, Copy)]
struct Sizes {
    width: usize,
    feed_forward: usize,
    heads: usize,
    key_value_heads: usize,
    head_dim: usize,
    layers: usize,
}

impl<'a> Architecture<'a> {
    /// Reads the sizes that `source` names, and compares each tensor with them.
    ///
    /// # Errors
    ///
    /// See [`ArchitectureError`].
    pub(super) fn read(source: &'a Source) -> Result<Self, ArchitectureError> {
        let facts = Facts::new(source)?;
        let family = facts.family;
        let sizes = facts.sizes()?;
        let context = ["context_length", "max_position_embeddings"];
        let context_length = facts.size(context, usize::MAX)?.min(MAX_CONTEXT);
        facts.check_supported(sizes)?;
        let epsilon = match family.has_layer_norms {
            true => ["attention.layer_norm_epsilon", "norm_epsilon"],
            false => ["attention.layer_norm_rms_epsilon", "rms_norm_eps"],
        };
        let epsilon = facts.scale(epsilon, None)?;
        let rotary = Rotary::read(source, |key| facts.key([key, ""]))?;
        let attention_scale = (sizes.head_dim as f64).powf(-0.5);
        let mut scales = [attention_scale, 1.0, 1.0, 1.0];
        if family.has_scales {
            let attention = match source.format {
                Format::Gguf => attention_scale,
                Format::Folder => 1.0,
            };
            scales = [
                facts.scale(["attention.scale", "attention_multiplier"], Some(attention))?,
                facts.scale(["embedding_scale", "embedding_multiplier"], Some(1.0))?,
                facts.scale(["residual_scale", "residual_multiplier"], Some(1.0))?,
                facts
                    .scale(["logit_scale", "logits_scaling"], Some(1.0))?
                    .recip(),
            ];
        }
        if family.scales_embedding {
            scales[1] = (sizes.width as f64).sqrt();
        }
        let [
            attention_scale,
            embedding_scale,
            residual_scale,
            logit_scale,
        ] = scales.map(|scale| scale as f32);

        let mut tensors = Tensors {
            source,
            used: BTreeSet::new(),
        };
        let embedding = source.spelled(["token_embd.weight", "model.embed_tokens.weight"]);
        let embedding = tensors.open_matrix(embedding, sizes.width)?;
        let vocabulary = embedding.rows();
        let layers = tensors.layers(&facts, sizes, context_length)?;
        let head = source.spelled(["output.weight", "lm_head.weight"]);
        let shares = match source.format {
            Format::Gguf => source.tensor(head).is_none(),
            Format::Folder => source.flag("tie_word_embeddings")?.unwrap_or(family.shares),
        };
        let head = match shares {
            // It may be there all the same, and is not used.
            true => {
                tensors.used.insert(head.to_owned());
                None
            }
            false => Some(tensors.find(head, &[vocabulary, sizes.width])?),
        };
        let rotary_factors = match source.tensor("rope_freqs.weight") {
            None => None,
            Some(_) => Some(tensors.find("rope_freqs.weight", &[sizes.head_dim / 2])?),
        };
        let norm = source.spelled(["output_norm", "model.norm"]);
        let norm = tensors.norm(norm, sizes.width, family.has_layer_norms)?;
        tensors.check_all_used()?;
        Ok(Self {
            width: sizes.width,
            heads: sizes.heads,
            key_value_heads: sizes.key_value_heads,
            head_dim: sizes.head_dim,
            vocabulary,
            context_length,
            epsilon: epsilon as f32,
            subtracts_mean: family.has_layer_norms,
            norm_offset: match source.format {
                Format::Folder if family.norms_around_zero => 1.0,
                _ => 0.0,
            },
            activation: family.activation,
            rotary,
            rotary_factors,
            alternates: source.format == Format::Gguf && family.alternates,
            attention_scale,
            embedding_scale,
            residual_scale,
            logit_scale,
            embedding,
            head,
            norm,
            layers,
        })
    }
}

/// What a model says of itself.
struct Facts<'a> {
    source: &'a Source,
    family: &'static Family,
}

impl<'a> Facts<'a> {
    fn new(source: &'a Source) -> Result<Self, ArchitectureError> {
        let key = source.spelled(["general.architecture", "model_type"]);
        let name = source.text(key)?.ok_or_else(|| missing(key))?;
        let family = Family::named(name);
        let family = family.ok_or_else(|| ArchitectureError::Unknown(name.to_owned()))?;
        Ok(Self { source, family })
    }

    fn key(&self, spelling: [&str; 2]) -> String {
        match self.source.format {
            Format::Gguf => format!("{}.{}", self.family.name, spelling[0]),
            Format::Folder => spelling[1].to_owned(),
        }
    }

    /// A size that must be there, from 1 to `limit`.
    fn size(&self, spelling: Spelling, limit: usize) -> Result<usize, ArchitectureError> {
        let key = self.key(spelling);
        match self.source.count(&key)?.ok_or_else(|| missing(&key))? {
            size if (1..=limit).contains(&size) => Ok(size),
            size => Err(ArchitectureError::Size { key, size, limit }),
        }
    }

    /// A size that is there, or the usual one.
    fn size_or(
        &self,
        spelling: Spelling,
        limit: usize,
        usual: usize,
    ) -> Result<usize, ArchitectureError> {
        match self.source.count(&self.key(spelling))? {
            None => Ok(usual),
            Some(_) => self.size(spelling, limit),
        }
    }

    /// A positive number, which must be there if there is no usual one.
    fn scale(&self, spelling: Spelling, usual: Option<f64>) -> Result<f64, ArchitectureError> {
        let key = self.key(spelling);
        let number = self.source.number(&key)?.or(usual);
        match number.ok_or_else(|| missing(&key))? {
            number if number > 0.0 && (number as f32).is_normal() => Ok(number),
            number => unsupported(format!("a {key} of {number}")),
        }
    }

    fn sizes(&self) -> Result<Sizes, ArchitectureError> {
        let width = self.size(["embedding_length", "hidden_size"], MAX_WIDTH)?;
        let heads = self.size(["attention.head_count", "num_attention_heads"], width)?;
        let key_value_heads = ["attention.head_count_kv", "num_key_value_heads"];
        Ok(Sizes {
            width,
            feed_forward: self.size(["feed_forward_length", "intermediate_size"], MAX_WIDTH)?,
            heads,
            key_value_heads: self.size_or(key_value_heads, heads, heads)?,
            head_dim: self.size_or(
                ["attention.key_length", "head_dim"],
                MAX_HEAD_DIM,
                width / heads,
            )?,
            layers: self.size(["block_count", "num_hidden_layers"], MAX_WIDTH)?,
        })
    }

    /// Refuses what the graph does not compute.
    fn check_supported(&self, sizes: Sizes) -> Result<(), ArchitectureError> {
        let Sizes {
            width,
            feed_forward,
            heads,
            key_value_heads,
            head_dim,
            ..
        } = sizes;
        if !heads.is_multiple_of(key_value_heads) {
            return unsupported(format!(
                "{heads} query heads for {key_value_heads} key/value heads"
            ));
        }
        if !head_dim.is_multiple_of(8) || head_dim > MAX_HEAD_DIM {
            return unsupported(format!("attention heads of {head_dim} elements"));
        }
        for columns in [width, heads * head_dim, feed_forward] {
            if !columns.is_multiple_of(BLOCK) {
                return unsupported(format!("matrices of {columns} columns"));
            }
        }
        if self.source.format == Format::Folder {
            if let Some(method) = self.source.text("quantization_config.quant_method")? {
                return unsupported(format!("weights that {method} has quantised"));
            }
            let activation = match self.source.text("hidden_activation")? {
                None => self.source.text("hidden_act")?,
                named => named,
            };
            return match activation.filter(|name| !self.family.activations.contains(name)) {
                None => Ok(()),
                Some(other) => unsupported(format!("the activation {other}")),
            };
        }
        for same in ["attention.value_length", "rope.dimension_count"] {
            let other = self.source.count(&self.key([same, ""]))?;
            if let Some(other) = other.filter(|other| *other != head_dim) {
                return unsupported(format!(
                    "a {same} of {other} for heads of {head_dim} elements"
                ));
            }
        }
        if let Some(files @ 2..) = self.source.count("split.count")? {
            return unsupported(format!("its weights in {files} files"));
        }
        if let Some(experts @ 1..) = self.source.count(&self.key(["expert_count", ""]))? {
            return unsupported(format!("{experts} experts"));
        }
        Ok(())
    }

    /// How many positions the attention of a layer sees, if that is fewer than `context`.
    fn window(&self, layer: usize, context: usize) -> Result<Option<usize>, ArchitectureError> {
        let window = ["attention.sliding_window", "sliding_window"];
        let window = self.source.count(&self.key(window))?;
        let window = window.filter(|window| (1..context).contains(window));
        if window.is_none() || self.family.window == Window::Never {
            return Ok(None);
        }
        if self.source.format == Format::Folder {
            let usual = self.family.window == Window::BySize;
            if !self.source.flag("use_sliding_window")?.unwrap_or(usual) {
                return Ok(None);
            }
            if let Some(kinds) = self.source.texts("layer_types")? {
                return match kinds.get(layer).map(String::as_str) {
                    Some("sliding_attention") => Ok(window),
                    Some("full_attention") => Ok(None),
                    Some(other) => unsupported(format!("a layer of {other}")),
                    None => unsupported(format!("layer_types of {} layers", kinds.len())),
                };
            }
            let first = self.source.count("max_window_layers")?;
            return Ok(window.filter(|_| first.is_none_or(|first| layer >= first)));
        }
        Ok(window)
    }
}

/// Finds tensors, and keeps a list of those that were found.
struct Tensors<'a> {
    source: &'a Source,
    used: BTreeSet<String>,
}

impl<'a> Tensors<'a> {
    fn layers(
        &mut self,
        facts: &Facts<'a>,
        sizes: Sizes,
        context: usize,
    ) -> Result<Vec<Layer<'a>>, ArchitectureError> {
        let (source, family) = (self.source, facts.family);
        let name = |layer: usize, part: Spelling| match source.format {
            Format::Gguf => format!("blk.{layer}.{}", part[0]),
            Format::Folder => format!("model.layers.{layer}.{}", part[1]),
        };
        let query = ["attn_q", "self_attn.q_proj"];
        let key = ["attn_k", "self_attn.k_proj"];
        let value = ["attn_v", "self_attn.v_proj"];
        let output = ["attn_output", "self_attn.o_proj"];
        let (gate, up) = (["ffn_gate", "mlp.gate_proj"], ["ffn_up", family.up]);
        let down = ["ffn_down", family.down];
        let feed_forward_norm = ["ffn_norm", "post_attention_layernorm"];
        // All layers have the same ones.
        let has =
            |part, said: bool| said || source.tensor(&format!("{}.bias", name(0, part))).is_some();
        let says = |key| source.flag(key).map(|flag| flag == Some(true));
        let all = says("use_bias")?;
        let biased = has(query, all || says("attention_bias")?);
        let output_biased = has(output, all);
        let up_biased = has(up, all || says("mlp_bias")?);

        let (width, head_dim) = (sizes.width, sizes.head_dim);
        let query_width = sizes.heads * head_dim;
        let key_width = sizes.key_value_heads * head_dim;
        let wide = sizes.feed_forward;
        let layers = (0..sizes.layers).map(|layer| {
            let name = |part| name(layer, part);
            let mut linear = |part, [rows, columns]: [usize; 2], biased| {
                self.linear(&name(part), [rows, columns], biased)
            };
            let query = linear(query, [query_width, width], biased)?;
            let key = linear(key, [key_width, width], biased)?;
            let value = linear(value, [key_width, width], biased)?;
            let output = linear(output, [width, query_width], output_biased)?;
            let gate = match family.is_gated {
                true => Some(linear(gate, [wide, width], up_biased)?),
                false => None,
            };
            let up = linear(up, [wide, width], up_biased)?;
            let down = linear(down, [width, wide], up_biased)?;
            let mut norm = |part, width| self.norm(&name(part), width, family.has_layer_norms);
            let head_norms = match family.has_head_norms {
                true => Some([
                    norm(["attn_q_norm", "self_attn.q_norm"], head_dim)?,
                    norm(["attn_k_norm", "self_attn.k_norm"], head_dim)?,
                ]),
                false => None,
            };
            Ok(Layer {
                attention_norm: norm(["attn_norm", "input_layernorm"], width)?,
                query,
                key,
                value,
                head_norms,
                window: facts.window(layer, context)?,
                output,
                feed_forward_norm: norm(feed_forward_norm, width)?,
                gate,
                up,
                down,
            })
        });
        layers.collect()
    }

    fn linear(
        &mut self,
        name: &str,
        [rows, columns]: [usize; 2],
        biased: bool,
    ) -> Result<Linear<'a>, ArchitectureError> {
        Ok(Linear {
            weight: self.find(&format!("{name}.weight"), &[rows, columns])?,
            bias: self.bias(name, rows, biased)?,
        })
    }

    fn norm(
        &mut self,
        name: &str,
        width: usize,
        biased: bool,
    ) -> Result<Norm<'a>, ArchitectureError> {
        Ok(Norm {
            weight: self.find(&format!("{name}.weight"), &[width])?,
            bias: self.bias(name, width, biased)?,
        })
    }

    fn bias(
        &mut self,
        name: &str,
        len: usize,
        biased: bool,
    ) -> Result<Option<&'a Tensor>, ArchitectureError> {
        match biased {
            true => self.find(&format!("{name}.bias"), &[len]).map(Some),
            false => Ok(None),
        }
    }

    fn find(&mut self, name: &str, shape: &[usize]) -> Result<&'a Tensor, ArchitectureError> {
        let tensor = self.get(name)?;
        match tensor.shape == shape {
            true => Ok(tensor),
            false => Err(wrong_shape(tensor, &format!("{shape:?}"))),
        }
    }

    /// A matrix with any number of rows.
    fn open_matrix(&mut self, name: &str, columns: usize) -> Result<&'a Tensor, ArchitectureError> {
        let tensor = self.get(name)?;
        match tensor.shape[..] {
            [_, of_tensor] if of_tensor == columns => Ok(tensor),
            _ => Err(wrong_shape(tensor, &format!("[_, {columns}]"))),
        }
    }

    fn get(&mut self, name: &str) -> Result<&'a Tensor, ArchitectureError> {
        let tensor = self.source.tensor(name);
        let tensor = tensor.ok_or_else(|| ArchitectureError::NoTensor(name.to_owned()))?;
        self.used.insert(tensor.name.clone());
        Ok(tensor)
    }

    /// What is not used would be missing from what the model computes.
    fn check_all_used(&self) -> Result<(), ArchitectureError> {
        // Old folders have the rotary frequencies, which follow from the configuration.
        let is_used = |name: &str| self.used.contains(name) || name.ends_with(".inv_freq");
        match self.source.tensors().find(|tensor| !is_used(&tensor.name)) {
            None => Ok(()),
            Some(tensor) => unsupported(format!("a tensor {}", tensor.name)),
        }
    }
}

fn missing(key: &str) -> ArchitectureError {
    ArchitectureError::Missing(key.to_owned())
}

fn unsupported<T>(problem: String) -> Result<T, ArchitectureError> {
    Err(ArchitectureError::Unsupported(problem))
}

fn wrong_shape(tensor: &Tensor, expected: &str) -> ArchitectureError {
    ArchitectureError::Shape {
        tensor: tensor.name.clone(),
        shape: tensor.shape.clone(),
        expected: expected.to_owned(),
    }
}

/// Why this is not a model that can be imported. The caller puts its path before this.
#[derive(Debug, thiserror::Error)]
pub enum ArchitectureError {
    /// A fact is of the wrong kind.
    #[error(transparent)]
    Fact(#[from] FactError),
    /// It is of another architecture.
    #[error(
        "its architecture is {name}, and only {known} are supported; use another model",
        name = .0,
        known = Family::names()
    )]
    Unknown(String),
    /// It computes something that the imported graph does not.
    #[error("it has {0}, which is not supported; use another model")]
    Unsupported(String),
    /// A fact is missing.
    #[error("it does not say its {0}; get the model from its publisher")]
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
    #[error("it has no tensor {0}; get the model from its publisher")]
    NoTensor(String),
    /// A tensor does not fit the sizes.
    #[error(
        "its tensor {tensor} has the shape {shape:?}, and {expected} fits the sizes that it names; \
         the file is damaged, download it again"
    )]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// What it should be.
        expected: String,
    },
}
