//! A decoder graph run by ONNX Runtime.

mod device_memory;
mod graph_file;
mod growing;
mod in_place;
mod signature;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{DynValue, TensorElementType};

use super::configuration::Sizes;
use super::{CausalLm, ForwardError, KvCache};
use crate::runtime::provider::Provider;
use crate::runtime::{Runtime, RuntimeError};
use device_memory::DeviceMemory;
use graph_file::GraphFile;
use growing::GrowingCache;
use in_place::InPlaceCache;
use signature::{IN_PLACE, Signature};

/// A decoder graph with these inputs and outputs, and no others:
///
/// | name | type and shape |
/// |---|---|
/// | `input_ids` | int64 `[lanes, s]` |
/// | `attention_mask` | int64 `[lanes, past + s]`: ones, then zeros if another lane is longer |
/// | `position_ids`, if it has it | int64 `[lanes, s]`: from 0 |
/// | `num_logits_to_keep`, if it has it | int64 scalar: how many of the last rows get logits |
/// | `use_cache_branch`, if it has it | bool `[1]`: false while the cache is empty |
/// | `past_key_values.{i}.key`, `.value` | float32 or float16 `[lanes, heads, past, head_dim]` |
/// | or `past_key_values.{i}.key_value` | `[lanes, past, 2 * head_dim]`, or with heads |
/// | `logits` | float32 or float16 `[lanes, k, vocabulary]` |
/// | `present.{i}.*` | as the past, with the new rows |
///
/// A graph whose attention is `GroupQueryAttention` on a float32 cache reads and writes its cache
/// in place. The others get a past of exactly as many rows as there are, and return a longer one.
pub struct OnnxLm(Arc<Graph>);

/// What a model and its caches share.
struct Graph {
    session: Mutex<Session>,
    signature: Signature,
    /// Whether past and present may be the same memory.
    in_place: bool,
    /// Whether it reads several tokens in a pass when its cache holds others.
    in_batches: bool,
    /// Of the device that computes, if that is not the host's.
    device: Option<Mutex<DeviceMemory>>,
}

impl OnnxLm {
    /// Loads the graph at `path`, whose folder's configuration gives `sizes`. A device that turns
    /// out to be unusable falls back to the CPU.
    ///
    /// # Errors
    ///
    /// See [`OnnxError`].
    pub fn load(path: &Path, sizes: &Sizes, runtime: &mut Runtime) -> Result<Self, OnnxError> {
        let wrong = |problem: String| OnnxError::Graph {
            path: path.to_path_buf(),
            problem,
        };
        let file = GraphFile::read(path).map_err(wrong)?;
        file.check_weights(path).map_err(wrong)?;
        file.check_links(path).map_err(wrong)?;
        let signature = Signature::read(&file.inputs, &file.outputs, sizes).map_err(wrong)?;
        let mut loaded = session(runtime.session_builder()?, path, runtime);
        if let Err(problem) = &loaded
            && runtime.provider != Provider::Cpu
        {
            let provider = runtime.provider;
            runtime.fall_back(format!(
                "{provider} is not used: the model does not load on it: {problem}"
            ));
            loaded = session(runtime.session_builder()?, path, runtime);
        }
        let (session, device) =
            loaded.map_err(|problem| wrong(format!("{problem}; copy the model folder again")))?;
        let mut graph = Graph {
            session: Mutex::new(session),
            in_place: signature.is_in_place(file.has(IN_PLACE)),
            in_batches: true,
            signature,
            device: device.map(Mutex::new),
        };
        if graph.signature.use_cache_branch {
            let read = growing::reads_batches(&graph);
            graph.in_batches = read.map_err(|error| wrong(error.to_string()))?;
        }
        Ok(Self(Arc::new(graph)))
    }
}

/// The session, and the memory of its device. The text of the error is ONNX Runtime's.
fn session(
    mut builder: SessionBuilder,
    path: &Path,
    runtime: &Runtime,
) -> Result<(Session, Option<DeviceMemory>), String> {
    let session = builder.commit_from_file(path);
    let session = session.map_err(|error| error.to_string())?;
    let device = DeviceMemory::of(&session, runtime)?;
    Ok((session, device))
}

