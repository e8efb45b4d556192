//! A model of others, whatever its format: what it says of itself, and its tensors by name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::blocks::BlockType;

/// The two ways in which models are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A GGUF file.
    Gguf,
    /// A folder in the layout of Hugging Face: `config.json` and safetensors files.
    Folder,
}

/// What a fact or a tensor is called in GGUF, and what in a folder.
pub(super) type Spelling = [&'static str; 2];

/// A model file or folder that was opened.
#[derive(Debug)]
pub(super) struct Source {
    /// Its format.
    pub(super) format: Format,
    facts: BTreeMap<String, Fact>,
    tensors: BTreeMap<String, Tensor>,
    files: Vec<File>,
}

/// Where a tensor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tensor {
    /// Its name.
    pub(super) name: String,
    /// Elements along each dimension, of which there is one at least. The last one is contiguous.
    pub(super) shape: Vec<usize>,
    /// How its elements are stored.
    pub(super) block_type: BlockType,
    /// Which of the files it is in.
    pub(super) file: usize,
    /// Its first byte in the file.
    pub(super) offset: u64,
    /// How many bytes it has.
    pub(super) bytes: u64,
}

impl Tensor {
    /// Elements of a row, which is contiguous.
    pub(super) fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Rows of all outer dimensions.
    pub(super) fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    /// Bytes of a row.
    pub(super) fn row_bytes(&self) -> usize {
        self.columns() / self.block_type.weights() * self.block_type.bytes()
    }
}

/// Something that a model says of itself.
#[derive(Debug, PartialEq)]
pub(super) enum Fact {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    Integers(Vec<i32>),
    Numbers(Vec<f32>),
    /// A list that nothing here asks for.
    Skipped,
}

impl Source {
    /// A source whose tensors lie in `files`.
    pub(super) fn new(
        format: Format,
        facts: BTreeMap<String, Fact>,
        tensors: BTreeMap<String, Tensor>,
        files: Vec<File>,
    ) -> Self {
        Self {
            format,
            facts,
            tensors,
            files,
        }
    }

    /// The one of two names that belongs to this format.
    pub(super) fn spelled(&self, spelling: Spelling) -> &'static str {
        match self.format {
            Format::Gguf => spelling[0],
            Format::Folder => spelling[1],
        }
    }

    /// All tensors, by name.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors.values()
    }

    /// The tensor with this name.
    pub(super) fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Fills `rows` with the bytes of the tensor's rows from `first` on.
    ///
    /// # Errors
    ///
    /// When the system refuses, or the file has become shorter.
    pub(super) fn read_rows(
        &self,
        tensor: &Tensor,
        first: usize,
        rows: &mut [u8],
    ) -> io::Result<()> {
        let offset = tensor.offset + first as u64 * tensor.row_bytes() as u64;
        let mut file = &self.files[tensor.file];
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(rows)
    }

    /// Whether there are facts whose keys begin like this.
    pub(super) fn says(&self, beginning: &str) -> bool {
        self.facts.keys().any(|key| key.starts_with(beginning))
    }

    /// The whole number at `key`, if it is there.
    ///
    /// # Errors
    ///
    /// [`FactError`] when it is something else.
    pub(super) fn count(&self, key: &str) -> Result<Option<usize>, FactError> {
        self.fact(key, "a whole number", |fact| match fact {
            Fact::Unsigned(number) => usize::try_from(*number).ok(),
            Fact::Signed(number) => usize::try_from(*number).ok(),
            _ => None,
        })
    }

    /// The number at `key`, if it is there.
    ///
    /// # Errors
    ///
    /// [`FactError`] when it is something else.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, FactError> {
        self.fact(key, "a number", |fact| match fact {
            Fact::Unsigned(number) => Some(*number as f64),
            Fact::Signed(number) => Some(*number as f64),
            Fact::Float(number) => number.is_finite().then_some(*number),
            _ => None,
        })
    }

    /// Whether `key` is there and true.
    ///
    /// # Errors
    ///
    /// [`FactError`] when it is neither true nor false.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, FactError> {
        self.fact(key, "true or false", |fact| match fact {
            Fact::Flag(flag) => Some(*flag),
            _ => None,
        })
    }

    /// The text at `key`, if it is there.
    ///
    /// # Errors
    ///
    /// [`FactError`] when it is something else.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, FactError> {
        self.fact(key, "a text", |fact| match fact {
            Fact::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The list of texts at `key`, if it is there.
    ///
    /// # Errors
    ///
    /// [`FactError`] when it is something else.
    pub(super) fn texts(&self, key: &str) -> Result<Option<&[String]>, FactError> {
        self.fact(key, "a list of texts", |fact| match fact {
            Fact::Texts(texts) => Some(texts.as_slice()),
            _ => None,
        })
    }

    /// The list of whole numbers at `key`, if it is there.
    ///
    /// # Errors
    ///
    /// [`FactError`] when it is something else.
    pub(super) fn integers(&self, key: &str) -> Result<Option<&[i32]>, FactError> {
        self.fact(key, "a list of whole numbers", |fact| match fact {
            Fact::Integers(integers) => Some(integers.as_slice()),
            _ => None,
        })
    }

    /// The list of numbers with fractions at `key`, if it is there.
    ///
    /// # Errors
    ///
    /// [`FactError`] when it is something else.
    pub(super) fn numbers(&self, key: &str) -> Result<Option<&[f32]>, FactError> {
        self.fact(key, "a list of numbers", |fact| match fact {
            Fact::Numbers(numbers) => Some(numbers.as_slice()),
            _ => None,
        })
    }

    fn fact<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(&'a Fact) -> Option<T>,
    ) -> Result<Option<T>, FactError> {
        let fact = self.facts.get(key);
        fact.map(|fact| read(fact).ok_or_else(|| FactError::new(key, expected)))
            .transpose()
    }
}

/// Something that a model says of itself is of another kind than it should be. The caller puts the
/// model's path before this.
#[derive(Debug, thiserror::Error)]
#[error("its {key} is not {expected}; get the model from its publisher")]
pub struct FactError {
    key: String,
    expected: &'static str,
}

impl FactError {
    /// The fact `key` is not what is `expected`.
    pub(super) fn new(key: &str, expected: &'static str) -> Self {
        Self {
            key: key.to_owned(),
            expected,
        }
    }
}
