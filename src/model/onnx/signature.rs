//! What a decoder graph takes and gives, read from the names, types and shapes of its inputs and
//! outputs.

use super::graph_file::{Element, Port};
use crate::model::configuration::Sizes;

/// No model has larger attention heads, more of them, or a larger vocabulary. A false size would
/// allocate gigabytes.
const MAX_HEAD_DIM: usize = 1024;
const MAX_HEADS: usize = 1024;
const MAX_VOCABULARY: usize = 1 << 24;

/// The operator that can read and write a cache in place.
pub(super) const IN_PLACE: &str = "GroupQueryAttention";

/// What a graph takes and gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    /// The inputs and outputs of its cache, in the order of the inputs.
    pub(super) slots: Vec<CacheSlot>,
    /// The width of a row of logits.
    pub(super) vocabulary: usize,
    /// Whether it is told each token's place in the sequence.
    pub(super) position_ids: bool,
    /// Whether it is told how many of the last rows get logits. Without it all rows have them.
    pub(super) num_logits_to_keep: bool,
    /// Whether it is two graphs, one for an empty cache, and is told which to use.
    pub(super) use_cache_branch: bool,
    /// Whether keys and values have 16 bits.
    pub(super) half: bool,
}

/// A layer's cache on both sides of the graph: where it reads the past and where it writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CacheSlot {
    /// The input's name.
    pub(super) past: String,
    /// The output's name.
    pub(super) present: String,
    /// Key/value heads. `None` where the only head has no dimension of its own.
    pub(super) heads: Option<usize>,
    /// Elements of a row: those of a head, or twice as many where keys and values share a tensor.
    pub(super) width: usize,
}

impl CacheSlot {
    /// The shape of the keys or values of `lanes` sequences of `rows` tokens:
    /// `[lanes, heads, rows, width]`, or `[lanes, rows, width]`.
    pub(super) fn shape(&self, lanes: usize, rows: usize) -> Vec<usize> {
        match self.heads {
            Some(heads) => vec![lanes, heads, rows, self.width],
            None => vec![lanes, rows, self.width],
        }
    }
}

impl Signature {
    /// Reads it off a graph. `sizes` gives the sizes that the graph leaves open, and must agree
    /// with those that it states.
    ///
    /// # Errors
    ///
    /// A sentence about the graph that names the input or output that cannot be served.
    pub(super) fn read(inputs: &[Port], outputs: &[Port], sizes: &Sizes) -> Result<Self, String> {
        let mut signature = Self {
            slots: Vec::new(),
            vocabulary: vocabulary(outputs, sizes)?,
            position_ids: false,
            num_logits_to_keep: false,
            use_cache_branch: false,
            half: false,
        };
        let mut kinds = Vec::new();
        for input in inputs {
            let name = input.name.as_str();
            let wanted = match name {
                "input_ids" | "attention_mask" => Element::I64,
                "position_ids" => {
                    signature.position_ids = true;
                    Element::I64
                }
                "num_logits_to_keep" => {
                    signature.num_logits_to_keep = true;
                    Element::I64
                }
                "use_cache_branch" => {
                    signature.use_cache_branch = true;
                    Element::Bool
                }
                _ => {
                    let slot = slot(input, outputs, sizes)?;
                    kinds.push(input.element);
                    signature.slots.push(slot);
                    continue;
                }
            };
            if input.element != wanted {
                return Err(format!("its input {name} is {input}, not {wanted}"));
            }
        }
        for required in ["input_ids", "attention_mask"] {
            if !inputs.iter().any(|it| it.name == required) {
                return Err(format!("it has no input {required}"));
            }
        }
        signature.half = match kinds.first() {
            None => {
                return Err(
                    "it has no key/value cache (inputs past_key_values.*), so each token would \
                     cost a whole prompt; export it again for the task \
                     text-generation-with-past"
                        .to_owned(),
                );
            }
            Some(first) if kinds.iter().any(|kind| kind != first) => {
                return Err(
                    "the inputs of its key/value cache are of different types; export it again \
                     with a cache of one type"
                        .to_owned(),
                );
            }
            Some(first) => *first == Element::F16,
        };
        let layers = signature.layers();
        match sizes.layers {
            Some(configured) if configured != layers => Err(format!(
                "it has a key/value cache of {layers} layers, and {} says {configured}: they \
                 belong to different models; copy the model folder again",
                sizes.file.display()
            )),
            _ => Ok(signature),
        }
    }

    /// Whether the graph reads and writes its cache in place, given whether it has
    /// [`IN_PLACE`], the operator that can.
    pub(super) fn is_in_place(&self, has_operator: bool) -> bool {
        let four_dimensions = self.slots.iter().all(|slot| slot.heads.is_some());
        has_operator && four_dimensions && !self.half && !self.use_cache_branch
    }

    /// The keys and values of a token, in bytes.
    pub(super) fn token_bytes(&self) -> usize {
        let elements = self
            .slots
            .iter()
            .map(|slot| slot.heads.unwrap_or(1) * slot.width);
        elements.sum::<usize>() * if self.half { 2 } else { 4 }
    }

