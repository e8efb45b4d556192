//! The key/value cache of a graph that reads and writes it in place.

use std::sync::{Arc, PoisonError};

use ort::memory::{Allocator, MemoryInfo};
use ort::session::IoBinding;
use ort::value::Tensor;

use super::{Graph, append_rows, check_numbers, failed};
use crate::model::{ForwardError, KvCache};

/// Keys and values of `lanes` sequences of up to `max_tokens` tokens each, with the binding through
/// which the graph reads and writes them.
///
/// The past and present of a layer are one tensor, `f32 [lanes, heads, max_tokens, head_dim]`,
/// bound once on both sides. The attention operator (`GroupQueryAttention` with a shared buffer)
/// writes the new rows after the old ones and reads as many as the attention mask is long, so
/// nothing is copied and a rewind is a shorter mask.
///
/// `ort`'s checks accept one tensor on both sides, but its documentation does not promise it. So
/// its version is pinned, and `tests/shipped_model/key_value_cache.rs` tests it.
pub(super) struct InPlaceCache {
    /// The tensors that are bound, in the order of the slots. Before what they were allocated with,
    /// so that they are dropped first.
    tensors: Vec<Tensor<f32>>,
    binding: IoBinding,
    graph: Arc<Graph>,
    lanes: usize,
    max_tokens: usize,
    /// How many rows the bound logits tensor has; 0 before the first pass.
    bound_rows: usize,
}

impl InPlaceCache {
    /// An empty cache for one sequence, in the memory of the device that computes.
    pub(super) fn new(graph: Arc<Graph>, max_tokens: usize) -> ort::Result<Self> {
        let slots = graph.signature.slots.iter();
        let tensors = slots.map(|slot| {
            let tensor = Tensor::new(&Allocator::default(), slot.shape(1, max_tokens))?;
            // With zeros, since what a device's memory held before may be no number.
            graph.on_device(tensor)
        });
        let tensors = tensors.collect::<ort::Result<_>>()?;
        Self::bound(graph, tensors, 1, max_tokens)
    }

    fn bound(
        graph: Arc<Graph>,
        mut tensors: Vec<Tensor<f32>>,
        lanes: usize,
        max_tokens: usize,
    ) -> ort::Result<Self> {
        let session = graph.session.lock();
        let session = session.unwrap_or_else(PoisonError::into_inner);
        let mut binding = session.create_binding()?;
        drop(session);
        for (slot, tensor) in graph.signature.slots.iter().zip(&mut tensors) {
            binding.bind_input(&slot.past, &*tensor)?;
            binding.bind_output(&slot.present, tensor)?;
        }
        Ok(Self {
            graph,
            binding,
            tensors,
            lanes,
            max_tokens,
            bound_rows: 0,
        })
    }

    fn forked(&self, len: usize, lanes: usize, max_tokens: usize) -> ort::Result<Self> {
        let graph = &self.graph;
        let slots = &graph.signature.slots;
        let mut tensors = Vec::with_capacity(slots.len());
        for (slot, from) in slots.iter().zip(&self.tensors) {
            let dim = slot.width;
            let shape = slot.shape(lanes, max_tokens);
            let mut copy = Tensor::<f32>::new(&Allocator::default(), shape)?;
            // Heads are copied one by one, which only the CPU can do.
            let on_host = graph.on_host(from)?;
            let from = on_host.as_ref().unwrap_or(from);
            let (_, from) = from.try_extract_tensor::<f32>()?;
            let (_, to) = copy.try_extract_tensor_mut::<f32>()?;
            let heads: Vec<_> = from.chunks(self.max_tokens * dim).collect();
            for (index, head) in to.chunks_mut(max_tokens * dim).enumerate() {
                head[..len * dim].copy_from_slice(&heads[index % heads.len()][..len * dim]);
            }
            tensors.push(graph.on_device(copy)?);
        }
        Self::bound(graph.clone(), tensors, lanes, max_tokens)
    }

