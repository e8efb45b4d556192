//! The key/value cache of a graph that returns a longer one from each pass.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::{Arc, PoisonError};

use half::f16;
use ort::memory::Allocator;
use ort::session::SessionInputValue;
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor, TensorElementType};

use super::signature::CacheSlot;
use super::{Graph, append_rows, check_numbers, failed};
use crate::model::{ForwardError, KvCache};

/// Keys and values of sequences, as the last pass over each returned them.
///
/// The graph (the layouts of optimum and transformers.js) reads a past of exactly as many rows as
/// it is given and returns a copy with the new rows at its end. So, with `b` bytes of keys and
/// values for a token (Qwen2.5-Coder-0.5B: 24 layers, 2 heads of 64, 24.6 kB):
///
/// - a pass after `n` tokens copies `n * b` bytes, within the graph;
/// - a rewind to `n` tokens copies `n * b` bytes, here, and a typed character rewinds once;
/// - a fork copies nothing: lanes share what they have in common until they rewind.
///
/// Some graphs read one token at a time once their cache holds something ([`reads_batches`]); a
/// prompt is then read in as many passes.
///
/// All lanes of a batch would need pasts of the same length, so each lane is a pass of its own:
/// several texts at once cost as many passes, where [`InPlaceCache`](super::in_place::InPlaceCache)
/// reads the weights once. The tensors are in the memory of the host, whatever device computes.
pub(super) struct GrowingCache {
    graph: Arc<Graph>,
    lanes: Vec<Arc<Past>>,
    max_tokens: usize,
}

/// Keys and values of the first `len` tokens of a lane.
struct Past {
    /// In the order of the slots.
    tensors: Vec<DynValue>,
    len: usize,
}

impl GrowingCache {
    /// An empty cache for one sequence.
    pub(super) fn new(graph: Arc<Graph>, max_tokens: usize) -> ort::Result<Self> {
        Ok(Self {
            lanes: vec![Arc::new(Past::empty(&graph)?)],
            graph,
            max_tokens,
        })
    }
}

/// Whether a graph reads several tokens at once after others as it reads them all at once. Older
/// exporters traced the branch of a merged graph that continues with a single token, and without
/// the mask that hides later tokens from earlier ones. A graph in doubt is taken not to.
pub(super) fn reads_batches(graph: &Graph) -> ort::Result<bool> {
    let tokens: Vec<u32> = (0..4)
        .map(|id| id % graph.signature.vocabulary as u32)
        .collect();
    let empty = Past::empty(graph)?;
    let (mut at_once, mut apart) = (Vec::new(), Vec::new());
    empty.pass(graph, &tokens, 4, &mut at_once)?;
    let first = empty.pass(graph, &tokens[..1], 1, &mut apart)?;
    first.pass(graph, &tokens[1..], 3, &mut apart)?;
    let range = |logits: &[f32]| {
        let least = logits.iter().copied().fold(f32::INFINITY, f32::min);
        logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) - least
    };
    let differences = at_once.iter().zip(&apart).map(|(a, b)| a - b);
    let differences: Vec<f32> = differences.chain([0.0]).collect();
    Ok(range(&differences) < range(&at_once) / 50.0)
}

impl Past {
    fn empty(graph: &Graph) -> ort::Result<Self> {
        let slots = graph.signature.slots.iter();
        let tensors = slots.map(|slot| match graph.signature.half {
            true => empty::<f16>(slot),
            false => empty::<f32>(slot),
        });
        Ok(Self {
            tensors: tensors.collect::<ort::Result<_>>()?,
            len: 0,
        })
    }

    /// A copy of the first `len` tokens, which are at most as many as there are.
    fn first(&self, len: usize, graph: &Graph) -> ort::Result<Self> {
        let slots = graph.signature.slots.iter().zip(&self.tensors);
        let tensors = slots.map(|(slot, tensor)| match tensor.dtype().tensor_type() {
            Some(TensorElementType::Float16) => first_rows::<f16>(tensor, slot, self.len, len),
            _ => first_rows::<f32>(tensor, slot, self.len, len),
        });
        Ok(Self {
            tensors: tensors.collect::<ort::Result<_>>()?,
            len,
        })
    }

    /// The past after `tokens`, in as few passes as the graph allows. Appends the last `rows` rows
    /// of its logits.
    fn read(
        &self,
        graph: &Graph,
        tokens: &[u32],
        rows: usize,
        logits: &mut Vec<f32>,
    ) -> ort::Result<Self> {
        if graph.in_batches || self.len == 0 || tokens.len() <= 1 {
            return self.pass(graph, tokens, rows, logits);
        }
        let (first, rest) = tokens.split_at(1);
        let before = tokens.len() - rows.min(tokens.len());
        let mut past = self.pass(graph, first, usize::from(before == 0), logits)?;
        for (index, token) in (1..).zip(rest) {
            let rows = usize::from(index >= before);
            past = past.pass(graph, &[*token], rows, logits)?;
        }
        Ok(past)
    }

