//! The key/value cache of one token sequence, shared in place with the graph.

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

/// Keys and values of up to `max_tokens` tokens, with the binding through which the graph reads and
/// writes them.
///
/// Past and present of a layer are one tensor `f32 [1, heads, max_tokens, head_dim]`, bound on both
/// sides once. The attention operator (`GroupQueryAttention` with a shared buffer) writes the new
/// rows behind the old ones and reads as many as the attention mask is long, so nothing is copied
/// and a rewind is a shorter mask.
///
/// That one tensor may stand on both sides is accepted by `ort`'s checks and not promised by its
/// documentation: its version is pinned and `tests/shipped_model/key_value_cache.rs` holds the law.
pub struct KvCache {
    pub(super) binding: IoBinding,
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
        let mut binding = session.create_binding()?;
        for slot in slots {
            let shape = [1, slot.heads, max_tokens, slot.head_dim];
            let mut tensor = Tensor::<f32>::new(&Allocator::default(), shape)?;
            binding.bind_input(&slot.past, &tensor)?;
            binding.bind_output(&slot.present, &mut tensor)?;
        }
        Ok(Self {
            binding,
            max_tokens,
            bound_rows: 0,
        })
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
            .field("max_tokens", &self.max_tokens)
            .finish_non_exhaustive()
    }
}
