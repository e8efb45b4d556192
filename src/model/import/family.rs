//! The families of decoders that can be imported, and how they differ.

/// A family. All have rotary attention with grouped heads.
pub(super) struct Family {
    /// `general.architecture` in GGUF, `model_type` in a folder.
    pub(super) name: &'static str,
    /// Whether norms subtract the mean and add a bias.
    pub(super) has_layer_norms: bool,
    /// Whether queries and keys are normalised in each head.
    pub(super) has_head_norms: bool,
    /// Whether a folder has the weights of norms less one.
    pub(super) norms_around_zero: bool,
    /// What feed forward networks apply to each element.
    pub(super) activation: Activation,
    /// What a folder may call it.
    pub(super) activations: &'static [&'static str],
    /// Whether feed forward networks have a gate.
    pub(super) is_gated: bool,
    /// What a folder calls the matrices of feed forward networks beside the gate.
    pub(super) up: &'static str,
    pub(super) down: &'static str,
    /// Whether GGUF has rows of queries and keys that alternate between the halves of a rotation.
    /// The converter from PyTorch's order does it for some.
    pub(super) alternates: bool,
    /// Whether the output shares the embedding if a folder does not say.
    pub(super) shares: bool,
    /// Whether attention is limited to a window.
    pub(super) window: Window,
    /// Whether embeddings are multiplied by the root of their width.
    pub(super) scales_embedding: bool,
    /// Whether there are factors for attention, embeddings, additions and logits.
    pub(super) has_scales: bool,
}

/// What a feed forward network applies to each element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    /// `x * sigmoid(x)`
    Silu,
    /// GELU, by its approximation with tanh.
    Gelu,
}

/// Whether attention is limited to a window of positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    /// It is not, whatever a size says.
    Never,
    /// It is, if there is a size.
    BySize,
    /// It is, if there is a size and a folder says that it is used.
    BySwitch,
}

const LLAMA: Family = Family {
    name: "llama",
    has_layer_norms: false,
    has_head_norms: false,
    norms_around_zero: false,
    activation: Activation::Silu,
    activations: &["silu", "swish"],
    is_gated: true,
    up: "mlp.up_proj",
    down: "mlp.down_proj",
    alternates: true,
    shares: false,
    window: Window::Never,
    scales_embedding: false,
    has_scales: false,
};

const MISTRAL: Family = Family {
    name: "mistral",
    window: Window::BySize,
    ..LLAMA
};

const QWEN2: Family = Family {
    name: "qwen2",
    alternates: false,
    window: Window::BySwitch,
    ..LLAMA
};

/// Sources: the converter of llama.cpp and its `llama-model.cpp`; the `modeling_*.py` of
/// transformers.
static FAMILIES: [Family; 7] = [
    LLAMA,
    MISTRAL,
    QWEN2,
    Family {
        name: "qwen3",
        has_head_norms: true,
        ..QWEN2
    },
    Family {
        name: "starcoder2",
        has_layer_norms: true,
        activation: Activation::Gelu,
        activations: &["gelu_pytorch_tanh", "gelu_new"],
        is_gated: false,
        up: "mlp.c_fc",
        down: "mlp.c_proj",
        shares: true,
        alternates: false,
        window: Window::BySize,
        ..LLAMA
    },
    Family {
        name: "gemma",
        norms_around_zero: true,
        activation: Activation::Gelu,
        // It says `gelu` and means the approximation.
        activations: &["gelu", "gelu_pytorch_tanh"],
        shares: true,
        alternates: false,
        scales_embedding: true,
        ..LLAMA
    },
    Family {
        name: "granite",
        has_scales: true,
        ..LLAMA
    },
];

impl Family {
    /// The family of this name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        FAMILIES.iter().find(|family| family.name == name)
    }

    /// The names of all families, for people.
    pub(super) fn names() -> String {
        let [names @ .., last] = FAMILIES.each_ref().map(|family| family.name);
        format!("{} and {last}", names.join(", "))
    }
}
