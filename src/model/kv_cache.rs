//! The key/value cache of token sequences, shared in place with the graph.

use ort::memory::Allocator;
use ort::session::IoBinding;
use ort::session::Session;
use ort::value::Tensor;

/// A layer's cache on both sides of the graph: where it reads the past and where it writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CacheSlot {
    /// The input's name.
    pub(super) past: String,
    /// The output's name.
    pub(super) present: String,
    /// Key/value heads.
    pub(super) heads: usize,
    /// Elements of a head.
    pub(super) head_dim: usize,
}

/// Keys and values of `lanes` sequences of up to `max_tokens` tokens each, with the binding through
/// which the graph reads and writes them.
///
/// Past and present of a layer are one tensor `f32 [lanes, heads, max_tokens, head_dim]`, bound on
/// both sides once. The attention operator (`GroupQueryAttention` with a shared buffer) writes the new
/// rows behind the old ones and reads as many as the attention mask is long, so nothing is copied
/// and a rewind is a shorter mask.
///
/// That one tensor may stand on both sides is accepted by `ort`'s checks and not promised by its
/// documentation: its version is pinned and `tests/shipped_model/key_value_cache.rs` holds the law.
pub struct KvCache {
    pub(super) binding: IoBinding,
    /// The tensors that are bound, in the order of the slots.
    tensors: Vec<Tensor<f32>>,
    lanes: usize,
    max_tokens: usize,
    /// How many rows the bound logits tensor has; 0 before the first pass.
    pub(super) bound_rows: usize,
}

impl KvCache {
    pub(super) fn new(
        session: &Session,
        slots: &[CacheSlot],
        max_tokens: usize,
    ) -> ort::Result<Self> {
        Self::with(session, slots, 1, max_tokens, |_, _| Ok(()))
    }

    /// A cache of `lanes` sequences that each begin with the first `len` tokens of this one, which is
    /// of one sequence.
    pub(super) fn fork(
        &self,
        session: &Session,
        slots: &[CacheSlot],
        len: usize,
        lanes: usize,
        max_tokens: usize,
    ) -> ort::Result<Self> {
        Self::with(session, slots, lanes, max_tokens, |slot, tensor| {
            let dim = slots[slot].head_dim;
            let (_, from) = self.tensors[slot].try_extract_tensor::<f32>()?;
            let (_, to) = tensor.try_extract_tensor_mut::<f32>()?;
            let heads: Vec<_> = from.chunks(self.max_tokens * dim).collect();
            for (index, head) in to.chunks_mut(max_tokens * dim).enumerate() {
                head[..len * dim].copy_from_slice(&heads[index % heads.len()][..len * dim]);
            }
            Ok(())
        })
    }

    /// A cache whose tensors `fill` gets before they are bound.
    fn with(
        session: &Session,
        slots: &[CacheSlot],
        lanes: usize,
        max_tokens: usize,
        fill: impl Fn(usize, &mut Tensor<f32>) -> ort::Result<()>,
    ) -> ort::Result<Self> {
        let mut binding = session.create_binding()?;
        let mut tensors = Vec::with_capacity(slots.len());
        for (index, slot) in slots.iter().enumerate() {
            let shape = [lanes, slot.heads, max_tokens, slot.head_dim];
            let mut tensor = Tensor::<f32>::new(&Allocator::default(), shape)?;
            fill(index, &mut tensor)?;
            binding.bind_input(&slot.past, &tensor)?;
            binding.bind_output(&slot.present, &mut tensor)?;
            tensors.push(tensor);
        }
        Ok(Self {
            binding,
            tensors,
            lanes,
            max_tokens,
            bound_rows: 0,
        })
    }

    /// How many sequences there are.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// The longest sequence that fits, in tokens.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }
}

impl std::fmt::Debug for KvCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvCache")
            .field("lanes", &self.lanes)
            .field("max_tokens", &self.max_tokens)
            .finish_non_exhaustive()
    }
}