    /// How many layers have a cache.
    pub(super) fn layers(&self) -> usize {
        let keys = |slot: &&CacheSlot| !slot.past.ends_with(".value");
        self.slots.iter().filter(keys).count()
    }
}

/// The part of the cache that this input is.
fn slot(input: &Port, outputs: &[Port], sizes: &Sizes) -> Result<CacheSlot, String> {
    let name = input.name.as_str();
    let part = name.strip_prefix("past_key_values.");
    let parts = part.and_then(|part| Some((part, part.split_once('.')?)));
    let (part, fused) = match parts {
        Some((part, (layer, "key" | "value"))) if layer.parse::<usize>().is_ok() => (part, false),
        Some((part, (layer, "key_value"))) if layer.parse::<usize>().is_ok() => (part, true),
        _ => {
            return Err(format!(
                "its input {name} is not one that Interline can serve; use a graph that takes \
                 input_ids, attention_mask, position_ids and past_key_values.*"
            ));
        }
    };
    let present = format!("present.{part}");
    let output = outputs.iter().find(|output| output.name == present);
    let Some(output) = output else {
        return Err(format!("it has {name} but no output {present}"));
    };
    if !matches!(input.element, Element::F32 | Element::F16) {
        return Err(format!(
            "its input {name} is {input}, a kind of cache that Interline does not know; use a \
             graph with a cache of float32 or float16"
        ));
    }
    if output.element != input.element {
        return Err(format!(
            "its input {name} is {input} and its output {present} is {output}; use a graph in which \
             they are alike"
        ));
    }
    let (heads, width) = match (input.shape.as_slice(), fused) {
        (&[-1 | 1, heads, _, width], _) => (Some(heads), width),
        (&[-1 | 1, _, width], true) => (None, width),
        _ => {
            let expected = match fused {
                true => "[batch, past, 2 * head_dim]",
                false => "[batch, heads, past, head_dim]",
            };
            return Err(format!("its input {name} is {input}, not {expected}"));
        }
    };
    let open = |size: i64, usual| match size {
        -1 => usual,
        _ => None,
    };
    let heads = heads.map(|heads| {
        let configured = sizes.heads.or(open(heads, sizes.usual_heads));
        let size = Size {
            what: "the number of key/value heads",
            key: "num_key_value_heads",
            most: MAX_HEADS,
        };
        size.agreed(name, heads, configured, sizes)
    });
    // A row of a fused cache has the key and the value.
    let parts = if fused { 2 } else { 1 };
    let configured = sizes.head_dim.or(open(width, sizes.usual_head_dim));
    let size = Size {
        what: "the size of an attention head",
        key: "head_dim",
        most: MAX_HEAD_DIM,
    };
    let stated = if width < 0 { -1 } else { width / parts };
    let head_dim = size.agreed(name, stated, configured, sizes)?;
    Ok(CacheSlot {
        past: name.to_owned(),
        present,
        heads: heads.transpose()?,
        width: head_dim * parts as usize,
    })
}

/// A size that the graph states or leaves open, and that the configuration may state too.
struct Size {
    what: &'static str,
    /// Its key in the configuration.
    key: &'static str,
    most: usize,
}

impl Size {
    /// The size at the input or output `name`, where the graph has `stated`, or -1.
    fn agreed(
        &self,
        name: &str,
        stated: i64,
        configured: Option<usize>,
        sizes: &Sizes,
    ) -> Result<usize, String> {
        let Self { what, key, most } = self;
        let file = sizes.file.display();
        let stated = usize::try_from(stated).ok();
        let size = match (stated, configured) {
            (Some(stated), Some(configured)) if stated != configured => {
                return Err(format!(
                    "{what} is {stated} in its {name} and {configured} in {file}: they belong to \
                     different models; copy the model folder again"
                ));
            }
            (Some(size), _) | (None, Some(size)) => size,
            (None, None) => {
                return Err(format!(
                    "it leaves {what} open in its {name}, and {file} does not give it; add {key} \
                     there"
                ));
            }
        };
        match (1..=*most).contains(&size) {
            true => Ok(size),
            false => Err(format!(
                "{what} is {size}, by its {name} and {key} in {file}, and not between 1 and \
                 {most}; copy the model folder again"
            )),
        }
    }
}

fn vocabulary(outputs: &[Port], sizes: &Sizes) -> Result<usize, String> {
    let logits = outputs.iter().find(|output| output.name == "logits");
    let logits = logits.ok_or("it has no output logits")?;
    match (logits.element, logits.shape.as_slice()) {
        (Element::F32 | Element::F16, &[_, _, vocabulary @ (-1 | 1..=i64::MAX)]) => {
            let size = Size {
                what: "the vocabulary",
                key: "vocab_size",
                most: MAX_VOCABULARY,
            };
            size.agreed("logits", vocabulary, sizes.vocabulary, sizes)
        }
        _ => Err(format!(
            "its output logits is {logits}, not float32 or float16 [batch, rows, vocabulary]"
        )),
    }
}
