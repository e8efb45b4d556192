//! Reads a model folder in the layout of Hugging Face: `config.json`, and the tables of its
//! safetensors files.
//!
//! The folder is untrusted. Only files of its own are opened, and each table is compared with its
//! file's size before anything is read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

use ::safetensors::Dtype;
use ::safetensors::tensor::{Metadata, TensorInfo};
use serde_json::Value;

use super::blocks::BlockType;
use super::source::{Fact, Format, Source, Tensor};
use crate::model::plain_file::{self, PlainFileError};

/// The weights, where they are in one file.
pub(super) const WEIGHTS: &str = "model.safetensors";

/// Which file has which tensor, where there are several.
pub(super) const INDEX: &str = "model.safetensors.index.json";

const CONFIG: &str = "config.json";

/// The largest `config.json`, index and table that are read, in bytes. A model of 80 layers has
/// 120 kB of table.
const MAX_CONFIG: u64 = 1 << 20;
const MAX_TABLE: u64 = 16 << 20;

/// Opens the folder `folder`.
///
/// # Errors
///
/// See [`SafetensorsError`].
pub(super) fn open(folder: &Path) -> Result<Source, SafetensorsError> {
    let mut facts = BTreeMap::new();
    collect(String::new(), json(folder, CONFIG, MAX_CONFIG)?, &mut facts);
    let mut files = Vec::new();
    let mut tensors = BTreeMap::new();
    if is_there(folder, WEIGHTS) {
        files.push(shard(folder, WEIGHTS, 0, &mut tensors)?);
        return Ok(Source::new(Format::Folder, facts, tensors, files));
    }
    if !is_there(folder, INDEX) {
        return Err(SafetensorsError::NoWeights);
    }
    let index = json(folder, INDEX, MAX_TABLE)?;
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| damaged(INDEX, "has no weight_map"))?;
    let names: BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
    for name in &names {
        files.push(shard(folder, name, files.len(), &mut tensors)?);
    }
    let is_true = |(tensor, file): (&String, &Value)| {
        let tensor = tensors.get(tensor);
        tensor.is_some_and(|tensor| names.iter().nth(tensor.file).copied() == file.as_str())
    };
    if let Some((tensor, _)) = map.iter().find(|entry| !is_true(*entry)) {
        let problem = format!("says of the tensor {tensor} that it is where it is not");
        return Err(damaged(INDEX, problem));
    }
    Ok(Source::new(Format::Folder, facts, tensors, files))
}

/// Reads a file of JSON.
///
/// # Errors
///
/// See [`SafetensorsError`].
pub(super) fn json(folder: &Path, name: &str, limit: u64) -> Result<Value, SafetensorsError> {
    let bytes = read(folder, name, limit)?;
    serde_json::from_slice(&bytes).map_err(|error| damaged(name, format!("is no JSON: {error}")))
}

/// Reads a file of the folder.
///
/// # Errors
///
/// See [`SafetensorsError`].
pub(super) fn read(folder: &Path, name: &str, limit: u64) -> Result<Vec<u8>, SafetensorsError> {
    let path = file_of(folder, name)?;
    plain_file::read(&path, limit).map_err(|problem| SafetensorsError::Read {
        file: name.to_owned(),
        problem,
    })
}

/// Whether the folder has something of this name.
pub(super) fn is_there(folder: &Path, name: &str) -> bool {
    folder.join(name).symlink_metadata().is_ok()
}

/// Where a file of the folder really is. Links may lead to the place where the cache of a Hub keeps
/// the files of its snapshots, and else not out of the folder.
fn file_of(folder: &Path, name: &str) -> Result<PathBuf, SafetensorsError> {
    let mut components = Path::new(name).components();
    let plain = matches!(components.next(), Some(Component::Normal(_)));
    if !plain || components.next().is_some() {
        return Err(SafetensorsError::Name(name.to_owned()));
    }
    let failed = |problem: io::Error| SafetensorsError::Read {
        file: name.to_owned(),
        problem: problem.into(),
    };
    let folder = folder.canonicalize().map_err(failed)?;
    let path = folder.join(name).canonicalize().map_err(failed)?;
    let snapshots = folder
        .parent()
        .filter(|parent| parent.ends_with("snapshots"));
    let blobs = snapshots
        .and_then(Path::parent)
        .map(|cache| cache.join("blobs"));
    match path.starts_with(&folder) || blobs.is_some_and(|blobs| path.starts_with(blobs)) {
        true => Ok(path),
        false => Err(SafetensorsError::Link(name.to_owned())),
    }
}

