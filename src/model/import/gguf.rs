//! Reads GGUF, versions 2 and 3: its metadata, its table of tensors, and the tensors' bytes.
//!
//! The file is untrusted. Each count, length, offset and dimension is compared with the file's size
//! before anything is allocated for it or read.
//!
//! Source: `docs/gguf.md` of the ggml repository.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::blocks::BlockType;
use super::source::{Fact, FactError, Format, Source, Tensor};

/// The most bytes that come before the tensors. The vocabularies with a quarter of a million tokens
/// take 16 MB.
const MAX_HEADER: u64 = 64 << 20;

/// The most metadata, and the most tensors. The largest models have some thousands.
const MAX_ENTRIES: u64 = 1 << 16;

/// The most elements of a list in the metadata.
const MAX_ELEMENTS: u64 = 1 << 22;

/// The lists that are kept. Others are checked and skipped.
const KEPT_LISTS: [&str; 4] = [
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges",
];

/// Opens the GGUF file `path` and reads its header.
///
/// # Errors
///
/// See [`GgufError`].
pub(super) fn open(path: &Path) -> Result<Source, GgufError> {
    // Only a plain file is opened, because a pipe may never end.
    if !path.metadata()?.is_file() {
        return Err(GgufError::NotGguf("it is not a plain file"));
    }
    let file = File::open(path)?;
    let mut reader = Reader {
        inner: BufReader::new(file.try_clone()?),
        at: 0,
        len: file.metadata()?.len(),
        section: "the beginning",
    };
    if reader.len < 4 || reader.array()? != *b"GGUF" {
        return Err(GgufError::NotGguf("it does not begin with \"GGUF\""));
    }
    let version = u32::from_le_bytes(reader.array()?);
    if !(2..=3).contains(&version) {
        return Err(GgufError::Version(match version.swap_bytes() {
            2..=3 => "is big-endian".to_owned(),
            _ => format!("has version {version}"),
        }));
    }
    let tensors = reader.count("tensors", MAX_ENTRIES)?;
    let entries = reader.count("values of metadata", MAX_ENTRIES)?;
    reader.section = "the metadata";
    let metadata = read_metadata(&mut reader, entries)?;
    reader.section = "the table of tensors";
    let alignment = match metadata.get("general.alignment") {
        None => 32,
        Some(Fact::Unsigned(alignment)) if alignment.is_power_of_two() => *alignment,
        Some(_) => {
            let problem = "its general.alignment is not a power of two";
            return Err(GgufError::Damaged(problem.to_owned()));
        }
    };
    let tensors = read_tensors(&mut reader, tensors, alignment)?;
    Ok(Source::new(Format::Gguf, metadata, tensors, vec![file]))
}

/// What is left of the header.
struct Reader {
    inner: BufReader<File>,
    /// How many bytes were read.
    at: u64,
    /// The file's size in bytes.
    len: u64,
    /// What is being read.
    section: &'static str,
}