    /// The past after a pass. Appends the last `rows` rows of its logits.
    fn pass(
        &self,
        graph: &Graph,
        tokens: &[u32],
        rows: usize,
        logits: &mut Vec<f32>,
    ) -> ort::Result<Self> {
        let signature = &graph.signature;
        let (length, total) = (tokens.len(), self.len + tokens.len());
        let mut inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::new();
        let ids: Vec<i64> = tokens.iter().map(|id| i64::from(*id)).collect();
        let ids = Tensor::from_array(([1, length], ids))?;
        inputs.push(("input_ids".into(), ids.into()));
        let mask = Tensor::from_array(([1, total], vec![1_i64; total]))?;
        inputs.push(("attention_mask".into(), mask.into()));
        if signature.position_ids {
            let positions: Vec<i64> = (self.len as i64..total as i64).collect();
            let positions = Tensor::from_array(([1, length], positions))?;
            inputs.push(("position_ids".into(), positions.into()));
        }
        if signature.num_logits_to_keep {
            let keep = Tensor::from_array(([0_usize; 0], vec![rows as i64]))?;
            inputs.push(("num_logits_to_keep".into(), keep.into()));
        }
        if signature.use_cache_branch {
            let branch = Tensor::from_array(([1_usize], vec![self.len > 0]))?;
            inputs.push(("use_cache_branch".into(), branch.into()));
        }
        for (slot, tensor) in signature.slots.iter().zip(&self.tensors) {
            inputs.push((slot.past.as_str().into(), tensor.into()));
        }
        let mut session = graph.session.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outputs = session.run(inputs)?;
        append_rows(&outputs["logits"], 1, rows, signature.vocabulary, logits)?;
        let slots = signature.slots.iter();
        let tensors = slots.map(|slot| {
            let tensor = outputs.remove(&slot.present);
            let expected = slot.shape(1, total);
            let is_whole = |tensor: &DynValue| {
                let shape = tensor.dtype().tensor_shape();
                shape.is_some_and(|shape| {
                    let sizes = shape.iter().map(|size| usize::try_from(*size).ok());
                    sizes.eq(expected.iter().map(|size| Some(*size)))
                })
            };
            tensor.filter(is_whole).ok_or_else(|| {
                ort::Error::new(format!(
                    "its output {} has not the shape {expected:?} after {total} tokens",
                    slot.present
                ))
            })
        });
        Ok(Self {
            tensors: tensors.collect::<ort::Result<_>>()?,
            len: total,
        })
    }
}

impl KvCache for GrowingCache {
    fn forward(
        &mut self,
        pasts: &[usize],
        tokens: &[u32],
        rows: usize,
        logits: &mut Vec<f32>,
    ) -> Result<(), ForwardError> {
        assert_eq!(pasts.len(), self.lanes.len(), "one past for each lane");
        let length = tokens.len() / self.lanes.len();
        let longest = pasts.iter().max().copied().unwrap_or_default();
        if longest + length > self.max_tokens {
            return Err(ForwardError::Full(self.max_tokens));
        }
        logits.clear();
        let each = self
            .lanes
            .iter_mut()
            .zip(pasts)
            .zip(tokens.chunks(length.max(1)));
        for ((lane, past), tokens) in each {
            if *past < lane.len {
                let shorter = lane.first(*past, &self.graph).map_err(failed)?;
                *lane = Arc::new(shorter);
            }
            assert_eq!(lane.len, *past, "a lane's past is in its cache");
            let longer = lane.read(&self.graph, tokens, rows, logits);
            *lane = Arc::new(longer.map_err(failed)?);
        }
        check_numbers(logits)
    }

    fn fork(
        &self,
        len: usize,
        lanes: usize,
        max_tokens: usize,
    ) -> Result<Box<dyn KvCache>, ForwardError> {
        let past = match &self.lanes[0] {
            past if past.len == len => past.clone(),
            past => Arc::new(past.first(len, &self.graph).map_err(failed)?),
        };
        Ok(Box::new(Self {
            graph: self.graph.clone(),
            lanes: vec![past; lanes],
            max_tokens,
        }))
    }
}

impl Debug for GrowingCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrowingCache")
            .field("lanes", &self.lanes.len())
            .field("max_tokens", &self.max_tokens)
            .finish_non_exhaustive()
    }
}

fn empty<T: PrimitiveTensorElementType + Debug>(slot: &CacheSlot) -> ort::Result<DynValue> {
    let tensor = Tensor::<T>::new(&Allocator::default(), slot.shape(1, 0))?;
    Ok(tensor.into_dyn())
}

/// The first `len` of the `rows` rows of each head.
fn first_rows<T: PrimitiveTensorElementType + Copy + Debug + 'static>(
    tensor: &DynValue,
    slot: &CacheSlot,
    rows: usize,
    len: usize,
) -> ort::Result<DynValue> {
    let mut shorter = Tensor::<T>::new(&Allocator::default(), slot.shape(1, len))?;
    if len > 0 {
        let (_, from) = tensor.try_extract_tensor::<T>()?;
        let (_, to) = shorter.try_extract_tensor_mut::<T>()?;
        let heads = from.chunks(rows * slot.width);
        for (head, copy) in heads.zip(to.chunks_mut(len * slot.width)) {
            copy.copy_from_slice(&head[..len * slot.width]);
        }
    }
    Ok(shorter.into_dyn())
}