/// Opens the file `name` as number `index` and adds its tensors.
fn shard(
    folder: &Path,
    name: &str,
    index: usize,
    tensors: &mut BTreeMap<String, Tensor>,
) -> Result<File, SafetensorsError> {
    let failed = |problem: PlainFileError| SafetensorsError::Read {
        file: name.to_owned(),
        problem,
    };
    let path = file_of(folder, name)?;
    let metadata = path.metadata().map_err(|error| failed(error.into()))?;
    // Only a plain file is opened, because a pipe may never end.
    if !metadata.is_file() {
        return Err(failed(PlainFileError::NotPlain));
    }
    let mut file = File::open(path).map_err(|error| failed(error.into()))?;
    let len = metadata.len();
    let ends = || damaged(name, format!("ends within its table, after {len} bytes"));
    let mut read = |bytes: &mut [u8]| match file.read_exact(bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(ends()),
        other => other.map_err(|error| failed(error.into())),
    };
    let mut table_len = [0; 8];
    read(&mut table_len)?;
    let table_len = u64::from_le_bytes(table_len);
    let begin = 8_u64.saturating_add(table_len);
    if begin > len {
        return Err(ends());
    }
    if table_len > MAX_TABLE {
        let problem = format!("has a table of {table_len} bytes, and no known model has");
        return Err(damaged(name, problem));
    }
    let mut table = vec![0; table_len as usize];
    read(&mut table)?;
    // The library compares offsets with shapes, and sees to it that tensors do not overlap.
    let table: Metadata = serde_json::from_slice(&table)
        .map_err(|error| damaged(name, format!("has a table that cannot be: {error}")))?;
    let data = table.data_len() as u64;
    if begin.checked_add(data) != Some(len) {
        let problem = format!(
            "has {len} bytes, and its table is about {}",
            begin.saturating_add(data)
        );
        return Err(damaged(name, problem));
    }
    // In order, so that of several problems the same one is named each time.
    for (tensor, info) in BTreeMap::from_iter(table.tensors()) {
        let entry = entry(name, &tensor, info, index, begin)?;
        if tensors.insert(tensor.clone(), entry).is_some() {
            let problem = format!("has a tensor {tensor}, which another file has too");
            return Err(damaged(name, problem));
        }
    }
    Ok(file)
}

/// Where the tensor `name` of a file is whose tensors begin at the byte `begin`.
fn entry(
    file_name: &str,
    name: &str,
    info: &TensorInfo,
    file: usize,
    begin: u64,
) -> Result<Tensor, SafetensorsError> {
    let block_type = match info.dtype {
        Dtype::F32 => BlockType::F32,
        Dtype::F16 => BlockType::F16,
        Dtype::BF16 => BlockType::Bf16,
        other => {
            return Err(SafetensorsError::Dtype {
                tensor: name.to_owned(),
                dtype: format!("{other:?}"),
            });
        }
    };
    if info.shape.is_empty() || info.shape.contains(&0) {
        let problem = format!("has a tensor {name} of the shape {:?}", info.shape);
        return Err(damaged(file_name, problem));
    }
    let (from, to) = info.data_offsets;
    Ok(Tensor {
        name: name.to_owned(),
        shape: info.shape.clone(),
        block_type,
        file,
        offset: begin + from as u64,
        bytes: (to - from) as u64,
    })
}

/// Puts the values within `value` among the facts, with dots between the keys.
fn collect(key: String, value: Value, facts: &mut BTreeMap<String, Fact>) {
    let integer = |value: &Value| value.as_i64().and_then(|number| i32::try_from(number).ok());
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let fact = match value {
        Value::Null => return,
        Value::Object(map) => {
            for (inner, value) in map {
                let key = match key.as_str() {
                    "" => inner,
                    outer => format!("{outer}.{inner}"),
                };
                collect(key, value, facts);
            }
            return;
        }
        Value::Bool(flag) => Fact::Flag(flag),
        Value::String(text) => Fact::Text(text),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Fact::Unsigned(number),
            (None, Some(number)) => Fact::Signed(number),
            (None, None) => Fact::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::Array(list) => match list.iter().map(integer).collect() {
            Some(integers) => Fact::Integers(integers),
            None => match list.iter().map(text).collect() {
                Some(texts) => Fact::Texts(texts),
                None => Fact::Skipped,
            },
        },
    };
    facts.insert(key, fact);
}

fn damaged(file: &str, problem: impl Into<String>) -> SafetensorsError {
    SafetensorsError::Damaged {
        file: file.to_owned(),
        problem: problem.into(),
    }
}

/// Why a folder cannot be read. The caller puts its path before this.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    /// There are no weights of this form.
    #[error(
        "it has neither {WEIGHTS} nor {INDEX}; save the model in this form, as `save_pretrained` \
         of transformers does"
    )]
    NoWeights,
    /// A file is missing or cannot be read.
    #[error("its {file} cannot be read: {problem}; download the folder again")]
    Read {
        /// The file.
        file: String,
        /// Why.
        problem: PlainFileError,
    },
    /// A file is named that would be elsewhere.
    #[error(
        "its {INDEX} names {0:?}, which is not the plain name of a file in the folder; get the \
         model from its publisher"
    )]
    Name(String),
    /// A link leads elsewhere.
    #[error("its {0} is a link that leads out of the folder; put the file itself there")]
    Link(String),
    /// A file contradicts itself or another one.
    #[error("its {file} {problem}; the file is damaged, download it again")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong, as the end of a sentence.
        problem: String,
    },
    /// A tensor is stored in a way that is not read.
    #[error(
        "its tensor {tensor} is stored as {dtype}, which cannot be read; \
         use the same model in F32, F16 or BF16"
    )]
    Dtype {
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: String,
    },
}
