//! A decoder graph run by ONNX Runtime.

mod device_memory;
mod in_place;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{Outlet, TensorElementType};

use super::{CausalLm, ForwardError, KvCache, plain_file};
use crate::runtime::provider::Provider;
use crate::runtime::{Runtime, RuntimeError};
use device_memory::DeviceMemory;
use in_place::{CacheSlot, InPlaceCache};

/// A decoder graph with these inputs and outputs, and no others:
///
/// | name | type and shape |
/// |---|---|
/// | `input_ids` | int64 `[lanes, s]` |
/// | `attention_mask` | int64 `[lanes, past + s]`: ones, then zeros if another lane is longer |
/// | `num_logits_to_keep` | int64 scalar: how many of the last rows get logits |
/// | `past_key_values.{i}.key`, `.value` | float32 `[lanes, heads, max, head_dim]` |
/// | `logits` | float32 `[lanes, k, vocabulary]` |
/// | `present.{i}.key`, `.value` | as the past, and the same memory |
pub struct OnnxLm(Arc<Graph>);

/// What a model and its caches share.
struct Graph {
    session: Mutex<Session>,
    slots: Vec<CacheSlot>,
    vocabulary: usize,
    /// Of the device that computes, if that is not the host's.
    device: Option<Mutex<DeviceMemory>>,
}

impl OnnxLm {
    /// Loads the graph at `path`. A device that turns out to be unusable falls back to the CPU.
    ///
    /// # Errors
    ///
    /// See [`OnnxError`].
    pub fn load(path: &Path, runtime: &mut Runtime) -> Result<Self, OnnxError> {
        let wrong = |problem: String| OnnxError::Graph {
            path: path.to_path_buf(),
            problem,
        };
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
        let (session, device) = loaded.map_err(|problem| {
            // ONNX Runtime names the file of weights only when it is missing.
            wrong(format!("{problem}; copy the model folder again"))
        })?;
        let slots = cache_slots(&session, path).map_err(wrong)?;
        let vocabulary = vocabulary(session.outputs()).map_err(wrong)?;
        Ok(Self(Arc::new(Graph {
            session: Mutex::new(session),
            slots,
            vocabulary,
            device: device.map(Mutex::new),
        })))
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

impl CausalLm for OnnxLm {
    fn vocabulary(&self) -> usize {
        self.0.vocabulary
    }

    fn new_cache(&self, max_tokens: usize) -> Result<Box<dyn KvCache>, ForwardError> {
        let cache = InPlaceCache::new(self.0.clone(), max_tokens);
        Ok(Box::new(cache.map_err(failed)?))
    }
}

impl std::fmt::Debug for OnnxLm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxLm")
            .field("layers", &(self.0.slots.len() / 2))
            .field("vocabulary", &self.0.vocabulary)
            .finish_non_exhaustive()
    }
}

fn failed(error: ort::Error) -> ForwardError {
    ForwardError::Runtime(error.to_string())
}

/// Checks every input against the table at [`OnnxLm`] and returns those of the cache.
fn cache_slots(session: &Session, path: &Path) -> Result<Vec<CacheSlot>, String> {
    let inputs = session.inputs();
    for required in ["input_ids", "attention_mask", "num_logits_to_keep"] {
        let input = inputs.iter().find(|input| input.name() == required);
        let input = input.ok_or_else(|| format!("it has no input {required}"))?;
        if input.dtype().tensor_type() != Some(TensorElementType::Int64) {
            return Err(format!("its input {required} is not int64"));
        }
    }
    let mut slots = Vec::new();
    for input in inputs {
        let name = input.name();
        let Some(slot) = name.strip_prefix("past_key_values.") else {
            match name {
                "input_ids" | "attention_mask" | "num_logits_to_keep" => continue,
                _ => return Err(format!("its input {name} is not supported")),
            }
        };
        let present = format!("present.{slot}");
        if !session
            .outputs()
            .iter()
            .any(|output| output.name() == present)
        {
            return Err(format!("it has {name} but no output {present}"));
        }
        let shape = input.dtype().tensor_shape().map_or(&[][..], |shape| shape);
        let f32 = input.dtype().tensor_type() == Some(TensorElementType::Float32);
        let (true, &[-1 | 1, heads @ 1..=i64::MAX, _, head_dim]) = (f32, shape) else {
            let dtype = input.dtype();
            return Err(format!(
                "its input {name} is {dtype}, not float32 [lanes, heads, max, head_dim]"
            ));
        };
        let head_dim = match usize::try_from(head_dim) {
            Ok(head_dim) => head_dim,
            Err(_) => head_dim_of_config(path)?,
        };
        slots.push(CacheSlot {
            past: name.to_owned(),
            present,
            heads: heads as usize,
            head_dim,
        });
    }
    match slots.is_empty() {
        true => Err("it has no key/value cache (past_key_values.*)".to_owned()),
        false => Ok(slots),
    }
}

/// No `config.json` has more bytes.
const MAX_CONFIG: u64 = 1 << 20;

/// No model has larger attention heads. A false size would allocate gigabytes.
const MAX_HEAD_DIM: usize = 1024;

/// The size of an attention head, which exporters leave open in the graph, from `config.json`.
pub(super) fn head_dim_of_config(graph: &Path) -> Result<usize, String> {
    #[derive(serde::Deserialize)]
    struct Architecture {
        head_dim: usize,
    }
    let path = graph.with_file_name("config.json");
    let unreadable = |error: &dyn std::fmt::Display| {
        format!(
            "it leaves the size of an attention head open, and {} does not give it: {error}",
            path.display()
        )
    };
    let json = plain_file::read(&path, MAX_CONFIG).map_err(|error| unreadable(&error))?;
    let config: Architecture = serde_json::from_slice(&json).map_err(|error| unreadable(&error))?;
    match config.head_dim {
        head_dim @ 1..=MAX_HEAD_DIM => Ok(head_dim),
        head_dim => Err(unreadable(&format!(
            "its head_dim of {head_dim} is not between 1 and {MAX_HEAD_DIM}"
        ))),
    }
}

fn vocabulary(outputs: &[Outlet]) -> Result<usize, String> {
    let logits = outputs.iter().find(|output| output.name() == "logits");
    let dtype = logits.ok_or("it has no output logits")?.dtype();
    let shape = dtype.tensor_shape().map_or(&[][..], |shape| shape);
    match (dtype.tensor_type(), shape) {
        (Some(TensorElementType::Float32), &[_, _, vocabulary @ 1..=i64::MAX]) => {
            Ok(vocabulary as usize)
        }
        _ => Err(format!(
            "its output logits is {dtype}, not float32 [lanes, k, vocabulary]"
        )),
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