/// A graph, as its file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The files of its weights, relative to its folder.
    pub weights: Vec<PathBuf>,
    /// The width of a row of logits.
    pub vocabulary: usize,
    /// Layers.
    pub layers: usize,
    /// Keys and values of a token, in bytes.
    pub token_bytes: usize,
    /// Whether it reads and writes its cache in place. Otherwise each pass copies it.
    pub in_place: bool,
}

/// Reads the file of the graph at `path` without ONNX Runtime. What it says is refused as
/// [`OnnxLm::load`] would refuse it.
///
/// # Errors
///
/// See [`OnnxError`].
pub fn outline(path: &Path, sizes: &Sizes) -> Result<Outline, OnnxError> {
    let wrong = |problem| OnnxError::Graph {
        path: path.to_path_buf(),
        problem,
    };
    let file = GraphFile::read(path).map_err(wrong)?;
    file.check_weights(path).map_err(wrong)?;
    let signature = Signature::read(&file.inputs, &file.outputs, sizes).map_err(wrong)?;
    Ok(Outline {
        weights: file.weights().collect(),
        vocabulary: signature.vocabulary,
        layers: signature.layers(),
        token_bytes: signature.token_bytes(),
        in_place: signature.is_in_place(file.has(IN_PLACE)),
    })
}

impl CausalLm for OnnxLm {
    fn vocabulary(&self) -> usize {
        self.0.signature.vocabulary
    }

    fn new_cache(&self, max_tokens: usize) -> Result<Box<dyn KvCache>, ForwardError> {
        let graph = self.0.clone();
        Ok(match graph.in_place {
            true => Box::new(InPlaceCache::new(graph, max_tokens).map_err(failed)?),
            false => Box::new(GrowingCache::new(graph, max_tokens).map_err(failed)?),
        })
    }
}

impl std::fmt::Debug for OnnxLm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxLm")
            .field("layers", &self.0.signature.layers())
            .field("vocabulary", &self.0.signature.vocabulary)
            .finish_non_exhaustive()
    }
}

fn failed(error: ort::Error) -> ForwardError {
    ForwardError::Runtime(error.to_string())
}

/// Appends the last `rows` rows of each lane of `from`, `[lanes, at least rows, vocabulary]`.
fn append_rows(
    from: &DynValue,
    lanes: usize,
    rows: usize,
    vocabulary: usize,
    logits: &mut Vec<f32>,
) -> ort::Result<()> {
    let shape = from.dtype().tensor_shape().map_or(&[][..], |shape| shape);
    let computed = match *shape {
        [first, computed, width] if (first, width) == (lanes as i64, vocabulary as i64) => computed,
        _ => -1,
    };
    let computed = usize::try_from(computed).ok();
    let Some(computed) = computed.filter(|computed| *computed >= rows) else {
        return Err(ort::Error::new(format!(
            "its output logits has the shape {shape:?}, and not {rows} rows of {vocabulary} for \
             each of {lanes} texts"
        )));
    };
    let last = (computed - rows) * vocabulary..computed * vocabulary;
    let lane = (computed * vocabulary).max(1);
    if from.dtype().tensor_type() == Some(TensorElementType::Float16) {
        let (_, values) = from.try_extract_tensor::<f16>()?;
        for lane in values.chunks(lane) {
            let start = logits.len();
            logits.resize(start + last.len(), 0.0);
            lane[last.clone()].convert_to_f32_slice(&mut logits[start..]);
        }
    } else {
        let (_, values) = from.try_extract_tensor::<f32>()?;
        for lane in values.chunks(lane) {
            logits.extend_from_slice(&lane[last.clone()]);
        }
    }
    Ok(())
}

/// An error if a logit is not a number.
fn check_numbers(logits: &[f32]) -> Result<(), ForwardError> {
    // In blocks without an early exit, so that the compiler vectorises them.
    let has_nan = |block: &[f32]| block.iter().fold(false, |nan, logit| nan | logit.is_nan());
    match logits.chunks(1024).any(has_nan) {
        true => Err(ForwardError::Damaged),
        false => Ok(()),
    }
}

/// Why a graph cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// There is no ONNX Runtime to run it.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// ONNX Runtime refuses the graph, or it is not the decoder that is expected.
    #[error("cannot use the graph {path}: {problem}")]
    Graph {
        /// The graph.
        path: PathBuf,
        /// What is wrong, as a sentence.
        problem: String,
    },
}