    fn run(
        &mut self,
        pasts: &[usize],
        tokens: &[u32],
        rows: usize,
        logits: &mut Vec<f32>,
    ) -> ort::Result<()> {
        let lanes = self.lanes;
        let signature = &self.graph.signature;
        let length = tokens.len() / lanes;
        let total = length + pasts.iter().max().copied().unwrap_or_default();
        let binding = &mut self.binding;
        let ids: Vec<i64> = tokens.iter().map(|id| i64::from(*id)).collect();
        binding.bind_input("input_ids", &Tensor::from_array(([lanes, length], ids))?)?;
        let mut mask = vec![1_i64; lanes * total];
        for (lane, past) in mask.chunks_mut(total).zip(pasts) {
            lane[past + length..].fill(0);
        }
        let mask = Tensor::from_array(([lanes, total], mask))?;
        binding.bind_input("attention_mask", &mask)?;
        if signature.position_ids {
            let positions = pasts.iter().flat_map(|past| *past..*past + length);
            let positions: Vec<i64> = positions.map(|position| position as i64).collect();
            let positions = Tensor::from_array(([lanes, length], positions))?;
            binding.bind_input("position_ids", &positions)?;
        }
        // Logits are bound on the host, where they are read.
        if !signature.num_logits_to_keep {
            binding.bind_output_to_device("logits", &MemoryInfo::default())?;
        } else if self.bound_rows != rows {
            let keep = Tensor::from_array(([0_usize; 0], vec![rows as i64]))?;
            binding.bind_input("num_logits_to_keep", &keep)?;
            let shape = [lanes, rows, signature.vocabulary];
            let bound = Tensor::<f32>::new(&Allocator::default(), shape)?;
            binding.bind_output("logits", bound)?;
            self.bound_rows = rows;
        }
        let session = self.graph.session.lock();
        let mut session = session.unwrap_or_else(PoisonError::into_inner);
        let outputs = session.run_binding(binding)?;
        logits.clear();
        append_rows(
            &outputs["logits"],
            lanes,
            rows,
            signature.vocabulary,
            logits,
        )
    }
}

impl KvCache for InPlaceCache {
    fn forward(
        &mut self,
        pasts: &[usize],
        tokens: &[u32],
        rows: usize,
        logits: &mut Vec<f32>,
    ) -> Result<(), ForwardError> {
        assert_eq!(pasts.len(), self.lanes, "one past for each lane");
        let longest = pasts.iter().max().copied().unwrap_or_default();
        if longest + tokens.len() / self.lanes > self.max_tokens {
            return Err(ForwardError::Full(self.max_tokens));
        }
        self.run(pasts, tokens, rows, logits).map_err(failed)?;
        check_numbers(logits)
    }

    fn fork(
        &self,
        len: usize,
        lanes: usize,
        max_tokens: usize,
    ) -> Result<Box<dyn KvCache>, ForwardError> {
        let fork = self.forked(len, lanes, max_tokens).map_err(failed)?;
        Ok(Box::new(fork))
    }
}

impl std::fmt::Debug for InPlaceCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InPlaceCache")
            .field("lanes", &self.lanes)
            .field("max_tokens", &self.max_tokens)
            .finish_non_exhaustive()
    }
}

impl Graph {
    /// The tensor, moved to the memory of the device that computes.
    fn on_device(&self, tensor: Tensor<f32>) -> ort::Result<Tensor<f32>> {
        let Some(device) = &self.device else {
            return Ok(tensor);
        };
        let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
        device.upload(&tensor)
    }

    /// A copy of the tensor in the host's memory, unless it is there.
    fn on_host(&self, tensor: &Tensor<f32>) -> ort::Result<Option<Tensor<f32>>> {
        let Some(device) = &self.device else {
            return Ok(None);
        };
        let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
        device.download(tensor).map(Some)
    }
}