impl Reader {
    /// Checks that the header may have `bytes` more.
    fn reserve(&mut self, bytes: u64) -> Result<(), GgufError> {
        let end = self.at.checked_add(bytes);
        let end = end.filter(|end| *end <= self.len).ok_or_else(|| {
            GgufError::Damaged(format!(
                "it ends within {}, after {} bytes",
                self.section, self.len
            ))
        })?;
        if end > MAX_HEADER {
            return Err(GgufError::TooLarge("bytes before its tensors", MAX_HEADER));
        }
        self.at = end;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        self.reserve(N as u64)?;
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of things, each of which takes a byte or more.
    fn count(&mut self, things: &'static str, limit: u64) -> Result<u64, GgufError> {
        let count = self.u64()?;
        if count > self.len - self.at {
            return Err(GgufError::Damaged(format!(
                "it says that it has {count} {things}, which do not fit its {} bytes",
                self.len
            )));
        }
        match count > limit {
            true => Err(GgufError::TooLarge(things, limit)),
            false => Ok(count),
        }
    }

    fn text(&mut self) -> Result<String, GgufError> {
        let len = self.u64()?;
        self.reserve(len)?;
        let mut bytes = vec![0; len as usize];
        self.inner.read_exact(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| {
            let end = self.at;
            GgufError::Damaged(format!("its text before byte {end} is not UTF-8"))
        })
    }

    /// A value of type `code`, which is not a list.
    fn scalar(&mut self, code: u32) -> Result<Fact, GgufError> {
        Ok(match code {
            0 => Fact::Unsigned(u8::from_le_bytes(self.array()?).into()),
            1 => Fact::Signed(i8::from_le_bytes(self.array()?).into()),
            2 => Fact::Unsigned(u16::from_le_bytes(self.array()?).into()),
            3 => Fact::Signed(i16::from_le_bytes(self.array()?).into()),
            4 => Fact::Unsigned(self.u32()?.into()),
            5 => Fact::Signed(i32::from_le_bytes(self.array()?).into()),
            6 => Fact::Float(f32::from_le_bytes(self.array()?).into()),
            7 => {
                let [flag] = self.array()?;
                Fact::Flag(flag != 0)
            }
            8 => Fact::Text(self.text()?),
            10 => Fact::Unsigned(self.u64()?),
            11 => Fact::Signed(i64::from_le_bytes(self.array()?)),
            12 => Fact::Float(f64::from_le_bytes(self.array()?)),
            _ => {
                return Err(GgufError::Damaged(format!(
                    "its metadata have a value of type {code}, which does not exist"
                )));
            }
        })
    }

    fn list(&mut self, key: &str) -> Result<Fact, GgufError> {
        let code = self.u32()?;
        let count = self.count("elements in a list", MAX_ELEMENTS)?;
        let mut texts = Vec::new();
        let mut integers = Vec::new();
        let mut numbers = Vec::new();
        let is_kept = KEPT_LISTS.contains(&key);
        for _ in 0..count {
            match self.scalar(code)? {
                _ if !is_kept => (),
                Fact::Text(text) => texts.push(text),
                Fact::Float(number) => numbers.push(number as f32),
                Fact::Signed(integer) => {
                    integers.push(
                        i32::try_from(integer)
                            .map_err(|_| FactError::new(key, "a list of small numbers"))?,
                    );
                }
                Fact::Unsigned(integer) => {
                    integers.push(
                        i32::try_from(integer)
                            .map_err(|_| FactError::new(key, "a list of small numbers"))?,
                    );
                }
                _ => return Err(FactError::new(key, "a list of texts or numbers").into()),
            }
        }
        Ok(match code {
            _ if !is_kept => Fact::Skipped,
            8 => Fact::Texts(texts),
            6 | 12 => Fact::Numbers(numbers),
            _ => Fact::Integers(integers),
        })
    }
}

fn read_metadata(reader: &mut Reader, entries: u64) -> Result<BTreeMap<String, Fact>, GgufError> {
    let mut metadata = BTreeMap::new();
    for _ in 0..entries {
        let key = reader.text()?;
        let value = match reader.u32()? {
            9 => reader.list(&key)?,
            code => reader.scalar(code)?,
        };
        if metadata.insert(key.clone(), value).is_some() {
            return Err(GgufError::Damaged(format!("it has {key} twice")));
        }
    }
    Ok(metadata)
}

/// The table of tensors, and what follows from where it ends: where the tensors are.
fn read_tensors(
    reader: &mut Reader,
    count: u64,
    alignment: u64,
) -> Result<BTreeMap<String, Tensor>, GgufError> {
    let mut tensors = BTreeMap::new();
    for _ in 0..count {
        let name = reader.text()?;
        let damaged = |problem: &str| GgufError::Damaged(format!("its tensor {name} {problem}"));
        let rank = reader.u32()?;
        if !(1..=4).contains(&rank) {
            return Err(damaged(&format!("has {rank} dimensions, not 1 to 4")));
        }
        let mut dimensions = Vec::new();
        let mut elements = 1_u64;
        for _ in 0..rank {
            let dimension = reader.u64()?;
            let product = elements.checked_mul(dimension);
            elements = product
                .filter(|elements| *elements > 0)
                .ok_or_else(|| damaged("has a dimension that cannot be"))?;
            dimensions.push(dimension);
        }
        let code = reader.u32()?;
        let block_type = BlockType::from_code(code).ok_or_else(|| GgufError::BlockType {
            tensor: name.clone(),
            block_type: BlockType::name_of(code),
        })?;
        if !dimensions[0].is_multiple_of(block_type.weights() as u64) {
            return Err(damaged("has rows that end within a block"));
        }
        let offset = reader.u64()?;
        if !offset.is_multiple_of(alignment) {
            return Err(damaged("begins at an offset that is not aligned"));
        }
        let bytes = (elements / block_type.weights() as u64)
            .checked_mul(block_type.bytes() as u64)
            .filter(|bytes| *bytes <= reader.len)
            .ok_or_else(|| damaged("has dimensions that do not fit the file"))?;
        // They fit the file, so they fit a usize. GGUF has the innermost one first.
        let shape = dimensions.into_iter().rev();
        let tensor = Tensor {
            shape: shape.map(|dimension| dimension as usize).collect(),
            block_type,
            file: 0,
            offset,
            bytes,
            name: name.clone(),
        };
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(damaged("is there twice"));
        }
    }
    let data = reader.at.next_multiple_of(alignment);
    let mut total = data;
    for tensor in tensors.values_mut() {
        let Tensor { name, bytes, .. } = &*tensor;
        let offset = tensor.offset.checked_add(data);
        let end = offset.and_then(|offset| offset.checked_add(*bytes));
        total = total.saturating_add(*bytes);
        match (offset, end) {
            (Some(offset), Some(end)) if end <= reader.len => tensor.offset = offset,
            _ => {
                return Err(GgufError::Damaged(format!(
                    "it ends before its tensor {name} does, after {} bytes",
                    reader.len
                )));
            }
        }
    }
    // Otherwise a small file could make a large model.
    if total > reader.len {
        return Err(GgufError::Damaged("its tensors overlap".to_owned()));
    }
    Ok(tensors)
}

/// Why a file cannot be read as GGUF. The caller puts the file's name before this.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The system refuses.
    #[error("{0}; name a GGUF file that can be read")]
    System(#[from] io::Error),
    /// It is something else.
    #[error("{0}; name a GGUF file")]
    NotGguf(&'static str),
    /// It is of a version that is not read.
    #[error("it {0}, and only little-endian GGUF 2 and 3 can be read; get a newer file")]
    Version(String),
    /// It contradicts itself.
    #[error("{0}; the file is damaged, download it again")]
    Damaged(String),
    /// It has more than any known model.
    #[error("it has more than {1} {0}, and no known model has; use another file")]
    TooLarge(&'static str, u64),
    /// A value of the metadata is of another kind than it should be.
    #[error(transparent)]
    Fact(#[from] FactError),
    /// A tensor is stored in a way that is not read.
    #[error(
        "its tensor {tensor} is stored as {block_type}, which cannot be read; \
         use a file of the same model in Q8_0, Q6_K, Q5_K_M or Q4_K_M"
    )]
    BlockType {
        /// The tensor.
        tensor: String,
        /// Its block type.
        block_type: String,
    },
}
